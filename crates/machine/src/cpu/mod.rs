//! The CPU engine: architectural state and what instruction handlers may do with it.
//!
//! Contract between the files of this folder (see docs/internals/contract.md): `exec/*` reach guest registers and memory
//! only through the methods of [`Cpu`]; nothing is committed before the last possible fault of an instruction.

pub mod exec;
pub mod fault;
pub mod x87state;

use crate::cpu::fault::{Exec, Fault, Trap};
use crate::machine::Domain;
use crate::shared::VcpuShared;
use iced_x86::Instruction;
use std::sync::Arc;

/// A handler of one instruction form that is not worth a specialised fast handler. Looked up once, when the block is
/// decoded; the `Instruction` was decoded with its own address *within its page* as IP: use [`Cpu::ea`], never
/// `memory_displacement64` or `next_ip` directly.
pub type SlowFn = fn(&mut Cpu, &Instruction) -> Exec;

/// Which privilege the guest code has. 64-bit PV: both kernel and user run at CPL 3; `guest_kernel` tells them apart
/// and chooses the page tables.
pub struct Cpu {
    /// rax rcx rdx rbx rsp rbp rsi rdi r8..r15
    pub regs: [u64; 16],
    pub rip: u64,
    pub xmm: [u128; 16],
    pub mxcsr: u32,
    pub fpu: x87state::X87,
    /// Selectors es cs ss ds fs gs
    pub sel: [u16; 6],
    pub fs_base: u64,
    pub gs_base: u64,
    /// CR0.TS as the guest set it with fpu_taskswitch: FPU and SSE instructions raise #NM.
    pub ts: bool,
    /// Instructions left before `run` stops with `Stop::Budget`.
    pub budget: i64,
    pub domain: Arc<Domain>,
    pub shared: Arc<VcpuShared>,
}

/// Types that guest memory can be read and written as: little-endian unsigned integers.
pub trait Scalar: Copy {
    const SIZE: usize;
}
impl Scalar for u8 {
    const SIZE: usize = 1;
}
impl Scalar for u16 {
    const SIZE: usize = 2;
}
impl Scalar for u32 {
    const SIZE: usize = 4;
}
impl Scalar for u64 {
    const SIZE: usize = 8;
}
impl Scalar for u128 {
    const SIZE: usize = 16;
}

/// Why [`Cpu::run`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The budget is spent, exactly.
    Budget,
    /// `shared.attention` has bits set; `rip` is at an instruction boundary.
    Attention,
    Trap(Trap),
}

impl Cpu {
    /// Runs guest code until something needs the layer above. Never panics on guest input.
    pub fn run(&mut self) -> Stop {
        Stop::Trap(Trap::Unsupported("engine not built yet"))
    }

    /// Reads guest memory at linear address `va` as the current privilege. Unaligned and page-crossing allowed.
    pub fn read<T: Scalar>(&mut self, _va: u64) -> Result<T, Trap> {
        Err(Fault::gp().into())
    }

    /// Writes guest memory; on a fault nothing is written, also across pages.
    pub fn write<T: Scalar>(&mut self, _va: u64, _value: T) -> Result<(), Trap> {
        Err(Fault::gp().into())
    }

    /// Checks that `len` bytes can be written at `va` (filling the TLB), so that later writes of them cannot fault.
    pub fn probe_write(&mut self, _va: u64, _len: usize) -> Result<(), Trap> {
        Err(Fault::gp().into())
    }

    /// Copies `buf.len()` bytes from guest memory (hypercall arguments, fxrstor images).
    pub fn read_bytes(&mut self, _va: u64, _buf: &mut [u8]) -> Result<(), Trap> {
        Err(Fault::gp().into())
    }

    /// Copies into guest memory; on a fault nothing is written if `buf` spans at most two pages.
    pub fn write_bytes(&mut self, _va: u64, _buf: &[u8]) -> Result<(), Trap> {
        Err(Fault::gp().into())
    }

    /// Linear address of the memory operand of `i`, segment base included.
    pub fn ea(&self, _i: &Instruction) -> u64 {
        0
    }

    /// RFLAGS, with the lazily kept arithmetic flags worked out.
    pub fn rflags(&self) -> u64 {
        2
    }

    /// Sets all of RFLAGS, unchecked.
    pub fn set_rflags(&mut self, _value: u64) {}

    /// Sets the six arithmetic flags (OF SF ZF AF PF CF, at their RFLAGS positions), leaving the others.
    pub fn set_arith_flags(&mut self, _bits: u64) {}
}
