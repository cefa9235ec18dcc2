// SPDX-License-Identifier: Apache-2.0
//! Event channels: ports, bindings, and how guests see their events. One implementation for hypercalls and for back ends
//! in the host.
//!
//! Each domain's ports are behind a lock of its own. It is held for one operation on one port, for as many ports as a
//! round has, or (a new port with the FIFO ABI) for one look at each port there may be; never while the memory lock, a
//! lock of Python's or another thread is waited for. Who needs two domains' takes that of the lower number first. A
//! vCPU's [`Sleep`](crate::sleep::Sleep) is taken inside it. Host code is told with none held.

mod audit;
mod bind;
mod channel;
mod fifo;
mod host;
mod rounds;
#[cfg(test)]
mod tests;
mod two_level;
mod vcpus;

pub use channel::{Binding, Channel};
pub use host::{Bell, HostPort};

use crate::abi::evtchn::{fifo as fifo_abi, virq};
use crate::abi::{DomId, Errno, DOMID_SELF};
use crate::frames::{Domain, Machine};
use crate::mem::Mfn;
use crate::shared::VcpuShared;
use fifo::Fifo;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use two_level::TwoLevel;
use vcpus::EventVcpu;

pub(crate) type EventResult<T = ()> = Result<T, Errno>;

/// Ports become valid in steps of this many.
const BUCKET: u32 = 64;
/// Domain 0 exists for every guest: host code with so many ports, none of which waits for a guest.
const HARDWARE_DOMAIN: DomId = 0;
const HARDWARE_DOMAIN_PORTS: u32 = 1024;

/// The domains of one machine that have event channels.
#[derive(Default)]
pub struct Events {
    domains: RwLock<BTreeMap<DomId, Weak<DomainEvents>>>,
}

/// All ports of one domain. After `close` no port is in use, and none is given out.
pub struct DomainEvents {
    all: Arc<Events>,
    domain: Arc<Domain>,
    /// Machine address of shared_info.
    shared_info: u64,
    /// The highest port.
    limit: u32,
    /// Hypercalls that tell host code are for the layer above.
    above: bool,
    state: Mutex<State>,
}

/// Where a domain sees its events.
enum Abi {
    TwoLevel(TwoLevel),
    Fifo(Fifo),
}

struct State {
    /// Port 0 is there and never used.
    channels: Vec<Channel>,
    /// The closed ones, without port 0.
    free: BTreeSet<u32>,
    abi: Abi,
    /// (vcpu, virq) to port; global ones under vCPU 0's number whatever vCPU they notify.
    virqs: BTreeMap<(u32, u32), u32>,
    vcpus: Vec<EventVcpu>,
    reset: Reset,
    closed: bool,
    next_host: u64,
}

/// How far EVTCHNOP_reset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reset {
    No,
    /// A vCPU is in one of its rounds.
    InRound,
    /// The next round begins with this port.
    At(u32),
}

/// What EVTCHNOP_status says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub status: u32,
    pub vcpu: u32,
    /// Whom it waits for, or is connected to.
    pub domid: Option<DomId>,
    pub port: Option<u32>,
    pub virq: Option<u32>,
}

impl Events {
    fn find(&self, domid: DomId) -> Option<Arc<DomainEvents>> {
        let domains = self.domains.read().unwrap_or_else(PoisonError::into_inner);
        domains.get(&domid).and_then(Weak::upgrade)
    }

