// SPDX-License-Identifier: Apache-2.0
//! Grants seen from the host: back ends, ends of domains, both versions. What guests see: tests/unit, tests/property.

use super::*;
use crate::abi::grant::gntmap;
use crate::abi::{DOMID_IO, DOMID_XEN};
use crate::clock::Clock;
use crate::frames::flag;
use std::sync::atomic::{AtomicBool, Ordering};

/// A domain that grants, and one that maps.
pub(super) struct Two {
    pub grants: Arc<Grants>,
    pub granter: DomainGrants,
    pub mapper: DomainGrants,
}

const LIMITS: GrantLimits = GrantLimits {
    frames: 4,
    maptrack_frames: 1,
};

impl Two {
    pub fn new() -> Two {
        let machine = Machine::new(512, 7, Clock::virtual_at(0)).unwrap();
        let grants = Grants::new(machine.clone());
        let domain = |domid| grants.add(&Domain::new(machine.clone(), domid), LIMITS).unwrap();
        Two {
            granter: domain(1),
            mapper: domain(2),
            grants,
        }
    }

    fn write_entry(&self, gref: u32, flags: u64, domid: DomId, mfn: Mfn) {
        let at = self.granter.entry_maddr(gref).unwrap();
        let word = flags | u64::from(domid) << 16 | mfn.0 << 32;
        self.grants.machine.mem.write_u64(at, word);
    }

    /// Grants a fresh frame to `domid`.
    pub fn grant(&self, gref: u32, domid: DomId) -> Mfn {
        let mfn = self.granter.domain.alloc(1).unwrap()[0];
        self.write_entry(gref, 1, domid, mfn);
        mfn
    }

    fn flags(&self, gref: u32) -> u64 {
        let at = self.granter.entry_maddr(gref).unwrap();
        self.grants.machine.mem.read_u64(at).unwrap() & 0xffff
    }
}

#[test]
fn a_back_end_uses_a_page_until_it_drops_the_mapping() {
    let two = Two::new();
    let mfn = two.grant(9, 0);
    let page = two.granter.client(0).map(9, true).unwrap();
    assert_eq!(two.flags(9), 1 | 8 | 16);
    page.write(4092, b"ring").unwrap();
    page.store_u32(8, 77).unwrap();
    let mut bytes = [0; 4];
    two.grants.machine.mem.read(mfn.maddr() + 4092, &mut bytes);
    assert_eq!((&bytes, page.load_u32(8)), (b"ring", Ok(77)));
    assert_eq!(two.grants.audit(), Vec::<String>::new());
    drop(page);
    assert_eq!(two.flags(9), 1);
    assert_eq!(two.granter.domain.outside_refs(), vec![]);
    assert_eq!(two.grants.audit(), Vec::<String>::new());
}

#[test]
fn code_in_a_page_is_not_kept_while_a_back_end_may_write_to_it() {
    let two = Two::new();
    let mfn = two.grant(9, 0);
    let client = two.granter.client(0);
    let is_kept = || two.grants.machine.frames.flags(mfn) & flag::UNKEPT == 0;
    let read = client.map(9, false).unwrap();
    assert!(is_kept());
    let (first, second) = (client.map(9, true).unwrap(), client.map(9, true).unwrap());
    assert!(!is_kept());
    drop((read, first));
    assert!(!is_kept());
    drop(second);
    assert!(is_kept());
    // A ring's page is written by others, too.
    let ring = client.map(9, true).unwrap();
    two.granter.domain.hold(mfn).unwrap();
    drop(ring);
    assert!(!is_kept());
    drop(client.map(9, true).unwrap());
    assert!(!is_kept());
    assert_eq!(two.grants.machine.frames.flags(mfn) & flag::UNKEPT, flag::NO_CODE);
}

