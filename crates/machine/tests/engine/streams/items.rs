// SPDX-License-Identifier: Apache-2.0
//! What programs consist of beside single instructions.

use super::emit::Builder;
use super::fill::{encode, is_writable_code, target};
use super::forms::Forms;
use super::place::{CODE_ALIAS, TABLE};
use crate::tables::*;
use domzero_machine::testing::RWX;
use iced_x86::{Code, Instruction, MemoryOperand, Register};

/// Instructions that a processor keeps to itself, and those that leave the guest.
#[rustfmt::skip]
const SYSTEM: [&[u8]; 38] = [
    &[0xf4], &[0xfa], &[0xfb], &[0x0f, 0x06], &[0x0f, 0x20, 0xc0], &[0x0f, 0x22, 0xd8], &[0x41, 0x0f, 0x20, 0xd4], &[0x0f, 0x21, 0xf8], &[0x0f, 0x32],
    &[0x0f, 0x30], &[0xec], &[0xee], &[0xe4, 0x10], &[0x6c], &[0xf3, 0x6e], &[0x0f, 0x01, 0x38], &[0x0f, 0x01, 0xf8], &[0x0f, 0x05],
    &[0x0f, 0x05], &[0x0f, 0x05], &[0x0f, 0x05], &[0xcd, 0x80], &[0xcc], &[0x48, 0xcf], &[0x0f, 0x09], &[0x0f, 0x01, 0xd0],
    &[0x8e, 0xd8], &[0x8c, 0xd8], &[0x8c, 0xc8], &[0x0f, 0x00, 0xc8], &[0x0f, 0x02, 0xc0], &[0xf1],
    &[0x0f, 0x0b], &[0x06], &[0x0f, 0x04], &[0xf0, 0x01, 0xc0], &[0xd6], &[0x0f, 0xff],
];
const DIVISIONS: [Code; 8] = [
    Code::Div_rm8,
    Code::Div_rm16,
    Code::Div_rm32,
    Code::Div_rm64,
    Code::Idiv_rm8,
    Code::Idiv_rm16,
    Code::Idiv_rm32,
    Code::Idiv_rm64,
];
/// Pushes and pops of registers and memory.
const STACK: [Code; 8] = [
    Code::Push_r64,
    Code::Push_rm64,
    Code::Push_r16,
    Code::Pushd_imm8,
    Code::Pushq_imm8,
    Code::Pop_r64,
    Code::Pop_rm64,
    Code::Pop_r64,
];

