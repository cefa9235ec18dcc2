// SPDX-License-Identifier: Apache-2.0
//! Exceptions one by one: vector, error code, cr2, and what the instruction must not have done. On any host.

use crate::engines::{Engine, ORACLE};
use domzero_machine::testing::{pte, TestVm, CODE, DATA, RO, STACK_TOP};
use domzero_machine::{vector, Fault, Trap};
use iced_x86::code_asm::*;
use iced_x86::IcedError;

/// The page after the data pages is not mapped.
const HOLE: u64 = DATA + 4 * 4096;
const EXTRA: u64 = 0xa0_0000;
const NONCANONICAL: u64 = 0x8000_0000_0000;
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;

fn vm(engine: Engine, body: Body) -> TestVm {
    let mut a = CodeAssembler::new(64).expect("64 bits");
    body(&mut a).and_then(|()| a.int3()).expect("encodable");
    let mut vm = TestVm::new(&a.assemble(CODE).expect("encodable"));
    engine.choose(&mut vm.cpu);
    vm
}

/// The fault of the first instruction; registers other than `rip` must be as before, on all engines.
fn fault(body: Body, regs: &[(usize, u64)]) -> Fault {
    let run = |engine: Engine| {
        let mut vm = vm(engine, body);
        for &(r, v) in regs {
            vm.cpu.regs[r] = v;
        }
        let before = (vm.cpu.regs, vm.cpu.rflags(), vm.cpu.fpu.xmm);
        let Trap::Fault(f) = vm.run_to_trap() else {
            panic!("no fault")
        };
        assert_eq!(vm.cpu.rip, CODE);
        assert_eq!((vm.cpu.regs, vm.cpu.rflags(), vm.cpu.fpu.xmm), before);
        f
    };
    let f = run(ORACLE);
    for &engine in Engine::ALL {
        assert_eq!(run(engine), f, "{engine:?}");
    }
    f
}

#[test]
fn a_load_from_a_hole_is_a_user_read_fault_at_its_address() {
    assert_eq!(
        fault(|a| a.mov(rax, qword_ptr(rcx + 8)), &[(RCX, HOLE + 16)]),
        Fault::pf(HOLE + 24, 4)
    );
}

#[test]
fn a_load_that_crosses_into_a_hole_faults_at_the_hole() {
    assert_eq!(
        fault(|a| a.mov(rax, qword_ptr(rcx)), &[(RCX, HOLE - 3)]),
        Fault::pf(HOLE, 4)
    );
    assert_eq!(
        fault(|a| a.movups(xmm0, xmmword_ptr(rcx)), &[(RCX, HOLE - 15)]),
        Fault::pf(HOLE, 4)
    );
}

#[test]
fn a_store_to_a_hole_has_the_write_bit() {
    assert_eq!(
        fault(|a| a.mov(qword_ptr(rcx), rax), &[(RCX, HOLE)]),
        Fault::pf(HOLE, 6)
    );
    assert_eq!(fault(|a| a.push(rax), &[(RSP, HOLE + 8)]), Fault::pf(HOLE, 6));
}

#[test]
fn a_store_to_a_read_only_page_has_the_present_bit() {
    assert_eq!(
        fault(|a| a.mov(byte_ptr(rcx), al), &[(RCX, RO + 5)]),
        Fault::pf(RO + 5, 7)
    );
}

#[test]
fn a_read_modify_write_of_a_read_only_page_faults_as_a_write() {
    let bodies: [Body; 6] = [
        |a| a.add(dword_ptr(rcx), 1),
        |a| a.lock().xadd(dword_ptr(rcx), eax),
        |a| a.lock().cmpxchg(qword_ptr(rcx), rdx),
        |a| a.xchg(qword_ptr(rcx), rdx),
        |a| a.shl(word_ptr(rcx), 3),
        |a| a.lock().cmpxchg16b(xmmword_ptr(rcx)),
    ];
    for body in bodies {
        assert_eq!(fault(body, &[(RCX, RO)]), Fault::pf(RO, 7));
        assert_eq!(fault(body, &[(RCX, HOLE)]), Fault::pf(HOLE, 6));
    }
}

