// SPDX-License-Identifier: Apache-2.0
//! Captures of interfaces and of networks, read by a small reader of pcapng.

mod granter;
mod net_front;

use domzero_backends::net::{Capture, Switch, Wanted, CAPTURES_MAX, CAPTURE_QUEUE_MAX};
use net_front::*;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

/// A frame in a file.
#[derive(Debug, PartialEq)]
struct Packet {
    kept: Vec<u8>,
    length: u32,
    direction: Option<u32>,
    dropped: u64,
}

/// The frames of a file, and what its statistics say, if it has any: frames, and those that were left out.
fn read(bytes: &[u8]) -> (Vec<Packet>, Option<(u64, u64)>) {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let (mut at, mut packets, mut statistics) = (0, Vec::new(), None);
    while at < bytes.len() {
        let (kind, length) = (word(bytes, at), word(bytes, at + 4) as usize);
        assert!(length % 4 == 0 && word(bytes, at + length - 4) as usize == length);
        let body = &bytes[at + 8..at + length - 4];
        let options = |mut rest: &[u8]| {
            let mut found = Vec::new();
            while !rest.is_empty() {
                let (code, length) = (u16::from_le_bytes([rest[0], rest[1]]), rest[2] as usize);
                found.push((code, rest[4..4 + length].to_vec()));
                rest = &rest[4 + length.next_multiple_of(4)..];
            }
            found
        };
        match kind {
            0x0a0d_0d0a => assert_eq!((at, word(body, 0)), (0, 0x1a2b_3c4d)),
            1 => assert_eq!((at, body[0]), (28, 1)),
            6 => {
                let kept = word(body, 12) as usize;
                let options = options(&body[20 + kept.next_multiple_of(4)..]);
                let option = |code| {
                    options
                        .iter()
                        .find(|(each, _)| *each == code)
                        .map(|(_, value)| value)
                };
                packets.push(Packet {
                    kept: body[20..20 + kept].to_vec(),
                    length: word(body, 16),
                    direction: option(2).map(|value| word(value, 0)),
                    dropped: option(4).map_or(0, |value| long(value)),
                });
            }
            5 => {
                let options = options(&body[12..]);
                statistics = Some((long(&options[0].1), long(&options[1].1)));
            }
            other => panic!("block {other}"),
        }
        at += length;
    }
    (packets, statistics)
}

fn all(mut reader: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.set_read_timeout(Some(SOON)).unwrap();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

const WHOLE: Wanted = Wanted {
    snaplen: 65535,
    frames: 0,
};

#[test]
fn what_passes_is_copied_with_its_direction_up_to_a_length_and_a_number() {
    let front = Front::new();
    let mut queue = front.connect(agreed());
    let (mut link, _other) = wire();
    let start = |wanted| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(front
            .interface
            .capture(Capture::start(theirs, "vif1.0", wanted).unwrap()));
        ours
    };
    let readers = [
        start(Wanted {
            snaplen: 65535,
            frames: 2,
        }),
        start(Wanted {
            snaplen: 20,
            frames: 1,
        }),
    ];
    let whole = start(WHOLE);
    front.put(TX, &front.slots(&plain(61), 0)[0]);
    queue.transmit(&mut link).unwrap();
    front.offer(2);
    for length in [62, 63] {
        assert!(queue.receive(&plain(length)).unwrap());
    }
    let packet = |kept: usize, length: u32, direction| Packet {
        kept: plain(length as usize)[..kept].to_vec(),
        length,
        direction: Some(direction),
        dropped: 0,
    };
    let [two, short] = readers.map(|reader| read(&all(reader)));
    assert_eq!(two, (vec![packet(61, 61, 2), packet(62, 62, 1)], Some((2, 0))));
    assert_eq!(short, (vec![packet(20, 61, 2)], Some((1, 0))));
    // Who says that it is enough gets what there was.
    whole.shutdown(Shutdown::Write).unwrap();
    let (packets, statistics) = read(&all(whole));
    assert_eq!((packets.len(), statistics), (3, Some((3, 0))));
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up_and_learns_what_it_missed() {
    let front = Front::new();
    let (reader, theirs) = UnixStream::pair().unwrap();
    front
        .interface
        .capture(Capture::start(theirs, "vif1.0", WHOLE).unwrap());
    let mut queue = front.connect(agreed());
    let (mut link, other) = wire();
    let sink = std::thread::spawn(move || std::io::copy(&mut &other, &mut std::io::sink()));
    let count = 3 * CAPTURE_QUEUE_MAX / 60_000;
    let slots = front.slots(&plain(60_000), 0);
    let mut sent = 0;
    while sent < count {
        for entry in &slots {
            front.put(TX, entry);
        }
        let before = front.produced[TX].get();
        while front.head(TX, domzero_machine::abi::ring::RSP_PROD) != before {
            queue.transmit(&mut link).unwrap();
        }
        sent += 1;
    }
    reader.shutdown(Shutdown::Write).unwrap();
    let (packets, statistics) = read(&all(reader));
    let (frames, dropped) = statistics.unwrap();
    assert_eq!(frames, count as u64);
    assert_eq!(packets.len() as u64 + dropped, frames);
    assert!(dropped > 0 && packets.len() > CAPTURE_QUEUE_MAX / 61_000 / 2);
    drop((link, queue));
    sink.join().unwrap().unwrap();
}

#[test]
fn readers_that_have_gone_make_room_for_others() {
    let front = Front::new();
    let start = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let capture = Capture::start(theirs, "vif1.0", WHOLE).unwrap();
        (ours, front.interface.capture(capture))
    };
    let mut readers: Vec<_> = (0..CAPTURES_MAX).map(|_| start()).collect();
    assert!(readers.iter().all(|(_, taken)| *taken));
    let (refused, taken) = start();
    assert!(!taken);
    assert_eq!(
        read(&all(refused)).1,
        Some((0, 0)),
        "it is told that there is nothing"
    );
    readers.pop();
    let begin = std::time::Instant::now();
    while !start().1 {
        assert!(begin.elapsed() < SOON);
        std::thread::yield_now();
    }
}

