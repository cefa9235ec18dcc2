// SPDX-License-Identifier: Apache-2.0
//! Memory operands near each other that one check is made for: those of a prologue, or the fields of a structure.

use super::emit::wanted;
use super::flow::{self, is_call, is_conditional};
use super::operand::{guest, host_index, indexed_base, place, Index, Place};
use super::select::{counts_by_cl, gives_index, How};
use crate::cpu::exec::fast::lower::immediate;
use crate::cpu::exec::operand::memory_operand;
use crate::cpu::region::{DELTAS, SPILLED, STACK_SPAN};
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// Bytes that a group spans at most. The more they are, the more often they lie in two pages, and are left to the interpreter.
const SPAN: i64 = STACK_SPAN as i64;

/// Operands at displacements from one register, or from a sum of two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub base: Register,
    /// What is added to it.
    pub index: Option<Index>,
    /// Where the operands begin, from what the registers hold at the first of them.
    pub low: i32,
    pub size: u8,
    pub write: bool,
    /// The block may be left before it stores: the page is taken only if it has been stored to before.
    pub late: bool,
    /// Between its check and its first operand the block may be left.
    pub early: bool,
    /// What one of them must be aligned to, as all are from it on: 1, or 16 or 32 of vector registers.
    pub align: u8,
    /// Where the frame keeps what to add to their addresses, if other instructions need the register for it in between.
    pub slot: Option<u8>,
}

impl Group {
    /// What an instruction adds to the address; `None` if that is not known.
    fn moves(&self, i: &Instruction, how: How, factory: &mut InstructionInfoFactory) -> Option<i64> {
        let by = moves(i, how, self.base, factory)?;
        match self.index {
            Some((host, scale)) => Some(by + i64::from(scale) * moves(i, how, guest(host), factory)?),
            None => Some(by),
        }
    }
}

/// What the groups of a block mean for one of its instructions.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    /// The checks of these groups are made before it, in this order. Its own group is the last.
    pub checks: Vec<Group>,
    /// Its operand is one of a group's.
    pub member: bool,
    /// What to add to its address is in this slot of the frame.
    pub load: Option<u8>,
    /// It must leave `S1` alone.
    pub keeps_s1: bool,
}

struct Access {
    base: Register,
    index: Option<Index>,
    disp: i64,
    size: u8,
    write: bool,
    align: u8,
}

/// A group that operands are still found for.
struct Open {
    group: Group,
    low: i64,
    high: i64,
    /// An operand that must be aligned, and to what; the range begins and ends at such a distance from it.
    anchor: (i64, u8),
    /// What has been added to the base since the first operand.
    moved: i64,
    /// Between the first operand and here the block may have been left: no page is written to from here on that was not before. Of
    /// the stack this is known when the check is made.
    settled: bool,
    /// Where the page of the first operand begins, if that is known.
    page: Option<i64>,
    members: Vec<usize>,
}

impl Open {
    fn new(n: usize, a: &Access, page: Option<i64>) -> Open {
        Open {
            group: Group {
                base: a.base,
                index: a.index,
                low: 0,
                size: 0,
                write: a.write,
                late: false,
                early: false,
                align: 1,
                slot: None,
            },
            low: a.disp,
            high: a.disp + i64::from(a.size),
            anchor: (a.disp, a.align),
            moved: 0,
            settled: false,
            page,
            members: vec![n],
        }
    }

    /// Takes an operand in, if it suits.
    fn takes(&mut self, n: usize, a: &Access) -> bool {
        let (from, to) = (self.moved + a.disp, self.moved + a.disp + i64::from(a.size));
        let anchor = match (self.anchor.1, a.align) {
            (_, 1) => self.anchor,
            (1, align) => (from, align),
            (align, other) if align == other && (from - self.anchor.0) % i64::from(align) == 0 => self.anchor,
            _ => return false,
        };
        let (low, high) = aligned_to(anchor, self.low.min(from), self.high.max(to));
        let late = self.settled && a.write && !self.group.write;
        let in_page = self.page.is_none_or(|page| low >= page && high <= page + 4096);
        if high - low > SPAN || !in_page || late && a.base != Register::RSP {
            return false;
        }
        self.group.late |= late;
        (self.low, self.high, self.anchor) = (low, high, anchor);
        self.group.write |= a.write;
        self.members.push(n);
        true
    }

