// SPDX-License-Identifier: Apache-2.0
//! Operands at displacements from one register, with a call within the page between them: what is known of the first must not be taken for
//! known after the call has used the same registers of the host's.

use super::emit::Builder;
use crate::tables::*;
use iced_x86::{Code, Instruction, MemoryOperand};

impl Builder<'_> {
    /// A load or store near where the register points.
    fn near(&mut self, base: usize) {
        let d = self.rng.below(12) as i64 * 8;
        let (names, codes): (_, &[Code]) = match self.bits {
            64 => (
                &GPR64,
                &[Code::Mov_r64_rm64, Code::Add_r64_rm64, Code::Mov_rm64_r64],
            ),
            _ => (
                &GPR32,
                &[Code::Mov_r32_rm32, Code::Add_r32_rm32, Code::Mov_rm32_r32],
            ),
        };
        let m = MemoryOperand::new(
            names[base],
            Default::default(),
            1,
            d,
            u32::from(d != 0),
            false,
            Default::default(),
        );
        let r = self.rng.pick(&[RAX, RDX]);
        match self.rng.pick(codes) {
            store @ (Code::Mov_rm64_r64 | Code::Mov_rm32_r32) => {
                self.put(Instruction::with2(store, m, names[r]))
            }
            load => self.put(Instruction::with2(load, names[r], m)),
        }
    }

    /// Operands, a call of what lies right behind, more operands.
    pub fn call_between(&mut self) {
        let pointers: Vec<usize> = (0..self.registers())
            .filter(|&r| r != RSP && self.roles.is_pointer(r))
            .collect();
        if pointers.is_empty() || !self.free(1 << RAX | 1 << RDX) {
            return self.simple();
        }
        let base = self.rng.pick(&pointers);
        // Its function, with a jump over it. Nobody else calls it: a block goes on with what is no hotter than it is itself.
        let over = self.jump(16, true);
        let function = self.ip();
        for _ in 0..1 + self.rng.below(3) {
            self.near(base);
        }
        // Without a return the call's is the only operand on the stack, which belongs to no group.
        let drops = self.rng.chance(50).then(|| {
            let size = self.bits as u8 / 8;
            self.wide(&[0x83, 0xc4, size]);
            self.jump(16, true)
        });
        if drops.is_none() {
            self.raw(&[0xc3]);
        }
        self.here(over, true);
        for _ in 0..1 + self.rng.below(3) {
            self.near(base);
        }
        let distance = (function.wrapping_sub(self.ip() + 5) as i32).to_le_bytes();
        self.raw(&[&[0xe8], &distance[..]].concat());
        if let Some(from) = drops {
            self.here(from, true);
        }
        self.near(base);
        if self.roles.small & 1 << RDX != 0 {
            self.restore(RDX);
        }
        if self.roles.small & 1 << RAX != 0 {
            self.restore(RAX);
        }
    }
}
