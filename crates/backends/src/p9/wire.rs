// SPDX-License-Identifier: Apache-2.0
//! How messages of 9P2000.L are written: little-endian numbers, text behind its length.

use rustix::io::Errno;

/// Bytes before each message: its size, its kind, its tag.
pub const HEADER: usize = 7;
/// The protocol's name.
pub const VERSION: &[u8] = b"9P2000.L";
pub(super) const NOFID: u32 = !0;
/// Names of a walk at most.
pub(super) const WALK_MAX: u16 = 16;

/// Kinds of requests; an answer's is one more.
pub mod kind {
    /// An error: answers only.
    pub const LERROR: u8 = 6;
    /// Attributes of the file system.
    pub const STATFS: u8 = 8;
    /// Opens a file.
    pub const LOPEN: u8 = 12;
    /// Makes and opens a file.
    pub const LCREATE: u8 = 14;
    /// Makes a symbolic link.
    pub const SYMLINK: u8 = 16;
    /// Makes another kind of file.
    pub const MKNOD: u8 = 18;
    /// Gives a file another name.
    pub const RENAME: u8 = 20;
    /// The target of a symbolic link.
    pub const READLINK: u8 = 22;
    /// Attributes of a file.
    pub const GETATTR: u8 = 24;
    /// Changes them.
    pub const SETATTR: u8 = 26;
    /// Extended attributes.
    pub const XATTRWALK: u8 = 30;
    /// Makes one.
    pub const XATTRCREATE: u8 = 32;
    /// Entries of a directory.
    pub const READDIR: u8 = 40;
    /// Puts what was written on stable storage.
    pub const FSYNC: u8 = 50;
    /// Locks a part of a file.
    pub const LOCK: u8 = 52;
    /// Who holds a lock.
    pub const GETLOCK: u8 = 54;
    /// One more name for a file.
    pub const LINK: u8 = 70;
    /// Makes a directory.
    pub const MKDIR: u8 = 72;
    /// Gives an entry of a directory another name.
    pub const RENAMEAT: u8 = 74;
    /// Removes an entry of a directory.
    pub const UNLINKAT: u8 = 76;
    /// Begins a session.
    pub const VERSION: u8 = 100;
    /// Proves who one is.
    pub const AUTH: u8 = 102;
    /// The root of the tree.
    pub const ATTACH: u8 = 104;
    /// Gives a request up.
    pub const FLUSH: u8 = 108;
    /// Goes from a file to another one.
    pub const WALK: u8 = 110;
    /// Reads from an open file.
    pub const READ: u8 = 116;
    /// Writes to an open file.
    pub const WRITE: u8 = 118;
    /// Lets go of a number.
    pub const CLUNK: u8 = 120;
    /// Removes a file, and lets go of its number.
    pub const REMOVE: u8 = 122;
}

/// Flags of LOPEN and LCREATE.
pub(super) mod open {
    pub(crate) const ACCESS: u32 = 3;
    pub(crate) const WRONLY: u32 = 1;
    pub(crate) const EXCL: u32 = 0o200;
    pub(crate) const TRUNC: u32 = 0o1000;
    pub(crate) const APPEND: u32 = 0o2000;
    pub(crate) const DSYNC: u32 = 0o10000;
    pub(crate) const DIRECTORY: u32 = 0o20_0000;
    pub(crate) const SYNC: u32 = 0o400_0000;
}

/// What SETATTR is to set.
pub(super) mod set {
    pub(crate) const MODE: u32 = 1;
    pub(crate) const UID: u32 = 2;
    pub(crate) const GID: u32 = 4;
    pub(crate) const LENGTH: u32 = 8;
    pub(crate) const ATIME: u32 = 0x10;
    pub(crate) const MTIME: u32 = 0x20;
    pub(crate) const ATIME_SET: u32 = 0x80;
    pub(crate) const MTIME_SET: u32 = 0x100;
}

/// Types of a qid.
pub(super) const QID_DIR: u8 = 0x80;
pub(super) const QID_SYMLINK: u8 = 2;
/// What an answer to GETATTR has: `P9_GETATTR_BASIC`.
pub(super) const GETATTR_BASIC: u64 = 0x7ff;
pub(super) const AT_REMOVEDIR: u32 = 0x200;
pub(super) const LOCK_FLAG_BLOCK: u32 = 1;
pub(super) const LOCK_SUCCESS: u8 = 0;
pub(super) const LOCK_TYPE_UNLCK: u8 = 2;

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

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, Errno> {
        self.number().map(u8::from_le_bytes)
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> Result<u16, Errno> {
        self.number().map(u16::from_le_bytes)
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Result<u32, Errno> {
        self.number().map(u32::from_le_bytes)
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Result<u64, Errno> {
        self.number().map(u64::from_le_bytes)
    }

    /// The next text: its length, then its bytes.
    pub fn text(&mut self) -> Result<&'a [u8], Errno> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

/// An answer's bytes behind the header.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// With one more byte.
    pub fn u8(mut self, value: u8) -> Writer {
        self.0.push(value);
        self
    }

    /// With two more bytes.
    pub fn u16(mut self, value: u16) -> Writer {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// With four more bytes.
    pub fn u32(mut self, value: u32) -> Writer {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// With eight more bytes.
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

    /// With what identifies a file.
    pub fn qid(self, qid: Qid) -> Writer {
        self.u8(qid.kind).u32(qid.version).u64(qid.path)
    }
}
