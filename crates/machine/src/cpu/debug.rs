// SPDX-License-Identifier: Apache-2.0
//! Single steps and hardware breakpoints: RFLAGS.TF, DR0..DR7 and what raises #DB.
//!
//! While neither is in use they cost one test per chain of blocks. An instruction that may hit something runs alone
//! ([`Cpu::debug_step`]): its operands are worked out before, and compared with the breakpoints after it has completed.
//! With RFLAGS.TF set these are all instructions. With breakpoints armed they are those on a page with a breakpoint on
//! execution, which is not entered by a jump cache, and those that touch a page with a breakpoint on data in the way that
//! it asks for: the translations of such pages are withheld, and [`Cpu::translate`] refuses the access with [`WATCHED`].
// Code bytes are read through the TLB.
#![allow(unsafe_code)]

use super::descriptor_cache::MODE_STEPS;
use super::fault::{vector, Fault, Trap};
use super::regs::gpr_index;
use super::{flags, Cpu};
use crate::abi::x86::dr6;
use crate::abi::x86::dr7::{self, ON_ACCESS, ON_EXECUTION, ON_IO, ON_WRITE};
use crate::mmu::walk::Access;
use iced_x86::{Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, Register};

/// No exception: the access is to a page with a breakpoint on data. Handlers leave the instruction undone, as for any fault,
/// and the run loop does it again alone.
pub(crate) const WATCHED: Fault = Fault::new(u8::MAX);
/// Bytes of the longest instruction.
const MAX_LEN: u64 = 15;
/// Bits of an address mask (AMD's breakpoint extension).
const MASK_BITS: u64 = 0xffff_ffff;

/// The debug registers of one vCPU, as the guest set them.
#[derive(Debug, Clone)]
pub struct DebugRegs {
    pub(crate) addr: [u64; 4],
    /// Bits of each address that are not compared.
    pub(crate) mask: [u64; 4],
    pub dr6: u64,
    pub(crate) dr7: u64,
    /// RFLAGS.RF: the next instruction ignores breakpoints on its execution. Kept only while some are armed.
    pub resume: bool,
    /// DR6 bits that belong to the #DB just raised.
    pub hit: u64,
    /// A breakpoint on execution or data is enabled.
    armed: bool,
    /// Repeated string instructions stop after one iteration.
    pub(crate) one_by_one: bool,
    /// The instruction before loaded SS: no #DB is raised before the next one has completed.
    shadow: bool,
    /// Data breakpoints that the load of SS hit.
    held_back: u64,
    /// Accesses to watched pages are refused: guest code runs, and not alone.
    pub(crate) refuses: bool,
    /// Instructions that ran alone: for tests.
    pub steps: u64,
    /// With breakpoints armed all instructions run alone: the oracle of tests.
    pub all_alone: bool,
}

impl Default for DebugRegs {
    fn default() -> Self {
        DebugRegs {
            addr: [0; 4],
            mask: [0; 4],
            dr6: dr6::ONES,
            dr7: dr7::ONES,
            resume: false,
            hit: 0,
            armed: false,
            one_by_one: false,
            shadow: false,
            held_back: 0,
            refuses: false,
            steps: 0,
            all_alone: false,
        }
    }
}

/// Bytes that an instruction reads or writes.
#[derive(Debug, Clone, Copy)]
struct Touched {
    va: u64,
    len: u64,
    write: bool,
}

impl DebugRegs {
    fn set_dr7(&mut self, value: u64) {
        self.dr7 = value;
        self.armed = (0..4).any(|n| self.enabled(n) && self.kind(n) != ON_IO);
        if !self.armed {
            self.resume = false;
            self.held_back = 0;
        }
    }

    pub fn armed(&self) -> bool {
        self.armed
    }

    fn enabled(&self, n: u32) -> bool {
        dr7::enabled(self.dr7, n)
    }

    fn kind(&self, n: u32) -> u64 {
        dr7::kind(self.dr7, n)
    }

    /// First address and length of breakpoint `n`: its address is aligned to its length.
    fn range(&self, n: u32) -> (u64, u64) {
        let len = dr7::len(self.dr7, n);
        let at = self.addr.get(n as usize).copied().unwrap_or(0);
        (at & !(len - 1), len)
    }

