// SPDX-License-Identifier: Apache-2.0
//! Segment descriptors, the guest's descriptor tables, and loading of segment registers with the hardware's checks.

use crate::abi::x86::descriptor::{self, system};
use crate::abi::x86::{canonical, selector, DESCRIPTORS_PER_FRAME};
use crate::cpu::descriptor_cache::{Segment, CS, DS, ES, FS, GS, SS};
use crate::cpu::fault::{vector, Exec, Fault, Trap};
use crate::cpu::platform::Mode;
use crate::cpu::Cpu;
use crate::mem::Mfn;

/// A guest's GDT or LDT: its frames as the hypervisor has validated them.
#[derive(Debug, Clone, Default)]
pub struct DescTable {
    /// One per page of the table; `None` where nothing is mapped.
    pub frames: [Option<Mfn>; 16],
    /// Number of descriptors that may be used.
    pub entries: u32,
}

/// Both tables of a vCPU, the guest's part of them; [`Platform`](super::platform::Platform) has the rest.
#[derive(Debug, Clone, Default)]
pub struct DescTables {
    pub gdt: DescTable,
    pub ldt: DescTable,
}

/// A code segment that has passed its checks: what CS becomes, at which privilege level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeSegment {
    pub segment: Segment,
    pub cpl: u8,
}

impl CodeSegment {
    /// Whether execution can go on at `off` there.
    pub fn check_target(&self, off: u64) -> Exec {
        let ok = if self.segment.is_long() {
            canonical(off)
        } else {
            off <= u64::from(self.segment.limit)
        };
        if ok {
            Ok(())
        } else {
            Err(Fault::gp().into())
        }
    }
}

/// What verr and verw ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// An 8-byte segment descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor(pub u64);

impl Descriptor {
    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
    pub fn base(self) -> u64 {
        descriptor::base(self.0)
    }
    /// The limit in bytes, granularity applied.
    pub fn limit(self) -> u32 {
        let raw = descriptor::raw_limit(self.0);
        if self.has(descriptor::G) {
            raw << 12 | 0xfff
        } else {
            raw
        }
    }
    pub fn dpl(self) -> u8 {
        descriptor::dpl(self.0)
    }
    pub fn present(self) -> bool {
        self.has(descriptor::P)
    }
    /// Code or data, as against system segments and gates.
    pub fn is_segment(self) -> bool {
        self.has(descriptor::S)
    }
    pub fn is_code(self) -> bool {
        self.is_segment() && self.has(descriptor::CODE)
    }
    /// Conforming code (of code segments).
    pub fn is_conforming(self) -> bool {
        self.is_code() && self.has(descriptor::CONFORMING)
    }
    pub fn is_writable(self) -> bool {
        self.is_segment() && !self.has(descriptor::CODE) && self.has(descriptor::RW)
    }
    /// Data, or code that may be read.
    pub fn is_readable(self) -> bool {
        self.is_segment() && (!self.has(descriptor::CODE) || self.has(descriptor::RW))
    }
    pub fn is_long(self) -> bool {
        self.is_code() && self.has(descriptor::L)
    }
    /// D/B: 32-bit code or stack.
    pub fn is_wide(self) -> bool {
        self.has(descriptor::DB)
    }
    pub fn is_call_gate(self) -> bool {
        self.present() && !self.is_segment() && self.system_type() == system::CALL_GATE
    }
    fn system_type(self) -> u8 {
        descriptor::system_type(self.0)
    }
    /// Whether lar accepts it in long mode: segments, LDT, TSS and call gates.
    pub fn has_access_rights(self) -> bool {
        self.has_limit() || self.system_type() == system::CALL_GATE
    }
    /// Whether lsl accepts it.
    pub fn has_limit(self) -> bool {
        self.is_segment()
            || matches!(
                self.system_type(),
                system::LDT | system::TSS_AVAILABLE | system::TSS_BUSY
            )
    }
    /// What lar gives: the second doubleword without base and limit 15:0.
    pub fn access_rights(self) -> u32 {
        (self.0 >> descriptor::UPPER) as u32 & descriptor::RIGHTS
    }
    pub fn allows(self, access: Access) -> bool {
        match access {
            Access::Read => self.is_readable(),
            Access::Write => self.is_writable(),
        }
    }
}

