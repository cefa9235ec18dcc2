// SPDX-License-Identifier: Apache-2.0
//! Operands of a group in two pages: the same as the interpreter does, and not done by it for ever.

use super::TIMES;
use crate::cpu::engine::TranslatorOptions;
use crate::cpu::translate::{translator_available, Translator};
use crate::cpu::Stop;
use crate::testing::{pte, TestVm, CODE, DATA, RWX, STACK_TOP};
use iced_x86::code_asm::*;
use iced_x86::IcedError;

/// Where the page ends that operands lie before and behind.
const BORDER: u64 = DATA + 4096;
/// The same of the stack.
const STACK_BORDER: u64 = STACK_TOP - 4096;

/// What each round does: groups over both borders, with flags that are looked at and such that are not, a function of the page,
/// vector and x87 registers.
fn round(a: &mut CodeAssembler, called: CodeLabel) -> Result<(), IcedError> {
    a.mov(rax, qword_ptr(rsi))?;
    a.add(rax, qword_ptr(rsi + 8))?;
    // This one crosses the border itself.
    a.adc(qword_ptr(rsi + 16), rax)?;
    a.mov(rdx, qword_ptr(rsi + 24))?;
    a.adc(rbx, rdx)?;
    a.push(rbx)?;
    a.push(rax)?;
    a.call(called)?;
    a.pop(rdx)?;
    a.pop(rax)?;
    a.movdqu(xmm1, xmmword_ptr(rdi - 32))?;
    a.paddq(xmm1, xmmword_ptr(rdi))?;
    a.movdqu(xmmword_ptr(rdi + 16), xmm1)?;
    a.fild(dword_ptr(rdi - 8))?;
    a.fild(dword_ptr(rdi + 8))?;
    a.faddp(st1, st0)?;
    a.fistp(dword_ptr(rdi + 4))
}

/// So many rounds at `base`, and as many again with another constant in the code if that can be written; then a breakpoint.
pub(in crate::cpu::translate) fn straddling(base: u64, n: u32) -> Vec<u8> {
    let made = (|| {
        let mut a = CodeAssembler::new(64)?;
        let (mut top, mut called, mut start, mut end) = (
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
        );
        let mut constant = a.create_label();
        a.jmp(start)?;
        a.set_label(&mut called)?;
        a.mov(r9, qword_ptr(rsp))?;
        a.add(rbx, qword_ptr(rsp + 8))?;
        a.ret()?;
        a.set_label(&mut start)?;
        a.mov(rsi, BORDER - 20)?;
        a.mov(rdi, BORDER)?;
        a.mov(rsp, STACK_BORDER + 12)?;
        a.xor(r12d, r12d)?;
        a.mov(ecx, n)?;
        a.set_label(&mut top)?;
        round(&mut a, called)?;
        a.add(rbx, 3)?;
        a.set_label(&mut constant)?;
        a.dec(ecx)?;
        a.jne(top)?;
        if base == RWX {
            a.test(r12, r12)?;
            a.jne(end)?;
            a.inc(r12)?;
            a.mov(ecx, n)?;
            a.lea(rdx, ptr(constant))?;
            a.mov(byte_ptr(rdx - 1), 5)?;
            a.jmp(top)?;
            a.set_label(&mut end)?;
        }
        a.int3()?;
        a.assemble(base)
    })();
    made.expect("code that can be assembled")
}

pub(in crate::cpu::translate) fn vm(base: u64, n: u32, translated: bool) -> TestVm {
    let code = straddling(base, n);
    let mut vm = TestVm::new(if base == CODE { &code } else { &[] });
    vm.poke(base, &code);
    vm.cpu.rip = base;
    let options = TranslatorOptions {
        threshold: 4,
        exact_flags: true,
        prove: true,
        code_bytes: 1 << 20,
        ..TranslatorOptions::default()
    };
    vm.cpu
        .set_translator(translated.then_some(options))
        .expect("a translator");
    vm
}

