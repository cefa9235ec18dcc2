// SPDX-License-Identifier: Apache-2.0
//! The code of a block: entry, instructions, stubs.

use super::asm::{at, frame, indexed, Asm, Label, GUEST_RSP, S0, S1, S2, SLICE};
use super::callout::{alignment, Kind, EARLY, GROUP, LATE, WRITE, YMM};
use super::clock::reads_clock;
use super::flat;
use super::flow::Aside;
use super::fork::{self, far_bytes, is_loop, LINE};
use super::groups::{Group, Registers};
use super::liveness;
use super::operand::Ea;
use super::select::{self, How, Vectors};
use super::stack::Elsewhere;
use super::stubs::Stub;
use super::Handled;
use crate::cpu::descriptor_cache::{access_of, MODE_LONG};
use crate::cpu::engine::TranslatorOptions;
use crate::cpu::region::{Frame, TLB_AT};
use crate::mmu::tlb::{TlbEntry, TLB_SIZE};
use iced_x86::{Code, Instruction, MemoryOperand, Register};
use std::mem::offset_of;

/// The code of a block, and where in it its entries are.
pub(super) struct Made {
    pub code: Vec<u8>,
    /// Where the part of it begins that seldom runs, and lies elsewhere.
    pub split: usize,
    pub far: u64,
    pub near: u64,
    pub body: u64,
    pub dead: u64,
    /// Where the code of each instruction begins, and where that of the last one ends.
    pub starts: Vec<usize>,
    pub vectors: Vectors,
    pub x87: bool,
    /// Its checks may lead to a rest.
    pub rests: bool,
}

/// What a site says of the instruction that it is of.
#[derive(Clone, Copy)]
pub(super) struct Here {
    off: u16,
    left: u8,
    len: u8,
    branch: bool,
    flags_dead: bool,
    next: Label,
}

/// An access to check before it is made.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub size: u8,
    pub write: bool,
    /// 1, or what it must be aligned to: `size` is a multiple of it.
    pub align: u8,
}

