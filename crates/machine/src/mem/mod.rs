// SPDX-License-Identifier: Apache-2.0
//! Machine memory: one memfd of 4 KiB frames, mapped once, shared with Python by its file descriptor.
// The mapping of guest RAM and accesses to it.
#![allow(unsafe_code)]

pub(crate) mod mapping;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) const PAGE_SIZE: u64 = 4096;
pub(crate) const PAGE_SHIFT: u32 = 12;

/// Machine frame number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mfn(pub u64);

impl Mfn {
    /// The machine address of its first byte.
    pub const fn maddr(self) -> u64 {
        self.0 << PAGE_SHIFT
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MemError {
    /// The machine's memory could not be made.
    #[error("cannot make {0} frames of machine memory: {1}")]
    Create(u64, std::io::Error),
}

/// Gives what this process's allocator holds free back to the host.
pub fn give_back_free() {
    // SAFETY: it takes the allocator's own locks, and touches free memory only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// All machine frames, contiguous in the host's address space.
pub struct PhysMem {
    base: *mut u8,
    frames: u64,
    fd: OwnedFd,
}

// SAFETY: guest memory is plain bytes that any thread may read or write at any time, as on a real machine; every
// access goes through raw pointers or atomics, never through references to the bytes.
unsafe impl Send for PhysMem {}
// SAFETY: as above.
unsafe impl Sync for PhysMem {}

impl PhysMem {
    /// Memory of so many frames of 4 KiB, all zero; the host gives it as it is touched.
    pub fn new(frames: u64) -> Result<Self, MemError> {
        let err = |e| MemError::Create(frames, e);
        let len = frames
            .checked_mul(PAGE_SIZE)
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n > 0 && n <= isize::MAX as usize)
            .ok_or_else(|| err(std::io::Error::from(std::io::ErrorKind::InvalidInput)))?;
        let fd = mapping::file(c"domzero-ram", len).map_err(err)?;
        let base = mapping::map_shared(fd.as_fd(), len, libc::PROT_READ | libc::PROT_WRITE).map_err(err)?;
        Ok(PhysMem { base, frames, fd })
    }

    /// Its size, in frames of 4 KiB.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The file that it is a mapping of.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Host address of frame 0; `maddr` is at `base + maddr`.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Host address of a frame, if there is one.
    pub fn frame(&self, mfn: Mfn) -> Option<*mut u8> {
        // SAFETY: the offset lies inside the mapping.
        (mfn.0 < self.frames).then(|| unsafe { self.base.add((mfn.0 as usize) << PAGE_SHIFT) })
    }

    /// A frame as 512 words, as page tables are.
    pub fn words(&self, mfn: Mfn) -> Option<&[AtomicU64; 512]> {
        let frame = self.frame(mfn)?;
        // SAFETY: aligned to a page, inside the mapping, which lives as long as self; atomics as in `entry`.
        Some(unsafe { &*frame.cast::<[AtomicU64; 512]>() })
    }

    fn entry(&self, maddr: u64) -> Option<&AtomicU64> {
        let frame = self.frame(Mfn(maddr >> PAGE_SHIFT))?;
        // SAFETY: aligned to 8, inside the mapping, which lives as long as self; guest memory is only touched atomically
        // or through raw pointers.
        (maddr & 7 == 0)
            .then(|| unsafe { &*frame.add((maddr & (PAGE_SIZE - 1)) as usize).cast::<AtomicU64>() })
    }

    /// Reads an aligned 64-bit word; `None` outside memory.
    pub fn read_u64(&self, maddr: u64) -> Option<u64> {
        self.entry(maddr).map(|e| e.load(Ordering::Acquire))
    }

    /// Writes an aligned 64-bit word; false outside memory.
    pub fn write_u64(&self, maddr: u64, value: u64) -> bool {
        self.entry(maddr)
            .map(|e| e.store(value, Ordering::Release))
            .is_some()
    }

    fn half(&self, maddr: u64) -> Option<&AtomicU32> {
        let frame = self.frame(Mfn(maddr >> PAGE_SHIFT))?;
        // SAFETY: as in `entry`, aligned to 4.
        (maddr & 3 == 0)
            .then(|| unsafe { &*frame.add((maddr & (PAGE_SIZE - 1)) as usize).cast::<AtomicU32>() })
    }

    /// Reads an aligned 32-bit word; `None` outside memory.
    pub fn read_u32(&self, maddr: u64) -> Option<u32> {
        self.half(maddr).map(|e| e.load(Ordering::Acquire))
    }

    /// Writes an aligned 32-bit word; false outside memory.
    pub fn write_u32(&self, maddr: u64, value: u32) -> bool {
        self.half(maddr)
            .map(|e| e.store(value, Ordering::Release))
            .is_some()
    }

    /// A part of memory as an argument of preadv and pwritev; `None` if any byte lies outside it.
    pub fn io_vec(&self, maddr: u64, len: usize) -> Option<libc::iovec> {
        let base = self.range(maddr, len)?;
        Some(libc::iovec {
            iov_base: base.cast(),
            iov_len: len,
        })
    }

    /// Compare-and-exchange on an aligned 64-bit word: `Ok(old)` if it was `old`, else `Err(seen)`.
    pub fn cmpxchg_u64(&self, maddr: u64, old: u64, new: u64) -> Option<Result<u64, u64>> {
        self.entry(maddr)
            .map(|e| e.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire))
    }

    /// Copies out of machine memory; false if any byte lies outside it.
    pub fn read(&self, maddr: u64, buf: &mut [u8]) -> bool {
        let Some(p) = self.range(maddr, buf.len()) else {
            return false;
        };
        // SAFETY: the range lies inside the mapping, which no Rust reference covers.
        unsafe { std::ptr::copy(p, buf.as_mut_ptr(), buf.len()) };
        true
    }

    /// Copies into machine memory, without looking at frame types or decoded code: see `Machine::host_write`.
    pub fn write(&self, maddr: u64, buf: &[u8]) -> bool {
        let Some(p) = self.range(maddr, buf.len()) else {
            return false;
        };
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy(buf.as_ptr(), p, buf.len()) };
        true
    }

    fn range(&self, maddr: u64, len: usize) -> Option<*mut u8> {
        let end = maddr.checked_add(len as u64)?;
        // SAFETY: the offset lies inside the mapping.
        (end <= self.frames * PAGE_SIZE).then(|| unsafe { self.base.add(maddr as usize) })
    }

    /// Gives a frame's memory back to the host; it reads as zeroes afterwards.
    pub fn discard(&self, mfn: Mfn) {
        self.discard_run(mfn, 1);
    }

    /// Gives back many frames, in ascending order: one system call for each contiguous run.
    pub fn discard_many(&self, sorted: &[Mfn]) {
        for run in sorted.chunk_by(|a, b| a.0 + 1 == b.0) {
            if let Some(first) = run.first() {
                self.discard_run(*first, run.len() as u64);
            }
        }
    }

    fn discard_run(&self, first: Mfn, count: u64) {
        let len = (count * PAGE_SIZE) as usize;
        let Some(p) = self.range(first.maddr(), len) else {
            return;
        };
        // SAFETY: the pages lie inside our own shared mapping; MADV_REMOVE punches them out of the memfd.
        unsafe {
            if libc::madvise(p.cast(), len, libc::MADV_REMOVE) != 0 {
                std::ptr::write_bytes(p, 0, len);
            }
        }
    }
}

impl Drop for PhysMem {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nothing else unmaps it.
        unsafe { libc::munmap(self.base.cast(), (self.frames * PAGE_SIZE) as usize) };
    }
}
