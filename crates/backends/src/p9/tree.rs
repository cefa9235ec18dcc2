// SPDX-License-Identifier: Apache-2.0
//! The shared directory: the only part that touches the host's files.
//!
//! Everything is found anew from the directory's descriptor, by an `openat2` that cannot leave it: no link is followed,
//! no mount point entered, no `..` is in the path. What changes a directory's entries is done with a descriptor of that
//! directory and one name. Only regular files and directories are ever opened: a FIFO would wait, a device would act.

use super::place::{Name, Place};
use super::wire::{open, Qid, QID_DIR, QID_SYMLINK};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, Stat, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::mem::MaybeUninit;

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// Bits of a mode that new files may have; the set-id bits are not among them.
const MODE: u32 = 0o1777;
const SET_ID: u32 = 0o6000;
const NANOSECONDS: u64 = 1_000_000_000;
/// Bytes that are read of a directory at once.
const ENTRIES: usize = 32 << 10;
/// How often something is tried that others may make fail at the same time.
const TRIES: usize = 8;

/// How a file is to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    pub reads: bool,
    pub writes: bool,
    pub truncates: bool,
    pub exclusive: bool,
    pub appends: bool,
    pub syncs: bool,
    pub only_directory: bool,
}

impl How {
    /// `flags`: of LOPEN or LCREATE. What only concerns the guest's own kernel is not looked at.
    pub fn of(flags: u32) -> Result<How, Errno> {
        let access = flags & open::ACCESS;
        if access == open::ACCESS {
            return Err(Errno::INVAL);
        }
        let has = |flag| flags & flag != 0;
        Ok(How {
            reads: access != open::WRONLY,
            writes: access != 0,
            truncates: has(open::TRUNC),
            exclusive: has(open::EXCL),
            appends: has(open::APPEND),
            syncs: has(open::DSYNC | open::SYNC),
            only_directory: has(open::DIRECTORY),
        })
    }

    /// Whether it is for a change.
    pub fn changes(&self) -> bool {
        self.writes || self.truncates
    }

    fn flags(&self) -> OFlags {
        let mut flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        flags |= match (self.reads, self.changes()) {
            (_, false) => OFlags::RDONLY,
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
        };
        flags.set(OFlags::APPEND, self.appends);
        flags.set(OFlags::SYNC, self.syncs);
        flags
    }
}

/// An open file or directory.
pub struct Opened {
    pub file: File,
    pub how: How,
    pub qid: Qid,
    is_directory: bool,
    device: u64,
    /// Of a directory: where it is read next.
    position: u64,
}

/// One entry of a directory.
pub struct Entry<'a> {
    pub qid: Qid,
    /// Where the next one is.
    pub next: u64,
    pub kind: u8,
    pub name: &'a [u8],
}

/// A time that is to be set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Time {
    Keep,
    Now,
    At(u64, u64),
}

/// A directory of the host, open.
pub struct Tree {
    root: OwnedFd,
    /// The file system that it is in.
    device: u64,
}

fn mode_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_directory(stat: &Stat) -> bool {
    mode_of(stat) == FileType::Directory
}

/// Whether it may be opened so.
fn check(stat: &Stat, how: &How) -> Result<(), Errno> {
    match mode_of(stat) {
        FileType::Directory if how.changes() => Err(Errno::ISDIR),
        FileType::Directory => Ok(()),
        FileType::RegularFile if how.only_directory => Err(Errno::NOTDIR),
        // What runs as another user is not the guest's to write.
        FileType::RegularFile if how.changes() && stat.st_mode & SET_ID != 0 => Err(Errno::PERM),
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(Errno::LOOP),
        _ => Err(Errno::NXIO),
    }
}

impl Tree {
    /// Takes a descriptor of a directory, which may be one by `O_PATH`. ENOSYS: a kernel before Linux 5.6.
    pub fn new(root: OwnedFd) -> Result<Tree, Errno> {
        let stat = fs::fstat(&root)?;
        if !is_directory(&stat) {
            return Err(Errno::NOTDIR);
        }
        let tree = Tree {
            root,
            device: stat.st_dev,
        };
        tree.node(&Place::root())?;
        Ok(tree)
    }

