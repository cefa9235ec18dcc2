// SPDX-License-Identifier: Apache-2.0
//! The interpreter's side: the same addresses in a machine of its own.
// Instructions run on the host.
#![allow(unsafe_code)]

use crate::engines::Engine;
use crate::rng::Rng;
use crate::state::*;
use domzero_machine::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, FLAT_RING3_CS32};
use domzero_machine::abi::x86::{cr4, xcr0};
use domzero_machine::testing::F80;
use domzero_machine::{vector, Clock, Cpu, Domain, Machine, Mfn, Purge, Stop, Trap};
use std::sync::Arc;

const FRAMES: u64 = 256;
const TABLES: u64 = 100;
const CODE: u64 = 120;
const DATA: u64 = 130;
const NX: u64 = 1 << 63;

pub struct Guest {
    pub machine: Arc<Machine>,
    pub cpu: Box<Cpu>,
    /// What must make no difference is done between slices: flushes, other engines, purges from elsewhere.
    pub disturb: Option<Rng>,
    /// 64-bit code has the selectors that it has on the host; the GDT must have them.
    pub linux_selectors: bool,
}

/// Most instructions a case may take before it counts as hanging.
const LIMIT: i64 = 100_000;

impl Guest {
    pub fn new(engine: Engine) -> Guest {
        let machine = Machine::new(FRAMES, 1, Clock::virtual_at(0)).expect("a small machine");
        let domain = Domain::new(machine.clone(), 1);
        let write = |table: u64, index: u64, value: u64| {
            assert!(machine
                .mem
                .write_u64(Mfn(TABLES + table).maddr() + index * 8, value))
        };
        let link = |table: u64| Mfn(TABLES + table).maddr() | 7;
        write(0, 0, link(1));
        write(1, 0, link(2));
        write(2, CODE_VA >> 21, link(3));
        write(2, DATA_VA >> 21, link(4));
        for i in 0..CODE_PAGES {
            write(3, i, Mfn(CODE + i).maddr() | 7);
        }
        for (i, page) in PAGES.iter().enumerate() {
            let frame = Mfn(DATA + i as u64).maddr() | NX;
            match page {
                Page::None => {}
                Page::Rw => write(4, i as u64, frame | 7),
                Page::Ro => write(4, i as u64, frame | 5),
            }
        }
        let shared = Arc::new(domzero_machine::VcpuShared::default());
        let mut cpu = Cpu::new(domain.clone(), shared, domzero_machine::pv_platform(&domain));
        cpu.set_base(Mfn(TABLES), true);
        engine.choose(&mut cpu);
        cpu.bases.gs = GS_BASE;
        cpu.set_vendor(crate::vendor::host_vendor());
        cpu.set_cr4(cr4::INITIAL | cr4::FSGSBASE | cr4::OSXSAVE);
        assert!(cpu.set_xcr0(xcr0::ALL));
        Guest {
            machine,
            cpu,
            linux_selectors: false,
            disturb: None,
        }
    }

    fn maddr(va: u64) -> u64 {
        if va >= DATA_VA {
            Mfn(DATA).maddr() + (va - DATA_VA)
        } else {
            Mfn(CODE).maddr() + (va - CODE_VA)
        }
    }

    pub fn write(&mut self, va: u64, bytes: &[u8]) {
        let at = Self::maddr(va);
        assert!(self.machine.mem.write(at, bytes));
        if va < DATA_VA {
            for mfn in at >> 12..=(at + bytes.len() as u64 - 1) >> 12 {
                self.cpu.shared.push_purge(Purge::Code {
                    mfn: Mfn(mfn),
                    start: 0,
                    end: 4096,
                });
            }
        }
    }

    /// Maps the data page `index` to the frame behind `va`, writable.
    pub fn alias(&mut self, index: usize, va: u64) {
        let at = Mfn(TABLES + 4).maddr() + index as u64 * 8;
        assert!(self.machine.mem.write_u64(at, Self::maddr(va) | NX | 7));
        self.cpu.invlpg(page_va(index));
    }

    /// Maps the code page `index` to the frame that code page `to` has at first.
    pub fn map_code(&mut self, index: u64, to: u64) {
        let at = Mfn(TABLES + 3).maddr() + index * 8;
        assert!(self.machine.mem.write_u64(at, Mfn(CODE + to).maddr() | 7));
        self.cpu.invlpg(CODE_VA + index * 4096);
    }

    pub fn page(&self, va: u64) -> &[u8] {
        let frame = self
            .machine
            .mem
            .frame(Mfn(Self::maddr(va) >> 12))
            .expect("inside the machine");
        // SAFETY: a page of this machine, whose only vCPU is ours and not running.
        unsafe { std::slice::from_raw_parts(frame, 4096) }
    }

