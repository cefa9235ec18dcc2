// SPDX-License-Identifier: Apache-2.0
//! What a well-behaved guest relies on.

use super::*;
use crate::abi::hypercall::MMU_UPDATE_PREEMPTED;
use crate::frames::{ptwr, PtwrResult, Ty};
use crate::shared::{attention, Purge};

#[test]
fn frames_are_shuffled_zeroed_and_never_frame_zero() {
    let g = Guest::new(&machine(4096), 1);
    let all = g.alloc(3000);
    let next_to = all.windows(2).filter(|w| w[0].0.abs_diff(w[1].0) == 1).count();
    assert!(next_to < 30, "{next_to} neighbours");
    assert!(all.iter().all(|m| m.0 != 0 && g.read(*m, 0) == 0));
    let other = Guest::new(&machine(4096), 1).alloc(3000);
    assert_eq!(all, other, "the same seed gives the same frames");
    assert!(g.domain.alloc(5000).is_none());
    g.audit();
}

#[test]
fn a_freed_frame_is_zero_when_it_is_handed_out_again() {
    let m = machine(64);
    let g = Guest::new(&m, 1);
    let n = m.free_frames();
    let all = g.alloc(n);
    for f in &all {
        m.host_write(f.maddr() + 8, &[1; 16]);
        assert_eq!(g.domain.release(*f, Caller::Host), Ok(()));
    }
    assert_eq!(m.free_frames(), n);
    assert!(g
        .alloc(n)
        .iter()
        .all(|f| g.read(*f, 1) == 0 && g.read(*f, 2) == 0));
    g.audit();
}

#[test]
fn pinning_an_l4_validates_the_whole_tree_and_unpinning_releases_it() {
    let mut g = guest();
    let data = g.one();
    let [l4, l3, l2, l1] = g.tree(&[(5, entry(data, RW)), (6, entry(data, RO))]);
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(
        [l4, l3, l2, l1, data].map(|m| g.ty(m)),
        ["l4", "l3", "l2", "l1", "writable"]
    );
    assert_eq!((g.count(data), g.refs(data)), (1, 3));
    g.audit();
    assert_eq!(g.pin(4, l4), EINVAL, "pinned already");
    assert_eq!(g.unpin(l4), 0);
    assert_eq!([l4, l3, l2, l1, data].map(|m| g.ty(m)), ["none"; 5]);
    assert_eq!(g.unpin(l4), EINVAL);
    assert_eq!(g.refs(data), 1);
    g.audit();
}

#[test]
fn entries_are_installed_as_xen_installs_them() {
    let mut g = guest();
    let data = g.one();
    let user = pte::P | pte::USER | pte::RW;
    let kernel = pte::P | pte::RW;
    let [l4, _, _, l1] = g.tree(&[(0, entry(data, kernel)), (1, entry(data, user))]);
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(g.read(l1, 0), entry(data, kernel | pte::USER | pte::GUEST_KERNEL));
    assert_eq!(g.read(l1, 1), entry(data, user | pte::GLOBAL));
    assert_eq!(g.update(l1, 2, entry(data, kernel)), 0);
    assert_eq!(g.read(l1, 2), entry(data, kernel | pte::USER | pte::GUEST_KERNEL));
}

#[test]
fn an_update_moves_the_references() {
    let mut g = guest();
    let [l4, _, l2, l1] = g.tree(&[]);
    let (a, b) = (g.one(), g.one());
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(g.update(l1, 1, entry(a, RW)), 0);
    assert_eq!((g.refs(a), g.count(a)), (2, 1));
    assert_eq!(g.update(l1, 1, entry(b, RW)), 0);
    assert_eq!((g.refs(a), g.count(a), g.refs(b), g.count(b)), (1, 0, 2, 1));
    assert_eq!(g.update(l1, 1, entry(b, RO)), 0);
    assert_eq!((g.refs(b), g.count(b)), (2, 0));
    assert_eq!(g.update(l1, 1, 0), 0);
    assert_eq!(g.refs(b), 1);
    let fresh = g.table(&[(3, entry(a, RW))]);
    assert_eq!(g.update(l2, 7, entry(fresh, RW)), 0);
    assert_eq!((g.ty(fresh), g.count(a)), ("l1", 1));
    assert_eq!(g.update(l2, 7, 0), 0);
    assert_eq!((g.ty(fresh), g.count(a)), ("none", 0));
    g.audit();
}

