// SPDX-License-Identifier: Apache-2.0
//! Shuffles, packs, blends, inserts, extracts and widening moves.

use super::mov::{rm32, rm64, store32, store64};
use super::{bin, bin_imm, gn, handler, lane as l, src16, src32, src64, x0, x1};
use crate::cpu::fault::{Exec, Trap};
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

/// `pmovsx`, `pmovzx`: widens the low lanes of the source.
macro_rules! widen {
    ($src:ident, $to:ident, $from:ident, $t:ty) => {
        handler!(|cpu, i| {
            let v = l::$to(u128::from($src(cpu, i)?));
            cpu.fpu.xmm[x0(i)] = l::$from(std::array::from_fn(|k| <$t>::from(v[k])));
            Ok(())
        })
    };
}

#[inline(always)]
fn select4(imm: u8, k: usize) -> usize {
    usize::from(imm >> (2 * k) & 3)
}

/// Takes each lane of `b` whose bit of `mask` (one per byte) is set, else that of `a`.
#[inline(always)]
pub(crate) fn blend_bytes(a: u128, b: u128, mask: u128) -> u128 {
    // Spreads the top bit of each byte of the mask over that byte.
    let full = ((mask >> 7) & (u128::MAX / 255)).wrapping_mul(255);
    (a & !full) | (b & full)
}

pub(crate) fn pshuflw(b: u128, imm: u8) -> u128 {
    let w = l::words(b);
    l::from_words(std::array::from_fn(
        |k| if k < 4 { w[select4(imm, k)] } else { w[k] },
    ))
}

#[inline(always)]
pub(crate) fn pshufhw(_: u128, b: u128, imm: u8) -> u128 {
    pshuflw(b >> 64, imm) << 64 | (b & u128::from(u64::MAX))
}

#[inline(always)]
pub(crate) fn pshufd(_: u128, b: u128, imm: u8) -> u128 {
    let d = l::dwords(b);
    l::from_dwords(std::array::from_fn(|k| d[select4(imm, k)]))
}

#[inline(always)]
pub(crate) fn shufps(a: u128, b: u128, imm: u8) -> u128 {
    let (a, b) = (l::dwords(a), l::dwords(b));
    l::from_dwords(std::array::from_fn(|k| {
        if k < 2 {
            a[select4(imm, k)]
        } else {
            b[select4(imm, k)]
        }
    }))
}

#[inline(always)]
pub(crate) fn shufpd(a: u128, b: u128, imm: u8) -> u128 {
    let (a, b) = (l::qwords(a), l::qwords(b));
    l::from_qwords([a[usize::from(imm & 1)], b[usize::from(imm >> 1 & 1)]])
}

#[inline(always)]
pub(crate) fn palignr(a: u128, b: u128, imm: u8) -> u128 {
    match u32::from(imm) * 8 {
        0 => b,
        n @ 1..=127 => (b >> n) | (a << (128 - n)),
        n @ 128..=255 => a >> (n - 128),
        _ => 0,
    }
}

/// Lanes of `b` where a bit of the immediate is set, else of `a`.
macro_rules! blend {
    ($($name:ident $to:ident $from:ident;)*) => {
        $(#[inline(always)] pub(crate) fn $name(a: u128, b: u128, imm: u8) -> u128 {
            let (a, b) = (l::$to(a), l::$to(b));
            l::$from(std::array::from_fn(|k| if imm >> k & 1 != 0 { b[k] } else { a[k] }))
        })*
    };
}
blend! {
    blendps dwords from_dwords;
    blendpd qwords from_qwords;
    pblendw words from_words;
}

/// Lanes of `b` where the sign of `mask` is set, else of `a`.
#[inline(always)]
pub(crate) fn blendvps(a: u128, b: u128, mask: u128) -> u128 {
    let mask = l::imap32(mask, 0, |m, _| m >> 31);
    (a & !mask) | (b & mask)
}
#[inline(always)]
pub(crate) fn blendvpd(a: u128, b: u128, mask: u128) -> u128 {
    let mask = l::imap64(mask, 0, |m, _| m >> 63);
    (a & !mask) | (b & mask)
}

