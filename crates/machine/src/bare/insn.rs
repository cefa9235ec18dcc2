// SPDX-License-Identifier: Apache-2.0
//! Instructions that mean something else in ring 0, or that show the processor's own tables.

use super::{Bare, Outcome, Table};
use crate::abi::pte;
use crate::abi::x86::descriptor::{self, system};
use crate::abi::x86::rflags::{IF, IOPL, NT, RF, VIF, VIP, VM};
use crate::abi::x86::{canonical, cr0, cr4, msr, seg, selector};
use crate::cpu::exec::operand::{read_op, set_gpr};
use crate::cpu::fault::{vector, Fault, Trap};
use crate::cpu::regs::gpr_index;
use crate::cpu::segment::DescTable;
use crate::mem::Mfn;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

type Native = Result<Outcome, Trap>;

fn gp() -> Native {
    Err(Fault::gp().into())
}

impl Bare {
    /// Runs `i` here if the engine would take it for a guest's; `None` leaves it to the engine.
    pub(super) fn native(&mut self, i: &Instruction) -> Option<Native> {
        let ring0 = self.cpu.cpl == 0;
        match i.mnemonic() {
            Mnemonic::Sgdt | Mnemonic::Sidt | Mnemonic::Sldt | Mnemonic::Str | Mnemonic::Smsw => {
                if !ring0 && self.cr4 & cr4::UMIP != 0 {
                    return Some(gp());
                }
                Some(self.store_state(i))
            }
            Mnemonic::Rdtsc | Mnemonic::Rdtscp if !ring0 && self.cr4 & cr4::TSD != 0 => Some(gp()),
            Mnemonic::Rdpmc if ring0 || self.cr4 & cr4::PCE != 0 => {
                self.cpu.regs[0] = 0;
                self.cpu.regs[2] = 0;
                Some(Ok(Outcome::Executed))
            }
            Mnemonic::Popfq | Mnemonic::Popfd | Mnemonic::Popf if self.iopl() >= self.cpu.cpl => {
                Some(self.popf(i))
            }
            Mnemonic::Cli | Mnemonic::Sti if self.iopl() >= self.cpu.cpl => {
                let flags = self.cpu.rflags();
                let on = i.mnemonic() == Mnemonic::Sti;
                self.cpu.set_rflags(if on { flags | IF } else { flags & !IF });
                Some(Ok(Outcome::Executed))
            }
            Mnemonic::In | Mnemonic::Out if self.iopl() >= self.cpu.cpl => Some(self.port(i)),
            Mnemonic::Iretq | Mnemonic::Iretd | Mnemonic::Iret if !self.cpu.is_32bit_code() => {
                Some(self.iret(i))
            }
            _ if ring0 => self.ring0(i),
            _ => None,
        }
    }

    fn ring0(&mut self, i: &Instruction) -> Option<Native> {
        let done = Some(Ok(Outcome::Executed));
        match i.mnemonic() {
            Mnemonic::Hlt => Some(Ok(Outcome::Halted)),
            Mnemonic::Clts => {
                self.cpu.fpu.ts = false;
                done
            }
            Mnemonic::Invd | Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => done,
            Mnemonic::Invlpg => {
                let va = self.cpu.ea(i);
                self.cpu.invlpg(va);
                done
            }
            Mnemonic::Swapgs => {
                std::mem::swap(&mut self.cpu.bases.gs, &mut self.kernel_gs_base);
                done
            }
            Mnemonic::Lgdt | Mnemonic::Lidt => Some(self.load_table(i)),
            Mnemonic::Lldt => Some(self.lldt(i)),
            Mnemonic::Ltr => Some(self.ltr(i)),
            Mnemonic::Lmsw => Some(self.lmsw(i)),
            Mnemonic::Rdmsr | Mnemonic::Wrmsr => Some(self.msr(i.mnemonic() == Mnemonic::Wrmsr)),
            Mnemonic::Sysretq => Some(self.sysret()),
            Mnemonic::Mov => self.mov_system(i),
            _ => None,
        }
    }