    fn registers(&self) -> (Register, Option<Index>) {
        (self.group.base, self.group.index)
    }

    fn done(self) -> Option<Planned> {
        let group = Group {
            low: i32::try_from(self.low).ok()?,
            size: u8::try_from(self.high - self.low).ok()?,
            align: self.anchor.1,
            ..self.group
        };
        Some(Planned {
            group,
            at: self.members[0],
            members: self.members,
        })
    }
}

/// A group, and before which instruction its check is made: its first member, or one before that.
struct Planned {
    group: Group,
    at: usize,
    members: Vec<usize>,
}

impl Planned {
    /// The same with its check where nobody looks at the flags, if its first operand is where somebody does. A check that the block may be
    /// left before, or after which something may happen before the first store, is made so early for the stack only.
    fn earlier(
        &self,
        insns: &[Instruction],
        hows: &[How],
        (busy, dead): (&[bool], &dyn Fn(usize) -> bool),
        factory: &mut InstructionInfoFactory,
    ) -> Option<Planned> {
        if dead(self.at) {
            return None;
        }
        let (mut group, mut moved, mut settled) = (self.group, 0, false);
        let stack = group.base == Register::RSP && group.index.is_none();
        for at in (0..self.at).rev() {
            let (i, how) = (&insns[at], hows[at]);
            if matches!(how, How::Handler | How::Repeat) {
                return None;
            }
            moved += group.moves(i, how, factory)?;
            settled |= busy[at] || is_conditional(i);
            if !small(&moved) || !stack && (is_conditional(i) || settled && group.write) {
                return None;
            }
            if dead(at) {
                group.low = i32::try_from(i64::from(group.low) + moved).ok()?;
                group.late |= settled && group.write;
                group.early = settled;
                let members = self.members.clone();
                return Some(Planned { group, at, members });
            }
        }
        None
    }
}

/// What registers hold where a block begins: groups are made so that they lie in one page each then.
pub(super) type Registers = [u64; 16];

/// Where the page of an operand of instruction `n` begins, from what its registers hold there.
fn page_of(
    n: usize,
    a: &Access,
    insns: &[Instruction],
    hows: &[How],
    registers: &Registers,
    factory: &mut InstructionInfoFactory,
) -> Option<i64> {
    let group = Open::new(n, a, None).group;
    let mut sum = *registers.get(a.base.number())?;
    if let Some((host, scale)) = a.index {
        let index = *registers.get(guest(host).number())?;
        sum = sum.wrapping_add(index.wrapping_mul(scale.into()));
    }
    for (i, &how) in insns.iter().zip(hows).take(n) {
        sum = sum.wrapping_add(group.moves(i, how, factory)? as u64);
    }
    Some(a.disp - (sum.wrapping_add(a.disp as u64) & 0xfff) as i64)
}

/// The groups of a block; `dead`: whether nobody looks at the flags from an instruction on before they are written again.
pub(super) fn plan(
    insns: &[Instruction],
    hows: &[How],
    dead: &dyn Fn(usize) -> bool,
    registers: Option<&Registers>,
) -> Vec<Part> {
    let mut factory = InstructionInfoFactory::new();
    let mut open: Vec<Open> = Vec::new();
    let mut done = Vec::new();
    // Instructions that need `S1`, or a callout.
    let mut busy = Vec::with_capacity(insns.len());
    for (n, (i, &how)) in insns.iter().zip(hows).enumerate() {
        let mut own = None;
        if let Some(a) = access(i, how) {
            own = Some((a.base, a.index));
            let at = open.iter().position(|o| own == Some(o.registers()));
            let taken = at.and_then(|at| open.get_mut(at)).is_some_and(|o| o.takes(n, &a));
            if !taken {
                done.extend(at.map(|at| open.swap_remove(at)));
                let page = registers.and_then(|r| page_of(n, &a, insns, hows, r, &mut factory));
                open.push(Open::new(n, &a, page));
            }
        }
        busy.push(!leaves_scratch(i, how));
        let settles = own.is_some() || *busy.last().unwrap_or(&true) || is_conditional(i);
        let handled = matches!(how, How::Handler | How::Repeat);
        for at in (0..open.len()).rev() {
            let o = &mut open[at];
            o.settled |= settles && Some(o.registers()) != own;
            match o.group.moves(i, how, &mut factory) {
                Some(by) if !handled && small(&(o.moved + by)) => o.moved += by,
                _ => done.push(open.swap_remove(at)),
            }
        }
    }
    done.extend(open);
    let mut groups: Vec<_> = done.into_iter().filter_map(Open::done).collect();
    for group in &mut groups {
        if let Some(earlier) = group.earlier(insns, hows, (&busy, dead), &mut factory) {
            *group = earlier;
        }
    }
    groups.retain(|g| g.members.len() > 1 || g.at < g.members[0]);
    // Of those that are checked before the same instruction, its own is the last.
    groups.sort_by_key(|g| (g.at, g.at == g.members[0]));
    parts(groups, &busy)
}

