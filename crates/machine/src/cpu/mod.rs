// SPDX-License-Identifier: Apache-2.0
//! The CPU engine: architectural state and what instruction handlers may do with it.
//!
//! Contract between the files of this folder (see docs/internals/contract.md): `exec/*` reach guest registers and memory
//! only through the methods of [`Cpu`]; nothing is committed before the last possible fault of an instruction.

pub(crate) mod access;
pub(crate) mod block;
pub(crate) mod check;
pub(crate) mod code;
pub(crate) mod debug;
pub(crate) mod decode;
pub(crate) mod descriptor_cache;
pub(crate) mod engine;
pub(crate) mod exec;
pub(crate) mod fault;
pub(crate) mod flags;
pub(crate) mod jumps;
pub(crate) mod model;
pub(crate) mod platform;
pub(crate) mod region;
pub(crate) mod regs;
pub(crate) mod run;
mod scalar;
pub(crate) mod segment;
mod segmented;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(crate) mod translate;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_translator.rs"]
pub(crate) mod translate;
pub(crate) mod views;
pub(crate) mod wide;
pub(crate) mod x87state;

pub use model::CpuidRow;
pub(crate) use scalar::Scalar;

use crate::cpu::access::AccessRules;
use crate::cpu::code::CodeCache;
use crate::cpu::descriptor_cache::Segments;
use crate::cpu::fault::{Exec, Fault, Trap};
use crate::cpu::flags::Flags;
use crate::cpu::jumps::Jumps;
use crate::cpu::model::Model;
use crate::cpu::platform::Platform;
use crate::cpu::regs::Bases;
use crate::cpu::run::{Budget, Chain};
use crate::cpu::x87state::Fpu;
use crate::frames::Domain;
use crate::mmu::views::Views;
use crate::shared::VcpuShared;
use iced_x86::Instruction;
use std::sync::Arc;

/// A handler of one instruction form that is not worth a specialised fast handler. Looked up once, when the block is
/// decoded; the `Instruction` was decoded with its own address *within its page* as IP: use [`Cpu::ea`], never
/// `memory_displacement64` or `next_ip` directly. For branch targets see [`Cpu::branch_target`].
pub(crate) type SlowFn = fn(&mut Cpu, &Instruction) -> Exec;

/// The state of one processor. In long mode kernel and applications may both run at CPL 3: the layer above tells them apart
/// and chooses the page tables with [`Cpu::set_base`].
///
/// Registers and bases come first, in this order, because fast handlers address them by byte offset; what they use besides
/// comes next.
#[repr(C)]
pub struct Cpu {
    /// rax rcx rdx rbx rsp rbp rsi rdi r8..r15
    pub regs: [u64; 16],
    /// Of segments, where they count in addresses of operands.
    pub bases: Bases,
    pub(crate) chain: Chain,
    pub(crate) flags: Flags,
    /// How long [`Cpu::run`] goes on.
    pub budget: Budget,
    /// Linear address of the current instruction, in slow handlers and outside of [`Cpu::run`].
    pub rip: u64,
    /// Where execution goes after the current instruction (slow handlers only).
    pub next_rip: u64,
    /// Current privilege level. It begins as that of the platform's kernels.
    pub cpl: u8,
    /// What accesses to memory do beside the walk.
    pub access: AccessRules,
    /// x87, MMX and SSE registers.
    pub fpu: Fpu,
    /// Segment registers and descriptor tables.
    pub seg: Segments,
    /// What `cpuid`, `rdtsc` and their kin tell.
    pub model: Model,
    /// DR0 to DR7.
    pub debug: debug::DebugRegs,
    /// What is around the processor; it does not change.
    pub platform: Platform,
    pub(crate) views: Views<Jumps>,
    pub(crate) code: CodeCache,
    /// The translator is compared with the interpreter.
    pub(crate) check: Option<Box<check::Check>>,
    /// The next `run` panics, as if there were a bug in the engine.
    #[cfg(test)]
    pub(crate) planted_bug: bool,
    /// Whose memory it sees.
    pub domain: Arc<Domain>,
    /// What other threads reach of it.
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
    /// An instruction could not be completed here.
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
            bases: Bases::new(),
            chain: Chain::new(&mut views, machine.mem.base()),
            flags: Flags::new(),
            budget: Budget::default(),
            rip: 0,
            next_rip: 0,
            cpl: platform.mode.kernel_cpl(),
            access: AccessRules::new(),
            fpu: Fpu::default(),
            seg: Segments::new(),
            model: Model::new(domain.random_stream(0)),
            debug: debug::DebugRegs::default(),
            platform,
            views,
            code: CodeCache::default(),
            check: None,
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
        self.code.slow_only = on;
    }

    /// The time stamp counter: guest nanoseconds.
    pub fn tsc(&self) -> u64 {
        self.domain.machine.clock.now_ns()
    }

    /// First thing in every FPU, MMX and SSE handler: #NM while CR0.TS is set.
    #[inline(always)]
    pub fn check_fpu(&self) -> Exec {
        if self.fpu.ts {
            return Err(Fault::new(fault::vector::NM).into());
        }
        Ok(())
    }
}
