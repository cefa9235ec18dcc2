// SPDX-License-Identifier: Apache-2.0
//! push, pop, pushf, popf, enter, leave, lahf, sahf.

use super::operand::*;
use super::segment::end_if;
use crate::cpu::descriptor_cache::SS;
use crate::cpu::fault::{vector, Exec, Fault, Trap};
use crate::cpu::regs::seg_index;
use crate::cpu::{Cpu, Scalar, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

impl Cpu {
    /// Checks a stack address: outside the canonical range it is #SS, not #GP.
    pub(crate) fn check_stack(&self, va: u64) -> Exec {
        if canonical(va) {
            Ok(())
        } else {
            Err(Fault::with_code(vector::SS, 0).into())
        }
    }

    /// The bits of rsp and rbp that address the stack.
    fn stack_mask(&self) -> u64 {
        match (self.seg.code32, self.seg.hidden[SS].is_wide()) {
            (false, _) => u64::MAX,
            (true, true) => 0xffff_ffff,
            (true, false) => 0xffff,
        }
    }

    /// Stack pointer `sp` moved by `delta`: only the bits that address the stack change.
    pub(crate) fn sp_from(&self, sp: u64, delta: u64) -> u64 {
        let moved = sp.wrapping_add(delta);
        match self.stack_mask() {
            0xffff => sp & 0xffff_0000 | moved & 0xffff,
            mask => moved & mask,
        }
    }

    /// The stack pointer moved by `delta`.
    pub(crate) fn sp_moved(&self, delta: u64) -> u64 {
        self.sp_from(self.regs[RSP], delta)
    }

    /// Linear address of `len` bytes at an offset in the stack segment.
    pub(crate) fn stack_va(&self, sp: u64, len: u64, write: bool) -> Result<u64, Trap> {
        if self.seg.code32 {
            return Ok(self.segment_va(SS, sp & self.stack_mask(), len, write)?);
        }
        self.check_stack(sp)?;
        self.check_stack(sp.wrapping_add(len.wrapping_sub(1)))?;
        Ok(sp)
    }

    /// Pushes a value; rsp changes only if the store succeeds.
    pub fn push<T: Scalar>(&mut self, v: T) -> Exec {
        let sp = self.sp_moved((T::SIZE as u64).wrapping_neg());
        let va = self.stack_va(sp, T::SIZE as u64, true)?;
        self.write::<T>(va, v)?;
        self.regs[RSP] = sp;
        Ok(())
    }

    /// The value `depth` bytes above the top of the stack; rsp stays.
    pub fn peek_stack<T: Scalar>(&mut self, depth: u64) -> Result<T, Trap> {
        let va = self.stack_va(self.sp_moved(depth), T::SIZE as u64, false)?;
        self.read::<T>(va)
    }

    /// Pops a value.
    pub fn pop<T: Scalar>(&mut self) -> Result<T, Trap> {
        let v = self.peek_stack::<T>(0)?;
        self.regs[RSP] = self.sp_moved(T::SIZE as u64);
        Ok(v)
    }
}

pub(crate) fn push<const B: u32>(cpu: &mut Cpu, v: u64) -> Exec {
    match B {
        16 => cpu.push::<u16>(v as u16),
        32 => cpu.push::<u32>(v as u32),
        _ => cpu.push::<u64>(v),
    }
}

pub(crate) fn peek<const B: u32>(cpu: &mut Cpu, depth: u64) -> Result<u64, Trap> {
    Ok(match B {
        16 => cpu.peek_stack::<u16>(depth)? as u64,
        32 => cpu.peek_stack::<u32>(depth)? as u64,
        _ => cpu.peek_stack::<u64>(depth)?,
    })
}

fn push_op<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 0)?;
    push::<B>(cpu, v)
}

fn pop_op<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = peek::<B>(cpu, 0)?;
    let old = cpu.regs[RSP];
    // An address that uses rsp, and `pop rsp` itself, see it already incremented.
    cpu.regs[RSP] = cpu.sp_moved(B as u64 / 8);
    let r = write_op::<B>(cpu, i, 0, v);
    if r.is_err() {
        cpu.regs[RSP] = old;
    }
    r
}

fn push_seg<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = cpu.seg.sel[seg_index(i.op0_register())];
    push::<B>(cpu, v as u64)
}

fn pop_seg<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = peek::<B>(cpu, 0)?;
    let sp = cpu.sp_moved(B as u64 / 8);
    let changed = cpu.load_segment(seg_index(i.op0_register()), v as u16)?;
    cpu.regs[RSP] = sp;
    end_if(changed)
}

fn pushf<const B: u32>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let v = cpu.rflags() & !(VM | RF);
    push::<B>(cpu, v)
}

/// What popf may change above CPL 0 with IOPL < CPL: not IF, IOPL, VIF, VIP.
const POPF: u64 = ARITH | TF | DF | NT | AC | ID;

fn popf<const B: u32>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let v = peek::<B>(cpu, 0)?;
    let old = cpu.rflags();
    let change = POPF & mask(B);
    cpu.regs[RSP] = cpu.sp_moved(B as u64 / 8);
    cpu.set_rflags(old & !change & !(RF & mask(B)) | v & change);
    if v & (TF | AC) & change != 0 {
        // Single steps begin after the next instruction, checks of alignment with it: the run loop must see the flag.
        return Err(Trap::EndBlock);
    }
    Ok(())
}

