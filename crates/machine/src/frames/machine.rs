// SPDX-License-Identifier: Apache-2.0
//! The machine: physical memory, frame table, and the vCPUs that may have to forget things.

use super::code::CodeMap;
use super::turns::Turns;
use super::{flag, FrameInfo, FrameTable, Mm};
use crate::abi::layout::INVALID_M2P_ENTRY;
use crate::abi::DomId;
use crate::clock::Clock;
use crate::mem::{MemError, Mfn, PhysMem, PAGE_SHIFT, PAGE_SIZE};
use crate::random::RandomSource;
use crate::shared::{Caller, Purge, VcpuShared};
use std::sync::atomic::{fence, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};

/// One host's machine. Everything in it may be used from several threads.
pub struct Machine {
    /// The bytes of all frames.
    pub mem: PhysMem,
    /// Per frame, the flags that vCPUs look at without the memory lock.
    pub frames: FrameTable,
    /// In which frames instructions have been decoded.
    pub code: CodeMap,
    /// The time of all guests.
    pub clock: Arc<Clock>,
    pub(crate) random: RandomSource,
    /// Serialises every change of frame types, counts, owners and page tables. See [`Machine::lock_mm`].
    mm: Mutex<Mm>,
    turns: Turns,
    m2p: (Mfn, u64),
    m2p_compat: (Mfn, u64),
    vcpus: RwLock<Vec<Weak<VcpuShared>>>,
}

/// The memory lock, held: types, counts, owners and free frames are behind it.
pub(crate) type MmGuard<'a> = MutexGuard<'a, Mm>;

impl Machine {
    /// `frames` 4 KiB machine frames; `seed` shuffles the order in which they are handed out, and is all that the guests'
    /// random numbers depend on: see [`Machine::with_random_key`].
    pub fn new(frames: u64, seed: u64, clock: Clock) -> Result<Arc<Machine>, MemError> {
        Machine::with_random_key(frames, seed, RandomSource::key_from_seed(seed), clock)
    }

    /// The same with a key of its own for what rdrand and rdseed give.
    pub fn with_random_key(
        frames: u64,
        seed: u64,
        key: [u8; 32],
        clock: Clock,
    ) -> Result<Arc<Machine>, MemError> {
        let mem = PhysMem::new(frames)?;
        let frames = FrameTable::new(&mem, seed);
        let mm = Mm::new(&mem, seed);
        let (m2p, m2p_compat) = (mm.m2p(), mm.m2p_compat());
        let (clock, vcpus) = (Arc::new(clock), RwLock::default());
        let code = CodeMap::new(mem.frames());
        Ok(Arc::new(Machine {
            mem,
            frames,
            code,
            clock,
            random: RandomSource::new(key),
            mm: Mutex::new(mm),
            turns: Turns::default(),
            m2p,
            m2p_compat,
            vcpus,
        }))
    }

    /// First frame and number of frames of the machine-to-phys table: 8 bytes per frame, for 64-bit guests.
    pub fn m2p(&self) -> (Mfn, u64) {
        self.m2p
    }

    /// The same with 4 bytes per frame, for 32-bit guests.
    pub fn m2p_compat(&self) -> (Mfn, u64) {
        self.m2p_compat
    }

    /// From here on this vCPU is told which translations and blocks to forget.
    pub fn register_vcpu(&self, shared: &Arc<VcpuShared>) {
        let mut list = self.vcpus.write().unwrap_or_else(|e| e.into_inner());
        list.retain(|w| w.strong_count() > 0 && !std::ptr::eq(w.as_ptr(), Arc::as_ptr(shared)));
        list.push(Arc::downgrade(shared));
    }