fn translator(vm: &TestVm) -> &Translator {
    vm.cpu.code.translator.as_ref().expect("a translator")
}

/// Live blocks that are the rest of others.
fn rests(vm: &TestVm) -> usize {
    let t = translator(vm);
    let live = || t.blocks.iter().filter(|b| b.lives());
    live()
        .filter(|b| live().any(|other| b.rest_of(other).is_some()))
        .count()
}

fn seen(vm: &mut TestVm) -> impl PartialEq + std::fmt::Debug {
    let memory = (vm.peek(BORDER - 64, 128), vm.peek(STACK_BORDER - 64, 128));
    let fpu = (vm.cpu.fpu.xmm, vm.cpu.fpu.mxcsr);
    (
        vm.cpu.rip,
        vm.cpu.regs,
        vm.cpu.rflags(),
        memory,
        fpu,
        vm.cpu.budget.left,
    )
}

#[test]
fn operands_in_two_pages_are_what_the_interpreter_makes_of_them_at_every_step() {
    if translator_available().is_err() {
        return;
    }
    for base in [CODE, RWX] {
        for step in (1..=40).chain([97, 1000]) {
            let (mut fast, mut plain) = (vm(base, 30, true), vm(base, 30, false));
            while fast.run(step) == Stop::Budget {
                plain.run_ok(step);
                assert_eq!(seen(&mut fast), seen(&mut plain), "{step} at a time");
            }
            plain.run(step);
            assert_eq!(seen(&mut fast), seen(&mut plain), "{step} at a time");
            assert!(step < 40 || rests(&fast) > 1, "{step} at a time");
            fast.cpu
                .prove_code()
                .unwrap_or_else(|refused| panic!("{refused}"));
        }
    }
}

#[test]
fn after_some_failures_the_interpreter_does_no_more_of_them() {
    if translator_available().is_err() {
        return;
    }
    let interpreted = |n| {
        let mut vm = vm(CODE, n, true);
        vm.run_to_trap();
        (translator(&vm).interpreted, rests(&vm))
    };
    let (some, more) = (interpreted(100), interpreted(10_000));
    assert!(some.0 >= u64::from(TIMES), "{some:?}");
    assert_eq!(some, more);
}

#[test]
fn code_of_a_rest_is_forgotten_with_its_block() {
    if translator_available().is_err() {
        return;
    }
    let mut vm = vm(RWX, 100, true);
    let mut most = 0;
    while vm.run(50) == Stop::Budget {
        most = most.max(rests(&vm));
        let t = translator(&vm);
        let first = t.blocks.iter().filter(|b| !b.lives()).count();
        assert!(first == 0 || vm.cpu.regs[12] == 1);
    }
    assert!(most > 1);
    vm.cpu.forget_all_code();
    assert_eq!(rests(&vm), 0);
}

#[test]
fn a_page_that_goes_away_under_a_rest_is_missed_where_the_interpreter_misses_it() {
    if translator_available().is_err() {
        return;
    }
    for page in [BORDER - 4096, BORDER, STACK_BORDER - 4096, STACK_BORDER] {
        let mut ends = [true, false].map(|translated| {
            let mut vm = vm(CODE, 1000, translated);
            vm.run_ok(2000);
            assert!(!translated || rests(&vm) > 1);
            vm.map_frame(page, crate::mem::Mfn(0), 0);
            vm.cpu.flush_tlb_all_views();
            let trap = vm.run_to_trap();
            // What is mapped again can be looked at.
            (vm, format!("{trap:?}"))
        });
        let [(fast, trap), (plain, other)] = &mut ends;
        assert_eq!(trap, other);
        let state = |vm: &TestVm| (vm.cpu.rip, vm.cpu.regs, vm.cpu.rflags(), vm.cpu.budget.left);
        assert_eq!(state(fast), state(plain), "{page:x}: {trap}");
        let frame = |va| va >> 12;
        assert!(
            trap.contains("PageFault") || trap.contains("Fault"),
            "{trap} {}",
            frame(page)
        );
        let _ = pte::P;
    }
}
