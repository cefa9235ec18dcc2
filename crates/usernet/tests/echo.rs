// SPDX-License-Identifier: Apache-2.0
//! Echo requests of a guest's to an address of the host's, where this user may make them.

mod guest;

use guest::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// An address of this host's that is not loopback, if it has one and lets this user send echo requests.
fn own_address() -> Option<Ipv4Addr> {
    use rustix::net::{ipproto, socket, AddressFamily, SocketType};
    socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)).ok()?;
    let probe = UdpSocket::bind("0.0.0.0:0").ok()?;
    probe.connect("192.0.2.1:9").ok()?; // nothing is sent
    match probe.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

fn request(ident: u16, data: &[u8]) -> Vec<u8> {
    let seq_no = 3;
    let request = Icmpv4Repr::EchoRequest { ident, seq_no, data };
    let mut message = vec![0; request.buffer_len()];
    let sums = ChecksumCapabilities::default();
    request.emit(&mut Icmpv4Packet::new_unchecked(&mut message[..]), &sums);
    message
}

#[test]
fn a_guest_is_told_that_the_host_may_not_send_its_request() {
    use rustix::net::{ipproto, socket, AddressFamily, SocketType};
    if socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)).is_ok() {
        println!("skipped: net.ipv4.ping_group_range has this group");
        return;
    }
    let target = Ipv4Addr::new(192, 0, 2, 1);
    let mut guest = Guest::new("127.0.0.1:9".parse().unwrap());
    let message = request(7, b"data");
    let packet = ipv4(GUEST, target, IpProtocol::Icmp, &message);
    guest.send(EthernetProtocol::Ipv4, &packet);
    let said = guest.unreachable();
    assert_eq!(
        (said.reason, said.from),
        (Icmpv4DstUnreachable::CommProhibited, GATEWAY)
    );
    assert_eq!((said.to, said.protocol), (target, IpProtocol::Icmp));
    assert_eq!(said.quoted, message[..8]); // by which the program knows its request
}

#[test]
fn each_program_of_the_guests_has_the_echoes_of_its_own_requests() {
    let Some(target) = own_address() else {
        println!("skipped: net.ipv4.ping_group_range has not this group, or there is no address");
        return;
    };
    let mut guest = Guest::new("127.0.0.1:9".parse().unwrap());
    let sums = ChecksumCapabilities::default();
    for ident in [7, 8] {
        let data = vec![ident as u8; 3000];
        let message = request(ident, &data);
        let packet = ipv4(GUEST, target, IpProtocol::Icmp, &message);
        guest.send(EthernetProtocol::Ipv4, &packet);
        let (_, reply) = guest.wait();
        let ip = Ipv4Packet::new_checked(&reply[..]).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr()), (target, GUEST));
        let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
        let expected = Icmpv4Repr::EchoReply {
            ident,
            seq_no: 3,
            data: &data,
        };
        assert_eq!(Icmpv4Repr::parse(&icmp, &sums).unwrap(), expected);
    }
}