#[test]
fn a_store_that_crosses_into_a_hole_stores_nothing() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| a.mov(qword_ptr(rcx), rax));
        vm.cpu.regs[RAX] = u64::MAX;
        vm.cpu.regs[RCX] = HOLE - 4;
        assert_eq!(vm.run_to_trap(), Trap::Fault(Fault::pf(HOLE, 6)));
        assert_eq!(vm.peek(HOLE - 8, 8), [0; 8]);
    }
}

#[test]
fn execution_of_a_data_page_is_a_fetch_fault() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| a.jmp(rax));
        vm.cpu.regs[RAX] = DATA + 7;
        assert_eq!(vm.run_to_trap(), Trap::Fault(Fault::pf(DATA + 7, 0x15)));
        assert_eq!(vm.cpu.rip, DATA + 7);
    }
}

#[test]
fn execution_of_a_hole_is_a_fetch_fault_that_is_not_present() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| a.jmp(rax));
        vm.cpu.regs[RAX] = HOLE;
        assert_eq!(vm.run_to_trap(), Trap::Fault(Fault::pf(HOLE, 0x14)));
    }
}

#[test]
fn an_instruction_that_crosses_into_a_hole_faults_at_the_hole() {
    for &engine in Engine::ALL {
        let end = CODE + 16 * 4096;
        let mut vm = vm(engine, |a| a.jmp(rax));
        vm.poke(end - 3, &[0x48, 0xb8, 1]);
        vm.cpu.regs[RAX] = end - 3;
        assert_eq!(vm.run_to_trap(), Trap::Fault(Fault::pf(end, 0x14)));
        assert_eq!(vm.cpu.rip, end - 3);
    }
}

#[test]
fn supervisor_pages_are_present_but_not_for_users() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| a.mov(rax, qword_ptr(rcx)));
        vm.map(EXTRA, 1, pte::P | pte::RW);
        vm.cpu.regs[RCX] = EXTRA;
        assert_eq!(vm.run_to_trap(), Trap::Fault(Fault::pf(EXTRA, 5)));
    }
}

#[test]
fn reserved_bits_in_an_entry_are_reported() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| a.mov(qword_ptr(rcx), rax));
        vm.map(EXTRA, 1, pte::P | pte::RW | pte::US | 1 << 51);
        vm.cpu.regs[RCX] = EXTRA + 8;
        assert_eq!(vm.run_to_trap(), Trap::Fault(Fault::pf(EXTRA + 8, 0xf)));
    }
}

#[test]
fn a_read_sets_accessed_and_a_write_sets_dirty() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| {
            a.mov(rax, qword_ptr(rcx))?;
            a.nop()?;
            a.mov(qword_ptr(rcx), rax)
        });
        let entry = vm.pte_maddr(DATA);
        let bits = |vm: &TestVm| vm.machine.mem.read_u64(entry).unwrap_or(0) & 0x60;
        vm.cpu.regs[RCX] = DATA;
        assert_eq!(bits(&vm), 0);
        vm.run_ok(2);
        assert_eq!(bits(&vm), 0x20);
        vm.run_ok(1);
        assert_eq!(bits(&vm), 0x60);
    }
}

#[test]
fn a_write_that_faults_leaves_the_dirty_bit_clear() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| a.mov(qword_ptr(rcx), rax));
        vm.cpu.regs[RCX] = RO;
        vm.run_to_trap();
        let entry = vm.pte_maddr(RO);
        assert_eq!(vm.machine.mem.read_u64(entry).unwrap_or(0) & 0x40, 0);
    }
}

