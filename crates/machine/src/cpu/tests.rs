// SPDX-License-Identifier: Apache-2.0
//! The block engine: budget, code cache, address spaces.

use super::fault::{pf, vector, Fault, Trap};
use super::Stop;
use crate::frames::flag;
use crate::mem::Mfn;
use crate::shared::{attention, Purge};
use crate::testing::{pte, TestVm, CODE, DATA, RWX, STACK_TOP};
use iced_x86::code_asm::*;

fn assemble(at: u64, f: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64-bit code");
    f(&mut a);
    a.assemble(at).expect("code that can be assembled")
}

/// Calls, stores and loads in a loop of `n` rounds, ends with int3.
fn busy(n: i32) -> Vec<u8> {
    assemble(CODE, |a| {
        let (mut top, mut f) = (a.create_label(), a.create_label());
        let w = |r: Result<(), IcedError>| r.expect("an instruction");
        w(a.mov(ecx, n));
        w(a.mov(rbx, DATA));
        w(a.set_label(&mut top));
        w(a.call(f));
        w(a.add(qword_ptr(rbx + 8), rax));
        w(a.lock().inc(dword_ptr(rbx + 16)));
        w(a.push(rcx));
        w(a.mov(ecx, 3));
        w(a.lea(rdi, qword_ptr(rbx + 64)));
        w(a.rep().stosq());
        w(a.pop(rcx));
        w(a.dec(ecx));
        w(a.jne(top));
        w(a.int3());
        w(a.set_label(&mut f));
        w(a.lea(rax, qword_ptr(rcx * 4 + 1)));
        w(a.ret());
    })
}

fn breakpoint() -> Trap {
    Trap::SoftInt { vector: 3, len: 1 }
}

#[test]
fn a_long_run_needs_no_more_stack_than_a_short_one() {
    let run = || {
        let mut vm = TestVm::new(&busy(100_000));
        vm.cpu.budget.left = i64::MAX;
        assert_eq!(vm.cpu.run(), Stop::Trap(breakpoint()));
    };
    std::thread::Builder::new()
        .stack_size(128 * 1024)
        .spawn(run)
        .expect("a thread")
        .join()
        .expect("no overflow");
}

#[test]
fn a_budget_ends_after_exactly_so_many_instructions_however_it_is_cut() {
    let total = {
        let mut vm = TestVm::new(&busy(50));
        vm.cpu.budget.left = 1 << 40;
        assert_eq!(vm.cpu.run(), Stop::Trap(breakpoint()));
        ((1i64 << 40) - vm.cpu.budget.left, vm.cpu.regs, vm.peek(DATA, 128))
    };
    for k in [1, 2, 3, 7, 64, 65, 1000] {
        let mut vm = TestVm::new(&busy(50));
        let mut done = 0;
        while done < total.0 - 1 {
            let n = k.min(total.0 - 1 - done);
            vm.run_ok(n);
            done += n;
        }
        assert_eq!(vm.run(1), Stop::Trap(breakpoint()));
        assert_eq!(vm.cpu.budget.left, 0);
        assert_eq!(
            (vm.cpu.regs, vm.peek(DATA, 128)),
            (total.1, total.2.clone()),
            "cut by {k}"
        );
    }
}

#[test]
fn a_soft_limit_stops_at_the_next_block_and_not_much_later() {
    let mut vm = TestVm::new(&busy(100_000));
    vm.cpu.budget.left = 1_000_000;
    vm.cpu.budget.yield_at = 990_000;
    assert_eq!(vm.cpu.run(), Stop::Budget);
    assert!(
        (989_800..=990_000).contains(&vm.cpu.budget.left),
        "{}",
        vm.cpu.budget.left
    );
}

#[test]
fn a_code_cache_of_a_few_blocks_gives_the_same_results() {
    let result = |limit| {
        let mut vm = TestVm::new(&busy(200));
        vm.cpu.set_code_limit(limit);
        assert_eq!(vm.run_to_trap(), breakpoint());
        (vm.cpu.regs, vm.cpu.rflags(), vm.peek(DATA, 128))
    };
    let whole = result(0);
    for limit in [1, 16, 32, 50] {
        assert_eq!(result(limit), whole);
    }
}

#[test]
fn what_is_kept_to_be_fast_can_be_given_back_at_any_time_and_changes_nothing() {
    let result = |every: i64| {
        let mut vm = TestVm::new(&busy(200));
        let mut forgotten = 0;
        loop {
            if let Stop::Trap(trap) = vm.run(every) {
                assert_eq!(trap, breakpoint());
                return (forgotten, vm.cpu.regs, vm.cpu.rflags(), vm.peek(DATA, 128));
            }
            let before = vm.cpu.cached_bytes();
            vm.cpu.forget_cached();
            forgotten += before - vm.cpu.cached_bytes();
        }
    };
    let whole = result(1 << 40);
    assert_eq!(whole.0, 0);
    for every in [1, 7, 64, 333] {
        let parts = result(every);
        assert!(parts.0 > 0, "nothing was given back");
        assert_eq!(
            (parts.1, parts.2, &parts.3),
            (whole.1, whole.2, &whole.3),
            "each {every}"
        );
    }
}

