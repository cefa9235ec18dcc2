// SPDX-License-Identifier: Apache-2.0
//! Code that changes code: as the host's CPU does it, whatever the slices, on all engines.

use crate::engines::{Engine, ORACLE};
use crate::generate::Case;
use crate::native::Native;
use crate::oracle::{describe, Pair};
use crate::state::*;
use domzero_machine::testing::{pte, TestVm, RWX, STACK_TOP};
use domzero_machine::{Fault, Mfn, Purge, Trap};
use iced_x86::code_asm::*;
use iced_x86::{Decoder, DecoderOptions, IcedError};

type Result = std::result::Result<(), IcedError>;

/// Both sides run the code at `start`, in slices of all sizes; both end at the int3 behind it, with rax as `expected`.
fn both(start: u64, regs: &[(usize, u64)], expected: u64, body: impl Fn(&mut CodeAssembler) -> Result) {
    let mut a = CodeAssembler::new(64).expect("64 bits");
    body(&mut a).and_then(|()| a.int3()).expect("encodable");
    let bytes = a.assemble(start).expect("encodable");
    let mut pair = Pair::new(ORACLE);
    let mut state = State {
        rip: start,
        ..State::default()
    };
    state.regs[4] = page_va(9) + 512;
    for &(r, v) in regs {
        state.regs[r] = v;
    }
    let insns = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE)
        .into_iter()
        .collect();
    let case = Case {
        insns,
        bytes,
        start,
        state,
        memory: Vec::new(),
        undefined: 0,
        segment: None,
    };
    for engine in Engine::ALL {
        for slice in [1, 2, 3, 7, 64, 1000] {
            engine.choose(&mut pair.guest.cpu);
            let diff = pair.check(&case, slice);
            assert!(
                diff.is_empty(),
                "slices of {slice}, {engine:?}\n{}{diff}",
                describe(&case)
            );
        }
    }
    let mut state = pair.prepare(&case);
    assert_eq!(pair.guest.run(&mut state, 1000), End::Breakpoint);
    assert_eq!(state.regs[0], expected, "{}", describe(&case));
}

#[test]
fn a_store_into_the_next_instruction_is_executed() {
    both(CODE_VA + 256, &[], 0x55, |a| {
        let mut next = a.create_label();
        a.lea(rbx, qword_ptr(next))?;
        a.mov(byte_ptr(rbx + 1), 0x55)?;
        a.set_label(&mut next)?;
        a.mov(eax, 0x11)
    });
}

#[test]
fn a_store_into_a_following_nop_is_executed() {
    // Of four nops the second and third become `mov al, 0x55`.
    both(CODE_VA + 256, &[], 0x55, |a| {
        let mut next = a.create_label();
        a.xor(eax, eax)?;
        a.mov(edx, 0x9055_b090u32)?;
        a.mov(dword_ptr(next), edx)?;
        a.set_label(&mut next)?;
        a.nop()?;
        a.nop()?;
        a.nop()?;
        a.nop()
    });
}

#[test]
fn a_loop_that_patches_its_own_body_sees_each_patch() {
    both(CODE_VA + 300, &[], (0..20).map(|i| 20 - i).sum(), |a| {
        let (mut top, mut patched) = (a.create_label(), a.create_label());
        a.xor(eax, eax)?;
        a.mov(ecx, 20)?;
        a.set_label(&mut top)?;
        a.lea(rbx, qword_ptr(patched))?;
        a.mov(byte_ptr(rbx + 1), cl)?;
        a.nop()?;
        a.set_label(&mut patched)?;
        a.mov(edx, 0)?;
        a.add(eax, edx)?;
        a.dec(ecx)?;
        a.jne(top)
    });
}

#[test]
fn a_loop_that_patches_code_behind_itself_sees_the_patch_in_the_next_round() {
    both(CODE_VA + 300, &[], (1..=19).sum(), |a| {
        let mut patched = a.create_label();
        a.xor(eax, eax)?;
        a.mov(ecx, 20)?;
        a.set_label(&mut patched)?;
        a.mov(edx, 0)?;
        a.add(eax, edx)?;
        a.dec(ecx)?;
        a.lea(rbx, qword_ptr(patched))?;
        a.mov(byte_ptr(rbx + 1), cl)?;
        a.jne(patched)
    });
}

