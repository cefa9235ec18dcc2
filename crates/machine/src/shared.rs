// SPDX-License-Identifier: Apache-2.0
//! The part of a vCPU that other threads may touch: requests for attention, TLB and code purges, and whether it is in the
//! guest, which only the two guards here change.

use crate::mem::Mfn;
use crate::sleep::Sleep;
use crate::timers::Timers;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// Bits of [`VcpuShared::attention`]. Any bit set makes the engine leave its block loop at the next block boundary.
pub mod attention {
    /// An event may be pending: look at `vcpu_info`.
    pub const EVENT: u32 = 1;
    /// `run` must return `Exit::Interrupted`.
    pub const STOP: u32 = 2;
    /// [`super::VcpuShared::take_purges`] has something.
    pub const PURGE: u32 = 4;
}

/// Something that a vCPU's software TLB or decoded-block cache must forget before it runs one more guest block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// Every translation of every view.
    AllTlb,
    /// Every translation of views in which page tables have changed since they were last flushed.
    Stale,
    /// The translation of one guest page.
    Page(u64),
    /// Translations that allow writes to this frame.
    Writable(Mfn),
    /// All translations of this frame.
    Frame(Mfn),
    /// Decoded blocks that came from bytes `start..end` of this frame.
    Code {
        /// The frame.
        mfn: Mfn,
        /// Offset of the first byte.
        start: u16,
        /// Offset behind the last byte.
        end: u16,
    },
}

/// More than this many queued purges collapse into "everything".
const MAX_QUEUED: usize = 64;

#[derive(Debug, Default)]
struct Queue {
    list: Vec<Purge>,
    overflow: bool,
}

/// Shared by the vCPU's own thread and everybody else.
#[derive(Debug, Default)]
pub struct VcpuShared {
    /// Bits of [`attention`](mod@attention).
    pub attention: AtomicU32,
    /// See [`VcpuShared::enter`] and [`VcpuShared::leave`].
    in_guest: AtomicBool,
    /// The vCPU's number in its domain.
    pub vcpu_id: AtomicU32,
    /// Whether it is blocked, and where its thread waits.
    pub sleep: Sleep,
    /// When it is woken, or told.
    pub timers: Arc<Timers>,
    /// Whether it has been started, and not stopped since (VCPUOP_up, VCPUOP_down).
    pub is_up: AtomicBool,
    purges: Mutex<Queue>,
}

/// The vCPU's thread runs guest code, or the engine's slow paths, or copies through the software TLB, as long as this
/// lives: [`VcpuShared::enter`].
#[must_use = "the vCPU counts as in the guest only as long as this lives"]
pub struct InGuest<'a> {
    _restore: Restore<'a>,
}

/// The vCPU's thread holds on to no translation as long as this lives, so nobody waits for it: [`VcpuShared::leave`].
#[must_use = "the vCPU counts as outside the guest only as long as this lives"]
pub struct OutsideGuest<'a> {
    _restore: Restore<'a>,
}

/// Puts `in_guest` back when it is dropped, which is also when a panic unwinds: whoever waited for this vCPU goes on.
struct Restore<'a> {
    shared: &'a VcpuShared,
    was: bool,
}

impl<'a> Restore<'a> {
    fn after_setting(shared: &'a VcpuShared, in_guest: bool) -> Self {
        // Only the vCPU's own thread writes it.
        let was = shared.in_guest.load(Ordering::Relaxed);
        let guard = Restore { shared, was };
        guard.set(in_guest);
        guard
    }

    fn set(&self, in_guest: bool) {
        if self.shared.in_guest.load(Ordering::Relaxed) != in_guest {
            self.shared.in_guest.store(in_guest, Ordering::SeqCst);
        }
    }
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        self.set(self.was);
    }
}

/// On whose behalf the machine is asked for something: who is not waited for in [`Machine::purge`](crate::Machine::purge).
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    /// A thread that is no vCPU's, or a vCPU's that is outside the guest anyway.
    Host,
    /// The thread of this vCPU: while it waits it counts as outside the guest, and it must call `Cpu::apply_purges` before
    /// it touches guest memory through the TLB again.
    Vcpu(&'a VcpuShared),
}

impl<'a> Caller<'a> {
    /// Whether this is the thread of `vcpu`.
    pub fn is(self, vcpu: &VcpuShared) -> bool {
        matches!(self, Caller::Vcpu(me) if std::ptr::eq(me, vcpu))
    }

    /// Whether its vCPU has something else to do first: an event to look at, or to stop.
    pub fn is_wanted(self) -> bool {
        matches!(self, Caller::Vcpu(me) if me.is_wanted())
    }

    /// Before waiting for others: they may be waiting for this vCPU.
    pub fn leave_guest(self) -> Option<OutsideGuest<'a>> {
        match self {
            Caller::Host => None,
            Caller::Vcpu(me) => Some(me.leave()),
        }
    }
}

