// SPDX-License-Identifier: Apache-2.0
//! Encodings of 64-bit code that processors of AMD and of Intel decode differently, each as its manual has it (AMD64
//! Architecture Programmer's Manual volume 3: CALL, JMP, RET, Jcc, LOOP, LSS; Intel SDM volume 2, the same), on any host.
//! And what their manuals leave open, where the engine does what AMD's processors do: `engine/intel.rs` has what Intel's
//! do instead.

use domzero_machine::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, FLAT_RING3_CS32};
use domzero_machine::testing::F80;
use domzero_machine::testing::{TestVm, CODE, DATA, RO, STACK_TOP};
use domzero_machine::Vendor::{self, Amd, Intel};
use domzero_machine::{vector, CpuidRow, Fault, Stop, Trap};

const RAX: usize = 0;
const RCX: usize = 1;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;
const SP: u64 = STACK_TOP - 64;
const CS64: u16 = FLAT_KERNEL_CS;
const SS: u16 = FLAT_KERNEL_SS;

fn vm(vendor: Vendor, slow: bool, code: &[u8]) -> TestVm {
    let mut vm = TestVm::new(code);
    vm.cpu.set_vendor(vendor);
    vm.cpu.set_slow_only(slow);
    vm.cpu.regs[RSP] = SP;
    vm
}

/// Runs `code` as one instruction in all ways; gives what `f` makes of it.
fn each(vendor: Vendor, code: &[u8], prepare: impl Fn(&mut TestVm), check: impl Fn(&mut TestVm)) {
    for slow in [false, true] {
        for single in [false, true] {
            let mut vm = vm(vendor, slow, code);
            prepare(&mut vm);
            if single {
                vm.cpu.set_rflags(vm.cpu.rflags() | 0x100);
                assert!(
                    matches!(vm.run(1), Stop::Trap(Trap::Fault(f)) if f.vector == 1),
                    "{code:x?}"
                );
            } else {
                vm.run_ok(1);
            }
            check(&mut vm);
        }
    }
}

fn goes_to(vendor: Vendor, code: &[u8], prepare: impl Fn(&mut TestVm), rip: u64, rsp: u64) {
    each(vendor, code, prepare, |vm| {
        assert_eq!((vm.cpu.rip, vm.cpu.regs[RSP]), (rip, rsp), "{vendor:?} {code:x?}");
    });
}

const NOTHING: fn(&mut TestVm) = |_| {};

#[test]
fn a_66_prefix_cuts_the_target_of_a_direct_branch_on_amd_and_is_ignored_on_intel() {
    let low = |rip: u64| rip & 0xffff;
    goes_to(Amd, &[0x66, 0xe9, 0x10, 0x00], NOTHING, low(CODE + 0x14), SP);
    goes_to(Intel, &[0x66, 0xe9, 0x10, 0, 0, 0], NOTHING, CODE + 0x16, SP);
    goes_to(Amd, &[0x66, 0xeb, 0x10], NOTHING, low(CODE + 0x13), SP);
    goes_to(Intel, &[0x66, 0xeb, 0x10], NOTHING, CODE + 0x13, SP);
    goes_to(Amd, &[0x66, 0xe8, 0x10, 0x00], NOTHING, low(CODE + 0x14), SP - 2);
    goes_to(Intel, &[0x66, 0xe8, 0x10, 0, 0, 0], NOTHING, CODE + 0x16, SP - 8);
    // REX.W is stronger than the prefix.
    goes_to(Amd, &[0x66, 0x48, 0xeb, 0x10], NOTHING, CODE + 0x14, SP);
    let zero: fn(&mut TestVm) = |vm| vm.cpu.set_rflags(0x242);
    for (vendor, rip) in [(Amd, low(CODE + 0x13)), (Intel, CODE + 0x13)] {
        goes_to(vendor, &[0x66, 0x74, 0x10], zero, rip, SP);
        goes_to(vendor, &[0x66, 0x75, 0x10], zero, CODE + 3, SP);
        let two: fn(&mut TestVm) = |vm| vm.cpu.regs[RCX] = 2;
        goes_to(vendor, &[0x66, 0xe2, 0x10], two, rip, SP);
        goes_to(vendor, &[0x66, 0xe3, 0x10], |vm| vm.cpu.regs[RCX] = 0, rip, SP);
        // 32 bits of the counter, with the upper ones set.
        let upper: fn(&mut TestVm) = |vm| vm.cpu.regs[RCX] = 1 << 32;
        let rip = if vendor == Amd {
            low(CODE + 0x14)
        } else {
            CODE + 0x14
        };
        goes_to(vendor, &[0x66, 0x67, 0xe3, 0x10], upper, rip, SP);
    }
}

