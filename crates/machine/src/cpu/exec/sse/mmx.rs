// SPDX-License-Identifier: Apache-2.0
//! MMX: the lane functions of SSE on the low 64 bits. The registers are the significands of the x87 stack.

use super::lane as l;
use super::mov::{rm32, rm64, store32, store64};
use super::permute::{palignr, pshuflw, rm16};
use super::{check, gn, handler, x0, x1};
use crate::cpu::fault::{Exec, Trap};
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind, Register};

/// Number of an MMX register.
#[inline(always)]
pub(crate) fn mm(r: Register) -> usize {
    (r as usize).wrapping_sub(Register::MM0 as usize) & 7
}

/// What every MMX instruction checks first: CR0.TS and a pending x87 exception.
pub(crate) fn enter(cpu: &Cpu) -> Exec {
    check(cpu)?;
    cpu.fpu.x87.check_pending()
}

/// Every MMX instruction but `emms` sets TOP to 0 and marks all registers valid.
pub(crate) fn touch(cpu: &mut Cpu) {
    cpu.fpu.x87.top = 0;
    cpu.fpu.x87.tags = 0xff;
}

pub(crate) fn get(cpu: &Cpu, n: usize) -> u64 {
    cpu.fpu.x87.regs[n & 7].m
}

pub(crate) fn set(cpu: &mut Cpu, n: usize, v: u64) {
    touch(cpu);
    let r = &mut cpu.fpu.x87.regs[n & 7];
    r.m = v;
    r.se = 0xffff;
}

/// Operand 1 as mm or m64.
pub(crate) fn src64(cpu: &mut Cpu, i: &Instruction) -> Result<u64, Trap> {
    if i.op1_kind() == OpKind::Register {
        return Ok(get(cpu, mm(i.op1_register())));
    }
    let va = cpu.ea(i);
    cpu.read::<u64>(va)
}

/// Operand 1 as the low half of mm, or m32.
fn src32(cpu: &mut Cpu, i: &Instruction) -> Result<u64, Trap> {
    if i.op1_kind() == OpKind::Register {
        return Ok(get(cpu, mm(i.op1_register())));
    }
    let va = cpu.ea(i);
    Ok(u64::from(cpu.read::<u32>(va)?))
}

#[inline(always)]
fn binary(cpu: &mut Cpu, i: &Instruction, f: impl Fn(u128, u128) -> u128) -> Exec {
    enter(cpu)?;
    let b = src64(cpu, i)?;
    let d = mm(i.op0_register());
    let r = f(u128::from(get(cpu, d)), u128::from(b)) as u64;
    set(cpu, d, r);
    Ok(())
}

/// A lane function whose low half depends on the low halves only.
macro_rules! mbin {
    ($f:expr) => {
        handler!(|cpu, i| binary(cpu, i, $f))
    };
}
/// A function that puts results of `a` before those of `b`: fed with both joined.
macro_rules! joined {
    ($f:path) => {
        handler!(|cpu, i| binary(cpu, i, |a, b| $f(a | b << 64, 0)))
    };
}
/// `punpckh`: the high half of what `punpckl` gives for 128 bits.
macro_rules! high {
    ($f:path) => {
        handler!(|cpu, i| binary(cpu, i, |a, b| $f(a, b) >> 64))
    };
}
macro_rules! shift_imm {
    ($f:path) => {
        handler!(|cpu, i| {
            enter(cpu)?;
            let d = mm(i.op0_register());
            let r = $f(u128::from(get(cpu, d)), u128::from(i.immediate8())) as u64;
            set(cpu, d, r);
            Ok(())
        })
    };
}
/// `punpckl mm, mm/m32`
macro_rules! low {
    ($f:path) => {
        handler!(|cpu, i| {
            enter(cpu)?;
            let b = src32(cpu, i)?;
            let d = mm(i.op0_register());
            let r = $f(u128::from(get(cpu, d)), u128::from(b)) as u64;
            set(cpu, d, r);
            Ok(())
        })
    };
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    moves(code).or_else(|| arithmetic(code))
}