    /// Takes the memory lock, after those who came before. While a vCPU's thread waits for it, it counts as outside the
    /// guest: the holder may wait for that in [`Machine::purge`].
    pub fn lock_mm(&self, caller: Caller<'_>) -> MmGuard<'_> {
        if !self.turns.any_waits() {
            if let Ok(guard) = self.mm.try_lock() {
                return guard;
            }
        }
        let _outside = caller.leave_guest();
        self.turns
            .take(|| self.mm.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Queues `p` on every vCPU and waits until each one that runs guest code has applied it. The caller's own vCPU
    /// is not waited for: it must call `Cpu::apply_purges` before it touches guest memory again.
    pub fn purge(&self, p: Purge, caller: Caller<'_>) {
        self.purge_many(&[p], caller);
    }

    /// [`Machine::purge`] of several things, waiting once.
    pub fn purge_many(&self, purges: &[Purge], caller: Caller<'_>) {
        let list = self.vcpu_list();
        for v in &list {
            for p in purges {
                v.push_purge(*p);
            }
        }
        wait_for(&list, caller);
    }

    /// Returns when no vCPU but the caller's is still in the middle of a page walk that began before the call.
    pub fn walk_barrier(&self, caller: Caller<'_>) {
        // The page-table stores before this must be seen by whoever enters the guest after the look at `in_guest`.
        fence(Ordering::SeqCst);
        let mut list = self.vcpu_list();
        list.retain(|v| !caller.is(v) && v.in_guest());
        for v in &list {
            // Frame 0 is never mapped: a purge that forgets nothing, applied between two blocks, so between walks.
            v.push_purge(Purge::Frame(Mfn(0)));
        }
        wait_for(&list, caller);
    }

    fn vcpu_list(&self) -> Vec<Arc<VcpuShared>> {
        self.vcpus
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Writes machine memory from outside the guest; decoded code from it is forgotten. False outside memory, and for
    /// frames in use as page or descriptor tables.
    pub fn host_write(&self, maddr: u64, data: &[u8]) -> bool {
        let Some(last) = maddr.checked_add((data.len() as u64).saturating_sub(1)) else {
            return false;
        };
        if last >> PAGE_SHIFT >= self.mem.frames() {
            return false;
        }
        let _lock = self.lock_mm(Caller::Host);
        if (maddr >> PAGE_SHIFT..=last >> PAGE_SHIFT)
            .any(|m| self.frames.flags(Mfn(m)) & flag::PROTECTED != 0)
        {
            return false;
        }
        self.store_and_forget_code(maddr, data, Caller::Host);
        true
    }

    /// Stores, and then makes every vCPU forget what it decoded from these bytes: nothing old is executed after this
    /// returns.
    pub(crate) fn store_and_forget_code(&self, maddr: u64, data: &[u8], caller: Caller<'_>) {
        match <[u8; 8]>::try_from(data) {
            Ok(b) if maddr & 7 == 0 => {
                self.mem.write_u64(maddr, u64::from_le_bytes(b));
            }
            _ => {
                self.mem.write(maddr, data);
            }
        }
        fence(Ordering::SeqCst);
        let end = maddr.saturating_add(data.len() as u64);
        let mut at = maddr;
        let mut purges = Vec::new();
        while at < end {
            let (mfn, start) = (Mfn(at >> PAGE_SHIFT), at & (PAGE_SIZE - 1));
            let n = (PAGE_SIZE - start).min(end - at);
            if self.frames.flags(mfn) & flag::CODE != 0 {
                purges.push(Purge::Code {
                    mfn,
                    start: start as u16,
                    end: (start + n) as u16,
                });
            }
            at += n;
        }
        if !purges.is_empty() {
            self.purge_many(&purges, caller);
        }
    }

    /// Sets a frame's machine-to-phys entries.
    pub(crate) fn m2p_store(&self, mfn: Mfn, pfn: u64) {
        if mfn.0 < self.mem.frames() {
            self.mem.write_u64(self.m2p.0.maddr() + mfn.0 * 8, pfn);
            self.mem
                .write(self.m2p_compat.0.maddr() + mfn.0 * 4, &(pfn as u32).to_le_bytes());
        }
    }

    /// A frame's machine-to-phys entry.
    pub fn m2p_get(&self, mfn: Mfn) -> u64 {
        let entry = (mfn.0 < self.mem.frames()).then(|| self.mem.read_u64(self.m2p.0.maddr() + mfn.0 * 8));
        entry.flatten().unwrap_or(INVALID_M2P_ENTRY)
    }

    /// Whether there is a domain of this number that is not dying.
    pub fn domain_exists(&self, domid: DomId) -> bool {
        self.lock_mm(Caller::Host).domain_exists(domid)
    }

    /// Frames that no domain has.
    pub fn free_frames(&self) -> u64 {
        self.lock_mm(Caller::Host).free_frames()
    }

    /// These frames are handed out after all others, so that what the hypervisor itself needs does not take them.
    pub fn hand_out_last(&self, mfns: &[u64]) {
        self.lock_mm(Caller::Host).free.hand_out_last(mfns);
    }

    /// A frame-table entry, as it is now.
    pub fn frame_info(&self, mfn: Mfn) -> Option<FrameInfo> {
        self.lock_mm(Caller::Host).info(mfn).copied()
    }

    /// Recomputes all types and counts; says where the frame table differs.
    pub fn audit(&self) -> Vec<String> {
        self.lock_mm(Caller::Host).audit(self)
    }
}

pub(super) fn wait_for(list: &[Arc<VcpuShared>], caller: Caller<'_>) {
    // Two vCPUs that purge at once must not wait for each other.
    let _outside = caller.leave_guest();
    for v in list.iter().filter(|v| !caller.is(v)) {
        while v.in_guest() && v.purge_pending() {
            std::thread::yield_now();
        }
    }
}
