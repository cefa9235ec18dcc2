// SPDX-License-Identifier: Apache-2.0
//! A session: the guest's messages, answered one after the other.

use super::fids::{Fid, Fids};
use super::place::{Name, Place, PATH_MAX};
use super::tree::{change_mode, change_owner, change_times, resize, How, Time, Tree};
use super::wire::{
    kind, set, Qid, Reader, Writer, AT_REMOVEDIR, GETATTR_BASIC, HEADER, LOCK_FLAG_BLOCK, LOCK_SUCCESS,
    LOCK_TYPE_UNLCK, NOFID, VERSION, WALK_MAX,
};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Bytes of a message at most.
pub const MSIZE_MAX: u32 = 512 << 10;
/// What a guest has to offer at least.
pub const MSIZE_MIN: u32 = 4096;
/// Bytes of READ's answer before the data, and of WRITE's fixed part.
const READ_HEAD: usize = 4;
pub(super) const WRITE_HEAD: usize = 16;
/// Bytes of one answer to READDIR at most.
const READDIR_MAX: u32 = 64 << 10;
/// Bytes that no other answer is longer than.
const ANSWER_MAX: usize = 512;
const BLOCK: u64 = 4096;

/// What a shared directory has seen.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests that were answered.
    pub requests: AtomicU64,
    /// Requests answered with an error; that a file is not there is one.
    pub errors: AtomicU64,
    /// Bytes read from files.
    pub read_bytes: AtomicU64,
    /// Bytes written to files.
    pub written_bytes: AtomicU64,
}

/// Where the data of READ goes, and that of WRITE comes from: memory of the guest.
pub trait Data {
    /// Bytes that WRITE has brought.
    fn brought(&self) -> usize;
    /// Reads a file to behind `READ_HEAD` of the answer.
    fn read(&self, file: &File, at: u64, bytes: usize) -> io::Result<usize>;
    /// Writes what was brought.
    fn write(&self, file: &File, at: u64, bytes: usize) -> io::Result<usize>;
}

/// An answer behind the header.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its kind, one more than the request's.
    pub kind: u8,
    /// What it says.
    pub body: Vec<u8>,
    /// Bytes that are behind `body` already.
    pub placed: usize,
}

type Body = Result<(Writer, usize), Errno>;

/// One guest's use of a directory.
pub struct Session {
    tree: Arc<Tree>,
    writable: bool,
    fids: Fids,
    /// What a ring can take.
    msize_max: u32,
    /// What is agreed on.
    msize: Option<u32>,
    counts: Arc<Counts>,
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn empty() -> Body {
    Ok((Writer::default(), 0))
}

fn with(writer: Writer) -> Body {
    Ok((writer, 0))
}

impl Session {
    /// A session that has not begun.
    ///
    /// `msize_max`: bytes of a message that a ring can take.
    pub fn new(tree: Arc<Tree>, writable: bool, msize_max: u32, counts: Arc<Counts>) -> Session {
        Session {
            tree,
            writable,
            fids: Fids::default(),
            msize_max: msize_max.min(MSIZE_MAX),
            msize: None,
            counts,
        }
    }

    /// Bytes of a message at most.
    pub fn msize(&self) -> u32 {
        self.msize.unwrap_or(self.msize_max)
    }

    /// Bytes, with the header, that the answer to a request may have.
    pub fn answer_max(&self, request: u8, body: &[u8]) -> usize {
        let most = self.msize() as usize;
        let bytes = match request {
            kind::READ | kind::READDIR => {
                let count = body.get(12..16).and_then(|b| b.try_into().ok());
                READ_HEAD + count.map_or(0, u32::from_le_bytes) as usize
            }
            kind::READLINK => 2 + PATH_MAX,
            // It says again what it was asked.
            kind::GETLOCK => body.len().max(ANSWER_MAX),
            _ => ANSWER_MAX,
        };
        (HEADER + bytes).max(ANSWER_MAX.min(most)).min(most)
    }

    /// Answers a request.
    ///
    /// `body`: what is behind its header, of WRITE only `WRITE_HEAD`.
    pub fn answer(&mut self, request: u8, body: &[u8], data: &dyn Data) -> Answer {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let done = self
            .body(request, Reader(body), data)
            .and_then(
                |(writer, placed)| match HEADER + writer.0.len() + placed <= self.msize() as usize {
                    true => Ok((writer, placed)),
                    false => Err(Errno::MSGSIZE),
                },
            );
        match done {
            Ok((writer, placed)) => Answer {
                kind: request + 1,
                body: writer.0,
                placed,
            },
            Err(error) => {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
                Answer {
                    kind: kind::LERROR + 1,
                    body: Writer::default().u32(error.raw_os_error() as u32).0,
                    placed: 0,
                }
            }
        }
    }

