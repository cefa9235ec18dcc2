// SPDX-License-Identifier: Apache-2.0
//! Host instructions that translated blocks are made of, through iced's encoder.

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};
use Register as R;

/// The scratch registers: nothing of the guest is in them. The last two address memory operands.
pub(super) const S0: Register = R::RCX;
pub(super) const S1: Register = R::R10;
pub(super) const S2: Register = R::R11;
/// Where the guest's rcx and rsp are.
pub(super) const GUEST_RCX: Register = R::R8;
pub(super) const GUEST_RSP: Register = R::R9;
/// Instructions that the slice still has: in memory, each block would wait for the store of the one before.
pub(super) const SLICE: Register = R::R15;

/// A `rel32` that is to lead to a label.
struct Fixup {
    field: usize,
    label: Label,
}

/// A place in the code that is not there yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// The code of a block on its way.
pub(super) struct Asm {
    encoder: Encoder,
    base: u64,
    at: usize,
    /// Where the part begins that runs elsewhere, and where that is.
    split: Option<(usize, u64)>,
    labels: Vec<usize>,
    fixups: Vec<Fixup>,
    /// An instruction had no encoding: the block is not translated.
    failed: bool,
}

const UNBOUND: usize = usize::MAX;

const INT3: u8 = 0xcc;

pub(super) fn at(base: Register, disp: i64) -> MemoryOperand {
    MemoryOperand::new(base, R::None, 1, disp, u32::from(disp != 0), false, R::None)
}

pub(super) fn indexed(base: Register, index: Register, scale: u32, disp: i64) -> MemoryOperand {
    MemoryOperand::new(base, index, scale, disp, u32::from(disp != 0), false, R::None)
}

/// A field of the frame.
macro_rules! frame {
    ($($field:tt)*) => {
        $crate::cpu::translate::asm::at(
            iced_x86::Register::RSP,
            std::mem::offset_of!($crate::cpu::region::Frame, $($field)*) as i64,
        )
    };
}
pub(super) use frame;

impl Asm {
    pub(super) fn new() -> Asm {
        Asm {
            encoder: Encoder::new(64),
            base: 0,
            at: 0,
            split: None,
            labels: Vec::new(),
            fixups: Vec::new(),
            failed: false,
        }
    }

    /// Begins a block that will run at `base`.
    pub(super) fn begin(&mut self, base: u64) {
        let mut buffer = self.encoder.take_buffer();
        buffer.clear();
        self.encoder.set_buffer(buffer);
        self.base = base;
        self.at = 0;
        self.split = None;
        self.labels.clear();
        self.fixups.clear();
        self.failed = false;
    }

    /// What follows will run at `base`, away from what has been emitted so far.
    pub(super) fn go_cold(&mut self, base: u64) {
        self.split = Some((self.at, base));
    }

    /// Offset of what runs elsewhere.
    pub(super) fn split(&self) -> usize {
        self.split.map_or(self.at, |s| s.0)
    }

    /// Where the code at an offset will run.
    pub(super) fn address(&self, offset: usize) -> u64 {
        match self.split {
            Some((split, base)) if offset >= split => base + (offset - split) as u64,
            _ => self.base + offset as u64,
        }
    }