/// What the groups, in the order of their checks, mean for each instruction.
fn parts(groups: Vec<Planned>, busy: &[bool]) -> Vec<Part> {
    let mut parts = vec![Part::default(); busy.len()];
    // From where on each slot is free.
    let mut taken = [0; DELTAS];
    let mut member_of_any = vec![false; busy.len()];
    let mut checks = vec![0; busy.len()];
    for g in &groups {
        g.members.iter().for_each(|&n| member_of_any[n] = true);
        checks[g.at] += 1;
    }
    for Planned {
        mut group,
        at,
        mut members,
    } in groups
    {
        let early = at < members[0];
        let free = |n: usize| !busy[n] && !member_of_any[n];
        let others = |n: usize| checks[n] > usize::from(n == at);
        // Nothing needs the register between a member, or the early check, and the next member.
        let near = |from: usize, to: usize| (from + 1..to).all(free) && !(from + 1..=to).any(others);
        let near_check = !early || free(at) && !others(at) && near(at, members[0]);
        let near_pair = |pair: &[usize]| near(pair[0], pair[1]);
        let last = members[members.len() - 1];
        if !(near_check && members.windows(2).all(near_pair)) {
            match taken.iter().position(|&to| to <= at) {
                Some(slot) => {
                    taken[slot] = last + 1;
                    group.slot = Some(slot as u8);
                }
                // There is none for a check that is made early: each operand has its own.
                None if !near_check => continue,
                None => {
                    let n = members.windows(2).take_while(|pair| near_pair(pair)).count();
                    members.truncate(n + 1);
                }
            }
        }
        if members.len() < 2 && !early {
            continue;
        }
        parts[at].checks.push(group);
        if near_check {
            (at..members[0]).for_each(|n| parts[n].keeps_s1 = true);
        } else {
            parts[members[0]].load = group.slot;
        }
        for pair in members.windows(2) {
            if near_pair(pair) {
                (pair[0]..pair[1]).for_each(|n| parts[n].keeps_s1 = true);
            } else {
                parts[pair[1]].load = group.slot;
            }
        }
        members.iter().for_each(|&n| parts[n].member = true);
    }
    parts
}

/// A range made wider, so that it begins and ends at multiples of the anchor's alignment from it. What is aligned lies in one page with
/// the bytes that are added.
fn aligned_to((anchor, align): (i64, u8), low: i64, high: i64) -> (i64, i64) {
    let align = i64::from(align);
    (
        low - (low - anchor).rem_euclid(align),
        high + (anchor - high).rem_euclid(align),
    )
}

