// SPDX-License-Identifier: Apache-2.0
//! What paravirtualization costs: a system call of an application there and back, a hypercall that leaves the engine.
// Instructions run on the host.
#![allow(unsafe_code)]

use domzero_machine::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS};
use domzero_machine::testing::{TestVm, CODE, STACK_TOP};
use domzero_machine::{Callback, CallbackKind, Exit, TrapGate, Vcpu};
use iced_x86::code_asm::*;
use iced_x86::IcedError;
use std::time::Instant;

const USER: u64 = CODE + 0x1000;
const END: u64 = CODE + 0x2000;
const SYSCALL_ENTRY: u64 = CODE + 0x3000;
const HYPERCALL_IRET: u32 = 23;
const DONE: u64 = 99;

type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;

fn assemble(at: u64, body: Body) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64 bits");
    body(&mut a).expect("encodable");
    a.assemble(at).expect("encodable")
}

/// An application at USER that makes rdi system calls, under a kernel that returns from each at once.
fn application() -> Vcpu {
    let mut vm = TestVm::new(&[]);
    let user = assemble(USER, |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.mov(eax, 39)?;
        a.syscall()?;
        a.sub(rdi, 1)?;
        a.jne(top)?;
        a.ud2()
    });
    let entry = assemble(SYSCALL_ENTRY, |a| {
        a.pop(rcx)?;
        a.pop(r11)?;
        a.push(0)?;
        a.push(rcx)?;
        a.push(r11)?;
        a.push(rax)?;
        a.mov(eax, HYPERCALL_IRET)?;
        a.syscall()
    });
    let end = assemble(END, |a| {
        a.mov(eax, DONE as u32)?;
        a.syscall()
    });
    for (at, code) in [(USER, user), (SYSCALL_ENTRY, entry), (END, end)] {
        vm.poke(at, &code);
    }
    let mut v = Vcpu::with_cpu(vm.cpu, 0);
    for n in 0..32 {
        v.set_trap(
            n,
            TrapGate {
                cs: FLAT_KERNEL_CS,
                address: END,
                flags: 0,
            },
        );
    }
    let callback = Callback {
        cs: FLAT_KERNEL_CS,
        address: SYSCALL_ENTRY,
        mask_events: false,
    };
    v.set_callback(CallbackKind::Syscall, callback);
    v.set_kernel_stack(FLAT_KERNEL_SS, STACK_TOP);
    v.load_base(false, v.base(true));
    v
}

/// Nanoseconds per system call of an application, and the instructions that the guest executes for one.
pub fn syscall(seconds: f64) -> (f64, f64) {
    let mut v = application();
    let mut best = (f64::MAX, 0.0);
    let mut count = 1000u64;
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        assert!(v.guest_kernel());
        v.set_guest_kernel(false);
        v.cpu.rip = USER;
        v.cpu.regs[4] = STACK_TOP - 0x2000;
        v.cpu.regs[7] = count;
        let (t, n) = (Instant::now(), v.instructions());
        let exit = v.run(u64::MAX >> 2, u64::MAX);
        let ns = t.elapsed().as_nanos() as f64;
        assert!(
            matches!(exit, Exit::Hypercall { nr: DONE, .. }),
            "{exit:?} at {:#x}",
            v.cpu.rip
        );
        if ns < 2e7 {
            count *= 4;
        } else if ns / (count as f64) < best.0 {
            best = (ns / count as f64, (v.instructions() - n) as f64 / count as f64);
        }
    }
    best
}

/// Nanoseconds per hypercall that leaves the engine and comes back.
pub fn hypercall(seconds: f64) -> f64 {
    let code = assemble(CODE, |a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.mov(eax, 17)?;
        a.mov(edi, 1)?; // XENVER_extraversion: the machine answers XENVER_version itself, and does not come back
        a.syscall()?;
        a.jmp(top)
    });
    let mut v = Vcpu::with_cpu(TestVm::new(&code).cpu, 0);
    let mut best = f64::MAX;
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        let t = Instant::now();
        for _ in 0..10_000 {
            let exit = v.run(u64::MAX >> 2, u64::MAX);
            assert!(matches!(exit, Exit::Hypercall { nr: 17, .. }), "{exit:?}");
            v.hypercall_return(0);
        }
        best = best.min(t.elapsed().as_nanos() as f64 / 10_000.0);
    }
    best
}

/// Nanoseconds per system call of the host.
pub fn native_syscall() -> f64 {
    let mut best = f64::MAX;
    for _ in 0..20 {
        let t = Instant::now();
        for _ in 0..10_000 {
            // SAFETY: getpid has no arguments and no effects.
            unsafe { libc::syscall(libc::SYS_getpid) };
        }
        best = best.min(t.elapsed().as_nanos() as f64 / 10_000.0);
    }
    best
}