/// `v` into the lane that bits 4 and 5 name; then zeros where the low bits say.
pub(crate) fn insertps(a: u128, v: u32, imm: u8) -> u128 {
    let mut d = l::dwords(a);
    d[usize::from(imm >> 4 & 3)] = v;
    l::from_dwords(std::array::from_fn(|k| if imm >> k & 1 != 0 { 0 } else { d[k] }))
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Punpcklbw_xmm_xmmm128 => bin!(l::punpcklbw),
        Punpckhbw_xmm_xmmm128 => bin!(l::punpckhbw),
        Punpcklwd_xmm_xmmm128 => bin!(l::punpcklwd),
        Punpckhwd_xmm_xmmm128 => bin!(l::punpckhwd),
        Punpckldq_xmm_xmmm128 | Unpcklps_xmm_xmmm128 => bin!(l::punpckldq),
        Punpckhdq_xmm_xmmm128 | Unpckhps_xmm_xmmm128 => bin!(l::punpckhdq),
        Punpcklqdq_xmm_xmmm128 | Unpcklpd_xmm_xmmm128 => bin!(l::punpcklqdq),
        Punpckhqdq_xmm_xmmm128 | Unpckhpd_xmm_xmmm128 => bin!(l::punpckhqdq),
        Packsswb_xmm_xmmm128 => bin!(l::packsswb),
        Packuswb_xmm_xmmm128 => bin!(l::packuswb),
        Packssdw_xmm_xmmm128 => bin!(l::packssdw),
        Packusdw_xmm_xmmm128 => bin!(l::packusdw),
        Pshufb_xmm_xmmm128 => bin!(l::pshufb),
        Pshufd_xmm_xmmm128_imm8 => bin_imm!(pshufd),
        Pshuflw_xmm_xmmm128_imm8 => bin_imm!(|_, b, imm: u8| pshuflw(b, imm)),
        Pshufhw_xmm_xmmm128_imm8 => bin_imm!(pshufhw),
        Shufps_xmm_xmmm128_imm8 => bin_imm!(shufps),
        Shufpd_xmm_xmmm128_imm8 => bin_imm!(shufpd),
        Palignr_xmm_xmmm128_imm8 => bin_imm!(|a, b, imm: u8| palignr(a, b, imm)),
        Blendps_xmm_xmmm128_imm8 => bin_imm!(|a, b, imm: u8| blendps(a, b, imm)),
        Blendpd_xmm_xmmm128_imm8 => bin_imm!(|a, b, imm: u8| blendpd(a, b, imm)),
        Pblendw_xmm_xmmm128_imm8 => bin_imm!(|a, b, imm: u8| pblendw(a, b, imm)),
        Pblendvb_xmm_xmmm128 => handler!(|cpu, i| {
            let mask = cpu.fpu.xmm[0];
            super::binary(cpu, i, |a, b| blend_bytes(a, b, mask))
        }),
        Blendvps_xmm_xmmm128 => handler!(|cpu, i| {
            let mask = cpu.fpu.xmm[0];
            super::binary(cpu, i, |a, b| blendvps(a, b, mask))
        }),
        Blendvpd_xmm_xmmm128 => handler!(|cpu, i| {
            let mask = cpu.fpu.xmm[0];
            super::binary(cpu, i, |a, b| blendvpd(a, b, mask))
        }),
        Pmovsxbw_xmm_xmmm64 => widen!(src64, ibytes, from_iwords, i16),
        Pmovsxbd_xmm_xmmm32 => widen!(src32, ibytes, from_idwords, i32),
        Pmovsxbq_xmm_xmmm16 => widen!(src16, ibytes, from_iqwords, i64),
        Pmovsxwd_xmm_xmmm64 => widen!(src64, iwords, from_idwords, i32),
        Pmovsxwq_xmm_xmmm32 => widen!(src32, iwords, from_iqwords, i64),
        Pmovsxdq_xmm_xmmm64 => widen!(src64, idwords, from_iqwords, i64),
        Pmovzxbw_xmm_xmmm64 => widen!(src64, bytes, from_words, u16),
        Pmovzxbd_xmm_xmmm32 => widen!(src32, bytes, from_dwords, u32),
        Pmovzxbq_xmm_xmmm16 => widen!(src16, bytes, from_qwords, u64),
        Pmovzxwd_xmm_xmmm64 => widen!(src64, words, from_dwords, u32),
        Pmovzxwq_xmm_xmmm32 => widen!(src32, words, from_qwords, u64),
        Pmovzxdq_xmm_xmmm64 => widen!(src64, dwords, from_qwords, u64),
        Pextrb_r32m8_xmm_imm8 | Pextrb_r64m8_xmm_imm8 => handler!(|cpu, i| {
            let v = l::bytes(cpu.fpu.xmm[x1(i)])[usize::from(i.immediate8() & 15)];
            if i.op0_kind() == OpKind::Register {
                cpu.regs[gn(i.op0_register())] = u64::from(v);
                return Ok(());
            }
            let va = cpu.ea(i);
            cpu.write::<u8>(va, v)
        }),
        Pextrw_r32_xmm_imm8 | Pextrw_r64_xmm_imm8 | Pextrw_r32m16_xmm_imm8 | Pextrw_r64m16_xmm_imm8 => {
            handler!(|cpu, i| {
                let v = l::words(cpu.fpu.xmm[x1(i)])[usize::from(i.immediate8() & 7)];
                if i.op0_kind() == OpKind::Register {
                    cpu.regs[gn(i.op0_register())] = u64::from(v);
                    return Ok(());
                }
                let va = cpu.ea(i);
                cpu.write::<u16>(va, v)
            })
        }
        Pextrd_rm32_xmm_imm8 | Extractps_rm32_xmm_imm8 => handler!(|cpu, i| {
            let v = l::dwords(cpu.fpu.xmm[x1(i)])[usize::from(i.immediate8() & 3)];
            store32(cpu, i, v)
        }),
        Extractps_r64m32_xmm_imm8 => handler!(|cpu, i| {
            let v = l::dwords(cpu.fpu.xmm[x1(i)])[usize::from(i.immediate8() & 3)];
            store32(cpu, i, v)
        }),
        Pextrq_rm64_xmm_imm8 => handler!(|cpu, i| {
            let v = l::qwords(cpu.fpu.xmm[x1(i)])[usize::from(i.immediate8() & 1)];
            store64(cpu, i, v)
        }),
        Pinsrb_xmm_r32m8_imm8 | Pinsrb_xmm_r64m8_imm8 => handler!(|cpu, i| {
            let v = if i.op1_kind() == OpKind::Register {
                cpu.regs[gn(i.op1_register())] as u8
            } else {
                let va = cpu.ea(i);
                cpu.read::<u8>(va)?
            };
            insert(cpu, i, u128::from(v), 8, 15)
        }),
        Pinsrw_xmm_r32m16_imm8 | Pinsrw_xmm_r64m16_imm8 => handler!(|cpu, i| {
            let v = rm16(cpu, i)?;
            insert(cpu, i, u128::from(v), 16, 7)
        }),
        Pinsrd_xmm_rm32_imm8 => handler!(|cpu, i| {
            let v = rm32(cpu, i)?;
            insert(cpu, i, u128::from(v), 32, 3)
        }),
        Pinsrq_xmm_rm64_imm8 => handler!(|cpu, i| {
            let v = rm64(cpu, i)?;
            insert(cpu, i, u128::from(v), 64, 1)
        }),
        Insertps_xmm_xmmm32_imm8 => handler!(|cpu, i| {
            let imm = i.immediate8();
            let v = if i.op1_kind() == OpKind::Register {
                l::dwords(cpu.fpu.xmm[x1(i)])[usize::from(imm >> 6)]
            } else {
                src32(cpu, i)?
            };
            let d = x0(i);
            cpu.fpu.xmm[d] = insertps(cpu.fpu.xmm[d], v, imm);
            Ok(())
        }),
        _ => return None,
    })
}

/// Operand 1 as the low half of a register, or m16.
pub(crate) fn rm16(cpu: &mut Cpu, i: &Instruction) -> Result<u16, Trap> {
    if i.op1_kind() == OpKind::Register {
        return Ok(cpu.regs[gn(i.op1_register())] as u16);
    }
    let va = cpu.ea(i);
    cpu.read::<u16>(va)
}

/// Replaces the lane of `width` bits that the immediate, cut by `select`, names.
#[inline(always)]
fn insert(cpu: &mut Cpu, i: &Instruction, v: u128, width: u32, select: u8) -> Exec {
    let d = x0(i);
    cpu.fpu.xmm[d] = with_lane(cpu.fpu.xmm[d], v, width, i.immediate8() & select);
    Ok(())
}

/// `a` with lane `n` of `width` bits replaced by `v`.
#[inline(always)]
pub(crate) fn with_lane(a: u128, v: u128, width: u32, n: u8) -> u128 {
    let at = u32::from(n) * width;
    let mask = ((1u128 << width) - 1) << at;
    (a & !mask) | v << at
}
