// SPDX-License-Identifier: Apache-2.0
//! The run loop: slices of the budget, events, deadlines.

use super::Exit;
use super::Vcpu;
use crate::cpu::fault::{vector, Fault, Trap};
use crate::cpu::Stop;
use crate::shared::{attention, Caller, InGuest};
use std::sync::atomic::Ordering;

/// Instructions between two looks at the clock: well under a millisecond for the slowest engine.
const SLICE: u64 = 20_000;

impl Vcpu {
    /// Runs the guest for at most `budget` instructions or until system time `deadline_ns`.
    pub fn run(&mut self, budget: u64, deadline_ns: u64) -> Exit {
        self.idle.end();
        let shared = self.cpu.shared.clone();
        let in_guest = shared.enter();
        self.cpu.apply_purges();
        if self.cpu.domain.is_dying() {
            // Its page tables are no tables any more.
            Exit::Interrupted
        } else if self.cpu.cpl == 0 {
            // Nothing leads here; should anything ever, it ends here.
            Exit::Unsupported("a PV guest in ring 0")
        } else {
            self.take_assists();
            self.pay_debts();
            self.run_guest(budget, deadline_ns, &in_guest)
        }
    }

    /// Takes down what operations of this domain have left, unless this vCPU is to stop: that is not done with locks held
    /// that others wait for, and the guest does not see it undone.
    fn pay_debts(&mut self) {
        if !self.cpu.domain.owes() {
            return;
        }
        let (domain, shared) = (self.cpu.domain.clone(), self.cpu.shared.clone());
        while shared.attention.load(Ordering::SeqCst) & attention::STOP == 0 {
            if domain.settle(Caller::Vcpu(&shared)).is_ok() {
                break;
            }
        }
        self.cpu.apply_purges();
    }

    fn run_guest(&mut self, budget: u64, deadline_ns: u64, in_guest: &InGuest<'_>) -> Exit {
        if let Err(reason) = self.load_new_segments() {
            return Exit::Fault {
                vector: vector::DF,
                error_code: None,
                cr2: 0,
                reason,
            };
        }
        if let Some(fault) = self.injected.take() {
            if let Some(exit) = self.fault(fault) {
                return exit;
            }
        }
        if let Some(exit) = self.seen_trap() {
            return exit;
        }
        let clock = self.cpu.domain.machine.clock.clone();
        let mut left = budget;
        loop {
            if self.cpu.shared.clear(attention::STOP) != 0 {
                return Exit::Interrupted;
            }
            let now = clock.now_ns();
            self.fire_timers(now);
            if let Some(exit) = self.event() {
                return exit;
            }
            if now >= deadline_ns {
                return Exit::Deadline;
            }
            if left == 0 {
                return Exit::Budget;
            }
            let mut slice = left.min(i64::MAX as u64);
            if clock.is_virtual() {
                let timer_ns = self.cpu.shared.timers.next_ns().unwrap_or(u64::MAX);
                slice = slice.min(deadline_ns.min(timer_ns).saturating_sub(now));
            }
            let (done, exit) = self.run_slice(slice, in_guest);
            left -= done.min(left);
            if let Some(exit) = exit {
                return exit;
            }
        }
    }

    /// Runs up to `limit` instructions, and not many more than `SLICE`, through everything that does not need the layer
    /// above.
    fn run_slice(&mut self, limit: u64, in_guest: &InGuest<'_>) -> (u64, Option<Exit>) {
        let start = limit as i64;
        self.cpu.budget.left = start;
        self.cpu.budget.yield_at = start.saturating_sub(SLICE as i64).max(0);
        let exit = loop {
            let stop = self.run_engine(in_guest);
            self.returns.fresh = false;
            match stop {
                Stop::Budget => break None,
                Stop::Attention => {
                    self.cpu.apply_purges();
                    if self.cpu.shared.attention.load(Ordering::SeqCst) & attention::STOP != 0 {
                        break None;
                    }
                    if let Some(exit) = self.event() {
                        break Some(exit);
                    }
                }
                Stop::Trap(trap) => {
                    if let Some(exit) = self.ends.take().or_else(|| self.paid_trap(trap)) {
                        break Some(exit);
                    }
                    if std::mem::take(&mut self.timers_changed) {
                        break None; // the next one may come before the slice is over
                    }
                }
            }
        };
        let done = (start - self.cpu.budget.left).max(0) as u64;
        self.instructions += done;
        let clock = &self.cpu.domain.machine.clock;
        if clock.is_virtual() {
            clock.advance_to(clock.now_ns() + done);
        }
        (done, exit)
    }

