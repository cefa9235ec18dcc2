// SPDX-License-Identifier: Apache-2.0
//! What a hostile guest tries.

use super::*;

#[test]
fn no_writable_mapping_of_a_live_table_of_any_level() {
    let mut g = guest();
    let tree = g.tree(&[]);
    let l1 = tree[3];
    assert_eq!(g.pin(4, tree[0]), 0);
    for m in tree {
        assert_eq!(g.update(l1, 9, entry(m, RW)), EBUSY);
        assert_eq!(g.update(l1, 9, entry(m, RO)), 0);
        assert_eq!(
            g.update(l1, 9, entry(m, RO | pte::RW)),
            EBUSY,
            "not by a small change either"
        );
        assert_eq!(g.update(l1, 9, 0), 0);
    }
    g.audit();
}

#[test]
fn a_table_that_maps_itself_or_its_ancestors_writable_does_not_validate() {
    let mut g = guest();
    for level in 0..4 {
        let tree = g.tree(&[]);
        g.fill(tree[3], &[(0, entry(tree[level], RW))]);
        assert!(g.pin(4, tree[0]) < 0, "level {}", 4 - level);
        assert!(tree.iter().all(|m| g.ty(*m) == "none" || g.ty(*m) == "writable"));
        g.audit();
    }
}

#[test]
fn a_frame_with_a_writable_mapping_does_not_become_a_table() {
    let mut g = guest();
    let victim = g.one();
    let [l4, _, l2, l1] = g.tree(&[(0, entry(victim, RW))]);
    assert_eq!(g.pin(4, l4), 0);
    for level in 1..=4 {
        assert_eq!(g.pin(level, victim), EINVAL);
    }
    assert_eq!(g.update(l2, 1, entry(victim, RW)), EINVAL);
    assert_eq!(g.base(victim), EINVAL);
    assert_eq!(g.update(l1, 0, 0), 0);
    assert_eq!(g.update(l2, 1, entry(victim, RW)), 0);
    g.audit();
}

#[test]
fn a_table_has_one_level_at_a_time() {
    let mut g = guest();
    let [l4, l3, l2, l1] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(g.pin(1, l2), EINVAL);
    assert_eq!(g.pin(2, l1), EINVAL);
    assert_eq!(g.pin(3, l4), EINVAL);
    assert_eq!(g.update(l4, 1, entry(l2, RW)), EINVAL);
    assert_eq!(g.update(l3, 1, entry(l1, RW)), EINVAL);
    assert_eq!(g.update(l2, 1, entry(l2, RW)), EINVAL);
    assert_eq!(g.base(l3), EINVAL);
    g.audit();
}

#[test]
fn loops_between_tables_do_not_validate() {
    let mut g = guest();
    let (a, b) = (g.one(), g.one());
    g.fill(a, &[(0, entry(b, RW))]);
    g.fill(b, &[(0, entry(a, RW))]);
    for level in 2..=4 {
        assert!(g.pin(level, a) < 0);
    }
    let me = g.one();
    g.fill(me, &[(0, entry(me, RW)), (511, entry(me, RW))]);
    for level in 1..=4 {
        assert!(g.pin(level, me) < 0);
    }
    assert_eq!([a, b, me].map(|m| g.ty(m)), ["none"; 3]);
    g.audit();
}

#[test]
fn a_table_may_show_itself_read_only() {
    let mut g = guest();
    let [l4, l3, l2, _] = g.tree(&[]);
    g.fill(l4, &[(300, entry(l4, RO))]);
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(g.update(l4, 301, entry(l4, RW)), EINVAL);
    assert_eq!(g.update(l4, 301, entry(l4, RO)), 0);
    assert_eq!(g.update(l4, 301, entry(l4, RW)), EINVAL);
    for m in [l3, l2] {
        assert_eq!(g.update(m, 301, entry(m, RO)), 0);
        assert_eq!(g.update(m, 301, entry(m, RW)), EINVAL);
    }
    g.audit();
    let [other, ..] = g.tree(&[]);
    assert_eq!(g.pin(4, other), 0);
    assert_eq!(
        g.update(l4, 302, entry(other, RW)),
        EINVAL,
        "another L4, writable"
    );
    assert_eq!(g.update(l4, 301, 0), 0);
    assert_eq!((g.refs(l4), g.count(l4)), (2, 1));
    assert_eq!(g.unpin(l4), 0);
    assert_eq!(g.ty(l4), "none");
    g.audit();
}

