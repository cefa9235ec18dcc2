//! Random instructions of a given `Code`, with a state in which they do something.

use crate::rng::Rng;
use crate::state::*;
use iced_x86::{
    Code, Encoder, Instruction, InstructionInfoFactory, MemoryOperand, Mnemonic, OpCodeOperandKind as Kind, OpKind, Register,
    RflagsBits,
};

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
}

pub const GPR64: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// iced's flag bits at their RFLAGS positions.
pub fn flag_bits(iced: u32) -> u64 {
    let pairs = [
        (RflagsBits::OF, OF),
        (RflagsBits::SF, SF),
        (RflagsBits::ZF, ZF),
        (RflagsBits::AF, AF),
        (RflagsBits::CF, CF),
        (RflagsBits::PF, PF),
        (RflagsBits::DF, DF),
    ];
    pairs.iter().filter(|(b, _)| iced & b != 0).fold(0, |m, (_, f)| m | f)
}

pub fn gpr(reg: Register) -> Option<usize> {
    let full = reg.full_register();
    GPR64.iter().position(|&r| r == full)
}

/// Instructions whose native outcome depends on the host's kernel or on things the guest does not share with it.
fn foreign(code: Code) -> bool {
    use Mnemonic::*;
    let op = code.op_code();
    if !op.mode64() || op.encoding() != iced_x86::EncodingKind::Legacy || op.is_instruction() && code == Code::INVALID {
        return true;
    }
    if matches!(
        code.mnemonic(),
        Syscall | Sysenter | Sysexit | Sysret | Int | Int1 | Into | Cpuid | Rdtsc | Rdtscp | Rdpid | Rdfsbase | Wrfsbase | Wrgsbase | Sgdt
            | Sidt | Sldt | Smsw | Str | Lar | Lsl | Verr | Verw | Xgetbv | Rdrand | Rdseed | Rdpmc | Iret | Iretd | Iretq | Retf
            | Rsm | Hlt | Monitor | Mwait | Xsave | Xsave64 | Xrstor | Xrstor64 | Lss | Lfs | Lgs | Clflush | Vmcall | Vmmcall | Vmgexit | Int3
            | Lgdt | Lidt | Lldt | Ltr | Lmsw | Invlpg | Swapgs | Rdpkru | Wrpkru | Clzero | Monitorx | Mwaitx
    ) {
        return true;
    }
    op.op_kinds().iter().any(|k| {
        matches!(
            k,
            Kind::farbr2_2
                | Kind::farbr4_2
                | Kind::br16_1
                | Kind::br16_2
                | Kind::brdisp_2
                | Kind::brdisp_4
                | Kind::seg_reg
                | Kind::es
                | Kind::cs
                | Kind::ss
                | Kind::ds
                | Kind::fs
                | Kind::gs
                | Kind::cr_reg
                | Kind::dr_reg
                | Kind::tr_reg
                | Kind::mem_offs
        )
    }) || matches!(
        code,
        Code::Jmp_rm16 | Code::Call_rm16 | Code::Retnw | Code::Retnw_imm16 | Code::Jmp_m1616 | Code::Jmp_m1632 | Code::Jmp_m1664
            | Code::Call_m1616 | Code::Call_m1632 | Code::Call_m1664 | Code::Jrcxz_rel8_16 | Code::Jecxz_rel8_16 | Code::Popfw
    ) || matches!(code.mnemonic(), Loop | Loope | Loopne) && op.op_kinds().contains(&Kind::br16_1)
}

/// All instruction forms the interpreter knows and the host can run for comparison.
pub fn forms(known: impl Fn(Code) -> bool) -> Vec<Code> {
    Code::values().filter(|&c| c.op_code().is_instruction() && !foreign(c) && known(c)).collect()
}

