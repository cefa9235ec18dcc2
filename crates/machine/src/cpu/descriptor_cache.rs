// SPDX-License-Identifier: Apache-2.0
//! The hidden parts of segment registers: what 16- and 32-bit code checks each access against.

use super::fault::{vector, Fault};
use super::platform::Mode;
use super::regs::seg_index;
use super::segment::{DescTables, Descriptor};
use super::Cpu;
use crate::abi::x86::{descriptor, selector};
use iced_x86::{Instruction, InstructionInfoFactory, InstructionInfoOptions, OpAccess, Register};

/// Indices of [`Segments::sel`] and of the hidden parts.
pub(crate) use crate::abi::x86::seg::{CS, DS, ES, FS, GS, SS};

/// 64-bit code.
pub(crate) const MODE_LONG: u8 = 0;
/// 32-bit code in flat segments; with bits 1 and 2, offsets in fs and gs need no checks.
pub(crate) const MODE_FLAT: u8 = 1;
/// Instructions run one by one.
pub(crate) const MODE_STEPS: u8 = 8;

/// Whether operands in a segment need no checks in 32-bit code of a mode.
pub(crate) fn reaches_all(mode: u8, segment: Register) -> bool {
    match segment {
        Register::CS => false,
        Register::FS => mode & 2 != 0,
        Register::GS => mode & 4 != 0,
        _ => true,
    }
}

/// Addresses whose access raises #GP(0) and #SS(0) in 16- and 32-bit code: not canonical. They end as the operand's does
/// ([`ALIGNMENT`]): what must be aligned (movaps, fxsave, xsave) raises #GP before its segment raises anything.
const RAISES_GP: u64 = 1 << 63;
const RAISES_SS: u64 = 1 << 62;
/// The bits of an address that say whether it is aligned, to 64 bytes at most.
const ALIGNMENT: u64 = 63;

/// What the processor keeps of a descriptor from the load of its selector on. The bases of fs and gs are in
/// [`Cpu::bases`], which have other ways to change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segment {
    /// The selector that was loaded.
    pub selector: u16,
    pub base: u32,
    /// The last byte, granularity applied.
    pub limit: u32,
    /// Bits 8..23 of the descriptor's second word, as `lar` gives them; 0 if the segment cannot be used.
    pub rights: u32,
}

impl Segment {
    pub fn new(selector: u16, d: Descriptor) -> Segment {
        Segment {
            selector,
            base: d.base() as u32,
            limit: d.limit(),
            rights: d.access_rights() & 0x00f0_ff00,
        }
    }

    fn has(self, bit: u64) -> bool {
        self.rights & (bit >> descriptor::UPPER) as u32 != 0
    }
    pub fn usable(self) -> bool {
        self.has(descriptor::P) && self.has(descriptor::S)
    }
    pub fn is_code(self) -> bool {
        self.usable() && self.has(descriptor::CODE)
    }
    pub fn dpl(self) -> u8 {
        descriptor::dpl(u64::from(self.rights) << descriptor::UPPER)
    }
    pub fn is_conforming(self) -> bool {
        self.is_code() && self.has(descriptor::CONFORMING)
    }
    fn readable(self) -> bool {
        self.usable() && (!self.has(descriptor::CODE) || self.has(descriptor::RW))
    }
    fn writable(self) -> bool {
        self.usable() && !self.has(descriptor::CODE) && self.has(descriptor::RW)
    }
    fn expands_down(self) -> bool {
        !self.has(descriptor::CODE) && self.has(descriptor::CONFORMING)
    }
    /// D/B: 32-bit code or stack.
    pub fn is_wide(self) -> bool {
        self.has(descriptor::DB)
    }
    pub fn is_long(self) -> bool {
        self.is_code() && self.has(descriptor::L)
    }
    /// Every offset lies in it.
    fn is_whole(self) -> bool {
        self.limit == u32::MAX && !self.expands_down()
    }
    /// Whether bytes `off..off + len` lie in it: none lies beyond 4 GiB.
    pub fn contains(self, off: u64, len: u64) -> bool {
        let last = off.saturating_add(len.max(1) - 1);
        if self.expands_down() {
            let top = if self.is_wide() {
                u64::from(u32::MAX)
            } else {
                0xffff
            };
            return off > u64::from(self.limit) && last <= top;
        }
        last <= u64::from(self.limit)
    }
}