#[test]
fn xens_slots_are_refused_and_cleared() {
    let mut g = guest();
    let [l4, l3, ..] = g.tree(&[]);
    g.fill(
        l4,
        &[
            (256, entry(l3, RW)),
            (271, 0xffff_ffff_ffff_ffff),
            (272, entry(l3, RW)),
        ],
    );
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!([256, 271].map(|i| g.read(l4, i)), [0, 0]);
    assert_eq!(g.count(l3), 2);
    for slot in 256..=271 {
        assert_eq!(g.update(l4, slot, entry(l3, RW)), EINVAL);
        assert_eq!(g.update(l4, slot, 0), EINVAL);
    }
    assert_eq!(g.update(l4, 255, entry(l3, RW)), 0);
    assert_eq!(g.update(l4, 272, 0), 0);
    g.audit();
}

#[test]
fn superpages_and_cache_attributes_are_refused_at_every_level() {
    let mut g = guest();
    let data = g.one();
    let [l4, l3, l2, l1] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    for (table, child) in [(l4, l3), (l3, l2), (l2, l1), (l1, data)] {
        for bit in [pte::PSE, pte::PWT, pte::PCD] {
            assert_eq!(g.update(table, 3, entry(child, RO | bit)), EINVAL);
        }
    }
    assert_eq!(g.update(l2, 3, entry(l1, RO | pte::GLOBAL)), EINVAL);
    assert_eq!(
        g.update(
            l1,
            3,
            entry(data, RO | pte::GLOBAL | pte::NX | pte::AVAIL | pte::AVAIL_HIGH)
        ),
        0
    );
    let [bad4, _, bad2, _] = g.tree(&[]);
    g.fill(bad2, &[(5, entry(data, RW | pte::PSE))]);
    assert_eq!(g.pin(4, bad4), EINVAL);
    assert_eq!(g.ty(bad2), "none");
    g.audit();
}

#[test]
fn foreign_free_hypervisor_and_absent_frames_cannot_be_mapped() {
    let m = machine(512);
    let (mut g, other) = (Guest::new(&m, 1), Guest::new(&m, 2));
    let theirs = other.one();
    let [l4, _, l2, l1] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    let gone = g.one();
    assert_eq!(g.domain.release(gone, Caller::Host), Ok(()));
    for f in [theirs, gone, Mfn(0), m.m2p().0] {
        for bits in [RO, RW] {
            assert_eq!(g.update(l1, 0, entry(f, bits)), EBUSY);
        }
        assert_eq!(g.update(l2, 3, entry(f, RW)), EINVAL);
        assert_eq!(g.pin(1, f), EINVAL);
        assert_eq!(g.ext(op::CLEAR_PAGE, f.0, 0), EINVAL);
        assert_eq!(g.update(f, 0, 1), EINVAL);
        assert_eq!(g.domain.release(f, Caller::Host), Err(Errno::EINVAL));
    }
    const ALL_ONES: u64 = pte::ADDR >> 12;
    for absent in [512, 1 << 39, ALL_ONES] {
        let want = if absent == ALL_ONES { EINVAL } else { EPERM };
        assert_eq!(g.update(l1, 0, (absent << 12 & pte::ADDR) | RO), want);
        assert_eq!(g.update(l2, 3, (absent << 12 & pte::ADDR) | RO), EINVAL);
        assert_eq!(g.pin(1, Mfn(absent)), EINVAL);
    }
    g.audit();
}

