// SPDX-License-Identifier: Apache-2.0
//! The check of the translator against the interpreter: what `--engine check` does.
//!
//! Each slice runs translated, is undone, and runs interpreted; registers, memory, the reason to stop and the instructions left
//! must be the same. The interpreter's run is the one that counts. Its limits: docs/internals/translator.md.

mod flags;
mod report;
mod saved;
mod undo;

use super::fault::{Exec, Fault, Trap};
use super::{Cpu, Stop};
use crate::mem::Mfn;
use crate::shared::{attention, InGuest};
use saved::Saved;
use std::sync::atomic::Ordering;
use undo::{Changes, Undo};

/// No exception: the instruction does what cannot be undone. Handlers leave it undone, as for any fault, and it runs once, not
/// compared.
pub(crate) const RUN_ONCE: Fault = Fault::new(u8::MAX - 1);

/// Which of its runs a slice is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// None: what happens now is not compared.
    Once,
    Translated,
    Interpreted,
}

/// What is kept for the comparison of one CPU's slices.
pub(crate) struct Check {
    phase: Phase,
    undo: Undo,
    compared: u64,
    /// The report of the first difference.
    found: Option<String>,
}

impl Check {
    /// Blocks are interpreted though they have code.
    pub(crate) fn interprets(&self) -> bool {
        self.phase != Phase::Translated
    }

    /// What is done now will be undone, or compared with what was undone.
    fn compares(&self) -> bool {
        self.phase != Phase::Once
    }
}

/// A run of a slice.
struct Outcome {
    stop: Stop,
    left: i64,
    state: Saved,
}

impl Cpu {
    /// Compares the translator with the interpreter from now on, or no more. Time must be virtual, and nobody else may write to
    /// the guest's memory while it runs.
    pub fn set_check(&mut self, on: bool) {
        if on {
            self.forget_all_code();
            if let Some(t) = self.code.translator.as_mut() {
                t.keep_flags();
            }
        }
        self.check = on.then(|| {
            Box::new(Check {
                phase: Phase::Once,
                undo: Undo::default(),
                compared: 0,
                found: None,
            })
        });
        self.flush_tlb_all_views();
    }

    /// Instructions that were compared, and the report of the first difference.
    pub fn checked(&self) -> (u64, Option<&str>) {
        match &self.check {
            Some(check) => (check.compared, check.found.as_deref()),
            None => (0, None),
        }
    }

    /// Before a translation that allows stores to this frame is used.
    pub(crate) fn note_store(&mut self, mfn: Mfn) {
        if let Some(check) = self.check.as_mut() {
            let compares = check.compares();
            check.undo.note(&self.domain.machine.mem, mfn, compares);
        }
    }

    /// First thing in what cannot be undone: refused in a slice that is compared.
    pub(crate) fn run_once(&self) -> Exec {
        match &self.check {
            Some(check) if check.compares() => Err(RUN_ONCE.into()),
            _ => Ok(()),
        }
    }

    /// As [`Cpu::run_entered`]; a difference between the engines is a trap.
    pub(crate) fn run_checked(&mut self, in_guest: &InGuest<'_>) -> Stop {
        let yield_at = self.budget.yield_at.max(0);
        let amount = self.budget.left - yield_at;
        let wanted = self.shared.attention.load(Ordering::SeqCst) & !attention::PURGE != 0;
        if amount <= 0 || wanted || self.check.is_none() {
            return self.run_entered(in_guest);
        }
        self.budget.yield_at = 0;
        let (stop, left) = self.compare_slices(amount, in_guest);
        self.budget.left = yield_at + left;
        self.budget.yield_at = yield_at;
        stop
    }

    /// Runs `left` instructions; gives why it stopped, and how many are left.
    fn compare_slices(&mut self, mut left: i64, in_guest: &InGuest<'_>) -> (Stop, i64) {
        loop {
            let before = Saved::of(self);
            let (first, after, second) = self.run_both(&before, left, in_guest);
            if first.stop == Stop::Attention || second.stop == Stop::Attention {
                self.undo_stores();
                before.put_back(self);
                return (Stop::Attention, left);
            }
            if self.differ(&first, &after, &second)
                && !self.differ_in_undefined_flags(&before, left, &first, &after, &second, in_guest)
            {
                let report = self.report(&before, left, in_guest);
                if let Some(check) = self.check.as_mut() {
                    check.found.get_or_insert(report);
                }
                return (Stop::Trap(Trap::Unsupported("the engines differ")), left);
            }
            if let Some(check) = self.check.as_mut() {
                check.compared += (left - second.left) as u64;
            }
            left = second.left;
            if second.stop != Stop::Trap(Trap::Fault(RUN_ONCE)) {
                return (second.stop, left);
            }
            let once = self.run_as(Phase::Once, 1, in_guest);
            left += once.left - 1;
            if once.stop != Stop::Budget || left <= 0 {
                return (once.stop, left);
            }
        }
    }

    /// Runs `amount` instructions translated, which is undone, and then interpreted. With the first run is what it left in memory.
    fn run_both(
        &mut self,
        before: &Saved,
        amount: i64,
        in_guest: &InGuest<'_>,
    ) -> (Outcome, Changes, Outcome) {
        self.forbid_stores();
        let first = self.run_as(Phase::Translated, amount, in_guest);
        let after = self.undo_stores();
        before.put_back(self);
        let second = self.run_as(Phase::Interpreted, amount, in_guest);
        (first, after, second)
    }

    fn run_as(&mut self, phase: Phase, amount: i64, in_guest: &InGuest<'_>) -> Outcome {
        self.set_phase(phase);
        self.budget.left = amount;
        let stop = self.run_entered(in_guest);
        self.set_phase(Phase::Once);
        Outcome {
            stop,
            left: self.budget.left,
            state: Saved::of(self),
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Some(check) = self.check.as_mut() {
            check.phase = phase;
        }
    }

    /// The first store to each frame will be noted again.
    fn forbid_stores(&mut self) {
        let Some(check) = self.check.as_mut() else {
            return;
        };
        for mfn in check.undo.begin() {
            if let Some(host) = self.domain.machine.mem.frame(mfn) {
                self.views.purge_frame(host, true);
            }
        }
    }

    /// Memory is as it was when stores were forbidden last; gives what it was now.
    fn undo_stores(&mut self) -> Changes {
        let Some(check) = self.check.as_mut() else {
            return Changes::default();
        };
        let (changes, written) = check.undo.put_back(&self.domain.machine);
        for (mfn, at) in written {
            self.code_written(mfn, at.start, usize::from(at.end - at.start));
        }
        changes
    }

    /// Whether two runs of a slice have not come to the same; memory is as it is after the second.
    fn differ(&self, first: &Outcome, after: &Changes, second: &Outcome) -> bool {
        first.stop != second.stop
            || first.left != second.left
            || first.state.words() != second.state.words()
            || self.memory_differs(after)
    }

    fn memory_differs(&self, after: &Changes) -> bool {
        let mem = &self.domain.machine.mem;
        let check = self.check.as_ref();
        check.is_some_and(|c| c.undo.differences(mem, after).next().is_some())
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