#[test]
fn pages_of_a_request_are_mapped_together_or_not_at_all() {
    let two = Two::new();
    let grefs: Vec<u32> = (8..108).collect();
    let frames: Vec<Mfn> = grefs.iter().map(|gref| two.grant(*gref, 0)).collect();
    let client = two.granter.client(0);
    let is_kept = |mfn: &Mfn| two.grants.machine.frames.flags(*mfn) & flag::UNKEPT == 0;
    let unused = || {
        assert!(grefs.iter().all(|gref| two.flags(*gref) == 1));
        assert!(frames.iter().all(is_kept));
        assert_eq!(two.granter.domain.outside_refs(), vec![]);
        assert_eq!(two.grants.audit(), Vec::<String>::new());
    };
    let all = || grefs.iter().copied();
    let mapped = client.map_all(all(), true).unwrap();
    assert!(!frames.iter().any(is_kept));
    assert_eq!(two.grants.audit(), Vec::<String>::new());
    let ram = two.grants.machine.mem.base();
    for (page, mfn) in frames.iter().enumerate() {
        let found = mapped.io_vec(page, 512, 1024).unwrap();
        assert_eq!(
            found.iov_base.cast(),
            ram.wrapping_add(mfn.maddr() as usize + 512)
        );
    }
    assert!(mapped.io_vec(0, 4095, 2).is_err());
    assert!(mapped.io_vec(100, 0, 1).is_err());
    drop(mapped);
    unused();
    // One that is not granted, and one that is only to be read.
    two.write_entry(90, 0, 0, frames[82]);
    assert!(client.map_all(all(), false).is_err());
    two.write_entry(90, 1 | 4, 0, frames[82]);
    assert!(client.map_all(all(), true).is_err());
    drop(client.map_all(all(), false).unwrap());
    two.write_entry(90, 1, 0, frames[82]);
    unused();
    // A page that is granted once and asked for twice has two uses.
    drop(client.map_all([8, 9, 8].into_iter(), true).unwrap());
    unused();
}

#[test]
fn pages_of_a_request_stay_when_the_granter_ends() {
    let two = Two::new();
    let frames = [8, 9].map(|gref| two.grant(gref, 0));
    let mapped = two.granter.client(0).map_all([8, 9].into_iter(), true).unwrap();
    two.granter.close();
    assert_eq!(two.granter.domain.destroy(), 2);
    let refs = || frames.map(|mfn| two.grants.machine.frame_info(mfn).unwrap().refs);
    assert_eq!(refs(), [1, 1]);
    drop(mapped);
    assert_eq!(refs(), [0, 0]);
    assert_eq!(two.grants.machine.audit(), Vec::<String>::new());
}

#[test]
fn no_access_leaves_the_page_and_none_writes_what_is_only_to_be_read() {
    let two = Two::new();
    two.grant(9, 0);
    let page = two.granter.client(0).map(9, false).unwrap();
    let mut buf = [0; 8];
    assert_eq!(page.read(4088, &mut buf), Ok(()));
    for offset in [4089, 4096, usize::MAX] {
        assert_eq!(page.read(offset, &mut buf), Err(OutsidePage));
        assert_eq!(page.load_u32(offset), Err(OutsidePage));
        assert!(page.io_vec(offset, 8).is_err());
    }
    assert_eq!(page.load_u32(2), Err(OutsidePage));
    assert_eq!(page.write(0, &buf), Err(OutsidePage));
    assert_eq!(page.store_u32(0, 1), Err(OutsidePage));
    assert_eq!(page.io_vec(0, 4096).map(|v| v.iov_len), Ok(4096));
}

#[test]
fn a_mapping_keeps_its_frame_when_the_granter_ends() {
    let two = Two::new();
    let mfn = two.grant(9, 0);
    let free = two.grants.machine.free_frames();
    let page = two.granter.client(0).map(9, true).unwrap();
    two.granter.begin_use(0, 9, false).unwrap();
    two.granter.close();
    assert_eq!(two.granter.domain.destroy(), 1);
    page.write(0, b"last").unwrap();
    assert!(two.grants.machine.frame_info(mfn).unwrap().refs > 0);
    two.granter.end_use(9, false);
    let client = two.granter.client(0);
    assert_eq!(client.map(9, true).err(), Some(GrantStatus::bad_domain));
    drop(page);
    assert_eq!(two.grants.machine.frame_info(mfn).unwrap().refs, 0);
    assert!(two.grants.machine.free_frames() > free);
    assert_eq!(two.grants.machine.audit(), Vec::<String>::new());
}

