// SPDX-License-Identifier: Apache-2.0
//! Operands of 32 bytes in guest memory.
// Guest memory is read and written through the TLB.
#![allow(unsafe_code)]

use super::fault::{Exec, Trap};
use super::Cpu;
use crate::mmu::tlb::tlb_index;

/// The lower and the upper half of a ymm register or operand.
pub(crate) type Ymm = [u128; 2];

impl Cpu {
    /// 32 bytes at linear address `va`, wherever they lie.
    #[inline(always)]
    pub(crate) fn read_ymm(&mut self, va: u64) -> Result<Ymm, Trap> {
        // SAFETY: as in `Cpu::read`: a matching tag means that the whole access lies in a page whose host address is
        // `va + delta`.
        unsafe {
            let e = &*self.chain.tlb.add(tlb_index(va));
            if e.neg_r.wrapping_add(va) <= 4096 - 32 {
                let p = va.wrapping_add(e.delta) as *const u128;
                return Ok([p.read_unaligned(), p.add(1).read_unaligned()].map(u128::from_le));
            }
        }
        self.read_ymm_slow(va)
    }

    #[cold]
    #[inline(never)]
    fn read_ymm_slow(&mut self, va: u64) -> Result<Ymm, Trap> {
        self.check_span(va, 32)?;
        self.check_alignment(va, 32)?;
        let low = self.read::<u128>(va)?;
        Ok([low, self.read::<u128>(va.wrapping_add(16))?])
    }

    /// Writes 32 bytes; on a fault nothing is written, also across pages.
    #[inline(always)]
    pub(crate) fn write_ymm(&mut self, va: u64, v: Ymm) -> Exec {
        // SAFETY: as in `read_ymm`, for the write tag.
        unsafe {
            let e = &*self.chain.tlb.add(tlb_index(va));
            if e.neg_w.wrapping_add(va) <= 4096 - 32 {
                let p = va.wrapping_add(e.delta) as *mut u128;
                p.write_unaligned(v[0].to_le());
                p.add(1).write_unaligned(v[1].to_le());
                return Ok(());
            }
        }
        self.write_ymm_slow(va, v)
    }

    #[cold]
    #[inline(never)]
    fn write_ymm_slow(&mut self, va: u64, v: Ymm) -> Exec {
        self.check_span(va, 32)?;
        self.check_alignment(va, 32)?;
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&v[0].to_le_bytes());
        bytes[16..].copy_from_slice(&v[1].to_le_bytes());
        self.write_bytes(va, &bytes)
    }
}
