// SPDX-License-Identifier: Apache-2.0
//! Hypercall entry, and the few hypercalls that are answered without leaving the machine.

use super::Exit;
use super::Vcpu;
use crate::abi::hypercall::{nr, segbase, xenver, HYPERCALL_INSTRUCTION_LEN};
use crate::abi::x86::gpr::{RAX, RBP, RBX, RCX, RDI, RDX, RSI};
use crate::abi::x86::{canonical, rflags, seg, selector, vector};
use crate::abi::{errno, Errno};
use crate::frames::{MmError, MmResult};

/// What a hypercall that the machine answers comes to.
pub(super) enum Answer {
    /// Zero, or an error.
    Done(Result<(), Errno>),
    /// A number of its own.
    Value(u64),
    /// It is to be made again after the guest's events, as it is.
    Again,
    /// The same with two other arguments, from this one on.
    AgainWith(usize, [u64; 2]),
}

impl From<MmResult> for Answer {
    fn from(done: MmResult) -> Answer {
        match done {
            Ok(()) => Answer::Done(Ok(())),
            Err(MmError::Errno(error)) => Answer::Done(Err(error)),
            Err(MmError::Preempted) => Answer::Again,
        }
    }
}

impl Vcpu {
    /// A `syscall` (or, in a 32-bit guest, `int $0x82`) from the guest kernel. `None`: answered here.
    pub(super) fn hypercall(&mut self) -> Option<Exit> {
        let nr = self.cpu.regs[RAX] & self.word_mask();
        let args = self
            .argument_registers()
            .map(|n| self.cpu.regs[n] & self.word_mask());
        if nr == nr::IRET {
            self.fast_counts[nr as usize] += 1;
            return match self.iret() {
                Ok(()) => self.seen_trap().or_else(|| self.event()),
                Err(reason) => Some(Exit::Fault {
                    vector: vector::DF,
                    error_code: None,
                    cr2: 0,
                    reason,
                }),
            };
        }
        if self.fast_hypercalls {
            if nr == nr::MULTICALL {
                return self.multicall(args);
            }
            if nr == nr::SCHED_OP && self.blocks_for_short(args[0] as u32) {
                self.fast_counts[nr as usize] += 1;
                self.hypercall_return(0);
                return self.after_hypercall();
            }
            if let Some(answer) = self.answer(nr, args) {
                match answer {
                    Answer::Done(done) => self.hypercall_return(errno::rc(done)),
                    Answer::Value(value) => self.hypercall_return(value as i64),
                    Answer::Again => self.hypercall_restart(),
                    Answer::AgainWith(first, values) => self.hypercall_restart_with(first, values),
                }
                return self.after_hypercall();
            }
        }
        Some(Exit::Hypercall { nr, args })
    }

    /// What becomes of a hypercall that needs no exit; `None`: it needs one.
    pub(super) fn answer(&mut self, nr: u64, a: [u64; 6]) -> Option<Answer> {
        let answer = match nr {
            nr::MMU_UPDATE | nr::MMUEXT_OP => self.mmu_hypercall(nr == nr::MMUEXT_OP, a),
            nr::GRANT_TABLE_OP => self.grant_hypercall(a)?,
            nr::EVENT_CHANNEL_OP => Answer::Done(self.event_hypercall(a)?),
            nr::EVENT_CHANNEL_OP_COMPAT => Answer::Done(self.event_hypercall_compat(a)?),
            nr::STACK_SWITCH => {
                self.set_kernel_stack(a[0] as u16, a[1]);
                Answer::Done(Ok(()))
            }
            // 64-bit values come in two registers.
            nr::UPDATE_VA_MAPPING if self.is_32bit() => {
                self.update_va_mapping(a[0], a[1] | a[2] << 32, a[3], None).into()
            }
            nr::UPDATE_VA_MAPPING => self.update_va_mapping(a[0], a[1], a[2], None).into(),
            nr::FPU_TASKSWITCH => {
                self.cpu.fpu.ts = a[0] as u32 != 0;
                Answer::Done(Ok(()))
            }
            // A uint64_t is two registers.
            nr::SET_TIMER_OP => {
                let when = if self.is_32bit() { a[0] | a[1] << 32 } else { a[0] };
                self.set_timer_op(when);
                Answer::Done(Ok(()))
            }
            nr::VCPU_OP => match self.vcpu_op(a[0] as u32, a[1] as u32, a[2])? {
                Ok(value) => Answer::Value(value),
                Err(error) => Answer::Done(Err(error)),
            },
            nr::XEN_VERSION if a[0] as u32 == xenver::VERSION => {
                let [version, ..] = self.cpu.cpuid(xenver::CPUID_LEAF, 0);
                Answer::Value(u64::from(version))
            }
            nr::SET_SEGMENT_BASE if !self.is_32bit() => {
                Answer::Done(self.set_segment_base(a[0] as u32, a[1]))
            }
            _ => return None,
        };
        self.fast_counts[nr as usize] += 1;
        Some(answer)
    }

