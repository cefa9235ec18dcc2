// SPDX-License-Identifier: Apache-2.0
//! The bare machine of `domzero lab`, and that no PV guest gets into its ring 0.

use domzero_machine::abi::selector::{FLAT_COMPAT_RING1_CS, FLAT_KERNEL_SS, XEN_CS64};
use domzero_machine::bare::{Bare, Outcome, Table};
use domzero_machine::testing::TestVm;
use domzero_machine::{Clock, Exit, Fault, Machine, Mfn, Vcpu};

const CODE: u64 = 0x40_0000;
const TABLES: u64 = 0x41_0000;
const STACK: u64 = 0x42_0000;
const IF: u64 = 1 << 9;
const KERNEL_CS: u16 = 0x08;
const USER_CS: u16 = 0x1b;
const USER_SS: u16 = 0x23;

/// Code in ring 0, with a GDT, an IDT whose gates all lead to CODE + 0x800, and a stack.
fn bare(code: &[u8]) -> Bare {
    let machine = Machine::new(4096, 1, Clock::virtual_at(0)).expect("machine memory");
    let mut b = Bare::new(&machine, 1);
    let frames = b.domain().alloc(16).expect("frames");
    let mem = &machine.mem;
    let at = |n: usize| frames[n].maddr();
    mem.write_u64(at(0), at(1) | 7);
    mem.write_u64(at(1), at(2) | 7);
    mem.write_u64(at(2) + 16, at(3) | 7);
    for (n, page) in [(4, 0), (5, 0x10), (6, 0x11), (7, 0x1f), (8, 0x20)] {
        mem.write_u64(at(3) + page * 8, at(n) | 7);
    }
    mem.write(at(4), code);
    b.load_base(frames[0]);
    let gdt: [u64; 8] = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x0000_8900_0000_0067 | (TABLES + 0x800) << 16,
        0,
        0,
    ];
    for (n, d) in gdt.iter().enumerate() {
        mem.write_u64(at(5) + n as u64 * 8, *d);
    }
    mem.write(at(5) + 0x804, &(STACK + 0x800).to_le_bytes());
    for vector in 0..256u64 {
        let gate = (CODE + 0x800) & 0xffff | 0x08 << 16 | 0x8e00 << 32 | ((CODE + 0x800) >> 16) << 48;
        mem.write_u64(at(6) + vector * 16, gate);
    }
    b.load_gdt(Table {
        base: TABLES,
        limit: 63,
    })
    .expect("a GDT at a page boundary");
    b.idtr = Table {
        base: TABLES + 0x1000,
        limit: 0xfff,
    };
    b.tss = Table {
        base: TABLES + 0x800,
        limit: 0x67,
    };
    b.cpu.seg.sel = [0, KERNEL_CS, 0x10, 0, 0, 0];
    b.cpu.rip = CODE;
    b.cpu.regs[4] = STACK;
    b.cpu.set_rflags(2 | IF);
    b
}

fn to_ring3(b: &mut Bare) {
    b.cpu.seg.sel[1] = USER_CS;
    b.cpu.seg.sel[2] = USER_SS;
    b.set_cpl(3);
}

#[test]
fn cli_clears_the_flag_in_ring_0_and_faults_in_ring_3() {
    let mut b = bare(&[0xfa]);
    assert_eq!(b.step(), Outcome::Executed);
    assert_eq!(b.cpu.rflags() & IF, 0);
    let mut b = bare(&[0xfa]);
    to_ring3(&mut b);
    assert_eq!(
        b.step(),
        Outcome::Raised {
            fault: Fault::gp(),
            entered: true
        }
    );
    assert_eq!(
        (b.cpu.cpl, b.cpu.seg.sel[1], b.cpu.rip),
        (0, KERNEL_CS, CODE + 0x800)
    );
    // Error code, rip, cs, rflags, rsp, ss, on the stack that the TSS names.
    let mut frame = [0u8; 48];
    b.read(b.cpu.regs[4], &mut frame).expect("the frame");
    assert_eq!(b.cpu.regs[4], STACK + 0x800 - 48);
    assert_eq!(frame[8..16], CODE.to_le_bytes());
    assert_eq!(frame[16..18], USER_CS.to_le_bytes());
    assert_eq!(frame[40..42], USER_SS.to_le_bytes());
}