#[test]
fn domains_cannot_name_each_other() {
    let m = machine(512);
    let (mut g, other) = (Guest::new(&m, 1), Guest::new(&m, 2));
    let theirs = other.one();
    let [l4, .., l1] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    let req = [(l1.maddr(), entry(theirs, RW))];
    assert_eq!(g.updates(&req, 2), EPERM);
    assert_eq!(g.updates(&req, SELF | 3 << 16), EPERM);
    assert_eq!(g.updates(&req, XEN), EPERM);
    assert_eq!(g.updates(&req, IO), EBUSY, "DOMID_IO owns no memory");
    assert_eq!(g.updates(&req, 5), ESRCH);
    assert_eq!(g.updates(&req, 1), ESRCH);
    assert_eq!(g.updates(&req, SELF | 9 << 16), ESRCH);
    g.set_args(&[3, l4.0, 0]);
    assert_eq!(
        mmuext::mmuext_op(&mut g, ARGS, 1, 0, 2),
        Outcome::Done(Err(Errno::EPERM))
    );
    assert_eq!(
        mmuext::mmuext_op(&mut g, ARGS, 1, 0, 6),
        Outcome::Done(Err(Errno::ESRCH))
    );
    assert_eq!(g.refs(theirs), 1);
    g.audit();
}

#[test]
fn a_released_frame_stays_until_its_last_mapping_goes() {
    let mut g = guest();
    let free = g.domain.machine.free_frames();
    let data = g.one();
    let [l4, .., l1] = g.tree(&[(0, entry(data, RW))]);
    assert_eq!(g.pin(4, l4), 0);
    let m = g.domain.machine.clone();
    assert_eq!(g.domain.release(data, Caller::Host), Ok(()));
    assert_eq!(
        g.domain.release(data, Caller::Host),
        Err(Errno::EINVAL),
        "not twice"
    );
    assert_eq!((m.free_frames(), g.refs(data)), (free - 5, 1));
    assert_eq!(g.domain.release(l1, Caller::Host), Ok(()));
    assert_eq!(g.ty(l1), "l1", "still linked");
    g.audit();
    assert_eq!(g.domain.release(l4, Caller::Host), Ok(()));
    assert_eq!(m.free_frames(), free - 2, "l2 and l3 are left");
    g.audit();
}

#[test]
fn a_pinned_and_loaded_table_survives_its_release() {
    let mut g = guest();
    let [l4, ..] = g.tree(&[]);
    assert_eq!((g.pin(4, l4), g.base(l4)), (0, 0));
    assert_eq!(g.domain.release(l4, Caller::Host), Ok(()));
    assert_eq!(g.ty(l4), "l4");
    assert_eq!(g.unpin(l4), EINVAL, "the release has unpinned it");
    g.audit();
    let [next, ..] = g.tree(&[]);
    assert_eq!(g.base(next), 0);
    assert_eq!(g.domain.machine.frame_info(l4).and_then(|f| f.owner()), None);
    g.audit();
}

#[test]
fn shared_hypervisor_frames_are_never_tables_and_never_released() {
    let mut g = guest();
    let shared = g.domain.share_hypervisor_frames(1).expect("a frame")[0];
    let [l4, _, l2, l1] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(g.update(l1, 0, entry(shared, RW)), 0);
    assert_eq!(g.update(l1, 0, 0), 0);
    for level in 1..=4 {
        assert_eq!(g.pin(level, shared), EINVAL);
    }
    assert_eq!(g.update(l2, 1, entry(shared, RW)), EINVAL);
    assert_eq!(g.domain.set_gdt(0, &[shared], 1, Caller::Host), REFUSED);
    assert_eq!(g.domain.release(shared, Caller::Host), Err(Errno::EINVAL));
    g.audit();
}

#[test]
fn the_low_bits_of_an_update_are_its_command_so_halves_of_entries_have_no_name() {
    let mut g = guest();
    let [l4, .., l1] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    let data = g.one();
    assert_eq!(g.updates(&[(l1.maddr() + 4, entry(data, RW))], SELF), ENOSYS);
    assert_eq!((g.read(l1, 0), g.read(l1, 1)), (0, 0));
}

