// SPDX-License-Identifier: Apache-2.0
//! The network back end against a front end that is driven by hand.

mod granter;
mod net_front;

use domzero_backends::net::{
    fill_checksum, has_right_checksum, Agreed, Broken, DeviceThread, Notice, Rate, SharedLink,
};
use domzero_machine::abi::netif;
use domzero_machine::abi::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD};
use granter::{PERMIT, READ_ONLY};
use net_front::*;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn frames_of_one_and_of_many_slots_are_sent_and_answered() {
    let front = Front::new();
    let mut queue = front.connect(agreed());
    let (mut link, mut other) = wire();
    let mut index = 0;
    for length in [14, 60, 1514, 4096, 4097, 65530, 65535] {
        let frame = plain(length);
        let slots = front.slots(&frame, 0);
        front.set_head(TX, RSP_EVENT, index + slots.len() as u32);
        for entry in &slots {
            front.put(TX, entry);
        }
        let served = queue.transmit(&mut link).unwrap();
        assert!(served.notify && !served.more);
        assert_eq!(read_frame(&mut other), frame);
        for n in 0..slots.len() {
            assert_eq!(front.sent(index), (n as u16 + 100, netif::RSP_OKAY));
            index += 1;
        }
        assert_eq!(
            (front.head(TX, RSP_PROD), front.head(TX, REQ_EVENT)),
            (index, index + 1)
        );
    }
    drop(queue);
    assert_eq!(front.grants.audit(), Vec::<String>::new());
}

#[test]
fn the_ring_goes_around() {
    let front = Front::new();
    let mut queue = front.connect(agreed());
    let (mut link, mut other) = wire();
    let (gref, mfn) = front.page();
    for n in 0..ENTRIES * 2 + 5 {
        let mut frame = plain(64);
        frame[20..24].copy_from_slice(&n.to_le_bytes());
        front.write(mfn, 8, &frame);
        front.put(TX, &slot(gref, 8, 0, n as u16, 64));
        queue.transmit(&mut link).unwrap();
        assert_eq!(read_frame(&mut other), frame);
        assert_eq!(front.sent(n), (n as u16, netif::RSP_OKAY));
    }
}

#[test]
fn a_blank_checksum_is_filled_in_and_segments_are_not_cut() {
    let front = Front::new();
    let mut queue = front.connect(agreed());
    let (mut link, mut other) = wire();
    let whole = tcp(20_000);
    let mut blank = whole.clone();
    blank[50..52].copy_from_slice(&[0x12, 0x34]);
    let mut slots = front.slots(
        &blank,
        netif::TXF_CSUM_BLANK | netif::TXF_DATA_VALIDATED | netif::TXF_EXTRA_INFO,
    );
    slots.insert(1, extra(netif::EXTRA_TYPE_GSO, 0, 1460, netif::GSO_TYPE_TCPV4));
    for entry in &slots {
        front.put(TX, entry);
    }
    queue.transmit(&mut link).unwrap();
    assert_eq!(read_frame(&mut other), whole);
    let answers: Vec<_> = (0..slots.len() as u32).map(|n| front.sent(n).1).collect();
    let mut expected = vec![netif::RSP_OKAY; slots.len()];
    expected[1] = netif::RSP_NULL;
    assert_eq!(answers, expected);
}

