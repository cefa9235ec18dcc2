// SPDX-License-Identifier: Apache-2.0
//! rdrand and rdseed: which values, which flags, which forms.

use domzero_machine::testing::{TestVm, CODE};
use domzero_machine::{Clock, Domain, Fault, Machine, Stop, Trap, Vcpu};
use std::sync::Arc;

const ARITH: u64 = 0x8d5;
const RDRAND_RAX: [u8; 4] = [0x48, 0x0f, 0xc7, 0xf0];
const RDSEED_RAX: [u8; 4] = [0x48, 0x0f, 0xc7, 0xf8];

/// What the first eight rdrand of each vCPU of a new domain give.
fn numbers(machine: &Arc<Machine>, domid: u16, vcpus: u32) -> Vec<Vec<u64>> {
    let code = RDRAND_RAX.repeat(8);
    let domain = Domain::new(machine.clone(), domid);
    (0..vcpus)
        .map(|id| {
            let vm = TestVm::in_domain(domain.clone(), &code, 1024 + 256 * u64::from(id));
            let mut vcpu = Vcpu::with_cpu(vm.cpu, id);
            let number = |vcpu: &mut Vcpu| {
                vcpu.cpu.budget.left = 1;
                assert_eq!(vcpu.cpu.run(), Stop::Budget);
                vcpu.cpu.regs[0]
            };
            (0..8).map(|_| number(&mut vcpu)).collect()
        })
        .collect()
}

fn machine(key: u8) -> Arc<Machine> {
    Machine::with_random_key(4096, 1, [key; 32], Clock::virtual_at(0)).expect("a small machine")
}

#[test]
fn the_same_key_gives_each_vcpu_the_same_numbers_and_another_vcpu_others() {
    let first = numbers(&machine(1), 1, 3);
    assert_eq!(first, numbers(&machine(1), 1, 3));
    let mut all: Vec<u64> = first.concat();
    all.extend(numbers(&machine(2), 1, 3).concat());
    all.extend(numbers(&machine(1), 2, 3).concat());
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn a_domain_with_the_number_of_an_earlier_one_gets_numbers_of_its_own() {
    let machine = machine(1);
    let all: Vec<_> = (0..3).map(|_| numbers(&machine, 7, 1)).collect();
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
}

#[test]
fn carry_is_set_and_the_other_arithmetic_flags_are_cleared() {
    for code in [RDRAND_RAX, RDSEED_RAX] {
        let mut vm = TestVm::new(&code);
        vm.cpu.set_rflags(0x202 | ARITH);
        vm.run_ok(1);
        assert_eq!(vm.cpu.rflags() & ARITH, 1);
    }
}

#[test]
fn sixteen_bits_merge_thirty_two_zero_extend_and_rdseed_goes_on_with_the_stream() {
    for slow in [false, true] {
        for opcode in [0xf1u8, 0xf9] {
            let code = [
                &[0x66, 0x0f, 0xc7, opcode][..],
                &[0x0f, 0xc7, opcode],
                &[0x4c, 0x0f, 0xc7, opcode],
            ];
            let mut vm = TestVm::new(&code.concat()[..]);
            vm.cpu.set_slow_only(slow);
            vm.cpu.regs[1] = u64::MAX;
            vm.run_ok(1);
            assert_eq!(vm.cpu.regs[1] | 0xffff, u64::MAX);
            assert_ne!(vm.cpu.regs[1], u64::MAX);
            vm.run_ok(1);
            assert_eq!(vm.cpu.regs[1] >> 32, 0);
            let narrow = vm.cpu.regs[1];
            vm.run_ok(1);
            assert_ne!(vm.cpu.regs[1] & 0xffff_ffff, narrow);
            assert_ne!(vm.cpu.regs[1] >> 32, 0);
        }
    }
}

#[test]
fn a_lock_prefix_or_a_memory_operand_is_an_invalid_opcode() {
    for code in [
        &[0xf0u8, 0x0f, 0xc7, 0xf0][..],
        &[0xf0, 0x0f, 0xc7, 0xf8],
        &[0x0f, 0xc7, 0x30],
        &[0x0f, 0xc7, 0x38],
        &[0xf3, 0x0f, 0xc7, 0xf0],
    ] {
        let mut vm = TestVm::new(code);
        assert_eq!(vm.run(1), Stop::Trap(Trap::Fault(Fault::ud())), "{code:x?}");
        assert_eq!(vm.cpu.rip, CODE);
    }
}
