// SPDX-License-Identifier: Apache-2.0
//! Which arithmetic flags an instruction reads, defines and leaves undefined: engines must agree on what is defined.

use crate::state::{ARITH, OF};
use crate::tables::{flag_bits, RCX};
use domzero_machine::Cpu;
use iced_x86::{Instruction, Mnemonic, OpKind};

#[derive(Clone, Copy, Default)]
pub struct Effect {
    pub read: u64,
    pub defined: u64,
    pub undefined: u64,
}

/// What `insn` does to the flags when `cpu` is about to execute it.
pub fn of(insn: &Instruction, cpu: &Cpu) -> Effect {
    use Mnemonic::*;
    let read = match insn.mnemonic() {
        // They put all flags where code sees them.
        Pushf | Pushfq | Syscall | Int | Int3 | Int1 => ARITH,
        _ => flag_bits(insn.rflags_read()) & ARITH,
    };
    let mut undefined = flag_bits(insn.rflags_undefined()) & ARITH;
    let written = flag_bits(insn.rflags_modified()) & ARITH;
    let nothing = Effect {
        read,
        ..Effect::default()
    };
    match insn.mnemonic() {
        Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd => {
            let last = insn.op_count() - 1;
            let count = if insn.op_kind(last) == OpKind::Immediate8 {
                insn.immediate8()
            } else {
                cpu.regs[RCX] as u8
            };
            let wide = insn.op0_register().size() == 8 || insn.memory_size().size() == 8;
            if count & if wide { 63 } else { 31 } == 0 {
                return nothing;
            }
            // Also when as often as makes no difference: nine times eight bits and the carry.
            if matches!(insn.mnemonic(), Rcl | Rcr) && count & 63 != 1 {
                undefined |= OF;
            }
        }
        _ if (insn.has_rep_prefix() || insn.has_repne_prefix()) && cpu.regs[RCX] == 0 => return nothing,
        _ => {}
    }
    Effect {
        read,
        defined: written & !undefined,
        undefined,
    }
}
