// SPDX-License-Identifier: Apache-2.0
//! A hostile PV kernel: random hypercalls, stores and code against the frame table's rules. Whatever it does, page tables
//! stay what the frame table says, other domains keep their memory, and everything can be given back.

use crate::fuzz::code;
use crate::rng::Rng;
use domzero_machine::abi::hypercall::nr;
use domzero_machine::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS};
use domzero_machine::abi::DOMID_SELF;
use domzero_machine::{Callback, CallbackKind, Clock, Domain, Exit, Machine, Mfn, TrapGate, Vcpu};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BASE: u64 = 0x4000_0000;
const OWNED: usize = 64;
/// Pages of the first L1: data, then the tables read-only, then code.
const TABLES_AT: u64 = 40;
const CODE_AT: u64 = 60;
const CODE: u64 = BASE + CODE_AT * 4096;
const ARGS: u64 = BASE + 2 * 4096;
const STACK: u64 = BASE + 4 * 4096;
const PATTERN: u64 = 0x7357_dead_0000_1111;
/// Hypercalls by number, the page-table ones most often; 2 and 10 are not the machine's.
const CALLS: &[u64] = &[
    nr::MMU_UPDATE,
    nr::MMU_UPDATE,
    nr::MMU_UPDATE,
    nr::UPDATE_VA_MAPPING,
    nr::UPDATE_VA_MAPPING,
    nr::UPDATE_VA_MAPPING,
    nr::MMUEXT_OP,
    nr::MMUEXT_OP,
    nr::MMUEXT_OP,
    nr::STACK_SWITCH,
    nr::FPU_TASKSWITCH,
    10,
    nr::IRET,
    nr::SET_SEGMENT_BASE,
    2,
];
const HANDLER: u64 = CODE + 0x800;

struct Prey {
    machine: Arc<Machine>,
    domain: Arc<Domain>,
    victim: Vec<Mfn>,
    owned: Vec<Mfn>,
    vcpu: Vcpu,
    _victim_domain: Arc<Domain>,
}

/// Stores of all sorts: rdi is the address, rax the value, rcx a count.
const STORES: [&[u8]; 9] = [
    &[0x48, 0x89, 0x07],
    &[0x89, 0x07],
    &[0x88, 0x07],
    &[0xf0, 0x48, 0x0f, 0xc1, 0x07],
    &[0xf0, 0x48, 0x0f, 0xb1, 0x17],
    &[0x48, 0x87, 0x07],
    &[0xf3, 0x48, 0xab],
    &[0x0f, 0x11, 0x07],
    &[0x48, 0x01, 0x47, 0x04],
];

impl Prey {
    fn new() -> Prey {
        let machine = Machine::new(512, 3, Clock::virtual_at(0)).expect("a small machine");
        let domain = Domain::new(machine.clone(), 1);
        let victim_domain = Domain::new(machine.clone(), 2);
        let owned = domain.alloc(OWNED as u64).expect("frames");
        let victim = victim_domain.alloc(32).expect("frames");
        for v in &victim {
            for i in 0..512 {
                machine.mem.write_u64(v.maddr() + 8 * i, PATTERN ^ i);
            }
        }
        let set = |table: usize, index: u64, value: u64| {
            machine.mem.write_u64(owned[table].maddr() + 8 * index, value)
        };
        for (table, index) in [(0, 0), (1, 1), (2, 0)] {
            set(table, index, owned[table + 1].maddr() | 7);
        }
        set(2, 1, owned[4].maddr() | 7);
        for i in 0..32 {
            set(3, i, owned[8 + i as usize].maddr() | 7);
        }
        for i in 0..5 {
            set(3, TABLES_AT + i, owned[i as usize].maddr() | 5);
        }
        set(3, CODE_AT, owned[7].maddr() | 5);
        let mut bytes = vec![0xcc; 4096];
        bytes[..2].copy_from_slice(&[0x0f, 0x05]);
        bytes[0x800..0x807].copy_from_slice(&[0xb8, 99, 0, 0, 0, 0x0f, 0x05]);
        for (i, s) in STORES.iter().enumerate() {
            bytes[0x100 + 16 * i..][..s.len()].copy_from_slice(s);
        }
        machine.mem.write(owned[7].maddr(), &bytes);
        let mut vcpu = Vcpu::new(&domain, 0);
        for n in 0..=255 {
            vcpu.set_trap(
                n,
                TrapGate {
                    cs: FLAT_KERNEL_CS,
                    address: HANDLER,
                    flags: 3,
                },
            );
        }
        for kind in [CallbackKind::Event, CallbackKind::Syscall] {
            vcpu.set_callback(
                kind,
                Callback {
                    cs: FLAT_KERNEL_CS,
                    address: HANDLER,
                    mask_events: true,
                },
            );
        }
        vcpu.set_kernel_stack(FLAT_KERNEL_SS, STACK);
        assert_eq!(vcpu.new_base(true, owned[0]), Ok(()));
        Prey {
            machine,
            domain,
            victim,
            owned,
            vcpu,
            _victim_domain: victim_domain,
        }
    }

