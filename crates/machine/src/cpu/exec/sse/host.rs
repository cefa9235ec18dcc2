// SPDX-License-Identifier: Apache-2.0
//! Instructions beyond SSE2 that are run by the host's own, where it has them. Looked up before the portable forms; results
//! are the same.
// Instructions of the host's that it may not have.
#![allow(unsafe_code)]
// The types are those that the intrinsics take and give.
#![allow(clippy::missing_transmute_annotations)]

use crate::cpu::SlowFn;
use iced_x86::Code;

#[cfg(not(target_arch = "x86_64"))]
pub fn lookup(_code: Code) -> Option<SlowFn> {
    None
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    x86::lookup(code)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use crate::cpu::exec::sse::{binary, check};
    use crate::cpu::fault::Exec;
    use crate::cpu::{Cpu, SlowFn};
    use iced_x86::{Code, Instruction};
    use std::arch::x86_64::*;
    use std::mem::transmute;

    /// A handler around intrinsics: `$f` takes and gives `__m128i`; `$xmm0` is the implicit operand.
    macro_rules! native {
        ($feature:tt, |$a:ident, $b:ident, $xmm0:ident| $e:expr) => {{
            if !is_x86_feature_detected!($feature) {
                return None;
            }
            #[target_feature(enable = $feature)]
            #[allow(unused_unsafe)]
            unsafe fn operation($a: u128, $b: u128, $xmm0: u128) -> u128 {
                // SAFETY: the caller has seen that the host has the feature; the types are 16 bytes of plain data.
                unsafe {
                    let $a: __m128i = transmute($a);
                    let $b: __m128i = transmute($b);
                    let $xmm0: __m128i = transmute($xmm0);
                    let _ = ($a, $xmm0);
                    transmute($e)
                }
            }
            fn handler(cpu: &mut Cpu, i: &Instruction) -> Exec {
                check(cpu)?;
                let xmm0 = cpu.fpu.xmm[0];
                // SAFETY: this handler is given out only if the host has the feature.
                binary(cpu, i, |a, b| unsafe { operation(a, b, xmm0) })
            }
            handler as SlowFn
        }};
    }

    pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
        use Code::*;
        Some(match code {
            Pshufb_xmm_xmmm128 => native!("ssse3", |a, b, _x| _mm_shuffle_epi8(a, b)),
            Pmaddubsw_xmm_xmmm128 => native!("ssse3", |a, b, _x| _mm_maddubs_epi16(a, b)),
            Pmulhrsw_xmm_xmmm128 => native!("ssse3", |a, b, _x| _mm_mulhrs_epi16(a, b)),
            Phaddw_xmm_xmmm128 => native!("ssse3", |a, b, _x| _mm_hadd_epi16(a, b)),
            Phaddd_xmm_xmmm128 => native!("ssse3", |a, b, _x| _mm_hadd_epi32(a, b)),
            Pabsb_xmm_xmmm128 => native!("ssse3", |a, b, _x| _mm_abs_epi8(b)),
            Pabsw_xmm_xmmm128 => native!("ssse3", |a, b, _x| _mm_abs_epi16(b)),
            Pabsd_xmm_xmmm128 => native!("ssse3", |a, b, _x| _mm_abs_epi32(b)),
            Pmulld_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_mullo_epi32(a, b)),
            Pmuldq_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_mul_epi32(a, b)),
            Packusdw_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_packus_epi32(a, b)),
            Pminsb_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_min_epi8(a, b)),
            Pminsd_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_min_epi32(a, b)),
            Pminuw_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_min_epu16(a, b)),
            Pminud_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_min_epu32(a, b)),
            Pmaxsb_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_max_epi8(a, b)),
            Pmaxsd_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_max_epi32(a, b)),
            Pmaxuw_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_max_epu16(a, b)),
            Pmaxud_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_max_epu32(a, b)),
            Pcmpeqq_xmm_xmmm128 => native!("sse4.1", |a, b, _x| _mm_cmpeq_epi64(a, b)),
            Pcmpgtq_xmm_xmmm128 => native!("sse4.2", |a, b, _x| _mm_cmpgt_epi64(a, b)),
            Pblendvb_xmm_xmmm128 => native!("sse4.1", |a, b, x| _mm_blendv_epi8(a, b, x)),
            Aesenc_xmm_xmmm128 => native!("aes", |a, b, _x| _mm_aesenc_si128(a, b)),
            Aesenclast_xmm_xmmm128 => native!("aes", |a, b, _x| _mm_aesenclast_si128(a, b)),
            Aesdec_xmm_xmmm128 => native!("aes", |a, b, _x| _mm_aesdec_si128(a, b)),
            Aesdeclast_xmm_xmmm128 => native!("aes", |a, b, _x| _mm_aesdeclast_si128(a, b)),
            Aesimc_xmm_xmmm128 => native!("aes", |a, b, _x| _mm_aesimc_si128(b)),
            Sha1nexte_xmm_xmmm128 => native!("sha", |a, b, _x| _mm_sha1nexte_epu32(a, b)),
            Sha1msg1_xmm_xmmm128 => native!("sha", |a, b, _x| _mm_sha1msg1_epu32(a, b)),
            Sha1msg2_xmm_xmmm128 => native!("sha", |a, b, _x| _mm_sha1msg2_epu32(a, b)),
            Sha256msg1_xmm_xmmm128 => native!("sha", |a, b, _x| _mm_sha256msg1_epu32(a, b)),
            Sha256msg2_xmm_xmmm128 => native!("sha", |a, b, _x| _mm_sha256msg2_epu32(a, b)),
            Sha256rnds2_xmm_xmmm128 => native!("sha", |a, b, x| _mm_sha256rnds2_epu32(a, b, x)),
            _ => return with_immediate(code),
        })
    }

    /// As `native!`, for a few values of an immediate: `|a, b|` with the constant `IMM`.
    macro_rules! by_immediate {
        ($feature:tt, $mask:literal, $f:ident, [$($value:literal)*]) => {{
            if !is_x86_feature_detected!($feature) {
                return None;
            }
            #[target_feature(enable = $feature)]
            #[allow(unused_unsafe)]
            unsafe fn operation(a: u128, b: u128, imm: u8) -> u128 {
                // SAFETY: as in `native!`.
                unsafe {
                    let (a, b): (__m128i, __m128i) = (transmute(a), transmute(b));
                    transmute(match imm & $mask {
                        $($value => $f::<$value>(a, b),)*
                        _ => a,
                    })
                }
            }
            fn handler(cpu: &mut Cpu, i: &Instruction) -> Exec {
                check(cpu)?;
                let imm = i.immediate8();
                // SAFETY: as in `native!`.
                binary(cpu, i, |a, b| unsafe { operation(a, b, imm) })
            }
            handler as SlowFn
        }};
    }

    fn with_immediate(code: Code) -> Option<SlowFn> {
        use Code::*;
        Some(match code {
            Pclmulqdq_xmm_xmmm128_imm8 => {
                by_immediate!("pclmulqdq", 0x11, _mm_clmulepi64_si128, [0 1 16 17])
            }
            Sha1rnds4_xmm_xmmm128_imm8 => by_immediate!("sha", 3, _mm_sha1rnds4_epu32, [0 1 2 3]),
            _ => return None,
        })
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::lookup;
    use crate::cpu::exec::sse::{crypto, int, permute};
    use crate::testing::TestVm;
    use iced_x86::{Code, Decoder, DecoderOptions};

    #[test]
    fn the_hosts_instructions_give_what_the_portable_forms_give() {
        let mut vm = TestVm::new(&[]);
        let mut x = 0x1234_5678_9abc_def0_0fed_cba9_8765_4321u128;
        let mut next = || {
            x ^= x << 25;
            x ^= x >> 54;
            x ^= x << 61;
            x
        };
        let mut compared = 0;
        for map in [&[0x0f, 0x38][..], &[0x0f, 0x3a]] {
            for (prefix, op) in [true, false]
                .into_iter()
                .flat_map(|p| (0..=255u8).map(move |op| (p, op)))
            {
                let mut bytes = if prefix { vec![0x66] } else { vec![] };
                bytes.extend_from_slice(map);
                bytes.extend_from_slice(&[op, 0xca, 0x11]);
                let i = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
                let slow = |c: Code| {
                    int::lookup(c)
                        .or_else(|| permute::lookup(c))
                        .or_else(|| crypto::lookup(c))
                };
                let (Some(native), Some(portable)) = (lookup(i.code()), slow(i.code())) else {
                    continue;
                };
                for _ in 0..500 {
                    let start = [next(), next(), next()];
                    vm.cpu.fpu.xmm[..3].copy_from_slice(&start);
                    assert_eq!(native(&mut vm.cpu, &i), Ok(()));
                    let expected = vm.cpu.fpu.xmm;
                    vm.cpu.fpu.xmm[..3].copy_from_slice(&start);
                    assert_eq!(portable(&mut vm.cpu, &i), Ok(()));
                    assert_eq!(vm.cpu.fpu.xmm, expected, "{:?} {start:x?}", i.code());
                    compared += 1;
                }
            }
        }
        assert!(compared > 500 || !is_x86_feature_detected!("ssse3"), "{compared}");
    }
}