    /// sgdt, sidt, sldt, str, smsw: this processor's own values.
    fn store_state(&mut self, i: &Instruction) -> Native {
        let table = match i.mnemonic() {
            Mnemonic::Sgdt => self.gdtr,
            Mnemonic::Sidt => self.idtr,
            other => {
                let value = match other {
                    Mnemonic::Sldt => u64::from(self.ldtr),
                    Mnemonic::Str => u64::from(self.tr),
                    _ => self.cr0(),
                };
                if i.op0_kind() == OpKind::Register {
                    set_gpr(&mut self.cpu, i.op0_register(), value);
                } else {
                    let va = self.cpu.ea(i);
                    self.cpu.write::<u16>(va, value as u16)?;
                }
                return Ok(Outcome::Executed);
            }
        };
        let mut image = [0u8; 10];
        image[..2].copy_from_slice(&(table.limit as u16).to_le_bytes());
        image[2..].copy_from_slice(&table.base.to_le_bytes());
        let va = self.cpu.ea(i);
        self.cpu.write_bytes(va, &image)?;
        Ok(Outcome::Executed)
    }

    fn popf(&mut self, i: &Instruction) -> Native {
        let bytes: u64 = if i.mnemonic() == Mnemonic::Popf { 2 } else { 8 };
        let mut value = self.cpu.peek_stack::<u64>(0)?;
        let old = self.cpu.rflags();
        if bytes == 2 {
            value = value & 0xffff | old & !0xffff;
        }
        let mut keep = VM | VIF | VIP;
        if self.cpu.cpl != 0 {
            keep |= IOPL;
        }
        self.cpu.regs[4] = self.cpu.regs[4].wrapping_add(bytes);
        self.cpu.set_rflags(old & keep | value & !keep & !RF);
        Ok(Outcome::Executed)
    }

    fn port(&mut self, i: &Instruction) -> Native {
        const SERIAL: u64 = 0x3f8;
        const LINE_STATUS: u64 = SERIAL + 5;
        let out = i.mnemonic() == Mnemonic::Out;
        let n = u32::from(!out);
        let port = match i.op_kind(n) {
            OpKind::Register => self.cpu.regs[2] & 0xffff,
            _ => i.immediate(n) & 0xff,
        };
        if out {
            if port == SERIAL {
                self.serial(self.cpu.regs[0] as u8);
            }
            return Ok(Outcome::Executed);
        }
        // A transmitter that is always empty; of all other ports nothing answers.
        let value = if port == LINE_STATUS { 0x60 } else { u64::MAX };
        match i.op0_register() {
            Register::AL => self.cpu.set_reg::<u8>(Register::AL, value as u8),
            Register::AX => self.cpu.set_reg::<u16>(Register::AX, value as u16),
            _ => self.cpu.set_reg::<u32>(Register::EAX, value as u32),
        }
        Ok(Outcome::Executed)
    }

    fn load_table(&mut self, i: &Instruction) -> Native {
        let mut image = [0u8; 10];
        let va = self.cpu.ea(i);
        self.cpu.read_bytes(va, &mut image)?;
        let [l0, l1, base @ ..] = image;
        let table = Table {
            base: u64::from_le_bytes(base),
            limit: u32::from(u16::from_le_bytes([l0, l1])),
        };
        if !canonical(table.base) {
            return gp();
        }
        if i.mnemonic() == Mnemonic::Lidt {
            self.idtr = table;
        } else if let Err(why) = self.load_gdt(table) {
            return Err(Trap::Unsupported(why));
        }
        Ok(Outcome::Executed)
    }

    /// Base and limit of a 16-byte system descriptor of one of these types.
    fn system_descriptor(&mut self, selector: u16, types: &[u8]) -> Result<Table, Trap> {
        let bad = || Trap::from(Fault::of_selector(vector::GP, selector));
        let at = selector::offset(selector);
        if selector & selector::TI != 0 || at + 15 > u64::from(self.gdtr.limit) {
            return Err(bad());
        }
        let base = self.gdtr.base.wrapping_add(at);
        let (low, high) = (self.read_u64(base)?, self.read_u64(base.wrapping_add(8))?);
        if low & descriptor::S != 0 || !types.contains(&descriptor::system_type(low)) {
            return Err(bad());
        }
        if low & descriptor::P == 0 {
            return Err(Fault::of_selector(vector::NP, selector).into());
        }
        Ok(Table {
            base: descriptor::base(low) | high << 32,
            limit: descriptor::raw_limit(low),
        })
    }

