// SPDX-License-Identifier: Apache-2.0
//! Whole cases of the oracle: one instruction, or a short stream of them.

use crate::generate::{Case, Generator};
use crate::rng::Rng;
use crate::state::*;
use crate::tables::*;
use iced_x86::{Code, Decoder, InstructionInfoFactory, Mnemonic, Register};

impl<'a> Generator<'a> {
    /// One instruction alone: the case the oracle sweeps all forms with.
    pub fn single(rng: &'a mut Rng, code: Code, bits: u32) -> Option<Case> {
        let mut g = Generator::new(rng, bits);
        let fetched = !matches!(code.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1);
        let start = if fetched && g.rng.chance(3) {
            CODE_VA + CODE_PAGES * 4096 - 1 - g.rng.below(12)
        } else {
            CODE_VA + 64 + g.rng.below(3000)
        };
        let (insn, bytes) = g.instruction(code, start)?;
        if insn.segment_prefix() == Register::None && g.rng.chance(10) {
            g.state.rflags |= AC;
        }
        let undefined = undefined_flags(&insn, &g.state);
        Some(Case {
            insns: vec![insn],
            bytes,
            start,
            state: g.state,
            memory: g.memory,
            undefined,
            segment: None,
        })
    }

    /// One instruction whose memory operand is not canonical and has a register of the stack as its base.
    pub fn far_stack(rng: &'a mut Rng, code: Code) -> Option<Case> {
        let mut g = Generator::new(rng, 64);
        g.far_stack = true;
        let start = CODE_VA + 64 + g.rng.below(3000);
        let (insn, bytes) = g.instruction(code, start)?;
        let undefined = undefined_flags(&insn, &g.state);
        Some(Case {
            insns: vec![insn],
            bytes,
            start,
            state: g.state,
            memory: g.memory,
            undefined,
            segment: None,
        })
    }

    /// A stream of `n` instructions without branches, at fixed addresses; with `rounds`, a loop around it. Half of them
    /// are `common` forms.
    pub fn sequence(
        rng: &'a mut Rng,
        bits: u32,
        [forms, common]: [&[Code]; 2],
        n: usize,
        rounds: u64,
    ) -> Option<Case> {
        let mut g = Generator::new(rng, bits);
        g.fixed_addresses = true;
        // All x87 exceptions masked, none pending.
        g.state.fx[0] |= 0x3f;
        g.state.fx[2] &= 0x7f;
        g.state.fx[3] &= 0x7f;
        if rounds > 0 {
            // r15, or ebp.
            let counter = if bits == 32 { RBP } else { 15 };
            g.reserved = 1 << counter;
        }
        let start = CODE_VA + 64 + g.rng.below(4096);
        let (mut insns, mut bytes, mut undefined, mut ever) = (Vec::new(), Vec::new(), 0u64, 0u64);
        let mut factory = InstructionInfoFactory::new();
        let mut tries = 0;
        while insns.len() < n && tries < 20 * n {
            tries += 1;
            let any = common.is_empty() || g.rng.chance(50);
            let code = g.rng.pick(if any { forms } else { common });
            let before = (g.state.clone(), g.memory.len());
            let Some((mut insn, b)) = g.instruction(code, start + bytes.len() as u64) else {
                g.memory.truncate(before.1);
                continue;
            };
            let info = factory.info(&insn);
            let read = flag_bits(insn.rflags_read());
            let address = info
                .used_memory()
                .iter()
                .any(|m| m.base() != Register::None || m.index() != Register::None);
            if read & undefined != 0 || address && (rounds > 0 || !insns.is_empty()) || is_branch(code) {
                g.memory.truncate(before.1);
                continue;
            }
            let by_count = insn.op_count() > 1 && insn.op_register(insn.op_count() - 1) == Register::CL;
            // Sometimes a conditional jump over it, if the flags of the jump are known.
            let skip = [0x70 | g.rng.below(16) as u8, b.len() as u8];
            let at = start + bytes.len() as u64;
            let jump = Decoder::with_ip(bits, &skip, at, crate::vendor::decoder_options()).decode();
            let skipped =
                !insns.is_empty() && g.rng.chance(25) && flag_bits(jump.rflags_read()) & undefined == 0;
            if skipped {
                insns.push(jump);
                bytes.extend(skip);
                insn.set_ip(jump.next_ip());
            }
            if !skipped && !by_count && !insn.has_rep_prefix() && !insn.has_repne_prefix() {
                undefined &= !flag_bits(insn.rflags_modified());
            }
            undefined |= flag_bits(insn.rflags_undefined());
            ever |= undefined;
            insns.push(insn);
            bytes.extend(b);
        }
        if rounds > 0 {
            // sub counter, 1; jne start
            g.set(if bits == 32 { RBP } else { 15 }, rounds);
            let from = bytes.len();
            if bits == 64 {
                bytes.push(0x49);
            }
            let modrm = if bits == 64 { 0xef } else { 0xed };
            bytes.extend([0x83, modrm, 1, 0x0f, 0x85]);
            let back = -(bytes.len() as i32 + 4);
            bytes.extend(back.to_le_bytes());
            let ip = start + from as u64;
            insns.extend(&mut Decoder::with_ip(
                bits,
                &bytes[from..],
                ip,
                crate::vendor::decoder_options(),
            ));
        }
        (!insns.is_empty()).then_some(Case {
            insns,
            bytes,
            start,
            state: g.state,
            memory: g.memory,
            undefined: ever,
            segment: None,
        })
    }
}
