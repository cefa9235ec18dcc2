// SPDX-License-Identifier: Apache-2.0
//! From bytes to blocks of ops.
// Code bytes are read through the TLB.
#![allow(unsafe_code)]

use super::block::{Ext, Op, Slot};
use super::descriptor_cache::{reaches_all, MODE_STEPS};
use super::exec::fast::lower::LowExt;
use super::exec::{self, fast};
use super::fault::{Fault, Trap};
use super::{Cpu, CpuidRow, SlowFn};
use crate::abi::x86::{cpuid, xcr0};
use crate::mem::Mfn;
use crate::mmu::walk::Access;
use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// Instructions in a block.
const MAX_INSNS: usize = 64;
/// Bytes looked at for a block.
pub(crate) const WINDOW: usize = 512;

/// A decoded block that is not in the arena yet. `ops` begins with a header slot, which holds the frame.
#[derive(Default)]
pub(crate) struct Draft {
    pub ops: Vec<Slot>,
    /// Bytes of the first frame that it was made from: from the entry offset to here.
    pub end: u16,
    /// Frame and number of bytes of the second page, for an instruction that crosses into it.
    pub second: Option<(Mfn, u16)>,
    /// There is no instruction. How many bytes decide that is not known, so they cannot be watched.
    pub invalid: bool,
}

/// The first `n` bytes at `page.host`, which the guest may be changing meanwhile.
pub(crate) fn copy_bytes(host: *const u8, buf: &mut [u8]) {
    // SAFETY: the callers give no more than what is left in the page at `host`, which points into guest RAM.
    unsafe { std::ptr::copy(host, buf.as_mut_ptr(), buf.len()) };
}

/// Copies bytes of code, from an offset of the frame at `host` on; what lies behind its end comes from the page at `second`. `None`:
/// there is no such page.
pub(crate) fn copy_code(host: *const u8, offset: usize, second: Option<u64>, buf: &mut [u8]) -> Option<()> {
    let offset = offset % 4096;
    let (first, beyond) = buf.split_at_mut(buf.len().min(4096 - offset));
    // SAFETY: the offset lies in the frame, and so do as many bytes as are asked for.
    copy_bytes(unsafe { host.add(offset) }, first);
    if !beyond.is_empty() {
        copy_bytes(second? as *const u8, beyond);
    }
    Some(())
}

impl Cpu {
    /// Decodes the block at `rip`, at most `max` instructions. With `keep`, its bytes are watched from then on.
    pub(crate) fn decode_block(&mut self, rip: u64, max: usize, keep: bool) -> Result<(Draft, Mfn), Trap> {
        let offset = (rip & 0xfff) as usize;
        let room = 4096 - offset;
        loop {
            let page = self.translate(rip, Access::Fetch)?;
            if keep && self.mark_code(page.mfn) {
                continue;
            }
            let mut buf = [0u8; WINDOW + 15];
            let have = room.min(WINDOW);
            copy_bytes(page.host, &mut buf[..have]);
            let bits = self.bits();
            let (mut insns, mut end) = decode_all(
                bits,
                self.model.vendor,
                &buf[..have],
                offset as u64,
                max.min(MAX_INSNS),
            );
            let mut second = None;
            if insns.is_empty()
                && room < 15
                && self.decode(&buf[..have], offset as u64) == Err(DecoderError::NoMoreBytes)
            {
                let next = self.linear(rip.wrapping_add(room as u64));
                let next = self.translate(next, Access::Fetch)?;
                if keep && self.mark_code(next.mfn) {
                    continue;
                }
                copy_bytes(next.host, &mut buf[room..15]);
                (insns, end) = decode_all(bits, self.model.vendor, &buf[..15], offset as u64, 1);
                if end > room {
                    second = Some((next.mfn, (end - room) as u16, next.host));
                }
            }
            let used = end.max(1);
            if keep {
                let code = &self.domain.machine.code;
                code.mark(page.mfn, offset as u16, (offset + used).min(4096) as u16);
                let mut now = [0u8; WINDOW + 15];
                let first = used.min(room);
                if let Some((mfn, n, host)) = second {
                    code.mark(mfn, 0, n);
                    copy_bytes(host, &mut now[room..used]);
                }
                std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                copy_bytes(page.host, &mut now[..first]);
                if now[..used] != buf[..used] {
                    continue;
                }
            }
            // Runs of a block that is not kept are not counted: nobody would forget what is translated of it.
            let count = self.runs_to_count(&insns).filter(|_| keep);
            let mut draft = self.lower(&insns, offset, &buf[..end.max(15)], page.mfn, second, count);
            draft.end = (offset + used).min(4096) as u16;
            draft.invalid = insns.is_empty();
            return Ok((draft, page.mfn));
        }
    }

