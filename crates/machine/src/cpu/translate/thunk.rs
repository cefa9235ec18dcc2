// SPDX-License-Identifier: Apache-2.0
//! The ways into translated code and out of it. Here, and nowhere else, registers change hands between guest and host.
//!
//! In translated code: rsp is the frame; rcx of the guest is in r8, its rsp in r9, its r8 to r11 and r15 in the frame, all others and
//! the arithmetic flags in themselves; r15 is the slice; rcx, r10 and r11 are scratch. The direction flag is the host's, and clear.
// Registers are moved by hand.
#![allow(unsafe_code)]

use super::callout::{callout, Kind, SITE_BYTES};
use super::clock::now;
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
        "mov r10, rdx",
        "mov r11, rdi",
        "jmp {restore}",
        host_stack = const offset_of!(Frame, host_stack),
        restore = sym restore,
    )
}

/// With the frame in rsp, the CPU in r11 and an address in r10: goes on there as the guest.
#[unsafe(naked)]
unsafe extern "C" fn restore() {
    naked_asm!(
        "cmp qword ptr [rsp + {away}], 0",
        "jne 2f",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movaps xmm\\n, [r11 + {xmm} + 16 * \\n]",
        ".endr",
        "ldmxcsr [r11 + {mxcsr}]",
        "cmp qword ptr [rsp + {ymm_away}], 0",
        "jne 2f",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vinsertf128 ymm\\n, ymm\\n, [r11 + {ymm_hi} + 16 * \\n], 1",
        ".endr",
        "2:",
        "mov rax, [r11 + 64]",
        "mov rcx, [r11 + 72]",
        "mov rdx, [r11 + 80]",
        "mov rbx, [r11 + 88]",
        "mov rbp, [r11 + 120]",
        "mov [rsp + {spilled}], rax",
        "mov [rsp + {spilled} + 8], rcx",
        "mov [rsp + {spilled} + 16], rdx",
        "mov [rsp + {spilled} + 24], rbx",
        "mov [rsp + {spilled} + 32], rbp",
        "mov rax, [rsp + {flags}]",
        "add al, 0x7f", // overflows if al is 1
        "sahf",
        "mov rax, [r11]",
        "mov r8, [r11 + 8]",
        "mov rdx, [r11 + 16]",
        "mov rbx, [r11 + 24]",
        "mov r9, [r11 + 32]",
        "mov rbp, [r11 + 40]",
        "mov rsi, [r11 + 48]",
        "mov rdi, [r11 + 56]",
        "mov r12, [r11 + 96]",
        "mov r13, [r11 + 104]",
        "mov r14, [r11 + 112]",
        "mov r15, [rsp + {slice}]",
        "mov r11, [rsp + {va}]",
        "jmp r10",
        away = const offset_of!(Frame, vectors_away),
        ymm_away = const offset_of!(Frame, ymm_away),
        xmm = const offset_of!(Cpu, fpu) + offset_of!(Fpu, xmm),
        ymm_hi = const offset_of!(Cpu, fpu) + offset_of!(Fpu, ymm_hi),
        mxcsr = const offset_of!(Cpu, fpu) + offset_of!(Fpu, mxcsr),
        spilled = const offset_of!(Frame, spilled),
        flags = const offset_of!(Frame, flags),
        slice = const offset_of!(Frame, slice),
        va = const offset_of!(Frame, va),
    )
}

