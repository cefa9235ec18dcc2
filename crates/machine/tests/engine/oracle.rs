// SPDX-License-Identifier: Apache-2.0
//! Single instructions and short sequences, here and on the host's CPU.

use crate::engines::Engine;
use crate::generate::{Case, Generator};
use crate::guest::Guest;
use crate::intel;
use crate::native::Native;
use crate::report::{cases, seed, Report};
use crate::rng::Rng;
use crate::state::*;
use crate::tables::{everyday, forms};
use crate::vendor;
use crate::x87::{compare_x87, leaves_something_open, unmasked};
use domzero_machine::testing::executes;
use iced_x86::{Code, Formatter, IntelFormatter, Mnemonic};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Both machines, with equal memory.
pub struct Pair {
    pub native: Native,
    pub guest: Guest,
}

impl Pair {
    pub fn new(engine: Engine) -> Pair {
        let mut pair = Pair {
            native: Native::new(),
            guest: Guest::new(engine),
        };
        let mut rng = Rng::new(7);
        for (i, page) in PAGES.iter().enumerate() {
            if *page != Page::None {
                let bytes: Vec<u8> = (0..512).flat_map(|_| rng.next().to_le_bytes()).collect();
                pair.write(page_va(i), &bytes);
            }
        }
        for i in 0..CODE_PAGES {
            pair.write(CODE_VA + i * 4096, &[0xcc; 4096]);
        }
        pair.native.seal();
        pair
    }

    pub fn write(&mut self, va: u64, bytes: &[u8]) {
        self.native.write(va, bytes);
        self.guest.write(va, bytes);
    }

    /// Loads the case's code and memory on both sides.
    pub fn prepare(&mut self, case: &Case) -> State {
        let end = CODE_VA + CODE_PAGES * 4096;
        let from = (case.start - 16).max(CODE_VA);
        let to = (case.start + case.bytes.len() as u64 + 32).min(end);
        let mut code = vec![0xcc; (to - from) as usize];
        for (i, b) in case.bytes.iter().enumerate() {
            if let Some(c) = code.get_mut((case.start - from) as usize + i) {
                *c = *b;
            }
        }
        self.write(from, &code);
        for (va, bytes) in &case.memory {
            self.write(*va, bytes);
        }
        let mut state = case.state.clone();
        state.rip = case.start;
        state
    }

    /// Takes the case's code away again.
    pub fn clear(&mut self, case: &Case) {
        let n = (case.bytes.len() as u64).min(CODE_VA + CODE_PAGES * 4096 - case.start);
        self.native.write(case.start, &vec![0xcc; n as usize]);
        self.guest.write(case.start, &vec![0xcc; n as usize]);
        self.write(CODE_VA, &[0xcc; 64]);
    }

    /// Pages that differ are made equal again, and described.
    pub fn compare_memory(&mut self, out: &mut String) {
        for va in (0..PAGES.len())
            .filter(|&i| PAGES[i] != Page::None)
            .map(page_va)
            .chain((0..CODE_PAGES).map(|i| CODE_VA + i * 4096))
        {
            if self.native.page(va) != self.guest.page(va) {
                let (native, guest) = (self.native.page(va).to_vec(), self.guest.page(va).to_vec());
                let first = (0..4096).find(|&i| native[i] != guest[i]).unwrap_or(0);
                let at = first & !7;
                let _ = writeln!(
                    out,
                    "    [{:#x}] host {:02x?} guest {:02x?}",
                    va + at as u64,
                    &native[at..at + 8],
                    &guest[at..at + 8]
                );
                self.guest.write(va, &native);
            }
        }
    }

    /// Fields of saved floating-point state that differ between makers of CPUs: where the last x87 instruction was
    /// (AMD saves that only with a pending exception), and MXCSR_MASK.
    fn forgive(&mut self, case: &Case) {
        for i in &case.insns {
            let fields: &[(u64, u64)] = match i.code() {
                Code::Fxsave_m512byte | Code::Fxsave64_m512byte => &[(6, 18), (28, 4)],
                Code::Fnstenv_m28byte | Code::Fnsave_m108byte => &[(12, 16)],
                Code::Fnstenv_m14byte | Code::Fnsave_m94byte => &[(6, 8)],
                _ => continue,
            };
            let Some(va) = i.virtual_address(0, 0, |r, _, _| register(&case.state, r)) else {
                continue;
            };
            for at in fields
                .iter()
                .flat_map(|&(at, n)| va.wrapping_add(at)..va.wrapping_add(at + n))
            {
                let page = at & !0xfff;
                if (0..PAGES.len()).any(|n| page_va(n) == page && PAGES[n] == Page::Rw) {
                    let byte = self.native.page(page)[(at & 0xfff) as usize];
                    self.guest.write(at, &[byte]);
                }
            }
        }
    }

