// SPDX-License-Identifier: Apache-2.0
//! What a guest has in its hands: numbers that stand for places and open files. A place costs no descriptor.

use super::place::Place;
use super::tree::Opened;
use rustix::io::Errno;
use std::collections::HashMap;

/// Numbers that a guest may have in use.
pub const FIDS_MAX: usize = 65_536;
/// Bytes of all their names.
pub const PLACES_MAX: usize = 16 << 20;
/// Files that it may have open.
pub const OPEN_MAX: usize = 1024;

pub(super) struct Fid {
    pub place: Place,
    opened: Option<Opened>,
}

impl Fid {
    /// EBADF: it is not open.
    pub(super) fn opened(&self) -> Result<&Opened, Errno> {
        self.opened.as_ref().ok_or(Errno::BADF)
    }

    pub(super) fn opened_mut(&mut self) -> Result<&mut Opened, Errno> {
        self.opened.as_mut().ok_or(Errno::BADF)
    }

    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }
}

/// All of a session's.
#[derive(Default)]
pub(super) struct Fids {
    all: HashMap<u32, Fid>,
    bytes: usize,
    open: usize,
}

impl Fids {
    pub(super) fn get(&self, number: u32) -> Result<&Fid, Errno> {
        self.all.get(&number).ok_or(Errno::BADF)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Result<&mut Fid, Errno> {
        self.all.get_mut(&number).ok_or(Errno::BADF)
    }

    pub(super) fn has(&self, number: u32) -> bool {
        self.all.contains_key(&number)
    }

    /// ENFILE: these are too many.
    pub(super) fn insert(&mut self, number: u32, place: Place) -> Result<(), Errno> {
        let before = self.all.get(&number).map(|fid| fid.place.bytes());
        let bytes = self.bytes - before.unwrap_or(0) + place.bytes();
        if bytes > PLACES_MAX || (before.is_none() && self.all.len() >= FIDS_MAX) {
            return Err(Errno::NFILE);
        }
        self.remove(number).ok();
        self.bytes += place.bytes();
        self.all.insert(number, Fid { place, opened: None });
        Ok(())
    }

    pub(super) fn remove(&mut self, number: u32) -> Result<Fid, Errno> {
        let fid = self.all.remove(&number).ok_or(Errno::BADF)?;
        self.bytes -= fid.place.bytes();
        self.open -= usize::from(fid.is_open());
        Ok(fid)
    }

    /// Whether one more file may be opened. EMFILE: no.
    pub(super) fn check_open(&self) -> Result<(), Errno> {
        match self.open < OPEN_MAX {
            true => Ok(()),
            false => Err(Errno::MFILE),
        }
    }

    /// The number stands for this open file from here on, which is at `place`.
    pub(super) fn set_open(&mut self, number: u32, place: Place, opened: Opened) -> Result<(), Errno> {
        self.insert(number, place)?;
        self.get_mut(number)?.opened = Some(opened);
        self.open += 1;
        Ok(())
    }

    /// Whether the places may become longer as `from` becomes `to`. ENFILE: no.
    pub(super) fn check_move(&self, from: &Place, to: &Place) -> Result<(), Errno> {
        let growth = to.bytes().saturating_sub(from.bytes());
        let moved = self
            .all
            .values()
            .filter(|fid| fid.place.moved(from, to).is_some());
        match self.bytes + growth * moved.count() <= PLACES_MAX {
            true => Ok(()),
            false => Err(Errno::NFILE),
        }
    }

    /// What was `from` is `to` now.
    pub(super) fn follow_move(&mut self, from: &Place, to: &Place) {
        for fid in self.all.values_mut() {
            if let Some(place) = fid.place.moved(from, to) {
                self.bytes = self.bytes - fid.place.bytes() + place.bytes();
                fid.place = place;
            }
        }
    }
}
