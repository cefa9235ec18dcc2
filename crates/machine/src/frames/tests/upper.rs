// SPDX-License-Identifier: Apache-2.0
//! The upper half of addresses, whose translations and jumps outlive base loads and flushes, while page tables change.

use super::*;
use crate::cpu::engine::TranslatorOptions;
use crate::cpu::{Cpu, Stop};
use crate::mmu::walk::inspect;
use crate::pv::platform;
use crate::shared::Purge;

/// Where L4 slot 300 leads.
const SLOT: usize = 300;
const HIGH: u64 = 0xffff_9600_0000_0000;
/// What the next slot shows is that far away.
const NEXT: u64 = 1 << 39;

/// What a page holds: `mov eax, n`, and a jump back to it.
fn program(n: u64) -> u64 {
    0xf9eb << 40 | n << 8 | 0xb8
}

/// Address spaces whose upper halves show the same tables, [L3, L2, L1].
struct Spaces {
    g: Guest,
    l4: [Mfn; 3],
    tables: [Mfn; 3],
    /// Frame n holds `program(n + 1)`.
    frames: Vec<Mfn>,
}

impl Spaces {
    fn new() -> Spaces {
        let g = guest();
        let frames = g.alloc(8);
        for (n, f) in frames.iter().enumerate() {
            g.fill(*f, &[(0, program(n as u64 + 1))]);
        }
        let leaves: Vec<_> = (frames.iter().enumerate())
            .map(|(i, f)| (i, entry(*f, RW)))
            .collect();
        let [first, l3, l2, l1] = g.tree(&leaves);
        let mut g = g;
        g.fill(first, &[(0, 0)]);
        let l4 = [first, g.one(), g.one()];
        for m in l4 {
            g.fill(m, &[(SLOT, entry(l3, RW))]);
            assert_eq!(g.pin(4, m), 0);
        }
        Spaces {
            g,
            l4,
            tables: [l3, l2, l1],
            frames,
        }
    }

    fn vcpu(&self) -> Box<Cpu> {
        let domain = &self.g.domain;
        let mut cpu = Cpu::new(domain.clone(), Arc::default(), platform(domain));
        cpu.cpl = 3;
        cpu
    }

    /// Maps frame `n` at the first page.
    fn show(&mut self, n: usize) {
        let to = entry(self.frames[n], RW);
        assert_eq!(self.g.update(self.tables[2], 0, to), 0);
    }

    /// Whether a walk has read the entry of the first page since this was last called.
    fn walked(&self) -> bool {
        let (mem, at) = (&self.g.domain.machine.mem, self.tables[2].maddr());
        let old = mem.read_u64(at).expect("memory");
        mem.write_u64(at, old & !pte::A);
        old & pte::A != 0
    }
}

/// What NEW_BASEPTR does on the vCPU that makes it.
fn load(cpu: &mut Cpu, l4: Mfn) {
    cpu.set_base(l4, true);
    cpu.refresh_view(l4);
}

/// The number of the program at an address that is read there.
fn read(cpu: &mut Cpu, va: u64) -> Option<u64> {
    cpu.apply_purges();
    cpu.read::<u64>(va).ok().map(|word| word >> 8 & 0xff)
}

/// The same, executed.
fn execute(cpu: &mut Cpu, va: u64) -> Option<u64> {
    cpu.rip = va;
    // More than a block: what is translated runs as such.
    cpu.budget.left = 5;
    (cpu.run() == Stop::Budget).then_some(cpu.regs[0])
}

#[test]
fn address_spaces_with_an_equal_upper_half_have_its_translations_in_common_and_others_do_not() {
    let mut s = Spaces::new();
    let mut cpu = s.vcpu();
    load(&mut cpu, s.l4[0]);
    assert_eq!(read(&mut cpu, HIGH), Some(1));
    assert!(s.walked());
    for l4 in s.l4 {
        load(&mut cpu, l4);
        assert_eq!(read(&mut cpu, HIGH), Some(1));
        assert!(!s.walked());
    }
    assert_eq!(cpu.views.count(), 1);
    // One shows more than the others.
    let l4 = s.l4[1];
    assert_eq!(s.g.update(l4, SLOT + 1, entry(s.tables[0], RW)), 0);
    load(&mut cpu, l4);
    assert_eq!(read(&mut cpu, HIGH + NEXT), Some(1));
    load(&mut cpu, s.l4[0]);
    assert_eq!(cpu.views.count(), 2);
    assert_eq!(
        (read(&mut cpu, HIGH + NEXT), read(&mut cpu, HIGH)),
        (None, Some(1))
    );
}

#[test]
fn what_is_gained_after_the_load_of_its_base_is_not_seen_in_other_address_spaces() {
    let mut s = Spaces::new();
    let mut cpu = s.vcpu();
    load(&mut cpu, s.l4[0]);
    assert_eq!(read(&mut cpu, HIGH + NEXT), None);
    let (l4, l3) = (s.l4[0], s.tables[0]);
    assert_eq!(s.g.update(l4, SLOT + 1, entry(l3, RW)), 0);
    // It was not present: no flush is needed.
    assert_eq!(read(&mut cpu, HIGH + NEXT), Some(1));
    load(&mut cpu, s.l4[1]);
    assert_eq!(read(&mut cpu, HIGH + NEXT), None);
}

