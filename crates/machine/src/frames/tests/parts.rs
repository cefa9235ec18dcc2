// SPDX-License-Identifier: Apache-2.0
//! Operations that a guest can make long: done in parts, with everything in order after each of them.

use super::*;
use crate::frames::memory::{HOLDINGS, LOOKED_AT};
use crate::frames::op::BUDGET;
use crate::pv::{Exit, Vcpu};
use std::collections::BTreeSet;

/// Tables that one part may validate or take down.
const PART: usize = (HOLDINGS * BUDGET) as usize;
const PREEMPTED: MmResult = Err(MmError::Preempted);

/// A 64-bit guest with a tree of `l1s` page tables below one L4, none of them validated, all of which map `data`.
struct Forest {
    g: Guest,
    data: Mfn,
    l1s: Vec<Mfn>,
    /// L4, L3 and the L2s.
    upper: Vec<Mfn>,
}

impl Forest {
    fn new(l1s: u64) -> Forest {
        let g = Guest::new(&machine(l1s + 1024), 1);
        let data = g.one();
        let l1s = g.alloc(l1s);
        let mut f = Forest {
            g,
            data,
            l1s,
            upper: Vec::new(),
        };
        f.upper = f.grow();
        f
    }

    /// Another tree above the same L1s: its L4, L3 and L2s.
    fn grow(&self) -> Vec<Mfn> {
        for m in &self.l1s {
            self.g
                .fill(*m, &[(1, entry(self.data, RO)), (2, entry(self.data, RW))]);
        }
        let l2s: Vec<Mfn> = self.l1s.chunks(512).map(|c| self.above(c)).collect();
        let l3 = self.above(&l2s);
        [vec![self.above(&[l3]), l3], l2s].concat()
    }

    fn above(&self, tables: &[Mfn]) -> Mfn {
        let entries: Vec<_> = tables.iter().map(|m| entry(*m, RW)).enumerate().collect();
        self.g.table(&entries)
    }

    fn l4(&self) -> Mfn {
        self.upper[0]
    }

    /// The last L2 gets one more entry.
    fn add_last(&self, e: u64) {
        self.g.fill(self.upper[self.upper.len() - 1], &[(511, e)]);
    }

    fn tables(&self) -> usize {
        self.l1s.iter().filter(|m| self.g.ty(**m) == "l1").count()
    }

    fn set_base(&self, mfn: Option<Mfn>) -> MmResult {
        let caller = Caller::Vcpu(&self.g.shared);
        self.g.domain.set_base(0, BaseKind::Kernel, mfn, caller, || ())
    }

    /// Parts until `part` ends: how many were preempted, and the end. The audit is right after each.
    fn parts(&self, mut part: impl FnMut() -> MmResult) -> (usize, MmResult) {
        let most = 4 * (self.l1s.len() / PART + 1) + 8;
        for n in 0..most {
            let r = part();
            self.g.audit();
            if r != PREEMPTED {
                return (n, r);
            }
        }
        panic!("no end after {most} parts");
    }

    fn settle(&self) -> usize {
        let (n, r) = self.parts(|| self.g.domain.settle(Caller::Host));
        assert_eq!((r, self.g.domain.owes()), (Ok(()), false));
        n
    }
}

#[test]
fn a_base_is_validated_in_parts_each_of_which_gets_on() {
    let f = Forest::new(1400);
    let mut before = 0;
    while f.set_base(Some(f.l4())) == PREEMPTED {
        let now = f.tables();
        assert!(now > before && now - before <= PART, "{before} to {now} tables");
        assert_eq!(f.g.domain.get_base(0, BaseKind::Kernel), None);
        f.g.audit();
        before = now;
    }
    assert!(before > 700, "{before} tables before the last part");
    assert_eq!(
        (f.tables(), f.g.ty(f.l4()), f.g.count(f.data)),
        (1400, "l4", 1400)
    );
    assert_eq!(f.g.domain.get_base(0, BaseKind::Kernel), Some(f.l4()));

    // Losing it is done at once, and owed.
    assert_eq!(f.set_base(Some(f.g.tree(&[])[0])), Ok(()));
    assert!(f.g.domain.owes() && f.tables() > 1400 - PART);
    assert!(f.settle() >= 2);
    assert_eq!((f.tables(), f.g.ty(f.l4()), f.g.refs(f.data)), (0, "none", 1));
}

