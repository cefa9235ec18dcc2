// SPDX-License-Identifier: Apache-2.0
//! Which blocks are translated as one: a block goes on with the one that follows it most often, as long as that lies in its page. A
//! loop, and a function that calls itself, goes on with itself.
// Ops lie in the arena.
#![allow(unsafe_code)]

use super::flat;
use super::flow::{branch_target, is_call, is_conditional, is_jump};
use super::fork::Fork;
use super::liveness;
use super::select::{self, How, Vectors};
use crate::cpu::block::{key, Op};
use crate::cpu::decode::{copy_code, decode_all, ends_block, WINDOW};
use crate::cpu::exec::fast;
use crate::cpu::Cpu;
use crate::mem::Mfn;
use iced_x86::{FlowControl, Instruction};

/// Instructions of all blocks together.
const INSNS: usize = 64;

/// Blocks that are translated as one.
const BLOCKS: usize = 8;

/// Instructions of a second way with those before it.
const WAY: usize = 120;

/// Rounds of a loop that has two ways, and if the second one is gone no more often than this, in percent of the first.
const FORKED_ROUNDS: usize = 2;
const SELDOM_FORKED_ROUNDS: usize = 4;
const SELDOM: u64 = 40;

/// Blocks of a second way before it is where the loop begins.
const SECOND_BLOCKS: usize = 3;

/// A block is gone on with if it has run at least this part of what makes one be translated.
const RUNS_PART: u64 = 4;

/// A loop is made several times over if its jumps go on in it this many times as often as not.
const OFTEN: u64 = 8;

/// First blocks of functions that are translated by themselves, too, in one block: their prologue is checked with the push of the call.
const COPIES: usize = 2;

/// Instructions of the next block that are looked at to find out which flags it looks at.
const AHEAD: usize = 6;

/// What a block goes on with.
struct Next {
    offset: i64,
    /// Where it goes on else, unless that way is nearly never gone, and how often, in percent of this one.
    else_at: Option<(i64, u64)>,
    /// It is the first block of a function that is translated by itself, too.
    again: bool,
}

/// The instructions of a block and of those it goes on with, each with its offset in the page as its address.
pub(super) struct Trace {
    pub insns: Vec<Instruction>,
    /// Bytes of the page that the others than the first were made from.
    pub others: Vec<(u16, u16)>,
    /// The second way of a loop.
    pub fork: Option<Fork>,
}

impl Trace {
    /// A block alone.
    pub(super) fn of(insns: Vec<Instruction>) -> Trace {
        Trace {
            insns,
            others: Vec::new(),
            fork: None,
        }
    }
}

/// What registers instructions use that who enters their block must have: vector registers, x87 registers.
fn wants(insns: &[Instruction], mode: u8) -> (Vectors, bool) {
    let hows = select::hows(insns, mode, false);
    let vectors = hows.iter().map(|h| h.vectors()).max().unwrap_or(Vectors::None);
    (vectors, hows.contains(&How::X87))
}

impl Cpu {
    /// What is translated with a block, whose instructions are given.
    pub(super) fn trace(&self, mfn: Mfn, insns: Vec<Instruction>) -> Trace {
        let mut trace = Trace::of(insns);
        let Some(head) = trace.insns.first().map(|i| i.ip() as i64) else {
            return trace;
        };
        let mut blocks = 1;
        // Where blocks begin since the head was last come to, and how many instructions there were each time.
        let mut starts = vec![head];
        let mut rounds = Vec::new();
        let (wanted, _) = wants(&trace.insns, self.seg.mode);
        // A jump that is known to go the other way now and then: where it is, that way, and how often.
        let mut fork: Option<(usize, i64, u64)> = None;
        let mut most = BLOCKS;
        let mut copies = 0;
        while let Some(next) = trace.insns.last().and_then(|last| self.next_of(mfn, last, head)) {
            let Next {
                offset: next,
                else_at,
                again,
            } = next;
            let here = else_at.map(|(offset, share)| (trace.insns.len() - 1, offset, share));
            let here = here.filter(|_| rounds.is_empty());
            if again {
                copies += 1;
                if copies > COPIES {
                    break;
                }
            } else if next == head {
                if let Some((at, offset, share)) = fork.filter(|_| rounds.is_empty()) {
                    trace.fork = self.second_way(mfn, &trace.insns, at, offset, &mut trace.others);
                    most = match trace.fork {
                        Some(_) if share <= SELDOM => SELDOM_FORKED_ROUNDS,
                        Some(_) => FORKED_ROUNDS,
                        None => 1,
                    };
                }
                if here.is_some() {
                    most = 1;
                }
                rounds.push(trace.insns.len());
                starts.clear();
                if rounds.len() >= most {
                    break;
                }
            }
            if starts.contains(&next) && !again || blocks >= BLOCKS {
                break;
            }
            let Some(insns) = self.decode_at(mfn, next as u16, INSNS - trace.insns.len()) else {
                break;
            };
            // Whoever enters the block must have the vector registers, also if it is left before they are used.
            if wants(&insns, self.seg.mode).0 > wanted {
                break;
            }
            fork = fork.into_iter().chain(here).max_by_key(|&(_, _, share)| share);
            let end = insns.last().map_or(0, |i| i.next_ip());
            let bytes = (next as u16, end as u16);
            starts.push(next);
            blocks += 1;
            if next != head && !trace.others.contains(&bytes) {
                trace.others.push(bytes);
            }
            trace.insns.extend(insns);
        }
        // As many rounds as powers of two have, so that operands of a loop stay where they are aligned to.
        if let Some(last) = rounds.len().checked_ilog2() {
            rounds.truncate(1 << last);
            trace.insns.truncate(rounds[rounds.len() - 1]);
            if let Some(fork) = trace.fork.as_mut() {
                let (at, round) = (fork.at[0], rounds[0]);
                let ways = (0..rounds.len()).map(|n| at + n * round);
                fork.at = ways.filter(|at| at + 1 + fork.insns.len() <= WAY).collect();
            }
        }
        trace
    }