/// Called by stubs of translated code; what follows the call is their site. Goes on where [`callout`] says, on the frame that it
/// says, or leaves.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn call() {
    naked_asm!(
        "pop r10",
        "mov [rsp + {va}], r11",
        "mov r11, [rsp + {cpu}]",
        "mov [r11], rax",
        "mov [r11 + 8], r8",
        "mov [r11 + 16], rdx",
        "mov [r11 + 24], rbx",
        "mov [r11 + 32], r9",
        "mov [r11 + 40], rbp",
        "mov [r11 + 48], rsi",
        "mov [r11 + 56], rdi",
        "mov [r11 + 96], r12",
        "mov [r11 + 104], r13",
        "mov [r11 + 112], r14",
        "mov [rsp + {slice}], r15",
        "lahf",
        "seto al",
        "movzx eax, ax",
        "mov [rsp + {flags}], rax",
        "mov rax, [rsp + {spilled}]",
        "mov rcx, [rsp + {spilled} + 8]",
        "mov rdx, [rsp + {spilled} + 16]",
        "mov rbx, [rsp + {spilled} + 24]",
        "mov rbp, [rsp + {spilled} + 32]",
        "mov [r11 + 64], rax",
        "mov [r11 + 72], rcx",
        "mov [r11 + 80], rdx",
        "mov [r11 + 88], rbx",
        "mov [r11 + 120], rbp",
        "cmp qword ptr [rsp + {away}], 0",
        "jne 2f",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movaps [r11 + {xmm} + 16 * \\n], xmm\\n",
        ".endr",
        "stmxcsr [r11 + {mxcsr}]",
        "ldmxcsr [rsp + {host_mxcsr}]",
        "cmp qword ptr [rsp + {ymm_away}], 0",
        "jne 2f",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vextractf128 [r11 + {ymm_hi} + 16 * \\n], ymm\\n, 1",
        ".endr",
        // What is compiled for SSE waits for upper halves that are not zero.
        "vzeroupper",
        "2:",
        "mov rdi, r11",
        "mov rsi, r10",
        "mov rdx, rsp",
        "mov rsp, [rsp + {host_stack}]",
        "call {callout}",
        "test rax, rax",
        "jz 3f",
        "mov r10, rax",
        "mov rsp, rdx",
        "mov r11, [rsp + {cpu}]",
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
        slice = const offset_of!(Frame, slice),
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

/// Where code goes that has lost its way: a callout for the block at the address in r11, with the site that it asks for.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn lost() {
    naked_asm!(
        "call [rsp + {callout}]",
        ".byte {jump}",
        ".zero {rest}",
        callout = const offset_of!(Frame, callout),
        jump = const Kind::Jump as u8,
        rest = const SITE_BYTES - 1,
    )
}

/// Called by translated code for the time stamp counter, which comes in rax and rdx: rcx is zero then. If it is not,
/// the instruction is for its handler, and nothing has happened. r10 and r11 are lost.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn clock() {
    naked_asm!(
        "mov rcx, rsp", // the return address, below the frame
        "mov r10, rax",
        "lahf",
        "seto al",
        // Compiled code is free to use vector registers.
        "cmp qword ptr [rcx + 8 + {away}], 0",
        "je 2f",
        "mov rsp, [rcx + 8 + {host_stack}]",
        "push rcx",
        "push rax",
        "push r10",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "mov rdi, [rcx + 8 + {cpu}]",
        "call {now}",
        "mov r11, rax",
        "mov rcx, rdx",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop r10",
        "pop rax",
        "pop rsp",
        "4:",
        "add al, 0x7f", // overflows if al is 1
        "sahf",
        "mov rax, r10",
        "jrcxz 3f",
        "ret",
        "3:",
        "mov eax, r11d",
        "rorx rdx, r11, 32",
        "mov edx, edx",
        "ret",
        "2:",
        "mov ecx, 1",
        "jmp 4b",
        away = const offset_of!(Frame, vectors_away),
        host_stack = const offset_of!(Frame, host_stack),
        cpu = const offset_of!(Frame, cpu),
        now = sym now,
    )
}

/// Arithmetic flags as `lahf` (in the second byte) and `seto` (in the first) give them.
pub(super) fn raw_flags(arith: u64) -> u64 {
    (arith & 0xd5) << 8 | arith >> 11 & 1
}

pub(super) fn cooked_flags(raw: u64) -> u64 {
    raw >> 8 & 0xd5 | (raw & 1) << 11
}
