// SPDX-License-Identifier: Apache-2.0
//! Shifts: by an immediate, by the low 64 bits of an xmm register, and lane by lane.

use super::{bin, get, handler, is_ymm, set, source128, Ymm};
use crate::cpu::exec::sse::lane as l;
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

#[inline(always)]
fn shift(cpu: &mut Cpu, i: &Instruction, count: u128, f: impl Fn(u128, u128) -> u128) -> Exec {
    let d = i.op0_register();
    let [low, high]: Ymm = get(cpu, i.op1_register());
    let upper = if is_ymm(d) { f(high, count) } else { 0 };
    set(cpu, d, [f(low, count), upper]);
    Ok(())
}

macro_rules! by_immediate {
    ($f:path) => {
        handler!(|cpu, i| shift(cpu, i, u128::from(i.immediate8()), $f))
    };
}
macro_rules! by_register {
    ($f:path) => {
        handler!(|cpu, i| {
            let count = source128(cpu, i, 2)?;
            shift(cpu, i, count, $f)
        })
    };
}

pub(super) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        VEX_Vpsllw_xmm_xmm_imm8 | VEX_Vpsllw_ymm_ymm_imm8 => by_immediate!(l::psllw),
        VEX_Vpslld_xmm_xmm_imm8 | VEX_Vpslld_ymm_ymm_imm8 => by_immediate!(l::pslld),
        VEX_Vpsllq_xmm_xmm_imm8 | VEX_Vpsllq_ymm_ymm_imm8 => by_immediate!(l::psllq),
        VEX_Vpsrlw_xmm_xmm_imm8 | VEX_Vpsrlw_ymm_ymm_imm8 => by_immediate!(l::psrlw),
        VEX_Vpsrld_xmm_xmm_imm8 | VEX_Vpsrld_ymm_ymm_imm8 => by_immediate!(l::psrld),
        VEX_Vpsrlq_xmm_xmm_imm8 | VEX_Vpsrlq_ymm_ymm_imm8 => by_immediate!(l::psrlq),
        VEX_Vpsraw_xmm_xmm_imm8 | VEX_Vpsraw_ymm_ymm_imm8 => by_immediate!(l::psraw),
        VEX_Vpsrad_xmm_xmm_imm8 | VEX_Vpsrad_ymm_ymm_imm8 => by_immediate!(l::psrad),
        VEX_Vpslldq_xmm_xmm_imm8 | VEX_Vpslldq_ymm_ymm_imm8 => by_immediate!(l::pslldq),
        VEX_Vpsrldq_xmm_xmm_imm8 | VEX_Vpsrldq_ymm_ymm_imm8 => by_immediate!(l::psrldq),
        VEX_Vpsllw_xmm_xmm_xmmm128 | VEX_Vpsllw_ymm_ymm_xmmm128 => by_register!(l::psllw),
        VEX_Vpslld_xmm_xmm_xmmm128 | VEX_Vpslld_ymm_ymm_xmmm128 => by_register!(l::pslld),
        VEX_Vpsllq_xmm_xmm_xmmm128 | VEX_Vpsllq_ymm_ymm_xmmm128 => by_register!(l::psllq),
        VEX_Vpsrlw_xmm_xmm_xmmm128 | VEX_Vpsrlw_ymm_ymm_xmmm128 => by_register!(l::psrlw),
        VEX_Vpsrld_xmm_xmm_xmmm128 | VEX_Vpsrld_ymm_ymm_xmmm128 => by_register!(l::psrld),
        VEX_Vpsrlq_xmm_xmm_xmmm128 | VEX_Vpsrlq_ymm_ymm_xmmm128 => by_register!(l::psrlq),
        VEX_Vpsraw_xmm_xmm_xmmm128 | VEX_Vpsraw_ymm_ymm_xmmm128 => by_register!(l::psraw),
        VEX_Vpsrad_xmm_xmm_xmmm128 | VEX_Vpsrad_ymm_ymm_xmmm128 => by_register!(l::psrad),
        VEX_Vpsllvd_xmm_xmm_xmmm128 | VEX_Vpsllvd_ymm_ymm_ymmm256 => {
            bin!(|a, b| l::map32(a, b, |x, n| x.checked_shl(n).unwrap_or(0)))
        }
        VEX_Vpsrlvd_xmm_xmm_xmmm128 | VEX_Vpsrlvd_ymm_ymm_ymmm256 => {
            bin!(|a, b| l::map32(a, b, |x, n| x.checked_shr(n).unwrap_or(0)))
        }
        VEX_Vpsravd_xmm_xmm_xmmm128 | VEX_Vpsravd_ymm_ymm_ymmm256 => {
            bin!(|a, b| l::imap32(a, b, |x, n| x >> (n as u32).min(31)))
        }
        VEX_Vpsllvq_xmm_xmm_xmmm128 | VEX_Vpsllvq_ymm_ymm_ymmm256 => {
            bin!(|a, b| l::map64(a, b, |x, n| if n < 64 { x << n } else { 0 }))
        }
        VEX_Vpsrlvq_xmm_xmm_xmmm128 | VEX_Vpsrlvq_ymm_ymm_ymmm256 => {
            bin!(|a, b| l::map64(a, b, |x, n| if n < 64 { x >> n } else { 0 }))
        }
        _ => return None,
    })
}
