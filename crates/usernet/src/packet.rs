// SPDX-License-Identifier: Apache-2.0
//! Packets of IPv4 and IPv6: what is in one of the guest's, and how one for the guest is made. A guest may have written
//! anything: what is not understood, has a wrong checksum or is a fragment is `None`.

use rustix::io::Errno;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
    IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpPacket, UdpPacket, UdpRepr,
};
use std::io;
use std::net::IpAddr;

/// Hops that a packet of ours may make.
pub const HOPS: u8 = 64;
/// Hops that a message between neighbours must have.
pub const NEIGHBOUR_HOPS: u8 = 255;

/// A packet of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub source: IpAddr,
    pub target: IpAddr,
    /// Hops that it may still make.
    pub hops: u8,
    pub body: Body<'a>,
}

/// What is in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// A segment of TCP, which is looked at again where its connection is; one that asks for a connection is right.
    Tcp {
        source: u16,
        target: u16,
        /// It asks for a connection.
        opens: bool,
    },
    Udp {
        source: u16,
        target: u16,
        data: &'a [u8],
    },
    /// A message of ICMP, or of IPv6's.
    Icmp(&'a [u8]),
}

impl<'a> Packet<'a> {
    /// Takes a packet apart.
    pub fn parse(bytes: &'a [u8]) -> Option<Packet<'a>> {
        match bytes.first()? >> 4 {
            4 => Packet::parse_ipv4(bytes),
            6 => Packet::parse_ipv6(bytes),
            _ => None,
        }
    }

    fn parse_ipv4(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let packet = Ipv4Packet::new_checked(bytes).ok()?;
        let header = Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).ok()?;
        let (source, target) = (IpAddr::V4(header.src_addr), IpAddr::V4(header.dst_addr));
        Some(Packet {
            source,
            target,
            hops: header.hop_limit,
            body: Body::parse(header.next_header, source, target, packet.payload())?,
        })
    }

    fn parse_ipv6(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let packet = Ipv6Packet::new_checked(bytes).ok()?;
        let header = Ipv6Repr::parse(&packet).ok()?;
        let (source, target) = (IpAddr::V6(header.src_addr), IpAddr::V6(header.dst_addr));
        Some(Packet {
            source,
            target,
            hops: header.hop_limit,
            body: Body::parse(header.next_header, source, target, packet.payload())?,
        })
    }
}

/// What a message about a packet quotes of what is behind its IP header.
pub fn quoted(packet: &[u8]) -> Option<[u8; 8]> {
    let body = match packet.first()? >> 4 {
        4 => Ipv4Packet::new_checked(packet).ok()?.payload(),
        _ => Ipv6Packet::new_checked(packet).ok()?.payload(),
    };
    body.first_chunk().copied()
}

impl<'a> Body<'a> {
    fn parse(protocol: IpProtocol, source: IpAddr, target: IpAddr, data: &'a [u8]) -> Option<Body<'a>> {
        match protocol {
            IpProtocol::Tcp => {
                let segment = TcpPacket::new_checked(data).ok()?;
                let opens = segment.syn() && !segment.ack() && !segment.rst() && !segment.fin();
                if opens && !segment.verify_checksum(&source.into(), &target.into()) {
                    return None;
                }
                Some(Body::Tcp {
                    source: some_port(segment.src_port())?,
                    target: some_port(segment.dst_port())?,
                    opens,
                })
            }
            IpProtocol::Udp => {
                let datagram = UdpPacket::new_checked(data).ok()?;
                let checked = ChecksumCapabilities::default();
                UdpRepr::parse(&datagram, &source.into(), &target.into(), &checked).ok()?;
                Some(Body::Udp {
                    source: some_port(datagram.src_port())?,
                    target: some_port(datagram.dst_port())?,
                    data: datagram.payload(),
                })
            }
            IpProtocol::Icmp if source.is_ipv4() => Some(Body::Icmp(data)),
            IpProtocol::Icmpv6 if source.is_ipv6() => Some(Body::Icmp(data)),
            _ => None,
        }
    }
}

fn some_port(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

/// What is in a packet for the guest.
pub enum Message<'a> {
    Udp {
        source: u16,
        target: u16,
        data: &'a [u8],
    },
    Icmp(Icmpv4Repr<'a>),
    Icmpv6(Icmpv6Repr<'a>),
}

impl Message<'_> {
    fn length(&self) -> usize {
        match self {
            Message::Udp { data, .. } => smoltcp::wire::UDP_HEADER_LEN + data.len(),
            Message::Icmp(message) => message.buffer_len(),
            Message::Icmpv6(message) => message.buffer_len(),
        }
    }

    fn protocol(&self) -> IpProtocol {
        match self {
            Message::Udp { .. } => IpProtocol::Udp,
            Message::Icmp(_) => IpProtocol::Icmp,
            Message::Icmpv6(_) => IpProtocol::Icmpv6,
        }
    }

    /// The header of a packet with this in it, and the length of all. `None`: the addresses are of two families.
    pub fn header(&self, source: IpAddr, target: IpAddr) -> Option<(IpRepr, usize)> {
        if source.is_ipv4() != target.is_ipv4() {
            return None;
        }
        let hops = match self {
            Message::Icmpv6(Icmpv6Repr::Ndisc(_)) => NEIGHBOUR_HOPS,
            _ => HOPS,
        };
        let header = IpRepr::new(source.into(), target.into(), self.protocol(), self.length(), hops);
        let length = header.buffer_len();
        Some((header, length))
    }

    /// Writes the packet whose `header` this is.
    pub fn emit(&self, header: &IpRepr, bytes: &mut [u8]) {
        let sums = ChecksumCapabilities::default();
        header.emit(&mut *bytes, &sums);
        let Some(bytes) = bytes.get_mut(header.header_len()..) else {
            return;
        };
        match (self, header) {
            (Message::Udp { source, target, data }, _) => {
                let ports = UdpRepr {
                    src_port: *source,
                    dst_port: *target,
                };
                let (from, to): (IpAddress, IpAddress) = (header.src_addr(), header.dst_addr());
                let copy = |room: &mut [u8]| room.copy_from_slice(data);
                let mut packet = UdpPacket::new_unchecked(bytes);
                ports.emit(&mut packet, &from, &to, data.len(), copy, &sums);
            }
            (Message::Icmp(message), _) => message.emit(&mut Icmpv4Packet::new_unchecked(bytes), &sums),
            (Message::Icmpv6(message), IpRepr::Ipv6(ip)) => {
                let mut packet = Icmpv6Packet::new_unchecked(bytes);
                message.emit(&ip.src_addr, &ip.dst_addr, &mut packet, &sums);
            }
            (Message::Icmpv6(_), IpRepr::Ipv4(_)) => {}
        }
    }
}

/// Why nobody got what the guest sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody has the port.
    Port,
    Host,
    Network,
    /// Somebody on the way, or this host, does not let it through.
    Prohibited,
}

impl Unreachable {
    /// What a host's error means to the guest. `None`: who was asked has refused, or it is no matter of the way there.
    pub fn of(error: &io::Error) -> Option<Unreachable> {
        match Errno::from_io_error(error)? {
            Errno::NETUNREACH | Errno::NETDOWN => Some(Unreachable::Network),
            Errno::HOSTUNREACH | Errno::HOSTDOWN | Errno::TIMEDOUT => Some(Unreachable::Host),
            Errno::ACCESS | Errno::PERM => Some(Unreachable::Prohibited),
            _ => None,
        }
    }

