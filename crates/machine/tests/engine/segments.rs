// SPDX-License-Identifier: Apache-2.0
//! Segments against the host's CPU: both sides get the same LDT (`modify_ldt`), 32-bit code loads selectors from it and
//! uses them near their limits.
// Instructions run on the host.
#![allow(unsafe_code)]

use crate::engines::Engine;
use crate::generate::Case;
use crate::intel::Segment;
use crate::oracle::{describe, Pair};
use crate::report::{cases, seed, Report};
use crate::rng::Rng;
use crate::state::*;
use crate::tables::{RAX, RBP, RBX, RCX, RDI, RSI, RSP};
use domzero_machine::{DescTable, Mfn};
use iced_x86::{Decoder, DecoderOptions, Instruction, Register};

/// Descriptors that are tried at a time.
const ENTRIES: u64 = 8;
/// Frame of the guest's table.
const LDT: Mfn = Mfn(200);

/// What `modify_ldt` makes a descriptor of.
#[derive(Debug, Clone, Copy)]
struct Spec {
    base: u32,
    limit: u32,
    pages: bool,
    wide: bool,
    /// 0 data, 1 data that expands down, 2 code.
    contents: u32,
    /// Not writable, or not readable.
    restricted: bool,
    present: bool,
}

impl Spec {
    fn random(rng: &mut Rng, contents: u32) -> Spec {
        let pages = rng.chance(25);
        Spec {
            base: match (contents, rng.below(4)) {
                (2, _) => CODE_VA as u32,
                (_, 0) => 0,
                (_, 1) => DATA_VA as u32,
                _ => page_va(1) as u32 + rng.below(0x800) as u32,
            },
            limit: match rng.below(5) {
                0 => 0xf_ffff,
                1 => 0xffff,
                // All zero would clear the entry.
                2 => 1 + rng.below(64) as u32,
                _ if pages => 1 + rng.below(6) as u32,
                _ => 1 + rng.below(0x1800) as u32,
            },
            pages,
            wide: rng.chance(70),
            contents,
            restricted: rng.chance(20),
            present: rng.chance(96),
        }
    }

    /// False where the host's kernel has no LDTs.
    fn host(self, entry: u32) -> bool {
        let flags = u32::from(self.wide)
            | self.contents << 1
            | u32::from(self.restricted) << 3
            | u32::from(self.pages) << 4
            | u32::from(!self.present) << 5;
        let request = [entry, self.base, self.limit, flags];
        // SAFETY: `struct user_desc` is these four words; nothing else of this process uses the LDT.
        let r = unsafe { libc::syscall(libc::SYS_modify_ldt, 1, request.as_ptr(), 16usize) };
        let error = std::io::Error::last_os_error();
        assert!(r == 0 || error.raw_os_error() == Some(libc::ENOSYS), "{error}");
        r == 0
    }

    /// Code or data of DPL 3, accessed.
    fn descriptor(self) -> u64 {
        let (base, limit) = (u64::from(self.base), u64::from(self.limit));
        let kind = 1 | u64::from(!self.restricted) << 1 | u64::from(self.contents) << 2;
        let access = kind | 0x70 | u64::from(self.present) << 7;
        let high = u64::from(self.wide) << 2 | u64::from(self.pages) << 3;
        limit & 0xffff
            | (base & 0xff_ffff) << 16
            | access << 40
            | (limit >> 16 & 15) << 48
            | high << 52
            | (base >> 24) << 56
    }

    fn last(self) -> u32 {
        if self.pages {
            self.limit << 12 | 0xfff
        } else {
            self.limit
        }
    }

    fn loaded(self, register: Register) -> Segment {
        let (first, last) = match (self.contents, self.wide) {
            (1, wide) => (self.last().wrapping_add(1), if wide { u32::MAX } else { 0xffff }),
            _ => (0, self.last()),
        };
        Segment {
            register,
            base: self.base,
            first,
            last,
        }
    }

    /// An offset where something may happen.
    fn offset(self, rng: &mut Rng) -> u32 {
        let near = rng.below(24) as u32;
        match rng.below(6) {
            0 => (page_va(1) as u32).wrapping_sub(self.base).wrapping_add(near),
            1 => 0xffffu32.wrapping_sub(12).wrapping_add(near),
            2 => 0u32.wrapping_sub(12).wrapping_add(near),
            _ => self.last().wrapping_sub(12).wrapping_add(near),
        }
    }
}

