// SPDX-License-Identifier: Apache-2.0
//! Datagrams of a guest's. The name server's address leads to loopback, where the tests are.

mod guest;

use domzero_usernet::Forward;
use guest::*;
use smoltcp::wire::*;
use std::net::{Ipv4Addr, UdpSocket};

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn receive(guest: &mut Guest, socket: &UdpSocket) -> (Vec<u8>, std::net::SocketAddr) {
    let mut bytes = vec![0; 1 << 16];
    let mut found = None;
    guest.until("a datagram", |_| {
        found = socket.recv_from(&mut bytes).ok();
        found.is_some()
    });
    let (count, from) = found.unwrap();
    (bytes[..count].to_vec(), from)
}

#[test]
fn a_question_and_its_answer_and_another_ports() {
    let server = socket();
    let mut guest = Guest::new(server.local_addr().unwrap());
    for port in [1000, 2000] {
        let data = vec![port as u8; 40_000];
        guest.send_udp((GUEST, port), (DNS, 53), &data);
        let (got, from) = receive(&mut guest, &server);
        assert_eq!(got, data);
        server.send_to(&data[..port as usize], from).unwrap();
        let (_, packet) = guest.wait();
        let expected = (
            (DNS, 53).into(),
            (GUEST, port).into(),
            data[..port as usize].to_vec(),
        );
        assert_eq!(read_udp(&packet), expected);
    }
}

#[test]
fn where_nobody_listens_the_guest_is_told_and_the_next_name_server_is_asked() {
    let (gone, server) = (socket(), socket());
    let servers = [gone.local_addr().unwrap(), server.local_addr().unwrap()];
    drop(gone);
    let mut guest = Guest::with(config(&servers), Vec::new());
    guest.send_udp((GUEST, 1000), (DNS, 53), b"first");
    let said = guest.unreachable();
    assert_eq!(
        (said.reason, said.from),
        (Icmpv4DstUnreachable::PortUnreachable, DNS)
    );
    assert_eq!((said.to, said.protocol), (DNS, IpProtocol::Udp));
    assert_eq!(said.quoted[..4], udp((GUEST, 1000), (DNS, 53), b"")[20..24]);
    guest.send_udp((GUEST, 1000), (DNS, 53), b"again");
    assert_eq!(receive(&mut guest, &server).0, b"again");
}

#[test]
fn what_the_host_may_not_send_is_told_to_the_guest_and_the_next_name_server_is_asked() {
    let server = socket();
    let broadcast = "255.255.255.255:53".parse().unwrap(); // EACCES
    let mut guest = Guest::with(config(&[broadcast, server.local_addr().unwrap()]), Vec::new());
    guest.send_udp((GUEST, 1000), (DNS, 53), b"first");
    let said = guest.unreachable();
    assert_eq!(
        (said.reason, said.from),
        (Icmpv4DstUnreachable::CommProhibited, GATEWAY)
    );
    assert_eq!((said.to, said.protocol), (DNS, IpProtocol::Udp));
    assert_eq!(said.quoted[..4], udp((GUEST, 1000), (DNS, 53), b"")[20..24]);
    guest.send_udp((GUEST, 1000), (DNS, 53), b"again");
    assert_eq!(receive(&mut guest, &server).0, b"again");
}

#[test]
fn nothing_of_the_hosts_loopback_is_reached() {
    let server = socket();
    let port = server.local_addr().unwrap().port();
    let mut guest = Guest::new(server.local_addr().unwrap());
    for target in [[127, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1], [255, 255, 255, 255]] {
        guest.send_udp((GUEST, 1000), (Ipv4Addr::from(target), port), b"no");
    }
    for target in [GATEWAY, DNS] {
        guest.send_udp((GUEST, 1000), (target, port), b"no");
    }
    guest.send_udp((Ipv4Addr::new(127, 0, 0, 1), 1000), (DNS, 53), b"no");
    guest.send_udp((GUEST, 1000), (DNS, 53), b"yes");
    assert_eq!(receive(&mut guest, &server).0, b"yes");
}

#[test]
fn a_port_of_the_hosts_leads_to_the_guest() {
    let forward = socket();
    let address = forward.local_addr().unwrap();
    let mut guest = Guest::with(config(&[]), vec![Forward::Udp(forward, 69)]);
    guest.settle(); // it is seen
    let clients = [socket(), socket()];
    for client in &clients {
        client.send_to(b"read", address).unwrap();
        let (_, packet) = guest.wait();
        let (from, to, data) = read_udp(&packet);
        assert_eq!(
            (from.ip(), to, data),
            (GATEWAY.into(), (GUEST, 69).into(), b"read".to_vec())
        );
        assert_eq!(from.port(), client.local_addr().unwrap().port());
        guest.send_udp((GUEST, 69), (GATEWAY, from.port()), b"data");
        let (data, from) = receive(&mut guest, client);
        assert_eq!((data, from), (b"data".to_vec(), address));
    }
}
