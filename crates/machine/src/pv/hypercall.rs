// SPDX-License-Identifier: Apache-2.0
//! Hypercall entry, and the few hypercalls that are answered without leaving the machine.

use super::Exit;
use super::Vcpu;
use crate::abi::hypercall::{nr, segbase, HYPERCALL_INSTRUCTION_LEN};
use crate::abi::x86::gpr::{RAX, RBP, RBX, RCX, RDI, RDX, RSI};
use crate::abi::x86::{canonical, rflags, seg, selector, vector};
use crate::abi::{errno, Errno};
use crate::frames::{MmError, MmResult};

impl Vcpu {
    /// A `syscall` (or, in a 32-bit guest, `int $0x82`) from the guest kernel. `None`: answered here.
    pub(super) fn hypercall(&mut self) -> Option<Exit> {
        let r = &self.cpu.regs;
        let (nr, args) = if self.is_32bit() {
            let low = |n: usize| r.get(n).map_or(0, |v| v & 0xffff_ffff);
            (
                low(RAX),
                [low(RBX), low(RCX), low(RDX), low(RSI), low(RDI), low(RBP)],
            )
        } else {
            (r[RAX], [r[RDI], r[RSI], r[RDX], r[10], r[8], r[9]])
        };
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
        if self.fast_hypercalls && (nr == nr::MMU_UPDATE || nr == nr::MMUEXT_OP) {
            self.fast_counts[nr as usize] += 1;
            if let Some(done) = self.mmu_hypercall(nr == nr::MMUEXT_OP, args) {
                self.hypercall_return(errno::rc(done));
            }
            return self.after_hypercall();
        }
        if self.fast_hypercalls && nr == nr::GRANT_TABLE_OP {
            if let Some(done) = self.grant_hypercall(args) {
                self.fast_counts[nr as usize] += 1;
                if let Some(done) = done {
                    self.hypercall_return(errno::rc(done));
                }
                return self.after_hypercall();
            }
        }
        if self.fast_hypercalls && (nr == nr::EVENT_CHANNEL_OP || nr == nr::EVENT_CHANNEL_OP_COMPAT) {
            let done = match nr == nr::EVENT_CHANNEL_OP {
                true => self.event_hypercall(args),
                false => self.event_hypercall_compat(args),
            };
            if let Some(done) = done {
                self.fast_counts[nr as usize] += 1;
                self.hypercall_return(errno::rc(done));
                return self.after_hypercall();
            }
        }
        if self.fast_hypercalls {
            if let Some(done) = self.fast_hypercall(nr, args) {
                self.fast_counts[(nr & 63) as usize] += 1;
                match done {
                    Ok(()) => self.hypercall_return(0),
                    Err(MmError::Errno(e)) => self.hypercall_return(e.rc()),
                    Err(MmError::Preempted) => self.hypercall_restart(),
                }
                return self.after_hypercall();
            }
        }
        Some(Exit::Hypercall { nr, args })
    }

    /// What becomes of a hypercall that needs no exit; `None`: it needs one.
    fn fast_hypercall(&mut self, nr: u64, a: [u64; 6]) -> Option<MmResult> {
        Some(match nr {
            nr::STACK_SWITCH => {
                self.set_kernel_stack(a[0] as u16, a[1]);
                Ok(())
            }
            // 64-bit values come in two registers.
            nr::UPDATE_VA_MAPPING if self.is_32bit() => {
                self.update_va_mapping(a[0], a[1] | a[2] << 32, a[3], None)
            }
            nr::UPDATE_VA_MAPPING => self.update_va_mapping(a[0], a[1], a[2], None),
            nr::FPU_TASKSWITCH => {
                self.cpu.fpu.ts = a[0] as u32 != 0;
                Ok(())
            }
            nr::SET_SEGMENT_BASE if !self.is_32bit() => {
                self.set_segment_base(a[0] as u32, a[1]).map_err(MmError::Errno)
            }
            _ => return None,
        })
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
    fn after_hypercall(&mut self) -> Option<Exit> {
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