#[test]
fn a_bad_tree_is_refused_in_as_many_parts_as_a_good_one_and_leaves_nothing() {
    let f = Forest::new(1400);
    f.add_last(entry(f.data, RW | pte::PSE));
    for _ in 0..2 {
        let (n, r) = f.parts(|| f.set_base(Some(f.l4())));
        assert_eq!(r, REFUSED);
        assert!((3..=1400 / PART + 2).contains(&n), "{n} parts");
        assert!(f.settle() <= 1400 / PART + 2);
        assert_eq!((f.tables(), f.g.refs(f.data)), (0, 1));
    }
}

#[test]
fn a_tree_that_contradicts_itself_is_refused() {
    // Its first L1 is to be an L2 as well: neither can wait for the other to go.
    let f = Forest::new(1400);
    let l2 = f.above(&f.l1s[..1]);
    let other = f.above(&[f.l1s[0]]);
    let l3 = f.above(&[f.upper[2], f.upper[3], f.upper[4], f.l1s[0]]);
    let l4 = f.above(&[l3]);
    let (_, r) = f.parts(|| f.set_base(Some(l4)));
    assert_eq!(r, REFUSED);
    f.settle();
    assert_eq!((f.tables(), f.g.refs(f.data)), (0, 1));
    // And a small one, and one that is pinned.
    let l3 = f.above(&[l2, f.l1s[0], other]);
    assert_eq!(f.parts(|| f.set_base(Some(f.above(&[l3])))).1, REFUSED);
    let mut f = f;
    assert_eq!(f.g.pin(4, l4), EINVAL);
    f.settle();
    assert_eq!((f.tables(), f.g.refs(f.data)), (0, 1));
}

#[test]
fn what_others_do_meanwhile_costs_no_progress() {
    let mut f = Forest::new(1400);
    let user = f.grow()[0];
    let mut other = Guest::of(f.g.domain.clone());
    other
        .shared
        .vcpu_id
        .store(1, std::sync::atomic::Ordering::Relaxed);
    let small = other.tree(&[])[0];
    let l4 = f.l4();
    let mut parts = 0;
    while f.set_base(Some(l4)) == PREEMPTED {
        parts += 1;
        // Another vCPU's call, its own base, a call of this vCPU, a reference for the host, debts.
        assert_eq!((other.pin(4, small), other.unpin(small)), (0, 0));
        assert_eq!((f.g.pin(4, small), f.g.unpin(small)), (0, 0));
        let caller = Caller::Vcpu(&f.g.shared);
        let second = f.g.domain.set_base(0, BaseKind::User, Some(small), caller, || ());
        assert_eq!(second, Ok(()));
        assert_eq!(f.g.domain.get_ref(f.data, true), Ok(()));
        f.g.domain.put_ref(f.data, true);
        assert_eq!(f.g.domain.settle(Caller::Host), Ok(()));
        f.g.audit();
        assert!(parts <= 1400 / PART + 1, "{parts} parts");
    }
    assert_eq!(f.g.ty(l4), "l4");
    let caller = Caller::Vcpu(&f.g.shared);
    let domain = f.g.domain.clone();
    assert_eq!(
        f.parts(|| domain.set_base(0, BaseKind::User, Some(user), caller, || ())),
        (0, Ok(()))
    );
}

