// SPDX-License-Identifier: Apache-2.0
//! Frames that say they come from somewhere, and who may have sent them.

mod dice;

use dice::{fuzz_seconds, Dice};
use domzero_backends::net::Source;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

const MAC: [u8; 6] = [0, 0x16, 0x3e, 1, 2, 3];
const OTHER_MAC: [u8; 6] = [0, 0x16, 0x3e, 9, 9, 9];
const OWN4: [u8; 4] = [10, 0, 0, 5];
const OTHER4: [u8; 4] = [10, 0, 0, 6];
const OWN6: &str = "fd00::5";
const OTHER6: &str = "fd00::6";
const LOCAL6: &str = "fe80::216:3eff:fe01:203";
const NONE6: &str = "::";

fn addresses() -> Vec<IpAddr> {
    vec![Ipv4Addr::from(OWN4).into(), OWN6.parse().unwrap()]
}

fn owns_with(addresses: &[IpAddr], frame: &[u8]) -> bool {
    Source { mac: MAC, addresses }.owns(frame).unwrap_or(false)
}

fn owns(frame: &[u8]) -> bool {
    owns_with(&addresses(), frame)
}

fn ethernet(mac: [u8; 6], tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

fn arp(operation: u8, mac: [u8; 6], sender: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(mac);
    packet.extend(sender);
    packet.extend([0; 10]);
    packet
}

/// `fragment`: flags and offset.
fn ipv4(source: [u8; 4], options: usize, fragment: u16, protocol: u8, data: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + data.len()) as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend([10, 0, 0, 1]);
    packet.extend(vec![1; options]);
    packet.extend(data);
    packet
}

