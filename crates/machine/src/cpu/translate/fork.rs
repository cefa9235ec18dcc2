// SPDX-License-Identifier: Apache-2.0
//! The instructions of a block one after the other, and its second way: where a conditional jump in a loop goes either way now and
//! then, the block has the code of both, each to where the loop begins again.

use super::asm::{at, S1, SLICE};
use super::emit::{kept_delta, Emitter};
use super::flow::{branch_target, is_conditional, is_jump, Aside};
use super::groups;
use super::liveness;
use super::select::How;
use iced_x86::{Code, Instruction};

/// What the processor keeps decoded instructions by: where a loop begins anew it does not begin at the end of one.
pub(super) const LINE: u64 = 64;

/// Whether the instructions end with a jump back to the first one.
pub(super) fn is_loop(insns: &[Instruction]) -> bool {
    let back = |last: &Instruction| {
        let first = insns.first().map(|i| i.ip() as i64);
        (is_conditional(last) || is_jump(last)) && Some(branch_target(last)) == first
    };
    insns.last().is_some_and(back)
}

/// Bytes of the entry from other pages, of a block at this offset: `lea` of 3 bytes and a displacement, and a store of 5.
pub(super) fn far_bytes(off: u16) -> u64 {
    3 + 5
        + match off {
            0 => 0,
            1..=128 => 1,
            _ => 4,
        }
}

/// The other way of a block.
pub(super) struct Fork {
    /// The conditional jump that leads to it in each round, among the block's instructions.
    pub at: Vec<usize>,
    /// What follows it there.
    pub insns: Vec<Instruction>,
}

/// The same with how its instructions are translated.
#[derive(Clone, Copy)]
pub(super) struct Planned<'a> {
    pub fork: &'a Fork,
    pub hows: &'a [How],
}

impl Emitter<'_> {
    /// Instructions from the first to the last, and where they lead. `live`: the flags that are looked at from each of them on. Gives where
    /// the code of each begins, and where that of the last one ends.
    pub(super) fn instructions(
        &mut self,
        insns: &[Instruction],
        hows: &[How],
        live: &[u32],
    ) -> Option<Vec<usize>> {
        let exact = self.options.exact_flags;
        let dead = |n: usize| !exact && live.get(n) == Some(&0);
        let mut ended = false;
        let mut starts = Vec::with_capacity(insns.len() + 1);
        let start = self.start.as_ref();
        let plan = match self.options.same_blocks || self.flat || self.apart && start.is_none() {
            true => Vec::new(),
            false => groups::plan(insns, hows, &dead, start),
        };
        for (n, (i, &how)) in insns.iter().zip(hows).enumerate() {
            self.left = (insns.len() - n) as u8;
            self.len = i.len() as u8;
            self.off = i.ip() as u16;
            self.branch = false;
            self.insn = *i;
            self.flags_dead = dead(n);
            self.next = self.asm.label();
            starts.push(self.asm.here());
            let part = plan.get(n).cloned().unwrap_or_default();
            self.flags_stay_dead = dead(n + 1);
            if !part.checks.is_empty() || !self.delays_stack(i, how, part.member) {
                self.settle_stack();
            }
            part.checks.into_iter().for_each(|group| self.check_group(group));
            if let Some(slot) = part.load {
                self.asm.load(S1, kept_delta(slot));
            }
            (self.checked, self.keeps_s1) = (part.member, part.keeps_s1);
            match insns.get(n + 1) {
                Some(next) if how == How::Flow => {
                    self.branch = true;
                    self.flow_inside(i, next.ip() as i64);
                }
                _ => ended = self.instruction(i, how)?,
            }
            let next = self.next;
            self.asm.bind(next);
        }
        starts.push(self.asm.here());
        if !ended {
            self.settle_stack();
            self.left = 0;
            self.go_to(i64::from(self.off) + i64::from(self.len));
        }
        Some(starts)
    }

    /// Jumps out of the middle of the block of `count` instructions give back what does not run. The second way begins at one of them, and
    /// has such jumps itself.
    pub(super) fn put_asides(&mut self, count: usize, second: Option<Planned<'_>>) -> Option<()> {
        let forks = |aside: &Aside| {
            second.is_some_and(|s| s.fork.at.contains(&(count - 1 - usize::from(aside.left))))
        };
        let (forked, mut asides): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.asides).into_iter().partition(forks);
        for (aside, second) in forked.iter().filter_map(|a| Some((a, second?))) {
            self.put_second(aside, second)?;
        }
        asides.append(&mut self.asides);
        asides.iter().for_each(|aside| self.put_aside(aside));
        Some(())
    }

    fn put_aside(&mut self, aside: &Aside) {
        self.asm.bind(aside.label);
        self.asm.lea(SLICE, at(SLICE, i64::from(aside.left)));
        self.go_to(aside.target);
    }

    /// The second way takes from the slice what it has more than the first one, and is gone aside from if that is not there.
    fn put_second(&mut self, aside: &Aside, second: Planned<'_>) -> Option<()> {
        let Planned { fork, hows } = second;
        let live = liveness::of_block(&fork.insns, hows, liveness::ALL);
        let dead = !self.options.exact_flags && live.first() == Some(&0);
        let more = fork.insns.len() as i64 - i64::from(aside.left);
        self.asm.pad(LINE / 2, 0);
        self.asm.bind(aside.label);
        if more > 0 {
            let label = self.asm.label();
            if dead {
                self.asm.sub(SLICE, more as i32);
                self.asm.jcc(Code::Jl_rel32_64, label);
            } else {
                self.asm.lea(SLICE, at(SLICE, -more));
                self.asm.jmp_if_negative(SLICE, label);
            }
            let left = fork.insns.len() as u8;
            self.asides.push(Aside {
                label,
                target: aside.target,
                left,
            });
        } else if more < 0 {
            self.asm.lea(SLICE, at(SLICE, -more));
        }
        self.instructions(&fork.insns, hows, &live).map(|_| ())
    }
}
