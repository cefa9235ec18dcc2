// SPDX-License-Identifier: Apache-2.0
//! 32-bit code in flat segments: its instructions as 64-bit code has them, addresses of 32 bits, and a stack of four bytes.
//!
//! Nothing is taken for granted of the upper halves of registers: each address is made by a `lea` of 32 bits, so that it wraps as the guest's does.
//! Which instructions lie in segments that do not matter is told by the mode of their block; the others are left to their handlers.

use super::asm::{at, frame, indexed, GUEST_RSP, S0, S1, S2};
use super::emit::{Emitter, Wanted};
use super::flow::{code_of_jump, kept, of_return};
use super::operand::{place, Ea, Place};
use super::select::How;
use crate::cpu::descriptor_cache::{reaches_all, MODE_FLAT, MODE_LONG};
use crate::cpu::exec::operand::memory_operand;
use crate::cpu::region::RETURN_CODES_AT;
use iced_x86::{Code, CodeSize, ConditionCode, Instruction, MemoryOperand, Mnemonic as M, OpKind, Register};
use Register as R;

/// The width of the code of a mode.
pub(super) fn bits(mode: u8) -> u32 {
    if mode == MODE_LONG {
        64
    } else {
        32
    }
}

/// The mode of a block that an instruction may be in, with segments that reach the least.
pub(super) fn mode_of(i: &Instruction) -> u8 {
    match i.code_size() {
        CodeSize::Code64 => MODE_LONG,
        _ => MODE_FLAT,
    }
}

/// How an instruction of 32-bit code is translated, by `how` of what 64-bit code has for it.
pub(super) fn how(i: &Instruction, mode: u8, how: impl FnOnce(&Instruction) -> How) -> How {
    if i.code_size() != CodeSize::Code32 || !lies_flat(i, mode) {
        return How::Handler;
    }
    if is_flow(i) {
        return How::Flow;
    }
    if is_stack(i) {
        return How::Stack;
    }
    match widened(i) {
        // The upper eight vector registers stay as they are.
        Some(w) if matches!(w.mnemonic(), M::Vzeroupper | M::Vzeroall) => How::Handler,
        Some(w) if !indexes_bits(&w) => how(&w),
        _ => How::Handler,
    }
}

/// The memory operand, if there is one, has an address of 32 bits in a segment without limits.
fn lies_flat(i: &Instruction, mode: u8) -> bool {
    memory_operand(i).is_none()
        || reaches_all(mode, i.memory_segment())
            && match (i.memory_base(), i.memory_index()) {
                (R::None, R::None) => i.memory_displ_size() == 4,
                (base, index) => [base, index].iter().all(|&r| r == R::None || r.is_gpr32()),
            }
}

/// Whether the number of a bit in a register chooses the operand: its distance would have to wrap.
fn indexes_bits(i: &Instruction) -> bool {
    matches!(i.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc)
        && i.op0_kind() == OpKind::Memory
        && i.op1_kind() == OpKind::Register
}

/// The instruction that does the same in 64-bit code, but for how its address is made; `None` if there is none.
pub(super) fn widened(i: &Instruction) -> Option<Instruction> {
    let mut w = *i;
    w.set_code_size(CodeSize::Code64);
    let displacement = i.memory_displacement32();
    if i.mnemonic() == M::Lea {
        let (base, index) = (i.memory_base(), i.memory_index());
        if i.op0_register().size() != 4 {
            return None;
        }
        if base == R::None && index == R::None {
            return Instruction::with2(Code::Mov_r32_imm32, i.op0_register(), displacement).ok();
        }
        // Of the sum the lower half is the result.
        w.set_memory_base(base.full_register());
        w.set_memory_index(index.full_register());
        w.set_memory_displacement64(displacement as i32 as i64 as u64);
        w.set_segment_prefix(R::None);
        return Some(w);
    }
    w.set_code(match i.code() {
        Code::Inc_r16 => Code::Inc_rm16,
        Code::Inc_r32 => Code::Inc_rm32,
        Code::Dec_r16 => Code::Dec_rm16,
        Code::Dec_r32 => Code::Dec_rm32,
        Code::Mov_AL_moffs8 => Code::Mov_r8_rm8,
        Code::Mov_AX_moffs16 => Code::Mov_r16_rm16,
        Code::Mov_EAX_moffs32 => Code::Mov_r32_rm32,
        Code::Mov_moffs8_AL => Code::Mov_rm8_r8,
        Code::Mov_moffs16_AX => Code::Mov_rm16_r16,
        Code::Mov_moffs32_EAX => Code::Mov_rm32_r32,
        same => same,
    });
    if (i.memory_base(), i.memory_index()) == (R::None, R::None) && memory_operand(i).is_some() {
        // Absolute addresses of 64-bit code.
        w.set_memory_displ_size(8);
    }
    // A second encoding, which 64-bit code has not.
    let second = matches!(
        i.code(),
        Code::Add_rm8_imm8_82
            | Code::Or_rm8_imm8_82
            | Code::Adc_rm8_imm8_82
            | Code::Sbb_rm8_imm8_82
            | Code::And_rm8_imm8_82
            | Code::Sub_rm8_imm8_82
            | Code::Xor_rm8_imm8_82
            | Code::Cmp_rm8_imm8_82
    );
    (!second).then_some(w)
}