#[test]
fn bad_frames_get_an_error_in_all_of_their_slots_and_harm_nobody() {
    let front = Front::new();
    let mut queue = front.connect(agreed());
    let (mut link, mut other) = wire();
    let (gref, mfn) = front.page();
    let not_ours = front.grant(mfn, PERMIT | 7 << 16);
    let more = netif::TXF_MORE_DATA;
    let long: Vec<_> = (0..19)
        .map(|n| {
            slot(
                gref,
                0,
                if n < 18 { more } else { 0 },
                n,
                if n == 0 { 1900 } else { 100 },
            )
        })
        .collect();
    for frame in [
        vec![slot(gref, 0, 0, 1, 13)],
        vec![slot(gref, 0, 0, 1, 0)],
        vec![slot(0x7fff_ffff, 0, 0, 1, 64)],
        vec![slot(not_ours, 0, 0, 1, 64)],
        vec![slot(gref, 0, more, 1, 64), slot(gref, 0, 0, 2, 65)],
        vec![slot(gref, 0, more, 1, 64), slot(not_ours, 0, 0, 2, 20)],
        vec![
            slot(gref, 0, netif::TXF_EXTRA_INFO, 1, 64),
            // An address that was not added.
            extra(netif::EXTRA_TYPE_MCAST_DEL, 0, 1, 2),
        ],
        long,
    ] {
        let index = front.produced[TX].get();
        for entry in &frame {
            front.put(TX, entry);
        }
        queue.transmit(&mut link).unwrap();
        assert_eq!(front.head(TX, RSP_PROD), front.produced[TX].get());
        assert_eq!(front.sent(index).1, netif::RSP_ERROR, "{frame:?}");
    }
    assert_eq!(front.interface.counts.errors.load(Ordering::Relaxed), 8);
    assert_eq!(front.interface.counts.sent_frames.load(Ordering::Relaxed), 0);
    front.put(TX, &slot(gref, 0, 0, 9, 64));
    queue.transmit(&mut link).unwrap();
    assert_eq!(read_frame(&mut other).len(), 64);
    drop(queue);
    assert_eq!(front.grants.audit(), Vec::<String>::new());
}

#[test]
fn a_ring_that_cannot_be_is_broken() {
    let more = netif::TXF_MORE_DATA;
    let with_extra = netif::TXF_EXTRA_INFO;
    let many: Vec<_> = (0..21).map(|_| slot(8, 0, more, 0, 30)).collect();
    for (entries, error) in [
        (
            vec![slot(8, 4090, 0, 0, 60)],
            Broken::CrossesPage {
                offset: 4090,
                size: 60,
            },
        ),
        (
            vec![slot(8, 65535, 0, 0, 65535)],
            Broken::CrossesPage {
                offset: 65535,
                size: 65535,
            },
        ),
        (vec![slot(8, 0, more, 0, 60)], Broken::MissingSlots),
        (vec![slot(8, 0, with_extra, 0, 60)], Broken::MissingSlots),
        (
            vec![slot(8, 0, with_extra, 0, 60), extra(0, 0, 0, 0)],
            Broken::Extra(0),
        ),
        (
            vec![slot(8, 0, with_extra, 0, 60), extra(5, 0, 0, 0)],
            Broken::Extra(5),
        ),
        (
            vec![slot(8, 0, with_extra, 0, 60), extra(1, 0, 0, 1)],
            Broken::Gso { size: 0, kind: 1 },
        ),
        (
            vec![slot(8, 0, with_extra, 0, 60), extra(1, 0, 9, 3)],
            Broken::Gso { size: 9, kind: 3 },
        ),
        (
            vec![slot(8, 0, with_extra, 0, 60), extra(4, 1, 0, 0)],
            Broken::MissingSlots,
        ),
        (many, Broken::TooManySlots),
    ] {
        let front = Front::new();
        let mut queue = front.connect(agreed());
        let (mut link, _other) = wire();
        for entry in &entries {
            front.put(TX, entry);
        }
        assert_eq!(queue.transmit(&mut link).unwrap_err(), error);
    }
    for ring in [TX, RX] {
        let front = Front::new();
        let mut queue = front.connect(agreed());
        let (mut link, _other) = wire();
        front.set_head(ring, REQ_PROD, 1000);
        let broken = match ring {
            TX => queue.transmit(&mut link).map(|_| ()),
            _ => queue.receive(&plain(60)).map(|_| ()),
        };
        assert!(matches!(broken, Err(Broken::Ring(_))));
    }
}

#[test]
fn another_source_address_is_dropped_where_addresses_are_kept() {
    for keeps_mac in [true, false] {
        let front = Front::new();
        let mut queue = front.connect(Agreed {
            keeps_mac,
            ..agreed()
        });
        let (mut link, mut other) = wire();
        let mut spoofed = plain(60);
        spoofed[11] ^= 1;
        for frame in [&spoofed, &plain(61)] {
            front.put(TX, &front.slots(frame, 0)[0]);
        }
        queue.transmit(&mut link).unwrap();
        assert_eq!(read_frame(&mut other).len(), if keeps_mac { 61 } else { 60 });
        assert_eq!(
            front.interface.counts.spoofed.load(Ordering::Relaxed),
            u64::from(keeps_mac)
        );
        assert_eq!((front.sent(0).1, front.sent(1).1), (0, 0));
    }
}