#[test]
fn noncanonical_addresses_are_general_protection_or_stack_faults() {
    let protection = Fault::with_code(vector::GP, 0);
    let stack = Fault::with_code(vector::SS, 0);
    assert_eq!(
        fault(|a| a.mov(rax, qword_ptr(rcx)), &[(RCX, NONCANONICAL)]),
        protection
    );
    assert_eq!(
        fault(|a| a.mov(qword_ptr(rcx), rax), &[(RCX, NONCANONICAL - 4)]),
        protection
    );
    assert_eq!(
        fault(|a| a.mov(rax, qword_ptr(rbp)), &[(RBP, NONCANONICAL)]),
        stack
    );
    assert_eq!(
        fault(|a| a.add(qword_ptr(rsp + 8), rax), &[(RSP, NONCANONICAL)]),
        stack
    );
    assert_eq!(fault(|a| a.push(rax), &[(RSP, NONCANONICAL + 64)]), stack);
    assert_eq!(fault(|a| a.pop(rax), &[(RSP, NONCANONICAL)]), stack);
}

#[test]
fn a_segment_override_of_fs_or_gs_makes_a_noncanonical_stack_address_a_general_protection_fault() {
    let gp = Fault::with_code(vector::GP, 0);
    let bodies: [Body; 14] = [
        |a| a.add(rax, qword_ptr(rsp).gs()),
        |a| a.add(qword_ptr(rbp).fs(), rax),
        |a| a.lock().add(qword_ptr(rsp).gs(), rax),
        |a| a.lock().xadd(qword_ptr(rsp).fs(), rax),
        |a| a.cmpxchg(qword_ptr(rsp).gs(), rcx),
        |a| a.mov(rax, qword_ptr(rbp).gs()),
        |a| a.mov(qword_ptr(rsp).fs(), rax),
        |a| a.movups(xmm0, xmmword_ptr(rsp).gs()),
        |a| a.movaps(xmmword_ptr(rbp).fs(), xmm0),
        |a| a.paddd(xmm0, xmmword_ptr(rbp).gs()),
        |a| a.cmp(qword_ptr(rsp).gs(), 1),
        |a| a.push(qword_ptr(rbp).gs()),
        |a| a.call(qword_ptr(rbp).fs()),
        |a| a.jmp(qword_ptr(rsp).gs()),
    ];
    for body in bodies {
        for r in [RSP, RBP] {
            let other = RSP + RBP - r;
            let f = || fault(body, &[(r, NONCANONICAL), (other, NONCANONICAL)]);
            assert_eq!(f(), gp);
        }
    }
    // What the instruction pushes is in the stack segment all the same.
    assert_eq!(
        fault(
            |a| a.push(qword_ptr(rcx).gs()),
            &[(RCX, DATA), (RSP, NONCANONICAL + 64)]
        ),
        Fault::with_code(vector::SS, 0)
    );
    assert_eq!(
        fault(
            |a| a.push(qword_ptr(rcx)),
            &[(RCX, DATA), (RSP, NONCANONICAL + 4)]
        ),
        Fault::with_code(vector::SS, 0)
    );
}

#[test]
fn misaligned_vector_operands_are_general_protection_faults() {
    let protection = Fault::with_code(vector::GP, 0);
    assert_eq!(
        fault(|a| a.movaps(xmm1, xmmword_ptr(rcx)), &[(RCX, DATA + 8)]),
        protection
    );
    assert_eq!(
        fault(|a| a.movdqa(xmmword_ptr(rcx), xmm1), &[(RCX, DATA + 1)]),
        protection
    );
    assert_eq!(
        fault(|a| a.paddd(xmm1, xmmword_ptr(rcx)), &[(RCX, DATA + 4)]),
        protection
    );
    assert_eq!(
        fault(|a| a.lock().cmpxchg16b(xmmword_ptr(rcx)), &[(RCX, DATA + 8)]),
        protection
    );
}