/// Operations on `[disp32]`, or of esi and edi: their bytes up to the displacement, if they have one.
const MEMORY: [(&[u8], bool); 30] = [
    (&[0x8a, 0x05], true),
    (&[0x88, 0x05], true),
    (&[0x66, 0x8b, 0x05], true),
    (&[0x66, 0x89, 0x05], true),
    (&[0x8b, 0x05], true),
    (&[0x89, 0x05], true),
    (&[0x0f, 0x6f, 0x05], true),
    (&[0x0f, 0x7f, 0x05], true),
    (&[0x0f, 0x10, 0x05], true),
    (&[0x0f, 0x11, 0x05], true),
    (&[0x01, 0x05], true),
    (&[0x39, 0x05], true),
    (&[0x0f, 0xb1, 0x05], true),
    (&[0xf0, 0x0f, 0xc1, 0x05], true),
    (&[0x87, 0x05], true),
    (&[0x85, 0x05], true),
    (&[0x0f, 0xa3, 0x05], true),
    (&[0x0f, 0xab, 0x05], true),
    (&[0x0f, 0xc7, 0x0d], true),
    (&[0xdd, 0x05], true),
    (&[0xdf, 0x3d], true),
    (&[0x62, 0x05], true),
    (&[0x63, 0x05], true),
    (&[0xa4], false),
    (&[0xa5], false),
    (&[0xf3, 0xa5], false),
    (&[0xf3, 0xab], false),
    (&[0xa7], false),
    (&[0xf2, 0xae], false),
    (&[0xd7], false),
];

/// Operations on the stack.
const STACK: [&[u8]; 32] = [
    &[0x50],
    &[0x66, 0x50],
    &[0x59],
    &[0x66, 0x59],
    &[0x60],
    &[0x61],
    &[0x66, 0x60],
    &[0x66, 0x61],
    &[0xc8, 8, 0, 0],
    &[0xc8, 8, 0, 1],
    &[0xc8, 8, 0, 3],
    &[0x66, 0xc8, 8, 0, 1],
    &[0xc9],
    &[0x66, 0xc9],
    &[0xe8, 0, 0, 0, 0],
    &[0x9c],
    &[0x66, 0x9c],
    &[0x6a, 5],
    &[0x54],
    &[0x5c],
    &[0x8f, 0x44, 0x24, 4],
    &[0x89, 0x44, 0x24, 4],
    &[0x8b, 0x45, 4],
    &[0xff, 0x74, 0x24, 4],
    // What must be aligned raises #GP before its segment raises #SS.
    &[0x0f, 0x28, 0x04, 0x24],
    &[0x0f, 0x29, 0x45, 4],
    &[0x66, 0x0f, 0xfe, 0x04, 0x24],
    &[0x0f, 0x10, 0x04, 0x24],
    &[0x66, 0x0f, 0x7f, 0x04, 0x24],
    &[0xf0, 0x01, 0x04, 0x24],
    &[0x87, 0x04, 0x24],
    &[0xf0, 0x0f, 0xb1, 0x0c, 0x24],
];

/// What a code segment is entered for.
const CODE: [&[u8]; 20] = [
    &[0xcc],
    &[0xb8, 1, 2, 3, 4],
    &[0x66, 0xb8, 1, 2, 3, 4],
    &[0x67, 0x8b, 7],
    &[0x8b, 7],
    &[0x8b, 0x46, 8],
    &[0x8d, 0x46, 0x80],
    &[0x8d, 0x8e, 0x34, 0xf2],
    &[0x67, 0x8d, 0x4c, 0x18, 4],
    &[0xe8, 3, 0, 0, 0],
    &[0x66, 0xe8, 3, 0, 0, 0],
    &[0xeb, 5],
    &[0xeb, 0x7f],
    &[0x66, 0xe9, 3, 0, 0, 0],
    &[0xe2, 4],
    &[0x67, 0xe3, 4],
    &[0x40, 0x41, 0x66, 0x42],
    &[0x2e, 0xa0, 4, 0, 0, 0],
    &[0x2e, 0xa2, 4, 0, 0, 0],
    &[0xc1, 0xe0, 4, 0x66, 0xc1, 0xe0, 4],
];

fn selector(rng: &mut Rng, entry: u64) -> u16 {
    (entry as u16) << 3
        | if rng.chance(85) {
            7
        } else {
            4 + rng.below(4) as u16
        }
}

fn load(segment: u8, sel: u16) -> Vec<u8> {
    // mov bx, sel; mov segment, bx
    let [low, high] = sel.to_le_bytes();
    vec![0x66, 0xbb, low, high, 0x8e, 0xc3 | segment << 3]
}

