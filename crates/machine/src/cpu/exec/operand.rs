// SPDX-License-Identifier: Apache-2.0
//! Operand access for the general-purpose handlers: values are `u64`, operand widths are const generics, so that each
//! handler is compiled once per width and not once per type.

pub(crate) use crate::abi::x86::canonical;
pub(crate) use crate::abi::x86::gpr::{RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};
use crate::cpu::fault::{Exec, Trap};
pub(crate) use crate::cpu::flags::*;
use crate::cpu::Cpu;
use iced_x86::{Instruction, OpKind, Register};

/// The low `bits` bits set.
pub(crate) const fn mask(bits: u32) -> u64 {
    if bits >= 64 {
        !0
    } else {
        (1 << bits) - 1
    }
}

/// The sign bit of a `bits` wide value.
pub(crate) const fn msb(bits: u32) -> u64 {
    1 << (bits - 1)
}

/// Sign-extends a `bits` wide value to 64 bits.
pub(crate) const fn sext(bits: u32, v: u64) -> u64 {
    let n = 64 - bits;
    (((v << n) as i64) >> n) as u64
}

/// SF, ZF and PF of a result.
#[inline(always)]
pub(crate) fn szp<const B: u32>(r: u64) -> u64 {
    let mut f = 0;
    if r & mask(B) == 0 {
        f |= ZF;
    }
    if r & msb(B) != 0 {
        f |= SF;
    }
    if (r as u8).count_ones() & 1 == 0 {
        f |= PF;
    }
    f
}

/// `bit` if `on`, else nothing.
#[inline(always)]
pub(crate) fn flag(bit: u64, on: bool) -> u64 {
    if on {
        bit
    } else {
        0
    }
}

/// A general-purpose register of any width, zero-extended.
#[inline]
pub(crate) fn gpr(cpu: &Cpu, r: Register) -> u64 {
    let n = r as usize;
    if n >= Register::RAX as usize {
        cpu.regs[(n - Register::RAX as usize) & 15]
    } else if n >= Register::EAX as usize {
        cpu.regs[(n - Register::EAX as usize) & 15] as u32 as u64
    } else if n >= Register::AX as usize {
        cpu.regs[(n - Register::AX as usize) & 15] as u16 as u64
    } else {
        let (i, shift) = byte_reg(n);
        (cpu.regs[i] >> shift) as u8 as u64
    }
}

/// Writes a general-purpose register: 32-bit writes zero-extend, narrower ones merge.
#[inline]
pub(crate) fn set_gpr(cpu: &mut Cpu, r: Register, v: u64) {
    let n = r as usize;
    if n >= Register::RAX as usize {
        cpu.regs[(n - Register::RAX as usize) & 15] = v;
    } else if n >= Register::EAX as usize {
        cpu.regs[(n - Register::EAX as usize) & 15] = v as u32 as u64;
    } else if n >= Register::AX as usize {
        let p = &mut cpu.regs[(n - Register::AX as usize) & 15];
        *p = *p & !0xffff | v & 0xffff;
    } else {
        let (i, shift) = byte_reg(n);
        let p = &mut cpu.regs[i];
        *p = *p & !(0xff << shift) | (v & 0xff) << shift;
    }
}

/// Register index and shift of an 8-bit register (`n` as iced numbers them: al cl dl bl ah ch dh bh spl ...).
#[inline]
fn byte_reg(n: usize) -> (usize, u32) {
    let k = n.wrapping_sub(Register::AL as usize);
    match k {
        0..=3 => (k, 0),
        4..=7 => (k - 4, 8),
        _ => (k.wrapping_sub(4) & 15, 0),
    }
}

/// The accumulator of width `B`, zero-extended.
pub(crate) fn acc<const B: u32>(cpu: &Cpu) -> u64 {
    cpu.regs[RAX] & mask(B)
}

/// Writes register `n` with width `B`.
#[inline]
pub(crate) fn set_low<const B: u32>(cpu: &mut Cpu, n: usize, v: u64) {
    let p = &mut cpu.regs[n & 15];
    *p = match B {
        64 => v,
        32 => v as u32 as u64,
        _ => *p & !mask(B) | v & mask(B),
    };
}