#[test]
fn popf_changes_the_interrupt_flag_in_ring_0_only() {
    for (ring, kept) in [(0, 0), (3, IF)] {
        let mut b = bare(&[0x6a, 0x02, 0x9d]);
        if ring == 3 {
            to_ring3(&mut b);
        }
        assert_eq!((b.step(), b.step()), (Outcome::Executed, Outcome::Executed));
        assert_eq!(b.cpu.rflags() & IF, kept, "ring {ring}");
    }
}

#[test]
fn iret_and_a_fault_go_to_ring_3_and_back() {
    let mut b = bare(&[0x48, 0xcf]);
    let frame = [CODE + 2, USER_CS.into(), IF | 2, STACK + 0x100, USER_SS.into()];
    let bytes: Vec<u8> = frame.iter().flat_map(|w: &u64| w.to_le_bytes()).collect();
    b.cpu.regs[4] = STACK + 0x200;
    b.write(STACK + 0x200, &bytes).expect("stack");
    assert_eq!(b.step(), Outcome::Executed);
    assert_eq!(
        (b.cpu.cpl, b.cpu.rip, b.cpu.regs[4]),
        (3, CODE + 2, STACK + 0x100)
    );
    // Two zero bytes: add %al,(%rax), and nothing is mapped at 0.
    match b.step() {
        Outcome::Raised { fault, entered: true } => {
            assert_eq!((fault.vector, fault.error_code, b.cr2), (14, Some(6), 0))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(b.cpu.cpl, 0);
}

#[test]
fn without_any_handler_the_processor_shuts_down() {
    let mut b = bare(&[0x0f, 0x0b]);
    b.idtr = Table::default();
    assert!(matches!(b.run(10), Some(Outcome::TripleFault { fault }) if fault.vector == 6));
}

#[test]
fn a_domain_of_the_bare_machine_gives_its_frames_back() {
    let machine = Machine::new(4096, 1, Clock::virtual_at(0)).expect("machine memory");
    let before = machine.free_frames();
    let b = Bare::new(&machine, 1);
    b.domain().alloc(100).expect("frames");
    drop(b);
    assert_eq!(machine.free_frames(), before);
    let mut b = Bare::new(&machine, 1);
    b.load_base(Mfn(u64::MAX >> 12));
    assert!(matches!(b.step(), Outcome::TripleFault { .. }));
}

#[test]
fn a_pv_vcpu_runs_nothing_in_ring_0() {
    let mut vm = TestVm::new(&[0x90]);
    vm.cpu.cpl = 0;
    let mut v = Vcpu::with_cpu(vm.cpu, 0);
    assert!(matches!(v.run(1, u64::MAX), Exit::Unsupported(_)));
    assert_eq!(v.instructions(), 0);
}

#[test]
fn no_far_transfer_of_a_pv_guest_reaches_ring_0() {
    // Each with Xen's ring 0 code selector, which is in every guest's GDT: retfq, iretq, and jmp through memory.
    for code in [&[0x48, 0xcb][..], &[0x48, 0xcf], &[0x48, 0xff, 0x2c, 0x24]] {
        for selector in [XEN_CS64, XEN_CS64 | 3, FLAT_COMPAT_RING1_CS].map(u64::from) {
            let mut vm = TestVm::new(code);
            let top = domzero_machine::testing::STACK_TOP - 64;
            let words = [
                domzero_machine::testing::CODE,
                selector,
                0x202,
                top,
                u64::from(FLAT_KERNEL_SS),
            ];
            for (n, w) in words.iter().enumerate() {
                vm.poke(top + 8 * n as u64, &w.to_le_bytes());
            }
            vm.cpu.regs[4] = top;
            let mut v = Vcpu::with_cpu(vm.cpu, 0);
            v.run(1, u64::MAX);
            assert_eq!((v.cpu.cpl, v.cpu.seg.sel[1] & 3), (3, 3));
        }
    }
}

#[test]
fn all_of_the_address_space_is_the_kernels() {
    // A PV guest finds the machine-to-phys table here, and can map nothing.
    const HIGH: u64 = 0xffff_8000_0000_0000;
    let mut b = bare(&[0x90, 0xf4]);
    let l4 = b.cpu.base().expect("a base").maddr();
    let mem = &b.domain().machine.mem;
    mem.write_u64(l4 + 256 * 8, mem.read_u64(l4).expect("an entry"));
    let mut code = [0; 2];
    assert_eq!(b.read(HIGH + CODE, &mut code), Ok(()));
    assert_eq!(code, [0x90, 0xf4]);
}