#[test]
fn a_66_prefix_makes_the_operand_of_an_indirect_branch_16_bits_wide_on_amd_only() {
    let rax: fn(&mut TestVm) = |vm| vm.cpu.regs[RAX] = CODE + 0x20;
    let low = (CODE + 0x20) & 0xffff;
    goes_to(Amd, &[0x66, 0xff, 0xe0], rax, low, SP);
    goes_to(Intel, &[0x66, 0xff, 0xe0], rax, CODE + 0x20, SP);
    goes_to(Amd, &[0x66, 0xff, 0xd0], rax, low, SP - 2);
    goes_to(Intel, &[0x66, 0xff, 0xd0], rax, CODE + 0x20, SP - 8);
    let stack: fn(&mut TestVm) = |vm| vm.poke(SP, &(CODE + 0x20).to_le_bytes());
    goes_to(Amd, &[0x66, 0xc3], stack, low, SP + 2);
    goes_to(Intel, &[0x66, 0xc3], stack, CODE + 0x20, SP + 8);
}

#[test]
fn a_pushed_return_address_has_16_bits_on_amd() {
    each(
        Amd,
        &[0x66, 0xe8, 0x10, 0x00],
        |vm| vm.poke(SP - 8, &[0xee; 8]),
        |vm| {
            let mut want = vec![0xee; 6];
            want.extend(((CODE + 4) as u16).to_le_bytes());
            assert_eq!(vm.peek(SP - 8, 8), want);
        },
    );
}

/// A far pointer at DATA: an offset of `width` bytes and a selector.
fn pointer(vm: &mut TestVm, offset: u64, width: usize, selector: u16) {
    vm.poke(DATA, &[0; 16]);
    vm.poke(DATA, &offset.to_le_bytes()[..width]);
    vm.poke(DATA + width as u64, &selector.to_le_bytes());
    vm.cpu.regs[RCX] = DATA;
}

#[test]
fn far_pointers_have_64_bit_offsets_on_intel_only() {
    let to = CODE + 0x40;
    for (vendor, width, other) in [(Amd, 4usize, 8usize), (Intel, 8, 4)] {
        let prepare = |vm: &mut TestVm| pointer(vm, to, width, CS64);
        goes_to(vendor, &[0x48, 0xff, 0x29], prepare, to, SP);
        goes_to(vendor, &[0x48, 0xff, 0x19], prepare, to, SP - 2 * width as u64);
        // The other maker's layout: what is taken for the selector is null.
        for slow in [false, true] {
            let mut vm = vm(vendor, slow, &[0x48, 0xff, 0x29]);
            pointer(&mut vm, to, other, CS64);
            assert_eq!(vm.run(1), Stop::Trap(Trap::Fault(Fault::gp())));
        }
        let offset = if width == 8 {
            0x1122_3344_5566_7788
        } else {
            0x5566_7788
        };
        for slow in [false, true] {
            let mut vm = vm(vendor, slow, &[0x48, 0x0f, 0xb2, 0x01]);
            pointer(&mut vm, 0x1122_3344_5566_7788, width, SS);
            vm.cpu.regs[RAX] = u64::MAX;
            vm.run_ok(1);
            assert_eq!((vm.cpu.regs[RAX], vm.cpu.seg.sel[2]), (offset, SS));
        }
    }
}

#[test]
fn a_lock_prefix_makes_no_access_to_cr8_of_one_to_cr0() {
    // AMD's AltMovCr8, which CPUID does not show.
    for vendor in [Amd, Intel] {
        for code in [&[0xf0, 0x0f, 0x20, 0xc0][..], &[0x90, 0xf0, 0x0f, 0x22, 0xc0]] {
            for slow in [false, true] {
                let mut vm = vm(vendor, slow, code);
                assert_eq!(vm.run(10), Stop::Trap(Trap::Fault(Fault::ud())));
                assert_eq!(vm.cpu.rip, CODE + code.len() as u64 - 4);
            }
        }
        let mut vm = vm(vendor, false, &[0x44, 0x0f, 0x20, 0xc0]);
        assert!(matches!(vm.run(1), Stop::Trap(Trap::Priv { .. })));
    }
}

#[test]
fn the_vendor_is_that_of_the_cpuid_table_and_code_is_decoded_afresh_when_it_changes() {
    let row = |b: &[u8; 12]| {
        let word = |n: usize| u32::from_le_bytes([b[n], b[n + 1], b[n + 2], b[n + 3]]);
        vec![CpuidRow {
            leaf: 0,
            subleaf: None,
            regs: [1, word(0), word(8), word(4)],
        }]
    };
    let mut vm = vm(Amd, false, &[0x66, 0xeb, 0x10]);
    for (name, rip) in [
        (b"AuthenticAMD", (CODE + 0x13) & 0xffff),
        (b"GenuineIntel", CODE + 0x13),
        (b"HygonGenuine", (CODE + 0x13) & 0xffff),
    ] {
        vm.cpu.set_cpuid(row(name));
        vm.cpu.rip = CODE;
        vm.run_ok(1);
        assert_eq!(vm.cpu.rip, rip);
    }
}

