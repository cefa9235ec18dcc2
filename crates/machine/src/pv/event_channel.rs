// SPDX-License-Identifier: Apache-2.0
//! event_channel_op (`event_channel.h`), and the interface before 3.0.2.
//!
//! An argument is copied out, when the command gives something back, if it has succeeded.

use super::argument::Argument;
use super::{Efault, Vcpu};
use crate::abi::evtchn::{
    alloc_unbound, bind_interdomain, bind_ipi, bind_pirq, bind_vcpu, bind_virq, compat_op, evtchnop,
    expand_array, fifo, init_control, one_port, reset, set_priority, status, NR_PIRQS,
};
use crate::abi::Errno;
use crate::evtchn::{DomainEvents, EventResult};
use std::sync::Arc;

/// After so many ports a reset, or a new page of event words, lets others have their turn.
const PORTS_AT_ONCE: u32 = 128;
/// The largest argument.
const ARGUMENT_MAX: usize = status::SIZE;

/// How event_channel_op ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOutcome {
    /// It is answered.
    Done(EventResult),
    /// Let the guest take its events, then make the call again with this command.
    Continue(u32),
}

impl From<Efault> for Errno {
    fn from(_: Efault) -> Errno {
        Errno::EFAULT
    }
}

/// One command: copied in, and not yet done.
struct Call {
    events: Arc<DomainEvents>,
    command: u32,
    va: u64,
    /// Bytes of the argument, and whether they are copied out again.
    size: usize,
    copies_out: bool,
    arg: Argument<ARGUMENT_MAX>,
}

/// Bytes of a command's argument, and whether it is copied out again. `None`: there is no such command.
fn shape(command: u32) -> Option<(usize, bool)> {
    Some(match command {
        evtchnop::BIND_INTERDOMAIN => (bind_interdomain::SIZE, true),
        evtchnop::BIND_VIRQ => (bind_virq::SIZE, true),
        evtchnop::BIND_PIRQ => (bind_pirq::SIZE, false),
        evtchnop::CLOSE | evtchnop::SEND | evtchnop::UNMASK => (one_port::SIZE, false),
        evtchnop::STATUS => (status::SIZE, true),
        evtchnop::ALLOC_UNBOUND => (alloc_unbound::SIZE, true),
        evtchnop::BIND_IPI => (bind_ipi::SIZE, true),
        evtchnop::BIND_VCPU => (bind_vcpu::SIZE, false),
        evtchnop::RESET | evtchnop::RESET_CONT => (reset::SIZE, false),
        evtchnop::INIT_CONTROL => (init_control::SIZE, true),
        evtchnop::EXPAND_ARRAY => (expand_array::SIZE, false),
        evtchnop::SET_PRIORITY => (set_priority::SIZE, false),
        _ => return None,
    })
}

/// What changes the frames that the hypervisor holds of the guest is the layer above's to begin: the audit of references
/// is done with its lock held.
fn is_above(command: u32) -> bool {
    matches!(
        command,
        evtchnop::INIT_CONTROL | evtchnop::EXPAND_ARRAY | evtchnop::RESET | evtchnop::RESET_CONT
    )
}

impl Vcpu {
    /// A guest's event_channel_op. `None`: it is for the layer above.
    pub(super) fn event_hypercall(&mut self, args: [u64; 6]) -> Option<EventResult> {
        let [command, va, ..] = args;
        self.answer_event(command as u32, va)
    }

    /// A guest's event_channel_op_compat: command and argument are in one structure.
    pub(super) fn event_hypercall_compat(&mut self, args: [u64; 6]) -> Option<EventResult> {
        let [va, ..] = args;
        self.events.as_ref()?;
        let mut op = [0; compat_op::SIZE];
        if self.copy_in(va, &mut op).is_err() {
            return Some(Err(Errno::EFAULT));
        }
        let [a, b, c, d, ..] = op;
        let command = u32::from_le_bytes([a, b, c, d]);
        match command > evtchnop::UNMASK {
            true => Some(Err(Errno::ENOSYS)),
            false => self.answer_event(command, va.wrapping_add(compat_op::ARGUMENT)),
        }
    }

    fn answer_event(&mut self, command: u32, va: u64) -> Option<EventResult> {
        if is_above(command) {
            return None;
        }
        let call = match self.event_call(command, va)? {
            Ok(call) => call,
            Err(error) => return Some(Err(error)),
        };
        if command == evtchnop::SEND && call.events.send_is_above(call.arg.u32(one_port::PORT)) {
            return None;
        }
        match self.carry_out(call) {
            EventOutcome::Done(done) => Some(done),
            // Only commands of the layer above are long.
            EventOutcome::Continue(_) => None,
        }
    }

    /// One command, or a round of it. `None`: there is no such command, or no event channels.
    pub fn event_channel_op(&mut self, command: u32, va: u64) -> Option<EventOutcome> {
        Some(match self.event_call(command, va)? {
            Ok(call) => self.carry_out(call),
            Err(error) => EventOutcome::Done(Err(error)),
        })
    }

    /// Copies the argument in. `Err`: EFAULT. `None`: there is no such command, or no event channels.
    fn event_call(&mut self, command: u32, va: u64) -> Option<EventResult<Call>> {
        let (size, copies_out) = shape(command)?;
        let events = self.events.clone()?;
        let mut arg = Argument::new();
        if self.copy_in(va, arg.0.get_mut(..size)?).is_err() {
            return Some(Err(Errno::EFAULT));
        }
        Some(Ok(Call {
            events,
            command,
            va,
            size,
            copies_out,
            arg,
        }))
    }