#[test]
fn the_second_half_of_a_page_crossing_instruction_can_be_patched() {
    // mov rax, imm64 lies across the boundary between the two code pages.
    both(
        CODE_VA + 4096 - 14,
        &[(2, 0x1122_3344)],
        0x1122_3344_0000_0007,
        |a| {
            a.nop_1::<AsmMemoryOperand>(dword_ptr(rax))?;
            a.mov(dword_ptr(CODE_VA + 4096 + 2), edx)?;
            a.mov(rax, 0x7f00_0000_0000_0007u64)
        },
    );
}

#[test]
fn repeated_moves_over_the_following_code_take_effect() {
    both(CODE_VA + 600, &[], 0x1234, |a| {
        let (mut patched, mut template) = (a.create_label(), a.create_label());
        let mut start = a.create_label();
        a.jmp(start)?;
        a.set_label(&mut template)?;
        a.mov(eax, 0x1234)?;
        a.set_label(&mut start)?;
        a.lea(rsi, qword_ptr(template))?;
        a.lea(rdi, qword_ptr(patched))?;
        a.mov(ecx, 5)?;
        a.rep().movsb()?;
        a.set_label(&mut patched)?;
        a.mov(eax, 0x4321)
    });
}

#[test]
fn pushes_and_calls_onto_running_code_take_effect() {
    // The pushed quadword becomes `mov al, 0x77; nop ...`.
    both(CODE_VA + 700, &[(1, 0x9090_9090_9090_77b0)], 0x77, |a| {
        let mut patched = a.create_label();
        a.xor(eax, eax)?;
        a.lea(rsp, qword_ptr(patched))?;
        a.lea(rsp, qword_ptr(rsp + 8))?;
        a.push(rcx)?;
        a.set_label(&mut patched)?;
        for _ in 0..8 {
            a.int3()?;
        }
        a.nop()
    });
}

#[test]
fn vector_and_locked_stores_into_code_take_effect() {
    both(CODE_VA + 800, &[], 0x8899_aabb, |a| {
        let (mut first, mut second) = (a.create_label(), a.create_label());
        a.mov(rcx, 0x9090_90aa_bbb8_9090u64)?;
        a.movq(xmm0, rcx)?;
        a.movsd_2(qword_ptr(first), xmm0)?;
        a.set_label(&mut first)?;
        a.int3()?;
        a.int3()?;
        a.int3()?;
        a.int3()?;
        a.int3()?;
        a.int3()?;
        a.int3()?;
        a.int3()?;
        a.mov(edx, 0x8899_aabbu32)?;
        a.lea(rbx, qword_ptr(second))?;
        a.lock().xchg(dword_ptr(rbx + 1), edx)?;
        a.set_label(&mut second)?;
        a.mov(eax, 1)
    });
}

#[test]
fn a_store_that_faults_after_a_patch_leaves_the_patch() {
    for &engine in Engine::ALL {
        let mut a = CodeAssembler::new(64).expect("64 bits");
        let mut next = a.create_label();
        let mut body = |a: &mut CodeAssembler| -> Result {
            a.lea(rbx, qword_ptr(next))?;
            a.mov(byte_ptr(rbx + 1), 0x55)?;
            a.set_label(&mut next)?;
            a.mov(eax, 0x11)?;
            a.mov(dword_ptr(page_va(3)), eax)
        };
        body(&mut a).expect("encodable");
        let bytes = a.assemble(CODE_VA + 64).expect("encodable");
        let mut pair = Pair::new(engine);
        let case = Case {
            insns: Vec::new(),
            bytes,
            start: CODE_VA + 64,
            state: State::default(),
            memory: Vec::new(),
            undefined: 0,
            segment: None,
        };
        let diff = pair.check(&case, 1000);
        assert!(diff.is_empty(), "{diff}");
        let mut state = pair.prepare(&case);
        assert_eq!(
            pair.guest.run(&mut state, 9),
            End::Fault {
                vector: 14,
                code: Some(6),
                cr2: page_va(3)
            }
        );
        assert_eq!(state.regs[0], 0x55);
    }
}

#[test]
fn code_written_by_the_host_is_executed() {
    for &engine in Engine::ALL {
        let mut guest = crate::guest::Guest::new(engine);
        for value in 1..100u8 {
            // mov eax, value; int3
            guest.write(CODE_VA, &[0xb8, value, 0, 0, 0, 0xcc]);
            let mut state = State::default();
            assert_eq!(guest.run(&mut state, 100), End::Breakpoint);
            assert_eq!(state.regs[0], u64::from(value));
        }
    }
}

