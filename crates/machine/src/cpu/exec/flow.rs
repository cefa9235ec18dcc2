// SPDX-License-Identifier: Apache-2.0
//! Branches, calls and returns, near and far.

use super::operand::*;
use super::stack::{peek, push};
use crate::abi::x86::selector;
use crate::cpu::descriptor_cache::{CS, SS};
use crate::cpu::fault::{Exec, Fault, Trap};
use crate::cpu::segment::Descriptor;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

/// Checks where a near branch goes: to a canonical address, or an offset within the code segment.
fn check_target(cpu: &Cpu, target: u64) -> Exec {
    let ok = if cpu.seg.code32 {
        target <= u64::from(cpu.seg.hidden[CS].limit)
    } else {
        canonical(target)
    };
    if ok {
        Ok(())
    } else {
        Err(Fault::gp().into())
    }
}

fn jump(cpu: &mut Cpu, target: u64) -> Exec {
    check_target(cpu, target)?;
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
    if let Err(fault) = check_target(cpu, target) {
        // The push comes first, and its fault with it.
        let bytes = B as u64 / 8;
        let va = cpu.stack_va(cpu.sp_moved(bytes.wrapping_neg()), bytes, true)?;
        cpu.probe_write(va, bytes as usize)?;
        return Err(fault);
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

/// A far pointer in memory or in the instruction: offset of `B` bits, then the selector.
fn far_pointer<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Result<(u16, u64), Trap> {
    match i.op0_kind() {
        OpKind::FarBranch16 => return Ok((i.far_branch_selector(), u64::from(i.far_branch16()))),
        OpKind::FarBranch32 => return Ok((i.far_branch_selector(), u64::from(i.far_branch32()))),
        _ => {}
    }
    let va = cpu.ea(i);
    let off = load::<B>(cpu, va)?;
    let sel = load::<16>(cpu, ea_moved(cpu, i, B as u64 / 8, 2))?;
    Ok((sel as u16, off))
}

/// Call gates may be the layer above's.
fn check_gate(cpu: &Cpu, selector: u16, call: bool) -> Exec {
    let is_gate = |d: Descriptor| d.is_call_gate();
    if cpu.platform.call_gates
        && !selector::is_null(selector)
        && cpu.descriptor(selector).is_some_and(is_gate)
    {
        let ret = cpu.next_rip as u32;
        return Err(Trap::CallGate { selector, call, ret });
    }
    Ok(())
}

fn far_jmp<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let (sel, off) = far_pointer::<B>(cpu, i)?;
    check_gate(cpu, sel, false)?;
    let cs = cpu.check_code_segment(sel, false)?;
    cs.check_target(off)?;
    cpu.next_rip = off;
    cpu.enter_code_segment(cs);
    Err(Trap::EndBlock)
}

fn far_call<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let (sel, off) = far_pointer::<B>(cpu, i)?;
    check_gate(cpu, sel, true)?;
    let cs = cpu.check_code_segment(sel, false)?;
    let old_cs = cpu.seg.sel[1] as u64;
    let bytes = B as u64 / 8;
    let top = cpu.regs[RSP];
    // Both slots are checked before either is written.
    for n in [1, 2] {
        let va = cpu.stack_va(cpu.sp_moved((n * bytes).wrapping_neg()), bytes, true)?;
        cpu.probe_write(va, bytes as usize)?;
    }
    cs.check_target(off)?;
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
    let released = (2 * bytes).wrapping_add(release(i));
    if cs.cpl == cpu.cpl {
        cs.check_target(off)?;
        cpu.regs[RSP] = cpu.sp_moved(released);
        cpu.next_rip = off;
        cpu.enter_code_segment(cs);
        return Err(Trap::EndBlock);
    }
    let rsp = peek::<B>(cpu, released)?;
    let ss = peek::<B>(cpu, released.wrapping_add(bytes))? as u16;
    let ss = cpu.check_stack_segment(ss, cs.cpl, cs.segment.is_long())?;
    cs.check_target(off)?;
    cpu.next_rip = off;
    cpu.enter_outer_ring(cs, ss);
    outer_stack::<B>(cpu, rsp);
    // The parameters are released on the outer stack too.
    cpu.regs[RSP] = cpu.sp_moved(release(i));
    Err(Trap::EndBlock)
}

