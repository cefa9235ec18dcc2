// SPDX-License-Identifier: Apache-2.0
//! One ring of a block device: takes its requests, does them, answers.

use super::disk::Disk;
use super::limit::Throttle;
use super::request::{Action, IndirectPages, Request, Segment};
use crate::piece::Piece;
use crate::ring::{BackRing, ConnectError, RingBroken};
use domzero_machine::abi::blkif::{self, Layout, SECTOR};
use domzero_machine::{GrantClient, GrantMapping, OutsidePage};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// Grants that stay mapped for a front end with `feature-persistent`, per ring: as many as a full ring of the largest
/// direct requests uses, three times.
pub const MAX_PERSISTENT: usize = 1056;
/// Requests that are done before the front end sees their answers.
const BATCH: u32 = 32;
/// Bytes that are moved before it does: while it deals with them, the next ones are.
const BATCH_BYTES: u64 = 64 << 10;

/// What the front end has agreed to.
#[derive(Debug, Clone, Copy)]
pub struct Agreed {
    /// Of requests, as its `protocol` says.
    pub layout: Layout,
    /// `feature-persistent` of both ends: grants stay mapped.
    pub persistent: bool,
    /// The disk may be written.
    pub writable: bool,
    /// `sector-size` of the back end: requests are for whole ones, although they are told in sectors of 512 bytes.
    pub sector_bytes: u32,
}

/// What a device has done, over all of its rings.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests that have read.
    pub reads: AtomicU64,
    /// Requests that have written.
    pub writes: AtomicU64,
    /// Bytes read from the disk.
    pub read_bytes: AtomicU64,
    /// Bytes written to the disk.
    pub written_bytes: AtomicU64,
    /// How often what was written has been put on stable storage.
    pub flushes: AtomicU64,
    /// Requests that have discarded.
    pub discards: AtomicU64,
    /// Requests answered with an error.
    pub errors: AtomicU64,
    /// How often requests have waited for the disk's limits.
    pub held: AtomicU64,
}

/// What comes after a turn at a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There may be more to do at once.
    Go,
    /// The front end sends its event when there is.
    Event,
    /// The disk's limits let the next request through after this time.
    After(Duration),
}

/// What a turn at a ring leaves to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The front end is to be sent its event.
    pub notify: bool,
    /// When the next turn is due.
    pub next: Next,
}

/// A ring with the disk behind it.
pub struct Queue {
    ring: BackRing,
    pages: Pages,
    disk: Arc<dyn Disk>,
    counts: Arc<Counts>,
    throttle: Arc<Throttle>,
    agreed: Agreed,
}

impl Queue {
    /// Connects to the ring in the pages `ring_refs`.
    pub fn connect(
        front: GrantClient,
        ring_refs: &[u32],
        disk: Arc<dyn Disk>,
        counts: Arc<Counts>,
        throttle: Arc<Throttle>,
        agreed: Agreed,
    ) -> Result<Queue, ConnectError> {
        let ring = BackRing::connect(&front, ring_refs, agreed.layout.entry)?;
        Ok(Queue {
            ring,
            pages: Pages {
                front,
                kept: HashMap::new(),
                keep: agreed.persistent,
            },
            disk,
            counts,
            throttle,
            agreed,
        })
    }

    /// Does what waits in the ring, up to a batch of it, as far as the disk's limits let it.
    pub fn serve(&mut self) -> Result<Turn, RingBroken> {
        let waiting = self.ring.waiting()?.min(BATCH);
        let mut entry = vec![0; self.agreed.layout.entry];
        let (mut done, mut moved, mut wait) = (0, 0, None);
        while done < waiting && moved < BATCH_BYTES {
            wait = self.throttle.wait();
            if wait.is_some() {
                self.counts.held.fetch_add(1, Ordering::Relaxed);
                break;
            }
            self.ring.take(&mut entry);
            done += 1;
            let request = Request::parse(&entry, self.agreed.layout, &mut self.pages);
            moved += request.bytes();
            self.throttle.charge(request.bytes());
            let status = self.perform(&request);
            if status != blkif::RSP_OKAY {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
            }
            let (response, length) = request.response(status, self.agreed.layout);
            if let Some(response) = response.get(..length) {
                self.ring.put(response);
            }
        }
        Ok(Turn {
            notify: done > 0 && self.ring.push(),
            next: match wait {
                Some(time) => Next::After(time),
                None if self.ring.wait_for_requests()? => Next::Go,
                None => Next::Event,
            },
        })
    }

