// SPDX-License-Identifier: Apache-2.0
//! Proof that a block's code does what it may: each access to guest memory is behind the check of its bytes, and no jump leaves translated
//! code but to what is known.
//!
//! The code is decoded again and followed on all its ways, with what is known of each register (`value`); nothing that
//! the emitter thought is taken over but the guest's instructions and where the entries are. What is proved, and what is not: docs/internals/translator.md.

mod operands;
mod rest;
mod rules;
mod step;
#[cfg(test)]
mod tests;
mod value;
mod x87;

use super::asm::{S0, S1, S2};
use super::callout::{Kind, Site, BRANCH, GROUP, SITE_BYTES, WRITE, YMM};
use super::operand::{place, Place as Home};
use super::{Handled, CALL_BYTES};
use crate::cpu::exec::fast::string::repeated;
use crate::cpu::region::NO_KEY;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic as M, OpAccess,
    OpKind, Register,
};
use operands::{field, Where};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use step::{if_zero, Step, Why};
use value::{Bytes, Extent, Fact, Names, Place, Right, State, Value, OWN_PAGE, TARGET};
use Register as R;

/// A block's code, and what it is of.
pub(super) struct Subject<'a> {
    /// Where each of its two pieces runs, and its bytes.
    pub pieces: [(u64, &'a [u8]); 2],
    pub far: u64,
    pub near: u64,
    pub body: u64,
    pub dead: u64,
    /// Offset in the page.
    pub off: u16,
    pub block: u32,
    pub insns: &'a [Instruction],
    /// Those of each second way from the block's first one on.
    pub forked: &'a [Vec<Instruction>],
    pub handled: &'a [Handled],
}

impl<'a> Subject<'a> {
    /// The instructions of each way of the block.
    fn ways(&self) -> impl Iterator<Item = &'a [Instruction]> {
        std::iter::once(self.insns).chain(self.forked.iter().map(Vec::as_slice))
    }
}

/// A place outside of the block that jumps may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outside {
    /// The entry of another block of the same frame.
    Same,
    /// That of a block of a frame whose code has this key.
    Near(i32),
    /// An entry that finds its page by r11.
    Far,
    /// The body of code of this block's last instructions, so many: a rest of it.
    Rest(usize),
}

/// Code that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}, at {at:x}: {text}")]
pub(super) struct Refused {
    pub at: u64,
    pub why: Why,
    pub text: String,
}

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Proved {
    /// Instructions of the host's.
    pub instructions: usize,
    /// Those of them that access guest memory.
    pub accesses: usize,
}

/// Ways that are followed again at most, for each instruction.
const ROUNDS: usize = 64;

struct Proof<'a> {
    s: &'a Subject<'a>,
    outside: &'a dyn Fn(u64) -> Option<Outside>,
    factory: InstructionInfoFactory,
    names: Names,
    /// What is known at a place, by each way there and by all together.
    ways: HashMap<u64, BTreeMap<(u64, u8), State>>,
    states: HashMap<u64, State>,
    /// Places to go on from: stubs first, then in order, so that all ways to a place are known when it is come to.
    todo: BTreeSet<(bool, u64)>,
    /// Where instructions begin and end.
    seen: BTreeMap<u64, u64>,
    /// Which instructions follow which without a callout.
    edges: HashMap<u64, HashSet<u64>>,
    accesses: HashSet<u64>,
}

/// Proves a block's code; `outside` says what a place outside of it is.
pub(super) fn prove(s: &Subject<'_>, outside: &dyn Fn(u64) -> Option<Outside>) -> Result<Proved, Refused> {
    let p = walked(s, outside)?;
    Ok(Proved {
        instructions: p.seen.len(),
        accesses: p.accesses.len(),
    })
}

