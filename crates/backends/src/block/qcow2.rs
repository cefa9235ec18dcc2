// SPDX-License-Identifier: Apache-2.0
//! Disks in qcow2 images, with all their backing files, by the crate `imago`.

use super::disk::{Disk, SMALLER};
use super::lock::ImageLock;
use super::qcow2_check::counts_cover_the_tables;
use crate::piece::{gather, scatter, Piece};
use domzero_machine::abi::blkif::SECTOR;
use imago::file::File as Storage;
use imago::format::PreallocateMode;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::RwLock;

/// An open image. Data goes through a buffer: `imago` asks for memory that nobody else changes.
pub struct Qcow2Disk {
    // Discarding asks for it alone.
    image: RwLock<FormatAccess<Storage>>,
    sectors: AtomicU64,
    rests_on_others: bool,
    _locks: Vec<ImageLock>,
}

impl Qcow2Disk {
    /// Takes an image and its backing files, open already: each rests on the next, and only the first is written to.
    /// No other files are used, whatever the images name. `ResourceBusy`: others use one of them.
    ///
    /// `raw_base`: the last is no qcow2 image.
    pub fn open(files: Vec<File>, raw_base: bool, writable: bool) -> io::Result<Qcow2Disk> {
        let count = files.len();
        let mut locks = Vec::with_capacity(count);
        let mut below = None;
        for (depth, file) in files.into_iter().enumerate().rev() {
            let writable = writable && depth == 0;
            locks.push(ImageLock::take(&file, writable)?);
            let image = if raw_base && depth > 0 && depth == count - 1 {
                let base = Raw::<Storage>::builder(file.try_into()?);
                FormatAccess::new(base.write(false).open(DenyImplicitOpenGate::default())?)
            } else {
                if writable {
                    counts_cover_the_tables(&file)?;
                }
                let rests = below.is_some();
                let image = Qcow2::<Storage>::builder(file.try_into()?)
                    .write(writable)
                    .backing(below.take());
                let image = image.open(DenyImplicitOpenGate::default())?;
                if image.implicit_backing_file().is_some() != rests {
                    let what = "its backing files are not those that it names";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                FormatAccess::new(image)
            };
            below = Some(image);
        }
        let image = below.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Qcow2Disk {
            sectors: AtomicU64::new(image.size() / SECTOR),
            rests_on_others: count > 1,
            image: RwLock::new(image),
            _locks: locks,
        })
    }

    fn image(&self) -> io::Result<std::sync::RwLockReadGuard<'_, FormatAccess<Storage>>> {
        // A panic while it was being changed: nothing is known of the image's metadata any more.
        self.image
            .read()
            .map_err(|_| io::Error::other("the image was left in an unknown state"))
    }
}

impl Disk for Qcow2Disk {
    fn sectors(&self) -> u64 {
        self.sectors.load(Ordering::Acquire)
    }

    fn read(&self, to: &[Piece], at: u64) -> io::Result<()> {
        let mut buffer = vec![0; to.iter().map(Piece::bytes).sum()];
        self.image()?.read(buffer.as_mut_slice(), at)?;
        scatter(&buffer, to);
        Ok(())
    }

    fn write(&self, from: &[Piece], at: u64) -> io::Result<()> {
        self.image()?.write(gather(from).as_slice(), at)
    }

    fn flush(&self) -> io::Result<()> {
        let image = self.image()?;
        image.flush()?;
        image.sync()
    }

    fn discard(&self, at: u64, bytes: u64) -> io::Result<()> {
        match self.image.write() {
            Ok(mut image) => image.discard_to_any(at, bytes),
            Err(_) => Err(io::Error::other("the image was left in an unknown state")),
        }
    }

    fn grow(&self, bytes: Option<u64>) -> io::Result<()> {
        let before = self.sectors() * SECTOR;
        let bytes = bytes.unwrap_or(before); // nobody but us changes it
        if bytes < before {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, SMALLER));
        }
        // What a longer backing file has there must not come to light.
        let new = if self.rests_on_others {
            PreallocateMode::Zero
        } else {
            PreallocateMode::None
        };
        let image = self.image()?;
        image.resize_grow(bytes, new)?;
        image.flush()?;
        image.sync()?;
        self.sectors.store(image.size() / SECTOR, Ordering::Release);
        Ok(())
    }
}
