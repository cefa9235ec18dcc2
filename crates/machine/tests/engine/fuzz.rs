// SPDX-License-Identifier: Apache-2.0
//! Hostile bytes and hostile page tables: nothing may panic, hang, or touch what is not mapped.
//!
//! An input is a seed (registers, page tables) and code. Inputs that failed once are kept in fuzz/corpus and run first.
//! DOMZERO_FUZZ_SECONDS, DOMZERO_FUZZ_SEED; a failing input is written to fuzz/corpus.

use crate::engines::Engine;
use crate::rng::Rng;
use domzero_machine::abi::selector::{FLAT_KERNEL_SS, FLAT_RING3_CS32};
use domzero_machine::{
    attention, Clock, Cpu, DescTable, Domain, Machine, Mfn, Purge, Stop, Trap, VcpuShared,
};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const FRAMES: u64 = 96;
/// Page tables: L4, L3, L2 and two L1.
const TABLES: u64 = 16;
/// What the page tables map.
const MINE: u64 = 24;
const MINE_FRAMES: u64 = 24;
/// What they do not map: must keep its contents.
const FOREIGN: u64 = 64;
const PATTERN: u64 = 0x5a5a_1234_dead_beef;
const BASE: u64 = 0x4000_0000;
/// In half of all inputs page tables lead anywhere, themselves included.
const WILD: u64 = 1;
/// In half of them code and data lie in segments of any kind, of a GDT and an LDT in these frames.
const SEGMENTS: u64 = 2;
const DESCRIPTORS: [Mfn; 2] = [Mfn(8), Mfn(9)];
/// In a quarter misaligned accesses fault.
const ALIGNED: u64 = 12;

struct Box96 {
    machine: Arc<Machine>,
    domain: Arc<Domain>,
    shared: Arc<VcpuShared>,
    wild: bool,
}

impl Box96 {
    fn new(rng: &mut Rng, wild: bool) -> Box96 {
        let machine = Machine::new(FRAMES, 1, Clock::virtual_at(0)).expect("a small machine");
        let domain = Domain::new(machine.clone(), 1);
        let entry = |table: u64, index: u64, value: u64| {
            machine
                .mem
                .write_u64(Mfn(TABLES + table).maddr() + index * 8, value);
        };
        let junk = |rng: &mut Rng| {
            let frame = if rng.chance(80) {
                rng.below(FRAMES)
            } else {
                rng.next() & 0xff_ffff_ffff
            };
            frame << 12
                | rng.next() & 0xfff
                | if rng.chance(30) {
                    rng.next() & 0xfff0_0000_0000_0000
                } else {
                    0
                }
                | 7
        };
        if wild {
            for t in 0..5 {
                for _ in 0..40 {
                    let (index, value) = (rng.below(512), junk(rng));
                    entry(t, index, value);
                }
            }
        }
        let low = |rng: &mut Rng| {
            if wild && rng.chance(10) {
                rng.next() & 0xfff
            } else {
                7
            }
        };
        for (t, i) in [(0, 0), (0, 511), (1, 1), (1, 511), (2, 0), (2, 511)] {
            let bits = low(rng);
            entry(t, i, Mfn(TABLES + t + 1).maddr() | bits);
        }
        let second = low(rng);
        entry(2, 1, Mfn(TABLES + 4).maddr() | second);
        for t in 3..5 {
            for i in 0..512 {
                if !(24..=500).contains(&i) || rng.chance(5) {
                    let frame = MINE + rng.below(MINE_FRAMES);
                    let bits = match rng.below(8) {
                        0 => 0,
                        1 => 5,
                        2 => 3,
                        3 => 7 | 1 << 63,
                        4 if wild => rng.next() & 0xfff,
                        _ => 7,
                    };
                    entry(t, i, frame << 12 | bits);
                } else if wild && rng.chance(10) {
                    let value = junk(rng);
                    entry(t, i, value);
                }
            }
        }
        if !wild {
            for f in FOREIGN..FRAMES {
                for i in 0..512 {
                    machine.mem.write_u64(Mfn(f).maddr() + i * 8, PATTERN ^ i);
                }
            }
        }
        Box96 {
            machine,
            domain,
            shared: Arc::new(VcpuShared::default()),
            wild,
        }
    }

    fn untouched(&self) -> bool {
        self.wild
            || (FOREIGN..FRAMES).all(|f| {
                (0..512).all(|i| self.machine.mem.read_u64(Mfn(f).maddr() + i * 8) == Some(PATTERN ^ i))
            })
    }
}

/// An address that is mapped, or nearly, or not at all.
fn address(rng: &mut Rng) -> u64 {
    let page = match rng.below(10) {
        0..=5 => BASE + rng.below(24) * 4096,
        6 => BASE + 0x20_0000 + rng.below(24) * 4096,
        7 => 0xffff_ffff_ffff_f000 - rng.below(8) * 4096,
        8 => rng.next(),
        _ => rng.int(),
    };
    match rng.below(3) {
        0 => page.wrapping_add(rng.below(4096)),
        1 => page.wrapping_sub(rng.below(40)),
        _ => page.wrapping_add(rng.below(256) * 16),
    }
}

