// SPDX-License-Identifier: Apache-2.0
//! Whether a frame comes from who it says: its source in Ethernet, ARP, IPv4, IPv6 and neighbour discovery. What is not
//! understood to its end does not.

use super::frame::{
    byte, word, ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_FRAGMENT, IPV4_HEADER, IPV6_HEADER, UDP,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERTYPE_ARP: u16 = 0x0806;
/// A tag of four bytes stands before the type: of a VLAN, of a provider's, of an old provider's.
const ETHERTYPE_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const TAG: usize = 4;
const TAGS_MOST: usize = 2;

/// Ethernet and IPv4, and the lengths of their addresses.
const ARP_KINDS: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;

const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
/// Hop by hop, routing, destination, mobility, host identity, shim6: their second byte says how long they are.
const EXTENSIONS: [u8; 6] = [0, 43, 60, 135, 139, 140];
const EXTENSIONS_MOST: usize = 8;

const MULTICAST_REPORTS: [u8; 3] = [131, 132, 143];
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// Options of neighbour discovery: the sender's address on the link, that of what is advertised.
const LINK_ADDRESSES: [u8; 2] = [1, 2];

/// Who a guest is.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The address of its interface.
    pub mac: [u8; 6],
    /// What it may call itself. Addresses of IPv6's link-local kind are all its own, unless one is among these.
    pub addresses: &'a [IpAddr],
}

impl Source<'_> {
    /// Whether a frame is this guest's. `None`: it cannot be understood.
    pub fn owns(&self, frame: &[u8]) -> Option<bool> {
        if frame.get(6..12)? != self.mac {
            return Some(false);
        }
        let mut at = ETHERNET;
        for _ in 0..TAGS_MOST {
            if !ETHERTYPE_TAGS.contains(&word(frame, at - 2)?) {
                break;
            }
            at += TAG;
        }
        let packet = frame.get(at..)?;
        match word(frame, at - 2)? {
            ETHERTYPE_ARP => self.arp(packet),
            ETHERTYPE_IPV4 => self.ipv4(packet),
            ETHERTYPE_IPV6 => self.ipv6(packet),
            // In what else is there, addresses may be hidden.
            _ => Some(false),
        }
    }

    fn has(&self, address: impl Into<IpAddr>) -> bool {
        self.addresses.contains(&address.into())
    }

    fn has_v6(&self, address: Ipv6Addr) -> bool {
        let is_local = |address: &Ipv6Addr| address.segments()[0] & 0xffc0 == 0xfe80;
        let names_one = || {
            self.addresses
                .iter()
                .any(|each| matches!(each, IpAddr::V6(one) if is_local(one)))
        };
        self.has(address) || (is_local(&address) && !names_one())
    }

    fn arp(&self, packet: &[u8]) -> Option<bool> {
        let (kinds, sender_mac) = (packet.get(..6)?, packet.get(8..14)?);
        let (operation, sender) = (word(packet, 6)?, v4(packet, 14)?);
        packet.get(..28)?;
        let is_probe = sender.is_unspecified() && operation == ARP_REQUEST;
        let is_known = [ARP_REQUEST, ARP_REPLY].contains(&operation);
        Some(kinds == ARP_KINDS && is_known && sender_mac == self.mac && (is_probe || self.has(sender)))
    }

    fn ipv4(&self, packet: &[u8]) -> Option<bool> {
        let first = byte(packet, 0)?;
        let header = usize::from(first & 15) * 4;
        packet.get(..header)?;
        if first >> 4 != 4 || header < IPV4_HEADER {
            return Some(false);
        }
        let source = v4(packet, 12)?;
        if !source.is_unspecified() {
            return Some(self.has(source));
        }
        // It has no address yet, and asks for one.
        let is_whole = word(packet, 6)? & IPV4_FRAGMENT == 0;
        let asks = (word(packet, header)?, word(packet, header + 2)?) == (DHCP_CLIENT, DHCP_SERVER);
        Some(is_whole && byte(packet, 9)? == UDP && asks)
    }

    fn ipv6(&self, packet: &[u8]) -> Option<bool> {
        let end = IPV6_HEADER + usize::from(word(packet, 4)?);
        let packet = packet.get(..end)?;
        if byte(packet, 0)? >> 4 != 6 {
            return Some(false);
        }
        let source = v6(packet, 8)?;
        let upper = Upper::find(packet)?;
        if !source.is_unspecified() && !self.has_v6(source) {
            return Some(false);
        }
        match upper {
            Upper::Icmp { at, is_fragment } => self.icmp(packet.get(at..)?, source, is_fragment),
            Upper::Other => Some(!source.is_unspecified()),
        }
    }

    /// ICMPv6, with the neighbour discovery of RFC 4861 in it.
    fn icmp(&self, message: &[u8], source: Ipv6Addr, is_fragment: bool) -> Option<bool> {
        let kind = byte(message, 0)?;
        let options = match kind {
            // Routers are none of the guests that have addresses of their own here.
            ROUTER_ADVERTISEMENT | REDIRECT => return Some(false),
            ROUTER_SOLICITATION => 8,
            NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => 24,
            _ if source.is_unspecified() => return Some(MULTICAST_REPORTS.contains(&kind)),
            _ => return Some(true),
        };
        if is_fragment {
            return Some(false); // RFC 6980
        }
        // Who has no address yet asks whether another has the one that it is to have.
        let is_about_itself =
            kind == NEIGHBOUR_ADVERTISEMENT || (kind == NEIGHBOUR_SOLICITATION && source.is_unspecified());
        if is_about_itself && !self.has_v6(v6(message, 8)?) {
            return Some(false);
        }
        let mut rest = message.get(options..)?;
        while let Some(kind) = rest.first() {
            let length = usize::from(byte(rest, 1)?) * 8;
            let option = rest.get(..length).filter(|option| !option.is_empty())?;
            if LINK_ADDRESSES.contains(kind) && option.get(2..)? != self.mac {
                return Some(false);
            }
            rest = rest.get(length..)?;
        }
        Some(kind != NEIGHBOUR_ADVERTISEMENT || !source.is_unspecified())
    }
}

/// What comes behind the headers of IPv6.
enum Upper {
    Icmp { at: usize, is_fragment: bool },
    Other,
}

impl Upper {
    /// `None`: its beginning is not in this packet, which a first fragment's has to be (RFC 7112).
    fn find(packet: &[u8]) -> Option<Upper> {
        let (mut next, mut at, mut is_fragment) = (byte(packet, 6)?, IPV6_HEADER, false);
        for _ in 0..EXTENSIONS_MOST {
            let length = match next {
                FRAGMENT => {
                    if word(packet, at + 2)? & !7 != 0 {
                        return Some(Upper::Other); // a later one
                    }
                    is_fragment = true;
                    8
                }
                AUTHENTICATION => usize::from(byte(packet, at + 1)?) * 4 + 8,
                ICMPV6 => return Some(Upper::Icmp { at, is_fragment }),
                each if EXTENSIONS.contains(&each) => usize::from(byte(packet, at + 1)?) * 8 + 8,
                _ => return packet.get(at..).map(|_| Upper::Other),
            };
            next = byte(packet, at)?;
            at += length;
        }
        None
    }
}

fn v4(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(bytes.into())
}

fn v6(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(bytes.into())
}