fn memory_case(rng: &mut Rng, spec: Spec, sel: u16) -> (Vec<u8>, State) {
    let mut state = base_state(rng);
    let (segment, prefix) = rng.pick(&[(0u8, 0x26u8), (3, 0x3e)]);
    let (op, displacement) = rng.pick(&MEMORY);
    let at = spec.offset(rng);
    state.regs[RAX] = rng.next() & 0xff;
    state.regs[RCX] = rng.below(6);
    let plain = page_va(1) + 0x400;
    state.regs[RSI] = if segment == 3 { u64::from(at) } else { plain };
    state.regs[RDI] = if segment == 0 { u64::from(at) } else { plain };
    let mut code = load(segment, sel);
    if op == [0xd7] {
        code.push(0xbb);
        code.extend(at.wrapping_sub(state.regs[RAX] as u32).to_le_bytes());
    }
    code.push(prefix);
    code.extend(op);
    if displacement {
        code.extend(at.to_le_bytes());
    }
    (code, state)
}

fn stack_case(rng: &mut Rng, spec: Spec, sel: u16) -> (Vec<u8>, State) {
    let mut state = base_state(rng);
    let dirt = if spec.wide { 0 } else { rng.next() & 0xffff_0000 };
    let at = |rng: &mut Rng| u64::from(spec.offset(rng)) ^ dirt;
    state.regs[RSP] = at(rng);
    state.regs[RBP] = at(rng);
    let mut code = load(2, sel);
    code.extend(rng.pick(&STACK));
    (code, state)
}

fn code_case(rng: &mut Rng, spec: Spec, sel: u16, start: u64) -> (Vec<u8>, State) {
    let mut state = base_state(rng);
    state.regs[RCX] = rng.below(3);
    state.regs[RBX] = rng.next() & 0xffff;
    state.regs[RSI] = rng.next() & 0xffff;
    // ljmp sel:off to the bytes after it
    let off = (start + 7 - u64::from(spec.base)) as u32;
    let mut code = vec![0xea];
    code.extend(off.to_le_bytes());
    code.extend(sel.to_le_bytes());
    code.extend(rng.pick(&CODE));
    (code, state)
}

fn base_state(rng: &mut Rng) -> State {
    let mut state = State {
        bits: 32,
        ..State::default()
    };
    for r in &mut state.regs[..8] {
        *r = rng.next() & 0xffff_ffff;
    }
    state.rflags = 0x202 | rng.next() & ARITH;
    state.regs[RSP] = page_va(1) + 0x800;
    state
}

#[test]
fn segments_do_what_they_do_on_the_hosts_cpu() {
    for engine in Engine::compared() {
        segments(engine);
    }
}

fn segments(engine: Engine) {
    let (seed, mut pair, mut report) = (seed(), Pair::new(engine), Report::default());
    let mut rng = Rng::new(seed ^ 0x5e6);
    pair.guest.cpu.seg.tables.ldt = DescTable {
        frames: std::array::from_fn(|n| (n == 0).then_some(LDT)),
        entries: ENTRIES as u32,
    };
    for n in 0..cases(12_000) {
        let kind = rng.below(3);
        let mut spec = Spec::random(&mut rng, [rng_contents(n), n as u32 % 2, 2][kind as usize]);
        let start = CODE_VA + 64 + rng.below(256);
        if kind == 2 && !spec.pages && rng.chance(70) {
            // The limit cuts through what is there.
            spec.limit = (start + 7 - CODE_VA + rng.below(12)) as u32 - 2;
        }
        let entry = rng.below(ENTRIES);
        if !spec.host(entry as u32) {
            println!("skipped: the host's kernel has no modify_ldt");
            return;
        }
        assert!(pair
            .guest
            .machine
            .mem
            .write_u64(LDT.maddr() + entry * 8, spec.descriptor()));
        let sel = selector(&mut rng, entry);
        let (bytes, state) = match kind {
            0 => memory_case(&mut rng, spec, sel),
            1 => stack_case(&mut rng, spec, sel),
            _ => code_case(&mut rng, spec, sel, start),
        };
        let insns: Vec<_> = Decoder::with_ip(32, &bytes, start, DecoderOptions::NONE)
            .into_iter()
            .collect();
        let register = insns
            .last()
            .map_or(Register::None, |i: &Instruction| i.memory_segment());
        let segment = (kind == 0).then(|| spec.loaded(register));
        let case = Case {
            undefined: if bytes.contains(&0xc1) { AF | OF } else { 0 },
            insns,
            bytes,
            start,
            state,
            memory: Vec::new(),
            segment,
        };
        report.cases += 1;
        let diff = pair.check(&case, [1000, 1][n as usize & 1]);
        if !diff.is_empty() {
            let key = format!("{kind} {:02x?}", &case.bytes[if kind == 2 { 7 } else { 6 }..]);
            report.add(key, || {
                format!("{}  selector {sel:#x} {spec:x?}\n", describe(&case)) + &diff
            });
        }
    }
    report.finish(&format!("segments, {engine:?}"), seed);
}

fn rng_contents(n: u64) -> u32 {
    [0, 0, 1, 2][(n / 3 % 4) as usize]
}
