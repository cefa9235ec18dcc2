// SPDX-License-Identifier: Apache-2.0
//! The ways into translated code and out of it. Here, and nowhere else, registers change hands between guest and host.
//!
//! In translated code: rsp is the frame; rcx of the guest is in r12, its rsp in r13, its r12 to r15 in the frame, all others and
//! the arithmetic flags in themselves; rcx, r14 and r15 are scratch. The direction flag is the host's, and clear.
// Registers are moved by hand.
#![allow(unsafe_code)]

use super::callout::callout;
use crate::cpu::region::Frame;
use crate::cpu::x87state::Fpu;
use crate::cpu::Cpu;
use std::arch::naked_asm;
use std::mem::offset_of;

/// Runs translated code at `code` until it leaves.
///
/// # Safety
/// `frame` must be that of the current view of `cpu`, filled in by `Cpu::enter_code`; `code` must be the body of a live block
/// that suits `rip`, its cost taken from the slice. Nothing else may hold a reference to the CPU.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn enter(_cpu: *mut Cpu, _frame: *mut Frame, _code: u64) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov [rsi + {host_stack}], rsp",
        "mov rsp, rsi",
        "mov r14, rdx",
        "mov r15, rdi",
        "jmp {restore}",
        host_stack = const offset_of!(Frame, host_stack),
        restore = sym restore,
    )
}

/// With the frame in rsp, the CPU in r15 and an address in r14: goes on there as the guest.
#[unsafe(naked)]
unsafe extern "C" fn restore() {
    naked_asm!(
        "cmp qword ptr [rsp + {away}], 0",
        "jne 2f",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movaps xmm\\n, [r15 + {xmm} + 16 * \\n]",
        ".endr",
        "ldmxcsr [r15 + {mxcsr}]",
        "cmp qword ptr [rsp + {ymm_away}], 0",
        "jne 2f",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vinsertf128 ymm\\n, ymm\\n, [r15 + {ymm_hi} + 16 * \\n], 1",
        ".endr",
        "2:",
        "mov rax, [r15 + 96]",
        "mov rcx, [r15 + 104]",
        "mov rdx, [r15 + 112]",
        "mov rbx, [r15 + 120]",
        "mov [rsp + {spilled}], rax",
        "mov [rsp + {spilled} + 8], rcx",
        "mov [rsp + {spilled} + 16], rdx",
        "mov [rsp + {spilled} + 24], rbx",
        "mov rax, [rsp + {flags}]",
        "add al, 0x7f", // overflows if al is 1
        "sahf",
        "mov rax, [r15]",
        "mov r12, [r15 + 8]",
        "mov rdx, [r15 + 16]",
        "mov rbx, [r15 + 24]",
        "mov r13, [r15 + 32]",
        "mov rbp, [r15 + 40]",
        "mov rsi, [r15 + 48]",
        "mov rdi, [r15 + 56]",
        "mov r8, [r15 + 64]",
        "mov r9, [r15 + 72]",
        "mov r10, [r15 + 80]",
        "mov r11, [r15 + 88]",
        "mov r15, [rsp + {va}]",
        "jmp r14",
        away = const offset_of!(Frame, vectors_away),
        ymm_away = const offset_of!(Frame, ymm_away),
        xmm = const offset_of!(Cpu, fpu) + offset_of!(Fpu, xmm),
        ymm_hi = const offset_of!(Cpu, fpu) + offset_of!(Fpu, ymm_hi),
        mxcsr = const offset_of!(Cpu, fpu) + offset_of!(Fpu, mxcsr),
        spilled = const offset_of!(Frame, spilled),
        flags = const offset_of!(Frame, flags),
        va = const offset_of!(Frame, va),
    )
}

/// Called by stubs of translated code; what follows the call is their site. Goes on where [`callout`] says, on the frame that it
/// says, or leaves.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn call() {
    naked_asm!(
        "pop r14",
        "mov [rsp + {va}], r15",
        "mov r15, [rsp + {cpu}]",
        "mov [r15], rax",
        "mov [r15 + 8], r12",
        "mov [r15 + 16], rdx",
        "mov [r15 + 24], rbx",
        "mov [r15 + 32], r13",
        "mov [r15 + 40], rbp",
        "mov [r15 + 48], rsi",
        "mov [r15 + 56], rdi",
        "mov [r15 + 64], r8",
        "mov [r15 + 72], r9",
        "mov [r15 + 80], r10",
        "mov [r15 + 88], r11",
        "lahf",
        "seto al",
        "movzx eax, ax",
        "mov [rsp + {flags}], rax",
        "mov rax, [rsp + {spilled}]",
        "mov rcx, [rsp + {spilled} + 8]",
        "mov rdx, [rsp + {spilled} + 16]",
        "mov rbx, [rsp + {spilled} + 24]",
        "mov [r15 + 96], rax",
        "mov [r15 + 104], rcx",
        "mov [r15 + 112], rdx",
        "mov [r15 + 120], rbx",
        "cmp qword ptr [rsp + {away}], 0",
        "jne 2f",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movaps [r15 + {xmm} + 16 * \\n], xmm\\n",
        ".endr",
        "stmxcsr [r15 + {mxcsr}]",
        "ldmxcsr [rsp + {host_mxcsr}]",
        "cmp qword ptr [rsp + {ymm_away}], 0",
        "jne 2f",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vextractf128 [r15 + {ymm_hi} + 16 * \\n], ymm\\n, 1",
        ".endr",
        // What is compiled for SSE waits for upper halves that are not zero.
        "vzeroupper",
        "2:",
        "mov rdi, r15",
        "mov rsi, r14",
        "mov rdx, rsp",
        "mov rsp, [rsp + {host_stack}]",
        "call {callout}",
        "test rax, rax",
        "jz 3f",
        "mov r14, rax",
        "mov rsp, rdx",
        "mov r15, [rsp + {cpu}]",
        "jmp {restore}",
        "3:",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        va = const offset_of!(Frame, va),
        cpu = const offset_of!(Frame, cpu),
        flags = const offset_of!(Frame, flags),
        spilled = const offset_of!(Frame, spilled),
        away = const offset_of!(Frame, vectors_away),
        ymm_away = const offset_of!(Frame, ymm_away),
        xmm = const offset_of!(Cpu, fpu) + offset_of!(Fpu, xmm),
        ymm_hi = const offset_of!(Cpu, fpu) + offset_of!(Fpu, ymm_hi),
        mxcsr = const offset_of!(Cpu, fpu) + offset_of!(Fpu, mxcsr),
        host_mxcsr = const offset_of!(Frame, host_mxcsr),
        host_stack = const offset_of!(Frame, host_stack),
        callout = sym callout,
        restore = sym restore,
    )
}
