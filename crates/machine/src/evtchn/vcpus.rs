// SPDX-License-Identifier: Apache-2.0
//! What event channels know of a domain's vCPUs: where each one's `struct vcpu_info` is, and whom to wake.

use crate::abi::evtchn::shared_info;
use crate::abi::structs::vcpu_info;
use crate::frames::Machine;
use crate::shared::{attention, VcpuShared};
use std::sync::Arc;

pub(crate) struct EventVcpu {
    pub(crate) shared: Arc<VcpuShared>,
    /// Machine address of its `vcpu_info`: in shared_info at first, in a frame of the guest once it has registered one.
    pub(crate) info: u64,
}

impl EventVcpu {
    fn byte(&self, machine: &Machine, at: u64) -> u8 {
        let mut byte = [0];
        machine.mem.read(self.info + at, &mut byte);
        byte[0]
    }

    pub(crate) fn upcall_pending(&self, machine: &Machine) -> bool {
        self.byte(machine, vcpu_info::EVTCHN_UPCALL_PENDING) != 0
    }

    /// Whether the guest is to be entered at its event callback.
    pub(crate) fn upcall_is_due(&self, machine: &Machine) -> bool {
        self.upcall_pending(machine) && self.byte(machine, vcpu_info::EVTCHN_UPCALL_MASK) == 0
    }

    pub(crate) fn enable_upcalls(&self, machine: &Machine) {
        machine.mem.write(self.info + vcpu_info::EVTCHN_UPCALL_MASK, &[0]);
    }

    /// An event waits for it: it is told, and wakes.
    pub(crate) fn mark(&self, machine: &Machine) {
        machine
            .mem
            .write(self.info + vcpu_info::EVTCHN_UPCALL_PENDING, &[1]);
        self.shared.request(attention::EVENT);
        self.shared.sleep.unblock();
    }

    /// Where the selector of the 2-level ABI is.
    pub(crate) fn pending_sel(&self, is_32bit: bool) -> u64 {
        self.info + shared_info::evtchn_pending_sel(is_32bit)
    }

    /// VCPUOP_register_vcpu_info: it lives at `to` from now on, in a frame that is held. Every event counts as pending
    /// then, so that none gets lost.
    pub(crate) fn move_info(&mut self, machine: &Machine, to: u64, is_32bit: bool) {
        let mut bytes = [0; vcpu_info::SIZE as usize];
        machine.mem.read(self.info, &mut bytes);
        machine.mem.write(to, &bytes);
        self.info = to;
        let all = u64::MAX.to_le_bytes();
        let size = shared_info::evtchn_pending_sel(is_32bit) as usize; // an unsigned long, too
        machine
            .mem
            .write(self.pending_sel(is_32bit), all.get(..size).unwrap_or(&all));
        self.mark(machine);
    }
}
