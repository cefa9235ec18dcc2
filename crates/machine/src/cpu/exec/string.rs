// SPDX-License-Identifier: Apache-2.0
//! String instructions: movs, stos, lods, cmps, scas, with and without a repeat prefix.
//!
//! Repeats forward go in chunks that stay inside one page on each side, so that a fault finds rsi, rdi and rcx exactly
//! as the hardware would leave them. Between chunks the vCPU's attention bits are looked at: a long repeat is left with
//! `rip` still at the instruction, and goes on later.

use super::alu::sub;
use super::operand::*;
use crate::cpu::descriptor_cache::ES;
use crate::cpu::fault::{Exec, Trap};
use crate::cpu::regs::seg_index;
use crate::cpu::{Cpu, SlowFn};
use crate::mmu::walk::Access;
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register};
use std::sync::atomic::Ordering;

/// Bytes handled per chunk; also the size of the bounce buffers.
const CHUNK: u64 = 4096;
/// Compares usually end early: look less far ahead.
const CMP_CHUNK: u64 = 256;

/// Address mask, source segment and step of one string instruction.
struct Form {
    mask: u64,
    bytes: u64,
    src_seg: Register,
    /// What is at rdi is written.
    writes: bool,
    step: u64,
    forward: bool,
    rep: bool,
}

impl Form {
    fn new<const B: u32>(cpu: &Cpu, i: &Instruction) -> Form {
        let mut mask = !0;
        for n in 0..i.op_count() {
            match i.op_kind(n) {
                OpKind::MemorySegESI | OpKind::MemoryESEDI => mask = 0xffff_ffff,
                OpKind::MemorySegSI | OpKind::MemoryESDI => mask = 0xffff,
                _ => {}
            }
        }
        let bytes = B as u64 / 8;
        let forward = cpu.rflags() & DF == 0;
        // Segments with limits are looked at element by element.
        let source = 1 << seg_index(i.memory_segment());
        let chunks = !cpu.access.aligning && (!cpu.seg.code32 || cpu.seg.whole & (source | 1) == source | 1);
        Form {
            mask,
            bytes,
            src_seg: i.memory_segment(),
            writes: matches!(i.mnemonic(), M::Movsb | M::Movsw | M::Movsd | M::Movsq)
                || matches!(i.mnemonic(), M::Stosb | M::Stosw | M::Stosd | M::Stosq),
            step: if forward { bytes } else { bytes.wrapping_neg() },
            forward: forward && chunks,
            rep: i.has_rep_prefix() || i.has_repne_prefix(),
        }
    }

    fn src(&self, cpu: &Cpu) -> u64 {
        let off = cpu.regs[RSI] & self.mask;
        if !cpu.seg.code32 {
            return off.wrapping_add(cpu.seg_base(self.src_seg));
        }
        cpu.checked_va(seg_index(self.src_seg), off, self.bytes, false)
    }

    fn dst(&self, cpu: &Cpu) -> u64 {
        let off = cpu.regs[RDI] & self.mask;
        if !cpu.seg.code32 {
            return off;
        }
        cpu.checked_va(ES, off, self.bytes, self.writes)
    }

    /// Iterations left: 1 without a prefix.
    fn count(&self, cpu: &Cpu) -> u64 {
        if self.rep {
            let most = if cpu.debug.one_by_one { 1 } else { u64::MAX };
            (cpu.regs[RCX] & self.mask).min(most)
        } else {
            1
        }
    }

    /// Adds to a register with the address size of the instruction: 32 bits zero-extend, 16 merge.
    fn bump(&self, cpu: &mut Cpu, reg: usize, delta: u64) {
        let v = cpu.regs[reg].wrapping_add(delta) & self.mask;
        cpu.regs[reg] = if self.mask == 0xffff {
            cpu.regs[reg] & !0xffff | v
        } else {
            v
        };
    }

    /// `n` iterations are done.
    fn advance(&self, cpu: &mut Cpu, n: u64, src: bool, dst: bool) {
        let delta = self.step.wrapping_mul(n);
        if src {
            self.bump(cpu, RSI, delta);
        }
        if dst {
            self.bump(cpu, RDI, delta);
        }
        if self.rep {
            self.bump(cpu, RCX, n.wrapping_neg());
        }
    }