    fn lower(
        &mut self,
        insns: &[Instruction],
        offset: usize,
        buf: &[u8],
        mfn: Mfn,
        second: Option<(Mfn, u16, *mut u8)>,
        count: Option<u32>,
    ) -> Draft {
        let mut out = Draft::default();
        let mut header = Op::new(fast::op_leave);
        header.imm = mfn.0;
        out.ops.push(Slot { op: header });
        out.second = second.map(|(mfn, n, _)| (mfn, n));
        if let Some(count) = count {
            let mut op = Op::new(fast::op_count);
            (op.off, op.left) = (offset as u16, insns.len() as u8);
            op.imm = u64::from(count);
            out.ops.push(Slot { op });
        }
        if let Some((_, _, host)) = second {
            let mut op = Op::new(fast::op_cross);
            op.imm = host as u64;
            op.disp = mfn.0 as i32;
            op.off = offset as u16;
            op.left = 1;
            out.ops.push(Slot { op });
        }
        let live = fast::lower::flags_live(insns);
        let mut i = 0usize;
        let mut off = offset;
        let mut ended = false;
        while let Some(insn) = insns.get(i) {
            let first = i;
            let left = (insns.len() - i) as u8;
            let slow = self.code.slow_only || self.seg.code32 && self.checks_segment(insn);
            let fused = if slow {
                None
            } else {
                fast::lower::fuse(insn, insns.get(i + 1))
            };
            let low = match fused {
                Some(l) => {
                    let n = insns.get(i + 1).map_or(0, |n| n.len());
                    i += 1;
                    Some((l, insn.len() + n))
                }
                None if slow => None,
                None => {
                    fast::lower::lower(insn, live.get(i).copied().unwrap_or(true)).map(|l| (l, insn.len()))
                }
            };
            i += 1;
            match low {
                Some((fast::lower::Low::Nothing, len)) => {
                    // After a store into what follows it, it is at this one that the block is left.
                    let after_store = first
                        .checked_sub(1)
                        .and_then(|n| insns.get(n))
                        .is_some_and(may_store);
                    if out.ops.len() > 1 && !after_store {
                        off += len;
                        continue;
                    }
                    let mut op = Op::new(fast::op_nop);
                    (op.off, op.left, op.len) = (off as u16, left, len as u8);
                    out.ops.push(Slot { op });
                    off += len;
                }
                Some((fast::lower::Low::Op(mut op, ext), len)) => {
                    (op.off, op.left, op.len) = (off as u16, left, len as u8);
                    push_op(&mut out.ops, op, ext, mfn);
                    off += len;
                    ended = ends_block(insn) || fused.is_some();
                }
                None => {
                    ended = ends_block(insn);
                    let f = exec::lookup(insn.code());
                    ended |= f.is_none();
                    push_slow(&mut out.ops, insn, f.unwrap_or(undefined), off, left, ended);
                    off += insn.len();
                }
            }
            if ended {
                break;
            }
        }
        if insns.is_empty() {
            let mut op = Op::new(if too_long(self.bits(), self.model.vendor, buf) {
                fast::op_gp
            } else {
                fast::op_ud
            });
            (op.off, op.left) = (offset as u16, 1);
            out.ops.push(Slot { op });
        } else if !ended {
            // Falls through: at the limit, at the end of the page, or before something that cannot be decoded.
            let near = off < 4096;
            let mut op = Op::new(if near {
                fast::flow::op_fall
            } else {
                fast::flow::op_far
            });
            op.off = off as u16;
            op.links = u8::from(near);
            push_op(
                &mut out.ops,
                op,
                LowExt {
                    imm: 0,
                    target: off as i32,
                },
                mfn,
            );
        }
        out
    }
}