fn gp(selector: u16) -> Trap {
    Fault::of_selector(vector::GP, selector).into()
}

impl Cpu {
    /// Where the descriptor of a selector lies, if it is the guest's.
    fn descriptor_maddr(&self, selector: u16) -> Option<u64> {
        let index = selector::index(selector);
        let table = if selector & selector::TI != 0 {
            &self.seg.tables.ldt
        } else {
            &self.seg.tables.gdt
        };
        if index >= table.entries {
            return None;
        }
        let frame = (*table.frames.get((index / DESCRIPTORS_PER_FRAME) as usize)?)?;
        Some(frame.maddr() + u64::from(index % DESCRIPTORS_PER_FRAME) * 8)
    }

    /// The raw descriptor of a selector that is not null; `None` beyond its table.
    pub fn descriptor(&self, selector: u16) -> Option<Descriptor> {
        let index = selector::index(selector);
        if selector & selector::TI == 0 && index >= self.platform.reserved_gdt {
            return (self.platform.reserved_descriptor)(index).map(Descriptor);
        }
        let maddr = self.descriptor_maddr(selector)?;
        self.domain.machine.mem.read_u64(maddr).map(Descriptor)
    }

    /// What a load of `selector`, whose descriptor `d` has passed all checks, makes of a segment register: the accessed
    /// bit is set in the table, as the processor sets it.
    fn take(&self, selector: u16, d: Descriptor) -> Segment {
        let marked = Descriptor(d.0 | descriptor::ACCESSED);
        if marked != d {
            if let Some(maddr) = self.descriptor_maddr(selector) {
                // Whoever changed it meanwhile wins.
                let _ = self.domain.machine.mem.cmpxchg_u64(maddr, d.0, marked.0);
            }
        }
        Segment::new(selector, marked)
    }

    /// The descriptor that lar, lsl, verr and verw may see: privileged enough, and not null. An LDT page that was not used
    /// yet is a fault, which names the selector to the layer above.
    pub fn visible_descriptor(&self, selector: u16) -> Result<Option<Descriptor>, Trap> {
        if selector::is_null(selector) {
            return Ok(None);
        }
        let Some(d) = self.descriptor(selector) else {
            let in_ldt =
                selector & selector::TI != 0 && selector::index(selector) < self.seg.tables.ldt.entries;
            return if in_ldt { Err(gp(selector)) } else { Ok(None) };
        };
        let privilege = self.cpl.max(selector::rpl(selector));
        Ok((d.is_conforming() || d.dpl() >= privilege).then_some(d))
    }

    /// Loads es, ss, ds, fs or gs (`seg` as in `Segments::sel`) as `mov` and `pop` do. True if code runs in another way now.
    pub fn load_segment(&mut self, seg: usize, selector: u16) -> Result<bool, Trap> {
        if seg == CS {
            return Err(Fault::ud().into());
        }
        let segment = if seg == SS {
            self.check_stack_segment(selector, self.cpl, !self.seg.code32)?
        } else {
            self.check_data_segment(selector)?
        };
        self.set_hidden(seg, segment);
        Ok(self.seg.code32 && self.update_mode())
    }

    /// Whether `mov` to ds, es, fs or gs would succeed, at the current privilege.
    pub(crate) fn can_load_data_segment(&self, selector: u16) -> bool {
        self.check_data_segment(selector).is_ok()
    }

    fn check_data_segment(&self, selector: u16) -> Result<Segment, Trap> {
        if selector::is_null(selector) {
            return Ok(Segment {
                selector,
                ..Segment::default()
            });
        }
        let d = self.descriptor(selector).ok_or_else(|| gp(selector))?;
        let privilege = self.cpl.max(selector::rpl(selector));
        if !d.is_readable() || !d.is_conforming() && d.dpl() < privilege {
            return Err(gp(selector));
        }
        if !d.present() {
            return Err(Fault::of_selector(vector::NP, selector).into());
        }
        Ok(self.take(selector, d))
    }