/// The same, with all that was found out on the way.
fn walked<'a>(s: &'a Subject<'a>, outside: &'a dyn Fn(u64) -> Option<Outside>) -> Result<Proof<'a>, Refused> {
    let mut p = Proof {
        s,
        outside,
        factory: InstructionInfoFactory::new(),
        names: Names::default(),
        ways: HashMap::new(),
        states: HashMap::new(),
        todo: BTreeSet::new(),
        seen: BTreeMap::new(),
        edges: HashMap::new(),
        accesses: HashSet::new(),
    };
    let count = s.insns.len() as i64;
    let own = Value::Sum(Place {
        name: OWN_PAGE,
        plus: 0,
    });
    let mut far = State::new(Value::Any, 0, 0);
    far.set(
        S2,
        Value::Sum(Place {
            name: TARGET,
            plus: 0,
        }),
    );
    p.reach((0, 0), s.far, far);
    p.reach((0, 0), s.near, State::new(own, 0, 0));
    p.reach((0, 0), s.body, State::new(own, count, count));
    // Its entry leads there when it is forgotten.
    p.reach((0, 0), s.dead, State::new(own, 0, 0));
    let mut left = ROUNDS * (s.pieces[0].1.len() + s.pieces[1].1.len());
    while let Some((_, at)) = p.todo.pop_first() {
        left = left
            .checked_sub(1)
            .ok_or_else(|| p.refused(at, "a way without an end"))?;
        let state = p.states[&at].clone();
        // It may be that not all ways are known yet as they are at last.
        let _ = p.follow(at, state);
    }
    let all: Vec<_> = p.states.iter().map(|(&at, s)| (at, s.clone())).collect();
    for (at, state) in all {
        p.follow(at, state).map_err(|why| p.refused(at, why))?;
    }
    p.no_overlap()?;
    p.no_loop()?;
    Ok(p)
}