impl Cpu {
    /// Width of the code that blocks are decoded from.
    pub(crate) fn bits(&self) -> u32 {
        match (self.seg.code32, self.seg.code16) {
            (false, _) => 64,
            (true, false) => 32,
            (true, true) => 16,
        }
    }

    /// After how many runs a block is translated, if it can be.
    fn runs_to_count(&self, insns: &[Instruction]) -> Option<u32> {
        let t = self.code.translator.as_ref()?;
        (self.seg.mode != MODE_STEPS && !self.code.slow_only && !insns.is_empty()).then(|| t.threshold())
    }

    /// Whether the memory operand of an instruction in flat 32-bit code lies in a segment with limits or a base of its
    /// own.
    fn checks_segment(&self, i: &Instruction) -> bool {
        exec::operand::memory_operand(i).is_some() && !reaches_all(self.seg.mode, i.memory_segment())
    }
}

/// Whether an instruction may write memory, by its operands: an instruction that does nothing never does.
fn may_store(i: &Instruction) -> bool {
    let plain = |n| {
        use OpKind::*;
        !matches!(
            i.op_kind(n),
            Memory
                | MemorySegSI
                | MemorySegESI
                | MemorySegRSI
                | MemorySegDI
                | MemorySegEDI
                | MemorySegRDI
                | MemoryESDI
                | MemoryESEDI
                | MemoryESRDI
        )
    };
    i.mnemonic() != Mnemonic::Nop && (i.is_stack_instruction() || !(0..i.op_count()).all(plain))
}

fn undefined(_: &mut Cpu, _: &Instruction) -> super::fault::Exec {
    Err(Fault::ud().into())
}

/// `op`, and the slot that goes with its links.
fn push_op(ops: &mut Vec<Slot>, mut op: Op, x: LowExt, mfn: Mfn) {
    op.slots = 1 + u8::from(op.links > 0);
    if op.links == 0 {
        op.disp = if x.target != 0 { x.target } else { op.disp };
        ops.push(Slot { op });
        return;
    }
    ops.push(Slot { op });
    let ext = Ext {
        unused: 0,
        fall: 0,
        imm: x.imm,
        mfn: mfn.0 as u32,
        target: x.target,
        flags: [0; 4],
    };
    ops.push(Slot { ext });
}

fn push_slow(ops: &mut Vec<Slot>, insn: &Instruction, f: SlowFn, off: usize, left: u8, end: bool) {
    let mut op = Op::new(if end { fast::op_slow_end } else { fast::op_slow });
    op.imm = f as usize as u64;
    (op.off, op.left, op.len) = (off as u16, left, insn.len() as u8);
    op.slots = 3;
    let mut payload = [Slot { raw: [0; 4] }; 2];
    // SAFETY: an `Instruction` is plain data, fits (checked in block.rs), and is less aligned than a slot.
    unsafe { payload.as_mut_ptr().cast::<Instruction>().write(*insn) };
    ops.push(Slot { op });
    ops.extend_from_slice(&payload);
}

/// The maker of a processor, which decides how some encodings of 64-bit code are decoded: AMD's do not know far pointers
/// with 64-bit offsets, and cut the targets of near branches with a 66 prefix to 16 bits; Intel's ignore that prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// `AuthenticAMD`, and all that are not Intel.
    Amd,
    /// `GenuineIntel`.
    Intel,
}

impl Vendor {
    /// By the registers of CPUID leaf 0.
    fn from_leaf_0([_, b, c, d]: [u32; 4]) -> Vendor {
        let mut name = [0u8; 12];
        for (to, from) in name.chunks_exact_mut(4).zip([b, d, c]) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        match &name {
            b"GenuineIntel" => Vendor::Intel,
            _ => Vendor::Amd,
        }
    }

    fn options(self) -> u32 {
        match self {
            Vendor::Amd => DecoderOptions::AMD,
            Vendor::Intel => DecoderOptions::NONE,
        }
    }
}

impl Cpu {
    /// What `cpuid` shows from now on. Its vendor decides how code is decoded.
    pub fn set_cpuid(&mut self, table: Vec<CpuidRow>) {
        self.model.cpuid = table;
        let [low, _, _, high] = self.cpuid(cpuid::XSTATE, 0);
        self.fpu.xcr0_mask = (u64::from(high) << 32 | u64::from(low)) & xcr0::ALL;
        self.update_xsave();
        self.set_vendor(Vendor::from_leaf_0(self.cpuid(0, 0)));
    }

