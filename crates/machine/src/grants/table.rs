// SPDX-License-Identifier: Apache-2.0
//! The table of one domain: its frames, both versions, and the ways between them.

use super::active::Active;
use super::by_ref::ByRef;
use super::{GrantResult, GrantStatus};
use crate::abi::grant::{entry_v1, entry_v2, gtf, NR_RESERVED_ENTRIES, STATUS_SIZE};
use crate::abi::{DomId, Errno};
use crate::frames::Domain;
use crate::mem::{Mfn, PAGE_SIZE};
use std::sync::Arc;

const IN_USE: u32 = gtf::READING | gtf::WRITING;
const STATUS_PER_FRAME: u64 = PAGE_SIZE / STATUS_SIZE;

/// Uses by host code of one grant.
#[derive(Default)]
pub(super) struct HostUses {
    reading: Uses,
    writing: Uses,
}

/// Of one kind.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// That end with the domain.
    pub plain: u32,
    /// Of [`super::GrantMapping`], which keep their frame until they are dropped.
    pub mappings: u32,
}

impl HostUses {
    pub(super) fn of(&self, writable: bool) -> Uses {
        match writable {
            false => self.reading,
            true => self.writing,
        }
    }

    pub(super) fn of_mut(&mut self, writable: bool) -> &mut Uses {
        match writable {
            false => &mut self.reading,
            true => &mut self.writing,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        [self.reading, self.writing] == [Uses::default(); 2]
    }
}

pub(super) struct Table {
    domain: Arc<Domain>,
    pub version: u32,
    max_frames: u32,
    pub frames: Vec<Mfn>,
    pub status_frames: Vec<Mfn>,
    /// Status frames of an earlier version 2: still the domain's, and used again.
    spare_status: Vec<Mfn>,
    pub active: ByRef<Active>,
    pub host: ByRef<HostUses>,
}

/// A reserved entry, as version 1 has it.
struct Reserved {
    flags: u32,
    domid: DomId,
    frame: u32,
}

impl Table {
    pub(crate) fn new(domain: &Arc<Domain>, max_frames: u32) -> GrantResult<Table> {
        let mut table = Table {
            domain: domain.clone(),
            version: 1,
            max_frames,
            frames: Vec::new(),
            status_frames: Vec::new(),
            spare_status: Vec::new(),
            active: ByRef::new(),
            host: ByRef::new(),
        };
        table.grow(1)?;
        Ok(table)
    }

    fn entry_size(&self) -> u64 {
        match self.version {
            1 => entry_v1::SIZE,
            _ => entry_v2::SIZE,
        }
    }

    pub(crate) fn entries(&self) -> u32 {
        (self.frames.len() as u64 * (PAGE_SIZE / self.entry_size())) as u32
    }

    pub(crate) fn grow(&mut self, frames: u32) -> GrantResult {
        if frames > self.max_frames {
            return Err(GrantStatus::general_error);
        }
        share(&self.domain, &mut self.frames, frames as usize)?;
        match self.version {
            1 => Ok(()),
            _ => self.grow_status(),
        }
    }

    fn grow_status(&mut self) -> GrantResult {
        let entries = self.frames.len() as u64 * (PAGE_SIZE / entry_v2::SIZE);
        let wanted = entries.div_ceil(STATUS_PER_FRAME) as usize;
        while self.status_frames.len() < wanted {
            let Some(mfn) = self.spare_status.pop() else { break };
            self.clear(&[mfn]);
            self.status_frames.push(mfn);
        }
        share(&self.domain, &mut self.status_frames, wanted)
    }

    fn clear(&self, frames: &[Mfn]) {
        for mfn in frames {
            self.domain
                .machine
                .mem
                .write(mfn.maddr(), &[0; PAGE_SIZE as usize]);
        }
    }

    pub(crate) fn entry_maddr(&self, gref: u32) -> GrantResult<u64> {
        let size = self.entry_size();
        let per_frame = PAGE_SIZE / size;
        let frame = self.frames.get((u64::from(gref) / per_frame) as usize);
        let frame = frame.ok_or(GrantStatus::bad_gntref)?;
        Ok(frame.maddr() + u64::from(gref) % per_frame * size)
    }

    pub(crate) fn status_maddr(&self, gref: u32) -> GrantResult<u64> {
        if self.version == 1 {
            return self.entry_maddr(gref);
        }
        let frame = self
            .status_frames
            .get((u64::from(gref) / STATUS_PER_FRAME) as usize);
        let frame = frame.ok_or(GrantStatus::bad_gntref)?;
        Ok(frame.maddr() + u64::from(gref) % STATUS_PER_FRAME * STATUS_SIZE)
    }

    /// Both words of an entry, each read once; version 1 has one.
    pub(crate) fn words(&self, at: u64) -> (u64, u64) {
        let mem = &self.domain.machine.mem;
        let first = mem.read_u64(at).unwrap_or(0);
        let second = (self.version == 2).then(|| mem.read_u64(at + 8)).flatten();
        (first, second.unwrap_or(0))
    }

    /// Flags (low half) and domain of the entry at `at`.
    pub(crate) fn header(&self, at: u64) -> u32 {
        self.domain.machine.mem.read_u64(at).unwrap_or(0) as u32
    }

