// SPDX-License-Identifier: Apache-2.0
//! Random sequences of everything two domains can do, against the audit.

use super::*;
use crate::frames::ptwr;
use proptest::prelude::*;

const FRAMES: usize = 10;

#[derive(Debug, Clone)]
enum Step {
    Pin {
        level: u32,
        frame: usize,
    },
    Unpin {
        frame: usize,
    },
    Base {
        frame: usize,
        user: bool,
    },
    Update {
        table: usize,
        index: usize,
        to: usize,
        bits: u64,
    },
    Ptwr {
        table: usize,
        index: usize,
        to: usize,
        bits: u64,
    },
    /// A store through a writable mapping, as far as the type allows one.
    Poke {
        table: usize,
        index: usize,
        to: usize,
        bits: u64,
    },
    Release {
        frame: usize,
    },
    GetRef {
        frame: usize,
        writable: bool,
    },
    PutRef {
        frame: usize,
        writable: bool,
    },
    Gdt {
        frame: usize,
        entries: u32,
    },
    /// A whole tree, as far as its frames may be written; `linear`: its tables show themselves too. Then it is pinned.
    Tree {
        first: usize,
        linear: bool,
    },
    Destroy,
}

fn bits() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(RW), 4 => Just(RO), 2 => Just(0), 1 => Just(RW | pte::PSE), 1 => Just(RO | pte::NX | pte::D)]
}

fn step() -> impl Strategy<Value = Step> {
    // Frames above FRAMES are the other domain's.
    let frame = || 0..FRAMES + 2;
    let index = || prop_oneof![0..4usize, Just(256), Just(511)];
    let edit = || (frame(), index(), frame(), bits());
    prop_oneof![
        6 => (1..=4u32, frame()).prop_map(|(level, frame)| Step::Pin { level, frame }),
        4 => frame().prop_map(|frame| Step::Unpin { frame }),
        2 => (frame(), any::<bool>()).prop_map(|(frame, user)| Step::Base { frame, user }),
        10 => edit().prop_map(|(table, index, to, bits)| Step::Update { table, index, to, bits }),
        4 => edit().prop_map(|(table, index, to, bits)| Step::Ptwr { table, index, to, bits }),
        8 => edit().prop_map(|(table, index, to, bits)| Step::Poke { table, index, to, bits }),
        1 => frame().prop_map(|frame| Step::Release { frame }),
        1 => (frame(), any::<bool>()).prop_map(|(frame, writable)| Step::GetRef { frame, writable }),
        1 => (frame(), any::<bool>()).prop_map(|(frame, writable)| Step::PutRef { frame, writable }),
        1 => (frame(), 0..600u32).prop_map(|(frame, entries)| Step::Gdt { frame, entries }),
        3 => (0..FRAMES, any::<bool>()).prop_map(|(first, linear)| Step::Tree { first, linear }),
        1 => Just(Step::Destroy),
    ]
}

/// Frames mapped writable by an L1 of either domain are of type writable: told by the entries, not by the counts.
fn no_frame_is_both_writable_and_table(m: &Machine) {
    for i in 0..m.mem.frames() {
        if m.frame_info(Mfn(i)).is_some_and(|f| f.type_name() == "l1") {
            for at in 0..512 {
                let e = m.mem.read_u64((i << 12) + at * 8).expect("inside");
                if pte::writable(e) {
                    let target = m.frame_info(Mfn(pte::mfn(e))).expect("memory");
                    assert_eq!(target.type_name(), "writable", "entry {at} of {i:#x} = {e:#x}");
                }
            }
        }
    }
}

/// L1, L2, L3 and L4, or L1, L2, the L2 of slot 3 and L3.
fn plant(g: &mut Guest, m: &Machine, [l1, l2, third, root]: [Mfn; 4], linear: bool) {
    let is_32bit = g.domain.is_32bit;
    let top = if is_32bit {
        [(0, entry(l2, pte::P)), (3, entry(third, pte::P))]
    } else {
        [(0, entry(third, RW)), (3, entry(third, RO))]
    };
    let mut tables = vec![(l2, vec![(0, entry(l1, RW))]), (root, top.to_vec())];
    if !is_32bit {
        tables.push((third, vec![(0, entry(l2, RW))]));
    }
    for (table, mut entries) in tables {
        if linear {
            entries.push((2, entry(table, RO)));
        }
        let info = m.frame_info(table).expect("a frame");
        if info.owner() == Some(g.domain.domid) && ["none", "writable"].contains(&info.type_name()) {
            g.fill(table, &entries);
        }
    }
    g.pin(if is_32bit { 3 } else { 4 }, root);
}

