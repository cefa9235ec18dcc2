// SPDX-License-Identifier: Apache-2.0
//! xsave and its kin, here and on the host's CPU: areas of all kinds, whatever components are asked for.

use crate::engines::Engine;
use crate::generate::{Case, Generator};
use crate::oracle::{describe, Pair};
use crate::report::{cases, seed, Report};
use crate::rng::Rng;
use crate::state::*;
use crate::tables::{RAX, RCX, RDX, RSI};
use iced_x86::{Code, Instruction, MemoryOperand, Register};
use std::arch::x86_64::_xgetbv;
use std::fmt::Write;

const HEADER: u64 = 512;
const AREA: usize = 832;
const COMPACTED: u64 = 1 << 63;

const FORMS: [(Code, &str); 9] = [
    (Code::Xsave_mem, ""),
    (Code::Xsave64_mem, ""),
    (Code::Xsaveopt_mem, "xsaveopt"),
    (Code::Xsaveopt64_mem, "xsaveopt"),
    (Code::Xsavec_mem, "xsavec"),
    (Code::Xsavec64_mem, "xsavec"),
    (Code::Xrstor_mem, ""),
    (Code::Xrstor64_mem, ""),
    (Code::Xgetbv, ""),
];

/// What the host has of the optional forms.
fn supported(name: &str) -> bool {
    match name {
        "xsaveopt" => is_x86_feature_detected!("xsaveopt"),
        "xsavec" => is_x86_feature_detected!("xsavec"),
        _ => true,
    }
}

/// XCR0 of the host.
#[allow(unsafe_code)]
#[target_feature(enable = "xsave")]
fn host_xcr0() -> u64 {
    // SAFETY: the system has enabled it, as there is AVX.
    unsafe { _xgetbv(0) }
}

/// Bits that neither side's XCR0 has.
fn foreign_bit(rng: &mut Rng, host: u64) -> u64 {
    loop {
        let bit = 1 << rng.below(63);
        if bit & (host | 7) == 0 {
            return bit;
        }
    }
}

/// Brings components of the state to their initial values, now and then.
fn settle(rng: &mut Rng, state: &mut State) {
    let initial = State::default();
    if rng.chance(30) {
        state.fx[..24].copy_from_slice(&initial.fx[..24]);
        state.fx[32..160].fill(0);
    }
    if rng.chance(30) {
        state.fx[160..].fill(0);
        if rng.chance(60) {
            state.set_mxcsr(0x1f80);
        }
    }
    if rng.chance(40) {
        state.ymm = [0; 16];
    }
}

