// SPDX-License-Identifier: Apache-2.0
//! Two CPUs of one domain at once: locked instructions are atomic, code written by the other is executed, a stop is seen.

use crate::engines::Engine;
use domzero_machine::testing::{TestVm, CODE, DATA, RWX, STACK_TOP};
use domzero_machine::{attention, Cpu, Stop, Trap, VcpuShared};
use iced_x86::code_asm::*;
use iced_x86::IcedError;
use std::sync::Arc;

const RDI: usize = 7;
const RBX: usize = 3;
const ROUNDS: u64 = 20_000;

fn assemble(at: u64, body: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64 bits");
    body(&mut a).and_then(|()| a.int3()).expect("encodable");
    a.assemble(at).expect("encodable")
}

/// Another CPU in the same address space.
fn second(vm: &TestVm) -> Box<Cpu> {
    let mut cpu = Cpu::new(
        vm.domain.clone(),
        Arc::new(VcpuShared::default()),
        domzero_machine::pv_platform(&vm.domain),
    );
    cpu.set_base(vm.l4, true);
    cpu.regs[4] = STACK_TOP - 0x2000;
    cpu.set_rflags(0x202);
    cpu
}

/// Runs to the int3, at most `limit` instructions; other reasons to stop are none.
fn run(cpu: &mut Cpu, limit: i64) {
    cpu.budget.left = limit;
    loop {
        match cpu.run() {
            Stop::Trap(Trap::SoftInt { vector: 3, .. }) => return,
            Stop::Attention => {}
            stop => panic!("{stop:?} at {:#x}", cpu.rip),
        }
    }
}

/// Both CPUs run `body` (rbx: the address, rdi: rounds); the eight bytes at `at` afterwards.
fn both(at: u64, engine: Engine, body: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> u64 {
    let code = assemble(CODE, |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        body(a)?;
        a.dec(rdi)?;
        a.jne(top)
    });
    let mut vm = TestVm::new(&code);
    let mut other = second(&vm);
    std::thread::scope(|s| {
        for cpu in [&mut vm.cpu, &mut other] {
            engine.choose(cpu);
            cpu.rip = CODE;
            cpu.regs[RDI] = ROUNDS;
            cpu.regs[RBX] = at;
            s.spawn(move || run(cpu, i64::MAX / 4));
        }
    });
    vm.peek_u64(at)
}

#[test]
fn locked_instructions_of_two_cpus_lose_nothing() {
    // Aligned, inside a word, across a word, across a cache line, across a page.
    for at in [DATA, DATA + 2, DATA + 6, DATA + 62, DATA + 4094] {
        for &engine in Engine::ALL {
            assert_eq!(
                both(at, engine, |a| a.lock().inc(dword_ptr(rbx))),
                2 * ROUNDS,
                "inc at {at:#x}"
            );
            assert_eq!(
                both(at, engine, |a| a.lock().add(qword_ptr(rbx), 3)),
                6 * ROUNDS,
                "add at {at:#x}"
            );
            let xadd = both(at, engine, |a| {
                a.mov(eax, 1)?;
                a.lock().xadd(dword_ptr(rbx), eax)
            });
            assert_eq!(xadd, 2 * ROUNDS, "xadd at {at:#x}");
            let sum = both(at, engine, |a| {
                let mut again = a.create_label();
                a.mov(rax, qword_ptr(rbx))?;
                a.set_label(&mut again)?;
                a.lea(rdx, qword_ptr(rax + 1))?;
                a.lock().cmpxchg(qword_ptr(rbx), rdx)?;
                a.jne(again)
            });
            assert_eq!(sum, 2 * ROUNDS, "cmpxchg at {at:#x}");
        }
    }
}

#[test]
fn cmpxchg16b_of_two_cpus_loses_nothing() {
    for &engine in Engine::ALL {
        let at = DATA + 64;
        let sum = both(at, engine, |a| {
            let mut again = a.create_label();
            a.mov(rsi, rbx)?;
            a.mov(r8, rbx)?;
            a.mov(rax, qword_ptr(rsi))?;
            a.mov(rdx, qword_ptr(rsi + 8))?;
            a.set_label(&mut again)?;
            a.lea(rbx, qword_ptr(rax + 1))?;
            a.lea(rcx, qword_ptr(rdx + 1))?;
            a.lock().cmpxchg16b(xmmword_ptr(rsi))?;
            a.jne(again)?;
            a.mov(rbx, r8)
        });
        assert_eq!(sum, 2 * ROUNDS);
    }
}

#[test]
fn spin_locks_by_xchg_and_by_bts_protect_plain_memory() {
    for &engine in Engine::ALL {
        let by_xchg = both(DATA + 8, engine, |a| {
            let mut again = a.create_label();
            a.nop()?;
            a.set_label(&mut again)?;
            a.mov(eax, 1)?;
            a.xchg(dword_ptr(rbx + 8), eax)?;
            a.test(eax, eax)?;
            a.jne(again)?;
            a.inc(qword_ptr(rbx))?;
            a.mov(dword_ptr(rbx + 8), 0)
        });
        assert_eq!(by_xchg, 2 * ROUNDS);
        let by_bts = both(DATA + 8, engine, |a| {
            let mut again = a.create_label();
            a.nop()?;
            a.set_label(&mut again)?;
            a.pause()?;
            a.lock().bts(dword_ptr(rbx + 8), 5)?;
            a.jb(again)?;
            a.add(qword_ptr(rbx), 1)?;
            a.lock().btr(dword_ptr(rbx + 8), 5)
        });
        assert_eq!(by_bts, 2 * ROUNDS);
    }
}

#[test]
fn code_patched_by_another_cpu_is_executed() {
    // At RWX: mov eax, imm32; mov [DATA], eax; cmp [DATA + 8], 0; je RWX; int3
    let victim = assemble(RWX, |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.mov(eax, 0)?;
        a.mov(dword_ptr(DATA), eax)?;
        a.cmp(dword_ptr(DATA + 8), 0)?;
        a.je(top)
    });
    // Patches the immediate, and waits until the other has stored it.
    let patcher = assemble(CODE, |a| {
        let (mut top, mut wait) = (a.create_label(), a.create_label());
        a.set_label(&mut top)?;
        a.mov(dword_ptr(RWX + 1), edi)?;
        a.set_label(&mut wait)?;
        a.cmp(dword_ptr(DATA), edi)?;
        a.jne(wait)?;
        a.dec(edi)?;
        a.jne(top)?;
        a.mov(dword_ptr(DATA + 8), 1)
    });
    let mut vm = TestVm::new(&patcher);
    vm.poke(RWX, &victim);
    let mut other = second(&vm);
    other.rip = RWX;
    vm.cpu.regs[RDI] = 300;
    std::thread::scope(|s| {
        s.spawn(|| run(&mut other, i64::MAX / 4));
        s.spawn(|| run(&mut vm.cpu, i64::MAX / 4));
    });
    assert_eq!(vm.peek(DATA, 4), [1, 0, 0, 0]);
}

#[test]
fn a_stop_request_ends_a_loop_without_branches_to_elsewhere() {
    let code = assemble(CODE, |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.jmp(top)
    });
    let mut vm = TestVm::new(&code);
    let shared = vm.cpu.shared.clone();
    let runner = std::thread::spawn(move || {
        vm.cpu.budget.left = i64::MAX / 4;
        vm.cpu.run()
    });
    while !shared.in_guest() {
        std::thread::yield_now();
    }
    shared.request(attention::STOP);
    assert_eq!(runner.join().expect("no panic"), Stop::Attention);
}