fn moves(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Emms => handler!(|cpu, i| {
            enter(cpu)?;
            cpu.fpu.x87.top = 0;
            cpu.fpu.x87.tags = 0;
            Ok(())
        }),
        Movd_mm_rm32 => handler!(|cpu, i| {
            enter(cpu)?;
            let v = rm32(cpu, i)?;
            set(cpu, mm(i.op0_register()), u64::from(v));
            Ok(())
        }),
        Movq_mm_rm64 => handler!(|cpu, i| {
            enter(cpu)?;
            let v = rm64(cpu, i)?;
            set(cpu, mm(i.op0_register()), v);
            Ok(())
        }),
        Movd_rm32_mm => handler!(|cpu, i| {
            enter(cpu)?;
            let v = get(cpu, mm(i.op1_register())) as u32;
            store32(cpu, i, v)?;
            touch(cpu);
            Ok(())
        }),
        Movq_rm64_mm => handler!(|cpu, i| {
            enter(cpu)?;
            let v = get(cpu, mm(i.op1_register()));
            store64(cpu, i, v)?;
            touch(cpu);
            Ok(())
        }),
        Movq_mm_mmm64 => mbin!(|_, b| b),
        Movq_mmm64_mm => handler!(|cpu, i| {
            enter(cpu)?;
            let v = get(cpu, mm(i.op1_register()));
            if i.op0_kind() == OpKind::Register {
                set(cpu, mm(i.op0_register()), v);
                return Ok(());
            }
            let va = cpu.ea(i);
            cpu.write::<u64>(va, v)?;
            touch(cpu);
            Ok(())
        }),
        Movntq_m64_mm => handler!(|cpu, i| {
            enter(cpu)?;
            let va = cpu.ea(i);
            cpu.write::<u64>(va, get(cpu, mm(i.op1_register())))?;
            touch(cpu);
            Ok(())
        }),
        Movq2dq_xmm_mm => handler!(|cpu, i| {
            enter(cpu)?;
            touch(cpu);
            cpu.fpu.xmm[x0(i)] = u128::from(get(cpu, mm(i.op1_register())));
            Ok(())
        }),
        Movdq2q_mm_xmm => handler!(|cpu, i| {
            enter(cpu)?;
            let v = cpu.fpu.xmm[x1(i)] as u64;
            set(cpu, mm(i.op0_register()), v);
            Ok(())
        }),
        Pmovmskb_r32_mm | Pmovmskb_r64_mm => handler!(|cpu, i| {
            enter(cpu)?;
            touch(cpu);
            cpu.regs[gn(i.op0_register())] =
                u64::from(l::byte_mask(u128::from(get(cpu, mm(i.op1_register())))));
            Ok(())
        }),
        Maskmovq_rDI_mm_mm => handler!(|cpu, i| {
            enter(cpu)?;
            let value = u128::from(get(cpu, mm(i.op1_register())));
            let mask = l::byte_mask(u128::from(get(cpu, mm(i.op2_register()))));
            super::mov::masked_store(cpu, i, value, mask, 8)?;
            touch(cpu);
            Ok(())
        }),
        Pextrw_r32_mm_imm8 | Pextrw_r64_mm_imm8 => handler!(|cpu, i| {
            enter(cpu)?;
            touch(cpu);
            let v = get(cpu, mm(i.op1_register())) >> (16 * (i.immediate8() & 3));
            cpu.regs[gn(i.op0_register())] = v & 0xffff;
            Ok(())
        }),
        Pinsrw_mm_r32m16_imm8 | Pinsrw_mm_r64m16_imm8 => handler!(|cpu, i| {
            enter(cpu)?;
            let v = u64::from(rm16(cpu, i)?);
            let (d, at) = (mm(i.op0_register()), 16 * (i.immediate8() & 3));
            let r = (get(cpu, d) & !(0xffff << at)) | v << at;
            set(cpu, d, r);
            Ok(())
        }),
        Pshufw_mm_mmm64_imm8 => handler!(|cpu, i| {
            let imm = i.immediate8();
            binary(cpu, i, |_, b| pshuflw(b, imm))
        }),
        Palignr_mm_mmm64_imm8 => handler!(|cpu, i| {
            let imm = i.immediate8();
            binary(cpu, i, |a, b| palignr(0, a << 64 | b, imm))
        }),
        Pshufb_mm_mmm64 => mbin!(|a, b| l::pshufb(a | a << 64, b)),
        _ => return None,
    })
}

