// SPDX-License-Identifier: Apache-2.0
//! A block front end that is driven by hand: its ring and its data are frames of a real machine.
// Each test program uses a part of it.
#![allow(dead_code)]

use crate::granter::Granter;
use domzero_backends::block::{Agreed, Counts, Disk, Notice, Queue, RawDisk, Throttle};
use domzero_backends::RingBroken;
use domzero_machine::abi::blkif::{self, Layout};
use domzero_machine::abi::ring::{HEAD, REQ_PROD, RSP_PROD};
use domzero_machine::Mfn;
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::ops::Deref;
use std::process::Command;
use std::sync::mpsc::Sender;
use std::sync::Arc;
use std::time::Duration;

/// What is waited for comes long before.
pub const SOON: Duration = Duration::from_secs(60);

/// Passes on what a ring's thread says.
pub struct Told(pub Sender<Option<RingBroken>>);

impl Notice for Told {
    fn notify(&self) {
        self.0.send(None).unwrap();
    }
    fn broken(&self, error: RingBroken) {
        self.0.send(Some(error)).unwrap();
    }
}

/// A front end: its granted pages, and its side of the ring.
pub struct Front {
    granter: Granter,
    pub layout: Layout,
    pub ring: Vec<Mfn>,
    pub ring_refs: Vec<u32>,
    pub req_prod: Cell<u32>,
}

impl Deref for Front {
    type Target = Granter;

    fn deref(&self) -> &Granter {
        &self.granter
    }
}

impl Front {
    pub fn new(layout: Layout, ring_pages: usize) -> Front {
        let granter = Granter::new();
        let (ring_refs, ring) = (0..ring_pages).map(|_| granter.page()).unzip();
        Front {
            granter,
            layout,
            ring,
            ring_refs,
            req_prod: Cell::new(0),
        }
    }

    /// A word of the ring's head.
    pub fn head(&self, at: usize) -> u32 {
        self.word(self.ring[0], at)
    }

    pub fn set_head(&self, at: usize, value: u32) {
        self.set_word(self.ring[0], at, value);
    }

    pub fn entries(&self) -> u32 {
        let room = (self.ring.len() * 4096 - HEAD) / self.layout.entry;
        1 << (usize::BITS - 1 - room.leading_zeros())
    }

    pub fn slot(&self, index: u32) -> Vec<u64> {
        let start = HEAD + (index % self.entries()) as usize * self.layout.entry;
        let place = |at: usize| self.ring[at / 4096].maddr() + (at % 4096) as u64;
        (start..start + self.layout.entry).map(place).collect()
    }

    pub fn send(&self, entry: &[u8]) {
        for (at, byte) in self.slot(self.req_prod.get()).iter().zip(entry) {
            self.grants.machine().mem.write(*at, &[*byte]);
        }
        self.req_prod.set(self.req_prod.get().wrapping_add(1));
        self.set_head(REQ_PROD, self.req_prod.get());
    }

    /// id, operation, status of a response.
    pub fn response(&self, index: u32) -> (u64, u8, i16) {
        let mut bytes = [0; 12];
        for (at, byte) in self.slot(index).iter().zip(&mut bytes) {
            self.grants.machine().mem.read(*at, std::slice::from_mut(byte));
        }
        let status = i16::from_le_bytes(bytes[10..12].try_into().unwrap());
        (
            u64::from_le_bytes(bytes[..8].try_into().unwrap()),
            bytes[8],
            status,
        )
    }

    pub fn entry(&self, operation: u8, second: u8, id: u64, sector: u64) -> Vec<u8> {
        let mut entry = vec![0; self.layout.entry];
        entry[0] = operation;
        entry[1] = second;
        entry[self.layout.id..self.layout.id + 8].copy_from_slice(&id.to_le_bytes());
        let at = self.layout.sector_number;
        entry[at..at + 8].copy_from_slice(&sector.to_le_bytes());
        entry
    }

    pub fn request(&self, operation: u8, id: u64, sector: u64, segments: &[(u32, u8, u8)]) -> Vec<u8> {
        let mut entry = self.entry(operation, segments.len() as u8, id, sector);
        for (n, segment) in segments.iter().take(11).enumerate() {
            let at = self.layout.seg + n * 8;
            entry[at..at + 8].copy_from_slice(&packed(*segment));
        }
        entry
    }

    pub fn indirect(&self, operation: u8, id: u64, sector: u64, segments: &[(u32, u8, u8)]) -> Vec<u8> {
        let mut entry = self.entry(blkif::OP_INDIRECT, operation, id, sector);
        entry[2..4].copy_from_slice(&(segments.len() as u16).to_le_bytes());
        for (n, page) in segments.chunks(512).enumerate() {
            let (gref, mfn) = self.page();
            self.write(mfn, 0, &page.iter().flat_map(|s| packed(*s)).collect::<Vec<_>>());
            let at = self.layout.indirect_grefs + n * 4;
            entry[at..at + 4].copy_from_slice(&gref.to_le_bytes());
        }
        entry
    }

    pub fn connect(&self, disk: impl Disk + 'static, agreed: Agreed) -> Queue {
        self.connect_limited(disk, Arc::default(), agreed)
    }

    pub fn connect_limited(
        &self,
        disk: impl Disk + 'static,
        throttle: Arc<Throttle>,
        agreed: Agreed,
    ) -> Queue {
        let counts = Arc::new(Counts::default());
        Queue::connect(
            self.table.client(0),
            &self.ring_refs,
            Arc::new(disk),
            counts,
            throttle,
            agreed,
        )
        .unwrap()
    }

    /// Sends one request, and gives its status.
    pub fn ask(&self, queue: &mut Queue, entry: &[u8]) -> i16 {
        let index = self.req_prod.get();
        self.send(entry);
        queue.serve().unwrap();
        assert_eq!(self.head(RSP_PROD), index + 1);
        self.response(index).2
    }
}

pub fn packed((gref, first, last): (u32, u8, u8)) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&gref.to_le_bytes());
    (bytes[4], bytes[5]) = (first, last);
    bytes
}

pub fn agreed(layout: Layout) -> Agreed {
    Agreed {
        layout,
        persistent: false,
        sector_bytes: 512,
        writable: true,
    }
}

/// A file of `sectors` sectors, each filled with its number.
pub fn file(sectors: u64) -> File {
    let mut file = tempfile::tempfile().unwrap();
    for sector in 0..sectors {
        file.write_all(&[sector as u8; 512]).unwrap();
    }
    file
}

pub fn raw(sectors: u64) -> (RawDisk, File) {
    let file = file(sectors);
    (RawDisk::new(file.try_clone().unwrap(), true).unwrap(), file)
}

pub fn contents(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

pub fn qemu_img(arguments: &[&str]) -> bool {
    match Command::new("qemu-img").args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            true
        }
        Err(_) => {
            eprintln!("skipped: qemu-img is not here (apt-get install qemu-utils)");
            false
        }
    }
}