/// Translated code checks them together.
#[test]
fn vector_operands_beside_each_other_fault_one_by_one() {
    let body: Body = |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.movdqa(xmm1, xmmword_ptr(rcx + 16))?;
        a.movdqu(xmm2, xmmword_ptr(rcx + 5))?;
        a.add(rcx, 32)?;
        a.paddd(xmm3, xmmword_ptr(rcx))?;
        a.movdqa(xmmword_ptr(rcx - 32), xmm3)?;
        a.lea(rcx, qword_ptr(rcx + rdx - 32))?;
        a.dec(rsi)?;
        a.jne(again)
    };
    let run = |engine: Engine, start: u64, step: u64| {
        let mut vm = vm(engine, body);
        (vm.cpu.regs[RCX], vm.cpu.regs[RDX], vm.cpu.regs[RSI]) = (start, step, 12);
        let trap = vm.run_to_trap();
        (trap, vm.cpu.rip, vm.cpu.regs, vm.cpu.fpu.xmm)
    };
    let flagless = [1, 3].map(|threshold| Engine::Flagless { threshold });
    for (start, step) in [
        (DATA, 0),
        (DATA + 8, 0),
        (DATA, 16),
        (DATA + 4096 - 128, 16),
        (HOLE - 128, 16),
        (HOLE - 48, 0),
        (HOLE - 47, 0),
        (HOLE - 120, 1),
        (DATA + 4096 - 5 * 24, 24),
        (RO - 4096, 32),
    ] {
        let expected = run(ORACLE, start, step);
        for engine in Engine::ALL.iter().copied().chain(flagless) {
            assert_eq!(run(engine, start, step), expected, "{engine:?} {start:x} {step}");
        }
    }
}

#[test]
fn division_faults_leave_the_operands() {
    let de = Fault::new(vector::DE);
    assert_eq!(fault(|a| a.div(ecx), &[(RAX, 7), (RDX, 0), (RCX, 0)]), de);
    assert_eq!(fault(|a| a.div(ecx), &[(RAX, 7), (RDX, 5), (RCX, 5)]), de);
    assert_eq!(
        fault(
            |a| a.idiv(rcx),
            &[(RAX, 1 << 63), (RDX, u64::MAX), (RCX, u64::MAX)]
        ),
        de
    );
    assert_eq!(fault(|a| a.idiv(cl), &[(RAX, 0x4000), (RCX, 0x7f)]), de);
}

#[test]
fn invalid_opcodes_are_reported_as_such() {
    assert_eq!(fault(|a| a.ud2(), &[]), Fault::ud());
    assert_eq!(fault(|a| a.db(&[0x06]), &[]), Fault::ud());
    assert_eq!(fault(|a| a.db(&[0xf0, 0x01, 0xc8]), &[]), Fault::ud());
    assert_eq!(fault(|a| a.db(&[0xc5, 0xf8, 0x58, 0xc1]), &[]), Fault::ud());
    assert_eq!(
        fault(|a| a.db(&[0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1]), &[]),
        Fault::ud()
    );
}

#[test]
fn sixteen_bytes_are_too_many_for_an_instruction() {
    let protection = Fault::with_code(vector::GP, 0);
    assert_eq!(
        fault(
            |a| a.db(&[
                0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                0x90
            ]),
            &[]
        ),
        protection
    );
}

#[test]
fn a_repeated_move_that_faults_has_done_what_came_before() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| a.rep().movsb());
        vm.poke(DATA, b"0123456789abcdef");
        vm.cpu.regs[RSI] = DATA;
        vm.cpu.regs[RDI] = HOLE - 10;
        vm.cpu.regs[RCX] = 16;
        assert_eq!(vm.run_to_trap(), Trap::Fault(Fault::pf(HOLE, 6)));
        assert_eq!((vm.cpu.rip, vm.cpu.regs[RCX]), (CODE, 6));
        assert_eq!((vm.cpu.regs[RSI], vm.cpu.regs[RDI]), (DATA + 10, HOLE));
        assert_eq!(vm.peek(HOLE - 10, 10), b"0123456789");
    }
}