    /// Runs a case on both sides; empty when nothing differs.
    pub fn check(&mut self, case: &Case, slice: i64) -> String {
        let mut native = self.prepare(case);
        let mut guest = native.clone();
        let trace = std::env::var_os("DOMZERO_ORACLE_TRACE").is_some();
        if trace {
            eprint!("{}", describe(case));
        }
        let native_end = self.native.run(&mut native);
        if trace {
            eprintln!("    host {native_end:x?}");
        }
        let guest_end = self.guest.run(&mut guest, slice);
        let native_end = intel::as_amd(case, &self.native, native_end, &mut native, &guest_end, &guest);
        self.forgive(case);
        if vendor::stored_in_vain(case, &native_end) {
            self.compare_memory(&mut String::new());
        }
        let mut out = String::new();
        if !ends_agree(case, &native_end, &guest_end) {
            let _ = writeln!(out, "    end: host {native_end:x?} guest {guest_end:x?}");
        }
        compare_state(case, &native_end, &native, &guest, &mut out);
        self.compare_memory(&mut out);
        self.clear(case);
        out
    }
}

/// Whether makers of CPUs do this differently: which of two faulting operands (or of several pieces) is touched first,
/// and what a zero mask does.
fn ends_agree(case: &Case, native: &End, guest: &End) -> bool {
    use Mnemonic::*;
    native == guest
        || kernel_half(native, guest)
        || beyond_4g(case, native, guest)
        || vendor::ends_agree(case, native, guest)
        || case.insns.iter().any(|i| match i.mnemonic() {
            Maskmovdqu | Maskmovq | Vmaskmovdqu => matches!(native, End::Fault { vector: 14, .. }),
            Cmpsb | Cmpsw | Cmpsd | Cmpsq | Push => {
                matches!(
                    (native, guest),
                    (
                        End::Fault {
                            vector: 12..=14 | 17,
                            ..
                        },
                        End::Fault {
                            vector: 12..=14 | 17,
                            ..
                        }
                    )
                )
            }
            Vmaskmovps | Vmaskmovpd | Vpmaskmovd | Vpmaskmovq => match (native, guest) {
                (
                    End::Fault {
                        vector: 14, cr2: a, ..
                    },
                    End::Fault {
                        vector: 14, cr2: b, ..
                    },
                ) => a >> 12 == b >> 12,
                _ => false,
            },
            // The 14-byte environment, like the bigger ones, goes in pieces.
            _ => {
                (i.memory_size().size() > 16 && i.encoding() == iced_x86::EncodingKind::Legacy
                    || matches!(i.code(), Code::Fldenv_m14byte | Code::Fnstenv_m14byte))
                    && matches!(
                        (native, guest),
                        (End::Fault { vector: 14, .. }, End::Fault { vector: 14, .. })
                    )
            }
        })
}

/// What goes in several pieces, or must be aligned, may show another fault than that of its end beyond 4 GiB.
fn beyond_4g(case: &Case, native: &End, guest: &End) -> bool {
    let fault = |e: &End| matches!(e, End::Fault { vector: 12..=14, .. });
    case.state.bits == 32
        && case.insns.iter().any(|i| i.memory_size().size() >= 10)
        && fault(native)
        && matches!(guest, End::Fault { vector: 12 | 13, .. })
}

/// Linux does not tell its users whether anything is mapped in its own half.
fn kernel_half(native: &End, guest: &End) -> bool {
    matches!((native, guest), (End::Fault { vector: 14, code: Some(n), cr2: a }, End::Fault { vector: 14, code: Some(g), cr2: b })
        if a == b && *a >= 0x7fff_ffff_f000 && n | 1 == g | 1)
}

/// Whether an instruction that faults, or has a memory operand, makes the transition from x87 to MMX is up to the maker.
fn mmx_transition_open(case: &Case, native: &End) -> bool {
    use Mnemonic::*;
    if vendor::mmx_transition_open(case) {
        return true;
    }
    case.insns.iter().any(|i| match i.mnemonic() {
        Cvtpi2ps | Cvtpi2pd => true,
        Maskmovq | Cvtps2pi | Cvttps2pi | Cvtpd2pi | Cvttpd2pi => *native != End::Breakpoint,
        _ => false,
    })
}