#[test]
fn a_change_of_the_upper_half_is_seen_after_a_flush_on_each_vcpu_and_leaves_other_pages() {
    let mut s = Spaces::new();
    let mut vcpus = [s.vcpu(), s.vcpu()];
    for (n, cpu) in vcpus.iter_mut().enumerate() {
        load(cpu, s.l4[n]);
        assert_eq!((read(cpu, HIGH), read(cpu, HIGH + 0x1000)), (Some(1), Some(2)));
    }
    assert!(s.walked());
    let l1 = s.tables[2];
    s.show(4);
    let [first, second] = &mut vcpus;
    first.refresh_view(s.l4[0]);
    second.shared.push_purge(Purge::Stale);
    for cpu in [first, second] {
        assert_eq!(read(cpu, HIGH), Some(5));
        let at = l1.maddr() + 8;
        let mem = &s.g.domain.machine.mem;
        let old = mem.read_u64(at).expect("memory");
        mem.write_u64(at, old & !pte::A);
        assert_eq!(read(cpu, HIGH + 0x1000), Some(2));
        assert_eq!(mem.read_u64(at), Some(old & !pte::A), "its translation was kept");
    }
    // And gone altogether, by an entry of each level.
    for table in s.tables {
        let old = s.g.read(table, 0);
        assert_eq!(s.g.update(table, 0, 0), 0);
        for cpu in &mut vcpus {
            cpu.apply_purge(Purge::Stale);
            assert_eq!(read(cpu, HIGH), None);
        }
        assert_eq!(s.g.update(table, 0, old), 0);
        for cpu in &mut vcpus {
            assert_eq!(read(cpu, HIGH), Some(5));
        }
    }
    s.g.audit();
}

#[test]
fn more_changes_than_are_remembered_flush_everything() {
    let mut s = Spaces::new();
    let mut cpu = s.vcpu();
    load(&mut cpu, s.l4[0]);
    assert_eq!(execute(&mut cpu, HIGH), Some(1));
    s.show(1);
    for n in 0..3000 {
        let to = entry(s.frames[2 + n % 2], RW);
        assert_eq!(s.g.update(s.tables[2], 5, to), 0);
    }
    cpu.refresh_view(s.l4[0]);
    assert_eq!(
        (read(&mut cpu, HIGH), execute(&mut cpu, HIGH)),
        (Some(2), Some(2))
    );
}

#[test]
fn a_frame_that_is_given_away_is_not_reached_through_any_address_space() {
    let mut s = Spaces::new();
    let victim = Guest::new(&s.g.domain.machine, 2);
    let mut cpu = s.vcpu();
    load(&mut cpu, s.l4[0]);
    assert!(cpu.write::<u64>(HIGH, program(1)).is_ok());
    // Without a flush of the guest's own.
    assert_eq!(s.g.update(s.tables[2], 0, 0), 0);
    let frame = s.frames[0];
    assert_eq!(s.g.domain.release(frame, Caller::Host), Ok(()));
    while !victim.alloc(1).contains(&frame) {}
    for l4 in [s.l4[0], s.l4[1]] {
        cpu.apply_purges();
        assert!(cpu.write::<u64>(HIGH, !0).is_err());
        assert_eq!(victim.read(frame, 0), 0);
        load(&mut cpu, l4);
    }
    s.g.audit();
}

/// Every page that could be mapped is read and executed as a walk from scratch finds it.
fn check(s: &Spaces, cpu: &mut Cpu, l4: Mfn, from: u64, pages: u64) {
    let mem = &s.g.domain.machine.mem;
    for va in (0..pages).map(|n| from + n * 0x1000) {
        let steps = inspect(mem, l4, va, false);
        let leaf = steps
            .last()
            .filter(|(level, .., e)| *level == 1 && pte::present(*e));
        let shown = leaf.and_then(|(.., e)| s.frames.iter().position(|f| f.0 == pte::mfn(*e)));
        let want = shown.map(|n| n as u64 + 1);
        assert_eq!(read(cpu, va), want, "{va:#x} read");
        assert_eq!(execute(cpu, va), want, "{va:#x} executed");
    }
}

fn next(seed: &mut u64) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 33) as usize
}