    fn lldt(&mut self, i: &Instruction) -> Native {
        let selector = read_op::<16>(&mut self.cpu, i, 0)? as u16;
        if selector::is_null(selector) {
            self.ldtr = selector;
            self.cpu.seg.tables.ldt = DescTable::default();
            return Ok(Outcome::Executed);
        }
        let table = self.system_descriptor(selector, &[system::LDT])?;
        let frames = self.table_frames(table).map_err(Trap::Unsupported)?;
        self.ldtr = selector;
        self.cpu.seg.tables.ldt = DescTable {
            frames,
            entries: (table.limit.min(0xffff) + 1) / 8,
        };
        Ok(Outcome::Executed)
    }

    fn ltr(&mut self, i: &Instruction) -> Native {
        let selector = read_op::<16>(&mut self.cpu, i, 0)? as u16;
        if selector::is_null(selector) {
            return gp();
        }
        self.tss = self.system_descriptor(selector, &[system::TSS_AVAILABLE])?;
        self.tr = selector;
        // The descriptor is marked busy.
        let at = self
            .gdtr
            .base
            .wrapping_add(selector::offset(selector))
            .wrapping_add(5);
        let mut access = [0];
        self.read(at, &mut access)?;
        self.write(at, &[access[0] | 2])?;
        Ok(Outcome::Executed)
    }

    fn lmsw(&mut self, i: &Instruction) -> Native {
        let value = u64::from(read_op::<16>(&mut self.cpu, i, 0)? as u16);
        // PE can be set so, not cleared.
        const CHANGES: u64 = cr0::MP | cr0::EM | cr0::TS;
        self.cr0 = self.cr0 & !CHANGES | value & CHANGES;
        self.cpu.fpu.ts = value & cr0::TS != 0;
        Ok(Outcome::Executed)
    }

    fn msr(&mut self, write: bool) -> Native {
        let value = (self.cpu.regs[2] << 32) | (self.cpu.regs[0] & 0xffff_ffff);
        let slot = match self.cpu.regs[1] as u32 {
            msr::EFER => &mut self.efer,
            msr::STAR => &mut self.star,
            msr::LSTAR => &mut self.lstar,
            msr::SFMASK => &mut self.fmask,
            msr::FS_BASE => &mut self.cpu.bases.fs,
            msr::GS_BASE => &mut self.cpu.bases.gs,
            msr::KERNEL_GS_BASE => &mut self.kernel_gs_base,
            _ => return gp(),
        };
        if write {
            *slot = value;
        } else {
            let value = *slot;
            self.cpu.regs[0] = value & 0xffff_ffff;
            self.cpu.regs[2] = value >> 32;
        }
        Ok(Outcome::Executed)
    }

    /// mov to and from control and debug registers.
    fn mov_system(&mut self, i: &Instruction) -> Option<Native> {
        let number = |r: Register, first: Register| (r as usize).wrapping_sub(first as usize);
        match i.code() {
            Code::Mov_r64_cr => {
                let value = match number(i.op1_register(), Register::CR0) {
                    0 => self.cr0(),
                    2 => self.cr2,
                    3 => self.cpu.base().map_or(0, Mfn::maddr),
                    4 => self.cr4,
                    8 => 0,
                    _ => return Some(Err(Fault::ud().into())),
                };
                self.cpu.regs[gpr_index(i.op0_register()) & 15] = value;
            }
            Code::Mov_cr_r64 => {
                let value = self.cpu.regs[gpr_index(i.op1_register()) & 15];
                match number(i.op0_register(), Register::CR0) {
                    0 if value & (cr0::PG | cr0::PE) != cr0::PG | cr0::PE => return Some(gp()),
                    0 => {
                        self.cr0 = value;
                        self.cpu.fpu.ts = value & cr0::TS != 0;
                    }
                    2 => self.cr2 = value,
                    3 => self.load_base(Mfn(pte::mfn(value))),
                    4 if value & cr4::PAE == 0 => return Some(gp()),
                    4 => self.cr4 = value,
                    8 => {}
                    _ => return Some(Err(Fault::ud().into())),
                }
            }
            Code::Mov_r64_dr => {
                let n = number(i.op1_register(), Register::DR0);
                self.cpu.regs[gpr_index(i.op0_register()) & 15] = self.debug.get(n).copied().unwrap_or(0);
            }
            Code::Mov_dr_r64 => {
                let value = self.cpu.regs[gpr_index(i.op1_register()) & 15];
                if let Some(slot) = self.debug.get_mut(number(i.op0_register(), Register::DR0)) {
                    *slot = value;
                }
            }
            _ => return None,
        }
        Some(Ok(Outcome::Executed))
    }

