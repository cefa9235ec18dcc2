// SPDX-License-Identifier: Apache-2.0
//! 32-bit code in rings 1 and 3: loads of segment registers, far transfers, returns to the outer ring, and their error
//! codes. What can be compared with the host's CPU is in tests/engine/segments.rs; its rings cannot.

use domzero_machine::testing::{pte, TestVm, CODE, DATA, STACK_TOP};
use domzero_machine::{vector, DescTable, Fault, Mfn, PrivInsn, Stop, Trap};
use iced_x86::code_asm::{ax, dword_ptr, eax, ecx, edx, registers as r, CodeAssembler};
use iced_x86::IcedError;

const GDT: Mfn = Mfn(4000);
const ENTRIES: u32 = 16;
const ESP: usize = 4;
const IF: u64 = 1 << 9;
const ZF: u64 = 1 << 6;
/// A page that only ring 1 reaches.
const SUPERVISOR: u64 = 0xa0_0000;
/// Where a return goes.
const TARGET: u64 = CODE + 0x800;
const OUTER_STACK: u64 = DATA + 0x1000;

/// Selectors without RPL, and the descriptors they name: 4 GiB from 0, but for `SHORT`.
const R1_CODE: u16 = 0x08;
const R1_DATA: u16 = 0x10;
const R3_CODE: u16 = 0x18;
const R3_DATA: u16 = 0x20;
const ABSENT_DATA: u16 = 0x28;
const R1_CONFORMING: u16 = 0x30;
const READ_ONLY: u16 = 0x38;
const EXECUTE_ONLY: u16 = 0x40;
const AN_LDT: u16 = 0x48;
const ABSENT_CODE: u16 = 0x50;
const SHORT: u16 = 0x58;
const LONG_AND_WIDE: u16 = 0x60;
const BEYOND: u16 = 0x80;

const TABLE: [(u16, u64); 12] = [
    (R1_CODE, 0x00cf_ba00_0000_ffff),
    (R1_DATA, 0x00cf_b200_0000_ffff),
    (R3_CODE, 0x00cf_fa00_0000_ffff),
    (R3_DATA, 0x00cf_f200_0000_ffff),
    (ABSENT_DATA, 0x00cf_7200_0000_ffff),
    (R1_CONFORMING, 0x00cf_be00_0000_ffff),
    (READ_ONLY, 0x00cf_f000_0000_ffff),
    (EXECUTE_ONLY, 0x00cf_f800_0000_ffff),
    (AN_LDT, 0x0000_e200_0000_ffff),
    (ABSENT_CODE, 0x00cf_7a00_0000_ffff),
    (SHORT, 0x0040_fa00_0000_0fff),
    (LONG_AND_WIDE, 0x00ef_fa00_0000_ffff),
];

