// SPDX-License-Identifier: Apache-2.0
//! What a switch does for a card that has no back end of ours: as the first frame of its wire says, and as it is asked.

mod granter;
mod net_front;

use domzero_backends::net::{has_right_checksum, Switch};
use net_front::{read_frame, tcp, write_frame, MAC, SOON};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LABEL: &[u8] = &[1, 0x80, 0xc2, 0, 0, 0x0e, 0, 0, 0, 0, 0, 0, 0x88, 0xb5];
const OTHER: [u8; 6] = [0, 0, 0, 0, 0, 9];

/// A network with a port whose label says `words`, and one of a back end of ours.
struct Network {
    directory: tempfile::TempDir,
    card: UnixStream,
    other: UnixStream,
    switch: JoinHandle<std::io::Result<()>>,
}

fn frame(to: [u8; 6], from: [u8; 6], n: u8) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb6, n]].concat()
}

impl Network {
    fn new(words: &str) -> Network {
        let directory = tempfile::tempdir().unwrap();
        let (path, control) = (directory.path().join("ports"), directory.path().join("control"));
        let listener = UnixListener::bind(&path).unwrap();
        let questions = UnixListener::bind(&control).unwrap();
        let mut card = UnixStream::connect(&path).unwrap();
        let switch = std::thread::spawn(move || Switch::new(listener, Some(questions)).unwrap().run(SOON));
        write_frame(
            &mut card,
            &[LABEL, format!("{words} {{\"devid\": 0}}").as_bytes()].concat(),
        );
        let mut other = UnixStream::connect(&path).unwrap();
        for end in [&card, &other] {
            end.set_read_timeout(Some(SOON)).unwrap();
        }
        // Whose frame arrives has been let in, and the label before it was read.
        write_frame(&mut other, &frame([0xff; 6], OTHER, 0));
        assert_eq!(read_frame(&mut card), frame([0xff; 6], OTHER, 0));
        Network {
            directory,
            card,
            other,
            switch,
        }
    }

