// SPDX-License-Identifier: Apache-2.0
//! Branches, calls, returns, and what else moves the stack pointer.

use super::asm::{at, frame, indexed, Label, GUEST_RSP, S0, S1, S2};
use super::callout::Kind;
use super::emit::{page_of_code, Emitter};
use super::flat;
use super::groups;
use super::operand::{place, slot, Place};
use super::select::How;
use crate::cpu::exec::operand::memory_operand;
use crate::cpu::region::{CodeJump, Frame, JUMPS_AT, NO_KEY, PAGES_AT, RETURN_CODES_AT, RETURN_TAGS_AT};
use iced_x86::{Code, Instruction, MemoryOperand, Mnemonic, OpKind, Register};
use std::mem::offset_of;

/// push, pop and leave of 64 bits.
pub(super) fn is_stack(i: &Instruction) -> bool {
    match i.code() {
        Code::Push_r64 | Code::Pop_r64 | Code::Leaveq | Code::Pushq_imm8 | Code::Pushq_imm32 => true,
        Code::Push_rm64 => i.op0_kind() == OpKind::Register || plain_memory(i),
        _ => false,
    }
}

fn plain_memory(i: &Instruction) -> bool {
    let absolute = i.memory_base() == Register::None && i.memory_index() == Register::None;
    i.op0_kind() == OpKind::Memory
        && i.memory_base() != Register::EIP
        && !(absolute && i.memory_displ_size() == 4)
}

/// Branches that the translator knows: the others end a block through their handlers.
pub(super) fn is_flow(i: &Instruction) -> bool {
    match i.code() {
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 | Code::Call_rel32_64 | Code::Retnq | Code::Retnq_imm16 => {
            true
        }
        Code::Jmp_rm64 | Code::Call_rm64 => i.op0_kind() == OpKind::Register || plain_memory(i),
        _ => is_conditional(i),
    }
}

pub(super) fn is_conditional(i: &Instruction) -> bool {
    i.is_jcc_short_or_near() && matches!(i.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch32)
}

/// A call that a block may go on after.
pub(super) fn is_call(i: &Instruction) -> bool {
    matches!(i.code(), Code::Call_rel32_64 | Code::Call_rel32_32)
}

/// A jump without a condition that a block may go on after.
pub(super) fn is_jump(i: &Instruction) -> bool {
    use Code as C;
    matches!(
        i.code(),
        C::Jmp_rel8_64 | C::Jmp_rel32_64 | C::Jmp_rel8_32 | C::Jmp_rel32_32
    )
}

/// Where a branch leads, relative to the start of its page.
pub(super) fn branch_target(i: &Instruction) -> i64 {
    match i.op0_kind() {
        OpKind::NearBranch32 => i64::from(i.near_branch32() as i32),
        _ => i.near_branch64() as i64,
    }
}

/// A jump out of the middle of a block.
pub(super) struct Aside {
    pub label: Label,
    pub target: i64,
    /// Instructions of the block that do not run.
    pub left: u8,
}

/// A jump to another page by the address of its last field: `lea` with the key of the code that the other page must show, `jrcxz` over a jump to
/// what is done otherwise, a store of the page, and the jump to the block.
#[derive(Clone, Copy)]
pub(super) struct FarLink(pub u64);

impl FarLink {
    const STORE: u64 = 5;
    const JUMP: u64 = 5;
    const JRCXZ: u64 = 2;

    /// The field of the jump to what is done otherwise.
    pub(super) fn otherwise(self) -> u64 {
        self.0 - 1 - Self::STORE - 4
    }

    /// The field with the key.
    pub(super) fn key(self) -> u64 {
        self.0 - 1 - Self::STORE - Self::JUMP - Self::JRCXZ - 4
    }
}

const _: () = assert!(offset_of!(Frame, page) < 128);

