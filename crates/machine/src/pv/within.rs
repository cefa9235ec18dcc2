// SPDX-License-Identifier: Apache-2.0
//! The engine under a vCPU, and the way back up from translated code.
// The engine has the vCPU as an address.
#![allow(unsafe_code)]

use super::Vcpu;
use crate::cpu::run::Above;
use crate::cpu::{Cpu, Stop};
use crate::shared::InGuest;

impl Vcpu {
    /// Runs the engine. What traps in translated code, and leads into guest code again, is done without a return from here.
    pub(super) fn run_engine(&mut self, in_guest: &InGuest<'_>) -> Stop {
        let me: *mut Vcpu = self;
        let above = Above {
            layer: me.cast(),
            serve,
        };
        // SAFETY: `me` was a reference just now, and is not used otherwise before this returns: `serve` is called by translated
        // code alone, when the engine uses none of its references.
        let cpu: &mut Cpu = unsafe { &mut (*me).cpu };
        // What is run twice, to compare the engines, must come back before anything else has happened.
        cpu.chain.above = cpu.check.is_none().then_some(above);
        let stop = cpu.run_checked(in_guest);
        cpu.chain.above = None;
        stop
    }
}

/// # Safety
/// `layer` must be the vCPU whose `run_engine` is running, and nobody else may use a reference to it or to its CPU meanwhile.
unsafe fn serve(layer: *mut ()) -> bool {
    // SAFETY: the contract above.
    let vcpu = unsafe { &mut *layer.cast::<Vcpu>() };
    vcpu.trap_within()
}
