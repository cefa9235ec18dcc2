// SPDX-License-Identifier: Apache-2.0
//! Connections of a guest's with programs on the host. The name server's address leads to loopback, where the tests are;
//! a connection to any other address goes the same way.

mod guest;

use domzero_usernet::{Forward, CONNECTIONS_MAX};
use guest::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::wire::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// A guest, and both ends of a connection of its.
fn connected(room: usize) -> (Guest, smoltcp::iface::SocketHandle, TcpStream) {
    let listener = listener();
    let mut guest = Guest::new(listener.local_addr().unwrap());
    let handle = guest.connect((DNS, 53), room);
    guest.until("a connection", |guest| {
        guest.tcp(handle).state() == State::Established
    });
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    (guest, handle, stream)
}

/// What the host's end has; `None`: nothing yet. Empty: it has ended.
fn read(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1 << 16];
    match stream.read(&mut bytes) {
        Ok(count) => Some(bytes[..count].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

#[test]
fn data_goes_both_ways_whole_and_in_order() {
    let (mut guest, handle, stream) = connected(1 << 17);
    let data = pattern(3_000_000);
    let (mut sent, mut written) = (0, 0);
    let (mut at_host, mut at_guest) = (Vec::new(), Vec::new());
    guest.until("all of the data", |guest| {
        let socket = guest.tcp(handle);
        sent += socket.send_slice(&data[sent..]).unwrap();
        socket
            .recv(|bytes| {
                at_guest.extend_from_slice(bytes);
                (bytes.len(), ())
            })
            .unwrap();
        at_host.extend(read(&stream).unwrap_or_default());
        written += (&stream).write(&data[written..]).unwrap_or(0);
        at_host.len() == data.len() && at_guest.len() == data.len()
    });
    assert!(at_host == data && at_guest == data);
}

#[test]
fn the_guest_ends_its_half_and_still_receives() {
    let (mut guest, handle, mut stream) = connected(4096);
    guest.tcp(handle).send_slice(b"question").unwrap();
    guest.tcp(handle).close();
    let mut got = Vec::new();
    guest.until("the end of the question", |_| match read(&stream) {
        Some(bytes) if bytes.is_empty() => true,
        other => {
            got.extend(other.unwrap_or_default());
            false
        }
    });
    assert_eq!(got, b"question");
    stream.write_all(b"answer").unwrap();
    drop(stream);
    guest.until("the answer", |guest| guest.tcp(handle).recv_queue() == 6);
    guest.until("the end", |guest| guest.tcp(handle).state() == State::TimeWait);
}

#[test]
fn the_host_ends_its_half_and_still_receives() {
    let (mut guest, handle, mut stream) = connected(4096);
    stream.write_all(b"all of it").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    guest.until("the end of it", |guest| {
        guest.tcp(handle).state() == State::CloseWait && guest.tcp(handle).recv_queue() == 9
    });
    guest.tcp(handle).send_slice(b"thanks").unwrap();
    guest.until("thanks", |_| {
        read(&stream).is_some_and(|bytes| bytes == b"thanks")
    });
    guest.tcp(handle).close();
    guest.until("the end", |_| read(&stream).is_some_and(|bytes| bytes.is_empty()));
    guest.until("the guest's end", |guest| {
        guest.tcp(handle).state() == State::Closed
    });
}

#[test]
fn a_refused_connection_is_refused_at_once() {
    let address = listener().local_addr().unwrap();
    let mut guest = Guest::new(address);
    let handle = guest.connect((DNS, 53), 4096);
    guest.until("an end", |guest| guest.tcp(handle).state() == State::Closed);
}

#[test]
fn where_the_host_has_no_way_to_the_guest_is_told_why() {
    // Broadcast is ENETUNREACH for a connection, whatever routes there are.
    let mut guest = Guest::new("255.255.255.255:53".parse().unwrap());
    let (from, to): (IpAddress, IpAddress) = (GUEST.into(), DNS.into());
    let request = TcpRepr {
        src_port: 1000,
        dst_port: 53,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(0x1234_5678),
        ack_number: None,
        window_len: 4096,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None, None, None],
        timestamp: None,
        payload: b"",
    };
    let mut segment = vec![0; request.buffer_len()];
    let sums = ChecksumCapabilities::default();
    request.emit(&mut TcpPacket::new_unchecked(&mut segment), &from, &to, &sums);
    guest.send(
        EthernetProtocol::Ipv4,
        &ipv4(GUEST, DNS, IpProtocol::Tcp, &segment),
    );
    let said = guest.unreachable();
    assert_eq!(
        (said.reason, said.from),
        (Icmpv4DstUnreachable::NetUnreachable, GATEWAY)
    );
    assert_eq!((said.to, said.protocol), (DNS, IpProtocol::Tcp));
    assert_eq!(said.quoted, segment[..8]); // with the number that tells the guest that it is about this request
}

#[test]
fn nothing_of_the_hosts_loopback_is_reached() {
    let listener = listener();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::new(listener.local_addr().unwrap());
    let targets = [[127, 0, 0, 1], [127, 1, 2, 3], [0, 0, 0, 1]].map(Ipv4Addr::from);
    for target in targets.into_iter().chain([GATEWAY, DNS]) {
        let handle = guest.connect((target, port), 4096);
        guest.until("an end", |guest| guest.tcp(handle).state() == State::Closed);
    }
    assert!(listener.accept().is_err());
}

#[test]
fn a_reset_of_one_end_resets_the_other() {
    let (mut guest, handle, stream) = connected(4096);
    guest.tcp(handle).abort();
    let mut error = None;
    guest.until("a reset", |_| {
        error = (&stream).read(&mut [0]).err();
        error.as_ref().is_some_and(|e| e.kind() != ErrorKind::WouldBlock)
    });
    assert_eq!(error.unwrap().kind(), ErrorKind::ConnectionReset);

    let (mut guest, handle, stream) = connected(4096);
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
    guest.until("a reset", |guest| guest.tcp(handle).state() == State::Closed);
}

#[test]
fn who_does_not_read_stops_who_writes() {
    // The guest does not: the host can write no more than what fits between.
    let (mut guest, handle, stream) = connected(1 << 16);
    let chunk = vec![7; 1 << 16];
    let (mut written, mut idle) = (0, 0);
    while idle < 50 {
        match (&stream).write(&chunk) {
            Ok(count) => (written, idle) = (written + count, 0),
            Err(_) => idle += 1,
        }
        guest.turn();
    }
    assert!(written < 64 << 20, "{written}");
    let mut got = 0;
    guest.until("all of it", |guest| {
        let taken = guest.tcp(handle).recv(|bytes| (bytes.len(), bytes.len()));
        got += taken.unwrap();
        got == written
    });

    // The host does not: the guest is told that there is no room.
    let (mut sent, mut idle) = (0, 0);
    while idle < 200 {
        match guest.tcp(handle).send_slice(&chunk).unwrap() {
            0 => idle += 1,
            count => (sent, idle) = (sent + count, 0),
        }
        guest.turn();
    }
    assert!(sent < 64 << 20, "{sent}");
    let mut got = 0;
    guest.until("all of it", |_| {
        got += read(&stream).map_or(0, |bytes| bytes.len());
        got == sent
    });
}

#[test]
fn a_port_of_the_hosts_leads_to_the_guest() {
    let outside = listener();
    let address = outside.local_addr().unwrap();
    let forwards = vec![Forward::Tcp(outside, 22)];
    let mut guest = Guest::with(config(&[]), forwards);
    guest.settle(); // it is seen
    let handle = guest.socket(4096);
    guest.tcp(handle).listen(22).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    guest.until("a connection", |guest| {
        guest.tcp(handle).state() == State::Established
    });
    let remote = guest.tcp(handle).remote_endpoint().unwrap();
    assert_eq!(remote.addr, GATEWAY.into(), "who is on loopback is the router");
    guest.tcp(handle).send_slice(b"SSH-2.0").unwrap();
    guest.until("a greeting", |_| {
        read(&stream).is_some_and(|bytes| bytes == b"SSH-2.0")
    });

    // Nobody listens any more.
    let refused = TcpStream::connect(address).unwrap();
    refused.set_nonblocking(true).unwrap();
    let mut error = None;
    guest.until("a refusal", |_| {
        error = (&refused).read(&mut [0]).err();
        error.as_ref().is_some_and(|e| e.kind() != ErrorKind::WouldBlock)
    });
    assert_eq!(error.unwrap().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn connections_beyond_the_bound_are_refused_and_ended_ones_make_room() {
    let listener = listener();
    let mut guest = Guest::new(listener.local_addr().unwrap());
    let mut streams = Vec::new();
    let mut handles = Vec::new();
    for number in 0..CONNECTIONS_MAX {
        handles.push(guest.connect((DNS, 53), 512));
        let handle = handles[number];
        guest.until(&format!("connection {number}"), |guest| {
            streams.extend(listener.accept().ok());
            guest.tcp(handle).state() == State::Established
        });
    }
    let refused = guest.connect((DNS, 53), 512);
    guest.until("a refusal", |guest| guest.tcp(refused).state() == State::Closed);
    guest.tcp(handles[0]).abort();
    guest.turn();
    let handle = guest.connect((DNS, 53), 512);
    guest.until("a connection", |guest| {
        guest.tcp(handle).state() == State::Established
    });
}