    fn domains_mut(&self, f: impl FnOnce(&mut BTreeMap<DomId, Weak<DomainEvents>>)) {
        f(&mut self.domains.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Gives a domain its ports.
    ///
    /// `shared_info`: machine address of that page; `limit`: the highest port; `above`: hypercalls that tell host code
    /// are not answered in the machine (deterministic runs).
    pub fn add(
        self: &Arc<Self>,
        domain: &Arc<Domain>,
        shared_info: u64,
        limit: u32,
        above: bool,
    ) -> Arc<DomainEvents> {
        let mut state = State {
            channels: vec![Channel::default()],
            free: BTreeSet::new(),
            abi: Abi::TwoLevel(TwoLevel::new(shared_info, domain.is_32bit)),
            virqs: BTreeMap::new(),
            vcpus: Vec::new(),
            reset: Reset::No,
            closed: false,
            next_host: 0,
        };
        state.grow();
        let events = Arc::new(DomainEvents {
            all: Arc::clone(self),
            domain: Arc::clone(domain),
            shared_info,
            limit,
            above,
            state: Mutex::new(state),
        });
        self.domains_mut(|list| drop(list.insert(domain.domid, Arc::downgrade(&events))));
        events
    }
}

impl State {
    fn grow(&mut self) {
        let first = self.channels.len() as u32;
        let ports = first..(first / BUCKET + 1) * BUCKET;
        self.channels.extend(ports.clone().map(|_| Channel::default()));
        self.free.extend(ports);
    }

    fn channel(&self, port: u32) -> EventResult<&Channel> {
        self.channels.get(port as usize).ok_or(Errno::EINVAL)
    }

    fn channel_mut(&mut self, port: u32) -> EventResult<&mut Channel> {
        self.channels.get_mut(port as usize).ok_or(Errno::EINVAL)
    }

    /// The host's end of a port, if it is still that one.
    fn host_end(&mut self, port: u32, id: u64) -> Option<&mut channel::HostEnd> {
        match &mut self.channels.get_mut(port as usize)?.binding {
            Binding::Host { end, .. } if end.id == id => Some(end),
            _ => None,
        }
    }

    fn vcpu(&self, vcpu: u32) -> EventResult<&EventVcpu> {
        self.vcpus.get(vcpu as usize).ok_or(Errno::ENOENT)
    }

    /// The other end has gone: the port waits for another one.
    fn let_go(&mut self, port: u32) {
        let Some(channel) = self.channels.get_mut(port as usize) else {
            return;
        };
        if let Binding::Interdomain { domid, .. } | Binding::Host { domid, .. } = channel.binding {
            channel.binding = Binding::Unbound(domid);
        }
    }

    fn is_pending(&self, machine: &Machine, port: u32) -> bool {
        match &self.abi {
            Abi::TwoLevel(abi) => abi.is_pending(machine, port),
            Abi::Fifo(abi) => abi.is_pending(machine, port),
        }
    }

    fn clear_pending(&self, machine: &Machine, port: u32) {
        match &self.abi {
            Abi::TwoLevel(abi) => abi.clear_pending(machine, port),
            Abi::Fifo(abi) => abi.clear_pending(machine, port),
        }
    }
}

impl DomainEvents {
    // A panic leaves books that may be wrong, and ends that domain; others still look at its ports.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both locks, in order. The same domain twice: `None` for the other one.
    fn lock_with<'a>(
        &'a self,
        other: &'a DomainEvents,
    ) -> (MutexGuard<'a, State>, Option<MutexGuard<'a, State>>) {
        if std::ptr::eq(self, other) {
            return (self.lock(), None);
        }
        // Of two domains of one number, one after the other, the address decides.
        let order = |d: &DomainEvents| (d.domid(), std::ptr::from_ref(d).addr());
        if order(self) < order(other) {
            let own = self.lock();
            (own, Some(other.lock()))
        } else {
            let its = other.lock();
            (self.lock(), Some(its))
        }
    }

    fn machine(&self) -> &Machine {
        &self.domain.machine
    }

    /// The domain whose ports these are.
    pub fn domid(&self) -> DomId {
        self.domain.domid
    }

    fn exists(&self, domid: DomId) -> bool {
        domid == HARDWARE_DOMAIN || self.all.find(domid).is_some()
    }

    /// The domain must exist. `Err`: ESRCH.
    fn check_any(&self, domid: DomId) -> EventResult {
        match domid == DOMID_SELF || self.exists(domid) {
            true => Ok(()),
            false => Err(Errno::ESRCH),
        }
    }

    /// The domain must be this one: an unprivileged one acts on no other. `Err`: ESRCH, EPERM.
    pub fn check_own(&self, domid: DomId) -> EventResult {
        self.check_any(domid)?;
        match domid == DOMID_SELF || domid == self.domid() {
            true => Ok(()),
            false => Err(Errno::EPERM),
        }
    }

    /// A vCPU of this domain, the next by number; its `vcpu_info` is in shared_info.
    pub fn add_vcpu(&self, shared: &Arc<VcpuShared>) {
        let mut state = self.lock();
        let at = state.vcpus.len() as u64 * crate::abi::structs::vcpu_info::SIZE;
        state.vcpus.push(EventVcpu {
            shared: Arc::clone(shared),
            info: self.shared_info + at,
        });
    }

    /// What is shared of a vCPU of this domain. `Err`: ENOENT.
    pub(crate) fn vcpu(&self, vcpu: u32) -> EventResult<Arc<VcpuShared>> {
        self.lock().vcpu(vcpu).map(|vcpu| Arc::clone(&vcpu.shared))
    }

    /// VCPUOP_register_vcpu_info, checked and the frame held already. Every event counts as pending then.
    pub fn move_info(&self, vcpu: u32, maddr: u64) -> EventResult {
        let mut state = self.lock();
        let vcpu = state.vcpus.get_mut(vcpu as usize).ok_or(Errno::ENOENT)?;
        vcpu.move_info(self.machine(), maddr, self.domain.is_32bit);
        Ok(())
    }

    // --- sending

    /// Makes an event pending on a port and tells its vCPU, unless masked; wakes who polls the port.
    fn set_pending(&self, state: &mut State, port: u32) {
        let machine = self.machine();
        let State {
            channels, vcpus, abi, ..
        } = state;
        let Some(channel) = channels.get_mut(port as usize) else {
            return;
        };
        let vcpu = vcpus.get(channel.vcpu as usize);
        let is_new = match abi {
            Abi::TwoLevel(abi) => abi.set_pending(machine, port, vcpu),
            Abi::Fifo(abi) => abi.set_pending(machine, port, channel, vcpu),
        };
        if is_new {
            for vcpu in vcpus {
                vcpu.shared.sleep.unblock_for(port);
            }
        }
    }

    /// Whether EVTCHNOP_send on this port is for the layer above.
    pub fn send_is_above(&self, port: u32) -> bool {
        self.above && matches!(self.lock().channel(port), Ok(c) if c.binding.host().is_some())
    }

    /// EVTCHNOP_send: notifies the other end. `Err`: EINVAL.
    pub fn send(&self, port: u32) -> EventResult {
        let mut state = self.lock();
        match &state.channel(port)?.binding {
            Binding::Host { end, .. } => {
                let bell = end.bell.clone();
                drop(state);
                if let Some(bell) = bell {
                    bell.ring();
                }
            }
            &Binding::Interdomain { domid, port: its } if domid == self.domid() => {
                self.set_pending(&mut state, its);
            }
            &Binding::Interdomain { domid, port: its } => {
                drop(state);
                if let Some(remote) = self.all.find(domid) {
                    remote.receive(its, self.domid(), port);
                }
            }
            Binding::Ipi => self.set_pending(&mut state, port),
            Binding::Unbound(_) => {}
            Binding::Closed | Binding::Virq(_) => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// An event from a port of another domain, which may have been closed by now.
    fn receive(&self, port: u32, from: DomId, its: u32) {
        let mut state = self.lock();
        if matches!(state.channel(port), Ok(channel) if channel.binding.is_peer(from, its)) {
            self.set_pending(&mut state, port);
        }
    }

    /// Raises a virtual interrupt; lost when no port is bound to it.
    pub fn send_virq(&self, vcpu: u32, virq: u32) {
        let mut state = self.lock();
        let key = (if virq::is_per_vcpu(virq) { vcpu } else { 0 }, virq);
        if let Some(port) = state.virqs.get(&key).copied() {
            self.set_pending(&mut state, port);
        }
    }

    /// Makes an event pending on a port of this domain, whatever it is bound to.
    pub fn raise(&self, port: u32) {
        self.set_pending(&mut self.lock(), port);
    }

    /// EVTCHNOP_unmask: clears the mask bit, and notifies if the event is pending. `Err`: EINVAL.
    pub fn unmask(&self, port: u32) -> EventResult {
        let mut state = self.lock();
        let channel = state.channel(port)?;
        if channel.binding.is_closed() {
            return Ok(());
        }
        let vcpu = state.vcpus.get(channel.vcpu as usize);
        let again = match &state.abi {
            Abi::TwoLevel(abi) => {
                abi.unmask(self.machine(), port, vcpu);
                false
            }
            Abi::Fifo(abi) => abi.unmask(self.machine(), port),
        };
        if again {
            self.set_pending(&mut state, port);
        }
        Ok(())
    }

    // --- looking

    /// Whether an event is pending on a port that is in use. `Err`: EINVAL for any other.
    pub fn is_pending(&self, port: u32) -> EventResult<bool> {
        let state = self.lock();
        match state.channel(port)?.binding.is_closed() {
            true => Err(Errno::EINVAL),
            false => Ok(state.is_pending(self.machine(), port)),
        }
    }

    /// EVTCHNOP_status of a port of domain `domid`. `Err`: ESRCH, EINVAL, EPERM; Xen looks whether the port exists
    /// before it looks at permissions.
    pub fn status(&self, domid: DomId, port: u32) -> EventResult<Status> {
        self.check_any(domid)?;
        if domid != DOMID_SELF && domid != self.domid() {
            match self.all.find(domid) {
                Some(other) => drop(other.lock().channel(port)?),
                None if port >= HARDWARE_DOMAIN_PORTS => return Err(Errno::EINVAL),
                None => {}
            }
            return Err(Errno::EPERM);
        }
        let state = self.lock();
        let channel = state.channel(port)?;
        let mut status = Status {
            status: channel.binding.status(),
            vcpu: channel.vcpu,
            ..Status::default()
        };
        match channel.binding {
            Binding::Unbound(domid) => status.domid = Some(domid),
            Binding::Interdomain { domid, port } => {
                status.domid = Some(domid);
                status.port = Some(port);
            }
            Binding::Host { domid, .. } => {
                status.domid = Some(domid);
                status.port = Some(0);
            }
            Binding::Virq(virq) => status.virq = Some(virq),
            Binding::Closed | Binding::Ipi => {}
        }
        Ok(status)
    }

    /// One port, as it is now. `Err`: EINVAL.
    pub fn channel(&self, port: u32) -> EventResult<Channel> {
        self.lock().channel(port).cloned()
    }

    /// All ports, as they are now.
    pub fn channels(&self) -> Vec<Channel> {
        self.lock().channels.clone()
    }

    /// The ports of virtual interrupts, by vCPU and number.
    pub fn virqs(&self) -> Vec<((u32, u32), u32)> {
        self.lock()
            .virqs
            .iter()
            .map(|(key, port)| (*key, *port))
            .collect()
    }

    /// Frames of the guest that are written here: each holds a writable reference, once for each use.
    pub fn frames(&self) -> Vec<Mfn> {
        match &self.lock().abi {
            Abi::TwoLevel(_) => Vec::new(),
            Abi::Fifo(fifo) => fifo.frames(),
        }
    }

    // --- sleeping

    /// SCHEDOP_block: upcalls are enabled; the vCPU is blocked unless one is due. `Err`: ENOENT.
    pub fn block(&self, vcpu: u32) -> EventResult {
        let state = self.lock();
        let vcpu = state.vcpu(vcpu)?;
        vcpu.enable_upcalls(self.machine());
        vcpu.shared
            .sleep
            .block(Vec::new(), || vcpu.upcall_pending(self.machine()));
        Ok(())
    }

    /// What SCHEDOP_block begins with: upcalls are enabled. `Err`: ENOENT.
    pub(crate) fn enable_upcalls(&self, vcpu: u32) -> EventResult {
        self.lock().vcpu(vcpu)?.enable_upcalls(self.machine());
        Ok(())
    }

    /// SCHEDOP_poll: the vCPU is blocked until one of these ports is pending or an upcall is due, unless it is so now.
    /// `Err`: EINVAL for a port that is not in use.
    pub fn poll(&self, vcpu: u32, ports: Vec<u32>) -> EventResult {
        let state = self.lock();
        let mut pending = false;
        for port in &ports {
            if state.channel(*port)?.binding.is_closed() {
                return Err(Errno::EINVAL);
            }
            pending |= state.is_pending(self.machine(), *port);
        }
        let vcpu = state.vcpu(vcpu)?;
        vcpu.shared
            .sleep
            .block(ports, || pending || vcpu.upcall_is_due(self.machine()));
        Ok(())
    }

    /// EVTCHNOP_set_priority: the queue for later events; one that is linked stays where it is. `Err`: EINVAL, ENOSYS
    /// with the 2-level ABI, EACCES for a closed port.
    pub fn set_priority(&self, port: u32, priority: u32) -> EventResult {
        let mut state = self.lock();
        let is_closed = state.channel(port)?.binding.is_closed();
        match state.abi {
            Abi::TwoLevel(_) => return Err(Errno::ENOSYS),
            Abi::Fifo(_) if is_closed => return Err(Errno::EACCES),
            Abi::Fifo(_) if priority >= fifo_abi::MAX_QUEUES => return Err(Errno::EINVAL),
            Abi::Fifo(_) => {}
        }
        state.channel_mut(port)?.priority = priority;
        Ok(())
    }
}
