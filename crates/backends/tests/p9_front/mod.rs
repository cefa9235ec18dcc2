// SPDX-License-Identifier: Apache-2.0
//! A 9pfs front end that is driven by hand: its rings are in a real machine.
// Each test program uses a part of it.
#![allow(dead_code)]

use crate::granter::Granter;
use domzero_backends::p9::{kind, Broken, Counts, Device, Reader, Tree, Turn, Writer, HEADER, VERSION};
use domzero_machine::abi::p9::{data_intf, ring_size};
use domzero_machine::Mfn;
use std::fs::{self, File};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

pub const NOFID: u32 = !0;
pub const MSIZE: u32 = 16 << 10;
/// 32 KiB each way.
pub const ORDER: u32 = 4;
pub const ROOT: u32 = 0;

pub fn tree(path: &Path) -> Arc<Tree> {
    Arc::new(Tree::new(File::open(path).unwrap().into()).unwrap())
}

/// One ring: its page of indices and its pages of data.
pub struct RingPages {
    pub intf: (u32, Mfn),
    pub data: Vec<Mfn>,
    order: u32,
}

pub struct Front {
    granter: Granter,
    pub rings: Vec<RingPages>,
    pub counts: Arc<Counts>,
}

impl Deref for Front {
    type Target = Granter;

    fn deref(&self) -> &Granter {
        &self.granter
    }
}

impl Front {
    pub fn new(rings: usize, order: u32) -> Front {
        let granter = Granter::new();
        let ring = |_| {
            let intf = granter.page();
            let pages: Vec<_> = (0..1usize << order).map(|_| granter.page()).collect();
            granter.set_word(intf.1, data_intf::RING_ORDER, order);
            for (n, (gref, _)) in pages.iter().enumerate() {
                granter.set_word(intf.1, data_intf::REF + n * 4, *gref);
            }
            RingPages {
                intf,
                data: pages.into_iter().map(|(_, mfn)| mfn).collect(),
                order,
            }
        };
        Front {
            rings: (0..rings).map(ring).collect(),
            granter,
            counts: Arc::default(),
        }
    }

    pub fn connect(&self, tree: Arc<Tree>, writable: bool) -> Device {
        let refs: Vec<_> = self.rings.iter().map(|ring| ring.intf.0).collect();
        Device::connect(&self.table.client(0), &refs, tree, writable, self.counts.clone()).unwrap()
    }

    pub fn index(&self, ring: usize, at: usize) -> u32 {
        self.word(self.rings[ring].intf.1, at)
    }

    pub fn set_index(&self, ring: usize, at: usize, value: u32) {
        self.set_word(self.rings[ring].intf.1, at, value);
    }

    fn each(
        &self,
        ring: usize,
        base: usize,
        index: u32,
        length: usize,
        mut part: impl FnMut(Mfn, usize, std::ops::Range<usize>),
    ) {
        let pages = &self.rings[ring];
        let size = ring_size(pages.order);
        for n in 0..length {
            let at = base * size + (index as usize + n) % size;
            part(pages.data[at / 4096], at % 4096, n..n + 1);
        }
    }

    /// Puts bytes for the back end.
    pub fn put(&self, ring: usize, bytes: &[u8]) {
        let index = self.index(ring, data_intf::OUT_PROD);
        self.each(ring, 1, index, bytes.len(), |mfn, at, range| {
            self.write(mfn, at, &bytes[range])
        });
        self.set_index(ring, data_intf::OUT_PROD, index.wrapping_add(bytes.len() as u32));
    }

    pub fn unread(&self, ring: usize) -> usize {
        let [prod, cons] = [data_intf::IN_PROD, data_intf::IN_CONS].map(|at| self.index(ring, at));
        prod.wrapping_sub(cons) as usize
    }

