// SPDX-License-Identifier: Apache-2.0
//! Random instructions of a given `Code`, with a state in which they do something.

use crate::operands::put_memory;
use crate::rng::Rng;
use crate::state::*;
use crate::tables::*;
use iced_x86::{Code, Decoder, Encoder, Instruction, Mnemonic, OpCodeOperandKind as Kind, OpKind, Register};

/// A run of instructions with everything that must be loaded before it.
#[derive(Clone)]
pub struct Case {
    pub insns: Vec<Instruction>,
    pub bytes: Vec<u8>,
    pub start: u64,
    pub state: State,
    pub memory: Vec<(u64, Vec<u8>)>,
    /// Arithmetic flags that the manuals leave undefined after it.
    pub undefined: u64,
    /// The one segment that is not flat.
    pub segment: Option<crate::intel::Segment>,
}

pub struct Generator<'a> {
    /// 64 or 32.
    pub bits: u32,
    pub rng: &'a mut Rng,
    pub state: State,
    pub memory: Vec<(u64, Vec<u8>)>,
    /// Registers that already have a meaning in this case.
    pub used: u16,
    /// In a sequence registers change on the way: addresses must not depend on them.
    pub fixed_addresses: bool,
    /// Registers that a sequence must leave alone.
    pub reserved: u16,
    /// Memory operands have rsp or rbp as their base, mostly the segment gs, and addresses that are not canonical.
    pub far_stack: bool,
}

impl<'a> Generator<'a> {
    pub fn new(rng: &'a mut Rng, bits: u32) -> Self {
        let mut state = State {
            bits,
            ..State::default()
        };
        for r in &mut state.regs {
            *r = rng.int();
        }
        if bits == 32 {
            state.regs[..8].iter_mut().for_each(|r| *r &= 0xffff_ffff);
        }
        state.rflags = 0x202 | rng.next() & ARITH | if rng.chance(30) { DF } else { 0 };
        let mut near = 0;
        for i in 0..16 {
            let v = rng.vector(near);
            state.set_xmm(i, v);
            near = if rng.chance(50) { v } else { state.xmm(0) };
            state.ymm[i] = rng.vector(near);
        }
        let mut mxcsr = 0x1f80;
        if rng.chance(60) {
            mxcsr |= rng.next() as u32 & 0xe07f;
        }
        if rng.chance(10) {
            mxcsr &= !(rng.next() as u32 & 0x1f80);
        }
        state.set_mxcsr(mxcsr & 0xffff);
        floating_state(rng, &mut state);
        Generator {
            bits,
            rng,
            state,
            memory: Vec::new(),
            used: 0,
            fixed_addresses: false,
            reserved: 0,
            far_stack: false,
        }
    }

