// SPDX-License-Identifier: Apache-2.0
//! Flows that have no beginning and no end of their own, by who they are between: so many at once, and then the one in
//! which nothing has happened for longest gives way.

use smoltcp::time::Instant;
use std::collections::HashMap;
use std::hash::Hash;

/// One flow: its two ends, and what the host has for it.
pub struct Flow<E, H> {
    pub ends: E,
    pub host: H,
    /// When something last happened.
    pub last: Instant,
}

/// All flows of one kind.
pub struct Flows<E, H> {
    flows: HashMap<u64, Flow<E, H>>,
    by_ends: HashMap<E, u64>,
    next: u64,
    most: usize,
}

impl<E: Copy + Eq + Hash, H> Flows<E, H> {
    /// None yet, and so many at the most.
    pub fn new(most: usize) -> Flows<E, H> {
        Flows {
            flows: HashMap::new(),
            by_ends: HashMap::new(),
            next: 0,
            most,
        }
    }

    /// The number of the flow between these ends.
    pub fn between(&self, ends: &E) -> Option<u64> {
        self.by_ends.get(ends).copied()
    }

    /// The number that the next flow will have.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn get_mut(&mut self, index: u64) -> Option<&mut Flow<E, H>> {
        self.flows.get_mut(&index)
    }

    /// The number of some flow for which this holds.
    pub fn find(&self, is_wanted: impl Fn(&Flow<E, H>) -> bool) -> Option<u64> {
        let found = self.flows.iter().find(|(_, flow)| is_wanted(flow));
        found.map(|(&index, _)| index)
    }

    /// Adds one; returns its number.
    pub fn insert(&mut self, ends: E, host: H, now: Instant) -> u64 {
        if self.flows.len() >= self.most {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.last);
            if let Some((&index, _)) = oldest {
                self.end(index);
            }
        }
        let index = self.next;
        self.next += 1;
        self.by_ends.insert(ends, index);
        let flow = Flow {
            ends,
            host,
            last: now,
        };
        self.flows.insert(index, flow);
        index
    }

    pub fn end(&mut self, index: u64) {
        if let Some(flow) = self.flows.remove(&index) {
            self.by_ends.remove(&flow.ends);
        }
    }

    /// Ends those for which this does not hold.
    pub fn retain(&mut self, stays: impl Fn(&Flow<E, H>) -> bool) {
        self.flows.retain(|_, flow| {
            let stays = stays(flow);
            if !stays {
                self.by_ends.remove(&flow.ends);
            }
            stays
        });
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}
