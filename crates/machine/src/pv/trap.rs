// SPDX-License-Identifier: Apache-2.0
//! What the PV rules make of each thing that stops the engine.

use super::io::StringIo;
use super::{CallbackKind, Entry, Exit, Vcpu};
use crate::abi::hypercall::HYPERCALL_VECTOR;
use crate::abi::selector;
use crate::abi::x86::gpr::{RAX, RCX, RDX};
use crate::abi::x86::{canonical, cpuid, cr4, error_code, msr};
use crate::cpu::fault::{vector, Fault, PrivInsn, Trap};

/// `ud2a; .ascii "xen"`: the instruction after it is emulated for the guest kernel and its applications.
const EMULATE_PREFIX: [u8; 5] = [0x0f, 0x0b, b'x', b'e', b'n'];
const CPUID: [u8; 2] = [0x0f, 0xa2];

impl Vcpu {
    /// `None` when the guest goes on.
    pub(super) fn handle_trap(&mut self, trap: Trap) -> Option<Exit> {
        match trap {
            Trap::EndBlock | Trap::Again => None,
            Trap::Syscall if self.guest_kernel() && !self.is_32bit() => {
                self.syscall_selectors(selector::FLAT_KERNEL_CS, selector::FLAT_KERNEL_SS);
                self.hypercall()
            }
            Trap::Syscall => self.system_call(),
            Trap::Sysenter => self.sysenter(),
            Trap::Fault(f) if f.vector == vector::UD && self.forced_emulation() => self.forced_cpuid(),
            Trap::Fault(f) => {
                let f = self.ldt_fault(f)?;
                self.fault(f)
            }
            Trap::CallGate { selector, call, ret } => self.call_gate(selector, call, ret),
            Trap::SoftInt { vector, len } => self.soft_int(vector, len),
            Trap::Priv { insn, len } => self.privileged(insn, len),
            Trap::Unsupported(why) => Some(Exit::Unsupported(why)),
        }
    }

    /// Delivers `f`, or ends in the exit that crashes the domain.
    pub(super) fn fault(&mut self, f: Fault) -> Option<Exit> {
        match self.deliver(f) {
            Ok(()) => self.seen_trap(),
            Err(reason) => Some(Exit::Fault {
                vector: f.vector,
                error_code: f.error_code,
                cr2: f.cr2,
                reason,
            }),
        }
    }

    fn bounced(&mut self, to: Entry, mask: bool, what: &'static str) -> Option<Exit> {
        match self.bounce(to, None, mask) {
            Ok(()) => None,
            Err(reason) => {
                let reason = if reason.is_empty() { what } else { reason };
                Some(Exit::Fault {
                    vector: vector::DF,
                    error_code: None,
                    cr2: 0,
                    reason,
                })
            }
        }
    }

    /// The selectors as `syscall` leaves them: whatever they were, these are what it returns to.
    fn syscall_selectors(&mut self, cs: u16, ss: u16) {
        self.cpu.debug.resume = false;
        self.cpu.seg.sel[1] = cs;
        self.cpu.seg.sel[2] = ss;
    }

    /// `syscall` of an application.
    fn system_call(&mut self) -> Option<Exit> {
        let (kind, refusal) = if self.is_32bit() {
            // Xen takes it for one of ring 3, whoever made it.
            self.cpu.set_cpl(3);
            self.syscall_selectors(selector::FLAT_COMPAT_RING3_CS, selector::FLAT_COMPAT_RING3_SS);
            (CallbackKind::Syscall32, Fault::gp())
        } else if self.cpu.is_32bit_code() {
            self.syscall_selectors(selector::FLAT_RING3_CS32, selector::FLAT_KERNEL_SS);
            (CallbackKind::Syscall32, Fault::ud())
        } else {
            self.syscall_selectors(selector::FLAT_KERNEL_CS, selector::FLAT_KERNEL_SS);
            (CallbackKind::Syscall, Fault::ud())
        };
        let cb = self.callback(kind);
        if self.is_null(cb.entry()) {
            self.cpu.rip = self.cpu.rip.wrapping_sub(2);
            return self.fault(refusal);
        }
        self.bounced(cb.entry(), cb.mask_events, "system call")
    }

    /// `sysenter`: it saves neither rip nor rsp, so the frame has none, and a null selector of ring 3. Without a callback
    /// it is what the processor that CPUID shows makes of it in long mode.
    fn sysenter(&mut self) -> Option<Exit> {
        let cb = self.callback(CallbackKind::Sysenter);
        if self.is_null(cb.entry()) {
            self.cpu.rip = self.cpu.rip.wrapping_sub(2);
            return self.fault(Fault::ud());
        }
        self.cpu.rip = 0;
        self.cpu.regs[4] = 0;
        let ss = if self.is_32bit() {
            self.cpu.set_cpl(3);
            selector::FLAT_COMPAT_RING3_SS
        } else {
            selector::FLAT_KERNEL_SS
        };
        self.syscall_selectors(selector::RPL, ss);
        self.bounced(cb.entry(), cb.mask_events, "system call")
    }

    /// Whether `rip` is at a cpuid with the forced emulation prefix.
    fn forced_emulation(&mut self) -> bool {
        let mut bytes = [0u8; 7];
        let at = self.cpu.code_va(self.cpu.rip);
        self.cpu.read_bytes(at, &mut bytes).is_ok() && bytes[..5] == EMULATE_PREFIX && bytes[5..] == CPUID
    }

