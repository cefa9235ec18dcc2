// SPDX-License-Identifier: Apache-2.0
//! rep movs and rep stos, a page at a time at the host's speed.

use super::lower::{with, Low};
use super::*;
use crate::abi::x86::gpr::RCX;
use crate::cpu::access::Dest;
use iced_x86::{Code, Mnemonic as M, OpKind};
use std::sync::atomic::Ordering;

/// How a repeated instruction went on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rep {
    Done,
    Left,
}

const SI: usize = 6;
const DI: usize = 7;

/// Elements of `size` bytes from `va` to the end of its page; 0 if the first one crosses it.
fn in_page(va: u64, size: u64) -> u64 {
    (4096 - (va & 0xfff)) / size
}

/// Copies forward in steps of `size` (at most 8), as the elements would be one after the other.
///
/// # Safety
/// `src` must be readable and `dst` writable for `bytes`, a multiple of `size`.
unsafe fn copy_forward(src: *const u8, dst: *mut u8, bytes: usize, size: usize) {
    let distance = (dst as usize).wrapping_sub(src as usize);
    if distance == 0 || distance >= bytes {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy(src, dst, bytes) };
        return;
    }
    // The destination begins inside the source: what was just written is read again.
    let mut i = 0;
    while i < bytes {
        let mut buf = [0u8; 8];
        // SAFETY: the caller's promise; an element fits into `buf`.
        unsafe {
            std::ptr::copy(src.add(i), buf.as_mut_ptr(), size);
            std::ptr::copy(buf.as_ptr(), dst.add(i), size);
        }
        i += size;
    }
}

/// # Safety
/// `dst` must be writable for `bytes`, a multiple of `size` (at most 8).
unsafe fn fill(dst: *mut u8, value: u64, bytes: usize, size: usize) {
    if size == 1 || value == (value as u8 as u64).wrapping_mul(0x0101_0101_0101_0101) >> (64 - 8 * size) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::write_bytes(dst, value as u8, bytes) };
        return;
    }
    for i in 0..bytes / size {
        // SAFETY: the caller's promise; an element is no larger than `value`.
        unsafe { std::ptr::copy(value.to_le_bytes().as_ptr(), dst.add(i * size), size) };
    }
}

/// One element, in any direction, across pages.
fn one<T: W>(c: &mut Cpu, movs: bool, step: u64) -> Result<(), Trap> {
    let v = if movs {
        c.read::<T>(c.regs[SI])?
    } else {
        T::cut(c.regs[0])
    };
    c.write::<T>(c.regs[DI], v)?;
    if movs {
        c.regs[SI] = c.regs[SI].wrapping_add(step);
    }
    c.regs[DI] = c.regs[DI].wrapping_add(step);
    c.regs[RCX] = c.regs[RCX].wrapping_sub(1);
    Ok(())
}

fn some<T: W>(c: &mut Cpu, movs: bool) -> Result<(), Trap> {
    let size = u64::from(T::BITS) / 8;
    if c.df() {
        return one::<T>(c, movs, size.wrapping_neg());
    }
    let (si, di) = (c.regs[SI], c.regs[DI]);
    let mut n = c.regs[RCX].min(in_page(di, size));
    if movs {
        n = n.min(in_page(si, size));
    }
    if n == 0 {
        return one::<T>(c, movs, size);
    }
    let bytes = (n * size) as usize;
    let src = if movs {
        c.page_for_read(si)?
    } else {
        std::ptr::null()
    };
    let dest = match c.dest_bytes(di) {
        Ok(d) => d,
        // A page table takes single stores only.
        Err(_) => return one::<T>(c, movs, size),
    };
    let (Dest::Plain(p) | Dest::Code(p, _)) = dest else {
        return one::<T>(c, movs, size);
    };
    // SAFETY: `bytes` are left in both pages, which translations just made point to.
    unsafe {
        if movs {
            copy_forward(src, p, bytes, size as usize);
        } else {
            fill(p, T::cut(c.regs[0]).wide(), bytes, size as usize);
        }
    }
    if movs {
        c.regs[SI] = si.wrapping_add(bytes as u64);
    }
    c.regs[DI] = di.wrapping_add(bytes as u64);
    c.regs[RCX] -= n;
    if let Dest::Code(_, mfn) = dest {
        c.code_written(mfn, (di & 0xfff) as u16, bytes);
    }
    Ok(())
}