    /// Takes the next answer: its kind, its tag, its body.
    pub fn get(&self, ring: usize) -> (u8, u16, Vec<u8>) {
        let head = self.look(ring, 4);
        let size = u32::from_le_bytes(head.try_into().unwrap()) as usize;
        assert!(
            (HEADER..=self.unread(ring)).contains(&size),
            "an answer of {size} bytes"
        );
        let message = self.look(ring, size);
        let cons = self.index(ring, data_intf::IN_CONS);
        self.set_index(ring, data_intf::IN_CONS, cons.wrapping_add(size as u32));
        let tag = u16::from_le_bytes([message[5], message[6]]);
        (message[4], tag, message[HEADER..].to_vec())
    }

    fn look(&self, ring: usize, bytes: usize) -> Vec<u8> {
        let mut found = vec![0; bytes];
        let index = self.index(ring, data_intf::IN_CONS);
        self.each(ring, 0, index, bytes, |mfn, at, range| {
            found[range].copy_from_slice(&self.read(mfn, at, 1))
        });
        found
    }
}

pub fn message(kind: u8, tag: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + body.len()) as u32).to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend(tag.to_le_bytes());
    bytes.extend(body);
    bytes
}

/// A front end with a back end that answers when it is called.
pub struct Client {
    pub front: Front,
    pub device: Device,
}

pub type Result<T> = std::result::Result<T, i32>;

impl Client {
    /// Before the first message.
    pub fn silent(path: &Path, writable: bool) -> Client {
        let front = Front::new(1, ORDER);
        let device = front.connect(tree(path), writable);
        Client { front, device }
    }

    /// The directory is fid `ROOT`.
    pub fn new(path: &Path, writable: bool) -> Client {
        let mut client = Client::silent(path, writable);
        let version = Writer::default().u32(MSIZE).text(VERSION);
        client.call(kind::VERSION, version).unwrap();
        let attach = Writer::default().u32(ROOT).u32(NOFID).text(b"root").text(b"");
        client.call(kind::ATTACH, attach.u32(0)).unwrap();
        client
    }

    pub fn raw(&mut self, kind: u8, body: &[u8]) -> std::result::Result<Result<Vec<u8>>, Broken> {
        self.front.put(0, &message(kind, 7, body));
        assert_eq!(self.device.turn(0, true)?, Turn::Answered);
        let (answer, tag, body) = self.front.get(0);
        assert_eq!((tag, self.front.unread(0)), (7, 0));
        if answer == kind::LERROR + 1 {
            return Ok(Err(Reader(&body).u32().unwrap() as i32));
        }
        assert_eq!(answer, kind + 1);
        Ok(Ok(body))
    }

    pub fn call(&mut self, kind: u8, body: Writer) -> Result<Vec<u8>> {
        self.raw(kind, &body.0).unwrap()
    }

    /// How many of the names there are; `to` stands for the last one if all are.
    pub fn walk(&mut self, from: u32, to: u32, names: &[&[u8]]) -> Result<usize> {
        let body = Writer::default().u32(from).u32(to).u16(names.len() as u16);
        let body = names.iter().fold(body, |body, name| body.text(name));
        let answer = self.call(kind::WALK, body)?;
        Ok(usize::from(Reader(&answer).u16().unwrap()))
    }

    pub fn open(&mut self, fid: u32, flags: u32) -> Result<()> {
        self.call(kind::LOPEN, Writer::default().u32(fid).u32(flags))
            .map(|_| ())
    }

    pub fn read(&mut self, fid: u32, at: u64, count: u32) -> Result<Vec<u8>> {
        let body = Writer::default().u32(fid).u64(at).u32(count);
        let answer = self.call(kind::READ, body)?;
        assert_eq!(Reader(&answer).u32().unwrap() as usize, answer.len() - 4);
        Ok(answer[4..].to_vec())
    }

    pub fn write(&mut self, fid: u32, at: u64, data: &[u8]) -> Result<u32> {
        let mut body = Writer::default().u32(fid).u64(at).u32(data.len() as u32);
        body.0.extend(data);
        let answer = self.call(kind::WRITE, body)?;
        Ok(Reader(&answer).u32().unwrap())
    }

