//! Branches, calls and returns, near and far.

use super::operand::*;
use super::stack::{peek, push};
use crate::cpu::fault::{Exec, Fault, Trap};
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

/// Goes to `target`, which must be canonical; 32-bit code sees 32 bits of it.
fn jump(cpu: &mut Cpu, target: u64) -> Exec {
    let target = cpu.linear(target);
    if !canonical(target) {
        return Err(Fault::gp().into());
    }
    cpu.next_rip = target;
    Ok(())
}

fn jcc(cpu: &mut Cpu, i: &Instruction) -> Exec {
    if !cpu.cond(i.condition_code()) {
        return Ok(());
    }
    let t = cpu.branch_target(i);
    jump(cpu, t)
}

fn jmp_rel(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let t = cpu.branch_target(i);
    jump(cpu, t)
}

fn jmp_rm<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let t = read_op::<B>(cpu, i, 0)?;
    jump(cpu, t)
}

fn call_to<const B: u32>(cpu: &mut Cpu, target: u64) -> Exec {
    if !canonical(target) {
        // The push comes first, and its fault with it.
        cpu.probe_write(cpu.regs[RSP].wrapping_sub(8), 8)?;
        return Err(Fault::gp().into());
    }
    push::<B>(cpu, cpu.next_rip)?;
    cpu.next_rip = target;
    Ok(())
}

fn call_rel<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let t = cpu.branch_target(i);
    call_to::<B>(cpu, t)
}

fn call_rm<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let t = read_op::<B>(cpu, i, 0)?;
    call_to::<B>(cpu, t)
}

fn ret<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let t = peek::<B>(cpu, 0)?;
    jump(cpu, t)?;
    cpu.regs[RSP] = cpu.sp_moved((B as u64 / 8).wrapping_add(release(i)));
    Ok(())
}

/// Bytes that `ret imm16` takes off the stack beyond the return address.
fn release(i: &Instruction) -> u64 {
    if i.op_count() > 0 {
        imm(i, 0) & 0xffff
    } else {
        0
    }
}

/// jecxz, jrcxz.
fn jcxz<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    if cpu.regs[RCX] & mask(B) != 0 {
        return Ok(());
    }
    let t = cpu.branch_target(i);
    jump(cpu, t)
}

const ALWAYS: u8 = 0;
const WHILE_EQUAL: u8 = 1;
const WHILE_UNEQUAL: u8 = 2;

fn loop_<const KIND: u8, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let n = (cpu.regs[RCX] & mask(B)).wrapping_sub(1) & mask(B);
    let zf = cpu.rflags() & ZF != 0;
    let more = match KIND {
        WHILE_EQUAL => zf,
        WHILE_UNEQUAL => !zf,
        _ => true,
    };
    if n != 0 && more {
        let t = cpu.branch_target(i);
        jump(cpu, t)?;
    }
    set_low::<B>(cpu, RCX, n);
    Ok(())
}

/// A far pointer in memory: offset of `B` bits, then the selector.
fn far_pointer<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Result<(u16, u64), Trap> {
    if i.op0_kind() == OpKind::FarBranch32 {
        return Ok((i.far_branch_selector(), u64::from(i.far_branch32())));
    }
    let va = cpu.ea(i);
    let off = load::<B>(cpu, va)?;
    let sel = load::<16>(cpu, ea_moved(cpu, i, B as u64 / 8))?;
    Ok((sel as u16, off))
}

fn far_jmp<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let (sel, off) = far_pointer::<B>(cpu, i)?;
    let cs = cpu.check_code_segment(sel, false)?;
    jump(cpu, off)?;
    cpu.enter_code_segment(cs);
    Err(Trap::EndBlock)
}

fn far_call<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let (sel, off) = far_pointer::<B>(cpu, i)?;
    let cs = cpu.check_code_segment(sel, false)?;
    if !canonical(off) {
        return Err(Fault::gp().into());
    }
    let old_cs = cpu.sel[1] as u64;
    let bytes = B as u64 / 8;
    let top = cpu.regs[RSP];
    // Both slots are checked before either is written.
    let base = cpu.stack_va(cpu.sp_moved((2 * bytes).wrapping_neg()))?;
    cpu.probe_write(base, 2 * bytes as usize)?;
    push::<B>(cpu, old_cs)?;
    if let Err(e) = push::<B>(cpu, cpu.next_rip) {
        cpu.regs[RSP] = top;
        return Err(e);
    }
    cpu.next_rip = off;
    cpu.enter_code_segment(cs);
    Err(Trap::EndBlock)
}

fn far_ret<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let bytes = B as u64 / 8;
    let off = peek::<B>(cpu, 0)?;
    let sel = peek::<B>(cpu, bytes)? as u16;
    let cs = cpu.check_code_segment(sel, true)?;
    jump(cpu, off)?;
    cpu.regs[RSP] = cpu.sp_moved((2 * bytes).wrapping_add(release(i)));
    cpu.enter_code_segment(cs);
    Err(Trap::EndBlock)
}