#[test]
fn code_written_through_another_mapping_of_its_frame_is_executed() {
    for &engine in Engine::ALL {
        let mut guest = crate::guest::Guest::new(engine);
        // The unmapped first data page becomes an alias of the first code page.
        guest.alias(0, CODE_VA);
        let mut a = CodeAssembler::new(64).expect("64 bits");
        let mut body = || -> Result {
            let (mut top, mut patched) = (a.create_label(), a.create_label());
            a.xor(eax, eax)?;
            a.mov(ecx, 9)?;
            a.set_label(&mut top)?;
            a.lea(rdx, qword_ptr(patched))?;
            a.mov(
                byte_ptr(rdx + (page_va(0) as i64 - CODE_VA as i64) as i32 + 1),
                cl,
            )?;
            a.set_label(&mut patched)?;
            a.mov(edx, 0)?;
            a.add(eax, edx)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.int3()
        };
        body().expect("encodable");
        let bytes = a.assemble(CODE_VA).expect("encodable");
        guest.write(CODE_VA, &bytes);
        for slice in [1, 2, 7, 1000] {
            let mut state = State::default();
            assert_eq!(guest.run(&mut state, slice), End::Breakpoint);
            assert_eq!(state.regs[0], 45);
        }
    }
}

#[test]
fn a_page_of_code_that_is_mapped_elsewhere_is_not_executed_any_more() {
    for &engine in Engine::ALL {
        let mut guest = crate::guest::Guest::new(engine);
        guest.write(CODE_VA, &[0xb8, 1, 0, 0, 0, 0xcc]);
        guest.write(CODE_VA + 4096, &[0xb8, 2, 0, 0, 0, 0xcc]);
        for round in 0..6 {
            let mut state = State::default();
            guest.map_code(0, round % 2);
            assert_eq!(guest.run(&mut state, 100), End::Breakpoint);
            assert_eq!(state.regs[0], 1 + round % 2);
        }
        guest.cpu.shared.push_purge(Purge::AllTlb);
        let mut state = State::default();
        assert_eq!(guest.run(&mut state, 100), End::Breakpoint);
        let _ = Native::new;
    }
}

#[test]
fn a_jump_to_another_page_leads_to_what_is_mapped_there_now() {
    let bits = pte::P | pte::US;
    let (here, elsewhere) = (0x50_0000u64, 0x7f00_1234_5000u64);
    for &engine in Engine::ALL {
        let mut vm = TestVm::new(&[]);
        engine.choose(&mut vm.cpu);
        let run = |vm: &mut TestVm, from: u64, expected: u64| {
            for _ in 0..5 {
                (vm.cpu.rip, vm.cpu.regs[0], vm.cpu.regs[4]) = (from, 0, STACK_TOP);
                assert_eq!(vm.run_to_trap(), Trap::SoftInt { vector: 3, len: 1 });
                assert_eq!(
                    (vm.cpu.rip, vm.cpu.regs[0]),
                    (from + 0x1016, expected),
                    "{engine:?}"
                );
            }
        };
        // call to offset 0x10 of the next page.
        vm.map(here, 3, bits);
        vm.poke(here, &[0xe8, 0x0b, 0x10, 0, 0]);
        let target = |n: u8| [0xb8, n, 0, 0, 0, 0xcc];
        vm.poke(here + 0x1010, &target(1));
        vm.poke(here + 0x2010, &target(2));
        let [from, one, two] = [0, 1, 2].map(|n| Mfn(vm.maddr(here + n * 0x1000) >> 12));
        // The same code has another neighbour elsewhere.
        vm.map_frame(elsewhere, from, bits);
        vm.map_frame(elsewhere + 0x1000, two, bits);
        for _ in 0..3 {
            run(&mut vm, here, 1);
            run(&mut vm, elsewhere, 2);
        }
        vm.map_frame(here + 0x1000, two, bits);
        vm.cpu.invlpg(here + 0x1000);
        run(&mut vm, here, 2);
        assert!(vm.machine.host_write(two.maddr() + 0x11, &[3]));
        run(&mut vm, here, 3);
        run(&mut vm, elsewhere, 3);
        // All of the frame's code is forgotten, and what is decoded next is another page's.
        assert!(vm.machine.host_write(two.maddr(), &[0x90; 4096]));
        assert!(vm.machine.host_write(two.maddr() + 0x10, &target(4)));
        vm.map_frame(here + 0x1000, one, bits);
        vm.cpu.invlpg(here + 0x1000);
        run(&mut vm, elsewhere, 4);
        run(&mut vm, here, 1);
        vm.map_frame(here + 0x1000, one, 0);
        vm.cpu.invlpg(here + 0x1000);
        (vm.cpu.rip, vm.cpu.regs[4]) = (here, STACK_TOP);
        assert!(
            matches!(vm.run_to_trap(), Trap::Fault(Fault { vector: 14, .. })),
            "{engine:?}"
        );
        assert_eq!(vm.cpu.rip, here + 0x1010);
        run(&mut vm, elsewhere, 4);
    }
}

