// SPDX-License-Identifier: Apache-2.0
//! Packed integer arithmetic, logic and shifts on xmm registers.

use super::{bin, handler, lane as l, src128, x0};
use crate::cpu::SlowFn;
use iced_x86::Code;

/// `op xmm, imm8`: a shift by an immediate.
macro_rules! shift_imm {
    ($f:path) => {
        handler!(|cpu, i| {
            let d = x0(i);
            cpu.fpu.xmm[d] = $f(cpu.fpu.xmm[d], u128::from(i.immediate8()));
            Ok(())
        })
    };
}

/// The smallest word, and its index next to it.
pub(crate) fn phminposuw(b: u128) -> u128 {
    let (at, min) = l::words(b)
        .into_iter()
        .enumerate()
        .min_by_key(|&(_, w)| w)
        .unwrap_or((0, 0));
    u128::from(min) | (at as u128) << 16
}

/// Sums of absolute differences of four bytes of `b` and eight overlapping groups of `a`, which the immediate chooses.
pub(crate) fn mpsadbw(a: u128, b: u128, imm: u8) -> u128 {
    let (a, b) = (l::bytes(a), l::bytes(b));
    let (from, at) = (usize::from(imm >> 2 & 1) * 4, usize::from(imm & 3) * 4);
    l::from_words(std::array::from_fn(|k| {
        (0..4)
            .map(|j| u16::from(a[from + k + j].abs_diff(b[at + j])))
            .sum()
    }))
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Pand_xmm_xmmm128 | Andps_xmm_xmmm128 | Andpd_xmm_xmmm128 => bin!(l::pand),
        Pandn_xmm_xmmm128 | Andnps_xmm_xmmm128 | Andnpd_xmm_xmmm128 => bin!(l::pandn),
        Por_xmm_xmmm128 | Orps_xmm_xmmm128 | Orpd_xmm_xmmm128 => bin!(l::por),
        Pxor_xmm_xmmm128 | Xorps_xmm_xmmm128 | Xorpd_xmm_xmmm128 => bin!(l::pxor),
        Paddb_xmm_xmmm128 => bin!(l::paddb),
        Paddw_xmm_xmmm128 => bin!(l::paddw),
        Paddd_xmm_xmmm128 => bin!(l::paddd),
        Paddq_xmm_xmmm128 => bin!(l::paddq),
        Psubb_xmm_xmmm128 => bin!(l::psubb),
        Psubw_xmm_xmmm128 => bin!(l::psubw),
        Psubd_xmm_xmmm128 => bin!(l::psubd),
        Psubq_xmm_xmmm128 => bin!(l::psubq),
        Paddsb_xmm_xmmm128 => bin!(l::paddsb),
        Paddsw_xmm_xmmm128 => bin!(l::paddsw),
        Paddusb_xmm_xmmm128 => bin!(l::paddusb),
        Paddusw_xmm_xmmm128 => bin!(l::paddusw),
        Psubsb_xmm_xmmm128 => bin!(l::psubsb),
        Psubsw_xmm_xmmm128 => bin!(l::psubsw),
        Psubusb_xmm_xmmm128 => bin!(l::psubusb),
        Psubusw_xmm_xmmm128 => bin!(l::psubusw),
        Pavgb_xmm_xmmm128 => bin!(l::pavgb),
        Pavgw_xmm_xmmm128 => bin!(l::pavgw),
        Pminub_xmm_xmmm128 => bin!(l::pminub),
        Pminuw_xmm_xmmm128 => bin!(l::pminuw),
        Pminud_xmm_xmmm128 => bin!(l::pminud),
        Pminsb_xmm_xmmm128 => bin!(l::pminsb),
        Pminsw_xmm_xmmm128 => bin!(l::pminsw),
        Pminsd_xmm_xmmm128 => bin!(l::pminsd),
        Pmaxub_xmm_xmmm128 => bin!(l::pmaxub),
        Pmaxuw_xmm_xmmm128 => bin!(l::pmaxuw),
        Pmaxud_xmm_xmmm128 => bin!(l::pmaxud),
        Pmaxsb_xmm_xmmm128 => bin!(l::pmaxsb),
        Pmaxsw_xmm_xmmm128 => bin!(l::pmaxsw),
        Pmaxsd_xmm_xmmm128 => bin!(l::pmaxsd),
        Pcmpeqb_xmm_xmmm128 => bin!(l::pcmpeqb),
        Pcmpeqw_xmm_xmmm128 => bin!(l::pcmpeqw),
        Pcmpeqd_xmm_xmmm128 => bin!(l::pcmpeqd),
        Pcmpeqq_xmm_xmmm128 => bin!(l::pcmpeqq),
        Pcmpgtb_xmm_xmmm128 => bin!(l::pcmpgtb),
        Pcmpgtw_xmm_xmmm128 => bin!(l::pcmpgtw),
        Pcmpgtd_xmm_xmmm128 => bin!(l::pcmpgtd),
        Pcmpgtq_xmm_xmmm128 => bin!(l::pcmpgtq),
        Pmullw_xmm_xmmm128 => bin!(l::pmullw),
        Pmulld_xmm_xmmm128 => bin!(l::pmulld),
        Pmulhw_xmm_xmmm128 => bin!(l::pmulhw),
        Pmulhuw_xmm_xmmm128 => bin!(l::pmulhuw),
        Pmulhrsw_xmm_xmmm128 => bin!(l::pmulhrsw),
        Pmuludq_xmm_xmmm128 => bin!(l::pmuludq),
        Pmuldq_xmm_xmmm128 => bin!(l::pmuldq),
        Pmaddwd_xmm_xmmm128 => bin!(l::pmaddwd),
        Pmaddubsw_xmm_xmmm128 => bin!(l::pmaddubsw),
        Psadbw_xmm_xmmm128 => bin!(l::psadbw),
        Psignb_xmm_xmmm128 => bin!(l::psignb),
        Psignw_xmm_xmmm128 => bin!(l::psignw),
        Psignd_xmm_xmmm128 => bin!(l::psignd),
        Pabsb_xmm_xmmm128 => bin!(l::pabsb),
        Pabsw_xmm_xmmm128 => bin!(l::pabsw),
        Pabsd_xmm_xmmm128 => bin!(l::pabsd),
        Phaddw_xmm_xmmm128 => bin!(l::phaddw),
        Phaddd_xmm_xmmm128 => bin!(l::phaddd),
        Phaddsw_xmm_xmmm128 => bin!(l::phaddsw),
        Phsubw_xmm_xmmm128 => bin!(l::phsubw),
        Phsubd_xmm_xmmm128 => bin!(l::phsubd),
        Phsubsw_xmm_xmmm128 => bin!(l::phsubsw),
        Psllw_xmm_xmmm128 => bin!(l::psllw),
        Pslld_xmm_xmmm128 => bin!(l::pslld),
        Psllq_xmm_xmmm128 => bin!(l::psllq),
        Psrlw_xmm_xmmm128 => bin!(l::psrlw),
        Psrld_xmm_xmmm128 => bin!(l::psrld),
        Psrlq_xmm_xmmm128 => bin!(l::psrlq),
        Psraw_xmm_xmmm128 => bin!(l::psraw),
        Psrad_xmm_xmmm128 => bin!(l::psrad),
        Psllw_xmm_imm8 => shift_imm!(l::psllw),
        Pslld_xmm_imm8 => shift_imm!(l::pslld),
        Psllq_xmm_imm8 => shift_imm!(l::psllq),
        Pslldq_xmm_imm8 => shift_imm!(l::pslldq),
        Psrlw_xmm_imm8 => shift_imm!(l::psrlw),
        Psrld_xmm_imm8 => shift_imm!(l::psrld),
        Psrlq_xmm_imm8 => shift_imm!(l::psrlq),
        Psrldq_xmm_imm8 => shift_imm!(l::psrldq),
        Psraw_xmm_imm8 => shift_imm!(l::psraw),
        Psrad_xmm_imm8 => shift_imm!(l::psrad),
        Phminposuw_xmm_xmmm128 => bin!(|_, b| phminposuw(b)),
        Mpsadbw_xmm_xmmm128_imm8 => super::bin_imm!(|a, b, imm: u8| mpsadbw(a, b, imm)),
        Ptest_xmm_xmmm128 => handler!(|cpu, i| {
            let b = src128(cpu, i)?;
            let a = cpu.fpu.xmm[x0(i)];
            let zf = u64::from(a & b == 0) << 6;
            cpu.set_arith_flags(zf | u64::from(!a & b == 0));
            Ok(())
        }),
        _ => return None,
    })
}