impl Builder<'_> {
    fn compare(&mut self) {
        const TESTS: [Code; 14] = [
            Code::Cmp_rm64_r64,
            Code::Cmp_r64_rm64,
            Code::Cmp_rm32_r32,
            Code::Cmp_rm32_imm8,
            Code::Cmp_rm64_imm8,
            Code::Cmp_rm8_imm8,
            Code::Cmp_r8_rm8,
            Code::Cmp_rm16_imm16,
            Code::Test_rm64_r64,
            Code::Test_rm32_r32,
            Code::Test_rm8_r8,
            Code::Test_rm8_imm8,
            Code::Cmp_rm64_imm32,
            Code::Test_rm32_imm32,
        ];
        if self.bits == 32 {
            return self.narrow_compare();
        }
        let code = self.rng.pick(&TESTS);
        self.form(code);
    }

    pub fn skip(&mut self, depth: u32) {
        if self.rng.chance(75) {
            self.compare();
        }
        let n = self.rng.below(5);
        let short = self.rng.chance(60);
        let condition = if self.rng.chance(6) {
            16
        } else {
            self.rng.below(16) as u8
        };
        let from = self.jump(condition, short);
        for _ in 0..n {
            self.item(depth + 1);
        }
        self.here(from, short);
    }

    pub fn repeat(&mut self, depth: u32) {
        // In functions others count.
        let counters: Vec<usize> = (0..self.registers())
            .filter(|&r| {
                !self.roles.is_pointer(r) && (self.roles.small | self.roles.reserved) & 1 << r == 0 && r > 2
            })
            .collect();
        let short = self.rng.chance(15) && self.free(2) && self.roles.small & 2 == 0;
        let r = if short || counters.is_empty() {
            RCX
        } else {
            self.rng.pick(&counters)
        };
        if r == RCX && !short {
            return;
        }
        let most = if depth == 0 { 60 } else { 9 };
        let n = 1 + self.rng.below(most);
        self.load(r, n);
        self.roles.reserved |= 1 << r;
        let top = self.ip();
        for _ in 0..1 + self.rng.below(7) {
            if short {
                self.simple();
            } else {
                self.item(depth + 1);
            }
        }
        let distance = top.wrapping_sub(self.ip() + 2) as i64;
        let how = match self.bits {
            64 => self.rng.below(4),
            _ => self.rng.pick(&[1, 3]),
        };
        match (how, i8::try_from(distance)) {
            (_, Ok(d)) if short => self.raw(&[0xe2, d as u8]),
            (0, _) => {
                self.put(Instruction::with2(Code::Sub_rm64_imm8, GPR64[r], 1));
                self.back(5, top);
            }
            (1, _) => {
                self.put(Instruction::with2(Code::Sub_rm32_imm8, GPR32[r], 1));
                self.back(0xf, top);
            }
            (2, _) => {
                self.put(Instruction::with1(Code::Dec_rm64, GPR64[r]));
                self.back(5, top);
            }
            _ => {
                self.put(Instruction::with1(Code::Dec_rm32, GPR32[r]));
                self.put(Instruction::with2(Code::Test_rm32_r32, GPR32[r], GPR32[r]));
                self.back(5, top);
            }
        }
        self.roles.reserved &= !(1 << r);
    }

    fn call(&mut self) {
        if self.functions.is_empty() {
            return self.simple();
        }
        let n = self.rng.below(self.functions.len() as u64);
        let to = self.functions[n as usize];
        let slot = TABLE + n * 8;
        match self.rng.below(8) {
            0 if self.free(1) => {
                self.load(RAX, to);
                self.put(Instruction::with1(Code::Call_rm64, Register::RAX));
            }
            1 => self.put(Instruction::with1(
                Code::Call_rm64,
                MemoryOperand::with_displ(slot, 8),
            )),
            2 => {
                let m = MemoryOperand::with_base_displ_size(Register::RIP, slot as i64, 8);
                self.put(Instruction::with1(Code::Call_rm64, m));
            }
            _ => self.put(Instruction::with_branch(Code::Call_rel32_64, to)),
        }
    }

    fn string(&mut self) {
        if !self.free(1 << RSI | 1 << RDI | 1 << RCX) {
            return self.simple();
        }
        let (count, code) = (
            match self.rng.below(12) {
                0 => 0,
                1..=8 => self.rng.below(40),
                9 | 10 => self.rng.below(400),
                _ => self.rng.below(5000),
            },
            self.rng.pick(&Forms::of(64).strings),
        );
        for r in [RSI, RDI] {
            let wild = self.rng.chance(30);
            let va = target(self.rng, 64, wild);
            self.load(r, va);
        }
        if self.rng.chance(20) {
            let m = MemoryOperand::with_base_displ(Register::RSI, self.rng.below(48) as i64 - 24);
            self.put(Instruction::with2(Code::Lea_r64_m, Register::RDI, m));
        }
        self.load(RCX, count);
        let back = self.rng.chance(12);
        if back {
            self.raw(&[0xfd]);
        }
        let mut bytes = Vec::new();
        match self.rng.below(5) {
            0 | 1 => bytes.push(0xf3),
            2 => bytes.push(0xf2),
            _ => {}
        }
        let mut insn = Instruction::default();
        insn.set_code(code);
        for (i, k) in code.op_code().op_kinds().iter().enumerate() {
            use iced_x86::{OpCodeOperandKind as K, OpKind as O};
            let i = i as u32;
            match k {
                K::seg_rSI => insn.set_op_kind(i, O::MemorySegRSI),
                K::es_rDI => insn.set_op_kind(i, O::MemoryESRDI),
                K::al => insn.set_op_register(i, Register::AL),
                K::ax => insn.set_op_register(i, Register::AX),
                K::eax => insn.set_op_register(i, Register::EAX),
                K::rax => insn.set_op_register(i, Register::RAX),
                _ => {}
            }
        }
        if let Some((_, b)) = encode(&insn, self.ip() + bytes.len() as u64, 64) {
            bytes.extend(b);
            self.raw(&bytes);
        }
        if back {
            self.raw(&[0xfc]);
        }
        self.restore_named([RSI, RDI, RCX]);
    }

    fn divide(&mut self) {
        if !self.free(1 << RAX | 1 << RDX) {
            return self.simple();
        }
        match self.rng.below(3) {
            0 => self.raw(&[0x31, 0xd2]),
            1 => self.raw(&[0x48, 0x99]),
            _ => self.raw(&[0x99]),
        }
        let code = self.rng.pick(&DIVISIONS);
        self.form(code);
        if self.roles.small & 1 << RDX != 0 {
            self.restore(RDX);
        }
    }

    fn stack(&mut self, depth: u32) {
        match self.rng.below(10) {
            0..=4 => {
                let code = self.rng.pick(&STACK[..4]);
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
                let n = self.rng.below(12) as i32 * 8;
                self.put(Instruction::with2(Code::Sub_rm64_imm8, Register::RSP, n));
                for _ in 0..self.rng.below(4) {
                    self.item(depth + 1);
                }
                self.put(Instruction::with2(Code::Add_rm64_imm8, Register::RSP, n));
            }
            6 => {
                // pushf, popf: now and then with all of rflags from memory.
                self.raw(&[0x9c]);
                if self.rng.chance(15) {
                    let bits = self
                        .rng
                        .pick(&[0x1u32, 0x8d5, 0x400, 0x100, 0x4_0000, 0x20_0000, 0x3000, 0x200]);
                    let m = MemoryOperand::with_base(Register::RSP);
                    self.put(Instruction::with2(Code::Xor_rm32_imm32, m, bits));
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
                // The address of the next instruction; and a return to it.
                self.raw(&[0xe8, 0, 0, 0, 0]);
                if self.rng.chance(50) {
                    self.raw(&[0x58]);
                } else {
                    let m = MemoryOperand::with_base(Register::RSP);
                    self.put(Instruction::with2(Code::Add_rm64_imm8, m, 6));
                    self.raw(&[0xc3]);
                }
            }
            _ => {
                let code = self.rng.pick(&STACK);
                self.form(code);
            }
        }
    }

    fn indirect(&mut self) {
        if !self.free(1) {
            return self.simple();
        }
        // lea rax, [rip + 2 + n]; jmp rax; n bytes of anything
        let n = self.rng.below(9) as u8;
        self.raw(&[0x48, 0x8d, 0x05, 2 + n, 0, 0, 0]);
        self.raw(&[0xff, 0xe0]);
        for _ in 0..n {
            self.bytes.push(self.rng.next() as u8);
        }
    }

    /// An instruction whose immediate operand stores replace.
    fn site(&mut self) {
        let r = loop {
            let r = self.rng.below(16) as usize;
            if !self.roles.is_pointer(r) && (self.roles.reserved | self.roles.small) & 1 << r == 0 {
                break r;
            }
        };
        let v = self.rng.int() as u32;
        let b = v.to_le_bytes();
        let rex = 0x40 | (r >> 3) as u8;
        if self.rng.chance(50) {
            self.raw(&[rex, 0xb8 | (r & 7) as u8, b[0], b[1], b[2], b[3]]);
        } else {
            let op = self.rng.below(8) as u8;
            self.raw(&[rex, 0x81, 0xc0 | op << 3 | (r & 7) as u8, b[0], b[1], b[2], b[3]]);
        }
        self.sites.push(self.ip() - 4);
    }

    /// A store into code behind it or before it.
    fn patch(&mut self) {
        if !is_writable_code(self.start) {
            return self.site();
        }
        let (opcode, n): (&[u8], u64) = self.rng.pick(&[
            (&[0xc6, 0x05][..], 1),
            (&[0xc7, 0x05][..], 4),
            (&[0x89, 0x15][..], 0),
            (&[0x88, 0x25][..], 0),
            (&[0xf0, 0x01, 0x15][..], 0),
        ]);
        let behind = !self.sites.is_empty() && self.rng.chance(50);
        if behind && self.rng.chance(30) {
            // Through another mapping.
            let s = self.rng.pick(&self.sites);
            let m = MemoryOperand::with_displ(s - RWX + CODE_ALIAS, 8);
            self.put(Instruction::with2(Code::Mov_rm32_r32, m, Register::EDX));
            return;
        }
        let mut bytes = opcode.to_vec();
        let at = self.bytes.len() + bytes.len();
        bytes.extend([0; 4]);
        for _ in 0..n {
            bytes.push(self.rng.next() as u8);
        }
        self.raw(&bytes);
        let end = self.ip();
        let site = if behind {
            self.rng.pick(&self.sites)
        } else {
            for _ in 0..self.rng.below(3) {
                self.simple();
            }
            self.site();
            self.sites[self.sites.len() - 1]
        };
        let offset = if n == 1 { self.rng.below(4) } else { 0 };
        let d = (site + offset).wrapping_sub(end) as i32;
        self.bytes[at..at + 4].copy_from_slice(&d.to_le_bytes());
    }

    fn exchange(&mut self) {
        if !self.free(1 << RAX | 1 << RDX) {
            return self.simple();
        }
        let va = target(self.rng, 16, false) & !15;
        let m = MemoryOperand::with_displ(va, 8);
        let fits = va < 1 << 31;
        if !fits {
            return self.simple();
        }
        match self.rng.below(3) {
            0 => {
                self.put(Instruction::with2(Code::Mov_r64_rm64, Register::RAX, m));
                self.put(Instruction::with2(
                    Code::Lea_r64_m,
                    Register::RDX,
                    MemoryOperand::with_base_displ(Register::RAX, 1),
                ));
                let mut insn =
                    Instruction::with2(Code::Cmpxchg_rm64_r64, m, Register::RDX).expect("operands that suit");
                insn.set_has_lock_prefix(self.rng.chance(70));
                self.put(Ok(insn));
            }
            1 => {
                self.put(Instruction::with2(Code::Mov_r64_rm64, Register::RAX, m));
                let high = MemoryOperand::with_displ(va + 8, 8);
                self.put(Instruction::with2(Code::Mov_r64_rm64, Register::RDX, high));
                self.put(Instruction::with1(Code::Cmpxchg16b_m128, m));
            }
            _ => {
                self.put(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, 1));
                self.put(Instruction::with2(Code::Xchg_rm32_r32, m, Register::EAX));
            }
        }
        if self.roles.small & 1 << RDX != 0 {
            self.restore(RDX);
        }
    }

    pub fn nothing(&mut self) {
        let n = self.rng.below(9);
        let nops: [&[u8]; 9] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0],
            &[0x0f, 0x1f, 0x40, 0],
            &[0x0f, 0x1f, 0x44, 0, 0],
            &[0x66, 0x0f, 0x1f, 0x44, 0, 0],
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
            &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            &[0xf3, 0x90],
        ];
        self.raw(nops[n as usize]);
        if matches!(n, 6 | 7) {
            self.nops.push(self.ip() - 4);
        }
    }

    pub fn item(&mut self, depth: u32) {
        if depth > 3 {
            return self.simple();
        }
        if self.calls && self.rng.chance(6) {
            return self.call_between();
        }
        if self.bits == 32 {
            return self.narrow_item(depth);
        }
        match self.rng.below(1000) {
            0..=639 => self.simple(),
            640..=759 => self.skip(depth),
            760..=819 => self.stack(depth),
            820..=859 => self.call(),
            860..=884 => self.string(),
            885..=924 => self.repeat(depth),
            925..=934 => self.divide(),
            935..=949 => self.patch(),
            950..=959 => self.site(),
            960..=969 => self.indirect(),
            970..=984 => self.exchange(),
            985..=990 => {
                let bytes = self.rng.pick(&SYSTEM);
                self.raw(bytes);
            }
            _ => {
                self.nothing();
            }
        }
    }

    pub fn main(&mut self) {
        let top = self.ip();
        self.restore_all();
        for _ in 0..8 + self.rng.below(30) {
            self.item(0);
        }
        self.back(16, top);
    }

    pub fn function(&mut self) {
        let frame = self.rng.chance(40);
        if frame {
            self.raw(&[0x55]);
            self.wide(&[0x83, 0xec, 0x20]);
        }
        for _ in 0..2 + self.rng.below(9) {
            self.item(1);
        }
        if frame {
            self.wide(&[0x83, 0xc4, 0x20]);
            self.raw(&[0x5d]);
        }
        if self.rng.chance(10) {
            self.raw(&[0xf3, 0xc3]);
        } else {
            self.raw(&[0xc3]);
        }
    }
}
