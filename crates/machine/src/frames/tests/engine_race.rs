// SPDX-License-Identifier: Apache-2.0
//! An engine that stores all the time, while another vCPU of its domain takes the memory away under it.

use super::*;
use crate::cpu::{Cpu, Stop};
use crate::pv::{platform, Efault};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const DATA: u64 = 0x20_0000;
/// Where the same tables show the lower half's first pages again, in the upper one.
const HIGH: u64 = 0xffff_ffff_8000_0000;
const PAGES: usize = 16;
/// Stores 0x41414141 to the first word of each of 16 pages from DATA on, for ever.
const CODE: [u8; 32] = [
    0x48, 0xc7, 0xc7, 0x00, 0x00, 0x20, 0x00, // mov rdi, DATA
    0xb9, 0x10, 0x00, 0x00, 0x00, // mov ecx, 16
    0x48, 0xc7, 0x07, 0x41, 0x41, 0x41, 0x41, // mov qword [rdi], 0x41414141
    0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add rdi, 4096
    0xff, 0xc9, // dec ecx
    0x75, 0xee, // jnz
    0xeb, 0xe0, // jmp start
];

struct Race {
    guest: Guest,
    victim: Guest,
    l2: Mfn,
    l1: Mfn,
    frames: Vec<Mfn>,
    /// A frame of the victim's that nobody writes.
    secret: Mfn,
}

fn leaves(frames: &[Mfn]) -> Vec<(usize, u64)> {
    frames
        .iter()
        .enumerate()
        .map(|(i, m)| (i, entry(*m, RW)))
        .collect()
}

/// Runs the engine while `attack` is called again and again, for a part of a second, with data in each half of addresses.
fn race(mut attack: impl FnMut(&mut Race)) {
    for base in [0, HIGH] {
        race_at(base, &mut attack);
    }
}

fn race_at(base: u64, attack: &mut impl FnMut(&mut Race)) {
    let m = machine(1024);
    let mut guest = Guest::new(&m, 1);
    guest.id = 1;
    let victim = Guest::new(&m, 2);
    let code = guest.one();
    let mut program = CODE;
    program[3..7].copy_from_slice(&((base + DATA) as u32).to_le_bytes());
    m.host_write(code.maddr(), &program);
    let frames = guest.alloc(PAGES as u64);
    let [l4, l3, l2, _] = guest.tree(&[(0, entry(code, RO))]);
    let l1 = guest.table(&leaves(&frames));
    guest.fill(l4, &[(511, entry(l3, RW))]);
    guest.fill(l3, &[(510, entry(l2, RW))]);
    guest.fill(l2, &[(1, entry(l1, RW))]);
    assert_eq!((guest.pin(4, l4), guest.base(l4)), (0, 0));
    let stop = Arc::new(AtomicBool::new(false));
    let (domain, quit) = (guest.domain.clone(), stop.clone());
    let engine = std::thread::spawn(move || {
        let shared = Arc::new(VcpuShared::default());
        let mut cpu = Cpu::new(domain.clone(), shared.clone(), platform(&domain));
        cpu.cpl = 3;
        let mut stores = 0u64;
        while !quit.load(Ordering::SeqCst) {
            let _in_guest = shared.enter();
            cpu.apply_purges();
            cpu.set_base(l4, true);
            cpu.budget.left = 5000;
            cpu.rip = 0;
            if cpu.run() == Stop::Budget {
                stores += 1;
            }
        }
        stores
    });
    let mut r = Race {
        secret: victim.one(),
        guest,
        victim,
        l2,
        l1,
        frames,
    };
    let end = Instant::now() + Duration::from_millis(250);
    while Instant::now() < end {
        attack(&mut r);
    }
    stop.store(true, Ordering::SeqCst);
    assert!(engine.join().expect("the engine ends") > 0, "the engine has run");
    r.guest.audit();
}

/// Takes the frames that were freed last, as another domain, and sees whether anybody still writes to them.
fn untouched(r: &mut Race, freed: &[Mfn]) {
    let got = r.victim.alloc(freed.len() as u64);
    assert!(
        freed.iter().all(|f| got.contains(f)),
        "the freed frames are handed out next"
    );
    for _ in 0..3 {
        for m in &got {
            assert!(
                (0..512).all(|i| r.victim.read(*m, i) == 0),
                "{m:?} was written after it was freed"
            );
        }
        std::thread::yield_now();
    }
    for m in got {
        let _ = r.victim.domain.release(m, Caller::Host);
    }
}

#[test]
fn a_frame_is_not_written_after_it_was_unmapped_and_freed() {
    let mut i = 0;
    race(|r| {
        i = (i + 1) % PAGES;
        let fresh = r.guest.one();
        assert_eq!(r.guest.update(r.l1, i, entry(fresh, RW)), 0);
        let old = std::mem::replace(&mut r.frames[i], fresh);
        assert_eq!(r.guest.domain.release(old, Caller::Host), Ok(()));
        untouched(r, &[old]);
    });
}