pub struct Generator<'a> {
    pub rng: &'a mut Rng,
    pub state: State,
    pub memory: Vec<(u64, Vec<u8>)>,
    /// Registers that already have a meaning in this case.
    used: u16,
    /// In a sequence registers change on the way: addresses must not depend on them.
    pub fixed_addresses: bool,
    /// Registers that a sequence must leave alone.
    pub reserved: u16,
}

impl<'a> Generator<'a> {
    pub fn new(rng: &'a mut Rng) -> Self {
        let mut state = State::default();
        for r in &mut state.regs {
            *r = rng.int();
        }
        state.rflags = 0x202 | rng.next() & ARITH | if rng.chance(30) { DF } else { 0 };
        let mut near = 0;
        for i in 0..16 {
            let v = rng.vector(near);
            state.set_xmm(i, v);
            near = if rng.chance(50) { v } else { state.xmm(0) };
        }
        let mut mxcsr = 0x1f80;
        if rng.chance(60) {
            mxcsr |= rng.next() as u32 & 0xe07f;
        }
        if rng.chance(10) {
            mxcsr &= !(rng.next() as u32 & 0x1f80);
        }
        state.set_mxcsr(mxcsr & 0xffff);
        Generator { rng, state, memory: Vec::new(), used: 0, fixed_addresses: false, reserved: 0 }
    }

