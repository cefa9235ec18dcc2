// SPDX-License-Identifier: Apache-2.0
//! Page tables that name another table of their own level.

use super::*;

/// Two pinned trees: [l4, l3, l2, l1] each.
fn two(g: &mut Guest) -> [[Mfn; 4]; 2] {
    let trees = [g.tree(&[]), g.tree(&[])];
    for t in trees {
        assert_eq!(g.pin(4, t[0]), 0);
    }
    trees
}

#[test]
fn a_table_may_show_another_of_its_level_read_only() {
    let mut g = guest();
    let [a, b] = two(&mut g);
    for n in 0..3 {
        let (refs, count) = (g.refs(b[n]), g.count(b[n]));
        assert_eq!(g.update(a[n], 300, entry(b[n], RW)), EINVAL);
        assert_eq!(g.update(a[n], 300, entry(b[n], RO)), 0);
        assert_eq!((g.refs(b[n]), g.count(b[n])), (refs + 1, count + 1));
        assert_eq!(
            g.update(a[n], 300, entry(b[n], RW)),
            EINVAL,
            "not by a small change either"
        );
        assert_eq!(g.update(a[n], 300, entry(b[n], RO | pte::A)), 0);
        assert_eq!(g.update(a[n], 301, entry(b[n], RO)), 0);
        g.audit();
    }
    // L1 entries name frames, whatever they are.
    assert_eq!(g.update(a[3], 300, entry(b[3], RO)), 0);
    for table in &a[..3] {
        assert_eq!(g.update(*table, 300, 0), 0);
    }
    assert_eq!(g.unpin(a[0]), 0);
    assert_eq!(g.unpin(b[0]), 0);
    assert_eq!(
        [a, b].concat().iter().map(|m| g.ty(*m)).collect::<Vec<_>>(),
        ["none"; 8]
    );
    g.audit();
}

#[test]
fn a_shown_table_stays_validated_until_it_is_shown_no_more() {
    let mut g = guest();
    let [a, b] = two(&mut g);
    assert_eq!(g.update(a[1], 300, entry(b[1], RO)), 0);
    assert_eq!(g.unpin(b[0]), 0);
    assert_eq!(b.map(|m| g.ty(m)), ["none", "l3", "l2", "l1"]);
    assert_eq!(g.update(a[3], 0, entry(b[1], RW)), EBUSY);
    g.audit();
    assert_eq!(g.unpin(a[0]), 0);
    assert_eq!(b.map(|m| g.ty(m)), ["none"; 4]);
    g.audit();
}

#[test]
fn linear_entries_are_one_deep_and_go_one_way() {
    let mut g = guest();
    let ([a, b], [c, d]) = (two(&mut g), two(&mut g));
    for n in 0..3 {
        let show = |g: &mut Guest, by: Mfn, what: Mfn| g.update(by, 400, entry(what, RO));
        assert_eq!(show(&mut g, a[n], b[n]), 0);
        assert_eq!(show(&mut g, b[n], a[n]), EINVAL, "back");
        assert_eq!(show(&mut g, b[n], c[n]), EINVAL, "b is shown, and shows nothing");
        assert_eq!(show(&mut g, c[n], a[n]), EINVAL, "a shows, and is not shown");
        assert_eq!(g.update(b[n], 401, entry(b[n], RO)), 0, "itself does not count");
        assert_eq!(show(&mut g, c[n], b[n]), 0, "by another too");
        assert_eq!(show(&mut g, a[n], d[n]), 0, "in place of the first");
        assert_eq!(show(&mut g, b[n], a[n]), EINVAL, "c still shows b");
        assert_eq!(g.update(c[n], 400, 0), 0);
        assert_eq!(show(&mut g, b[n], c[n]), 0, "b is free now");
        g.audit();
    }
    for t in [a, b, c, d] {
        assert_eq!(g.unpin(t[0]), 0);
    }
    for m in [a, b, c, d].concat() {
        assert_eq!((g.ty(m), g.count(m)), ("none", 0));
    }
    g.audit();
}

#[test]
fn tables_with_linear_entries_validate_and_fall_as_others_do() {
    let mut g = guest();
    let [target, ..] = g.tree(&[]);
    assert_eq!(g.pin(4, target), 0);
    let [l4, ..] = g.tree(&[]);
    g.fill(
        l4,
        &[
            (300, entry(target, RO)),
            (301, entry(target, RO)),
            (302, entry(l4, RO)),
        ],
    );
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(g.count(target), 3);
    // One that fails after its linear entries gives back what they took.
    let [bad, ..] = g.tree(&[]);
    g.fill(bad, &[(300, entry(target, RO)), (500, entry(target, RW))]);
    assert_eq!(g.pin(4, bad), EINVAL);
    assert_eq!((g.count(target), g.ty(bad)), (3, "none"));
    // What has no type yet becomes a table of the level below.
    let [fresh, ..] = g.tree(&[]);
    assert_eq!(g.update(l4, 310, entry(fresh, RO)), 0);
    assert_eq!(g.ty(fresh), "l3");
    assert_eq!(g.unpin(l4), 0);
    assert_eq!(g.count(target), 1);
    g.audit();
}

#[test]
fn nobody_shows_another_domains_table() {
    let machine = machine(1024);
    let (mut g, mut other) = (Guest::new(&machine, 1), Guest::new(&machine, 2));
    let [a, _] = two(&mut g);
    let [b, _] = two(&mut other);
    for n in 0..3 {
        assert_eq!(g.update(a[n], 300, entry(b[n], RO)), EINVAL);
    }
    g.audit();
}

#[test]
fn of_a_32_bit_guest_only_tables_of_the_second_level_show_each_other() {
    let mut g = Guest::of(Domain::new_with(machine(1024), 1, true));
    let make = |g: &mut Guest| {
        let l1 = g.one();
        let l2 = g.table(&[(0, entry(l1, RW))]);
        let l2x = g.one();
        let l3 = g.table(&[(0, entry(l2, pte::P)), (3, entry(l2x, pte::P))]);
        assert_eq!(g.pin(3, l3), 0);
        [l3, l2, l2x]
    };
    let [a3, a2, ax] = make(&mut g);
    let [b3, b2, bx] = make(&mut g);
    assert_eq!(g.update(a3, 1, entry(b3, pte::P)), EINVAL);
    assert_eq!(g.update(a2, 300, entry(b2, RO)), 0);
    assert_eq!(g.update(ax, 300, entry(bx, RO)), 0);
    assert_eq!(g.update(b2, 300, entry(a2, RO)), EINVAL);
    g.audit();
    g.domain.destroy();
    g.audit();
}

#[test]
fn a_domain_with_linear_entries_gives_every_frame_back() {
    let machine = machine(1024);
    let free = machine.free_frames();
    let mut g = Guest::new(&machine, 1);
    let [a, b] = two(&mut g);
    for n in 0..3 {
        assert_eq!(g.update(a[n], 300, entry(b[n], RO)), 0);
    }
    g.domain.destroy();
    assert_eq!(machine.free_frames(), free);
    g.audit();
}
