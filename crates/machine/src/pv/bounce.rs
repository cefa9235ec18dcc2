// SPDX-License-Identifier: Apache-2.0
//! Bounce frames: how the hypervisor enters the guest kernel for an exception, an event or a system call.

use super::{CallbackKind, Entry, Exit, SeenTrap, Vcpu};
use crate::abi::layout::{HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START};
use crate::abi::selector;
use crate::abi::x86::{rflags, seg};
use crate::cpu::fault::{vector, Fault};

/// Why the guest kernel could not be entered: the domain crashes.
pub(crate) type BounceError = &'static str;

/// No handler of an honest guest sends its own vCPU an event so often before it lets what it interrupted go on.
const UPCALLS_IN_A_ROW: u32 = 16;
const PROGRESS: i64 = 1000;

impl Vcpu {
    /// Enters the guest kernel at `to`, with `ss rsp rflags cs rip [error] r11 rcx` on its stack.
    /// The saved upcall mask is in bits 32.. of the cs slot, and rflags.IF is its inverse. Nothing changes on failure.
    pub(super) fn bounce(
        &mut self,
        to: Entry,
        error_code: Option<u32>,
        mask: bool,
    ) -> Result<(), BounceError> {
        self.bounce_with(to, error_code, mask, false)
    }

    /// Before the guest is entered with data segments that were set from outside: those that cannot be loaded become
    /// null, and the failsafe callback is told. Its frame has ds es fs gs, as they were to be, above r11.
    pub(super) fn load_new_segments(&mut self) -> Result<(), BounceError> {
        const DATA: [usize; 4] = [seg::ES, seg::DS, seg::FS, seg::GS];
        if !std::mem::take(&mut self.segments_are_new) {
            return Ok(());
        }
        let mut bad = [false; 6];
        for n in DATA {
            let selector = self.cpu.seg.sel[n];
            self.descriptor(selector); // takes an LDT page into use
            bad[n] = !self.cpu.can_load_data_segment(selector);
        }
        if !bad.contains(&true) {
            return Ok(());
        }
        let cb = self.callback(CallbackKind::Failsafe);
        self.bounce_with(cb.entry(), None, cb.mask_events, true)?;
        for n in DATA.into_iter().filter(|&n| bad[n]) {
            self.cpu.seg.sel[n] = 0;
        }
        Ok(())
    }

    fn bounce_with(
        &mut self,
        to: Entry,
        error_code: Option<u32>,
        mask: bool,
        segments: bool,
    ) -> Result<(), BounceError> {
        if self.is_null(to) {
            return Err("the guest kernel registered no handler");
        }
        if self.is_32bit() {
            return self.bounce_32(to, error_code, mask, segments);
        }
        let from_kernel = self.guest_kernel();
        if !from_kernel && !self.toggle_guest_mode() {
            return Err("no kernel page tables");
        }
        let result = self.push_frame(from_kernel, error_code, segments);
        match result {
            Ok(sp) => {
                self.cpu.regs[4] = sp;
                self.cpu.rip = to.address;
                self.cpu.debug.resume = false;
                self.cpu.seg.sel[seg::CS] = selector::FLAT_KERNEL_CS;
                self.cpu.seg.sel[seg::SS] = selector::FLAT_KERNEL_SS;
                let drop = rflags::TF | rflags::RF | rflags::NT | rflags::VM | rflags::AC;
                self.cpu.set_rflags((self.cpu.rflags() & !drop) | rflags::IF);
                if mask {
                    self.set_upcall_mask(true);
                }
                Ok(())
            }
            Err(why) => {
                if !from_kernel {
                    self.toggle_guest_mode();
                }
                Err(why)
            }
        }
    }