fn arithmetic(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Pand_mm_mmm64 => mbin!(l::pand),
        Pandn_mm_mmm64 => mbin!(l::pandn),
        Por_mm_mmm64 => mbin!(l::por),
        Pxor_mm_mmm64 => mbin!(l::pxor),
        Paddb_mm_mmm64 => mbin!(l::paddb),
        Paddw_mm_mmm64 => mbin!(l::paddw),
        Paddd_mm_mmm64 => mbin!(l::paddd),
        Paddq_mm_mmm64 => mbin!(l::paddq),
        Psubb_mm_mmm64 => mbin!(l::psubb),
        Psubw_mm_mmm64 => mbin!(l::psubw),
        Psubd_mm_mmm64 => mbin!(l::psubd),
        Psubq_mm_mmm64 => mbin!(l::psubq),
        Paddsb_mm_mmm64 => mbin!(l::paddsb),
        Paddsw_mm_mmm64 => mbin!(l::paddsw),
        Paddusb_mm_mmm64 => mbin!(l::paddusb),
        Paddusw_mm_mmm64 => mbin!(l::paddusw),
        Psubsb_mm_mmm64 => mbin!(l::psubsb),
        Psubsw_mm_mmm64 => mbin!(l::psubsw),
        Psubusb_mm_mmm64 => mbin!(l::psubusb),
        Psubusw_mm_mmm64 => mbin!(l::psubusw),
        Pavgb_mm_mmm64 => mbin!(l::pavgb),
        Pavgw_mm_mmm64 => mbin!(l::pavgw),
        Pminub_mm_mmm64 => mbin!(l::pminub),
        Pmaxub_mm_mmm64 => mbin!(l::pmaxub),
        Pminsw_mm_mmm64 => mbin!(l::pminsw),
        Pmaxsw_mm_mmm64 => mbin!(l::pmaxsw),
        Pcmpeqb_mm_mmm64 => mbin!(l::pcmpeqb),
        Pcmpeqw_mm_mmm64 => mbin!(l::pcmpeqw),
        Pcmpeqd_mm_mmm64 => mbin!(l::pcmpeqd),
        Pcmpgtb_mm_mmm64 => mbin!(l::pcmpgtb),
        Pcmpgtw_mm_mmm64 => mbin!(l::pcmpgtw),
        Pcmpgtd_mm_mmm64 => mbin!(l::pcmpgtd),
        Pmullw_mm_mmm64 => mbin!(l::pmullw),
        Pmulhw_mm_mmm64 => mbin!(l::pmulhw),
        Pmulhuw_mm_mmm64 => mbin!(l::pmulhuw),
        Pmulhrsw_mm_mmm64 => mbin!(l::pmulhrsw),
        Pmuludq_mm_mmm64 => mbin!(l::pmuludq),
        Pmaddwd_mm_mmm64 => mbin!(l::pmaddwd),
        Pmaddubsw_mm_mmm64 => mbin!(l::pmaddubsw),
        Psadbw_mm_mmm64 => mbin!(l::psadbw),
        Psignb_mm_mmm64 => mbin!(l::psignb),
        Psignw_mm_mmm64 => mbin!(l::psignw),
        Psignd_mm_mmm64 => mbin!(l::psignd),
        Pabsb_mm_mmm64 => mbin!(l::pabsb),
        Pabsw_mm_mmm64 => mbin!(l::pabsw),
        Pabsd_mm_mmm64 => mbin!(l::pabsd),
        Phaddw_mm_mmm64 => joined!(l::phaddw),
        Phaddd_mm_mmm64 => joined!(l::phaddd),
        Phaddsw_mm_mmm64 => joined!(l::phaddsw),
        Phsubw_mm_mmm64 => joined!(l::phsubw),
        Phsubd_mm_mmm64 => joined!(l::phsubd),
        Phsubsw_mm_mmm64 => joined!(l::phsubsw),
        Packsswb_mm_mmm64 => joined!(l::packsswb),
        Packuswb_mm_mmm64 => joined!(l::packuswb),
        Packssdw_mm_mmm64 => joined!(l::packssdw),
        Punpcklbw_mm_mmm32 => low!(l::punpcklbw),
        Punpcklwd_mm_mmm32 => low!(l::punpcklwd),
        Punpckldq_mm_mmm32 => low!(l::punpckldq),
        Punpckhbw_mm_mmm64 => high!(l::punpcklbw),
        Punpckhwd_mm_mmm64 => high!(l::punpcklwd),
        Punpckhdq_mm_mmm64 => high!(l::punpckldq),
        Psllw_mm_mmm64 => mbin!(l::psllw),
        Pslld_mm_mmm64 => mbin!(l::pslld),
        Psllq_mm_mmm64 => mbin!(l::psllq),
        Psrlw_mm_mmm64 => mbin!(l::psrlw),
        Psrld_mm_mmm64 => mbin!(l::psrld),
        Psrlq_mm_mmm64 => mbin!(l::psrlq),
        Psraw_mm_mmm64 => mbin!(l::psraw),
        Psrad_mm_mmm64 => mbin!(l::psrad),
        Psllw_mm_imm8 => shift_imm!(l::psllw),
        Pslld_mm_imm8 => shift_imm!(l::pslld),
        Psllq_mm_imm8 => shift_imm!(l::psllq),
        Psrlw_mm_imm8 => shift_imm!(l::psrlw),
        Psrld_mm_imm8 => shift_imm!(l::psrld),
        Psrlq_mm_imm8 => shift_imm!(l::psrlq),
        Psraw_mm_imm8 => shift_imm!(l::psraw),
        Psrad_mm_imm8 => shift_imm!(l::psrad),
        _ => return None,
    })
}
