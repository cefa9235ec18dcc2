// SPDX-License-Identifier: Apache-2.0
//! Multiplication and division.

use super::operand::*;
use crate::cpu::fault::{vector, Exec, Fault};
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

/// Double-width product of `a` and `b`, and whether it needs the upper half.
#[inline]
fn product<const SIGNED: bool, const B: u32>(a: u64, b: u64) -> (u128, bool) {
    if SIGNED {
        let p = (sext(B, a) as i64 as i128).wrapping_mul(sext(B, b) as i64 as i128);
        (p as u128, p != sext(B, p as u64) as i64 as i128)
    } else {
        let p = (a as u128) * (b as u128);
        (p, (p >> B) != 0)
    }
}

/// CF and OF say whether the upper half matters; AMD leaves the four undefined flags alone.
fn set_mul_flags(cpu: &mut Cpu, wide: bool) {
    let old = cpu.rflags() & ARITH & !(CF | OF);
    cpu.set_arith_flags(old | flag(CF | OF, wide));
}

/// mul, imul with one operand: rdx:rax (ax for bytes).
fn mul1<const SIGNED: bool, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let b = read_op::<B>(cpu, i, 0)?;
    let (p, wide) = product::<SIGNED, B>(acc::<B>(cpu), b);
    if B == 8 {
        set_low::<16>(cpu, RAX, p as u64);
    } else {
        set_low::<B>(cpu, RAX, p as u64);
        set_low::<B>(cpu, RDX, (p >> B) as u64);
    }
    set_mul_flags(cpu, wide);
    Ok(())
}

/// imul r, r/m and imul r, r/m, imm.
fn mul2<const THREE: bool, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let b = read_op::<B>(cpu, i, 1)?;
    let a = if THREE {
        imm(i, 2) & mask(B)
    } else {
        gpr(cpu, i.op0_register())
    };
    let (p, wide) = product::<true, B>(a, b);
    set_gpr(cpu, i.op0_register(), p as u64);
    set_mul_flags(cpu, wide);
    Ok(())
}

/// The dividend, ax, dx:ax, edx:eax or rdx:rax, as upper and lower half of `B` bits each.
fn dividend<const B: u32>(cpu: &Cpu) -> (u64, u64) {
    if B == 8 {
        (cpu.regs[RAX] >> 8 & 0xff, cpu.regs[RAX] & 0xff)
    } else {
        (cpu.regs[RDX] & mask(B), acc::<B>(cpu))
    }
}

fn set_quotient<const B: u32>(cpu: &mut Cpu, q: u64, r: u64) {
    if B == 8 {
        set_low::<16>(cpu, RAX, (r & 0xff) << 8 | q & 0xff);
    } else {
        set_low::<B>(cpu, RAX, q);
        set_low::<B>(cpu, RDX, r);
    }
    // All flags are undefined; this is what AMD Zen leaves.
    let old = cpu.rflags();
    cpu.set_arith_flags(old & (OF | CF) | AF);
}

fn divide_error() -> Exec {
    Err(Fault::new(vector::DE).into())
}

fn div<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let d = read_op::<B>(cpu, i, 0)?;
    let (hi, lo) = dividend::<B>(cpu);
    if hi >= d {
        // Division by zero, or a quotient of more than `B` bits.
        return divide_error();
    }
    let (q, r) = if B < 64 || hi == 0 {
        let n = if B < 64 { hi << (B & 63) | lo } else { lo };
        (n / d, n % d)
    } else {
        let n = (hi as u128) << 64 | lo as u128;
        let q = n / d as u128;
        (q as u64, (n as u64).wrapping_sub((q as u64).wrapping_mul(d)))
    };
    set_quotient::<B>(cpu, q, r);
    Ok(())
}

fn idiv<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let d = sext(B, read_op::<B>(cpu, i, 0)?) as i64;
    let (hi, lo) = dividend::<B>(cpu);
    let narrow = B < 64 || hi == ((lo as i64) >> 63) as u64;
    let (q, r) = if narrow {
        let n = if B < 64 {
            sext((2 * B).min(64), hi << (B & 63) | lo)
        } else {
            lo
        } as i64;
        let (Some(q), Some(r)) = (n.checked_div(d), n.checked_rem(d)) else {
            return divide_error();
        };
        if q as u64 != sext(B, q as u64) {
            return divide_error();
        }
        (q, r)
    } else {
        let n = ((hi as u128) << 64 | lo as u128) as i128;
        // `checked_div` also refuses i128::MIN / -1.
        let Some(q) = n.checked_div(d as i128) else {
            return divide_error();
        };
        let Ok(q) = i64::try_from(q) else {
            return divide_error();
        };
        (q, (n as i64).wrapping_sub(q.wrapping_mul(d)))
    };
    set_quotient::<B>(cpu, q as u64, r as u64);
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Mul_rm8 => mul1::<false, 8>,
        Mul_rm16 => mul1::<false, 16>,
        Mul_rm32 => mul1::<false, 32>,
        Mul_rm64 => mul1::<false, 64>,
        Imul_rm8 => mul1::<true, 8>,
        Imul_rm16 => mul1::<true, 16>,
        Imul_rm32 => mul1::<true, 32>,
        Imul_rm64 => mul1::<true, 64>,
        Imul_r16_rm16 => mul2::<false, 16>,
        Imul_r32_rm32 => mul2::<false, 32>,
        Imul_r64_rm64 => mul2::<false, 64>,
        Imul_r16_rm16_imm16 | Imul_r16_rm16_imm8 => mul2::<true, 16>,
        Imul_r32_rm32_imm32 | Imul_r32_rm32_imm8 => mul2::<true, 32>,
        Imul_r64_rm64_imm32 | Imul_r64_rm64_imm8 => mul2::<true, 64>,
        Div_rm8 => div::<8>,
        Div_rm16 => div::<16>,
        Div_rm32 => div::<32>,
        Div_rm64 => div::<64>,
        Idiv_rm8 => idiv::<8>,
        Idiv_rm16 => idiv::<16>,
        Idiv_rm32 => idiv::<32>,
        Idiv_rm64 => idiv::<64>,
        _ => return None,
    })
}
