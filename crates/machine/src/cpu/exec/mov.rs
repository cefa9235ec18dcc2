// SPDX-License-Identifier: Apache-2.0
//! Data movement between registers and memory, conditional moves and sets.

use super::operand::*;
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind, Register};

fn mov<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?;
    write_op::<B>(cpu, i, 0, v)
}

/// movzx: from width `S`; the destination register knows its own width.
fn movzx<const S: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<S>(cpu, i, 1)?;
    set_gpr(cpu, i.op0_register(), v);
    Ok(())
}

/// movsx, movsxd.
fn movsx<const S: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<S>(cpu, i, 1)?;
    set_gpr(cpu, i.op0_register(), sext(S, v));
    Ok(())
}

fn lea(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = cpu.ea_offset(i);
    set_gpr(cpu, i.op0_register(), v);
    Ok(())
}

fn cmov<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    // The source is read, and may fault, whatever the condition; a 32-bit destination is zero-extended always.
    let v = read_op::<B>(cpu, i, 1)?;
    let r = i.op0_register();
    let v = if cpu.cond(i.condition_code()) {
        v
    } else {
        gpr(cpu, r)
    };
    set_gpr(cpu, r, v);
    Ok(())
}

fn set(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = cpu.cond(i.condition_code()) as u64;
    write_op::<8>(cpu, i, 0, v)
}

fn bswap<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let r = i.op0_register();
    let v = gpr(cpu, r);
    // A 16-bit bswap is undefined; processors give zero.
    let v = match B {
        16 => 0,
        32 => (v as u32).swap_bytes() as u64,
        _ => v.swap_bytes(),
    };
    set_gpr(cpu, r, v);
    Ok(())
}

fn movbe<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?.swap_bytes() >> (64 - B);
    write_op::<B>(cpu, i, 0, v)
}

fn xlat(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let off = gpr(cpu, i.memory_base()).wrapping_add(acc::<8>(cpu));
    let off = match i.memory_base() {
        Register::RBX => off,
        Register::EBX => off as u32 as u64,
        _ => off as u16 as u64,
    };
    let va = cpu.operand_va(i, 0, i.memory_segment(), off, 1);
    let v = load::<8>(cpu, va)?;
    set_low::<8>(cpu, RAX, v);
    Ok(())
}

/// cbw, cwde, cdqe: the accumulator of width `S` sign-extended to twice that.
fn extend<const S: u32, const D: u32>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let v = sext(S, acc::<S>(cpu));
    set_low::<D>(cpu, RAX, v);
    Ok(())
}

/// cwd, cdq, cqo: the accumulator's sign into the data register.
fn spread<const B: u32>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let v = sext(1, acc::<B>(cpu) >> (B - 1));
    set_low::<B>(cpu, RDX, v);
    Ok(())
}

