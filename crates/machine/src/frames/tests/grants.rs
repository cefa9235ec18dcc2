// SPDX-License-Identifier: Apache-2.0
//! Mappings of another domain's frames.

use super::*;
use crate::frames::{flag, GrantAddress};
use crate::shared::Purge;

fn pair() -> (Guest, Guest, [Mfn; 4]) {
    let m = machine(1024);
    let (mut g, owner) = (Guest::new(&m, 1), Guest::new(&m, 2));
    let tree = g.tree(&[]);
    assert_eq!(g.base(tree[0]), 0);
    (g, owner, tree)
}

#[test]
fn a_granted_frame_is_mapped_and_unmapped_with_its_own_references() {
    let (g, owner, [.., l1]) = pair();
    let f = owner.one();
    let at = GrantAddress::Linear(0x5000);
    assert_eq!(g.domain.grant_map(0, at, f, 2, RW, Caller::Host), Ok(()));
    assert_eq!((g.refs(f), g.count(f), pte::mfn(g.read(l1, 5))), (2, 1, f.0));
    g.audit();
    assert_eq!(
        g.domain
            .grant_unmap(0, at, Mfn(f.0 + 1), true, None, Caller::Host),
        Err(Errno::EINVAL)
    );
    assert_eq!(g.domain.grant_unmap(0, at, f, true, None, Caller::Host), Ok(()));
    assert_eq!((g.refs(f), g.count(f), g.read(l1, 5)), (1, 0, 0));
    assert_eq!(
        g.domain.grant_unmap(0, at, f, true, None, Caller::Host),
        Err(Errno::EINVAL)
    );
    let entry_at = GrantAddress::Entry(l1.maddr() + 8);
    assert_eq!(g.domain.grant_map(0, entry_at, f, 2, RO, Caller::Host), Ok(()));
    assert_eq!((g.refs(f), g.count(f)), (2, 0));
    assert_eq!(
        g.domain.grant_unmap(0, entry_at, f, true, None, Caller::Host),
        Err(Errno::EINVAL)
    );
    g.audit();
}

#[test]
fn only_live_tables_of_ones_own_take_grant_mappings() {
    let (g, owner, [l4, _, l2, l1]) = pair();
    let f = owner.one();
    let theirs = owner.one();
    for maddr in [
        l1.maddr() + 4,
        l2.maddr(),
        l4.maddr(),
        theirs.maddr(),
        g.one().maddr(),
        u64::MAX - 7,
    ] {
        assert_eq!(
            g.domain
                .grant_map(0, GrantAddress::Entry(maddr), f, 2, RO, Caller::Host),
            Err(Errno::EINVAL)
        );
    }
    for va in [0x4000_0000, HYPERVISOR_VIRT_START] {
        assert_eq!(
            g.domain
                .grant_map(0, GrantAddress::Linear(va), f, 2, RO, Caller::Host),
            Err(Errno::EINVAL)
        );
    }
    assert_eq!(
        g.domain
            .grant_map(9, GrantAddress::Linear(0), f, 2, RO, Caller::Host),
        Err(Errno::EINVAL),
        "no such vCPU"
    );
    assert_eq!(g.refs(f), 1);
    g.audit();
}

#[test]
fn a_mapper_cannot_widen_copy_or_keep_its_mapping() {
    let (mut g, owner, [_, _, l2, l1]) = pair();
    let f = owner.one();
    assert_eq!(
        g.domain
            .grant_map(0, GrantAddress::Linear(0), f, 2, RO, Caller::Host),
        Ok(())
    );
    let e = g.read(l1, 0);
    assert_eq!(g.update(l1, 0, e | pte::RW), EBUSY);
    assert_eq!(g.update(l1, 1, e), EBUSY);
    assert_eq!(
        g.update(l1, 0, e | pte::NX),
        0,
        "a change that holds no reference"
    );
    assert_eq!(g.refs(f), 2);
    assert_eq!(g.update(l2, 0, 0), 0);
    assert_eq!(
        (g.ty(l1), g.refs(f)),
        ("none", 1),
        "the mapping goes with its table"
    );
    assert_eq!(g.pin(1, l1), EBUSY, "and does not come back with it");
    g.audit();
}

#[test]
fn the_granters_frame_cannot_become_a_table_or_be_freed_under_a_mapping() {
    let (g, mut owner, _) = pair();
    let f = owner.one();
    let free = owner.domain.machine.free_frames();
    assert_eq!(
        g.domain
            .grant_map(0, GrantAddress::Linear(0), f, 2, RW, Caller::Host),
        Ok(())
    );
    assert_eq!(owner.pin(1, f), EINVAL);
    assert_eq!(owner.domain.release(f, Caller::Host), Ok(()));
    assert_eq!(owner.domain.machine.free_frames(), free);
    assert_eq!(owner.domain.destroy(), 1);
    owner.audit();
    assert_eq!(
        g.domain
            .grant_unmap(0, GrantAddress::Linear(0), f, true, None, Caller::Host),
        Ok(())
    );
    assert_eq!(owner.domain.machine.free_frames(), free + 1);
    owner.audit();
}

#[test]
fn a_frame_with_a_table_type_cannot_be_granted_writable() {
    let (g, mut owner, _) = pair();
    let table = owner.one();
    assert_eq!(owner.pin(1, table), 0);
    assert_eq!(
        g.domain
            .grant_map(0, GrantAddress::Linear(0), table, 2, RW, Caller::Host),
        Err(Errno::EBUSY)
    );
    assert_eq!(
        g.domain
            .grant_map(0, GrantAddress::Linear(0), table, 2, RO, Caller::Host),
        Ok(())
    );
    g.audit();
}

#[test]
fn translations_of_a_granted_frame_are_purged_when_it_is_unmapped() {
    let (g, owner, _) = pair();
    let m = g.domain.machine.clone();
    let other = Arc::new(VcpuShared::default());
    m.register_vcpu(&other);
    let f = owner.one();
    assert_eq!(
        g.domain
            .grant_map(0, GrantAddress::Linear(0), f, 2, RW, Caller::Host),
        Ok(())
    );
    m.frames.set_flags(f, flag::TLB_R | flag::TLB_W);
    assert_eq!(
        g.domain
            .grant_unmap(0, GrantAddress::Linear(0), f, true, None, Caller::Host),
        Ok(())
    );
    assert_eq!(other.take_purges(), Some(vec![Purge::Frame(f)]));
}

#[test]
fn unmap_and_replace_moves_the_other_entry() {
    let (mut g, owner, [.., l1]) = pair();
    let (f, mine) = (owner.one(), g.one());
    assert_eq!(g.update(l1, 7, entry(mine, RW)), 0);
    assert_eq!(
        g.domain
            .grant_map(0, GrantAddress::Linear(0), f, 2, RW, Caller::Host),
        Ok(())
    );
    assert_eq!(
        g.domain
            .grant_unmap(0, GrantAddress::Linear(0), f, true, Some(0), Caller::Host),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        g.domain
            .grant_unmap(0, GrantAddress::Linear(0), f, true, Some(0x7000), Caller::Host),
        Ok(())
    );
    assert_eq!((pte::mfn(g.read(l1, 0)), g.read(l1, 7)), (mine.0, 0));
    assert_eq!((g.refs(f), g.refs(mine), g.count(mine)), (1, 2, 1));
    g.audit();
}