    /// Writes the frame through the kernel's page tables; returns the new stack pointer.
    fn push_frame(
        &mut self,
        from_kernel: bool,
        error_code: Option<u32>,
        segments: bool,
    ) -> Result<u64, BounceError> {
        let top = if from_kernel {
            self.cpu.regs[4]
        } else {
            self.kernel_sp
        } & !0xf;
        let masked = self.upcall_mask();
        let mut flags = self.cpu.rflags_pushed() & !(rflags::IF | rflags::IOPL);
        if !masked {
            flags |= rflags::IF;
        }
        if self.architectural_iopl() {
            flags |= u64::from(self.iopl) << rflags::IOPL_SHIFT;
        }
        // A kernel's own selector is shown with RPL 0.
        let cs = u64::from(if from_kernel {
            self.cpu.seg.sel[seg::CS] & !selector::RPL
        } else {
            self.cpu.seg.sel[seg::CS]
        });
        let [es, _, _, ds, fs, gs] = self.cpu.seg.sel;
        let segment = |sel: u16| segments.then_some(u64::from(sel));
        let words = [
            Some(self.cpu.regs[1]),
            Some(self.cpu.regs[11]),
            segment(ds),
            segment(es),
            segment(fs),
            segment(gs),
            error_code.map(u64::from),
            Some(self.cpu.rip),
            Some(cs | u64::from(masked) << 32),
            Some(flags),
            Some(self.cpu.regs[4]),
            Some(u64::from(self.cpu.seg.sel[seg::SS])),
        ];
        let mut frame = [0u8; 96];
        let mut len = 0;
        for word in words.into_iter().flatten() {
            frame[len..len + 8].copy_from_slice(&word.to_le_bytes());
            len += 8;
        }
        let sp = top.wrapping_sub(len as u64);
        if top > HYPERVISOR_VIRT_START && sp < HYPERVISOR_VIRT_END {
            return Err("kernel stack inside the hypervisor's address range");
        }
        self.cpu
            .flat(|cpu| cpu.write_bytes(sp, &frame[..len]))
            .map_err(|_| "kernel stack not mapped writable")?;
        Ok(sp)
    }

    /// Delivers an exception through the guest's trap table.
    pub(super) fn deliver(&mut self, fault: Fault) -> Result<(), BounceError> {
        let gate = self.traps[usize::from(fault.vector)];
        if self.is_null(gate.entry()) {
            return Err("no entry in the guest's trap table");
        }
        let mut error_code = fault.error_code;
        match fault.vector {
            vector::PF => {
                self.set_cr2(fault.cr2);
                // The hardware's U bit says CPL 3, which is true of 64-bit guest kernels too.
                const U: u32 = crate::cpu::fault::pf::U;
                error_code = error_code.map(|e| if self.guest_kernel() { e & !U } else { e | U });
            }
            vector::NM => self.cpu.fpu.ts = false,
            vector::DB => self.cpu.debug.dr6 |= std::mem::take(&mut self.cpu.debug.hit),
            _ => {}
        }
        if !matches!(fault.vector, vector::DB | vector::NMI | vector::BP | vector::OF) {
            // Faults push RF, so that the instruction does not hit its breakpoint again.
            self.cpu.debug.resume = true;
        }
        let seen = self.look_at_trap(fault.vector, error_code, fault.cr2);
        self.bounce(gate.entry(), error_code, gate.masks_events())?;
        self.seen = seen.or(self.seen);
        Ok(())
    }

    /// What is told of an exception that is about to be delivered; `None` unless it is watched.
    pub(super) fn look_at_trap(&self, vector: u8, error_code: Option<u32>, cr2: u64) -> Option<SeenTrap> {
        let watched = self.watched[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0;
        watched.then(|| SeenTrap {
            vector,
            error_code,
            cr2: if vector == vector::PF { cr2 } else { 0 },
            rip: self.cpu.rip,
            in_kernel: self.guest_kernel(),
        })
    }

    /// The exit for a watched exception that was delivered.
    pub(super) fn seen_trap(&mut self) -> Option<Exit> {
        self.seen.take().map(Exit::Trap)
    }

    /// Delivers the event upcall if events are pending and not masked. True if it did. After `UPCALLS_IN_A_ROW` of them
    /// what was interrupted goes on for `PROGRESS` instructions first.
    pub(super) fn deliver_event(&mut self) -> Result<bool, BounceError> {
        let cb = self.callback(CallbackKind::Event);
        if self.is_null(cb.entry()) || !self.event_deliverable() {
            return Ok(false);
        }
        if !self.returns.fresh {
            self.returns.in_a_row = 0;
        } else if self.returns.in_a_row >= UPCALLS_IN_A_ROW {
            self.cpu.budget.yield_at = self.cpu.budget.yield_at.max(self.cpu.budget.left - PROGRESS);
            return Ok(false);
        } else {
            self.returns.in_a_row += 1;
        }
        self.bounce(cb.entry(), None, true).map(|()| true)
    }
}
