//! The machine: physical memory, frame table, domains, and the vCPUs that may have to forget things.

use crate::clock::Clock;
use crate::frames::FrameTable;
use crate::mem::{MemError, PhysMem};
use crate::shared::{Purge, VcpuShared};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};

/// Domain identifier (`domid_t`).
pub type DomId = u16;

/// One host's machine. Everything in it may be used from several threads.
pub struct Machine {
    pub mem: PhysMem,
    pub frames: FrameTable,
    pub clock: Arc<Clock>,
    /// Serialises every change of frame types, counts, owners and page tables. See [`Machine::lock_mm`].
    mm: Mutex<()>,
    vcpus: RwLock<Vec<Weak<VcpuShared>>>,
}

/// Proof that the machine's memory lock is held.
pub type MmGuard<'a> = MutexGuard<'a, ()>;

impl Machine {
    /// `frames` 4 KiB machine frames; `seed` shuffles the order in which they are handed out.
    pub fn new(frames: u64, seed: u64, clock: Clock) -> Result<Arc<Machine>, MemError> {
        let mem = PhysMem::new(frames)?;
        let frames = FrameTable::new(&mem, seed);
        Ok(Arc::new(Machine {
            mem,
            frames,
            clock: Arc::new(clock),
            mm: Mutex::new(()),
            vcpus: RwLock::default(),
        }))
    }

    pub fn register_vcpu(&self, shared: &Arc<VcpuShared>) {
        let mut list = self.vcpus.write().unwrap_or_else(|e| e.into_inner());
        list.retain(|w| w.strong_count() > 0);
        list.push(Arc::downgrade(shared));
    }

    /// Takes the memory lock. A vCPU's thread passes its own `shared`: while it waits it does not count as running
    /// guest code, so the holder may wait for it in [`Machine::purge`].
    pub fn lock_mm(&self, me: Option<&VcpuShared>) -> MmGuard<'_> {
        if let Ok(guard) = self.mm.try_lock() {
            return guard;
        }
        let was = me.map(|s| s.in_guest.swap(false, Ordering::SeqCst));
        let guard = self.mm.lock().unwrap_or_else(|e| e.into_inner());
        if let (Some(s), Some(was)) = (me, was) {
            s.in_guest.store(was, Ordering::SeqCst);
        }
        guard
    }

    /// Queues `p` on every vCPU and waits until each one that runs guest code has applied it. The caller's own vCPU
    /// (`me`) is not waited for: it must call `Cpu::apply_purges` before it touches guest memory again.
    pub fn purge(&self, p: Purge, me: Option<&VcpuShared>) {
        let list: Vec<Arc<VcpuShared>> = self
            .vcpus
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for v in &list {
            v.push_purge(p);
        }
        for v in &list {
            if me.is_some_and(|m| std::ptr::eq(m, Arc::as_ptr(v))) {
                continue;
            }
            while v.in_guest.load(Ordering::SeqCst) && v.purge_pending() {
                std::thread::yield_now();
            }
        }
    }
}

/// What the machine keeps for one domain.
pub struct Domain {
    pub machine: Arc<Machine>,
    pub domid: DomId,
    /// Counts changes of present page-table entries: a view whose last count differs is flushed when it becomes the
    /// base pointer again (loading CR3 flushes the TLB on real hardware).
    pub pt_generation: AtomicU64,
}

impl Domain {
    pub fn new(machine: Arc<Machine>, domid: DomId) -> Arc<Domain> {
        Arc::new(Domain {
            machine,
            domid,
            pt_generation: AtomicU64::new(0),
        })
    }
}