/// A register as an address sees it.
pub fn register(state: &State, r: iced_x86::Register) -> Option<u64> {
    let Some(n) = crate::tables::gpr(r) else {
        return Some(if r == iced_x86::Register::GS { GS_BASE } else { 0 });
    };
    Some(if r.size() == 4 {
        state.regs[n] & 0xffff_ffff
    } else {
        state.regs[n]
    })
}

fn compare_state(case: &Case, end: &End, native: &State, guest: &State, out: &mut String) {
    if vendor::gathered_in_part(case, end) {
        return;
    }
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15",
    ];
    for (i, name) in NAMES.iter().enumerate() {
        if native.regs[i] != guest.regs[i] {
            let _ = writeln!(
                out,
                "    {}: was {:#x} host {:#x} guest {:#x}",
                name, case.state.regs[i], native.regs[i], guest.regs[i]
            );
        }
    }
    if native.rip != guest.rip {
        let _ = writeln!(out, "    rip: host {:#x} guest {:#x}", native.rip, guest.rip);
    }
    let strict = std::env::var_os("DOMZERO_ORACLE_STRICT").is_some();
    let undefined = case.undefined | vendor::open_flags(case, end);
    let mask = (ARITH | DF) & !if strict { 0 } else { undefined };
    if (native.rflags ^ guest.rflags) & mask != 0 && !unmasked(case, native, guest) {
        let _ = writeln!(
            out,
            "    flags: was {} host {} guest {}",
            flag_names(case.state.rflags),
            flag_names(native.rflags & mask),
            flag_names(guest.rflags & mask)
        );
    }
    let approximate = case.insns.iter().any(|i| approximate(i.mnemonic()));
    for i in 0..16 {
        let (n, g) = (native.xmm(i), guest.xmm(i));
        if n != g && !(approximate && nearly(n, g)) {
            let _ = writeln!(
                out,
                "    xmm{i}: was {:#034x} host {n:#034x} guest {g:#034x}",
                case.state.xmm(i)
            );
        }
    }
    for i in 0..16 {
        let (n, g) = (native.ymm[i], guest.ymm[i]);
        if n != g && !(approximate && nearly(n, g)) {
            let _ = writeln!(
                out,
                "    ymm{i} upper: was {:#034x} host {n:#034x} guest {g:#034x}",
                case.state.ymm[i]
            );
        }
    }
    if !mmx_transition_open(case, end) {
        compare_x87(case, native, guest, out);
    }
    // Several roundings in one instruction: which of them are done after an unmasked exception is open.
    let several = matches!(end, End::Fault { vector: 19, .. })
        && case.insns.iter().any(|i| {
            matches!(
                i.mnemonic(),
                Mnemonic::Dppd | Mnemonic::Dpps | Mnemonic::Vdppd | Mnemonic::Vdpps
            )
        });
    // Whether a store that faults has told of its rounding.
    let stored = matches!(end, End::Fault { vector: 14, .. })
        && case.insns.iter().any(|i| i.mnemonic() == Mnemonic::Vcvtps2ph);
    if native.mxcsr() != guest.mxcsr() && !several && !stored && !vendor::rounding_untold(case) {
        let _ = writeln!(
            out,
            "    mxcsr: was {:#x} host {:#x} guest {:#x}",
            case.state.mxcsr(),
            native.mxcsr(),
            guest.mxcsr()
        );
    }
}

/// Instructions of which only a relative error is defined.
fn approximate(m: Mnemonic) -> bool {
    matches!(
        m,
        Mnemonic::Rcpps
            | Mnemonic::Rcpss
            | Mnemonic::Rsqrtps
            | Mnemonic::Rsqrtss
            | Mnemonic::Vrcpps
            | Mnemonic::Vrcpss
            | Mnemonic::Vrsqrtps
            | Mnemonic::Vrsqrtss
    )
}

/// Each lane within the 1.5 * 2^-12 that the manual allows, on both sides of the truth.
fn nearly(a: u128, b: u128) -> bool {
    (0..4).all(|i| {
        let (x, y) = ((a >> (32 * i)) as u32, (b >> (32 * i)) as u32);
        let (fx, fy) = (f64::from(f32::from_bits(x)), f64::from(f32::from_bits(y)));
        x == y || (fx - fy).abs() <= fy.abs() * (3.0 / 4096.0)
    })
}