    /// Checks what is about to become SS at privilege level `cpl`: writable data of exactly that level.
    pub fn check_stack_segment(&self, selector: u16, cpl: u8, long: bool) -> Result<Segment, Trap> {
        if selector::is_null(selector) {
            // 64-bit code below ring 3 may run with a null SS of its own RPL.
            if !long || cpl == 3 || selector::rpl(selector) != cpl {
                return Err(Fault::gp().into());
            }
            return Ok(Segment {
                selector,
                ..Segment::default()
            });
        }
        let d = self.descriptor(selector).ok_or_else(|| gp(selector))?;
        if selector::rpl(selector) != cpl || !d.is_writable() || d.dpl() != cpl {
            return Err(gp(selector));
        }
        if !d.present() {
            return Err(Fault::of_selector(vector::SS, selector).into());
        }
        Ok(self.take(selector, d))
    }

    /// Checks the target of a far transfer. `returning`: by ret or iret, where RPL counts, and may be that of an outer
    /// ring.
    pub fn check_code_segment(&self, selector: u16, returning: bool) -> Result<CodeSegment, Trap> {
        if selector::is_null(selector) {
            return Err(Fault::gp().into());
        }
        let d = self.descriptor(selector).ok_or_else(|| gp(selector))?;
        let rpl = selector::rpl(selector);
        let privileged_enough = match (returning, d.is_conforming()) {
            (true, false) => rpl >= self.cpl && d.dpl() == rpl,
            (true, true) => rpl >= self.cpl && d.dpl() <= rpl,
            (false, true) => d.dpl() <= self.cpl,
            (false, false) => rpl <= self.cpl && d.dpl() == self.cpl,
        };
        // Both L and D is a combination without a meaning.
        if !d.is_code() || !privileged_enough || d.is_long() && d.is_wide() {
            return Err(gp(selector));
        }
        if !d.present() {
            return Err(Fault::of_selector(vector::NP, selector).into());
        }
        let cpl = if returning { rpl } else { self.cpl };
        Ok(CodeSegment {
            segment: self.take(selector & !selector::RPL | u16::from(cpl), d),
            cpl,
        })
    }

    /// Makes a checked code segment the current one.
    pub fn enter_code_segment(&mut self, cs: CodeSegment) {
        self.set_hidden(CS, cs.segment);
        if !cs.segment.is_long() {
            self.reload_changed();
        }
        self.update_mode();
    }

    /// Goes to an outer ring: its stack segment, its view of memory, and no data segments of the inner one.
    pub fn enter_outer_ring(&mut self, cs: CodeSegment, ss: Segment) {
        self.set_hidden(SS, ss);
        if self.platform.mode == Mode::Legacy {
            self.set_cpl(cs.cpl);
        } else {
            self.cpl = cs.cpl;
            if let Some(base) = self.base() {
                self.set_base(base, false);
            }
        }
        for seg in [ES, DS, FS, GS] {
            let s = self.seg.hidden[seg];
            if s.usable() && !s.is_conforming() && s.dpl() < self.cpl {
                self.set_hidden(seg, Segment::default());
            }
        }
        self.enter_code_segment(cs);
    }

    /// Whether 16- or 32-bit code runs.
    pub fn is_32bit_code(&self) -> bool {
        self.seg.code32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_takes_its_fields_from_where_the_manual_says() {
        // base 0x12345678, limit 0xabcde pages, writable data, DPL 3, present.
        let d = Descriptor(0x12ca_f334_5678_bcde);
        assert_eq!(d.base(), 0x1234_5678);
        assert_eq!(d.limit(), 0xabcd_efff);
        assert_eq!(
            (d.dpl(), d.present(), d.is_writable(), d.is_code()),
            (3, true, true, false)
        );
        assert_eq!(d.access_rights(), 0x00ca_f300);
    }
}