    pub(crate) fn seed(&self, gref: u32, mfn: Mfn, domid: DomId) -> bool {
        let (Ok(at), true) = (self.entry_maddr(gref), gref < NR_RESERVED_ENTRIES) else {
            return false;
        };
        self.store_v1(
            at,
            &Reserved {
                flags: gtf::PERMIT_ACCESS,
                domid,
                frame: mfn.0 as u32,
            },
        );
        true
    }

    fn store_v1(&self, at: u64, e: &Reserved) {
        let word = u64::from(e.flags & 0xffff) | u64::from(e.domid) << 16 | u64::from(e.frame) << 32;
        self.domain.machine.mem.write_u64(at, word);
    }

    pub(crate) fn swap(&self, a: u32, b: u32) -> GrantResult {
        let mut places = vec![(self.entry_maddr(a)?, self.entry_maddr(b)?, self.entry_size())];
        if a == b {
            return Ok(());
        }
        if self.active.get(a).or(self.active.get(b)).is_some() {
            return Err(GrantStatus::eagain);
        }
        if self.version == 2 {
            places.push((self.status_maddr(a)?, self.status_maddr(b)?, STATUS_SIZE));
        }
        let mem = &self.domain.machine.mem;
        for (at_a, at_b, size) in places {
            let (mut a, mut b) = (vec![0; size as usize], vec![0; size as usize]);
            mem.read(at_a, &mut a);
            mem.read(at_b, &mut b);
            mem.write(at_a, &b);
            mem.write(at_b, &a);
        }
        Ok(())
    }

    pub(crate) fn set_version(&mut self, version: u32) -> Result<(), Errno> {
        if !matches!(version, 1 | 2) {
            return Err(Errno::EINVAL);
        }
        if version == self.version {
            return Ok(());
        }
        if self.active.iter().any(|(gref, _)| gref >= NR_RESERVED_ENTRIES) {
            return Err(Errno::EBUSY);
        }
        let reserved: Vec<_> = (0..NR_RESERVED_ENTRIES)
            .map(|gref| self.reserved(gref))
            .collect::<Result<_, _>>()?;
        if version == 2 {
            self.grow_status().map_err(|_| Errno::ENOMEM)?;
        } else {
            let machine = &self.domain.machine;
            let mapped = |mfn: &Mfn| machine.frame_info(*mfn).is_some_and(|f| f.refs > 1);
            if self.status_frames.iter().any(mapped) {
                return Err(Errno::EBUSY);
            }
            self.spare_status.append(&mut self.status_frames);
        }
        self.version = version;
        self.clear(&self.frames);
        for (gref, entry) in (0..).zip(&reserved) {
            self.restore(gref, entry);
        }
        Ok(())
    }

    fn reserved(&self, gref: u32) -> Result<Reserved, Errno> {
        let at = self.entry_maddr(gref).map_err(|_| Errno::EINVAL)?;
        let (first, second) = self.words(at);
        let (flags, domid) = (first as u32 & 0xffff, (first >> 16) as DomId);
        if self.version == 1 {
            return Ok(Reserved {
                flags,
                domid,
                frame: (first >> 32) as u32,
            });
        }
        let kind = flags & gtf::TYPE_MASK;
        if kind == gtf::TRANSITIVE || (kind == gtf::PERMIT_ACCESS && second >> 32 != 0) {
            return Err(Errno::ERANGE);
        }
        if kind != gtf::PERMIT_ACCESS {
            return Ok(Reserved {
                flags: 0,
                domid: 0,
                frame: 0,
            });
        }
        let mut status = [0; STATUS_SIZE as usize];
        let at = self.status_maddr(gref).map_err(|_| Errno::EINVAL)?;
        self.domain.machine.mem.read(at, &mut status);
        Ok(Reserved {
            flags: flags | u32::from(u16::from_le_bytes(status)),
            domid,
            frame: second as u32,
        })
    }

    fn restore(&self, gref: u32, e: &Reserved) {
        let Ok(at) = self.entry_maddr(gref) else { return };
        if self.version == 1 {
            self.store_v1(at, e);
            return;
        }
        let mem = &self.domain.machine.mem;
        mem.write_u64(at + entry_v2::FULL_FRAME, u64::from(e.frame));
        mem.write_u64(at, u64::from(e.flags & !IN_USE) | u64::from(e.domid) << 16);
        if let Ok(status) = self.status_maddr(gref) {
            mem.write(status, &((e.flags & IN_USE) as u16).to_le_bytes());
        }
    }

    /// The domain ends: gives back the references that users of its grants hold through the table.
    pub(crate) fn put_all(&self) {
        for (gref, active) in self.active.iter().filter(|(_, a)| a.via.is_none()) {
            for (writable, uses) in [(false, active.readers), (true, active.writers)] {
                let kept = self.host.get(gref).map_or(0, |h| h.of(writable).mappings);
                for _ in kept..uses {
                    self.domain.put_ref(active.mfn, writable);
                }
            }
        }
    }
}

fn share(domain: &Domain, to: &mut Vec<Mfn>, count: usize) -> GrantResult {
    if let Some(more) = count.checked_sub(to.len()).filter(|more| *more > 0) {
        let new = domain.share_hypervisor_frames(more as u64);
        let new = new.ok_or(GrantStatus::general_error)?;
        for mfn in &new {
            domain.host_mapped(*mfn);
        }
        to.extend(new);
    }
    Ok(())
}
