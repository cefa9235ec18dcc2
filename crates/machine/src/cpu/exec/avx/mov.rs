// SPDX-License-Identifier: Apache-2.0
//! Moves, broadcasts, lanes inserted and extracted, masks of signs, tests, `vzeroupper`.

use super::{
    get, handler, is_ymm, legacy, read, set, set_xmm, source, source128, source_low, un, write, Ymm,
};
use crate::cpu::exec::sse::{gn, lane as l, low32, low64, xn};
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

const HIGH: u128 = !0 << 64;

/// `vmovdqu` and its like, and with `ALIGNED` `vmovdqa`: register or memory to register.
fn load<const ALIGNED: bool>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let d = i.op0_register();
    let wide = is_ymm(d);
    let v = if i.op1_kind() == OpKind::Register {
        let [low, high] = get(cpu, i.op1_register());
        [low, if wide { high } else { 0 }]
    } else {
        let va = cpu.ea(i);
        if ALIGNED {
            check_aligned(va, wide)?;
        }
        read(cpu, va, wide)?
    };
    set(cpu, d, v);
    Ok(())
}

/// The same to a register or memory.
fn store<const ALIGNED: bool>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let s = i.op1_register();
    let wide = is_ymm(s);
    let [low, high] = get(cpu, s);
    let v = [low, if wide { high } else { 0 }];
    if i.op0_kind() == OpKind::Register {
        set(cpu, i.op0_register(), v);
        return Ok(());
    }
    let va = cpu.ea(i);
    if ALIGNED {
        check_aligned(va, wide)?;
    }
    write(cpu, va, v, wide)
}

fn check_aligned(va: u64, wide: bool) -> Exec {
    if va & if wide { 31 } else { 15 } != 0 {
        return Err(Fault::gp().into());
    }
    Ok(())
}

/// The same element of `T` all over a register.
fn broadcast<T: crate::cpu::Scalar>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let v: u128 = source_low::<T>(cpu, i, 1)?.into();
    let v = v.wrapping_mul(u128::MAX / (u128::MAX >> (128 - 8 * T::SIZE)));
    let d = i.op0_register();
    set(cpu, d, [v, if is_ymm(d) { v } else { 0 }]);
    Ok(())
}

/// ZF and CF of `vptest` (`signs` all ones) and `vtestps`: whether a AND b, and b AND NOT a, are zero there.
fn test(cpu: &mut Cpu, i: &Instruction, signs: u128) -> Exec {
    let wide = is_ymm(i.op0_register());
    let b = source(cpu, i, 1, wide)?;
    let a = get(cpu, i.op0_register());
    let zero =
        |f: fn(u128, u128) -> u128| f(a[0], b[0]) & signs == 0 && (!wide || f(a[1], b[1]) & signs == 0);
    let (z, c) = (zero(|a, b| a & b), zero(|a, b| !a & b));
    cpu.set_arith_flags(u64::from(z) << 6 | u64::from(c));
    Ok(())
}

/// A bit of each lane's sign: `$f` gives those of one half, `$n` of them.
macro_rules! signs {
    ($f:expr, $n:literal) => {
        handler!(|cpu, i| {
            let f = $f;
            let [low, high] = get(cpu, i.op1_register());
            let r: u32 = f(low) | f(high) << $n;
            cpu.regs[gn(i.op0_register())] = u64::from(r);
            Ok(())
        })
    };
}

fn signs32(v: u128) -> u32 {
    let d = l::dwords(v);
    (0..4).map(|k| d[k] >> 31 << k).sum()
}
fn signs64(v: u128) -> u32 {
    let q = l::qwords(v);
    (q[0] >> 63 | q[1] >> 63 << 1) as u32
}

/// `op xmm, xmm, mem64` and the moves between halves of xmm registers: `$f` gets operand 1 and the other's bits.
macro_rules! halves {
    (m64 $f:expr) => {
        handler!(|cpu, i| {
            let b = u128::from(source_low::<u64>(cpu, i, 2)?);
            let f = $f;
            let r = f(cpu.fpu.xmm[xn(i.op1_register())], b);
            set_xmm(cpu, i, r)
        })
    };
    (xmm $f:expr) => {
        handler!(|cpu, i| {
            let f = $f;
            let r = f(
                cpu.fpu.xmm[xn(i.op1_register())],
                cpu.fpu.xmm[xn(i.op2_register())],
            );
            set_xmm(cpu, i, r)
        })
    };
}

fn extract(v: Ymm, imm: u8) -> u128 {
    v[usize::from(imm & 1)]
}