/// Bytes that mostly are instructions.
pub fn code(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < 400 {
        for _ in 0..rng.below(3) {
            if rng.chance(40) {
                out.push(rng.pick(&[0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x64, 0x65, 0x2e]));
            }
        }
        if rng.chance(50) {
            out.push(0x40 | rng.below(16) as u8);
        }
        match rng.below(10) {
            0..=4 => out.push(rng.next() as u8),
            5..=7 => out.extend([0x0f, rng.next() as u8]),
            8 => out.extend([0x0f, 0x38, rng.next() as u8]),
            _ => out.extend([0x0f, 0x3a, rng.next() as u8]),
        }
        // ModRM and what follows.
        let modrm = rng.next() as u8;
        out.push(modrm);
        match rng.below(4) {
            0 => {}
            1 => out.push(rng.int() as u8),
            2 => out.extend((rng.below(0x2000) as i32 - 0x1000).to_le_bytes()),
            _ => out.extend(rng.next().to_le_bytes().iter().take(rng.below(8) as usize)),
        }
    }
    out
}

/// Descriptors that mostly make sense, and selectors of them.
fn segments(machine: &Machine, cpu: &mut Cpu, rng: &mut Rng) {
    for table in DESCRIPTORS {
        for i in 0..16 {
            let (anywhere, short, any) = (rng.below(1 << 32), rng.below(0x2000), rng.below(1 << 20));
            let base = rng.pick(&[0, 0, BASE, BASE + 0x800, anywhere]);
            let limit = rng.pick(&[0xf_ffff, 0xffff, short, any]);
            let access = if rng.chance(80) {
                0xf0 | rng.below(16)
            } else {
                rng.below(256)
            };
            let high = rng.below(16);
            let sensible = limit & 0xffff
                | (base & 0xff_ffff) << 16
                | access << 40
                | (limit >> 16) << 48
                | high << 52
                | (base >> 24) << 56;
            let d = if rng.chance(95) { sensible } else { rng.next() };
            machine.mem.write_u64(table.maddr() + i * 8, d);
        }
    }
    let table = |frame: Mfn| DescTable {
        frames: std::array::from_fn(|n| (n == 0).then_some(frame)),
        entries: 16,
    };
    cpu.seg.tables.gdt = table(DESCRIPTORS[0]);
    cpu.seg.tables.ldt = table(DESCRIPTORS[1]);
    let any = |rng: &mut Rng| (rng.below(16) << 3 | rng.below(8)) as u16;
    for n in 0..6 {
        let flat = if n == 1 { FLAT_RING3_CS32 } else { FLAT_KERNEL_SS };
        cpu.seg.sel[n] = if rng.chance(50) { flat } else { any(rng) };
    }
    for r in &mut cpu.regs[..8] {
        if rng.chance(90) {
            *r &= 0xffff_ffff;
        }
        if rng.chance(20) {
            *r = u64::from(any(rng));
        }
    }
}