    /// How many whole elements of `B` bits lie between `va` and the end of its page, or of the address space that the
    /// address size reaches; never more than `limit` bytes' worth.
    fn room<const B: u32>(&self, va: u64, offset: u64, limit: u64) -> u64 {
        let in_page = CHUNK - (va & (CHUNK - 1));
        let to_wrap = (self.mask - offset).saturating_add(1);
        in_page.min(to_wrap).min(limit) / (B as u64 / 8)
    }
}

/// Whether a repeat should be left for now.
fn interrupted(cpu: &Cpu) -> bool {
    cpu.shared.attention.load(Ordering::Relaxed) != 0
}

/// Leaves the instruction unfinished: it starts again where it is.
fn suspend(cpu: &mut Cpu) -> Exec {
    cpu.next_rip = cpu.rip;
    // It will be counted when it has completed.
    cpu.budget.left += 1;
    Err(Trap::EndBlock)
}

/// Whether stores at `dst` may be what is read at `src`: the page may be mapped twice.
fn same_frame(cpu: &mut Cpu, src: u64, dst: u64) -> bool {
    let source = cpu.translate(src, Access::Read).map(|p| p.mfn);
    // What faults is found by the access itself.
    source.is_err()
        || cpu
            .translate(dst, Access::Write)
            .map_or(true, |p| Ok(p.mfn) == source)
}

fn movs<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let f = Form::new::<B>(cpu, i);
    let bytes = B as u64 / 8;
    let mut count = f.count(cpu);
    let mut rounds = 0u32;
    while count != 0 {
        let (src, dst) = (f.src(cpu), f.dst(cpu));
        let mut n = 1;
        if f.forward && count > 1 {
            n = f
                .room::<B>(src, cpu.regs[RSI] & f.mask, CHUNK)
                .min(f.room::<B>(dst, cpu.regs[RDI] & f.mask, CHUNK))
                .min(count);
            // The bytes just written are the next to be read: no further than the distance at once.
            let distance = dst.wrapping_sub(src) & (CHUNK - 1);
            if distance < n.wrapping_mul(bytes) && same_frame(cpu, src, dst) {
                n = distance / bytes;
            }
        }
        let mut done = false;
        if n > 1 {
            let mut buf = [0u8; CHUNK as usize];
            let part = &mut buf[..(n * bytes) as usize];
            cpu.read_bytes(src, part)?;
            // A live page table takes stores one by one only.
            done = cpu.write_bytes(dst, part).is_ok();
        }
        if !done {
            n = 1;
            let v = load::<B>(cpu, src)?;
            store::<B>(cpu, dst, v)?;
        }
        f.advance(cpu, n, true, true);
        count -= n;
        rounds = rounds.wrapping_add(1);
        if count != 0 && (n > 1 || rounds & 255 == 0) && interrupted(cpu) {
            return suspend(cpu);
        }
    }
    Ok(())
}

fn stos<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let f = Form::new::<B>(cpu, i);
    let bytes = (B / 8) as usize;
    let value = acc::<B>(cpu);
    let mut count = f.count(cpu);
    let mut buf = [0u8; CHUNK as usize];
    if f.forward && count > 1 {
        for e in buf.chunks_exact_mut(bytes) {
            e.copy_from_slice(&value.to_le_bytes()[..bytes]);
        }
    }
    let mut rounds = 0u32;
    while count != 0 {
        let dst = f.dst(cpu);
        let mut n = 1;
        if f.forward && count > 1 {
            n = f.room::<B>(dst, cpu.regs[RDI] & f.mask, CHUNK).min(count);
        }
        if n <= 1 || cpu.write_bytes(dst, &buf[..n as usize * bytes]).is_err() {
            n = 1;
            store::<B>(cpu, dst, value)?;
        }
        f.advance(cpu, n, false, true);
        count -= n;
        rounds = rounds.wrapping_add(1);
        if count != 0 && (n > 1 || rounds & 255 == 0) && interrupted(cpu) {
            return suspend(cpu);
        }
    }
    Ok(())
}