#[test]
fn a_repeated_store_goes_on_where_its_fault_was() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| a.rep().stosq());
        vm.cpu.regs[RAX] = u64::from_le_bytes(*b"domzero!");
        vm.cpu.regs[RDI] = HOLE - 16;
        vm.cpu.regs[RCX] = 4;
        assert_eq!(vm.run_to_trap(), Trap::Fault(Fault::pf(HOLE, 6)));
        vm.map(HOLE, 1, pte::P | pte::US | pte::RW);
        assert_eq!(vm.run_to_trap(), Trap::SoftInt { vector: 3, len: 1 });
        assert_eq!(vm.peek(HOLE - 16, 32), b"domzero!domzero!domzero!domzero!");
        assert_eq!(vm.cpu.regs[RCX], 0);
    }
}

#[test]
fn a_call_whose_push_faults_has_not_jumped() {
    assert_eq!(
        fault(|a| a.call(rax), &[(RAX, DATA), (RSP, HOLE + 8)]),
        Fault::pf(HOLE, 6)
    );
    assert_eq!(
        fault(|a| a.call(qword_ptr(rcx)), &[(RCX, HOLE), (RSP, STACK_TOP)]),
        Fault::pf(HOLE, 4)
    );
}

#[test]
fn a_call_to_a_noncanonical_address_raises_what_its_push_raises_first() {
    let gp = Fault::with_code(vector::GP, 0);
    let stacks = [
        (HOLE + 8, Fault::pf(HOLE, 6)),
        (NONCANONICAL + 64, Fault::with_code(vector::SS, 0)),
        (STACK_TOP, gp),
    ];
    for (stack, expected) in stacks {
        let regs = [(RAX, NONCANONICAL), (RSP, stack)];
        assert_eq!(fault(|a| a.call(rax), &regs), expected);
        assert_eq!(fault(|a| a.jmp(rax), &regs), gp);
    }
}

#[test]
fn a_return_to_a_noncanonical_address_is_a_general_protection_fault_at_the_return() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| a.ret());
        vm.cpu.regs[RSP] = STACK_TOP - 8;
        vm.poke(STACK_TOP - 8, &NONCANONICAL.to_le_bytes());
        assert_eq!(vm.run_to_trap(), Trap::Fault(Fault::with_code(vector::GP, 0)));
        assert_eq!((vm.cpu.rip, vm.cpu.regs[RSP]), (CODE, STACK_TOP - 8));
    }
}

#[test]
fn a_fault_in_the_middle_of_a_block_costs_the_instructions_before_it_only() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| {
            a.inc(eax)?;
            a.inc(eax)?;
            a.mov(rdx, qword_ptr(rcx))?;
            a.inc(eax)
        });
        vm.cpu.regs[RCX] = HOLE;
        vm.cpu.budget.left = 100;
        assert_eq!(
            vm.cpu.run(),
            domzero_machine::Stop::Trap(Trap::Fault(Fault::pf(HOLE, 4)))
        );
        assert_eq!((vm.cpu.regs[RAX], vm.cpu.budget.left), (2, 98));
        // Again from the same place: the block is entered in its middle.
        vm.map(HOLE, 1, pte::P | pte::US | pte::RW);
        vm.run_ok(2);
        assert_eq!(vm.cpu.regs[RAX], 3);
    }
}

#[test]
fn alignment_is_checked_from_the_instruction_on_that_follows_the_popf_that_asks_for_it() {
    for &engine in Engine::ALL {
        let mut vm = vm(engine, |a| {
            let mut top = a.create_label();
            a.mov(esi, 3)?;
            a.set_label(&mut top)?;
            a.push(rdx)?;
            a.popfq()?;
            a.mov(eax, dword_ptr(rcx))?;
            a.mov(edx, 0x4_0202)?;
            a.dec(esi)?;
            a.jne(top)
        });
        vm.cpu.regs[RCX] = DATA + 1;
        vm.cpu.regs[RDX] = 0x202;
        assert_eq!(
            vm.run_to_trap(),
            Trap::Fault(Fault::with_code(vector::AC, 0)),
            "{engine:?}"
        );
        assert_eq!(vm.cpu.regs[RSI], 2);
    }
}
