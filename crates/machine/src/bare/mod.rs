// SPDX-License-Identifier: Apache-2.0
//! A bare machine: a processor with all its rings and no hypervisor under its kernel. It is what `domzero lab` compares
//! a PV guest with, and nothing else uses it.
//!
//! Instructions are run one by one. Whatever means the same in every ring is executed by the engine; what a ring-0
//! kernel may do (`insn.rs`) and how the processor enters it (`deliver.rs`) is added here. A `Bare` has a domain of its
//! own, so nothing of this can be reached by a PV guest; `pv::Vcpu` runs nothing at CPL 0.

mod deliver;
mod insn;

use crate::abi::pte;
use crate::abi::x86::{cr0, cr4, dr6, dr7, efer, rflags};
use crate::cpu::fault::{Fault, PrivInsn, Trap};
use crate::cpu::platform::{Mode, Platform, SystemRegisters};
use crate::cpu::segment::DescTable;
use crate::cpu::{Cpu, Stop};
use crate::frames::PtwrResult;
use crate::frames::{Domain, Machine};
use crate::mem::Mfn;
use crate::shared::VcpuShared;
use iced_x86::Instruction;
use std::sync::Arc;

/// Nothing around the processor: all descriptors and addresses are the guest's, and stores to page tables are stores.
/// What sgdt and the like tell is in `insn`, which knows what was loaded.
const PLATFORM: Platform = Platform {
    mode: Mode::Long,
    call_gates: false,
    reserved_descriptor: |_| None,
    reserved_gdt: u32::MAX,
    flat_cs: None,
    registers: SystemRegisters {
        gdtr: (0, 0),
        idtr: (0, 0),
        ldtr: 0,
        tr: 0,
        cr0: 0,
        osxsave: false,
    },
    window: None,
    table_store: |_, _, _, _, _| PtwrResult::Fault,
};

/// What the serial port keeps.
const OUTPUT_MAX: usize = 1 << 16;
/// What firmware leaves to a 64-bit kernel.
const CR0_INITIAL: u64 = cr0::PG | cr0::WP | cr0::NE | cr0::ET | cr0::MP | cr0::PE;
const CR4_INITIAL: u64 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::FSGSBASE;
const EFER_INITIAL: u64 = efer::LME | efer::LMA | efer::SCE | efer::NXE;

/// GDTR, IDTR, and the hidden part of TR.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Table {
    /// Linear address.
    pub base: u64,
    /// The last byte's offset.
    pub limit: u32,
}

/// What became of one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Completed; rip is behind it.
    Executed,
    /// `hlt`: nothing will ever wake this processor, as it has no devices.
    Halted,
    /// An exception or software interrupt; `entered` says whether the kernel's handler was reached through the IDT.
    Raised {
        /// The exception; software interrupts have no error code.
        fault: Fault,
        /// The kernel's handler was reached, and rip is at it.
        entered: bool,
    },
    /// No handler for an exception, and none for the double fault: the processor shuts down.
    TripleFault {
        /// The exception that could not be delivered.
        fault: Fault,
    },
    /// Something that is not emulated here, by name.
    Unsupported(&'static str),
}

/// The processor, and what its kernel put into its registers.
pub struct Bare {
    /// The engine, with the registers that code of all rings has.
    pub cpu: Box<Cpu>,
    /// GDTR.
    pub gdtr: Table,
    /// IDTR.
    pub idtr: Table,
    /// The selector in LDTR.
    pub ldtr: u16,
    /// The selector in TR.
    pub tr: u16,
    /// Base and limit of the TSS.
    pub tss: Table,
    /// CR0: see [`cr0`](mod@cr0).
    pub cr0: u64,
    /// CR2: linear address of the last page fault.
    pub cr2: u64,
    /// CR4: see [`cr4`](mod@cr4).
    pub cr4: u64,
    /// EFER: see [`efer`](mod@efer).
    pub efer: u64,
    /// STAR: selectors that `syscall` and `sysret` load.
    pub star: u64,
    /// LSTAR: where `syscall` goes.
    pub lstar: u64,
    /// SFMASK: bits of RFLAGS that `syscall` clears.
    pub fmask: u64,
    /// KERNEL_GS_BASE: what `swapgs` exchanges with the base of GS.
    pub kernel_gs_base: u64,
    /// DR0 to DR7; only kept, nothing stops at them.
    pub debug: [u64; 8],
    /// What was written to the serial port at 0x3f8.
    pub output: Vec<u8>,
    /// How many were executed, since the beginning.
    pub instructions: u64,
}