#[test]
fn a_pinned_table_is_given_back_at_once_and_its_tree_taken_down_in_parts() {
    let mut f = Forest::new(1400);
    let l4 = f.l4();
    assert_eq!(f.g.pin(4, l4), 0);
    let free = f.g.domain.machine.free_frames();
    for m in [&f.l1s[..], &f.upper[..]].concat() {
        assert_eq!(f.g.domain.give_back(m, Caller::Host), Ok(()));
    }
    f.g.audit();
    assert_eq!(
        (f.g.ty(l4), f.tables()),
        ("l4", 1400),
        "nothing is taken down yet"
    );
    assert_eq!(f.g.domain.machine.free_frames(), free);
    let mut before = 0;
    while f.g.domain.settle(Caller::Host) == PREEMPTED {
        let now = f.g.domain.machine.free_frames() - free;
        assert!(now - before <= PART as u64, "{} frames in a part", now - before);
        before = now;
        f.g.audit();
    }
    let gone = (1400 + f.upper.len()) as u64;
    assert_eq!(f.g.domain.machine.free_frames(), free + gone);
    assert_eq!(f.g.refs(f.data), 1);
    let (all, _) = (f.g.alloc(gone), f.g.audit());
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len() as u64, gone);
}

#[test]
fn a_reference_to_a_table_that_is_being_taken_down_is_not_waited_for() {
    let mut f = Forest::new(2000);
    let (l4, last) = (f.l4(), f.l1s[1999]);
    assert_eq!(f.g.pin(4, l4), 0);
    assert_eq!(
        f.g.domain.get_ref(last, true),
        Err(Errno::EINVAL),
        "a table in use"
    );
    assert_eq!(f.g.domain.give_back(l4, Caller::Host), Ok(()));
    let mut tries = 0;
    loop {
        let before = f.tables();
        match f.g.domain.get_ref(f.l1s[0], true) {
            Err(Errno::EBUSY) => assert!(before - f.tables() <= PART),
            r => break assert_eq!(r, Ok(())),
        }
        f.g.audit();
        tries += 1;
        assert!(tries <= 2000 / PART + 1);
    }
    f.g.domain.put_ref(f.l1s[0], true);
    f.settle();
}

#[test]
fn a_dying_domain_forgets_what_it_held() {
    let f = Forest::new(1400);
    assert_eq!(f.set_base(Some(f.l4())), PREEMPTED);
    assert!(f.tables() > 0);
    assert_eq!(f.g.domain.destroy(), 0);
    f.g.audit();
    assert_eq!(f.tables(), 0);
}

#[test]
fn a_vcpu_takes_down_what_is_owed_before_guest_code_unless_it_is_to_stop() {
    const LOOP: [u8; 2] = [0xeb, 0xfe];
    let mut f = Forest::new(1400);
    let code = f.g.one();
    f.g.domain.machine.host_write(code.maddr(), &LOOP);
    let mut vcpu = Vcpu::new(&f.g.domain, 0);
    assert_eq!(vcpu.new_base(true, f.g.tree(&[(0, entry(code, RO))])[0]), Ok(()));
    let (l4, pinned) = (f.l4(), f.g.pin(4, f.l4()));
    assert_eq!((pinned, f.g.domain.give_back(l4, Caller::Host)), (0, Ok(())));

    let shared = vcpu.shared().clone();
    Vcpu::kick(&shared);
    assert_eq!(vcpu.run(10, u64::MAX), Exit::Interrupted);
    assert_eq!((f.tables(), vcpu.instructions()), (1400, 0));

    assert_eq!(vcpu.run(10, u64::MAX), Exit::Budget);
    assert_eq!(
        (f.tables(), vcpu.instructions(), f.g.domain.owes()),
        (0, 10, false)
    );
    f.g.audit();
}