/// enter: the pushes may have happened when a later one faults, but no register has changed.
fn enter<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let size = imm(i, 0) & 0xffff;
    let level = imm(i, 1) & 31;
    let bytes = B as u64 / 8;
    let mut sp = cpu.regs[RSP];
    let mut bp = cpu.regs[RBP];
    let put = |cpu: &mut Cpu, sp: &mut u64, v: u64| {
        *sp = cpu.sp_from(*sp, bytes.wrapping_neg());
        let va = cpu.stack_va(*sp, bytes, true)?;
        store::<B>(cpu, va, v)
    };
    put(cpu, &mut sp, bp)?;
    let frame = sp;
    for _ in 1..level {
        bp = cpu.sp_from(bp, bytes.wrapping_neg());
        let va = cpu.stack_va(bp, bytes, false)?;
        let v = load::<B>(cpu, va)?;
        put(cpu, &mut sp, v)?;
    }
    if level > 0 {
        put(cpu, &mut sp, frame)?;
    }
    sp = cpu.sp_from(sp, size.wrapping_neg());
    // The final stack pointer must be writable, though nothing is written there.
    let va = cpu.stack_va(sp, bytes, true)?;
    cpu.check_alignment(va, bytes as usize)?;
    cpu.probe_write(va, bytes as usize)?;
    set_low::<B>(cpu, RBP, frame);
    cpu.regs[RSP] = sp;
    Ok(())
}

fn leave<const B: u32>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let va = cpu.stack_va(cpu.regs[RBP], B as u64 / 8, false)?;
    let v = load::<B>(cpu, va)?;
    // Only the bits that address the stack are copied to the stack pointer.
    let keep = if cpu.stack_mask() == 0xffff {
        0xffff_0000
    } else {
        0
    };
    let sp = cpu.regs[RSP] & keep | cpu.regs[RBP] & !keep;
    cpu.regs[RSP] = cpu.sp_from(sp, B as u64 / 8);
    set_low::<B>(cpu, RBP, v);
    Ok(())
}

fn lahf(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let v = (cpu.rflags() & 0xff) | 2;
    cpu.regs[RAX] = cpu.regs[RAX] & !0xff00 | v << 8;
    Ok(())
}

fn sahf(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let low = SF | ZF | AF | PF | CF;
    let v = (cpu.regs[RAX] >> 8) & low | cpu.rflags() & OF;
    cpu.set_arith_flags(v);
    Ok(())
}

/// push imm: the immediate is sign-extended to the operand size.
fn push_imm<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    debug_assert!(i.op0_kind() != OpKind::Memory);
    push::<B>(cpu, imm(i, 0))
}

/// pusha: all eight, rsp as it was before. Some may have been stored when a later one faults.
fn pusha<const B: u32>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let bytes = B as u64 / 8;
    let mut sp = cpu.regs[RSP];
    for n in 0..8 {
        sp = cpu.sp_from(sp, bytes.wrapping_neg());
        let va = cpu.stack_va(sp, bytes, true)?;
        store::<B>(cpu, va, cpu.regs[n])?;
    }
    cpu.regs[RSP] = sp;
    Ok(())
}

/// popa: all but rsp.
fn popa<const B: u32>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let bytes = B as u64 / 8;
    // Those popped before one that faults have changed.
    for n in (0..8).rev() {
        let v = peek::<B>(cpu, (7 - n as u64) * bytes)?;
        if n != RSP {
            set_low::<B>(cpu, n, v);
        }
    }
    cpu.regs[RSP] = cpu.sp_moved(8 * bytes);
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Push_r32 | Push_rm32 => push_op::<32>,
        Pushd_imm32 | Pushd_imm8 => push_imm::<32>,
        Pop_r32 | Pop_rm32 => pop_op::<32>,
        Pushd_FS | Pushd_GS | Pushd_ES | Pushd_CS | Pushd_SS | Pushd_DS => push_seg::<32>,
        Popd_FS | Popd_GS | Popd_ES | Popd_SS | Popd_DS => pop_seg::<32>,
        Pushfd => pushf::<32>,
        Popfd => popf::<32>,
        Enterd_imm16_imm8 => enter::<32>,
        Leaved => leave::<32>,
        Pushaw => pusha::<16>,
        Pushad => pusha::<32>,
        Popaw => popa::<16>,
        Popad => popa::<32>,
        Push_r64 | Push_rm64 => push_op::<64>,
        Push_r16 | Push_rm16 => push_op::<16>,
        Push_imm16 | Pushw_imm8 => push_imm::<16>,
        Pushq_imm32 | Pushq_imm8 => push_imm::<64>,
        Pop_r64 | Pop_rm64 => pop_op::<64>,
        Pop_r16 | Pop_rm16 => pop_op::<16>,
        Pushw_FS | Pushw_GS | Pushw_ES | Pushw_CS | Pushw_SS | Pushw_DS => push_seg::<16>,
        Pushq_FS | Pushq_GS => push_seg::<64>,
        Popw_FS | Popw_GS | Popw_ES | Popw_SS | Popw_DS => pop_seg::<16>,
        Popq_FS | Popq_GS => pop_seg::<64>,
        Pushfw => pushf::<16>,
        Pushfq => pushf::<64>,
        Popfw => popf::<16>,
        Popfq => popf::<64>,
        Enterw_imm16_imm8 => enter::<16>,
        Enterq_imm16_imm8 => enter::<64>,
        Leavew => leave::<16>,
        Leaveq => leave::<64>,
        Lahf => lahf,
        Sahf => sahf,
        _ => return None,
    })
}