impl Bare {
    /// A processor in 64-bit mode in ring 0, with the page table `l4` of `domain`'s memory once `load_base` names one.
    pub fn new(machine: &Arc<Machine>, domid: u16) -> Bare {
        let domain = Domain::new(machine.clone(), domid);
        let mut cpu = Cpu::new(domain, Arc::new(VcpuShared::default()), PLATFORM);
        cpu.cpl = 0;
        cpu.access.table_stores = false;
        cpu.set_rflags(rflags::FIXED);
        Bare {
            cpu,
            gdtr: Table::default(),
            idtr: Table::default(),
            ldtr: 0,
            tr: 0,
            tss: Table::default(),
            cr0: CR0_INITIAL,
            cr2: 0,
            cr4: CR4_INITIAL,
            efer: EFER_INITIAL,
            star: 0,
            lstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            debug: [0, 0, 0, 0, 0, 0, dr6::ONES, dr7::ONES],
            output: Vec::new(),
            instructions: 0,
        }
    }

    /// The domain that owns its memory.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.cpu.domain
    }

    /// CR3. A frame number outside memory makes every walk fault.
    pub fn load_base(&mut self, l4: Mfn) {
        self.cpu.set_base(l4, true);
        self.cpu.flush_tlb_all_views();
    }

    /// Goes to another ring: the address space stays, its view changes.
    pub fn set_cpl(&mut self, cpl: u8) {
        if cpl != self.cpu.cpl {
            self.cpu.cpl = cpl & 3;
            if let Some(base) = self.cpu.base() {
                self.cpu.set_base(base, false);
            }
        }
    }

    /// Does `f` as ring 0 would: how the processor itself reads and writes tables and stacks.
    fn as_supervisor<R>(&mut self, f: impl FnOnce(&mut Cpu) -> R) -> R {
        let cpl = self.cpu.cpl;
        self.set_cpl(0);
        let result = f(&mut self.cpu);
        self.set_cpl(cpl);
        result
    }

    /// Reads memory as ring 0.
    pub fn read(&mut self, va: u64, buf: &mut [u8]) -> Result<(), Trap> {
        self.as_supervisor(|cpu| cpu.read_bytes(va, buf))
    }

    /// Writes memory as ring 0.
    pub fn write(&mut self, va: u64, data: &[u8]) -> Result<(), Trap> {
        self.as_supervisor(|cpu| cpu.write_bytes(va, data))
    }

    fn read_u64(&mut self, va: u64) -> Result<u64, Trap> {
        self.as_supervisor(|cpu| cpu.read::<u64>(va))
    }

    /// GDTR as `lgdt` loads it. The engine wants its frames: the table has to begin at a page boundary.
    pub fn load_gdt(&mut self, table: Table) -> Result<(), &'static str> {
        let frames = self.table_frames(table)?;
        self.gdtr = table;
        self.cpu.seg.tables.gdt = DescTable {
            frames,
            entries: (table.limit + 1) / 8,
        };
        Ok(())
    }

    fn table_frames(&mut self, table: Table) -> Result<[Option<Mfn>; 16], &'static str> {
        if table.base & 0xfff != 0 || table.limit > 0xffff {
            return Err("a descriptor table that does not begin at a page boundary");
        }
        let mut frames = [None; 16];
        let base = self.cpu.base();
        for (page, slot) in frames.iter_mut().enumerate() {
            let va = table.base.wrapping_add(page as u64 * 4096);
            if page as u64 * 4096 <= u64::from(table.limit) {
                let walk =
                    base.map(|l4| crate::mmu::walk::inspect(&self.cpu.domain.machine.mem, l4, va, false));
                *slot = walk.and_then(|w| match w.last() {
                    Some(&(1, _, _, e)) if pte::present(e) => Some(Mfn(pte::mfn(e))),
                    _ => None,
                });
            }
        }
        Ok(frames)
    }

    /// CR0 with TS as it is now.
    pub fn cr0(&self) -> u64 {
        self.cr0 & !cr0::TS | if self.cpu.fpu.ts { cr0::TS } else { 0 }
    }

    fn iopl(&self) -> u8 {
        rflags::iopl(self.cpu.rflags())
    }

    /// The instruction at `rip`, if it can be fetched and decoded.
    fn fetch(&mut self) -> Option<Instruction> {
        let rip = self.cpu.rip;
        let mut bytes = [0u8; 15];
        let first = (4096 - (rip & 0xfff)).min(15) as usize;
        self.cpu.read_bytes(rip, bytes.get_mut(..first)?).ok()?;
        let mut len = first;
        if first < 15
            && self
                .cpu
                .read_bytes(rip.wrapping_add(first as u64), bytes.get_mut(first..)?)
                .is_ok()
        {
            len = 15;
        }
        let bytes = bytes.get(..len)?;
        self.cpu.decode(bytes, rip & 0xfff).ok()
    }

    /// Runs one instruction.
    pub fn step(&mut self) -> Outcome {
        self.instructions += 1;
        self.cpu.refresh_mode();
        if let Some(insn) = self.fetch() {
            self.cpu.next_rip = self.cpu.rip.wrapping_add(insn.len() as u64);
            match self.native(&insn) {
                None => {}
                Some(Ok(outcome)) => {
                    if outcome == Outcome::Executed {
                        self.cpu.rip = self.cpu.next_rip;
                    }
                    return outcome;
                }
                Some(Err(trap)) => return self.trap(trap),
            }
        }
        self.cpu.budget.left = 1;
        self.cpu.budget.yield_at = 0;
        match self.cpu.run() {
            Stop::Trap(t) => self.trap(t),
            Stop::Budget | Stop::Attention => Outcome::Executed,
        }
    }

    fn trap(&mut self, trap: Trap) -> Outcome {
        match trap {
            // No table of it is a guest's: no store is ever put off.
            Trap::EndBlock | Trap::Again => Outcome::Executed,
            Trap::Fault(f) => self.raise(f, None),
            Trap::SoftInt { vector, len } => self.raise(Fault::new(vector), Some(len)),
            Trap::Priv { insn, .. } => self.privileged(insn),
            Trap::Syscall => self.syscall(),
            Trap::Sysenter => self.raise(Fault::gp(), None),
            Trap::CallGate { .. } => self.raise(Fault::gp(), None),
            Trap::Unsupported(why) => Outcome::Unsupported(why),
        }
    }

    /// A privileged instruction above ring 0 (in ring 0 `native` has run it): only I/O privilege can allow it.
    fn privileged(&mut self, insn: PrivInsn) -> Outcome {
        if self.cpu.cpl == 0 {
            return Outcome::Unsupported("a privileged instruction that the bare machine does not have");
        }
        let by_iopl = matches!(
            insn,
            PrivInsn::Cli | PrivInsn::Sti | PrivInsn::In { .. } | PrivInsn::Out { .. }
        );
        if !by_iopl || self.iopl() < self.cpu.cpl {
            return self.raise(Fault::gp(), None);
        }
        Outcome::Unsupported("I/O privilege outside ring 0")
    }

    /// Runs until something other than plain execution, at most `limit` instructions; `None` when they are used up.
    /// Exceptions that reach the kernel's handler are part of plain execution.
    pub fn run(&mut self, limit: u64) -> Option<Outcome> {
        for _ in 0..limit {
            match self.step() {
                Outcome::Executed | Outcome::Raised { entered: true, .. } => {}
                other => return Some(other),
            }
        }
        None
    }

    fn serial(&mut self, byte: u8) {
        if self.output.len() < OUTPUT_MAX {
            self.output.push(byte);
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.cpu.domain.destroy();
    }
}