    fn carry_out(&mut self, mut call: Call) -> EventOutcome {
        let shared = self.cpu.shared.clone();
        let outcome = {
            // The ports' lock is waited for, and everything done with it, outside the guest.
            let _outside = shared.leave();
            perform(&call.events, self.id, call.command, &mut call.arg)
        };
        self.cpu.apply_purges();
        match outcome {
            EventOutcome::Done(Ok(())) if call.copies_out => {
                let out = self.copy_out(call.va, call.arg.0.get(..call.size).unwrap_or(&[]));
                EventOutcome::Done(out.map_err(Errno::from))
            }
            outcome => outcome,
        }
    }
}

fn perform(events: &DomainEvents, vcpu: u32, command: u32, arg: &mut Argument<ARGUMENT_MAX>) -> EventOutcome {
    let rounds = |done: EventResult<bool>, again: u32| match done {
        Ok(true) => EventOutcome::Done(Ok(())),
        Ok(false) => EventOutcome::Continue(again),
        Err(error) => EventOutcome::Done(Err(error)),
    };
    match command {
        evtchnop::RESET | evtchnop::RESET_CONT => {
            let resume = command == evtchnop::RESET_CONT;
            let done = events.check_own(arg.u16(reset::DOM));
            rounds(
                done.and_then(|()| events.reset(PORTS_AT_ONCE, resume)),
                evtchnop::RESET_CONT,
            )
        }
        evtchnop::EXPAND_ARRAY => {
            let gfn = arg.u64(expand_array::ARRAY_GFN);
            rounds(events.expand_array(vcpu, gfn, PORTS_AT_ONCE), command)
        }
        _ => EventOutcome::Done(perform_short(events, command, arg)),
    }
}

fn perform_short(events: &DomainEvents, command: u32, arg: &mut Argument<ARGUMENT_MAX>) -> EventResult {
    let (at, port) = match command {
        evtchnop::SEND => return events.send(arg.u32(one_port::PORT)),
        evtchnop::UNMASK => return events.unmask(arg.u32(one_port::PORT)),
        evtchnop::CLOSE => return events.close_port(arg.u32(one_port::PORT)),
        evtchnop::STATUS => return tell_status(events, arg),
        evtchnop::BIND_VCPU => return events.bind_vcpu(arg.u32(bind_vcpu::PORT), arg.u32(bind_vcpu::VCPU)),
        evtchnop::SET_PRIORITY => {
            return events.set_priority(arg.u32(set_priority::PORT), arg.u32(set_priority::PRIORITY))
        }
        evtchnop::INIT_CONTROL => {
            let (vcpu, offset) = (arg.u32(init_control::VCPU), arg.u32(init_control::OFFSET));
            events.init_control(vcpu, arg.u64(init_control::CONTROL_GFN), offset)?;
            arg.set(init_control::LINK_BITS, &[fifo::LINK_BITS as u8]);
            return Ok(());
        }
        // No domain here has a physical interrupt.
        evtchnop::BIND_PIRQ if arg.u32(bind_pirq::PIRQ) >= NR_PIRQS => return Err(Errno::EINVAL),
        evtchnop::BIND_PIRQ => return Err(Errno::EPERM),
        evtchnop::ALLOC_UNBOUND => {
            events.check_own(arg.u16(alloc_unbound::DOM))?;
            let port = events.alloc_unbound(arg.u16(alloc_unbound::REMOTE_DOM))?;
            (alloc_unbound::PORT, port)
        }
        evtchnop::BIND_INTERDOMAIN => {
            let domid = arg.u16(bind_interdomain::REMOTE_DOM);
            let port = events.bind_interdomain(domid, arg.u32(bind_interdomain::REMOTE_PORT))?;
            (bind_interdomain::LOCAL_PORT, port)
        }
        evtchnop::BIND_VIRQ => {
            let port = events.bind_virq(arg.u32(bind_virq::VIRQ), arg.u32(bind_virq::VCPU))?;
            (bind_virq::PORT, port)
        }
        evtchnop::BIND_IPI => (bind_ipi::PORT, events.bind_ipi(arg.u32(bind_ipi::VCPU))?),
        _ => return Err(Errno::ENOSYS),
    };
    arg.set(at, &port.to_le_bytes());
    Ok(())
}

/// EVTCHNOP_status: what a port is connected to.
fn tell_status(events: &DomainEvents, arg: &mut Argument<ARGUMENT_MAX>) -> EventResult {
    let told = events.status(arg.u16(status::DOM), arg.u32(status::PORT))?;
    arg.set(status::STATUS, &told.status.to_le_bytes());
    arg.set(status::VCPU, &told.vcpu.to_le_bytes());
    if let Some(domid) = told.domid {
        arg.set(status::U, &domid.to_le_bytes());
    }
    if let Some(port) = told.port {
        arg.set(status::U_INTERDOMAIN_PORT, &port.to_le_bytes());
    }
    if let Some(virq) = told.virq {
        arg.set(status::U, &virq.to_le_bytes());
    }
    Ok(())
}