    /// Values without which an instruction would hardly ever do its work.
    fn prepare(&mut self, code: Code) {
        use Mnemonic::*;
        match code.mnemonic() {
            Div | Idiv if self.rng.chance(70) => {
                let v = match self.rng.below(3) {
                    0 => 0,
                    1 => ((self.state.regs[RAX] as i64) >> 63) as u64,
                    _ => self.rng.below(1000),
                };
                self.set(RDX, v);
                if self.rng.chance(50) {
                    let small = self.rng.below(40000);
                    self.set(RAX, small);
                }
            }
            Movsb | Movsw | Movsd | Movsq | Stosb | Stosw | Stosd | Stosq | Lodsb | Lodsw | Lodsd | Lodsq
            | Cmpsb | Cmpsw | Cmpsd | Cmpsq | Scasb | Scasw | Scasd | Scasq
                if code.op_code().can_use_rep_prefix() || code.op_code().can_use_repne_prefix() =>
            {
                let n = if self.rng.chance(80) {
                    self.rng.below(24)
                } else {
                    self.rng.below(600)
                };
                self.set(RCX, n);
                let a = self.target(64);
                let b = if self.rng.chance(20) {
                    a.wrapping_add(self.rng.below(33)).wrapping_sub(16)
                } else {
                    self.target(64)
                };
                self.set(RSI, a);
                self.set(RDI, b);
                if self.rng.chance(40) {
                    self.store(a & !7, vec![7; 256]);
                    self.store(b & !7, vec![7; 256]);
                    self.set(RAX, 0x0707_0707_0707_0707);
                }
            }
            Cmpxchg8b | Cmpxchg16b | Cmpxchg => {
                self.used |= 1 << RAX | 1 << RDX | 1 << RBX | 1 << RCX;
            }
            Xlatb => {
                let t = self.target(256);
                self.set(RBX, t);
            }
            Maskmovdqu | Maskmovq | Vmaskmovdqu => {
                // What a masked-out byte does on a missing page is up to the maker.
                let t = page_va(self.rng.pick(&[1, 8])) + self.rng.below(8192 - 16);
                self.set(RDI, t);
            }
            Loop | Loope | Loopne | Jrcxz | Jecxz => {
                let n = self.rng.below(3);
                let dirt = if self.rng.chance(20) {
                    self.rng.next() << 32
                } else {
                    0
                };
                self.set(RCX, n | dirt);
            }
            _ => {}
        }
        let op = code.op_code();
        if op.is_instruction() && code_uses_stack(code) {
            let sp = self.target(64);
            self.set(RSP, sp);
            if code.mnemonic() == Leave || code.mnemonic() == Enter {
                let bp = self.target(64);
                self.set(RBP, bp);
            }
            match code.mnemonic() {
                // No TF, no AC: the host would trap on the way back. No NT, no ID: they would stay.
                Popf | Popfd | Popfq => {
                    let flags = self.rng.next() & !0x24_4100;
                    // What lies in the other pages may have them: only faulting addresses besides the first page.
                    let sp = if self.rng.chance(20) {
                        page_va(3) + 8
                    } else {
                        page_va(1) + self.rng.below(4080)
                    };
                    self.set(RSP, sp);
                    self.store(sp, flags.to_le_bytes().to_vec());
                }
                Ret => {
                    let to = CODE_VA + self.rng.below(48);
                    self.store(sp, to.to_le_bytes().to_vec());
                }
                _ => {}
            }
        }
    }