fn flag_names(f: u64) -> String {
    [
        (OF, 'o'),
        (DF, 'd'),
        (SF, 's'),
        (ZF, 'z'),
        (AF, 'a'),
        (PF, 'p'),
        (CF, 'c'),
    ]
    .iter()
    .map(|(bit, name)| {
        if f & bit != 0 {
            name.to_ascii_uppercase()
        } else {
            *name
        }
    })
    .collect()
}

/// The case as a person reads it.
pub fn describe(case: &Case) -> String {
    let mut f = IntelFormatter::new();
    let mut out = String::new();
    for i in &case.insns {
        let mut text = String::new();
        f.format(i, &mut text);
        let _ = writeln!(out, "  {:#x} {text}   ({:?})", i.ip(), i.code());
    }
    let _ = writeln!(
        out,
        "    bytes {:02x?} mxcsr {:#x} undefined {:#x}",
        case.bytes,
        case.state.mxcsr(),
        case.undefined
    );
    out
}

pub fn known_forms(bits: u32) -> Vec<Code> {
    let filter = std::env::var("DOMZERO_ORACLE_FILTER")
        .unwrap_or_default()
        .to_lowercase();
    forms(bits, |c| executes(c) && supported_here(c))
        .into_iter()
        .filter(|c| {
            filter
                .split(',')
                .any(|f| format!("{c:?}").to_lowercase().starts_with(f))
        })
        .collect()
}

/// What the host can run, and what the x87 comparison does not cover yet.
fn supported_here(code: Code) -> bool {
    use iced_x86::CpuidFeature as F;
    code.cpuid_features().iter().all(|f| match f {
        F::AES => is_x86_feature_detected!("aes"),
        F::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        F::SHA => is_x86_feature_detected!("sha"),
        F::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        F::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        F::SSSE3 => is_x86_feature_detected!("ssse3"),
        F::POPCNT => is_x86_feature_detected!("popcnt"),
        F::LZCNT => is_x86_feature_detected!("lzcnt"),
        F::BMI1 => is_x86_feature_detected!("bmi1"),
        F::BMI2 => is_x86_feature_detected!("bmi2"),
        F::ADX => is_x86_feature_detected!("adx"),
        F::MOVBE => is_x86_feature_detected!("movbe"),
        F::AVX => is_x86_feature_detected!("avx"),
        F::AVX2 => is_x86_feature_detected!("avx2"),
        F::FMA => is_x86_feature_detected!("fma"),
        F::F16C => is_x86_feature_detected!("f16c"),
        F::VAES => is_x86_feature_detected!("vaes"),
        F::VPCLMULQDQ => is_x86_feature_detected!("vpclmulqdq"),
        F::CET_IBT | F::CET_SS => matches!(code, Code::Endbr64),
        _ => true,
    })
}

#[test]
fn each_instruction_form_does_what_the_hosts_cpu_does() {
    single_instructions("single instructions", 64, 40_000);
}

#[test]
fn each_instruction_form_of_32_bit_code_does_what_the_hosts_cpu_does() {
    single_instructions("single 32-bit instructions", 32, 30_000);
}

#[test]
fn noncanonical_operands_based_on_the_stack_raise_what_the_hosts_cpu_raises() {
    for engine in Engine::compared() {
        noncanonical_operands(engine);
    }
}

fn noncanonical_operands(engine: Engine) {
    let (seed, mut pair, mut report) = (seed(), Pair::new(engine), Report::default());
    // Bit strings and parts of masked operands reach elsewhere; x87 and state saves go in pieces, or raise exceptions of
    // their own first.
    let other = |c: Code| {
        let name = format!("{c:?}");
        name.starts_with('F') || name.starts_with("Bt") || name.contains("maskmov")
    };
    let forms: Vec<Code> = known_forms(64)
        .into_iter()
        .filter(|&c| has_memory_form(c) && !other(c))
        .collect();
    let rounds = cases(12_000).div_ceil(forms.len().max(1) as u64);
    let mut rng = Rng::new(seed ^ 0x55);
    for _ in 0..rounds {
        for &code in &forms {
            let Some(case) = Generator::far_stack(&mut rng, code) else {
                continue;
            };
            if vendor::open(&case) {
                continue;
            }
            report.cases += 1;
            let diff = pair.check(&case, 1000);
            if !diff.is_empty() {
                report.add(format!("{code:?}"), || describe(&case) + &diff);
            }
        }
    }
    report.finish(&format!("noncanonical operands, {engine:?}"), seed);
}

