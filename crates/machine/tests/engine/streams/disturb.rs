// SPDX-License-Identifier: Apache-2.0
//! What happens between two steps: things that must make no difference, to some engines, and changes of the world, to all.

use super::fill::target;
use super::lockstep::Lockstep;
use super::place::{CODE_ALIAS, CODE_REGIONS, DATA_ALIAS, DATA_REGIONS, HIGH_CODE, HIGH_DATA};
use crate::rng::Rng;
use domzero_machine::testing::{pte, CODE, DATA, RO, RWX, STACK_TOP};
use domzero_machine::{attention, Mfn, Purge};

/// Accessed and dirty.
const AD: u64 = 0x60;

/// What a run of cases has of it, each in percent of steps.
#[derive(Clone, Copy, Default)]
pub struct Disturb {
    /// Translations and decoded code are forgotten.
    pub flush: u64,
    /// The world changes: page tables, code, control registers.
    pub change: u64,
    /// Decoded code and translated code have room for two blocks or so.
    pub small_cache: bool,
    /// The TLB holds one translation.
    pub one_entry: bool,
    /// Each step is one instruction.
    pub one: bool,
    /// The engines do not keep arithmetic flags that nobody looks at.
    pub flagless: bool,
    /// The streams call functions of their page between operands of one register.
    pub calls: bool,
    /// The streams are 32-bit code in flat segments.
    pub narrow: bool,
    /// Another thread interferes while engines run; steps are long.
    pub meanwhile: bool,
    /// Many instructions are x87 ones, mostly with all their exceptions masked.
    pub x87: bool,
}

impl Disturb {
    /// The width of the code.
    pub fn bits(&self) -> u32 {
        if self.narrow {
            32
        } else {
            64
        }
    }

    pub fn slice(&self, rng: &mut Rng) -> i64 {
        if self.one {
            return 1;
        }
        if self.meanwhile {
            return 1 + rng.below(30_000) as i64;
        }
        match rng.below(12) {
            0 | 1 => 1,
            2 => 2,
            3 | 4 => 7,
            5 | 6 => 64,
            7..=9 => 1 + rng.below(300) as i64,
            _ => 1 + rng.below(3000) as i64,
        }
    }

    pub fn between(&self, l: &mut Lockstep) {
        if l.rng.chance(self.flush) {
            flush(l);
        }
        if l.rng.chance(self.change) {
            change(l);
        }
        if self.x87 && l.rng.chance(25) {
            x87(l);
        }
    }
}

/// Another x87 state on all machines, as a context switch brings it: most have all exceptions masked.
fn x87(l: &mut Lockstep) {
    let masks = if l.rng.chance(85) {
        0x3f
    } else {
        l.rng.next() as u16 & 0x3f
    };
    let control = masks | 0x340 | l.rng.pick(&[0, 0, 0x0c00, 0x0400, 0x0800]);
    let precision = l.rng.pick(&[0, 0, 0, 0x0100, 0x0200, 0x0300]);
    let (status, tags) = (
        l.rng.next() as u16 & 0x7f7f,
        l.rng.next() as u8 | l.rng.next() as u8,
    );
    let all = l.rng.chance(30);
    let regs: Vec<(u64, u16)> = (0..8).map(|_| l.rng.f80()).collect();
    l.all(|c| {
        let x87 = &mut c.fpu.x87;
        x87.set_control(control ^ precision);
        if all {
            x87.set_status_word(status);
            x87.tags = tags;
            for (to, &(m, se)) in x87.regs.iter_mut().zip(&regs) {
                (to.m, to.se) = (m, se);
            }
        } else {
            x87.set_status_word(x87.status_word() & !0x80ff);
        }
    });
}

fn any_page(rng: &mut Rng) -> u64 {
    let n = rng.below((CODE_REGIONS.len() + DATA_REGIONS.len()) as u64) as usize;
    let region = CODE_REGIONS
        .iter()
        .chain(&DATA_REGIONS)
        .nth(n)
        .unwrap_or(&DATA_REGIONS[0]);
    region.va + rng.below(region.pages) * 4096
}