fn ipv6(source: &str, headers: &[(u8, Vec<u8>)], protocol: u8, data: &[u8]) -> Vec<u8> {
    let mut kinds: Vec<u8> = headers.iter().map(|(kind, _)| *kind).collect();
    kinds.push(protocol);
    let mut rest = Vec::new();
    for ((_, header), next) in headers.iter().zip(&kinds[1..]) {
        let mut header = header.clone();
        header[0] = *next;
        rest.extend(header);
    }
    rest.extend(data);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((rest.len() as u16).to_be_bytes());
    packet.extend([kinds[0], 255]);
    packet.extend(source.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend([0xff; 16]);
    packet.extend(rest);
    packet
}

fn icmp6(kind: u8, target: &str, options: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind >= 135 {
        message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    }
    message.extend(options);
    message
}

fn link_address(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat()
}

const FRAGMENT: u8 = 44;

fn fragment(offset: u16, more: bool) -> (u8, Vec<u8>) {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    (FRAGMENT, vec![0, 0, high, low, 0, 0, 0, 1])
}

fn v4(packet: &[u8]) -> Vec<u8> {
    ethernet(MAC, &[], 0x0800, packet)
}

fn v6(packet: &[u8]) -> Vec<u8> {
    ethernet(MAC, &[], 0x86dd, packet)
}

#[test]
fn what_a_guest_with_its_own_addresses_sends_is_its_own() {
    let hop = || (0u8, vec![0, 0, 5, 2, 0, 0, 1, 0]);
    for (what, frame) in [
        ("a request", ethernet(MAC, &[], 0x0806, &arp(1, MAC, OWN4))),
        ("a reply", ethernet(MAC, &[], 0x0806, &arp(2, MAC, OWN4))),
        ("a probe", ethernet(MAC, &[], 0x0806, &arp(1, MAC, [0; 4]))),
        ("in a VLAN", ethernet(MAC, &[0x8100], 0x0806, &arp(1, MAC, OWN4))),
        ("tcp", v4(&ipv4(OWN4, 0, 0x4000, 6, &[0; 40]))),
        ("with options", v4(&ipv4(OWN4, 40, 0, 17, &udp(1, 2)))),
        ("a first fragment", v4(&ipv4(OWN4, 0, 0x2000, 17, &udp(1, 2)))),
        ("a later fragment", v4(&ipv4(OWN4, 0, 100, 17, &[]))),
        (
            "in two VLANs",
            ethernet(MAC, &[0x88a8, 0x8100], 0x0800, &ipv4(OWN4, 0, 0, 6, &[0; 20])),
        ),
        ("dhcp", v4(&ipv4([0; 4], 0, 0, 17, &udp(68, 67)))),
        ("tcp6", v6(&ipv6(OWN6, &[], 6, &[0; 40]))),
        ("dhcp6", v6(&ipv6(LOCAL6, &[], 17, &udp(546, 547)))),
        (
            "a fragment6",
            v6(&ipv6(OWN6, &[fragment(0, true)], 58, &icmp6(128, NONE6, &[]))),
        ),
        (
            "a later fragment6",
            v6(&ipv6(OWN6, &[fragment(800, false)], 58, &[134; 40])),
        ),
        (
            "a report",
            v6(&ipv6(NONE6, &[hop()], 58, &[143, 0, 0, 0, 0, 0, 0, 0])),
        ),
        ("an echo", v6(&ipv6(OWN6, &[], 58, &icmp6(128, NONE6, &[])))),
        ("who has it", v6(&ipv6(NONE6, &[], 58, &icmp6(135, OWN6, &[])))),
        (
            "who has the local one",
            v6(&ipv6(NONE6, &[], 58, &icmp6(135, LOCAL6, &[]))),
        ),
        (
            "where is",
            v6(&ipv6(LOCAL6, &[], 58, &icmp6(135, OTHER6, &link_address(1, MAC)))),
        ),
        (
            "here it is",
            v6(&ipv6(OWN6, &[], 58, &icmp6(136, OWN6, &link_address(2, MAC)))),
        ),
        ("routers", v6(&ipv6(NONE6, &[], 58, &icmp6(133, NONE6, &[])))),
        (
            "routers, by name",
            v6(&ipv6(LOCAL6, &[], 58, &icmp6(133, NONE6, &link_address(1, MAC)))),
        ),
    ] {
        assert!(owns(&frame), "{what}");
        let mut padded = frame.clone();
        padded.resize(frame.len().max(60), 0);
        assert!(owns(&padded), "{what}, padded");
        let mut other = frame;
        other[6..12].copy_from_slice(&OTHER_MAC);
        assert!(!owns(&other), "{what}, of another interface");
    }
}

#[test]
fn what_comes_from_elsewhere_or_hides_where_it_comes_from_is_not() {
    let many = |n| vec![(60u8, vec![0, 0, 1, 4, 0, 0, 0, 0]); n];
    let mut long = ipv6(OWN6, &[], 58, &icmp6(128, NONE6, &[]));
    long[5] += 1; // more than is there
    for (what, frame) in [
        (
            "another's request",
            ethernet(MAC, &[], 0x0806, &arp(1, MAC, OTHER4)),
        ),
        (
            "another's reply",
            ethernet(MAC, &[], 0x0806, &arp(2, MAC, OTHER4)),
        ),
        (
            "for another's MAC",
            ethernet(MAC, &[], 0x0806, &arp(2, OTHER_MAC, OWN4)),
        ),
        (
            "a reply from nobody",
            ethernet(MAC, &[], 0x0806, &arp(2, MAC, [0; 4])),
        ),
        (
            "an inverse request",
            ethernet(MAC, &[], 0x0806, &arp(8, MAC, OWN4)),
        ),
        (
            "in a VLAN",
            ethernet(MAC, &[0x8100], 0x0806, &arp(2, MAC, OTHER4)),
        ),
        (
            "in two VLANs",
            ethernet(MAC, &[0x9100, 0x8100], 0x0800, &ipv4(OTHER4, 0, 0, 6, &[0; 20])),
        ),
        (
            "in three VLANs",
            ethernet(MAC, &[0x8100; 3], 0x0800, &ipv4(OWN4, 0, 0, 6, &[0; 20])),
        ),
        ("tcp", v4(&ipv4(OTHER4, 0, 0, 6, &[0; 20]))),
        ("with options", v4(&ipv4(OTHER4, 40, 0, 6, &[0; 20]))),
        ("a fragment", v4(&ipv4(OTHER4, 0, 100, 6, &[0; 20]))),
        ("from nowhere", v4(&ipv4([0; 4], 0, 0, 6, &[0; 20]))),
        ("a dhcp server", v4(&ipv4([0; 4], 0, 0, 17, &udp(67, 68)))),
        (
            "a fragment of dhcp",
            v4(&ipv4([0; 4], 0, 0x2000, 17, &udp(68, 67))),
        ),
        (
            "a later fragment of dhcp",
            v4(&ipv4([0; 4], 0, 1, 17, &udp(68, 67))),
        ),
        ("no version", v4(&[0x55; 60])),
        (
            "a short header",
            v4(&{
                let mut packet = ipv4(OWN4, 0, 0, 6, &[0; 20]);
                packet[0] = 0x44;
                packet
            }),
        ),
        ("IPv6 as IPv4", v4(&ipv6(OWN6, &[], 6, &[0; 20]))),
        ("IPv4 as IPv6", v6(&ipv4(OWN4, 0, 0, 6, &[0; 60]))),
        ("tcp6", v6(&ipv6(OTHER6, &[], 6, &[0; 20]))),
        ("from nowhere6", v6(&ipv6(NONE6, &[], 17, &udp(546, 547)))),
        (
            "an echo from nowhere",
            v6(&ipv6(NONE6, &[], 58, &icmp6(128, NONE6, &[]))),
        ),
        ("a router", v6(&ipv6(LOCAL6, &[], 58, &icmp6(134, NONE6, &[])))),
        (
            "a hidden router",
            v6(&ipv6(LOCAL6, &many(8)[..7], 58, &icmp6(134, NONE6, &[]))),
        ),
        ("too many headers", v6(&ipv6(OWN6, &many(9), 6, &[0; 20]))),
        (
            "a router in a fragment",
            v6(&ipv6(LOCAL6, &[fragment(0, true)], 58, &icmp6(134, NONE6, &[]))),
        ),
        (
            "neighbours in fragments",
            v6(&ipv6(OWN6, &[fragment(0, false)], 58, &icmp6(136, OWN6, &[]))),
        ),
        (
            "a fragment without its headers",
            v6(&ipv6(OWN6, &[fragment(0, true)], 60, &[58])),
        ),
        ("a redirect", v6(&ipv6(LOCAL6, &[], 58, &icmp6(137, OTHER6, &[])))),
        (
            "who has another's",
            v6(&ipv6(NONE6, &[], 58, &icmp6(135, OTHER6, &[]))),
        ),
        (
            "another is here",
            v6(&ipv6(OWN6, &[], 58, &icmp6(136, OTHER6, &link_address(2, MAC)))),
        ),
        (
            "I am there",
            v6(&ipv6(
                OWN6,
                &[],
                58,
                &icmp6(136, OWN6, &link_address(2, OTHER_MAC)),
            )),
        ),
        (
            "from nobody",
            v6(&ipv6(NONE6, &[], 58, &icmp6(136, OWN6, &link_address(2, MAC)))),
        ),
        (
            "ask there",
            v6(&ipv6(
                OWN6,
                &[],
                58,
                &icmp6(135, OTHER6, &link_address(1, OTHER_MAC)),
            )),
        ),
        (
            "a second address",
            v6(&ipv6(
                OWN6,
                &[],
                58,
                &icmp6(
                    136,
                    OWN6,
                    &[link_address(2, MAC), link_address(2, OTHER_MAC)].concat(),
                ),
            )),
        ),
        (
            "an option without end",
            v6(&ipv6(OWN6, &[], 58, &icmp6(136, OWN6, &[2, 0, 0, 0, 0, 0, 0, 0]))),
        ),
        (
            "a long option",
            v6(&ipv6(OWN6, &[], 58, &icmp6(136, OWN6, &[2, 9, 0, 0, 0, 0, 0, 0]))),
        ),
        ("cut off", v6(&long)),
        ("a bridge's", ethernet(MAC, &[], 38, &[0x42; 38])),
        (
            "in a link header",
            ethernet(
                MAC,
                &[],
                28,
                &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &ipv4(OTHER4, 0, 0, 6, &[])].concat(),
            ),
        ),
        ("another protocol", ethernet(MAC, &[], 0x88b5, &[0; 46])),
        ("reverse ARP", ethernet(MAC, &[], 0x8035, &arp(3, MAC, OWN4))),
    ] {
        assert!(!owns(&frame), "{what}");
    }
}

