// SPDX-License-Identifier: Apache-2.0
//! AVX, AVX2, FMA, F16C, and the VEX forms of AES and PCLMULQDQ.
//!
//! Mostly the operations of `sse/` on one half of a ymm register or on both: each file offers `lookup`, and its handlers
//! are closures over halves, wrapped by the macros below. What differs from legacy SSE: a destination of its own, memory
//! operands of any alignment (but for the aligned moves), and zeros in the upper half after a 128-bit form.

mod convert;
mod fma;
mod fp;
mod gather;
mod int;
mod masked;
mod mov;
mod permute;
mod shift;

use crate::cpu::exec::sse::xn;
use crate::cpu::fault::{vector, Exec, Fault, Trap};
use crate::cpu::wide::Ymm;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind, Register};

/// The handler for a VEX form on vectors, if it is one.
pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    mov::lookup(code)
        .or_else(|| int::lookup(code))
        .or_else(|| shift::lookup(code))
        .or_else(|| permute::lookup(code))
        .or_else(|| masked::lookup(code))
        .or_else(|| gather::lookup(code))
        .or_else(|| fp::lookup(code))
        .or_else(|| convert::lookup(code))
        .or_else(|| fma::lookup(code))
}

/// A handler that checks whether AVX is enabled and then runs `$body`.
macro_rules! handler {
    (|$cpu:ident, $i:ident| $body:expr) => {{
        #[allow(unused_variables)]
        fn handler($cpu: &mut $crate::cpu::Cpu, $i: &iced_x86::Instruction) -> $crate::cpu::fault::Exec {
            $crate::cpu::exec::avx::check($cpu)?;
            $body
        }
        handler as $crate::cpu::SlowFn
    }};
}
use handler;

/// `op dst, a, b/mem` as a function of halves.
macro_rules! bin {
    ($f:expr) => {
        $crate::cpu::exec::avx::handler!(|cpu, i| $crate::cpu::exec::avx::binary(cpu, i, $f))
    };
}
use bin;

/// `op dst, a, b/mem, imm8` as a function of halves and the immediate, of which the upper half gets what is left when it
/// is shifted right by `$shift`.
macro_rules! bin_imm {
    ($f:expr) => {
        $crate::cpu::exec::avx::bin_imm!($f, 0)
    };
    ($f:expr, $shift:literal) => {
        $crate::cpu::exec::avx::handler!(|cpu, i| {
            let imm = i.immediate8();
            let f = $f;
            $crate::cpu::exec::avx::by_half(cpu, i, 2, |a, b, upper| {
                f(a, b, if upper { imm >> $shift } else { imm })
            })
        })
    };
}
use bin_imm;

/// `op dst, b/mem` as a function of halves.
macro_rules! un {
    ($f:expr) => {
        $crate::cpu::exec::avx::handler!(|cpu, i| {
            let f = $f;
            $crate::cpu::exec::avx::by_half(cpu, i, 1, |_, b, _| f(b))
        })
    };
}
use un;

/// `op dst, b/mem, imm8`, as [`bin_imm`] otherwise.
macro_rules! un_imm {
    ($f:expr) => {
        $crate::cpu::exec::avx::un_imm!($f, 0)
    };
    ($f:expr, $shift:literal) => {
        $crate::cpu::exec::avx::handler!(|cpu, i| {
            let imm = i.immediate8();
            let f = $f;
            $crate::cpu::exec::avx::by_half(cpu, i, 1, |_, b, upper| {
                f(b, if upper { imm >> $shift } else { imm })
            })
        })
    };
}
use un_imm;

/// A form with the operands of a legacy one, whose handler does it. `to_xmm`: operand 0 is an xmm register that is written.
macro_rules! legacy {
    ($code:ident) => {
        $crate::cpu::exec::avx::handler!(|cpu, i| $crate::cpu::exec::avx::as_legacy(
            cpu,
            i,
            iced_x86::Code::$code
        ))
    };
    (to_xmm $code:ident) => {
        $crate::cpu::exec::avx::handler!(|cpu, i| {
            $crate::cpu::exec::avx::as_legacy(cpu, i, iced_x86::Code::$code)?;
            cpu.fpu.ymm_hi[$crate::cpu::exec::sse::xn(i.op0_register())] = 0;
            Ok(())
        })
    };
}
use legacy;