    pub fn load(&mut self, state: &State) {
        let cpu = &mut *self.cpu;
        cpu.regs = state.regs;
        cpu.rip = state.rip;
        cpu.seg.sel = match state.bits {
            32 => [
                FLAT_KERNEL_SS,
                FLAT_RING3_CS32,
                FLAT_KERNEL_SS,
                FLAT_KERNEL_SS,
                0,
                0,
            ],
            _ if self.linux_selectors => [0, 0x33, 0x2b, 0, 0, 0],
            _ => [0, FLAT_KERNEL_CS, FLAT_KERNEL_SS, 0, 0, 0],
        };
        cpu.set_rflags(state.rflags);
        for i in 0..16 {
            cpu.fpu.xmm[i] = state.xmm(i);
        }
        cpu.fpu.ymm_hi = state.ymm;
        cpu.fpu.mxcsr = state.mxcsr();
        let word = |i: usize| u16::from_le_bytes([state.fx[i], state.fx[i + 1]]);
        cpu.fpu.x87.set_control(word(0));
        cpu.fpu.x87.set_status_word(word(2));
        cpu.fpu.x87.tags = state.fx[4];
        for i in 0..8 {
            let at = 32 + 16 * i;
            let m = u64::from_le_bytes(state.fx[at..at + 8].try_into().expect("eight bytes"));
            let top = usize::from(cpu.fpu.x87.top);
            cpu.fpu.x87.regs[(top + i) & 7] = F80 { m, se: word(at + 8) };
        }
        cpu.bases.gs = GS_BASE;
    }

    pub fn store(&self, state: &mut State) {
        let cpu = &*self.cpu;
        state.regs = cpu.regs;
        state.rip = cpu.rip;
        state.rflags = cpu.rflags();
        for i in 0..16 {
            state.set_xmm(i, cpu.fpu.xmm[i]);
        }
        state.ymm = cpu.fpu.ymm_hi;
        state.set_mxcsr(cpu.fpu.mxcsr);
        state.fx[0..2].copy_from_slice(&cpu.fpu.x87.control.to_le_bytes());
        state.fx[2..4].copy_from_slice(&cpu.fpu.x87.status_word().to_le_bytes());
        state.fx[4] = cpu.fpu.x87.tags;
        for i in 0..8 {
            let r = cpu.fpu.x87.regs[(usize::from(cpu.fpu.x87.top) + i) & 7];
            state.fx[32 + 16 * i..40 + 16 * i].copy_from_slice(&r.m.to_le_bytes());
            state.fx[40 + 16 * i..42 + 16 * i].copy_from_slice(&r.se.to_le_bytes());
        }
    }

    fn disturb(&mut self) {
        let Some(rng) = &mut self.disturb else { return };
        match rng.below(8) {
            0 => self.cpu.flush_tlb_all_views(),
            1 => self.cpu.flush_tlb_view(),
            2 => self.cpu.invlpg(page_va(rng.below(PAGES.len() as u64) as usize)),
            3 => rng.pick(Engine::ALL).choose(&mut self.cpu),
            4 => self.cpu.shared.push_purge(Purge::AllTlb),
            5 => {
                let mfn = Mfn(if rng.chance(30) { CODE } else { DATA } + rng.below(8));
                let all = [
                    Purge::Writable(mfn),
                    Purge::Frame(mfn),
                    Purge::Code {
                        mfn,
                        start: 0,
                        end: 4096,
                    },
                ];
                self.cpu.shared.push_purge(rng.pick(&all));
            }
            _ => {}
        }
    }

    /// Runs from `state` until something stops it, in slices of `slice` instructions.
    pub fn run(&mut self, state: &mut State, slice: i64) -> End {
        self.load(state);
        let mut left = LIMIT;
        let end = loop {
            self.disturb();
            self.cpu.budget.left = slice.min(left);
            left -= slice;
            match self.cpu.run() {
                Stop::Budget if left > 0 => {}
                Stop::Budget => break End::Other("does not end".into()),
                Stop::Attention => {
                    self.cpu.apply_purges();
                    left += slice;
                }
                Stop::Trap(Trap::SoftInt { vector: 3, .. }) => break End::Breakpoint,
                Stop::Trap(Trap::Fault(f)) => {
                    break End::Fault {
                        vector: f.vector,
                        code: f.error_code,
                        cr2: if f.vector == vector::PF { f.cr2 } else { 0 },
                    }
                }
                // Natively a privileged instruction is just #GP(0).
                Stop::Trap(Trap::Priv { .. }) => {
                    break End::Fault {
                        vector: vector::GP,
                        code: Some(0),
                        cr2: 0,
                    }
                }
                Stop::Trap(t) => break End::Other(format!("{t:?}")),
            }
        };
        self.store(state);
        end
    }
}