fn lods<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let f = Form::new::<B>(cpu, i);
    let bytes = B as u64 / 8;
    let mut count = f.count(cpu);
    let mut rounds = 0u32;
    while count != 0 {
        let src = f.src(cpu);
        let mut n = 1;
        if f.forward && count > 1 {
            // Of the elements in one page only the last is seen afterwards.
            n = f.room::<B>(src, cpu.regs[RSI] & f.mask, CHUNK).min(count).max(1);
            if n > 1 {
                // A fault is at the first.
                load::<B>(cpu, src)?;
            }
        }
        let v = load::<B>(cpu, src.wrapping_add((n - 1).wrapping_mul(bytes)))?;
        set_low::<B>(cpu, RAX, v);
        f.advance(cpu, n, true, false);
        count -= n;
        rounds = rounds.wrapping_add(1);
        if count != 0 && (n > 1 || rounds & 255 == 0) && interrupted(cpu) {
            return suspend(cpu);
        }
    }
    Ok(())
}

/// One element out of a bounce buffer.
fn element<const B: u32>(buf: &[u8], k: u64) -> u64 {
    let bytes = (B / 8) as usize;
    let mut w = [0u8; 8];
    if let Some(e) = buf.get(k as usize * bytes..(k as usize + 1) * bytes) {
        w[..bytes].copy_from_slice(e);
    }
    u64::from_le_bytes(w)
}

/// cmps (`SRC` from memory) and scas (the accumulator instead).
fn compare<const CMPS: bool, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let f = Form::new::<B>(cpu, i);
    let bytes = B as u64 / 8;
    let until_equal = i.has_repne_prefix();
    let value = acc::<B>(cpu);
    let mut count = f.count(cpu);
    let mut rounds = 0u32;
    while count != 0 {
        let (src, dst) = (f.src(cpu), f.dst(cpu));
        let mut n = 1;
        if f.forward && count > 1 {
            n = f.room::<B>(dst, cpu.regs[RDI] & f.mask, CMP_CHUNK).min(count);
            if CMPS {
                n = n.min(f.room::<B>(src, cpu.regs[RSI] & f.mask, CMP_CHUNK));
            }
        }
        let (mut a, mut b, mut done) = (value, 0, 0);
        if n > 1 {
            let (mut left, mut right) = ([0u8; CMP_CHUNK as usize], [0u8; CMP_CHUNK as usize]);
            let len = (n * bytes) as usize;
            if CMPS {
                cpu.read_bytes(src, &mut left[..len])?;
            }
            cpu.read_bytes(dst, &mut right[..len])?;
            while done < n {
                if CMPS {
                    a = element::<B>(&left, done);
                }
                b = element::<B>(&right, done);
                done += 1;
                if (a == b) == until_equal {
                    break;
                }
            }
        } else {
            if CMPS {
                a = load::<B>(cpu, src)?;
            }
            b = load::<B>(cpu, dst)?;
            done = 1;
        }
        f.advance(cpu, done, CMPS, true);
        cpu.set_arith_flags(sub::<B>(a, b, 0).1);
        count -= done;
        if (a == b) == until_equal {
            break;
        }
        rounds = rounds.wrapping_add(1);
        if count != 0 && rounds & 15 == 0 && interrupted(cpu) {
            return suspend(cpu);
        }
    }
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Movsb_m8_m8 => movs::<8>,
        Movsw_m16_m16 => movs::<16>,
        Movsd_m32_m32 => movs::<32>,
        Movsq_m64_m64 => movs::<64>,
        Stosb_m8_AL => stos::<8>,
        Stosw_m16_AX => stos::<16>,
        Stosd_m32_EAX => stos::<32>,
        Stosq_m64_RAX => stos::<64>,
        Lodsb_AL_m8 => lods::<8>,
        Lodsw_AX_m16 => lods::<16>,
        Lodsd_EAX_m32 => lods::<32>,
        Lodsq_RAX_m64 => lods::<64>,
        Cmpsb_m8_m8 => compare::<true, 8>,
        Cmpsw_m16_m16 => compare::<true, 16>,
        Cmpsd_m32_m32 => compare::<true, 32>,
        Cmpsq_m64_m64 => compare::<true, 64>,
        Scasb_AL_m8 => compare::<false, 8>,
        Scasw_AX_m16 => compare::<false, 16>,
        Scasd_EAX_m32 => compare::<false, 32>,
        Scasq_RAX_m64 => compare::<false, 64>,
        _ => return None,
    })
}