#[test]
fn preserve_ad_keeps_what_the_engine_has_set() {
    let mut g = guest();
    let a = g.one();
    let [l4, _, _, l1] = g.tree(&[(0, entry(a, RW))]);
    assert_eq!(g.pin(4, l4), 0);
    let old = g.read(l1, 0);
    g.domain.machine.mem.write_u64(l1.maddr(), old | pte::A | pte::D);
    let ptr = l1.maddr() | 2;
    assert_eq!(g.updates(&[(ptr, entry(a, RO))], SELF), 0);
    assert_eq!(g.read(l1, 0) & (pte::A | pte::D | pte::RW), pte::A | pte::D);
    assert_eq!(g.update(l1, 0, entry(a, RO)), 0);
    assert_eq!(g.read(l1, 0) & (pte::A | pte::D), 0);
    g.audit();
}

#[test]
fn an_update_of_a_plain_frame_is_a_plain_store() {
    let mut g = guest();
    let m = g.one();
    assert_eq!(g.update(m, 3, 0x1234_5678_9abc_def1), 0);
    assert_eq!((g.read(m, 3), g.ty(m)), (0x1234_5678_9abc_def1, "none"));
}

#[test]
fn bases_hold_their_tables_and_the_generation_counts_changes() {
    let mut g = guest();
    let data = g.one();
    let [l4, _, _, l1] = g.tree(&[(0, entry(data, RW))]);
    let [user, ..] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(g.base(l4), 0);
    assert_eq!(g.ext(op::NEW_USER_BASEPTR, user.0, 0), 0);
    assert_eq!(g.bases, [Some(l4), Some(user)]);
    assert_eq!(g.unpin(l4), 0);
    assert_eq!(g.ty(l4), "l4", "in use as base");
    let before = g.domain.pt_generation.load(std::sync::atomic::Ordering::SeqCst);
    let unused = l1.maddr() + 8;
    assert_eq!(g.updates(&[(unused, entry(data, RO))], SELF), 0);
    assert_eq!(
        g.domain.pt_generation.load(std::sync::atomic::Ordering::SeqCst),
        before
    );
    assert_eq!(g.updates(&[(unused, 0)], SELF), 0);
    assert!(g.domain.pt_generation.load(std::sync::atomic::Ordering::SeqCst) > before);
    let [next, ..] = g.tree(&[]);
    assert_eq!(g.base(next), 0);
    assert_eq!(g.ty(l4), "none");
    assert_eq!(g.ext(op::NEW_USER_BASEPTR, 0, 0), 0);
    assert_eq!((g.ty(user), g.bases[1]), ("none", None));
    g.audit();
}

#[test]
fn update_va_mapping_finds_the_entry_through_the_kernel_base() {
    let mut g = guest();
    let (a, b) = (g.one(), g.one());
    let [l4, _, _, l1] = g.tree(&[(3, entry(a, RO))]);
    assert_eq!(
        mmu_ops::update_va_mapping(&mut g, 0x3000, 0, 0, None),
        REFUSED,
        "no base"
    );
    assert_eq!(g.base(l4), 0);
    assert_eq!(
        mmu_ops::update_va_mapping(&mut g, 0x3123, entry(b, RW), 1, None),
        Ok(())
    );
    assert_eq!(
        (g.read(l1, 3) & pte::ADDR, g.count(b), g.refs(a)),
        (b.maddr(), 1, 1)
    );
    assert_eq!(g.flushes, [Who::Local]);
    assert_eq!(mmu_ops::update_va_mapping(&mut g, 0x3000, 0, 2 | 4, None), Ok(()));
    assert_eq!(g.flushes, [Who::Local, Who::All]);
    assert_eq!(
        mmu_ops::update_va_mapping(&mut g, 0x4000_0000, 0, 0, None),
        REFUSED,
        "no L1 there"
    );
    assert_eq!(
        mmu_ops::update_va_mapping(&mut g, HYPERVISOR_VIRT_START, 0, 0, None),
        REFUSED
    );
    assert_eq!(
        mmu_ops::update_va_mapping(&mut g, 0x3000, 0, 0, Some(1)),
        Err(MmError::Errno(Errno::ESRCH)),
        "oneself is not foreign"
    );
    assert_eq!(
        mmu_ops::update_va_mapping(&mut g, 0x3000, 0, 0, Some(9)),
        Err(MmError::Errno(Errno::ESRCH))
    );
    g.audit();
}