    /// One instruction at `ip`, or `None` when this combination cannot be encoded.
    pub fn instruction(&mut self, code: Code, ip: u64) -> Option<(Instruction, Vec<u8>)> {
        self.prepare(code);
        let op = code.op_code();
        let mut insn = Instruction::default();
        insn.set_code(code);
        let kinds: Vec<Kind> = op.op_kinds().to_vec();
        let mut memory_at = None;
        for (i, &kind) in kinds.iter().enumerate() {
            let i = i as u32;
            let mem = match kind {
                Kind::mem
                | Kind::mem_mib
                | Kind::sibmem
                | Kind::mem_offs
                | Kind::mem_vsib32x
                | Kind::mem_vsib32y
                | Kind::mem_vsib64x
                | Kind::mem_vsib64y => true,
                Kind::r8_or_mem
                | Kind::r16_or_mem
                | Kind::r32_or_mem
                | Kind::r64_or_mem
                | Kind::mm_or_mem
                | Kind::xmm_or_mem
                | Kind::ymm_or_mem => self.rng.chance(55),
                _ => false,
            };
            if mem {
                insn.set_op_kind(i, OpKind::Memory);
                memory_at = Some(i);
                continue;
            }
            match kind {
                Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => {
                    let r = self.operand_gpr();
                    let high = self.rng.chance(25);
                    let high = high || self.bits == 32 && r > 3;
                    insn.set_op_register(i, if high { GPR8H[r & 3] } else { GPR8[r] });
                }
                Kind::r16_or_mem | Kind::r16_reg | Kind::r16_rm | Kind::r16_opcode | Kind::r16_reg_mem => {
                    let r = self.operand_gpr();
                    insn.set_op_register(i, GPR16[r]);
                }
                Kind::r32_or_mem
                | Kind::r32_reg
                | Kind::r32_vvvv
                | Kind::r32_rm
                | Kind::r32_opcode
                | Kind::r32_reg_mem => {
                    let r = self.operand_gpr();
                    insn.set_op_register(i, GPR32[r]);
                    if self.bits == 32 && is_branch(code) {
                        let to = CODE_VA + self.rng.below(48);
                        self.set(r, to);
                    }
                }
                Kind::r64_or_mem
                | Kind::r64_reg
                | Kind::r64_vvvv
                | Kind::r64_rm
                | Kind::r64_opcode
                | Kind::r64_reg_mem => {
                    let r = self.operand_gpr();
                    insn.set_op_register(i, GPR64[r]);
                    if is_branch(code) {
                        let to = CODE_VA + self.rng.below(48);
                        self.set(r, to);
                    }
                }
                Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_or_mem | Kind::xmm_vvvv | Kind::xmm_is4 => {
                    insn.set_op_register(i, Register::XMM0 + self.vector_register())
                }
                Kind::ymm_reg | Kind::ymm_rm | Kind::ymm_or_mem | Kind::ymm_vvvv | Kind::ymm_is4 => {
                    insn.set_op_register(i, Register::YMM0 + self.vector_register())
                }
                Kind::mm_reg | Kind::mm_rm | Kind::mm_or_mem => {
                    insn.set_op_register(i, Register::MM0 + self.rng.below(8) as u32)
                }
                Kind::al => insn.set_op_register(i, Register::AL),
                Kind::cl => {
                    insn.set_op_register(i, Register::CL);
                    if !self.fixed_addresses && self.rng.chance(70) {
                        let n = self.rng.below(70);
                        self.set(RCX, n);
                    }
                }
                Kind::ax => insn.set_op_register(i, Register::AX),
                Kind::dx => insn.set_op_register(i, Register::DX),
                Kind::eax => insn.set_op_register(i, Register::EAX),
                Kind::rax => insn.set_op_register(i, Register::RAX),
                Kind::st0 => insn.set_op_register(i, Register::ST0),
                Kind::sti_opcode => insn.set_op_register(i, Register::ST0 + self.rng.below(8) as u32),
                Kind::imm8 => {
                    insn.set_op_kind(
                        i,
                        if i > 0 && kinds[(i - 1) as usize] == Kind::imm16 {
                            OpKind::Immediate8_2nd
                        } else {
                            OpKind::Immediate8
                        },
                    );
                    let v = if self.rng.chance(50) {
                        self.rng.int() as u8
                    } else {
                        self.rng.below(36) as u8
                    };
                    if insn.op_kind(i) == OpKind::Immediate8_2nd {
                        insn.set_immediate8_2nd(v % 4);
                    } else {
                        insn.set_immediate8(v);
                    }
                }
                Kind::imm8_const_1 => {
                    insn.set_op_kind(i, OpKind::Immediate8);
                    insn.set_immediate8(1);
                }
                Kind::imm8sex16 => {
                    insn.set_op_kind(i, OpKind::Immediate8to16);
                    insn.set_immediate8to16(self.rng.int() as i8 as i16);
                }
                Kind::imm8sex32 => {
                    insn.set_op_kind(i, OpKind::Immediate8to32);
                    insn.set_immediate8to32(i32::from(self.rng.int() as i8));
                }
                Kind::imm8sex64 => {
                    insn.set_op_kind(i, OpKind::Immediate8to64);
                    insn.set_immediate8to64(i64::from(self.rng.int() as i8));
                }
                Kind::imm16 => {
                    insn.set_op_kind(i, OpKind::Immediate16);
                    let v = self.rng.int() as u16;
                    insn.set_immediate16(if code_uses_stack(code) { v % 4096 } else { v });
                }
                Kind::imm32 => {
                    insn.set_op_kind(i, OpKind::Immediate32);
                    insn.set_immediate32(self.rng.int() as u32);
                }
                Kind::imm32sex64 => {
                    insn.set_op_kind(i, OpKind::Immediate32to64);
                    insn.set_immediate32to64(i64::from(self.rng.int() as i32));
                }
                Kind::imm64 => {
                    insn.set_op_kind(i, OpKind::Immediate64);
                    insn.set_immediate64(self.rng.int());
                }
                Kind::seg_rSI => insn.set_op_kind(
                    i,
                    if self.narrow_strings() {
                        OpKind::MemorySegESI
                    } else {
                        OpKind::MemorySegRSI
                    },
                ),
                Kind::es_rDI => insn.set_op_kind(
                    i,
                    if insn.op0_kind() == OpKind::MemorySegESI {
                        OpKind::MemoryESEDI
                    } else {
                        OpKind::MemoryESRDI
                    },
                ),
                Kind::seg_rDI if self.bits == 32 => insn.set_op_kind(i, OpKind::MemorySegEDI),
                Kind::seg_rDI => insn.set_op_kind(i, OpKind::MemorySegRDI),
                Kind::seg_rBX_al => {
                    insn.set_op_kind(i, OpKind::Memory);
                    insn.set_memory_base(if self.bits == 32 {
                        Register::EBX
                    } else {
                        Register::RBX
                    });
                    insn.set_memory_index(Register::AL);
                }
                Kind::br32_1 => {
                    insn.set_op_kind(i, OpKind::NearBranch32);
                    let to = if self.rng.chance(50) {
                        ip + 16 + self.rng.below(100)
                    } else {
                        ip - 1 - self.rng.below(60)
                    };
                    insn.set_near_branch32(to as u32);
                }
                Kind::br32_4 => {
                    insn.set_op_kind(i, OpKind::NearBranch32);
                    insn.set_near_branch32((CODE_VA + self.rng.below(48)) as u32);
                }
                Kind::br64_1 => {
                    insn.set_op_kind(i, OpKind::NearBranch64);
                    let to = if self.rng.chance(50) {
                        ip + 16 + self.rng.below(100)
                    } else {
                        ip - 1 - self.rng.below(60)
                    };
                    insn.set_near_branch64(to);
                }
                Kind::br64_4 => {
                    insn.set_op_kind(i, OpKind::NearBranch64);
                    insn.set_near_branch64(CODE_VA + self.rng.below(48));
                }
                _ => return None,
            }
        }
        // movs and cmps name their operands in different orders: both must be equally wide.
        if insn.op_count() == 2 {
            match (insn.op0_kind(), insn.op1_kind()) {
                (OpKind::MemoryESRDI, OpKind::MemorySegESI) => insn.set_op0_kind(OpKind::MemoryESEDI),
                (OpKind::MemorySegESI, OpKind::MemoryESRDI) => insn.set_op1_kind(OpKind::MemoryESEDI),
                _ => {}
            }
        }
        if let Some(i) = memory_at {
            let size = (insn.memory_size().size() as u64).max(1);
            let mut va = self.target(size);
            // Whether SHA instructions check the alignment depends on the maker of the CPU.
            if code.cpuid_features().contains(&iced_x86::CpuidFeature::SHA) {
                va &= !15;
            }
            if matches!(
                code.mnemonic(),
                Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
            ) && insn.op1_kind() == OpKind::Register
            {
                if let Some(r) = gpr(insn.op1_register()) {
                    let bit = self.rng.below(400).wrapping_sub(200);
                    if !self.fixed_addresses {
                        self.set(r, bit);
                    } else {
                        return None;
                    }
                }
            }
            if self.bits == 32 {
                va &= 0xffff_ffff;
            }
            self.fill(va, size);
            if is_branch(code) {
                let to = CODE_VA + self.rng.below(48);
                self.store(va, to.to_le_bytes().to_vec());
            }
            let m = match self.bits {
                32 => {
                    let aligned = code.cpuid_features().contains(&iced_x86::CpuidFeature::SHA);
                    self.memory_operand_32(va, kinds.contains(&Kind::mem_offs), aligned)
                }
                _ => self.memory_operand(va),
            };
            put_memory(&mut insn, i, m);
            if let Some(index) = vector_index(kinds[i as usize]) {
                if self.fixed_addresses || m.segment_prefix != Register::None {
                    return None;
                }
                self.indices(&mut insn, index, kinds[i as usize]);
            }
            if code.mnemonic() == Mnemonic::Fxrstor
                || code.mnemonic() == Mnemonic::Fxrstor64
                || code.mnemonic() == Mnemonic::Ldmxcsr
            {
                self.floating_image(code, va);
            }
            if matches!(
                code.mnemonic(),
                Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b | Mnemonic::Cmpxchg
            ) && self.rng.chance(60)
            {
                self.matching_accumulator(code, va);
            }
            if op.can_use_lock_prefix() && i == 0 && self.rng.chance(35) {
                insn.set_has_lock_prefix(true);
            }
        }
        if kinds.iter().any(|k| matches!(k, Kind::seg_rSI | Kind::es_rDI)) {
            if op.can_use_rep_prefix() && self.rng.chance(60) {
                insn.set_has_rep_prefix(true);
            }
            if op.can_use_repne_prefix() && self.rng.chance(30) {
                insn.set_has_rep_prefix(false);
                insn.set_has_repne_prefix(true);
            }
        }
        // Sometimes prefixes that change nothing: ignored segments, widths and repeats. (Before a branch
        // a 66 makes another instruction of it on AMD's processors, which far.rs has.)
        let mut bytes = Vec::new();
        while self.rng.chance(6) && bytes.len() < 3 {
            let all = [0x66, 0x2e, 0x3e, 0x26, 0xf2, 0xf3];
            let fixed = is_branch(code);
            let from = usize::from(fixed && crate::vendor::host_is_amd());
            bytes.push(self.rng.pick(if fixed { &all[from..4] } else { &all }));
        }
        let mut encoder = Encoder::new(self.bits);
        encoder.encode(&insn, ip + bytes.len() as u64).ok()?;
        bytes.extend(encoder.take_buffer());
        let mut decoder = Decoder::with_ip(self.bits, &bytes, ip, crate::vendor::decoder_options());
        let decoded = decoder.decode();
        (decoded.code() == code && decoded.len() == bytes.len()).then_some((decoded, bytes))
    }