/// Runs one instruction that must fault with `vector`; gives cr2.
fn faults(vm: &mut TestVm, expected: u8) -> u64 {
    match vm.run(1) {
        Stop::Trap(Trap::Fault(f)) if f.vector == expected => f.cr2,
        stop => panic!("{stop:?} instead of a fault {expected}"),
    }
}

#[test]
fn bound_reads_both_bounds_before_it_compares() {
    for slow in [false, true] {
        let at = (DATA + 4 * 4096 - 4) as u32;
        let mut vm = vm(Amd, slow, &[[0x62, 0x05].as_slice(), &at.to_le_bytes()].concat());
        let data = FLAT_KERNEL_SS;
        vm.cpu.seg.sel = [data, FLAT_RING3_CS32, data, data, 0, 0];
        // Index 0, lower bound 5: out of bounds, but the upper bound is on no page.
        vm.poke(u64::from(at), &5u32.to_le_bytes());
        assert_eq!(faults(&mut vm, vector::PF), DATA + 4 * 4096);
        vm.map(DATA + 4 * 4096, 1, 7);
        faults(&mut vm, vector::BR);
    }
}

#[test]
fn an_x87_store_faults_by_its_operand_before_it_raises_an_unmasked_exception() {
    // A NaN to fbstp, fistp and fstp (m32) with #I unmasked.
    for code in [[0xdf, 0x30], [0xdb, 0x18], [0xd9, 0x18]] {
        let mut vm = vm(Amd, false, &code);
        let x87 = &mut vm.cpu.fpu.x87;
        x87.set_control(0x37e);
        x87.set_status_word(7 << 11);
        x87.tags = 0x80;
        x87.regs[7] = F80 {
            m: 0x8000_0000_0000_0001,
            se: 0x7fff,
        };
        vm.cpu.regs[RAX] = RO;
        assert_eq!(faults(&mut vm, vector::PF), RO);
        assert_eq!(vm.cpu.fpu.x87.status_word(), 7 << 11);
        // Where it could be stored it is not, nor popped.
        vm.cpu.regs[RAX] = DATA;
        vm.poke(DATA, &[0xee; 10]);
        vm.run_ok(1);
        assert_eq!(vm.peek(DATA, 10), [0xee; 10]);
        assert_eq!(vm.cpu.fpu.x87.status_word(), 0x8081 | 7 << 11);
    }
}

#[test]
fn a_misaligned_stos_raises_ac_wherever_its_address_is() {
    for slow in [false, true] {
        for (at, expected) in [(1 << 47 | 4, vector::AC), (1 << 47 | 8, vector::GP)] {
            let mut vm = vm(Amd, slow, &[0x48, 0xab]);
            vm.cpu.set_rflags(0x202 | 1 << 18);
            vm.cpu.regs[RDI] = at;
            faults(&mut vm, expected);
        }
    }
}

#[test]
fn rep_movs_with_32_bit_addresses_leaves_its_pointers_alone_until_an_iteration_completes() {
    const UPPER: u64 = 0x1234_5678 << 32;
    for slow in [false, true] {
        for (count, to) in [(0, DATA), (2, RO), (2, DATA)] {
            let mut vm = vm(Amd, slow, &[0x67, 0xf3, 0xa5]);
            vm.cpu.regs[RCX] = count;
            vm.cpu.regs[RSI] = UPPER | DATA;
            vm.cpu.regs[RDI] = UPPER | to;
            if to == RO {
                assert_eq!(faults(&mut vm, vector::PF), RO);
            } else {
                vm.run_ok(1);
            }
            let pointers = (vm.cpu.regs[RSI], vm.cpu.regs[RDI]);
            if count == 0 || to == RO {
                assert_eq!(pointers, (UPPER | DATA, UPPER | to));
            } else {
                assert_eq!(pointers, (DATA + 8, DATA + 8));
            }
        }
    }
}

#[test]
fn the_first_nan_of_a_dot_product_goes_to_all_elements() {
    let lanes = |v: [u32; 4]| v.iter().rev().fold(0, |all, &x| all << 32 | u128::from(x));
    let one = 1.0f32.to_bits();
    for slow in [false, true] {
        let mut vm = vm(Amd, slow, &[0x66, 0x0f, 0x3a, 0x40, 0xc1, 0xf7]);
        vm.cpu.fpu.xmm[0] = lanes([one, one, 0x7fc0_0033, 0x7f80_0044]);
        vm.cpu.fpu.xmm[1] = lanes([one, 0xffc0_0022, one, one]);
        vm.run_ok(1);
        let nan = 0xffc0_0022;
        assert_eq!(vm.cpu.fpu.xmm[0], lanes([nan, nan, nan, 0]));
        let mut vm = self::vm(Amd, slow, &[0x66, 0x0f, 0x3a, 0x41, 0xc1, 0x33]);
        vm.cpu.fpu.xmm[0] = 0xfff8_0000_0000_0011_7ff0_0000_0000_0022;
        vm.run_ok(1);
        assert_eq!(vm.cpu.fpu.xmm[0], 0x7ff8_0000_0000_0022_7ff8_0000_0000_0022);
    }
}
