// SPDX-License-Identifier: Apache-2.0
//! Packets of IPv4 and IPv6: what is in one of the guest's, and how one for the guest is made. A guest may have written
//! anything: what is not understood, has a wrong checksum or is a fragment is `None`.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr, TcpPacket, UdpPacket, UdpRepr,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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

/// A message that says that nobody has the port of a datagram that the guest sent.
pub fn port_unreachable(guest: SocketAddr, peer: SocketAddr, quoted: &[u8; 8]) -> Message<'_> {
    use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv6DstUnreachable};
    match (guest.ip(), peer.ip()) {
        (IpAddr::V6(source), IpAddr::V6(target)) => Message::Icmpv6(Icmpv6Repr::DstUnreachable {
            reason: Icmpv6DstUnreachable::PortUnreachable,
            header: ipv6_header(source, target),
            data: quoted,
        }),
        (source, target) => Message::Icmp(Icmpv4Repr::DstUnreachable {
            reason: Icmpv4DstUnreachable::PortUnreachable,
            header: ipv4_header(ipv4(source), ipv4(target)),
            data: quoted,
        }),
    }
}

fn ipv4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn ipv4_header(source: Ipv4Addr, target: Ipv4Addr) -> Ipv4Repr {
    Ipv4Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Udp,
        payload_len: smoltcp::wire::UDP_HEADER_LEN,
        hop_limit: HOPS,
    }
}

fn ipv6_header(source: Ipv6Addr, target: Ipv6Addr) -> Ipv6Repr {
    Ipv6Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Udp,
        payload_len: smoltcp::wire::UDP_HEADER_LEN,
        hop_limit: HOPS,
    }
}
