// SPDX-License-Identifier: Apache-2.0
//! x87 and SSE through the engine: exceptions, state saving, faults. Results are compared with the host's CPU in `engine/`.

use domzero_machine::testing::{TestVm, CODE, DATA, RO};
use domzero_machine::{vector, Fault, Stop, Trap};
use iced_x86::code_asm::*;

fn vm(f: impl Fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> TestVm {
    let mut a = CodeAssembler::new(64).expect("64-bit code");
    f(&mut a).expect("instructions");
    let code = a.assemble(CODE).expect("code");
    let mut vm = TestVm::new(&code);
    vm.cpu.regs[6] = DATA;
    vm
}

fn fault(n: u8) -> Stop {
    Stop::Trap(Trap::Fault(Fault::new(n)))
}

/// Loads the control word from the bytes at DATA + 64.
fn with_control(vm: &mut TestVm, control: u16) {
    vm.poke(DATA + 64, &control.to_le_bytes());
}

#[test]
fn an_unmasked_x87_exception_faults_at_the_next_waiting_instruction() {
    let mut vm = vm(|a| {
        a.fldcw(word_ptr(rsi + 64))?;
        a.fldz()?;
        a.fld1()?;
        a.fdiv_2(st0, st1)?;
        a.fnstsw(ax)?;
        a.fnclex()?;
        a.fld1()?;
        a.fdiv_2(st0, st2)?;
        a.wait()
    });
    with_control(&mut vm, 0x37b);
    vm.run_ok(8);
    assert_eq!(vm.cpu.regs[0] & 0x80ff, 0x8084, "zero divide, summary, busy");
    let at = vm.cpu.rip;
    assert_eq!(vm.run(1), fault(vector::MF));
    assert_eq!(vm.cpu.rip, at);
}

#[test]
fn every_fpu_unit_raises_nm_while_ts_is_set() {
    type Make = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let forms: [Make; 7] = [
        |a| a.fld1(),
        |a| a.fxsave(ptr(rsi)),
        |a| a.paddb(xmm0, xmm1),
        |a| a.paddb(mm0, mm1),
        |a| a.addsd(xmm0, xmm1),
        |a| a.movups(xmm0, xmmword_ptr(rsi)),
        |a| a.pshufb(xmm0, xmm1),
    ];
    for make in forms {
        let mut vm = vm(make);
        vm.cpu.fpu.ts = true;
        assert_eq!(vm.run(1), fault(vector::NM));
        assert_eq!(vm.cpu.rip, CODE);
        vm.cpu.fpu.ts = false;
        vm.run_ok(1);
    }
}

#[test]
fn an_unmasked_sse_exception_sets_its_flag_and_stores_nothing() {
    let mut vm = vm(|a| a.divsd(xmm0, xmm1));
    vm.cpu.fpu.xmm[0] = u128::from(1f64.to_bits());
    vm.cpu.fpu.mxcsr = 0x1f80 & !0x200;
    assert_eq!(vm.run(1), fault(vector::XM));
    assert_eq!(vm.cpu.fpu.mxcsr, (0x1f80 & !0x200) | 4);
    assert_eq!(vm.cpu.fpu.xmm[0], u128::from(1f64.to_bits()));
}

#[test]
fn precision_is_raised_by_inexact_results_only() {
    for (divisor, mxcsr) in [(4f64, 0x1f80), (3f64, 0x1fa0)] {
        let mut vm = vm(|a| a.divsd(xmm0, xmm1));
        vm.cpu.fpu.xmm[0] = u128::from(1f64.to_bits());
        vm.cpu.fpu.xmm[1] = u128::from(divisor.to_bits());
        vm.run_ok(1);
        assert_eq!(vm.cpu.fpu.mxcsr, mxcsr);
        assert_eq!(vm.cpu.fpu.xmm[0] as u64, (1.0 / divisor).to_bits());
    }
}

#[test]
fn the_guests_rounding_mode_rules_whatever_the_host_computes_with() {
    for (mode, bits) in [
        (0u32, 0x3fd5_5555_5555_5555u64),
        (1, 0x3fd5_5555_5555_5555),
        (2, 0x3fd5_5555_5555_5556),
    ] {
        let mut vm = vm(|a| a.divsd(xmm0, xmm1));
        vm.cpu.fpu.mxcsr = 0x1fa0 | mode << 13;
        vm.cpu.fpu.xmm[0] = u128::from(1f64.to_bits());
        vm.cpu.fpu.xmm[1] = u128::from(3f64.to_bits());
        vm.run_ok(1);
        assert_eq!(vm.cpu.fpu.xmm[0] as u64, bits, "mode {mode}");
    }
}

#[test]
fn fxrstor_brings_back_what_fxsave_saved() {
    let mut vm = vm(|a| {
        a.fldpi()?;
        a.fld1()?;
        a.fxsave64(ptr(rsi))?;
        a.fninit()?;
        a.pxor(xmm3, xmm3)?;
        a.fxrstor64(ptr(rsi))?;
        a.fstp(tbyte_ptr(rsi + 1024))?;
        a.fstp(tbyte_ptr(rsi + 1040))
    });
    vm.cpu.fpu.xmm[3] = 0x1234_5678 << 90;
    vm.cpu.fpu.mxcsr = 0x5fa1;
    vm.run_ok(6);
    assert_eq!(vm.cpu.fpu.xmm[3], 0x1234_5678 << 90);
    assert_eq!(vm.cpu.fpu.mxcsr, 0x5fa1);
    vm.run_ok(2);
    assert_eq!(vm.peek(DATA + 1024, 10), [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
    assert_eq!(
        vm.peek(DATA + 1040, 10),
        [0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0, 0x40]
    );
}

#[test]
fn fxrstor_refuses_reserved_mxcsr_bits_and_changes_nothing() {
    let mut vm = vm(|a| a.fxrstor(ptr(rsi)));
    vm.poke(DATA + 24, &0x0001_1f80u32.to_le_bytes());
    let (xmm, mxcsr) = (vm.cpu.fpu.xmm, vm.cpu.fpu.mxcsr);
    assert_eq!(vm.run(1), Stop::Trap(Trap::Fault(Fault::gp())));
    assert_eq!((vm.cpu.fpu.xmm, vm.cpu.fpu.mxcsr), (xmm, mxcsr));
}

#[test]
fn a_store_over_the_edge_of_a_writable_page_writes_nothing() {
    let mut vm = vm(|a| a.movups(xmmword_ptr(rsi + 4 * 4096 - 8), xmm0));
    vm.cpu.fpu.xmm[0] = u128::MAX;
    assert_eq!(vm.run(1), Stop::Trap(Trap::Fault(Fault::pf(DATA + 4 * 4096, 6))));
    assert_eq!(vm.peek(DATA + 4 * 4096 - 8, 8), [0; 8]);
}

#[test]
fn a_failed_x87_store_leaves_the_stack_as_it_was() {
    let mut vm = vm(|a| {
        a.fld1()?;
        a.fstp(qword_ptr(rdi))
    });
    vm.cpu.regs[7] = RO;
    vm.run_ok(1);
    let top = vm.cpu.fpu.x87.top;
    assert_eq!(vm.run(1), Stop::Trap(Trap::Fault(Fault::pf(RO, 7))));
    assert_eq!((vm.cpu.fpu.x87.top, vm.cpu.fpu.x87.status & 0x3f), (top, 0));
}

#[test]
fn x87_arithmetic_rounds_to_the_precision_asked_for() {
    for (control, sum) in [
        (0x37fu16, 0x8000_0000_0000_0001u64),
        (0x27f, 1 << 63),
        (0x07f, 1 << 63),
    ] {
        let mut vm = vm(|a| {
            a.fldcw(word_ptr(rsi + 64))?;
            a.fld(tbyte_ptr(rsi))?;
            a.fld1()?;
            a.fadd_2(st0, st1)
        });
        with_control(&mut vm, control);
        // 2^-63
        vm.poke(DATA, &[0, 0, 0, 0, 0, 0, 0, 0x80, (0x3fff - 63) as u8, 0x3f]);
        vm.run_ok(4);
        let top = usize::from(vm.cpu.fpu.x87.top);
        assert_eq!(vm.cpu.fpu.x87.regs[top].m, sum, "control {control:#x}");
    }
}

#[test]
fn transcendental_results_are_right_to_the_last_bit() {
    type Make = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    // Worked out to 60 digits.
    let known: [(Make, u16, u64); 5] = [
        // atan(1) = pi / 4
        (
            |a| {
                a.fld1()?;
                a.fld1()?;
                a.fpatan()
            },
            0x3ffe,
            0xc90f_daa2_2168_c235,
        ),
        // log2 of pi as fldpi gives it
        (
            |a| {
                a.fld1()?;
                a.fldpi()?;
                a.fyl2x()
            },
            0x3fff,
            0xd364_39a4_c6ef_bad9,
        ),
        // sin(1) = 0.84147098480789650665250232163029899962...
        (
            |a| {
                a.fld1()?;
                a.fsin()
            },
            0x3ffe,
            0xd76a_a478_4867_7021,
        ),
        // cos(1) = 0.54030230586813971740093660744297660373...
        (
            |a| {
                a.fld1()?;
                a.fcos()
            },
            0x3ffe,
            0x8a51_407d_a834_5c92,
        ),
        // 2^log10(2) - 1
        (
            |a| {
                a.fldlg2()?;
                a.f2xm1()
            },
            0x3ffc,
            0xed97_9e2b_4429_fa81,
        ),
    ];
    for (k, (make, exponent, significand)) in known.into_iter().enumerate() {
        let mut vm = vm(make);
        let n = vm
            .peek(CODE, 16)
            .chunks(2)
            .take_while(|c| c[0] & 0xf8 == 0xd8)
            .count();
        vm.run_ok(n as i64);
        let v = vm.cpu.fpu.x87.regs[usize::from(vm.cpu.fpu.x87.top)];
        assert_eq!(v.se, exponent, "case {k}");
        assert_eq!(v.m, significand, "case {k}: {:#x}", v.m);
    }
}

#[test]
fn mmx_registers_are_the_significands_of_the_x87_stack() {
    let mut vm = vm(|a| {
        a.fldpi()?;
        a.movq(mm0, mm7)?;
        a.emms()
    });
    vm.run_ok(2);
    assert_eq!(vm.cpu.fpu.x87.regs[0].m, 0xc90f_daa2_2168_c235);
    assert_eq!((vm.cpu.fpu.x87.top, vm.cpu.fpu.x87.tags), (0, 0xff));
    vm.run_ok(1);
    assert_eq!(vm.cpu.fpu.x87.tags, 0);
}
