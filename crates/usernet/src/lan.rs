// SPDX-License-Identifier: Apache-2.0
//! What the link itself answers: who has an address (ARP, neighbours of IPv6), who the router is. The router answers for all
//! addresses but the guest's own, so that those of a network which the host is in, too, are reached.

use crate::address::is_source;
use crate::config::Config;
use crate::packet::{Message, HOPS, NEIGHBOUR_HOPS};
use crate::wire::{Wire, ROUTER};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags,
    NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags, RawHardwareAddress,
};
use std::net::{IpAddr, Ipv6Addr};

/// The router's own address on the link.
pub const ROUTER_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// All stations of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Seconds for which a router is one: the most that can be said.
const ROUTER_LIFETIME: Duration = Duration::from_secs(9000);
/// Seconds for which addresses hold: for good.
const FOR_GOOD: Duration = Duration::from_secs(u32::MAX as u64);
/// Bits of the prefix of addresses that guests make themselves.
const PREFIX_LENGTH: u8 = 64;

/// Answers who has an IPv4 address.
pub fn answer_arp(config: &Config, wire: &mut Wire, bytes: &[u8]) -> Option<()> {
    let asked = ArpRepr::parse(&ArpPacket::new_checked(bytes).ok()?).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = asked
    else {
        return None;
    };
    // One that asks for itself, or before it takes an address, is not to hear that somebody has it.
    let is_probe = !is_source(IpAddr::V4(source_protocol_addr));
    let is_guests = target_protocol_addr == config.guest || target_protocol_addr == source_protocol_addr;
    if is_probe && !config.is_own(IpAddr::V4(target_protocol_addr)) || is_guests {
        return None;
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: ROUTER,
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    if wire.link.has_room() {
        wire.send(EthernetProtocol::Arp, reply.buffer_len(), |bytes| {
            reply.emit(&mut ArpPacket::new_unchecked(bytes));
        });
    }
    Some(())
}

/// Answers a guest that looks for neighbours or routers with IPv6.
pub fn answer_ndisc(
    config: &Config,
    wire: &mut Wire,
    source: Ipv6Addr,
    target: Ipv6Addr,
    hops: u8,
    message: &[u8],
) -> Option<()> {
    let ipv6 = config.ipv6?;
    let packet = Icmpv6Packet::new_checked(message).ok()?;
    let sums = ChecksumCapabilities::default();
    let Icmpv6Repr::Ndisc(asked) = Icmpv6Repr::parse(&source, &target, &packet, &sums).ok()? else {
        return None;
    };
    if hops != NEIGHBOUR_HOPS {
        return None;
    }
    let router = Some(RawHardwareAddress::from(ROUTER));
    let to = if source.is_unspecified() {
        ALL_NODES
    } else {
        source
    };
    match asked {
        NdiscRepr::NeighborSolicit { target_addr, .. } => {
            // Without a source, it looks whether the address that it wants is free.
            let is_free = source.is_unspecified() && target_addr != ROUTER_IPV6;
            let is_other_link = target_addr.is_unicast_link_local() && target_addr != ROUTER_IPV6;
            if is_free || is_other_link || target_addr.is_multicast() || target_addr == source {
                return None;
            }
            let reply = NdiscRepr::NeighborAdvert {
                flags: NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED,
                target_addr,
                lladdr: router,
            };
            say(wire, target_addr, to, reply);
        }
        NdiscRepr::RouterSolicit { .. } => {
            let prefix = NdiscPrefixInformation {
                prefix_len: PREFIX_LENGTH,
                // Not of the link: neighbours there are reached through the router.
                flags: NdiscPrefixInfoFlags::ADDRCONF,
                valid_lifetime: FOR_GOOD,
                preferred_lifetime: FOR_GOOD,
                prefix: ipv6.prefix,
            };
            let reply = NdiscRepr::RouterAdvert {
                hop_limit: HOPS,
                flags: NdiscRouterFlags::empty(),
                router_lifetime: ROUTER_LIFETIME,
                reachable_time: Duration::ZERO,
                retrans_time: Duration::ZERO,
                lladdr: router,
                mtu: u32::try_from(config.mtu).ok(),
                prefix_info: Some(prefix),
            };
            say(wire, ROUTER_IPV6, to, reply);
        }
        _ => return None,
    }
    Some(())
}

fn say(wire: &mut Wire, source: Ipv6Addr, target: Ipv6Addr, message: NdiscRepr<'_>) {
    let message = Message::Icmpv6(Icmpv6Repr::Ndisc(message));
    wire.send_message(IpAddr::V6(source), IpAddr::V6(target), &message);
}
