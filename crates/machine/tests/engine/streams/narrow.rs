// SPDX-License-Identifier: Apache-2.0
//! Streams of 32-bit code in flat segments: what of them differs from 64-bit ones.

use super::emit::Builder;
use super::fill::{target, Filler};
use super::place::{CODE_ALIAS, DATA_ALIAS, DATA_REGIONS, EDGES, HIGH_DATA, TABLE};
use crate::rng::Rng;
use crate::tables::*;
use domzero_machine::testing::{DATA, RWX};
use iced_x86::{Code, Instruction, MemoryOperand, Register};

/// Registers that 32-bit code has.
pub const REGISTERS: u64 = 8;

/// The last page of 4 GiB.
pub const TOP: u64 = 0xffff_f000;

/// Where an address of 64-bit streams lies in 32-bit ones.
pub fn narrowed(va: u64) -> u64 {
    match va {
        _ if EDGES.contains(&(va & !0xfff)) => TOP | va & 0xfff,
        _ if va.wrapping_sub(HIGH_DATA) < 3 * 4096 => DATA + (va - HIGH_DATA),
        _ => va & 0xffff_ffff,
    }
}

/// An address for `size` bytes, also over the end of 4 GiB.
pub fn narrow_target(rng: &mut Rng, size: u64, wild: bool) -> u64 {
    if wild && rng.chance(2) {
        return 0u64.wrapping_sub(rng.below(size + 3)) & 0xffff_ffff;
    }
    narrowed(target(rng, size, wild))
}

/// Where a pointer of 32-bit streams points.
pub fn narrow_place(rng: &mut Rng) -> u64 {
    let region = DATA_REGIONS[rng.pick(&[0usize, 0, 1, 2, 3, 4])];
    region.va + region.pages * 2048 + rng.below(32) * 8
}

impl Filler<'_> {
    /// Memory of `size` bytes, by any form of address of 32 bits.
    pub fn narrow_operand(&mut self, size: u64, offset: bool) -> Option<MemoryOperand> {
        let va = narrow_target(self.rng, size, true);
        let none = Register::None;
        let absolute = |va: u64, segment| MemoryOperand::new(none, none, 1, va as i64, 4, false, segment);
        if offset {
            return Some(absolute(va, none));
        }
        let displ_size = |d: i64| match d {
            0 => 0,
            -128..=127 => 1,
            _ => 4,
        };
        let index = self.small();
        let scale = self.rng.pick(&[1u32, 2, 4, 8]);
        // As the decoder has them.
        let cut = |d: i64| i64::from(d as u32);
        match self.rng.below(100) {
            0..=9 => Some(absolute(va, none)),
            10..=16 => {
                let (segment, from) = match self.rng.chance(60) {
                    true => (Register::GS, self.roles.gs),
                    false => (Register::FS, self.roles.fs),
                };
                let displ = va.wrapping_sub(from) & 0xffff_ffff;
                let register = if self.rng.chance(50) { GPR32[index] } else { none };
                Some(MemoryOperand::new(
                    register,
                    none,
                    1,
                    displ as i64,
                    4,
                    false,
                    segment,
                ))
            }
            17 => Some(MemoryOperand::new(
                none,
                none,
                1,
                va as i64 & 0xffff,
                2,
                false,
                none,
            )),
            18 => {
                let segment = self.rng.pick(&[Register::CS, Register::SS, Register::ES]);
                Some(absolute(va, segment))
            }
            19..=26 => Some(MemoryOperand::new(
                none,
                GPR32[index],
                scale,
                va as i64,
                4,
                false,
                none,
            )),
            how => {
                let all: Vec<usize> = (0..8).filter(|&r| self.roles.is_pointer(r)).collect();
                let base = if self.rng.chance(25) {
                    RSP
                } else {
                    self.rng.pick(&all)
                };
                let home = self.roles.home[base]?;
                let displ = match self.rng.below(10) {
                    0..=7 => {
                        let d = self.rng.below(256) as i64 - 128;
                        let d = if self.rng.chance(70) { d & !7 } else { d };
                        if base == RSP {
                            d.abs()
                        } else {
                            d
                        }
                    }
                    _ => i64::from(va.wrapping_sub(home) as i32),
                };
                let size = displ_size(displ);
                Some(if how > 75 {
                    MemoryOperand::new(GPR32[base], GPR32[index], scale, cut(displ), size, false, none)
                } else {
                    MemoryOperand::new(GPR32[base], none, 1, cut(displ), size, false, none)
                })
            }
        }
    }
}