pub(super) struct Emitter<'a> {
    pub asm: &'a mut Asm,
    pub(super) handled: &'a mut Vec<Handled>,
    pub(super) stubs: Vec<Stub>,
    /// A return whose call has left nothing: where it goes, where it goes if the jump table has nothing either, and what it
    /// adds to the stack pointer.
    pub lost_return: Option<(Label, Label, i64)>,
    /// Jumps to offsets outside of the page.
    pub tails: Vec<(Label, i64)>,
    /// Jumps out of the middle of the block.
    pub asides: Vec<Aside>,
    /// Operands on the stack that may be in another page than the frame knows.
    pub(super) elsewhere: Vec<Elsewhere>,
    pub(super) block: u32,
    /// Offset of the current instruction in the page.
    pub off: u16,
    /// Instructions from it to the end of the block.
    pub left: u8,
    pub(super) len: u8,
    pub(super) branch: bool,
    pub(super) options: TranslatorOptions,
    /// 32-bit code in flat segments.
    pub(super) flat: bool,
    /// Those of the host may change before the current instruction.
    pub(super) flags_dead: bool,
    /// Those that it writes are looked at by none.
    pub(super) flags_stay_dead: bool,
    /// What is yet to be added to the guest's stack pointer. Nothing that may leave the block has been emitted since.
    pub(super) stack_moves: i64,
    /// The operand of the current instruction has been checked with others: its host address less the guest's is in `S1`.
    pub(super) checked: bool,
    /// The current instruction must leave `S1` alone.
    pub(super) keeps_s1: bool,
    /// Of a rest: what is looked up is the page of the operand itself.
    pub(super) apart: bool,
    /// What the registers hold where a rest begins that has groups.
    pub(super) start: Option<Registers>,
    /// There is a stub that may lead to a rest.
    pub(super) rests: bool,
    /// The current instruction as the guest has it.
    pub(super) insn: Instruction,
    /// Where the next instruction begins.
    pub(super) next: Label,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(
        asm: &'a mut Asm,
        handled: &'a mut Vec<Handled>,
        block: u32,
        off: u16,
        base: u64,
        options: TranslatorOptions,
        mode: u8,
    ) -> Emitter<'a> {
        asm.begin(base);
        let next = asm.label();
        Emitter {
            asm,
            handled,
            stubs: Vec::new(),
            lost_return: None,
            tails: Vec::new(),
            asides: Vec::new(),
            elsewhere: Vec::new(),
            block,
            off,
            left: 0,
            len: 0,
            branch: false,
            options,
            flat: mode != MODE_LONG,
            insn: Instruction::default(),
            flags_dead: false,
            flags_stay_dead: false,
            stack_moves: 0,
            checked: false,
            keeps_s1: false,
            apart: false,
            start: None,
            rests: false,
            next,
        }
    }

    /// The code of the block of these instructions; what of it seldom runs will run at `cold`.
    /// With `second`, the host address of the next page, which its instruction crosses into.
    /// `hows`: how each is translated; `after`: the flags that are looked at after it; `second_way`: what else a jump in it leads to.
    pub(super) fn block(
        mut self,
        insns: &[Instruction],
        hows: &[How],
        cold: u64,
        second: Option<u64>,
        after: u32,
        second_way: Option<fork::Planned<'_>>,
    ) -> Option<Made> {
        let start = self.off;
        let vectors = hows.iter().map(|h| h.vectors()).max()?;
        let live = liveness::of_block(insns, hows, after);
        self.left = insns.len() as u8;
        self.flags_dead = !self.options.exact_flags && live.first() == Some(&0);
        if is_loop(insns) {
            self.asm.pad(LINE, far_bytes(start));
        }
        let far = self.asm.here();
        self.asm.lea(S0, at(S2, -i64::from(start)));
        self.asm.store(frame!(page), S0);
        let near = self.asm.here();
        self.budget();
        let body = self.asm.here();
        if let Some(host) = second {
            self.crossing(host);
        }
        if vectors != Vectors::None {
            self.vectors(vectors);
        }
        let x87 = hows.contains(&How::X87);
        if x87 {
            self.look_at_x87();
        }
        let starts = self.instructions(insns, hows, &live)?;
        self.put_asides(insns.len(), second_way)?;
        self.put_tails();
        (self.off, self.left) = (start, 0);
        let dead = self.asm.label();
        self.stub(dead, Kind::Dead, None);
        self.asm.go_cold(cold);
        self.put_lost_return();
        self.put_elsewhere();
        self.put_stubs();
        let dead = self.asm.offset_of(dead);
        Some(Made {
            far: self.asm.address(far),
            near: self.asm.address(near),
            body: self.asm.address(body),
            dead: self.asm.address(dead),
            starts,
            vectors,
            x87,
            rests: self.rests,
            split: self.asm.split(),
            code: self.asm.finish()?,
        })
    }

    /// Takes the block's instructions from the slice; leaves if they are not in it.
    fn budget(&mut self) {
        let stub = self.asm.label();
        // The first five bytes of these are overwritten by a jump when the block is forgotten.
        if self.flags_dead {
            self.asm.sub(SLICE, i32::from(self.left));
            self.asm.jcc(Code::Jl_rel32_64, stub);
        } else {
            self.asm.lea(SLICE, at(SLICE, -i64::from(self.left)));
            self.asm.jmp_if_negative(SLICE, stub);
        }
        self.stub(stub, Kind::Leave, None);
    }

    /// Before an instruction that crosses into the next page: that must still be the frame at `host`.
    fn crossing(&mut self, host: u64) {
        let (stub, again) = (self.asm.label(), self.asm.label());
        self.asm.bind(again);
        self.asm.load(S2, frame!(page));
        self.move_address(S2, 4096);
        self.load_tag(S2, offset_of!(TlbEntry, neg_x));
        self.asm.lea(S0, indexed(S0, S2, 1, 0));
        self.asm.jmp_unless_zero(stub);
        self.asm.load(S1, delta());
        self.asm.lea(S2, indexed(S2, S1, 1, 0));
        self.asm.constant(S0, host.wrapping_neg());
        self.asm.lea(S0, indexed(S0, S2, 1, 0));
        self.asm.jmp_unless_zero(stub);
        self.stub(stub, Kind::Cross, None);
        self.last_stub().a = Some(again);
    }

    fn vectors(&mut self, wanted: Vectors) {
        let ymm = wanted == Vectors::Ymm;
        let away = if ymm {
            frame!(ymm_away)
        } else {
            frame!(vectors_away)
        };
        self.look_at(away, Kind::Vectors);
        self.last_stub().site.flags |= if ymm { YMM } else { 0 };
    }

    /// A callout unless a field of the frame is zero.
    pub(super) fn look_at(&mut self, away: MemoryOperand, kind: Kind) {
        let (stub, next) = (self.asm.label(), self.asm.label());
        if self.flags_dead {
            self.asm.test_mem(away, 1);
            self.asm.jcc(Code::Jne_rel32_64, stub);
        } else {
            self.asm.load(S0, away);
            self.asm.jmp_unless_zero(stub);
        }
        self.asm.bind(next);
        self.stub(stub, kind, None);
        self.last_stub().b = Some(next);
    }

    /// Nobody looks at the flags before the current instruction.
    pub(super) fn flags_dead(&self) -> bool {
        self.flags_dead
    }

    /// What stubs say of the current instruction.
    pub(super) fn here(&self) -> Here {
        Here {
            off: self.off,
            left: self.left,
            len: self.len,
            branch: self.branch,
            flags_dead: self.flags_dead,
            next: self.next,
        }
    }

    /// Stubs are of that instruction from now on.
    pub(super) fn return_to(&mut self, here: Here) {
        (self.off, self.left, self.len) = (here.off, here.left, here.len);
        (self.branch, self.flags_dead, self.next) = (here.branch, here.flags_dead, here.next);
    }

    /// Brings the place of the TLB entry of the page of `va` into `S1`, and the tag at `field` of it into `S0`.
    pub(super) fn load_tag(&mut self, va: Register, field: usize) {
        let shift = size_of::<TlbEntry>().trailing_zeros();
        if self.flags_dead {
            self.asm.rorx(S1, va, 12 - shift);
            self.asm.and(S1, (TLB_SIZE as i32 - 1) << shift);
        } else {
            self.asm.pext(S1, va, frame!(index_mask));
            self.asm.rorx(S1, S1, 64 - shift);
        }
        self.asm.load(S0, entry(field));
    }

    /// Checks that the operand at `ea` is in the TLB, and gives where the host has it.
    pub(super) fn check(&mut self, ea: Ea, wanted: Wanted) -> MemoryOperand {
        let (stub, hit) = (self.asm.label(), self.asm.label());
        let tag = if wanted.write {
            offset_of!(TlbEntry, neg_w)
        } else {
            offset_of!(TlbEntry, neg_r)
        };
        // The entry is that of the page of `ea.reg`. A displacement upwards leaves it, if at all, with the last byte, or with the
        // last piece of what is aligned; one downwards with the first.
        let disp = i64::from(ea.disp);
        let checked = if disp < 0 {
            disp
        } else {
            disp + i64::from(wanted.size - wanted.align)
        };
        self.load_tag(ea.reg, tag);
        self.asm.lea(S0, indexed(S0, ea.reg, 1, checked));
        if self.flags_dead {
            self.asm.test(S0, !0xfff | i32::from(wanted.align - 1));
            self.asm.jcc(Code::Jne_rel32_64, stub);
        } else {
            self.asm.pext(S0, S0, page_mask(wanted.align.trailing_zeros()));
            self.asm.jmp_unless_zero(stub);
        }
        self.asm.load(S1, delta());
        self.asm.bind(hit);
        self.stub(stub, Kind::Miss, Some(ea));
        let next = self.next;
        let s = self.last_stub();
        s.a = Some(ea.again);
        s.b = Some(next);
        s.hit = (disp != 0).then_some(hit);
        s.site.size = wanted.size;
        s.site.flags |= if wanted.write { WRITE } else { 0 } | alignment(wanted.align);
        indexed(ea.reg, S1, 1, disp)
    }

    /// As `check`, with these flags for the site.
    pub(super) fn check_for_site(&mut self, ea: Ea, wanted: Wanted, flags: u8) -> MemoryOperand {
        let operand = self.check(ea, wanted);
        self.last_stub().site.flags |= flags;
        operand
    }

    /// Checks all operands of a group, before its first instruction.
    pub(super) fn check_group(&mut self, g: Group) {
        (self.checked, self.keeps_s1) = (false, false);
        let (low, size, write, align) = (i64::from(g.low), g.size, g.write, g.align);
        let wanted = Wanted { size, write, align };
        let flags = GROUP | if g.late { LATE } else { 0 } | if g.early { EARLY } else { 0 };
        if g.base == Register::RSP && g.index.is_none() && self.by_frame(wanted) {
            self.check_by_frame(low, wanted, flags);
        } else {
            let ea = match g.index {
                Some(index) => self.indexed_at(g.base, index, low),
                None => self.address_at(g.base, low, usize::from(size)),
            };
            self.check_for_site(ea, wanted, flags);
        }
        if let Some(slot) = g.slot {
            self.asm.store(kept_delta(slot), S1);
        }
    }

    /// Leaves the instruction to its handler.
    fn handled(&mut self, i: &Instruction, end: bool) -> Option<()> {
        if reads_clock(i) && !self.options.same_blocks {
            return self.clock(i);
        }
        let stub = self.asm.label();
        self.asm.jmp(stub);
        self.handler_stub(i, stub, end)?;
        Some(())
    }

    /// One instruction; true if it ends the block.
    pub(super) fn instruction(&mut self, i: &Instruction, how: How) -> Option<bool> {
        let end = crate::cpu::decode::ends_block(i);
        let wide = match how {
            How::Same | How::Vector | How::Avx | How::X87 | How::Special if self.flat => flat::widened(i)?,
            _ => *i,
        };
        let i = &wide;
        match how {
            How::Nothing => {}
            How::Flow => {
                self.branch = true;
                return self.flow(i).map(|()| true);
            }
            How::Stack => self.stack(i)?,
            How::Same if self.added_to_stack(i).is_some() => {
                self.stack_moves += self.added_to_stack(i)?;
            }
            How::Same | How::Vector | How::Avx => self.same(i, how)?,
            How::X87 => self.x87(i)?,
            How::Special => self.special(i)?,
            How::Repeat => self.repeat(i)?,
            How::Handler => self.handled(i, end)?,
        }
        Some(end)
    }

    /// A load or store of 64 bits.
    pub(super) fn check_8(&mut self, ea: Ea, write: bool) -> MemoryOperand {
        let (size, align) = (8, 1);
        self.check(ea, Wanted { size, write, align })
    }

    /// The same at the stack pointer.
    pub(super) fn check_stack(&mut self, disp: i8, write: bool) -> MemoryOperand {
        if self.checked {
            return indexed(GUEST_RSP, S1, 1, self.stack_moves + i64::from(disp));
        }
        let (size, align) = (8, 1);
        let wanted = Wanted { size, write, align };
        if self.by_frame(wanted) {
            self.check_by_frame(disp.into(), wanted, 0);
            return indexed(GUEST_RSP, S1, 1, disp.into());
        }
        let ea = self.address_at(Register::RSP, disp.into(), 8);
        self.check(ea, wanted);
        indexed(GUEST_RSP, S1, 1, disp.into())
    }

    /// Ends the block at an offset from the page's start.
    pub(super) fn go_to(&mut self, target: i64) {
        if !(0..4096).contains(&target) {
            self.put_far_jump(target);
            return;
        }
        let stub = self.asm.label();
        self.asm.jmp(stub);
        let field = self.asm.here() - 4;
        self.leave_to(stub, target, field);
    }

    /// Ends it there if a condition holds.
    pub(super) fn go_if(&mut self, jcc: Code, target: i64) {
        let stub = self.asm.label();
        self.asm.jcc(jcc, stub);
        let field = self.asm.here() - 4;
        self.leave_to(stub, target, field);
    }
}

