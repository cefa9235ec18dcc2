// SPDX-License-Identifier: Apache-2.0
//! What rdrand and rdseed give: a stream of ChaCha20 for each vCPU, under a key that no guest knows.

use crate::abi::DomId;
use chacha20::rand_core::{Rng, SeedableRng};
use chacha20::ChaCha20Rng;
use std::collections::HashMap;
use std::sync::Mutex;

/// The random numbers of one vCPU. Nothing about another vCPU's follows from them.
pub(crate) struct RandomStream(ChaCha20Rng);

impl RandomStream {
    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// The source of a machine's streams.
pub struct RandomSource {
    key: [u8; 32],
    /// How many domains there have been of each number: a stream is never given out twice.
    domains: Mutex<HashMap<DomId, u32>>,
}

impl RandomSource {
    /// A source of which every stream follows from the key.
    pub fn new(key: [u8; 32]) -> RandomSource {
        RandomSource {
            key,
            domains: Mutex::default(),
        }
    }

    /// A key for tests and for machines without secrets.
    pub fn key_from_seed(seed: u64) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key
    }

    /// Another domain of this number begins: gives how many there were before.
    pub(crate) fn add_domain(&self, domid: DomId) -> u32 {
        let mut domains = self.domains.lock().unwrap_or_else(|e| e.into_inner());
        let count = domains.entry(domid).or_default();
        let before = *count;
        *count = count.wrapping_add(1);
        before
    }

    /// The stream of a vCPU of the domain `domid` that had `before` predecessors of its number.
    pub(crate) fn stream(&self, domid: DomId, before: u32, vcpu_id: u32) -> RandomStream {
        let mut rng = ChaCha20Rng::from_seed(self.key);
        rng.set_stream(u64::from(domid) << 48 | u64::from(vcpu_id as u16) << 32 | u64::from(before));
        RandomStream(rng)
    }
}
