// SPDX-License-Identifier: Apache-2.0
//! SSE to SSE4.2, AES, PCLMULQDQ, SHA, MMX.
//!
//! Each file offers `lookup`; a handler is a closure over 128-bit values wrapped by one of the macros below, so that every
//! instruction form gets a function of its own and nothing but "register or memory" is decided at run time.

pub(crate) mod convert;
pub(crate) mod crypto;
pub(crate) mod fp;
mod host;
pub(crate) mod int;
pub(crate) mod lane;
mod mmx;
pub(crate) mod mov;
pub(crate) mod packed;
pub(crate) mod permute;
mod portable;
mod string;

pub(crate) use fp::compare;
pub(crate) use mov::MXCSR_MASK;

use crate::cpu::exec::softfp::{flag, Env};
use crate::cpu::fault::{vector, Exec, Fault, Trap};
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind, Register};

/// The handler for an SSE-family or MMX instruction form, if it is one.
pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    host::lookup(code)
        .or_else(|| mov::lookup(code))
        .or_else(|| int::lookup(code))
        .or_else(|| permute::lookup(code))
        .or_else(|| fp::lookup(code))
        .or_else(|| convert::lookup(code))
        .or_else(|| crypto::lookup(code))
        .or_else(|| string::lookup(code))
        .or_else(|| mmx::lookup(code))
}

/// A handler that checks CR0.TS and then runs `$body`.
macro_rules! handler {
    (|$cpu:ident, $i:ident| $body:expr) => {{
        #[allow(unused_variables)]
        fn handler($cpu: &mut $crate::cpu::Cpu, $i: &iced_x86::Instruction) -> $crate::cpu::fault::Exec {
            $crate::cpu::exec::sse::check($cpu)?;
            $body
        }
        handler as $crate::cpu::SlowFn
    }};
}
pub(super) use handler;

/// `op xmm, xmm/m128` as a function of both operands.
macro_rules! bin {
    ($f:expr) => {
        $crate::cpu::exec::sse::handler!(|cpu, i| $crate::cpu::exec::sse::binary(cpu, i, $f))
    };
}
pub(super) use bin;

/// `op xmm, xmm/m128, imm8` as a function of both operands and the immediate.
macro_rules! bin_imm {
    ($f:expr) => {
        $crate::cpu::exec::sse::handler!(|cpu, i| {
            let imm = i.immediate8();
            let f = $f;
            $crate::cpu::exec::sse::binary(cpu, i, |a, b| f(a, b, imm))
        })
    };
}
pub(super) use bin_imm;

/// #NM while the guest's FPU is switched off.
#[inline(always)]
pub(super) fn check(cpu: &Cpu) -> Exec {
    if cpu.fpu.ts {
        return Err(Fault::new(vector::NM).into());
    }
    Ok(())
}

#[inline(always)]
pub(crate) fn xn(r: Register) -> usize {
    (r as usize).wrapping_sub(Register::XMM0 as usize) & 15
}
#[inline(always)]
pub(super) fn x0(i: &Instruction) -> usize {
    xn(i.op0_register())
}
#[inline(always)]
pub(super) fn x1(i: &Instruction) -> usize {
    xn(i.op1_register())
}
/// Number of a 32- or 64-bit general-purpose register.
#[inline(always)]
pub(crate) fn gn(r: Register) -> usize {
    r.number() & 15
}

/// The linear address of a memory operand that must be 16-byte aligned.
#[inline(always)]
pub(super) fn aligned(cpu: &Cpu, i: &Instruction) -> Result<u64, Trap> {
    let va = cpu.ea(i);
    if va & 15 != 0 {
        return Err(Fault::gp().into());
    }
    Ok(va)
}

/// Operand 1 as xmm or aligned m128.
#[inline(always)]
pub(super) fn src128(cpu: &mut Cpu, i: &Instruction) -> Result<u128, Trap> {
    if i.op1_kind() == OpKind::Register {
        return Ok(cpu.fpu.xmm[x1(i)]);
    }
    let va = aligned(cpu, i)?;
    cpu.read::<u128>(va)
}

/// Operand 1 as xmm or m128 of any alignment.
#[inline(always)]
pub(super) fn src128u(cpu: &mut Cpu, i: &Instruction) -> Result<u128, Trap> {
    if i.op1_kind() == OpKind::Register {
        return Ok(cpu.fpu.xmm[x1(i)]);
    }
    let va = cpu.ea(i);
    cpu.read::<u128>(va)
}

/// Operand 1 as the low half of xmm, or m64.
#[inline(always)]
pub(super) fn src64(cpu: &mut Cpu, i: &Instruction) -> Result<u64, Trap> {
    if i.op1_kind() == OpKind::Register {
        return Ok(cpu.fpu.xmm[x1(i)] as u64);
    }
    let va = cpu.ea(i);
    cpu.read::<u64>(va)
}

/// Operand 1 as the low 32 bits of xmm, or m32.
#[inline(always)]
pub(super) fn src32(cpu: &mut Cpu, i: &Instruction) -> Result<u32, Trap> {
    if i.op1_kind() == OpKind::Register {
        return Ok(cpu.fpu.xmm[x1(i)] as u32);
    }
    let va = cpu.ea(i);
    cpu.read::<u32>(va)
}

/// Operand 1 as the low 16 bits of xmm, or m16.
#[inline(always)]
pub(super) fn src16(cpu: &mut Cpu, i: &Instruction) -> Result<u16, Trap> {
    if i.op1_kind() == OpKind::Register {
        return Ok(cpu.fpu.xmm[x1(i)] as u16);
    }
    let va = cpu.ea(i);
    cpu.read::<u16>(va)
}

#[inline(always)]
pub(super) fn binary(cpu: &mut Cpu, i: &Instruction, f: impl Fn(u128, u128) -> u128) -> Exec {
    let b = src128(cpu, i)?;
    let d = x0(i);
    cpu.fpu.xmm[d] = f(cpu.fpu.xmm[d], b);
    Ok(())
}

#[inline(always)]
pub(crate) fn low64(old: u128, v: u64) -> u128 {
    (old >> 64 << 64) | u128::from(v)
}
#[inline(always)]
pub(crate) fn low32(old: u128, v: u32) -> u128 {
    (old >> 32 << 32) | u128::from(v)
}

/// Takes over the flags that an SSE operation raised; #XM if one is unmasked (the caller then stores nothing).
#[inline(always)]
pub(crate) fn finish(cpu: &mut Cpu, env: &Env) -> Exec {
    if env.flags == 0 {
        return Ok(());
    }
    if !env.unmasked() {
        cpu.fpu.mxcsr |= env.flags;
        return Ok(());
    }
    let unmasked = env.flags & !env.masks;
    cpu.fpu.mxcsr |= if unmasked & flag::PRE != 0 {
        env.flags & flag::PRE
    } else {
        env.flags
    };
    Err(Fault::new(vector::XM).into())
}