fn code_at(cpl: u8, build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> TestVm {
    let mut a = CodeAssembler::new(32).expect("32 bits");
    build(&mut a).and_then(|()| a.int3()).expect("valid operands");
    let mut vm = TestVm::new(&a.assemble(CODE).expect("encodable"));
    for (selector, descriptor) in TABLE {
        let at = GDT.maddr() + u64::from(selector);
        assert!(vm.machine.mem.write_u64(at, descriptor));
    }
    vm.cpu.seg.tables.gdt = DescTable {
        frames: std::array::from_fn(|n| (n == 0).then_some(GDT)),
        entries: ENTRIES,
    };
    vm.map(SUPERVISOR, 1, pte::P | pte::RW | pte::NX);
    let (code, data) = match cpl {
        1 => (R1_CODE | 1, R1_DATA | 1),
        _ => (R3_CODE | 3, R3_DATA | 3),
    };
    vm.cpu.seg.sel = [data, code, data, data, 0, 0];
    vm.cpu.cpl = cpl;
    vm.cpu.set_base(vm.l4, true);
    vm
}

fn words(vm: &mut TestVm, list: &[u32]) {
    let sp = STACK_TOP - 4 * list.len() as u64;
    let bytes: Vec<u8> = list.iter().flat_map(|w| w.to_le_bytes()).collect();
    vm.poke(sp, &bytes);
    vm.cpu.regs[ESP] = sp;
}

/// What the next instruction raises; it must have changed nothing.
fn fault_of(vm: &mut TestVm) -> (u8, u32) {
    let before = (
        vm.cpu.regs,
        vm.cpu.rip,
        vm.cpu.seg.sel,
        vm.cpu.cpl,
        vm.cpu.rflags(),
    );
    let trap = vm.run_to_trap();
    assert_eq!(
        (
            vm.cpu.regs,
            vm.cpu.rip,
            vm.cpu.seg.sel,
            vm.cpu.cpl,
            vm.cpu.rflags()
        ),
        before
    );
    match trap {
        Trap::Fault(Fault {
            vector, error_code, ..
        }) => (vector, error_code.expect("an error code")),
        t => panic!("{t:?}"),
    }
}

const GP: u8 = vector::GP;
const NP: u8 = vector::NP;
const SS: u8 = vector::SS;

#[test]
fn iret_to_the_outer_ring_loads_its_stack_and_drops_the_segments_of_the_inner_one() {
    let mut vm = code_at(1, |a| {
        a.mov(ax, u32::from(R3_DATA | 3))?;
        a.mov(r::es, ax)?;
        a.mov(ax, u32::from(R1_CONFORMING | 1))?;
        a.mov(r::fs, ax)?;
        a.iretd()
    });
    vm.poke(TARGET, &[0xcc]);
    // Neither IF nor IOPL can be changed here.
    words(
        &mut vm,
        &[
            TARGET as u32,
            u32::from(R3_CODE | 3),
            0x3002 | ZF as u32,
            OUTER_STACK as u32,
            u32::from(R3_DATA | 3),
        ],
    );
    assert_eq!(vm.run_to_trap(), Trap::SoftInt { vector: 3, len: 1 });
    assert_eq!(
        vm.cpu.seg.sel,
        [R3_DATA | 3, R3_CODE | 3, R3_DATA | 3, 0, R1_CONFORMING | 1, 0]
    );
    assert_eq!(
        (vm.cpu.cpl, vm.cpu.rip, vm.cpu.regs[ESP]),
        (3, TARGET + 1, OUTER_STACK)
    );
    assert_eq!(vm.cpu.rflags(), IF | ZF | 2);
}

#[test]
fn a_far_return_to_the_outer_ring_releases_its_parameters_on_both_stacks() {
    let mut vm = code_at(1, |a| a.retf_1(8));
    vm.poke(TARGET, &[0xcc]);
    words(
        &mut vm,
        &[
            TARGET as u32,
            u32::from(R3_CODE | 3),
            1,
            2,
            OUTER_STACK as u32,
            u32::from(R3_DATA | 3),
        ],
    );
    vm.run_to_trap();
    assert_eq!((vm.cpu.cpl, vm.cpu.regs[ESP]), (3, OUTER_STACK + 8));
}

#[test]
fn what_only_ring_1_may_reach_faults_after_the_return_to_ring_3() {
    let mut vm = code_at(1, |a| {
        a.mov(eax, dword_ptr(SUPERVISOR as u32))?;
        a.iretd()
    });
    // mov eax, [SUPERVISOR]
    let mut load = vec![0xa1];
    load.extend((SUPERVISOR as u32).to_le_bytes());
    vm.poke(
        TARGET,
        &[&[0x1e, 0xb8, 0x23, 0, 0, 0, 0x8e, 0xd8][..], &load].concat(),
    );
    words(
        &mut vm,
        &[
            TARGET as u32,
            u32::from(R3_CODE | 3),
            2,
            OUTER_STACK as u32,
            u32::from(R3_DATA | 3),
        ],
    );
    let Trap::Fault(f) = vm.run_to_trap() else {
        panic!("no fault")
    };
    assert_eq!((f.vector, f.error_code, f.cr2), (vector::PF, Some(5), SUPERVISOR));
    assert_eq!(vm.cpu.rip, TARGET + 8);
}

#[test]
fn a_return_to_a_bad_code_segment_names_it() {
    let cases = [
        (0, (GP, 0)),
        (3, (GP, 0)),
        (BEYOND | 3, (GP, BEYOND)),
        (R3_DATA | 3, (GP, R3_DATA)),
        (AN_LDT | 3, (GP, AN_LDT)),
        (R3_CODE, (GP, R3_CODE)),
        (R1_CODE, (GP, R1_CODE)),
        (R1_CODE | 3, (GP, R1_CODE)),
        (R3_CODE | 1, (GP, R3_CODE)),
        (ABSENT_CODE | 3, (NP, ABSENT_CODE)),
        (LONG_AND_WIDE | 3, (GP, LONG_AND_WIDE)),
        (SHORT | 3, (GP, 0)),
        (0x1c | 3, (GP, 0x1c)),
    ];
    for (cs, (vector, code)) in cases {
        for far_ret in [false, true] {
            let mut vm = code_at(1, |a| if far_ret { a.retf() } else { a.iretd() });
            let mut frame = vec![TARGET as u32, u32::from(cs)];
            if !far_ret {
                frame.push(2);
            }
            frame.extend([OUTER_STACK as u32, u32::from(R3_DATA | 3)]);
            words(&mut vm, &frame);
            assert_eq!(fault_of(&mut vm), (vector, u32::from(code)), "cs {cs:#x}");
        }
    }
}

#[test]
fn a_return_to_a_bad_stack_segment_names_it() {
    let cases = [
        (3, (GP, 0)),
        (BEYOND | 3, (GP, BEYOND)),
        (R3_DATA | 1, (GP, R3_DATA)),
        (R1_DATA | 3, (GP, R1_DATA)),
        (READ_ONLY | 3, (GP, READ_ONLY)),
        (R3_CODE | 3, (GP, R3_CODE)),
        (ABSENT_DATA | 3, (SS, ABSENT_DATA)),
    ];
    for (ss, (vector, code)) in cases {
        let mut vm = code_at(1, |a| a.iretd());
        words(
            &mut vm,
            &[
                TARGET as u32,
                u32::from(R3_CODE | 3),
                2,
                OUTER_STACK as u32,
                u32::from(ss),
            ],
        );
        assert_eq!(fault_of(&mut vm), (vector, u32::from(code)), "ss {ss:#x}");
    }
}

#[test]
fn a_segment_register_takes_what_its_ring_may_use_and_faults_name_the_rest() {
    // cpl, selector, for DS, for SS
    let cases = [
        (3, 0, None, Some((GP, 0))),
        (3, BEYOND | 3, Some((GP, BEYOND)), Some((GP, BEYOND))),
        (3, R1_DATA | 3, Some((GP, R1_DATA)), Some((GP, R1_DATA))),
        (3, R1_DATA, Some((GP, R1_DATA)), Some((GP, R1_DATA))),
        (3, R3_DATA | 3, None, None),
        (3, R3_DATA, None, Some((GP, R3_DATA))),
        (3, READ_ONLY | 3, None, Some((GP, READ_ONLY))),
        (3, R3_CODE | 3, None, Some((GP, R3_CODE))),
        (
            3,
            EXECUTE_ONLY | 3,
            Some((GP, EXECUTE_ONLY)),
            Some((GP, EXECUTE_ONLY)),
        ),
        (3, R1_CONFORMING | 3, None, Some((GP, R1_CONFORMING))),
        (3, AN_LDT | 3, Some((GP, AN_LDT)), Some((GP, AN_LDT))),
        (
            3,
            ABSENT_DATA | 3,
            Some((NP, ABSENT_DATA)),
            Some((SS, ABSENT_DATA)),
        ),
        (1, R3_DATA | 1, None, Some((GP, R3_DATA))),
        (1, R1_DATA | 1, None, None),
        (1, R1_DATA | 3, Some((GP, R1_DATA)), Some((GP, R1_DATA))),
        (1, R3_DATA | 3, None, Some((GP, R3_DATA))),
    ];
    for (cpl, selector, for_ds, for_ss) in cases {
        for (is_ss, expected) in [(false, for_ds), (true, for_ss)] {
            let mut vm = code_at(cpl, |a| {
                if is_ss {
                    a.mov(r::ss, eax)
                } else {
                    a.mov(r::ds, eax)
                }
            });
            vm.cpu.regs[0] = u64::from(selector);
            match expected {
                Some((vector, code)) => {
                    let got = fault_of(&mut vm);
                    assert_eq!(
                        got,
                        (vector, u32::from(code)),
                        "{selector:#x} ss {is_ss} cpl {cpl}"
                    );
                }
                None => {
                    vm.run_ok(1);
                    assert_eq!(vm.cpu.seg.sel[if is_ss { 2 } else { 3 }], selector);
                }
            }
        }
    }
}

#[test]
fn a_descriptor_that_is_loaded_becomes_accessed_in_its_table() {
    let mut vm = code_at(3, |a| {
        a.mov(r::ds, eax)?;
        a.lar(ecx, edx)
    });
    vm.cpu.regs[0] = u64::from(READ_ONLY | 3);
    vm.cpu.regs[2] = u64::from(EXECUTE_ONLY | 3);
    vm.run_ok(2);
    let entry = |vm: &TestVm, selector: u16| vm.machine.mem.read_u64(GDT.maddr() + u64::from(selector));
    assert_eq!(entry(&vm, READ_ONLY), Some(0x00cf_f100_0000_ffff));
    // Looking is not loading.
    assert_eq!(entry(&vm, EXECUTE_ONLY), Some(0x00cf_f800_0000_ffff));
    assert_eq!(vm.cpu.regs[1], 0x00cf_f800);
}

#[test]
fn a_64_bit_kernel_that_goes_to_32_bit_code_takes_its_stack_along() {
    // retfq to push eax; int3
    let mut vm = TestVm::new(&[0x48, 0xcb]);
    vm.poke(TARGET, &[0x50, 0xcc]);
    vm.poke(STACK_TOP - 16, &TARGET.to_le_bytes());
    vm.poke(STACK_TOP - 8, &0xe023u64.to_le_bytes());
    vm.cpu.regs[ESP] = STACK_TOP - 16;
    assert_eq!(vm.run_to_trap(), Trap::SoftInt { vector: 3, len: 1 });
    assert_eq!(vm.cpu.regs[ESP], STACK_TOP - 4);
}

#[test]
fn a_descriptor_that_changes_counts_from_its_next_load_on() {
    let mut vm = code_at(3, |a| {
        a.mov(dword_ptr(DATA as u32), 1)?;
        a.mov(r::ds, eax)?;
        a.mov(dword_ptr(DATA as u32), 2)
    });
    vm.cpu.regs[0] = u64::from(R3_DATA | 3);
    // The register is loaded as the run begins; then the table's entry becomes read-only.
    vm.run_ok(1);
    let at = GDT.maddr() + u64::from(R3_DATA);
    assert!(vm.machine.mem.write_u64(at, 0x00cf_f000_0000_ffff));
    vm.run_ok(1);
    assert_eq!(fault_of(&mut vm), (GP, 0));
}

#[test]
fn jumps_and_calls_to_other_code_segments_keep_the_ring() {
    // cpl, selector, and the fault or CS
    let cases = [
        (3, R3_CODE | 3, Ok(R3_CODE | 3)),
        (3, R3_CODE, Ok(R3_CODE | 3)),
        (3, R1_CONFORMING, Ok(R1_CONFORMING | 3)),
        (3, R1_CODE, Err((GP, R1_CODE))),
        (3, R1_CODE | 1, Err((GP, R1_CODE))),
        (1, R3_CODE | 3, Err((GP, R3_CODE))),
        (1, R1_CODE | 3, Err((GP, R1_CODE))),
        (1, R1_CODE, Ok(R1_CODE | 1)),
        (3, 0, Err((GP, 0))),
        (3, R3_DATA | 3, Err((GP, R3_DATA))),
        (3, ABSENT_CODE | 3, Err((NP, ABSENT_CODE))),
        (3, SHORT | 3, Err((GP, 0))),
    ];
    for (cpl, selector, expected) in cases {
        for opcode in [0xeau8, 0x9a] {
            let mut vm = code_at(cpl, |a| a.nop());
            let mut code = vec![opcode];
            code.extend((TARGET as u32).to_le_bytes());
            code.extend(selector.to_le_bytes());
            vm.poke(CODE, &code);
            match expected {
                Ok(cs) => {
                    vm.run_ok(1);
                    assert_eq!((vm.cpu.seg.sel[1], vm.cpu.cpl, vm.cpu.rip), (cs, cpl, TARGET));
                    if opcode == 0x9a {
                        let sp = vm.cpu.regs[ESP];
                        assert_eq!(sp, STACK_TOP - 8);
                        let own = if cpl == 1 { R1_CODE | 1 } else { R3_CODE | 3 };
                        assert_eq!(vm.peek_u64(sp), (CODE + 7) | u64::from(own) << 32);
                    }
                }
                Err((vector, code)) => {
                    assert_eq!(fault_of(&mut vm), (vector, u32::from(code)), "{selector:#x}");
                }
            }
        }
    }
}

#[test]
fn lar_lsl_verr_and_verw_see_what_the_ring_may_use() {
    // cpl, selector: lar, lsl, verr, verw
    let cases = [
        (3, R1_DATA, [false; 4]),
        (1, R1_DATA, [true; 4]),
        (1, R1_DATA | 3, [false; 4]),
        (3, R3_DATA | 3, [true; 4]),
        (3, READ_ONLY, [true, true, true, false]),
        (3, EXECUTE_ONLY, [true, true, false, false]),
        (3, R1_CONFORMING, [true, true, true, false]),
        (3, AN_LDT, [true, true, false, false]),
        (3, ABSENT_DATA, [true; 4]),
        (3, BEYOND, [false; 4]),
        (3, 0, [false; 4]),
    ];
    for (cpl, selector, expected) in cases {
        for (n, seen) in expected.into_iter().enumerate() {
            let mut vm = code_at(cpl, |a| match n {
                0 => a.lar(ecx, eax),
                1 => a.lsl(ecx, eax),
                2 => a.verr(ax),
                _ => a.verw(ax),
            });
            vm.cpu.regs[0] = u64::from(selector);
            vm.run_ok(1);
            assert_eq!(
                vm.cpu.rflags() & ZF != 0,
                seen,
                "{n} of {selector:#x} in ring {cpl}"
            );
        }
    }
}

#[test]
fn sensitive_instructions_of_ring_1_leave_the_engine_and_popf_keeps_iopl_and_if() {
    let privileged: [(&[u8], PrivInsn); 4] = [
        (&[0xfa], PrivInsn::Cli),
        (&[0xfb], PrivInsn::Sti),
        (&[0xf4], PrivInsn::Hlt),
        (&[0xe4, 0x60], PrivInsn::In { port: 0x60, size: 1 }),
    ];
    for (code, insn) in privileged {
        let mut vm = code_at(1, |a| a.nop());
        vm.poke(CODE, code);
        let len = code.len() as u8;
        assert_eq!(vm.run(10), Stop::Trap(Trap::Priv { insn, len }));
    }
    let mut vm = code_at(1, |a| {
        a.push(0x3000)?;
        a.popfd()?;
        a.pushfd()?;
        a.pop(eax)
    });
    vm.run_ok(4);
    assert_eq!(vm.cpu.regs[0], IF | 2);
}
