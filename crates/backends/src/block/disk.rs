// SPDX-License-Identifier: Apache-2.0
//! What a block device stores its sectors in.
// ioctl and fallocate.
#![allow(unsafe_code)]

use super::lock::ImageLock;
use crate::piece::{read_at, write_at, Piece};
use domzero_machine::abi::blkif::SECTOR;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const SMALLER: &str = "a disk cannot become smaller";

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
    /// Makes it this large; without a size, finds out whether it has grown. `InvalidInput`: it is larger than this.
    fn grow(&self, bytes: Option<u64>) -> io::Result<()>;
}

/// A file or block device whose bytes are the disk's.
pub struct RawDisk {
    file: File,
    sectors: AtomicU64,
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
        let disk = RawDisk {
            _lock: ImageLock::take(&file, writable)?,
            file,
            sectors: AtomicU64::new(0),
            is_device,
        };
        disk.sectors.store(disk.bytes()? / SECTOR, Ordering::Release);
        Ok(disk)
    }

    fn bytes(&self) -> io::Result<u64> {
        if self.is_device {
            device_bytes(&self.file)
        } else {
            Ok(self.file.metadata()?.len())
        }
    }
}

fn whole(moved: usize, pieces: &[Piece]) -> io::Result<()> {
    match moved == pieces.iter().map(Piece::bytes).sum() {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
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
        self.sectors.load(Ordering::Acquire)
    }

    fn read(&self, to: &[Piece], at: u64) -> io::Result<()> {
        whole(read_at(&self.file, to, at)?, to)
    }

    fn write(&self, from: &[Piece], at: u64) -> io::Result<()> {
        whole(write_at(&self.file, from, at)?, from)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&self, at: u64, bytes: u64) -> io::Result<()> {
        if self.is_device {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the host says how large a device is",
            ));
        }
        let (at, bytes) = (at as libc::off64_t, bytes as libc::off64_t);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: no memory is involved.
        match unsafe { libc::fallocate64(self.file.as_raw_fd(), mode, at, bytes) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn grow(&self, bytes: Option<u64>) -> io::Result<()> {
        let before = self.sectors();
        match bytes {
            Some(bytes) if bytes < before * SECTOR => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, SMALLER))
            }
            Some(bytes) if !self.is_device => self.file.set_len(bytes)?,
            // A device is as large as the host makes it.
            Some(bytes) if bytes != self.bytes()? => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the host says how large a device is",
                ))
            }
            _ => {}
        }
        let sectors = self.bytes()? / SECTOR;
        if sectors < before {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, SMALLER));
        }
        self.sectors.store(sectors, Ordering::Release);
        Ok(())
    }
}
