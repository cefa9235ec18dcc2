// SPDX-License-Identifier: Apache-2.0
//! A network front end that is driven by hand: its rings and its frames are in a real machine.
// Each test program uses a part of it.
#![allow(dead_code)]

use crate::granter::Granter;
use domzero_backends::net::{fill_checksum, Agreed, Interface, Link, Queue, QueueRefs, AHEAD};
use domzero_machine::abi::netif;
use domzero_machine::abi::ring::{HEAD, REQ_PROD};
use domzero_machine::Mfn;
use std::cell::Cell;
use std::io::{Read, Write};
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

pub const MAC: [u8; 6] = [0, 0x16, 0x3e, 1, 2, 3];
pub const ENTRIES: u32 = 256;
pub const SOON: Duration = Duration::from_secs(60);

/// A front end: its granted pages, and its sides of the rings.
pub struct Front {
    granter: Granter,
    pub rings: [(u32, Mfn); 2],
    pub produced: [Cell<u32>; 2],
    pub interface: Arc<Interface>,
}

pub const TX: usize = 0;
pub const RX: usize = 1;
pub const SIZES: [usize; 2] = [12, 8];

pub fn agreed() -> Agreed {
    Agreed {
        scatter: true,
        gso_v4: true,
        gso_v6: true,
        checksum_v4: true,
        checksum_v6: true,
        rx_notify: true,
        mac: MAC,
        keeps_mac: false,
        addresses: Arc::default(),
        mtu: 1500,
        multicast: Arc::default(),
    }
}

pub fn slot(gref: u32, offset: u16, flags: u16, id: u16, size: u16) -> Vec<u8> {
    let mut bytes = gref.to_le_bytes().to_vec();
    for value in [offset, flags, id, size] {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

pub fn extra(kind: u8, flags: u8, size: u16, gso: u8) -> Vec<u8> {
    let [low, high] = size.to_le_bytes();
    vec![kind, flags, low, high, gso, 0, 0, 0, 0, 0, 0, 0]
}

impl Deref for Front {
    type Target = Granter;

    fn deref(&self) -> &Granter {
        &self.granter
    }
}

impl Front {
    pub fn new() -> Front {
        let granter = Granter::new();
        Front {
            rings: [granter.page(), granter.page()],
            granter,
            produced: Default::default(),
            interface: Arc::default(),
        }
    }

    /// A word of a ring's head.
    pub fn head(&self, ring: usize, at: usize) -> u32 {
        self.word(self.rings[ring].1, at)
    }

    pub fn set_head(&self, ring: usize, at: usize, value: u32) {
        self.set_word(self.rings[ring].1, at, value);
    }

    pub fn put(&self, ring: usize, entry: &[u8]) {
        let index = self.produced[ring].get();
        let at = HEAD + (index % ENTRIES) as usize * SIZES[ring];
        self.write(self.rings[ring].1, at, entry);
        self.produced[ring].set(index.wrapping_add(1));
        self.set_head(ring, REQ_PROD, index.wrapping_add(1));
    }

    pub fn response(&self, ring: usize, index: u32) -> Vec<u8> {
        let at = HEAD + (index % ENTRIES) as usize * SIZES[ring];
        self.read(self.rings[ring].1, at, SIZES[ring])
    }

    /// id, status.
    pub fn sent(&self, index: u32) -> (u16, i16) {
        let bytes = self.response(TX, index);
        (
            u16::from_le_bytes([bytes[0], bytes[1]]),
            i16::from_le_bytes([bytes[2], bytes[3]]),
        )
    }

    /// id, flags, status.
    pub fn received(&self, index: u32) -> (u16, u16, i16) {
        let bytes = self.response(RX, index);
        (
            u16::from_le_bytes([bytes[0], bytes[1]]),
            u16::from_le_bytes([bytes[4], bytes[5]]),
            i16::from_le_bytes([bytes[6], bytes[7]]),
        )
    }

    /// Puts pages into the ring of what is received.
    pub fn offer(&self, count: u16) -> Vec<Mfn> {
        let pages: Vec<_> = (0..count).map(|_| self.page()).collect();
        for (id, (gref, _)) in pages.iter().enumerate() {
            let mut entry = (id as u16).to_le_bytes().to_vec();
            entry.extend([0, 0]);
            entry.extend(gref.to_le_bytes());
            self.put(RX, &entry);
        }
        pages.into_iter().map(|(_, mfn)| mfn).collect()
    }

    pub fn connect(&self, agreed: Agreed) -> Queue {
        self.connect_to(agreed, &self.interface)
    }

    pub fn connect_to(&self, agreed: Agreed, interface: &Arc<Interface>) -> Queue {
        let refs = QueueRefs {
            tx: self.rings[TX].0,
            rx: self.rings[RX].0,
        };
        Queue::connect(self.table.client(0), refs, agreed, Arc::clone(interface)).unwrap()
    }

    /// A frame in pages of its own, as slots.
    pub fn slots(&self, frame: &[u8], flags: u16) -> Vec<Vec<u8>> {
        let parts: Vec<_> = frame.chunks(4096).collect();
        let last = parts.len() - 1;
        let each = |(n, part): (usize, &&[u8])| {
            let (gref, mfn) = self.page();
            self.write(mfn, 0, part);
            let more = if n < last { netif::TXF_MORE_DATA } else { 0 };
            let (flags, size) = match n {
                0 => (flags | more, frame.len()),
                _ => (more, part.len()),
            };
            slot(gref, 0, flags, n as u16 + 100, size as u16)
        };
        parts.iter().enumerate().map(each).collect()
    }
}

pub fn wire() -> (Link, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(SOON)).unwrap();
    (Link::new(ours, AHEAD).unwrap(), theirs)
}

pub fn read_frame(wire: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    wire.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    wire.read_exact(&mut frame).unwrap();
    frame
}

pub fn write_frame(wire: &mut UnixStream, frame: &[u8]) {
    wire.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
    wire.write_all(frame).unwrap();
}

/// An Ethernet frame with nothing that is known in it.
pub fn plain(length: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(MAC);
    frame.extend([0x88, 0xb5]);
    frame.extend((14..length).map(|n| n as u8));
    frame
}

/// A TCP frame over IPv4 with `data` bytes, and right checksums.
pub fn tcp(data: usize) -> Vec<u8> {
    let mut frame = plain(12);
    frame.truncate(12);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(((40 + data) as u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([1, 2, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    frame.extend((0..data).map(|n| (n * 7) as u8));
    assert!(fill_checksum(&mut frame));
    frame
}
