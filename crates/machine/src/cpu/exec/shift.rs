// SPDX-License-Identifier: Apache-2.0
//! Shifts and rotates. What the manuals leave undefined follows AMD Zen, as measured.

use super::operand::*;
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

const ROL: u8 = 0;
const ROR: u8 = 1;
const RCL: u8 = 2;
const RCR: u8 = 3;
const SHL: u8 = 4;
const SHR: u8 = 5;
const SAR: u8 = 7;

/// Whether the two top bits of a `B` wide value differ.
#[inline]
fn top_differ<const B: u32>(r: u64) -> bool {
    (r ^ (r << 1)) & msb(B) != 0
}

/// `a` shifted or rotated by `n` (not 0, already masked), and the six flags after it.
#[inline]
fn compute<const OP: u8, const B: u32>(a: u64, n: u32, flags: u64) -> (u64, u64) {
    let sign = |r: u64| r & msb(B) != 0;
    match OP {
        SHL => {
            let wide = (a as u128) << n;
            let (r, c) = (wide as u64 & mask(B), (wide >> B) & 1 != 0);
            (r, szp::<B>(r) | AF | flag(CF, c) | flag(OF, sign(r) != c))
        }
        SHR => {
            let wide = ((a as u128) << 1) >> n;
            let r = (wide >> 1) as u64;
            (
                r,
                szp::<B>(r) | AF | flag(CF, wide & 1 != 0) | flag(OF, top_differ::<B>(r)),
            )
        }
        SAR => {
            let wide = ((sext(B, a) as i64 as i128) << 1) >> n;
            let r = (wide >> 1) as u64 & mask(B);
            (r, szp::<B>(r) | AF | flag(CF, wide & 1 != 0))
        }
        ROL | ROR => {
            let k = if OP == ROL { n % B } else { (B - n % B) % B };
            let r = if k == 0 {
                a
            } else {
                ((a << k) | (a >> (B - k))) & mask(B)
            };
            let (c, o) = if OP == ROL {
                (r & 1 != 0, sign(r) != (r & 1 != 0))
            } else {
                (sign(r), top_differ::<B>(r))
            };
            (r, flags & !(CF | OF) | flag(CF, c) | flag(OF, o))
        }
        _ => {
            // Rotation through carry: a value of B + 1 bits, carry on top.
            let n = n % (B + 1);
            let k = if OP == RCL || n == 0 { n } else { B + 1 - n };
            let v = (a as u128) | ((flags & CF) as u128) << B;
            let w = (v << k) | (v >> (B + 1 - k));
            let (r, c) = (w as u64 & mask(B), (w >> B) & 1 != 0);
            let o = if OP == RCL {
                sign(r) != c
            } else {
                top_differ::<B>(r)
            };
            (r, flags & !(CF | OF) | flag(CF, c) | flag(OF, o))
        }
    }
}

fn shift<const OP: u8, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let count = read_op::<8>(cpu, i, 1)? as u32 & if B == 64 { 63 } else { 31 };
    let old = cpu.rflags() & ARITH;
    let mut flags = old;
    rmw_op::<B>(cpu, i, &mut |a| {
        if count == 0 {
            return None;
        }
        let (r, f) = compute::<OP, B>(a, count, old);
        flags = f;
        Some(r)
    })?;
    if count != 0 {
        cpu.set_arith_flags(flags);
    }
    Ok(())
}

/// shld (`LEFT`) and shrd.
fn double<const LEFT: bool, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let count = read_op::<8>(cpu, i, 2)? as u32 & if B == 64 { 63 } else { 31 };
    let b = gpr(cpu, i.op1_register());
    let mut flags = 0;
    rmw_op::<B>(cpu, i, &mut |a| {
        if count == 0 {
            return None;
        }
        let (r, c, o) = if LEFT {
            shld::<B>(a, b, count)
        } else {
            shrd::<B>(a, b, count)
        };
        flags = szp::<B>(r) | AF | flag(CF, c) | flag(OF, o);
        Some(r)
    })?;
    if count != 0 {
        cpu.set_arith_flags(flags);
    }
    Ok(())
}

/// Result, carry, overflow. A 16-bit operand may be shifted by up to 31: AMD then rotates the second operand.
fn shld<const B: u32>(a: u64, b: u64, n: u32) -> (u64, bool, bool) {
    let wide = (a as u128) << n;
    let carry = (wide >> B) & 1 != 0;
    let r = if n <= B {
        (wide as u64 | ((b as u128) >> (B - n)) as u64) & mask(B)
    } else {
        ((b << (n - B)) | (b >> (2 * B - n))) & mask(B)
    };
    (r, carry, (wide as u64 & msb(B) != 0) != carry)
}