/// Two vCPUs change page tables and flush at random; what they see after a flush is what the tables say.
fn model(translated: bool) {
    let mut s = Spaces::new();
    let seed = &mut 7;
    let other = [s.g.one(), s.g.one(), s.g.one()];
    s.g.fill(other[0], &[(0, entry(other[1], RW))]);
    s.g.fill(other[1], &[(0, entry(other[2], RW))]);
    let mut vcpus = [s.vcpu(), s.vcpu()];
    let mut loaded = [0, 0];
    for (n, cpu) in vcpus.iter_mut().enumerate() {
        if translated {
            let threshold = n as u32 + 1;
            let options = TranslatorOptions {
                threshold,
                code_bytes: 1 << 20,
                ..TranslatorOptions::default()
            };
            if cpu.set_translator(Some(options)).is_err() {
                return;
            }
        }
        load(cpu, s.l4[0]);
    }
    for step in 0..6000 {
        let (n, what) = (next(seed) % 2, next(seed) % 16);
        let tables = if next(seed).is_multiple_of(2) {
            s.tables
        } else {
            other
        };
        let to = s.frames[next(seed) % 8];
        let cpu = &mut vcpus[n];
        match what {
            0..=6 => {
                let bits = if next(seed).is_multiple_of(4) { 0 } else { RW };
                s.g.update(tables[2], next(seed) % 8, entry(to, bits));
            }
            7 => {
                let l1 = [s.tables[2], other[2]][next(seed) % 2];
                s.g.update(tables[1], next(seed) % 2, entry(l1, [0, RW][next(seed) % 2]));
            }
            8 => {
                let l4 = s.l4[next(seed) % 3];
                let slot = SLOT + next(seed) % 2;
                s.g.update(l4, slot, entry(tables[0], [0, RW, RW][next(seed) % 3]));
            }
            9 => cpu.flush_tlb_all_views(),
            10 => {
                let va = HIGH + (next(seed) % 8 * 0x1000) as u64;
                cpu.invlpg(va);
                check(&s, cpu, s.l4[loaded[n]], va, 1);
            }
            11 | 12 => {
                loaded[n] = next(seed) % 3;
                load(cpu, s.l4[loaded[n]]);
            }
            _ => {
                match next(seed) % 2 {
                    0 => cpu.refresh_view(s.l4[loaded[n]]),
                    _ => cpu.apply_purge(Purge::Stale),
                }
                for high in [HIGH, HIGH + (1 << 21), HIGH + NEXT] {
                    check(&s, cpu, s.l4[loaded[n]], high, 8);
                }
            }
        }
        if step % 500 == 0 {
            s.g.audit();
        }
    }
}

#[test]
fn vcpus_see_after_each_flush_what_the_page_tables_say_interpreted() {
    model(false);
}

#[test]
fn vcpus_see_after_each_flush_what_the_page_tables_say_translated() {
    model(true);
}

/// Gives each of the first two address spaces a page of its own at address 0: the L1 tables.
fn lower(s: &mut Spaces) -> [Mfn; 2] {
    [0, 1].map(|n| {
        let [_, l3, _, l1] = s.g.tree(&[(0, entry(s.frames[n], RW))]);
        assert_eq!(s.g.update(s.l4[n], 0, entry(l3, RW)), 0);
        l1
    })
}

#[test]
fn the_lower_half_of_an_address_space_comes_back_with_it_unless_something_has_changed() {
    let mut s = Spaces::new();
    let l1 = lower(&mut s);
    let mut cpu = s.vcpu();
    let machine = s.g.domain.machine.clone();
    // Whether the entry was read by a walk.
    let visit = |n: usize, cpu: &mut Cpu| {
        let at = l1[n].maddr();
        let old = machine.mem.read_u64(at).expect("memory");
        machine.mem.write_u64(at, old & !pte::A);
        load(cpu, s.l4[n]);
        assert_eq!(read(cpu, 0), Some(n as u64 + 1));
        machine.mem.read_u64(at) != Some(old & !pte::A)
    };
    assert!(visit(0, &mut cpu) && visit(1, &mut cpu));
    assert!(!visit(0, &mut cpu) && !visit(1, &mut cpu));
    cpu.invlpg(0);
    assert!(visit(0, &mut cpu) && visit(1, &mut cpu));
    cpu.apply_purge(Purge::Frame(s.frames[0]));
    assert!(visit(0, &mut cpu) && !visit(1, &mut cpu));
    cpu.apply_purge(Purge::AllTlb);
    assert!(visit(0, &mut cpu) && visit(1, &mut cpu));
    s.g.update(s.tables[2], 7, 0);
    assert!(visit(0, &mut cpu) && visit(1, &mut cpu));
}

#[test]
fn a_lower_half_that_comes_back_writes_no_frame_that_may_not_be_written_any_more() {
    let mut s = Spaces::new();
    lower(&mut s);
    let mut cpu = s.vcpu();
    load(&mut cpu, s.l4[0]);
    assert!(cpu.write::<u64>(0, program(1)).is_ok());
    load(&mut cpu, s.l4[1]);
    // Its code is decoded: stores to it must be noticed.
    assert_eq!(execute(&mut cpu, HIGH), Some(1));
    load(&mut cpu, s.l4[0]);
    assert_eq!(read(&mut cpu, 0), Some(1));
    assert!(cpu.write::<u64>(0, program(9)).is_ok());
    assert_eq!(execute(&mut cpu, HIGH), Some(9));
}
