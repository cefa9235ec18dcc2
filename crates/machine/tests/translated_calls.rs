// SPDX-License-Identifier: Apache-2.0
//! Calls of translated code that fault, and code that runs alone.

use domzero_machine::testing::{TestVm, CODE};
use domzero_machine::{translator_available, vector, Fault, TranslatorOptions, Trap};
use iced_x86::code_asm::*;

const RAX: usize = 0;
const RSP: usize = 4;

fn translated(code: &[u8], threshold: u32) -> Option<TestVm> {
    translator_available().ok()?;
    let options = TranslatorOptions {
        threshold,
        prove: true,
        ..TranslatorOptions::default()
    };
    let mut vm = TestVm::new(code);
    vm.cpu.set_translator(Some(options)).expect("a translator");
    Some(vm)
}

#[test]
fn a_call_to_an_address_that_is_none_has_pushed_nothing() {
    let mut a = CodeAssembler::new(64).expect("64-bit code");
    a.call(rax).expect("a call");
    a.ud2().expect("its end");
    let function = CODE + 4;
    a.ret().expect("a function");
    let code = a.assemble(CODE).expect("code");
    let Some(mut vm) = translated(&code, 2) else {
        return;
    };
    let top = vm.cpu.regs[RSP];
    for _ in 0..8 {
        vm.cpu.rip = CODE;
        vm.cpu.regs[RAX] = function;
        assert!(matches!(
            vm.run_to_trap(),
            Trap::Fault(Fault {
                vector: vector::UD,
                ..
            })
        ));
    }
    assert!(vm.cpu.translated().blocks > 0);
    for target in [
        1 << 47,
        u64::MAX << 48,
        0x7fff_0000_0000_0000,
        0xffff_7fff_ffff_ffff,
    ] {
        vm.poke(top - 8, &[0x55; 8]);
        vm.cpu.rip = CODE;
        vm.cpu.regs[RAX] = target;
        assert!(matches!(
            vm.run_to_trap(),
            Trap::Fault(Fault {
                vector: vector::GP,
                ..
            })
        ));
        assert_eq!((vm.cpu.rip, vm.cpu.regs[RSP]), (CODE, top));
        assert_eq!(vm.peek(top - 8, 8), [0x55; 8], "{target:#x}");
    }
}

/// Nobody would forget what is translated of it when the code changes: it is in no block that is kept.
#[test]
fn an_instruction_that_runs_alone_at_the_end_of_the_budget_is_not_translated() {
    let mut a = CodeAssembler::new(64).expect("64-bit code");
    let mut top = a.create_label();
    a.set_label(&mut top).expect("a label");
    for _ in 0..4 {
        a.add(rax, 1).expect("an addition");
    }
    a.jmp(top).expect("a jump");
    let code = a.assemble(CODE).expect("code");
    let Some(mut vm) = translated(&code, 1) else {
        return;
    };
    for _ in 0..10 {
        vm.cpu.rip = CODE;
        vm.run_ok(1);
    }
    assert_eq!((vm.cpu.regs[RAX], vm.cpu.translated().blocks), (10, 0));
    vm.run_ok(100);
    assert!(vm.cpu.translated().blocks > 0);
}