    /// The other way from instruction `at` of a loop, from an offset on to where the loop begins, and through it once more. What it is made from is added to
    /// what the block is made from.
    fn second_way(
        &self,
        mfn: Mfn,
        round: &[Instruction],
        at: usize,
        from: i64,
        others: &mut Vec<(u16, u16)>,
    ) -> Option<Fork> {
        let head = round.first()?.ip() as i64;
        let wanted = wants(round, self.seg.mode);
        let (mut insns, mut bytes, mut next) = (Vec::new(), Vec::new(), from);
        while next != head {
            let room = INSNS.checked_sub(at + 1 + insns.len())?;
            let more = self.decode_at(mfn, u16::try_from(next).ok()?, room)?;
            let (vectors, x87) = wants(&more, self.seg.mode);
            if vectors > wanted.0 || x87 && !wanted.1 || bytes.len() == SECOND_BLOCKS {
                return None;
            }
            let last = *more.last()?;
            bytes.push((next as u16, last.next_ip() as u16));
            insns.extend(more);
            next = self.next_of(mfn, &last, head).filter(|n| !n.again)?.offset;
        }
        if at + 1 + insns.len() + round.len() <= INSNS {
            insns.extend_from_slice(round);
        }
        if insns.is_empty() {
            return None;
        }
        bytes.retain(|b| !others.contains(b));
        others.append(&mut bytes);
        Some(Fork { at: vec![at], insns })
    }

    /// Where in the page the block most often goes on that ends with this instruction, if that is `head`, or not translated yet: what
    /// several blocks lead to is made once.
    fn next_of(&self, mfn: Mfn, last: &Instruction, head: i64) -> Option<Next> {
        let target = branch_target(last);
        let threshold = u64::from(self.code.translator.as_ref()?.threshold());
        let next = |offset, else_at| Next {
            offset,
            else_at,
            again: false,
        };
        match last {
            _ if is_call(last) => {
                let again = self.runs(mfn, target)? >= threshold;
                Some(Next {
                    again,
                    ..next(target, None)
                })
            }
            _ if is_jump(last) => {
                let runs = self.runs(mfn, target)?;
                (runs < threshold || target == head).then_some(next(target, None))
            }
            _ if is_conditional(last) => {
                let after = last.next_ip() as i64;
                let runs = |offset| self.runs(mfn, offset).unwrap_or(0);
                let (here, there) = (runs(after), runs(target));
                let (offset, runs, other) = if there > here {
                    (target, there, (after, here))
                } else {
                    (after, here, (target, there))
                };
                let enough = runs > 0 && runs >= threshold / RUNS_PART;
                let else_at = Some(other).filter(|&(_, others)| others > runs / OFTEN);
                let else_at = else_at.map(|(offset, others)| (offset, 100 * others / runs.max(1)));
                (enough && (runs < threshold || offset == head)).then_some(next(offset, else_at))
            }
            _ => None,
        }
    }

