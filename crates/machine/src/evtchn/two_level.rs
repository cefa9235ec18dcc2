// SPDX-License-Identifier: Apache-2.0
//! The 2-level ABI: a pending and a mask bit per port in shared_info, a selector in each vcpu_info.

use super::vcpus::EventVcpu;
use crate::abi::evtchn::shared_info;
use crate::frames::Machine;

/// Where a domain sees its events until it chooses the FIFO ABI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TwoLevel {
    pending: u64,
    mask: u64,
    is_32bit: bool,
}

impl TwoLevel {
    /// `shared_info`: its machine address.
    pub(crate) fn new(shared_info: u64, is_32bit: bool) -> TwoLevel {
        TwoLevel {
            pending: shared_info + shared_info::EVTCHN_PENDING,
            mask: shared_info + shared_info::evtchn_mask(is_32bit),
            is_32bit,
        }
    }

    pub(crate) fn max_ports(&self) -> u32 {
        shared_info::ports(self.is_32bit)
    }

    /// Makes an event pending and, unless masked, tells the vCPU. True if it was not pending before.
    pub(crate) fn set_pending(&self, machine: &Machine, port: u32, vcpu: Option<&EventVcpu>) -> bool {
        if machine.change_bit(self.pending, port.into(), true) != Some(false) {
            return false;
        }
        if !machine.test_bit(self.mask, port.into()) {
            self.select(machine, port, vcpu);
        }
        true
    }

    fn select(&self, machine: &Machine, port: u32, vcpu: Option<&EventVcpu>) {
        let Some(vcpu) = vcpu else { return };
        let word = port >> shared_info::word_shift(self.is_32bit);
        if machine.change_bit(vcpu.pending_sel(self.is_32bit), word.into(), true) == Some(false) {
            vcpu.mark(machine);
        }
    }

    /// Nobody who gets the port next must see an old event.
    pub(crate) fn clear_pending(&self, machine: &Machine, port: u32) {
        machine.change_bit(self.pending, port.into(), false);
    }

    /// Clears the mask bit, and notifies if the event is pending.
    pub(crate) fn unmask(&self, machine: &Machine, port: u32, vcpu: Option<&EventVcpu>) {
        if machine.change_bit(self.mask, port.into(), false) == Some(true) && self.is_pending(machine, port) {
            self.select(machine, port, vcpu);
        }
    }

    pub(crate) fn is_pending(&self, machine: &Machine, port: u32) -> bool {
        machine.test_bit(self.pending, port.into())
    }
}
