// SPDX-License-Identifier: Apache-2.0
//! Where the memory operands of random instructions point, and what is there.

use crate::generate::Generator;
use crate::state::*;
use crate::tables::*;
use iced_x86::{Code, Instruction, MemoryOperand, Mnemonic, OpKind, Register};

/// Makes `m` operand `op` of the instruction.
pub fn put_memory(insn: &mut Instruction, op: u32, m: MemoryOperand) {
    insn.set_op_kind(op, OpKind::Memory);
    insn.set_memory_base(m.base);
    insn.set_memory_index(m.index);
    insn.set_memory_index_scale(m.scale);
    insn.set_memory_displacement64(m.displacement as u64);
    insn.set_memory_displ_size(m.displ_size);
    insn.set_segment_prefix(m.segment_prefix);
}

impl Generator<'_> {
    /// An address at which `size` bytes are there, or not, or cross into something else.
    pub fn target(&mut self, size: u64) -> u64 {
        let size = size.max(1);
        if self.far_stack {
            // Around the edges of the hole, and in it.
            let edge = self.rng.pick(&[1u64 << 47, (1u64 << 47).wrapping_neg()]);
            return match self.rng.below(4) {
                0 => edge - 1 - self.rng.below(size + 8),
                1 => (1 << 47) + self.rng.below(64),
                _ => (1 << 47) + (self.rng.next() >> 18 & !15),
            };
        }
        let page = page_va(self.rng.pick(&[1, 1, 2, 5, 8, 8, 9]));
        match self.rng.below(100) {
            0..=49 => page + (self.rng.below(4096 - size.min(1024)) & !15),
            50..=69 => page + self.rng.below(4096 - size.min(1024)),
            70..=85 => {
                let edge = page_va(self.rng.pick(&[2, 2, 2, 9, 9, 1, 3, 5, 6, 7, 8]));
                edge - size + self.rng.below(size + 1)
            }
            86..=90 => page_va(self.rng.pick(&[4, 6])) + (self.rng.below(4096 - size.min(1024)) & !15),
            91..=95 => page_va(self.rng.pick(&[0, 3, 7, 11])) + self.rng.below(4096 - size.min(1024)),
            96 if self.bits == 32 => self.rng.pick(&[0xffff_f000, 0xffff_fff8, 0xffff_fffd, 0, 0x1000]),
            96 => self.rng.pick(&[
                0x8000_0001_0000,
                0xffff_7fff_fff0_0000,
                0x7fff_ffff_ffff_0000 + 0x8_0000_0000,
            ]),
            _ => page + (self.rng.below(4096 - size.min(1024)) & !7),
        }
    }

    pub fn fill(&mut self, va: u64, size: u64) {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            match self.rng.below(4) {
                0 => bytes.extend(self.rng.int().to_le_bytes()),
                1 => bytes.extend(self.rng.f64_bits().to_le_bytes()),
                2 => bytes.extend(self.rng.f32_bits().to_le_bytes()),
                _ => {
                    let i = self.rng.below(16) as usize;
                    let near = self.state.xmm(i);
                    bytes.extend(self.rng.vector(near).to_le_bytes());
                }
            }
        }
        bytes.truncate(size as usize);
        self.store(va, bytes);
    }

    /// Puts bytes where the pages are writable, and drops the rest.
    pub fn store(&mut self, va: u64, bytes: Vec<u8>) {
        for (i, page) in PAGES.iter().enumerate() {
            let (lo, hi) = (
                page_va(i).max(va),
                (page_va(i) + 4096).min(va.saturating_add(bytes.len() as u64)),
            );
            if *page == Page::Rw && lo < hi {
                self.memory
                    .push((lo, bytes[(lo - va) as usize..(hi - va) as usize].to_vec()));
            }
        }
    }

    fn registers(&self) -> u64 {
        u64::from(self.bits) / 4
    }

    pub fn free_register(&mut self) -> usize {
        for _ in 0..20 {
            let r = self.rng.below(self.registers()) as usize;
            if (self.used | self.reserved) & (1 << r) == 0 {
                return r;
            }
        }
        self.registers() as usize - 1
    }

    pub fn set(&mut self, r: usize, v: u64) {
        self.state.regs[r] = if self.bits == 32 { v & 0xffff_ffff } else { v };
        self.used |= 1 << r;
    }

    pub fn operand_gpr(&mut self) -> usize {
        let r = loop {
            let r = self.rng.below(self.registers()) as usize;
            if self.reserved & (1 << r) == 0 {
                break r;
            }
        };
        if self.rng.chance(85) {
            self.used |= 1 << r;
        }
        r
    }

    /// A memory operand that points at `va`.
    pub fn memory_operand(&mut self, va: u64) -> MemoryOperand {
        let low = va < 0x7000_0000;
        if self.far_stack {
            let base = self.rng.pick(&[RSP, RBP]);
            let gs = self.rng.chance(60);
            let at = va.wrapping_sub(if gs { GS_BASE } else { 0 });
            self.set(base, at.wrapping_sub(64));
            let prefix = if gs { Register::GS } else { Register::None };
            return MemoryOperand::new(GPR64[base], Register::None, 1, 64, 1, false, prefix);
        }
        if low && (self.fixed_addresses || self.rng.chance(4)) {
            return MemoryOperand::with_displ(va, 8);
        }
        if low && self.rng.chance(8) {
            return MemoryOperand::with_base_displ_size(Register::RIP, va as i64, 8);
        }
        let displ = match self.rng.below(4) {
            0 => 0,
            1 => self.rng.below(256) as i64 - 128,
            2 => self.rng.below(4096) as i64 - 2048,
            _ => self.rng.next() as i32 as i64 / 16,
        };
        let narrow = low && self.rng.chance(5);
        let name = |r: usize| if narrow { GPR32[r] } else { GPR64[r] };
        let dirt = if narrow { self.rng.next() << 32 } else { 0 };
        let keep = if narrow { 0xffff_ffff } else { u64::MAX };
        let segment = low && self.rng.chance(5);
        let va = if segment { va.wrapping_sub(GS_BASE) } else { va };
        let prefix = if segment { Register::GS } else { Register::None };
        let size = if displ == 0 {
            0
        } else if (-128..128).contains(&displ) {
            1
        } else if narrow {
            4
        } else {
            8
        };
        if segment && narrow {
            // The offset is cut to 32 bits before the base is added: only a positive one reaches its target.
            return MemoryOperand::with_displ(va.wrapping_add(GS_BASE), 8);
        }
        let base = self.free_register();
        if self.rng.chance(40) {
            let index = self.free_register();
            if index != base && index != RSP {
                let scale = self.rng.pick(&[1u32, 2, 4, 8]);
                let iv = if self.rng.chance(50) {
                    self.rng.below(512)
                } else {
                    (self.rng.next() as i16) as u64
                };
                let bv = va
                    .wrapping_sub(displ as u64)
                    .wrapping_sub(iv.wrapping_mul(u64::from(scale)));
                self.set(index, iv & keep | dirt);
                self.set(base, bv & keep | dirt);
                return MemoryOperand::new(name(base), name(index), scale, displ, size, false, prefix);
            }
        }
        self.set(base, va.wrapping_sub(displ as u64) & keep | dirt);
        MemoryOperand::new(name(base), Register::None, 1, displ, size, false, prefix)
    }

    /// The same in 32-bit code. What 16-bit addresses reach is not mapped: the fault shows the address.
    pub fn memory_operand_32(&mut self, va: u64, absolute: bool, aligned: bool) -> MemoryOperand {
        use Register as R;
        let none = R::None;
        if self.fixed_addresses || absolute || self.rng.chance(6) {
            return MemoryOperand::with_displ(va, 4);
        }
        if !aligned && self.rng.chance(3) {
            let base = self.rng.pick(&[R::BX, R::BP, none]);
            let index = self.rng.pick(&[R::SI, R::DI]);
            let displ = i64::from(self.rng.next() as i16);
            return MemoryOperand::new(base, index, 1, displ, 2, false, none);
        }
        let displ = match self.rng.below(5) {
            0 => 0,
            1 => self.rng.below(256) as i64 - 128,
            2 => self.rng.below(4096) as i64 - 2048,
            3 => self.rng.next() as u32 as i64,
            _ => self.rng.next() as i32 as i64 / 16,
        };
        let size = if displ == 0 {
            0
        } else if (-128..128).contains(&displ) {
            1
        } else {
            4
        };
        let base = self.free_register();
        let left = va.wrapping_sub(displ as u64);
        if self.rng.chance(40) {
            let index = self.free_register();
            if index != base && index != RSP {
                let scale = self.rng.pick(&[1u32, 2, 4, 8]);
                let iv = if self.rng.chance(50) {
                    self.rng.below(512)
                } else {
                    self.rng.next() & 0xffff_ffff
                };
                self.set(index, iv);
                self.set(
                    base,
                    left.wrapping_sub(iv.wrapping_mul(u64::from(scale))) & 0xffff_ffff,
                );
                return MemoryOperand::new(GPR32[base], GPR32[index], scale, displ, size, false, none);
            }
        }
        self.set(base, left & 0xffff_ffff);
        MemoryOperand::new(GPR32[base], none, 1, displ, size, false, none)
    }

    pub fn matching_accumulator(&mut self, code: Code, va: u64) {
        let (rax, rdx) = (self.state.regs[RAX], self.state.regs[RDX]);
        let bytes = match code.mnemonic() {
            Mnemonic::Cmpxchg8b => (rax & 0xffff_ffff | rdx << 32).to_le_bytes().to_vec(),
            Mnemonic::Cmpxchg16b => (u128::from(rax) | u128::from(rdx) << 64).to_le_bytes().to_vec(),
            _ => rax.to_le_bytes().to_vec(),
        };
        self.store(va, bytes);
    }

    /// Makes a control word or an fxsave image loadable, mostly.
    pub fn floating_image(&mut self, code: Code, va: u64) {
        let mut mxcsr = self.rng.next() as u32 & 0xffff;
        if self.rng.chance(5) {
            mxcsr |= 0x10000;
        }
        let at = if code.mnemonic() == Mnemonic::Ldmxcsr {
            va
        } else {
            va.wrapping_add(24)
        };
        self.store(at, mxcsr.to_le_bytes().to_vec());
    }
}
