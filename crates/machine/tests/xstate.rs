// SPDX-License-Identifier: Apache-2.0
//! xsetbv, CR4.OSXSAVE and CPUID of a guest, as Xen has them.

use domzero_machine::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS};
use domzero_machine::abi::x86::{cr4, xcr0};
use domzero_machine::testing::{TestVm, CODE, DATA, STACK_TOP};
use domzero_machine::{vector, CpuidRow, Exit, TrapGate, Vcpu};

const XSETBV: [u8; 3] = [0x0f, 0x01, 0xd1];
const XGETBV: [u8; 3] = [0x0f, 0x01, 0xd0];
const CPUID: [u8; 2] = [0x0f, 0xa2];
const FORCED: [u8; 7] = [0x0f, 0x0b, b'x', b'e', b'n', 0x0f, 0xa2];
/// vpxor ymm0, ymm0, ymm0
const VPXOR: [u8; 4] = [0xc5, 0xfd, 0xef, 0xc0];
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const HANDLERS: u64 = CODE + 0x2000;
const XSAVE: u32 = 1 << 26;
const OSXSAVE: u64 = 1 << 27;

/// mov ebx, eax; int3
const END: [u8; 3] = [0x89, 0xc3, 0xcc];

/// A vCPU whose CPUID shows these components of the state, none: no xsave. After the code eax goes to ebx.
fn vcpu(code: &[u8], components: u32) -> Vcpu {
    let mut vm = TestVm::new(&[code, &END].concat());
    for n in 0..20u64 {
        let mut stub = vec![0xb8];
        stub.extend_from_slice(&(n as u32 + 1000).to_le_bytes());
        stub.extend_from_slice(&SYSCALL);
        vm.poke(HANDLERS + 16 * n, &stub);
    }
    let mut v = Vcpu::with_cpu(vm.cpu, 0);
    for n in 0..20u8 {
        let address = HANDLERS + 16 * u64::from(n);
        let gate = TrapGate {
            cs: FLAT_KERNEL_CS,
            address,
            flags: 0,
        };
        v.set_trap(n, gate);
    }
    v.set_kernel_stack(FLAT_KERNEL_SS, STACK_TOP);
    let xsave = if components == 0 { 0 } else { XSAVE };
    let size = if components & 4 == 0 { 576 } else { 832 };
    let row = |leaf, subleaf, regs| CpuidRow {
        leaf,
        subleaf: Some(subleaf),
        regs,
    };
    let rows = vec![
        row(1, 0, [0, 0, xsave, 0]),
        row(0xd, 0, [components, size, size, 0]),
        row(0xd, 1, [7, size, 0, 0]),
    ];
    v.cpu.set_cpuid(rows);
    v
}

/// Runs to the code's end, or to the exception that ended it.
fn exception(v: &mut Vcpu) -> Option<u8> {
    match v.run(100, u64::MAX) {
        Exit::Hypercall { nr, .. } => Some((nr - 1000) as u8).filter(|&n| n != vector::BP),
        other => panic!("{other:?}"),
    }
}

/// xsetbv of XCR `register`; the exception that it raises.
fn xsetbv(v: &mut Vcpu, register: u64, value: u64) -> Option<u8> {
    v.cpu.rip = CODE;
    (v.cpu.regs[0], v.cpu.regs[1], v.cpu.regs[2]) = (value & 0xffff_ffff, register, value >> 32);
    exception(v)
}

#[test]
fn a_kernel_sets_xcr0_to_what_cpuid_shows_once_it_has_set_osxsave() {
    let mut v = vcpu(&XSETBV, 7);
    assert_eq!(xsetbv(&mut v, 0, 7), Some(vector::UD));
    v.set_cr4(cr4::INITIAL | cr4::OSXSAVE);
    assert_eq!(v.cr4() & cr4::OSXSAVE, cr4::OSXSAVE);
    assert_eq!(xsetbv(&mut v, 0, 7), None);
    assert_eq!(v.cpu.fpu.xcr0, 7);
    for (register, value) in [(0, 0), (0, 5), (0, 6), (0, 15), (0, 7 | 1 << 40), (1, 7)] {
        assert_eq!(
            xsetbv(&mut v, register, value),
            Some(vector::GP),
            "{register} {value:x}"
        );
        assert_eq!(v.cpu.fpu.xcr0, 7);
    }
    assert_eq!(xsetbv(&mut v, 0, 1), None);
    let mut bounded = vcpu(&XSETBV, 3);
    bounded.set_cr4(cr4::INITIAL | cr4::OSXSAVE);
    assert_eq!(xsetbv(&mut bounded, 0, 7), Some(vector::GP));
    assert_eq!(xsetbv(&mut bounded, 0, 3), None);
}

