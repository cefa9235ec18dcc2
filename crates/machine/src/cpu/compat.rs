//! 16- and 32-bit code in compatibility mode: one instruction at a time, by the slow handlers.

use super::fault::{Fault, Trap};
use super::hidden::CS;
use super::{exec, Cpu};
use crate::mmu::tlb::tlb_index;
use crate::mmu::walk::Access;
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction};

/// Longest instruction.
const MAX_LEN: usize = 15;

impl Cpu {
    /// One instruction of 16- or 32-bit code. The mode may be another one afterwards.
    pub(crate) fn step_compat(&mut self) -> Result<(), Trap> {
        self.rip &= 0xffff_ffff;
        let insn = self.fetch_compat()?;
        self.next_rip = self.rip.wrapping_add(insn.len() as u64) & 0xffff_ffff;
        let handler = exec::lookup(insn.code()).ok_or(Fault::ud())?;
        match handler(self, &insn) {
            Ok(()) | Err(Trap::EndBlock) => {}
            Err(t @ (Trap::Syscall | Trap::Sysenter | Trap::SoftInt { .. })) => {
                self.budget -= 1;
                self.rip = self.next_rip;
                return Err(t);
            }
            Err(t) => return Err(t),
        }
        self.budget -= 1;
        self.rip = self.next_rip;
        Ok(())
    }

    /// Copies up to `buf.len()` bytes of code from one page.
    fn fetch_bytes(&mut self, va: u64, buf: &mut [u8]) -> Result<(), Trap> {
        // SAFETY: the index is in range, and `tlb` points to the current view.
        let e = unsafe { *self.tlb.add(tlb_index(va)) };
        let host = if e.neg_x.wrapping_add(va) < 4096 {
            va.wrapping_add(e.delta) as *const u8
        } else {
            self.translate(va, Access::Fetch)?.host
        };
        // SAFETY: the caller asks for no more than is left in the page, which lies in guest RAM.
        unsafe { std::ptr::copy(host, buf.as_mut_ptr(), buf.len()) };
        Ok(())
    }

    fn fetch_compat(&mut self) -> Result<Instruction, Trap> {
        let cs = self.hidden[CS];
        // Bytes beyond the limit are not fetched.
        let have = (u64::from(cs.limit) + 1).saturating_sub(self.rip);
        let have = if cs.limit == u32::MAX {
            MAX_LEN
        } else {
            have.min(MAX_LEN as u64) as usize
        };
        let va = self.linear(self.rip.wrapping_add(u64::from(cs.base)));
        let first = (4096 - (va & 0xfff) as usize).min(have);
        if first == 0 {
            return Err(Fault::gp().into());
        }
        let bitness = if self.code16 { 16 } else { 32 };
        let ip = self.rip & 0xfff;
        let mut buf = [0u8; MAX_LEN];
        self.fetch_bytes(va, &mut buf[..first])?;
        match decode(bitness, &buf[..first], ip) {
            Err(DecoderError::NoMoreBytes) if first < have => {
                let next = self.linear(va.wrapping_add(first as u64));
                self.fetch_bytes(next, &mut buf[first..have])?;
                decode(bitness, &buf[..have], ip).map_err(invalid)
            }
            r => r.map_err(invalid),
        }
    }
}

/// More than 15 bytes, or bytes beyond the limit, are #GP; anything else that cannot be decoded is #UD.
fn invalid(e: DecoderError) -> Trap {
    match e {
        DecoderError::NoMoreBytes => Fault::gp().into(),
        _ => Fault::ud().into(),
    }
}

fn decode(bitness: u32, bytes: &[u8], ip: u64) -> Result<Instruction, DecoderError> {
    let mut d = Decoder::with_ip(bitness, bytes, ip, DecoderOptions::NONE);
    let i = d.decode();
    match d.last_error() {
        DecoderError::None if i.code() == Code::INVALID => Err(DecoderError::InvalidInstruction),
        DecoderError::None => Ok(i),
        e => Err(e),
    }
}