    /// What of a register is the guest's `unsigned long`.
    pub(super) fn word_mask(&self) -> u64 {
        match self.is_32bit() {
            true => 0xffff_ffff,
            false => u64::MAX,
        }
    }

    /// The registers that hypercalls have their arguments in.
    fn argument_registers(&self) -> [usize; 6] {
        match self.is_32bit() {
            true => [RBX, RCX, RDX, RSI, RDI, RBP],
            false => [RDI, RSI, RDX, 10, 8, 9],
        }
    }

    /// Changes two arguments, from this one on.
    pub(super) fn set_arguments(&mut self, first: usize, values: [u64; 2]) {
        let registers = self.argument_registers();
        for (register, value) in registers.into_iter().skip(first).zip(values) {
            self.cpu.regs[register] = value;
        }
    }

    /// The hypercall is made again, with two other arguments.
    pub(super) fn hypercall_restart_with(&mut self, first: usize, values: [u64; 2]) {
        self.set_arguments(first, values);
        self.hypercall_restart();
    }

    /// Ends an [`Exit::Hypercall`](super::Exit::Hypercall) with this value in rax; 32-bit guests see its lower half.
    pub fn hypercall_return(&mut self, rc: i64) {
        self.cpu.regs[RAX] = if self.is_32bit() {
            u64::from(rc as u32)
        } else {
            rc as u64
        };
        if self.cpu.rflags() & rflags::TF != 0 && !self.is_32bit() {
            // sysret, unlike iret, takes the single step at once.
            self.injected = self.cpu.retired(0);
        }
    }

    /// Before the guest goes on: the single step, then events.
    pub(super) fn after_hypercall(&mut self) -> Option<Exit> {
        match self.injected.take().and_then(|f| self.fault(f)) {
            None => self.event(),
            exit => exit,
        }
    }

    /// Moves rip back onto the two-byte `syscall` or `int $0x82`: the hypercall is made again.
    pub fn hypercall_restart(&mut self) {
        self.cpu.rip = self.cpu.rip.wrapping_sub(HYPERCALL_INSTRUCTION_LEN);
    }

    /// set_segment_base (`arch-x86/xen-x86_64.h`). `Err`: EINVAL.
    pub fn set_segment_base(&mut self, which: u32, base: u64) -> Result<(), Errno> {
        match which {
            segbase::FS if canonical(base) => self.cpu.bases.fs = base,
            segbase::GS_USER if canonical(base) => self.set_gs_base(false, base),
            segbase::GS_KERNEL if canonical(base) => self.set_gs_base(true, base),
            segbase::GS_USER_SEL => self.set_gs_user_selector(base as u16),
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// SEGBASE_GS_USER_SEL: loads GS for user mode; a selector that cannot be loaded becomes null.
    fn set_gs_user_selector(&mut self, sel: u16) {
        let kernel_base = self.cpu.bases.gs;
        let sel = if selector::is_null(sel) {
            sel
        } else {
            sel | selector::RPL
        };
        if self.cpu.load_segment(seg::GS, sel).is_err() {
            // A null selector can always be loaded.
            let _ = self.cpu.load_segment(seg::GS, 0);
        }
        let user_base = std::mem::replace(&mut self.cpu.bases.gs, kernel_base);
        self.set_gs_base(false, user_base);
    }
}