/// The one operand in memory, if it can be part of a group.
fn access(i: &Instruction, how: How) -> Option<Access> {
    let stack = |disp, write| {
        let (base, size) = (Register::RSP, 8);
        Some(Access {
            base,
            index: None,
            disp,
            size,
            write,
            align: 1,
        })
    };
    match how {
        How::Stack if matches!(i.code(), Code::Push_r64 | Code::Pushq_imm8 | Code::Pushq_imm32) => {
            stack(-8, true)
        }
        How::Stack if i.code() == Code::Push_rm64 && i.op0_kind() == OpKind::Register => stack(-8, true),
        How::Stack if i.code() == Code::Pop_r64 && i.op0_register() != Register::RSP => stack(0, false),
        How::Flow if is_call(i) || calls_by_register(i) => stack(-8, true),
        How::Flow if matches!(i.code(), Code::Retnq | Code::Retnq_imm16) => stack(0, false),
        How::Same | How::Vector | How::Avx | How::X87
            if !matches!(i.mnemonic(), Mnemonic::Lea | Mnemonic::Fldcw) =>
        {
            let n = memory_operand(i)?;
            let w = wanted(i, n, how)?;
            let disp = i.memory_displacement64() as i64;
            // What is locked is for its handler if it is not aligned, and nothing before it.
            let locked = how == How::Same && w.align > 1;
            let suits = !locked && !counts_by_cl(i) && spilled(i) <= 1;
            (suits && small(&disp)).then_some(Access {
                base: indexed_base(i)?,
                index: host_index(i)?,
                disp,
                size: w.size,
                write: w.write,
                align: w.align,
            })
        }
        _ => None,
    }
}

/// Whether an instruction without a memory operand leaves `S1` alone.
fn leaves_scratch(i: &Instruction, how: How) -> bool {
    match how {
        How::Nothing => true,
        // A call whose operand is no group's checks it by itself.
        How::Flow => is_jump(i),
        How::Same | How::Vector | How::Avx | How::X87 => {
            if i.mnemonic() == Mnemonic::Lea {
                return !matches!(place(i.memory_index()), Place::Spilled(_));
            }
            memory_operand(i).is_none()
                && !gives_index(i)
                && spilled(i) <= if counts_by_cl(i) { 1 } else { 2 }
        }
        _ => false,
    }
}

/// What an instruction adds to `base`; `None` if that is not known.
fn moves(i: &Instruction, how: How, base: Register, factory: &mut InstructionInfoFactory) -> Option<i64> {
    let stack = base == Register::RSP;
    match how {
        How::Flow if is_call(i) => return Some(if stack { -8 } else { 0 }),
        How::Flow => return is_jump(i).then_some(0),
        How::Stack if i.mnemonic() == Mnemonic::Push => return Some(if stack { -8 } else { 0 }),
        How::Stack if i.mnemonic() == Mnemonic::Pop => {
            let by = if stack { 8 } else { 0 };
            return (i.op0_register() != base).then_some(by);
        }
        _ => {}
    }
    if let Some(by) = adds_to(i, base) {
        return Some(by);
    }
    let written = factory.info(i).used_registers().iter().any(|r| {
        r.register().full_register() == base
            && !matches!(r.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead)
    });
    (!written).then_some(0)
}

/// What an instruction that does nothing else, but for flags, adds to a register of 64 bits.
pub(super) fn adds_to(i: &Instruction, base: Register) -> Option<i64> {
    if i.op0_kind() != OpKind::Register || i.op0_register() != base {
        return None;
    }
    let by = match i.mnemonic() {
        Mnemonic::Add => immediate(i, 1)? as i64,
        Mnemonic::Sub => -(immediate(i, 1)? as i64),
        Mnemonic::Lea if i.memory_base() == base && i.memory_index() == Register::None => {
            i.memory_displacement64() as i64
        }
        _ => return None,
    };
    Some(by).filter(small)
}

/// An indirect call whose target is in a register: its one operand in memory is what it pushes.
fn calls_by_register(i: &Instruction) -> bool {
    i.code() == Code::Call_rm64 && i.op0_kind() == OpKind::Register
}

/// Whether it is a jump that a block may go on after.
fn is_jump(i: &Instruction) -> bool {
    is_conditional(i) || flow::is_jump(i)
}

/// Whether it is no more than structures and stack frames have.
fn small(n: &i64) -> bool {
    (-1 << 20..1 << 20).contains(n)
}

/// Register operands that must be brought into a scratch register.
fn spilled(i: &Instruction) -> usize {
    let mut seen = [false; SPILLED];
    for n in (0..i.op_count()).filter(|&n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_gpr()) {
        if let Place::Spilled(k) = place(i.op_register(n)) {
            seen[k] = true;
        }
    }
    seen.iter().filter(|&&s| s).count()
}

#[cfg(test)]
mod tests;
