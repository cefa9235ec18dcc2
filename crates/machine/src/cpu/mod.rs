// SPDX-License-Identifier: Apache-2.0
//! The CPU engine: architectural state and what instruction handlers may do with it.
//!
//! Contract between the files of this folder (see docs/internals/contract.md): `exec/*` reach guest registers and memory
//! only through the methods of [`Cpu`]; nothing is committed before the last possible fault of an instruction.

pub(crate) mod access;
pub(crate) mod block;
pub(crate) mod code;
pub mod debug;
pub mod decode;
pub(crate) mod descriptor_cache;
pub mod exec;
pub mod fault;
pub(crate) mod flags;
pub(crate) mod jumps;
pub mod platform;
pub(crate) mod regs;
pub(crate) mod run;
mod scalar;
pub mod segment;
mod segmented;
#[cfg(test)]
mod tests;
pub(crate) mod views;
pub mod x87state;

pub use scalar::Scalar;

use crate::cpu::block::{BlockCache, Slot};
use crate::cpu::fault::{Exec, Fault, Trap};
use crate::cpu::jumps::{Jump, Jumps};
use crate::cpu::platform::Platform;
use crate::frames::Domain;
use crate::mem::Mfn;
use crate::mmu::tlb::{TlbEntry, Views};
use crate::random::RandomStream;
use crate::shared::VcpuShared;
use iced_x86::Instruction;
use std::sync::Arc;

/// A handler of one instruction form that is not worth a specialised fast handler. Looked up once, when the block is
/// decoded; the `Instruction` was decoded with its own address *within its page* as IP: use [`Cpu::ea`], never
/// `memory_displacement64` or `next_ip` directly. For branch targets see [`Cpu::branch_target`].
pub type SlowFn = fn(&mut Cpu, &Instruction) -> Exec;

/// One row of the CPUID table: leaf, subleaf (`None`: any), eax ebx ecx edx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidRow {
    pub leaf: u32,
    pub subleaf: Option<u32>,
    pub regs: [u32; 4],
}

use crate::abi::x86::{cr4, mxcsr};

/// The state of one processor. In long mode kernel and applications may both run at CPL 3: the layer above tells them apart
/// and chooses the page tables with [`Cpu::set_base`].
///
/// The first fields lie in this order because fast handlers address them by byte offset from the start.
#[repr(C)]
pub struct Cpu {
    /// rax rcx rdx rbx rsp rbp rsi rdi r8..r15
    pub regs: [u64; 16],
    /// Always zero: the "no register" of an address.
    pub(crate) zero: u64,
    /// Linear address of the page that the running block lies in.
    pub(crate) page_va: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    /// Where a fast handler puts what it must not put into a register yet.
    pub(crate) scratch: u64,
    /// What linear addresses are cut to: 32 bits of them in 32-bit code.
    pub(crate) addr_mask: u64,
    /// Instructions that may still run before attention is looked at.
    pub(crate) slice: i64,
    /// Translations of the current view.
    pub(crate) tlb: *mut TlbEntry,
    /// The jump cache of the current view.
    pub(crate) jumps: *mut Jump,
    /// Last result of an arithmetic instruction, sign-extended, and its carries: see flags.rs.
    pub(crate) fl_res: u64,
    pub(crate) fl_aux: u64,
    /// RFLAGS without the six arithmetic flags.
    pub(crate) fl_other: u64,
    /// Linear address of the current instruction, in slow handlers and outside of [`Cpu::run`].
    pub rip: u64,
    /// Where execution goes after the current instruction (slow handlers only).
    pub next_rip: u64,
    pub xmm: [u128; 16],
    pub mxcsr: u32,
    /// CR0.TS as the guest set it with fpu_taskswitch: FPU and SSE instructions raise #NM.
    pub ts: bool,
    /// I/O privilege level of the guest, 0..3: cli and sti at CPL <= IOPL do not fault.
    pub iopl: u8,
    /// Current privilege level. It begins as that of the platform's kernels.
    pub cpl: u8,
    /// Misaligned accesses raise #AC.
    pub(crate) aligning: bool,
    /// The stack segment is the cause if a non-canonical address faults next.
    pub(crate) noncanonical: bool,
    /// The op that last began again because of a TLB miss, and the page it missed.
    pub(crate) last_miss: (usize, u64),
    /// The code that runs may have its stores to live page tables emulated: a kernel's, not its applications'.
    pub table_stores: bool,
    /// The guest has asked for that emulation; without it such stores are page faults.
    pub writable_tables: bool,
    /// Only slow handlers are used: the oracle of the fast ones.
    pub(crate) slow_only: bool,
    pub fpu: x87state::X87,
    /// Selectors es cs ss ds fs gs
    pub sel: [u16; 6],
    /// 16- or 32-bit code (compatibility mode): worked out from CS whenever it changes.
    pub(crate) code32: bool,
    /// 16-bit code; `code32` is set too.
    pub(crate) code16: bool,
    /// What blocks are decoded for, part of their keys; [`descriptor_cache::MODE_STEPS`]: none are.
    pub(crate) mode: u8,
    /// Bit n: every offset of segment register n may be read and written (of 16- and 32-bit code).
    pub(crate) whole: u8,
    /// The hidden parts of `sel`.
    pub(crate) hidden: [descriptor_cache::Segment; 6],
    /// The guest's descriptor tables.
    pub desc: segment::DescTables,
    /// Instructions left before `run` stops with `Stop::Budget`.
    pub budget: i64,
    /// `run` stops at the first block boundary where no more than this is left of the budget: cheaper than an exact stop.
    pub yield_at: i64,
    pub(crate) cpuid_table: Vec<CpuidRow>,
    pub(crate) vendor: decode::Vendor,
    /// TSC_AUX, for rdtscp and rdpid.
    pub tsc_aux: u32,
    /// CR4 as the guest sees it: TSD and FSGSBASE decide what instructions do.
    pub cr4: u64,
    /// cpuid is left to the layer above: CPUID faulting.
    pub cpuid_traps: bool,
    /// What rdrand and rdseed give.
    pub(crate) random: RandomStream,
    pub debug: debug::DebugRegs,
    pub(crate) mem_base: *mut u8,
    pub(crate) mem_frames: u64,
    pub platform: Platform,
    /// What the platform's window shows is not mapped now: an application runs.
    pub window_hidden: bool,
    pub(crate) views: Views<Jumps>,
    pub(crate) blocks: BlockCache,
    /// Forget all blocks before the next one is run.
    pub(crate) forget_all: bool,
    /// Why the chain of ops ended, if it was not to find the block at `rip`.
    pub(crate) leave: Option<Trap>,
    pub(crate) pending: Option<run::PendingLink>,
    pub(crate) step_ops: Vec<Slot>,
    /// Slow stores to one frame with decoded code.
    pub(crate) code_frame: Mfn,
    pub(crate) code_stores: u32,
    /// The next `run` panics, as if there were a bug in the engine.
    #[cfg(test)]
    pub(crate) planted_bug: bool,
    pub domain: Arc<Domain>,
    pub shared: Arc<VcpuShared>,
}

