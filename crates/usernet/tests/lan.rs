// SPDX-License-Identifier: Apache-2.0
//! What the network answers itself: addresses, neighbours, routers, echoes.

mod guest;

use domzero_usernet::{DHCP_CLIENT, DHCP_SERVER};
use guest::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;
use std::net::{Ipv4Addr, Ipv6Addr};

fn nobody() -> std::net::SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

fn asked(message_type: DhcpMessageType, requested: Option<Ipv4Addr>) -> Vec<u8> {
    let message = DhcpRepr {
        message_type,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: MAC,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: requested,
        client_identifier: Some(MAC),
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6, 12, 26]),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; message.buffer_len()];
    message
        .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
        .unwrap();
    bytes
}

/// Asks by DHCP; the answer's kind, address, and some options.
fn dhcp(guest: &mut Guest, message: &[u8]) -> (DhcpMessageType, Ipv4Addr, Vec<(u8, Vec<u8>)>) {
    guest.send_udp(
        (Ipv4Addr::UNSPECIFIED, DHCP_CLIENT),
        (Ipv4Addr::BROADCAST, DHCP_SERVER),
        message,
    );
    let (protocol, packet) = guest.wait();
    assert_eq!(protocol, EthernetProtocol::Ipv4);
    let (from, to, data) = read_udp(&packet);
    assert_eq!((from, to.port()), ((GATEWAY, DHCP_SERVER).into(), DHCP_CLIENT));
    let packet = DhcpPacket::new_checked(&data[..]).unwrap();
    let reply = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(reply.transaction_id, 0x1234_5678);
    let options = packet.options().map(|each| (each.kind, each.data.to_vec()));
    (reply.message_type, reply.your_ip, options.collect())
}

#[test]
fn a_guest_is_given_its_address_router_name_server_name_and_mtu() {
    let mut guest = Guest::new(nobody());
    let (kind, address, _) = dhcp(&mut guest, &asked(DhcpMessageType::Discover, None));
    assert_eq!((kind, address), (DhcpMessageType::Offer, GUEST));
    let (kind, address, options) = dhcp(&mut guest, &asked(DhcpMessageType::Request, Some(GUEST)));
    assert_eq!((kind, address), (DhcpMessageType::Ack, GUEST));
    for (kind, data) in [
        (1, vec![255, 255, 255, 0]),
        (3, GATEWAY.octets().to_vec()),
        (6, DNS.octets().to_vec()),
        (12, b"guest".to_vec()),
        (26, 65516u16.to_be_bytes().to_vec()),
    ] {
        assert!(options.contains(&(kind, data)), "option {kind}: {options:?}");
    }
}

#[test]
fn a_guest_that_wants_another_address_is_told_no() {
    let mut guest = Guest::new(nobody());
    let other = Ipv4Addr::new(192, 168, 1, 5);
    let (kind, address, _) = dhcp(&mut guest, &asked(DhcpMessageType::Request, Some(other)));
    assert_eq!((kind, address), (DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED));
}

#[test]
fn the_router_answers_for_all_addresses_but_the_guests() {
    let mut guest = Guest::new(nobody());
    for target in [GATEWAY, DNS, Ipv4Addr::new(10, 0, 2, 77)] {
        guest.send_to(
            EthernetAddress::BROADCAST,
            EthernetProtocol::Arp,
            &arp(GUEST, target),
        );
        let (protocol, reply) = guest.wait();
        assert_eq!(protocol, EthernetProtocol::Arp);
        let ArpRepr::EthernetIpv4 {
            source_protocol_addr, ..
        } = ArpRepr::parse(&ArpPacket::new_checked(&reply[..]).unwrap()).unwrap()
        else {
            panic!("{reply:?}")
        };
        assert_eq!(source_protocol_addr, target);
    }
    // It asks whether its own address is free, by a probe and by an announcement, and for others that it may want.
    let other = Ipv4Addr::new(10, 0, 2, 99);
    for (source, target) in [
        (Ipv4Addr::UNSPECIFIED, GUEST),
        (GUEST, GUEST),
        (Ipv4Addr::UNSPECIFIED, other),
        (other, other),
    ] {
        guest.send_to(
            EthernetAddress::BROADCAST,
            EthernetProtocol::Arp,
            &arp(source, target),
        );
    }
    assert_eq!(guest.settle(), []);
}

fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, hops: u8, message: &Icmpv6Repr<'_>) -> Vec<u8> {
    let header = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: hops,
    };
    let mut bytes = vec![0; header.buffer_len() + message.buffer_len()];
    header.emit(&mut Ipv6Packet::new_unchecked(&mut bytes));
    let mut packet = Icmpv6Packet::new_unchecked(&mut bytes[header.buffer_len()..]);
    message.emit(&from, &to, &mut packet, &ChecksumCapabilities::default());
    bytes
}

fn solicitation() -> Vec<u8> {
    let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None });
    icmpv6(
        "fe80::15".parse().unwrap(),
        "ff02::2".parse().unwrap(),
        255,
        &message,
    )
}

#[test]
fn a_router_of_ipv6_is_there_where_the_host_has_ipv6() {
    let mut guest = Guest::new(nobody());
    guest.send_to(
        EthernetAddress([0x33, 0x33, 0, 0, 0, 2]),
        EthernetProtocol::Ipv6,
        &solicitation(),
    );
    let (_, packet) = guest.wait();
    let ip = Ipv6Packet::new_checked(&packet[..]).unwrap();
    assert_eq!(ip.hop_limit(), 255);
    let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    let parsed = Icmpv6Repr::parse(
        &ip.src_addr(),
        &ip.dst_addr(),
        &icmp,
        &ChecksumCapabilities::default(),
    );
    let Ok(Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        prefix_info: Some(prefix),
        mtu,
        ..
    })) = parsed
    else {
        panic!("{parsed:?}")
    };
    assert_eq!((prefix.prefix.to_string(), mtu), ("fd00:1::".into(), Some(65516)));

    let mut without = config(&[nobody()]);
    without.ipv6 = None;
    let mut guest = Guest::with(without, Vec::new());
    guest.send(EthernetProtocol::Ipv6, &solicitation());
    assert_eq!(guest.settle(), []);
}

#[test]
fn the_router_answers_echo_requests_to_itself() {
    let mut guest = Guest::new(nobody());
    let request = Icmpv4Repr::EchoRequest {
        ident: 7,
        seq_no: 3,
        data: b"what comes back",
    };
    let mut message = vec![0; request.buffer_len()];
    let sums = ChecksumCapabilities::default();
    request.emit(&mut Icmpv4Packet::new_unchecked(&mut message[..]), &sums);
    let packet = ipv4(GUEST, GATEWAY, IpProtocol::Icmp, &message);
    guest.send(EthernetProtocol::Ipv4, &packet);
    let (_, reply) = guest.wait();
    let ip = Ipv4Packet::new_checked(&reply[..]).unwrap();
    assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY, GUEST));
    let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
    assert_eq!(
        Icmpv4Repr::parse(&icmp, &sums).unwrap(),
        Icmpv4Repr::EchoReply {
            ident: 7,
            seq_no: 3,
            data: b"what comes back"
        }
    );
}
