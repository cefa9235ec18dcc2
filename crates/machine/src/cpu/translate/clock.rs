// SPDX-License-Identifier: Apache-2.0
//! rdtsc and rdtscp: a call that needs few registers, where a callout would save all.
// The CPU is given by translated code.
#![allow(unsafe_code)]

use super::asm::{at, frame, GUEST_RCX, S1};
use super::emit::Emitter;
use crate::abi::x86::cr4;
use crate::cpu::model::Model;
use crate::cpu::Cpu;
use iced_x86::{Instruction, Mnemonic};
use std::mem::offset_of;

pub(super) fn reads_clock(i: &Instruction) -> bool {
    matches!(i.mnemonic(), Mnemonic::Rdtsc | Mnemonic::Rdtscp)
}

/// What `thunk::clock` is told.
#[repr(C)]
pub(super) struct Now {
    tsc: u64,
    /// Not zero: the instruction is for its handler.
    refused: u64,
}

/// The time stamp counter, unless the instruction faults.
///
/// # Safety
/// Called by `thunk::clock` only, for translated code of `cpu`: nobody changes it meanwhile.
pub(super) unsafe extern "C" fn now(cpu: *const Cpu) -> Now {
    // SAFETY: the contract above.
    let c = unsafe { &*cpu };
    Now {
        tsc: c.tsc(),
        refused: u64::from(c.model.cr4 & cr4::TSD != 0),
    }
}

impl Emitter<'_> {
    /// The block ends here, as it does for the handler.
    pub(super) fn clock(&mut self, i: &Instruction) -> Option<()> {
        let slow = self.asm.label();
        self.asm.call_mem(frame!(clock));
        self.asm.jmp_unless_zero(slow);
        if i.mnemonic() == Mnemonic::Rdtscp {
            let aux = offset_of!(Cpu, model) + offset_of!(Model, tsc_aux);
            self.asm.load(S1, frame!(cpu));
            self.asm.load32(GUEST_RCX, at(S1, aux as i64));
        }
        self.handler_stub(i, slow, true)?;
        self.go_to(i64::from(self.off) + i.len() as i64);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use crate::abi::x86::{cr4, gpr};
    use crate::cpu::engine::TranslatorOptions;
    use crate::cpu::fault::{PrivInsn, Trap};
    use crate::cpu::Stop;
    use crate::testing::{TestVm, CODE};

    const NOW: u64 = 0x1234_5678_9abc_def0;
    const ROUNDS: u64 = 50;

    /// A translating CPU at a loop that reads the time with carry set, and counts in rsi how often it still was: `before`, stc,
    /// rdtscp, adc rsi 0, dec rbp.
    fn looping(before: &[u8]) -> TestVm {
        let mut code = before.to_vec();
        code.extend([0xf9, 0x0f, 0x01, 0xf9, 0x48, 0x83, 0xd6, 0x00, 0x48, 0xff, 0xcd]);
        code.extend([0x75, (code.len() as u8 + 2).wrapping_neg()]); // jnz to the start
        code.extend([0x0f, 0x05]); // syscall
        let mut vm = TestVm::new(&code);
        let options = TranslatorOptions {
            threshold: 2,
            code_bytes: 1 << 20,
            ..TranslatorOptions::default()
        };
        vm.cpu.set_translator(Some(options)).expect("a translator");
        vm.machine.clock.advance_to(NOW);
        vm.cpu.model.tsc_aux = 0x8000_0007;
        vm.cpu.budget.left = 1 << 20;
        for (n, r) in vm.cpu.regs.iter_mut().enumerate() {
            *r = (n as u64) << 40 | 0x5a5a;
        }
        (vm.cpu.regs[gpr::RBP], vm.cpu.regs[gpr::RSI]) = (ROUNDS, 0);
        vm
    }

    fn reads_the_time(vm: &mut TestVm) {
        let before = vm.cpu.regs;
        assert_eq!(vm.cpu.run(), Stop::Trap(Trap::Syscall));
        let mut expected = before;
        expected[gpr::RAX] = NOW & 0xffff_ffff;
        expected[gpr::RDX] = NOW >> 32;
        expected[gpr::RCX] = vm.cpu.next_rip;
        expected[gpr::RBP] = 0;
        expected[gpr::RSI] = ROUNDS;
        expected[11] = vm.cpu.regs[11];
        assert_eq!(vm.cpu.regs, expected);
    }

    #[test]
    fn the_time_comes_in_two_registers_and_changes_no_others_and_no_flags() {
        let mut vm = looping(&[]);
        assert!(vm.machine.clock.is_virtual());
        reads_the_time(&mut vm);
    }

    #[test]
    fn it_is_read_while_vector_registers_are_the_guests() {
        // paddq xmm0, xmm1
        let mut vm = looping(&[0x66, 0x0f, 0xd4, 0xc1]);
        vm.cpu.fpu.xmm[1] = 3;
        reads_the_time(&mut vm);
        assert_eq!(vm.cpu.fpu.xmm[0], u128::from(3 * ROUNDS));
    }

    #[test]
    fn rdtscp_of_translated_code_brings_the_number_of_the_processor() {
        // mov edi, ecx
        let mut vm = looping(&[0x89, 0xcf]);
        assert_eq!(vm.cpu.run(), Stop::Trap(Trap::Syscall));
        assert_eq!(vm.cpu.regs[gpr::RDI], 0x8000_0007);
    }

    #[test]
    fn with_tsd_set_translated_code_reads_no_time() {
        let mut vm = looping(&[]);
        reads_the_time(&mut vm);
        let old = vm.cpu.model.cr4;
        vm.cpu.set_cr4(old | cr4::TSD);
        (vm.cpu.rip, vm.cpu.regs[gpr::RBP]) = (CODE, ROUNDS);
        let before = vm.cpu.regs;
        let insn = PrivInsn::Rdtsc { aux: true };
        assert_eq!(vm.cpu.run(), Stop::Trap(Trap::Priv { insn, len: 3 }));
        assert_eq!((vm.cpu.rip, vm.cpu.regs), (CODE + 1, before));
    }
}