/// The segment registers, the tables that they are loaded from, and how code runs because of them.
#[derive(Debug)]
pub struct Segments {
    /// Selectors es cs ss ds fs gs
    pub sel: [u16; 6],
    /// 16- or 32-bit code (compatibility mode): worked out from CS whenever it changes.
    pub(crate) code32: bool,
    /// 16-bit code; `code32` is set too.
    pub(crate) code16: bool,
    /// What blocks are decoded for, part of their keys; [`MODE_STEPS`]: none are.
    pub(crate) mode: u8,
    /// Bit n: every offset of segment register n may be read and written (of 16- and 32-bit code).
    pub(crate) whole: u8,
    /// The hidden parts of `sel`.
    pub(crate) hidden: [Segment; 6],
    /// The guest's descriptor tables.
    pub tables: DescTables,
}

impl Segments {
    pub(crate) fn new() -> Segments {
        Segments {
            sel: [0; 6],
            code32: false,
            code16: false,
            mode: MODE_LONG,
            whole: 0,
            hidden: Default::default(),
            tables: DescTables::default(),
        }
    }
}

/// How operand `n` uses memory: whether it writes; `None` if it does not access it at all.
pub(crate) fn access_of(i: &Instruction, n: u32) -> Option<bool> {
    let only_operands = InstructionInfoOptions::NO_MEMORY_USAGE | InstructionInfoOptions::NO_REGISTER_USAGE;
    let mut factory = InstructionInfoFactory::new();
    match factory.info_options(i, only_operands).op_access(n) {
        OpAccess::None | OpAccess::NoMemAccess => None,
        OpAccess::Read | OpAccess::CondRead => Some(false),
        _ => Some(true),
    }
}

impl Cpu {
    /// Base that 16- and 32-bit code adds to offsets in segment `seg`.
    fn base_of(&self, seg: usize) -> u64 {
        match seg {
            FS => self.bases.fs,
            GS => self.bases.gs,
            n => u64::from(self.seg.hidden.get(n).map_or(0, |s| s.base)),
        }
    }

    /// Linear address of `len` bytes at an offset of a segment, or the fault of an access that does not fit it.
    pub(crate) fn segment_va(&self, seg: usize, off: u64, len: u64, write: bool) -> Result<u64, Fault> {
        let s = self.seg.hidden.get(seg).copied().unwrap_or_default();
        let allowed = if write { s.writable() } else { s.readable() };
        if allowed && s.contains(off, len) {
            return Ok(off.wrapping_add(self.base_of(seg)) & 0xffff_ffff);
        }
        let v = if seg == SS { vector::SS } else { vector::GP };
        Err(Fault::with_code(v, 0))
    }

    /// The same for handlers that only know addresses: an access at the one that is returned raises the fault.
    pub(crate) fn checked_va(&self, seg: usize, off: u64, len: u64, write: bool) -> u64 {
        if self.seg.whole >> (seg & 7) & 1 != 0 && off.wrapping_add(len) <= 1 << 32 {
            return off.wrapping_add(self.base_of(seg)) & 0xffff_ffff;
        }
        self.segment_va(seg, off, len, write).unwrap_or_else(|_| {
            let raises = if seg == SS { RAISES_SS } else { RAISES_GP };
            raises | off.wrapping_add(self.base_of(seg)) & ALIGNMENT
        })
    }

    /// `va` stands for an operand that its segment does not allow.
    pub(crate) fn is_refused(&self, va: u64) -> bool {
        self.seg.code32 && va >> 62 != 0
    }

    /// Linear address of the memory operand `n` of `i`, which is at `off` of its segment; `len` bytes, or (0) as many as
    /// the instruction says.
    pub(crate) fn operand_va(&self, i: &Instruction, n: u32, segment: Register, off: u64, len: u64) -> u64 {
        let seg = seg_index(segment);
        if !self.seg.code32 {
            return off.wrapping_add(self.seg_base(segment));
        }
        let len = if len == 0 {
            i.memory_size().size() as u64
        } else {
            len
        };
        let plain = off.wrapping_add(self.base_of(seg)) & 0xffff_ffff;
        if self.seg.whole >> seg & 1 != 0 && off.wrapping_add(len) <= 1 << 32 {
            return plain;
        }
        match access_of(i, n) {
            Some(write) => self.checked_va(seg, off, len, write),
            None => plain,
        }
    }

