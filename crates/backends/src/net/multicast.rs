// SPDX-License-Identifier: Apache-2.0
//! Which multicast a guest wants (`feature-multicast-control`): its front end names addresses in its ring.

use super::frame::ETHERNET;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Addresses that a front end may name: Linux's netback keeps as many (`XEN_NETBK_MCAST_MAX`).
pub const MULTICAST_MAX: usize = 64;
const BROADCAST: [u8; 6] = [0xff; 6];

/// An address that is to be received from now on, or no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MulticastChange {
    /// `XEN_NETIF_EXTRA_TYPE_MCAST_ADD`.
    Add([u8; 6]),
    /// `XEN_NETIF_EXTRA_TYPE_MCAST_DEL`.
    Delete([u8; 6]),
}

/// What one front end wants, over all of its queues.
#[derive(Debug, Default)]
pub struct Multicast {
    /// `request-multicast-control`; without it all multicast is delivered, whatever addresses there are.
    is_filtered: bool,
    /// An address that was added twice is in it twice.
    addresses: Mutex<Vec<[u8; 6]>>,
}

impl Multicast {
    /// Of a front end that has named no address yet.
    pub fn new(is_filtered: bool) -> Multicast {
        Multicast {
            is_filtered,
            addresses: Mutex::default(),
        }
    }

    /// False: there are as many as may be, or the address is not there.
    pub(super) fn change(&self, change: MulticastChange) -> bool {
        let mut addresses = self.addresses();
        match change {
            MulticastChange::Add(_) if addresses.len() >= MULTICAST_MAX => return false,
            MulticastChange::Add(address) => addresses.push(address),
            MulticastChange::Delete(address) => match addresses.iter().position(|each| *each == address) {
                Some(at) => drop(addresses.swap_remove(at)),
                None => return false,
            },
        }
        true
    }

    /// Whether a frame is to be delivered, as far as its destination tells.
    pub(super) fn lets_in(&self, frame: &[u8]) -> bool {
        if !self.is_filtered || frame.len() < ETHERNET {
            return true;
        }
        match frame.first_chunk::<6>() {
            Some(to) if to[0] & 1 != 0 && *to != BROADCAST => self.addresses().contains(to),
            _ => true,
        }
    }

    fn addresses(&self) -> MutexGuard<'_, Vec<[u8; 6]>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