    /// The way to all files: never out of the directory.
    fn resolve(&self, place: &Place, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        for _ in 1..TRIES {
            match fs::openat2(&self.root, place.path(), flags, mode, RESOLVE) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        fs::openat2(&self.root, place.path(), flags, mode, RESOLVE)
    }

    /// Whatever it is, without opening it.
    pub fn node(&self, place: &Place) -> Result<OwnedFd, Errno> {
        self.resolve(
            place,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    /// A directory, for what is done with its entries.
    fn directory(&self, place: &Place) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.resolve(place, flags, Mode::empty())
    }

    /// The directory that something is in. EBUSY: it is the shared directory, whose entry is not below it.
    fn around<'a>(&self, place: &'a Place) -> Result<(OwnedFd, Name<'a>), Errno> {
        let (parent, name) = place.split().ok_or(Errno::BUSY)?;
        Ok((self.directory(&parent)?, name))
    }

    /// What identifies it to the guest.
    pub fn qid(&self, stat: &Stat) -> Qid {
        let kind = match mode_of(stat) {
            FileType::Directory => QID_DIR,
            FileType::Symlink => QID_SYMLINK,
            _ => 0,
        };
        Qid {
            kind,
            version: (stat.st_mtime as u32)
                ^ (stat.st_mtime_nsec as u32)
                ^ (stat.st_size as u32).rotate_left(8),
            path: self.number(stat.st_dev, stat.st_ino),
        }
    }

    /// A file's number; those of other devices (layers of an overlay) are told apart.
    fn number(&self, device: u64, inode: u64) -> u64 {
        inode ^ (device ^ self.device).rotate_left(40)
    }

    /// Its attributes, whatever it is.
    pub fn stat(&self, place: &Place) -> Result<Stat, Errno> {
        fs::fstat(self.node(place)?)
    }

    /// The target of a symbolic link. EINVAL: it is none.
    pub fn read_link(&self, place: &Place) -> Result<Vec<u8>, Errno> {
        let node = self.node(place)?;
        match mode_of(&fs::fstat(&node)?) {
            FileType::Symlink => Ok(fs::readlinkat(node, "", Vec::new())?.into_bytes()),
            _ => Err(Errno::INVAL),
        }
    }

    /// Attributes of the file system that it is in.
    pub fn stat_fs(&self, place: &Place) -> Result<fs::StatFs, Errno> {
        fs::fstatfs(self.node(place)?)
    }

    /// Opens a regular file or a directory.
    pub fn open(&self, place: &Place, how: How) -> Result<Opened, Errno> {
        // First what it is: even an open that is given up at once acts on some devices.
        let found = self.stat(place)?;
        check(&found, &how)?;
        let mut flags = how.flags();
        flags.set(OFlags::DIRECTORY, is_directory(&found));
        let opened = self.opened(self.resolve(place, flags, Mode::empty())?, how)?;
        if how.truncates {
            fs::ftruncate(&opened.file, 0)?;
        }
        Ok(opened)
    }

    fn opened(&self, fd: OwnedFd, how: How) -> Result<Opened, Errno> {
        // It may be another one than that was looked at.
        let stat = fs::fstat(&fd)?;
        check(&stat, &how)?;
        Ok(Opened {
            file: File::from(fd),
            how,
            qid: self.qid(&stat),
            is_directory: is_directory(&stat),
            device: stat.st_dev,
            position: 0,
        })
    }

    /// Makes a regular file, or opens the one that is there.
    pub fn create(&self, place: &Place, how: How, mode: u32) -> Result<Opened, Errno> {
        let flags = how.flags() | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(mode & MODE);
        for _ in 0..TRIES {
            match self.resolve(place, flags, mode) {
                Ok(fd) => {
                    // The guest's own umask counts, not ours.
                    fs::fchmod(&fd, mode)?;
                    return self.opened(fd, how);
                }
                Err(Errno::EXIST) if !how.exclusive => {}
                Err(error) => return Err(error),
            }
            match self.open(place, how) {
                Err(Errno::NOENT) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Makes a directory.
    pub fn make_directory(&self, place: &Place, mode: u32) -> Result<Qid, Errno> {
        let (parent, name) = self.around(place)?;
        let mode = Mode::from_raw_mode(mode & MODE);
        fs::mkdirat(parent, name.bytes(), mode)?;
        let made = self.directory(place)?;
        let stat = fs::fstat(&made)?;
        if stat.st_mode & MODE != mode.bits() {
            // The guest's own umask counts, not ours; a set-group-id bit is its parent's.
            change_mode(made.as_fd(), mode.bits() | stat.st_mode & SET_ID)?;
        }
        Ok(self.qid(&stat))
    }

    /// Makes a symbolic link; its target is the guest's own business.
    pub fn make_link(&self, place: &Place, target: &[u8]) -> Result<Qid, Errno> {
        let (parent, name) = self.around(place)?;
        fs::symlinkat(target, parent, name.bytes())?;
        Ok(self.qid(&self.stat(place)?))
    }

    /// One more name for a file.
    pub fn link(&self, from: &Place, to: &Place) -> Result<(), Errno> {
        let (old, old_name) = self.around(from)?;
        let (new, new_name) = self.around(to)?;
        fs::linkat(old, old_name.bytes(), new, new_name.bytes(), AtFlags::empty())
    }

    /// Gives it another name, in place of what is there.
    pub fn rename(&self, from: &Place, to: &Place) -> Result<(), Errno> {
        let (old, old_name) = self.around(from)?;
        let (new, new_name) = self.around(to)?;
        fs::renameat(old, old_name.bytes(), new, new_name.bytes())
    }

    /// Removes a name; of a directory, with `directory`, an empty one.
    pub fn unlink(&self, place: &Place, directory: bool) -> Result<(), Errno> {
        let (parent, name) = self.around(place)?;
        let flags = if directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        fs::unlinkat(parent, name.bytes(), flags)
    }

    /// Cuts a file off, or makes it longer.
    pub fn change_size(&self, place: &Place, bytes: u64) -> Result<(), Errno> {
        let how = How {
            writes: true,
            ..How::default()
        };
        resize(&self.open(place, how)?, bytes)
    }

    /// Calls with each entry from `position` on, as long as it says true.
    pub fn entries(
        &self,
        opened: &mut Opened,
        position: u64,
        mut each: impl FnMut(Entry) -> bool,
    ) -> Result<(), Errno> {
        if !opened.is_directory {
            return Err(Errno::NOTDIR);
        }
        if i64::try_from(position).is_err() {
            return Err(Errno::INVAL);
        }
        if position != opened.position {
            fs::seek(&opened.file, SeekFrom::Start(position))?;
        }
        // Where the kernel is when this ends early is found by a seek.
        opened.position = u64::MAX;
        let mut buffer = vec![MaybeUninit::uninit(); ENTRIES];
        let mut directory = RawDir::new(&opened.file, &mut buffer);
        let mut next = position;
        while let Some(entry) = directory.next() {
            let entry = entry?;
            let (kind, qid_kind) = match entry.file_type() {
                FileType::Directory => (libc::DT_DIR, QID_DIR),
                FileType::RegularFile => (libc::DT_REG, 0),
                FileType::Symlink => (libc::DT_LNK, QID_SYMLINK),
                FileType::Fifo => (libc::DT_FIFO, 0),
                FileType::Socket => (libc::DT_SOCK, 0),
                FileType::CharacterDevice => (libc::DT_CHR, 0),
                FileType::BlockDevice => (libc::DT_BLK, 0),
                _ => (libc::DT_UNKNOWN, 0),
            };
            let found = Entry {
                qid: Qid {
                    kind: qid_kind,
                    version: 0,
                    path: self.number(opened.device, entry.ino()),
                },
                next: entry.next_entry_cookie(),
                kind,
                name: entry.file_name().to_bytes(),
            };
            next = found.next;
            if !each(found) {
                return Ok(());
            }
        }
        opened.position = next;
        Ok(())
    }
}

/// `node`: any descriptor of a file, also one by `O_PATH`.
pub(super) fn change_mode(node: BorrowedFd, mode: u32) -> Result<(), Errno> {
    let now = fs::fstat(node)?;
    if mode_of(&now) == FileType::Symlink {
        return Err(Errno::OPNOTSUPP);
    }
    // Set-id bits may stay, and go; none is made.
    if mode & SET_ID & !now.st_mode != 0 {
        return Err(Errno::PERM);
    }
    // A descriptor by `O_PATH` has no other way: no file is opened for it, and no name is looked up.
    let own = format!("/proc/self/fd/{}", node.as_raw_fd());
    fs::chmod(own, Mode::from_raw_mode(mode & (MODE | SET_ID)))
}

/// `node`: as above.
pub(super) fn change_owner(node: BorrowedFd, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    fs::chownat(node, "", uid, gid, AtFlags::EMPTY_PATH)
}

/// `node`: as above.
pub(super) fn change_times(node: BorrowedFd, access: Time, modification: Time) -> Result<(), Errno> {
    let times = fs::Timestamps {
        last_access: timespec(access)?,
        last_modification: timespec(modification)?,
    };
    fs::utimensat(node, "", &times, AtFlags::EMPTY_PATH)
}

/// Of an open file; the guest may have unlinked it.
pub(super) fn resize(opened: &Opened, bytes: u64) -> Result<(), Errno> {
    match opened.how.writes {
        true if i64::try_from(bytes).is_ok() => fs::ftruncate(&opened.file, bytes),
        true => Err(Errno::FBIG),
        false => Err(Errno::INVAL),
    }
}

fn timespec(time: Time) -> Result<fs::Timespec, Errno> {
    let (seconds, nanoseconds) = match time {
        Time::Keep => (0, fs::UTIME_OMIT),
        Time::Now => (0, fs::UTIME_NOW),
        Time::At(seconds, nanoseconds) if nanoseconds < NANOSECONDS => (seconds as i64, nanoseconds as _),
        Time::At(..) => return Err(Errno::INVAL),
    };
    Ok(fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    })
}
