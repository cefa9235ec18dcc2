// SPDX-License-Identifier: Apache-2.0
//! A front end that wants some multicast and no other.

mod granter;
mod net_front;

use domzero_backends::net::{Agreed, Link, Multicast, Queue, MULTICAST_MAX};
use domzero_machine::abi::netif;
use domzero_machine::abi::ring::{REQ_PROD, RSP_PROD};
use net_front::*;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::Arc;

const MDNS: [u8; 6] = [1, 0, 0x5e, 0, 0, 251];
const ADD: u8 = netif::EXTRA_TYPE_MCAST_ADD;
const DELETE: u8 = netif::EXTRA_TYPE_MCAST_DEL;

struct Guest {
    front: Front,
    queue: Queue,
    link: Link,
    wire: UnixStream,
}

impl Guest {
    fn new(is_filtered: bool) -> Guest {
        let front = Front::new();
        let agreed = Agreed {
            multicast: Arc::new(Multicast::new(is_filtered)),
            ..agreed()
        };
        let (link, wire) = wire();
        let queue = front.connect(agreed);
        front.offer(100);
        Guest {
            front,
            queue,
            link,
            wire,
        }
    }

    fn told(kind: u8, more: u8, address: [u8; 6]) -> Vec<u8> {
        let mut entry = vec![kind, more];
        entry.extend(address);
        entry.resize(SIZES[TX], 0);
        entry
    }

    /// The answer to an address that is added or deleted.
    fn ask(&mut self, kind: u8, address: [u8; 6]) -> i16 {
        let at = self.front.head(TX, REQ_PROD);
        self.front.put(TX, &slot(0, 0, netif::TXF_EXTRA_INFO, 33, 0));
        self.front.put(TX, &Guest::told(kind, 0, address));
        self.queue.transmit(&mut self.link).unwrap();
        assert_eq!(self.front.head(TX, RSP_PROD), at + 2);
        assert_eq!(
            (self.front.sent(at).0, self.front.sent(at + 1).1),
            (33, netif::RSP_NULL)
        );
        self.front.sent(at).1
    }

    /// Whether the guest is given a frame to this address.
    fn gets(&mut self, to: [u8; 6]) -> bool {
        let before = self.front.head(RX, RSP_PROD);
        let mut frame = plain(60);
        frame[..6].copy_from_slice(&to);
        assert!(self.queue.receive(&frame).unwrap());
        self.queue.push_received();
        self.front.head(RX, RSP_PROD) != before
    }
}

#[test]
fn only_what_was_added_is_delivered_and_all_that_is_no_multicast() {
    let mut guest = Guest::new(true);
    assert!(!guest.gets(MDNS));
    assert_eq!(guest.ask(ADD, MDNS), netif::RSP_OKAY);
    assert!(guest.gets(MDNS) && guest.gets(MAC) && guest.gets([0xff; 6]) && guest.gets([2, 0, 0, 0, 0, 9]));
    assert!(!guest.gets([1, 0, 0x5e, 0, 0, 250]) && !guest.gets([0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!(guest.ask(DELETE, MDNS), netif::RSP_OKAY);
    assert!(!guest.gets(MDNS));
    assert_eq!(guest.ask(DELETE, MDNS), netif::RSP_ERROR);
}

#[test]
fn a_front_end_that_does_not_ask_for_the_filter_has_all_whatever_it_names() {
    let mut guest = Guest::new(false);
    assert!(guest.gets(MDNS));
    assert_eq!(guest.ask(ADD, [1, 2, 3, 4, 5, 6]), netif::RSP_OKAY);
    assert!(guest.gets(MDNS));
}

#[test]
fn there_are_as_many_addresses_as_may_be_and_no_more() {
    let mut guest = Guest::new(true);
    let address = |n: usize| [1, 0, 0x5e, 0, 1, n as u8];
    for n in 0..MULTICAST_MAX {
        assert_eq!(guest.ask(ADD, address(n)), netif::RSP_OKAY);
    }
    assert_eq!(guest.ask(ADD, MDNS), netif::RSP_ERROR);
    assert!(!guest.gets(MDNS) && guest.gets(address(0)) && guest.gets(address(MULTICAST_MAX - 1)));
    // Twice the same takes two places, and is there until it was deleted twice.
    assert_eq!(guest.ask(DELETE, address(7)), netif::RSP_OKAY);
    assert_eq!(guest.ask(ADD, address(8)), netif::RSP_OKAY);
    assert_eq!(guest.ask(ADD, MDNS), netif::RSP_ERROR);
    assert_eq!(guest.ask(DELETE, address(8)), netif::RSP_OKAY);
    assert!(guest.gets(address(8)) && !guest.gets(address(7)));
    assert_eq!(guest.ask(DELETE, address(8)), netif::RSP_OKAY);
    assert!(!guest.gets(address(8)));
}

#[test]
fn a_request_that_names_an_address_sends_nothing_whatever_else_it_says() {
    let mut guest = Guest::new(true);
    let (gref, mfn) = guest.front.page();
    guest.front.write(mfn, 0, &plain(60));
    // Data, a page that is none, more slots, and two addresses: the first of them counts.
    let flags = netif::TXF_EXTRA_INFO | netif::TXF_MORE_DATA | netif::TXF_CSUM_BLANK;
    guest.front.put(TX, &slot(7777, 4095, flags, 1, 0xffff));
    guest
        .front
        .put(TX, &Guest::told(ADD, netif::EXTRA_FLAG_MORE, MDNS));
    guest.front.put(TX, &Guest::told(DELETE, 0, MDNS));
    // What follows is a frame of its own.
    guest.front.put(TX, &slot(gref, 0, 0, 2, 60));
    guest.queue.transmit(&mut guest.link).unwrap();
    let sent = [0, 1, 2, 3].map(|index| guest.front.sent(index));
    assert_eq!(sent, [(1, 0), (0, 1), (0, 1), (2, 0)]);
    assert_eq!(read_frame(&mut guest.wire), plain(60));
    assert_eq!(
        guest.front.interface.counts.sent_frames.load(Ordering::Relaxed),
        1
    );
    assert!(guest.gets(MDNS));
    drop(guest.queue);
    assert_eq!(guest.front.grants.audit(), Vec::<String>::new());
}