#[test]
fn copies_of_a_back_end_stay_inside_the_page_and_need_the_grant() {
    let two = Two::new();
    two.grant(9, 0);
    let client = two.granter.client(0);
    client.copy_to(9, 10, b"data").unwrap();
    let mut buf = [0; 4];
    client.copy_from(9, 10, &mut buf).unwrap();
    assert_eq!(&buf, b"data");
    assert_eq!(client.copy_to(9, 4093, b"data"), Err(GrantStatus::general_error));
    let mut much = [0; 5000];
    assert_eq!(client.copy_from(9, 0, &mut much), Err(GrantStatus::general_error));
    let other = two.granter.client(5);
    assert_eq!(other.copy_from(9, 0, &mut buf), Err(GrantStatus::general_error));
    assert_eq!(
        client.copy_from(10_000, 0, &mut buf),
        Err(GrantStatus::bad_gntref)
    );
    assert_eq!((two.flags(9), two.granter.domain.outside_refs()), (1, vec![]));
}

#[test]
fn guests_and_back_ends_use_the_same_grants_at_the_same_time() {
    let two = Two::new();
    let shared = two.grant(9, 2);
    let own = two.grant(10, 0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let client = two.granter.client(0);
            while !stop.load(Ordering::Relaxed) {
                let page = client.map(10, true).unwrap();
                client.copy_to(10, 0, b"from the host").unwrap();
                assert_eq!(page.mfn(), own);
            }
        });
        let map = Map {
            host_addr: 0x5000,
            flags: gntmap::HOST_MAP,
            gref: 9,
            dom: 1,
        };
        for _ in 0..2_000 {
            let (handle, mfn) = two.mapper.map(&map, |_, _, _, _| Ok(())).unwrap();
            assert_eq!(mfn, shared);
            assert_eq!(two.grants.audit(), Vec::<String>::new());
            assert_eq!(two.granter.other_refs(), Ok(vec![]));
            let unmap = Unmap {
                handle,
                host_addr: 0x5000,
                dev_bus_addr: 0,
                replace: None,
            };
            two.mapper.unmap(&unmap, |_, _, _, _| Ok(())).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!((two.flags(9), two.flags(10)), (1, 1));
    assert_eq!(two.granter.domain.outside_refs(), vec![]);
}

#[test]
fn a_number_that_is_used_again_is_another_domain() {
    let two = Two::new();
    two.grant(9, 2);
    let map = Map {
        host_addr: 0,
        flags: gntmap::DEVICE_MAP,
        gref: 9,
        dom: 1,
    };
    two.mapper.map(&map, |_, _, _, _| Ok(())).unwrap();
    let old = two.granter.clone();
    old.close();
    assert_eq!(old.domain.destroy(), 0);
    let again = Domain::new(two.grants.machine.clone(), 1);
    let again = two.grants.add(&again, LIMITS).unwrap();
    assert!(again.active().is_empty() && two.grants.audit().is_empty());
    assert_eq!(old.grow(2), Err(GrantStatus::bad_domain));
    two.mapper.close();
    assert!(again.active().is_empty());
}

#[test]
fn a_copy_moves_bytes_or_says_why_it_is_not_allowed() {
    let two = Two::new();
    let (from, to) = (two.grant(9, 2), two.mapper.domain.alloc(1).unwrap()[0]);
    two.grants.machine.mem.write(from.maddr() + 100, b"bytes");
    let end = |domid, gref, offset| CopyEnd {
        domid,
        gref,
        mfn: to,
        offset,
    };
    let mut copy = CopyFrom {
        source: end(1, Some(9), 100),
        dest: end(DOMID_SELF, None, 4091),
        len: 5,
    };
    assert_eq!(two.mapper.copy(&copy), Ok(()));
    let mut got = [0; 5];
    two.grants.machine.mem.read(to.maddr() + 4091, &mut got);
    assert_eq!(&got, b"bytes");
    copy.len = 6;
    assert_eq!(two.mapper.copy(&copy), Err(GrantStatus::bad_copy_arg));
    copy.dest.domid = 1;
    assert_eq!(two.mapper.copy(&copy), Err(GrantStatus::permission_denied));
}