impl VcpuShared {
    /// Whether long work gives way: there may be an event to deliver, or it is to stop.
    pub fn is_wanted(&self) -> bool {
        self.attention.load(Ordering::SeqCst) & (attention::EVENT | attention::STOP) != 0
    }

    /// True while the vCPU's thread may use translations: a holder of the memory lock waits for it in `Machine::purge`.
    pub fn in_guest(&self) -> bool {
        self.in_guest.load(Ordering::SeqCst)
    }

    /// The vCPU's own thread is about to use translations. It must apply what is queued for it after this.
    pub fn enter(&self) -> InGuest<'_> {
        InGuest {
            _restore: Restore::after_setting(self, true),
        }
    }

    /// The vCPU's own thread is about to wait: until this is dropped it uses no translation.
    pub fn leave(&self) -> OutsideGuest<'_> {
        OutsideGuest {
            _restore: Restore::after_setting(self, false),
        }
    }

    /// Sets bits of `attention`.
    pub fn request(&self, bits: u32) {
        self.attention.fetch_or(bits, Ordering::SeqCst);
    }

    /// Clears bits of `attention`, and returns those that were set.
    pub fn clear(&self, bits: u32) -> u32 {
        self.attention.fetch_and(!bits, Ordering::SeqCst) & bits
    }

    /// Queues what is to be forgotten, and asks for attention.
    pub fn push_purge(&self, p: Purge) {
        let mut q = self.purges.lock().unwrap_or_else(|e| e.into_inner());
        let tlb_only = matches!(p, Purge::Stale | Purge::Page(_));
        if q.list.contains(&p) || tlb_only && q.list.contains(&Purge::Stale) {
            // Once is enough.
        } else if tlb_only && q.list.len() >= MAX_QUEUED / 2 {
            // Pages are only ever named after their entry was changed.
            q.list.retain(|p| !matches!(p, Purge::Page(_)));
            q.list.push(Purge::Stale);
        } else if q.list.len() < MAX_QUEUED {
            q.list.push(p);
        } else {
            q.overflow = true;
        }
        self.request(attention::PURGE);
    }

    /// Called when everything that was taken has been applied: clears the PURGE bit, and says true, if nothing was
    /// queued meanwhile.
    pub fn finish_purges(&self) -> bool {
        let q = self.purges.lock().unwrap_or_else(|e| e.into_inner());
        let done = q.list.is_empty() && !q.overflow;
        if done {
            self.clear(attention::PURGE);
        }
        done
    }

    /// Takes the queued purges; `None` means "everything: all translations and all decoded blocks".
    /// The PURGE bit stays set until [`VcpuShared::finish_purges`]: `Machine::purge` waits for that.
    pub fn take_purges(&self) -> Option<Vec<Purge>> {
        let mut q = self.purges.lock().unwrap_or_else(|e| e.into_inner());
        let q = std::mem::take(&mut *q);
        (!q.overflow).then_some(q.list)
    }

    /// Whether something is queued to be forgotten.
    pub fn purge_pending(&self) -> bool {
        self.attention.load(Ordering::SeqCst) & attention::PURGE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(purges: impl IntoIterator<Item = Purge>) -> Option<Vec<Purge>> {
        let shared = VcpuShared::default();
        purges.into_iter().for_each(|p| shared.push_purge(p));
        assert!(shared.purge_pending());
        shared.take_purges()
    }

    #[test]
    fn the_guards_nest_and_are_released_by_a_panic_too() {
        let shared = VcpuShared::default();
        let inside = shared.enter();
        {
            let _outside = Caller::Vcpu(&shared).leave_guest();
            assert!(!shared.in_guest());
        }
        assert!(shared.in_guest());
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _outside = shared.leave();
            let _inside = shared.enter();
            panic!("planted");
        }));
        assert!(panic.is_err() && shared.in_guest());
        drop(inside);
        assert!(!shared.in_guest());
    }

    #[test]
    fn what_is_asked_for_twice_is_queued_once() {
        let page = Purge::Page(0x1000);
        assert_eq!(
            taken([page, page, Purge::AllTlb, page]),
            Some(vec![page, Purge::AllTlb])
        );
    }

    #[test]
    fn many_pages_become_one_flush_and_no_code_is_forgotten_for_them() {
        let frame = Purge::Frame(Mfn(7));
        let pages = (0..10_000).map(|n| Purge::Page(n << 12));
        assert_eq!(
            taken([frame].into_iter().chain(pages)),
            Some(vec![frame, Purge::Stale])
        );
    }

    #[test]
    fn more_than_the_queue_holds_is_everything() {
        assert_eq!(taken((0..1000).map(|n| Purge::Frame(Mfn(n)))), None);
    }
}