#[inline]
pub(crate) fn load<const B: u32>(cpu: &mut Cpu, va: u64) -> Result<u64, Trap> {
    Ok(match B {
        8 => cpu.read::<u8>(va)? as u64,
        16 => cpu.read::<u16>(va)? as u64,
        32 => cpu.read::<u32>(va)? as u64,
        _ => cpu.read::<u64>(va)?,
    })
}

#[inline]
pub(crate) fn store<const B: u32>(cpu: &mut Cpu, va: u64, v: u64) -> Exec {
    match B {
        8 => cpu.write::<u8>(va, v as u8),
        16 => cpu.write::<u16>(va, v as u16),
        32 => cpu.write::<u32>(va, v as u32),
        _ => cpu.write::<u64>(va, v),
    }
}

/// Read-modify-write of memory; `f` may be called again when another vCPU got in between.
pub(crate) fn rmw_mem<const B: u32>(
    cpu: &mut Cpu,
    va: u64,
    lock: bool,
    f: &mut dyn FnMut(u64) -> Option<u64>,
) -> Result<u64, Trap> {
    Ok(match B {
        8 => cpu.rmw::<u8>(va, lock, &mut |o: u8| f(o as u64).map(|v| v as u8))? as u64,
        16 => cpu.rmw::<u16>(va, lock, &mut |o: u16| f(o as u64).map(|v| v as u16))? as u64,
        32 => cpu.rmw::<u32>(va, lock, &mut |o: u32| f(o as u64).map(|v| v as u32))? as u64,
        _ => cpu.rmw::<u64>(va, lock, &mut |o: u64| f(o))?,
    })
}

/// An immediate operand, sign-extended to 64 bits where its encoding says so.
#[inline]
pub(crate) fn imm(i: &Instruction, n: u32) -> u64 {
    i.try_immediate(n).unwrap_or(0)
}

/// A register, memory or immediate operand of width `B`, zero-extended.
#[inline]
pub(crate) fn read_op<const B: u32>(cpu: &mut Cpu, i: &Instruction, n: u32) -> Result<u64, Trap> {
    match i.op_kind(n) {
        OpKind::Register => Ok(gpr(cpu, i.op_register(n)) & mask(B)),
        OpKind::Memory => {
            let va = cpu.ea(i);
            load::<B>(cpu, va)
        }
        _ => Ok(imm(i, n) & mask(B)),
    }
}

/// Writes a register or memory operand of width `B`.
#[inline]
pub(crate) fn write_op<const B: u32>(cpu: &mut Cpu, i: &Instruction, n: u32, v: u64) -> Exec {
    if i.op_kind(n) == OpKind::Register {
        set_gpr(cpu, i.op_register(n), v);
        Ok(())
    } else {
        let va = cpu.ea(i);
        store::<B>(cpu, va, v)
    }
}

/// Read-modify-write of operand 0, honouring a LOCK prefix. `None` stores nothing (a 32-bit register is zero-extended
/// all the same, as the hardware does).
#[inline]
pub(crate) fn rmw_op<const B: u32>(
    cpu: &mut Cpu,
    i: &Instruction,
    f: &mut dyn FnMut(u64) -> Option<u64>,
) -> Result<u64, Trap> {
    if i.op0_kind() == OpKind::Register {
        let r = i.op0_register();
        let old = gpr(cpu, r) & mask(B);
        let new = f(old).unwrap_or(old);
        set_gpr(cpu, r, new);
        Ok(old)
    } else {
        let va = cpu.ea(i);
        rmw_mem::<B>(cpu, va, i.has_lock_prefix(), f)
    }
}

/// Which operand is one in memory that the instruction names.
pub(crate) fn memory_operand(i: &Instruction) -> Option<u32> {
    (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory)
}

/// Linear address of `len` bytes in the segment of the memory operand of `i`, `delta` bytes away from it.
pub(crate) fn ea_moved(cpu: &Cpu, i: &Instruction, delta: u64, len: u64) -> u64 {
    let off = cpu.cut_offset(i, cpu.ea_offset(i).wrapping_add(delta));
    let n = memory_operand(i).unwrap_or(0);
    cpu.operand_va(i, n, i.memory_segment(), off, len)
}
