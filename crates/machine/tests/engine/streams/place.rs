// SPDX-License-Identifier: Apache-2.0
//! The address space of random streams: code that cannot be written and code that can, data on both sides of every kind of
//! edge, aliases, and both halves of the canonical addresses.

use super::narrow::TOP;
use super::program::Program;
use crate::engines::Engine;
use crate::rng::Rng;
use domzero_machine::abi::pte::ADDR;
use domzero_machine::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, FLAT_RING3_CS32, FLAT_RING3_DS32};
use domzero_machine::abi::x86::xcr0;
use domzero_machine::testing::{pte, TestVm, CODE, DATA, RO, RWX, STACK_TOP};
use domzero_machine::{attention, Clock, Cpu, CpuidRow, Domain, Machine, Mfn, Stop, VcpuShared};
use iced_x86::{Decoder, DecoderOptions, Instruction};
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

const RW: u64 = pte::P | pte::US | pte::RW | pte::NX;

/// First frame of a machine's tables and pages; there are never more than `FRAMES` in use.
const FIRST: u64 = 256;
const FRAMES: u64 = 112;

/// Code of a kernel's half, not writable.
pub const HIGH_CODE: u64 = 0xffff_ffff_8100_0000;
/// Data of a kernel's half.
pub const HIGH_DATA: u64 = 0xffff_8880_0001_0000;
/// The last page of the lower half, and the last of all.
pub const EDGES: [u64; 2] = [0x7fff_ffff_f000, 0xffff_ffff_ffff_f000];
/// The first two pages of `DATA`, again.
pub const DATA_ALIAS: u64 = 0xa0_0000;
/// The pages at `RWX`, again, as data.
pub const CODE_ALIAS: u64 = 0xb0_0000;
/// What the second CPU runs.
const SECOND_CODE: u64 = 0xc0_0000;
/// Page before [`RO`]: writable data up to an edge of what can only be read.
const BEFORE_RO: u64 = RO - 4096;
/// Pointers to functions, in [`RO`].
pub const TABLE: u64 = RO + 0x40;

/// A run of pages.
#[derive(Clone, Copy)]
pub struct Region {
    pub va: u64,
    pub pages: u64,
}

const fn region(va: u64, pages: u64) -> Region {
    Region { va, pages }
}

/// Where code of streams may lie.
pub const CODE_REGIONS: [Region; 3] = [region(CODE, 16), region(RWX, 4), region(HIGH_CODE, 4)];

/// Where pointers of streams point.
pub const DATA_REGIONS: [Region; 7] = [
    region(DATA, 4),
    region(BEFORE_RO, 1),
    region(RO, 1),
    region(STACK_TOP - 4 * 4096, 4),
    region(DATA_ALIAS, 2),
    region(HIGH_DATA, 3),
    region(CODE_ALIAS, 4),
];

/// One machine with its CPU.
pub struct Place {
    pub vm: TestVm,
    pub engine: Engine,
    /// The width of the code.
    bits: u32,
    /// Another CPU of the domain, if something asked for it.
    second: Option<Another>,
    seen: Vec<u8>,
}

