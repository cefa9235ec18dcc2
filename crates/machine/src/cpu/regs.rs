// SPDX-License-Identifier: Apache-2.0
//! Registers by their iced-x86 names, and linear addresses of memory operands.

use super::{Cpu, Scalar};
use iced_x86::{Instruction, OpKind, Register};

/// Index into [`Segments::sel`](super::descriptor_cache::Segments) of a segment register: es cs ss ds fs gs.
pub(crate) fn seg_index(r: Register) -> usize {
    match r {
        Register::ES => 0,
        Register::CS => 1,
        Register::SS => 2,
        Register::DS => 3,
        Register::FS => 4,
        _ => 5,
    }
}

/// Number 0..15 of a general-purpose register of any width (AH..BH give their parent's); 0 for anything else.
#[inline]
pub(crate) fn gpr_index(r: Register) -> usize {
    let n = r as usize;
    let al = Register::AL as usize;
    if n < al {
        return 0;
    }
    match n - al {
        k @ 0..=3 => k,
        k @ 4..=7 => k - 4,
        k @ 8..=19 => k - 4,
        _ => {
            let ax = Register::AX as usize;
            if n >= ax && n < ax + 48 {
                (n - ax) & 15
            } else {
                0
            }
        }
    }
}

/// True for AH CH DH BH.
#[inline]
pub(crate) fn is_high_byte(r: Register) -> bool {
    matches!(r, Register::AH | Register::CH | Register::DH | Register::BH)
}

/// Number 0..15 of an xmm register; 0 for anything else.
#[inline]
pub(crate) fn xmm_index(r: Register) -> usize {
    let k = (r as usize).wrapping_sub(Register::XMM0 as usize);
    if k < 16 {
        k
    } else {
        0
    }
}

/// Number 0..15 of a ymm register; 0 for anything else.
#[inline]
pub(crate) fn ymm_index(r: Register) -> usize {
    let k = (r as usize).wrapping_sub(Register::YMM0 as usize);
    if k < 16 {
        k
    } else {
        0
    }
}

/// What the addresses of operands begin at, beside registers.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Bases {
    /// Always zero: the "no register" of an address.
    pub(crate) zero: u64,
    /// Linear address of the page that the running block lies in.
    pub(crate) page: u64,
    pub fs: u64,
    pub gs: u64,
    /// What linear addresses are cut to: 32 bits of them in 32-bit code.
    pub(crate) mask: u64,
}

impl Bases {
    pub(crate) fn new() -> Bases {
        Bases {
            zero: 0,
            page: 0,
            fs: 0,
            gs: 0,
            mask: !0,
        }
    }
}

impl Cpu {
    /// A general-purpose register of T's width.
    #[inline]
    pub fn reg<T: Scalar>(&self, r: Register) -> T {
        let v = self.regs[gpr_index(r) & 15];
        let v = if T::SIZE == 1 && is_high_byte(r) {
            v >> 8
        } else {
            v
        };
        T::from_u128(u128::from(v))
    }

    /// Writes a general-purpose register of T's width: 32-bit writes clear the upper half, narrower ones merge.
    #[inline]
    pub fn set_reg<T: Scalar>(&mut self, r: Register, value: T) {
        let v: u128 = value.into();
        let v = v as u64;
        let slot = &mut self.regs[gpr_index(r) & 15];
        match T::SIZE {
            1 if is_high_byte(r) => *slot = (*slot & !0xff00) | (v & 0xff) << 8,
            1 => *slot = (*slot & !0xff) | (v & 0xff),
            2 => *slot = (*slot & !0xffff) | (v & 0xffff),
            4 => *slot = v & 0xffff_ffff,
            _ => *slot = v,
        }
    }

    /// A general-purpose register of the width that its name says, zero-extended.
    pub fn reg_any(&self, r: Register) -> u64 {
        match r.size() {
            1 => u64::from(self.reg::<u8>(r)),
            2 => u64::from(self.reg::<u16>(r)),
            4 => u64::from(self.reg::<u32>(r)),
            _ => self.regs[gpr_index(r) & 15],
        }
    }

    /// Base of a segment: only fs and gs have one in 64-bit mode.
    pub fn seg_base(&self, r: Register) -> u64 {
        match r {
            Register::FS => self.bases.fs,
            Register::GS => self.bases.gs,
            _ if self.seg.code32 => u64::from(self.seg.hidden[seg_index(r) % 6].base),
            _ => 0,
        }
    }

