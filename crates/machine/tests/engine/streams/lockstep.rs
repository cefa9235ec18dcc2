// SPDX-License-Identifier: Apache-2.0
//! Engines in lock-step: the oracle takes one instruction after the other, the others as many at once; then everything that
//! a guest or the hypervisor could see is compared.

use super::disturb::Disturb;
use super::kicker::Kicker;
use super::place::Place;
use super::program::Program;
use super::taint;
use crate::engines::{Engine, ORACLE};
use crate::rng::Rng;
use crate::state::ARITH;
use domzero_machine::{Cpu, Stop, Trap};
use iced_x86::{Code, Formatter, Instruction, IntelFormatter};
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

/// How many instructions that were executed a failure shows.
const SHOWN: usize = 40;

/// A first difference.
pub struct Failure {
    /// The engine, and the form of the instruction that it ended in.
    pub key: String,
    pub text: String,
    /// Instructions before it.
    pub after: u64,
}

/// What a case has had, for the test to see that it tests anything.
#[derive(Default, Clone, Copy)]
pub struct Stats {
    pub instructions: u64,
    pub steps: u64,
    pub traps: u64,
    /// Blocks whose rest was made once more.
    pub rests: u64,
}

/// What the oracle did in a step.
struct Step {
    /// Instructions that it might take: fewer than were asked for where a flag is read that is not defined.
    limit: i64,
    done: i64,
    stop: Stop,
}

pub struct Lockstep<'a> {
    pub program: &'a Program,
    /// The oracle, and who is compared with it.
    pub places: Vec<Place>,
    pub rng: Rng,
    pub stats: Stats,
    /// Arithmetic flags that the last instruction which writes them leaves undefined.
    undefined: u64,
    trace: VecDeque<(Instruction, u64)>,
    /// Faults at the same place without progress.
    stuck: u32,
}