impl Place {
    pub fn new(engine: Engine) -> Place {
        let machine =
            Machine::new(FIRST + FRAMES + 16, 1, Clock::virtual_at(1_000_000)).expect("a small machine");
        let mut vm = TestVm::in_domain(Domain::new(machine, 1), &[], FIRST);
        vm.map(RWX + 2 * 4096, 2, pte::P | pte::US | pte::RW);
        vm.map(HIGH_CODE, 4, pte::P | pte::US);
        vm.map(SECOND_CODE, 1, pte::P | pte::US);
        vm.map(BEFORE_RO, 1, RW);
        vm.map(HIGH_DATA, 3, RW);
        for va in EDGES {
            vm.map(va, 1, RW);
        }
        for (alias, va, pages) in [(DATA_ALIAS, DATA, 2), (CODE_ALIAS, RWX, 4)] {
            for i in 0..pages {
                let frame = vm.maddr(va + i * 4096) >> 12;
                vm.map_frame(alias + i * 4096, Mfn(frame), RW);
            }
        }
        // mov [rdi], rax; int3; mov [rdi], al; int3
        vm.poke(SECOND_CODE, &[0x48, 0x89, 0x07, 0xcc, 0x88, 0x07, 0xcc]);
        vm.cpu.set_cpuid(
            [
                (0, [7, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
                (1, [0x1234, 0x5678_0000, 0x8400_0001, 0x0f8b_fbff]),
                (7, [0, 8, 0, 0]),
                (0xd, [7, 832, 832, 0]),
            ]
            .map(|(leaf, regs)| CpuidRow {
                leaf,
                subleaf: None,
                regs,
            })
            .to_vec(),
        );
        assert!(vm.cpu.set_xcr0(xcr0::ALL));
        engine.choose(&mut vm.cpu);
        Place {
            vm,
            engine,
            bits: 64,
            second: None,
            seen: vec![0; (FRAMES * 4096) as usize],
        }
    }

    /// Puts the program where it is to be, and numbers that follow from `data` everywhere else.
    pub fn load(&mut self, program: &Program, data: u64) {
        let mut rng = Rng::new(data);
        for Region { va, pages, .. } in DATA_REGIONS {
            let bytes: Vec<u8> = (0..pages * 512)
                .flat_map(|_| if rng.chance(50) { rng.int() } else { rng.f64_bits() }.to_le_bytes())
                .collect();
            self.vm.poke_pages(va, &bytes);
        }
        for Region { va, pages, .. } in CODE_REGIONS {
            self.vm.poke_pages(va, &vec![0x90; pages as usize * 4096]);
        }
        for (va, bytes) in &program.chunks {
            self.vm.poke(*va, bytes);
        }
        for (i, f) in program.functions.iter().enumerate() {
            self.vm.poke(TABLE + i as u64 * 8, &f.to_le_bytes());
        }
        self.vm.cpu.rip = program.start;
        self.bits = program.bits;
        if self.bits == 32 {
            self.vm.map(TOP, 1, RW);
            self.vm.map(0, 1, RW);
            self.select(program);
        }
    }

    /// The segments are those of flat 32-bit code again: of some programs without fs or gs.
    pub fn select(&mut self, program: &Program) {
        if self.bits == 64 {
            return;
        }
        let cpu = &mut self.vm.cpu;
        let without = |bit: u64| program.start >> bit & 3 == 0;
        let [fs, gs] = [2, 4].map(|bit| if without(bit) { 0 } else { FLAT_RING3_DS32 });
        let data = FLAT_RING3_DS32;
        cpu.seg.sel = [data, FLAT_RING3_CS32, data, data, fs, gs];
        // They are loaded before the bases are set.
        cpu.budget.left = 0;
        let _ = cpu.run();
    }

    /// Runs at most `limit` instructions, whatever asks for attention meanwhile; why it stopped, and what is left.
    pub fn run(&mut self, limit: i64) -> (Stop, i64) {
        let cpu = &mut self.vm.cpu;
        cpu.budget.left = limit;
        loop {
            match cpu.run() {
                Stop::Attention => {
                    cpu.shared.clear(attention::EVENT | attention::STOP);
                    cpu.apply_purges();
                }
                stop => return (stop, cpu.budget.left),
            }
        }
    }

    /// Where the leaf entry of `va` is, if there are tables for it.
    pub fn entry(&self, va: u64) -> Option<u64> {
        let mem = &self.vm.machine.mem;
        let mut table = self.vm.l4.maddr();
        for shift in [39, 30, 21] {
            let e = mem.read_u64(table | (va >> shift & 511) << 3)?;
            if e & pte::P == 0 {
                return None;
            }
            table = e & ADDR;
        }
        Some(table | (va >> 12 & 511) << 3)
    }

    /// Machine address behind `va`, if it is mapped.
    pub fn maddr(&self, va: u64) -> Option<u64> {
        let e = self.vm.machine.mem.read_u64(self.entry(va)?)?;
        (e & pte::P != 0).then_some(e & ADDR | va & 0xfff)
    }

    /// The bytes at `va`, as many as an instruction may have and as are mapped.
    pub fn bytes(&self, va: u64) -> Vec<u8> {
        let mut bytes = vec![0u8; 15];
        let mut n = 0;
        while n < bytes.len() {
            let at = va.wrapping_add(n as u64);
            let room = (4096 - (at & 0xfff) as usize).min(bytes.len() - n);
            let Some(maddr) = self.maddr(at) else { break };
            self.vm.machine.mem.read(maddr, &mut bytes[n..n + room]);
            n += room;
        }
        bytes.truncate(n);
        bytes
    }

    /// What is about to be executed at `va`, or something invalid.
    pub fn instruction(&self, va: u64) -> Instruction {
        Decoder::with_ip(self.bits, &self.bytes(va), va, DecoderOptions::AMD).decode()
    }

    /// A new CPU of the domain.
    pub fn another(&self) -> Another {
        let domain = self.vm.domain.clone();
        let platform = domzero_machine::pv_platform(&domain);
        let mut cpu = Cpu::new(domain, Arc::new(VcpuShared::default()), platform);
        cpu.set_base(self.vm.l4, true);
        cpu.seg.sel = [0, FLAT_KERNEL_CS, FLAT_KERNEL_SS, 0, 0, 0];
        cpu.set_rflags(0x202);
        self.engine.choose(&mut cpu);
        Another { cpu }
    }

    /// The other CPU of the domain stores `value`, on a thread of its own.
    pub fn store_by_another(&mut self, va: u64, value: u64, wide: bool) {
        let mut another = self.second.take().unwrap_or_else(|| self.another());
        std::thread::scope(|s| {
            s.spawn(|| another.store(va, value, wide));
        });
        self.second = Some(another);
    }

    /// What another CPU has in its own translations is forgotten.
    pub fn flush_second(&mut self, va: u64) {
        if let Some(another) = &mut self.second {
            another.cpu.invlpg(va);
        }
    }

    /// Tells how another engine's processor differs, but for flags that are not defined.
    pub fn compare_cpu(&self, other: &Place, undefined: u64, out: &mut String) {
        let (a, b) = (&*self.vm.cpu, &*other.vm.cpu);
        let mut differs = |name: &str, x: String, y: String| {
            if x != y {
                let _ = writeln!(out, "    {name}: oracle {x} engine {y}");
            }
        };
        if a.regs != b.regs {
            for (i, name) in NAMES.iter().enumerate() {
                differs(name, format!("{:#x}", a.regs[i]), format!("{:#x}", b.regs[i]));
            }
        }
        let exact = other.engine.is_exact() || strict();
        let mask = !if exact { 0 } else { undefined };
        differs("rip", format!("{:#x}", a.rip), format!("{:#x}", b.rip));
        differs(
            "rflags",
            format!("{:#x}", a.rflags() & mask),
            format!("{:#x}", b.rflags() & mask),
        );
        if a.fpu.xmm != b.fpu.xmm {
            for i in 0..16 {
                let text = |c: &Cpu| format!("{:#034x}", c.fpu.xmm[i]);
                differs(&format!("xmm{i}"), text(a), text(b));
            }
        }
        if a.fpu.ymm_hi != b.fpu.ymm_hi {
            for i in 0..16 {
                let text = |c: &Cpu| format!("{:#034x}", c.fpu.ymm_hi[i]);
                differs(&format!("upper half of ymm{i}"), text(a), text(b));
            }
        }
        differs(
            "mxcsr",
            format!("{:#x}", a.fpu.mxcsr),
            format!("{:#x}", b.fpu.mxcsr),
        );
        differs("x87", format!("{:x?}", a.fpu.x87), format!("{:x?}", b.fpu.x87));
        let debug = |c: &Cpu| {
            let d = &c.debug;
            format!("dr6 {:#x} hit {:#x} resume {}", d.dr6, d.hit, d.resume)
        };
        differs("debug", debug(a), debug(b));
        let bases = |c: &Cpu| format!("fs {:#x} gs {:#x}", c.bases.fs, c.bases.gs);
        differs("bases", bases(a), bases(b));
        differs(
            "selectors",
            format!("{:x?}", a.seg.sel),
            format!("{:x?}", b.seg.sel),
        );
    }

    /// The same of what lies in memory, page tables included.
    pub fn compare_memory(&mut self, other: &mut Place, out: &mut String) {
        let at = FIRST * 4096;
        self.vm.machine.mem.read(at, &mut self.seen);
        other.vm.machine.mem.read(at, &mut other.seen);
        if self.seen != other.seen {
            let words = self.seen.chunks(8).zip(other.seen.chunks(8)).enumerate();
            for (n, (x, y)) in words.filter(|(_, (x, y))| x != y).take(4) {
                let _ = writeln!(
                    out,
                    "    memory at {:#x} ({}): oracle {x:02x?} engine {y:02x?}",
                    at + n as u64 * 8,
                    self.name_of(at + n as u64 * 8),
                );
            }
        }
    }

    /// What lies at a machine address.
    fn name_of(&self, maddr: u64) -> String {
        let regions = CODE_REGIONS.iter().chain(&DATA_REGIONS);
        let pages = regions.flat_map(|r| (0..r.pages).map(|i| r.va + i * 4096));
        for va in pages.chain(EDGES) {
            if self.maddr(va).is_some_and(|m| m >> 12 == maddr >> 12) {
                return format!("{:#x}", va + (maddr & 0xfff));
            }
        }
        "a page table".into()
    }
}

/// A CPU that does nothing but store.
pub struct Another {
    cpu: Box<Cpu>,
}

impl Another {
    /// Stores eight bytes, or one, unless that faults.
    pub fn store(&mut self, va: u64, value: u64, wide: bool) {
        let cpu = &mut *self.cpu;
        cpu.regs[0] = value;
        cpu.regs[7] = va;
        cpu.rip = SECOND_CODE + if wide { 0 } else { 4 };
        loop {
            cpu.budget.left = 2;
            match cpu.run() {
                Stop::Attention | Stop::Budget => {}
                Stop::Trap(_) => break,
            }
        }
    }
}

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// Whether flags that are not defined must agree, too.
fn strict() -> bool {
    static STRICT: OnceLock<bool> = OnceLock::new();
    *STRICT.get_or_init(|| std::env::var_os("DOMZERO_ORACLE_STRICT").is_some())
}