#[test]
fn a_return_leads_to_what_is_mapped_and_written_there_now() {
    let bits = pte::P | pte::US;
    let here = 0x50_0000u64;
    for &engine in Engine::ALL {
        let mut vm = TestVm::new(&[]);
        engine.choose(&mut vm.cpu);
        // call to offset 0x10 of the next page, which returns; mov eax, n; int3.
        vm.map(here, 3, bits);
        let caller = |n: u8| [0xe8, 0x0b, 0x10, 0, 0, 0xb8, n, 0, 0, 0, 0xcc];
        vm.poke(here, &caller(1));
        vm.poke(here + 0x2000, &caller(2));
        vm.poke(here + 0x1010, &[0xc3]);
        let [one, two] = [0, 2].map(|n| Mfn(vm.maddr(here + n * 0x1000) >> 12));
        let call = |vm: &mut TestVm| {
            (vm.cpu.rip, vm.cpu.regs[0], vm.cpu.regs[4]) = (here, 0, STACK_TOP);
            vm.run(1);
            assert_eq!(vm.cpu.rip, here + 0x1010, "{engine:?}");
        };
        let back = |vm: &mut TestVm, expected: u64| {
            assert_eq!(vm.run_to_trap(), Trap::SoftInt { vector: 3, len: 1 });
            let found = (vm.cpu.rip, vm.cpu.regs[0], vm.cpu.regs[4]);
            assert_eq!(found, (here + 11, expected, STACK_TOP), "{engine:?}");
        };
        for (frame, n) in [(one, 1), (two, 2), (one, 1)] {
            vm.map_frame(here, frame, bits);
            vm.cpu.invlpg(here);
            for _ in 0..5 {
                call(&mut vm);
                back(&mut vm, n);
            }
        }
        // Between call and return.
        call(&mut vm);
        vm.map_frame(here, two, bits);
        vm.cpu.invlpg(here);
        back(&mut vm, 2);
        call(&mut vm);
        assert!(vm.machine.host_write(two.maddr() + 6, &[3]));
        back(&mut vm, 3);
        call(&mut vm);
        assert!(vm.machine.host_write(two.maddr(), &[0xcc; 4096]));
        assert_eq!(vm.run_to_trap(), Trap::SoftInt { vector: 3, len: 1 });
        assert_eq!(vm.cpu.rip, here + 6, "{engine:?}");
        // What no call has left anything for, not even at address 0.
        for target in [here + 0x1010, 0, u64::MAX] {
            vm.poke(
                STACK_TOP - 16,
                &[target.to_le_bytes(), 0u64.to_le_bytes()].concat(),
            );
            (vm.cpu.rip, vm.cpu.regs[4]) = (here + 0x1010, STACK_TOP - 16);
            vm.cpu.flush_tlb_view();
            assert!(
                matches!(vm.run_to_trap(), Trap::Fault(Fault { vector: 14, .. })),
                "{engine:?}"
            );
        }
    }
}

#[test]
fn what_was_no_instruction_is_one_when_any_of_its_bytes_has_changed() {
    for &engine in Engine::ALL {
        // mov byte ptr [rdi], al; nop; then 0f 04 c0, which is none: with 1f in its middle it is a nop. int3.
        let bytes = [0x88, 0x07, 0x90, 0x0f, 0x04, 0xc0, 0xcc];
        for by_the_guest in [false, true] {
            let mut vm = TestVm::new(&[]);
            engine.choose(&mut vm.cpu);
            vm.poke(RWX, &bytes);
            for _ in 0..4 {
                vm.cpu.rip = RWX + 3;
                assert_eq!(vm.run_to_trap(), Trap::Fault(Fault::ud()), "{engine:?}");
            }
            if by_the_guest {
                (vm.cpu.regs[0], vm.cpu.regs[7], vm.cpu.rip) = (0x1f, RWX + 4, RWX);
            } else {
                let at = vm.maddr(RWX + 4);
                assert!(vm.machine.host_write(at, &[0x1f]));
            }
            assert_eq!(
                vm.run_to_trap(),
                Trap::SoftInt { vector: 3, len: 1 },
                "{engine:?}"
            );
        }
    }
}