fn header(rng: &mut Rng, host: u64) -> [u8; 64] {
    let mut words = [0u64; 8];
    words[0] = rng.below(8);
    if rng.chance(40) {
        words[1] = COMPACTED | rng.below(8) | if rng.chance(70) { words[0] } else { 0 };
    }
    if rng.chance(10) {
        words[rng.below(2) as usize] ^= foreign_bit(rng, host);
    }
    if rng.chance(15) {
        words[rng.below(8) as usize] |= 1 << rng.below(63);
        words[0] &= 7 | COMPACTED | words[0] & !host;
        words[1] &= 7 | COMPACTED | words[1] & !host;
    }
    let mut bytes = [0; 64];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The form with its area at [rsi], and a state in which it does something.
fn case(rng: &mut Rng, code: Code, bits: u32, host: u64) -> Option<Case> {
    let mut g = Generator::new(rng, bits);
    settle(g.rng, &mut g.state);
    let base = if bits == 32 { Register::ESI } else { Register::RSI };
    let insn = match code {
        Code::Xgetbv => Instruction::with(code),
        _ => Instruction::with1(code, MemoryOperand::with_base(base)).ok()?,
    };
    // Two pages in a row can be written; edges of the others are reached now and then.
    let va = match g.rng.below(10) {
        0 => page_va(1 + g.rng.below(11) as usize).wrapping_sub(64 * g.rng.below(14)),
        1 => page_va(1) + g.rng.below(4096),
        _ => page_va(1) + 64 * g.rng.below(100),
    };
    let mut asked = if g.rng.chance(40) { 7 } else { g.rng.below(8) };
    if g.rng.chance(30) {
        asked |= foreign_bit(g.rng, host);
    }
    g.state.regs[RAX] = asked & 0xffff_ffff | if bits == 64 { g.rng.next() << 32 } else { 0 };
    g.state.regs[RDX] = asked >> 32;
    g.state.regs[RSI] = va;
    if code == Code::Xgetbv {
        // What is in use is the makers' business; which registers there are is not.
        g.state.regs[RCX] = 2 + g.rng.below(100);
    }
    let mut memory = Vec::new();
    let mut area: Vec<u8> = (0..AREA).map(|_| g.rng.next() as u8).collect();
    let mxcsr = if g.rng.chance(90) {
        g.rng.next() as u32 & 0xffff
    } else {
        g.rng.next() as u32
    };
    area[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    area[HEADER as usize..HEADER as usize + 64].copy_from_slice(&header(g.rng, host));
    for (n, page) in area.chunks(64).enumerate() {
        let at = va.wrapping_add(64 * n as u64);
        let whole = at & !0xfff == (at + 63) & !0xfff;
        if whole && (0..PAGES.len()).any(|i| page_va(i) == at & !0xfff && PAGES[i] == Page::Rw) {
            memory.push((at, page.to_vec()));
        }
    }
    let mut encoder = iced_x86::Encoder::new(bits);
    encoder.encode(&insn, CODE_VA + 64).ok()?;
    let mut insn = insn;
    insn.set_ip(CODE_VA + 64);
    Some(Case {
        insns: vec![insn],
        bytes: encoder.take_buffer(),
        start: CODE_VA + 64,
        state: g.state,
        memory,
        undefined: 0,
        segment: None,
    })
}

/// Whether these bytes of a saved area are up to the maker: of x87 where its last instruction was, and MXCSR_MASK.
fn open_bytes(area: u64) -> impl Iterator<Item = u64> {
    (6..24).chain(28..32).map(move |n| area + n)
}

/// Its bit, whether it is in its initial state, and what it has of the area.
type Component<'a> = (u64, bool, &'a [(u64, u64)]);

/// Components in their initial state may be told of as if they were in use, and then are saved.
fn saved_initial(pair: &mut Pair, case: &Case, state: &State) {
    let va = case.state.regs[RSI];
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let native = |va: u64, n: usize| -> Option<Vec<u8>> {
        (va..va + n as u64)
            .map(|at| {
                let page = at & !0xfff;
                let ours = (0..PAGES.len()).any(|i| page_va(i) == page && PAGES[i] == Page::Rw);
                ours.then(|| pair.native.page(page)[(at & 0xfff) as usize])
            })
            .collect()
    };
    let initial = State::default();
    let sse = state.fx[160..] == initial.fx[160..];
    let components: [Component; 3] = [
        (
            1,
            state.fx[..5] == initial.fx[..5] && state.fx[32..160] == initial.fx[32..160],
            &[(0, 24), (32, 160)],
        ),
        (2, sse, &[(24, 32), (160, 416)]),
        (4, state.ymm == [0; 16], &[(576, 832)]),
    ];
    let Some(host_bv) = native(va + HEADER, 8).map(|b| word(&b)) else {
        return;
    };
    let page = |at: u64| pair.guest.page(at & !0xfff)[(at & 0xfff) as usize];
    let guest_bv: Vec<u8> = (0..8).map(|n| page(va + HEADER + n)).collect();
    let guest_bv = word(&guest_bv);
    let mut copies = Vec::new();
    let mut bv = guest_bv;
    for (bit, is_initial, ranges) in components {
        if !is_initial || (host_bv ^ guest_bv) & bit == 0 {
            continue;
        }
        bv ^= bit;
        for &(from, to) in ranges {
            for at in from..to {
                if let Some(b) = native(va + at, 1) {
                    copies.push((va + at, b[0]));
                }
            }
        }
    }
    for (at, byte) in copies {
        pair.guest.write(at, &[byte]);
    }
    pair.guest.write(va + HEADER, &bv.to_le_bytes());
}

/// Runs a case on both sides: what differs, and how the host ended.
fn check(pair: &mut Pair, case: &Case) -> (String, End) {
    let mut native = pair.prepare(case);
    let mut guest = native.clone();
    let native_end = pair.native.run(&mut native);
    let guest_end = pair.guest.run(&mut guest, 1000);
    let mut out = String::new();
    let page_fault = |e: &End| matches!(e, End::Fault { vector: 14, .. });
    // Makers may look at more of the area than they need, and at what the header says after it.
    if page_fault(&native_end) && !page_fault(&guest_end) {
        pair.compare_memory(&mut String::new());
        pair.clear(case);
        return (String::new(), native_end);
    }
    let both = page_fault(&native_end) && page_fault(&guest_end);
    if native_end != guest_end && !both {
        let _ = writeln!(out, "    end: host {native_end:x?} guest {guest_end:x?}");
    }
    if native.regs != guest.regs || native.rip != guest.rip || (native.rflags ^ guest.rflags) & ARITH != 0 {
        let _ = writeln!(
            out,
            "    registers: host {:x?} at {:#x} guest {:x?} at {:#x}",
            native.regs, native.rip, guest.regs, guest.rip
        );
    }
    let ended = matches!(native_end, End::Breakpoint);
    let code = case.insns[0].code();
    let saves = !matches!(code, Code::Xrstor_mem | Code::Xrstor64_mem | Code::Xgetbv);
    // Reserved bits of MXCSR are found last, too.
    let at = case.state.regs[RSI] + 26;
    let mapped = (0..PAGES.len()).any(|i| page_va(i) == at & !0xfff && PAGES[i] != Page::None);
    let high = |n: u64| pair.native.page(at & !0xfff)[(at & 0xfff) as usize + n as usize];
    let bad_mxcsr = mapped && at & 63 == 26 && (high(0) != 0 || high(1) != 0);
    if both || native_end == guest_end && native_end != End::Breakpoint && bad_mxcsr {
        // How much of it was written or loaded before is the maker's business.
        pair.compare_memory(&mut String::new());
        native.fx = guest.fx;
        native.ymm = guest.ymm;
    }
    if ended && saves {
        for at in open_bytes(case.state.regs[RSI]) {
            let page = at & !0xfff;
            if (0..PAGES.len()).any(|n| page_va(n) == page && PAGES[n] == Page::Rw) {
                let byte = pair.native.page(page)[(at & 0xfff) as usize];
                pair.guest.write(at, &[byte]);
            }
        }
        saved_initial(pair, case, &case.state);
    }
    for (what, range) in [
        ("x87", 0..5),
        ("mxcsr", 24..28),
        ("st", 32..160),
        ("xmm", 160..416),
    ] {
        if native.fx[range.clone()] != guest.fx[range.clone()] {
            let _ = writeln!(
                out,
                "    {what}: host {:02x?}\n      guest {:02x?}",
                &native.fx[range.clone()],
                &guest.fx[range]
            );
        }
    }
    if native.ymm != guest.ymm {
        let _ = writeln!(out, "    ymm: host {:x?} guest {:x?}", native.ymm, guest.ymm);
    }
    pair.compare_memory(&mut out);
    pair.clear(case);
    (out, native_end)
}

#[test]
fn extended_state_is_saved_and_restored_as_by_the_hosts_cpu() {
    if !is_x86_feature_detected!("avx") {
        println!("the host has no AVX");
        return;
    }
    // SAFETY: there is AVX, and so XCR0.
    #[allow(unsafe_code)]
    let host = unsafe { host_xcr0() };
    for engine in Engine::compared() {
        let (seed, mut pair, mut report) = (seed(), Pair::new(engine), Report::default());
        let mut rng = Rng::new(seed ^ 0x5a);
        let mut ended = 0;
        for _ in 0..cases(9_000).div_ceil(2 * FORMS.len() as u64) {
            for (code, name) in FORMS {
                for bits in [64, 32] {
                    if !supported(name) {
                        continue;
                    }
                    let Some(case) = case(&mut rng, code, bits, host) else {
                        continue;
                    };
                    report.cases += 1;
                    let (diff, end) = check(&mut pair, &case);
                    ended += u64::from(end == End::Breakpoint);
                    if !diff.is_empty() {
                        report.add(format!("{code:?} {bits}"), || describe(&case) + &diff);
                    }
                }
            }
        }
        assert!(ended > 1000, "only {ended} cases");
        report.finish(&format!("extended state, {engine:?}"), seed);
    }
}