/// Things that the guest must not notice, on every engine but the oracle.
fn flush(l: &mut Lockstep) {
    let (what, va) = (l.rng.below(11), any_page(&mut l.rng));
    let (from, len) = (l.rng.below(4096) as u16, l.rng.below(64) as u16);
    for p in &mut l.places[1..] {
        let Some(mfn) = p.maddr(va).map(|m| Mfn(m >> 12)) else {
            continue;
        };
        let cpu = &mut p.vm.cpu;
        let purge = |p: Purge| cpu.shared.push_purge(p);
        match what {
            0 => cpu.flush_tlb_view(),
            1 => cpu.flush_tlb_all_views(),
            2 | 3 => cpu.invlpg(va),
            4 => purge(Purge::AllTlb),
            5 => purge(Purge::Page(va)),
            6 => purge(Purge::Writable(mfn)),
            7 => purge(Purge::Frame(mfn)),
            8 => purge(Purge::Code {
                mfn,
                start: from,
                end: (from + len).min(4096),
            }),
            9 => cpu.shared.request(attention::EVENT),
            _ => cpu.forget_cached(),
        }
    }
}

/// Changes on all machines, as a kernel, a hypervisor or a back end makes them.
fn change(l: &mut Lockstep) {
    match l.rng.below(15) {
        0 => {
            // Two frames of data change places.
            let a = DATA + l.rng.below(4) * 4096;
            let b = l.rng.pick(&[DATA, DATA + 4096, HIGH_DATA, HIGH_DATA + 4096]);
            swap(l, a, b);
        }
        1 => {
            let va = l.rng.pick(&[
                DATA,
                DATA + 4096,
                DATA_ALIAS,
                STACK_TOP - 4096,
                STACK_TOP - 8192,
                HIGH_DATA,
            ]);
            edit(l, va, |e| e ^ pte::RW);
        }
        2 => {
            let va = l.rng.pick(&[
                DATA + 4096,
                DATA + 8192,
                DATA_ALIAS,
                RO,
                STACK_TOP - 4096,
                HIGH_DATA,
                CODE_ALIAS,
            ]);
            edit(l, va, |e| e ^ pte::P);
        }
        3..=5 => {
            let va = any_page(&mut l.rng);
            edit(l, va, |e| e & !AD);
        }
        6 => {
            // Code in another frame, or no code at all.
            let a = l.rng.pick(&[RWX, RWX + 4096, CODE, CODE + 4096, HIGH_CODE]);
            let b = a + 4096;
            swap(l, a, b);
        }
        7 => {
            let va = l.rng.pick(&[RWX, RWX + 4096, CODE, HIGH_CODE]);
            edit(l, va, |e| e ^ pte::NX);
        }
        8..=10 => host_write(l),
        11 => {
            let (at, wide) = (somewhere_written(l), l.rng.chance(50));
            let value = l.rng.next();
            for p in &mut l.places {
                p.store_by_another(at, value, wide);
            }
        }
        12 => {
            let ts = l.rng.chance(50);
            let rounding = (l.rng.next() as u32) & 0xe000;
            let masks = if l.rng.chance(20) {
                l.rng.next() as u32 & 0x1f80
            } else {
                0x1f80
            };
            l.all(|c| {
                c.fpu.ts = ts;
                c.fpu.mxcsr = rounding | masks;
            });
        }
        13 => breakpoints(l),
        _ => {
            let ns = l.rng.below(1 << 33);
            for p in &mut l.places {
                let clock = &p.vm.machine.clock;
                clock.advance_to(clock.now_ns() + ns);
            }
        }
    }
}