    /// Whether some breakpoint, enabled or not, is on I/O.
    pub fn asks_for_io(dr7: u64) -> bool {
        (0..4).any(|n| dr7::kind(dr7, n) == ON_IO)
    }

    fn bits(&self, mut hit: impl FnMut(u32) -> bool) -> u64 {
        (0..4)
            .filter(|&n| self.enabled(n) && hit(n))
            .fold(0, |bits, n| bits | 1 << n)
    }

    /// Whether breakpoint `n` is at `va`, but for the bits that are not compared, and `ignored`.
    fn is_at(&self, n: u32, va: u64, ignored: u64) -> bool {
        let mask = self.mask.get(n as usize).copied().unwrap_or(0);
        (self.range(n).0 ^ va) & !(mask | ignored) == 0
    }

    fn on_execution(&self, va: u64) -> u64 {
        self.bits(|n| self.kind(n) == ON_EXECUTION && self.is_at(n, va, 0))
    }

    /// Whether code at `va` runs one by one.
    #[cold]
    fn steps_at(&self, va: u64) -> bool {
        self.resume
            || self.all_alone
            || self.shadow
            || self.held_back != 0
            || self.bits(|n| {
                // A load of SS that ends at the breakpoint, and holds it back, is in the page before.
                let early =
                    self.range(n).0 & 0xfff < MAX_LEN || self.mask.get(n as usize).is_some_and(|&m| m != 0);
                let next = va.wrapping_add(4096);
                self.kind(n) == ON_EXECUTION
                    && (self.is_at(n, va, 0xfff) || early && self.is_at(n, next, 0xfff))
            }) != 0
    }

    /// Whether the page at `va` has a breakpoint on such accesses.
    pub(crate) fn watches(&self, va: u64, access: Access) -> bool {
        self.armed
            && self.bits(|n| {
                let kind = self.kind(n);
                let asked = kind == ON_ACCESS || kind == ON_WRITE && access == Access::Write;
                asked && self.is_at(n, va, 0xfff)
            }) != 0
    }

    fn watches_any(&self) -> bool {
        self.bits(|n| matches!(self.kind(n), ON_WRITE | ON_ACCESS)) != 0
    }

    /// DR6 bits of the breakpoints on I/O that an access to `len` ports from `port` hits.
    pub fn on_io(&self, port: u16, len: u64) -> u64 {
        self.bits(|n| {
            let (at, size) = self.range(n);
            let port = u64::from(port);
            self.kind(n) == ON_IO && at < port + len && port < at.saturating_add(size)
        })
    }

    fn on_data(&self, touched: &[Touched]) -> u64 {
        self.bits(|n| {
            let kind = self.kind(n);
            let (at, len) = self.range(n);
            let masked = self.mask.get(n as usize).is_some_and(|&m| m != 0);
            !matches!(kind, ON_EXECUTION | ON_IO)
                && touched.iter().any(|t| {
                    let overlap = if masked {
                        (0..t.len).any(|i| self.is_at(n, t.va.wrapping_add(i), len - 1))
                    } else {
                        t.va.wrapping_sub(at) < len || at.wrapping_sub(t.va) < t.len
                    };
                    (t.write || kind != ON_WRITE) && overlap
                })
        })
    }
}

impl Cpu {
    /// Whether the next instruction must run alone.
    #[inline(always)]
    pub(crate) fn debugging(&self) -> bool {
        self.flags.other & flags::TF != 0 || self.debug.armed && self.steps_here()
    }

    #[cold]
    fn steps_here(&self) -> bool {
        self.seg.mode == MODE_STEPS || self.checks_alignment() || self.debug.steps_at(self.code_va(self.rip))
    }

    /// Guest code begins to run, or ends: from here on accesses to watched pages are refused, or no more.
    pub(crate) fn refuse_watched(&mut self, on: bool) {
        self.debug.refuses = on && self.debug.armed && self.debug.watches_any();
    }

    /// DR7.
    pub fn set_dr7(&mut self, value: u64) {
        self.change_breakpoints(|d| d.set_dr7(value));
    }

    /// DR0 to DR3.
    pub fn set_breakpoint(&mut self, n: usize, va: u64) {
        self.change_breakpoints(|d| {
            if let Some(slot) = d.addr.get_mut(n) {
                *slot = va;
            }
        });
    }

