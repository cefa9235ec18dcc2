// SPDX-License-Identifier: Apache-2.0
//! Giving ports out, connecting them, closing them.

use super::channel::Channel;
use super::{Abi, Binding, DomainEvents, EventResult, State};
use crate::abi::evtchn::{fifo, virq as virqs};
use crate::abi::{DomId, Errno, DOMID_SELF};

impl State {
    /// The lowest port that may be used; the caller gives it a binding with `take`.
    fn free_port(&mut self, events: &DomainEvents) -> EventResult<u32> {
        if self.closed {
            return Err(Errno::EINVAL);
        }
        let max_ports = match &self.abi {
            Abi::TwoLevel(abi) => abi.max_ports(),
            Abi::Fifo(_) => fifo::NR_CHANNELS,
        };
        let limit = events.limit.saturating_add(1).min(max_ports);
        let mut from = 0;
        loop {
            let is_free = |port: &&u32| match &self.abi {
                Abi::TwoLevel(_) => true,
                Abi::Fifo(abi) => !abi.is_busy(events.machine(), **port),
            };
            if let Some(port) = self.free.range(from..limit).find(is_free) {
                return Ok(*port);
            }
            // Each is looked at once: those of the next step are all that is new.
            from = self.channels.len() as u32;
            if from >= limit {
                return Err(Errno::ENOSPC);
            }
            self.grow();
        }
    }

    fn take(&mut self, port: u32, binding: Binding, vcpu: u32) {
        self.free.remove(&port);
        if let Some(channel) = self.channels.get_mut(port as usize) {
            channel.binding = binding;
            channel.vcpu = vcpu;
            channel.priority = fifo::PRIORITY_DEFAULT;
        }
    }

    /// Frees a port whose other end, if it has one, knows.
    fn free(&mut self, events: &DomainEvents, port: u32) {
        if let Ok(&Channel {
            binding: Binding::Virq(virq),
            vcpu,
            ..
        }) = self.channel(port)
        {
            self.virqs
                .remove(&(if virqs::is_per_vcpu(virq) { vcpu } else { 0 }, virq));
        }
        self.clear_pending(events.machine(), port);
        if let Some(channel) = self.channels.get_mut(port as usize) {
            channel.free();
            self.free.insert(port);
        }
    }
}

impl DomainEvents {
    /// EVTCHNOP_alloc_unbound: a port that waits for a domain of this number, which need not exist.
    pub fn alloc_unbound(&self, remote: DomId) -> EventResult<u32> {
        let remote = if remote == DOMID_SELF {
            self.domid()
        } else {
            remote
        };
        let mut state = self.lock();
        let port = state.free_port(self)?;
        state.take(port, Binding::Unbound(remote), 0);
        Ok(port)
    }

    /// EVTCHNOP_bind_interdomain: connects a new port to a port of another domain that waits for this one. `Err`: ESRCH,
    /// EINVAL, ENOSPC.
    pub fn bind_interdomain(&self, domid: DomId, port: u32) -> EventResult<u32> {
        self.check_any(domid)?;
        let found = match domid == DOMID_SELF || domid == self.domid() {
            true => None,
            // Domain 0 exists, and has no port that waits for a guest: its back ends bind to the guest's.
            false => Some(self.all.find(domid).ok_or(Errno::EINVAL)?),
        };
        let remote = found.as_deref().unwrap_or(self);
        let (mut own, mut its) = self.lock_with(remote);
        let local = own.free_port(self)?;
        let peer = its.as_deref_mut().unwrap_or(&mut own).channel_mut(port)?;
        if !matches!(peer.binding, Binding::Unbound(waits_for) if waits_for == self.domid()) {
            return Err(Errno::EINVAL);
        }
        peer.binding = Binding::Interdomain {
            domid: self.domid(),
            port: local,
        };
        let binding = Binding::Interdomain {
            domid: remote.domid(),
            port,
        };
        own.take(local, binding, 0);
        // Notifications sent before the channel was bound were lost.
        self.set_pending(&mut own, local);
        Ok(local)
    }