static PROGRESS: AtomicU64 = AtomicU64::new(0);
static CURRENT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Runs one input; panics if something is wrong with the engine.
fn run_input(data: &[u8]) {
    PROGRESS.fetch_add(1, Ordering::Relaxed);
    *CURRENT.lock().unwrap_or_else(|e| e.into_inner()) = data.to_vec();
    let mut head = [0u8; 8];
    let n = data.len().min(8);
    head[..n].copy_from_slice(&data[..n]);
    let seed = u64::from_le_bytes(head);
    let mut rng = Rng::new(seed);
    let vm = Box96::new(&mut rng, seed & WILD != 0);
    let body = &data[n..];
    let mut cpu = Cpu::new(
        vm.domain.clone(),
        vm.shared.clone(),
        domzero_machine::pv_platform(&vm.domain),
    );
    for f in MINE..MINE + MINE_FRAMES {
        // The same code begins in every frame, at different places; the rest is data.
        let at = Mfn(f).maddr() + rng.below(3600);
        vm.machine.mem.write(at, &body[..body.len().min(480)]);
    }
    cpu.set_base(Mfn(TABLES), true);
    for r in 0..16 {
        cpu.regs[r] = if rng.chance(70) {
            address(&mut rng)
        } else {
            rng.int()
        };
    }
    if rng.chance(70) {
        cpu.regs[1] = rng.below(64);
    }
    cpu.bases.fs = address(&mut rng);
    cpu.bases.gs = address(&mut rng);
    for i in 0..16 {
        cpu.fpu.xmm[i] = rng.vector(0);
    }
    cpu.fpu.mxcsr = 0x1f80;
    cpu.fpu.ts = rng.chance(5);
    cpu.set_rflags(2 | rng.next() & 0xcd5);
    rng.pick(Engine::ALL).choose(&mut cpu);
    cpu.rip = address(&mut rng);
    if seed & ALIGNED == 0 {
        cpu.set_rflags(cpu.rflags() | 1 << 18);
    }
    if seed & SEGMENTS != 0 {
        segments(&vm.machine, &mut cpu, &mut rng);
    }
    let mut total = 0i64;
    while total < 800 {
        let slice = [1, 3, 50, 1000][rng.below(4) as usize];
        cpu.budget.left = slice;
        let stop = cpu.run();
        assert!(
            cpu.budget.left >= 0 && cpu.budget.left <= slice,
            "budget {} of {slice} after {stop:?}",
            cpu.budget.left
        );
        total += (slice - cpu.budget.left).max(1);
        match stop {
            Stop::Budget => assert_eq!(cpu.budget.left, 0, "stopped early"),
            Stop::Attention => {
                cpu.shared.clear(attention::EVENT | attention::STOP);
            }
            Stop::Trap(Trap::Priv { len, .. }) => {
                assert!((1..=15).contains(&len), "length {len}");
                cpu.rip = cpu.rip.wrapping_add(u64::from(len));
            }
            Stop::Trap(Trap::Fault(f)) => {
                assert!(f.vector < 32, "{f:?}");
                assert!(
                    f.vector != 14 || f.error_code.is_some_and(|c| c & 4 != 0),
                    "{f:?}"
                );
                // Go on elsewhere, or behind it.
                cpu.rip = if rng.chance(50) {
                    cpu.rip.wrapping_add(1 + rng.below(6))
                } else {
                    address(&mut rng)
                };
            }
            Stop::Trap(_) => {}
        }
        match rng.below(50) {
            0 => cpu.flush_tlb_all_views(),
            1 => cpu.set_base(Mfn(TABLES), rng.chance(50)),
            2 => cpu.shared.request(attention::EVENT),
            3 => {
                let mfn = Mfn(rng.below(FRAMES + 4));
                let purges = [
                    Purge::AllTlb,
                    Purge::Writable(mfn),
                    Purge::Frame(mfn),
                    Purge::Code {
                        mfn,
                        start: 7,
                        end: 4096,
                    },
                ];
                cpu.shared.push_purge(rng.pick(&purges));
            }
            4 => {
                // The host writes code.
                let mfn = MINE + rng.below(MINE_FRAMES);
                let at = rng.below(4000);
                let bytes = code(&mut rng);
                vm.machine.mem.write(Mfn(mfn).maddr() + at, &bytes[..64]);
                cpu.shared.push_purge(Purge::Code {
                    mfn: Mfn(mfn),
                    start: at as u16,
                    end: at as u16 + 64,
                });
            }
            5 => rng.pick(Engine::ALL).choose(&mut cpu),
            _ => {}
        }
    }
    assert!(vm.untouched(), "memory outside of the address space has changed");
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

/// Ends the process when one input takes far too long.
fn watchdog() {
    std::thread::spawn(|| {
        let mut seen = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = PROGRESS.load(Ordering::Relaxed);
            if now == u64::MAX {
                return;
            }
            if now != seen.0 {
                seen = (now, Instant::now());
            } else if seen.1.elapsed() > Duration::from_secs(60) {
                let input = CURRENT.lock().map(|c| c.clone()).unwrap_or_default();
                let path = corpus().join("hang");
                let _ = std::fs::write(&path, input);
                eprintln!("the engine hangs; the input is in {}", path.display());
                std::process::abort();
            }
        }
    });
}

#[test]
fn hostile_bytes_and_page_tables_neither_panic_nor_hang_nor_escape() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(default)
    };
    let seed = number("DOMZERO_FUZZ_SEED", 1);
    let until = Instant::now() + Duration::from_secs(number("DOMZERO_FUZZ_SECONDS", 4));
    watchdog();
    let mut saved: Vec<_> = std::fs::read_dir(corpus())
        .map(|d| d.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    saved.sort();
    for path in saved.iter().filter(|p| p.extension().is_none()) {
        println!("corpus: {}", path.display());
        run_input(&std::fs::read(path).expect("readable corpus"));
    }
    let (mut rng, mut inputs) = (Rng::new(seed), 0u64);
    while Instant::now() < until {
        let mut data = rng.next().to_le_bytes().to_vec();
        let bytes = if rng.chance(15) {
            (0..400).map(|_| rng.next() as u8).collect()
        } else {
            code(&mut rng)
        };
        data.extend(bytes);
        if let Err(panic) = std::panic::catch_unwind(|| run_input(&data)) {
            let path = corpus().join(format!("seed{seed}-{inputs}"));
            let _ = std::fs::write(&path, &data);
            println!("seed {seed}, input {inputs}: saved as {}", path.display());
            std::panic::resume_unwind(panic);
        }
        inputs += 1;
    }
    PROGRESS.store(u64::MAX, Ordering::Relaxed);
    println!("{inputs} inputs, seed {seed}");
    assert!(inputs > 20, "only {inputs} inputs");
}