    /// A linear address: 32-bit code reaches 4 GiB.
    #[inline]
    pub(crate) fn linear(&self, va: u64) -> u64 {
        if self.seg.code32 {
            va & 0xffff_ffff
        } else {
            va
        }
    }

    /// Effective address (without segment base, cut to the address size) of the memory operand of `i`: what `lea` gives.
    pub fn ea_offset(&self, i: &Instruction) -> u64 {
        let base = i.memory_base();
        let index = i.memory_index();
        if base == Register::RIP || base == Register::EIP {
            // The displacement is the target relative to the start of the page.
            let va = self.block_page().wrapping_add(i.memory_displacement64());
            return if base == Register::EIP {
                va & 0xffff_ffff
            } else {
                va
            };
        }
        let mut ea = i.memory_displacement64();
        if base != Register::None {
            ea = ea.wrapping_add(self.regs[gpr_index(base) & 15]);
        }
        if index != Register::None {
            ea = ea.wrapping_add(
                self.regs[gpr_index(index) & 15].wrapping_mul(u64::from(i.memory_index_scale())),
            );
        }
        self.cut_offset(i, ea)
    }

    /// Linear address of the memory operand of `i`, segment base included. String operands included
    /// (`[rsi]`, `[rdi]`), by the first memory operand that is found. In 16- and 32-bit code an operand that its segment
    /// does not allow gets an address that faults as it must.
    pub fn ea(&self, i: &Instruction) -> u64 {
        for n in 0..i.op_count() {
            let string = |r: Register, seg: Register, mask: u64| {
                self.operand_va(i, n, seg, self.regs[gpr_index(r) & 15] & mask, 0)
            };
            let seg = i.memory_segment();
            match i.op_kind(n) {
                OpKind::Memory => return self.operand_va(i, n, seg, self.ea_offset(i), 0),
                OpKind::MemorySegSI => return string(Register::RSI, seg, 0xffff),
                OpKind::MemorySegESI => return string(Register::RSI, seg, 0xffff_ffff),
                OpKind::MemorySegRSI => return string(Register::RSI, seg, u64::MAX),
                OpKind::MemorySegDI => return string(Register::RDI, seg, 0xffff),
                OpKind::MemorySegEDI => return string(Register::RDI, seg, 0xffff_ffff),
                OpKind::MemorySegRDI => return string(Register::RDI, seg, u64::MAX),
                OpKind::MemoryESDI => return string(Register::RDI, Register::ES, 0xffff),
                OpKind::MemoryESEDI => return string(Register::RDI, Register::ES, 0xffff_ffff),
                OpKind::MemoryESRDI => return string(Register::RDI, Register::ES, u64::MAX),
                _ => {}
            }
        }
        0
    }

    /// Cuts an offset to the address size of the memory operand of `i`.
    pub(crate) fn cut_offset(&self, i: &Instruction, off: u64) -> u64 {
        let (base, index) = (i.memory_base(), i.memory_index());
        let size = match (base, index) {
            (Register::None, Register::None) => i.memory_displ_size() as usize,
            (Register::None, r) | (r, _) => r.size(),
        };
        match size {
            4 => off & 0xffff_ffff,
            2 if base != Register::None || index != Register::None || self.seg.code32 => off & 0xffff,
            _ => self.linear(off),
        }
    }

    /// Linear address that the relative branch `i` goes to.
    pub fn branch_target(&self, i: &Instruction) -> u64 {
        let target = self.block_page().wrapping_add(i.near_branch_target());
        match i.op0_kind() {
            OpKind::NearBranch16 => target & 0xffff,
            OpKind::NearBranch32 => target & 0xffff_ffff,
            _ => target,
        }
    }

    /// Linear address of the page that the current instruction starts in: instructions are decoded relative to it.
    #[inline]
    pub(crate) fn block_page(&self) -> u64 {
        self.rip & !0xfff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_numbers_follow_the_encoding() {
        assert_eq!(gpr_index(Register::BL), 3);
        assert_eq!(gpr_index(Register::BH), 3);
        assert_eq!(gpr_index(Register::SPL), 4);
        assert_eq!(gpr_index(Register::R15L), 15);
        assert_eq!(gpr_index(Register::R8W), 8);
        assert_eq!(gpr_index(Register::EDI), 7);
        assert_eq!(gpr_index(Register::R15), 15);
        assert_eq!(xmm_index(Register::XMM9), 9);
    }
}
