// SPDX-License-Identifier: Apache-2.0
//! What is frequent of vcpu_op (`vcpu.h`), and set_timer_op: the timers of a vCPU.

use super::argument::Argument;
use super::Vcpu;
use crate::abi::evtchn::virq;
use crate::abi::hypercall::vcpuop;
use crate::abi::structs::vcpu_set_singleshot_timer;
use crate::abi::Errno;
use std::sync::atomic::Ordering;

impl Vcpu {
    /// A guest's vcpu_op, or as much of it as is done here. `None`: it is for the layer above.
    pub fn vcpu_op(&mut self, command: u32, vcpu: u32, va: u64) -> Option<Result<u64, Errno>> {
        match command {
            vcpuop::IS_UP => {
                let other = self.events.as_ref()?.vcpu(vcpu);
                Some(other.map(|other| u64::from(other.is_up.load(Ordering::Acquire))))
            }
            vcpuop::SET_SINGLESHOT_TIMER | vcpuop::STOP_SINGLESHOT_TIMER => {
                let other = self.events.as_ref()?.vcpu(vcpu);
                Some(other.and_then(|_| match vcpu == self.id {
                    true => self.own_timer(command == vcpuop::STOP_SINGLESHOT_TIMER, va),
                    false => Err(Errno::EINVAL),
                }))
            }
            _ => None,
        }
    }

    fn own_timer(&mut self, stop: bool, va: u64) -> Result<u64, Errno> {
        let mut when = None;
        if !stop {
            let size = vcpu_set_singleshot_timer::size(self.is_32bit());
            let mut arg = Argument::<{ vcpu_set_singleshot_timer::SIZE_MAX }>::new();
            self.copy_in(va, arg.0.get_mut(..size).unwrap_or_default())?;
            // VCPU_SSHOTTMR_future is ignored, as Xen 4.17 does: a time that has passed gives its event at once.
            when = Some(arg.u64(vcpu_set_singleshot_timer::TIMEOUT_ABS_NS));
        }
        self.cpu.shared.timers.set_singleshot(when);
        self.timers_changed = true;
        Ok(0)
    }

    /// HYPERVISOR_set_timer_op.
    pub fn set_timer_op(&mut self, when_ns: u64) {
        let now_ns = self.cpu.domain.machine.clock.now_ns();
        self.cpu.shared.timers.set_timer(when_ns, now_ns);
        self.timers_changed = true;
    }

    /// Does what is due at `now_ns`.
    pub(super) fn fire_timers(&mut self, now_ns: u64) {
        if !self.cpu.shared.timers.is_due(now_ns) {
            return;
        }
        let due = self.cpu.shared.timers.take_due(now_ns);
        if due.poll {
            self.cpu.shared.sleep.unblock();
        }
        if let (true, Some(events)) = (due.timer, self.events.clone()) {
            let shared = self.cpu.shared.clone();
            // The ports' lock is waited for outside the guest.
            let outside = shared.leave();
            events.send_virq(self.id, virq::TIMER);
            drop(outside);
            self.cpu.apply_purges();
        }
    }
}