    pub fn create(&mut self, fid: u32, name: &[u8], flags: u32, mode: u32) -> Result<()> {
        let body = Writer::default().u32(fid).text(name).u32(flags).u32(mode).u32(0);
        self.call(kind::LCREATE, body).map(|_| ())
    }

    pub fn clunk(&mut self, fid: u32) -> Result<()> {
        self.call(kind::CLUNK, Writer::default().u32(fid)).map(|_| ())
    }

    /// Walks to a file, reads it and lets go of it.
    pub fn contents(&mut self, names: &[&[u8]]) -> Result<Vec<u8>> {
        if self.walk(ROOT, 99, names)? < names.len() {
            return Err(libc::ENOENT);
        }
        let read = self.open(99, 0).and_then(|()| self.read(99, 0, 4096));
        self.clunk(99).unwrap();
        read
    }

    /// All names of an open directory, read by `count` bytes.
    pub fn names(&mut self, fid: u32, count: u32) -> Result<Vec<Vec<u8>>> {
        let (mut found, mut at) = (Vec::new(), 0);
        loop {
            let body = Writer::default().u32(fid).u64(at).u32(count);
            let answer = self.call(kind::READDIR, body)?;
            let mut reader = Reader(&answer[4..]);
            if reader.0.is_empty() {
                return Ok(found);
            }
            while !reader.0.is_empty() {
                let (_qid, _, _) = (reader.u8().unwrap(), reader.u32().unwrap(), reader.u64().unwrap());
                at = reader.u64().unwrap();
                reader.u8().unwrap();
                found.push(reader.text().unwrap().to_vec());
            }
        }
    }

    pub fn set(&mut self, fid: u32, valid: u32, mode: u32, size: u64) -> Result<()> {
        let ids = Writer::default().u32(fid).u32(valid).u32(mode).u32(!0).u32(!0);
        let body = ids.u64(size).u64(1).u64(2).u64(3).u64(4);
        self.call(kind::SETATTR, body).map(|_| ())
    }

    pub fn attributes(&mut self, fid: u32) -> Result<(u32, u64)> {
        let answer = self.call(kind::GETATTR, Writer::default().u32(fid).u64(!0))?;
        let mut reader = Reader(&answer);
        let (_valid, _, _, _) = (reader.u64(), reader.u8(), reader.u32(), reader.u64());
        let (mode, _, _) = (reader.u32().unwrap(), reader.u32(), reader.u32());
        let (_, _, size) = (reader.u64(), reader.u64(), reader.u64().unwrap());
        Ok((mode, size))
    }
}

pub const RDWR: u32 = 2;
pub const WRONLY: u32 = 1;
pub const EXCL: u32 = 0o200;
pub const TRUNC: u32 = 0o1000;

/// A directory with a shared one in it, `in`; what is beside that is nobody's business.
pub fn shared() -> TempDir {
    let all = tempfile::tempdir().unwrap();
    fs::create_dir_all(all.path().join("in/sub")).unwrap();
    fs::create_dir(all.path().join("out")).unwrap();
    fs::write(all.path().join("in/a"), b"alpha").unwrap();
    fs::write(all.path().join("in/sub/b"), b"beta").unwrap();
    fs::write(all.path().join("out/secret"), b"secret").unwrap();
    all
}

pub fn client(all: &TempDir, writable: bool) -> Client {
    Client::new(&all.path().join("in"), writable)
}

pub fn is_clean(client: Client) {
    let Client { front, device } = client;
    drop(device);
    assert_eq!(front.grants.audit(), Vec::<String>::new());
}

/// Paths, modes and contents of all that there is.
pub fn listing(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let what = fs::symlink_metadata(&path).unwrap();
        let contents = if what.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        found.push(format!("{path:?} {:o} {contents:?}", what.mode()));
        if what.is_dir() {
            found.extend(listing(&path));
        }
    }
    found.sort();
    found
}
