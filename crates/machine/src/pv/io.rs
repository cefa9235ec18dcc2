// SPDX-License-Identifier: Apache-2.0
//! I/O instructions of a domain to which no port belongs: they are allowed by the virtual IOPL or the guest's own
//! bitmap, read ones, and write nowhere.

use super::Exit;
use super::Vcpu;
use crate::cpu::fault::{Fault, Trap};
use std::sync::atomic::Ordering;

/// Index port of the clock, whose last written value can be read back.
const RTC_INDEX: u16 = 0x70;
const PCI_CONFIG_ADDRESS: u16 = 0xcf8;
/// Elements of a repeated instruction between two looks at the attention bits.
const ELEMENTS_AT_ONCE: u64 = 1024;

/// ins or outs.
#[derive(Debug, Clone, Copy)]
pub(super) struct StringIo {
    pub port: u16,
    pub size: u8,
    pub out: bool,
    pub rep: bool,
    pub mask: u64,
    pub va: u64,
}

impl Vcpu {
    /// PHYSDEVOP_set_iobitmap: the guest kernel's address of a bitmap of `ports` ports, looked at for each access.
    pub fn set_io_bitmap(&mut self, va: u64, ports: u32) {
        self.io_bitmap = (va, ports);
    }

    /// Whether the guest has allowed this access: by its IOPL, or by clear bits in its bitmap.
    pub(super) fn io_allowed(&mut self, port: u16, size: u8) -> bool {
        if self.iopl >= self.guest_cpl() {
            return true;
        }
        let (va, ports) = self.io_bitmap;
        if ports <= u32::from(port) + u32::from(size) {
            return false;
        }
        let mut bits = [0xff; 2];
        let at = va.wrapping_add(u64::from(port >> 3));
        // The bitmap is the kernel's, also for its applications.
        let user = !self.guest_kernel() && !self.is_32bit();
        if user && !self.toggle_guest_mode() {
            return false;
        }
        if self.copy_in(at, &mut bits).is_err() {
            bits = [0xff; 2];
            let mut first = [0xff];
            if self.copy_in(at, &mut first).is_ok() {
                bits[0] = first[0];
            }
        }
        if user {
            self.toggle_guest_mode();
        }
        let wanted = ((1u32 << size) - 1) << (port & 7);
        u32::from(u16::from_le_bytes(bits)) & wanted == 0
    }

    fn io_read(&self, port: u16, size: u8) -> u32 {
        let d = &self.cpu.domain;
        if (port, size) == (PCI_CONFIG_ADDRESS, 4) {
            return d.pci_config_address.load(Ordering::SeqCst);
        }
        (0..u32::from(size)).fold(0, |value, n| {
            let byte = if u32::from(port) + n == u32::from(RTC_INDEX) {
                d.rtc_index.load(Ordering::SeqCst)
            } else {
                0xff
            };
            value | u32::from(byte) << (8 * n)
        })
    }

    fn io_write(&self, port: u16, size: u8, value: u32) {
        let d = &self.cpu.domain;
        if (port, size) == (PCI_CONFIG_ADDRESS, 4) {
            d.pci_config_address.store(value, Ordering::SeqCst);
            return;
        }
        for n in 0..u32::from(size) {
            if u32::from(port) + n == u32::from(RTC_INDEX) {
                d.rtc_index.store((value >> (8 * n)) as u8, Ordering::SeqCst);
            }
        }
    }

    /// in, of `len` bytes of code.
    pub(super) fn input(&mut self, port: u16, size: u8, len: u8) -> Option<Exit> {
        if !self.io_allowed(port, size) {
            return self.fault(Fault::gp());
        }
        let value = u64::from(self.io_read(port, size));
        let kept = match size {
            1 => !0xff,
            2 => !0xffff,
            _ => 0,
        };
        self.cpu.regs[0] = self.cpu.regs[0] & kept | value;
        self.emulated(len, port, size)
    }

    /// out.
    pub(super) fn output(&mut self, port: u16, size: u8, len: u8) -> Option<Exit> {
        if !self.io_allowed(port, size) {
            return self.fault(Fault::gp());
        }
        self.io_write(port, size, self.cpu.regs[0] as u32);
        self.emulated(len, port, size)
    }

    /// An I/O instruction is done: the next one, or #DB for a breakpoint on it.
    fn emulated(&mut self, len: u8, port: u16, size: u8) -> Option<Exit> {
        let hit = self.cpu.debug.on_io(port, u64::from(size));
        self.retire(len, hit)
    }

    /// Moves past an emulated instruction; #DB if it was single-stepped or hit the breakpoints `hit`.
    pub fn retire(&mut self, len: u8, hit: u64) -> Option<Exit> {
        self.cpu.rip = self.cpu.rip.wrapping_add(u64::from(len));
        if self.cpu.is_32bit_code() {
            self.cpu.rip &= 0xffff_ffff;
        }
        match self.cpu.retired(hit) {
            Some(fault) => self.fault(fault),
            None => None,
        }
    }

    /// Moves past an instruction that the layer above has emulated; a #DB that it raises waits for the next `run`.
    pub fn skip(&mut self, len: u8) {
        self.cpu.rip = self.cpu.rip.wrapping_add(u64::from(len));
        if let Some(fault) = self.cpu.retired(0) {
            self.inject(fault);
        }
    }

    /// ins and outs.
    pub(super) fn string_io(&mut self, s: StringIo, len: u8) -> Option<Exit> {
        if !self.io_allowed(s.port, s.size) {
            return self.fault(Fault::gp());
        }
        let (at, delta) = (if s.out { 6 } else { 7 }, u64::from(s.size));
        let delta = if self.cpu.df() {
            delta.wrapping_neg()
        } else {
            delta
        };
        // A 16-bit address changes 16 bits of its register, a 32-bit one all.
        let kept = if s.mask == 0xffff { !0xffff } else { 0 };
        let moved = |old: u64, by: u64| old & kept | old.wrapping_add(by) & s.mask;
        let mut va = s.va;
        for _ in 0..ELEMENTS_AT_ONCE {
            if s.rep && self.cpu.regs[1] & s.mask == 0 {
                return self.retire(len, 0);
            }
            if let Err(t) = self.string_io_element(&s, va) {
                return match t {
                    Trap::Fault(f) => self.fault(f),
                    _ => None,
                };
            }
            va = va.wrapping_add(delta);
            if self.cpu.domain.is_32bit {
                va &= 0xffff_ffff;
            }
            self.cpu.regs[at] = moved(self.cpu.regs[at], delta);
            let hit = self.cpu.debug.on_io(s.port, u64::from(s.size));
            if !s.rep {
                return self.retire(len, hit);
            }
            self.cpu.regs[1] = moved(self.cpu.regs[1], u64::MAX);
            if self.cpu.regs[1] & s.mask == 0 {
                return self.retire(len, hit);
            }
            if let Some(fault) = self.cpu.retired(hit) {
                return self.fault(fault);
            }
        }
        // The rest after a look at what else there is to do: the instruction is made again.
        None
    }

    fn string_io_element(&mut self, s: &StringIo, va: u64) -> Result<(), Trap> {
        let mut bytes = [0u8; 4];
        let size = usize::from(s.size).min(4);
        if let Some(part) = bytes.get_mut(..size) {
            if s.out {
                self.cpu.read_bytes(va, part)?;
            } else {
                part.copy_from_slice(&self.io_read(s.port, s.size).to_le_bytes()[..size]);
                self.cpu.write_bytes(va, part)?;
                return Ok(());
            }
        }
        self.io_write(s.port, s.size, u32::from_le_bytes(bytes));
        Ok(())
    }
}