#[test]
fn a_link_local_address_that_is_named_is_the_only_one() {
    let frame = v6(&ipv6(LOCAL6, &[], 17, &udp(546, 547)));
    assert!(
        owns_with(&[Ipv4Addr::from(OWN4).into()], &frame),
        "IPv6 needs one where only IPv4 is named"
    );
    assert!(owns_with(&[LOCAL6.parse().unwrap()], &frame));
    assert!(!owns_with(&["fe80::1".parse().unwrap()], &frame));
    assert!(!owns_with(
        &["fe80::1".parse().unwrap()],
        &v4(&ipv4(OWN4, 0, 0, 6, &[0; 20]))
    ));
}

#[test]
fn no_beginning_of_a_frame_says_more_than_the_whole() {
    for frame in templates() {
        for length in 0..frame.len() {
            if owns(&frame[..length]) {
                assert!(owns(&frame), "{length} of {frame:x?}");
            }
        }
    }
}

fn templates() -> Vec<Vec<u8>> {
    vec![
        ethernet(MAC, &[], 0x0806, &arp(1, MAC, OWN4)),
        ethernet(MAC, &[0x8100], 0x0806, &arp(2, MAC, OTHER4)),
        v4(&ipv4(OWN4, 8, 0, 6, &[0; 20])),
        v4(&ipv4(OTHER4, 0, 0x2000, 17, &udp(1, 2))),
        v4(&ipv4([0; 4], 0, 0, 17, &udp(68, 67))),
        ethernet(MAC, &[0x88a8, 0x8100], 0x86dd, &ipv6(OWN6, &[], 6, &[0; 20])),
        v6(&ipv6(OTHER6, &[fragment(0, true)], 17, &udp(1, 2))),
        v6(&ipv6(NONE6, &[], 58, &icmp6(135, OWN6, &[]))),
        v6(&ipv6(OWN6, &[], 58, &icmp6(136, OWN6, &link_address(2, MAC)))),
        v6(&ipv6(
            LOCAL6,
            &[(60, vec![0; 16])],
            58,
            &icmp6(133, NONE6, &link_address(1, MAC)),
        )),
        v6(&ipv6(
            OWN6,
            &[(
                51,
                vec![
                    0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ],
            )],
            6,
            &[0; 20],
        )),
    ]
}