impl Emitter<'_> {
    pub(super) fn flow(&mut self, i: &Instruction) -> Option<()> {
        let after = i64::from(self.off) + i.len() as i64;
        match i.code() {
            _ if is_jump(i) => self.go_to(branch_target(i)),
            _ if is_call(i) => {
                self.push_return(after, true);
                self.go_to(branch_target(i));
            }
            _ if is_conditional(i) => {
                self.go_if(flat::wide_jump(i).code(), branch_target(i));
                self.go_to(after);
            }
            _ if self.flat => return self.flat_flow(i),
            Code::Retnq | Code::Retnq_imm16 => {
                let more = match i.code() {
                    Code::Retnq_imm16 => i64::from(i.immediate16()),
                    _ => 0,
                };
                let top = self.check_stack(0, false);
                self.asm.load(S2, top);
                self.move_stack(8);
                self.settle_stack();
                let (lost, miss) = (self.asm.label(), self.asm.label());
                self.handler_stub(i, miss, true)?;
                self.find_return(lost);
                self.move_stack(more);
                self.settle_stack();
                self.asm.jmp_mem(of_return(S1, RETURN_CODES_AT));
                self.lost_return = Some((lost, miss, 8 + more));
            }
            Code::Jmp_rm64 => {
                self.target(i)?;
                self.find_jump(i)?;
                self.asm.jmp_mem(code_of_jump());
            }
            Code::Call_rm64 if i.op0_kind() == OpKind::Register => self.call_register(i, after)?,
            _ => {
                self.target(i)?;
                self.find_jump(i)?;
                self.call_found(after);
            }
        }
        Some(())
    }

    /// A call to the address in a register, which returns to an offset from the page's start. If there is no jump to it the handler does all of it: that it is
    /// no address at all is the call's own fault, before which nothing is pushed.
    fn call_register(&mut self, i: &Instruction, after: i64) -> Option<()> {
        let miss = self.asm.label();
        let target = match place(i.op0_register()) {
            Place::Host(target) => target,
            Place::Spilled(_) => {
                // The handler pushes once more, to the same place.
                self.copy(S2, i.op0_register());
                self.asm.rorx(S0, S2, 47);
                self.asm.lea(S0, at(S0, 1));
                self.asm.pext(S0, S0, frame!(canonical_mask));
                self.asm.jmp_unless_zero(miss);
                self.push_return(after, false);
                self.copy(S2, i.op0_register());
                self.look_up(miss);
                self.handler_stub(i, miss, true)?;
                self.asm.lea(GUEST_RSP, at(GUEST_RSP, -8));
                self.asm.jmp_mem(code_of_jump());
                return Some(());
            }
        };
        let top = self.check_stack(-8, true);
        self.find(target, S2, miss);
        self.handler_stub(i, miss, true)?;
        self.store_return(top, after);
        self.leave_return(GUEST_RSP, after, S1);
        self.asm.mov(S1, S2);
        self.asm.mov(S2, target);
        self.asm.lea(GUEST_RSP, at(GUEST_RSP, -8));
        self.asm.jmp_mem(code_of_jump());
        Some(())
    }

    /// A jump or call in the middle of a block, which goes on at offset `next` of the page.
    pub(super) fn flow_inside(&mut self, i: &Instruction, next: i64) {
        if is_call(i) {
            self.push_return(i64::from(self.off) + i.len() as i64, true);
        }
        if !is_conditional(i) {
            return;
        }
        let mut jump = flat::wide_jump(i);
        let (after, mut target) = (i64::from(self.off) + i.len() as i64, branch_target(i));
        if next != after {
            jump.negate_condition_code();
            target = after;
        }
        let label = self.asm.label();
        self.asm.jcc(jump.code(), label);
        let left = self.left - 1;
        self.asides.push(Aside { label, target, left });
    }

    /// Brings the target of an indirect branch into `S2`.
    fn target(&mut self, i: &Instruction) -> Option<()> {
        if i.op0_kind() == OpKind::Register {
            self.copy(S2, i.op0_register());
            return Some(());
        }
        let ea = self.address(i);
        let target = self.check_8(ea, false);
        self.asm.load(S2, target);
        Some(())
    }

    /// A return that its call has left nothing for goes on by the jump table.
    pub(super) fn put_lost_return(&mut self) {
        if let Some((lost, miss, more)) = self.lost_return.take() {
            self.asm.bind(lost);
            if self.flat {
                self.look_up(miss);
                self.flat_move_stack(more);
            } else {
                // The handler does all of it.
                self.asm.lea(GUEST_RSP, at(GUEST_RSP, -8));
                self.look_up(miss);
                self.asm.lea(GUEST_RSP, at(GUEST_RSP, more));
            }
            self.asm.jmp_mem(code_of_jump());
        }
    }

    /// Pushes the address at an offset from the page's start, and leaves it with its code for the return, by where the stack pointer is then.
    /// `S1` stays as it is; so does the stack pointer, unless it `moves`.
    fn push_return(&mut self, offset: i64, moves: bool) {
        if self.flat {
            return self.flat_push_return(offset, moves);
        }
        let top = self.check_stack(-8, true);
        self.store_return(top, offset);
        self.leave_return(GUEST_RSP, offset, S2);
        if moves {
            self.asm.lea(GUEST_RSP, at(GUEST_RSP, -8));
        }
    }

    /// Stores the address at an offset from the page's start, which is in `S0` then.
    fn store_return(&mut self, top: MemoryOperand, offset: i64) {
        self.asm.load(S0, frame!(page));
        self.asm.lea(S0, at(S0, offset));
        self.asm.store(top, S0);
    }

    /// Leaves the address in `S0`, which is at an offset from the page's start and has been pushed, with its code for the return, by bits of `by`.
    /// Their number is in `number` then.
    pub(super) fn leave_return(&mut self, by: Register, offset: i64, number: Register) {
        // In the next page there is other code elsewhere.
        if let Some(off) = u16::try_from(offset).ok().filter(|&off| off < 4096) {
            let code = self.asm.label();
            self.asm.pext(number, by, frame!(return_mask));
            self.asm.not(S0);
            self.asm.store(of_return(number, RETURN_TAGS_AT), S0);
            self.asm.lea_label(S0, code);
            self.return_stub(code, off);
            self.asm.store(of_return(number, RETURN_CODES_AT), S0);
        }
    }

    /// Stores to the new top of the stack.
    fn push(&mut self, top: MemoryOperand, from: Register) {
        self.asm.store(top, from);
        self.move_stack(-8);
    }

    /// Adds to the guest's stack pointer, at once if the operand was not checked with others: what follows may leave the block.
    pub(super) fn move_stack(&mut self, by: i64) {
        self.stack_moves += by;
        if !self.checked {
            self.settle_stack();
        }
    }

    /// Adds to the guest's stack pointer what is yet to be added.
    pub(super) fn settle_stack(&mut self) {
        match std::mem::take(&mut self.stack_moves) {
            0 => {}
            by => self.asm.lea(GUEST_RSP, at(GUEST_RSP, by)),
        }
    }

    /// Whether an instruction leaves the block in no way, and is emitted so that it does not need to know where the stack is. Of its own operand,
    /// if that has been checked with others (`member`), it need not.
    pub(super) fn delays_stack(&self, i: &Instruction, how: How, member: bool) -> bool {
        let named = i.memory_base() == Register::RSP && !member
            || (0..i.op_count()).any(|n| {
                i.op_kind(n) == OpKind::Register && i.op_register(n).full_register() == Register::RSP
            });
        match how {
            How::Nothing => true,
            How::Stack | How::Flow => {
                member && !named && matches!(i.mnemonic(), Mnemonic::Push | Mnemonic::Pop | Mnemonic::Ret)
            }
            How::Same if self.added_to_stack(i).is_some() => true,
            How::Same | How::Vector | How::Avx => !named && (member || memory_operand(i).is_none()),
            How::X87 | How::Special | How::Repeat | How::Handler => false,
        }
    }

    /// What an instruction that does nothing else adds to the stack pointer.
    pub(super) fn added_to_stack(&self, i: &Instruction) -> Option<i64> {
        let by = groups::adds_to(i, Register::RSP)?;
        (self.flags_stay_dead || i.mnemonic() == Mnemonic::Lea).then_some(by)
    }

    /// Finds the jump to the address in `S2`; goes to `miss` if there is none.
    pub(super) fn look_up(&mut self, miss: Label) {
        self.find(S2, S1, miss);
    }

    /// Brings the number of the jump to the address in `target` into `number`; goes to `miss` if there is none.
    fn find(&mut self, target: Register, number: Register, miss: Label) {
        self.asm.pext(number, target, frame!(jump_mask));
        // That of a half of an entry, as no index is scaled by the whole.
        self.asm.lea(number, indexed(number, number, 1, 0));
        self.asm
            .load(S0, field_of_jump(number, offset_of!(CodeJump, tag)));
        self.asm.lea(S0, indexed(S0, target, 1, 0));
        self.asm.jmp_unless_zero(miss);
    }

    /// As `look_up`; without such a jump the handler of the instruction does all of it.
    pub(super) fn find_jump(&mut self, i: &Instruction) -> Option<()> {
        let miss = self.asm.label();
        self.look_up(miss);
        self.handler_stub(i, miss, true)
    }

    /// Finds what a call has left for the return to the address in `S2`, by where the stack pointer is; goes to `lost` if that is another.
    pub(super) fn find_return(&mut self, lost: Label) {
        self.asm.pext(S1, GUEST_RSP, frame!(return_mask));
        self.asm.load(S0, of_return(S1, RETURN_TAGS_AT));
        self.asm.lea(S0, indexed(S0, S2, 1, 1));
        self.asm.jmp_unless_zero(lost);
    }

    /// A call to the address in `S2` by the jump that was found, which returns to an offset from the page's start.
    pub(super) fn call_found(&mut self, after: i64) {
        self.asm.load(S0, code_of_jump());
        self.asm.store(kept(0), S0);
        self.asm.store(kept(1), S2);
        self.push_return(after, true);
        self.asm.load(S2, kept(1));
        self.asm.jmp_mem(kept(0));
    }

    /// What a jump whose field is at `field` leads to at first, and for ever if it is in another page.
    pub(super) fn leave_to(&mut self, label: Label, target: i64, field: usize) {
        if (0..4096).contains(&target) {
            self.link_stub(label, target, field);
        } else {
            self.tails.push((label, target));
        }
    }

    /// Jumps to other pages.
    pub(super) fn put_tails(&mut self) {
        for (label, target) in std::mem::take(&mut self.tails) {
            self.asm.bind(label);
            self.put_far_jump(target);
        }
    }

    /// A jump to an offset outside of the page: to a block if the other page shows the code that it is of, else by the jump table.
    pub(super) fn put_far_jump(&mut self, target: i64) {
        let page = target.div_euclid(4096) * 4096;
        self.asm.load(S2, frame!(page));
        self.move_address(S2, page);
        self.asm.pext(S1, S2, frame!(index_mask));
        self.asm.load(S0, indexed(Register::RSP, S1, 8, PAGES_AT));
        self.asm.lea(S0, page_of_code(S0, S2, NO_KEY));
        let otherwise = self.asm.label();
        self.asm.jmp_unless_zero(otherwise);
        self.asm.store(frame!(page), S2);
        self.asm.jmp(otherwise);
        let field = self.asm.here() - 4;
        self.far_stub(otherwise, (target - page) as u16, field);
    }

    /// What is done instead of a jump to offset `off` of the page in `S2`.
    pub(super) fn put_table_jump(&mut self, off: u16) {
        self.asm.lea(S2, at(S2, i64::from(off)));
        let miss = self.asm.label();
        self.look_up(miss);
        self.stub(miss, Kind::Jump, None);
        self.asm.jmp_mem(code_of_jump());
    }

    pub(super) fn stack(&mut self, i: &Instruction) -> Option<()> {
        if self.flat {
            return self.flat_stack(i);
        }
        match i.code() {
            Code::Push_r64 | Code::Push_rm64 if i.op0_kind() == OpKind::Register => {
                let top = self.check_stack(-8, true);
                let from = self.base(i.op0_register(), S0);
                self.push(top, from);
            }
            Code::Push_rm64 => {
                let ea = self.address(i);
                let from = self.check_8(ea, false);
                self.asm.load(S0, from);
                self.asm.store(kept(0), S0);
                let top = self.check_stack(-8, true);
                self.asm.load(S0, kept(0));
                self.push(top, S0);
            }
            Code::Pushq_imm8 | Code::Pushq_imm32 => {
                let top = self.check_stack(-8, true);
                self.asm
                    .store_imm(top, i32::try_from(i.immediate(0) as i64).ok()?);
                self.move_stack(-8);
            }
            Code::Pop_r64 => {
                let top = self.check_stack(0, false);
                match place(i.op0_register()) {
                    Place::Host(GUEST_RSP) => self.asm.load(GUEST_RSP, top),
                    Place::Host(h) => {
                        self.asm.load(h, top);
                        self.move_stack(8);
                    }
                    Place::Spilled(n) => {
                        self.asm.load(S0, top);
                        self.asm.store(slot(n), S0);
                        self.move_stack(8);
                    }
                }
            }
            _ => {
                let ea = self.at(Register::RBP, 0);
                let top = self.check_8(ea, false);
                self.asm.lea(GUEST_RSP, at(Register::RBP, 8));
                self.asm.load(Register::RBP, top);
            }
        }
        Some(())
    }
}

/// Where the code of the jump is that was looked up.
pub(super) fn code_of_jump() -> MemoryOperand {
    field_of_jump(S1, offset_of!(CodeJump, code))
}

/// A field of the jump with this number.
fn field_of_jump(number: Register, offset: usize) -> MemoryOperand {
    indexed(Register::RSP, number, 8, JUMPS_AT + offset as i64)
}

const _: () = assert!(size_of::<CodeJump>() == 2 * 8);

/// What a call has left for the return with this number.
pub(super) fn of_return(number: Register, array: i64) -> MemoryOperand {
    indexed(Register::RSP, number, 8, array)
}

pub(super) fn kept(n: usize) -> MemoryOperand {
    at(
        Register::RSP,
        (offset_of!(crate::cpu::region::Frame, kept) + 8 * n) as i64,
    )
}
