// SPDX-License-Identifier: Apache-2.0
//! Breakpoints: which instructions they cost, and that they hit what they hit when every instruction is looked at.

use domzero_machine::testing::{TestVm, CODE, DATA, RWX, STACK_TOP};
use domzero_machine::{vector, Stop, Trap};
use iced_x86::code_asm::*;
use iced_x86::IcedError;

const RF: u64 = 1 << 16;
const EXECUTE: u64 = 0;
const WRITE: u64 = 1;
const ACCESS: u64 = 3;
/// Where the function of the program is: a code page of its own.
const FUNCTION: u64 = CODE + 3 * 4096;

/// Arms breakpoint `n`; `len` in bytes.
fn arm(vm: &mut TestVm, n: u32, at: u64, kind: u64, len: u64) {
    let code = [0, 0, 1, 0, 3, 0, 0, 0, 2][len as usize];
    vm.cpu.set_breakpoint(n as usize, at);
    let control = vm.cpu.dr7() & !(0xf << (16 + 4 * n)) | 2 << (2 * n) | (kind | code << 2) << (16 + 4 * n);
    vm.cpu.set_dr7(control);
}

fn disarm(vm: &mut TestVm) {
    vm.cpu.set_dr7(0x400);
}

fn assemble(at: u64, f: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64 bits");
    f(&mut a).expect("valid operands");
    a.assemble(at).expect("encodable")
}

/// A loop of `rounds` that calls a function on another page; both touch memory in every way there is.
fn program(rounds: u32) -> TestVm {
    let main = assemble(CODE, |a| {
        let mut top = a.create_label();
        a.mov(r15d, rounds)?;
        a.mov(rbx, DATA)?;
        a.mov(rbp, DATA + 2 * 4096)?;
        a.set_label(&mut top)?;
        a.mov(rax, qword_ptr(rbx + 64))?;
        a.add(qword_ptr(rbx + 72), rax)?;
        a.mov(dword_ptr(rbx + 4094), r15d)?;
        a.lock().xadd(qword_ptr(rbp + 8), rax)?;
        a.movups(xmm0, xmmword_ptr(rbx + 4088))?;
        a.movups(xmmword_ptr(rbp + 100), xmm0)?;
        a.push(qword_ptr(rbx + 64))?;
        a.call(FUNCTION)?;
        a.pop(qword_ptr(rbx + 200))?;
        a.cmp(byte_ptr(rbx + 4097), 3)?;
        a.fld(qword_ptr(rbp + 16))?;
        a.fstp(tword_ptr(rbp + 4090))?;
        a.dec(r15d)?;
        a.jne(top)?;
        a.int3()
    });
    let function = assemble(FUNCTION, |a| {
        let mut skip = a.create_label();
        a.test(r15d, 1)?;
        a.je(skip)?;
        a.lea(rsi, qword_ptr(rbx + 4080))?;
        a.lea(rdi, qword_ptr(rbp + 4070))?;
        a.mov(ecx, 40)?;
        a.rep().movsb()?;
        a.set_label(&mut skip)?;
        a.mov(rax, DATA + 4096)?;
        a.xchg(qword_ptr(rax + 128), rdx)?;
        a.mov(ecx, 3)?;
        a.lea(rdi, qword_ptr(rax + 300))?;
        a.rep().stosq()?;
        a.ret()
    });
    let mut vm = TestVm::new(&main);
    vm.poke(FUNCTION, &function);
    vm
}

/// Runs to the int3; gives (rip, rsp, what was hit) of each #DB on the way, and the state at the end.
fn trace(vm: &mut TestVm, slice: i64) -> (Vec<(u64, u64, u64)>, [u64; 16], u64) {
    let mut hits = Vec::new();
    loop {
        match vm.run(slice) {
            Stop::Budget => {}
            Stop::Trap(Trap::SoftInt { vector: 3, .. }) => break,
            Stop::Trap(Trap::Fault(f)) if f.vector == vector::DB => {
                hits.push((vm.cpu.rip, vm.cpu.regs[4], std::mem::take(&mut vm.cpu.debug.hit)));
                vm.cpu.load_resume_flag(RF);
                assert!(hits.len() < 100_000);
            }
            other => panic!("{other:?} at {:#x}", vm.cpu.rip),
        }
    }
    (hits, vm.cpu.regs, vm.cpu.rflags())
}

#[test]
fn armed_breakpoints_that_nothing_comes_near_cost_no_instruction() {
    let mut plain = program(200);
    let (_, regs, flags) = trace(&mut plain, 1_000_000);
    let mut vm = program(200);
    arm(&mut vm, 0, CODE + 9 * 4096 + 100, EXECUTE, 1);
    arm(&mut vm, 1, RWX + 4096, WRITE, 8);
    arm(&mut vm, 2, RWX, ACCESS, 4);
    assert_eq!(trace(&mut vm, 1_000_000), (vec![], regs, flags));
    assert_eq!(vm.cpu.debug.steps, 0);
}

#[test]
fn a_breakpoint_on_execution_costs_the_instructions_of_its_page_only() {
    let rounds = 50;
    let mut vm = program(2 * rounds);
    // Links and jumps are there before the breakpoint is.
    assert_eq!(vm.run(700), Stop::Budget);
    let left = vm.cpu.regs[15];
    arm(&mut vm, 3, FUNCTION, EXECUTE, 1);
    let (hits, ..) = trace(&mut vm, 1_000_000);
    assert_eq!(hits.len() as u64, left);
    assert!(hits.iter().all(|h| (h.0, h.2) == (FUNCTION, 8)));
    // At most 12 instructions, 39 iterations more and what follows a return with RF set.
    assert!(vm.cpu.debug.steps <= left * 60, "{} steps", vm.cpu.debug.steps);
    assert!(vm.cpu.debug.steps >= left);
    let steps = vm.cpu.debug.steps;
    disarm(&mut vm);
    vm.cpu.rip = CODE;
    trace(&mut vm, 1_000_000);
    assert_eq!(vm.cpu.debug.steps, steps);
}

