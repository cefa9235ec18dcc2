// SPDX-License-Identifier: Apache-2.0
//! Disks in qcow2 images, with all their backing files, by the crate `imago`.

use super::disk::{Disk, Piece};
use super::lock::ImageLock;
use super::qcow2_check::counts_cover_the_tables;
use domzero_machine::abi::blkif::SECTOR;
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::{
    FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate, Storage as _, StorageOpenOptions,
};
use std::io;
use std::path::Path;
use std::sync::RwLock;

/// An open image. Data goes through a buffer: `imago` asks for memory that nobody else changes.
pub struct Qcow2Disk {
    // Discarding asks for it alone.
    image: RwLock<FormatAccess<Storage>>,
    sectors: u64,
    _lock: ImageLock,
}

impl Qcow2Disk {
    /// Opens an image, and the files that it names as backing files. `ResourceBusy`: others use it.
    pub fn open(path: &Path, writable: bool) -> io::Result<Qcow2Disk> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(writable)
            .open(path)?;
        let lock = ImageLock::take(&file, writable)?;
        if writable {
            counts_cover_the_tables(&file)?;
        }
        let options = StorageOpenOptions::new().filename(path).write(writable);
        let storage = Storage::open(options)?;
        let image = Qcow2::<Storage>::builder(storage)
            .write(writable)
            .open(PermissiveImplicitOpenGate::default())?;
        let image = FormatAccess::new(image);
        Ok(Qcow2Disk {
            sectors: image.size() / SECTOR,
            image: RwLock::new(image),
            _lock: lock,
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
        self.sectors
    }

    fn read(&self, to: &[Piece], at: u64) -> io::Result<()> {
        let mut buffer = vec![0; to.iter().map(Piece::bytes).sum()];
        self.image()?.read(buffer.as_mut_slice(), at)?;
        let mut rest = buffer.as_slice();
        for piece in to {
            let (part, others) = rest.split_at(piece.bytes());
            piece.copy_from(part);
            rest = others;
        }
        Ok(())
    }

    fn write(&self, from: &[Piece], at: u64) -> io::Result<()> {
        let mut buffer = vec![0; from.iter().map(Piece::bytes).sum()];
        let mut rest = buffer.as_mut_slice();
        for piece in from {
            let (part, others) = rest.split_at_mut(piece.bytes());
            piece.copy_to(part);
            rest = others;
        }
        self.image()?.write(buffer.as_slice(), at)
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
}
