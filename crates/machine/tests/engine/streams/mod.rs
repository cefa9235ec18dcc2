// SPDX-License-Identifier: Apache-2.0
//! Random streams of instructions, weighted like real code, on all engines: nothing may differ, whatever happens on the way.
//!
//! DOMZERO_ORACLE_CASES (40,000 stand for the quick run), DOMZERO_ORACLE_SEED; DOMZERO_STREAM_CASE runs one case alone, which is what a
//! failure names.

mod between;
mod disturb;
mod emit;
mod fill;
mod forms;
mod items;
mod kicker;
mod lockstep;
mod narrow;
mod place;
mod program;
mod taint;

use crate::engines::{Engine, CODE_BYTES};
use crate::report::{cases, seed, Report};
use crate::rng::Rng;
use disturb::Disturb;
use lockstep::{Failure, Lockstep, Stats};
use program::Program;

/// Kinds of failures that are told of.
const MOST_FAILURES: usize = 8;

/// Cases of the oracle's quick run; whatever their number is, these have as many times theirs.
const ORACLE_CASES: u64 = 40_000;

/// Of translated code with room for two blocks or so: some KiB of code that runs often, and of what lies apart.
const LITTLE_CODE_BYTES: usize = 12 << 10;

/// Of so many cases one has its translated code proved, which takes longer than to run it.
const PROVED: u64 = 8;

/// Instructions of a case: enough for its loops to become hot.
fn length(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => 300,
        1 | 2 => 1500,
        _ => 6000,
    }
}

fn run(program: &Program, case: u64, limit: u64, disturb: &Disturb) -> Result<Stats, Failure> {
    let engines = if disturb.flagless {
        vec![
            Engine::Flagless { threshold: 1 },
            Engine::Flagless { threshold: 3 },
        ]
    } else {
        Engine::compared()
    };
    let mut l = Lockstep::new(program, &engines, case ^ 0x10c);
    let code_bytes = if disturb.small_cache {
        LITTLE_CODE_BYTES
    } else {
        CODE_BYTES
    };
    let proved = case.is_multiple_of(PROVED);
    for (p, engine) in l.places[1..].iter_mut().zip(&engines) {
        engine.choose_with(&mut p.vm.cpu, code_bytes, proved);
        if disturb.small_cache {
            let slots = 8 + l.rng.below(24) as usize;
            p.vm.cpu.set_code_limit(slots);
        }
    }
    if disturb.one_entry {
        for p in &mut l.places[1..] {
            p.vm.cpu.set_single_translation(true);
        }
    }
    let mut stats = l.run(limit, disturb)?;
    let rests = |p: &place::Place| p.vm.cpu.translated().rests;
    stats.rests = l.places[1..].iter().map(rests).sum();
    for p in l.places[1..].iter().filter(|_| proved) {
        // Each block was proved when it was made; here with its jumps as they have been linked.
        let proved = p.vm.cpu.prove_code();
        assert!(
            proved.is_ok(),
            "case {case}: {}",
            proved.err().unwrap_or_default()
        );
    }
    Ok(stats)
}

/// The same failure with fewer instructions, and what it is then: those that are not needed are no operations.
fn shrink(mut program: Program, case: u64, failure: Failure, disturb: &Disturb) -> (Failure, usize) {
    let (mut best, mut dropped) = (failure, 0);
    let limit = best.after + 200;
    for (va, len) in program.insns.clone() {
        let chunks = program.chunks.clone();
        for (at, bytes) in &mut program.chunks {
            let from = va.wrapping_sub(*at) as usize;
            if from + usize::from(len) <= bytes.len() {
                bytes[from..from + usize::from(len)].fill(0x90);
            }
        }
        match run(&program, case, limit, disturb) {
            Err(f) => {
                best = f;
                dropped += 1;
            }
            Ok(_) => program.chunks = chunks,
        }
    }
    (best, dropped)
}

fn streams(name: &str, default: u64, disturb: Disturb) {
    let seed = seed();
    let mut total = Stats::default();
    let mut report = Report::default();
    let one = std::env::var("DOMZERO_STREAM_CASE")
        .ok()
        .and_then(|v| v.parse::<u64>().ok());
    // A case is some thousand instructions: fewer of them than the oracle has.
    let count = (cases(ORACLE_CASES) * default / ORACLE_CASES).max(1);
    let first = seed.wrapping_mul(1_000_003);
    for case in one.map_or(first..first + count, |c| c..c + 1) {
        let mut rng = Rng::new(case);
        let program = Program::new(
            &mut rng,
            !disturb.flagless,
            disturb.x87,
            disturb.bits(),
            disturb.calls,
        );
        report.cases += 1;
        match run(&program, case, length(&mut rng), &disturb) {
            Ok(s) => {
                total.instructions += s.instructions;
                total.steps += s.steps;
                total.traps += s.traps;
                total.rests += s.rests;
            }
            Err(first) => report.add(first.key.clone(), || {
                let text = format!(
                    "case {case}: {}  after {} instructions\n",
                    first.text, first.after
                );
                let (least, dropped) = shrink(program, case, first, &disturb);
                format!("{text}with {dropped} instructions less: {}", least.text)
            }),
        }
        if report.failures.len() >= MOST_FAILURES {
            break;
        }
    }
    println!(
        "{name}: {} instructions in {} steps, {} traps, {} rests of blocks",
        total.instructions, total.steps, total.traps, total.rests
    );
    report.finish(name, seed);
}

