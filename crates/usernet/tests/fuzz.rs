// SPDX-License-Identifier: Apache-2.0
//! Random frames to a network, DOMZERO_FUZZ_SECONDS of them: it goes on to answer, and nothing grows without bounds.

#[path = "../../backends/tests/dice/mod.rs"]
mod dice;
mod guest;

use dice::{fuzz_seconds, Dice};
use domzero_usernet::{Forward, DHCP_CLIENT, DHCP_SERVER, ROUTER};
use guest::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

/// Those that matter to the network, and those that lead nowhere: nothing leaves this host.
const ADDRESSES: [[u8; 4]; 7] = [
    [10, 0, 2, 3],
    [10, 0, 2, 3],
    [10, 0, 2, 2],
    [127, 0, 0, 1],
    [0, 0, 0, 0],
    [255, 255, 255, 255],
    [224, 0, 0, 1],
];

fn address(dice: &mut Dice) -> Ipv4Addr {
    ADDRESSES[dice.below(ADDRESSES.len() as u64) as usize].into()
}

fn port(dice: &mut Dice) -> u16 {
    [53, 53, 53, 22, 67, 68, 0, 547, 5353, dice.roll() as u16][dice.below(10) as usize]
}

/// Sequence numbers that may be right: what the network said last, and near it.
#[derive(Default)]
struct Seen {
    sequence: u32,
    acknowledged: u32,
    port: u16,
}

impl Seen {
    fn look(&mut self, guest: &mut Guest) {
        while let Some(frame) = guest.frames.pop_front() {
            let Ok(ip) = Ipv4Packet::new_checked(&frame[14..]) else {
                continue;
            };
            if ip.next_header() != IpProtocol::Tcp {
                continue;
            }
            if let Ok(segment) = TcpPacket::new_checked(ip.payload()) {
                self.sequence = segment.seq_number().0 as u32;
                self.acknowledged = segment.ack_number().0 as u32;
                self.port = segment.dst_port();
            }
        }
    }
}

fn tcp(dice: &mut Dice, seen: &Seen) -> Vec<u8> {
    let is_near = dice.below(4) > 0;
    let near = |dice: &mut Dice, n: u32| {
        let by = [0, 0, 0, 1, 2, u32::MAX, 65535, dice.roll() as u32];
        TcpSeqNumber(n.wrapping_add(by[dice.below(8) as usize]) as i32)
    };
    let controls = [
        TcpControl::None,
        TcpControl::Psh,
        TcpControl::Fin,
        TcpControl::Syn,
        TcpControl::Syn,
        TcpControl::Rst,
    ];
    let resets = u64::from(dice.once_in(4));
    let control = controls[dice.below(5 + resets) as usize];
    let data = vec![7; [0, 0, 1, 100, 9000][dice.below(5) as usize]];
    let first = control == TcpControl::Syn && dice.below(8) > 0;
    let (from, to) = match dice.once_in(3) {
        true => (address(dice), address(dice)),
        false => (GUEST, DNS),
    };
    let segment = TcpRepr {
        src_port: match is_near && seen.port != 0 && !first {
            true => seen.port,
            false => 1 + dice.below(3) as u16,
        },
        dst_port: if dice.once_in(8) { port(dice) } else { 53 },
        control,
        seq_number: near(dice, seen.acknowledged),
        ack_number: (!first).then(|| near(dice, seen.sequence.wrapping_add(1))),
        window_len: [0, 1, 100, 65535][dice.below(4) as usize],
        window_scale: (dice.once_in(2) && control == TcpControl::Syn).then(|| dice.below(16) as u8),
        max_seg_size: (dice.once_in(2) && control == TcpControl::Syn)
            .then(|| [0, 1, 536, 65495, 65535][dice.below(5) as usize]),
        sack_permitted: dice.once_in(2) && control == TcpControl::Syn,
        sack_ranges: [
            dice.once_in(8).then(|| (dice.roll() as u32, dice.roll() as u32)),
            None,
            None,
        ],
        timestamp: None,
        payload: &data,
    };
    let mut bytes = vec![0; segment.buffer_len()];
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    let sums = ChecksumCapabilities::default();
    segment.emit(&mut packet, &from.into(), &to.into(), &sums);
    ipv4(from, to, IpProtocol::Tcp, &bytes)
}

fn icmp(dice: &mut Dice) -> Vec<u8> {
    let mut message = vec![0; 8 + dice.below(64) as usize];
    message[0] = [8, 0, 3, 5][dice.below(4) as usize];
    let mut packet = Icmpv4Packet::new_unchecked(&mut message[..]);
    packet.fill_checksum();
    ipv4(GUEST, address(dice), IpProtocol::Icmp, &message)
}