    /// iret to the same or an outer ring.
    fn iret(&mut self, i: &Instruction) -> Native {
        let width: u64 = match i.mnemonic() {
            Mnemonic::Iretq => 8,
            _ => return Err(Trap::Unsupported("iret with operands of less than 64 bits")),
        };
        if self.cpu.rflags() & NT != 0 {
            return gp();
        }
        let mut frame = [0u64; 5];
        for (n, slot) in frame.iter_mut().enumerate() {
            *slot = self.cpu.peek_stack::<u64>(n as u64 * width)?;
        }
        let [rip, cs, flags, rsp, ss] = frame;
        let (cs, ss) = (cs as u16, ss as u16);
        let cpl = selector::rpl(cs);
        let code = self.cpu.descriptor(cs).filter(|d| d.is_code());
        let ok = code.is_some_and(|d| d.present() && (d.dpl() == cpl || d.is_conforming() && d.dpl() <= cpl));
        if selector::is_null(cs) || cpl < self.cpu.cpl || !ok {
            return Err(Fault::of_selector(vector::GP, cs).into());
        }
        let long = code.is_some_and(|d| d.is_long());
        let null_ss = selector::is_null(ss) && long && cpl < 3;
        let stack = self.cpu.descriptor(ss);
        let ss_ok = stack.is_some_and(|d| d.is_writable() && d.dpl() == cpl);
        if selector::rpl(ss) != cpl || !(null_ss || ss_ok) {
            return Err(Fault::of_selector(vector::GP, ss).into());
        }
        if !canonical(rip) {
            return gp();
        }
        let old = self.cpu.rflags();
        let mut keep = VM | VIF | VIP;
        if self.cpu.cpl != 0 {
            keep |= IOPL;
        }
        if self.iopl() < self.cpu.cpl {
            keep |= IF;
        }
        self.cpu.set_rflags(old & keep | flags & !keep);
        self.cpu.regs[4] = rsp;
        self.cpu.seg.sel[seg::CS] = cs;
        self.cpu.seg.sel[seg::SS] = ss;
        self.cpu.next_rip = rip;
        self.set_cpl(cpl);
        Ok(Outcome::Executed)
    }

    pub(super) fn syscall(&mut self) -> Outcome {
        // rcx and r11 are set by the engine.
        let selector = (self.star >> 32) as u16 & !selector::RPL;
        self.cpu.seg.sel[seg::CS] = selector;
        self.cpu.seg.sel[seg::SS] = selector.wrapping_add(selector::ENTRY);
        let flags = self.cpu.rflags();
        self.cpu.set_rflags(flags & !self.fmask & !RF);
        self.cpu.rip = self.lstar;
        self.set_cpl(0);
        Outcome::Executed
    }

    fn sysret(&mut self) -> Native {
        let selector = (self.star >> 48) as u16 | selector::RPL;
        self.cpu.seg.sel[seg::CS] = selector.wrapping_add(2 * selector::ENTRY) | selector::RPL;
        self.cpu.seg.sel[seg::SS] = selector.wrapping_add(selector::ENTRY) | selector::RPL;
        let flags = self.cpu.regs[11];
        self.cpu.set_rflags(flags & !(RF | VM));
        self.cpu.next_rip = self.cpu.regs[1];
        self.set_cpl(3);
        Ok(Outcome::Executed)
    }
}