    /// The address mask of a breakpoint.
    pub fn set_breakpoint_mask(&mut self, n: usize, mask: u64) {
        self.change_breakpoints(|d| {
            if let Some(slot) = d.mask.get_mut(n) {
                *slot = mask & MASK_BITS;
            }
        });
    }

    /// DR7: see [`dr7`](crate::abi::x86::dr7).
    pub fn dr7(&self) -> u64 {
        self.debug.dr7
    }

    /// The address mask of breakpoint `n`: bits of its address that do not count.
    pub fn breakpoint_mask(&self, n: usize) -> u64 {
        self.debug.mask.get(n).copied().unwrap_or(0)
    }

    /// Translations and jumps of pages whose breakpoints change are forgotten.
    fn change_breakpoints(&mut self, change: impl FnOnce(&mut DebugRegs)) {
        let before = self.debug.clone();
        change(&mut self.debug);
        for d in [before, self.debug.clone()] {
            for n in 0..4u32 {
                if !d.armed || !d.enabled(n) {
                    continue;
                }
                if d.mask.get(n as usize).is_some_and(|&m| m > 0xfff) {
                    self.flush_tlb_all_views();
                    return;
                }
                let at = d.range(n).0;
                self.invlpg(at);
                if d.kind(n) == ON_EXECUTION {
                    self.invlpg(at.wrapping_sub(4096));
                }
            }
        }
    }

    /// One instruction with RFLAGS.TF set or breakpoints armed. `Some`: what stopped it, or the #DB that it raised.
    pub(crate) fn debug_step(&mut self) -> Option<Trap> {
        let single = self.flags.other & flags::TF != 0;
        let start = self.rip;
        self.debug.steps += 1;
        let refuses = std::mem::take(&mut self.debug.refuses);
        let stopped = self.step_alone(start, single);
        self.debug.refuses = refuses;
        stopped
    }

    fn step_alone(&mut self, start: u64, single: bool) -> Option<Trap> {
        let shadowed = std::mem::take(&mut self.debug.shadow);
        let resume = self.debug.resume;
        if self.debug.armed && !resume && !shadowed {
            let hit = self.debug.on_execution(self.code_va(start));
            if hit != 0 {
                self.debug.hit = hit;
                return Some(Fault::new(vector::DB).into());
            }
        }
        let insn = self.insn_at(start);
        let touched = insn.as_ref().map_or(Vec::new(), |i| self.touched(i));
        self.debug.one_by_one = true;
        let slow_only = std::mem::replace(&mut self.code.slow_only, true);
        let outcome = if self.seg.code32 || self.checks_alignment() {
            self.step_slow()
        } else {
            self.step()
        };
        self.code.slow_only = slow_only;
        self.debug.one_by_one = false;
        self.budget.left += std::mem::take(&mut self.budget.slice);
        let held_back = std::mem::take(&mut self.debug.held_back);
        if let (Err(t), _) | (Ok(()), Some(t)) = (outcome, self.chain.leave.take()) {
            return Some(t);
        }
        self.debug.resume = false;
        if let Some(i) = insn.filter(|i| self.repeats(i)) {
            // The next iteration is the same instruction again.
            self.rip = start;
            self.debug.resume = i.is_string_instruction() && self.debug.armed;
        }
        let mut hit = held_back | self.debug.on_data(&touched);
        if insn.is_some_and(|i| loads_ss(&i)) {
            self.debug.shadow = true;
            self.debug.held_back = hit;
            return None;
        }
        if single {
            hit |= dr6::BS;
        }
        if hit == 0 {
            return None;
        }
        self.debug.hit = hit;
        Some(Fault::new(vector::DB).into())
    }

    /// An instruction has completed that the layer above emulated: the #DB it raises, with the breakpoints in `hit`.
    pub fn retired(&mut self, hit: u64) -> Option<Fault> {
        self.debug.resume = false;
        let single = if self.flags.other & flags::TF != 0 {
            dr6::BS
        } else {
            0
        };
        self.debug.hit = hit | single;
        (self.debug.hit != 0).then_some(Fault::new(vector::DB))
    }