    /// EVTCHNOP_bind_virq: connects a new port to a virtual interrupt. `Err`: EINVAL, ENOENT, EEXIST, ENOSPC.
    pub fn bind_virq(&self, virq: u32, vcpu: u32) -> EventResult<u32> {
        if virq >= virqs::COUNT || !virqs::is_per_vcpu(virq) && vcpu != 0 {
            return Err(Errno::EINVAL);
        }
        let mut state = self.lock();
        state.vcpu(vcpu)?;
        if state.virqs.contains_key(&(vcpu, virq)) {
            return Err(Errno::EEXIST);
        }
        let port = state.free_port(self)?;
        state.take(port, Binding::Virq(virq), vcpu);
        state.virqs.insert((vcpu, virq), port);
        Ok(port)
    }

    /// EVTCHNOP_bind_ipi: a new port that notifies a vCPU of the same domain. `Err`: ENOENT, ENOSPC.
    pub fn bind_ipi(&self, vcpu: u32) -> EventResult<u32> {
        let mut state = self.lock();
        state.vcpu(vcpu)?;
        let port = state.free_port(self)?;
        state.take(port, Binding::Ipi, vcpu);
        Ok(port)
    }

    /// EVTCHNOP_bind_vcpu: chooses the vCPU that a port notifies. `Err`: ENOENT, EINVAL.
    pub fn bind_vcpu(&self, port: u32, vcpu: u32) -> EventResult {
        let mut state = self.lock();
        state.vcpu(vcpu)?;
        let channel = state.channel_mut(port)?;
        match channel.binding {
            Binding::Unbound(_) | Binding::Interdomain { .. } | Binding::Host { .. } => {}
            Binding::Virq(virq) if !virqs::is_per_vcpu(virq) => {}
            _ => return Err(Errno::EINVAL),
        }
        channel.vcpu = vcpu;
        Ok(())
    }

    /// EVTCHNOP_close: frees a port; its peer waits for a new one. `Err`: EINVAL.
    pub fn close_port(&self, port: u32) -> EventResult {
        loop {
            let mut state = self.lock();
            let domid = match state.channel(port)?.binding {
                Binding::Closed => return Err(Errno::EINVAL),
                Binding::Interdomain { domid, port: its } if domid == self.domid() => {
                    state.let_go(its);
                    state.free(self, port);
                    return Ok(());
                }
                Binding::Interdomain { domid, .. } => domid,
                _ => {
                    state.free(self, port);
                    return Ok(());
                }
            };
            drop(state);
            let Some(remote) = self.all.find(domid) else {
                // It has ended. Its own close lets go of this port, or has.
                let mut state = self.lock();
                if matches!(state.channel(port)?.binding, Binding::Interdomain { domid: now, .. } if now == domid)
                {
                    state.let_go(port);
                }
                continue;
            };
            if self.close_with(&remote, port, domid)? {
                return Ok(());
            }
        }
    }

    /// Closes a port that is connected to a port of `remote`. False: it was closed, or connected to somebody else, in
    /// between.
    fn close_with(&self, remote: &DomainEvents, port: u32, domid: DomId) -> EventResult<bool> {
        let (mut own, its) = self.lock_with(remote);
        let (
            Binding::Interdomain {
                domid: now,
                port: peer,
            },
            Some(mut its),
        ) = (own.channel(port)?.binding.clone(), its)
        else {
            return Ok(false);
        };
        if now != domid {
            return Ok(false);
        }
        let is_peer = |c: &Channel| c.binding.is_peer(self.domid(), port);
        if its.channel(peer).is_ok_and(is_peer) {
            its.let_go(peer);
        }
        own.free(self, port);
        Ok(true)
    }

    /// The domain is being destroyed: all ports are closed, and none is given out any more.
    pub fn close(&self) {
        let ports = {
            let mut state = self.lock();
            state.closed = true;
            state.channels.len() as u32
        };
        for port in 1..ports {
            // Most are closed already.
            self.close_port(port).ok();
        }
        self.end_reset();
        self.all.domains_mut(|list| {
            let is_own = |found: &std::sync::Weak<DomainEvents>| std::ptr::eq(found.as_ptr(), self);
            if list.get(&self.domid()).is_some_and(is_own) {
                list.remove(&self.domid());
            }
        });
    }
}