fn shrd<const B: u32>(a: u64, b: u64, n: u32) -> (u64, bool, bool) {
    let wide = ((a as u128) << 1) >> n;
    let r = if n <= B {
        ((wide >> 1) as u64 | ((b as u128) << (B - n)) as u64) & mask(B)
    } else {
        ((b >> (n - B)) | (b << (2 * B - n))) & mask(B)
    };
    (r, wide & 1 != 0, top_differ::<B>(r))
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Rol_rm8_imm8 | Rol_rm8_1 | Rol_rm8_CL => shift::<ROL, 8>,
        Rol_rm16_imm8 | Rol_rm16_1 | Rol_rm16_CL => shift::<ROL, 16>,
        Rol_rm32_imm8 | Rol_rm32_1 | Rol_rm32_CL => shift::<ROL, 32>,
        Rol_rm64_imm8 | Rol_rm64_1 | Rol_rm64_CL => shift::<ROL, 64>,
        Ror_rm8_imm8 | Ror_rm8_1 | Ror_rm8_CL => shift::<ROR, 8>,
        Ror_rm16_imm8 | Ror_rm16_1 | Ror_rm16_CL => shift::<ROR, 16>,
        Ror_rm32_imm8 | Ror_rm32_1 | Ror_rm32_CL => shift::<ROR, 32>,
        Ror_rm64_imm8 | Ror_rm64_1 | Ror_rm64_CL => shift::<ROR, 64>,
        Rcl_rm8_imm8 | Rcl_rm8_1 | Rcl_rm8_CL => shift::<RCL, 8>,
        Rcl_rm16_imm8 | Rcl_rm16_1 | Rcl_rm16_CL => shift::<RCL, 16>,
        Rcl_rm32_imm8 | Rcl_rm32_1 | Rcl_rm32_CL => shift::<RCL, 32>,
        Rcl_rm64_imm8 | Rcl_rm64_1 | Rcl_rm64_CL => shift::<RCL, 64>,
        Rcr_rm8_imm8 | Rcr_rm8_1 | Rcr_rm8_CL => shift::<RCR, 8>,
        Rcr_rm16_imm8 | Rcr_rm16_1 | Rcr_rm16_CL => shift::<RCR, 16>,
        Rcr_rm32_imm8 | Rcr_rm32_1 | Rcr_rm32_CL => shift::<RCR, 32>,
        Rcr_rm64_imm8 | Rcr_rm64_1 | Rcr_rm64_CL => shift::<RCR, 64>,
        Shl_rm8_imm8 | Shl_rm8_1 | Shl_rm8_CL => shift::<SHL, 8>,
        Shl_rm16_imm8 | Shl_rm16_1 | Shl_rm16_CL => shift::<SHL, 16>,
        Shl_rm32_imm8 | Shl_rm32_1 | Shl_rm32_CL => shift::<SHL, 32>,
        Shl_rm64_imm8 | Shl_rm64_1 | Shl_rm64_CL => shift::<SHL, 64>,
        Shr_rm8_imm8 | Shr_rm8_1 | Shr_rm8_CL => shift::<SHR, 8>,
        Shr_rm16_imm8 | Shr_rm16_1 | Shr_rm16_CL => shift::<SHR, 16>,
        Shr_rm32_imm8 | Shr_rm32_1 | Shr_rm32_CL => shift::<SHR, 32>,
        Shr_rm64_imm8 | Shr_rm64_1 | Shr_rm64_CL => shift::<SHR, 64>,
        Sar_rm8_imm8 | Sar_rm8_1 | Sar_rm8_CL => shift::<SAR, 8>,
        Sar_rm16_imm8 | Sar_rm16_1 | Sar_rm16_CL => shift::<SAR, 16>,
        Sar_rm32_imm8 | Sar_rm32_1 | Sar_rm32_CL => shift::<SAR, 32>,
        Sar_rm64_imm8 | Sar_rm64_1 | Sar_rm64_CL => shift::<SAR, 64>,
        Sal_rm8_imm8 | Sal_rm8_1 | Sal_rm8_CL => shift::<SHL, 8>,
        Sal_rm16_imm8 | Sal_rm16_1 | Sal_rm16_CL => shift::<SHL, 16>,
        Sal_rm32_imm8 | Sal_rm32_1 | Sal_rm32_CL => shift::<SHL, 32>,
        Sal_rm64_imm8 | Sal_rm64_1 | Sal_rm64_CL => shift::<SHL, 64>,
        Shld_rm16_r16_imm8 | Shld_rm16_r16_CL => double::<true, 16>,
        Shld_rm32_r32_imm8 | Shld_rm32_r32_CL => double::<true, 32>,
        Shld_rm64_r64_imm8 | Shld_rm64_r64_CL => double::<true, 64>,
        Shrd_rm16_r16_imm8 | Shrd_rm16_r16_CL => double::<false, 16>,
        Shrd_rm32_r32_imm8 | Shrd_rm32_r32_CL => double::<false, 32>,
        Shrd_rm64_r64_imm8 | Shrd_rm64_r64_CL => double::<false, 64>,
        _ => return None,
    })
}
