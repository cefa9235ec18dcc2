//! The run loop.

use super::exec;
use super::fault::{Fault, Trap};
use super::{Cpu, Stop};
use crate::mem::Mfn;
use crate::mmu::walk::Access;
use crate::shared::attention;
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};
use std::sync::atomic::Ordering;

impl Cpu {
    /// Runs guest code until something needs the layer above. Never panics on guest input.
    pub fn run(&mut self) -> Stop {
        let was = self.shared.in_guest.swap(true, Ordering::SeqCst);
        let stop = self.run_plain();
        self.shared.in_guest.store(was, Ordering::SeqCst);
        stop
    }

    fn run_plain(&mut self) -> Stop {
        loop {
            let bits = self.shared.attention.load(Ordering::SeqCst);
            if bits & attention::PURGE != 0 {
                self.apply_purges();
            }
            if bits & !attention::PURGE != 0 {
                return Stop::Attention;
            }
            if self.budget <= 0 {
                return Stop::Budget;
            }
            if let Err(trap) = self.step() {
                match trap {
                    Trap::EndBlock => {}
                    Trap::Syscall | Trap::Sysenter | Trap::SoftInt { .. } => {
                        self.budget -= 1;
                        self.rip = self.next_rip;
                        return Stop::Trap(trap);
                    }
                    _ => return Stop::Trap(trap),
                }
            }
            self.budget -= 1;
            self.rip = self.next_rip;
        }
    }

    /// One instruction: fetched, decoded and executed. A fault leaves `rip` at it.
    fn step(&mut self) -> Result<(), Trap> {
        let insn = self.fetch()?;
        self.next_rip = self.rip.wrapping_add(insn.len() as u64);
        let Some(f) = exec::lookup(insn.code()) else {
            return Err(Fault::ud().into());
        };
        f(self, &insn)
    }

    fn fetch(&mut self) -> Result<Instruction, Trap> {
        let offset = self.rip & 0xfff;
        let first = (4096 - offset).min(15) as usize;
        let mut buf = [0u8; 15];
        let page = self.translate(self.rip, Access::Fetch)?;
        // SAFETY: `first` bytes are left in the page.
        unsafe { std::ptr::copy(page.host, buf.as_mut_ptr(), first) };
        match decode(&buf[..first], offset) {
            Ok(i) => Ok(i),
            Err(DecoderError::NoMoreBytes) if first < 15 => {
                let next = self.rip.wrapping_add(first as u64);
                let page = self.translate(next, Access::Fetch)?;
                // SAFETY: 15 - first < 4096 bytes from the start of a page.
                unsafe { std::ptr::copy(page.host, buf.as_mut_ptr().add(first), 15 - first) };
                decode(&buf, offset).map_err(bad_instruction)
            }
            Err(e) => Err(bad_instruction(e)),
        }
    }

    pub(crate) fn forget_code(&mut self, _mfn: Mfn, _start: u16, _end: u16) {}

    pub(crate) fn forget_all_code(&mut self) {}

    /// A store hit a frame with decoded code.
    pub(crate) fn code_written(&mut self, _mfn: Mfn, _offset: u16, _len: usize) {}
}

/// Longer than 15 bytes is #GP, anything else #UD.
fn bad_instruction(e: DecoderError) -> Trap {
    match e {
        DecoderError::NoMoreBytes => Fault::gp().into(),
        _ => Fault::ud().into(),
    }
}

fn decode(bytes: &[u8], offset: u64) -> Result<Instruction, DecoderError> {
    let mut d = Decoder::with_ip(64, bytes, offset, DecoderOptions::NONE);
    let i = d.decode();
    match d.last_error() {
        DecoderError::None => Ok(i),
        e => Err(e),
    }
}
