// SPDX-License-Identifier: Apache-2.0
//! Packed integer arithmetic, logic and compares; AES and carry-less products.

use super::{bin, bin_imm, handler, legacy, set_xmm, source128, un};
use crate::cpu::exec::sse::{crypto, int, lane as l};
use crate::cpu::SlowFn;
use iced_x86::Code;

/// A string compare whose mask goes to xmm0.
macro_rules! mask {
    ($code:ident) => {
        handler!(|cpu, i| {
            super::as_legacy(cpu, i, Code::$code)?;
            cpu.fpu.ymm_hi[0] = 0;
            Ok(())
        })
    };
}

pub(super) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        VEX_Vpand_xmm_xmm_xmmm128
        | VEX_Vpand_ymm_ymm_ymmm256
        | VEX_Vandps_xmm_xmm_xmmm128
        | VEX_Vandps_ymm_ymm_ymmm256
        | VEX_Vandpd_xmm_xmm_xmmm128
        | VEX_Vandpd_ymm_ymm_ymmm256 => bin!(l::pand),
        VEX_Vpandn_xmm_xmm_xmmm128
        | VEX_Vpandn_ymm_ymm_ymmm256
        | VEX_Vandnps_xmm_xmm_xmmm128
        | VEX_Vandnps_ymm_ymm_ymmm256
        | VEX_Vandnpd_xmm_xmm_xmmm128
        | VEX_Vandnpd_ymm_ymm_ymmm256 => bin!(l::pandn),
        VEX_Vpor_xmm_xmm_xmmm128
        | VEX_Vpor_ymm_ymm_ymmm256
        | VEX_Vorps_xmm_xmm_xmmm128
        | VEX_Vorps_ymm_ymm_ymmm256
        | VEX_Vorpd_xmm_xmm_xmmm128
        | VEX_Vorpd_ymm_ymm_ymmm256 => bin!(l::por),
        VEX_Vpxor_xmm_xmm_xmmm128
        | VEX_Vpxor_ymm_ymm_ymmm256
        | VEX_Vxorps_xmm_xmm_xmmm128
        | VEX_Vxorps_ymm_ymm_ymmm256
        | VEX_Vxorpd_xmm_xmm_xmmm128
        | VEX_Vxorpd_ymm_ymm_ymmm256 => bin!(l::pxor),
        VEX_Vpaddb_xmm_xmm_xmmm128 | VEX_Vpaddb_ymm_ymm_ymmm256 => bin!(l::paddb),
        VEX_Vpaddw_xmm_xmm_xmmm128 | VEX_Vpaddw_ymm_ymm_ymmm256 => bin!(l::paddw),
        VEX_Vpaddd_xmm_xmm_xmmm128 | VEX_Vpaddd_ymm_ymm_ymmm256 => bin!(l::paddd),
        VEX_Vpaddq_xmm_xmm_xmmm128 | VEX_Vpaddq_ymm_ymm_ymmm256 => bin!(l::paddq),
        VEX_Vpsubb_xmm_xmm_xmmm128 | VEX_Vpsubb_ymm_ymm_ymmm256 => bin!(l::psubb),
        VEX_Vpsubw_xmm_xmm_xmmm128 | VEX_Vpsubw_ymm_ymm_ymmm256 => bin!(l::psubw),
        VEX_Vpsubd_xmm_xmm_xmmm128 | VEX_Vpsubd_ymm_ymm_ymmm256 => bin!(l::psubd),
        VEX_Vpsubq_xmm_xmm_xmmm128 | VEX_Vpsubq_ymm_ymm_ymmm256 => bin!(l::psubq),
        VEX_Vpaddsb_xmm_xmm_xmmm128 | VEX_Vpaddsb_ymm_ymm_ymmm256 => bin!(l::paddsb),
        VEX_Vpaddsw_xmm_xmm_xmmm128 | VEX_Vpaddsw_ymm_ymm_ymmm256 => bin!(l::paddsw),
        VEX_Vpaddusb_xmm_xmm_xmmm128 | VEX_Vpaddusb_ymm_ymm_ymmm256 => bin!(l::paddusb),
        VEX_Vpaddusw_xmm_xmm_xmmm128 | VEX_Vpaddusw_ymm_ymm_ymmm256 => bin!(l::paddusw),
        VEX_Vpsubsb_xmm_xmm_xmmm128 | VEX_Vpsubsb_ymm_ymm_ymmm256 => bin!(l::psubsb),
        VEX_Vpsubsw_xmm_xmm_xmmm128 | VEX_Vpsubsw_ymm_ymm_ymmm256 => bin!(l::psubsw),
        VEX_Vpsubusb_xmm_xmm_xmmm128 | VEX_Vpsubusb_ymm_ymm_ymmm256 => bin!(l::psubusb),
        VEX_Vpsubusw_xmm_xmm_xmmm128 | VEX_Vpsubusw_ymm_ymm_ymmm256 => bin!(l::psubusw),
        VEX_Vpavgb_xmm_xmm_xmmm128 | VEX_Vpavgb_ymm_ymm_ymmm256 => bin!(l::pavgb),
        VEX_Vpavgw_xmm_xmm_xmmm128 | VEX_Vpavgw_ymm_ymm_ymmm256 => bin!(l::pavgw),
        VEX_Vpminub_xmm_xmm_xmmm128 | VEX_Vpminub_ymm_ymm_ymmm256 => bin!(l::pminub),
        VEX_Vpminuw_xmm_xmm_xmmm128 | VEX_Vpminuw_ymm_ymm_ymmm256 => bin!(l::pminuw),
        VEX_Vpminud_xmm_xmm_xmmm128 | VEX_Vpminud_ymm_ymm_ymmm256 => bin!(l::pminud),
        VEX_Vpminsb_xmm_xmm_xmmm128 | VEX_Vpminsb_ymm_ymm_ymmm256 => bin!(l::pminsb),
        VEX_Vpminsw_xmm_xmm_xmmm128 | VEX_Vpminsw_ymm_ymm_ymmm256 => bin!(l::pminsw),
        VEX_Vpminsd_xmm_xmm_xmmm128 | VEX_Vpminsd_ymm_ymm_ymmm256 => bin!(l::pminsd),
        VEX_Vpmaxub_xmm_xmm_xmmm128 | VEX_Vpmaxub_ymm_ymm_ymmm256 => bin!(l::pmaxub),
        VEX_Vpmaxuw_xmm_xmm_xmmm128 | VEX_Vpmaxuw_ymm_ymm_ymmm256 => bin!(l::pmaxuw),
        VEX_Vpmaxud_xmm_xmm_xmmm128 | VEX_Vpmaxud_ymm_ymm_ymmm256 => bin!(l::pmaxud),
        VEX_Vpmaxsb_xmm_xmm_xmmm128 | VEX_Vpmaxsb_ymm_ymm_ymmm256 => bin!(l::pmaxsb),
        VEX_Vpmaxsw_xmm_xmm_xmmm128 | VEX_Vpmaxsw_ymm_ymm_ymmm256 => bin!(l::pmaxsw),
        VEX_Vpmaxsd_xmm_xmm_xmmm128 | VEX_Vpmaxsd_ymm_ymm_ymmm256 => bin!(l::pmaxsd),
        VEX_Vpcmpeqb_xmm_xmm_xmmm128 | VEX_Vpcmpeqb_ymm_ymm_ymmm256 => bin!(l::pcmpeqb),
        VEX_Vpcmpeqw_xmm_xmm_xmmm128 | VEX_Vpcmpeqw_ymm_ymm_ymmm256 => bin!(l::pcmpeqw),
        VEX_Vpcmpeqd_xmm_xmm_xmmm128 | VEX_Vpcmpeqd_ymm_ymm_ymmm256 => bin!(l::pcmpeqd),
        VEX_Vpcmpeqq_xmm_xmm_xmmm128 | VEX_Vpcmpeqq_ymm_ymm_ymmm256 => bin!(l::pcmpeqq),
        VEX_Vpcmpgtb_xmm_xmm_xmmm128 | VEX_Vpcmpgtb_ymm_ymm_ymmm256 => bin!(l::pcmpgtb),
        VEX_Vpcmpgtw_xmm_xmm_xmmm128 | VEX_Vpcmpgtw_ymm_ymm_ymmm256 => bin!(l::pcmpgtw),
        VEX_Vpcmpgtd_xmm_xmm_xmmm128 | VEX_Vpcmpgtd_ymm_ymm_ymmm256 => bin!(l::pcmpgtd),
        VEX_Vpcmpgtq_xmm_xmm_xmmm128 | VEX_Vpcmpgtq_ymm_ymm_ymmm256 => bin!(l::pcmpgtq),
        VEX_Vpmullw_xmm_xmm_xmmm128 | VEX_Vpmullw_ymm_ymm_ymmm256 => bin!(l::pmullw),
        VEX_Vpmulld_xmm_xmm_xmmm128 | VEX_Vpmulld_ymm_ymm_ymmm256 => bin!(l::pmulld),
        VEX_Vpmulhw_xmm_xmm_xmmm128 | VEX_Vpmulhw_ymm_ymm_ymmm256 => bin!(l::pmulhw),
        VEX_Vpmulhuw_xmm_xmm_xmmm128 | VEX_Vpmulhuw_ymm_ymm_ymmm256 => bin!(l::pmulhuw),
        VEX_Vpmulhrsw_xmm_xmm_xmmm128 | VEX_Vpmulhrsw_ymm_ymm_ymmm256 => bin!(l::pmulhrsw),
        VEX_Vpmuludq_xmm_xmm_xmmm128 | VEX_Vpmuludq_ymm_ymm_ymmm256 => bin!(l::pmuludq),
        VEX_Vpmuldq_xmm_xmm_xmmm128 | VEX_Vpmuldq_ymm_ymm_ymmm256 => bin!(l::pmuldq),
        VEX_Vpmaddwd_xmm_xmm_xmmm128 | VEX_Vpmaddwd_ymm_ymm_ymmm256 => bin!(l::pmaddwd),
        VEX_Vpmaddubsw_xmm_xmm_xmmm128 | VEX_Vpmaddubsw_ymm_ymm_ymmm256 => bin!(l::pmaddubsw),
        VEX_Vpsadbw_xmm_xmm_xmmm128 | VEX_Vpsadbw_ymm_ymm_ymmm256 => bin!(l::psadbw),
        VEX_Vpsignb_xmm_xmm_xmmm128 | VEX_Vpsignb_ymm_ymm_ymmm256 => bin!(l::psignb),
        VEX_Vpsignw_xmm_xmm_xmmm128 | VEX_Vpsignw_ymm_ymm_ymmm256 => bin!(l::psignw),
        VEX_Vpsignd_xmm_xmm_xmmm128 | VEX_Vpsignd_ymm_ymm_ymmm256 => bin!(l::psignd),
        VEX_Vphaddw_xmm_xmm_xmmm128 | VEX_Vphaddw_ymm_ymm_ymmm256 => bin!(l::phaddw),
        VEX_Vphaddd_xmm_xmm_xmmm128 | VEX_Vphaddd_ymm_ymm_ymmm256 => bin!(l::phaddd),
        VEX_Vphaddsw_xmm_xmm_xmmm128 | VEX_Vphaddsw_ymm_ymm_ymmm256 => bin!(l::phaddsw),
        VEX_Vphsubw_xmm_xmm_xmmm128 | VEX_Vphsubw_ymm_ymm_ymmm256 => bin!(l::phsubw),
        VEX_Vphsubd_xmm_xmm_xmmm128 | VEX_Vphsubd_ymm_ymm_ymmm256 => bin!(l::phsubd),
        VEX_Vphsubsw_xmm_xmm_xmmm128 | VEX_Vphsubsw_ymm_ymm_ymmm256 => bin!(l::phsubsw),
        VEX_Vpabsb_xmm_xmmm128 | VEX_Vpabsb_ymm_ymmm256 => un!(|b| l::pabsb(0, b)),
        VEX_Vpabsw_xmm_xmmm128 | VEX_Vpabsw_ymm_ymmm256 => un!(|b| l::pabsw(0, b)),
        VEX_Vpabsd_xmm_xmmm128 | VEX_Vpabsd_ymm_ymmm256 => un!(|b| l::pabsd(0, b)),
        VEX_Vphminposuw_xmm_xmmm128 => un!(int::phminposuw),
        VEX_Vmpsadbw_xmm_xmm_xmmm128_imm8 | VEX_Vmpsadbw_ymm_ymm_ymmm256_imm8 => bin_imm!(int::mpsadbw, 3),
        VEX_Vaesenc_xmm_xmm_xmmm128 | VEX_Vaesenc_ymm_ymm_ymmm256 => bin!(crypto::aesenc),
        VEX_Vaesenclast_xmm_xmm_xmmm128 | VEX_Vaesenclast_ymm_ymm_ymmm256 => bin!(crypto::aesenclast),
        VEX_Vaesdec_xmm_xmm_xmmm128 | VEX_Vaesdec_ymm_ymm_ymmm256 => bin!(crypto::aesdec),
        VEX_Vaesdeclast_xmm_xmm_xmmm128 | VEX_Vaesdeclast_ymm_ymm_ymmm256 => bin!(crypto::aesdeclast),
        VEX_Vaesimc_xmm_xmmm128 => un!(crypto::aesimc),
        VEX_Vaeskeygenassist_xmm_xmmm128_imm8 => handler!(|cpu, i| {
            let b = source128(cpu, i, 1)?;
            set_xmm(cpu, i, crypto::key_assist(b, i.immediate8()))
        }),
        VEX_Vpclmulqdq_xmm_xmm_xmmm128_imm8 | VEX_Vpclmulqdq_ymm_ymm_ymmm256_imm8 => {
            bin_imm!(crypto::pclmulqdq)
        }
        VEX_Vpcmpistri_xmm_xmmm128_imm8 => legacy!(Pcmpistri_xmm_xmmm128_imm8),
        VEX_Vpcmpestri_xmm_xmmm128_imm8 => legacy!(Pcmpestri_xmm_xmmm128_imm8),
        VEX_Vpcmpestri64_xmm_xmmm128_imm8 => legacy!(Pcmpestri64_xmm_xmmm128_imm8),
        VEX_Vpcmpistrm_xmm_xmmm128_imm8 => mask!(Pcmpistrm_xmm_xmmm128_imm8),
        VEX_Vpcmpestrm_xmm_xmmm128_imm8 => mask!(Pcmpestrm_xmm_xmmm128_imm8),
        VEX_Vpcmpestrm64_xmm_xmmm128_imm8 => mask!(Pcmpestrm64_xmm_xmmm128_imm8),
        _ => return None,
    })
}
