// SPDX-License-Identifier: Apache-2.0
//! A drive whose medium can be changed, as that of a CD.

use super::disk::Disk;
use crate::piece::Piece;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

/// A disk that is what is in the drive; without a medium it has no sectors.
#[derive(Default)]
pub struct Drive {
    medium: RwLock<Option<Arc<dyn Disk>>>,
}

impl Drive {
    /// Puts another medium, or none, in the place of what is in the drive. What is being done goes on with the old one.
    pub fn change(&self, medium: Option<Arc<dyn Disk>>) {
        let old = {
            // Nothing that can panic runs under this lock.
            let mut now = self.medium.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *now, medium)
        };
        drop(old); // which may close an image
    }

    fn medium(&self) -> io::Result<Arc<dyn Disk>> {
        let now = self.medium.read().unwrap_or_else(PoisonError::into_inner);
        now.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Drive {
    fn sectors(&self) -> u64 {
        self.medium().map_or(0, |medium| medium.sectors())
    }

    fn read(&self, to: &[Piece], at: u64) -> io::Result<()> {
        self.medium()?.read(to, at)
    }

    fn write(&self, from: &[Piece], at: u64) -> io::Result<()> {
        self.medium()?.write(from, at)
    }

    fn flush(&self) -> io::Result<()> {
        self.medium()?.flush()
    }

    fn discard(&self, at: u64, bytes: u64) -> io::Result<()> {
        self.medium()?.discard(at, bytes)
    }

    fn grow(&self, bytes: Option<u64>) -> io::Result<()> {
        self.medium()?.grow(bytes)
    }
}