#[test]
fn grants_belong_to_a_number_and_domain_0_has_granted_nothing() {
    let two = Two::new();
    let state = two.grants.lock();
    let (own, other) = (two.mapper.key, two.granter.key);
    let numbers = [2, DOMID_SELF, 1, 0, DOMID_IO, DOMID_XEN, 9];
    let (bad, general) = (Err(GrantStatus::bad_domain), Err(GrantStatus::general_error));
    let granters = numbers.map(|n| state.granter(n, 8));
    assert_eq!(granters, [Ok(own), bad, Ok(other), general, bad, bad, bad]);
    assert_eq!(state.granter(0, 512), Err(GrantStatus::bad_gntref));
    let thirds = numbers.map(|n| state.third(own, n));
    assert_eq!(
        thirds,
        [general, general, Ok(other), general, general, general, general]
    );
}

#[test]
fn a_copy_names_frames_of_its_own_domain_only() {
    let two = Two::new();
    let state = two.grants.lock();
    let (own, other) = (two.mapper.key, two.granter.key);
    assert_eq!(state.end_of_copy(own, DOMID_SELF, None), Ok(own));
    assert_eq!(state.end_of_copy(own, DOMID_SELF, Some(8)), Ok(own));
    assert_eq!(state.end_of_copy(own, 1, Some(8)), Ok(other));
    let denied = Err(GrantStatus::permission_denied);
    assert_eq!(state.end_of_copy(own, 2, None), denied);
}

#[test]
fn a_transitive_grant_is_held_at_both_owners_while_it_is_used() {
    let two = Two::new();
    let frame = two.grant(9, 2);
    two.mapper.set_version(2).unwrap();
    let mem = &two.grants.machine.mem;
    let at = two.mapper.entry_maddr(20).unwrap();
    let write = |flags: u64, user: u64, gref: u64| {
        mem.write_u64(at, flags | user << 16 | 1 << 32);
        mem.write_u64(at + 8, gref);
    };
    write(3, 0, 9);
    let status = || {
        let mut b = [0; 2];
        mem.read(two.mapper.status_maddr(20).unwrap(), &mut b);
        u16::from_le_bytes(b)
    };
    let refs = || two.granter.domain.outside_refs();
    let acquire = |how| two.grants.lock().acquire(two.mapper.key, 20, 0, how);
    let release = |writable| two.grants.lock().release(two.mapper.key, 20, writable);
    let active = acquire(How::copy(true)).unwrap();
    assert_eq!((active.mfn, active.via.is_some()), (frame, true));
    assert_eq!((status(), two.flags(9)), (24, 1 | 24));
    acquire(How::copy(false)).unwrap();
    assert_eq!(refs(), vec![(frame, 1, 1)]);
    // The users at the first owner are this test, which no book knows; those at the third are that owner's.
    assert!(two.grants.audit().iter().all(|line| line.starts_with("d2 ")));
    assert!(acquire(How::map(false)).is_err());
    release(true);
    release(false);
    assert_eq!((refs(), status(), two.flags(9)), (vec![], 0, 1));
    // Of a read-only one: read-only.
    two.write_entry(9, 5, 2, frame);
    assert!(acquire(How::copy(true)).is_err());
    assert_eq!((refs(), status()), (vec![], 0));
    acquire(How::copy(false)).unwrap();
    // The third domain ends: nothing is left to give back.
    two.granter.close();
    release(false);
    assert_eq!((status(), two.grants.audit()), (0, vec![]));
}
