// SPDX-License-Identifier: Apache-2.0
//! The host's end of an event channel: back ends, on threads of their own. No lock of Python's is needed.

use super::channel::{Binding, HostEnd};
use super::{DomainEvents, EventResult};
use crate::abi::{DomId, Errno};
use std::sync::Arc;

/// What the guest's event does in the host: tells a thread, and returns at once. Called in the vCPU that sends, with no
/// lock held: the answer must come from another thread.
pub trait Bell: Send + Sync {
    /// The guest has sent an event.
    fn ring(&self);
}

/// Host code at the other end of a port. The port stays bound until `close`, the guest's close or the domain's end.
#[derive(Clone)]
pub struct HostPort {
    events: Arc<DomainEvents>,
    port: u32,
    id: u64,
}

impl DomainEvents {
    /// Connects host code that acts for `domid` to a port that waits for that domain. `Err`: EINVAL.
    pub fn bind_host(
        self: &Arc<Self>,
        port: u32,
        domid: DomId,
        bell: Option<Arc<dyn Bell>>,
    ) -> EventResult<HostPort> {
        let mut state = self.lock();
        let id = state.next_host;
        let channel = state.channel_mut(port)?;
        if !matches!(channel.binding, Binding::Unbound(waits_for) if waits_for == domid) {
            return Err(Errno::EINVAL);
        }
        let end = HostEnd { id, bell };
        channel.binding = Binding::Host { domid, end };
        state.next_host += 1;
        Ok(HostPort {
            events: Arc::clone(self),
            port,
            id,
        })
    }
}

impl HostPort {
    /// The port's number in the guest's table.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends an event to the guest. Does nothing once the channel is closed.
    pub fn notify(&self) {
        let mut state = self.events.lock();
        if state.host_end(self.port, self.id).is_some() {
            self.events.set_pending(&mut state, self.port);
        }
    }

    /// Whether the guest has not closed it.
    pub fn is_open(&self) -> bool {
        self.events.lock().host_end(self.port, self.id).is_some()
    }

    /// Says whom the guest's events tell from now on, and tells it once: there may have been some before.
    pub fn attach(&self, bell: Arc<dyn Bell>) {
        if let Some(end) = self.events.lock().host_end(self.port, self.id) {
            end.bell = Some(Arc::clone(&bell));
        }
        bell.ring();
    }

    /// Lets go of the channel; the guest's port waits for a new peer.
    pub fn close(&self) {
        let mut state = self.events.lock();
        if state.host_end(self.port, self.id).is_some() {
            state.let_go(self.port);
        }
    }
}