fn run(is_32bit: bool, steps: Vec<(bool, Step)>) {
    let m = machine(64);
    let free = m.free_frames();
    let mut guests = [1, 2].map(|id| Guest::of(Domain::new_with(m.clone(), id, is_32bit)));
    let own: Vec<Vec<Mfn>> = guests.iter().map(|g| g.alloc(FRAMES as u64)).collect();
    let mut refs = Vec::new();
    for (second, step) in steps {
        let at = usize::from(second);
        let frame = |i: usize| own[if i < FRAMES { at } else { 1 - at }][i % FRAMES];
        let g = &mut guests[at];
        match step {
            Step::Pin { level, frame: f } => {
                g.pin(level, frame(f));
            }
            Step::Unpin { frame: f } => {
                g.unpin(frame(f));
            }
            Step::Base { frame: f, user } => {
                g.ext(if user { 15 } else { 5 }, frame(f).0, 0);
            }
            Step::Update {
                table,
                index,
                to,
                bits,
            } => {
                g.update(frame(table), index, entry(frame(to), bits));
            }
            Step::Ptwr {
                table,
                index,
                to,
                bits,
            } => {
                let at = frame(table).maddr() + index as u64 * 8;
                ptwr(&g.domain, Caller::Vcpu(&g.shared), at, false, &mut |_| {
                    Some(entry(frame(to), bits))
                });
            }
            Step::Poke {
                table,
                index,
                to,
                bits,
            } => {
                let f = frame(table);
                let info = m.frame_info(f).expect("a frame");
                if info.owner() == Some(g.domain.domid) && ["none", "writable"].contains(&info.type_name()) {
                    g.fill(f, &[(index, entry(frame(to), bits))]);
                }
            }
            Step::Release { frame: f } => {
                let _ = g.domain.release(frame(f), Caller::Host);
            }
            Step::GetRef { frame: f, writable } => {
                if g.domain.get_ref(frame(f), writable).is_ok() {
                    refs.push((at, frame(f), writable));
                }
            }
            Step::PutRef { frame: f, writable } => g.domain.put_ref(frame(f), writable),
            Step::Gdt { frame: f, entries } => {
                let _ = g.domain.set_gdt(0, &[frame(f), frame(f)], entries, Caller::Host);
            }
            Step::Tree { first, linear } => plant(
                g,
                &m,
                std::array::from_fn(|n| frame((first + n) % FRAMES)),
                linear,
            ),
            Step::Destroy => {
                g.domain.destroy();
            }
        }
        let said = m.audit();
        assert!(said.is_empty(), "{said:#?}");
        no_frame_is_both_writable_and_table(&m);
    }
    for (at, f, writable) in refs {
        guests[at].domain.put_ref(f, writable);
    }
    for g in &guests {
        g.domain.destroy();
    }
    assert_eq!(m.free_frames(), free);
    assert!(m.audit().is_empty());
}

/// Two trees that the steps then link: without them hardly any step comes as far as an entry of the same level.
fn two_trees() -> Vec<(bool, Step)> {
    [0, 5]
        .map(|first| (false, Step::Tree { first, linear: false }))
        .to_vec()
}

/// Entries of one table that name another, mostly read-only.
fn link() -> impl Strategy<Value = Step> {
    let (table, index, to) = (
        0..FRAMES,
        prop_oneof![Just(5usize), Just(6), Just(256)],
        0..FRAMES,
    );
    let bits = prop_oneof![6 => Just(RO), 1 => Just(RW), 2 => Just(0)];
    (table, index, to, bits).prop_map(|(table, index, to, bits)| Step::Update {
        table,
        index,
        to,
        bits,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_right_after_any_sequence(
        is_32bit in prop::bool::weighted(0.5),
        steps in prop::collection::vec((prop::bool::weighted(0.2), step()), 1..120),
    ) {
        run(is_32bit, steps);
    }

    #[test]
    fn counts_are_right_whatever_tables_name_each_other(
        is_32bit in prop::bool::weighted(0.3),
        steps in prop::collection::vec(prop_oneof![8 => link(), 2 => step()], 1..120),
    ) {
        let mut all = two_trees();
        all.extend(steps.into_iter().map(|s| (false, s)));
        run(is_32bit, all);
    }
}