/// A field of the TLB entry whose place is in `S1`.
fn entry(field: usize) -> MemoryOperand {
    indexed(Register::RSP, S1, 1, TLB_AT + field as i64)
}

/// What that entry says is to be added to the guest's addresses.
pub(super) fn delta() -> MemoryOperand {
    entry(offset_of!(TlbEntry, delta))
}

/// Where a group's delta is kept.
pub(super) fn kept_delta(slot: u8) -> MemoryOperand {
    let at_0 = offset_of!(Frame, deltas) as i64;
    at(Register::RSP, at_0 + 8 * i64::from(slot))
}

/// Zero, if `word` says that the page in `page` shows the code with this key, which is patched later.
pub(super) fn page_of_code(word: Register, page: Register, key: i32) -> MemoryOperand {
    MemoryOperand::new(word, page, 1, key.into(), 8, false, Register::None)
}

/// The bits that an offset in its page has none of, if an operand is aligned to 1 << n bytes.
pub(super) fn page_mask(n: u32) -> MemoryOperand {
    let at_0 = offset_of!(Frame, page_masks) as i64;
    at(Register::RSP, at_0 + 8 * i64::from(n))
}

/// What the memory operand, which is number `n`, asks for.
pub(super) fn wanted(i: &Instruction, n: u32, how: How) -> Option<Wanted> {
    let write = access_of(i, n)?;
    let size = u8::try_from(i.memory_size().size()).ok().filter(|&n| n > 0)?;
    Some(Wanted {
        size,
        write,
        align: match select::must_be_aligned(i, how) && size.is_power_of_two() {
            true => size,
            false => 1,
        },
    })
}

/// Replaces the memory operand.
pub(super) fn put_memory(i: &mut Instruction, m: &MemoryOperand) {
    i.set_segment_prefix(Register::None);
    i.set_memory_base(m.base);
    i.set_memory_index(m.index);
    i.set_memory_index_scale(m.scale);
    i.set_memory_displacement64(m.displacement as u64);
    i.set_memory_displ_size(m.displ_size);
}
