// SPDX-License-Identifier: Apache-2.0
//! Which blocks are translated as one: a block goes on with the one that follows it most often, as long as that lies in its page.
// Ops lie in the arena.
#![allow(unsafe_code)]

use super::flow::is_conditional;
use super::select::{self, Vectors};
use crate::cpu::block::{key, Op};
use crate::cpu::decode::{copy_code, decode_all, WINDOW};
use crate::cpu::Cpu;
use crate::mem::Mfn;
use iced_x86::{Code, Instruction};

/// Instructions of all blocks together.
const INSNS: usize = 64;

/// Blocks that are translated as one.
const BLOCKS: usize = 8;

/// A block is gone on with if it has run at least this part of what makes one be translated.
const RUNS_PART: u64 = 4;

/// The instructions of a block and of those it goes on with, each with its offset in the page as its address.
pub(super) struct Trace {
    pub insns: Vec<Instruction>,
    /// Bytes of the page that the others than the first were made from.
    pub others: Vec<(u16, u16)>,
}

impl Trace {
    /// A block alone.
    pub(super) fn of(insns: Vec<Instruction>) -> Trace {
        Trace {
            insns,
            others: Vec::new(),
        }
    }
}

fn vectors(insns: &[Instruction]) -> Vectors {
    let hows = select::hows(insns, false);
    hows.iter().map(|h| h.vectors()).max().unwrap_or(Vectors::None)
}

impl Cpu {
    /// What is translated with a block, whose instructions are given.
    pub(super) fn trace(&self, mfn: Mfn, insns: Vec<Instruction>) -> Trace {
        let mut trace = Trace::of(insns);
        let mut starts: Vec<i64> = trace.insns.iter().take(1).map(|i| i.ip() as i64).collect();
        let wanted = vectors(&trace.insns);
        while let Some(next) = trace.insns.last().and_then(|last| self.next_of(mfn, last)) {
            if starts.contains(&next) || starts.len() >= BLOCKS {
                break;
            }
            let Some(insns) = self.decode_at(mfn, next as u16, INSNS - trace.insns.len()) else {
                break;
            };
            // Whoever enters the block must have the vector registers, also if it is left before they are used.
            if vectors(&insns) > wanted {
                break;
            }
            let end = insns.last().map_or(0, |i| i.next_ip());
            starts.push(next);
            trace.others.push((next as u16, end as u16));
            trace.insns.extend(insns);
        }
        trace
    }

    /// Where in the page the block most often goes on that ends with this instruction, if that is not translated yet: what several
    /// blocks lead to is made once.
    fn next_of(&self, mfn: Mfn, last: &Instruction) -> Option<i64> {
        let target = last.near_branch64() as i64;
        let threshold = u64::from(self.code.translator.as_ref()?.threshold());
        match last.code() {
            Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => {
                let runs = self.runs(mfn, target)?;
                (runs < threshold).then_some(target)
            }
            _ if is_conditional(last) => {
                let after = last.next_ip() as i64;
                let runs = |offset| self.runs(mfn, offset).unwrap_or(0);
                let (here, there) = (runs(after), runs(target));
                let (next, runs) = if there > here {
                    (target, there)
                } else {
                    (after, here)
                };
                let enough = runs > 0 && runs >= threshold / RUNS_PART;
                (enough && runs < threshold).then_some(next)
            }
            _ => None,
        }
    }

    /// How often the block at this offset has run: as often as makes it be translated, if it is; `None` if it is not known.
    fn runs(&self, mfn: Mfn, offset: i64) -> Option<u64> {
        let offset = u64::try_from(offset).ok().filter(|&at| at < 4096)?;
        let op: *const Op = self.code.blocks.get(key(mfn, offset, self.seg.mode))?;
        let threshold = u64::from(self.code.translator.as_ref()?.threshold());
        // SAFETY: the map leads to first ops of blocks in the arena.
        unsafe { (*op).runs_left() }.map(|left| threshold.saturating_sub(left))
    }

    /// The instructions of a block that is known to the interpreter, so that stores to it are watched.
    fn decode_at(&self, mfn: Mfn, off: u16, most: usize) -> Option<Vec<Instruction>> {
        let op: *const Op = self.code.blocks.get(key(mfn, u64::from(off), self.seg.mode))?;
        // SAFETY: the map leads to first ops of blocks in the arena, which are followed by their others.
        let (count, second) = unsafe {
            (
                usize::from((*op).left),
                crate::cpu::exec::fast::crosses_into(op.add(1)),
            )
        };
        if second.is_some() || count > most {
            return None;
        }
        let frame = self.domain.machine.mem.frame(mfn)?;
        let mut bytes = [0u8; WINDOW];
        let bytes = bytes.get_mut(..WINDOW.min(4096 - usize::from(off)))?;
        copy_code(frame, usize::from(off), None, bytes)?;
        let (insns, _) = decode_all(64, self.model.vendor, bytes, u64::from(off), count);
        (insns.len() == count).then_some(insns)
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::engine::TranslatorOptions;
    use crate::cpu::Stop;
    use crate::testing::{TestVm, CODE, DATA};
    use iced_x86::code_asm::*;

    /// Counts in rbx and at `DATA`, differently in every fourth round.
    fn rounds(n: i32) -> Vec<u8> {
        let made = (|| {
            let mut a = CodeAssembler::new(64)?;
            let (mut top, mut other, mut on) = (a.create_label(), a.create_label(), a.create_label());
            a.mov(ecx, n)?;
            a.mov(rsi, DATA)?;
            a.set_label(&mut top)?;
            a.inc(qword_ptr(rsi))?;
            a.test(cl, 3)?;
            a.je(other)?;
            a.add(rbx, qword_ptr(rsi + 8))?;
            a.jmp(on)?;
            a.set_label(&mut other)?;
            a.add(qword_ptr(rsi + 8), 3)?;
            a.set_label(&mut on)?;
            a.mov(qword_ptr(rsi + 16), rbx)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.int3()?;
            a.assemble(CODE)
        })();
        made.expect("code that can be assembled")
    }

    fn vm(options: Option<TranslatorOptions>) -> TestVm {
        let mut vm = TestVm::new(&rounds(200));
        vm.cpu.set_translator(options).expect("a translator");
        vm
    }

    #[test]
    fn blocks_that_follow_each_other_are_one_and_stop_where_the_interpreters_do() {
        if super::super::translator_available().is_err() {
            return;
        }
        let seen = |vm: &mut TestVm| (vm.cpu.rip, vm.cpu.regs, vm.cpu.rflags(), vm.peek(DATA, 24));
        for same_blocks in [false, true] {
            let options = TranslatorOptions {
                threshold: 4,
                exact_flags: true,
                same_blocks,
                ..TranslatorOptions::default()
            };
            let longer = (1..=17).map(|step| {
                let (mut vm, mut plain) = (vm(Some(options)), vm(None));
                while vm.run(step) == Stop::Budget {
                    plain.run_ok(step);
                    assert_eq!(seen(&mut vm), seen(&mut plain), "{step} at a time");
                }
                let t = vm.cpu.code.translator.as_ref().expect("a translator");
                t.blocks.iter().filter(|b| b.more > 0).count()
            });
            assert_eq!(longer.sum::<usize>() > 0, !same_blocks);
        }
    }
}
