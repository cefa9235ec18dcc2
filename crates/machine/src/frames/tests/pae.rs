// SPDX-License-Identifier: Apache-2.0
//! 32-bit guests: three levels, an L3 of four entries, Xen's area behind the fourth.

use super::*;
use crate::frames::{ptwr, GrantAddress, PtwrResult};

fn pae() -> Guest {
    Guest::of(Domain::new_with(machine(1024), 1, true))
}

/// L3 with one L2 and L1 below slot 0 and the L2 of Xen's area in slot 3: [l3, l2, l1, l2x].
fn tree(g: &Guest) -> [Mfn; 4] {
    let l1 = g.one();
    let l2 = g.table(&[(0, entry(l1, RW))]);
    let l2x = g.one();
    let l3 = g.table(&[(0, entry(l2, pte::P)), (3, entry(l2x, pte::P)), (4, 0xdead_b001)]);
    [l3, l2, l1, l2x]
}

#[test]
fn an_l3_of_four_entries_is_a_base() {
    let mut g = pae();
    let [l3, l2, l1, l2x] = tree(&g);
    assert_eq!(g.base(l3), 0);
    assert_eq!([l3, l2, l1, l2x].map(|m| g.ty(m)), ["l3", "l2", "l1", "l2"]);
    assert_eq!(g.read(l3, 4), 0);
    let data = g.one();
    assert_eq!(
        mmu_ops::update_va_mapping(&mut g, 0x5000, entry(data, RW), 0, None),
        Ok(())
    );
    assert_eq!((g.read(l1, 5), g.count(data)), (entry(data, RW), 1));
    assert_eq!(g.pin(4, l1), 0, "a level it does not have");
    assert_eq!(g.ty(l1), "l1");
    assert_eq!(g.ext(op::NEW_USER_BASEPTR, 0, 0), EINVAL);
    g.audit();
}

#[test]
fn the_fourth_slot_and_xens_entries_are_fixed() {
    let mut g = pae();
    let [l3, l2, l1, l2x] = tree(&g);
    g.fill(l2x, &[(pte::XEN_PAE_L2_FIRST, u64::MAX), (511, entry(l1, RW))]);
    assert_eq!(g.pin(3, l3), 0);
    assert_eq!(g.read(l2x, pte::XEN_PAE_L2_FIRST), 0);
    assert_eq!(g.update(l2x, pte::XEN_PAE_L2_FIRST, entry(l1, RW)), EINVAL);
    assert_eq!(g.update(l2x, pte::XEN_PAE_L2_FIRST - 1, entry(l1, RW)), 0);
    assert_eq!(g.update(l3, 3, 0), EINVAL);
    assert_eq!(g.update(l3, 4, entry(l2, pte::P)), EINVAL);
    assert_eq!(
        g.update(l3, 1, entry(l2x, pte::P)),
        EINVAL,
        "the L2 of slot 3 fits nowhere else"
    );
    assert_eq!(g.update(l3, 1, entry(l3, pte::P)), EINVAL, "no linear table");
    assert_eq!(g.update(l3, 1, entry(l2, pte::P)), 0);
    g.audit();
}

#[test]
fn an_l3_without_its_fourth_entry_does_not_validate() {
    let mut g = pae();
    let l2 = g.one();
    let l3 = g.table(&[(0, entry(l2, pte::P))]);
    assert_eq!(g.pin(3, l3), EINVAL);
    let twice = g.table(&[(0, entry(l2, pte::P)), (3, entry(l2, pte::P))]);
    assert_eq!(g.pin(3, twice), EINVAL);
    assert_eq!([l2, l3, twice].map(|m| g.ty(m)), ["none"; 3]);
    g.audit();
}

#[test]
fn bits_above_the_address_are_refused_in_an_l3() {
    let mut g = pae();
    let [l3, l2, ..] = tree(&g);
    assert_eq!(g.pin(3, l3), 0);
    for bit in [pte::NX, 1 << 52, pte::PSE] {
        assert_eq!(g.update(l3, 1, entry(l2, pte::P | bit)), EINVAL);
    }
    g.audit();
}

#[test]
fn a_32bit_guest_keeps_the_user_bit_it_gave() {
    let mut g = pae();
    let [l3, _, l1, _] = tree(&g);
    let data = g.one();
    assert_eq!(g.pin(3, l3), 0);
    assert_eq!(g.update(l1, 1, entry(data, pte::P | pte::RW)), 0);
    assert_eq!(g.read(l1, 1), entry(data, pte::P | pte::RW));
}

