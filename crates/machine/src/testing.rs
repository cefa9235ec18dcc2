// SPDX-License-Identifier: Apache-2.0
//! A small machine with a flat address space, for tests of instructions.

use crate::abi::pte as entry;
use crate::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS};
use crate::clock::Clock;
use crate::cpu::fault::Trap;
use crate::cpu::{Cpu, Stop};
use crate::frames::{Domain, Machine};
use crate::mem::Mfn;
use crate::shared::VcpuShared;
use std::sync::Arc;

pub use crate::cpu::x87state::F80;

/// Where `TestVm::new` puts the code (readable, executable, not writable).
pub const CODE: u64 = 0x40_0000;
/// Four pages of writable data, not executable; the page after them is not mapped.
pub const DATA: u64 = 0x60_0000;
/// One page that can only be read.
pub const RO: u64 = 0x70_0000;
/// Top of a writable stack of four pages.
pub const STACK_TOP: u64 = 0x80_0000;
/// Two pages that are writable and executable.
pub const RWX: u64 = 0x90_0000;
/// Pages of code.
pub const CODE_PAGES: u64 = 16;

/// Bits of page-table entries.
pub mod pte {
    pub use crate::abi::pte::{NX, P, RW, USER as US};
}

/// Whether the engine executes this form of an instruction.
pub fn executes(code: iced_x86::Code) -> bool {
    crate::cpu::exec::lookup(code).is_some()
}

/// A domain with one CPU at CPL 3 in 64-bit mode, whose page tables map the regions above.
pub struct TestVm {
    /// A machine of its own.
    pub machine: Arc<Machine>,
    /// The only domain.
    pub domain: Arc<Domain>,
    /// Its processor, whose code begins at [`CODE`].
    pub cpu: Box<Cpu>,
    /// The root of its page tables.
    pub l4: Mfn,
    next_frame: u64,
}

impl TestVm {
    /// Code at [`CODE`], rip at its start, rsp at [`STACK_TOP`].
    ///
    /// Panics when there is no memory: for tests only.
    pub fn new(code: &[u8]) -> TestVm {
        let machine = Machine::new(4096, 1, Clock::virtual_at(0)).expect("machine memory");
        TestVm::in_domain(Domain::new(machine, 1), code, 2048)
    }

    /// The same with another CPU of `domain`, in frames from `first_frame` on.
    pub fn in_domain(domain: Arc<Domain>, code: &[u8], first_frame: u64) -> TestVm {
        let shared = Arc::new(VcpuShared::default());
        let cpu = Cpu::new(domain.clone(), shared, crate::pv::platform(&domain));
        let mut vm = TestVm {
            machine: domain.machine.clone(),
            domain,
            cpu,
            l4: Mfn(first_frame),
            next_frame: first_frame + 1,
        };
        vm.map(CODE, CODE_PAGES, pte::P | pte::US);
        vm.map(DATA, 4, pte::P | pte::US | pte::RW | pte::NX);
        vm.map(RO, 1, pte::P | pte::US | pte::NX);
        vm.map(STACK_TOP - 4 * 4096, 4, pte::P | pte::US | pte::RW | pte::NX);
        vm.map(RWX, 2, pte::P | pte::US | pte::RW);
        vm.poke(CODE, code);
        vm.cpu.set_base(vm.l4, true);
        vm.cpu.rip = CODE;
        vm.cpu.regs[4] = STACK_TOP;
        vm.cpu.seg.sel = [0, FLAT_KERNEL_CS, FLAT_KERNEL_SS, 0, 0, 0];
        vm.cpu.set_rflags(0x202);
        vm
    }

    fn frame(&mut self) -> Mfn {
        self.next_frame += 1;
        Mfn(self.next_frame - 1)
    }

    /// Maps fresh zeroed frames at `va` with the leaf bits `bits`.
    pub fn map(&mut self, va: u64, pages: u64, bits: u64) {
        for i in 0..pages {
            let mfn = self.frame();
            self.map_frame(va + i * 4096, mfn, bits);
        }
    }

    /// Maps one frame; `bits` 0 unmaps. Does not flush anything.
    pub fn map_frame(&mut self, va: u64, mfn: Mfn, bits: u64) {
        let at = self.pte_maddr(va);
        self.machine
            .mem
            .write_u64(at, if bits == 0 { 0 } else { mfn.maddr() | bits });
    }

    /// Machine address of the leaf entry of `va`, with tables made as needed.
    pub fn pte_maddr(&mut self, va: u64) -> u64 {
        let mut table = self.l4;
        for shift in [39, 30, 21] {
            let at = table.maddr() | (va >> shift & 511) << 3;
            let e = self.machine.mem.read_u64(at).unwrap_or(0);
            table = if e & pte::P != 0 {
                Mfn(entry::mfn(e))
            } else {
                let t = self.frame();
                self.machine
                    .mem
                    .write_u64(at, t.maddr() | pte::P | pte::RW | pte::US);
                t
            };
        }
        table.maddr() | (va >> 12 & 511) << 3
    }

    /// Machine address behind `va`, by its leaf entry.
    pub fn maddr(&mut self, va: u64) -> u64 {
        let at = self.pte_maddr(va);
        let e = self.machine.mem.read_u64(at).unwrap_or(0);
        (e & entry::ADDR) | (va & 0xfff)
    }

    /// Writes memory behind the engine's back (before anything ran), whatever the mapping allows.
    pub fn poke(&mut self, va: u64, bytes: &[u8]) {
        for (i, b) in bytes.iter().enumerate() {
            let at = self.maddr(va + i as u64);
            self.machine.mem.write(at, &[*b]);
        }
    }

    /// As `poke`, page by page: for much at once.
    pub fn poke_pages(&mut self, va: u64, bytes: &[u8]) {
        for (i, page) in bytes.chunks(4096).enumerate() {
            let at = self.maddr(va + i as u64 * 4096);
            self.machine.mem.write(at, page);
        }
    }

    /// Reads memory, whatever the mapping allows.
    pub fn peek(&mut self, va: u64, len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| {
                let mut b = [0];
                let at = self.maddr(va + i as u64);
                self.machine.mem.read(at, &mut b);
                b[0]
            })
            .collect()
    }

    /// Reads a number of 64 bits as [`TestVm::peek`] does.
    pub fn peek_u64(&mut self, va: u64) -> u64 {
        u64::from_le_bytes(self.peek(va, 8).try_into().unwrap_or([0; 8]))
    }

    /// Runs at most `n` instructions.
    pub fn run(&mut self, n: i64) -> Stop {
        self.cpu.budget.left = n;
        self.cpu.run()
    }

    /// Runs `n` instructions that must all complete.
    pub fn run_ok(&mut self, n: i64) {
        let stop = self.run(n);
        assert_eq!(stop, Stop::Budget, "rip {:#x}", self.cpu.rip);
    }

    /// Runs until a trap, at most a million instructions.
    pub fn run_to_trap(&mut self) -> Trap {
        match self.run(1_000_000) {
            Stop::Trap(t) => t,
            s => panic!("no trap: {s:?} at {:#x}", self.cpu.rip),
        }
    }
}