#[test]
fn reads_of_a_page_with_a_breakpoint_on_writes_cost_nothing_and_writes_are_looked_at() {
    let code = assemble(CODE, |a| {
        let mut top = a.create_label();
        a.mov(ecx, 1000)?;
        a.set_label(&mut top)?;
        a.mov(rax, qword_ptr(rbx))?;
        a.cmp(rax, qword_ptr(rbx + 8))?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.mov(byte_ptr(rbx + 32), al)?;
        a.mov(byte_ptr(rbx + 16), al)?;
        a.nop()?;
        a.int3()
    });
    let mut vm = TestVm::new(&code);
    vm.cpu.regs[3] = DATA;
    arm(&mut vm, 0, DATA + 16, WRITE, 1);
    let (hits, ..) = trace(&mut vm, 1_000_000);
    assert_eq!(hits.iter().map(|h| h.2).collect::<Vec<_>>(), [1]);
    // Two writes, and the instruction after a return with RF set.
    assert_eq!(vm.cpu.debug.steps, 3);
}

#[test]
fn a_load_of_ss_at_the_end_of_a_page_holds_back_the_breakpoint_on_the_next() {
    let end = CODE + 2 * 4096;
    let mut vm = TestVm::new(&[]);
    // A nop before it, so that the load is in the middle of its block.
    vm.poke(end - 3, &[0x90, 0x8e, 0xd0, 0x90, 0xcc]);
    vm.cpu.regs[0] = 0xe02b;
    for warm in [true, false] {
        disarm(&mut vm);
        if !warm {
            arm(&mut vm, 0, end, EXECUTE, 1);
        }
        vm.cpu.rip = end - 3;
        assert_eq!(trace(&mut vm, 1000).0, []);
    }
    vm.cpu.rip = end;
    assert_eq!(trace(&mut vm, 1000).0.len(), 1);
}

#[test]
fn an_address_mask_widens_a_breakpoint() {
    let mut vm = program(4);
    arm(&mut vm, 0, FUNCTION + 0x123, EXECUTE, 1);
    vm.cpu.set_breakpoint_mask(0, 0xfff);
    let in_function = trace(&mut vm, 1_000_000).0;
    assert!(in_function.len() > 4 * 6);
    assert!(in_function.iter().all(|h| h.0 & !0xfff == FUNCTION));
    let mut vm = program(4);
    arm(&mut vm, 0, DATA, WRITE, 1);
    vm.cpu.set_breakpoint_mask(0, 0x1fff);
    let wide = trace(&mut vm, 1_000_000).0.len();
    let mut vm = program(4);
    arm(&mut vm, 0, DATA, WRITE, 1);
    vm.cpu.set_breakpoint_mask(0, 0xfff);
    let page = trace(&mut vm, 1_000_000).0.len();
    assert!(page > 0 && wide > page, "{page} and {wide}");
}

/// splitmix64
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[test]
fn random_breakpoints_hit_what_they_hit_when_every_instruction_runs_alone() {
    let mut rng = 7;
    let mut hits_in_all = 0;
    for case in 0..300 {
        let mut draws = Vec::new();
        for n in 0..1 + next(&mut rng) as u32 % 4 {
            let r = |rng: &mut u64, below: u64| next(rng) % below;
            let (at, kind) = match r(&mut rng, 4) {
                0 => (CODE + r(&mut rng, 96), EXECUTE),
                1 => (FUNCTION + r(&mut rng, 64), EXECUTE),
                2 => (
                    DATA + r(&mut rng, 4) * 4096 + r(&mut rng, 400),
                    [WRITE, ACCESS][r(&mut rng, 2) as usize],
                ),
                _ => {
                    let near = [DATA + 4080, DATA + 2 * 4096 + 4070, STACK_TOP - 24][r(&mut rng, 3) as usize];
                    (near + r(&mut rng, 24), [WRITE, ACCESS][r(&mut rng, 2) as usize])
                }
            };
            let len = if kind == EXECUTE {
                1
            } else {
                [1, 2, 4, 8][r(&mut rng, 4) as usize]
            };
            let mask = if r(&mut rng, 4) == 0 {
                next(&mut rng) & next(&mut rng) & 0x1ff
            } else {
                0
            };
            draws.push((n, at, kind, len, mask));
        }
        let run = |alone: bool, slice: i64, warm: i64| {
            let mut vm = program(6);
            assert_eq!(vm.run(warm), Stop::Budget);
            vm.cpu.debug.all_alone = alone;
            for &(n, at, kind, len, mask) in &draws {
                arm(&mut vm, n, at, kind, len);
                vm.cpu.set_breakpoint_mask(n as usize, mask);
            }
            let end = trace(&mut vm, slice);
            let memory = vm.peek(DATA, 4 * 4096);
            (end, memory)
        };
        let warm = 1 + (next(&mut rng) % 60) as i64;
        let all = run(true, 1_000_000, warm);
        hits_in_all += all.0 .0.len();
        for slice in [1_000_000, 5, 1] {
            assert!(all == run(false, slice, warm), "case {case}: {draws:x?}");
        }
    }
    assert!(hits_in_all > 1000, "only {hits_in_all}");
}