#[test]
fn another_ip_source_is_dropped_where_addresses_are_named() {
    let front = Front::new();
    let mut queue = front.connect(Agreed {
        keeps_mac: true,
        addresses: vec![IpAddr::from([10, 0, 0, 1])].into(),
        ..agreed()
    });
    let (mut link, mut other) = wire();
    let own = tcp(100);
    let mut spoofed = tcp(101);
    spoofed[29] ^= 1;
    for frame in [&spoofed, &plain(60), &own] {
        front.put(TX, &front.slots(frame, 0)[0]);
    }
    queue.transmit(&mut link).unwrap();
    assert_eq!(read_frame(&mut other), own);
    assert_eq!(front.interface.counts.spoofed.load(Ordering::Relaxed), 2);
}

#[test]
fn a_guest_is_given_frames_in_as_many_pages_as_they_need() {
    let front = Front::new();
    let mut queue = front.connect(Agreed {
        mtu: 65516,
        ..agreed()
    });
    let mut index = 0;
    front.set_head(RX, RSP_EVENT, 1);
    for length in [14, 60, 4096, 4097, 65530] {
        let frame = plain(length);
        let pages = frame.len().div_ceil(4096);
        let mut offered = front.offer(pages as u16 - 1);
        if pages > 1 {
            assert!(!queue.receive(&frame).unwrap());
            assert_eq!(front.head(RX, REQ_EVENT), index + pages as u32);
        } else {
            assert!(!queue.receive(&frame).unwrap());
        }
        offered.extend(front.offer(1));
        assert!(queue.receive(&frame).unwrap());
        queue.push_received();
        let mut got = Vec::new();
        for (n, mfn) in offered.iter().enumerate() {
            let (_, flags, status) = front.received(index);
            assert_eq!(flags, if n + 1 < pages { netif::RXF_MORE_DATA } else { 0 });
            got.extend(front.read(*mfn, 0, status as usize));
            index += 1;
        }
        assert_eq!(got, frame);
        assert_eq!(front.head(RX, RSP_PROD), index);
    }
    drop(queue);
    assert_eq!(front.grants.audit(), Vec::<String>::new());
}

#[test]
fn a_right_checksum_saves_the_guest_the_sum_and_a_wrong_one_does_not() {
    let front = Front::new();
    let mut queue = front.connect(agreed());
    front.offer(2);
    let mut frame = tcp(100);
    queue.receive(&frame).unwrap();
    frame[60] ^= 1;
    queue.receive(&frame).unwrap();
    assert_eq!(front.received(0).1, netif::RXF_DATA_VALIDATED);
    assert_eq!(front.received(1).1, 0);
}

#[test]
fn a_large_tcp_frame_is_given_whole_to_who_takes_it_and_cut_for_who_does_not() {
    let frame = tcp(20_000);
    let front = Front::new();
    let mut queue = front.connect(agreed());
    let pages = front.offer(6);
    assert!(queue.receive(&frame).unwrap());
    queue.push_received();
    let (_, flags, _) = front.received(0);
    let expected =
        netif::RXF_DATA_VALIDATED | netif::RXF_CSUM_BLANK | netif::RXF_EXTRA_INFO | netif::RXF_MORE_DATA;
    assert_eq!(flags, expected);
    // 1500 less 40 bytes of headers.
    assert_eq!(
        front.response(RX, 1),
        [netif::EXTRA_TYPE_GSO, 0, 0xb4, 5, netif::GSO_TYPE_TCPV4, 0, 0, 0]
    );
    let mut got = front.read(pages[0], 0, 4096);
    for n in 2..6 {
        let (_, _, status) = front.received(n);
        got.extend(front.read(pages[n as usize], 0, status as usize));
    }
    assert!(fill_checksum(&mut got));
    assert_eq!(got, frame);

    let front = Front::new();
    let mut queue = front.connect(Agreed {
        gso_v4: false,
        scatter: false,
        ..agreed()
    });
    let pages = front.offer(14);
    assert!(queue.receive(&frame).unwrap());
    queue.push_received();
    let mut data = Vec::new();
    for (n, mfn) in pages.iter().enumerate() {
        let (_, flags, status) = front.received(n as u32);
        assert_eq!(flags, netif::RXF_DATA_VALIDATED);
        let part = front.read(*mfn, 0, status as usize);
        assert!(part.len() <= 1514 && has_right_checksum(&part));
        data.extend_from_slice(&part[54..]);
    }
    assert_eq!(data, frame[54..]);
    assert_eq!(front.head(RX, RSP_PROD), 14);
}