fn dhcp(dice: &mut Dice) -> Vec<u8> {
    let mut message = vec![0; 240 + dice.below(80) as usize];
    for byte in message.iter_mut().skip(240) {
        *byte = [53, 1, 3, 50, 4, 255, 0, dice.roll() as u8][dice.below(8) as usize];
    }
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    let from = (Ipv4Addr::UNSPECIFIED, DHCP_CLIENT);
    udp(from, (Ipv4Addr::BROADCAST, DHCP_SERVER), &message)
}

/// Neighbour discovery with options by chance.
fn ndisc(dice: &mut Dice) -> Vec<u8> {
    let mut message = vec![0; 8 + 8 * dice.below(6) as usize];
    message[0] = 133 + dice.below(5) as u8;
    for byte in message.iter_mut().skip(8) {
        *byte = [0, 1, 2, 3, 5, 14, 0xfe, 0x80, dice.roll() as u8][dice.below(9) as usize];
    }
    let from: std::net::Ipv6Addr = ["::", "fe80::15", "fd00:1::15", "ff02::1"][dice.below(4) as usize]
        .parse()
        .unwrap();
    let to: std::net::Ipv6Addr = ["ff02::2", "fe80::1"][dice.below(2) as usize].parse().unwrap();
    Icmpv6Packet::new_unchecked(&mut message[..]).fill_checksum(&from, &to);
    let header = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.len(),
        hop_limit: 255,
    };
    let mut bytes = vec![0; header.buffer_len() + message.len()];
    header.emit(&mut Ipv6Packet::new_unchecked(&mut bytes));
    bytes[header.buffer_len()..].copy_from_slice(&message);
    bytes
}

fn one(dice: &mut Dice, guest: &mut Guest, seen: &Seen) {
    let (protocol, mut packet) = match dice.below(12) {
        0 => {
            let data = vec![1; dice.below(2000) as usize];
            let (from, to) = ((address(dice), port(dice)), (address(dice), port(dice)));
            (EthernetProtocol::Ipv4, udp(from, to, &data))
        }
        1 => (EthernetProtocol::Ipv4, icmp(dice)),
        2 => (EthernetProtocol::Ipv4, dhcp(dice)),
        3 => (EthernetProtocol::Ipv6, ndisc(dice)),
        4 => (EthernetProtocol::Arp, arp(address(dice), address(dice))),
        _ => (EthernetProtocol::Ipv4, tcp(dice, seen)),
    };
    if dice.once_in(4) {
        for _ in 0..=dice.below(3) {
            let at = dice.below(packet.len().min(80) as u64) as usize;
            packet[at] = dice.roll() as u8;
        }
        if protocol == EthernetProtocol::Ipv4 && !ADDRESSES.iter().any(|inside| packet[16..20] == *inside) {
            packet[16..20].copy_from_slice(&ADDRESSES[0]);
        }
        if packet[0] == 0x45 && dice.once_in(2) {
            Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
        }
    }
    if dice.once_in(16) {
        packet.truncate(dice.below(packet.len() as u64 + 1) as usize);
    }
    let target = [ROUTER, EthernetAddress::BROADCAST][dice.once_in(4) as usize];
    guest.send_to(target, protocol, &packet);
}

#[test]
fn random_frames_harm_nobody() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let start = Instant::now();
    let (mut accepted, mut received) = (0u64, 0u64);
    while start.elapsed() < fuzz_seconds() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let names = UdpSocket::bind(server.local_addr().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let outside = listener.local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let forwards = vec![Forward::Tcp(listener, 22), Forward::Udp(socket, 22)];
        let mut made = config(&[server.local_addr().unwrap()]);
        made.mtu = [68, 576, 1280, 1500, 65516][dice.below(5) as usize];
        if made.mtu < 1280 {
            made.ipv6 = None;
        }
        assert!(made.is_own(IpAddr::V4(DNS)));
        let mut guest = Guest::with(made, forwards);
        let mut streams: Vec<TcpStream> = Vec::new();
        let mut seen = Seen::default();
        for round in 0..400 {
            for _ in 0..dice.below(8) {
                one(&mut dice, &mut guest, &seen);
            }
            guest.exchange();
            seen.look(&mut guest);
            if let Ok((stream, _)) = server.accept() {
                stream.set_nonblocking(true).unwrap();
                streams.push(stream);
                accepted += 1;
            }
            if round == 100 && dice.once_in(8) {
                let stream = TcpStream::connect(outside).unwrap();
                stream.set_nonblocking(true).unwrap();
                streams.push(stream);
            }
            for stream in &mut streams {
                let mut bytes = [0; 4096];
                received += stream.read(&mut bytes).unwrap_or(0) as u64;
                if dice.once_in(8) {
                    let _ = stream.write(&bytes);
                }
            }
            if dice.once_in(32) && !streams.is_empty() {
                streams.swap_remove(dice.below(streams.len() as u64) as usize);
            }
        }
        drop(names);
        guest.frames.clear();
        guest.settle();
    }
    println!("{accepted} connections, {received} bytes");
    assert!(accepted > 0 && received > 0, "it was not let in");
}