/// Instructions that are left to their handlers, change segments, or leave the guest.
#[rustfmt::skip]
const SYSTEM: [&[u8]; 30] = [
    &[0xf4], &[0xfa], &[0xfb], &[0x0f, 0x20, 0xc0], &[0x0f, 0x32], &[0xec], &[0x0f, 0x05], &[0xcd, 0x80], &[0xcd, 0x80], &[0x0f, 0x34],
    &[0xcc], &[0xcf], &[0x0f, 0x0b], &[0xce], &[0x62, 0x06], &[0x27], &[0x2f], &[0x37], &[0x3f], &[0xd4, 0x0a],
    &[0xd5, 0x0a], &[0xd6], &[0x8c, 0xd8], &[0x8e, 0xd8], &[0x8c, 0x1e], &[0x63, 0xc0], &[0x0f, 0x02, 0xc0], &[0xc4, 0x06],
    &[0xf0, 0x01, 0xc0], &[0x66, 0xe9, 0, 0],
];
const STACK: [Code; 8] = [
    Code::Push_r32,
    Code::Push_rm32,
    Code::Push_r16,
    Code::Pushd_imm8,
    Code::Pushd_imm32,
    Code::Pop_r32,
    Code::Pop_rm32,
    Code::Pop_r32,
];
const TESTS: [Code; 9] = [
    Code::Cmp_rm32_r32,
    Code::Cmp_r32_rm32,
    Code::Cmp_rm32_imm8,
    Code::Cmp_rm8_imm8,
    Code::Cmp_r8_rm8,
    Code::Cmp_rm16_imm16,
    Code::Test_rm32_r32,
    Code::Test_rm8_r8,
    Code::Test_rm32_imm32,
];
const DIVISIONS: [Code; 6] = [
    Code::Div_rm8,
    Code::Div_rm16,
    Code::Div_rm32,
    Code::Idiv_rm8,
    Code::Idiv_rm16,
    Code::Idiv_rm32,
];