    /// RFLAGS as an exception pushes it: with RF while it is in force.
    pub fn rflags_pushed(&self) -> u64 {
        self.rflags() & !flags::RF | if self.debug.resume { flags::RF } else { 0 }
    }

    /// What an iret does with the RF bit of the flags it loads.
    pub fn load_resume_flag(&mut self, rflags: u64) {
        self.flags.other &= !flags::RF;
        self.debug.resume = rflags & flags::RF != 0 && self.debug.armed;
    }

    /// Linear address of code at `rip`.
    pub fn code_va(&self, rip: u64) -> u64 {
        if self.seg.code32 {
            self.linear(rip.wrapping_add(self.seg_base(Register::CS)))
        } else {
            rip
        }
    }

    /// The instruction at `rip`, as far as it can be fetched and decoded.
    fn insn_at(&mut self, rip: u64) -> Option<Instruction> {
        let va = self.code_va(rip);
        let first = (4096 - (va & 0xfff)).min(15) as usize;
        let mut buf = [0u8; 15];
        let mut have = first;
        let host = self.translate(va, Access::Fetch).ok()?.host;
        // SAFETY: `first` bytes are left in the page, which lies in guest RAM.
        unsafe { std::ptr::copy(host, buf.as_mut_ptr(), first) };
        if first < 15 {
            if let Ok(p) = self.translate(self.code_va(rip.wrapping_add(first as u64)), Access::Fetch) {
                // SAFETY: 15 - first < 4096 bytes from the start of a page.
                unsafe { std::ptr::copy(p.host, buf.as_mut_ptr().add(first), 15 - first) };
                have = 15;
            }
        }
        self.decode(&buf[..have], rip).ok()
    }

    /// The memory operands of `i`, of one iteration.
    fn touched(&self, i: &Instruction) -> Vec<Touched> {
        if !self.debug.armed || self.rep_done(i) {
            return Vec::new();
        }
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info_options(i, InstructionInfoOptions::NO_REGISTER_USAGE);
        info.used_memory()
            .iter()
            .filter_map(|m| {
                let write = match m.access() {
                    OpAccess::Read | OpAccess::CondRead => false,
                    OpAccess::None | OpAccess::NoMemAccess => return None,
                    _ => true,
                };
                let va = m.virtual_address(0, |r, _, _| Some(self.info_register(r)))?;
                let len = m.memory_size().size().max(1) as u64;
                let va = self.linear(va);
                Some(Touched { va, len, write })
            })
            .collect()
    }

    /// A register as iced asks for it: of segments it wants the base.
    fn info_register(&self, r: Register) -> u64 {
        if r.is_segment_register() {
            return self.seg_base(r);
        }
        match r.size() {
            1 => u64::from(self.reg::<u8>(r)),
            2 => u64::from(self.reg::<u16>(r)),
            4 => u64::from(self.reg::<u32>(r)),
            _ => self.regs[gpr_index(r) & 15],
        }
    }

    /// rcx, of the width that a repeated `i` counts with.
    fn rep_count(&self, i: &Instruction) -> u64 {
        use iced_x86::OpKind as K;
        let mut mask = if self.seg.code32 { 0xffff_ffff } else { u64::MAX };
        for n in 0..i.op_count() {
            mask = match i.op_kind(n) {
                K::MemorySegSI | K::MemorySegDI | K::MemoryESDI => 0xffff,
                K::MemorySegESI | K::MemorySegEDI | K::MemoryESEDI => 0xffff_ffff,
                _ => continue,
            };
        }
        self.regs[1] & mask
    }

    fn rep_done(&self, i: &Instruction) -> bool {
        is_repeated(i) && self.rep_count(i) == 0
    }

    /// Whether a repeated string instruction has iterations left after the one it just made.
    fn repeats(&self, i: &Instruction) -> bool {
        if !is_repeated(i) || self.rep_count(i) == 0 {
            return false;
        }
        use Mnemonic as M;
        match i.mnemonic() {
            M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq => {
                self.zf() != i.has_repne_prefix()
            }
            _ => true,
        }
    }
}

fn is_repeated(i: &Instruction) -> bool {
    i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix())
}

fn loads_ss(i: &Instruction) -> bool {
    matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Pop) && i.op0_register() == Register::SS
}