    /// Decodes as this maker's processors do from now on.
    pub fn set_vendor(&mut self, vendor: Vendor) {
        if std::mem::replace(&mut self.model.vendor, vendor) != vendor {
            self.forget_all_code();
        }
    }

    /// The first instruction of `bytes`, as the current mode and the vendor have it.
    pub(crate) fn decode(&self, bytes: &[u8], ip: u64) -> Result<Instruction, DecoderError> {
        decode_one(self.bits(), self.model.vendor, bytes, ip)
    }
}

/// Whether the decoder took a LOCK prefix before an access to CR0 for one to CR8. AMD's processors have that (AltMovCr8);
/// CPUID does not show it.
fn is_alternative_cr8(bits: u32, vendor: Vendor, i: &Instruction, bytes: &[u8]) -> bool {
    let cr8 = i.op0_register() == Register::CR8 || i.op1_register() == Register::CR8;
    vendor == Vendor::Amd && cr8 && decode_one(bits, Vendor::Intel, bytes, 0).is_err()
}

fn decode_one(bits: u32, vendor: Vendor, bytes: &[u8], ip: u64) -> Result<Instruction, DecoderError> {
    let mut d = Decoder::with_ip(bits, bytes, ip, vendor.options());
    let i = d.decode();
    match d.last_error() {
        DecoderError::None if is_alternative_cr8(bits, vendor, &i, bytes) => {
            Err(DecoderError::InvalidInstruction)
        }
        DecoderError::None => Ok(i),
        e => Err(e),
    }
}

/// Decodes until the block ends; gives the instructions and the number of bytes they take.
pub(crate) fn decode_all(
    bits: u32,
    vendor: Vendor,
    bytes: &[u8],
    ip: u64,
    max: usize,
) -> (Vec<Instruction>, usize) {
    let mut d = Decoder::with_ip(bits, bytes, ip, vendor.options());
    let mut out = Vec::with_capacity(16);
    let mut end = 0;
    while out.len() < max && d.can_decode() {
        let at = d.position();
        let i = d.decode();
        let valid = d.last_error() == DecoderError::None;
        if !valid || is_alternative_cr8(bits, vendor, &i, bytes.get(at..).unwrap_or_default()) {
            break;
        }
        end = d.position();
        out.push(i);
        if ends_block(&i) {
            break;
        }
    }
    (out, end)
}

/// An instruction of more than 15 bytes raises #GP instead of #UD: only prefixes make it that long.
fn too_long(bits: u32, vendor: Vendor, bytes: &[u8]) -> bool {
    let prefix = |b: &u8| match b {
        0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3 => true,
        0x40..=0x4f => bits == 64,
        _ => false,
    };
    let prefixes = bytes.iter().take(15).take_while(|b| prefix(b)).count();
    let mut padded = [0u8; 30];
    let rest: Vec<u8> = bytes
        .iter()
        .copied()
        .skip(prefixes.saturating_sub(1))
        .take(15)
        .collect();
    padded[..rest.len()].copy_from_slice(&rest);
    prefixes >= 15
        || (prefixes > 8
            && decode_one(bits, vendor, &padded[..15], 0).is_ok_and(|i| prefixes - 1 + i.len() > 15))
}

/// True if `insn` must be the last of its block: it branches, may leave the engine, or changes what later
/// instructions were decoded under.
pub(crate) fn ends_block(insn: &Instruction) -> bool {
    if insn.flow_control() != FlowControl::Next {
        return true;
    }
    use Mnemonic as M;
    match insn.mnemonic() {
        M::Popf
        | M::Popfd
        | M::Popfq
        | M::Sti
        | M::Cli
        | M::Rdtsc
        | M::Rdtscp
        | M::Wrmsr
        | M::Rdmsr
        | M::Hlt => true,
        M::Mov | M::Pop => insn.op0_kind() == OpKind::Register && insn.op0_register().is_segment_register(),
        M::Lss | M::Lfs | M::Lgs | M::Lds | M::Les => true,
        _ => false,
    }
}
