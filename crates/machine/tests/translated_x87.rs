// SPDX-License-Identifier: Apache-2.0
//! x87 instructions of translated code, which the host does: what they raise is the guest's, on each engine at the same instruction,
//! and the host's own x87 state is what it was. Results are compared in `engine/`.
// The host's x87 state is looked at.
#![allow(unsafe_code)]

use domzero_machine::testing::{TestVm, CODE, DATA};
use domzero_machine::{translator_available, vector, Fault, Stop, TranslatorOptions, Trap};
use iced_x86::code_asm::*;
use iced_x86::IcedError;

const RAX: usize = 0;
const RDI: usize = 7;

/// The code on both engines, as far as the host has a translator.
fn engines(f: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<TestVm> {
    let mut a = CodeAssembler::new(64).expect("64-bit code");
    f(&mut a).expect("instructions");
    let code = a.assemble(CODE).expect("code");
    let options = TranslatorOptions {
        threshold: 2,
        prove: true,
        ..TranslatorOptions::default()
    };
    let translator = translator_available().is_ok().then_some(Some(options));
    let made = [Some(None), translator].into_iter().flatten().map(|engine| {
        let mut vm = TestVm::new(&code);
        vm.cpu.set_translator(engine).expect("a translator");
        vm.cpu.regs[6] = DATA;
        vm
    });
    made.collect()
}

/// A loop of divisions by what is at DATA, with the control word at DATA + 16.
fn divisions() -> Vec<TestVm> {
    engines(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.fldcw(word_ptr(rsi + 16))?;
        a.fld1()?;
        a.fdiv(qword_ptr(rsi))?;
        a.mov(rax, rdi)?;
        a.fstp(qword_ptr(rsi + 8))?;
        a.sub(rdi, 1)?;
        a.jne(top)?;
        a.ud2()
    })
}

/// Until the loop is over.
fn run_loop(vm: &mut TestVm, rounds: u64) -> Trap {
    vm.cpu.rip = CODE;
    vm.cpu.regs[RDI] = rounds;
    vm.run_to_trap()
}

/// The host's control word, and whether its x87 registers are empty, as calls expect.
fn host() -> (u16, bool) {
    let mut environment = [0u32; 7];
    // SAFETY: 28 bytes are written; `fnstenv` masks exceptions, which are masked, and changes nothing else.
    unsafe { std::arch::asm!("fnstenv [{}]", in(reg) environment.as_mut_ptr(), options(nostack)) };
    (environment[0] as u16, environment[2] as u16 == 0xffff)
}

#[test]
fn an_exception_that_is_unmasked_while_the_loop_is_hot_is_raised_at_the_next_waiting_instruction() {
    for mut vm in divisions() {
        vm.poke(DATA, &2f64.to_le_bytes());
        vm.poke(DATA + 16, &0x37fu16.to_le_bytes());
        assert_eq!(run_loop(&mut vm, 100), Trap::Fault(Fault::new(vector::UD)));
        assert_eq!(vm.peek(DATA + 8, 8), 0.5f64.to_le_bytes());
        // Masked: infinity, and the flag.
        vm.poke(DATA, &0f64.to_le_bytes());
        assert_eq!(run_loop(&mut vm, 100), Trap::Fault(Fault::new(vector::UD)));
        assert_eq!(vm.peek(DATA + 8, 8), f64::INFINITY.to_le_bytes());
        assert_eq!(vm.cpu.fpu.x87.status & 0x80ff, 4);
        // Unmasked while the flag is set: the next instruction raises it.
        vm.poke(DATA + 16, &0x37bu16.to_le_bytes());
        vm.cpu.regs[RAX] = 77;
        assert_eq!(run_loop(&mut vm, 100), Trap::Fault(Fault::new(vector::MF)));
        assert_eq!((vm.cpu.rip, vm.cpu.regs[RAX]), (CODE + 3, 77), "at fld1");
        // Unmasked before it is raised: the division leaves it for the store.
        vm.cpu.fpu.x87.set_status_word(0);
        assert_eq!(run_loop(&mut vm, 100), Trap::Fault(Fault::new(vector::MF)));
        assert_eq!((vm.cpu.rip, vm.cpu.regs[RAX]), (CODE + 10, 100), "at fstp");
        let x87 = &vm.cpu.fpu.x87;
        assert_eq!((x87.status & 0x80ff, x87.fip, x87.fdp), (0x8084, CODE + 5, DATA));
    }
}

#[test]
fn ts_that_is_set_between_two_runs_of_a_hot_loop_is_seen() {
    for mut vm in divisions() {
        vm.poke(DATA + 16, &0x37fu16.to_le_bytes());
        run_loop(&mut vm, 100);
        vm.cpu.fpu.ts = true;
        assert_eq!(run_loop(&mut vm, 100), Trap::Fault(Fault::new(vector::NM)));
        assert_eq!(vm.cpu.rip, CODE, "at fldcw");
    }
}

#[test]
fn the_hosts_x87_state_is_its_own_again_whatever_the_guest_has_loaded() {
    let loops = engines(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.fldpi()?;
        a.fld1()?;
        a.fldcw(word_ptr(rsi + 16))?;
        a.jmp(top)
    });
    let before = host();
    for mut vm in loops {
        vm.poke(DATA + 16, &0x07fu16.to_le_bytes());
        for budget in [1, 3, 400, 5000] {
            assert_eq!(vm.run(budget), Stop::Budget);
            assert_eq!(host(), before);
        }
        let x87 = &vm.cpu.fpu.x87;
        assert_eq!((x87.control, x87.tags, x87.status & 0x41), (0x7f, 0xff, 0x41));
    }
}

#[test]
fn saved_states_show_nothing_of_the_hosts() {
    let saves = engines(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.fld(qword_ptr(rsi))?;
        a.fadd(qword_ptr(rsi))?;
        a.fstp(tbyte_ptr(rsi + 32))?;
        a.fxsave64(ptr(rsi + 0x200))?;
        a.fnstenv(ptr(rsi + 0x80))?;
        a.fninit()?;
        a.sub(rdi, 1)?;
        a.jne(top)?;
        a.ud2()
    });
    for mut vm in saves {
        assert_eq!(run_loop(&mut vm, 100), Trap::Fault(Fault::new(vector::UD)));
        // FOP, FIP and FDP.
        assert_eq!(vm.peek(DATA + 0x206, 18), [0; 18]);
        assert_eq!(vm.peek(DATA + 0x80 + 12, 12), [0; 12]);
    }
}
