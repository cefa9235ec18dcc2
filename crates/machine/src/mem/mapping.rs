// SPDX-License-Identifier: Apache-2.0
//! Files of memory, and mappings of them that the host may back with huge pages.
// System calls.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Bytes of a huge page of an x86-64 host, and what its address is a multiple of.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// A file of `len` bytes of memory, all zero; the host gives them as they are touched.
pub(crate) fn file(name: &CStr, len: usize) -> io::Result<OwnedFd> {
    // SAFETY: plain system calls; the results are checked, and the descriptor is owned from here on.
    unsafe {
        let raw = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        let file = OwnedFd::from_raw_fd(raw);
        if libc::ftruncate(raw, len as libc::off_t) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(file)
    }
}

/// Maps the first `len` bytes of `file`, shared, at an address that suits huge pages if the host still has one. Whoever gets it
/// unmaps it.
pub(crate) fn map_shared(file: BorrowedFd<'_>, len: usize, prot: i32) -> io::Result<*mut u8> {
    // A worker that is confined may not choose where code is mapped, but may say where it likes it best.
    let wish = hole(len)?;
    let flags = libc::MAP_SHARED
        | if prot & libc::PROT_WRITE != 0 {
            libc::MAP_NORESERVE
        } else {
            0
        };
    // SAFETY: a new mapping, which replaces none; its result is checked.
    let made = unsafe { libc::mmap(wish, len, prot, flags, file.as_raw_fd(), 0) };
    if made == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(made.cast())
}

/// An address that suits huge pages, with nothing in the `len` bytes from there on at the moment.
fn hole(len: usize) -> io::Result<*mut libc::c_void> {
    let room = len.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::InvalidInput)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, which is undone at once.
    unsafe {
        let all = libc::mmap(std::ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0);
        if all == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::munmap(all, room);
        let before = all.addr().next_multiple_of(HUGE_PAGE) - all.addr();
        Ok(all.wrapping_byte_add(before))
    }
}