// SAFETY: the raw pointers point into boxes owned by this struct, or into guest RAM, which `domain` keeps alive and
// which any thread may access.
#[allow(unsafe_code)]
unsafe impl Send for Cpu {}

/// Why [`Cpu::run`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The budget is spent, exactly.
    Budget,
    /// `shared.attention` has bits other than PURGE set; `rip` is at an instruction boundary.
    Attention,
    Trap(Trap),
}

impl Cpu {
    /// A CPU with all registers zero and no address space: call [`Cpu::set_base`] before [`Cpu::run`].
    pub fn new(domain: Arc<Domain>, shared: Arc<VcpuShared>, platform: Platform) -> Box<Cpu> {
        let machine = &domain.machine;
        domain.register_vcpu(&shared);
        let mut views = Views::<Jumps>::new();
        let mut cpu = Box::new(Cpu {
            regs: [0; 16],
            zero: 0,
            page_va: 0,
            fs_base: 0,
            gs_base: 0,
            scratch: 0,
            addr_mask: !0,
            slice: 0,
            tlb: views.current_tlb(),
            jumps: views.beside().entries(),
            fl_res: 1,
            fl_aux: 0,
            fl_other: flags::FIXED,
            rip: 0,
            next_rip: 0,
            xmm: [0; 16],
            mxcsr: mxcsr::INITIAL,
            ts: false,
            iopl: 0,
            cpl: platform.mode.kernel_cpl(),
            aligning: false,
            noncanonical: false,
            last_miss: (0, 0),
            table_stores: true,
            writable_tables: true,
            slow_only: false,
            fpu: x87state::X87::default(),
            sel: [0; 6],
            code32: false,
            code16: false,
            mode: descriptor_cache::MODE_LONG,
            whole: 0,
            hidden: Default::default(),
            desc: segment::DescTables::default(),
            budget: 0,
            yield_at: 0,
            cpuid_table: Vec::new(),
            vendor: decode::Vendor::Amd,
            tsc_aux: 0,
            cr4: cr4::INITIAL | cr4::FSGSBASE,
            cpuid_traps: false,
            random: domain.random_stream(0),
            debug: debug::DebugRegs::default(),
            mem_base: machine.mem.base(),
            mem_frames: machine.mem.frames(),
            platform,
            window_hidden: false,
            views,
            blocks: BlockCache::default(),
            forget_all: false,
            leave: None,
            pending: None,
            step_ops: Vec::new(),
            code_frame: Mfn(0),
            code_stores: 0,
            #[cfg(test)]
            planted_bug: false,
            shared,
            domain,
        });
        cpu.set_arith_flags(0);
        cpu
    }

    /// Uses only slow handlers from now on: for differential tests.
    pub fn set_slow_only(&mut self, on: bool) {
        self.slow_only = on;
    }

    /// The time stamp counter: guest nanoseconds.
    pub fn tsc(&self) -> u64 {
        self.domain.machine.clock.now_ns()
    }

    /// What `cpuid` shows: the row with this very subleaf, else the one for any subleaf, else zeros.
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let rows = || self.cpuid_table.iter().filter(|r| r.leaf == leaf);
        rows()
            .find(|r| r.subleaf == Some(subleaf))
            .or_else(|| rows().find(|r| r.subleaf.is_none()))
            .map_or([0; 4], |r| r.regs)
    }

    /// First thing in every FPU, MMX and SSE handler: #NM while CR0.TS is set.
    #[inline(always)]
    pub fn check_fpu(&self) -> Exec {
        if self.ts {
            return Err(Fault::new(fault::vector::NM).into());
        }
        Ok(())
    }
}
