// SPDX-License-Identifier: Apache-2.0
//! The audit: what the ports of a domain say, against each other and against their peers.

use super::{Abi, Binding, DomainEvents, State};
use crate::abi::evtchn::virq;
use crate::abi::DomId;
use crate::frames::Ty;
use std::collections::{BTreeMap, BTreeSet};

impl State {
    /// What is wrong, and the connections that the other ends are to be asked for: (port, domain, its port).
    fn audit(&self) -> (Vec<String>, Vec<(u32, DomId, u32)>) {
        let (mut out, mut peers) = (Vec::new(), Vec::new());
        if let Abi::Fifo(fifo) = &self.abi {
            out = fifo.audit(&self.channels, self.vcpus.len());
        }
        let mut virqs = BTreeMap::new();
        let mut closed = BTreeSet::new();
        for (port, channel) in (0..).zip(&self.channels) {
            let mut wrong = |what: String| out.push(format!("port {port}: {what}"));
            if channel.vcpu as usize >= self.vcpus.len() && !channel.binding.is_closed() {
                wrong(format!("notifies vcpu {}", channel.vcpu));
            }
            match channel.binding {
                Binding::Closed if channel.latched => wrong("closed, and in use".into()),
                Binding::Closed if port > 0 => {
                    closed.insert(port);
                }
                Binding::Virq(virq) => {
                    let vcpu = if virq::is_per_vcpu(virq) { channel.vcpu } else { 0 };
                    virqs.insert((vcpu, virq), port);
                }
                Binding::Interdomain { domid, port: its } => peers.push((port, domid, its)),
                _ => {}
            }
        }
        if virqs != self.virqs {
            out.push(format!(
                "virtual interrupts {:?}, the ports say {virqs:?}",
                self.virqs
            ));
        }
        if closed != self.free {
            out.push(format!("closed {closed:?}, listed as free {:?}", self.free));
        }
        (out, peers)
    }
}

impl DomainEvents {
    /// Says where the books are wrong. Guests may run meanwhile, but nobody may be in EVTCHNOP_init_control,
    /// EVTCHNOP_expand_array or EVTCHNOP_reset: frames are looked at when the ports' lock is let go of.
    pub fn audit(&self) -> Vec<String> {
        let (mut out, peers) = self.lock().audit();
        for (port, domid, its) in peers {
            if let Some(wrong) = self.audit_peer(port, domid, its) {
                out.push(format!("port {port}: its peer d{domid} {its} {wrong}"));
            }
        }
        let frames: BTreeSet<_> = self.frames().into_iter().collect();
        for mfn in frames {
            let info = self.machine().frame_info(mfn);
            let is_right = |info: &crate::frames::FrameInfo| {
                info.owner() == Some(self.domid()) && info.ty == Ty::Writable
            };
            if !info.as_ref().is_some_and(is_right) {
                out.push(format!(
                    "frame {:#x} of the event array or a control block is {info:?}",
                    mfn.0
                ));
            }
        }
        let d = self.domid();
        out.into_iter().map(|what| format!("d{d}: {what}")).collect()
    }

    fn audit_peer(&self, port: u32, domid: DomId, its: u32) -> Option<&'static str> {
        let remote = match domid == self.domid() {
            true => None,
            false => self.all.find(domid),
        };
        if remote.is_none() && domid != self.domid() {
            let is_still = self
                .lock()
                .channel(port)
                .is_ok_and(|c| c.binding.is_peer(domid, its));
            return is_still.then_some("is not there");
        }
        let (own, other) = self.lock_with(remote.as_deref().unwrap_or(self));
        if !own.channel(port).is_ok_and(|c| c.binding.is_peer(domid, its)) {
            return None; // the guest has closed it meanwhile
        }
        let peer = other.as_deref().unwrap_or(&own).channel(its);
        match peer.is_ok_and(|c| c.binding.is_peer(self.domid(), port)) {
            true => None,
            false => Some("says something else"),
        }
    }
}