/// iret to the same privilege level.
fn iret<const B: u32>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let bytes = B as u64 / 8;
    // 32-bit code pops rsp and ss only for an outer ring.
    let words = if cpu.code32 { 3 } else { 5 };
    let mut w = [0, 0, 0, cpu.sp_moved(3 * bytes), u64::from(cpu.sel[2])];
    for (k, v) in w.iter_mut().enumerate().take(words) {
        *v = peek::<B>(cpu, k as u64 * bytes)?;
    }
    let [rip, cs, flags, rsp, ss] = w;
    let old = cpu.rflags();
    if old & NT != 0 {
        return Err(Fault::gp().into());
    }
    let cs = cpu.check_code_segment(cs as u16, true)?;
    cpu.check_stack_segment(ss as u16)?;
    jump(cpu, rip)?;
    let change = (ARITH | TF | DF | NT | AC | ID | RF) & mask(B);
    cpu.set_rflags(old & !change | flags & change);
    cpu.regs[RSP] = rsp;
    cpu.sel[2] = ss as u16;
    cpu.enter_code_segment(cs);
    Err(Trap::EndBlock)
}

pub fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Jo_rel8_64 | Jo_rel32_64 => jcc,
        Jno_rel8_64 | Jno_rel32_64 => jcc,
        Jb_rel8_64 | Jb_rel32_64 => jcc,
        Jae_rel8_64 | Jae_rel32_64 => jcc,
        Je_rel8_64 | Je_rel32_64 => jcc,
        Jne_rel8_64 | Jne_rel32_64 => jcc,
        Jbe_rel8_64 | Jbe_rel32_64 => jcc,
        Ja_rel8_64 | Ja_rel32_64 => jcc,
        Js_rel8_64 | Js_rel32_64 => jcc,
        Jns_rel8_64 | Jns_rel32_64 => jcc,
        Jp_rel8_64 | Jp_rel32_64 => jcc,
        Jnp_rel8_64 | Jnp_rel32_64 => jcc,
        Jl_rel8_64 | Jl_rel32_64 => jcc,
        Jge_rel8_64 | Jge_rel32_64 => jcc,
        Jle_rel8_64 | Jle_rel32_64 => jcc,
        Jg_rel8_64 | Jg_rel32_64 => jcc,
        Jmp_rel8_64 | Jmp_rel32_64 => jmp_rel,
        Jmp_rm64 => jmp_rm::<64>,
        Call_rel32_64 => call_rel::<64>,
        Call_rm64 => call_rm::<64>,
        Retnq | Retnq_imm16 => ret::<64>,
        Jecxz_rel8_64 => jcxz::<32>,
        Jrcxz_rel8_64 => jcxz::<64>,
        Loop_rel8_64_ECX => loop_::<ALWAYS, 32>,
        Loop_rel8_64_RCX => loop_::<ALWAYS, 64>,
        Loope_rel8_64_ECX => loop_::<WHILE_EQUAL, 32>,
        Loope_rel8_64_RCX => loop_::<WHILE_EQUAL, 64>,
        Loopne_rel8_64_ECX => loop_::<WHILE_UNEQUAL, 32>,
        Loopne_rel8_64_RCX => loop_::<WHILE_UNEQUAL, 64>,
        Jmp_m1616 => far_jmp::<16>,
        Jmp_m1632 => far_jmp::<32>,
        Jmp_m1664 => far_jmp::<64>,
        Call_m1616 => far_call::<16>,
        Call_m1632 => far_call::<32>,
        Call_m1664 => far_call::<64>,
        Retfw | Retfw_imm16 => far_ret::<16>,
        Retfd | Retfd_imm16 => far_ret::<32>,
        Retfq | Retfq_imm16 => far_ret::<64>,
        Iretw => iret::<16>,
        Iretd => iret::<32>,
        Iretq => iret::<64>,
        Jo_rel8_32 | Jo_rel32_32 | Jno_rel8_32 | Jno_rel32_32 | Jb_rel8_32 | Jb_rel32_32 | Jae_rel8_32
        | Jae_rel32_32 | Je_rel8_32 | Je_rel32_32 | Jne_rel8_32 | Jne_rel32_32 | Jbe_rel8_32
        | Jbe_rel32_32 | Ja_rel8_32 | Ja_rel32_32 | Js_rel8_32 | Js_rel32_32 | Jns_rel8_32 | Jns_rel32_32
        | Jp_rel8_32 | Jp_rel32_32 | Jnp_rel8_32 | Jnp_rel32_32 | Jl_rel8_32 | Jl_rel32_32 | Jge_rel8_32
        | Jge_rel32_32 | Jle_rel8_32 | Jle_rel32_32 | Jg_rel8_32 | Jg_rel32_32 => jcc,
        Jmp_rel8_32 | Jmp_rel32_32 => jmp_rel,
        Jmp_rm32 => jmp_rm::<32>,
        Call_rel32_32 => call_rel::<32>,
        Call_rm32 => call_rm::<32>,
        Retnd | Retnd_imm16 => ret::<32>,
        Jcxz_rel8_32 => jcxz::<16>,
        Jecxz_rel8_32 => jcxz::<32>,
        Loop_rel8_32_CX => loop_::<ALWAYS, 16>,
        Loop_rel8_32_ECX => loop_::<ALWAYS, 32>,
        Loope_rel8_32_CX => loop_::<WHILE_EQUAL, 16>,
        Loope_rel8_32_ECX => loop_::<WHILE_EQUAL, 32>,
        Loopne_rel8_32_CX => loop_::<WHILE_UNEQUAL, 16>,
        Loopne_rel8_32_ECX => loop_::<WHILE_UNEQUAL, 32>,
        Jmp_ptr1632 => far_jmp::<32>,
        Call_ptr1632 => far_call::<32>,
        _ => return None,
    })
}