    fn body(&mut self, request: u8, r: Reader, data: &dyn Data) -> Body {
        match request {
            kind::VERSION => return self.version(r),
            kind::FLUSH => return empty(),
            _ if self.msize.is_none() => return Err(Errno::PROTO),
            _ => {}
        }
        match request {
            kind::ATTACH => self.attach(r),
            kind::WALK => self.walk(r),
            kind::CLUNK => self.clunk(r),
            kind::LOPEN => self.open(r),
            kind::READ => self.read(r, data),
            kind::WRITE => self.write(r, data),
            kind::READDIR => self.read_directory(r),
            kind::GETATTR => self.get_attributes(r),
            kind::READLINK => self.read_link(r),
            kind::STATFS => self.stat_fs(r),
            kind::FSYNC => self.sync(r),
            kind::LOCK => self.lock(r),
            kind::GETLOCK => self.get_lock(r),
            kind::REMOVE => self.remove(r),
            kind::LCREATE => self.create(r),
            kind::SYMLINK => self.symlink(r),
            kind::MKNOD => self.make_node(r),
            kind::RENAME => self.rename(r),
            kind::RENAMEAT => self.rename_at(r),
            kind::SETATTR => self.set_attributes(r),
            kind::LINK => self.link(r),
            kind::MKDIR => self.make_directory(r),
            kind::UNLINKAT => self.unlink(r),
            // AUTH, XATTRWALK, XATTRCREATE, and what 9P2000 had in the place of others.
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    fn check_writable(&self) -> Result<(), Errno> {
        match self.writable {
            true => Ok(()),
            false => Err(Errno::ROFS),
        }
    }

    /// Begins anew: whoever was here before has nothing any more.
    fn version(&mut self, mut r: Reader) -> Body {
        let (msize, version) = (r.u32()?.min(self.msize_max), r.text()?);
        self.fids = Fids::default();
        self.msize = None;
        if msize < MSIZE_MIN {
            return Err(Errno::MSGSIZE);
        }
        if version != VERSION {
            return with(Writer::default().u32(msize).text(b"unknown"));
        }
        self.msize = Some(msize);
        with(Writer::default().u32(msize).text(VERSION))
    }

    fn attach(&mut self, mut r: Reader) -> Body {
        let (fid, auth) = (r.u32()?, r.u32()?);
        let (_user, name) = (r.text()?, r.text()?);
        if auth != NOFID || fid == NOFID || self.fids.has(fid) {
            return Err(Errno::INVAL);
        }
        if !matches!(name, b"" | b"/") {
            return Err(Errno::NOENT);
        }
        let qid = self.tree.qid(&self.tree.stat(&Place::root())?);
        self.fids.insert(fid, Place::root())?;
        with(Writer::default().qid(qid))
    }

    fn walk(&mut self, mut r: Reader) -> Body {
        let (from, to, count) = (r.u32()?, r.u32()?, r.u16()?);
        if count > WALK_MAX || to == NOFID {
            return Err(Errno::INVAL);
        }
        let names = (0..count).map(|_| r.text()).collect::<Result<Vec<_>, _>>()?;
        let fid = self.fids.get(from)?;
        if (to != from && self.fids.has(to)) || (to == from && fid.is_open()) {
            return Err(Errno::INVAL);
        }
        let mut place = fid.place.clone();
        let mut qids: Vec<Qid> = Vec::new();
        for name in &names {
            match self.step(&place, name) {
                Ok((next, qid)) => {
                    place = next;
                    qids.push(qid);
                }
                Err(error) if qids.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        if qids.len() == names.len() {
            self.fids.insert(to, place)?;
        }
        let writer = Writer::default().u16(qids.len() as u16);
        with(qids.into_iter().fold(writer, Writer::qid))
    }

    fn step(&self, place: &Place, name: &[u8]) -> Result<(Place, Qid), Errno> {
        let next = match name {
            b"." => place.clone(),
            b".." => place.parent(),
            _ => place.child(Name::new(name, Errno::NOENT)?)?,
        };
        let qid = self.tree.qid(&self.tree.stat(&next)?);
        Ok((next, qid))
    }

    fn clunk(&mut self, mut r: Reader) -> Body {
        self.fids.remove(r.u32()?)?;
        empty()
    }

    fn open(&mut self, mut r: Reader) -> Body {
        let (number, how) = (r.u32()?, How::of(r.u32()?)?);
        let fid = self.fids.get(number)?;
        if fid.is_open() {
            return Err(Errno::INVAL);
        }
        let place = fid.place.clone();
        if how.changes() {
            self.check_writable()?;
        }
        self.fids.check_open()?;
        let opened = self.tree.open(&place, how)?;
        let qid = opened.qid;
        self.fids.set_open(number, place, opened)?;
        with(Writer::default().qid(qid).u32(0))
    }

    /// The number of the directory becomes that of the file.
    fn create(&mut self, mut r: Reader) -> Body {
        let (number, name, flags, mode) = (r.u32()?, r.text()?, r.u32()?, r.u32()?);
        let fid = self.fids.get(number)?;
        if fid.is_open() {
            return Err(Errno::INVAL);
        }
        let place = fid.place.child(Name::new(name, Errno::EXIST)?)?;
        self.check_writable()?;
        self.fids.check_open()?;
        let opened = self.tree.create(&place, How::of(flags)?, mode)?;
        let qid = opened.qid;
        self.fids.set_open(number, place, opened)?;
        with(Writer::default().qid(qid).u32(0))
    }

    fn read(&mut self, mut r: Reader, data: &dyn Data) -> Body {
        let (number, at, count) = (r.u32()?, r.u64()?, r.u32()?);
        let opened = self.fids.get(number)?.opened()?;
        if !opened.how.reads {
            return Err(Errno::BADF);
        }
        let most = (self.msize() as usize).saturating_sub(HEADER + READ_HEAD);
        let got = data
            .read(&opened.file, at, (count as usize).min(most))
            .map_err(|error| errno(&error))?;
        self.counts.read_bytes.fetch_add(got as u64, Ordering::Relaxed);
        Ok((Writer::default().u32(got as u32), got))
    }

    fn write(&mut self, mut r: Reader, data: &dyn Data) -> Body {
        let (number, at, count) = (r.u32()?, r.u64()?, r.u32()?);
        if count as usize > data.brought() {
            return Err(Errno::INVAL);
        }
        let opened = self.fids.get(number)?.opened()?;
        if !opened.how.writes {
            return Err(Errno::BADF);
        }
        let put = data
            .write(&opened.file, at, count as usize)
            .map_err(|error| errno(&error))?;
        self.counts.written_bytes.fetch_add(put as u64, Ordering::Relaxed);
        with(Writer::default().u32(put as u32))
    }

    fn read_directory(&mut self, mut r: Reader) -> Body {
        let (number, position, count) = (r.u32()?, r.u64()?, r.u32()?);
        let most = self.msize().saturating_sub((HEADER + READ_HEAD) as u32);
        let count = count.min(READDIR_MAX).min(most) as usize;
        let fid = self.fids.get_mut(number)?;
        let is_root = fid.place.is_root();
        let opened = fid.opened_mut()?;
        let own = opened.qid;
        let mut writer = Writer::default();
        let mut is_too_small = false;
        self.tree.entries(opened, position, |mut entry| {
            if is_root && entry.name == b".." {
                entry.qid = own; // What is above is nobody's business.
            }
            // qid, position, type, name.
            let bytes = 13 + 8 + 1 + 2 + entry.name.len();
            if writer.0.len() + bytes > count {
                is_too_small = writer.0.is_empty();
                return false;
            }
            writer = std::mem::take(&mut writer)
                .qid(entry.qid)
                .u64(entry.next)
                .u8(entry.kind)
                .text(entry.name);
            true
        })?;
        if is_too_small {
            return Err(Errno::INVAL);
        }
        let mut answer = Writer::default().u32(writer.0.len() as u32);
        answer.0.extend(writer.0);
        with(answer)
    }

    /// Calls with a descriptor of the open file, if it is one: it may have no name any more.
    fn on<T>(&self, fid: &Fid, act: impl FnOnce(BorrowedFd) -> Result<T, Errno>) -> Result<T, Errno> {
        match fid.opened() {
            Ok(opened) => act(opened.file.as_fd()),
            Err(_) => act(self.tree.node(&fid.place)?.as_fd()),
        }
    }

    fn stat(&self, number: u32) -> Result<Stat, Errno> {
        self.on(self.fids.get(number)?, |node| rustix::fs::fstat(node))
    }

    fn get_attributes(&mut self, mut r: Reader) -> Body {
        let (number, _wanted) = (r.u32()?, r.u64()?);
        let s = self.stat(number)?;
        let device = match FileType::from_raw_mode(s.st_mode) {
            FileType::CharacterDevice | FileType::BlockDevice => s.st_rdev,
            _ => 0,
        };
        let writer = Writer::default()
            .u64(GETATTR_BASIC)
            .qid(self.tree.qid(&s))
            .u32(s.st_mode)
            .u32(s.st_uid)
            .u32(s.st_gid)
            .u64(s.st_nlink)
            .u64(device)
            .u64(s.st_size as u64)
            .u64(BLOCK)
            .u64(s.st_blocks as u64);
        let times = [
            (s.st_atime, s.st_atime_nsec),
            (s.st_mtime, s.st_mtime_nsec),
            (s.st_ctime, s.st_ctime_nsec),
            (0, 0),
        ];
        let writer = times
            .iter()
            .fold(writer, |w, time| w.u64(time.0 as u64).u64(time.1));
        // Generation and version of the data: not among the basics.
        with(writer.u64(0).u64(0))
    }

    fn set_attributes(&mut self, mut r: Reader) -> Body {
        let (number, valid) = (r.u32()?, r.u32()?);
        let (mode, uid, gid, size) = (r.u32()?, r.u32()?, r.u32()?, r.u64()?);
        let (access, modification) = ((r.u64()?, r.u64()?), (r.u64()?, r.u64()?));
        let fid = self.fids.get(number)?;
        self.check_writable()?;
        let has = |flag| valid & flag != 0;
        let id = |flag, value| (has(flag) && value != !0).then_some(value);
        let (uid, gid) = (id(set::UID, uid), id(set::GID, gid));
        if uid.is_some() || gid.is_some() {
            self.on(fid, |node| change_owner(node, uid, gid))?;
        }
        if has(set::MODE) {
            self.on(fid, |node| change_mode(node, mode))?;
        }
        if has(set::LENGTH) {
            match fid.opened() {
                Ok(opened) if opened.how.writes => resize(opened, size)?,
                _ => self.tree.change_size(&fid.place, size)?,
            }
        }
        let time = |flag, given, (seconds, nanoseconds)| match (has(flag), has(given)) {
            (false, _) => Time::Keep,
            (true, false) => Time::Now,
            (true, true) => Time::At(seconds, nanoseconds),
        };
        if has(set::ATIME | set::MTIME) {
            let access = time(set::ATIME, set::ATIME_SET, access);
            let modification = time(set::MTIME, set::MTIME_SET, modification);
            self.on(fid, |node| change_times(node, access, modification))?;
        }
        empty()
    }

    fn read_link(&mut self, mut r: Reader) -> Body {
        let target = self.tree.read_link(&self.fids.get(r.u32()?)?.place)?;
        with(Writer::default().text(&target))
    }

    fn stat_fs(&mut self, mut r: Reader) -> Body {
        let s = self.tree.stat_fs(&self.fids.get(r.u32()?)?.place)?;
        with(
            Writer::default()
                .u32(s.f_type as u32)
                .u32(s.f_bsize as u32)
                .u64(s.f_blocks)
                .u64(s.f_bfree)
                .u64(s.f_bavail)
                .u64(s.f_files)
                .u64(s.f_ffree)
                .u64(0)
                .u32(s.f_namelen as u32),
        )
    }

    fn sync(&mut self, mut r: Reader) -> Body {
        let number = r.u32()?;
        // Old front ends have no such word.
        let only_data = r.u32().unwrap_or(0) != 0;
        let opened = self.fids.get(number)?.opened()?;
        match only_data {
            true => rustix::fs::fdatasync(&opened.file)?,
            false => rustix::fs::fsync(&opened.file)?,
        }
        empty()
    }

    /// Locks are the guest's own business, as QEMU has it: granted, and nobody else sees them.
    fn lock(&mut self, mut r: Reader) -> Body {
        let (number, _kind, flags) = (r.u32()?, r.u8()?, r.u32()?);
        let (_start, _length, _process, _client) = (r.u64()?, r.u64()?, r.u32()?, r.text()?);
        if flags & !LOCK_FLAG_BLOCK != 0 {
            return Err(Errno::INVAL);
        }
        self.stat(number)?;
        with(Writer::default().u8(LOCK_SUCCESS))
    }

    fn get_lock(&mut self, mut r: Reader) -> Body {
        let (number, _kind) = (r.u32()?, r.u8()?);
        let (start, length, process, client) = (r.u64()?, r.u64()?, r.u32()?, r.text()?);
        self.stat(number)?;
        let writer = Writer::default().u8(LOCK_TYPE_UNLCK).u64(start).u64(length);
        with(writer.u32(process).text(client))
    }

    /// The number is gone, whatever becomes of the file.
    fn remove(&mut self, mut r: Reader) -> Body {
        let fid = self.fids.remove(r.u32()?)?;
        self.check_writable()?;
        let stat = self.tree.stat(&fid.place)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        self.tree.unlink(&fid.place, is_directory)?;
        empty()
    }

    /// Where a new name in a directory would be.
    fn new_place(&self, directory: u32, name: &[u8], dots: Errno) -> Result<Place, Errno> {
        let directory = &self.fids.get(directory)?.place;
        let place = directory.child(Name::new(name, dots)?)?;
        self.check_writable()?;
        Ok(place)
    }

    fn symlink(&mut self, mut r: Reader) -> Body {
        let (directory, name, target) = (r.u32()?, r.text()?, r.text()?);
        let place = self.new_place(directory, name, Errno::EXIST)?;
        match target {
            b"" => return Err(Errno::NOENT),
            _ if target.contains(&0) => return Err(Errno::INVAL),
            _ if target.len() > PATH_MAX => return Err(Errno::NAMETOOLONG),
            _ => {}
        }
        with(Writer::default().qid(self.tree.make_link(&place, target)?))
    }

    /// Regular files only: others would act on the host, or make its programs wait.
    fn make_node(&mut self, mut r: Reader) -> Body {
        let (directory, name, mode) = (r.u32()?, r.text()?, r.u32()?);
        let place = self.new_place(directory, name, Errno::EXIST)?;
        if !matches!(
            FileType::from_raw_mode(mode),
            FileType::RegularFile | FileType::Unknown
        ) {
            return Err(Errno::PERM);
        }
        let how = How {
            writes: true,
            exclusive: true,
            ..How::default()
        };
        with(Writer::default().qid(self.tree.create(&place, how, mode)?.qid))
    }

    fn make_directory(&mut self, mut r: Reader) -> Body {
        let (directory, name, mode) = (r.u32()?, r.text()?, r.u32()?);
        let place = self.new_place(directory, name, Errno::EXIST)?;
        with(Writer::default().qid(self.tree.make_directory(&place, mode)?))
    }

    fn link(&mut self, mut r: Reader) -> Body {
        let (directory, number, name) = (r.u32()?, r.u32()?, r.text()?);
        let place = self.new_place(directory, name, Errno::EXIST)?;
        self.tree.link(&self.fids.get(number)?.place, &place)?;
        empty()
    }

    fn unlink(&mut self, mut r: Reader) -> Body {
        let (directory, name, flags) = (r.u32()?, r.text()?, r.u32()?);
        if flags & !AT_REMOVEDIR != 0 {
            return Err(Errno::INVAL);
        }
        let place = self.new_place(directory, name, Errno::INVAL)?;
        self.tree.unlink(&place, flags != 0)?;
        empty()
    }

    fn rename(&mut self, mut r: Reader) -> Body {
        let (number, directory, name) = (r.u32()?, r.u32()?, r.text()?);
        let to = self.new_place(directory, name, Errno::EXIST)?;
        let from = self.fids.get(number)?.place.clone();
        self.move_to(&from, &to)
    }

    fn rename_at(&mut self, mut r: Reader) -> Body {
        let (old, old_name, new, new_name) = (r.u32()?, r.text()?, r.u32()?, r.text()?);
        let from = self.new_place(old, old_name, Errno::INVAL)?;
        let to = self.new_place(new, new_name, Errno::EXIST)?;
        self.move_to(&from, &to)
    }

    fn move_to(&mut self, from: &Place, to: &Place) -> Body {
        self.fids.check_move(from, to)?;
        self.tree.rename(from, to)?;
        self.fids.follow_move(from, to);
        empty()
    }
}