#[test]
fn two_l3s_cannot_share_the_l2_of_xens_area() {
    let mut g = pae();
    let [l3, l2, _, l2x] = tree(&g);
    assert_eq!(g.pin(3, l3), 0);
    let other = g.table(&[(0, entry(l2, pte::P)), (3, entry(l2x, pte::P))]);
    assert_eq!(g.pin(3, other), EINVAL);
    assert_eq!(g.base(l3), 0);
    assert_eq!(g.unpin(l3), 0);
    assert_eq!(g.pin(3, other), EINVAL, "the base still has it");
    let third = g.table(&[(0, entry(l2, pte::P)), (3, entry(g.one(), pte::P))]);
    assert_eq!((g.base(third), g.pin(3, other)), (0, 0));
    g.audit();
}

#[test]
fn an_l2_may_show_itself_read_only_and_an_l3_may_not() {
    let mut g = pae();
    let [l3, l2, ..] = tree(&g);
    assert_eq!(g.pin(3, l3), 0);
    assert_eq!(g.update(l2, 7, entry(l2, RO)), 0);
    assert_eq!(g.update(l2, 8, entry(l2, RW)), EINVAL);
    assert_eq!(g.update(l3, 1, entry(l3, pte::P)), EINVAL);
    g.audit();
    assert_eq!(g.unpin(l3), 0);
    assert_eq!(g.ty(l2), "none");
    g.audit();
}

#[test]
fn halves_of_an_entry_may_be_written_in_either_order() {
    let mut g = pae();
    let [l3, _, l1, _] = tree(&g);
    let data = g.one();
    assert_eq!(g.pin(3, l3), 0);
    assert_eq!(g.update(l1, 3, entry(data, RW)), 0);
    // The upper half first: it makes the entry name no memory, so it is taken and the entry is not present.
    let at = l1.maddr() + 24;
    let upper = |g: &Guest, value: u64, half: bool| {
        ptwr(&g.domain, Caller::Vcpu(&g.shared), at, half, &mut |old| {
            Some(old & 0xffff_ffff | value << 32)
        })
    };
    assert_eq!(upper(&g, 1, false), PtwrResult::Fault);
    assert!(matches!(upper(&g, 1, true), PtwrResult::Done { .. }));
    assert_eq!((g.read(l1, 3) & 1, g.count(data)), (0, 0));
    g.audit();
}

#[test]
fn a_flat_segment_is_made_to_reach_the_machine_to_phys_table() {
    let mut g = pae();
    let gdt = g.table(&[(1, 0x00cf_b200_0000_67ff | 0xf << 48), (2, 0x00c0_b200_0000_0fff)]);
    assert_eq!(g.domain.set_gdt(0, &[gdt], 8, Caller::Host), Ok(()));
    assert_eq!(g.read(gdt, 1) & 0xffff, 0xffff);
    assert_eq!(g.read(gdt, 2) & 0xffff, 0x0fff, "a small one stays");
    let gate = |sel: u64| sel << 16 | 0x0000_ec00 << 32 | 0x1234;
    let at = gdt.maddr() + 24;
    assert_eq!(
        mmu_ops::update_descriptor(&mut g, at, gate(XEN_CS64.into())),
        REFUSED
    );
    assert_eq!(
        mmu_ops::update_descriptor(&mut g, at, gate(FLAT_COMPAT_RING1_CS.into())),
        Ok(())
    );
    assert_eq!(
        g.read(gdt, 3),
        0xe01b << 16 | 0x0000_8c00 << 32 | 0x1234,
        "DPL 3 is kept in the selector"
    );
}

#[test]
fn no_grant_is_mapped_at_an_address_beyond_the_guests() {
    let mut g = pae();
    let [l3, _, l1, _] = tree(&g);
    assert_eq!(g.base(l3), 0);
    let f = g.one();
    for va in [1 << 32, 0x5000 | 1 << 32, 0x5000 | 1 << 63] {
        assert_eq!(
            g.domain
                .grant_map(0, GrantAddress::Linear(va), f, 1, RW, Caller::Host),
            Err(Errno::EINVAL)
        );
    }
    assert_eq!(
        g.domain
            .grant_map(0, GrantAddress::Linear(0x5000), f, 1, RW, Caller::Host),
        Ok(())
    );
    assert_eq!(pte::mfn(g.read(l1, 5)), f.0);
    g.audit();
}
