// SPDX-License-Identifier: Apache-2.0
//! A domain in a real machine that grants its pages to domain 0: what front ends that are driven by hand are made of.
// Each test program uses a part of it.
#![allow(dead_code)]

use domzero_machine::{Clock, Domain, DomainGrants, GrantLimits, Grants, Machine, Mfn};
use std::cell::Cell;
use std::sync::Arc;

pub const PERMIT: u64 = 1;
pub const READ_ONLY: u64 = 1 << 2;
const LIMITS: GrantLimits = GrantLimits {
    frames: 4,
    maptrack_frames: 1,
};

pub struct Granter {
    pub grants: Arc<Grants>,
    pub domain: Arc<Domain>,
    pub table: DomainGrants,
    next_gref: Cell<u32>,
}

impl Granter {
    pub fn new() -> Granter {
        let machine = Machine::new(2048, 3, Clock::virtual_at(0)).unwrap();
        let grants = Grants::new(machine.clone());
        let domain = Domain::new(machine, 1);
        let table = grants.add(&domain, LIMITS).unwrap();
        table.grow(4).unwrap();
        Granter {
            grants,
            domain,
            table,
            next_gref: Cell::new(8),
        }
    }

    pub fn grant(&self, mfn: Mfn, flags: u64) -> u32 {
        let gref = self.next_gref.replace(self.next_gref.get() + 1);
        let at = self.table.entry_maddr(gref).unwrap();
        self.grants.machine().mem.write_u64(at, flags | mfn.0 << 32);
        gref
    }

    /// A page that is granted to domain 0.
    pub fn page(&self) -> (u32, Mfn) {
        let mfn = self.domain.alloc(1).unwrap()[0];
        (self.grant(mfn, PERMIT), mfn)
    }

    pub fn write(&self, mfn: Mfn, at: usize, data: &[u8]) {
        self.grants.machine().mem.write(mfn.maddr() + at as u64, data);
    }

    pub fn read(&self, mfn: Mfn, at: usize, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.grants.machine().mem.read(mfn.maddr() + at as u64, &mut data);
        data
    }

    pub fn word(&self, mfn: Mfn, at: usize) -> u32 {
        u32::from_le_bytes(self.read(mfn, at, 4).try_into().unwrap())
    }

    pub fn set_word(&self, mfn: Mfn, at: usize, value: u32) {
        self.write(mfn, at, &value.to_le_bytes());
    }
}