#[test]
fn pages_that_cannot_be_written_are_answered_with_an_error() {
    let front = Front::new();
    let mut queue = front.connect(agreed());
    let mfn = front.domain.alloc(1).unwrap()[0];
    for gref in [front.grant(mfn, PERMIT | READ_ONLY), 0x7fff_ffff] {
        let mut entry = vec![5, 0, 0, 0];
        entry.extend(gref.to_le_bytes());
        front.put(RX, &entry);
        assert!(queue.receive(&plain(60)).unwrap());
    }
    assert_eq!(
        [front.received(0), front.received(1)],
        [(5, 0, netif::RSP_ERROR); 2]
    );
    // What a front end without scatter cannot take is dropped, and so is what is no frame.
    let mut queue = front.connect(Agreed {
        scatter: false,
        ..agreed()
    });
    assert!(queue.receive(&plain(4097)).unwrap() && queue.receive(&[1; 13]).unwrap());
    assert_eq!(front.interface.counts.dropped.load(Ordering::Relaxed), 2);
}

#[derive(Debug, PartialEq)]
enum Said {
    Transmitted,
    Received,
    Broken(Broken),
    Lost,
}

struct Told(Sender<Said>);

impl Notice for Told {
    fn transmitted(&self, _queue: usize) {
        self.0.send(Said::Transmitted).ok();
    }
    fn received(&self, _queue: usize) {
        self.0.send(Said::Received).ok();
    }
    fn broken(&self, error: Broken) {
        self.0.send(Said::Broken(error)).ok();
    }
    fn lost(&self) {
        self.0.send(Said::Lost).ok();
    }
}

#[test]
fn a_thread_moves_frames_both_ways_and_the_wire_outlives_it() {
    let front = Front::new();
    let (link, mut other) = wire();
    let link = SharedLink::new(link);
    for ring in [TX, RX] {
        front.set_head(ring, RSP_EVENT, 1);
    }
    front.put(TX, &front.slots(&plain(70), 0)[0]);
    let (tell, told) = channel();
    let start = |tell| {
        DeviceThread::start(
            "test".into(),
            vec![front.connect(agreed())],
            link.clone(),
            Told(tell),
        )
        .unwrap()
    };
    let mut thread = start(tell);
    assert_eq!(told.recv_timeout(SOON), Ok(Said::Transmitted));
    assert_eq!(read_frame(&mut other), plain(70));
    write_frame(&mut other, &plain(80));
    write_frame(&mut other, &plain(90));
    let pages = front.offer(1);
    thread.bell().ring();
    assert_eq!(told.recv_timeout(SOON), Ok(Said::Received));
    assert_eq!(front.read(pages[0], 0, 80), plain(80));
    thread.stop();
    drop(thread);
    // The next one goes on where that one stopped: with the second frame.
    front.set_head(RX, RSP_EVENT, 2);
    let pages = front.offer(1);
    let (tell, told) = channel();
    let thread = start(tell);
    assert_eq!(told.recv_timeout(SOON), Ok(Said::Received));
    assert_eq!(front.read(pages[0], 0, 90), plain(90));
    drop(other);
    assert_eq!(told.recv_timeout(SOON), Ok(Said::Lost));
    front.set_head(TX, REQ_PROD, 5000);
    thread.bell().ring();
    assert!(matches!(
        told.recv_timeout(SOON),
        Ok(Said::Broken(Broken::Ring(_)))
    ));
    drop(thread);
    assert_eq!(front.grants.audit(), Vec::<String>::new());
}

#[test]
fn a_front_end_that_does_not_tell_of_its_pages_is_looked_at() {
    let front = Front::new();
    let (link, mut other) = wire();
    front.set_head(RX, RSP_EVENT, 1);
    let (tell, told) = channel();
    let queue = front.connect(Agreed {
        rx_notify: false,
        ..agreed()
    });
    let _thread = DeviceThread::start("test".into(), vec![queue], SharedLink::new(link), Told(tell)).unwrap();
    write_frame(&mut other, &plain(80));
    front.offer(1);
    assert_eq!(told.recv_timeout(SOON), Ok(Said::Received));
}

