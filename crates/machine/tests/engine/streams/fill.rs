// SPDX-License-Identifier: Apache-2.0
//! Operands of random instructions: registers that translators treat specially more often than chance, and memory by every
//! form of address, mostly where something is mapped.

use super::narrow::{narrow_place, REGISTERS};
use super::place::{Region, CODE_ALIAS, DATA_REGIONS, EDGES, HIGH_DATA};
use crate::operands::put_memory;
use crate::rng::Rng;
use crate::tables::*;
use domzero_machine::testing::{DATA, RO, RWX, STACK_TOP};
use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, Instruction, InstructionInfoFactory, MemoryOperand, Mnemonic,
    OpAccess, OpCodeOperandKind as Kind, OpKind, Register,
};

/// What the registers of a stream are for.
#[derive(Clone)]
pub struct Roles {
    /// Where pointers point, mostly.
    pub home: [Option<u64>; 16],
    /// Small numbers, for indices.
    pub small: u16,
    /// Left alone for now: counters of loops.
    pub reserved: u16,
    pub fs: u64,
    pub gs: u64,
}

impl Roles {
    pub fn new(rng: &mut Rng, bits: u32) -> Roles {
        if bits == 32 {
            return Roles::narrow(rng);
        }
        let mut home = [None; 16];
        home[RSP] = Some(STACK_TOP - 0x2000 + rng.below(64) * 8);
        let wild_code = rng.chance(6);
        for _ in 0..5 {
            let r = rng.pick(&[3, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15]);
            home[r] = Some(somewhere(rng, wild_code));
        }
        let mut small = 0u16;
        while small.count_ones() < 2 {
            let r = rng.pick(&[1, 1, 12, 13, 14, 15, 2, 9, 11, 0]);
            if home[r].is_none() {
                small |= 1 << r;
            }
        }
        let fs = somewhere(rng, false);
        let gs = if rng.chance(70) {
            HIGH_DATA + 0x800
        } else {
            somewhere(rng, false)
        };
        Roles {
            home,
            small,
            reserved: 0,
            fs,
            gs,
        }
    }

    fn narrow(rng: &mut Rng) -> Roles {
        let mut home = [None; 16];
        home[RSP] = Some(STACK_TOP - 0x2000 + rng.below(64) * 8);
        for _ in 0..3 {
            let r = rng.pick(&[3, 5, 6, 7]);
            home[r] = Some(narrow_place(rng));
        }
        // Two at least for loops and for what is patched.
        let mut small = 0u16;
        while small == 0 {
            let r = rng.pick(&[1, 1, 2, 0]);
            small |= 1 << r;
        }
        Roles {
            home,
            small,
            reserved: 0,
            fs: narrow_place(rng),
            gs: narrow_place(rng),
        }
    }

    pub fn is_pointer(&self, r: usize) -> bool {
        self.home[r].is_some()
    }

    fn pointers(&self, mut fits: impl FnMut(u64) -> bool) -> Vec<usize> {
        (0..16).filter(|&r| self.home[r].is_some_and(&mut fits)).collect()
    }

    /// What a register is set to when it is set right.
    pub fn value(&self, r: usize, rng: &mut Rng) -> u64 {
        match self.home[r] {
            Some(va) => va,
            None if self.small & 1 << r != 0 => rng.below(200),
            None => rng.int(),
        }
    }
}

fn somewhere(rng: &mut Rng, code: bool) -> u64 {
    let n = if code { 7 } else { 6 };
    let Region { va, pages, .. } = DATA_REGIONS[rng.below(n) as usize];
    va + pages * 2048 + rng.below(32) * 8
}

/// An address for `size` bytes: in the middle of something, over an edge, or nowhere.
pub fn target(rng: &mut Rng, size: u64, wild: bool) -> u64 {
    let Region { va, pages, .. } = DATA_REGIONS[rng.pick(&[0usize, 0, 0, 0, 3, 3, 5, 5, 4, 1])];
    let inside = va + rng.below(pages * 4096 - size.min(2048));
    let over = |rng: &mut Rng, edge: u64| edge.wrapping_sub(size).wrapping_add(rng.below(size + 1));
    match rng.below(100) {
        0..=69 => inside & !15,
        70..=86 => inside,
        87..=92 => {
            let page = rng.pick(&[DATA, STACK_TOP - 0x3000, HIGH_DATA]) + 4096;
            over(rng, page)
        }
        93..=94 => RO + (rng.below(4096 - size.min(1024)) & !7),
        95 => over(rng, RO),
        96 if wild => {
            let edge = rng.pick(&[
                DATA,
                DATA + 4 * 4096,
                RO + 4096,
                STACK_TOP,
                HIGH_DATA + 3 * 4096,
                1 << 47,
            ]);
            over(rng, edge)
        }
        97 if wild => rng.pick(&EDGES).wrapping_add(4096 - size - rng.below(3) * 8),
        98 if wild => over(rng, 0),
        99 if wild => rng.pick(&[
            0x50_0000,
            0,
            0x8000_0000_1000,
            0xffff_7fff_ffff_fff8,
            CODE_ALIAS + 8,
        ]),
        _ => inside & !7,
    }
}

