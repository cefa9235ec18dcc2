// SPDX-License-Identifier: Apache-2.0
//! DHCP (RFC 2131) for one guest: it is always given the same address, for good.

use crate::config::Config;
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, Ipv4Cidr};
use std::net::Ipv4Addr;

/// Ports of the server and of the client.
pub const SERVER: u16 = 67;
/// Of the client.
pub const CLIENT: u16 = 68;
/// `Domain Name Server`, of RFC 2132.
const NAME_SERVERS: u8 = 6;
/// `Host Name`.
const HOST_NAME: u8 = 12;
/// `Interface MTU`.
const MTU: u8 = 26;
/// A lease that does not end.
const FOR_GOOD: u32 = u32::MAX;
/// Bytes of a message at least, for old clients.
const LEAST: usize = 300;

/// The answer to a client's message, and the address that it is for; broadcast where the client has none.
pub fn answer(config: &Config, message: &[u8]) -> Option<(Ipv4Addr, Vec<u8>)> {
    let packet = DhcpPacket::new_checked(message).ok()?;
    let asked = DhcpRepr::parse(&packet).ok()?;
    let message_type = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => {
            let others = asked
                .server_identifier
                .is_some_and(|server| server != config.gateway);
            if others {
                return None;
            }
            let wanted = asked.requested_ip.unwrap_or(asked.client_ip);
            match wanted == config.guest {
                true => DhcpMessageType::Ack,
                false => DhcpMessageType::Nak,
            }
        }
        DhcpMessageType::Inform => DhcpMessageType::Ack,
        _ => return None,
    };
    let target = match message_type {
        DhcpMessageType::Nak => Ipv4Addr::BROADCAST,
        _ if asked.client_ip == config.guest => asked.client_ip,
        _ => Ipv4Addr::BROADCAST,
    };
    Some((target, reply(config, &asked, message_type)?))
}

fn reply(config: &Config, asked: &DhcpRepr<'_>, message_type: DhcpMessageType) -> Option<Vec<u8>> {
    let gives = message_type != DhcpMessageType::Nak;
    let leases = gives && asked.message_type != DhcpMessageType::Inform;
    let (dns, mtu) = (config.dns.octets(), u16::try_from(config.mtu).ok()?.to_be_bytes());
    let mut options = Vec::new();
    let mut option = |kind, data| options.push(DhcpOption { kind, data });
    if gives {
        option(MTU, mtu.as_slice());
        if !config.name_servers.is_empty() {
            option(NAME_SERVERS, dns.as_slice());
        }
        if !config.host_name.is_empty() {
            option(HOST_NAME, config.host_name.as_bytes());
        }
    }
    let mask = Ipv4Cidr::new(config.guest, config.prefix_length).netmask();
    let reply = DhcpRepr {
        message_type,
        transaction_id: asked.transaction_id,
        secs: 0,
        client_hardware_address: asked.client_hardware_address,
        client_ip: if gives {
            asked.client_ip
        } else {
            Ipv4Addr::UNSPECIFIED
        },
        your_ip: if leases {
            config.guest
        } else {
            Ipv4Addr::UNSPECIFIED
        },
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: gives.then_some(config.gateway),
        subnet_mask: gives.then_some(mask),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: asked.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(config.gateway),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: leases.then_some(FOR_GOOD),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &options,
    };
    let mut bytes = vec![0; reply.buffer_len().max(LEAST)];
    reply
        .emit(&mut DhcpPacket::new_unchecked(bytes.as_mut_slice()))
        .ok()?;
    Some(bytes)
}