    /// An access at `va`, which is not canonical, raises #GP(0); later it may turn out that the stack is the cause.
    pub(crate) fn not_canonical(&mut self, va: u64) -> Fault {
        self.access.noncanonical = true;
        if self.seg.code32 && va >> 62 == RAISES_SS >> 62 {
            return Fault::with_code(vector::SS, 0);
        }
        Fault::gp()
    }

    /// Takes over `selector` with its descriptor.
    pub(crate) fn set_hidden(&mut self, seg: usize, segment: Segment) {
        if let (Some(h), Some(s)) = (self.seg.hidden.get_mut(seg), self.seg.sel.get_mut(seg)) {
            *h = segment;
            *s = segment.selector;
        }
        match seg {
            FS => self.bases.fs = u64::from(segment.base),
            GS => self.bases.gs = u64::from(segment.base),
            _ => {}
        }
    }

    /// Loads the hidden part of a register whose selector somebody has set from outside, without any checks.
    fn reload(&mut self, seg: usize) {
        let selector = self.seg.sel.get(seg).copied().unwrap_or(0);
        let found = if selector::is_null(selector) {
            None
        } else {
            self.descriptor(selector)
                .filter(|d| d.present() && d.is_segment())
        };
        let segment = found.map_or(
            Segment {
                selector,
                ..Segment::default()
            },
            |d| Segment::new(selector, d),
        );
        self.set_hidden(seg, segment);
    }

    /// Before guest code runs: CS and SS are read again, as a return to the guest does with `iret`; the others
    /// only if they have another selector than the one that was loaded.
    pub(crate) fn refresh_mode(&mut self) {
        if Some(self.seg.sel[CS]) == self.platform.flat_cs {
            self.set_long_mode();
            return;
        }
        self.reload(CS);
        self.reload(SS);
        self.reload_changed();
        self.update_mode();
    }

    /// Loads the hidden parts of selectors that were set from outside while 64-bit code, which does not look, ran.
    pub(crate) fn reload_changed(&mut self) {
        for seg in [ES, SS, DS, FS, GS] {
            if self.seg.hidden[seg].selector != self.seg.sel[seg] {
                self.reload(seg);
            }
        }
    }

    fn set_long_mode(&mut self) {
        self.seg.code32 = false;
        self.seg.code16 = false;
        self.seg.whole = 0;
        self.seg.mode = MODE_LONG;
        self.bases.mask = !0;
    }

    /// Whether 32-bit code, its data and its stack lie in segments that do not matter.
    fn is_flat(&self) -> bool {
        const DATA: u8 = 1 << ES | 1 << SS | 1 << DS;
        let cs = self.seg.hidden[CS];
        !self.seg.code16
            && cs.base == 0
            && cs.limit == u32::MAX
            && self.seg.hidden[SS].is_wide()
            && self.seg.whole & DATA == DATA
            && [ES, SS, DS].iter().all(|&n| self.seg.hidden[n].base == 0)
    }

    /// Works out how code runs from the hidden parts. True if that has changed.
    pub(crate) fn update_mode(&mut self) -> bool {
        let before = (self.seg.mode, self.seg.code16, self.seg.whole);
        let cs = self.seg.hidden[CS];
        if cs.is_long() || !cs.is_code() && self.platform.mode == Mode::Long {
            self.set_long_mode();
        } else {
            self.seg.code32 = true;
            self.seg.code16 = !cs.is_wide();
            self.seg.whole = 0;
            for (n, s) in self.seg.hidden.iter().enumerate() {
                if s.writable() && s.is_whole() {
                    self.seg.whole |= 1 << n;
                }
            }
            self.bases.mask = 0xffff_ffff;
            self.seg.mode = if self.is_flat() {
                MODE_FLAT | self.seg.whole >> (FS - 1) & 6
            } else {
                MODE_STEPS
            };
        }
        (self.seg.mode, self.seg.code16, self.seg.whole) != before
    }
}