#[inline(never)]
unsafe fn rep<T: W>(cpu: *mut Cpu, op: *const Op, movs: bool) -> Rep {
    by_contract!({
        let c = &mut *cpu;
        c.rip = c.bases.page.wrapping_add((*op).off as u64);
        let mut left = 4096u32;
        while c.regs[RCX] != 0 {
            if let Err(t) = some::<T>(c, movs) {
                trap(cpu, op, t);
                return Rep::Left;
            }
            left -= 1;
            let pressed = c.shared.attention.load(Ordering::Relaxed) != 0 || left == 0;
            if c.regs[RCX] != 0 && pressed {
                // Interrupted between two steps: the instruction begins again, and has not been counted.
                op_leave(cpu, op);
                return Rep::Left;
            }
        }
        Rep::Done
    })
}

pub(crate) unsafe fn movs<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        if rep::<T>(cpu, op, true) == Rep::Left {
            return null();
        }
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn stos<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        if rep::<T>(cpu, op, false) == Rep::Left {
            return null();
        }
        go!(cpu, op.add(1))
    })
}

/// Does a whole repeated instruction, of which `op` gives offset and budget. False: the chain must end.
pub(crate) type RepeatFn = unsafe fn(*mut Cpu, *const Op) -> bool;

unsafe fn repeat<T: W, const MOVS: bool>(cpu: *mut Cpu, op: *const Op) -> bool {
    by_contract!({ rep::<T>(cpu, op, MOVS) == Rep::Done })
}

/// The bytes of an element of movs and stos, and whether there is a source; `None` if it is something else.
pub(crate) fn elements(mnemonic: M) -> Option<(u32, bool)> {
    Some(match mnemonic {
        M::Movsb => (1, true),
        M::Movsw => (2, true),
        M::Movsd => (4, true),
        M::Movsq => (8, true),
        M::Stosb => (1, false),
        M::Stosw => (2, false),
        M::Stosd => (4, false),
        M::Stosq => (8, false),
        _ => return None,
    })
}

/// What does a repeated instruction, for those that have a fast form.
pub(crate) fn repeated(i: &Instruction) -> Option<RepeatFn> {
    lower(i)?;
    let (size, movs) = elements(i.mnemonic())?;
    Some(match movs {
        true => by_size!(size, repeat::<T, true> as RepeatFn),
        false => by_size!(size, repeat::<T, false> as RepeatFn),
    })
}

/// The fast form of rep movs and rep stos.
pub(crate) fn lower(i: &Instruction) -> Option<Low> {
    let op = Op::new(op_nop);
    if !i.has_rep_prefix() && !i.has_repne_prefix() {
        return None;
    }
    // 64-bit addresses without a segment base only.
    let wide = (0..i.op_count()).all(|n| {
        matches!(
            i.op_kind(n),
            OpKind::MemoryESRDI | OpKind::MemorySegRSI | OpKind::Register
        )
    });
    if !wide || matches!(i.memory_segment(), Register::FS | Register::GS) {
        return None;
    }
    match i.mnemonic() {
        M::Movsb => with(movs::<u8>, op),
        M::Movsw => with(movs::<u16>, op),
        M::Movsd if i.code() == Code::Movsd_m32_m32 => with(movs::<u32>, op),
        M::Movsq => with(movs::<u64>, op),
        M::Stosb => with(stos::<u8>, op),
        M::Stosw => with(stos::<u16>, op),
        M::Stosd => with(stos::<u32>, op),
        M::Stosq => with(stos::<u64>, op),
        _ => None,
    }
}