impl Proof<'_> {
    fn bytes(&self, at: u64) -> Option<&[u8]> {
        self.s.pieces.iter().find_map(|&(base, bytes)| {
            let from = usize::try_from(at.checked_sub(base)?).ok()?;
            bytes.get(from..).filter(|b| !b.is_empty())
        })
    }

    fn decode(&self, at: u64) -> Option<Instruction> {
        let i = Decoder::with_ip(64, self.bytes(at)?, at, DecoderOptions::NONE).decode();
        (!i.is_invalid()).then_some(i)
    }

    fn refused(&self, at: u64, why: Why) -> Refused {
        let text = self
            .decode(at)
            .map_or_else(|| "no instruction".into(), |i| i.to_string());
        Refused { at, why, text }
    }

    /// Execution may come here with this state, by way `way` of what is at `from`. A value may have another name than the last time,
    /// so what was known by the same way before is forgotten.
    fn reach(&mut self, (from, way): (u64, u8), at: u64, state: State) {
        let ways = self.ways.entry(at).or_default();
        ways.insert((from, way), state);
        let mut all = ways.values();
        let Some(mut known) = all.next().cloned() else {
            return;
        };
        all.for_each(|other| known.meet(other));
        if self.states.get(&at) != Some(&known) {
            self.states.insert(at, known);
            let (hot, code) = self.s.pieces[0];
            let runs_often = (hot..hot + code.len() as u64).contains(&at);
            self.todo.insert((runs_often, at));
        }
    }

    /// The same from the instruction before.
    fn lead(&mut self, (from, way): (u64, u8), to: u64, state: State) -> Result<(), Why> {
        let entry = [self.s.far, self.s.near, self.s.body].contains(&to);
        if to == self.s.near && from < to && self.s.far <= from {
            // From the entry of other pages to that of this one.
            self.edges.entry(from).or_default().insert(to);
            self.own_page(&state)?;
            return Ok(());
        }
        if self.bytes(to).is_some() && (!entry || to == self.s.body && from < to && self.s.near <= from) {
            self.edges.entry(from).or_default().insert(to);
            self.reach((from, way), to, state);
            return Ok(());
        }
        self.exit(&state)?;
        let found = match entry {
            true if to == self.s.near => Some(Outside::Same),
            true => return Err("a jump into the middle of the block's own entry"),
            false => (self.outside)(to),
        };
        match found {
            Some(Outside::Same) => self.own_page(&state),
            Some(Outside::Near(key)) => match state.shows {
                // What it led to was forgotten: no page shows that key.
                Some((_, NO_KEY)) => Ok(()),
                Some((of, k)) if k == key && state.page == Value::Sum(of) => Ok(()),
                _ => Err("a jump to another page that was not compared"),
            },
            Some(Outside::Far) => Err("a jump to an entry that looks for its page"),
            Some(Outside::Rest(count)) => self.rest(from, count, &state),
            None => Err("a jump to nothing that is known"),
        }
    }

    /// The frame has the block's own page.
    fn own_page(&self, state: &State) -> Result<(), Why> {
        let from_target = Place {
            name: TARGET,
            plus: -i64::from(self.s.off),
        };
        match state.page {
            Value::Sum(p) if p == from_target || (p.name, p.plus) == (OWN_PAGE, 0) => Ok(()),
            _ => Err("a jump within a page that the frame does not have"),
        }
    }

    /// Code may be left.
    fn exit(&self, state: &State) -> Result<(), Why> {
        let most = self.s.ways().map(<[_]>::len).max().unwrap_or(0) as i64;
        match state.taken() {
            Some(taken) if (1..=most).contains(&taken) => self.clean(state),
            Some(_) => Err("a slice from which something else was taken"),
            None => Err("instructions that the slice may not have"),
        }
    }

    /// No register of the guest's has an address of the host's.
    fn clean(&self, state: &State) -> Result<(), Why> {
        let scratch = [S0, S1, S2, R::R15, R::RSP].map(|r| value::number(r).unwrap_or(0));
        let of_guest = |(n, v): (usize, &Value)| scratch.contains(&n) || !v.is_of_host();
        match state.regs.iter().enumerate().all(of_guest) && state.spilled.iter().all(|v| !v.is_of_host()) {
            true => Ok(()),
            false => Err("an address of the host's in a register of the guest's"),
        }
    }

    fn follow(&mut self, at: u64, mut state: State) -> Result<(), Why> {
        let i = self.decode(at).ok_or("no instruction")?;
        let next = i.next_ip();
        self.seen.insert(at, next);
        match i.flow_control() {
            FlowControl::Next => {
                let mut step = Step::new(&mut state, &i, &mut self.factory, &mut self.names);
                if i.mnemonic() != M::Lea && step.touches_guest() {
                    if step.state.taken().is_none() {
                        return Err("an access that the slice may not have");
                    }
                    self.accesses.insert(at);
                }
                step.take()?;
                if i.code() == Code::Lea_r64_m && i.memory_base() == R::RIP {
                    self.code_address(at, i.memory_displacement64())?;
                }
                self.lead((at, 0), next, state)
            }
            FlowControl::UnconditionalBranch if i.is_jmp_short_or_near() => {
                self.lead((at, 0), i.near_branch64(), state)
            }
            FlowControl::ConditionalBranch => self.branch(at, &i, state),
            FlowControl::IndirectBranch if i.code() == Code::Jmp_rm64 && i.op0_kind() == OpKind::Memory => {
                self.exit(&state)?;
                let mut step = Step::new(&mut state, &i, &mut self.factory, &mut self.names);
                let to = match step.operand()? {
                    Where::LineCode { known } => known,
                    Where::Frame(from) if from == field!(kept) => match state.kept[0] {
                        Value::Code { of } => of,
                        _ => None,
                    },
                    _ => None,
                };
                match to {
                    Some(of) if state.reg(S2) == Value::Sum(of) => Ok(()),
                    Some(_) => Err("a jump to code of another address than r11 has"),
                    None => Err("a jump to what is not known to be code"),
                }
            }
            FlowControl::IndirectCall if i.code() == Code::Call_rm64 && i.op0_kind() == OpKind::Memory => {
                let mut step = Step::new(&mut state, &i, &mut self.factory, &mut self.names);
                match step.operand()? {
                    Where::Frame(to) if to == field!(callout) => self.callout(next, state),
                    Where::Frame(to) if to == field!(clock) => {
                        for r in [S0, S1, S2, R::RAX, R::RDX] {
                            state.set(r, Value::Any);
                        }
                        self.lead((at, 0), next, state)
                    }
                    _ => Err("a call of something else than callouts and the clock"),
                }
            }
            _ => Err("a jump of a kind that translated code has not"),
        }
    }

    fn branch(&mut self, at: u64, i: &Instruction, state: State) -> Result<(), Why> {
        let (mut taken, mut not) = (state.clone(), state);
        let learn = |s: &mut State, fact: Option<Fact>| {
            if let Some(fact) = fact {
                s.learn(fact);
            }
        };
        match i.code() {
            Code::Jrcxz_rel8_64 => {
                let fact = if_zero(taken.reg(R::RCX)).filter(|f| !matches!(f, Fact::Afforded(_)));
                learn(&mut taken, fact);
            }
            Code::Jecxz_rel8_64 => {
                let fact = if_zero(taken.reg(R::RCX)).filter(|f| matches!(f, Fact::Afforded(_)));
                learn(&mut taken, fact);
            }
            _ if !i.is_jcc_short_or_near() => return Err("a jump of a kind that translated code has not"),
            _ => match i.mnemonic() {
                M::Jne => {
                    let fact = not.zero;
                    learn(&mut not, fact);
                }
                M::Je => {
                    let fact = taken.zero;
                    learn(&mut taken, fact);
                }
                M::Jae => {
                    let fact = not.carry;
                    learn(&mut not, fact);
                }
                M::Jl => {
                    let fact = not.slice_sign.map(Fact::Afforded);
                    learn(&mut not, fact);
                }
                _ => {}
            },
        }
        self.lead((at, 1), i.near_branch64(), taken)?;
        self.lead((at, 0), i.next_ip(), not)
    }

    /// Code whose address is kept for a return.
    fn code_address(&mut self, at: u64, to: u64) -> Result<(), Why> {
        if self.bytes(to).is_some() {
            if to != self.s.far {
                // A stub, which only a callout leaves.
                self.reach((at, 0), to, State::new(Value::Any, 1, 1));
            }
            return Ok(());
        }
        match (self.outside)(to) {
            Some(Outside::Far) => Ok(()),
            _ => Err("the address of what is no code for a return"),
        }
    }

    /// The site at `at`, and the ways on from it.
    fn callout(&mut self, at: u64, mut state: State) -> Result<(), Why> {
        let bytes = self.bytes(at).and_then(|b| b.get(..SITE_BYTES));
        let site = bytes.and_then(site_of).ok_or("a callout without a site")?;
        self.seen.insert(at, at + SITE_BYTES as u64);
        let there = |rel: i32| at.wrapping_add(rel as i64 as u64);
        if site.block != self.s.block {
            return Err("a site of another block");
        }
        self.clean(&state)?;
        let of_insn = matches!(site.kind, Kind::Miss | Kind::Exec | Kind::End);
        // The instruction, on one of the ways that take as much from the slice.
        let taken = state.reg(R::R15);
        let s = self.s;
        let insn = s.ways().find_map(|way| {
            let i = way.get(way.len().checked_sub(site.left.into())?)?;
            let fits = i.ip() as u16 == site.off && (!of_insn || i.len() as u8 == site.len);
            (taken == Value::Slice(way.len() as i64) && fits).then_some(i)
        });
        let whole = of_insn || matches!(site.kind, Kind::Leave | Kind::Vectors | Kind::X87 | Kind::Cross);
        if whole {
            if insn.is_none() {
                return Err("a site of another instruction");
            }
            let first = site.left as usize == self.s.insns.len() && taken == Value::Slice(site.left.into());
            match site.kind {
                Kind::Leave if !first => return Err("a block that is left with a part of it done"),
                Kind::Leave => {}
                _ if state.taken().is_none() => return Err("instructions that the slice may not have"),
                _ => {}
            }
        } else if site.kind == Kind::Dead {
            if at != self.s.dead + CALL_BYTES || site.off != self.s.off {
                return Err("a site of a forgotten block, in one that is not");
            }
        } else if site.kind != Kind::Return {
            self.exit(&state)?;
        }
        if matches!(site.kind, Kind::Exec | Kind::End) {
            let right = match self.s.handled.get(site.a as usize) {
                Some(Handled::Slow(i, _)) => {
                    Some(i) == insn && insn.is_some_and(|other| i.len() == other.len())
                }
                Some(&Handled::Repeat(own)) => insn
                    .and_then(repeated)
                    .is_some_and(|f| f as usize == own as usize),
                None => false,
            };
            if !right {
                return Err("a handler of another instruction");
            }
        }
        let va = state.reg(S2);
        if site.kind == Kind::Miss {
            let looked_up = match state.reg(S1) {
                Value::Entry { of, .. } => Some(Value::Sum(Place {
                    plus: of.plus.wrapping_add(site.disp.into()),
                    ..of
                })),
                _ => None,
            };
            if looked_up != Some(va) {
                return Err("a callout for another address than the one that was looked up");
            }
        }
        for r in [S0, S1] {
            state.set(r, Value::Any);
        }
        // The frame may have another page of the stack.
        (state.delta, state.stack) = (Value::Any, None);
        match site.kind {
            Kind::Miss => {
                self.reach((at, 0), there(site.a), state.clone());
                if site.disp != 0 {
                    let mut hit = state.clone();
                    if let Value::Sum(p) = va {
                        let right = if site.flags & WRITE != 0 {
                            Right::Write
                        } else {
                            Right::Read
                        };
                        hit.delta = Value::Delta(Bytes {
                            name: p.name,
                            low: p.plus,
                            high: Extent::At(p.plus + i64::from(site.size)),
                            right,
                        });
                    }
                    self.reach((at, 1), at + SITE_BYTES as u64, hit);
                }
                if site.flags & (GROUP | BRANCH) == 0 {
                    self.done_by_handler(insn, &mut state);
                    self.reach((at, 2), there(site.b), state);
                }
            }
            Kind::Exec => {
                self.done_by_handler(insn, &mut state);
                self.reach((at, 2), there(site.b), state);
            }
            Kind::Far => self.reach((at, 1), at + SITE_BYTES as u64, state),
            Kind::Vectors => {
                state.vectors = if site.flags & YMM != 0 { 2 } else { 1 };
                self.reach((at, 2), there(site.b), state);
            }
            Kind::X87 => {
                state.x87 = true;
                self.reach((at, 2), there(site.b), state);
            }
            Kind::Cross => self.reach((at, 0), there(site.a), state),
            Kind::End | Kind::Jump | Kind::Link | Kind::Return | Kind::Leave | Kind::Dead => {}
        }
        Ok(())
    }

    /// The handler of an instruction has changed what the instruction changes.
    fn done_by_handler(&mut self, insn: Option<&Instruction>, state: &mut State) {
        state.set(S2, Value::Any);
        state.zero = None;
        state.carry = None;
        state.slice_sign = None;
        let Some(i) = insn else { return };
        let moves_stack =
            matches!(i.mnemonic(), M::Push | M::Pop) && i.op0_register().full_register() != R::RSP;
        for u in self.factory.info(i).used_registers() {
            let writes = !matches!(u.access(), OpAccess::Read | OpAccess::CondRead);
            if !u.register().is_gpr() || !writes {
                continue;
            }
            let by = (moves_stack && u.register() == R::RSP).then(|| i64::from(i.stack_pointer_increment()));
            let moved = |v: Value| match (v, by) {
                (Value::Sum(p), Some(by)) => Value::Sum(Place {
                    plus: p.plus + by,
                    ..p
                }),
                _ => Value::Any,
            };
            match place(u.register()) {
                Home::Host(r) => state.set(r, moved(state.reg(r))),
                Home::Spilled(k) => state.spilled[k] = Value::Any,
            }
        }
    }

    /// No instruction begins in the middle of another one, nor of a site.
    fn no_overlap(&self) -> Result<(), Refused> {
        for ((_, &end), (&at, _)) in self.seen.iter().zip(self.seen.iter().skip(1)) {
            if at < end {
                return Err(self.refused(at, "an instruction in the middle of another one"));
            }
        }
        Ok(())
    }

    /// No way leads back to where it was without a look at the slice, or a callout.
    fn no_loop(&self) -> Result<(), Refused> {
        // 1: on the way, 2: done.
        let mut marks: HashMap<u64, u8> = HashMap::new();
        for &start in self.edges.keys() {
            let mut way = vec![(start, false)];
            while let Some((at, back)) = way.pop() {
                if back {
                    marks.insert(at, 2);
                    continue;
                }
                if marks.get(&at) == Some(&2) {
                    continue;
                }
                marks.insert(at, 1);
                way.push((at, true));
                for &to in self.edges.get(&at).into_iter().flatten() {
                    match marks.get(&to) {
                        Some(1) => return Err(self.refused(at, "a loop without a look at the slice")),
                        Some(_) => {}
                        None => way.push((to, false)),
                    }
                }
            }
        }
        Ok(())
    }
}

/// The site in these bytes.
fn site_of(bytes: &[u8]) -> Option<Site> {
    use Kind as K;
    let kinds = [
        K::Miss,
        K::Exec,
        K::End,
        K::Jump,
        K::Link,
        K::Far,
        K::Return,
        K::Leave,
        K::Dead,
        K::Cross,
        K::Vectors,
        K::X87,
    ];
    let word = |at: usize| Some(i32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(Site {
        kind: kinds.into_iter().find(|&k| Some(&(k as u8)) == bytes.first())?,
        flags: *bytes.get(1)?,
        left: *bytes.get(2)?,
        len: *bytes.get(3)?,
        off: u16::from_le_bytes([*bytes.get(4)?, *bytes.get(5)?]),
        size: *bytes.get(6)?,
        disp: *bytes.get(7)? as i8,
        block: word(8)? as u32,
        a: word(12)?,
        b: word(16)?,
    })
}
