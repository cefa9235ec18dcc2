// SPDX-License-Identifier: Apache-2.0
//! Instructions on segment registers and descriptors.

use super::operand::*;
use crate::cpu::fault::{Exec, Trap};
use crate::cpu::regs::seg_index;
use crate::cpu::segment::Access;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind, Register};

/// mov r/m, sreg: 16 bits into memory, zero-extended into wider registers.
fn mov_from(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = cpu.seg.sel[seg_index(i.op1_register())] as u64;
    if i.op0_kind() == OpKind::Register {
        set_gpr(cpu, i.op0_register(), v);
        Ok(())
    } else {
        let va = cpu.ea(i);
        store::<16>(cpu, va, v)
    }
}

fn mov_to(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<16>(cpu, i, 1)?;
    let changed = cpu.load_segment(seg_index(i.op0_register()), v as u16)?;
    end_if(changed)
}

/// Ends the block if code runs in another way from now on.
pub(super) fn end_if(changed: bool) -> Exec {
    if changed {
        Err(Trap::EndBlock)
    } else {
        Ok(())
    }
}

/// les, lds, lfs, lgs, lss: an offset of `B` bits, then a selector.
fn load_far<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let va = cpu.ea(i);
    let off = load::<B>(cpu, va)?;
    let sel = load::<16>(cpu, ea_moved(cpu, i, B as u64 / 8, 2))? as u16;
    let seg = match i.code() {
        Code::Lfs_r16_m1616 | Code::Lfs_r32_m1632 | Code::Lfs_r64_m1664 => Register::FS,
        Code::Lgs_r16_m1616 | Code::Lgs_r32_m1632 | Code::Lgs_r64_m1664 => Register::GS,
        Code::Les_r16_m1616 | Code::Les_r32_m1632 => Register::ES,
        Code::Lds_r16_m1616 | Code::Lds_r32_m1632 => Register::DS,
        _ => Register::SS,
    };
    let changed = cpu.load_segment(seg_index(seg), sel)?;
    set_gpr(cpu, i.op0_register(), off);
    end_if(changed)
}

fn set_zf(cpu: &mut Cpu, on: bool) {
    let f = cpu.rflags() & !ZF;
    cpu.set_arith_flags(f | flag(ZF, on));
}

fn verify<const WRITE: bool>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let sel = read_op::<16>(cpu, i, 0)? as u16;
    let wanted = if WRITE { Access::Write } else { Access::Read };
    let ok = cpu.visible_descriptor(sel)?.is_some_and(|d| d.allows(wanted));
    set_zf(cpu, ok);
    Ok(())
}

fn lar(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let sel = read_op::<16>(cpu, i, 1)? as u16;
    let found = cpu.visible_descriptor(sel)?.filter(|d| d.has_access_rights());
    if let Some(d) = found {
        set_gpr(cpu, i.op0_register(), d.access_rights() as u64);
    }
    set_zf(cpu, found.is_some());
    Ok(())
}

fn lsl(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let sel = read_op::<16>(cpu, i, 1)? as u16;
    let found = cpu.visible_descriptor(sel)?.filter(|d| d.has_limit());
    if let Some(d) = found {
        set_gpr(cpu, i.op0_register(), d.limit() as u64);
    }
    set_zf(cpu, found.is_some());
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Mov_rm16_Sreg | Mov_r32m16_Sreg | Mov_r64m16_Sreg => mov_from,
        Mov_Sreg_rm16 | Mov_Sreg_r32m16 | Mov_Sreg_r64m16 => mov_to,
        Lfs_r16_m1616 | Lgs_r16_m1616 | Lss_r16_m1616 | Les_r16_m1616 | Lds_r16_m1616 => load_far::<16>,
        Lfs_r32_m1632 | Lgs_r32_m1632 | Lss_r32_m1632 | Les_r32_m1632 | Lds_r32_m1632 => load_far::<32>,
        Lfs_r64_m1664 | Lgs_r64_m1664 | Lss_r64_m1664 => load_far::<64>,
        Verr_rm16 | Verr_r32m16 | Verr_r64m16 => verify::<false>,
        Verw_rm16 | Verw_r32m16 | Verw_r64m16 => verify::<true>,
        Lar_r16_rm16 | Lar_r32_r32m16 | Lar_r64_r64m16 => lar,
        Lsl_r16_rm16 | Lsl_r32_r32m16 | Lsl_r64_r64m16 => lsl,
        _ => return None,
    })
}
