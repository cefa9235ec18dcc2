// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::cpu::engine::TranslatorOptions;
use crate::testing::{TestVm, CODE, DATA, RWX};

/// A CPU whose slices are compared, at a loop of `body` that rcx counts.
fn looping(body: &[u8], rounds: u64) -> TestVm {
    let mut code = body.to_vec();
    code.extend([0x48, 0xff, 0xc9]); // dec rcx
    code.extend([0x0f, 0x85]); // jnz to the start
    let back = -(code.len() as i32 + 4);
    code.extend(back.to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    let mut vm = TestVm::new(&code);
    vm.cpu.regs[1] = rounds;
    vm.cpu.regs[3] = DATA;
    let options = TranslatorOptions {
        threshold: 2,
        code_bytes: 1 << 20,
        ..TranslatorOptions::default()
    };
    vm.cpu.set_translator(Some(options)).expect("a translator");
    vm.cpu.set_check(true);
    vm
}

fn run(vm: &mut TestVm, amount: i64) -> Stop {
    let shared = vm.cpu.shared.clone();
    let in_guest = shared.enter();
    vm.cpu.budget.left = amount;
    vm.cpu.budget.yield_at = 0;
    vm.cpu.run_checked(&in_guest)
}

/// mov eax, 0x11223344; add [rbx], rax; popcnt rdx, [rbx]
const BODY: [u8; 13] = [
    0xb8, 0x44, 0x33, 0x22, 0x11, 0x48, 0x01, 0x03, 0xf3, 0x48, 0x0f, 0xb8, 0x13,
];

#[test]
fn both_runs_of_a_slice_begin_at_the_same_and_one_of_them_counts() {
    let mut vm = looping(&BODY, 1000);
    assert_eq!(run(&mut vm, 2001), Stop::Budget);
    assert_eq!(run(&mut vm, 1 << 20), Stop::Trap(Trap::Syscall));
    let (compared, found) = vm.cpu.checked();
    assert_eq!(found, None);
    assert!(compared >= 5000, "{compared}");
    assert_eq!(vm.cpu.read::<u64>(DATA), Ok(1000 * 0x1122_3344));
}

#[test]
fn what_is_stored_over_code_is_undone_too() {
    // mov byte [rip + the mov's operand], cl; mov eax, 0; add [rbx], rax
    let body = [
        0x88, 0x0d, 0x01, 0x00, 0x00, 0x00, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x48, 0x01, 0x03,
    ];
    let mut vm = looping(&body, 20);
    let mut code = [0; 32];
    vm.cpu.read_bytes(CODE, &mut code).expect("code");
    vm.cpu.write_bytes(RWX, &code).expect("room for it");
    vm.cpu.rip = RWX;
    for _ in 0..20 {
        run(&mut vm, 7);
    }
    assert_eq!(vm.cpu.checked().1, None);
    assert_eq!(vm.cpu.read::<u64>(DATA), Ok((1..=20).sum()));
}

#[test]
fn translated_code_that_does_something_else_is_found_and_reported_with_its_instructions() {
    let mut vm = looping(&BODY, 1000);
    assert_eq!(run(&mut vm, 100), Stop::Budget);
    let translator = vm.cpu.code.translator.as_mut().expect("a translator");
    assert_eq!(
        translator.replace(0x1122_3344u32.to_le_bytes(), 0x1122_3345u32.to_le_bytes()),
        1
    );
    assert_eq!(
        run(&mut vm, 4000),
        Stop::Trap(Trap::Unsupported("the engines differ"))
    );
    let (_, found) = vm.cpu.checked();
    let report = found.expect("a report").to_owned();
    for words in [
        "instruction 5 of a slice of 4000",
        "b844332211",
        "mov eax,11223344h",
        "  rax                0000000011223345   0000000011223344",
        "memory 0x",
    ] {
        assert!(report.contains(words), "{words} is not in\n{report}");
    }
    // Nothing of the slice has happened.
    assert_eq!(vm.cpu.read::<u64>(DATA), Ok(20 * 0x1122_3344));
}

#[test]
fn undefined_flags_may_differ_also_where_syscall_has_put_them() {
    // mov eax, 0xff; add eax, 1; shr eax, 3; syscall
    let mut vm = looping(&BODY, 1);
    let code = [
        0xb8, 0xff, 0x00, 0x00, 0x00, 0x83, 0xc0, 0x01, 0xc1, 0xe8, 0x03, 0x0f, 0x05,
    ];
    vm.cpu.write_bytes(RWX, &code).expect("room for it");
    for _ in 0..10 {
        vm.cpu.rip = RWX;
        assert_eq!(run(&mut vm, 100), Stop::Trap(Trap::Syscall));
    }
    assert_eq!(vm.cpu.checked(), (40, None));
}