    /// The code, with all labels put in; `None` if something in it cannot be encoded.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        let mut code = self.encoder.take_buffer();
        for Fixup { field, label } in &self.fixups {
            let to = *self.labels.get(label.0)?;
            if to == UNBOUND {
                return None;
            }
            let rel = self.address(to).wrapping_sub(self.address(*field) + 4) as i64;
            let rel = i32::try_from(rel).ok()?;
            code.get_mut(*field..field + 4)?
                .copy_from_slice(&rel.to_le_bytes());
        }
        (!self.failed).then_some(code)
    }

    /// Gives a buffer back that `finish` has given.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        self.encoder.set_buffer(buffer);
    }

    /// Offset of the next instruction.
    pub(super) fn here(&self) -> usize {
        self.at
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(UNBOUND);
        Label(self.labels.len() - 1)
    }

    pub(super) fn bind(&mut self, label: Label) {
        if let Some(l) = self.labels.get_mut(label.0) {
            *l = self.at;
        }
    }

    /// Where a label is, once it is bound.
    pub(super) fn offset_of(&self, label: Label) -> usize {
        self.labels.get(label.0).copied().unwrap_or(0)
    }

    pub(super) fn emit(&mut self, insn: &Instruction) {
        match self.encoder.encode(insn, self.address(self.at)) {
            Ok(len) => self.at += len,
            Err(_) => self.failed = true,
        }
    }

    fn made(&mut self, insn: Result<Instruction, iced_x86::IcedError>) {
        match insn {
            Ok(i) => self.emit(&i),
            Err(_) => self.failed = true,
        }
    }

    /// Bytes that nobody comes to, up to where what follows `bytes` more is at a multiple of `line`.
    pub(super) fn pad(&mut self, line: u64, bytes: u64) {
        let to = self.address(self.at) + bytes;
        (to..to.next_multiple_of(line)).for_each(|_| self.data(&[INT3]));
    }

    pub(super) fn data(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.encoder.write_u8(b));
        self.at += bytes.len();
    }

    /// `rel32` to a label.
    fn fix(&mut self, label: Label) {
        self.fixups.push(Fixup {
            field: self.at - 4,
            label,
        });
    }

    pub(super) fn jmp(&mut self, label: Label) {
        let far = self.address(self.at) + 0x1000;
        self.made(Instruction::with_branch(Code::Jmp_rel32_64, far));
        self.fix(label);
    }

    pub(super) fn jcc(&mut self, code: Code, label: Label) {
        let far = self.address(self.at) + 0x1000;
        self.made(Instruction::with_branch(code, far));
        self.fix(label);
    }

    /// Goes to `label` unless `S0` is zero.
    pub(super) fn jmp_unless_zero(&mut self, label: Label) {
        // Over the jump of five bytes.
        let target = self.address(self.at) + 2 + 5;
        self.made(Instruction::with_branch(Code::Jrcxz_rel8_64, target));
        self.jmp(label);
    }

    /// Goes to `label` if `r`, in which 32 bits would do, is negative.
    pub(super) fn jmp_if_negative(&mut self, r: Register, label: Label) {
        self.rorx(S0, r, 32);
        let target = self.address(self.at) + 3 + 5;
        self.made(Instruction::with_branch(Code::Jecxz_rel8_64, target));
        self.jmp(label);
    }

    /// Goes to `label` if `S0` is zero.
    pub(super) fn jmp_if_zero(&mut self, label: Label) {
        // Over the jump of two bytes, which leads over that of five.
        let target = self.address(self.at) + 2 + 2;
        self.made(Instruction::with_branch(Code::Jrcxz_rel8_64, target));
        let target = self.address(self.at) + 2 + 5;
        self.made(Instruction::with_branch(Code::Jmp_rel8_64, target));
        self.jmp(label);
    }

    pub(super) fn mov(&mut self, to: Register, from: Register) {
        if to != from {
            self.made(Instruction::with2(Code::Mov_r64_rm64, to, from));
        }
    }

    pub(super) fn load(&mut self, to: Register, from: MemoryOperand) {
        self.made(Instruction::with2(Code::Mov_r64_rm64, to, from));
    }

    pub(super) fn store(&mut self, to: MemoryOperand, from: Register) {
        self.made(Instruction::with2(Code::Mov_rm64_r64, to, from));
    }

    pub(super) fn store_imm(&mut self, to: MemoryOperand, imm: i32) {
        self.made(Instruction::with2(Code::Mov_rm64_imm32, to, imm));
    }

    pub(super) fn lea(&mut self, to: Register, from: MemoryOperand) {
        self.made(Instruction::with2(Code::Lea_r64_m, to, from));
    }

    /// The lower half of a sum; the upper one is zero afterwards.
    pub(super) fn lea32(&mut self, to: Register, from: MemoryOperand) {
        self.made(Instruction::with2(Code::Lea_r32_m, to.full_register32(), from));
    }

    /// Where a label is.
    pub(super) fn lea_label(&mut self, to: Register, label: Label) {
        let far = self.address(self.at) + 0x1000;
        let place = MemoryOperand::new(R::RIP, R::None, 1, far as i64, 8, false, R::None);
        self.lea(to, place);
        self.fix(label);
    }

    pub(super) fn constant(&mut self, to: Register, value: u64) {
        match i32::try_from(value as i64) {
            Ok(v) => self.made(Instruction::with2(Code::Mov_rm64_imm32, to, v)),
            Err(_) => self.made(Instruction::with2(Code::Mov_r64_imm64, to, value)),
        }
    }

    pub(super) fn constant32(&mut self, to: Register, value: u32) {
        self.made(Instruction::with2(
            Code::Mov_r32_imm32,
            to.full_register32(),
            value,
        ));
    }

    pub(super) fn mov32(&mut self, to: Register, from: Register) {
        self.made(Instruction::with2(
            Code::Mov_r32_rm32,
            to.full_register32(),
            from.full_register32(),
        ));
    }

    pub(super) fn mov16(&mut self, to: Register, from: Register) {
        let (to, from) = (sized16(to), sized16(from));
        self.made(Instruction::with2(Code::Mov_r16_rm16, to, from));
    }

    pub(super) fn load32(&mut self, to: Register, from: MemoryOperand) {
        self.made(Instruction::with2(Code::Mov_r32_rm32, to.full_register32(), from));
    }

    pub(super) fn store32(&mut self, to: MemoryOperand, from: Register) {
        self.made(Instruction::with2(Code::Mov_rm32_r32, to, from.full_register32()));
    }

    pub(super) fn store_imm32(&mut self, to: MemoryOperand, imm: i32) {
        self.made(Instruction::with2(Code::Mov_rm32_imm32, to, imm));
    }

    /// Zero-extends.
    pub(super) fn load16(&mut self, to: Register, from: MemoryOperand) {
        self.made(Instruction::with2(
            Code::Movzx_r32_rm16,
            to.full_register32(),
            from,
        ));
    }

    pub(super) fn store16(&mut self, to: MemoryOperand, from: Register) {
        self.made(Instruction::with2(Code::Mov_rm16_r16, to, sized16(from)));
    }

    pub(super) fn movsxd(&mut self, to: Register, from: Register) {
        self.made(Instruction::with2(
            Code::Movsxd_r64_rm32,
            to,
            from.full_register32(),
        ));
    }

    pub(super) fn not(&mut self, r: Register) {
        self.made(Instruction::with1(Code::Not_rm64, r));
    }

    pub(super) fn sarx(&mut self, to: Register, from: Register, by: Register) {
        self.made(Instruction::with3(Code::VEX_Sarx_r64_rm64_r64, to, from, by));
    }

    pub(super) fn shrx(&mut self, to: Register, from: Register, by: Register) {
        self.made(Instruction::with3(Code::VEX_Shrx_r64_rm64_r64, to, from, by));
    }

    /// The bits of `from` that are set in `mask`, moved together.
    pub(super) fn pext_register(&mut self, to: Register, from: Register, mask: Register) {
        self.made(Instruction::with3(Code::VEX_Pext_r64_r64_rm64, to, from, mask));
    }

    /// The same with the mask in memory.
    pub(super) fn pext(&mut self, to: Register, from: Register, mask: MemoryOperand) {
        self.made(Instruction::with3(Code::VEX_Pext_r64_r64_rm64, to, from, mask));
    }

    /// The low bits of `from` where `mask` has bits.
    pub(super) fn pdep_register(&mut self, to: Register, from: Register, mask: Register) {
        self.made(Instruction::with3(Code::VEX_Pdep_r64_r64_rm64, to, from, mask));
    }

    /// The x87 control word.
    pub(super) fn load_control(&mut self, from: MemoryOperand) {
        self.made(Instruction::with1(Code::Fldcw_m2byte, from));
    }

    pub(super) fn rorx(&mut self, to: Register, from: Register, by: u32) {
        self.made(Instruction::with3(Code::VEX_Rorx_r64_rm64_imm8, to, from, by));
    }

    /// Of its lower half; the upper one is zero afterwards.
    pub(super) fn and(&mut self, r: Register, mask: i32) {
        self.made(Instruction::with2(
            Code::And_rm32_imm32,
            r.full_register32(),
            mask,
        ));
    }

    pub(super) fn test(&mut self, r: Register, mask: i32) {
        self.made(Instruction::with2(Code::Test_rm64_imm32, r, mask));
    }

    pub(super) fn cmp_mem(&mut self, r: Register, m: MemoryOperand) {
        self.made(Instruction::with2(Code::Cmp_r64_rm64, r, m));
    }

    pub(super) fn test_mem(&mut self, m: MemoryOperand, mask: i32) {
        self.made(Instruction::with2(Code::Test_rm8_imm8, m, mask));
    }

    pub(super) fn sub(&mut self, r: Register, by: i32) {
        self.made(Instruction::with2(Code::Sub_rm64_imm8, r, by));
    }

    pub(super) fn call_mem(&mut self, m: MemoryOperand) {
        self.made(Instruction::with1(Code::Call_rm64, m));
    }

    pub(super) fn jmp_mem(&mut self, m: MemoryOperand) {
        self.made(Instruction::with1(Code::Jmp_rm64, m));
    }
}

/// The low 16 bits of a 64-bit register.
fn sized16(r: Register) -> Register {
    R::AX + (r as u32 - R::RAX as u32)
}