#[test]
fn neither_a_table_nor_what_it_mapped_is_written_after_the_table_was_taken_away() {
    race(|r| {
        let fresh = r.guest.alloc(PAGES as u64);
        let table = r.guest.table(&leaves(&fresh));
        assert_eq!(r.guest.update(r.l2, 1, entry(table, RW)), 0);
        let old = std::mem::replace(&mut r.l1, table);
        let mut freed = std::mem::replace(&mut r.frames, fresh);
        freed.push(old);
        for m in &freed {
            assert_eq!(r.guest.domain.release(*m, Caller::Host), Ok(()));
        }
        untouched(r, &freed);
    });
}

#[test]
fn entries_forged_in_a_former_table_are_never_followed() {
    race(|r| {
        let target = r.secret;
        let table = r.guest.table(&leaves(&r.frames));
        assert_eq!(r.guest.update(r.l2, 1, entry(table, RW)), 0);
        let old = std::mem::replace(&mut r.l1, table);
        // A writable mapping of the former table, by which the guest could write what it likes.
        assert_eq!(r.guest.update(table, 100, entry(old, RW)), 0);
        r.guest.fill(old, &leaves(&[target; PAGES]));
        std::thread::yield_now();
        assert_eq!(r.victim.read(target, 0), 0, "a forged entry was used");
        assert_eq!(r.guest.update(table, 100, 0), 0);
        assert_eq!(r.guest.domain.release(old, Caller::Host), Ok(()));
    });
}

#[test]
fn a_page_is_not_written_after_it_became_a_table() {
    race(|r| {
        let fresh = r.guest.one();
        assert_eq!(r.guest.update(r.l1, 3, entry(fresh, RW)), 0);
        let old = std::mem::replace(&mut r.frames[3], fresh);
        let before = r.guest.read(old, 0);
        r.guest.fill(old, &[(0, 0)]);
        if r.guest.pin(1, old) == 0 {
            r.guest.domain.machine.mem.write_u64(old.maddr(), 0);
            for _ in 0..3 {
                std::thread::yield_now();
                assert_eq!(r.guest.read(old, 0), 0, "was {before:#x}");
            }
            assert_eq!(r.guest.unpin(old), 0);
        }
        assert_eq!(r.guest.domain.release(old, Caller::Host), Ok(()));
    });
}

#[test]
fn a_domain_can_be_destroyed_while_its_vcpu_runs() {
    use crate::pv::Exit;
    use crate::pv::Vcpu;
    for delay_us in [0, 50, 300, 1000] {
        let m = machine(1024);
        let free = m.free_frames();
        let guest = Guest::new(&m, 1);
        let code = guest.one();
        m.host_write(code.maddr(), &CODE);
        let [l4, _, l2, _] = guest.tree(&[(0, entry(code, RO))]);
        let l1 = guest.table(&leaves(&guest.alloc(PAGES as u64)));
        guest.fill(l2, &[(1, entry(l1, RW))]);
        let mut vcpu = Vcpu::new(&guest.domain, 0);
        assert_eq!(vcpu.new_base(true, l4), Ok(()));
        let running = std::thread::spawn(move || {
            let first = vcpu.run(u64::MAX, u64::MAX);
            let mut b = [0; 4];
            (
                first,
                vcpu.run(1000, u64::MAX),
                vcpu.copy_in(0, &mut b),
                vcpu.mmuext_op(0, 1, 0, SELF),
            )
        });
        std::thread::sleep(Duration::from_micros(delay_us));
        assert_eq!(guest.domain.destroy(), 0);
        assert_eq!(guest.domain.destroy(), 0, "once is enough");
        assert_eq!(m.free_frames(), free);
        let (first, second, copy, ext) = running.join().expect("the vCPU ends");
        assert_eq!((first, second), (Exit::Interrupted, Exit::Interrupted));
        assert_eq!((copy, ext), (Err(Efault), Err(Errno::EFAULT)));
        assert!(m.audit().is_empty());
    }
}

#[test]
fn a_second_domain_of_the_same_number_harms_nobody() {
    let m = machine(256);
    let g = Guest::new(&m, 1);
    let f = g.one();
    let twin = Domain::new(m.clone(), 1);
    assert_eq!(twin.alloc(1), None);
    assert_eq!(twin.destroy(), 0);
    assert_eq!((g.refs(f), g.ty(f)), (1, "none"));
}

