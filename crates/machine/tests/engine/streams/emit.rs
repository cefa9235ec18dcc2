// SPDX-License-Identifier: Apache-2.0
//! Instructions are put behind each other; what they do to registers that have a meaning is undone after them, mostly.

use super::fill::{encode, Filler, Roles};
use super::forms::Forms;
use super::narrow::REGISTERS;
use crate::rng::Rng;
use crate::tables::*;
use iced_x86::{Code, Instruction, InstructionInfoFactory, MemoryOperand, Register};

/// A piece of a program.
pub struct Builder<'a> {
    /// The width of its code.
    pub bits: u32,
    /// Many calls between operands of one register.
    pub calls: bool,
    pub rng: &'a mut Rng,
    pub roles: Roles,
    pub factory: &'a mut InstructionInfoFactory,
    pub start: u64,
    pub bytes: Vec<u8>,
    pub insns: Vec<(u64, u8)>,
    pub sites: Vec<u64>,
    pub nops: Vec<u64>,
    pub functions: &'a [u64],
    /// Every other instruction is an x87 one.
    pub x87: bool,
}

impl Builder<'_> {
    pub fn ip(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.insns.push((self.ip(), bytes.len() as u8));
        self.bytes.extend_from_slice(bytes);
    }

    /// An instruction on registers as wide as addresses.
    pub fn wide(&mut self, bytes: &[u8]) {
        match self.bits {
            64 => self.raw(&[&[0x48], bytes].concat()),
            _ => self.raw(bytes),
        }
    }

    /// Registers that there are.
    pub fn registers(&self) -> usize {
        if self.bits == 32 {
            REGISTERS as usize
        } else {
            16
        }
    }

    pub fn put(&mut self, insn: Result<Instruction, iced_x86::IcedError>) {
        if let Some((_, bytes)) = encode(&insn.expect("operands that suit"), self.ip(), self.bits) {
            self.raw(&bytes);
        }
    }

    /// Sets a register right.
    pub fn restore(&mut self, r: usize) {
        let v = self.roles.value(r, self.rng);
        self.load(r, v);
    }

    pub fn load(&mut self, r: usize, v: u64) {
        if self.bits == 32 || v < 1 << 31 && self.rng.chance(60) {
            self.put(Instruction::with2(Code::Mov_r32_imm32, GPR32[r], v as u32));
        } else if v.wrapping_sub(self.ip()).wrapping_add(1 << 30) < 1 << 31 && self.rng.chance(50) {
            let m = MemoryOperand::with_base_displ_size(Register::RIP, v as i64, 8);
            self.put(Instruction::with2(Code::Lea_r64_m, GPR64[r], m));
        } else {
            self.put(Instruction::with2(Code::Mov_r64_imm64, GPR64[r], v));
        }
    }

    pub fn restore_all(&mut self) {
        self.restore_named(0..self.registers());
    }

    /// Sets those of some registers right that have a meaning.
    pub fn restore_named(&mut self, registers: impl IntoIterator<Item = usize>) {
        for r in registers {
            if self.roles.is_pointer(r) || self.roles.small & 1 << r != 0 {
                self.restore(r);
            }
        }
    }

    pub fn free(&self, registers: u16) -> bool {
        self.roles.reserved & registers == 0
    }

    /// An instruction of this form; what it does to registers with a meaning is undone after it, mostly.
    pub fn form(&mut self, code: Code) -> bool {
        for _ in 0..6 {
            let (ip, mut written) = (self.ip(), 0);
            let mut filler = Filler {
                bits: self.bits,
                rng: self.rng,
                roles: &self.roles,
                factory: self.factory,
            };
            let Some((insn, bytes)) = filler.instruction(code, ip) else {
                continue;
            };
            if !insn.is_stack_instruction() {
                written = filler.written(&insn);
            } else if insn.op_count() > 0 && insn.op0_register().full_register() != Register::RSP {
                written = filler.written(&insn) & !(1 << RSP);
            }
            let pointers = (0..16)
                .filter(|&r| self.roles.is_pointer(r))
                .fold(0, |m, r| m | 1 << r);
            if written & self.roles.reserved != 0 || written & pointers != 0 && self.rng.chance(85) {
                continue;
            }
            self.raw(&bytes);
            for r in 0..16 {
                if written & (pointers | self.roles.small) & 1 << r != 0 && self.rng.chance(90) {
                    self.restore(r);
                }
            }
            return true;
        }
        false
    }

    pub fn simple(&mut self) {
        let forms = Forms::of(self.bits);
        let code = if self.x87 && self.rng.chance(50) {
            forms.pick_x87(self.rng)
        } else {
            forms.pick(self.rng)
        };
        self.form(code);
    }

    /// A jump forwards on any condition (16: always), whose target is set with `here`.
    pub fn jump(&mut self, condition: u8, short: bool) -> usize {
        match (condition, short) {
            (16, true) => self.raw(&[0xeb, 0]),
            (16, false) => self.raw(&[0xe9, 0, 0, 0, 0]),
            (c, true) => self.raw(&[0x70 | c, 0]),
            (c, false) => self.raw(&[0x0f, 0x80 | c, 0, 0, 0, 0]),
        }
        self.bytes.len()
    }

    /// Where the jump that ended at `from` leads. One that is too short leads on to what follows it.
    pub fn here(&mut self, from: usize, short: bool) {
        let distance = self.bytes.len() - from;
        if short {
            self.bytes[from - 1] = i8::try_from(distance).unwrap_or(0) as u8;
        } else {
            self.bytes[from - 4..from].copy_from_slice(&(distance as i32).to_le_bytes());
        }
    }

    /// A jump back to `to`.
    pub fn back(&mut self, condition: u8, to: u64) {
        let distance = to.wrapping_sub(self.ip() + 2) as i64;
        if let Ok(d) = i8::try_from(distance) {
            self.raw(&[if condition == 16 { 0xeb } else { 0x70 | condition }, d as u8]);
            return;
        }
        let n = if condition == 16 { 5 } else { 6 };
        let d = (to.wrapping_sub(self.ip() + n) as i32).to_le_bytes();
        match condition {
            16 => self.raw(&[0xe9, d[0], d[1], d[2], d[3]]),
            c => self.raw(&[0x0f, 0x80 | c, d[0], d[1], d[2], d[3]]),
        }
    }
}