#[test]
fn one_frame_of_code_at_two_addresses_is_relative_to_each() {
    // lea rax, [rip]; int3
    let mut vm = TestVm::new(&[0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xcc]);
    let mfn = Mfn(vm.maddr(CODE) >> 12);
    let other = 0x7f00_1234_5000;
    vm.map_frame(other, mfn, pte::P | pte::US);
    for va in [CODE, other, CODE, other] {
        vm.cpu.rip = va;
        assert_eq!(vm.run_to_trap(), breakpoint());
        assert_eq!(vm.cpu.regs[0], va + 7);
        assert_eq!(vm.cpu.rip, va + 8);
    }
}

#[test]
fn more_address_spaces_than_views_each_show_their_own_memory() {
    // mov rax, [DATA]; int3
    let code = assemble(CODE, |a| {
        a.mov(rax, qword_ptr(DATA)).expect("mov");
        a.int3().expect("int3");
    });
    let mut vm = TestVm::new(&code);
    let first = vm.l4;
    let mut spaces = Vec::new();
    for n in 0..20u64 {
        vm.l4 = Mfn(3000 + n * 10);
        // Tables of its own, the same code frame, a data frame of its own.
        vm.l4 = {
            let l4 = vm.l4;
            let code_frame = {
                vm.l4 = first;
                Mfn(vm.maddr(CODE) >> 12)
            };
            vm.l4 = l4;
            vm.map_frame(CODE, code_frame, pte::P | pte::US);
            vm.map(DATA, 1, pte::P | pte::US);
            vm.poke(DATA, &(n + 100).to_le_bytes());
            l4
        };
        spaces.push(vm.l4);
    }
    for round in 0..3 {
        for (n, &l4) in spaces.iter().enumerate() {
            vm.cpu.set_base(l4, round == 1);
            vm.cpu.rip = CODE;
            assert_eq!(vm.run_to_trap(), breakpoint());
            assert_eq!(vm.cpu.regs[0], n as u64 + 100);
        }
    }
}

#[test]
fn a_changed_translation_is_seen_after_invlpg_for_data_and_for_code() {
    let mut vm = TestVm::new(&[]);
    let page = 0x50_0000;
    vm.map(page, 1, pte::P | pte::US);
    vm.poke(page, &[0xb8, 1, 0, 0, 0, 0xcc]); // mov eax, 1; int3
    vm.map(page + 0x1000, 1, pte::P | pte::US);
    vm.poke(page + 0x1000, &[0xb8, 2, 0, 0, 0, 0xcc]);
    let second = Mfn(vm.maddr(page + 0x1000) >> 12);
    vm.cpu.rip = page;
    assert_eq!(vm.run_to_trap(), breakpoint());
    vm.map_frame(page, second, pte::P | pte::US);
    vm.cpu.invlpg(page);
    vm.cpu.rip = page;
    assert_eq!(vm.run_to_trap(), breakpoint());
    assert_eq!(vm.cpu.regs[0], 2);
    vm.map_frame(page, second, 0);
    vm.cpu.flush_tlb_view();
    vm.cpu.rip = page;
    assert_eq!(vm.run_to_trap(), Fault::pf(page, pf::U | pf::I).into());
}

#[test]
fn the_second_page_of_a_crossing_instruction_may_be_remapped() {
    let mut vm = TestVm::new(&[]);
    // mov eax, imm32 with its last two bytes in the second page, then int3.
    let at = RWX + 0xffd;
    vm.poke(at, &[0xb8, 0x11, 0x22, 0x33, 0x44, 0xcc]);
    vm.cpu.rip = at;
    assert_eq!(vm.run_to_trap(), breakpoint());
    assert_eq!(vm.cpu.regs[0], 0x4433_2211);
    vm.map(0x50_0000, 1, pte::P | pte::US);
    vm.poke(0x50_0000, &[0x77, 0x88, 0xcc]);
    let other = Mfn(vm.maddr(0x50_0000) >> 12);
    vm.map_frame(RWX + 0x1000, other, pte::P | pte::US);
    vm.cpu.invlpg(RWX + 0x1000);
    vm.cpu.rip = at;
    assert_eq!(vm.run_to_trap(), breakpoint());
    assert_eq!(vm.cpu.regs[0], 0x8877_2211);
    vm.map_frame(RWX + 0x1000, other, 0);
    vm.cpu.invlpg(RWX + 0x1000);
    vm.cpu.rip = at;
    assert_eq!(vm.run_to_trap(), Fault::pf(RWX + 0x1000, pf::U | pf::I).into());
    assert_eq!(vm.cpu.rip, at);
}