#[test]
fn a_failing_batch_says_how_far_it_came() {
    let mut g = guest();
    let a = g.one();
    let [l4, _, _, l1] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    let mut words = Vec::new();
    for i in 0..50u64 {
        let ptr = if i == 40 { 0 } else { l1.maddr() + i * 8 };
        words.extend([ptr, entry(a, RO)]);
    }
    words.push(0);
    g.set_args(&words);
    let done = ARGS + 50 * 16;
    assert_eq!(
        mmu_ops::mmu_update(&mut g, ARGS, 50, done, SELF),
        Outcome::Done(Err(Errno::EINVAL))
    );
    assert_eq!(u32::from_le_bytes(g.args[800..804].try_into().unwrap()), 40);
    assert_eq!(g.refs(a), 41);
    g.args.truncate(70 * 8);
    assert_eq!(
        mmu_ops::mmu_update(&mut g, ARGS, 99, 0, SELF),
        Outcome::Done(Err(Errno::EFAULT))
    );
    assert_eq!(
        g.refs(a),
        41,
        "what lay before the unreadable request was done again"
    );
    g.audit();
}

#[test]
fn a_long_batch_gives_way_to_events_and_is_continued() {
    let mut g = guest();
    let a = g.one();
    let [l4, _, _, l1] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    let mut words: Vec<u64> = (0..400u64)
        .flat_map(|i| [l1.maddr() + i * 8, entry(a, RO)])
        .collect();
    words.push(0);
    g.set_args(&words);
    g.shared.request(attention::EVENT);
    let done = ARGS + 400 * 16;
    let (mut va, mut n, mut parts) = (ARGS, 400, 0);
    loop {
        match mmu_ops::mmu_update(&mut g, va, n, done, SELF) {
            Outcome::Done(done) => break assert_eq!(done, Ok(())),
            Outcome::Continue { req_va, count } => {
                assert!(count & MMU_UPDATE_PREEMPTED != 0);
                (va, n, parts) = (req_va, count, parts + 1);
            }
        }
    }
    assert!(parts > 3);
    assert_eq!(u32::from_le_bytes(g.args[6400..6404].try_into().unwrap()), 400);
    assert_eq!(g.refs(a), 401);
    g.audit();
}

#[test]
fn a_pin_of_a_large_tree_is_preempted_and_ends_the_same() {
    let mut g = Guest::new(&machine(4096), 1);
    let data = g.one();
    let l1s: Vec<Mfn> = (0..600)
        .map(|_| g.table(&[(1, entry(data, RW)), (2, entry(data, RO))]))
        .collect();
    let l2s: Vec<Mfn> = l1s
        .chunks(300)
        .map(|c| {
            g.table(
                &c.iter()
                    .enumerate()
                    .map(|(i, m)| (i, entry(*m, RW)))
                    .collect::<Vec<_>>(),
            )
        })
        .collect();
    let l3 = g.table(&[(0, entry(l2s[0], RW)), (9, entry(l2s[1], RW))]);
    let l4 = g.table(&[(300, entry(l3, RW))]);
    g.shared.request(attention::EVENT);
    let mut parts = 0;
    g.set_args(&[3, l4.0, 0]);
    let (mut va, mut n) = (ARGS, 1);
    while let Outcome::Continue { req_va, count } = mmuext::mmuext_op(&mut g, va, n, 0, SELF) {
        (va, n, parts) = (req_va, count, parts + 1);
        g.audit();
    }
    assert!(parts >= 5, "{parts} parts");
    assert_eq!((g.ty(l4), g.count(data), g.refs(data)), ("l4", 600, 1201));
    g.audit();
    assert_eq!(g.unpin(l4), 0);
    assert_eq!((g.ty(l4), g.ty(l1s[599]), g.refs(data)), ("none", "none", 1));
    g.audit();
}