    fn frame(&self, rng: &mut Rng) -> Mfn {
        match rng.below(12) {
            0 => rng.pick(&self.victim),
            1 => Mfn(rng.below(600)),
            2..=5 => self.owned[rng.below(6) as usize],
            _ => rng.pick(&self.owned),
        }
    }

    /// A page-table entry that may or may not be allowed.
    fn entry(&self, rng: &mut Rng) -> u64 {
        let bits = match rng.below(6) {
            0 => 0,
            1 => 5,
            2 => rng.next() & 0xfff,
            3 => 7 | 1 << 63,
            4 => 0x67,
            _ => 7,
        };
        let high = if rng.chance(3) {
            rng.next() & 0xfff0_0000_0000_0000
        } else {
            0
        };
        self.frame(rng).maddr() | bits | high
    }

    fn address(&self, rng: &mut Rng) -> u64 {
        let page = match rng.below(8) {
            0 => rng.next(),
            1 => BASE + 0x20_0000 + rng.below(64) * 4096,
            2 | 3 => BASE + (TABLES_AT + rng.below(5)) * 4096,
            _ => BASE + rng.below(64) * 4096,
        };
        page.wrapping_add(if rng.chance(70) {
            rng.below(512) * 8
        } else {
            rng.below(4096)
        })
    }

    fn hypercall(&mut self, rng: &mut Rng) {
        let count = 1 + rng.below(4);
        let nr = rng.pick(CALLS);
        let mut args = Vec::new();
        for _ in 0..count {
            match nr {
                26 => {
                    args.extend(rng.below(22).to_le_bytes());
                    let arg = if rng.chance(70) {
                        self.frame(rng).0
                    } else {
                        self.address(rng)
                    };
                    args.extend(arg.to_le_bytes());
                    args.extend(rng.below(70).to_le_bytes());
                }
                _ => {
                    let at = self.frame(rng).maddr() + rng.below(64) * 8 + rng.below(3);
                    args.extend(at.to_le_bytes());
                    args.extend(self.entry(rng).to_le_bytes());
                }
            }
        }
        let v = &mut self.vcpu;
        let _ = v.copy_out(ARGS, &args);
        let mut regs = [ARGS, count, 0, u64::from(DOMID_SELF), 0, 0];
        match nr {
            14 => {
                let (va, value) = (self.address(rng), self.entry(rng));
                regs = [va, value, rng.below(8), 0, 0, 0];
            }
            10 => {
                regs = [
                    self.frame(rng).maddr() + rng.below(64) * 8,
                    rng.next(),
                    0,
                    0,
                    0,
                    0,
                ]
            }
            3 | 25 | 5 => regs = [rng.below(5), self.address(rng), 0, 0, 0, 0],
            2 => {
                let frames: Vec<Mfn> = (0..rng.below(4)).map(|_| self.frame(rng)).collect();
                let entries = frames.len() as u32 * 512;
                let _ = self.vcpu.set_gdt(&frames, entries);
                return;
            }
            23 => self.vcpu.cpu.regs[4] = self.address(rng),
            _ => {}
        }
        if rng.chance(5) {
            regs[rng.below(6) as usize] = rng.int();
        }
        let cpu = &mut self.vcpu.cpu;
        cpu.regs[0] = nr;
        for (reg, value) in [7, 6, 2, 10, 8, 9].into_iter().zip(regs) {
            cpu.regs[reg] = value;
        }
        cpu.rip = CODE;
    }