/// push, pop and leave of 32 bits.
fn is_stack(i: &Instruction) -> bool {
    matches!(
        i.code(),
        Code::Push_r32
            | Code::Pop_r32
            | Code::Leaved
            | Code::Pushd_imm8
            | Code::Pushd_imm32
            | Code::Push_rm32
    )
}

fn is_flow(i: &Instruction) -> bool {
    matches!(
        i.code(),
        Code::Jmp_rel8_32
            | Code::Jmp_rel32_32
            | Code::Call_rel32_32
            | Code::Retnd
            | Code::Retnd_imm16
            | Code::Jmp_rm32
            | Code::Call_rm32
    ) || super::flow::is_conditional(i)
}

/// The jump of 64-bit code on the same condition.
pub(super) fn wide_jump(i: &Instruction) -> Instruction {
    use ConditionCode as C;
    let mut wide = *i;
    if i.op0_kind() == OpKind::NearBranch32 {
        wide.set_code(match i.condition_code() {
            C::None => Code::Jmp_rel32_64,
            C::o => Code::Jo_rel32_64,
            C::no => Code::Jno_rel32_64,
            C::b => Code::Jb_rel32_64,
            C::ae => Code::Jae_rel32_64,
            C::e => Code::Je_rel32_64,
            C::ne => Code::Jne_rel32_64,
            C::be => Code::Jbe_rel32_64,
            C::a => Code::Ja_rel32_64,
            C::s => Code::Js_rel32_64,
            C::ns => Code::Jns_rel32_64,
            C::p => Code::Jp_rel32_64,
            C::np => Code::Jnp_rel32_64,
            C::l => Code::Jl_rel32_64,
            C::ge => Code::Jge_rel32_64,
            C::le => Code::Jle_rel32_64,
            C::g => Code::Jg_rel32_64,
        });
    }
    wide.as_near_branch();
    wide
}