#[test]
fn an_emulated_store_to_a_live_l1_is_validated() {
    let mut g = guest();
    let (a, foreign) = (g.one(), Mfn(3));
    let [l4, _, l2, l1] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    let store = |m: Mfn, i: u64, v: u64| {
        ptwr(
            &g.domain,
            Caller::Vcpu(&g.shared),
            m.maddr() + i * 8,
            false,
            &mut |_| Some(v),
        )
    };
    assert_eq!(store(l1, 4, entry(a, RW)), PtwrResult::Done { old: 0 });
    assert_eq!(store(l1, 5, entry(foreign, RO)), PtwrResult::Fault);
    assert_eq!(store(l1, 5, entry(l1, RW)), PtwrResult::Fault);
    assert_eq!(store(l2, 5, 0), PtwrResult::Fault, "only L1");
    assert_eq!(store(a, 5, 0), PtwrResult::NotPageTable);
    let seen = g.read(l1, 4);
    assert_eq!(
        ptwr(
            &g.domain,
            Caller::Vcpu(&g.shared),
            l1.maddr() + 32,
            false,
            &mut |_| None
        ),
        PtwrResult::Done { old: seen }
    );
    assert_eq!(g.count(a), 1);
    let mut swap = |e: u64| (e == seen).then_some(0);
    assert_eq!(
        ptwr(
            &g.domain,
            Caller::Vcpu(&g.shared),
            l1.maddr() + 32,
            false,
            &mut swap
        ),
        PtwrResult::Done { old: seen }
    );
    assert_eq!((g.read(l1, 4), g.count(a)), (0, 0));
    g.audit();
}

#[test]
fn machine_to_phys_entries_can_be_set_for_own_frames_only() {
    let m = machine(512);
    let (mut g, other) = (Guest::new(&m, 1), Guest::new(&m, 2));
    let (a, theirs) = (g.one(), other.one());
    assert_eq!(g.updates(&[(a.maddr() | 1, 77)], SELF), 0);
    assert_eq!(m.m2p_get(a), 77);
    assert_eq!(g.updates(&[(theirs.maddr() | 1, 77)], SELF), EINVAL);
    assert_eq!(m.m2p_get(theirs), INVALID_M2P_ENTRY);
    assert_eq!(g.domain.release(a, Caller::Host), Ok(()));
    assert_eq!(m.m2p_get(a), INVALID_M2P_ENTRY);
}

#[test]
fn clear_and_copy_write_only_what_the_guest_could_write() {
    let mut g = guest();
    let (a, b) = (g.table(&[(1, 5)]), g.table(&[(1, 6)]));
    assert_eq!(g.ext(op::COPY_PAGE, a.0, b.0), 0);
    assert_eq!(g.read(a, 1), 6);
    assert_eq!(g.ext(op::CLEAR_PAGE, a.0, 0), 0);
    assert_eq!(g.read(a, 1), 0);
    let [l4, ..] = g.tree(&[]);
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(g.ext(op::CLEAR_PAGE, l4.0, 0), EINVAL);
    assert_eq!(g.ext(op::COPY_PAGE, l4.0, a.0), EINVAL);
    assert_eq!(g.ext(op::COPY_PAGE, a.0, l4.0), 0, "a table may be read");
    assert_eq!(g.ext(op::COPY_PAGE, a.0, 1 << 40), EINVAL);
    g.audit();
}

#[test]
fn unused_commands_have_xens_errors() {
    let mut g = guest();
    assert_eq!(g.ext(op::FLUSH_CACHE, 0, 0), -13);
    assert_eq!(g.ext(op::FLUSH_CACHE_GLOBAL, 0, 0), EINVAL);
    assert_eq!(g.ext(op::MARK_SUPER, 0, 0), -95);
    assert_eq!(g.ext(14, 0, 0), -38);
    assert_eq!(g.ext(99, 0, 0), -38);
    assert_eq!(g.ext(op::SET_LDT, 0x1000, 8), 0);
    assert_eq!(g.ldt, (0x1000, 8));
}