#[test]
fn an_extent_is_looked_for_in_parts_once_around() {
    let frames = 2 * LOOKED_AT as u64 + 5000;
    let m = machine(frames);
    let d = Domain::new(m.clone(), 1);
    let mut all = d.alloc(m.free_frames()).expect("all of them");
    all.sort_unstable();
    // Two frames that are free, not in a row; then two that are, below and above where the search stands.
    let search = || {
        let mut parts = 1;
        loop {
            match d.alloc_extent(1, Mfn(u64::MAX)) {
                Err(MmError::Preempted) => parts += 1,
                r => return (parts, r),
            }
        }
    };
    for at in [1000, 2001] {
        assert_eq!(d.give_back(all[at], Caller::Host), Ok(()));
    }
    for _ in 0..2 {
        assert_eq!(search(), (3, Ok(None)));
    }
    for at in [all.len() - 100, 500, 50_000] {
        let pair = all[at..].iter().find(|m| m.0 % 2 == 0).expect("an even one");
        assert_eq!(d.give_back(*pair, Caller::Host), Ok(()));
        assert_eq!(d.give_back(Mfn(pair.0 + 1), Caller::Host), Ok(()));
        let (parts, found) = search();
        assert_eq!(found, Ok(Some(*pair)));
        assert!(parts <= 3);
    }
    assert_eq!(m.audit(), Vec::<String>::new());
    assert_eq!(m.free_frames(), 2);
}

#[test]
fn what_a_dying_domain_sets_free_is_handed_out_when_the_host_has_its_memory_again() {
    let m = machine(2000);
    let (dying, other) = (Domain::new(m.clone(), 1), Domain::new(m.clone(), 2));
    let all = dying.alloc(m.free_frames()).expect("all of them");
    all.iter().for_each(|each| {
        m.mem.write_u64(each.maddr(), 1);
    });
    dying.op(Caller::Host).set_relinquishes(true);
    for each in &all[..1000] {
        assert_eq!(dying.give_back(*each, Caller::Host), Ok(()));
    }
    // They are free, and nobody has them yet.
    assert_eq!((m.free_frames(), other.alloc(1)), (0, None));
    assert_eq!(other.alloc_extent(1, Mfn(u64::MAX)), Ok(None));
    assert_eq!(m.audit(), Vec::<String>::new());
    let mut parts = 0;
    while dying.op(Caller::Host).hand_back_waiting() {
        parts += 1;
        assert_eq!(m.audit(), Vec::<String>::new());
    }
    assert_eq!((parts, m.free_frames()), (4, 1000));
    for each in other.alloc(1000).expect("those of the dying one") {
        assert_eq!(m.mem.read_u64(each.maddr()), Some(0));
    }
    // What it sets free later, as a back end that lets go of a page does, waits for nothing.
    assert_eq!(dying.give_back(all[1000], Caller::Host), Ok(()));
    assert_eq!(m.free_frames(), 1);
    dying.destroy();
    assert_eq!(m.free_frames(), all.len() as u64 - 1000);
    assert_eq!(m.audit(), Vec::<String>::new());
}

#[test]
fn a_part_of_mmuext_op_pins_no_more_than_a_round() {
    let mut f = Forest::new(1400);
    let mut vcpu = Vcpu::new(&f.g.domain, 0);
    let page = f.g.one();
    let base = f.g.tree(&[(0, entry(page, RW))])[0];
    assert_eq!(vcpu.new_base(true, base), Ok(()));
    for pin in [true, false] {
        let cmd = if pin { op::PIN_L4_TABLE } else { op::UNPIN_TABLE };
        assert_eq!(
            vcpu.copy_out(
                0,
                &[u64::from(cmd).to_le_bytes(), f.l4().0.to_le_bytes(), [0; 8]].concat()
            ),
            Ok(())
        );
        let (mut va, mut count, mut parts, mut before) = (0, 1, 0, f.tables());
        while let Outcome::Continue { req_va, count: left } = vcpu.mmuext_op_part(va, count, 0, SELF) {
            let now = f.tables();
            assert!(now.abs_diff(before) <= 2 * PART, "{before} to {now} tables");
            (va, count, parts, before) = (req_va, left, parts + 1, now);
            f.g.audit();
        }
        assert!(parts >= 1400 / PART / 2, "{parts} parts");
        assert_eq!(f.tables(), if pin { 1400 } else { 0 });
    }
    assert_eq!(f.g.pin(1, f.l1s[0]), 0);
}