#[test]
fn streams_are_the_same_on_all_engines() {
    streams("streams", 500, Disturb::default());
}

#[test]
fn streams_are_the_same_one_instruction_at_a_time() {
    let disturb = Disturb {
        one: true,
        ..Disturb::default()
    };
    streams("single steps", 100, disturb);
}

#[test]
fn streams_are_the_same_whatever_is_forgotten_between_steps() {
    let disturb = Disturb {
        flush: 40,
        ..Disturb::default()
    };
    streams("flushes", 300, disturb);
}

#[test]
fn streams_are_the_same_with_room_for_two_blocks() {
    let disturb = Disturb {
        flush: 5,
        small_cache: true,
        ..Disturb::default()
    };
    streams("two blocks", 200, disturb);
}

#[test]
fn streams_are_the_same_with_a_tlb_of_one_entry() {
    let disturb = Disturb {
        flush: 3,
        change: 3,
        one_entry: true,
        ..Disturb::default()
    };
    streams("one translation", 200, disturb);
}

#[test]
fn streams_are_the_same_when_page_tables_code_and_control_registers_change() {
    let disturb = Disturb {
        flush: 10,
        change: 25,
        ..Disturb::default()
    };
    streams("changes", 400, disturb);
}

#[test]
fn streams_are_the_same_while_another_thread_kicks_purges_and_writes_code() {
    let disturb = Disturb {
        flush: 5,
        meanwhile: true,
        ..Disturb::default()
    };
    streams("kicks", 100, disturb);
}

/// A block that changes itself while flags are not kept may find others: that is documented, and left out here.
#[test]
fn streams_are_the_same_where_flags_that_nobody_looks_at_are_not_kept() {
    let disturb = Disturb {
        flagless: true,
        flush: 5,
        ..Disturb::default()
    };
    streams("flagless", 400, disturb);
}

#[test]
fn streams_of_x87_instructions_are_the_same_on_all_engines() {
    let disturb = Disturb {
        x87: true,
        ..Disturb::default()
    };
    streams("x87", 400, disturb);
}

#[test]
fn streams_of_x87_instructions_are_the_same_when_the_world_changes_between_steps() {
    let disturb = Disturb {
        x87: true,
        flush: 10,
        change: 15,
        ..Disturb::default()
    };
    streams("x87 and changes", 200, disturb);
}

fn narrow(name: &str, default: u64, disturb: Disturb) {
    let narrow = true;
    streams(name, default, Disturb { narrow, ..disturb });
}

#[test]
fn streams_of_32_bit_code_are_the_same_on_all_engines() {
    narrow("32-bit streams", 400, Disturb::default());
}

#[test]
fn streams_of_32_bit_code_are_the_same_one_instruction_at_a_time() {
    let disturb = Disturb {
        one: true,
        ..Disturb::default()
    };
    narrow("32-bit single steps", 60, disturb);
}

#[test]
fn streams_of_32_bit_code_are_the_same_with_a_tlb_of_one_entry_and_room_for_two_blocks() {
    let disturb = Disturb {
        flush: 4,
        change: 3,
        one_entry: true,
        small_cache: true,
        ..Disturb::default()
    };
    narrow("32-bit little room", 150, disturb);
}

#[test]
fn streams_of_32_bit_code_are_the_same_when_page_tables_code_and_control_registers_change() {
    let disturb = Disturb {
        flush: 15,
        change: 25,
        ..Disturb::default()
    };
    narrow("32-bit changes", 250, disturb);
}

#[test]
fn streams_of_32_bit_x87_code_are_the_same_when_the_world_changes_between_steps() {
    let disturb = Disturb {
        x87: true,
        flush: 5,
        change: 8,
        ..Disturb::default()
    };
    narrow("32-bit x87", 150, disturb);
}

#[test]
fn streams_of_32_bit_code_are_the_same_while_another_thread_kicks_purges_and_writes_code() {
    let disturb = Disturb {
        flush: 5,
        meanwhile: true,
        ..Disturb::default()
    };
    narrow("32-bit kicks", 60, disturb);
}

#[test]
fn streams_of_32_bit_code_are_the_same_where_flags_that_nobody_looks_at_are_not_kept() {
    let disturb = Disturb {
        flagless: true,
        flush: 5,
        ..Disturb::default()
    };
    narrow("32-bit flagless", 250, disturb);
}

#[test]
fn streams_with_calls_between_operands_of_one_register_are_the_same_on_all_engines() {
    let disturb = Disturb {
        calls: true,
        ..Disturb::default()
    };
    streams("calls between operands", 150, disturb);
    narrow("32-bit calls between operands", 100, disturb);
}