#[test]
fn a_destroyed_domain_gives_everything_back() {
    let m = machine(2048);
    let free = m.free_frames();
    let mut g = Guest::new(&m, 1);
    g.domain.share_hypervisor_frames(3).expect("frames");
    let data = g.alloc(500);
    let leaves: Vec<_> = data.iter().enumerate().map(|(i, d)| (i, entry(*d, RW))).collect();
    let [l4, .., l1] = g.tree(&leaves);
    assert_eq!((g.pin(4, l4), g.base(l4), g.pin(1, l1)), (0, 0, 0));
    assert_eq!(g.domain.set_gdt(0, &[g.one()], 300, Caller::Host), Ok(()));
    assert_eq!(g.domain.release(data[3], Caller::Host), Ok(()));
    g.audit();
    assert_eq!(g.domain.destroy(), 0);
    assert_eq!(m.free_frames(), free);
    assert!(m.audit().is_empty());
    assert!(g.domain.alloc(1).is_none());
    assert_eq!(g.pin(4, l4), EINVAL);
    let again = Guest::new(&m, 1);
    assert_eq!(again.alloc(5).len(), 5);
}

#[test]
fn references_from_outside_keep_frames_of_a_destroyed_domain() {
    let m = machine(512);
    let free = m.free_frames();
    let g = Guest::new(&m, 1);
    let a = g.one();
    assert_eq!(
        (g.domain.get_ref(a, true), g.domain.get_ref(a, false)),
        (Ok(()), Ok(()))
    );
    assert_eq!(g.domain.destroy(), 1);
    assert_eq!(g.domain.get_ref(a, false), Err(Errno::EINVAL));
    assert!(m.audit().is_empty());
    g.domain.put_ref(a, true);
    g.domain.put_ref(a, true);
    assert_eq!(m.free_frames(), free - 1);
    g.domain.put_ref(a, false);
    assert_eq!(m.free_frames(), free);
    assert!(m.audit().is_empty());
}

#[test]
fn a_frame_that_engines_may_write_is_purged_before_it_becomes_a_table() {
    let mut g = guest();
    let [l4, .., l1] = g.tree(&[]);
    let other = Arc::new(VcpuShared::default());
    let m = g.domain.machine.clone();
    m.register_vcpu(&other);
    m.frames
        .set_flags(l1, crate::frames::flag::TLB_W | crate::frames::flag::TLB_R);
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(other.take_purges(), Some(vec![Purge::Writable(l1)]));
    assert_eq!(
        m.frames.flags(l1),
        crate::frames::flag::TLB_R | crate::frames::flag::PROTECTED
    );
    m.frames.set_flags(l4, crate::frames::flag::TLB_R);
    assert_eq!(g.unpin(l4), 0);
    assert_eq!(m.frames.flags(l1), crate::frames::flag::TLB_R);
    assert_eq!(g.domain.release(l1, Caller::Host), Ok(()));
    assert!(other.take_purges().expect("a list").contains(&Purge::Frame(l1)));
    assert_eq!(m.frames.flags(l1), 0);
}

#[test]
fn many_frees_ask_for_one_flush() {
    let g = Guest::new(&machine(1024), 1);
    let m = g.domain.machine.clone();
    let other = Arc::new(VcpuShared::default());
    m.register_vcpu(&other);
    for f in g.alloc(200) {
        m.frames.set_flags(f, crate::frames::flag::TLB_R);
    }
    assert_eq!(g.domain.destroy(), 0);
    assert_eq!(other.take_purges(), Some(vec![Purge::AllTlb]));
}