    fn perform(&mut self, request: &Request) -> i16 {
        let done = match request.action {
            Action::Refuse(status) => return status,
            Action::Read => self.transfer(request, true),
            Action::Write | Action::Barrier | Action::Flush
                if !self.agreed.writable && !request.segments.is_empty() =>
            {
                Err(io::ErrorKind::PermissionDenied.into())
            }
            Action::Write => self.transfer(request, false),
            Action::Barrier => self
                .flush()
                .and_then(|()| self.transfer(request, false))
                .and_then(|()| self.flush()),
            Action::Flush => self.flush().and_then(|()| self.transfer(request, false)),
            Action::Discard { .. } if !self.agreed.writable => Err(io::ErrorKind::PermissionDenied.into()),
            Action::Discard { secure: true, .. } => Err(io::ErrorKind::Unsupported.into()),
            Action::Discard { sectors, .. } => self.discard(request.sector, sectors),
        };
        match done {
            Ok(()) => blkif::RSP_OKAY,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => blkif::RSP_EOPNOTSUPP,
            Err(_) => blkif::RSP_ERROR,
        }
    }

    /// Offset of a range in bytes, if all of it is on the disk, in whole sectors of the size that the front end was told.
    fn place(&self, sector: u64, sectors: u64) -> io::Result<u64> {
        let whole = u64::from(self.agreed.sector_bytes) / SECTOR;
        match sector.checked_add(sectors) {
            Some(_) if !sector.is_multiple_of(whole) || !sectors.is_multiple_of(whole) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
            Some(end) if end <= self.disk.sectors() => Ok(sector * SECTOR),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn transfer(&mut self, request: &Request, read: bool) -> io::Result<()> {
        if request.segments.is_empty() {
            return Ok(());
        }
        let bytes = request.bytes();
        let at = self.place(request.sector, bytes / SECTOR)?;
        let disk = &self.disk;
        self.pages.with(&request.segments, read, |pieces| match read {
            true => disk.read(pieces, at),
            false => disk.write(pieces, at),
        })?;
        let (calls, moved) = match read {
            true => (&self.counts.reads, &self.counts.read_bytes),
            false => (&self.counts.writes, &self.counts.written_bytes),
        };
        calls.fetch_add(1, Ordering::Relaxed);
        moved.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if self.agreed.writable {
            self.disk.flush()?;
        }
        self.counts.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn discard(&self, sector: u64, sectors: u64) -> io::Result<()> {
        let at = self.place(sector, sectors)?;
        if sectors > 0 {
            self.disk.discard(at, sectors * SECTOR)?;
        }
        self.counts.discards.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The front end's granted pages, and those of them that stay mapped.
struct Pages {
    front: GrantClient,
    kept: HashMap<u32, Arc<GrantMapping>>,
    keep: bool,
}

fn refused<E>(_: E) -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

fn outside(_: OutsidePage) -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

impl Pages {
    /// Does something with the memory of a request's segments.
    fn with(
        &mut self,
        segments: &[Segment],
        writable: bool,
        work: impl FnOnce(&[Piece]) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.keep {
            let pages = segments.iter().map(|each| self.have(each.gref, writable));
            let pages = pages.collect::<io::Result<Vec<_>>>()?;
            let pieces = segments.iter().zip(&pages);
            let pieces = pieces.map(|(each, page)| Piece::of(page, each.offset(), each.bytes()));
            return work(&pieces.collect::<Result<Vec<_>, _>>().map_err(outside)?);
        }
        let grefs = segments.iter().map(|each| each.gref);
        let pages = self.front.map_all(grefs, writable).map_err(refused)?;
        let pieces = segments.iter().enumerate();
        let pieces = pieces.map(|(n, each)| Piece::of_page(&pages, n, each.offset(), each.bytes()));
        work(&pieces.collect::<Result<Vec<_>, _>>().map_err(outside)?)
    }

    fn have(&mut self, gref: u32, writable: bool) -> io::Result<Arc<GrantMapping>> {
        if let Some(page) = self.kept.get(&gref) {
            return Ok(Arc::clone(page));
        }
        // A page that stays is used in both directions.
        let page = Arc::new(self.front.map(gref, writable || self.keep).map_err(refused)?);
        if self.keep && self.kept.len() < MAX_PERSISTENT {
            self.kept.insert(gref, Arc::clone(&page));
        }
        Ok(page)
    }
}

impl IndirectPages for Pages {
    fn read(&mut self, gref: u32, to: &mut [u8]) -> bool {
        self.have(gref, false).is_ok_and(|page| page.read(0, to).is_ok())
    }
}
