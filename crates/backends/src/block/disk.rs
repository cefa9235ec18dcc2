// SPDX-License-Identifier: Apache-2.0
//! What a block device stores its sectors in.
// The kernel reads and writes guest memory.
#![allow(unsafe_code)]

use super::lock::ImageLock;
use domzero_machine::abi::blkif::SECTOR;
use domzero_machine::{GrantMapping, OutsidePage};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

/// A piece of guest memory that data comes from or goes to. The guest may change it at any time.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    vector: libc::iovec,
    mapping: PhantomData<&'a GrantMapping>,
}

impl<'a> Piece<'a> {
    /// `Err`: not inside the page.
    pub fn of(mapping: &'a GrantMapping, offset: usize, bytes: usize) -> Result<Piece<'a>, OutsidePage> {
        Ok(Piece {
            vector: mapping.io_vec(offset, bytes)?,
            mapping: PhantomData,
        })
    }

    pub fn bytes(&self) -> usize {
        self.vector.iov_len
    }

    /// Copies out of the guest's memory, as much as both have room for.
    pub fn copy_to(&self, to: &mut [u8]) {
        let bytes = self.bytes().min(to.len());
        // SAFETY: the mapping gave `iov_len` bytes at `iov_base`, which live as long as it; `to` has room for `bytes`.
        unsafe { std::ptr::copy(self.vector.iov_base.cast(), to.as_mut_ptr(), bytes) }
    }

    /// Copies into the guest's memory, as much as both have room for. Of a writable mapping only.
    pub fn copy_from(&self, from: &[u8]) {
        let bytes = self.bytes().min(from.len());
        // SAFETY: as above; the caller's mapping is writable.
        unsafe { std::ptr::copy(from.as_ptr(), self.vector.iov_base.cast(), bytes) }
    }

    fn skip(&mut self, bytes: usize) {
        // SAFETY: the caller skips no more than there is.
        self.vector.iov_base = unsafe { self.vector.iov_base.cast::<u8>().add(bytes) }.cast();
        self.vector.iov_len -= bytes;
    }
}

/// Sectors of 512 bytes. Offsets and lengths are in bytes, multiples of a sector, and inside the disk.
pub trait Disk: Send + Sync {
    /// How many there are now.
    fn sectors(&self) -> u64;
    /// Reads into guest memory.
    fn read(&self, to: &[Piece], at: u64) -> io::Result<()>;
    /// Writes from guest memory; stable after the next `flush`.
    fn write(&self, from: &[Piece], at: u64) -> io::Result<()>;
    /// Returns when all that was written before is on stable storage.
    fn flush(&self) -> io::Result<()>;
    /// The bytes are not needed any more. `Unsupported`: cannot be said of this disk.
    fn discard(&self, at: u64, bytes: u64) -> io::Result<()>;
}

/// A file or block device whose bytes are the disk's.
pub struct RawDisk {
    file: File,
    sectors: u64,
    is_device: bool,
    _lock: ImageLock,
}

impl RawDisk {
    /// Takes an open file: readable, and writable if `writable`. `ResourceBusy`: others use it.
    pub fn new(file: File, writable: bool) -> io::Result<RawDisk> {
        let kind = file.metadata()?.file_type();
        let is_device = kind.is_block_device();
        if !is_device && !kind.is_file() {
            let what = "neither a regular file nor a block device";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let bytes = if is_device {
            device_bytes(&file)?
        } else {
            file.metadata()?.len()
        };
        Ok(RawDisk {
            _lock: ImageLock::take(&file, writable)?,
            file,
            sectors: bytes / SECTOR,
            is_device,
        })
    }

    /// Moves all of the pieces by `call`, which moves some of them.
    fn whole(
        &self,
        pieces: &[Piece],
        mut at: u64,
        call: unsafe extern "C" fn(
            libc::c_int,
            *const libc::iovec,
            libc::c_int,
            libc::off64_t,
        ) -> libc::ssize_t,
    ) -> io::Result<()> {
        let mut pieces = pieces.to_vec();
        let mut left = pieces.as_mut_slice();
        while !left.is_empty() {
            let count = left.len().min(libc::UIO_MAXIOV as usize);
            let offset = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
            // SAFETY: a `Piece` is an iovec of guest memory that lives as long as the borrow of its mapping.
            let moved = unsafe {
                call(
                    self.file.as_raw_fd(),
                    left.as_ptr().cast(),
                    count as libc::c_int,
                    offset,
                )
            };
            let mut moved = match moved {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n if n > 0 => n as usize,
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => continue,
                    error => return Err(error),
                },
            };
            at += moved as u64;
            while let Some(piece) = left.first_mut() {
                if moved < piece.bytes() {
                    piece.skip(moved);
                    break;
                }
                moved -= piece.bytes();
                left = &mut left[1..];
            }
        }
        Ok(())
    }
}

fn device_bytes(file: &File) -> io::Result<u64> {
    const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
    let mut bytes = 0u64;
    // SAFETY: this ioctl writes one u64.
    match unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Disk for RawDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn read(&self, to: &[Piece], at: u64) -> io::Result<()> {
        self.whole(to, at, libc::preadv64)
    }

    fn write(&self, from: &[Piece], at: u64) -> io::Result<()> {
        self.whole(from, at, libc::pwritev64)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&self, at: u64, bytes: u64) -> io::Result<()> {
        if self.is_device {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (at, bytes) = (at as libc::off64_t, bytes as libc::off64_t);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: no memory is involved.
        match unsafe { libc::fallocate64(self.file.as_raw_fd(), mode, at, bytes) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
