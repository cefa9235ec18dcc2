// SPDX-License-Identifier: Apache-2.0
//! multicall: several hypercalls in one, of which those are made here that the machine answers.

use super::argument::Argument;
use super::guest_copy::{array_ok, Efault};
use super::hypercall::Answer;
use super::Exit;
use super::Vcpu;
use crate::abi::hypercall::nr;
use crate::abi::structs::multicall_entry as layout;
use crate::abi::{errno, Errno};
use crate::shared::attention;
use std::sync::atomic::Ordering;

/// After so many calls, or so much time, others get their turn. Virtual time stands still meanwhile.
const CALLS_AT_ONCE: u32 = 32;
const ROUND_NS: u64 = 1_000_000;

impl Vcpu {
    /// HYPERVISOR_multicall. Events that are due come between two calls. A call that the machine does not answer goes up
    /// as a multicall of what is left, of which the layer above makes the first call at least.
    pub(super) fn multicall(&mut self, args: [u64; 6]) -> Option<Exit> {
        let (calls, count) = (args[0], args[1] as u32);
        let mut rest = args;
        match self.make_calls(calls, count) {
            Ok(End::Done) => self.hypercall_return(0),
            Ok(End::Again(calls, left)) => self.hypercall_restart_with(0, [calls, u64::from(left)]),
            Ok(End::Up(calls, left)) => {
                let first = [calls, u64::from(left)];
                self.set_arguments(0, first);
                rest[..2].copy_from_slice(&first);
                return Some(Exit::Hypercall {
                    nr: nr::MULTICALL,
                    args: rest,
                });
            }
            Err(Efault) => self.hypercall_return(Errno::EFAULT.rc()),
        }
        self.after_hypercall()
    }

    fn make_calls(&mut self, mut entry: u64, count: u32) -> Result<End, Efault> {
        let is_32bit = self.is_32bit();
        let word = layout::word(is_32bit);
        let size = layout::WORDS * word;
        if !array_ok(entry, count, size, is_32bit) {
            return Err(Efault);
        }
        let clock = self.cpu.domain.machine.clock.clone();
        let end_ns = clock.now_ns().saturating_add(ROUND_NS);
        for done in 0..count {
            let left = count - done;
            if done > 0 && (done >= CALLS_AT_ONCE || self.is_wanted() || clock.now_ns() >= end_ns) {
                return Ok(End::Again(entry, left));
            }
            let (nr, args) = self.copy_call(entry)?;
            let answer = match nr {
                nr::MULTICALL => Answer::Done(Err(Errno::EINVAL)),
                _ => match self.answer(nr, args) {
                    Some(answer) => answer,
                    None => return Ok(End::Up(entry, left)),
                },
            };
            match answer {
                Answer::Done(done) => {
                    self.store_words(
                        entry.wrapping_add(layout::RESULT * word),
                        &[errno::rc(done) as u64],
                    )?;
                }
                Answer::Value(value) => {
                    self.store_words(entry.wrapping_add(layout::RESULT * word), &[value])?;
                }
                Answer::Again => return Ok(End::Again(entry, left)),
                Answer::AgainWith(first, values) => {
                    // The entry itself says how the call goes on.
                    let at = layout::ARGS + first as u64;
                    self.store_words(entry.wrapping_add(at * word), &values)?;
                    return Ok(End::Again(entry, left));
                }
            }
            entry = entry.wrapping_add(size);
        }
        Ok(End::Done)
    }

    /// Whether something else is to happen before the next call: an upcall, an NMI, what another thread asks for.
    fn is_wanted(&self) -> bool {
        let asked = self.cpu.shared.attention.load(Ordering::SeqCst) & (attention::STOP | attention::EVENT);
        asked != 0 || self.injected.is_some() || self.nmi_is_due() || self.event_deliverable()
    }

    fn copy_call(&mut self, entry: u64) -> Result<(u64, [u64; 6]), Efault> {
        let word = layout::word(self.is_32bit()) as usize;
        let mut copied = Argument::<{ 8 * layout::WORDS as usize }>::new();
        let size = layout::WORDS as usize * word;
        self.copy_in(entry, copied.0.get_mut(..size).unwrap_or_default())?;
        let field = |n: u64| match word {
            4 => u64::from(copied.u32(n as usize * 4)),
            _ => copied.u64(n as usize * 8),
        };
        let args = std::array::from_fn(|n| field(layout::ARGS + n as u64));
        Ok((field(layout::OP), args))
    }

    /// Stores values of the guest's `unsigned long`, one after the other.
    fn store_words(&mut self, va: u64, values: &[u64]) -> Result<(), Efault> {
        let word = layout::word(self.is_32bit()) as usize;
        let mut bytes = Argument::<16>::new();
        for (n, value) in values.iter().enumerate() {
            bytes.set(n * word, value.to_le_bytes().get(..word).unwrap_or_default());
        }
        self.copy_out(va, bytes.0.get(..values.len() * word).unwrap_or_default())
    }
}

/// Where a round of a multicall has come to.
enum End {
    Done,
    /// The calls from here on, so many, are made after the guest's events.
    Again(u64, u32),
    /// The layer above makes them.
    Up(u64, u32),
}