    fn vector_register(&mut self) -> u32 {
        self.rng.below(u64::from(self.bits) / 4) as u32
    }

    /// An index register for a gather, with indices that mostly reach what is mapped.
    fn indices(&mut self, insn: &mut Instruction, first: Register, kind: Kind) {
        let n = self.vector_register();
        insn.set_memory_index(first + n);
        insn.set_memory_index_scale(self.rng.pick(&[1, 2, 4, 8]));
        if insn.memory_base() == Register::RIP {
            insn.set_memory_base(Register::None);
            insn.set_memory_displ_size(8);
        }
        let wide = matches!(kind, Kind::mem_vsib64x | Kind::mem_vsib64y);
        let mut bytes = [0; 32];
        for at in bytes.chunks_exact_mut(if wide { 8 } else { 4 }) {
            let v = match self.rng.below(20) {
                0 => 0x3000 + self.rng.below(0x100),
                1 => self.rng.below(0x1000).wrapping_neg(),
                2 => 0x1000 - self.rng.below(9),
                _ => self.rng.below(64).wrapping_sub(32),
            };
            at.copy_from_slice(&v.to_le_bytes()[..at.len()]);
        }
        self.state.set_xmm(
            n as usize,
            u128::from_le_bytes(bytes[..16].try_into().expect("half of it")),
        );
        self.state.ymm[n as usize] = u128::from_le_bytes(bytes[16..].try_into().expect("half of it"));
    }