fn has_memory_form(code: Code) -> bool {
    use iced_x86::OpCodeOperandKind as K;
    code.op_code().op_kinds().iter().any(|k| {
        matches!(
            k,
            K::mem
                | K::r8_or_mem
                | K::r16_or_mem
                | K::r32_or_mem
                | K::r64_or_mem
                | K::mm_or_mem
                | K::xmm_or_mem
                | K::ymm_or_mem
        )
    })
}

fn single_instructions(name: &str, bits: u32, default: u64) {
    for engine in Engine::compared() {
        single_instructions_on(engine, &format!("{name}, {engine:?}"), bits, default);
    }
}

fn single_instructions_on(engine: Engine, name: &str, bits: u32, default: u64) {
    let (seed, mut pair, mut report) = (seed(), Pair::new(engine), Report::default());
    let forms = known_forms(bits);
    let rounds = cases(default).div_ceil(forms.len().max(1) as u64);
    let mut rng = Rng::new(seed);
    let mut made = BTreeMap::<Code, u64>::new();
    for _ in 0..rounds {
        for &code in &forms {
            let Some(case) = Generator::single(&mut rng, code, bits) else {
                continue;
            };
            *made.entry(code).or_default() += 1;
            if vendor::open(&case) {
                continue;
            }
            report.cases += 1;
            let diff = pair.check(&case, 1000);
            if !diff.is_empty() {
                report.add(format!("{code:?}"), || describe(&case) + &diff);
            }
        }
    }
    let never: Vec<_> = forms.iter().filter(|c| !made.contains_key(c)).collect();
    let (all, left) = (forms.len(), never.len());
    println!("{all} forms, {left} of them never made: {never:?}");
    report.finish(name, seed);
    if std::env::var_os("DOMZERO_ORACLE_FILTER").is_none() {
        assert!(made.len() >= 200, "only {} forms were tried", made.len());
    }
}

fn sequences(name: &str, bits: u32, seed: u64, default: u64, rounds: bool, disturb: bool) {
    for engine in Engine::compared() {
        sequences_on(
            engine,
            &format!("{name}, {engine:?}"),
            bits,
            seed,
            default,
            rounds,
            disturb,
        );
    }
}

fn sequences_on(engine: Engine, name: &str, bits: u32, seed: u64, default: u64, rounds: bool, disturb: bool) {
    let (mut pair, mut report) = (Pair::new(engine), Report::default());
    let mut forms = known_forms(bits);
    forms.retain(|c| !leaves_something_open(c.mnemonic()) && !vendor::open_in_sequences(*c));
    let common: Vec<Code> = forms.iter().copied().filter(|c| everyday(c.mnemonic())).collect();
    let mut rng = Rng::new(seed);
    pair.guest.disturb = disturb.then(|| Rng::new(seed));
    for n in 0..cases(default) {
        let length = 2 + rng.below(7) as usize;
        let times = if rounds { 1 + rng.below(6) } else { 0 };
        let Some(mut case) = Generator::sequence(&mut rng, bits, [&forms, &common], length, times) else {
            continue;
        };
        intel::settle(&mut case);
        report.cases += 1;
        let slice = [1000, 1, 2, 7, 64][(n % 5) as usize];
        let diff = pair.check(&case, slice);
        if !diff.is_empty() {
            let key = case
                .insns
                .iter()
                .map(|i| format!("{:?}", i.mnemonic()))
                .collect::<Vec<_>>()
                .join(" ");
            report.add(key, || {
                format!("  slices of {slice}, {times} rounds\n{}", describe(&case)) + &diff
            });
        }
    }
    report.finish(name, seed);
}

#[test]
fn sequences_do_what_the_hosts_cpu_does_however_they_are_sliced() {
    sequences("sequences", 64, seed() ^ 0x5e9, 10_000, false, false);
}

#[test]
fn loops_do_what_the_hosts_cpu_does_however_they_are_sliced() {
    sequences("loops", 64, seed() ^ 0x100b, 10_000, true, false);
}

#[test]
fn flushes_and_purges_between_slices_change_nothing() {
    sequences("disturbed loops", 64, seed() ^ 0xf1054, 10_000, true, true);
}

#[test]
fn sequences_of_32_bit_code_do_what_the_hosts_cpu_does_however_they_are_sliced() {
    sequences("32-bit sequences", 32, seed() ^ 0x32, 8_000, false, false);
}

#[test]
fn loops_of_32_bit_code_do_what_the_hosts_cpu_does_whatever_happens_between_slices() {
    sequences("32-bit loops", 32, seed() ^ 0x3232, 8_000, true, true);
}
