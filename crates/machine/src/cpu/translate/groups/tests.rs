// SPDX-License-Identifier: Apache-2.0
//! Which operands have one check, and where it is made.

use super::*;
use crate::cpu::descriptor_cache::MODE_LONG;
use crate::cpu::translate::liveness;
use crate::cpu::translate::select::hows;
use iced_x86::code_asm::*;
use iced_x86::IcedError;

fn planned(code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<Part> {
    let mut a = CodeAssembler::new(64).expect("64-bit code");
    code(&mut a).expect("instructions");
    let bytes = a.assemble(0).expect("code that can be assembled");
    let mut decoder = iced_x86::Decoder::new(64, &bytes, iced_x86::DecoderOptions::NONE);
    let insns: Vec<_> = decoder.iter().collect();
    let hows = hows(&insns, MODE_LONG, false);
    let live = liveness::of_block(&insns, &hows, liveness::ALL);
    plan(&insns, &hows, &|n| live[n] == 0, None)
}

fn members(parts: &[Part]) -> Vec<bool> {
    parts.iter().map(|p| p.member).collect()
}

#[test]
fn operands_of_two_registers_are_two_groups_and_what_is_needed_later_is_kept() {
    let parts = planned(|a| {
        a.mov(rax, qword_ptr(rbx + 8))?;
        a.mov(rdx, qword_ptr(rsi))?;
        a.add(rbx, 16)?;
        a.mov(ecx, dword_ptr(rbx + 8))?;
        a.mov(rdi, qword_ptr(rsi + 8))
    });
    assert_eq!(members(&parts), [true, true, false, true, true]);
    let group = parts[0].checks[0];
    assert_eq!((group.base, group.low, group.size), (Register::RBX, 8, 20));
    assert_eq!(group.slot, parts[3].load);
    assert!(group.slot.is_some() && parts[4].load.is_some() && parts[4].load != parts[3].load);
}

#[test]
fn elements_of_an_array_are_a_group_while_it_is_known_what_the_index_grows_by() {
    let parts = planned(|a| {
        a.mov(rax, qword_ptr(rdi + rcx * 8))?;
        a.add(rcx, 2)?;
        a.add(rax, qword_ptr(rdi + rcx * 8 + 8))?;
        a.mov(rbx, qword_ptr(rdi + rcx * 4))?;
        a.add(ecx, 1)?;
        a.mov(rdx, qword_ptr(rdi + rcx * 8))
    });
    assert_eq!(members(&parts), [true, false, true, false, false, false]);
    let group = parts[0].checks[0];
    assert_eq!((group.low, group.size), (0, 32));
}

#[test]
fn a_call_that_the_block_goes_on_after_pushes_within_the_group() {
    let parts = planned(|a| {
        a.push(rbx)?;
        a.call(0x40)?;
        a.push(rbp)
    });
    assert_eq!(members(&parts), [true, true, true]);
    let group = parts[0].checks[0];
    assert_eq!((group.low, group.size, group.slot), (-24, 24, None));
}

#[test]
fn a_call_between_two_operands_needs_the_register_for_its_own() {
    let parts = planned(|a| {
        let mut next = a.create_label();
        a.mov(rax, qword_ptr(rbx))?;
        a.call(next)?;
        a.set_label(&mut next)?;
        a.mov(rdx, qword_ptr(rbx + 8))
    });
    assert_eq!(members(&parts), [true, false, true]);
    let group = parts[0].checks[0];
    assert!(group.slot.is_some() && parts[2].load == group.slot && !parts[1].keeps_s1);
}

#[test]
fn a_register_that_is_written_ends_its_group() {
    let parts = planned(|a| {
        a.mov(rax, qword_ptr(rbx))?;
        a.mov(rbx, qword_ptr(rbx + 8))?;
        a.mov(rcx, qword_ptr(rbx))
    });
    assert_eq!(members(&parts), [true, true, false]);
    assert!(parts[0].keeps_s1 && parts[1].load.is_none());
}

#[test]
fn a_page_is_asked_for_a_store_only_if_nothing_can_happen_before_it() {
    let store_after = |between: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        let parts = planned(|a| {
            a.mov(rax, qword_ptr(rbx))?;
            between(a)?;
            a.mov(qword_ptr(rbx + 8), rax)
        });
        parts[0].member
    };
    assert!(store_after(|a| a.add(rax, 5)));
    assert!(!store_after(|a| a.add(rax, qword_ptr(rsi))));
    assert!(!store_after(|a| a.add(rax, qword_ptr(rsi + rdi * 8))));
    assert!(!store_after(|a| a.cpuid()));
    let parts = planned(|a| {
        a.mov(rax, qword_ptr(rsp + 8))?;
        a.add(rax, qword_ptr(rsi))?;
        a.mov(qword_ptr(rsp + 16), rax)?;
        a.call(0x40)
    });
    assert_eq!(members(&parts), [true, false, true, true]);
    let group = parts[0].checks[0];
    assert!(group.write && group.late);
}

#[test]
fn a_check_is_made_where_nobody_looks_at_the_flags() {
    let parts = planned(|a| {
        a.mov(rax, qword_ptr(rsi))?;
        a.mov(rbx, rax)?;
        a.add(rsp, 8)?;
        a.mov(rcx, rax)?;
        a.pop(rbx)?;
        a.ret()
    });
    assert_eq!(members(&parts), [false, false, false, false, true, true]);
    let group = parts[2].checks[0];
    assert_eq!((group.low, group.size, group.slot), (8, 16, None));
    assert!(!group.early && !group.late && parts[2].keeps_s1 && parts[3].keeps_s1);
}

#[test]
fn before_what_may_leave_the_block_only_the_stack_is_looked_at_and_only_in_the_tlb() {
    let parts = planned(|a| {
        a.cmp(rax, 1)?;
        a.add(rax, qword_ptr(rsi))?;
        a.mov(qword_ptr(rdi), rax)?;
        a.ret()
    });
    assert_eq!(members(&parts), [false, false, false, true]);
    let group = parts[1].checks[0];
    assert!(group.base == Register::RSP && group.early && !group.write);
    assert_eq!(parts[3].load, group.slot);
    let parts = planned(|a| {
        let mut out = a.create_label();
        a.cmp(rax, 1)?;
        a.je(out)?;
        a.set_label(&mut out)?;
        a.add(rax, qword_ptr(rsi))?;
        a.jmp(rdx)
    });
    assert!(parts.iter().all(|p| p.checks.is_empty()));
}

#[test]
fn a_slot_is_not_given_to_a_check_that_is_made_before_its_last_use() {
    let parts = planned(|a| {
        a.mov(rdx, qword_ptr(rbp))?;
        a.mov(rax, qword_ptr(rsi))?;
        a.add(rax, qword_ptr(rbp + 8))?;
        a.mov(qword_ptr(rdi), rax)?;
        a.ret()
    });
    assert_eq!(parts[0].checks[0].slot, parts[2].load);
    assert!(parts[2].load.is_some() && parts[2].checks[0].slot != parts[2].load);
    assert_eq!(parts[4].load, parts[2].checks[0].slot);
}