    fn control(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    fn ask(&self, question: &str) -> String {
        let mut asker = UnixStream::connect(self.control()).unwrap();
        asker.set_read_timeout(Some(SOON)).unwrap();
        asker.write_all(format!("{question}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        asker.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The columns of the card's line.
    fn counts(&self) -> Vec<String> {
        let shown = self.ask("show");
        let line = shown.lines().find(|line| line.contains("devid")).unwrap();
        line.split('\t').map(str::to_owned).collect()
    }

    fn end(self) {
        drop((self.card, self.other));
        self.switch.join().unwrap().unwrap();
    }
}

#[test]
fn large_tcp_frames_are_cut_for_who_asks_for_it() {
    let mut network = Network::new("cut=1500");
    let large = tcp(4000);
    write_frame(&mut network.other, &large);
    let mut data = 0;
    while data < 4000 {
        let piece = read_frame(&mut network.card);
        assert!(piece.len() <= 1514, "{}", piece.len());
        assert!(has_right_checksum(&piece));
        data += piece.len() - 54;
    }
    assert_eq!(data, 4000);
    // The other way, and to those that have not asked, they stay whole.
    let back = [&large[6..12], &large[..6], &large[12..]].concat();
    write_frame(&mut network.card, &back);
    assert_eq!(read_frame(&mut network.other), back);
    network.end();
}

#[test]
fn what_is_not_from_its_own_address_goes_nowhere_and_is_counted() {
    let mut network = Network::new("own=00:16:3e:01:02:03");
    for from in [OTHER, [0x00, 0x16, 0x3e, 1, 2, 4]] {
        write_frame(&mut network.card, &frame([0xff; 6], from, 1));
    }
    write_frame(&mut network.card, &frame([0xff; 6], MAC, 2));
    assert_eq!(read_frame(&mut network.other), frame([0xff; 6], MAC, 2));
    let counts = network.counts();
    assert_eq!((&*counts[1], &*counts[6]), ("1", "2"), "{counts:?}");
    network.end();
}

#[test]
fn addresses_of_ip_that_are_not_its_own_go_nowhere() {
    let mut network = Network::new("own=00:16:3e:01:02:03 ip=10.0.0.1 ip=fe80::1");
    let arp = |sender: [u8; 4]| {
        let kinds = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
        [
            &[0xff; 6][..],
            &MAC,
            &kinds,
            &MAC,
            &sender,
            &[0; 6],
            &[10, 0, 0, 9],
        ]
        .concat()
    };
    write_frame(&mut network.card, &arp([10, 0, 0, 2]));
    write_frame(&mut network.card, &frame([0xff; 6], MAC, 1)); // in which an address may be hidden
    write_frame(&mut network.card, &arp([10, 0, 0, 1]));
    assert_eq!(read_frame(&mut network.other), arp([10, 0, 0, 1]));
    assert_eq!(network.counts()[6], "2");
    network.end();
}

#[test]
fn later_labels_are_frames_like_others() {
    let mut network = Network::new("own=00:16:3e:01:02:03");
    write_frame(&mut network.card, &[LABEL, b"own=00:00:00:00:00:09 {}"].concat());
    write_frame(&mut network.card, &frame([0xff; 6], OTHER, 1));
    write_frame(&mut network.card, &frame([0xff; 6], MAC, 2));
    assert_eq!(read_frame(&mut network.other), frame([0xff; 6], MAC, 2));
    network.end();
}

#[test]
fn a_rate_holds_its_card_up_and_nobody_else() {
    let interval = Duration::from_millis(200);
    let mut network = Network::new("rate=1000/200000");
    let part = [&frame([0xff; 6], MAC, 1)[..], &[0; 485]].concat();
    let start = Instant::now();
    for _ in 0..7 {
        write_frame(&mut network.card, &part);
    }
    // Three may go in each interval: the third is more than is left, and is owed.
    for _ in 0..7 {
        assert_eq!(read_frame(&mut network.other), part);
    }
    assert!(start.elapsed() >= interval);
    let before = Instant::now();
    write_frame(&mut network.other, &frame([0xff; 6], OTHER, 3));
    assert_eq!(read_frame(&mut network.card), frame([0xff; 6], OTHER, 3));
    // Without a bound that is asked for later, the same is there at once; an hour would be too long for the test.
    let number = network.counts()[0].clone();
    assert_eq!(network.ask(&format!("rate {number} 1 3600000000")), "done\n");
    write_frame(&mut network.card, &part);
    write_frame(&mut network.card, &part);
    assert_eq!(read_frame(&mut network.other), part);
    network.other.set_read_timeout(Some(interval)).unwrap();
    assert!(network.other.read(&mut [0]).is_err(), "{:?}", before.elapsed());
    network.other.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(network.ask(&format!("rate {number} 0 0")), "done\n");
    assert_eq!(read_frame(&mut network.other), part);
    // One that is held up and goes is let go.
    assert_eq!(network.ask(&format!("rate {number} 1 3600000000")), "done\n");
    write_frame(&mut network.card, &part);
    write_frame(&mut network.card, &part);
    assert_eq!(network.ask("rate 99 1 1"), "");
    network.end();
}

#[test]
fn frames_of_one_port_are_captured_alone() {
    let mut network = Network::new("");
    let number = network.counts()[0].clone();
    let mut capture = UnixStream::connect(network.control()).unwrap();
    capture.set_read_timeout(Some(SOON)).unwrap();
    capture
        .write_all(format!("capture 100 2 {number}\n").as_bytes())
        .unwrap();
    let mut head = [0; 8];
    capture.read_exact(&mut head).unwrap();
    assert_eq!(head[..4], 0x0a0d_0d0a_u32.to_le_bytes());
    write_frame(&mut network.card, &frame(OTHER, MAC, 7));
    assert_eq!(read_frame(&mut network.other), frame(OTHER, MAC, 7));
    write_frame(&mut network.other, &frame(MAC, OTHER, 8));
    assert_eq!(read_frame(&mut network.card), frame(MAC, OTHER, 8));
    let mut rest = Vec::new();
    capture.read_to_end(&mut rest).unwrap();
    for frame in [frame(OTHER, MAC, 7), frame(MAC, OTHER, 8)] {
        assert!(rest.windows(frame.len()).any(|part| part == frame));
    }
    assert_eq!(network.ask("capture 100 1 99"), "");
    network.end();
}
