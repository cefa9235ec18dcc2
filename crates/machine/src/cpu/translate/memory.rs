// SPDX-License-Identifier: Apache-2.0
//! Memory of translated code: one memfd mapped twice, to write and to run. Nothing is ever both at one address.
// The two mappings.
#![allow(unsafe_code)]

use crate::mem::mapping::{self, HUGE_PAGE};
use std::os::fd::AsFd;
use std::sync::Arc;

/// The two mappings.
struct Mappings {
    writable: *mut u8,
    running: *const u8,
    len: usize,
}

// SAFETY: pointers to mappings that are there as long as the value; what is written to them goes through `CodeMemory` alone.
unsafe impl Send for Mappings {}
// SAFETY: as above.
unsafe impl Sync for Mappings {}

impl Drop for Mappings {
    fn drop(&mut self) {
        // SAFETY: both were made in `CodeMemory::new`.
        unsafe {
            libc::munmap(self.writable.cast(), self.len);
            libc::munmap(self.running.cast_mut().cast(), self.len);
        }
    }
}

pub(super) struct CodeMemory {
    maps: Arc<Mappings>,
    used: usize,
    /// End of the code that seldom runs, which has the last part of the memory.
    cold: usize,
}

impl CodeMemory {
    /// Room for `len` bytes of code; the host gives memory as it is used.
    pub(super) fn new(len: usize) -> std::io::Result<CodeMemory> {
        let len = len.next_multiple_of(4096);
        let file = mapping::file(c"domzero-code", len)?;
        let map = |prot| mapping::map_shared(file.as_fd(), len, prot);
        let writable = map(libc::PROT_READ | libc::PROT_WRITE)?;
        let running = map(libc::PROT_READ | libc::PROT_EXEC).inspect_err(|_| {
            // SAFETY: made above, and used by nobody.
            unsafe { libc::munmap(writable.cast(), len) };
        })?;
        Ok(CodeMemory {
            maps: Arc::new(Mappings {
                writable,
                running,
                len,
            }),
            used: 0,
            cold: cold_start(len),
        })
    }

    /// Where the next code will run.
    pub(super) fn next(&self) -> u64 {
        self.maps.running as u64 + self.used as u64
    }

    /// Where code that seldom runs will run.
    pub(super) fn next_cold(&self) -> u64 {
        self.maps.running as u64 + self.cold as u64
    }

    /// Adds code that was made to run at [`CodeMemory::next`] and [`CodeMemory::next_cold`]; false if there is no room.
    pub(super) fn append(&mut self, hot: &[u8], cold: &[u8]) -> bool {
        let end = (self.used + hot.len()).next_multiple_of(16);
        let cold_end = (self.cold + cold.len()).next_multiple_of(4);
        if end > cold_start(self.maps.len) || cold_end > self.maps.len {
            return false;
        }
        // SAFETY: the ranges lie inside the mapping, beyond all code that runs.
        unsafe {
            std::ptr::copy(hot.as_ptr(), self.maps.writable.add(self.used), hot.len());
            std::ptr::copy(cold.as_ptr(), self.maps.writable.add(self.cold), cold.len());
        }
        let begun = self.used.div_ceil(HUGE_PAGE);
        self.used = end;
        self.cold = cold_end;
        // Of nothing, the host makes no huge page.
        if end.div_ceil(HUGE_PAGE) > begun {
            self.ask_for_huge_page(begun);
        }
        true
    }

    /// Asks the host to have huge page `n` of the code in one piece: code of the guest's kernel takes more pages than a processor
    /// knows at once. The host may have to move others' memory for that, so it is a thread of its own that waits.
    fn ask_for_huge_page(&self, n: usize) {
        let start = n * HUGE_PAGE;
        if start + HUGE_PAGE > cold_start(self.maps.len) {
            return;
        }
        let maps = Arc::clone(&self.maps);
        let ask = move || {
            let at = maps.running.cast_mut().wrapping_add(start);
            // SAFETY: a part of a mapping that `maps` keeps; what is in it stays as it is.
            unsafe { libc::madvise(at.cast(), HUGE_PAGE, libc::MADV_COLLAPSE) };
        };
        // Code runs as well, if more slowly, on a host that has no thread or no huge page to give.
        let _ = std::thread::Builder::new().name("huge page".into()).spawn(ask);
    }

    /// Forgets all code.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.cold = cold_start(self.maps.len);
    }

    /// Forgets all code, and gives its memory back to the host.
    pub(super) fn give_back(&mut self) {
        self.clear();
        // SAFETY: the whole of a mapping of ours, nothing of which is in use. Should it fail the memory stays.
        unsafe { libc::madvise(self.maps.writable.cast(), self.maps.len, libc::MADV_REMOVE) };
    }

    /// Bytes of code that runs often.
    #[cfg(test)]
    pub(super) fn hot(&self) -> usize {
        self.used
    }

    pub(super) fn used(&self) -> usize {
        self.used + self.cold - cold_start(self.maps.len)
    }

    fn offset(&self, at: u64, len: usize) -> Option<usize> {
        let offset = usize::try_from(at.checked_sub(self.maps.running as u64)?).ok()?;
        let end = offset.checked_add(len)?;
        (end <= self.used || offset >= cold_start(self.maps.len) && end <= self.cold).then_some(offset)
    }

    /// Whether code that runs often is at `at`.
    pub(super) fn is_hot(&self, at: u64) -> bool {
        at.wrapping_sub(self.maps.running as u64) < self.used as u64
    }

    /// Code that was added, as it is now.
    pub(super) fn code(&self, at: u64, len: usize) -> Option<&[u8]> {
        let offset = self.offset(at, len)?;
        // SAFETY: inside the mapping; nobody changes it while `self` is borrowed.
        Some(unsafe { std::slice::from_raw_parts(self.maps.writable.add(offset), len) })
    }

    /// Replaces `N` bytes of the code at `at`.
    pub(super) fn patch<const N: usize>(&mut self, at: u64, bytes: [u8; N]) {
        if let Some(offset) = self.offset(at, N) {
            // SAFETY: inside the mapping. Only this vCPU's thread runs the code, and it is here.
            unsafe { std::ptr::copy(bytes.as_ptr(), self.maps.writable.add(offset), N) };
        }
    }
}

/// Where code that seldom runs begins in memory of so many bytes.
fn cold_start(len: usize) -> usize {
    (len / 8 * 5).next_multiple_of(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_given_back_is_empty_and_takes_code_again() {
        let mut memory = CodeMemory::new(1 << 16).expect("memory for code");
        let start = memory.next();
        assert!(memory.append(&[1, 2, 3], &[4]));
        assert_eq!(memory.code(start, 3), Some(&[1, 2, 3][..]));
        memory.give_back();
        assert_eq!((memory.used(), memory.next()), (0, start));
        // SAFETY: the mapping lives as long as `memory`.
        assert_eq!(unsafe { memory.maps.running.read() }, 0);
        assert!(memory.append(&[5], &[]));
        assert_eq!(memory.code(start, 1), Some(&[5][..]));
    }
}