/// Fills in the operands of instructions.
pub struct Filler<'a> {
    /// The width of the code.
    pub bits: u32,
    pub rng: &'a mut Rng,
    pub roles: &'a Roles,
    pub factory: &'a mut InstructionInfoFactory,
}

impl Filler<'_> {
    /// A register: one of a stream's numbers, mostly, with those preferred that a translator keeps elsewhere.
    pub fn number(&mut self) -> usize {
        for _ in 0..12 {
            let r = if self.rng.chance(35) {
                self.rng.pick(&[1usize, 12, 13, 14, 15, 4, 5])
            } else {
                self.rng.below(16) as usize
            };
            let r = if self.bits == 32 { r % 8 } else { r };
            if self.roles.reserved & 1 << r != 0 {
                continue;
            }
            if !self.roles.is_pointer(r) || self.rng.chance(10) {
                return r;
            }
        }
        RAX
    }

    pub fn small(&mut self) -> usize {
        let all: Vec<usize> = (0..16).filter(|&r| self.roles.small & 1 << r != 0).collect();
        self.rng.pick(&all)
    }

    fn immediate(&mut self, insn: &mut Instruction, i: u32, kind: Kind, second: bool) {
        let v = self.rng.int();
        match kind {
            Kind::imm8 => {
                let v = if self.rng.chance(60) {
                    self.rng.below(36) as u8
                } else {
                    v as u8
                };
                if second {
                    insn.set_op_kind(i, OpKind::Immediate8_2nd);
                    insn.set_immediate8_2nd(v);
                } else {
                    insn.set_op_kind(i, OpKind::Immediate8);
                    insn.set_immediate8(v);
                }
            }
            Kind::imm8_const_1 => {
                insn.set_op_kind(i, OpKind::Immediate8);
                insn.set_immediate8(1);
            }
            Kind::imm8sex16 => {
                insn.set_op_kind(i, OpKind::Immediate8to16);
                insn.set_immediate8to16(v as i8 as i16);
            }
            Kind::imm8sex32 => {
                insn.set_op_kind(i, OpKind::Immediate8to32);
                insn.set_immediate8to32(i32::from(v as i8));
            }
            Kind::imm8sex64 => {
                insn.set_op_kind(i, OpKind::Immediate8to64);
                insn.set_immediate8to64(i64::from(v as i8));
            }
            Kind::imm16 => {
                insn.set_op_kind(i, OpKind::Immediate16);
                insn.set_immediate16(v as u16);
            }
            Kind::imm32 => {
                insn.set_op_kind(i, OpKind::Immediate32);
                insn.set_immediate32(v as u32);
            }
            Kind::imm32sex64 => {
                insn.set_op_kind(i, OpKind::Immediate32to64);
                insn.set_immediate32to64(i64::from(v as i32));
            }
            _ => {
                insn.set_op_kind(i, OpKind::Immediate64);
                insn.set_immediate64(v);
            }
        }
    }

    /// The form with operands, at `ip`; `None` when it has an operand that is not made here, or cannot be encoded.
    pub fn instruction(&mut self, code: Code, ip: u64) -> Option<(Instruction, Vec<u8>)> {
        let op = code.op_code();
        let mut insn = Instruction::default();
        insn.set_code(code);
        let kinds = op.op_kinds().to_vec();
        let mut memory = None;
        let mut high = 0;
        for (i, &kind) in kinds.iter().enumerate() {
            let i = i as u32;
            let may_be_memory = matches!(
                kind,
                Kind::r8_or_mem
                    | Kind::r16_or_mem
                    | Kind::r32_or_mem
                    | Kind::r64_or_mem
                    | Kind::mm_or_mem
                    | Kind::xmm_or_mem
                    | Kind::ymm_or_mem
            );
            if matches!(kind, Kind::mem | Kind::mem_mib | Kind::mem_offs)
                || may_be_memory && self.rng.chance(55)
            {
                insn.set_op_kind(i, OpKind::Memory);
                memory = Some((i, kind));
                continue;
            }
            let register = match kind {
                Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => {
                    let r = self.number();
                    if self.bits == 32 || r < 4 && self.rng.chance(35) {
                        // There are no others from the fifth on.
                        let r = r % 4;
                        if self.bits == 32 && self.rng.chance(65) {
                            insn.set_op_register(i, GPR8[r]);
                            continue;
                        }
                        high += 1;
                        GPR8H[r]
                    } else {
                        GPR8[r]
                    }
                }
                Kind::r16_or_mem | Kind::r16_reg | Kind::r16_rm | Kind::r16_opcode | Kind::r16_reg_mem => {
                    GPR16[self.number()]
                }
                Kind::r32_or_mem
                | Kind::r32_reg
                | Kind::r32_vvvv
                | Kind::r32_rm
                | Kind::r32_opcode
                | Kind::r32_reg_mem => GPR32[self.number()],
                Kind::r64_or_mem
                | Kind::r64_reg
                | Kind::r64_vvvv
                | Kind::r64_rm
                | Kind::r64_opcode
                | Kind::r64_reg_mem => GPR64[self.number()],
                Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_or_mem | Kind::xmm_vvvv | Kind::xmm_is4 => {
                    Register::XMM0 + self.vector()
                }
                Kind::ymm_reg | Kind::ymm_rm | Kind::ymm_or_mem | Kind::ymm_vvvv | Kind::ymm_is4 => {
                    Register::YMM0 + self.vector()
                }
                Kind::mm_reg | Kind::mm_rm | Kind::mm_or_mem => Register::MM0 + self.rng.below(8) as u32,
                Kind::al => Register::AL,
                Kind::cl => Register::CL,
                Kind::ax => Register::AX,
                Kind::dx => Register::DX,
                Kind::eax => Register::EAX,
                Kind::rax => Register::RAX,
                Kind::st0 => Register::ST0,
                Kind::sti_opcode => Register::ST0 + self.rng.below(8) as u32,
                Kind::imm8
                | Kind::imm8_const_1
                | Kind::imm8sex16
                | Kind::imm8sex32
                | Kind::imm8sex64
                | Kind::imm16
                | Kind::imm32
                | Kind::imm32sex64
                | Kind::imm64 => {
                    let second = i > 0 && matches!(kinds[i as usize - 1], Kind::imm8 | Kind::imm16);
                    self.immediate(&mut insn, i, kind, second);
                    continue;
                }
                _ => return None,
            };
            insn.set_op_register(i, register);
        }
        if let Some((i, kind)) = memory {
            let size = (insn.memory_size().size() as u64).max(1);
            let bits = matches!(
                code.mnemonic(),
                Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
            );
            if bits && insn.op1_kind() == OpKind::Register && self.rng.chance(95) {
                let r = self.small();
                let name = match insn.op1_register().size() {
                    2 => GPR16[r],
                    4 => GPR32[r],
                    _ => GPR64[r],
                };
                insn.set_op1_register(name);
            }
            let m = match self.bits {
                32 => self.narrow_operand(size, kind == Kind::mem_offs)?,
                _ => self.memory_operand(size, kind == Kind::mem_offs, high > 0)?,
            };
            put_memory(&mut insn, i, m);
            if op.can_use_lock_prefix() && i == 0 && self.rng.chance(25) {
                insn.set_has_lock_prefix(true);
            }
        }
        encode(&insn, ip, self.bits)
    }

    fn vector(&mut self) -> u32 {
        let registers = if self.bits == 32 { REGISTERS } else { 16 };
        self.rng.below(registers) as u32
    }

    /// Memory of `size` bytes, by any form of address.
    fn memory_operand(&mut self, size: u64, offset: bool, legacy: bool) -> Option<MemoryOperand> {
        let va = target(self.rng, size, true);
        let none = Register::None;
        if offset {
            return Some(MemoryOperand::with_displ(va, 8));
        }
        let fits = |to: u64, from: u64| i32::try_from(to.wrapping_sub(from) as i64).is_ok();
        let top = if legacy { 8 } else { 16 };
        let displ_size = |d: i64| match d {
            0 => 0,
            -128..=127 => 1,
            _ => 8,
        };
        match self.rng.below(100) {
            0..=5 => Some(MemoryOperand::with_base_displ_size(Register::RIP, va as i64, 8)),
            6..=8 => Some(MemoryOperand::with_displ(va, 8)),
            9..=13 => {
                // With a segment base, from a small register or alone.
                let (segment, base) = if self.rng.chance(70) {
                    (Register::GS, self.roles.gs)
                } else {
                    (Register::FS, self.roles.fs)
                };
                let displ = if fits(va, base) {
                    va.wrapping_sub(base) as i64
                } else {
                    self.rng.below(0x700) as i64
                };
                let r = self.small();
                let register = if r < top && self.rng.chance(50) {
                    GPR64[r]
                } else {
                    none
                };
                Some(MemoryOperand::new(register, none, 1, displ, 8, false, segment))
            }
            14..=17 => {
                // Addresses of 32 bits.
                let bases = self.roles.pointers(|h| h < 1 << 31);
                let base = self.rng.pick(&bases);
                let from = self.roles.home[base]?;
                if base >= top || va >= 1 << 31 {
                    return None;
                }
                let displ = i64::from(va.wrapping_sub(from) as i32);
                let i = self.small();
                let index = if i < top && self.rng.chance(30) {
                    GPR32[i]
                } else {
                    none
                };
                Some(MemoryOperand::new(GPR32[base], index, 1, displ, 4, false, none))
            }
            18..=20 => {
                let index = self.small();
                if index >= top || (1 << 31..0xffff_ffff_8000_0000).contains(&va) {
                    return None;
                }
                let scale = self.rng.pick(&[1u32, 2, 4, 8]);
                Some(MemoryOperand::new(
                    none,
                    GPR64[index],
                    scale,
                    va as i64,
                    8,
                    false,
                    none,
                ))
            }
            how => {
                let near = self.rng.chance(70);
                let (mut base, mut displ) = (RSP, self.rng.below(0x400) as i64 & !7);
                let all: Vec<usize> = self.roles.pointers(|_| true);
                for _ in 0..8 {
                    let r = if self.rng.chance(25) {
                        RSP
                    } else {
                        self.rng.pick(&all)
                    };
                    let home = self.roles.home[r]?;
                    if r >= top {
                        continue;
                    }
                    if near {
                        let d = self.rng.below(256) as i64 - 128;
                        let d = if self.rng.chance(70) { d & !7 } else { d };
                        (base, displ) = (r, if r == RSP { d.abs() } else { d });
                        break;
                    }
                    if fits(va, home) {
                        (base, displ) = (r, va.wrapping_sub(home) as i64);
                        break;
                    }
                }
                let i = self.small();
                let index = how > 75 && i < top;
                let scale = self.rng.pick(&[1u32, 2, 4, 8]);
                Some(if index {
                    MemoryOperand::new(
                        GPR64[base],
                        GPR64[i],
                        scale,
                        displ,
                        displ_size(displ),
                        false,
                        none,
                    )
                } else {
                    MemoryOperand::new(GPR64[base], none, 1, displ, displ_size(displ), false, none)
                })
            }
        }
    }

    /// The registers that an instruction writes, stack pointers by themselves excepted.
    pub fn written(&mut self, insn: &Instruction) -> u16 {
        let used = self.factory.info(insn).used_registers();
        used.iter()
            .filter(|u| {
                matches!(
                    u.access(),
                    OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
                )
            })
            .filter_map(|u| gpr(u.register()))
            .fold(0, |m, r| m | 1 << r)
    }
}

/// The bytes of an instruction, if they are read as the same one.
pub fn encode(insn: &Instruction, ip: u64, bits: u32) -> Option<(Instruction, Vec<u8>)> {
    let mut encoder = Encoder::new(bits);
    encoder.encode(insn, ip).ok()?;
    let code = encoder.take_buffer();
    let mut decoder = Decoder::with_ip(bits, &code, ip, DecoderOptions::AMD);
    let decoded = decoder.decode();
    (decoded.code() == insn.code() && decoded.len() == code.len()).then_some((decoded, code))
}

/// Whether code near `va` can be written.
pub fn is_writable_code(va: u64) -> bool {
    (RWX..RWX + 4 * 4096).contains(&va)
}
