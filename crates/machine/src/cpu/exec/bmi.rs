// SPDX-License-Identifier: Apache-2.0
//! BMI1 and BMI2 on general-purpose registers.

use super::operand::*;
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

fn andn<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let b = read_op::<B>(cpu, i, 2)?;
    let r = !gpr(cpu, i.op1_register()) & b & mask(B);
    set_gpr(cpu, i.op0_register(), r);
    cpu.set_arith_flags(szp::<B>(r));
    Ok(())
}

fn bextr<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?;
    let c = gpr(cpu, i.op2_register());
    let (start, len) = (c as u8 as u32, (c >> 8) as u8 as u32);
    let r = v.checked_shr(start).unwrap_or(0) & mask(len);
    set_gpr(cpu, i.op0_register(), r);
    // SF AF PF are undefined; AMD sets AF, clears SF and derives PF.
    cpu.set_arith_flags(szp::<B>(r) & !SF | AF);
    Ok(())
}

const BLSR: u8 = 1;
const BLSMSK: u8 = 2;
const BLSI: u8 = 3;

fn lowest<const OP: u8, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?;
    let r = match OP {
        BLSR => v & v.wrapping_sub(1),
        BLSMSK => v ^ v.wrapping_sub(1),
        _ => v & v.wrapping_neg(),
    } & mask(B);
    set_gpr(cpu, i.op0_register(), r);
    cpu.set_arith_flags(szp::<B>(r) | flag(CF, (v == 0) != (OP == BLSI)));
    Ok(())
}

fn bzhi<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?;
    let n = gpr(cpu, i.op2_register()) as u8 as u32;
    let r = v & mask(n);
    set_gpr(cpu, i.op0_register(), r);
    cpu.set_arith_flags(szp::<B>(r) | flag(CF, n >= B));
    Ok(())
}

/// pdep (`DEPOSIT`) and pext.
fn parallel<const DEPOSIT: bool, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let mut m = read_op::<B>(cpu, i, 2)?;
    let v = gpr(cpu, i.op1_register());
    let (mut r, mut k) = (0u64, 0);
    while m != 0 {
        let bit = m & m.wrapping_neg();
        if DEPOSIT {
            r |= flag(bit, v >> k & 1 != 0);
        } else {
            r |= flag(1 << k, v & bit != 0);
        }
        m ^= bit;
        k += 1;
    }
    set_gpr(cpu, i.op0_register(), r);
    Ok(())
}

fn rorx<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?;
    let n = imm(i, 2) as u32 & (B - 1);
    let r = if n == 0 {
        v
    } else {
        (v >> n | v << (B - n)) & mask(B)
    };
    set_gpr(cpu, i.op0_register(), r);
    Ok(())
}

const SHLX: u8 = 4;
const SHRX: u8 = 5;
const SARX: u8 = 7;

fn shiftx<const OP: u8, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?;
    let n = gpr(cpu, i.op2_register()) as u32 & (B - 1);
    let r = match OP {
        SHLX => v << n,
        SHRX => v >> n,
        _ => ((sext(B, v) as i64) >> n) as u64,
    };
    set_gpr(cpu, i.op0_register(), r & mask(B));
    Ok(())
}

fn mulx<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let b = read_op::<B>(cpu, i, 2)?;
    let p = (cpu.regs[RDX] & mask(B)) as u128 * b as u128;
    // The upper half wins when both destinations are the same register.
    set_gpr(cpu, i.op1_register(), p as u64 & mask(B));
    set_gpr(cpu, i.op0_register(), (p >> B) as u64);
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        VEX_Andn_r32_r32_rm32 => andn::<32>,
        VEX_Andn_r64_r64_rm64 => andn::<64>,
        VEX_Bextr_r32_rm32_r32 => bextr::<32>,
        VEX_Bextr_r64_rm64_r64 => bextr::<64>,
        VEX_Blsr_r32_rm32 => lowest::<BLSR, 32>,
        VEX_Blsr_r64_rm64 => lowest::<BLSR, 64>,
        VEX_Blsmsk_r32_rm32 => lowest::<BLSMSK, 32>,
        VEX_Blsmsk_r64_rm64 => lowest::<BLSMSK, 64>,
        VEX_Blsi_r32_rm32 => lowest::<BLSI, 32>,
        VEX_Blsi_r64_rm64 => lowest::<BLSI, 64>,
        VEX_Bzhi_r32_rm32_r32 => bzhi::<32>,
        VEX_Bzhi_r64_rm64_r64 => bzhi::<64>,
        VEX_Pdep_r32_r32_rm32 => parallel::<true, 32>,
        VEX_Pdep_r64_r64_rm64 => parallel::<true, 64>,
        VEX_Pext_r32_r32_rm32 => parallel::<false, 32>,
        VEX_Pext_r64_r64_rm64 => parallel::<false, 64>,
        VEX_Rorx_r32_rm32_imm8 => rorx::<32>,
        VEX_Rorx_r64_rm64_imm8 => rorx::<64>,
        VEX_Shlx_r32_rm32_r32 => shiftx::<SHLX, 32>,
        VEX_Shlx_r64_rm64_r64 => shiftx::<SHLX, 64>,
        VEX_Shrx_r32_rm32_r32 => shiftx::<SHRX, 32>,
        VEX_Shrx_r64_rm64_r64 => shiftx::<SHRX, 64>,
        VEX_Sarx_r32_rm32_r32 => shiftx::<SARX, 32>,
        VEX_Sarx_r64_rm64_r64 => shiftx::<SARX, 64>,
        VEX_Mulx_r32_r32_rm32 => mulx::<32>,
        VEX_Mulx_r64_r64_rm64 => mulx::<64>,
        _ => return None,
    })
}