#[test]
fn applications_cannot_set_xcr0() {
    let mut v = vcpu(&XSETBV, 7);
    v.set_cr4(cr4::INITIAL | cr4::OSXSAVE);
    v.load_base(false, v.base(true));
    v.set_guest_kernel(false);
    assert_eq!(xsetbv(&mut v, 0, 1), Some(vector::GP));
    assert_eq!(v.cpu.fpu.xcr0, xcr0::INITIAL);
}

#[test]
fn osxsave_stays_clear_where_cpuid_shows_no_xsave() {
    let mut v = vcpu(&XGETBV, 0);
    v.set_cr4(cr4::INITIAL | cr4::OSXSAVE);
    assert_eq!(v.cr4(), cr4::INITIAL);
    assert_eq!(exception(&mut v), Some(vector::UD));
}

#[test]
fn xgetbv_shows_x87_and_sse_before_the_kernel_has_set_osxsave() {
    let mut v = vcpu(&XGETBV, 7);
    assert_eq!(exception(&mut v), None);
    assert_eq!((v.cpu.regs[3], v.cpu.regs[2]), (3, 0));
}

#[test]
fn avx_is_undefined_until_xcr0_has_it() {
    let mut v = vcpu(&VPXOR, 7);
    assert_eq!(exception(&mut v), Some(vector::UD));
    v.cpu.rip = CODE;
    assert!(v.cpu.set_xcr0(7));
    assert_eq!(exception(&mut v), None);
}

#[test]
fn cpuid_shows_osxsave_with_cr4_and_to_a_kernel_that_asks_xen() {
    let ecx = |code: &[u8], kernel: bool, osxsave: bool, components: u32| {
        // mov eax, 1; xor ecx, ecx; cpuid; mov eax, ecx
        let code = [&[0xb8, 1, 0, 0, 0, 0x31, 0xc9], code, &[0x89, 0xc8]].concat();
        let mut v = vcpu(&code, components);
        v.load_base(false, v.base(true));
        if osxsave {
            v.set_cr4(cr4::INITIAL | cr4::OSXSAVE);
        }
        v.set_guest_kernel(kernel);
        v.run(4, u64::MAX);
        v.cpu.regs[0] & OSXSAVE != 0
    };
    assert!(!ecx(&CPUID, true, false, 7));
    assert!(ecx(&CPUID, true, true, 7));
    assert!(ecx(&FORCED, true, false, 7));
    assert!(!ecx(&FORCED, true, true, 0));
    assert!(!ecx(&FORCED, false, false, 7));
    assert!(ecx(&FORCED, false, true, 7));
}

#[test]
fn the_size_of_the_area_follows_xcr0() {
    let mut v = vcpu(&[], 7);
    for (value, size) in [(1, 576), (3, 576), (7, 832)] {
        assert!(v.cpu.set_xcr0(value));
        assert_eq!(v.cpu.cpuid(0xd, 0), [7, size, 832, 0]);
        assert_eq!(v.cpu.cpuid(0xd, 1), [7, size, 0, 0]);
    }
}

#[test]
fn xsave_needs_a_processor_whose_fpu_is_switched_on() {
    // xsave [rsi]
    let mut v = vcpu(&[0x0f, 0xae, 0x26], 7);
    v.cpu.regs[6] = DATA;
    v.cpu.regs[0] = 7;
    v.cpu.fpu.ts = true;
    assert_eq!(exception(&mut v), Some(vector::NM));
}