/// The source of a frame, as a receiver would read it that believes everything. `None`: none would.
fn believed(frame: &[u8]) -> Option<IpAddr> {
    let mut at = 12;
    while [[0x81, 0], [0x88, 0xa8], [0x91, 0]]
        .iter()
        .any(|tag| frame.get(at..at + 2) == Some(tag))
    {
        at += 4;
    }
    let packet = frame.get(at + 2..)?;
    match frame.get(at..at + 2)? {
        [8, 0] => Some(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?.into()),
        [8, 6] => Some(<[u8; 4]>::try_from(packet.get(14..18)?).ok()?.into()),
        [0x86, 0xdd] => Some(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?.into()),
        _ => None,
    }
}

#[test]
fn random_frames_that_are_let_through_come_from_where_they_may() {
    let (start, addresses) = (Instant::now(), addresses());
    let (mut dice, templates) = (Dice(0x5eed_0001_dead_beef), templates());
    let (mut passed, mut refused) = (0u64, 0u64);
    while start.elapsed() < fuzz_seconds() {
        let mut frame = templates[dice.below(templates.len() as u64) as usize].clone();
        for _ in 0..dice.below(4) {
            let at = dice.below(frame.len() as u64) as usize;
            frame[at] = match dice.below(4) {
                0 => dice.roll() as u8,
                1 => [
                    0, 1, 6, 8, 17, 43, 44, 51, 58, 60, 0x86, 0xdd, 133, 134, 135, 136, 137, 255,
                ][dice.below(18) as usize],
                2 => frame[at] ^ 1 << dice.below(8),
                _ => frame[at].wrapping_add(1),
            };
        }
        if dice.once_in(5) {
            frame.truncate(dice.below(frame.len() as u64 + 1) as usize);
        }
        if !owns(&frame) {
            refused += 1;
            continue;
        }
        passed += 1;
        assert_eq!(frame[6..12], MAC);
        let from = believed(&frame).unwrap_or_else(|| panic!("nobody's: {frame:x?}"));
        let is_local = matches!(from, IpAddr::V6(six) if six.segments()[0] & 0xffc0 == 0xfe80);
        assert!(
            addresses.contains(&from) || from.is_unspecified() || is_local,
            "{from}: {frame:x?}"
        );
    }
    assert!(passed > 1000 && refused > 1000, "{passed} {refused}");
}
