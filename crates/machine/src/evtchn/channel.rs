// SPDX-License-Identifier: Apache-2.0
//! One event channel: a port of a domain.

use super::host::Bell;
use crate::abi::evtchn::{evtchnstat, fifo};
use crate::abi::DomId;
use std::sync::Arc;

/// What a port is connected to.
#[derive(Clone)]
pub enum Binding {
    /// Nothing: the port is free.
    Closed,
    /// It waits for a domain of this number.
    Unbound(DomId),
    /// A port of a domain, perhaps the same one.
    Interdomain {
        /// Whose port it is.
        domid: DomId,
        /// Its number there.
        port: u32,
    },
    /// Host code that acts for a domain.
    Host {
        /// The domain that the guest takes it for.
        domid: DomId,
        /// Who is told of the guest's events.
        end: HostEnd,
    },
    /// A virtual interrupt, by its number.
    Virq(u32),
    /// The port's own vCPU.
    Ipi,
}

/// Host code at the other end of a channel.
#[derive(Clone)]
pub struct HostEnd {
    /// Which of all that the domain ever had.
    pub id: u64,
    /// None until it is attached: it looks for itself then.
    pub bell: Option<Arc<dyn Bell>>,
}

impl Binding {
    /// As EVTCHNOP_status says it.
    pub fn status(&self) -> u32 {
        match self {
            Binding::Closed => evtchnstat::CLOSED,
            Binding::Unbound(_) => evtchnstat::UNBOUND,
            Binding::Interdomain { .. } | Binding::Host { .. } => evtchnstat::INTERDOMAIN,
            Binding::Virq(_) => evtchnstat::VIRQ,
            Binding::Ipi => evtchnstat::IPI,
        }
    }

    /// Whether the port is free.
    pub fn is_closed(&self) -> bool {
        matches!(self, Binding::Closed)
    }

    /// The host's end, if it is one.
    pub fn host(&self) -> Option<&HostEnd> {
        match self {
            Binding::Host { end, .. } => Some(end),
            _ => None,
        }
    }

    /// Whether it is connected to this port of this domain.
    pub fn is_peer(&self, of: DomId, its: u32) -> bool {
        matches!(self, Binding::Interdomain { domid, port } if (*domid, *port) == (of, its))
    }
}

/// A queue of the FIFO ABI.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct QueueId {
    /// Whose queue it is.
    pub vcpu: u32,
    /// 0 is served first.
    pub priority: u32,
}

/// One port.
#[derive(Clone)]
pub struct Channel {
    /// What it is connected to.
    pub binding: Binding,
    /// Whom it notifies.
    pub vcpu: u32,
    /// Its queue (FIFO): 0 is served first.
    pub priority: u32,
    /// An event came while the guest had given no page for this port (FIFO).
    pub latched: bool,
    /// The queue this port was put into last (FIFO); outlives its user, as the link does.
    pub queue: QueueId,
}

impl Default for Channel {
    /// A port that was never used.
    fn default() -> Channel {
        Channel {
            binding: Binding::Closed,
            vcpu: 0,
            priority: fifo::PRIORITY_DEFAULT,
            latched: false,
            queue: QueueId::default(),
        }
    }
}

impl Channel {
    /// Back to the state of a port that was never used.
    pub fn free(&mut self) {
        self.binding = Binding::Closed;
        self.vcpu = 0;
        self.latched = false;
    }
}