#[test]
fn only_the_guest_kernels_stores_to_a_live_table_are_emulated() {
    use crate::cpu::fault::{vector, Trap};
    let m = machine(256);
    let guest = Guest::new(&m, 1);
    let code = guest.one();
    m.host_write(code.maddr(), &CODE);
    let [l4, _, l2, _] = guest.tree(&[(0, entry(code, RO))]);
    let table = guest.one();
    let l1 = guest.table(&[(0, entry(table, RO))]);
    guest.fill(l2, &[(1, entry(l1, RW)), (2, entry(table, RW))]);
    assert_eq!(
        guest
            .domain
            .set_base(0, BaseKind::Kernel, Some(l4), Caller::Host, || ()),
        Ok(())
    );
    assert_eq!(guest.ty(table), "l1");
    let run = |table_stores| {
        let mut cpu = Cpu::new(
            guest.domain.clone(),
            Arc::new(VcpuShared::default()),
            platform(&guest.domain),
        );
        cpu.cpl = 3;
        cpu.access.table_stores = table_stores;
        cpu.set_base(l4, true);
        cpu.budget.left = 3;
        cpu.run()
    };
    assert!(matches!(run(false), Stop::Trap(Trap::Fault(f)) if f.vector == vector::PF && f.cr2 == DATA));
    assert_eq!(guest.read(table, 0), 0);
    // 0x41414141 is present, and of no frame there is: the kernel's store is refused by its validation.
    assert!(matches!(run(true), Stop::Trap(Trap::Fault(f)) if f.error_code == Some(7)));
    assert_eq!(guest.read(table, 0), 0);
    let good = [
        0x48, 0xc7, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, 0x40, 0x41, 0x41, 0x41,
    ];
    m.host_write(code.maddr(), &good);
    let mut cpu = Cpu::new(
        guest.domain.clone(),
        Arc::new(VcpuShared::default()),
        platform(&guest.domain),
    );
    cpu.cpl = 3;
    cpu.set_base(l4, true);
    cpu.budget.left = 1;
    assert_eq!((cpu.run(), guest.read(table, 0)), (Stop::Budget, 0x4141_4140));
}

#[test]
fn an_op_with_two_operands_in_one_tlb_entry_completes() {
    let m = machine(256);
    let guest = Guest::new(&m, 1);
    let code = guest.one();
    // push qword [DATA]; call qword [DATA + 8], with a stack 16 MiB above
    m.host_write(
        code.maddr(),
        &[0xff, 0x34, 0x25, 0, 0, 0x20, 0, 0xff, 0x14, 0x25, 8, 0, 0x20, 0],
    );
    m.host_write(code.maddr() + 0x800, &[0x90]);
    let (data, stack) = (guest.one(), guest.one());
    guest.fill(data, &[(0, 77), (1, 0x800)]);
    let [l4, _, l2, _] = guest.tree(&[(0, entry(code, RO))]);
    let (low, high) = (
        guest.table(&[(0, entry(data, RW))]),
        guest.table(&[(0, entry(stack, RW))]),
    );
    guest.fill(l2, &[(1, entry(low, RW)), (9, entry(high, RW))]);
    assert_eq!(
        guest
            .domain
            .set_base(0, BaseKind::Kernel, Some(l4), Caller::Host, || ()),
        Ok(())
    );
    let mut cpu = Cpu::new(
        guest.domain.clone(),
        Arc::new(VcpuShared::default()),
        platform(&guest.domain),
    );
    cpu.cpl = 3;
    cpu.set_base(l4, true);
    cpu.regs[4] = DATA + (16 << 20) + 0x800;
    cpu.budget.left = 3;
    assert_eq!((cpu.run(), cpu.rip), (Stop::Budget, 0x801));
    assert_eq!((guest.read(stack, 255), guest.read(stack, 254)), (77, 14));
}

#[test]
fn locked_operations_across_pages_never_wait_for_each_other_and_code() {
    let m = machine(256);
    let guest = Guest::new(&m, 1);
    let code = guest.alloc(2);
    // lock inc qword [0xffc], across the pages of the code itself; jmp back
    let program = [0xf0, 0x48, 0xff, 0x04, 0x25, 0xfc, 0x0f, 0, 0, 0xeb, 0xf5];
    m.host_write(code[0].maddr(), &program);
    // The second page has code too: so stores to both must make all vCPUs forget.
    m.host_write(code[1].maddr() + 0x100, &program);
    let [l4, ..] = guest.tree(&[(0, entry(code[0], RW)), (1, entry(code[1], RW))]);
    assert_eq!(
        guest
            .domain
            .set_base(0, BaseKind::Kernel, Some(l4), Caller::Host, || ()),
        Ok(())
    );
    let each = 2000;
    std::thread::scope(|s| {
        for start in [0u64, 0x1100, 0] {
            let domain = guest.domain.clone();
            s.spawn(move || {
                let shared = Arc::new(VcpuShared::default());
                let mut cpu = Cpu::new(domain.clone(), shared.clone(), platform(&domain));
                cpu.cpl = 3;
                cpu.set_base(l4, true);
                cpu.rip = start;
                for _ in 0..each / 10 {
                    let _in_guest = shared.enter();
                    cpu.apply_purges();
                    cpu.budget.left = 20;
                    while cpu.budget.left > 0 {
                        cpu.run();
                        cpu.apply_purges();
                    }
                }
            });
        }
    });
    let word = guest.read(code[0], 511) >> 32 | guest.read(code[1], 0) << 32;
    assert_eq!(word, 3 * each, "no increment was lost");
}