    /// What becomes of a trap, which costs one instruction of budget, so that a guest which only faults is still stopped.
    fn paid_trap(&mut self, trap: Trap) -> Option<Exit> {
        if matches!(trap, Trap::Fault(_) | Trap::Priv { .. } | Trap::CallGate { .. }) {
            self.cpu.budget.left -= 1;
        }
        self.handle_trap(trap)
    }

    /// Does what is to be done about a trap while the engine is in translated code. False: the engine is to come back.
    pub(super) fn trap_within(&mut self) -> bool {
        let Some(trap) = self.cpu.chain.leave.take() else {
            return true;
        };
        self.returns.fresh = false;
        self.ends = self.paid_trap(trap);
        if self.ends.is_some() || self.timers_changed {
            self.cpu.chain.leave = Some(Trap::Again);
            return false;
        }
        true
    }

    /// Delivers pending events; an exit only if the guest cannot be entered.
    pub(super) fn event(&mut self) -> Option<Exit> {
        let shared = &self.cpu.shared;
        if shared.attention.load(Ordering::SeqCst) & attention::EVENT != 0 {
            shared.clear(attention::EVENT);
        }
        if self.nmi_is_due() {
            self.nmi_pending = false;
            if let Some(exit) = self.nmi() {
                return Some(exit);
            }
        }
        match self.deliver_event() {
            Ok(_) => None,
            Err(reason) => Some(Exit::Fault {
                vector: vector::DF,
                error_code: None,
                cr2: 0,
                reason,
            }),
        }
    }
    /// VCPUOP_send_nmi: the vCPU takes it when it runs next and no other is being handled.
    pub fn send_nmi(&mut self) {
        self.nmi_pending = true;
    }

    pub(super) fn nmi_is_due(&self) -> bool {
        self.nmi_pending && !self.nmi_masked
    }

    /// Enters the NMI callback, which is entry 2 of the trap table. Without one the NMI is lost, as on Xen.
    fn nmi(&mut self) -> Option<Exit> {
        if self.is_null(self.trap(vector::NMI).entry()) {
            return None;
        }
        self.nmi_masked = true;
        self.fault(Fault::new(vector::NMI))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::hypercall::vmasst;
    use crate::bug::{caught, Bug};
    use crate::shared::{Caller, Purge, VcpuShared};
    use crate::testing::TestVm;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn what_a_domain_chooses_with_vm_assist_holds_on_each_vcpu_from_its_next_run_on() {
        let vm = TestVm::new(&[0x90]);
        let domain = vm.domain.clone();
        let mut vcpus = [Vcpu::new(&domain, 0), Vcpu::new(&domain, 1)];
        for on in [true, false] {
            domain.set_vm_assist(u64::from(on) << vmasst::WRITABLE_PAGETABLES);
            for vcpu in &mut vcpus {
                VcpuShared::request(vcpu.shared(), attention::STOP);
                assert_eq!(vcpu.run(10, u64::MAX), Exit::Interrupted);
                assert_eq!(vcpu.cpu.access.writable_tables, on);
            }
        }
    }

    #[test]
    fn nobody_waits_for_a_vcpu_that_met_a_bug() {
        let vm = TestVm::new(&[0x90]);
        let machine = vm.machine.clone();
        let mut vcpu = Vcpu::with_cpu(vm.cpu, 0);
        let shared = vcpu.shared().clone();
        vcpu.cpu.planted_bug = true;
        assert_eq!(caught(|| vcpu.run(10, u64::MAX)), Err(Bug("planted".into())));
        assert!(!shared.in_guest());
        let copy = caught(|| vcpu.as_in_guest(|_| panic!("planted")));
        assert_eq!(copy, Err(Bug("planted".into())));
        assert!(!shared.in_guest());

        let (done, wait) = mpsc::channel();
        std::thread::spawn(move || {
            let _lock = machine.lock_mm(Caller::Host);
            machine.purge(Purge::AllTlb, Caller::Host);
            machine.walk_barrier(Caller::Host);
            done.send(()).ok();
        });
        assert_eq!(wait.recv_timeout(Duration::from_secs(60)), Ok(()));
        // Its queue was not served: nobody runs it.
        assert!(shared.purge_pending());
    }
}
