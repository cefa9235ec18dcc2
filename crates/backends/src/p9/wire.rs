// SPDX-License-Identifier: Apache-2.0
//! How messages of 9P2000.L are written: little-endian numbers, text behind its length.

use rustix::io::Errno;

/// Bytes before each message: its size, its kind, its tag.
pub const HEADER: usize = 7;
pub const VERSION: &[u8] = b"9P2000.L";
pub const NOFID: u32 = !0;
/// Names of a walk at most.
pub const WALK_MAX: u16 = 16;

/// Kinds of requests; an answer's is one more.
pub mod kind {
    pub const LERROR: u8 = 6;
    pub const STATFS: u8 = 8;
    pub const LOPEN: u8 = 12;
    pub const LCREATE: u8 = 14;
    pub const SYMLINK: u8 = 16;
    pub const MKNOD: u8 = 18;
    pub const RENAME: u8 = 20;
    pub const READLINK: u8 = 22;
    pub const GETATTR: u8 = 24;
    pub const SETATTR: u8 = 26;
    pub const XATTRWALK: u8 = 30;
    pub const XATTRCREATE: u8 = 32;
    pub const READDIR: u8 = 40;
    pub const FSYNC: u8 = 50;
    pub const LOCK: u8 = 52;
    pub const GETLOCK: u8 = 54;
    pub const LINK: u8 = 70;
    pub const MKDIR: u8 = 72;
    pub const RENAMEAT: u8 = 74;
    pub const UNLINKAT: u8 = 76;
    pub const VERSION: u8 = 100;
    pub const AUTH: u8 = 102;
    pub const ATTACH: u8 = 104;
    pub const FLUSH: u8 = 108;
    pub const WALK: u8 = 110;
    pub const READ: u8 = 116;
    pub const WRITE: u8 = 118;
    pub const CLUNK: u8 = 120;
    pub const REMOVE: u8 = 122;
}

/// Flags of LOPEN and LCREATE.
pub mod open {
    pub const ACCESS: u32 = 3;
    pub const WRONLY: u32 = 1;
    pub const EXCL: u32 = 0o200;
    pub const TRUNC: u32 = 0o1000;
    pub const APPEND: u32 = 0o2000;
    pub const DSYNC: u32 = 0o10000;
    pub const DIRECTORY: u32 = 0o20_0000;
    pub const SYNC: u32 = 0o400_0000;
}

/// What SETATTR is to set.
pub mod set {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 2;
    pub const GID: u32 = 4;
    pub const LENGTH: u32 = 8;
    pub const ATIME: u32 = 0x10;
    pub const MTIME: u32 = 0x20;
    pub const ATIME_SET: u32 = 0x80;
    pub const MTIME_SET: u32 = 0x100;
}

/// Types of a qid.
pub const QID_DIR: u8 = 0x80;
pub const QID_SYMLINK: u8 = 2;
/// What an answer to GETATTR has: `P9_GETATTR_BASIC`.
pub const GETATTR_BASIC: u64 = 0x7ff;
pub const AT_REMOVEDIR: u32 = 0x200;
pub const LOCK_FLAG_BLOCK: u32 = 1;
pub const LOCK_SUCCESS: u8 = 0;
pub const LOCK_TYPE_UNLCK: u8 = 2;

/// What identifies a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qid {
    pub kind: u8,
    pub version: u32,
    pub path: u64,
}

/// A request's bytes behind the header. What is not there is EINVAL.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Errno> {
        let (part, rest) = self.0.split_at_checked(bytes).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(part)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        self.take(N)?.try_into().map_err(|_| Errno::INVAL)
    }

    pub fn u8(&mut self) -> Result<u8, Errno> {
        self.number().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, Errno> {
        self.number().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Errno> {
        self.number().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Errno> {
        self.number().map(u64::from_le_bytes)
    }

    pub fn text(&mut self) -> Result<&'a [u8], Errno> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

/// An answer's bytes behind the header.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u8(mut self, value: u8) -> Writer {
        self.0.push(value);
        self
    }

    pub fn u16(mut self, value: u16) -> Writer {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u32(mut self, value: u32) -> Writer {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Writer {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Text of at most 65,535 bytes; the callers' is shorter.
    pub fn text(mut self, text: &[u8]) -> Writer {
        let text = text.get(..usize::from(u16::MAX)).unwrap_or(text);
        self.0.extend((text.len() as u16).to_le_bytes());
        self.0.extend(text);
        self
    }

    pub fn qid(self, qid: Qid) -> Writer {
        self.u8(qid.kind).u32(qid.version).u64(qid.path)
    }
}