/// The stack pointer that a return to an outer ring loads: 16 bits of it onto a 16-bit stack.
fn outer_stack<const B: u32>(cpu: &mut Cpu, rsp: u64) {
    cpu.regs[RSP] = if cpu.seg.code32 && !cpu.seg.hidden[SS].is_wide() {
        cpu.regs[RSP] & 0xffff_0000 | rsp & 0xffff
    } else {
        rsp
    };
}

/// iret to the same ring or an outer one.
fn iret<const B: u32>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let bytes = B as u64 / 8;
    let word = |cpu: &mut Cpu, n: u64| peek::<B>(cpu, n * bytes);
    let (rip, cs, flags) = (word(cpu, 0)?, word(cpu, 1)?, word(cpu, 2)?);
    let old = cpu.rflags();
    // 64-bit code pops the stack pointer always.
    let mut outer = None;
    if !cpu.seg.code32 {
        outer = Some((word(cpu, 3)?, word(cpu, 4)? as u16));
    }
    if old & NT != 0 {
        return Err(Fault::gp().into());
    }
    let cs = cpu.check_code_segment(cs as u16, true)?;
    if cs.cpl != cpu.cpl && outer.is_none() {
        outer = Some((word(cpu, 3)?, word(cpu, 4)? as u16));
    }
    let outer = match outer {
        Some((rsp, ss)) => Some((rsp, cpu.check_stack_segment(ss, cs.cpl, cs.segment.is_long())?)),
        None => None,
    };
    cs.check_target(rip)?;
    let change = (ARITH | TF | DF | NT | AC | ID) & mask(B);
    cpu.set_rflags(old & !change | flags & change);
    cpu.load_resume_flag(flags & mask(B));
    cpu.next_rip = rip;
    match outer {
        Some((rsp, ss)) if cs.cpl != cpu.cpl => {
            cpu.enter_outer_ring(cs, ss);
            outer_stack::<B>(cpu, rsp);
        }
        Some((rsp, ss)) => {
            cpu.set_hidden(SS, ss);
            cpu.enter_code_segment(cs);
            outer_stack::<B>(cpu, rsp);
        }
        None => {
            cpu.regs[RSP] = cpu.sp_moved(3 * bytes);
            cpu.enter_code_segment(cs);
        }
    }
    Err(Trap::EndBlock)
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
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
        Jrcxz_rel8_16 => jcxz::<64>,
        Loop_rel8_16_RCX => loop_::<ALWAYS, 64>,
        Loope_rel8_16_RCX => loop_::<WHILE_EQUAL, 64>,
        Loopne_rel8_16_RCX => loop_::<WHILE_UNEQUAL, 64>,
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
        Jmp_ptr1616 => far_jmp::<16>,
        Call_ptr1616 => far_call::<16>,
        Jo_rel8_16 | Jo_rel16 | Jno_rel8_16 | Jno_rel16 | Jb_rel8_16 | Jb_rel16 | Jae_rel8_16 | Jae_rel16
        | Je_rel8_16 | Je_rel16 | Jne_rel8_16 | Jne_rel16 | Jbe_rel8_16 | Jbe_rel16 | Ja_rel8_16
        | Ja_rel16 | Js_rel8_16 | Js_rel16 | Jns_rel8_16 | Jns_rel16 | Jp_rel8_16 | Jp_rel16
        | Jnp_rel8_16 | Jnp_rel16 | Jl_rel8_16 | Jl_rel16 | Jge_rel8_16 | Jge_rel16 | Jle_rel8_16
        | Jle_rel16 | Jg_rel8_16 | Jg_rel16 => jcc,
        Jmp_rel8_16 | Jmp_rel16 => jmp_rel,
        Jmp_rm16 => jmp_rm::<16>,
        Call_rel16 => call_rel::<16>,
        Call_rm16 => call_rm::<16>,
        Retnw | Retnw_imm16 => ret::<16>,
        Jcxz_rel8_16 => jcxz::<16>,
        Jecxz_rel8_16 => jcxz::<32>,
        Loop_rel8_16_CX => loop_::<ALWAYS, 16>,
        Loop_rel8_16_ECX => loop_::<ALWAYS, 32>,
        Loope_rel8_16_CX => loop_::<WHILE_EQUAL, 16>,
        Loope_rel8_16_ECX => loop_::<WHILE_EQUAL, 32>,
        Loopne_rel8_16_CX => loop_::<WHILE_UNEQUAL, 16>,
        Loopne_rel8_16_ECX => loop_::<WHILE_UNEQUAL, 32>,
        _ => return None,
    })
}