#[test]
fn a_rate_holds_up_what_the_guest_sends_and_neither_what_it_receives_nor_the_end() {
    let front = Front::new();
    let (link, mut other) = wire();
    // Credit for one frame, and then for none in the life of this test.
    let rate = Rate {
        bytes: 1,
        interval_us: u32::MAX,
    };
    front.interface.set_rate(Some(rate), Instant::now());
    front.set_head(TX, RSP_EVENT, 1);
    front.set_head(RX, RSP_EVENT, 1);
    for length in [70, 71, 72] {
        front.put(TX, &front.slots(&plain(length), 0)[0]);
    }
    let (tell, told) = channel();
    let queue = front.connect(agreed());
    let thread = DeviceThread::start("test".into(), vec![queue], SharedLink::new(link), Told(tell)).unwrap();
    assert_eq!(told.recv_timeout(SOON), Ok(Said::Transmitted));
    assert_eq!(read_frame(&mut other), plain(70));
    write_frame(&mut other, &plain(80));
    front.offer(1);
    thread.bell().ring();
    assert_eq!(told.recv_timeout(SOON), Ok(Said::Received));
    assert_eq!(front.head(TX, RSP_PROD), 1);
    assert_eq!(front.interface.counts.sent_frames.load(Ordering::Relaxed), 1);
    // A new bound holds at once, and none at all, too.
    front.set_head(TX, RSP_EVENT, 3);
    front.interface.set_rate(None, Instant::now());
    thread.bell().ring();
    assert_eq!(told.recv_timeout(SOON), Ok(Said::Transmitted));
    assert_eq!(
        [read_frame(&mut other), read_frame(&mut other)],
        [plain(71), plain(72)]
    );
    front.interface.set_rate(Some(rate), Instant::now());
    front.put(TX, &front.slots(&plain(73), 0)[0]);
    front.put(TX, &front.slots(&plain(74), 0)[0]);
    thread.bell().ring();
    assert_eq!(read_frame(&mut other), plain(73));
    drop(thread);
    // What waits stays in the ring, for the next one to send.
    assert_eq!(front.head(TX, RSP_PROD), 4);
    assert_eq!(front.grants.audit(), Vec::<String>::new());
}

#[test]
fn queues_share_a_rate_evenly_and_each_frame_in_time() {
    let fronts = [Front::new(), Front::new()];
    let interface = Arc::clone(&fronts[0].interface);
    let rate = Rate {
        bytes: 1000,
        interval_us: 1000,
    };
    interface.set_rate(Some(rate), Instant::now());
    let queues = fronts
        .iter()
        .map(|front| front.connect_to(agreed(), &interface))
        .collect();
    for front in &fronts {
        for _ in 0..30 {
            front.put(TX, &front.slots(&plain(1000), 0)[0]);
        }
    }
    let (link, mut other) = wire();
    let (tell, _told) = channel();
    let begin = Instant::now();
    let _thread = DeviceThread::start("test".into(), queues, SharedLink::new(link), Told(tell)).unwrap();
    for _ in 0..30 {
        assert_eq!(read_frame(&mut other).len(), 1000);
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(28),
        "29 intervals lie between 30 frames"
    );
    for front in &fronts {
        assert!(front.head(TX, RSP_PROD) >= 10, "{}", front.head(TX, RSP_PROD));
    }
}

#[test]
fn a_link_that_is_down_drops_frames_of_both_directions_and_answers_the_guest() {
    let front = Front::new();
    let mut queue = front.connect(agreed());
    let (mut link, mut other) = wire();
    front.interface.set_up(false);
    front.put(TX, &front.slots(&plain(70), 0)[0]);
    queue.transmit(&mut link).unwrap();
    assert_eq!(front.sent(0).1, netif::RSP_OKAY);
    assert!(queue.receive(&plain(80)).unwrap(), "no page is needed");
    assert_eq!(front.interface.counts.dropped.load(Ordering::Relaxed), 2);
    front.interface.set_up(true);
    front.put(TX, &front.slots(&plain(71), 0)[0]);
    queue.transmit(&mut link).unwrap();
    assert_eq!(read_frame(&mut other), plain(71));
    assert!(!queue.receive(&plain(81)).unwrap());
    front.offer(1);
    assert!(queue.receive(&plain(81)).unwrap());
    assert_eq!(front.interface.counts.dropped.load(Ordering::Relaxed), 2);
}
