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

/// The dividend: ax, dx:ax, edx:eax or rdx:rax.
fn dividend<const B: u32>(cpu: &Cpu) -> u128 {
    if B == 8 {
        (cpu.regs[RAX] & 0xffff) as u128
    } else {
        ((cpu.regs[RDX] & mask(B)) as u128) << B | acc::<B>(cpu) as u128
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

fn div<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let d = read_op::<B>(cpu, i, 0)? as u128;
    let n = dividend::<B>(cpu);
    let (Some(q), Some(r)) = (n.checked_div(d), n.checked_rem(d)) else {
        return Err(Fault::new(vector::DE).into());
    };
    if q > mask(B) as u128 {
        return Err(Fault::new(vector::DE).into());
    }
    set_quotient::<B>(cpu, q as u64, r as u64);
    Ok(())
}

fn idiv<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let d = sext(B, read_op::<B>(cpu, i, 0)?) as i64 as i128;
    let shift = 128 - 2 * B;
    let n = ((dividend::<B>(cpu) << shift) as i128) >> shift;
    // `checked_div` also refuses i128::MIN / -1.
    let (Some(q), Some(r)) = (n.checked_div(d), n.checked_rem(d)) else {
        return Err(Fault::new(vector::DE).into());
    };
    if q != sext(B, q as u64) as i64 as i128 {
        return Err(Fault::new(vector::DE).into());
    }
    set_quotient::<B>(cpu, q as u64, r as u64);
    Ok(())
}

pub fn lookup(code: Code) -> Option<SlowFn> {
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