#[test]
fn sizes_and_addresses_at_the_ends_of_their_range_do_no_harm() {
    let mut g = guest();
    for va in [0, ARGS, u64::MAX - 8, 1 << 63] {
        for count in [u32::MAX, 1 << 31, 0x7fff_ffff] {
            let small = count == 1 << 31 && va != 1 << 63;
            let r = mmu_ops::mmu_update(&mut g, va, count, u64::MAX, SELF);
            assert_eq!(r, Outcome::Done(if small { Ok(()) } else { Err(Errno::EFAULT) }));
            let r = mmuext::mmuext_op(&mut g, va, count, u64::MAX, SELF);
            assert_eq!(r, Outcome::Done(if small { Ok(()) } else { Err(Errno::EFAULT) }));
        }
    }
    let wild = [(u64::MAX - 7, u64::MAX), (u64::MAX - 7, 3)];
    assert_eq!(g.updates(&wild, SELF), EINVAL);
    assert_eq!(g.pin(1, Mfn(u64::MAX)), EINVAL);
    assert_eq!(g.ext(op::CLEAR_PAGE, u64::MAX >> 11, 0), EINVAL);
    assert_eq!(mmu_ops::update_descriptor(&mut g, u64::MAX - 7, 0), REFUSED);
    assert_eq!(g.domain.get_ref(Mfn(u64::MAX), true), Err(Errno::EINVAL));
    assert_eq!(g.domain.alloc(u64::MAX), None);
    g.audit();
}

#[test]
fn a_dead_table_is_writable_at_once_and_its_children_are_free() {
    let mut g = guest();
    let data = g.one();
    let [l4, _, _, l1] = g.tree(&[]);
    let [dead, d3, d2, d1] = g.tree(&[(0, entry(data, RW))]);
    assert_eq!((g.pin(4, l4), g.pin(4, dead)), (0, 0));
    assert_eq!(g.unpin(dead), 0);
    for (i, m) in [dead, d3, d2, d1].into_iter().enumerate() {
        assert_eq!(g.update(l1, i, entry(m, RW)), 0);
    }
    assert_eq!(g.pin(1, data), 0, "no writable mapping is left");
    g.audit();
}

#[test]
fn racing_vcpus_leave_the_counts_right() {
    let m = machine(2048);
    let domain = Domain::new(m.clone(), 1);
    let setup = Guest::of(domain.clone());
    let trees: Vec<[Mfn; 4]> = (0..4).map(|_| setup.tree(&[])).collect();
    let data = setup.alloc(6);
    std::thread::scope(|s| {
        for id in 0..4u32 {
            let (domain, trees, data) = (domain.clone(), trees.clone(), data.clone());
            s.spawn(move || {
                let mut g = Guest::of(domain);
                g.id = id;
                let mut x = u64::from(id) * 977 + 5;
                for _ in 0..3000 {
                    x = x
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    let r = (x >> 33) as usize;
                    let t = trees[r % 4];
                    let bits = if r & 16 != 0 { RW } else { RO };
                    match (r >> 5) % 7 {
                        0 => g.pin(4, t[0]),
                        1 => g.unpin(t[0]),
                        2 => g.pin(1, data[r % 6]),
                        3 => g.unpin(data[r % 6]),
                        4 => g.base(t[0]),
                        5 => g.update(t[2], r % 4, entry(trees[r / 64 % 4][3], RW)),
                        _ => g.update(t[3], r % 8, entry(data[r / 64 % 6], bits)),
                    };
                }
            });
        }
    });
    setup.audit();
    assert_eq!(domain.destroy(), 0);
    assert!(m.audit().is_empty());
}

#[test]
fn a_ring_that_a_backend_writes_never_becomes_a_table() {
    let mut g = guest();
    let ring = g.one();
    assert_eq!((g.domain.hold(ring), g.domain.hold(ring)), (Ok(()), Ok(())));
    for level in 1..=4 {
        assert_eq!(g.pin(level, ring), EINVAL);
    }
    assert_eq!(g.domain.release(ring, Caller::Host), Ok(()));
    assert_eq!(g.refs(ring), 1, "kept for the backend");
    g.audit();
    let table = g.one();
    assert_eq!(g.pin(1, table), 0);
    assert_eq!(g.domain.hold(table), Err(Errno::EINVAL));
    assert_eq!(g.domain.destroy(), 0);
    g.audit();
}
