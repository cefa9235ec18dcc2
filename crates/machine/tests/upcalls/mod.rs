// SPDX-License-Identifier: Apache-2.0
//! A vCPU that is called back for its events.

use domzero_machine::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS};
use domzero_machine::testing::{TestVm, CODE, DATA, STACK_TOP};
use domzero_machine::{Callback, CallbackKind, DomainEvents, Events, Vcpu};
use std::sync::Arc;

/// Where its event handler is.
pub const HANDLER: u64 = CODE + 0x800;
const INFO_VA: u64 = DATA + 0x3000;

/// vCPU 0 of a domain, in kernel mode at CODE; the domain's events; the machine address of its vcpu_info.
pub fn vcpu_with_events(mut vm: TestVm) -> (Vcpu, Arc<DomainEvents>, u64) {
    let info = vm.maddr(INFO_VA);
    let mut vcpu = Vcpu::with_cpu(vm.cpu, 0);
    vcpu.set_vcpu_info(info);
    let callback = Callback {
        cs: FLAT_KERNEL_CS,
        address: HANDLER,
        mask_events: true,
    };
    vcpu.set_callback(CallbackKind::Event, callback);
    vcpu.set_kernel_stack(FLAT_KERNEL_SS, STACK_TOP);
    let events = Arc::<Events>::default().add(vcpu.domain(), info, 1023, false);
    vcpu.set_events(events.clone());
    (vcpu, events, info)
}
