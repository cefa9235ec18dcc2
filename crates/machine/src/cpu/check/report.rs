// SPDX-License-Identifier: Apache-2.0
//! What is said of a difference: the shortest run that has it, its last instructions, and what each engine made of them.

use super::saved::{self, Saved};
use super::{Outcome, Phase};
use crate::cpu::{Cpu, Stop};
use crate::shared::InGuest;
use iced_x86::{Decoder, DecoderOptions, FastFormatter, Instruction};
use std::collections::VecDeque;
use std::fmt::Write;

/// Instructions that a report shows.
const INSTRUCTIONS: usize = 32;
/// Words of memory that it shows.
const WORDS: usize = 16;

/// What was different, as lines.
struct Compared {
    lines: Vec<String>,
}

fn hex(value: u64) -> String {
    format!("{value:016x}")
}

fn line(name: &str, first: &str, second: &str) -> String {
    format!("  {name:<18} {first:<18} {second}")
}

impl Cpu {
    /// The instruction at rip, if it can be read.
    pub(super) fn next_instruction(&mut self) -> Option<Instruction> {
        let (bytes, len) = self.next_bytes();
        let bits = if self.seg.code16 {
            16
        } else if self.seg.code32 {
            32
        } else {
            64
        };
        let insn = Decoder::with_ip(bits, bytes.get(..len)?, self.rip, DecoderOptions::NONE).decode();
        (!insn.is_invalid()).then_some(insn)
    }

    fn next_bytes(&mut self) -> ([u8; 15], usize) {
        let mut bytes = [0; 15];
        let va = self.code_va(self.rip);
        let first = ((4096 - (va & 0xfff)) as usize).min(bytes.len());
        let (head, tail) = bytes.split_at_mut(first);
        if self.read_bytes(va, head).is_err() {
            return (bytes, 0);
        }
        let whole = tail.is_empty() || self.read_bytes(va.wrapping_add(first as u64), tail).is_ok();
        (bytes, if whole { 15 } else { first })
    }

    fn shown_instruction(&mut self) -> String {
        let Some(insn) = self.next_instruction() else {
            return format!("  {:016x}  ?", self.rip);
        };
        let (bytes, _) = self.next_bytes();
        let mut hex = String::new();
        for byte in bytes.iter().take(insn.len()) {
            let _ = write!(hex, "{byte:02x}");
        }
        let mut text = String::new();
        FastFormatter::new().format(&insn, &mut text);
        format!("  {:016x}  {hex:<30}  {text}", self.rip)
    }

    /// Runs `amount` instructions on both engines, and undoes both runs.
    fn compare_again(&mut self, before: &Saved, amount: i64, in_guest: &InGuest<'_>) -> Compared {
        let (first, after, second) = self.run_both(before, amount, in_guest);
        let mut lines = Vec::new();
        let undefined = self.differ(&first, &after, &second)
            && self.differ_in_undefined_flags(before, amount, &first, &after, &second, in_guest);
        if !undefined {
            lines.extend(stops(&first, &second, amount));
            let words = first.state.words().into_iter().zip(second.state.words());
            for (n, (a, b)) in words.enumerate().filter(|(_, (a, b))| a != b) {
                lines.push(line(&saved::name(n), &hex(a), &hex(b)));
            }
            if let Some(check) = &self.check {
                let differences = check.undo.differences(&self.domain.machine.mem, &after);
                for d in differences.take(WORDS) {
                    lines.push(line(
                        &format!("memory {:#x}", d.maddr),
                        &hex(d.first),
                        &hex(d.second),
                    ));
                }
            }
        }
        self.undo_stores();
        before.put_back(self);
        Compared { lines }
    }

    /// Describes the difference that a slice of `amount` instructions has; the state is then what it was before it.
    pub(super) fn report(&mut self, before: &Saved, amount: i64, in_guest: &InGuest<'_>) -> String {
        self.undo_stores();
        before.put_back(self);
        if self.compare_again(before, amount, in_guest).lines.is_empty() {
            return format!(
                "the engines differ in a slice of {amount} instructions from {:016x} on; not when it is run again",
                before.rip
            );
        }
        // Shorter slices end in the middle of blocks, whose rest is interpreted: the first that differs has the whole block.
        let (mut same, mut differs) = (0, amount);
        while differs - same > 1 {
            let middle = same + (differs - same) / 2;
            match self.compare_again(before, middle, in_guest).lines.is_empty() {
                true => same = middle,
                false => differs = middle,
            }
        }
        let found = self.compare_again(before, differs, in_guest);
        let mut out = format!("the engines differ: instruction {differs} of a slice of {amount}\n");
        self.forbid_stores();
        let mut shown = VecDeque::new();
        for _ in 0..differs {
            if shown.len() == INSTRUCTIONS {
                shown.pop_front();
            }
            let state = Saved::of(self);
            shown.push_back((state, self.shown_instruction()));
            if self.run_as(Phase::Interpreted, 1, in_guest).stop != Stop::Budget {
                break;
            }
        }
        self.undo_stores();
        before.put_back(self);
        if let Some((state, _)) = shown.front() {
            let words = state.words();
            let _ = writeln!(out, "before the last {} instructions", shown.len());
            let named: Vec<String> = (0..saved::SHOWN)
                .map(|n| format!("{:>7} {}", saved::name(n), hex(words[n])))
                .collect();
            named.chunks(3).for_each(|row| {
                let _ = writeln!(out, " {}", row.join(" "));
            });
        }
        shown.iter().for_each(|(_, text)| {
            let _ = writeln!(out, "{text}");
        });
        let _ = writeln!(out, "{}", line("after them", "translator", "interpreter"));
        out + &found.lines.join("\n")
    }
}

fn stops(first: &Outcome, second: &Outcome, amount: i64) -> Vec<String> {
    let mut lines = Vec::new();
    if first.stop != second.stop {
        let (a, b) = (format!("{:x?}", first.stop), format!("{:x?}", second.stop));
        lines.push(line("stop", &a, &b));
    }
    if first.left != second.left {
        let done = |o: &Outcome| (amount - o.left).to_string();
        lines.push(line("instructions", &done(first), &done(second)));
    }
    lines
}