#[test]
fn a_switch_says_who_is_connected_and_copies_what_passes() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["switch", "control"].map(|name| directory.path().join(name));
    let [listener, control] = [&paths[0], &paths[1]].map(|path| UnixListener::bind(path).unwrap());
    let switch = std::thread::spawn(move || Switch::new(listener, Some(control)).unwrap().run(SOON));
    let ask = |line: &str| {
        let mut asker = UnixStream::connect(&paths[1]).unwrap();
        asker.write_all(line.as_bytes()).unwrap();
        asker
    };
    let shown = || String::from_utf8(all(ask("show\n"))).unwrap();
    let label = |text: &str| {
        [
            &[1, 0x80, 0xc2, 0, 0, 0x0e, 0, 0, 0, 0, 0, 0, 0x88, 0xb5],
            text.as_bytes(),
        ]
        .concat()
    };
    let mut one = UnixStream::connect(&paths[0]).unwrap();
    write_frame(&mut one, &label("{\"name\": \"one\"}"));
    let mut two = UnixStream::connect(&paths[0]).unwrap();
    write_frame(&mut two, &label("with\ta tab"));
    let begin = std::time::Instant::now();
    while shown().lines().count() < 2 {
        assert!(begin.elapsed() < SOON);
    }
    let reader = ask("capture 65535 1\n");
    let mut head = [0; 28];
    (&reader).read_exact(&mut head).unwrap();
    let frame = |n: u8| [&[0xff; 6][..], &[0, 0, 0, 0, 0, n], &[8, 6, n]].concat();
    write_frame(&mut one, &frame(1));
    two.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(read_frame(&mut two), frame(1), "labels go to nobody");
    let (packets, _) = read(&[&head[..], &all(reader)].concat());
    assert_eq!((packets.len(), &packets[0].kept), (1, &frame(1)));
    let text = shown();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines[0],
        "0\t1\t15\t0\t0\t0\t0\t00:00:00:00:00:01\t{\"name\": \"one\"}"
    );
    assert_eq!(
        lines[1], "1\t0\t0\t1\t15\t0\t0\t\t",
        "a label without sense is none"
    );
    for nonsense in ["what\n", "capture 1\n", "capture x 1\n", &"x".repeat(300)] {
        // Cut off, before or after all of it was read.
        assert!(matches!(ask(nonsense).read(&mut [0]), Ok(0) | Err(_)));
    }
    drop((one, two));
    switch.join().unwrap().unwrap();
}