#[test]
fn descriptor_pages_are_checked_and_protected() {
    let mut g = guest();
    const CODE0: u64 = 0x00af_9b00_0000_ffff;
    const CODE3: u64 = 0x00af_fb00_0000_ffff;
    const TSS: u64 = 0x0000_8900_0000_0067;
    let gdt = g.table(&[(1, CODE0), (2, CODE3)]);
    let [l4, .., l1] = g.tree(&[(0, entry(gdt, RW))]);
    assert_eq!(g.pin(4, l4), 0);
    assert_eq!(
        g.domain.set_gdt(0, &[gdt], 8, Caller::Host),
        REFUSED,
        "mapped writable"
    );
    assert_eq!(g.update(l1, 0, entry(gdt, RO)), 0);
    assert_eq!(g.domain.set_gdt(0, &[gdt], 8, Caller::Host), Ok(()));
    assert_eq!(
        (g.ty(gdt), g.read(gdt, 1)),
        ("segdesc", CODE3),
        "DPL raised to the kernel's"
    );
    assert_eq!(g.update(l1, 0, entry(gdt, RW)), EBUSY);
    assert_eq!(mmu_ops::update_descriptor(&mut g, gdt.maddr() + 24, TSS), REFUSED);
    assert_eq!(
        mmu_ops::update_descriptor(&mut g, gdt.maddr() + 24, CODE0),
        Ok(())
    );
    assert_eq!(g.read(gdt, 3), CODE3);
    assert_eq!(
        mmu_ops::update_descriptor(&mut g, gdt.maddr() + 25, CODE0),
        REFUSED
    );
    assert_eq!(
        mmu_ops::update_descriptor(&mut g, l1.maddr(), CODE0),
        REFUSED,
        "a page table"
    );
    let bad = g.table(&[(7, TSS)]);
    assert_eq!(g.domain.set_gdt(0, &[bad], 8, Caller::Host), REFUSED);
    assert_eq!(g.ty(gdt), "segdesc", "the old one stays");
    assert_eq!(g.domain.set_gdt(0, &[gdt], 7169, Caller::Host), REFUSED);
    assert_eq!(g.domain.ldt_map(0, 0, gdt, Caller::Host), Ok(()));
    assert_eq!(g.domain.set_gdt(0, &[], 0, Caller::Host), Ok(()));
    assert_eq!(g.ty(gdt), "segdesc", "still an LDT page");
    g.audit();
    assert_eq!(g.ext(op::SET_LDT, 0, 0), 0);
    assert_eq!(g.ty(gdt), "none");
    assert_eq!(g.update(l1, 0, entry(gdt, RW)), 0);
    g.audit();
    assert_eq!(Ty::table(9), Ty::None);
}

#[test]
fn an_extent_is_contiguous_aligned_and_counted() {
    let m = machine(4096);
    let d = Domain::new(m.clone(), 1);
    let free = m.free_frames();
    let extent = |order, below| d.alloc_extent(order, Mfn(below)).expect("a small machine");
    let first = extent(9, u64::MAX).expect("2 MiB in a row");
    assert_eq!(first.0 % 512, 0);
    assert_eq!((d.frames_owned(), m.free_frames()), (512, free - 512));
    let low = extent(0, 64).expect("a low frame");
    assert!(low.0 < 64);
    assert_eq!((extent(10, u64::MAX), extent(3, 4)), (None, None));
    assert_eq!(m.audit(), Vec::<String>::new());
    while d.alloc(1).is_some() {}
    assert_eq!(extent(0, u64::MAX), None);
    assert_eq!(d.destroy(), 0);
    assert_eq!(m.free_frames(), free);
}

#[test]
fn flushes_reach_the_vcpus_they_name() {
    let mut g = guest();
    let [local, invlpg_local, multi, invlpg_multi, all, invlpg_all] = [6, 7, 8, 9, 10, 11];
    for cmd in [local, invlpg_local, all, invlpg_all] {
        assert_eq!(g.ext(cmd, 0x5000, 0), 0);
    }
    // The mask is read from where the command itself stands.
    for cmd in [multi, invlpg_multi] {
        assert_eq!(g.ext(cmd, 0x5000, ARGS), 0);
        assert_eq!(g.ext(cmd, 0x5000, 0x1000), EINVAL);
    }
    let seen: Vec<String> = g.flushes.iter().map(|w| format!("{w:?}")).collect();
    assert_eq!(seen, ["Local", "Local", "All", "All", "Mask(8)", "Mask(9)"]);
}