pub(super) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        VEX_Vmovups_xmm_xmmm128
        | VEX_Vmovups_ymm_ymmm256
        | VEX_Vmovupd_xmm_xmmm128
        | VEX_Vmovupd_ymm_ymmm256
        | VEX_Vmovdqu_xmm_xmmm128
        | VEX_Vmovdqu_ymm_ymmm256
        | VEX_Vlddqu_xmm_m128
        | VEX_Vlddqu_ymm_m256 => load::<false>,
        VEX_Vmovaps_xmm_xmmm128
        | VEX_Vmovaps_ymm_ymmm256
        | VEX_Vmovapd_xmm_xmmm128
        | VEX_Vmovapd_ymm_ymmm256
        | VEX_Vmovdqa_xmm_xmmm128
        | VEX_Vmovdqa_ymm_ymmm256
        | VEX_Vmovntdqa_xmm_m128
        | VEX_Vmovntdqa_ymm_m256 => load::<true>,
        VEX_Vmovups_xmmm128_xmm
        | VEX_Vmovups_ymmm256_ymm
        | VEX_Vmovupd_xmmm128_xmm
        | VEX_Vmovupd_ymmm256_ymm
        | VEX_Vmovdqu_xmmm128_xmm
        | VEX_Vmovdqu_ymmm256_ymm => store::<false>,
        VEX_Vmovaps_xmmm128_xmm
        | VEX_Vmovaps_ymmm256_ymm
        | VEX_Vmovapd_xmmm128_xmm
        | VEX_Vmovapd_ymmm256_ymm
        | VEX_Vmovdqa_xmmm128_xmm
        | VEX_Vmovdqa_ymmm256_ymm
        | VEX_Vmovntps_m128_xmm
        | VEX_Vmovntps_m256_ymm
        | VEX_Vmovntpd_m128_xmm
        | VEX_Vmovntpd_m256_ymm
        | VEX_Vmovntdq_m128_xmm
        | VEX_Vmovntdq_m256_ymm => store::<true>,
        VEX_Vmovss_xmm_m32 => legacy!(to_xmm Movss_xmm_xmmm32),
        VEX_Vmovsd_xmm_m64 => legacy!(to_xmm Movsd_xmm_xmmm64),
        VEX_Vmovss_m32_xmm => legacy!(Movss_xmmm32_xmm),
        VEX_Vmovsd_m64_xmm => legacy!(Movsd_xmmm64_xmm),
        VEX_Vmovss_xmm_xmm_xmm | VEX_Vmovss_xmm_xmm_xmm_0F11 => {
            halves!(xmm |a: u128, b: u128| low32(a, b as u32))
        }
        VEX_Vmovsd_xmm_xmm_xmm | VEX_Vmovsd_xmm_xmm_xmm_0F11 => {
            halves!(xmm |a: u128, b: u128| low64(a, b as u64))
        }
        VEX_Vmovhlps_xmm_xmm_xmm => halves!(xmm |a: u128, b: u128| (a & HIGH) | b >> 64),
        VEX_Vmovlhps_xmm_xmm_xmm => halves!(xmm |a: u128, b: u128| (a & !HIGH) | b << 64),
        VEX_Vmovlps_xmm_xmm_m64 | VEX_Vmovlpd_xmm_xmm_m64 => halves!(m64 |a: u128, b: u128| (a & HIGH) | b),
        VEX_Vmovhps_xmm_xmm_m64 | VEX_Vmovhpd_xmm_xmm_m64 => {
            halves!(m64 |a: u128, b: u128| (a & !HIGH) | b << 64)
        }
        VEX_Vmovlps_m64_xmm | VEX_Vmovlpd_m64_xmm => legacy!(Movlps_m64_xmm),
        VEX_Vmovhps_m64_xmm | VEX_Vmovhpd_m64_xmm => legacy!(Movhps_m64_xmm),
        VEX_Vmovd_xmm_rm32 => legacy!(to_xmm Movd_xmm_rm32),
        VEX_Vmovq_xmm_rm64 => legacy!(to_xmm Movq_xmm_rm64),
        VEX_Vmovd_rm32_xmm => legacy!(Movd_rm32_xmm),
        VEX_Vmovq_rm64_xmm => legacy!(Movq_rm64_xmm),
        VEX_Vmovq_xmm_xmmm64 => legacy!(to_xmm Movq_xmm_xmmm64),
        VEX_Vmovq_xmmm64_xmm => handler!(|cpu, i| {
            let v = cpu.fpu.xmm[xn(i.op1_register())] as u64;
            if i.op0_kind() == OpKind::Register {
                return set_xmm(cpu, i, u128::from(v));
            }
            let va = cpu.ea(i);
            cpu.write::<u64>(va, v)
        }),
        VEX_Vmovddup_xmm_xmmm64 => legacy!(to_xmm Movddup_xmm_xmmm64),
        VEX_Vmovddup_ymm_ymmm256 => un!(|b| l::punpcklqdq(b, b)),
        VEX_Vmovsldup_xmm_xmmm128 | VEX_Vmovsldup_ymm_ymmm256 => un!(|b| {
            let v = l::dwords(b);
            l::from_dwords([v[0], v[0], v[2], v[2]])
        }),
        VEX_Vmovshdup_xmm_xmmm128 | VEX_Vmovshdup_ymm_ymmm256 => un!(|b| {
            let v = l::dwords(b);
            l::from_dwords([v[1], v[1], v[3], v[3]])
        }),
        VEX_Vmovmskps_r32_xmm | VEX_Vmovmskps_r64_xmm => legacy!(Movmskps_r32_xmm),
        VEX_Vmovmskpd_r32_xmm | VEX_Vmovmskpd_r64_xmm => legacy!(Movmskpd_r32_xmm),
        VEX_Vpmovmskb_r32_xmm | VEX_Vpmovmskb_r64_xmm => legacy!(Pmovmskb_r32_xmm),
        VEX_Vmovmskps_r32_ymm | VEX_Vmovmskps_r64_ymm => signs!(signs32, 4),
        VEX_Vmovmskpd_r32_ymm | VEX_Vmovmskpd_r64_ymm => signs!(signs64, 2),
        VEX_Vpmovmskb_r32_ymm | VEX_Vpmovmskb_r64_ymm => signs!(l::byte_mask, 16),
        VEX_Vmaskmovdqu_rDI_xmm_xmm => legacy!(Maskmovdqu_rDI_xmm_xmm),
        VEX_Vldmxcsr_m32 => legacy!(Ldmxcsr_m32),
        VEX_Vstmxcsr_m32 => legacy!(Stmxcsr_m32),
        VEX_Vzeroupper => handler!(|cpu, i| {
            let count = if cpu.seg.code32 { 8 } else { 16 };
            cpu.fpu.ymm_hi[..count].fill(0);
            Ok(())
        }),
        VEX_Vzeroall => handler!(|cpu, i| {
            let count = if cpu.seg.code32 { 8 } else { 16 };
            cpu.fpu.xmm[..count].fill(0);
            cpu.fpu.ymm_hi[..count].fill(0);
            Ok(())
        }),
        VEX_Vptest_xmm_xmmm128 | VEX_Vptest_ymm_ymmm256 => handler!(|cpu, i| test(cpu, i, u128::MAX)),
        VEX_Vtestps_xmm_xmmm128 | VEX_Vtestps_ymm_ymmm256 => {
            handler!(|cpu, i| test(cpu, i, 0x80000000_80000000_80000000_80000000))
        }
        VEX_Vtestpd_xmm_xmmm128 | VEX_Vtestpd_ymm_ymmm256 => {
            handler!(|cpu, i| test(cpu, i, 0x8000000000000000_8000000000000000))
        }
        VEX_Vpbroadcastb_xmm_xmmm8 | VEX_Vpbroadcastb_ymm_xmmm8 => broadcast::<u8>,
        VEX_Vpbroadcastw_xmm_xmmm16 | VEX_Vpbroadcastw_ymm_xmmm16 => broadcast::<u16>,
        VEX_Vpbroadcastd_xmm_xmmm32
        | VEX_Vpbroadcastd_ymm_xmmm32
        | VEX_Vbroadcastss_xmm_m32
        | VEX_Vbroadcastss_ymm_m32
        | VEX_Vbroadcastss_xmm_xmm
        | VEX_Vbroadcastss_ymm_xmm => broadcast::<u32>,
        VEX_Vpbroadcastq_xmm_xmmm64
        | VEX_Vpbroadcastq_ymm_xmmm64
        | VEX_Vbroadcastsd_ymm_m64
        | VEX_Vbroadcastsd_ymm_xmm => broadcast::<u64>,
        VEX_Vbroadcastf128_ymm_m128 | VEX_Vbroadcasti128_ymm_m128 => broadcast::<u128>,
        VEX_Vinsertf128_ymm_ymm_xmmm128_imm8 | VEX_Vinserti128_ymm_ymm_xmmm128_imm8 => handler!(|cpu, i| {
            let b = source128(cpu, i, 2)?;
            let mut v = get(cpu, i.op1_register());
            v[usize::from(i.immediate8() & 1)] = b;
            set(cpu, i.op0_register(), v);
            Ok(())
        }),
        VEX_Vextractf128_xmmm128_ymm_imm8 | VEX_Vextracti128_xmmm128_ymm_imm8 => handler!(|cpu, i| {
            let v = extract(get(cpu, i.op1_register()), i.immediate8());
            if i.op0_kind() == OpKind::Register {
                return set_xmm(cpu, i, v);
            }
            let va = cpu.ea(i);
            cpu.write::<u128>(va, v)
        }),
        _ => return None,
    })
}
