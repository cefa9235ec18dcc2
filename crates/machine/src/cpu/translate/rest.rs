// SPDX-License-Identifier: Apache-2.0
//! Where a check fails again and again, as that of several operands (`groups`) that lie in two pages, the rest of its block is made once more: with
//! groups that lie in one page each, as the registers are, and if one of those fails, too, without any. Only an operand that itself crosses
//! the page takes its handler.
//!
//! A rest is code of its own that belongs to the block's first op, and is forgotten with it. Nothing leads to it but the stub of the check,
//! which has taken from the slice what the rest takes.

use super::callout::Site;
use super::{liveness, Handled, NativeBlock, Order, CALL_BYTES};
use crate::cpu::decode::ends_block;
use crate::cpu::Cpu;
use crate::mem::Mfn;
use iced_x86::Instruction;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

/// As often as this a check fails before the rest of its block is made without it.
const TIMES: u8 = 8;

/// Bytes of the field of the jump before a stub's call.
const FIELD_BYTES: u64 = 4;

/// The instructions of a block, to be decoded once more.
pub(super) struct Whole {
    /// Where the interpreter's blocks begin that it is of, and how many instructions each has.
    pieces: Box<[(u16, u8)]>,
    /// Of the instructions, to find out whether they are the same.
    hash: u64,
    /// The flags that are looked at after it.
    after: u32,
    /// The same of its second way.
    second: Option<Box<Whole>>,
}

fn hash(insns: &[Instruction]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for i in insns {
        (i, i.ip(), i.len()).hash(&mut hasher);
    }
    hasher.finish()
}

impl Whole {
    /// `forked`: those of its second way from the first one on, if it has one.
    pub(super) fn of(insns: &[Instruction], forked: &[Instruction], after: u32) -> Whole {
        let mut pieces: Vec<(u16, u8)> = Vec::new();
        let mut end = None;
        for i in insns {
            match pieces.last_mut() {
                Some((_, count)) if end == Some(i.ip()) => *count += 1,
                _ => pieces.push((i.ip() as u16, 1)),
            }
            end = (!ends_block(i)).then_some(i.next_ip());
        }
        Whole {
            pieces: pieces.into(),
            hash: hash(insns),
            after,
            second: (!forked.is_empty()).then(|| Box::new(Whole::of(forked, &[], liveness::ALL))),
        }
    }
}

impl Cpu {
    /// Where the rest of the block of site `s`, which is at `at` and whose operands at `va` are not where its check looks, goes on. `None`: it is not
    /// made yet.
    pub(super) fn rest(&mut self, s: Site, at: u64, va: u64) -> Option<u64> {
        let t = self.code.translator.as_mut()?;
        let times = t.failed.entry(at).or_default();
        *times = times.saturating_add(1);
        if *times != TIMES {
            return None;
        }
        let start = Instant::now();
        let block = self.code.translator.as_ref()?.blocks.get(s.block as usize)?;
        let whole = block.whole.as_ref().filter(|_| block.lives())?;
        let last = |way: &Whole| Some((self.last_of(block.mfn, way, s)?, way.after));
        let (insns, after) = last(whole).or_else(|| last(whole.second.as_deref()?))?;
        // That a page border lies in a group, or in front of it, is what other groups help against.
        let border = (va & 0xfff) + u64::from(s.size) > 4096;
        let in_pages = border || s.disp != 0;
        let order = Order {
            op: block.op,
            mfn: block.mfn,
            second: None,
            more: 0,
            insns: &insns,
            fork: None,
            after,
            level: block.level + 1,
            start: (in_pages && block.level == 0).then_some(self.regs),
        };
        let (body, _) = self.make(&order)?;
        let t = self.code.translator.as_mut()?;
        t.made.blocks += 1;
        t.made.rests += 1;
        t.made.time += start.elapsed();
        t.failed.remove(&at);
        t.lead(at - CALL_BYTES - FIELD_BYTES, body);
        Some(body)
    }

    /// The instructions of a way from that of a site on, if that is one of them. Where several ways have it, each is one that goes on from there.
    fn last_of(&self, mfn: Mfn, way: &Whole, s: Site) -> Option<Vec<Instruction>> {
        let mut insns = Vec::new();
        for &(off, count) in &way.pieces {
            insns.extend(self.decode_first(mfn, off, count.into())?);
        }
        // Others may be changing them, and be about to have the block forgotten.
        if hash(&insns) != way.hash {
            return None;
        }
        let last = insns.split_off(insns.len().checked_sub(s.left.into())?);
        (last.first()?.ip() as u16 == s.off).then_some(last)
    }
}

/// Instructions that were decoded for their handlers, by their sites: where one operand crosses a border its instruction mostly does so again.
pub(super) struct Crossing([Option<(u64, Handled)>; 64]);

impl Default for Crossing {
    fn default() -> Crossing {
        Crossing([None; 64])
    }
}

impl Crossing {
    fn slot(&mut self, at: u64) -> &mut Option<(u64, Handled)> {
        // Sites lie some 40 bytes apart.
        let n = (at >> 4 ^ at >> 10) as usize % self.0.len();
        &mut self.0[n]
    }
}

impl Cpu {
    /// The instruction of site `s`, which is at `at`, as it was when its block was decoded, or when it was last left to its handler.
    pub(super) fn decoded(&mut self, s: Site, at: u64) -> Option<Handled> {
        let known = |c: &mut Cpu| {
            c.code
                .translator
                .as_mut()?
                .crossing
                .slot(at)
                .filter(|k| k.0 == at)
        };
        if let Some((_, insn)) = known(self) {
            return Some(insn);
        }
        let insn = self.decode_again(s)?;
        *self.code.translator.as_mut()?.crossing.slot(at) = Some((at, insn));
        Some(insn)
    }
}

impl NativeBlock {
    /// Of how many instructions at the end of `block` this is the code, if it is its rest.
    pub(super) fn rest_of(&self, block: &NativeBlock) -> Option<usize> {
        let (own, source) = (&self.source.as_deref()?.insns, block.source.as_deref()?);
        let same = |(a, b): (&Instruction, &Instruction)| (a, a.ip(), a.len()) == (b, b.ip(), b.len());
        let ends = |way: &Vec<Instruction>| {
            let last = way.len().checked_sub(own.len()).and_then(|n| way.get(n..));
            last.is_some_and(|last| own.iter().zip(last).all(same))
        };
        let is_rest = std::ptr::eq(self.op, block.op) && self.level > block.level;
        (is_rest && (ends(&source.insns) || source.forked.iter().any(ends))).then_some(own.len())
    }
}

#[cfg(test)]
pub(super) mod tests;