/// xchg. With memory it is locked, prefix or not.
fn xchg<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    // Either operand may be the memory one, as the decoder likes.
    let (mem, reg) = if i.op0_kind() == OpKind::Memory {
        (0, 1)
    } else {
        (1, 0)
    };
    let r = i.op_register(reg);
    let v = gpr(cpu, r);
    if i.op_kind(mem) == OpKind::Memory {
        let va = cpu.ea(i);
        let old = rmw_mem::<B>(cpu, va, true, &mut |_| Some(v))?;
        set_gpr(cpu, r, old);
    } else {
        let other = i.op_register(mem);
        let old = gpr(cpu, other);
        set_gpr(cpu, other, v);
        set_gpr(cpu, r, old);
    }
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Mov_rm8_r8 | Mov_r8_rm8 | Mov_AL_moffs8 | Mov_moffs8_AL | Mov_r8_imm8 | Mov_rm8_imm8 => mov::<8>,
        Mov_rm16_r16 | Mov_r16_rm16 | Mov_AX_moffs16 | Mov_moffs16_AX | Mov_r16_imm16 | Mov_rm16_imm16 => {
            mov::<16>
        }
        Mov_rm32_r32 | Mov_r32_rm32 | Mov_EAX_moffs32 | Mov_moffs32_EAX | Mov_r32_imm32 | Mov_rm32_imm32 => {
            mov::<32>
        }
        Mov_rm64_r64 | Mov_r64_rm64 | Mov_RAX_moffs64 | Mov_moffs64_RAX | Mov_r64_imm64 | Mov_rm64_imm32 => {
            mov::<64>
        }
        Movnti_m32_r32 => mov::<32>,
        Movnti_m64_r64 => mov::<64>,
        Movzx_r16_rm8 | Movzx_r32_rm8 | Movzx_r64_rm8 => movzx::<8>,
        Movzx_r16_rm16 | Movzx_r32_rm16 | Movzx_r64_rm16 => movzx::<16>,
        Movsx_r16_rm8 | Movsx_r32_rm8 | Movsx_r64_rm8 => movsx::<8>,
        Movsx_r16_rm16 | Movsx_r32_rm16 | Movsx_r64_rm16 | Movsxd_r16_rm16 => movsx::<16>,
        Movsxd_r32_rm32 | Movsxd_r64_rm32 => movsx::<32>,
        Lea_r16_m | Lea_r32_m | Lea_r64_m => lea,
        Cmovo_r16_rm16 => cmov::<16>,
        Cmovo_r32_rm32 => cmov::<32>,
        Cmovo_r64_rm64 => cmov::<64>,
        Cmovno_r16_rm16 => cmov::<16>,
        Cmovno_r32_rm32 => cmov::<32>,
        Cmovno_r64_rm64 => cmov::<64>,
        Cmovb_r16_rm16 => cmov::<16>,
        Cmovb_r32_rm32 => cmov::<32>,
        Cmovb_r64_rm64 => cmov::<64>,
        Cmovae_r16_rm16 => cmov::<16>,
        Cmovae_r32_rm32 => cmov::<32>,
        Cmovae_r64_rm64 => cmov::<64>,
        Cmove_r16_rm16 => cmov::<16>,
        Cmove_r32_rm32 => cmov::<32>,
        Cmove_r64_rm64 => cmov::<64>,
        Cmovne_r16_rm16 => cmov::<16>,
        Cmovne_r32_rm32 => cmov::<32>,
        Cmovne_r64_rm64 => cmov::<64>,
        Cmovbe_r16_rm16 => cmov::<16>,
        Cmovbe_r32_rm32 => cmov::<32>,
        Cmovbe_r64_rm64 => cmov::<64>,
        Cmova_r16_rm16 => cmov::<16>,
        Cmova_r32_rm32 => cmov::<32>,
        Cmova_r64_rm64 => cmov::<64>,
        Cmovs_r16_rm16 => cmov::<16>,
        Cmovs_r32_rm32 => cmov::<32>,
        Cmovs_r64_rm64 => cmov::<64>,
        Cmovns_r16_rm16 => cmov::<16>,
        Cmovns_r32_rm32 => cmov::<32>,
        Cmovns_r64_rm64 => cmov::<64>,
        Cmovp_r16_rm16 => cmov::<16>,
        Cmovp_r32_rm32 => cmov::<32>,
        Cmovp_r64_rm64 => cmov::<64>,
        Cmovnp_r16_rm16 => cmov::<16>,
        Cmovnp_r32_rm32 => cmov::<32>,
        Cmovnp_r64_rm64 => cmov::<64>,
        Cmovl_r16_rm16 => cmov::<16>,
        Cmovl_r32_rm32 => cmov::<32>,
        Cmovl_r64_rm64 => cmov::<64>,
        Cmovge_r16_rm16 => cmov::<16>,
        Cmovge_r32_rm32 => cmov::<32>,
        Cmovge_r64_rm64 => cmov::<64>,
        Cmovle_r16_rm16 => cmov::<16>,
        Cmovle_r32_rm32 => cmov::<32>,
        Cmovle_r64_rm64 => cmov::<64>,
        Cmovg_r16_rm16 => cmov::<16>,
        Cmovg_r32_rm32 => cmov::<32>,
        Cmovg_r64_rm64 => cmov::<64>,
        Seto_rm8 | Setno_rm8 | Setb_rm8 | Setae_rm8 | Sete_rm8 | Setne_rm8 | Setbe_rm8 | Seta_rm8
        | Sets_rm8 | Setns_rm8 | Setp_rm8 | Setnp_rm8 | Setl_rm8 | Setge_rm8 | Setle_rm8 | Setg_rm8 => set,
        Bswap_r16 => bswap::<16>,
        Bswap_r32 => bswap::<32>,
        Bswap_r64 => bswap::<64>,
        Movbe_r16_m16 | Movbe_m16_r16 => movbe::<16>,
        Movbe_r32_m32 | Movbe_m32_r32 => movbe::<32>,
        Movbe_r64_m64 | Movbe_m64_r64 => movbe::<64>,
        Xlat_m8 => xlat,
        Cbw => extend::<8, 16>,
        Cwde => extend::<16, 32>,
        Cdqe => extend::<32, 64>,
        Cwd => spread::<16>,
        Cdq => spread::<32>,
        Cqo => spread::<64>,
        Xchg_rm8_r8 => xchg::<8>,
        Xchg_rm16_r16 | Xchg_r16_AX => xchg::<16>,
        Xchg_rm32_r32 | Xchg_r32_EAX => xchg::<32>,
        Xchg_rm64_r64 | Xchg_r64_RAX => xchg::<64>,
        _ => return None,
    })
}