/// Breakpoints on instructions of the program and on data, or none.
fn breakpoints(l: &mut Lockstep) {
    let mut dr7 = 0x400;
    if l.rng.chance(60) {
        for n in 0..1 + l.rng.below(3) as usize {
            let kind = l.rng.pick(&[0u64, 0, 1, 3]);
            let at = if kind == 0 {
                let i = l.rng.below(l.program.insns.len() as u64) as usize;
                l.program.insns[i].0
            } else {
                target(&mut l.rng, 8, false) & !7
            };
            let len = if kind == 0 {
                0
            } else {
                l.rng.pick(&[0u64, 1, 2, 3])
            };
            l.all(|c| c.set_breakpoint(n, at));
            dr7 |= 2 << (2 * n) | (kind | len << 2) << (16 + 4 * n);
        }
    }
    l.all(|c| c.set_dr7(dr7));
}

/// Where code is that can be written, or data.
fn somewhere_written(l: &mut Lockstep) -> u64 {
    if l.program.sites.is_empty() || l.rng.chance(40) {
        let rip = l.cpu().rip;
        if (RWX..RWX + 4 * 4096).contains(&rip) && l.rng.chance(50) {
            return rip + l.rng.below(16);
        }
        return RWX + l.rng.below(4 * 4096 - 8);
    }
    l.rng.pick(&l.program.sites)
}

/// A back end writes: an operand of an instruction that is executed, or other instructions.
fn host_write(l: &mut Lockstep) {
    let n = l.rng.below(l.program.insns.len() as u64) as usize;
    let (va, len) = l.program.insns[n];
    let (at, bytes) = match l.rng.below(4) {
        0 => (va, None),
        1 => (va, Some(vec![0x90; len as usize])),
        // The last byte is one of an immediate operand or a displacement, mostly.
        2 if len > 4 => (va + u64::from(len) - 1, Some(vec![l.rng.next() as u8])),
        _ if l.program.sites.is_empty() => return,
        _ => (
            l.rng.pick(&l.program.sites),
            Some(l.rng.int().to_le_bytes()[..4].to_vec()),
        ),
    };
    for p in &mut l.places {
        let Some(maddr) = p.maddr(at) else { continue };
        let room = 4096 - (at & 0xfff) as usize;
        // Without others the same bytes again.
        let mut text = vec![0; 8.min(room)];
        p.vm.machine.mem.read(maddr, &mut text);
        let text = bytes.as_ref().map_or(&text[..], |b| &b[..b.len().min(room)]);
        assert!(p.vm.machine.host_write(maddr, text));
    }
}

/// Changes a leaf entry, and what is cached of it.
fn edit(l: &mut Lockstep, va: u64, f: impl Fn(u64) -> u64) {
    for p in &mut l.places {
        let Some(at) = p.entry(va) else { continue };
        let e = p.vm.machine.mem.read_u64(at).unwrap_or(0);
        p.vm.machine.mem.write_u64(at, f(e));
        p.vm.cpu.invlpg(va);
        p.flush_second(va);
    }
}

fn swap(l: &mut Lockstep, a: u64, b: u64) {
    for p in &mut l.places {
        let (Some(at), Some(bt)) = (p.entry(a), p.entry(b)) else {
            continue;
        };
        let mem = &p.vm.machine.mem;
        let (x, y) = (mem.read_u64(at).unwrap_or(0), mem.read_u64(bt).unwrap_or(0));
        mem.write_u64(at, y);
        mem.write_u64(bt, x);
        for va in [a, b] {
            p.vm.cpu.invlpg(va);
            p.flush_second(va);
        }
    }
}

impl Lockstep<'_> {
    /// A fault whose page the kernel has: entries that were cleared are there again, read-only ones writable.
    pub fn page_in(&mut self, va: u64) {
        for p in &mut self.places {
            let Some(at) = p.entry(va) else { continue };
            let e = p.vm.machine.mem.read_u64(at).unwrap_or(0);
            if e & !0xfff == 0 || e >> 12 & 0xf_ffff == RO >> 12 {
                continue;
            }
            p.vm.machine.mem.write_u64(at, e | pte::P | pte::RW);
            p.vm.cpu.invlpg(va);
            p.flush_second(va);
        }
    }
}
