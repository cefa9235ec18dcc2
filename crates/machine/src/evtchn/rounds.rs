// SPDX-License-Identifier: Apache-2.0
//! What may concern thousands of ports, done in rounds: EVTCHNOP_reset, and the FIFO ABI's pages.

use super::channel::QueueId;
use super::fifo::{Fifo, MAX_OFFSET, MAX_PAGES, WORDS_PER_PAGE};
use super::two_level::TwoLevel;
use super::{Abi, DomainEvents, EventResult, Reset, State};
use crate::abi::evtchn::fifo;
use crate::abi::Errno;
use crate::mem::Mfn;

impl State {
    fn fifo(&mut self) -> EventResult<&mut Fifo> {
        match &mut self.abi {
            Abi::Fifo(fifo) => Ok(fifo),
            Abi::TwoLevel(_) => Err(Errno::EOPNOTSUPP),
        }
    }
}

impl DomainEvents {
    /// A frame that the guest gives, to be written from now on. `Err`: EINVAL, when it is not an ordinary one of the
    /// domain. Without the domain's lock: the memory lock is waited for.
    fn take_frame(&self, gfn: u64) -> EventResult<Mfn> {
        let mfn = Mfn(gfn);
        self.domain.get_ref(mfn, true).map_err(|_| Errno::EINVAL)?;
        self.domain.host_mapped(mfn);
        Ok(mfn)
    }

    /// EVTCHNOP_reset: closes every port and goes back to the 2-level ABI.
    ///
    /// `at_once`: how many ports to look at in this round; `resume`: goes on with a reset that has begun. Says whether
    /// it is done. `Err`: EBUSY, when another one is going on, or there is none to resume.
    pub fn reset(&self, at_once: u32, resume: bool) -> EventResult<bool> {
        let (first, end) = {
            let mut state = self.lock();
            let first = match (state.reset, resume) {
                (Reset::No, false) => 0,
                (Reset::At(port), true) => port,
                _ => return Err(Errno::EBUSY),
            };
            state.reset = Reset::InRound;
            let ports = state.channels.len() as u32;
            (first, first.saturating_add(at_once).min(ports))
        };
        for port in first..end {
            // Most are closed already.
            self.close_port(port).ok();
        }
        let mut state = self.lock();
        if (end as usize) < state.channels.len() {
            state.reset = Reset::At(end);
            return Ok(false);
        }
        drop(state);
        self.end_reset();
        Ok(true)
    }

    /// All ports are closed: back to the 2-level ABI, frames are given back.
    pub(super) fn end_reset(&self) {
        let frames = {
            let mut state = self.lock();
            state.reset = Reset::No;
            let two_level = Abi::TwoLevel(TwoLevel::new(self.shared_info, self.domain.is_32bit));
            match std::mem::replace(&mut state.abi, two_level) {
                Abi::TwoLevel(_) => Vec::new(),
                Abi::Fifo(fifo) => {
                    for channel in &mut state.channels {
                        channel.latched = false;
                        channel.queue = QueueId::default();
                    }
                    fifo.frames()
                }
            }
        };
        for mfn in frames {
            self.domain.put_ref(mfn, true);
        }
    }

    /// EVTCHNOP_init_control: gives a vCPU its control block; the first one changes the domain to the FIFO ABI. `Err`:
    /// ENOENT, EINVAL.
    pub fn init_control(&self, vcpu: u32, gfn: u64, offset: u32) -> EventResult {
        let check = |state: &State| match &state.abi {
            Abi::Fifo(fifo) if fifo.blocks.contains_key(&vcpu) => Err(Errno::EINVAL),
            _ => state.vcpu(vcpu).map(drop),
        };
        {
            let state = self.lock();
            state.vcpu(vcpu)?;
            if offset > MAX_OFFSET || !offset.is_multiple_of(8) {
                return Err(Errno::EINVAL);
            }
            check(&state)?;
        }
        let mfn = self.take_frame(gfn)?;
        let mut state = self.lock();
        if let Err(error) = check(&state) {
            drop(state);
            self.domain.put_ref(mfn, true);
            return Err(error);
        }
        if let Abi::TwoLevel(old) = state.abi {
            // There is no event array yet: what is pending now is raised when its page comes.
            for (port, channel) in (0..).zip(&mut state.channels) {
                channel.priority = fifo::PRIORITY_DEFAULT;
                if !channel.binding.is_closed() {
                    channel.latched = old.is_pending(self.machine(), port);
                    old.clear_pending(self.machine(), port);
                }
            }
            state.abi = Abi::Fifo(Fifo::default());
        }
        let block = mfn.maddr() + u64::from(offset);
        state.fifo()?.blocks.insert(vcpu, block);
        Ok(())
    }

    /// EVTCHNOP_expand_array: one more page of event words; what was pending without one is raised.
    ///
    /// `vcpu`: who asks: the same vCPU with the same frame goes on with what it has begun; `at_once`: how many ports to
    /// look at in this round. Says whether it is done. `Err`: EOPNOTSUPP, ENOSPC, EINVAL.
    pub fn expand_array(&self, vcpu: u32, gfn: u64, at_once: u32) -> EventResult<bool> {
        let goes_on = |state: &mut State| {
            let fifo = state.fifo()?;
            match fifo.expanding.get(&vcpu) == Some(&Mfn(gfn)) {
                true => Ok(true),
                false if fifo.array.len() >= MAX_PAGES => Err(Errno::ENOSPC),
                false => Ok(false),
            }
        };
        if goes_on(&mut self.lock())? {
            return self.raise_latched(vcpu, Mfn(gfn), at_once);
        }
        let mfn = self.take_frame(gfn)?;
        let added = {
            let mut state = self.lock();
            let state = &mut state;
            goes_on(state)
                .and_then(|_| state.fifo())
                .map(|fifo| fifo.array.push(mfn))
        };
        match added {
            Ok(()) => self.raise_latched(vcpu, mfn, at_once),
            Err(error) => {
                self.domain.put_ref(mfn, true);
                Err(error)
            }
        }
    }

    /// Raises what became pending before its word was there, for up to `at_once` ports. True when all is done.
    fn raise_latched(&self, vcpu: u32, mfn: Mfn, at_once: u32) -> EventResult<bool> {
        let mut state = self.lock();
        let ports = state.channels.len() as u32;
        let fifo = state.fifo()?;
        let words = fifo.array.len() as u32 * WORDS_PER_PAGE;
        let (first, end) = (fifo.raised, words.min(ports));
        let stop = first.saturating_add(at_once).min(end);
        for port in first..stop {
            let is_latched = |channel: &mut super::Channel| std::mem::take(&mut channel.latched);
            if state.channel_mut(port).is_ok_and(is_latched) {
                self.set_pending(&mut state, port);
            }
        }
        let fifo = state.fifo()?;
        let done = stop >= end;
        if done {
            // Ports that are yet to become valid have their word from the beginning.
            fifo.raised = words;
            fifo.expanding.remove(&vcpu);
        } else {
            fifo.raised = stop;
            fifo.expanding.insert(vcpu, mfn);
        }
        Ok(done)
    }
}
