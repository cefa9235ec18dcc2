// SPDX-License-Identifier: Apache-2.0
//! SCHEDOP_block (`sched.h`), as long as it needs no sleep: that is the layer above's.

use super::Vcpu;
use crate::abi::hypercall::schedop;
use crate::patience::Patience;
use crate::shared::attention;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What a vCPU knows of its idle times.
#[derive(Debug, Default)]
pub(super) struct Idle {
    patience: Patience,
    /// Since when the layer above has it sleep.
    sleeps: Option<Instant>,
}

impl Idle {
    /// The vCPU runs: its sleep is over.
    pub(super) fn end(&mut self) {
        if let Some(start) = self.sleeps.take() {
            self.patience.waited(start.elapsed());
        }
    }
}

impl Vcpu {
    /// A guest's sched_op. True: it was to block, and has an event now. Everything else is for the layer above, which also
    /// begins a sleep anew that was begun here. With virtual time nothing comes while a vCPU waits.
    pub(super) fn blocks_for_short(&mut self, command: u32) -> bool {
        let Some(events) = self.events.clone() else {
            return false;
        };
        if command != schedop::BLOCK || self.cpu.domain.machine.clock.is_virtual() {
            return false;
        }
        let (start, shared) = (Instant::now(), self.cpu.shared.clone());
        let idle = std::mem::take(&mut self.idle);
        let has_come = {
            // The ports' lock is waited for outside the guest, as is the event.
            let _outside = shared.leave();
            events.enable_upcalls(self.id).is_ok()
                && idle.patience.look(|| {
                    self.fire_timers(self.cpu.domain.machine.clock.now_ns());
                    self.has_upcall() || shared.attention.load(Ordering::SeqCst) & attention::STOP != 0
                })
                && self.has_upcall()
        };
        self.cpu.apply_purges();
        self.idle = idle;
        if !has_come {
            self.idle.sleeps = Some(start);
        }
        has_come
    }
}