    fn store(&mut self, rng: &mut Rng) {
        let (to, value) = (self.address(rng), self.entry(rng));
        let cpu = &mut self.vcpu.cpu;
        cpu.regs[0] = value;
        cpu.regs[1] = rng.below(700);
        cpu.regs[7] = to;
        cpu.fpu.xmm[0] = u128::from(value) << 64 | u128::from(value);
        cpu.rip = CODE + 0x100 + 16 * rng.below(STORES.len() as u64);
    }

    fn act(&mut self, rng: &mut Rng) {
        if rng.chance(50) {
            self.vcpu.cpu.regs[4] = STACK - rng.below(100) * 8;
        }
        match rng.below(20) {
            0..=9 => self.hypercall(rng),
            10..=15 => self.store(rng),
            16 => {
                let bytes = code(rng);
                let at = self.address(rng);
                let _ = self.vcpu.copy_out(at, &bytes[..200]);
                self.vcpu.cpu.rip = at;
            }
            17 => {
                let mfn = self.frame(rng);
                if rng.chance(50) {
                    let _ = self
                        .domain
                        .release(mfn, domzero_machine::Caller::Vcpu(&self.vcpu.shared().clone()));
                } else if let Some(new) = self.domain.alloc(1) {
                    let slot = 6 + rng.below(OWNED as u64 - 6) as usize;
                    self.owned[slot] = new[0];
                }
            }
            18 => {
                let _ = self.vcpu.toggle_guest_mode();
            }
            _ => {
                self.vcpu.set_kernel_stack(
                    FLAT_KERNEL_SS,
                    if rng.chance(80) { STACK } else { self.address(rng) },
                );
            }
        }
        match self.vcpu.run(1 + rng.below(60), u64::MAX) {
            Exit::Hypercall { .. } => self.vcpu.hypercall_return(rng.int() as i64),
            Exit::Fault { .. } | Exit::Unsupported(_) => {
                self.vcpu.set_guest_kernel(true);
            }
            _ => {}
        }
        if !self.vcpu.guest_kernel() && rng.chance(50) {
            self.vcpu.set_guest_kernel(true);
        }
    }

    fn check(&self) {
        let faults = self.machine.audit();
        assert!(faults.is_empty(), "{faults:#?}");
        for v in &self.victim {
            for i in 0..512 {
                assert_eq!(
                    self.machine.mem.read_u64(v.maddr() + 8 * i),
                    Some(PATTERN ^ i),
                    "frame {v:?}, word {i}"
                );
            }
        }
    }
}

#[test]
fn a_hostile_kernel_breaks_neither_the_frame_table_nor_another_domain() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(default)
    };
    let first = number("DOMZERO_FUZZ_SEED", 1);
    let until = Instant::now() + Duration::from_secs(number("DOMZERO_FUZZ_SECONDS", 4));
    let mut seed = first;
    while Instant::now() < until {
        let mut rng = Rng::new(seed);
        let mut prey = Prey::new();
        let run = std::panic::AssertUnwindSafe(|| {
            for n in 0..400 {
                prey.act(&mut rng);
                if n % 100 == 99 {
                    prey.check();
                }
            }
            let frames = prey.domain.frames_owned();
            assert_eq!(prey.domain.destroy(), 0, "frames still referenced, of {frames}");
            prey.check();
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            println!("DOMZERO_FUZZ_SEED={seed} shows this");
            std::panic::resume_unwind(panic);
        }
        seed += 1;
    }
    println!("{} hostile kernels, seeds {first}..{seed}", seed - first);
    assert!(seed - first > 2);
}