#[test]
fn code_in_a_frame_that_the_host_writes_is_decoded_each_time() {
    let mut vm = TestVm::new(&[0xb8, 1, 0, 0, 0, 0xcc]);
    let maddr = vm.maddr(CODE);
    vm.machine.frames.set_flags(Mfn(maddr >> 12), flag::NO_CODE);
    for n in 1..4u8 {
        vm.machine.mem.write(maddr + 1, &[n]);
        vm.cpu.rip = CODE;
        assert_eq!(vm.run_to_trap(), breakpoint());
        assert_eq!(vm.cpu.regs[0], u64::from(n));
    }
}

#[test]
fn a_store_into_the_running_block_counts_from_the_next_instruction_on() {
    // mov byte [rip+1], 7; mov al, 1 -> al = 7; int3
    let mut vm = TestVm::new(&[]);
    for _ in 0..3 {
        vm.poke(RWX, &[0xc6, 0x05, 0x01, 0, 0, 0, 7, 0xb0, 1, 0xcc]);
        let mfn = Mfn(vm.maddr(RWX) >> 12);
        vm.cpu.apply_purge(Purge::Code {
            mfn,
            start: 0,
            end: 4096,
        });
        vm.cpu.rip = RWX;
        vm.cpu.budget.left = 100;
        assert_eq!(vm.cpu.run(), Stop::Trap(breakpoint()));
        assert_eq!(vm.cpu.regs[0] & 0xff, 7);
        assert_eq!(vm.cpu.budget.left, 97);
    }
}

#[test]
fn another_thread_stops_an_endless_loop() {
    let mut vm = TestVm::new(&[0xeb, 0xfe]); // jmp $
    let shared = vm.cpu.shared.clone();
    let t = std::thread::spawn(move || shared.request(attention::STOP));
    vm.cpu.budget.left = i64::MAX;
    assert_eq!(vm.cpu.run(), Stop::Attention);
    t.join().expect("the other thread");
    assert_eq!(vm.cpu.rip, CODE);
}

#[test]
fn a_long_string_instruction_stops_for_others_and_goes_on() {
    let mut vm = TestVm::new(&[0xf3, 0xaa, 0xcc]); // rep stosb; int3
    vm.cpu.regs[7] = DATA;
    vm.cpu.regs[1] = 3 * 4096;
    vm.cpu.regs[0] = 0x5a;
    vm.cpu.shared.request(attention::EVENT);
    let mut stops = 0;
    vm.cpu.budget.left = 100;
    loop {
        match vm.cpu.run() {
            Stop::Attention => {
                stops += 1;
                vm.cpu.shared.clear(attention::EVENT);
            }
            s => {
                assert_eq!(s, Stop::Trap(breakpoint()));
                break;
            }
        }
    }
    assert_eq!((stops, vm.cpu.budget.left, vm.cpu.regs[1]), (1, 98, 0));
    assert!(vm.peek(DATA, 3 * 4096).iter().all(|&b| b == 0x5a));
}

#[test]
fn a_fault_in_a_string_instruction_leaves_the_registers_at_the_faulting_element() {
    let mut vm = TestVm::new(&[0xf3, 0x48, 0xab]); // rep stosq
    vm.cpu.regs[7] = DATA + 3 * 4096 + 8;
    vm.cpu.regs[1] = 1024;
    let end = DATA + 4 * 4096;
    assert_eq!(vm.run_to_trap(), Fault::pf(end, pf::U | pf::W).into());
    assert_eq!(
        (vm.cpu.regs[7], vm.cpu.regs[1], vm.cpu.rip),
        (end, 1024 - 511, CODE)
    );
}

#[test]
fn stack_accesses_beyond_the_canonical_range_are_stack_faults() {
    for (code, top) in [
        (&[0x50u8][..], 0x8000_0000_0000_0008u64),
        (&[0x58][..], 0x8000_0000_0000_0000),
    ] {
        let mut vm = TestVm::new(code);
        vm.cpu.regs[4] = top;
        assert_eq!(vm.run_to_trap(), Fault::with_code(vector::SS, 0).into());
        assert_eq!(vm.cpu.regs[4], top);
    }
    let mut vm = TestVm::new(&[0xc3]);
    vm.cpu.regs[4] = STACK_TOP - 8;
    vm.poke(STACK_TOP - 8, &0x8000_0000_0000_0000u64.to_le_bytes());
    assert_eq!(vm.run_to_trap(), Fault::gp().into());
    assert_eq!(vm.cpu.regs[4], STACK_TOP - 8);
}
