// SPDX-License-Identifier: Apache-2.0
//! Far transfers, and near branches with prefixes, which processors of different makers decode differently: in 64-bit code,
//! compared with the host's.

use crate::engines::Engine;
use crate::generate::Case;
use crate::oracle::{describe, Pair};
use crate::report::{cases, seed, Report};
use crate::rng::Rng;
use crate::state::*;
use crate::vendor::{decoder_options, far_open};
use domzero_machine::{DescTable, Mfn};
use iced_x86::Decoder;

const RSP: usize = 4;
const RDI: usize = 7;
const NONCANONICAL: u64 = 0x8000_0000_0000;
const GDT: Mfn = Mfn(110);
/// Linux's 32-bit code, data, and 64-bit code.
const SEGMENTS: [(u64, u64); 3] = [
    (4, 0x00cf_fb00_0000_ffff),
    (5, 0x00cf_f300_0000_ffff),
    (6, 0x00af_fb00_0000_ffff),
];
const SELECTORS: [u64; 8] = [0x33, 0x33, 0x33, 0x23, 0x30, 0x2b, 0, 3];
const PREFIXES: [&[u8]; 5] = [&[], &[0x66], &[0x48], &[0x66, 0x48], &[0x48, 0x66]];

/// Opcodes with memory operands at [rdi]; branches have their displacement to come.
const FAR: [&[u8]; 8] = [
    &[0xff, 0x2f],
    &[0xff, 0x1f],
    &[0xcb],
    &[0xca, 0x10, 0x00],
    &[0xcf],
    &[0x0f, 0xb2, 0x1f],
    &[0x0f, 0xb5, 0x1f],
    &[0x0f, 0xb5, 0x07],
];
const NEAR: [&[u8]; 8] = [
    &[0xff, 0x27],
    &[0xff, 0x17],
    &[0xff, 0xe7],
    &[0xff, 0xd7],
    &[0xc3],
    &[0xc2, 0x08, 0x00],
    &[0xe8, 0x21, 0x00, 0x00, 0x00],
    &[0xe9, 0xe3, 0xff, 0xff, 0xff],
];

fn opcode(rng: &mut Rng) -> (Vec<u8>, bool) {
    match rng.below(4) {
        0 | 1 => (rng.pick(&FAR).to_vec(), true),
        2 => (rng.pick(&NEAR).to_vec(), false),
        _ => {
            let displacement = rng.below(100) as u8;
            let short = [0xeb, 0xe0, 0xe1, 0xe2, 0xe3, 0x70 + rng.below(16) as u8];
            let mut code = vec![rng.pick(&short), displacement];
            if rng.chance(30) {
                code = vec![0x0f, 0x80 + rng.below(16) as u8, displacement, 0, 0, 0];
            }
            (code, false)
        }
    }
}

/// Where a branch goes; often to where none may.
fn target(rng: &mut Rng) -> u64 {
    match rng.chance(30) {
        true => NONCANONICAL + rng.below(48),
        false => CODE_VA + rng.below(48),
    }
}

/// Where the stack is; often where nothing can be pushed, or only the first word of two.
fn stack(rng: &mut Rng, far: bool) -> u64 {
    let pages = [page_va(4) + 512, page_va(8), page_va(8) + 8, NONCANONICAL + 512];
    // 32-bit code, to which a far branch can lead, has no upper half of rsp.
    match rng.chance(40) {
        true => rng.pick(&pages[..4 - usize::from(far)]),
        false => page_va(8) + 512 + rng.below(8),
    }
}

/// A far pointer (and what iret pops after it) with fields of `width` bytes.
fn frame(rng: &mut Rng, width: usize, stack: u64) -> Vec<u8> {
    let selector = rng.pick(&SELECTORS);
    // Of an offset into 32-bit code Intel's processors take the low half; by AMD's manual it is beyond the limit.
    let target = target(rng);
    let words = [
        if selector == 0x23 {
            target as u32 as u64
        } else {
            target
        },
        selector,
        0x202,
        stack,
        rng.pick(&[0x2b, 0x2b, 0x2b, 0, 0x33]),
    ];
    words
        .iter()
        .flat_map(|w| w.to_le_bytes()[..width].to_vec())
        .collect()
}

fn case(rng: &mut Rng) -> Option<Case> {
    let mut state = State::default();
    for r in &mut state.regs {
        *r = rng.int();
    }
    state.rflags = 0x202 | rng.next() & ARITH;
    state.regs[1] = rng.below(3);
    let (mut bytes, far) = (rng.pick(&PREFIXES).to_vec(), opcode(rng));
    bytes.extend(&far.0);
    let start = CODE_VA + 64 + rng.below(3000);
    let mut decoder = Decoder::with_ip(64, &bytes, start, decoder_options());
    let insn = decoder.decode();
    let (operand, stack) = (page_va(1) + 256, stack(rng, far.1));
    state.regs[RDI] = operand;
    state.regs[RSP] = stack;
    if far.0.starts_with(&[0xff]) && far.0[1] >= 0xc0 {
        state.regs[RDI] = target(rng);
    }
    let width = |rng: &mut Rng| rng.pick(&[2usize, 4, 8]);
    let mut memory = Vec::new();
    let there = |at: &u64| [page_va(1), page_va(8)].contains(&(at & !0xfff));
    for at in [operand, stack].into_iter().filter(there) {
        let width = width(rng);
        let mut data = frame(rng, width, page_va(9) + 128);
        if at == operand {
            // The selector of a pointer in memory has 16 bits, whatever the offset has.
            let selector = data[width..width + 2].to_vec();
            data = [&data[..width], &selector, &[0; 16]].concat();
        }
        memory.push((at, data));
    }
    // What does not decode is not a branch.
    (!insn.is_invalid() && insn.len() == bytes.len() || !far.1).then_some(Case {
        insns: vec![insn],
        bytes,
        start,
        state,
        memory,
        undefined: 0,
        segment: None,
    })
}

#[test]
fn far_transfers_and_prefixed_branches_do_what_the_hosts_cpu_does() {
    for engine in Engine::compared() {
        far_transfers(engine);
    }
}

fn far_transfers(engine: Engine) {
    let (seed, mut pair, mut report) = (seed(), Pair::new(engine), Report::default());
    pair.guest.linux_selectors = true;
    pair.guest.cpu.seg.tables.gdt = DescTable {
        frames: std::array::from_fn(|n| (n == 0).then_some(GDT)),
        entries: 16,
    };
    for (n, descriptor) in SEGMENTS {
        assert!(pair.guest.machine.mem.write_u64(GDT.maddr() + n * 8, descriptor));
    }
    let mut rng = Rng::new(seed ^ 0xfa7);
    for n in 0..cases(8_000) {
        let Some(case) = case(&mut rng) else { continue };
        report.cases += 1;
        pair.native.reset_gs();
        let diff = pair.check(&case, [1000, 1][n as usize & 1]);
        if !diff.is_empty() && !far_open(&case, &diff) {
            report.add(format!("{:02x?}", &case.bytes), || describe(&case) + &diff);
        }
    }
    pair.native.reset_gs();
    report.finish(&format!("far transfers, {engine:?}"), seed);
}