impl Builder<'_> {
    pub fn narrow_compare(&mut self) {
        let code = self.rng.pick(&TESTS);
        self.form(code);
    }

    fn narrow_call(&mut self) {
        if self.functions.is_empty() {
            return self.simple();
        }
        let n = self.rng.below(self.functions.len() as u64);
        let to = self.functions[n as usize];
        match self.rng.below(8) {
            0 if self.free(1) => {
                self.load(RAX, to);
                self.put(Instruction::with1(Code::Call_rm32, Register::EAX));
            }
            1 | 2 => {
                let slot = MemoryOperand::with_displ(TABLE + n * 8, 4);
                self.put(Instruction::with1(Code::Call_rm32, slot));
            }
            _ => self.put(Instruction::with_branch(Code::Call_rel32_32, to)),
        }
    }

    fn narrow_string(&mut self) {
        if !self.free(1 << RSI | 1 << RDI | 1 << RCX) {
            return self.simple();
        }
        let count = match self.rng.below(12) {
            0 => 0,
            1..=8 => self.rng.below(40),
            9 | 10 => self.rng.below(400),
            _ => self.rng.below(5000),
        };
        for r in [RSI, RDI] {
            let wild = self.rng.chance(30);
            let va = narrow_target(self.rng, 64, wild);
            self.load(r, va);
        }
        self.load(RCX, count);
        let back = self.rng.chance(12);
        if back {
            self.raw(&[0xfd]);
        }
        let mut bytes = Vec::new();
        match self.rng.below(8) {
            0 | 1 => bytes.push(0xf3),
            2 => bytes.push(0xf2),
            // Segments, and addresses of 16 bits, which reach nothing.
            3 => bytes.extend([self.rng.pick(&[0x65u8, 0x64, 0x2e, 0x36, 0x67]), 0xf3]),
            _ => {}
        }
        if self.rng.chance(15) {
            bytes.push(0x66);
        }
        let element = [
            0xa4u8, 0xa5, 0xa5, 0xaa, 0xab, 0xab, 0xac, 0xad, 0xa6, 0xa7, 0xae, 0xaf,
        ];
        bytes.push(self.rng.pick(&element));
        self.raw(&bytes);
        if back {
            self.raw(&[0xfc]);
        }
        self.restore_named([RSI, RDI, RCX]);
    }

    fn narrow_divide(&mut self) {
        if !self.free(1 << RAX | 1 << RDX) {
            return self.simple();
        }
        match self.rng.chance(50) {
            true => self.raw(&[0x31, 0xd2]),
            false => self.raw(&[0x99]),
        }
        let code = self.rng.pick(&DIVISIONS);
        self.form(code);
        if self.roles.small & 1 << RDX != 0 {
            self.restore(RDX);
        }
    }

    fn narrow_stack(&mut self, depth: u32) {
        match self.rng.below(12) {
            0..=4 => {
                let code = self.rng.pick(&STACK[..5]);
                if !self.form(code) {
                    return;
                }
                for _ in 0..self.rng.below(4) {
                    self.item(depth + 1);
                }
                let code = self.rng.pick(&STACK[5..]);
                self.form(code);
            }
            5 => {
                let n = self.rng.below(12) as u8 * 4;
                self.raw(&[0x83, 0xec, n]);
                for _ in 0..self.rng.below(4) {
                    self.item(depth + 1);
                }
                self.raw(&[0x83, 0xc4, n]);
            }
            6 => {
                // pushf, popf: now and then with all of eflags from memory.
                self.raw(&[0x9c]);
                if self.rng.chance(15) {
                    let bits = self
                        .rng
                        .pick(&[0x1u32, 0x8d5, 0x400, 0x100, 0x4_0000, 0x20_0000, 0x3000, 0x200]);
                    let b = bits.to_le_bytes();
                    self.raw(&[0x81, 0x34, 0x24, b[0], b[1], b[2], b[3]]);
                }
                self.simple();
                self.raw(&[0x9d]);
            }
            7 if self.free(1 << RBP) => {
                let n = self.rng.below(64) as u8 & !7;
                self.raw(&[0xc8, n, 0, 0]);
                self.simple();
                self.raw(&[0xc9]);
                self.restore_named([RBP]);
            }
            8 if self.free(1) => {
                // The address of the next instruction; a return to it, near or far.
                match self.rng.below(4) {
                    0 => {
                        self.raw(&[0xe8, 0, 0, 0, 0]);
                        self.raw(&[0x58]);
                    }
                    1 => {
                        self.raw(&[0x0e]);
                        self.raw(&[0xe8, 0, 0, 0, 0]);
                        self.raw(&[0x83, 0x04, 0x24, 5]);
                        self.raw(&[0xcb]);
                    }
                    _ => {
                        self.raw(&[0xe8, 0, 0, 0, 0]);
                        self.raw(&[0x83, 0x04, 0x24, 5]);
                        self.raw(&[0xc3]);
                    }
                }
            }
            9 => {
                // All registers, and back.
                self.raw(&[0x60]);
                self.simple();
                self.raw(&[0x61]);
            }
            10 => {
                // A segment register, and back: ds, es, fs, gs.
                let (push, pop): (&[u8], &[u8]) = self.rng.pick(&[
                    (&[0x1e][..], &[0x1f][..]),
                    (&[0x06], &[0x07]),
                    (&[0x0f, 0xa0], &[0x0f, 0xa1]),
                    (&[0x0f, 0xa8], &[0x0f, 0xa9]),
                    (&[0x1e], &[0x07]),
                    (&[0x16], &[0x0f, 0xa9]),
                    (&[0x6a, 0], &[0x0f, 0xa1]),
                ]);
                self.raw(push);
                self.raw(pop);
            }
            _ => {
                let code = self.rng.pick(&STACK);
                self.form(code);
            }
        }
    }

    fn narrow_indirect(&mut self) {
        if !self.free(1) {
            return self.simple();
        }
        // mov eax, ...; jmp eax; n bytes of anything
        let n = self.rng.below(9);
        let to = self.ip() + 5 + 2 + n;
        let b = (to as u32).to_le_bytes();
        self.raw(&[0xb8, b[0], b[1], b[2], b[3]]);
        self.raw(&[0xff, 0xe0]);
        for _ in 0..n {
            self.bytes.push(self.rng.next() as u8);
        }
    }

    /// An instruction whose immediate operand stores replace.
    fn narrow_site(&mut self) {
        let free: Vec<usize> = (0..8)
            .filter(|&r| !self.roles.is_pointer(r) && (self.roles.reserved | self.roles.small) & 1 << r == 0)
            .collect();
        if free.is_empty() {
            return self.simple();
        }
        let r = self.rng.pick(&free) as u8;
        let b = (self.rng.int() as u32).to_le_bytes();
        if self.rng.chance(50) {
            self.raw(&[0xb8 | r, b[0], b[1], b[2], b[3]]);
        } else {
            let op = self.rng.below(8) as u8;
            self.raw(&[0x81, 0xc0 | op << 3 | r, b[0], b[1], b[2], b[3]]);
        }
        self.sites.push(self.ip() - 4);
    }

    /// A store into code before it, or a little behind it.
    fn narrow_patch(&mut self) {
        if !super::fill::is_writable_code(self.start) || self.sites.is_empty() {
            return self.narrow_site();
        }
        let s = self.rng.pick(&self.sites);
        let to = if self.rng.chance(30) {
            s - RWX + CODE_ALIAS
        } else {
            s
        };
        let m = MemoryOperand::with_displ(to, 4);
        let value = self.rng.int() as u32;
        match self.rng.below(3) {
            0 => self.put(Instruction::with2(Code::Mov_rm32_r32, m, Register::EDX)),
            1 => self.put(Instruction::with2(Code::Mov_rm8_r8, m, Register::AH)),
            _ => self.put(Instruction::with2(Code::Mov_rm32_imm32, m, value)),
        }
    }

    fn narrow_exchange(&mut self) {
        if !self.free(1 << RAX | 1 << RDX) {
            return self.simple();
        }
        let va = narrow_target(self.rng, 16, false) & !7;
        let m = MemoryOperand::with_displ(va, 4);
        match self.rng.below(3) {
            0 => {
                self.put(Instruction::with2(Code::Mov_r32_rm32, Register::EAX, m));
                let lock: &[u8] = if self.rng.chance(70) { &[0xf0] } else { &[] };
                let d = (va as u32).to_le_bytes();
                self.raw(&[lock, &[0x0f, 0xb1, 0x15], &d].concat());
            }
            1 => {
                self.put(Instruction::with2(Code::Mov_r32_rm32, Register::EAX, m));
                let high = MemoryOperand::with_displ(va + 4, 4);
                self.put(Instruction::with2(Code::Mov_r32_rm32, Register::EDX, high));
                self.put(Instruction::with1(Code::Cmpxchg8b_m64, m));
            }
            _ => self.put(Instruction::with2(Code::Xchg_rm32_r32, m, Register::EAX)),
        }
        if self.roles.small & 1 << RDX != 0 {
            self.restore(RDX);
        }
    }

    pub fn narrow_item(&mut self, depth: u32) {
        match self.rng.below(1000) {
            0..=639 => self.simple(),
            640..=759 => self.skip(depth),
            760..=839 => self.narrow_stack(depth),
            840..=869 => self.narrow_call(),
            870..=889 => self.narrow_string(),
            890..=929 => self.repeat(depth),
            930..=939 => self.narrow_divide(),
            940..=949 => self.narrow_patch(),
            950..=959 => self.narrow_site(),
            960..=969 => self.narrow_indirect(),
            970..=984 => self.narrow_exchange(),
            985..=989 => {
                let bytes = self.rng.pick(&SYSTEM);
                self.raw(bytes);
            }
            _ => self.nothing(),
        }
    }
}

/// What the second half of a page shows once more lies below 4 GiB, too.
const _: () = assert!(DATA_ALIAS < TOP && CODE_ALIAS < TOP);