    /// The flags that are looked at after a block that ends with this instruction. What says so is added to what the block is made from.
    pub(super) fn live_after(&self, mfn: Mfn, last: &Instruction, others: &mut Vec<(u16, u16)>) -> u32 {
        let next = match last {
            _ if is_jump(last) || is_call(last) => branch_target(last) as u64,
            _ if last.flow_control() == FlowControl::Next && !ends_block(last) => last.next_ip(),
            _ => return liveness::ALL,
        };
        let at = u16::try_from(next).ok().filter(|&at| at < 4096);
        let first = |at| self.decode_first(mfn, at, self.known(mfn, at)?.min(AHEAD));
        let Some(insns) = at.and_then(first) else {
            return liveness::ALL;
        };
        let live = liveness::of_block(&insns, &select::hows(&insns, self.seg.mode, false), liveness::ALL);
        let live = live.first().copied().unwrap_or(liveness::ALL);
        let bytes = (next as u16, insns.last().map_or(0, |i| i.next_ip()) as u16);
        if live != liveness::ALL && !others.contains(&bytes) {
            others.push(bytes);
        }
        live
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
        let count = self.known(mfn, off).filter(|&count| count <= most)?;
        self.decode_first(mfn, off, count)
    }

    /// How many instructions a block has that is known to the interpreter, and does not cross into the next page.
    fn known(&self, mfn: Mfn, off: u16) -> Option<usize> {
        let op: *const Op = self.code.blocks.get(key(mfn, u64::from(off), self.seg.mode))?;
        // SAFETY: the map leads to first ops of blocks in the arena, which are followed by their others.
        let (count, second) = unsafe { (usize::from((*op).left), fast::crosses_into(op.add(1))) };
        second.is_none().then_some(count)
    }