impl Emitter<'_> {
    /// The linear address of the memory operand of 32-bit code, in `S2`.
    pub(super) fn flat_address(&mut self, i: &Instruction) -> Ea {
        let ea = self.at(S2, 0);
        let disp = i64::from(i.memory_displacement32() as i32);
        let host = |r: Register| match (r, place(r)) {
            (R::None, _) => R::None,
            (_, Place::Host(h)) => h,
            // 32-bit code has none of them.
            (_, Place::Spilled(_)) => R::None,
        };
        let (base, index) = (host(i.memory_base()), host(i.memory_index()));
        let segment = super::operand::segment(i);
        if let Some(segment) = segment {
            self.asm.load(S1, segment);
        }
        match (base, index, segment) {
            (R::None, R::None, None) => self.asm.constant32(S2, disp as u32),
            (R::None, R::None, Some(_)) => self.asm.lea32(S2, at(S1, disp)),
            (base, R::None, Some(_)) => self.asm.lea32(S2, indexed(base, S1, 1, disp)),
            (base, R::None, None) => self.asm.lea32(S2, at(base, disp)),
            (base, index, segment) => {
                let scale = i.memory_index_scale();
                self.asm.lea32(
                    S2,
                    match base {
                        R::None => MemoryOperand::new(R::None, index, scale, disp, 8, false, R::None),
                        base => indexed(base, index, scale, disp),
                    },
                );
                if segment.is_some() {
                    self.asm.lea32(S2, indexed(S2, S1, 1, 0));
                }
            }
        }
        ea
    }

    /// Checks four bytes at `disp` from a register of the guest's; their address is in `S2` afterwards.
    fn check_4(&mut self, base: Register, disp: i64, write: bool) -> MemoryOperand {
        let ea = self.at(S2, 0);
        self.asm.lea32(S2, at(base, disp));
        let (size, align) = (4, 1);
        self.check(ea, Wanted { size, write, align })
    }

    /// The stack pointer moves.
    pub(super) fn flat_move_stack(&mut self, by: i64) {
        self.asm.lea32(GUEST_RSP, at(GUEST_RSP, by));
    }

    /// The address at a distance from the one in `to`, as far as the guest's addresses reach.
    pub(super) fn move_address(&mut self, to: Register, by: i64) {
        match self.flat {
            true => self.asm.lea32(to, at(to, by)),
            false => self.asm.lea(to, at(to, by)),
        }
    }

    pub(super) fn flat_stack(&mut self, i: &Instruction) -> Option<()> {
        match i.code() {
            Code::Pop_r32 => {
                let top = self.check_4(GUEST_RSP, 0, false);
                let to = host(i.op0_register())?;
                self.asm.load32(to, top);
                if to != GUEST_RSP {
                    self.flat_move_stack(4);
                }
            }
            Code::Leaved => {
                let top = self.check_4(R::RBP, 0, false);
                self.asm.lea32(GUEST_RSP, at(R::RBP, 4));
                self.asm.load32(R::RBP, top);
            }
            Code::Pushd_imm8 | Code::Pushd_imm32 => {
                let top = self.check_4(GUEST_RSP, -4, true);
                self.asm.store_imm32(top, i.immediate(0) as i32);
                self.asm.mov32(GUEST_RSP, S2);
            }
            _ if i.op0_kind() == OpKind::Register => {
                let from = host(i.op0_register())?;
                let top = self.check_4(GUEST_RSP, -4, true);
                self.asm.store32(top, from);
                self.asm.mov32(GUEST_RSP, S2);
            }
            _ => {
                let from = self.flat_operand(i);
                self.asm.load32(S0, from);
                self.asm.store(kept(0), S0);
                let top = self.check_4(GUEST_RSP, -4, true);
                self.asm.load(S0, kept(0));
                self.asm.store32(top, S0);
                self.asm.mov32(GUEST_RSP, S2);
            }
        }
        Some(())
    }

    /// Four bytes that are read.
    fn flat_operand(&mut self, i: &Instruction) -> MemoryOperand {
        let ea = self.flat_address(i);
        let (size, write, align) = (4, false, 1);
        self.check(ea, Wanted { size, write, align })
    }

    /// Pushes the address at an offset from the page's start, and leaves it with its code for the return. `S1` stays as it is; so does the
    /// stack pointer, unless it `moves`.
    pub(super) fn flat_push_return(&mut self, offset: i64, moves: bool) {
        let top = self.check_4(GUEST_RSP, -4, true);
        self.asm.load(S0, frame!(page));
        self.asm.lea32(S0, at(S0, offset));
        self.asm.store32(top, S0);
        if moves {
            self.asm.mov32(GUEST_RSP, S2);
        }
        self.leave_return(S2, offset, S2);
    }

    pub(super) fn flat_flow(&mut self, i: &Instruction) -> Option<()> {
        let after = i64::from(self.off) + i.len() as i64;
        match i.code() {
            Code::Retnd | Code::Retnd_imm16 => {
                let more = match i.code() {
                    Code::Retnd_imm16 => i64::from(i.immediate16()),
                    _ => 0,
                };
                let top = self.check_4(GUEST_RSP, 0, false);
                self.asm.load32(S2, top);
                let (lost, miss) = (self.asm.label(), self.asm.label());
                self.handler_stub(i, miss, true)?;
                self.find_return(lost);
                self.flat_move_stack(4 + more);
                self.asm.jmp_mem(of_return(S1, RETURN_CODES_AT));
                self.lost_return = Some((lost, miss, 4 + more));
            }
            Code::Jmp_rm32 | Code::Call_rm32 if i.op0_kind() == OpKind::Register => {
                let call = i.code() == Code::Call_rm32;
                if call {
                    // If there is no jump the handler does all of it once more, to the same place.
                    self.flat_push_return(after, false);
                }
                self.asm.mov32(S2, host(i.op0_register())?);
                self.find_jump(i)?;
                if call {
                    self.flat_move_stack(-4);
                }
                self.asm.jmp_mem(code_of_jump());
            }
            Code::Jmp_rm32 | Code::Call_rm32 => {
                let from = self.flat_operand(i);
                self.asm.load32(S2, from);
                self.find_jump(i)?;
                if i.code() == Code::Jmp_rm32 {
                    self.asm.jmp_mem(code_of_jump());
                    return Some(());
                }
                self.call_found(after);
            }
            _ => return None,
        }
        Some(())
    }
}

/// Where the host has a register that 32-bit code can name.
fn host(r: Register) -> Option<Register> {
    match place(r) {
        Place::Host(h) => Some(h),
        Place::Spilled(_) => None,
    }
}