    fn forced_cpuid(&mut self) -> Option<Exit> {
        if self.cpu.model.cpuid_traps && !self.guest_kernel() {
            self.cpu.rip = self.cpu.rip.wrapping_add(5);
            return self.fault(Fault::gp());
        }
        let leaf = self.cpu.regs[RAX] as u32;
        self.cpu.do_cpuid();
        // Xen's own OSXSAVE, which kernels take for leave to set theirs.
        if leaf == cpuid::FEATURES && self.guest_kernel() && self.cpu.has_xsave() {
            self.cpu.regs[RCX] |= u64::from(cpuid::OSXSAVE);
        }
        self.retire(7, 0)
    }

    /// xsetbv, which Xen emulates for a guest kernel: it can set XCR0 to what CPUID shows.
    fn xsetbv(&mut self) -> Result<(), Fault> {
        if self.cpu.model.cr4 & cr4::OSXSAVE == 0 {
            return Err(Fault::ud());
        }
        let value = self.cpu.regs[RDX] << 32 | self.cpu.regs[RAX] & 0xffff_ffff;
        let is_xcr0 = self.cpu.regs[RCX] as u32 == 0;
        if self.guest_kernel() && is_xcr0 && self.cpu.set_xcr0(value) {
            return Ok(());
        }
        Err(Fault::gp())
    }

    /// Whether ecx is the number of an MSR with the base of a segment. A 32-bit guest has none of these.
    fn names_base(&self) -> bool {
        let index = self.cpu.regs[RCX] as u32;
        !self.is_32bit() && matches!(index, msr::FS_BASE | msr::GS_BASE | msr::KERNEL_GS_BASE)
    }

    /// rdmsr or wrmsr of the base of a segment, which Linux reads at each switch of tasks.
    fn base_msr(&mut self, is_write: bool) -> Result<(), Fault> {
        let index = self.cpu.regs[RCX] as u32;
        let low = |v: u64| v & 0xffff_ffff;
        if !is_write {
            let base = match index {
                msr::FS_BASE => self.cpu.bases.fs,
                _ => self.gs_base(index == msr::GS_BASE),
            };
            (self.cpu.regs[RAX], self.cpu.regs[RDX]) = (low(base), base >> 32);
            return Ok(());
        }
        let base = low(self.cpu.regs[RDX]) << 32 | low(self.cpu.regs[RAX]);
        if !canonical(base) {
            return Err(Fault::gp());
        }
        match index {
            msr::FS_BASE => self.cpu.bases.fs = base,
            _ => self.set_gs_base(index == msr::GS_BASE, base),
        }
        Ok(())
    }

    /// `int n`: #BP and #OF have gates of their own that applications may use; for the rest the guest's DPL decides.
    fn soft_int(&mut self, v: u8, len: u8) -> Option<Exit> {
        self.cpu.debug.resume = false;
        if v == vector::DB && len == 1 {
            // icebp is an exception, not an interrupt: the gate's DPL does not count.
            return self.fault(Fault::new(vector::DB));
        }
        if v == HYPERCALL_VECTOR && self.is_32bit() && self.guest_kernel() {
            return self.hypercall();
        }
        let gate = self.traps[usize::from(v)];
        if v != vector::BP && v != vector::OF && gate.dpl() < self.guest_cpl() {
            self.cpu.rip = self.cpu.rip.wrapping_sub(u64::from(len));
            return self.fault(Fault::with_code(vector::GP, error_code::of_gate(v)));
        }
        let seen = self.look_at_trap(v, None, 0);
        let exit = self.bounced(gate.entry(), gate.masks_events(), "software interrupt");
        exit.or(seen.map(Exit::Trap))
    }

    fn privileged(&mut self, insn: PrivInsn, len: u8) -> Option<Exit> {
        match insn {
            // Xen emulates both as nothing, for a guest whose virtual IOPL allows them: the event mask is in vcpu_info.
            PrivInsn::Cli | PrivInsn::Sti if self.iopl >= self.guest_cpl() => self.retire(len, 0),
            PrivInsn::In { port, size } => self.input(port, size, len),
            PrivInsn::Out { port, size } => self.output(port, size, len),
            PrivInsn::StringIo {
                port,
                size,
                out,
                rep,
                mask,
                va,
            } => {
                let s = StringIo {
                    port,
                    size,
                    out,
                    rep,
                    mask,
                    va,
                };
                self.string_io(s, len)
            }
            PrivInsn::Rdtsc { aux } if self.guest_kernel() => {
                self.cpu.do_rdtsc(aux);
                self.retire(len, 0)
            }
            PrivInsn::Cpuid if self.guest_kernel() => {
                self.cpu.do_cpuid();
                self.retire(len, 0)
            }
            PrivInsn::Xsetbv => match self.xsetbv() {
                Ok(()) => self.retire(len, 0),
                Err(fault) => self.fault(fault),
            },
            // The processor that CPUID shows has none in long mode.
            PrivInsn::Sysexit => self.fault(Fault::ud()),
            PrivInsn::Rdmsr | PrivInsn::Wrmsr if self.guest_kernel() && self.names_base() => {
                match self.base_msr(insn == PrivInsn::Wrmsr) {
                    Ok(()) => self.retire(len, 0),
                    Err(fault) => self.fault(fault),
                }
            }
            // What Xen emulates for a guest kernel.
            PrivInsn::Rdmsr
            | PrivInsn::Wrmsr
            | PrivInsn::MovFromCr { .. }
            | PrivInsn::MovToCr { .. }
            | PrivInsn::MovFromDr { .. }
            | PrivInsn::MovToDr { .. }
            | PrivInsn::Clts
            | PrivInsn::Wbinvd
                if self.guest_kernel() =>
            {
                Some(Exit::Privileged { insn, len })
            }
            _ => self.fault(Fault::gp()),
        }
    }
}