    fn narrow_strings(&mut self) -> bool {
        self.bits == 32 || self.rng.chance(10)
    }
}

/// The first register of those that a gather's indices may lie in.
fn vector_index(kind: Kind) -> Option<Register> {
    match kind {
        Kind::mem_vsib32x | Kind::mem_vsib64x => Some(Register::XMM0),
        Kind::mem_vsib32y | Kind::mem_vsib64y => Some(Register::YMM0),
        _ => None,
    }
}

/// A random x87 state: usually all exceptions masked and most registers in use.
fn floating_state(rng: &mut Rng, state: &mut State) {
    let masks = if rng.chance(92) {
        0x3f
    } else {
        rng.next() as u16 & 0x3f
    };
    let precision = if rng.chance(75) {
        0x300
    } else {
        rng.pick(&[0u16, 0x200, 0x300])
    };
    let rounding = if rng.chance(50) {
        0
    } else {
        rng.next() as u16 & 0xc00
    };
    state.fx[0..2].copy_from_slice(&(0x40 | masks | precision | rounding).to_le_bytes());
    let raised = if rng.chance(30) {
        rng.next() as u16 & 0x7f
    } else {
        0
    };
    let raised = if rng.chance(95) {
        raised & (masks | 0x40)
    } else {
        raised
    };
    let pending = if raised & !masks & 0x3f != 0 { 0x8080 } else { 0 };
    let word = raised | pending | rng.next() as u16 & 0x7f00;
    state.fx[2..4].copy_from_slice(&word.to_le_bytes());
    state.fx[4] = if rng.chance(70) { 0xff } else { rng.next() as u8 };
    for i in 0..8 {
        let (m, se) = rng.f80();
        state.fx[32 + 16 * i..40 + 16 * i].copy_from_slice(&m.to_le_bytes());
        state.fx[40 + 16 * i..42 + 16 * i].copy_from_slice(&se.to_le_bytes());
    }
}