    /// So many instructions from an offset on, all in its page.
    pub(super) fn decode_first(&self, mfn: Mfn, off: u16, count: usize) -> Option<Vec<Instruction>> {
        let frame = self.domain.machine.mem.frame(mfn)?;
        let mut bytes = [0u8; WINDOW];
        let bytes = bytes.get_mut(..WINDOW.min(4096 - usize::from(off)))?;
        copy_code(frame, usize::from(off), None, bytes)?;
        let (insns, _) = decode_all(
            flat::bits(self.seg.mode),
            self.model.vendor,
            bytes,
            u64::from(off),
            count,
        );
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

    /// A loop that goes on in itself nearly always, and calls a function of its page.
    fn steady(n: i32) -> Vec<u8> {
        let made = (|| {
            let mut a = CodeAssembler::new(64)?;
            let (mut top, mut called, mut start) = (a.create_label(), a.create_label(), a.create_label());
            a.jmp(start)?;
            a.set_label(&mut called)?;
            a.add(rbx, qword_ptr(rsi + rdx * 8))?;
            a.ret()?;
            a.set_label(&mut start)?;
            a.mov(rsi, DATA)?;
            a.xor(edx, edx)?;
            a.mov(ecx, n)?;
            a.set_label(&mut top)?;
            a.add(qword_ptr(rsi + rdx * 8), 3)?;
            a.cmp(rdx, 200)?;
            a.jae(start)?;
            a.add(rdx, 1)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.mov(r8d, 40)?;
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.call(called)?;
            a.dec(r8d)?;
            a.jne(again)?;
            a.int3()?;
            a.assemble(CODE)
        })();
        made.expect("code that can be assembled")
    }

    /// fib(n / 16) in rax, by calls of itself.
    fn recursive(n: i32) -> Vec<u8> {
        let made = (|| {
            let mut a = CodeAssembler::new(64)?;
            let (mut fib, mut start, mut end) = (a.create_label(), a.create_label(), a.create_label());
            a.jmp(start)?;
            a.set_label(&mut fib)?;
            a.push(rbp)?;
            a.push(rbx)?;
            a.mov(rbx, rdi)?;
            a.sub(rsp, 8)?;
            a.cmp(rdi, 1)?;
            a.jbe(end)?;
            a.lea(rdi, ptr(rdi - 1))?;
            a.call(fib)?;
            a.lea(rdi, ptr(rbx - 2))?;
            a.mov(rbp, rax)?;
            a.call(fib)?;
            a.lea(rbx, ptr(rbp + rax))?;
            a.set_label(&mut end)?;
            a.add(rsp, 8)?;
            a.mov(rax, rbx)?;
            a.pop(rbx)?;
            a.pop(rbp)?;
            a.ret()?;
            a.set_label(&mut start)?;
            a.mov(edi, n / 16)?;
            a.call(fib)?;
            a.int3()?;
            a.assemble(CODE)
        })();
        made.expect("code that can be assembled")
    }

    /// A loop that goes either way, of as many instructions or not, by the bits of a number.
    fn either(n: i32, longer: bool) -> Vec<u8> {
        let made = (|| {
            let mut a = CodeAssembler::new(64)?;
            let (mut top, mut other, mut end) = (a.create_label(), a.create_label(), a.create_label());
            a.mov(rsi, DATA)?;
            a.mov(eax, n)?;
            a.set_label(&mut top)?;
            a.test(eax, 1)?;
            a.jne(other)?;
            a.shr(eax, 1)?;
            a.add(rbx, qword_ptr(rsi + 8))?;
            a.xor(qword_ptr(rsi + 1184), rbx)?;
            a.cld()?;
            a.cmp(eax, 1)?;
            a.jne(top)?;
            a.jmp(end)?;
            a.set_label(&mut other)?;
            a.lea(eax, ptr(eax + eax * 2 + 1))?;
            if longer {
                a.add(qword_ptr(rsi + 8), 3)?;
                a.adc(qword_ptr(rsi + 16), rax)?;
                a.push(rbx)?;
                a.cld()?;
                a.pop(rdx)?;
                a.add(rdx, qword_ptr(rsi))?;
                a.mov(qword_ptr(rsi), rdx)?;
            }
            a.jmp(top)?;
            a.set_label(&mut end)?;
            a.int3()?;
            a.assemble(CODE)
        })();
        made.expect("code that can be assembled")
    }

    fn shorter(n: i32) -> Vec<u8> {
        either(i32::MAX - n, false)
    }

    fn longer(n: i32) -> Vec<u8> {
        either(i32::MAX - n, true)
    }

    #[test]
    fn a_loop_that_goes_two_ways_has_both_and_stops_where_the_interpreters_does() {
        if super::super::translator_available().is_err() {
            return;
        }
        let cases: [fn(i32) -> Vec<u8>; 3] = [shorter, longer, rounds];
        for (code, exact_flags) in cases.into_iter().flat_map(|c| [(c, false), (c, true)]) {
            let options = TranslatorOptions {
                threshold: 8,
                exact_flags,
                prove: true,
                ..TranslatorOptions::default()
            };
            let seen = |vm: &mut TestVm| {
                let flags = exact_flags.then(|| vm.cpu.rflags());
                (
                    vm.cpu.rip,
                    vm.cpu.regs,
                    flags,
                    vm.peek(DATA, 24),
                    vm.peek(DATA + 1184, 24),
                )
            };
            let mut forked = 0;
            for step in (1..=24).chain([31, 40, 63, 64, 65, 66, 100, 1000]) {
                let (mut vm, mut plain) = (vm(code, Some(options)), vm(code, None));
                while vm.run(step) == Stop::Budget {
                    plain.run_ok(step);
                    assert_eq!(seen(&mut vm), seen(&mut plain), "{step} at a time");
                }
                let proved = vm.cpu.prove_code().unwrap_or_else(|refused| panic!("{refused}"));
                assert!(proved.blocks > 0);
                let t = vm.cpu.code.translator.as_ref().expect("a translator");
                let second = |b: &super::super::NativeBlock| b.source.as_ref().map(|s| s.forked.len());
                forked += t.blocks.iter().filter(|b| second(b) > Some(0)).count();
            }
            assert!(forked > 20, "{forked}");
        }
    }

    fn vm(code: fn(i32) -> Vec<u8>, options: Option<TranslatorOptions>) -> TestVm {
        let mut vm = TestVm::new(&code(150));
        vm.cpu.set_translator(options).expect("a translator");
        vm
    }

    #[test]
    fn blocks_that_follow_each_other_are_one_and_stop_where_the_interpreters_do() {
        if super::super::translator_available().is_err() {
            return;
        }
        let seen = |vm: &mut TestVm| {
            (
                vm.cpu.rip,
                vm.cpu.regs,
                vm.cpu.rflags(),
                vm.peek(DATA, 24),
                vm.peek(DATA + 1184, 24),
            )
        };
        let cases: [fn(i32) -> Vec<u8>; 3] = [rounds, steady, recursive];
        for (code, same_blocks) in cases.into_iter().flat_map(|c| [(c, false), (c, true)]) {
            let options = TranslatorOptions {
                threshold: 4,
                exact_flags: true,
                same_blocks,
                ..TranslatorOptions::default()
            };
            let longer = (1..=17).map(|step| {
                let (mut vm, mut plain) = (vm(code, Some(options)), vm(code, None));
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
