// SPDX-License-Identifier: Apache-2.0
//! General-purpose instructions, by small programs with known results.

use domzero_machine::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, FLAT_RING3_CS32, XEN_CS64, XEN_DS};
use domzero_machine::testing::{pte, TestVm, CODE, DATA, RO, STACK_TOP};
use domzero_machine::{vector, Fault, Mfn, PrivInsn, Stop, Trap};
use iced_x86::code_asm::*;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// Assembles at CODE and makes a machine that is about to run it.
fn vm(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> (TestVm, i64) {
    let mut a = CodeAssembler::new(64).expect("assembler");
    build(&mut a).expect("valid operands");
    let n = a.instructions().len() as i64;
    let code = a.assemble(CODE).expect("encodable");
    (TestVm::new(&code), n)
}

/// Runs a straight program to its end.
fn run(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> TestVm {
    let (mut vm, n) = vm(build);
    vm.run_ok(n);
    vm
}

/// The fault that the last of the instructions raises.
fn fault(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> (TestVm, Fault) {
    let (mut vm, n) = vm(build);
    match vm.run(n) {
        Stop::Trap(Trap::Fault(f)) => (vm, f),
        other => panic!("no fault but {other:?} at {:#x}", vm.cpu.rip),
    }
}

#[test]
fn a_loop_with_calls_and_stack_slots_sums_up() {
    let (mut vm, _) = vm(|a| {
        let mut top = a.create_label();
        let mut body = a.create_label();
        let mut end = a.create_label();
        a.mov(ecx, 100)?;
        a.xor(eax, eax)?;
        a.set_label(&mut top)?;
        a.push(rcx)?;
        a.call(body)?;
        a.pop(rcx)?;
        a.dec(ecx)?;
        a.jnz(top)?;
        a.jmp(end)?;
        a.set_label(&mut body)?;
        a.add(rax, qword_ptr(rsp + 8))?;
        a.ret()?;
        a.set_label(&mut end)?;
        a.hlt()
    });
    let stop = vm.run(10_000);
    assert_eq!(
        stop,
        Stop::Trap(Trap::Priv {
            insn: PrivInsn::Hlt,
            len: 1
        })
    );
    assert_eq!((vm.cpu.regs[RAX], vm.cpu.regs[RSP]), (5050, STACK_TOP));
}

#[test]
fn narrow_writes_merge_and_32_bit_writes_zero_extend() {
    let vm = run(|a| {
        a.mov(rax, 0x1122_3344_5566_7788u64)?;
        a.mov(ah, 0xaai32)?;
        a.mov(rbx, rax)?;
        a.mov(bx, 0x1234i32)?;
        a.mov(rcx, rax)?;
        a.mov(ecx, ecx)?;
        a.mov(rdx, -1i64)?;
        a.cmovo(edx, eax)
    });
    assert_eq!(vm.cpu.regs[RAX], 0x1122_3344_5566_aa88);
    assert_eq!(vm.cpu.regs[RBX], 0x1122_3344_5566_1234);
    assert_eq!(vm.cpu.regs[RCX], 0x5566_aa88);
    assert_eq!(vm.cpu.regs[RDX], 0xffff_ffff);
}

#[test]
fn pop_computes_an_rsp_relative_address_after_the_increment() {
    let mut vm = run(|a| {
        a.push(0x55)?;
        a.push(0x66)?;
        a.pop(qword_ptr(rsp))
    });
    assert_eq!(vm.peek_u64(STACK_TOP - 8), 0x66);
    assert_eq!(vm.cpu.regs[RSP], STACK_TOP - 8);
}

#[test]
fn division_faults_on_zero_and_on_overflow_and_changes_nothing() {
    for (hi, lo, d) in [(0u64, 5u64, 0u64), (5, 0, 5), (9, 1, 8)] {
        let (vm, f) = fault(|a| {
            a.mov(rdx, hi)?;
            a.mov(rax, lo)?;
            a.mov(rcx, d)?;
            a.div(rcx)
        });
        assert_eq!(f, Fault::new(vector::DE));
        assert_eq!((vm.cpu.regs[RAX], vm.cpu.regs[RDX]), (lo, hi));
    }
    let (_, f) = fault(|a| {
        a.mov(rax, i64::MIN)?;
        a.cqo()?;
        a.mov(rcx, -1i64)?;
        a.idiv(rcx)
    });
    assert_eq!(f.vector, vector::DE);
    let vm = run(|a| {
        a.mov(eax, -7)?;
        a.cdq()?;
        a.mov(ecx, 2)?;
        a.idiv(ecx)
    });
    assert_eq!((vm.cpu.regs[RAX] as i32, vm.cpu.regs[RDX] as i32), (-3, -1));
}

#[test]
fn a_repeat_that_faults_leaves_the_registers_at_the_faulting_element() {
    let (vm, f) = fault(|a| {
        a.mov(rdi, DATA + 4 * 4096 - 24)?;
        a.mov(ecx, 100)?;
        a.mov(rax, -1i64)?;
        a.rep().stosq()
    });
    assert_eq!((f.vector, f.cr2), (vector::PF, DATA + 4 * 4096));
    assert_eq!((vm.cpu.regs[RCX], vm.cpu.regs[RDI]), (97, DATA + 4 * 4096));
}

#[test]
fn overlapping_forward_moves_replicate() {
    let mut vm = run(|a| {
        a.mov(rdi, DATA)?;
        a.mov(byte_ptr(rdi), 0x41)?;
        a.mov(rsi, DATA)?;
        a.lea(rdi, qword_ptr(rdi + 1))?;
        a.mov(ecx, 99)?;
        a.rep().movsb()
    });
    assert_eq!(vm.peek(DATA, 101), [vec![0x41; 100], vec![0]].concat());
    assert_eq!((vm.cpu.regs[RSI], vm.cpu.regs[RDI]), (DATA + 99, DATA + 100));
}

#[test]
fn backward_moves_follow_the_direction_flag() {
    let mut vm = run(|a| {
        a.mov(rax, 0x0807_0605_0403_0201u64)?;
        a.mov(rbx, DATA)?;
        a.mov(qword_ptr(rbx), rax)?;
        a.lea(rsi, qword_ptr(rbx + 7))?;
        a.lea(rdi, qword_ptr(rbx + 9))?;
        a.mov(ecx, 8)?;
        a.std()?;
        a.rep().movsb()?;
        a.cld()
    });
    assert_eq!(vm.peek(DATA, 10), [1, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((vm.cpu.regs[RSI], vm.cpu.regs[RDI]), (DATA - 1, DATA + 1));
}

#[test]
fn string_compares_stop_where_they_must() {
    let (mut machine, n) = vm(|a| {
        a.mov(rdi, DATA)?;
        a.mov(ecx, 5000)?;
        a.xor(eax, eax)?;
        a.repne().scasb()?;
        a.mov(rsi, DATA)?;
        a.mov(rdi, DATA + 4000)?;
        a.mov(edx, ecx)?;
        a.mov(ecx, 50)?;
        a.repe().cmpsb()
    });
    machine.poke(DATA, &[7u8; 3000]);
    machine.poke(DATA + 4000, &[7, 7, 7, 9]);
    machine.run_ok(n);
    assert_eq!(machine.cpu.regs[RDX], 5000 - 3001);
    assert_eq!(machine.cpu.regs[RCX], 46);
    assert_eq!(machine.cpu.regs[RDI], DATA + 4004);
    // 7 - 9: borrow.
    assert_eq!(machine.cpu.rflags() & 1, 1);
}

#[test]
fn a_bit_offset_reaches_memory_on_both_sides() {
    let mut vm = run(|a| {
        a.mov(rdi, DATA + 64)?;
        a.mov(rcx, -1i64)?;
        a.bts(qword_ptr(rdi), rcx)?;
        a.mov(ecx, 64)?;
        a.bts(dword_ptr(rdi), ecx)
    });
    assert_eq!(vm.peek_u64(DATA + 56), 1 << 63);
    assert_eq!(vm.peek_u64(DATA + 72), 1);
}

#[test]
fn compare_and_exchange_of_16_bytes_wants_alignment_and_write_permission() {
    let mut ok = run(|a| {
        a.mov(rdi, DATA)?;
        a.mov(ebx, 5)?;
        a.mov(ecx, 6)?;
        a.lock().cmpxchg16b(xmmword_ptr(rdi))
    });
    assert_eq!((ok.peek_u64(DATA), ok.peek_u64(DATA + 8)), (5, 6));
    assert_ne!(ok.cpu.rflags() & 0x40, 0);
    let (_, f) = fault(|a| {
        a.mov(rdi, DATA + 8)?;
        a.lock().cmpxchg16b(xmmword_ptr(rdi))
    });
    assert_eq!(f, Fault::gp());
    // It fails to match, and still wants to write.
    let (_, f) = fault(|a| {
        a.mov(rdi, RO)?;
        a.mov(eax, 1)?;
        a.cmpxchg(dword_ptr(rdi), ecx)
    });
    assert_eq!((f.vector, f.error_code, f.cr2), (vector::PF, Some(7), RO));
}

#[test]
fn enter_and_leave_keep_the_frame_chain() {
    let mut vm = run(|a| {
        a.mov(rbp, STACK_TOP - 64)?;
        a.mov(qword_ptr(rbp - 8), 0x77)?;
        a.enter(0x20, 2)?;
        a.mov(rbx, rsp)?;
        a.mov(rcx, rbp)?;
        a.leave()
    });
    assert_eq!(vm.cpu.regs[RBX], STACK_TOP - 24 - 0x20);
    assert_eq!(vm.cpu.regs[RCX], STACK_TOP - 8);
    assert_eq!((vm.cpu.regs[RSP], vm.cpu.regs[RBP]), (STACK_TOP, STACK_TOP - 64));
    assert_eq!(vm.peek_u64(STACK_TOP - 16), 0x77);
    assert_eq!(vm.peek_u64(STACK_TOP - 24), STACK_TOP - 8);
}

#[test]
fn popf_cannot_change_what_belongs_to_ring_0() {
    let vm = run(|a| {
        a.push(0x3000)?;
        a.popfq()
    });
    assert_eq!(vm.cpu.rflags() & 0x3200, 0x200);
}

#[test]
fn iretq_returns_to_the_same_ring_and_refuses_an_inner_one() {
    let (mut machine, _) = vm(|a| {
        a.push(0)?;
        a.mov(dword_ptr(rsp), i32::from(FLAT_KERNEL_SS))?;
        a.mov(rax, STACK_TOP - 256)?;
        a.push(rax)?;
        a.push(0xa02)?;
        a.push(0)?;
        a.mov(dword_ptr(rsp), i32::from(FLAT_KERNEL_CS))?;
        a.mov(rax, CODE + 0x100)?;
        a.push(rax)?;
        a.iretq()
    });
    assert_eq!(machine.run(10), Stop::Budget);
    assert_eq!(
        (machine.cpu.rip, machine.cpu.regs[RSP]),
        (CODE + 0x100, STACK_TOP - 256)
    );
    assert_ne!(machine.cpu.rflags() & 0x800, 0);
    let (_, f) = fault(|a| {
        a.push(0)?;
        a.push(0)?;
        a.push(2)?;
        a.push(0)?;
        a.mov(dword_ptr(rsp), i32::from(XEN_CS64))?;
        a.push(0)?;
        a.iretq()
    });
    assert_eq!(f, Fault::with_code(vector::GP, u32::from(XEN_CS64)));
}

#[test]
fn syscall_saves_where_it_came_from() {
    let (mut machine, _) = vm(|a| a.syscall());
    assert_eq!(machine.run(1), Stop::Trap(Trap::Syscall));
    assert_eq!(machine.cpu.regs[RCX], CODE + 2);
    assert_eq!(machine.cpu.regs[11], 0x202);
    assert_eq!(machine.cpu.rip, CODE + 2);
}

#[test]
fn a_non_canonical_branch_or_stack_faults_before_anything_changes() {
    let (vm, f) = fault(|a| {
        a.mov(rax, 0x8000_0000_0000_0000u64)?;
        a.call(rax)
    });
    assert_eq!((f, vm.cpu.regs[RSP]), (Fault::gp(), STACK_TOP));
    let (_, f) = fault(|a| {
        a.mov(rsp, 0x8000_0000_0000_0000u64)?;
        a.push(rax)
    });
    assert_eq!(f, Fault::with_code(vector::SS, 0));
}

#[test]
fn segment_registers_take_the_selectors_of_the_public_headers() {
    let vm = run(|a| {
        a.mov(eax, u32::from(FLAT_KERNEL_SS))?;
        a.mov(ds, eax)?;
        a.mov(ss, eax)?;
        a.xor(eax, eax)?;
        a.mov(fs, eax)?;
        a.mov(ebx, ss)
    });
    assert_eq!(vm.cpu.regs[RBX], u64::from(FLAT_KERNEL_SS));
    let (_, f) = fault(|a| {
        a.mov(eax, u32::from(XEN_DS))?;
        a.mov(es, eax)
    });
    assert_eq!(f, Fault::with_code(vector::GP, u32::from(XEN_DS)));
    let (_, f) = fault(|a| {
        a.mov(eax, 0x2b)?;
        a.mov(es, eax)
    });
    assert_eq!(f, Fault::with_code(vector::GP, 0x28));
}

#[test]
fn locked_operations_do_what_the_plain_ones_do() {
    let mut vm = run(|a| {
        a.mov(rdi, DATA)?;
        a.mov(eax, 5)?;
        a.lock().add(dword_ptr(rdi), eax)?;
        a.lock().xadd(dword_ptr(rdi), eax)?;
        a.lock().inc(dword_ptr(rdi))?;
        a.mov(ebx, 0x99)?;
        a.xchg(dword_ptr(rdi + 8), ebx)?;
        a.lock().neg(word_ptr(rdi))
    });
    assert_eq!(vm.peek_u64(DATA), (11u16.wrapping_neg()) as u64);
    assert_eq!(vm.cpu.regs[RAX], 5);
    assert_eq!(vm.peek_u64(DATA + 8), 0x99);
}

#[test]
fn the_trap_flag_stops_after_each_instruction_that_began_with_it() {
    let (mut machine, _) = vm(|a| {
        a.pushfq()?;
        a.or(dword_ptr(rsp), 0x100)?;
        a.popfq()?;
        a.inc(ecx)?;
        a.nop()
    });
    let after_inc = CODE + 1 + 7 + 1 + 2;
    assert_eq!(machine.run(100), Stop::Trap(Trap::Fault(Fault::new(vector::DB))));
    assert_eq!(
        (machine.cpu.rip, machine.cpu.regs[RCX], machine.cpu.budget.left),
        (after_inc, 1, 96)
    );
    assert_eq!(machine.run(100), Stop::Trap(Trap::Fault(Fault::new(vector::DB))));
    assert_eq!(machine.cpu.rip, after_inc + 1);
}

/// A machine that is about to run 32-bit code at CODE.
fn vm32(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> (TestVm, i64) {
    let mut a = CodeAssembler::new(32).expect("assembler");
    build(&mut a).expect("valid operands");
    let n = a.instructions().len() as i64;
    let code = a.assemble(CODE).expect("encodable");
    let mut vm = TestVm::new(&code);
    vm.cpu.seg.sel = [
        FLAT_KERNEL_SS,
        FLAT_RING3_CS32,
        FLAT_KERNEL_SS,
        FLAT_KERNEL_SS,
        0,
        0,
    ];
    (vm, n)
}

#[test]
fn compatibility_mode_runs_32_bit_code_with_a_32_bit_stack() {
    let (mut vm, _) = vm32(|a| {
        let mut f = a.create_label();
        let mut end = a.create_label();
        a.mov(eax, -1)?;
        a.push(eax)?;
        a.push(7)?;
        a.call(f)?;
        a.add(esp, 8)?;
        a.jmp(end)?;
        a.set_label(&mut f)?;
        a.mov(ecx, dword_ptr(esp + 8))?;
        a.inc(ecx)?;
        a.mov(dword_ptr(DATA as u32), esp)?;
        a.mov(eax, dword_ptr(ecx + eax * 1 + (DATA as i32 + 1)))?;
        a.pushad()?;
        a.popad()?;
        a.ret()?;
        a.set_label(&mut end)?;
        a.hlt()
    });
    let halted = Trap::Priv {
        insn: PrivInsn::Hlt,
        len: 1,
    };
    assert_eq!(vm.run(100), Stop::Trap(halted));
    assert_eq!(vm.cpu.regs[RAX], STACK_TOP - 12);
    assert_eq!((vm.cpu.regs[RCX], vm.cpu.regs[RSP]), (0, STACK_TOP));
}

#[test]
fn a_far_jump_switches_between_64_and_32_bit_code() {
    let (mut machine, _) = vm(|a| {
        a.mov(rdi, DATA)?;
        a.mov(dword_ptr(rdi), (CODE + 0x80) as u32)?;
        a.mov(word_ptr(rdi + 4), 0xe023u32)?;
        a.jmp(fword_ptr(rdi))
    });
    // inc eax (rex in 64-bit code); ljmp FLAT_KERNEL_CS:CODE+0xc0
    let mut code32 = vec![0x40, 0xea];
    code32.extend_from_slice(&((CODE + 0xc0) as u32).to_le_bytes());
    code32.extend_from_slice(&[0x33, 0xe0]);
    machine.poke(CODE + 0x80, &code32);
    // mov rbx, rax
    machine.poke(CODE + 0xc0, &[0x48, 0x89, 0xc3]);
    machine.run_ok(7);
    assert_eq!((machine.cpu.regs[RBX], machine.cpu.rip), (1, CODE + 0xc3));
}

#[test]
fn decimal_adjustment_follows_the_manual() {
    let (mut vm, n) = vm32(|a| {
        a.mov(eax, 0x79)?;
        a.add(al, 0x35)?;
        a.daa()?;
        a.mov(ebx, eax)?;
        a.mov(eax, 0x0035)?;
        a.sub(al, 0x47)?;
        a.das()?;
        a.mov(ecx, eax)?;
        a.mov(eax, 0x47)?;
        a.aam(10)?;
        a.mov(edx, eax)?;
        a.aad(10)
    });
    vm.run_ok(n);
    assert_eq!(vm.cpu.regs[RBX], 0x14);
    assert_eq!(vm.cpu.regs[RCX], 0x88);
    assert_eq!(vm.cpu.regs[RDX], 0x0701);
    assert_eq!(vm.cpu.regs[RAX], 0x47);
}

#[test]
fn a_repeated_move_between_two_mappings_of_a_page_reads_what_it_has_written() {
    for slow in [false, true] {
        let (mut vm, n) = vm(|a| a.rep().movsq());
        vm.cpu.set_slow_only(slow);
        let frame = vm.maddr(DATA) >> 12;
        vm.map_frame(DATA + 0x10_0000, Mfn(frame), pte::P | pte::US | pte::RW);
        vm.poke(DATA, &7u64.to_le_bytes());
        vm.poke(DATA + 8, &8u64.to_le_bytes());
        (vm.cpu.regs[RSI], vm.cpu.regs[RDI], vm.cpu.regs[RCX]) = (DATA, DATA + 0x10_0010, 100);
        vm.run_ok(n);
        for i in 0..102 {
            assert_eq!(
                vm.peek_u64(DATA + i * 8),
                7 + i % 2,
                "slow handlers {slow}, element {i}"
            );
        }
    }
}