impl<'a> Lockstep<'a> {
    pub fn new(program: &'a Program, engines: &[Engine], seed: u64) -> Lockstep<'a> {
        let mut rng = Rng::new(seed);
        let mut places: Vec<Place> = std::iter::once(&ORACLE)
            .chain(engines)
            .map(|&e| Place::new(e))
            .collect();
        let (regs, xmm, ymm_hi): (Vec<u64>, Vec<u128>, Vec<u128>) = (
            (0..16).map(|r| program.roles.value(r, &mut rng)).collect(),
            (0..16).map(|_| rng.vector(0)).collect(),
            (0..16).map(|_| rng.vector(0)).collect(),
        );
        let mxcsr = if rng.chance(70) {
            0x1f80
        } else {
            0x1f80 | rng.next() as u32 & 0xe07f
        };
        let data = rng.next();
        for p in &mut places {
            p.load(program, data);
            p.vm.cpu.regs.copy_from_slice(&regs);
            p.vm.cpu.fpu.xmm.copy_from_slice(&xmm);
            p.vm.cpu.fpu.ymm_hi.copy_from_slice(&ymm_hi);
            p.vm.cpu.fpu.mxcsr = mxcsr;
        }
        let mut l = Lockstep {
            program,
            places,
            rng,
            stats: Stats::default(),
            undefined: 0,
            trace: VecDeque::new(),
            stuck: 0,
        };
        l.set_bases();
        l
    }

    fn set_bases(&mut self) {
        let roles = &self.program.roles;
        for p in &mut self.places {
            (p.vm.cpu.bases.fs, p.vm.cpu.bases.gs) = (roles.fs, roles.gs);
        }
    }

    pub fn all(&mut self, mut f: impl FnMut(&mut Cpu)) {
        self.places.iter_mut().for_each(|p| f(&mut p.vm.cpu));
    }

    /// The oracle's CPU.
    pub fn cpu(&mut self) -> &mut Cpu {
        &mut self.places[0].vm.cpu
    }

    /// Runs `limit` instructions or so.
    pub fn run(&mut self, limit: u64, disturb: &Disturb) -> Result<Stats, Failure> {
        let quiet = Arc::new(Mutex::new(()));
        if !disturb.meanwhile {
            return self.steps(limit, disturb, &quiet);
        }
        let kicker = Kicker::new(self, quiet.clone());
        std::thread::scope(|s| {
            // Also when this thread panics.
            let _end = kicker.end();
            s.spawn(|| kicker.run());
            self.steps(limit, disturb, &quiet)
        })
    }

    /// `quiet` is held while anybody looks: what others do meanwhile is undone by then.
    fn steps(&mut self, limit: u64, disturb: &Disturb, quiet: &Mutex<()>) -> Result<Stats, Failure> {
        while self.stats.instructions < limit && self.stats.steps < limit {
            self.stats.steps += 1;
            let k = disturb.slice(&mut self.rng);
            let step = self.oracle(k);
            let others: Vec<_> = self.places[1..].iter_mut().map(|p| p.run(step.limit)).collect();
            let _quiet = quiet.lock().unwrap_or_else(|e| e.into_inner());
            self.compare(&step, &others)?;
            if let Stop::Trap(trap) = step.stop {
                self.stats.traps += 1;
                self.handle(trap);
            } else {
                self.stuck = 0;
            }
            disturb.between(self);
        }
        Ok(self.stats)
    }

    /// The oracle takes a step of at most `k` instructions.
    fn oracle(&mut self, k: i64) -> Step {
        let (mut done, mut stop) = (0, Stop::Budget);
        let mut limit = k;
        while done < k {
            let rip = self.places[0].vm.cpu.rip;
            let insn = self.places[0].instruction(rip);
            let flags = taint::of(&insn, &self.places[0].vm.cpu);
            if flags.read & self.undefined != 0 {
                if done > 0 {
                    limit = done;
                    break;
                }
                // What was not defined is from here on what the oracle has.
                let bits = self.cpu().arith_flags();
                self.all(|c| c.set_arith_flags(bits));
                self.undefined = 0;
            }
            if self.trace.len() == SHOWN {
                self.trace.pop_front();
            }
            self.trace.push_back((insn, self.stats.instructions));
            let cpu = self.cpu();
            cpu.budget.left = 1;
            stop = cpu.run();
            let used = 1 - cpu.budget.left;
            done += used;
            self.stats.instructions += used as u64;
            if stop != Stop::Budget {
                break;
            }
            self.undefined = self.undefined & !flags.defined | flags.undefined;
        }
        Step { limit, done, stop }
    }

    /// What differs after a step from what the others have come to: why they stopped, and what was left for them.
    fn compare(&mut self, step: &Step, others: &[(Stop, i64)]) -> Result<(), Failure> {
        let Step { limit, done, stop } = *step;
        for (n, &(other, left)) in others.iter().enumerate() {
            let mut out = String::new();
            if other != stop {
                let _ = writeln!(out, "    stop: oracle {stop:x?} engine {other:x?}");
            }
            if left != limit - done {
                let _ = writeln!(
                    out,
                    "    budget left of {limit}: oracle {} engine {left}",
                    limit - done
                );
            }
            let (oracle, rest) = self.places.split_at_mut(1);
            let engine = rest[n].engine;
            if engine.has_exact_flags() {
                oracle[0].compare_cpu(&rest[n], self.undefined, &mut out);
            } else {
                oracle[0].compare_cpu(&rest[n], ARITH, &mut out);
                rest[n].vm.cpu.set_arith_flags(oracle[0].vm.cpu.arith_flags());
            }
            // A look at all of memory takes as long as a hundred instructions.
            if done > 4 || self.stats.steps.is_multiple_of(8) {
                oracle[0].compare_memory(&mut rest[n], &mut out);
            }
            if !out.is_empty() {
                return Err(self.failure(
                    engine,
                    &format!("{engine:?}, a step of {limit} ({done} done)\n{out}"),
                ));
            }
        }
        Ok(())
    }

    fn failure(&self, engine: Engine, what: &str) -> Failure {
        let mut text = String::new();
        let mut f = IntelFormatter::new();
        for (insn, n) in self.trace.iter().filter(|(i, _)| i.code() != Code::Nopd) {
            let mut line = String::new();
            f.format(insn, &mut line);
            let _ = writeln!(text, "    {n:6} {:#x} {line}   ({:?})", insn.ip(), insn.code());
        }
        if let Some((insn, _)) = self.trace.back() {
            let _ = writeln!(text, "    bytes now {:02x?}", self.places[0].bytes(insn.ip()));
        }
        let last = self.trace.back().map(|(i, _)| i.code());
        Failure {
            key: format!("{engine:?} {last:?}"),
            text: format!("{what}  the oracle's last instructions:\n{text}"),
            after: self.stats.instructions,
        }
    }

    /// Registers are set right again.
    pub fn repair(&mut self) {
        let values: Vec<u64> = (0..16)
            .map(|r| self.program.roles.value(r, &mut self.rng))
            .collect();
        for p in &mut self.places {
            p.vm.cpu.regs.copy_from_slice(&values);
            p.select(self.program);
        }
        self.set_bases();
    }

    /// What a kernel would do about a trap, or something else: the same for all engines.
    fn handle(&mut self, trap: Trap) {
        let rip = self.cpu().rip;
        let after = self.program.after(rip);
        self.stuck += 1;
        if self.stuck > 4 {
            self.repair();
            self.stuck = 0;
            let start = self.program.start;
            return self.all(|c| {
                c.rip = start;
                c.set_rflags(0x202);
                c.fpu.mxcsr = 0x1f80;
                c.fpu.ts = false;
            });
        }
        match trap {
            Trap::Priv { len, .. } => self.all(|c| c.rip = c.rip.wrapping_add(u64::from(len))),
            Trap::Fault(f) => match f.vector {
                // Breakpoints on execution are passed by.
                1 => self.all(|c| {
                    c.set_rflags(c.rflags() & !0x100);
                    c.debug.resume = c.debug.armed();
                }),
                7 => self.all(|c| c.fpu.ts = false),
                16 => {
                    let masked = self.rng.chance(80);
                    self.all(|c| {
                        c.fpu.x87.set_control(if masked { 0x37f } else { 0x340 });
                        c.fpu.x87.set_status_word(0);
                    });
                }
                17 => self.all(|c| c.set_rflags(c.rflags() & !(1 << 18))),
                19 => self.all(|c| c.fpu.mxcsr |= 0x1f80),
                14 if self.rng.chance(30) => self.page_in(f.cr2),
                _ => match self.rng.below(10) {
                    0..=2 => {
                        self.repair();
                        self.all(|c| c.rip = after);
                    }
                    3..=4 => self.repair(),
                    5 => {
                        self.repair();
                        let start = self.program.start;
                        self.all(|c| c.rip = start);
                    }
                    _ => self.all(|c| c.rip = after),
                },
            },
            // A call's rcx and r11 may be anybody's counters.
            Trap::Syscall if self.rng.chance(50) => self.repair(),
            Trap::Unsupported(_) | Trap::CallGate { .. } => self.all(|c| c.rip = after),
            _ => {}
        }
        if self.undefined & ARITH != 0 && self.rng.chance(50) {
            let bits = self.cpu().arith_flags();
            self.all(|c| c.set_arith_flags(bits));
            self.undefined = 0;
        }
    }
}