    /// The message, about the packet of `protocol` that begins with `quoted` behind its IP header.
    pub fn message<'a>(
        self,
        protocol: IpProtocol,
        guest: IpAddr,
        peer: IpAddr,
        quoted: &'a [u8; 8],
    ) -> Option<Message<'a>> {
        if guest.is_ipv4() != peer.is_ipv4() {
            return None;
        }
        match IpRepr::new(guest.into(), peer.into(), protocol, quoted.len(), HOPS) {
            IpRepr::Ipv4(header) => Some(Message::Icmp(Icmpv4Repr::DstUnreachable {
                reason: match self {
                    Unreachable::Port => Icmpv4DstUnreachable::PortUnreachable,
                    Unreachable::Host => Icmpv4DstUnreachable::HostUnreachable,
                    Unreachable::Network => Icmpv4DstUnreachable::NetUnreachable,
                    Unreachable::Prohibited => Icmpv4DstUnreachable::CommProhibited,
                },
                header,
                data: quoted,
            })),
            IpRepr::Ipv6(header) => Some(Message::Icmpv6(Icmpv6Repr::DstUnreachable {
                reason: match self {
                    Unreachable::Port => Icmpv6DstUnreachable::PortUnreachable,
                    Unreachable::Host => Icmpv6DstUnreachable::AddrUnreachable,
                    Unreachable::Network => Icmpv6DstUnreachable::NoRoute,
                    Unreachable::Prohibited => Icmpv6DstUnreachable::AdminProhibit,
                },
                header,
                data: quoted,
            })),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_way_there_are_told_apart_from_refusals() {
        let found = |errno: Errno| Unreachable::of(&errno.into());
        assert_eq!(found(Errno::NETUNREACH), Some(Unreachable::Network));
        assert_eq!(found(Errno::HOSTUNREACH), Some(Unreachable::Host));
        assert_eq!(found(Errno::TIMEDOUT), Some(Unreachable::Host));
        assert_eq!(found(Errno::ACCESS), Some(Unreachable::Prohibited));
        for other in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::AGAIN, Errno::MFILE] {
            assert_eq!(found(other), None);
        }
    }

    #[test]
    fn both_families_have_a_message_for_each_reason() {
        let why = [
            (Unreachable::Port, 3, 4),
            (Unreachable::Host, 1, 3),
            (Unreachable::Network, 0, 0),
            (Unreachable::Prohibited, 13, 1),
        ];
        let (four, six): (IpAddr, IpAddr) = ("10.0.2.15".parse().unwrap(), "fd00::15".parse().unwrap());
        for (why, code_of_4, code_of_6) in why {
            for (guest, kind, code, inner) in [(four, 3, code_of_4, 20), (six, 1, code_of_6, 40)] {
                let message = why.message(IpProtocol::Tcp, guest, guest, b"ports+no").unwrap();
                let (header, length) = message.header(guest, guest).unwrap();
                let mut bytes = vec![0; length];
                message.emit(&header, &mut bytes);
                let Body::Icmp(said) = Packet::parse(&bytes).unwrap().body else {
                    panic!("another protocol");
                };
                assert_eq!((said[0], said[1]), (kind, code));
                assert_eq!(&said[8 + inner..], b"ports+no");
            }
        }
        assert!(Unreachable::Host
            .message(IpProtocol::Tcp, four, six, &[0; 8])
            .is_none());
    }
}
