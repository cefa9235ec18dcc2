// SPDX-License-Identifier: Apache-2.0
//! Who may use an image: as many as only read it, or one that writes.
//!
//! The locks are those of QEMU, so that its tools refuse an image that a domain writes to, and the other way around: what
//! somebody does is a lock on one byte, what he does not bear others to do is a lock on another, and both are looked for.
//! They are of the open file: they go with it, whatever becomes of the process. On a file system that has no such locks an
//! image is used without.
// Locks of open files are asked for by fcntl.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Byte of what is done.
const DOES: i64 = 100;
/// Byte of what others must not do.
const FORBIDS: i64 = 200;
/// Reading what nobody changes; writing; resizing: numbers of QEMU's permissions.
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// A lock on an image, held until this is dropped.
pub(super) struct ImageLock {
    _file: File,
}

impl ImageLock {
    /// Takes it on an open file. `ResourceBusy`: somebody else uses the image in a way that does not go with this.
    pub(super) fn take(file: &File, writable: bool) -> io::Result<ImageLock> {
        let file = file.try_clone()?;
        let does: &[i64] = if writable { &[READ, WRITE, RESIZE] } else { &[READ] };
        lock(&file, does, &[WRITE, RESIZE])?;
        Ok(ImageLock { _file: file })
    }
}

/// Keeps an image that nobody has open, through this open file, from being opened for writing. `ResourceBusy`: somebody has
/// it open.
pub fn keep_unused(file: &impl AsRawFd) -> io::Result<()> {
    let mut any = byte_lock(0, libc::F_WRLCK);
    any.l_len = 0; // to the end
    refused_if_held(file, any)?;
    lock(file, &[], &[WRITE, RESIZE])
}

/// What we do and forbid is there to be seen first, so that of two who come at once not both see nothing.
fn lock(file: &impl AsRawFd, does: &[i64], forbids: &[i64]) -> io::Result<()> {
    for byte in does
        .iter()
        .map(|p| DOES + p)
        .chain(forbids.iter().map(|p| FORBIDS + p))
    {
        let mut lock = byte_lock(byte, libc::F_RDLCK);
        if let Err(error) = control(file, libc::F_OFD_SETLK, &mut lock) {
            return if has_no_locks(&error) { Ok(()) } else { Err(error) };
        }
    }
    for byte in does
        .iter()
        .map(|p| FORBIDS + p)
        .chain(forbids.iter().map(|p| DOES + p))
    {
        if let Err(error) = refused_if_held(file, byte_lock(byte, libc::F_WRLCK)) {
            let mut all = byte_lock(DOES, libc::F_UNLCK);
            all.l_len = FORBIDS;
            control(file, libc::F_OFD_SETLK, &mut all)?;
            return Err(error);
        }
    }
    Ok(())
}

/// `ResourceBusy` when another open file has a lock that does not go with this one.
fn refused_if_held(file: &impl AsRawFd, mut lock: libc::flock) -> io::Result<()> {
    match control(file, libc::F_OFD_GETLK, &mut lock) {
        Err(error) if has_no_locks(&error) => Ok(()),
        Ok(()) if lock.l_type == libc::F_UNLCK as libc::c_short => Ok(()),
        Ok(()) => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        Err(error) => Err(error),
    }
}

/// Whether an error says that the file system knows no such locks, rather than that one is not to be had.
fn has_no_locks(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP)
    )
}

fn byte_lock(byte: i64, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

fn control(file: &impl AsRawFd, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: these commands read and write one `flock`.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    #[test]
    fn a_file_that_cannot_be_locked_for_another_reason_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("disk");
        // A lock for reading needs a file that is open for reading.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .expect("a file");
        let refused = ImageLock::take(&file, true).err().and_then(|e| e.raw_os_error());
        assert_eq!(refused, Some(libc::EBADF));
    }

    #[test]
    fn only_what_a_file_system_without_locks_answers_is_passed_over() {
        let passed_over = |n| has_no_locks(&io::Error::from_raw_os_error(n));
        assert!([libc::EINVAL, libc::ENOLCK, libc::ENOSYS, libc::EOPNOTSUPP]
            .into_iter()
            .all(passed_over));
        assert!(![libc::EAGAIN, libc::EACCES, libc::EBADF, libc::EIO]
            .into_iter()
            .any(passed_over));
    }
}
