// SPDX-License-Identifier: Apache-2.0
//! Memory of translated code: one memfd mapped twice, to write and to run. Nothing is ever both at one address.
// The two mappings.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub(super) struct CodeMemory {
    writable: *mut u8,
    running: *const u8,
    len: usize,
    used: usize,
}

// SAFETY: the mappings belong to this value alone.
unsafe impl Send for CodeMemory {}

impl CodeMemory {
    /// Room for `len` bytes of code; the host gives memory as it is used.
    pub(super) fn new(len: usize) -> std::io::Result<CodeMemory> {
        let len = len.next_multiple_of(4096);
        // SAFETY: plain system calls, whose results are checked.
        unsafe {
            let raw = libc::memfd_create(c"domzero-code".as_ptr(), libc::MFD_CLOEXEC);
            if raw < 0 {
                return Err(std::io::Error::last_os_error());
            }
            let fd = OwnedFd::from_raw_fd(raw);
            if libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            let map = |prot| {
                let p = libc::mmap(
                    std::ptr::null_mut(),
                    len,
                    prot,
                    libc::MAP_SHARED,
                    fd.as_raw_fd(),
                    0,
                );
                if p == libc::MAP_FAILED {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(p.cast::<u8>())
            };
            let writable = map(libc::PROT_READ | libc::PROT_WRITE)?;
            let running = match map(libc::PROT_READ | libc::PROT_EXEC) {
                Ok(p) => p,
                Err(e) => {
                    libc::munmap(writable.cast(), len);
                    return Err(e);
                }
            };
            Ok(CodeMemory {
                writable,
                running,
                len,
                used: 0,
            })
        }
    }

    /// Where the next code will run.
    pub(super) fn next(&self) -> u64 {
        self.running as u64 + self.used as u64
    }

    /// Adds code that was made to run at [`CodeMemory::next`]; false if there is no room.
    pub(super) fn append(&mut self, code: &[u8]) -> bool {
        let end = (self.used + code.len()).next_multiple_of(16);
        if end > self.len {
            return false;
        }
        // SAFETY: the range lies inside the mapping, beyond all code that runs.
        unsafe { std::ptr::copy(code.as_ptr(), self.writable.add(self.used), code.len()) };
        self.used = end;
        true
    }

    /// Forgets all code.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    fn offset(&self, at: u64, len: usize) -> Option<usize> {
        let offset = usize::try_from(at.checked_sub(self.running as u64)?).ok()?;
        (offset.checked_add(len)? <= self.used).then_some(offset)
    }

    /// Replaces `N` bytes of the code at `at`.
    pub(super) fn patch<const N: usize>(&mut self, at: u64, bytes: [u8; N]) {
        if let Some(offset) = self.offset(at, N) {
            // SAFETY: inside the mapping. Only this vCPU's thread runs the code, and it is here.
            unsafe { std::ptr::copy(bytes.as_ptr(), self.writable.add(offset), N) };
        }
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        // SAFETY: both mappings were made in `new`.
        unsafe {
            libc::munmap(self.writable.cast(), self.len);
            libc::munmap(self.running.cast_mut().cast(), self.len);
        }
    }
}
