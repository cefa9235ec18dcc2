// SPDX-License-Identifier: Apache-2.0
//! Shuffles, packs, permutes, blends, inserts, extracts and widening moves.

use super::{bin, bin_imm, get, handler, is_ymm, legacy, set, set_xmm, source, source_low, un_imm, Ymm};
use crate::cpu::exec::sse::permute::{self as p, with_lane};
use crate::cpu::exec::sse::{gn, lane as l, xn};
use crate::cpu::fault::{Exec, Trap};
use crate::cpu::{Cpu, Scalar, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

fn all_dwords(v: Ymm) -> [u32; 8] {
    let (a, b) = (l::dwords(v[0]), l::dwords(v[1]));
    std::array::from_fn(|k| if k < 4 { a[k] } else { b[k - 4] })
}
fn from_all_dwords(d: [u32; 8]) -> Ymm {
    [
        l::from_dwords([d[0], d[1], d[2], d[3]]),
        l::from_dwords([d[4], d[5], d[6], d[7]]),
    ]
}

/// `vpermd`, `vpermps`: dwords of operand 2 by the indices in operand 1.
fn permute_dwords(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let b = all_dwords(source(cpu, i, 2, true)?);
    let indices = all_dwords(get(cpu, i.op1_register()));
    set(
        cpu,
        i.op0_register(),
        from_all_dwords(indices.map(|n| b[n as usize & 7])),
    );
    Ok(())
}

/// `vpermq`, `vpermpd`: qwords by an immediate.
fn permute_qwords(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let v = source(cpu, i, 1, true)?;
    let imm = i.immediate8();
    let pick = |k: u32| {
        let n = usize::from(imm >> (2 * k) & 3);
        l::qwords(v[n >> 1])[n & 1]
    };
    let r = [
        l::from_qwords([pick(0), pick(1)]),
        l::from_qwords([pick(2), pick(3)]),
    ];
    set(cpu, i.op0_register(), r);
    Ok(())
}

/// `vperm2f128`, `vperm2i128`: each half is one of the four of both operands, or zero.
fn permute_halves(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let b = source(cpu, i, 2, true)?;
    let a = get(cpu, i.op1_register());
    let all = [a[0], a[1], b[0], b[1]];
    let imm = i.immediate8();
    let pick = |sel: u8| {
        if sel & 8 != 0 {
            0
        } else {
            all[usize::from(sel & 3)]
        }
    };
    set(cpu, i.op0_register(), [pick(imm), pick(imm >> 4)]);
    Ok(())
}

fn permilps(a: u128, control: u128) -> u128 {
    let (a, c) = (l::dwords(a), l::dwords(control));
    l::from_dwords(std::array::from_fn(|k| a[c[k] as usize & 3]))
}
fn permilpd(a: u128, control: u128) -> u128 {
    let (a, c) = (l::qwords(a), l::qwords(control));
    l::from_qwords(std::array::from_fn(|k| a[(c[k] >> 1) as usize & 1]))
}

/// A blend whose mask is a fourth operand.
macro_rules! by_mask {
    ($f:path) => {
        handler!(|cpu, i| {
            let d = i.op0_register();
            let wide = is_ymm(d);
            let b = source(cpu, i, 2, wide)?;
            let (a, m) = (get(cpu, i.op1_register()), get(cpu, i.op_register(3)));
            let upper = if wide { $f(a[1], b[1], m[1]) } else { 0 };
            set(cpu, d, [$f(a[0], b[0], m[0]), upper]);
            Ok(())
        })
    };
}

/// `vpmovsx`, `vpmovzx` to a ymm register: `$lanes` of `$src` are widened, half of them per half.
macro_rules! widen {
    ($src:ty, $to:ident, $from:ident, $t:ty, $half:literal) => {
        handler!(|cpu, i| {
            let v: u128 = source_low::<$src>(cpu, i, 1)?.into();
            let v = l::$to(v);
            let r = [0, $half].map(|first| l::$from(std::array::from_fn(|k| <$t>::from(v[first + k]))));
            set(cpu, i.op0_register(), r);
            Ok(())
        })
    };
}

/// Operand 2 as the low bits of a general-purpose register, or memory.
fn small<T: Scalar>(cpu: &mut Cpu, i: &Instruction) -> Result<u128, Trap> {
    if i.op2_kind() == OpKind::Register {
        return Ok(T::from_u128(u128::from(cpu.regs[gn(i.op2_register())])).into());
    }
    let va = cpu.ea(i);
    Ok(cpu.read::<T>(va)?.into())
}

/// `vpinsr`: a lane of `T`'s size replaced.
fn insert<T: Scalar>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let v = small::<T>(cpu, i)?;
    let a = cpu.fpu.xmm[xn(i.op1_register())];
    let n = i.immediate8() & (16 / T::SIZE - 1) as u8;
    set_xmm(cpu, i, with_lane(a, v, 8 * T::SIZE as u32, n))
}