/// #UD where the guest has not enabled AVX, #NM while its FPU is switched off.
#[inline(always)]
fn check(cpu: &Cpu) -> Exec {
    if !cpu.fpu.avx {
        return Err(Fault::ud().into());
    }
    if cpu.fpu.ts {
        return Err(Fault::new(vector::NM).into());
    }
    Ok(())
}

fn as_legacy(cpu: &mut Cpu, i: &Instruction, code: Code) -> Exec {
    crate::cpu::exec::lookup(code).ok_or(Fault::ud())?(cpu, i)
}

#[inline(always)]
fn is_ymm(r: Register) -> bool {
    r as usize >= Register::YMM0 as usize && (r as usize) < Register::YMM0 as usize + 32
}

/// An xmm or ymm register, whole.
#[inline(always)]
fn get(cpu: &Cpu, r: Register) -> Ymm {
    let n = xn(r);
    [cpu.fpu.xmm[n], cpu.fpu.ymm_hi[n]]
}

/// Writes a register; `v` has zeros on top for an xmm register.
#[inline(always)]
fn set(cpu: &mut Cpu, r: Register, v: Ymm) {
    let n = xn(r);
    [cpu.fpu.xmm[n], cpu.fpu.ymm_hi[n]] = v;
}

/// Writes an xmm register, with zeros above it.
#[inline(always)]
fn set_xmm(cpu: &mut Cpu, i: &Instruction, v: u128) -> Exec {
    set(cpu, i.op0_register(), [v, 0]);
    Ok(())
}

/// 16 or 32 bytes of memory.
#[inline(always)]
fn read(cpu: &mut Cpu, va: u64, wide: bool) -> Result<Ymm, Trap> {
    if wide {
        return cpu.read_ymm(va);
    }
    Ok([cpu.read::<u128>(va)?, 0])
}

/// Writes 16 or 32 bytes, or nothing on a fault.
#[inline(always)]
fn write(cpu: &mut Cpu, va: u64, v: Ymm, wide: bool) -> Exec {
    if wide {
        return cpu.write_ymm(va, v);
    }
    cpu.write::<u128>(va, v[0])
}

/// Operand `n` as a register, or as memory of `wide`'s size.
#[inline(always)]
fn source(cpu: &mut Cpu, i: &Instruction, n: u32, wide: bool) -> Result<Ymm, Trap> {
    if i.op_kind(n) == OpKind::Register {
        return Ok(get(cpu, i.op_register(n)));
    }
    let va = cpu.ea(i);
    read(cpu, va, wide)
}

/// Operand `n` as xmm or m128.
#[inline(always)]
fn source128(cpu: &mut Cpu, i: &Instruction, n: u32) -> Result<u128, Trap> {
    Ok(source(cpu, i, n, false)?[0])
}

/// Operand `n` as the low bits of a register, or as memory of `T`'s size.
#[inline(always)]
fn source_low<T: crate::cpu::Scalar>(cpu: &mut Cpu, i: &Instruction, n: u32) -> Result<T, Trap> {
    if i.op_kind(n) == OpKind::Register {
        return Ok(T::from_u128(cpu.fpu.xmm[xn(i.op_register(n))]));
    }
    let va = cpu.ea(i);
    cpu.read::<T>(va)
}

/// A function of the halves of operand 1 and of operand `n`, whether they are the upper ones.
#[inline(always)]
fn by_half(cpu: &mut Cpu, i: &Instruction, n: u32, f: impl Fn(u128, u128, bool) -> u128) -> Exec {
    let d = i.op0_register();
    let wide = is_ymm(d);
    let b = source(cpu, i, n, wide)?;
    let a = get(cpu, i.op1_register());
    let upper = if wide { f(a[1], b[1], true) } else { 0 };
    set(cpu, d, [f(a[0], b[0], false), upper]);
    Ok(())
}

#[inline(always)]
fn binary(cpu: &mut Cpu, i: &Instruction, f: impl Fn(u128, u128) -> u128) -> Exec {
    by_half(cpu, i, 2, |a, b, _| f(a, b))
}