    /// An address at which `size` bytes are there, or not, or cross into something else.
    pub fn target(&mut self, size: u64) -> u64 {
        let size = size.max(1);
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
            96 => self.rng.pick(&[0x8000_0000_0000, 0xffff_7fff_ffff_fff8, 0x7fff_ffff_ffff_0000 + 0x8_0000_0000]),
            _ => page + (self.rng.below(4096 - size.min(1024)) & !7),
        }
    }

    fn fill(&mut self, va: u64, size: u64) {
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
    fn store(&mut self, va: u64, bytes: Vec<u8>) {
        for (i, page) in PAGES.iter().enumerate() {
            let (lo, hi) = (page_va(i).max(va), (page_va(i) + 4096).min(va.saturating_add(bytes.len() as u64)));
            if *page == Page::Rw && lo < hi {
                self.memory.push((lo, bytes[(lo - va) as usize..(hi - va) as usize].to_vec()));
            }
        }
    }

    fn free_register(&mut self) -> usize {
        for _ in 0..20 {
            let r = self.rng.below(16) as usize;
            if (self.used | self.reserved) & (1 << r) == 0 {
                return r;
            }
        }
        15
    }

    pub fn set(&mut self, r: usize, v: u64) {
        self.state.regs[r] = v;
        self.used |= 1 << r;
    }

    fn operand_gpr(&mut self) -> usize {
        let r = loop {
            let r = self.rng.below(16) as usize;
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
    fn memory_operand(&mut self, va: u64) -> MemoryOperand {
        let low = va < 0x7000_0000;
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
        let size = if displ == 0 { 0 } else if (-128..128).contains(&displ) { 1 } else if narrow { 4 } else { 8 };
        if segment && narrow {
            // The offset is cut to 32 bits before the base is added: only a positive one reaches its target.
            return MemoryOperand::with_displ(va.wrapping_add(GS_BASE), 8);
        }
        let base = self.free_register();
        if self.rng.chance(40) {
            let index = self.free_register();
            if index != base && index != RSP {
                let scale = self.rng.pick(&[1u32, 2, 4, 8]);
                let iv = if self.rng.chance(50) { self.rng.below(512) } else { (self.rng.next() as i16) as u64 };
                let bv = va.wrapping_sub(displ as u64).wrapping_sub(iv.wrapping_mul(u64::from(scale)));
                self.set(index, iv & keep | dirt);
                self.set(base, bv & keep | dirt);
                return MemoryOperand::new(name(base), name(index), scale, displ, size, false, prefix);
            }
        }
        self.set(base, va.wrapping_sub(displ as u64) & keep | dirt);
        MemoryOperand::new(name(base), Register::None, 1, displ, size, false, prefix)
    }

    fn put_memory(&mut self, insn: &mut Instruction, op: u32, m: MemoryOperand) {
        insn.set_op_kind(op, OpKind::Memory);
        insn.set_memory_base(m.base);
        insn.set_memory_index(m.index);
        insn.set_memory_index_scale(m.scale);
        insn.set_memory_displacement64(m.displacement as u64);
        insn.set_memory_displ_size(m.displ_size);
        insn.set_segment_prefix(m.segment_prefix);
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
            Movsb | Movsw | Movsd | Movsq | Stosb | Stosw | Stosd | Stosq | Lodsb | Lodsw | Lodsd | Lodsq | Cmpsb | Cmpsw | Cmpsd
            | Cmpsq | Scasb | Scasw | Scasd | Scasq
                if code.op_code().can_use_rep_prefix() || code.op_code().can_use_repne_prefix() =>
            {
                let n = if self.rng.chance(80) { self.rng.below(24) } else { self.rng.below(600) };
                self.set(RCX, n);
                let a = self.target(64);
                let b = if self.rng.chance(20) { a.wrapping_add(self.rng.below(33)).wrapping_sub(16) } else { self.target(64) };
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
            Maskmovdqu | Maskmovq => {
                let t = self.target(16);
                self.set(RDI, t);
            }
            Loop | Loope | Loopne | Jrcxz | Jecxz => {
                let n = self.rng.below(3);
                let dirt = if self.rng.chance(20) { self.rng.next() << 32 } else { 0 };
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
                // No TF, no AC: the host would trap on the way back.
                Popf | Popfd | Popfq => {
                    let flags = self.rng.next() & !0x4_0100;
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
                Kind::mem | Kind::mem_mib | Kind::sibmem => true,
                Kind::r8_or_mem | Kind::r16_or_mem | Kind::r32_or_mem | Kind::r64_or_mem | Kind::mm_or_mem | Kind::xmm_or_mem => self.rng.chance(55),
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
                    insn.set_op_register(i, if high { GPR8H[r & 3] } else { GPR8[r] });
                }
                Kind::r16_or_mem | Kind::r16_reg | Kind::r16_rm | Kind::r16_opcode | Kind::r16_reg_mem => {
                    let r = self.operand_gpr();
                    insn.set_op_register(i, GPR16[r]);
                }
                Kind::r32_or_mem | Kind::r32_reg | Kind::r32_rm | Kind::r32_opcode | Kind::r32_reg_mem => {
                    let r = self.operand_gpr();
                    insn.set_op_register(i, GPR32[r]);
                }
                Kind::r64_or_mem | Kind::r64_reg | Kind::r64_rm | Kind::r64_opcode | Kind::r64_reg_mem => {
                    let r = self.operand_gpr();
                    insn.set_op_register(i, GPR64[r]);
                    if is_branch(code) {
                        let to = CODE_VA + self.rng.below(48);
                        self.set(r, to);
                    }
                }
                Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_or_mem => insn.set_op_register(i, Register::XMM0 + self.rng.below(16) as u32),
                Kind::mm_reg | Kind::mm_rm | Kind::mm_or_mem => insn.set_op_register(i, Register::MM0 + self.rng.below(8) as u32),
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
                    insn.set_op_kind(i, if i > 0 && kinds[(i - 1) as usize] == Kind::imm16 { OpKind::Immediate8_2nd } else { OpKind::Immediate8 });
                    let v = if self.rng.chance(50) { self.rng.int() as u8 } else { self.rng.below(36) as u8 };
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
                Kind::seg_rSI => insn.set_op_kind(i, if self.narrow_strings() { OpKind::MemorySegESI } else { OpKind::MemorySegRSI }),
                Kind::es_rDI => insn.set_op_kind(i, if insn.op0_kind() == OpKind::MemorySegESI { OpKind::MemoryESEDI } else { OpKind::MemoryESRDI }),
                Kind::seg_rDI => insn.set_op_kind(i, OpKind::MemorySegRDI),
                Kind::seg_rBX_al => {
                    insn.set_op_kind(i, OpKind::Memory);
                    insn.set_memory_base(Register::RBX);
                    insn.set_memory_index(Register::AL);
                }
                Kind::br64_1 => {
                    insn.set_op_kind(i, OpKind::NearBranch64);
                    let to = if self.rng.chance(50) { ip + 16 + self.rng.below(100) } else { ip - 1 - self.rng.below(60) };
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
            let va = self.target(size);
            if matches!(code.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc) && insn.op1_kind() == OpKind::Register {
                if let Some(r) = gpr(insn.op1_register()) {
                    let bit = self.rng.below(400).wrapping_sub(200);
                    if !self.fixed_addresses {
                        self.set(r, bit);
                    } else {
                        return None;
                    }
                }
            }
            self.fill(va, size);
            if is_branch(code) {
                let to = CODE_VA + self.rng.below(48);
                self.store(va, to.to_le_bytes().to_vec());
            }
            let m = self.memory_operand(va);
            self.put_memory(&mut insn, i, m);
            if code.mnemonic() == Mnemonic::Fxrstor || code.mnemonic() == Mnemonic::Fxrstor64 || code.mnemonic() == Mnemonic::Ldmxcsr {
                self.floating_image(code, va);
            }
            if matches!(code.mnemonic(), Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b | Mnemonic::Cmpxchg) && self.rng.chance(60) {
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
        let mut encoder = Encoder::new(64);
        let len = encoder.encode(&insn, ip).ok()?;
        let bytes = encoder.take_buffer();
        debug_assert_eq!(len, bytes.len());
        let mut decoder = iced_x86::Decoder::with_ip(64, &bytes, ip, iced_x86::DecoderOptions::NONE);
        let decoded = decoder.decode();
        (decoded.code() == code && decoded.len() == bytes.len()).then_some((decoded, bytes))
    }

    fn narrow_strings(&mut self) -> bool {
        self.rng.chance(10)
    }

    fn matching_accumulator(&mut self, code: Code, va: u64) {
        let (rax, rdx) = (self.state.regs[RAX], self.state.regs[RDX]);
        let bytes = match code.mnemonic() {
            Mnemonic::Cmpxchg8b => (rax & 0xffff_ffff | rdx << 32).to_le_bytes().to_vec(),
            Mnemonic::Cmpxchg16b => (u128::from(rax) | u128::from(rdx) << 64).to_le_bytes().to_vec(),
            _ => rax.to_le_bytes().to_vec(),
        };
        self.store(va, bytes);
    }

    /// Makes a control word or an fxsave image loadable, mostly.
    fn floating_image(&mut self, code: Code, va: u64) {
        let mut mxcsr = self.rng.next() as u32 & 0xffff;
        if self.rng.chance(5) {
            mxcsr |= 0x10000;
        }
        let at = if code.mnemonic() == Mnemonic::Ldmxcsr { va } else { va.wrapping_add(24) };
        self.store(at, mxcsr.to_le_bytes().to_vec());
    }

    /// One instruction alone: the case the oracle sweeps all forms with.
    pub fn single(rng: &'a mut Rng, code: Code) -> Option<Case> {
        let mut g = Generator::new(rng);
        let start = if g.rng.chance(3) { CODE_VA + CODE_PAGES * 4096 - 1 - g.rng.below(12) } else { CODE_VA + 64 + g.rng.below(3000) };
        let (insn, bytes) = g.instruction(code, start)?;
        let undefined = undefined_flags(&insn, &g.state);
        Some(Case { insns: vec![insn], bytes, start, state: g.state, memory: g.memory, undefined })
    }

    /// A stream of `n` instructions without branches, at fixed addresses.
    pub fn sequence(rng: &'a mut Rng, forms: &[Code], n: usize) -> Option<Case> {
        let mut g = Generator::new(rng);
        g.fixed_addresses = true;
        let start = CODE_VA + 64 + g.rng.below(4096);
        let (mut insns, mut bytes, mut undefined, mut ever) = (Vec::new(), Vec::new(), 0u64, 0u64);
        let mut factory = InstructionInfoFactory::new();
        let mut tries = 0;
        while insns.len() < n && tries < 20 * n {
            tries += 1;
            let code = g.rng.pick(forms);
            let before = (g.state.clone(), g.memory.len());
            let Some((insn, b)) = g.instruction(code, start + bytes.len() as u64) else {
                g.memory.truncate(before.1);
                continue;
            };
            let info = factory.info(&insn);
            let read = flag_bits(insn.rflags_read());
            let address = info.used_memory().iter().any(|m| m.base() != Register::None || m.index() != Register::None);
            if read & undefined != 0 || address && insns.len() > 0 || is_branch(code) {
                g.memory.truncate(before.1);
                continue;
            }
            let by_count = insn.op_count() > 1 && insn.op_register(insn.op_count() - 1) == Register::CL;
            if !by_count && !insn.has_rep_prefix() && !insn.has_repne_prefix() {
                undefined &= !flag_bits(insn.rflags_modified());
            }
            undefined |= flag_bits(insn.rflags_undefined());
            ever |= undefined;
            insns.push(insn);
            bytes.extend(b);
        }
        (!insns.is_empty()).then_some(Case { insns, bytes, start, state: g.state, memory: g.memory, undefined: ever })
    }
}

/// Which arithmetic flags have no defined value after `insn` in `state`.
fn undefined_flags(insn: &Instruction, state: &State) -> u64 {
    use Mnemonic::*;
    let all = flag_bits(insn.rflags_undefined());
    let last = insn.op_count().saturating_sub(1);
    let shift = matches!(insn.mnemonic(), Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd);
    if !shift || insn.op_register(last) != Register::CL {
        return all;
    }
    let wide = insn.op0_register().size() == 8 || insn.memory_size().size() == 8;
    match state.regs[RCX] & if wide { 63 } else { 31 } {
        0 => 0,
        1 => all & !OF,
        _ => all,
    }
}

fn is_branch(code: Code) -> bool {
    use iced_x86::FlowControl::*;
    matches!(code.flow_control(), ConditionalBranch | UnconditionalBranch | IndirectBranch | Call | IndirectCall | Return)
        && !matches!(code.mnemonic(), Mnemonic::Xbegin)
}

fn code_uses_stack(code: Code) -> bool {
    let mut i = Instruction::default();
    i.set_code(code);
    i.is_stack_instruction()
}

pub const GPR8: [Register; 16] = [
    Register::AL, Register::CL, Register::DL, Register::BL, Register::SPL, Register::BPL, Register::SIL, Register::DIL,
    Register::R8L, Register::R9L, Register::R10L, Register::R11L, Register::R12L, Register::R13L, Register::R14L, Register::R15L,
];
const GPR8H: [Register; 4] = [Register::AH, Register::CH, Register::DH, Register::BH];
const GPR16: [Register; 16] = [
    Register::AX, Register::CX, Register::DX, Register::BX, Register::SP, Register::BP, Register::SI, Register::DI,
    Register::R8W, Register::R9W, Register::R10W, Register::R11W, Register::R12W, Register::R13W, Register::R14W, Register::R15W,
];
pub const GPR32: [Register; 16] = [
    Register::EAX, Register::ECX, Register::EDX, Register::EBX, Register::ESP, Register::EBP, Register::ESI, Register::EDI,
    Register::R8D, Register::R9D, Register::R10D, Register::R11D, Register::R12D, Register::R13D, Register::R14D, Register::R15D,
];