pub(super) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        VEX_Vpunpcklbw_xmm_xmm_xmmm128 | VEX_Vpunpcklbw_ymm_ymm_ymmm256 => bin!(l::punpcklbw),
        VEX_Vpunpckhbw_xmm_xmm_xmmm128 | VEX_Vpunpckhbw_ymm_ymm_ymmm256 => bin!(l::punpckhbw),
        VEX_Vpunpcklwd_xmm_xmm_xmmm128 | VEX_Vpunpcklwd_ymm_ymm_ymmm256 => bin!(l::punpcklwd),
        VEX_Vpunpckhwd_xmm_xmm_xmmm128 | VEX_Vpunpckhwd_ymm_ymm_ymmm256 => bin!(l::punpckhwd),
        VEX_Vpunpckldq_xmm_xmm_xmmm128
        | VEX_Vpunpckldq_ymm_ymm_ymmm256
        | VEX_Vunpcklps_xmm_xmm_xmmm128
        | VEX_Vunpcklps_ymm_ymm_ymmm256 => bin!(l::punpckldq),
        VEX_Vpunpckhdq_xmm_xmm_xmmm128
        | VEX_Vpunpckhdq_ymm_ymm_ymmm256
        | VEX_Vunpckhps_xmm_xmm_xmmm128
        | VEX_Vunpckhps_ymm_ymm_ymmm256 => bin!(l::punpckhdq),
        VEX_Vpunpcklqdq_xmm_xmm_xmmm128
        | VEX_Vpunpcklqdq_ymm_ymm_ymmm256
        | VEX_Vunpcklpd_xmm_xmm_xmmm128
        | VEX_Vunpcklpd_ymm_ymm_ymmm256 => bin!(l::punpcklqdq),
        VEX_Vpunpckhqdq_xmm_xmm_xmmm128
        | VEX_Vpunpckhqdq_ymm_ymm_ymmm256
        | VEX_Vunpckhpd_xmm_xmm_xmmm128
        | VEX_Vunpckhpd_ymm_ymm_ymmm256 => bin!(l::punpckhqdq),
        VEX_Vpacksswb_xmm_xmm_xmmm128 | VEX_Vpacksswb_ymm_ymm_ymmm256 => bin!(l::packsswb),
        VEX_Vpackuswb_xmm_xmm_xmmm128 | VEX_Vpackuswb_ymm_ymm_ymmm256 => bin!(l::packuswb),
        VEX_Vpackssdw_xmm_xmm_xmmm128 | VEX_Vpackssdw_ymm_ymm_ymmm256 => bin!(l::packssdw),
        VEX_Vpackusdw_xmm_xmm_xmmm128 | VEX_Vpackusdw_ymm_ymm_ymmm256 => bin!(l::packusdw),
        VEX_Vpshufb_xmm_xmm_xmmm128 | VEX_Vpshufb_ymm_ymm_ymmm256 => bin!(l::pshufb),
        VEX_Vpshufd_xmm_xmmm128_imm8 | VEX_Vpshufd_ymm_ymmm256_imm8 => un_imm!(|b, imm| p::pshufd(0, b, imm)),
        VEX_Vpshufhw_xmm_xmmm128_imm8 | VEX_Vpshufhw_ymm_ymmm256_imm8 => {
            un_imm!(|b, imm| p::pshufhw(0, b, imm))
        }
        VEX_Vpshuflw_xmm_xmmm128_imm8 | VEX_Vpshuflw_ymm_ymmm256_imm8 => un_imm!(p::pshuflw),
        VEX_Vshufps_xmm_xmm_xmmm128_imm8 | VEX_Vshufps_ymm_ymm_ymmm256_imm8 => bin_imm!(p::shufps),
        VEX_Vshufpd_xmm_xmm_xmmm128_imm8 | VEX_Vshufpd_ymm_ymm_ymmm256_imm8 => bin_imm!(p::shufpd, 2),
        VEX_Vpalignr_xmm_xmm_xmmm128_imm8 | VEX_Vpalignr_ymm_ymm_ymmm256_imm8 => bin_imm!(p::palignr),
        VEX_Vblendps_xmm_xmm_xmmm128_imm8
        | VEX_Vblendps_ymm_ymm_ymmm256_imm8
        | VEX_Vpblendd_xmm_xmm_xmmm128_imm8
        | VEX_Vpblendd_ymm_ymm_ymmm256_imm8 => bin_imm!(p::blendps, 4),
        VEX_Vblendpd_xmm_xmm_xmmm128_imm8 | VEX_Vblendpd_ymm_ymm_ymmm256_imm8 => bin_imm!(p::blendpd, 2),
        VEX_Vpblendw_xmm_xmm_xmmm128_imm8 | VEX_Vpblendw_ymm_ymm_ymmm256_imm8 => bin_imm!(p::pblendw),
        VEX_Vblendvps_xmm_xmm_xmmm128_xmm | VEX_Vblendvps_ymm_ymm_ymmm256_ymm => by_mask!(p::blendvps),
        VEX_Vblendvpd_xmm_xmm_xmmm128_xmm | VEX_Vblendvpd_ymm_ymm_ymmm256_ymm => by_mask!(p::blendvpd),
        VEX_Vpblendvb_xmm_xmm_xmmm128_xmm | VEX_Vpblendvb_ymm_ymm_ymmm256_ymm => by_mask!(p::blend_bytes),
        VEX_Vpermilps_xmm_xmm_xmmm128 | VEX_Vpermilps_ymm_ymm_ymmm256 => bin!(permilps),
        VEX_Vpermilpd_xmm_xmm_xmmm128 | VEX_Vpermilpd_ymm_ymm_ymmm256 => bin!(permilpd),
        VEX_Vpermilps_xmm_xmmm128_imm8 | VEX_Vpermilps_ymm_ymmm256_imm8 => {
            un_imm!(|b, imm| p::pshufd(0, b, imm))
        }
        VEX_Vpermilpd_xmm_xmmm128_imm8 | VEX_Vpermilpd_ymm_ymmm256_imm8 => {
            un_imm!(|b, imm| p::shufpd(b, b, imm), 2)
        }
        VEX_Vpermd_ymm_ymm_ymmm256 | VEX_Vpermps_ymm_ymm_ymmm256 => permute_dwords,
        VEX_Vpermq_ymm_ymmm256_imm8 | VEX_Vpermpd_ymm_ymmm256_imm8 => permute_qwords,
        VEX_Vperm2f128_ymm_ymm_ymmm256_imm8 | VEX_Vperm2i128_ymm_ymm_ymmm256_imm8 => permute_halves,
        VEX_Vpmovsxbw_xmm_xmmm64 => legacy!(to_xmm Pmovsxbw_xmm_xmmm64),
        VEX_Vpmovsxbw_ymm_xmmm128 => widen!(u128, ibytes, from_iwords, i16, 8),
        VEX_Vpmovsxbd_xmm_xmmm32 => legacy!(to_xmm Pmovsxbd_xmm_xmmm32),
        VEX_Vpmovsxbd_ymm_xmmm64 => widen!(u64, ibytes, from_idwords, i32, 4),
        VEX_Vpmovsxbq_xmm_xmmm16 => legacy!(to_xmm Pmovsxbq_xmm_xmmm16),
        VEX_Vpmovsxbq_ymm_xmmm32 => widen!(u32, ibytes, from_iqwords, i64, 2),
        VEX_Vpmovsxwd_xmm_xmmm64 => legacy!(to_xmm Pmovsxwd_xmm_xmmm64),
        VEX_Vpmovsxwd_ymm_xmmm128 => widen!(u128, iwords, from_idwords, i32, 4),
        VEX_Vpmovsxwq_xmm_xmmm32 => legacy!(to_xmm Pmovsxwq_xmm_xmmm32),
        VEX_Vpmovsxwq_ymm_xmmm64 => widen!(u64, iwords, from_iqwords, i64, 2),
        VEX_Vpmovsxdq_xmm_xmmm64 => legacy!(to_xmm Pmovsxdq_xmm_xmmm64),
        VEX_Vpmovsxdq_ymm_xmmm128 => widen!(u128, idwords, from_iqwords, i64, 2),
        VEX_Vpmovzxbw_xmm_xmmm64 => legacy!(to_xmm Pmovzxbw_xmm_xmmm64),
        VEX_Vpmovzxbw_ymm_xmmm128 => widen!(u128, bytes, from_words, u16, 8),
        VEX_Vpmovzxbd_xmm_xmmm32 => legacy!(to_xmm Pmovzxbd_xmm_xmmm32),
        VEX_Vpmovzxbd_ymm_xmmm64 => widen!(u64, bytes, from_dwords, u32, 4),
        VEX_Vpmovzxbq_xmm_xmmm16 => legacy!(to_xmm Pmovzxbq_xmm_xmmm16),
        VEX_Vpmovzxbq_ymm_xmmm32 => widen!(u32, bytes, from_qwords, u64, 2),
        VEX_Vpmovzxwd_xmm_xmmm64 => legacy!(to_xmm Pmovzxwd_xmm_xmmm64),
        VEX_Vpmovzxwd_ymm_xmmm128 => widen!(u128, words, from_dwords, u32, 4),
        VEX_Vpmovzxwq_xmm_xmmm32 => legacy!(to_xmm Pmovzxwq_xmm_xmmm32),
        VEX_Vpmovzxwq_ymm_xmmm64 => widen!(u64, words, from_qwords, u64, 2),
        VEX_Vpmovzxdq_xmm_xmmm64 => legacy!(to_xmm Pmovzxdq_xmm_xmmm64),
        VEX_Vpmovzxdq_ymm_xmmm128 => widen!(u128, dwords, from_qwords, u64, 2),
        VEX_Vpextrb_r32m8_xmm_imm8 | VEX_Vpextrb_r64m8_xmm_imm8 => legacy!(Pextrb_r32m8_xmm_imm8),
        VEX_Vpextrw_r32_xmm_imm8
        | VEX_Vpextrw_r64_xmm_imm8
        | VEX_Vpextrw_r32m16_xmm_imm8
        | VEX_Vpextrw_r64m16_xmm_imm8 => legacy!(Pextrw_r32m16_xmm_imm8),
        VEX_Vpextrd_rm32_xmm_imm8 => legacy!(Pextrd_rm32_xmm_imm8),
        VEX_Vextractps_rm32_xmm_imm8 | VEX_Vextractps_r64m32_xmm_imm8 => {
            legacy!(Extractps_rm32_xmm_imm8)
        }
        VEX_Vpextrq_rm64_xmm_imm8 => legacy!(Pextrq_rm64_xmm_imm8),
        VEX_Vpinsrb_xmm_xmm_r32m8_imm8 | VEX_Vpinsrb_xmm_xmm_r64m8_imm8 => insert::<u8>,
        VEX_Vpinsrw_xmm_xmm_r32m16_imm8 | VEX_Vpinsrw_xmm_xmm_r64m16_imm8 => insert::<u16>,
        VEX_Vpinsrd_xmm_xmm_rm32_imm8 => insert::<u32>,
        VEX_Vpinsrq_xmm_xmm_rm64_imm8 => insert::<u64>,
        VEX_Vinsertps_xmm_xmm_xmmm32_imm8 => handler!(|cpu, i| {
            let imm = i.immediate8();
            let v = if i.op2_kind() == OpKind::Register {
                l::dwords(cpu.fpu.xmm[xn(i.op2_register())])[usize::from(imm >> 6)]
            } else {
                source_low::<u32>(cpu, i, 2)?
            };
            let a = cpu.fpu.xmm[xn(i.op1_register())];
            set_xmm(cpu, i, p::insertps(a, v, imm))
        }),
        _ => return None,
    })
}
