// SPDX-License-Identifier: Apache-2.0
//! Another thread that does to running engines what must make no difference: it asks for attention, has translations and
//! code forgotten, and writes code, by a back end and by another CPU, that does the same before and after.

use super::fill::is_writable_code;
use super::lockstep::Lockstep;
use super::place::{Another, CODE_REGIONS, DATA_REGIONS};
use crate::rng::Rng;
use domzero_machine::testing::RWX;
use domzero_machine::{attention, Machine, Purge, VcpuShared};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// One engine's machine, as other threads reach it.
struct Target {
    machine: Arc<Machine>,
    shared: Arc<VcpuShared>,
    another: Another,
    /// Where bytes are that mean nothing: their virtual and machine addresses.
    nops: Vec<(u64, u64)>,
}

pub struct Kicker {
    targets: Mutex<(Vec<Target>, Rng)>,
    quiet: Arc<Mutex<()>>,
    ended: AtomicBool,
}

/// Ends the kicker when it is dropped.
pub struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Kicker {
    /// One for all engines but the oracle. Whoever holds `quiet` sees no code that is being written.
    pub fn new(l: &mut Lockstep, quiet: Arc<Mutex<()>>) -> Kicker {
        // What the other CPU does to page tables is done before, and on the oracle's machine, too.
        for p in &mut l.places {
            let mut another = p.another();
            for va in (0..4).map(|i| RWX + i * 4096) {
                let mut byte = [0];
                if let Some(maddr) = p.maddr(va) {
                    p.vm.machine.mem.read(maddr, &mut byte);
                    another.store(va, u64::from(byte[0]), false);
                }
            }
        }
        let nops = &l.program.nops;
        let targets = l.places[1..].iter().map(|p| Target {
            machine: p.vm.machine.clone(),
            shared: p.vm.cpu.shared.clone(),
            another: p.another(),
            nops: nops.iter().filter_map(|&va| Some((va, p.maddr(va)?))).collect(),
        });
        Kicker {
            targets: Mutex::new((targets.collect(), Rng::new(l.rng.next()))),
            quiet,
            ended: AtomicBool::new(false),
        }
    }

    pub fn end(&self) -> End<'_> {
        End(&self.ended)
    }

    pub fn run(&self) {
        let mut all = self.targets.lock().unwrap_or_else(|e| e.into_inner());
        let (targets, rng) = &mut *all;
        while !self.ended.load(Ordering::Relaxed) {
            for _ in 0..rng.below(3000) {
                std::hint::spin_loop();
            }
            for t in targets.iter_mut() {
                let _quiet = self.quiet.lock().unwrap_or_else(|e| e.into_inner());
                t.disturb(rng);
            }
        }
    }
}

impl Target {
    fn disturb(&mut self, rng: &mut Rng) {
        let regions = [&CODE_REGIONS[..], &DATA_REGIONS[..]].concat();
        let region = regions[rng.below(regions.len() as u64) as usize];
        let va = region.va + rng.below(region.pages) * 4096;
        match rng.below(8) {
            0 => self.shared.request(attention::EVENT),
            1 => self.shared.push_purge(Purge::AllTlb),
            2 => self.shared.push_purge(Purge::Page(va)),
            3 => self.machine.purge(Purge::Page(va), domzero_machine::Caller::Host),
            _ if self.nops.is_empty() => {}
            n => {
                let (va, maddr) = rng.pick(&self.nops);
                let (i, value) = (rng.below(4), rng.next() as u8);
                let mut before = [0];
                self.machine.mem.read(maddr + i, &mut before);
                for byte in [value, before[0]] {
                    if n < 6 && is_writable_code(va) {
                        self.another.store(va + i, u64::from(byte), false);
                    } else {
                        assert!(self.machine.host_write(maddr + i, &[byte]));
                    }
                }
            }
        }
    }
}
