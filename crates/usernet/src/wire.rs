// SPDX-License-Identifier: Apache-2.0
//! The guest's end of the network: frames on a link, and what the guest has shown of itself.

use crate::packet::Message;
use domzero_backends::net::Link;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, ETHERNET_HEADER_LEN};
use std::net::{IpAddr, Ipv4Addr};

/// The router's address on the link: of those that anybody may choose.
pub const ROUTER: EthernetAddress = EthernetAddress([0x52, 0x55, 0x0a, 0x00, 0x02, 0x02]);

/// A link with one guest behind it.
pub struct Wire {
    pub link: Link,
    /// The guest's address on the link; broadcast until it has sent something.
    pub guest: EthernetAddress,
    /// The address of IPv4 that it last sent from.
    pub guest_ipv4: Option<Ipv4Addr>,
    /// Bytes of a packet at most.
    pub mtu: usize,
}

impl Wire {
    /// A link whose guest has sent nothing.
    pub fn new(link: Link, mtu: usize) -> Wire {
        Wire {
            link,
            guest: EthernetAddress::BROADCAST,
            guest_ipv4: None,
            mtu,
        }
    }

    /// Sends the guest a frame of `length` bytes behind its header.
    pub fn send<R>(
        &mut self,
        protocol: EthernetProtocol,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let guest = self.guest;
        self.link.send_filled(ETHERNET_HEADER_LEN + length, |bytes| {
            let mut frame = EthernetFrame::new_unchecked(bytes);
            frame.set_src_addr(ROUTER);
            frame.set_dst_addr(guest);
            frame.set_ethertype(protocol);
            fill(frame.payload_mut())
        })
    }

    /// Sends the guest a packet. One that is too large, or for which the link has no room, is dropped.
    pub fn send_message(&mut self, source: IpAddr, target: IpAddr, message: &Message<'_>) {
        let Some((header, length)) = message.header(source, target) else {
            return;
        };
        if length <= self.mtu && self.link.has_room() {
            self.send(protocol_of(source), length, |bytes| message.emit(&header, bytes));
        }
    }
}

fn protocol_of(address: IpAddr) -> EthernetProtocol {
    match address {
        IpAddr::V4(_) => EthernetProtocol::Ipv4,
        IpAddr::V6(_) => EthernetProtocol::Ipv6,
    }
}

/// What smoltcp sees of the wire: one packet of the guest's at most, and room for others to it.
pub struct Packets<'a> {
    pub wire: &'a mut Wire,
    pub incoming: Option<&'a [u8]>,
    /// It has not sent what it could: the link has no room.
    pub is_stopped: bool,
}

impl<'a> Packets<'a> {
    pub fn new(wire: &'a mut Wire, incoming: Option<&'a [u8]>) -> Packets<'a> {
        Packets {
            wire,
            incoming,
            is_stopped: false,
        }
    }
}

impl Device for Packets<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing(self.wire)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        self.is_stopped = !self.wire.link.has_room();
        (!self.is_stopped).then_some(Outgoing(self.wire))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.wire.mtu;
        capabilities
    }
}

/// A packet of the guest's.
pub struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a packet to the guest.
pub struct Outgoing<'a>(&'a mut Wire);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        // The version is known only when it is written: the frame's type is set behind it.
        let guest = self.0.guest;
        self.0.link.send_filled(ETHERNET_HEADER_LEN + length, |bytes| {
            let mut frame = EthernetFrame::new_unchecked(bytes);
            let result = f(frame.payload_mut());
            let is_ipv6 = frame.payload_mut().first().is_some_and(|byte| byte >> 4 == 6);
            frame.set_src_addr(ROUTER);
            frame.set_dst_addr(guest);
            frame.set_ethertype(match is_ipv6 {
                true => EthernetProtocol::Ipv6,
                false => EthernetProtocol::Ipv4,
            });
            result
        })
    }
}
