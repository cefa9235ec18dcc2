// SPDX-License-Identifier: Apache-2.0
//! All that instructions change of a CPU.

use crate::cpu::access::AccessRules;
use crate::cpu::debug::DebugRegs;
use crate::cpu::descriptor_cache::Segment;
use crate::cpu::flags::Flags;
use crate::cpu::regs::Bases;
use crate::cpu::x87state::Fpu;
use crate::cpu::Cpu;
use crate::mmu::tlb::ViewKey;

/// The state of a CPU at one moment, without memory.
pub(super) struct Saved {
    regs: [u64; 16],
    bases: Bases,
    flags: Flags,
    pub rip: u64,
    rflags: u64,
    cpl: u8,
    access: AccessRules,
    fpu: Fpu,
    sel: [u16; 6],
    hidden: [Segment; 6],
    modes: (bool, bool, u8, u8),
    cr4: u64,
    tsc_aux: u32,
    debug: DebugRegs,
    view: Option<ViewKey>,
}

/// Names of what [`Saved::words`] gives first; behind them are the x87 registers, then the vector registers by quarters.
const NAMES: [&str; 41] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15", "rip", "rflags", "fs_base", "gs_base", "cpl", "es", "cs", "ss", "ds", "fs", "gs", "mxcsr",
    "cr0.ts", "xcr0", "cr4", "tsc_aux", "dr6", "rf", "top", "tags", "fcw", "fsw", "fip", "fdp", "fop",
];
const X87: usize = NAMES.len();
const VECTORS: usize = X87 + 16;
/// Where rflags are among the words.
pub(super) const RFLAGS: usize = 17;
/// Those that a report shows of the state before.
pub(super) const SHOWN: usize = 21;

pub(super) fn name(n: usize) -> String {
    if let Some(name) = NAMES.get(n) {
        return (*name).to_owned();
    }
    if n < VECTORS {
        let part = if n < X87 + 8 { "se" } else { "m" };
        return format!("x87 r{}.{part}", (n - X87) % 8);
    }
    let k = n - VECTORS;
    format!("ymm{}[{}]", k / 4, k % 4)
}

impl Saved {
    pub(super) fn of(cpu: &Cpu) -> Saved {
        let seg = &cpu.seg;
        Saved {
            regs: cpu.regs,
            bases: cpu.bases.clone(),
            flags: cpu.flags.clone(),
            rip: cpu.rip,
            rflags: cpu.rflags(),
            cpl: cpu.cpl,
            access: cpu.access.clone(),
            fpu: cpu.fpu.clone(),
            sel: seg.sel,
            hidden: seg.hidden,
            modes: (seg.code32, seg.code16, seg.mode, seg.whole),
            cr4: cpu.model.cr4,
            tsc_aux: cpu.model.tsc_aux,
            debug: cpu.debug.clone(),
            view: cpu.views.key(),
        }
    }

    pub(super) fn put_back(&self, cpu: &mut Cpu) {
        cpu.regs = self.regs;
        cpu.bases = self.bases.clone();
        cpu.flags = self.flags.clone();
        cpu.rip = self.rip;
        cpu.cpl = self.cpl;
        cpu.access = self.access.clone();
        cpu.fpu = self.fpu.clone();
        cpu.seg.sel = self.sel;
        cpu.seg.hidden = self.hidden;
        (cpu.seg.code32, cpu.seg.code16, cpu.seg.mode, cpu.seg.whole) = self.modes;
        cpu.model.cr4 = self.cr4;
        cpu.model.tsc_aux = self.tsc_aux;
        cpu.debug = self.debug.clone();
        if let Some(view) = self.view.filter(|_| cpu.views.key() != self.view) {
            cpu.set_base(view.l4, false);
        }
    }

    /// What is compared; [`name`] says what each word is.
    pub(super) fn words(&self) -> Vec<u64> {
        let (fpu, x87) = (&self.fpu, &self.fpu.x87);
        let mut words = self.regs.to_vec();
        let bases = [
            self.rip,
            self.rflags,
            self.bases.fs,
            self.bases.gs,
            u64::from(self.cpl),
        ];
        words.extend(bases);
        words.extend(self.sel.map(u64::from));
        words.extend([
            u64::from(fpu.mxcsr),
            u64::from(fpu.ts),
            fpu.xcr0,
            self.cr4,
            u64::from(self.tsc_aux),
        ]);
        words.extend([self.debug.dr6, u64::from(self.debug.resume)]);
        words.extend([
            u64::from(x87.top),
            u64::from(x87.tags),
            u64::from(x87.control),
            u64::from(x87.status),
        ]);
        words.extend([x87.fip, x87.fdp, u64::from(x87.fop)]);
        words.extend(x87.regs.iter().map(|r| u64::from(r.se)));
        words.extend(x87.regs.iter().map(|r| r.m));
        for (low, high) in fpu.xmm.iter().zip(&fpu.ymm_hi) {
            words.extend([*low as u64, (low >> 64) as u64, *high as u64, (high >> 64) as u64]);
        }
        words
    }
}
