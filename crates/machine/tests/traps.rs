// SPDX-License-Identifier: Apache-2.0
//! Debug registers, single steps, NMIs, port I/O and system calls, as a guest kernel sees them.

use domzero_machine::abi::hypercall::{mmuext, nr, segbase, vmasst};
use domzero_machine::abi::layout::{HYPERVISOR_VIRT_END, LOW_END, M2P_VA};
use domzero_machine::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, XEN_DS};
use domzero_machine::abi::x86::cr4;
use domzero_machine::abi::{Errno, DOMID_SELF};
use domzero_machine::testing::{TestVm, CODE, DATA, RWX, STACK_TOP};
use domzero_machine::{vector, Callback, CallbackKind, Exit, TrapGate, Vcpu};

/// Handler of vector `n`: a hypercall whose number is the vector.
/// Selectors, as they stand in a frame.
const CS: u64 = FLAT_KERNEL_CS as u64;
const SS: u64 = FLAT_KERNEL_SS as u64;
const HANDLERS: u64 = CODE + 0x2000;
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const EVENT: u64 = 200;
const RF: u64 = 1 << 16;
const TF: u64 = 1 << 8;
const DR7_ONES: u64 = 0x400;
const DR6_BS: u64 = 1 << 14;

fn handler(n: u64) -> u64 {
    HANDLERS + 16 * n
}

/// A vCPU in kernel mode at CODE, with a handler for each vector, an event callback and its vcpu_info.
fn vcpu(code: &[u8]) -> (Vcpu, u64) {
    let mut vm = TestVm::new(code);
    for n in 0..=EVENT {
        // mov eax, n; syscall
        let mut stub = vec![0xb8];
        stub.extend_from_slice(&(n as u32 + 1000).to_le_bytes());
        stub.extend_from_slice(&SYSCALL);
        vm.poke(handler(n), &stub);
    }
    let maddr = vm.maddr(DATA + 0x3000);
    let mut v = Vcpu::with_cpu(vm.cpu, 0);
    v.set_vcpu_info(maddr);
    for n in 0..=32u8 {
        v.set_trap(
            n,
            TrapGate {
                cs: FLAT_KERNEL_CS,
                address: handler(n.into()),
                flags: 0,
            },
        );
    }
    v.set_callback(CallbackKind::Event, callback(EVENT));
    v.set_kernel_stack(FLAT_KERNEL_SS, STACK_TOP);
    v.load_base(false, v.base(true));
    (v, maddr)
}

fn callback(n: u64) -> Callback {
    Callback {
        cs: FLAT_KERNEL_CS,
        address: handler(n),
        mask_events: false,
    }
}

/// Runs to a handler's hypercall; which it was, and its frame from rip on.
fn trapped(v: &mut Vcpu) -> (u64, [u64; 5], Option<u64>) {
    let exit = v.run(1000, u64::MAX);
    let Exit::Hypercall { nr, .. } = exit else {
        panic!("{exit:?} at {:#x}", v.cpu.rip)
    };
    let n = nr - 1000;
    let has_code = matches!(n, 8 | 10..=14 | 17);
    let sp = v.cpu.regs[4] + 16;
    let mut word = |i: u64| v.cpu.read::<u64>(sp + 8 * i).expect("stack");
    let code = has_code.then(|| word(0));
    let at = u64::from(has_code);
    let frame = std::array::from_fn(|i| word(at + i as u64));
    (n, frame, code)
}

/// rcx when the handler was entered: the handler's own syscall has changed it.
fn saved_rcx(v: &mut Vcpu) -> u64 {
    v.cpu.read(v.cpu.regs[4]).expect("stack")
}

fn breakpoint(v: &mut Vcpu, n: u32, at: u64, rw: u64, len: u64) {
    assert_eq!(v.set_debug_reg(n, at), Ok(()));
    let dr7 = v.debug_reg(7).expect("dr7") | 2 << (2 * n) | (rw | len << 2) << (16 + 4 * n);
    assert_eq!(v.set_debug_reg(7, dr7), Ok(()));
}

#[test]
fn a_breakpoint_on_execution_faults_before_the_instruction_and_rf_passes_it() {
    let (mut v, _) = vcpu(&[0x90, 0x90, 0x0f, 0x0b]);
    breakpoint(&mut v, 0, CODE + 1, 0, 0);
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0], frame[2] & RF), (1, CODE + 1, 0));
    assert_eq!(v.debug_reg(6), Some(0xffff_0ff0 | 1));
    // Back with RF set: the instruction is done, and the next one raises #UD with RF in its frame.
    v.cpu.rip = CODE + 1;
    v.cpu.load_resume_flag(RF);
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0], frame[2] & RF), (6, CODE + 2, RF));
}

#[test]
fn a_breakpoint_on_data_traps_after_the_write() {
    // mov [rdi], al; mov al, [rdi + 4]; nop
    for slow in [false, true] {
        let (mut v, _) = vcpu(&[0x88, 0x07, 0x8a, 0x47, 0x04, 0x90, 0x0f, 0x0b]);
        v.cpu.set_slow_only(slow);
        v.cpu.regs[7] = DATA + 8;
        breakpoint(&mut v, 1, DATA + 8, 1, 0);
        breakpoint(&mut v, 2, DATA + 13, 3, 3);
        let (n, frame, _) = trapped(&mut v);
        assert_eq!((n, frame[0], v.debug_reg(6)), (1, CODE + 2, Some(0xffff_0ff2)));
        v.cpu.rip = CODE + 2;
        let (n, frame, _) = trapped(&mut v);
        assert_eq!(
            (n, frame[0]),
            (1, CODE + 5),
            "the address is aligned to the length"
        );
        assert_eq!(
            v.debug_reg(6),
            Some(0xffff_0ff6),
            "bits stay until the guest clears them"
        );
    }
}

#[test]
fn reads_do_not_hit_a_breakpoint_on_writes() {
    let (mut v, _) = vcpu(&[0x8a, 0x07, 0x0f, 0x0b]);
    v.cpu.regs[7] = DATA;
    breakpoint(&mut v, 0, DATA, 1, 3);
    assert_eq!(trapped(&mut v).0, 6);
}

#[test]
fn pushes_and_string_instructions_hit_breakpoints_on_their_memory() {
    // push rax
    let (mut v, _) = vcpu(&[0x50, 0x0f, 0x0b]);
    breakpoint(&mut v, 0, STACK_TOP - 8, 1, 2);
    assert_eq!((trapped(&mut v).0, v.debug_reg(6)), (1, Some(0xffff_0ff1)));
    // rep stosb: the trap comes after the iteration
    let (mut v, _) = vcpu(&[0xf3, 0xaa, 0x0f, 0x0b]);
    (v.cpu.regs[7], v.cpu.regs[1]) = (DATA, 5);
    breakpoint(&mut v, 0, DATA + 2, 1, 0);
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0], frame[2] & RF), (1, CODE, RF));
    assert_eq!((v.cpu.regs[7], saved_rcx(&mut v)), (DATA + 3, 2));
}

#[test]
fn single_steps_stop_after_each_iteration_and_not_after_a_load_of_ss() {
    let (mut v, _) = vcpu(&[0xf3, 0xaa, 0x90]);
    (v.cpu.regs[7], v.cpu.regs[1]) = (DATA, 2);
    v.cpu.set_rflags(TF | 0x202);
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0], frame[2] & TF), (1, CODE, TF));
    assert_eq!(
        (saved_rcx(&mut v), v.debug_reg(6)),
        (1, Some(0xffff_0ff0 | DR6_BS))
    );
    // mov ss, ax; nop; nop
    let (mut v, _) = vcpu(&[0x8e, 0xd0, 0x90, 0x90]);
    v.cpu.regs[0] = SS;
    v.cpu.set_rflags(TF | 0x202);
    assert_eq!(trapped(&mut v).1[0], CODE + 3);
}

#[test]
fn an_emulated_instruction_can_be_single_stepped() {
    let (mut v, _) = vcpu(&[0xfa, 0x90]);
    v.set_iopl(1);
    v.cpu.set_rflags(TF | 0x202);
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0]), (1, CODE + 1));
}

#[test]
fn debug_registers_take_what_xen_lets_a_guest_set() {
    let (mut v, _) = vcpu(&[]);
    assert_eq!(v.set_debug_reg(0, LOW_END), Err(Errno::EPERM));
    assert_eq!(v.set_debug_reg(3, HYPERVISOR_VIRT_END), Ok(()));
    assert_eq!(v.set_debug_reg(6, 1 << 32), Err(Errno::EINVAL));
    assert_eq!(
        (v.set_debug_reg(6, 0xffff_ffff), v.debug_reg(6)),
        (Ok(()), Some(0xffff_efff))
    );
    assert_eq!(v.set_debug_reg(7, 1 << 13), Err(Errno::EPERM), "GD");
    assert_eq!(
        v.set_debug_reg(7, 1 | 2 << 16),
        Err(Errno::EPERM),
        "I/O without CR4.DE"
    );
    assert_eq!(
        (v.set_debug_reg(7, 0xd800), v.debug_reg(7)),
        (Ok(()), Some(DR7_ONES))
    );
    assert_eq!(
        (v.set_debug_reg(5, 2), v.debug_reg(7)),
        (Ok(()), Some(DR7_ONES | 2))
    );
    assert_eq!(
        (v.set_debug_reg(8, 0), v.debug_reg(8)),
        (Err(Errno::ENODEV), None)
    );
    v.set_cr4(cr4::INITIAL | cr4::DE);
    assert_eq!(
        (v.set_debug_reg(4, 0), v.debug_reg(5)),
        (Err(Errno::ENODEV), None)
    );
}

#[test]
fn a_breakpoint_on_io_traps_after_the_access() {
    // out 0x80, al
    let (mut v, _) = vcpu(&[0xe6, 0x80, 0x90]);
    v.set_iopl(1);
    v.set_cr4(cr4::INITIAL | cr4::DE);
    breakpoint(&mut v, 3, 0x80, 2, 0);
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0], v.debug_reg(6)), (1, CODE + 2, Some(0xffff_0ff8)));
}

#[test]
fn an_nmi_masks_events_and_the_next_one_waits_for_iret() {
    let (mut v, info) = vcpu(&[0x90; 8]);
    let gate = TrapGate {
        cs: FLAT_KERNEL_CS,
        address: handler(2),
        flags: 4,
    };
    v.set_trap(vector::NMI, gate);
    v.send_nmi();
    assert_eq!(trapped(&mut v).0, 2);
    assert_eq!(
        v.cpu.domain.machine.mem.read_u64(info).map(|w| w >> 8 & 0xff),
        Some(1)
    );
    v.send_nmi();
    v.cpu.rip = CODE;
    assert_eq!(v.run(3, u64::MAX), Exit::Budget, "masked");
    assert_eq!(iret(&mut v, RWX, CS, SS, 0x202), 2, "delivered after the iret");
}

#[test]
fn an_nmi_without_callback_is_lost() {
    let (mut v, _) = vcpu(&[0x90; 8]);
    v.set_trap(vector::NMI, TrapGate::default());
    v.send_nmi();
    assert_eq!(v.run(3, u64::MAX), Exit::Budget);
}

/// Makes the iret hypercall at CODE with this frame and runs to the next handler.
fn iret(v: &mut Vcpu, rip: u64, cs: u64, ss: u64, rflags: u64) -> u64 {
    v.cpu.write(RWX, 0x050f_0001_86a0_b800u64 >> 8).expect("code");
    let sp = STACK_TOP - 0x800;
    let words = [23u64, 0, 0, 0, rip, cs, rflags, STACK_TOP - 0x100, ss];
    for (i, w) in words.iter().enumerate() {
        v.cpu.write(sp + 8 * i as u64, *w).expect("stack");
    }
    v.cpu.regs[4] = sp;
    v.cpu.regs[0] = nr::IRET;
    v.cpu
        .write(RWX + 0x100, u16::from_le_bytes(SYSCALL))
        .expect("code");
    v.cpu.rip = RWX + 0x100;
    trapped(v).0
}

#[test]
fn iret_to_what_the_hardware_refuses_is_a_fault_at_its_target() {
    for (rip, cs, ss, code) in [
        (LOW_END, CS, SS, 0),
        (RWX, CS, 0, 0),
        (RWX, CS, CS, CS & !3),
        (RWX, SS, SS, SS & !3),
        (RWX, u64::from(XEN_DS), SS, u64::from(XEN_DS)),
    ] {
        let (mut v, _) = vcpu(&[]);
        assert_eq!(iret(&mut v, rip, cs, ss, 0x202), 13, "{rip:#x} {cs:#x} {ss:#x}");
        let error = v.cpu.read::<u64>(v.cpu.regs[4] + 16).expect("stack");
        assert_eq!(error, code, "{rip:#x} {cs:#x} {ss:#x}");
    }
}

#[test]
fn with_architectural_iopl_iret_sets_it_and_frames_show_it() {
    let (mut v, _) = vcpu(&[0xfa, 0x0f, 0x0b]);
    v.domain().set_vm_assist(1 << vmasst::ARCHITECTURAL_IOPL);
    v.set_callback(CallbackKind::Syscall, callback(100));
    let frame_flags = |v: &mut Vcpu| v.cpu.read::<u64>(v.cpu.regs[4] + 32).expect("stack");
    assert_eq!(
        iret(&mut v, CODE, CS, SS, 0x3202),
        6,
        "cli of an application at IOPL 3"
    );
    assert_eq!(frame_flags(&mut v) & 0x3000, 0x3000);
}

#[test]
fn io_is_allowed_by_the_virtual_iopl_or_by_the_guests_bitmap() {
    let code = [0xe4, 0x70, 0x0f, 0x0b];
    let (mut v, _) = vcpu(&code);
    assert_eq!(trapped(&mut v).0, 13);
    for user in [false, true] {
        let (mut v, _) = vcpu(&code);
        v.set_io_bitmap(DATA, 0x78);
        v.cpu.write(DATA + 14, 0xfffeu16).expect("data");
        assert!(v.set_guest_kernel(!user));
        assert_eq!(trapped(&mut v).0, 6);
        let (mut v, _) = vcpu(&code);
        v.set_io_bitmap(DATA, 0x78);
        v.cpu.write(DATA + 14, 0xfff1u16).expect("data");
        assert!(v.set_guest_kernel(!user));
        assert_eq!(trapped(&mut v).0, 13);
    }
}

#[test]
fn no_port_answers_but_two_index_registers_can_be_read_back() {
    // out 0x70, al; in eax, dx
    let (mut v, _) = vcpu(&[0xe6, 0x70, 0xed, 0x0f, 0x0b]);
    v.set_iopl(1);
    (v.cpu.regs[0], v.cpu.regs[2]) = (0x1234_5655, 0x6f);
    assert_eq!(v.run(2, u64::MAX), Exit::Budget);
    assert_eq!(v.cpu.regs[0], 0xffff_55ff);
    // out dx, eax; mov eax, edx; in eax, dx
    let (mut v, _) = vcpu(&[0xef, 0x89, 0xd0, 0xed]);
    v.set_iopl(1);
    (v.cpu.regs[0], v.cpu.regs[2]) = (0x8000_0800, 0xcf8);
    assert_eq!(v.run(3, u64::MAX), Exit::Budget);
    assert_eq!(v.cpu.regs[0], 0x8000_0800);
}

#[test]
fn ins_and_outs_move_as_many_elements_as_rcx_says() {
    // rep insb; rep outsw
    let (mut v, _) = vcpu(&[0xf3, 0x6c, 0x90]);
    v.set_iopl(1);
    (v.cpu.regs[7], v.cpu.regs[1], v.cpu.regs[2]) = (DATA, 3, 0x60);
    assert_eq!(v.run(2, u64::MAX), Exit::Budget);
    assert_eq!((v.cpu.regs[7], v.cpu.regs[1]), (DATA + 3, 0));
    assert_eq!(v.cpu.read::<u32>(DATA).expect("data"), 0x00ff_ffff);
    // A fault finds the registers where the fault is.
    let (mut v, _) = vcpu(&[0xf3, 0x6c, 0x90]);
    v.set_iopl(1);
    (v.cpu.regs[7], v.cpu.regs[1], v.cpu.regs[2]) = (DATA + 0x3fff, 3, 0x60);
    let (n, frame, code) = trapped(&mut v);
    assert_eq!((n, frame[0], code), (14, CODE, Some(2)));
    assert_eq!((v.cpu.regs[7], saved_rcx(&mut v)), (DATA + 0x4000, 2));
}

#[test]
fn a_system_call_without_callback_is_undefined() {
    let (mut v, _) = vcpu(&SYSCALL);
    assert!(v.set_guest_kernel(false));
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0]), (6, CODE));
}

#[test]
fn sysenter_enters_its_callback_with_nothing_to_return_to() {
    let (mut v, _) = vcpu(&[0x0f, 0x34]);
    v.set_callback(CallbackKind::Sysenter, callback(101));
    assert!(v.set_guest_kernel(false));
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0], frame[1] & 0xffff, frame[3]), (101, 0, 3, 0));
    let (mut v, _) = vcpu(&[0x0f, 0x34]);
    assert!(v.set_guest_kernel(false));
    let (n, frame, code) = trapped(&mut v);
    assert_eq!((n, frame[0], code), (6, CODE, None));
}

#[test]
fn fsgsbase_instructions_depend_on_cr4() {
    // wrfsbase rax
    let code = [0xf3, 0x48, 0x0f, 0xae, 0xd0, 0x0f, 0x0b];
    let (mut v, _) = vcpu(&code);
    assert_eq!(trapped(&mut v).1[0], CODE);
    let (mut v, _) = vcpu(&code);
    v.set_cr4(cr4::INITIAL | cr4::FSGSBASE);
    v.cpu.regs[0] = 0x7777;
    assert_eq!((trapped(&mut v).1[0], v.cpu.bases.fs), (CODE + 5, 0x7777));
    let (mut v, _) = vcpu(&code);
    v.set_cr4(cr4::INITIAL | cr4::FSGSBASE);
    v.cpu.regs[0] = 0x8000_0000_0000;
    assert_eq!(trapped(&mut v).0, 13);
}

#[test]
fn tsd_and_cpuid_faulting_concern_applications_only() {
    for code in [&[0x0f, 0x31, 0x0f, 0x0b][..], &[0x0f, 0xa2, 0x0f, 0x0b]] {
        for user in [false, true] {
            let (mut v, _) = vcpu(code);
            v.set_cr4(cr4::INITIAL | cr4::TSD);
            v.cpu.model.cpuid_traps = true;
            assert!(v.set_guest_kernel(!user));
            assert_eq!(trapped(&mut v).0, if user { 13 } else { 6 });
        }
    }
    // With the forced emulation prefix the fault is at the cpuid itself.
    let (mut v, _) = vcpu(&[0x0f, 0x0b, b'x', b'e', b'n', 0x0f, 0xa2]);
    v.cpu.model.cpuid_traps = true;
    assert!(v.set_guest_kernel(false));
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0]), (13, CODE + 5));
}

#[test]
fn applications_do_not_see_the_machine_to_phys_table() {
    // mov eax, [rax]
    let code = [0x8b, 0x00, 0x0f, 0x0b];
    let m2p = M2P_VA;
    for (strict, vector) in [(false, 6), (true, 14)] {
        let (mut v, _) = vcpu(&code);
        v.domain().set_vm_assist(u64::from(strict) << vmasst::M2P_STRICT);
        v.cpu.regs[0] = m2p;
        assert_eq!(trapped(&mut v).0, 6, "the kernel may read it");
        v.cpu.rip = CODE;
        v.cpu.regs[0] = m2p;
        assert!(v.set_guest_kernel(false));
        assert_eq!(trapped(&mut v).0, vector, "one L4 for both, strict: {strict}");
    }
}

#[test]
fn the_gs_selector_of_applications_is_loaded_or_null() {
    let (mut v, _) = vcpu(&[]);
    v.set_gs_base(true, 0x1234);
    v.set_gs_base(false, 0x5678);
    assert_eq!(v.set_segment_base(segbase::GS_USER_SEL, SS & !3), Ok(()));
    assert_eq!(
        (v.cpu.seg.sel[5], v.gs_base(false), v.gs_base(true)),
        (FLAT_KERNEL_SS, 0, 0x1234)
    );
    v.set_gs_base(false, 0x5678);
    assert_eq!(
        v.set_segment_base(segbase::GS_USER_SEL, 0x1000),
        Ok(()),
        "errors are not told"
    );
    assert_eq!(
        (v.cpu.seg.sel[5], v.gs_base(false), v.gs_base(true)),
        (0, 0, 0x1234)
    );
}

#[test]
fn a_breakpoint_hit_by_a_load_of_ss_waits_for_the_next_instruction() {
    // mov ss, [rdi]; nop
    let (mut v, _) = vcpu(&[0x8e, 0x17, 0x90, 0x90]);
    v.cpu.write(DATA, 0xe02bu16).expect("data");
    v.cpu.regs[7] = DATA;
    breakpoint(&mut v, 0, DATA, 3, 3);
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0], v.debug_reg(6)), (1, CODE + 3, Some(0xffff_0ff1)));
}

#[test]
fn a_breakpoint_hit_before_a_system_call_is_lost_with_it() {
    // mov ss, [rdi]; syscall
    let (mut v, _) = vcpu(&[0x8e, 0x17, 0x0f, 0x05]);
    v.set_callback(CallbackKind::Syscall, callback(100));
    v.cpu.write(DATA, 0xe02bu16).expect("data");
    v.cpu.regs[7] = DATA;
    breakpoint(&mut v, 0, DATA, 3, 3);
    assert!(v.set_guest_kernel(false));
    let (n, frame, _) = trapped(&mut v);
    assert_eq!((n, frame[0]), (100, CODE + 4));
    assert_eq!(v.debug_reg(6), Some(0xffff_0ff0));
}

#[test]
fn a_hypercall_can_be_single_stepped_wherever_it_is_answered() {
    for fast in [true, false] {
        let (mut v, _) = vcpu(&[0x0f, 0x05, 0x90]);
        v.set_fast_hypercalls(fast);
        v.cpu.regs[0] = nr::FPU_TASKSWITCH;
        v.cpu.set_rflags(TF | 0x202);
        if !fast {
            assert!(matches!(
                v.run(10, u64::MAX),
                Exit::Hypercall {
                    nr: nr::FPU_TASKSWITCH,
                    ..
                }
            ));
            v.hypercall_return(0);
        }
        let (n, frame, _) = trapped(&mut v);
        assert_eq!((n, frame[0], frame[2] & TF), (1, CODE + 2, TF), "fast: {fast}");
        assert_eq!(v.debug_reg(6), Some(0xffff_0ff0 | DR6_BS));
    }
}

/// MMUEXT_SET_LDT, as a guest asks for it.
fn ask_for_ldt(v: &mut Vcpu, va: u64, entries: u64) -> Result<(), Errno> {
    for (at, word) in [u64::from(mmuext::SET_LDT), va, entries].into_iter().enumerate() {
        v.copy_out(DATA + 8 * at as u64, &word.to_le_bytes())
            .expect("mapped");
    }
    v.mmuext_op(DATA, 1, 0, u32::from(DOMID_SELF))
}

#[test]
fn an_ldt_is_refused_for_where_it_begins_but_not_for_where_it_ends() {
    // mov eax, 0x100f; mov ds, eax
    let (mut v, _) = vcpu(&[0xb8, 0x0f, 0x10, 0, 0, 0x8e, 0xd8]);
    for (va, entries) in [
        (0x1001, 4),
        (0x1000, 8193),
        (LOW_END, 1),
        (HYPERVISOR_VIRT_END - 0x1000, 1),
    ] {
        assert_eq!(ask_for_ldt(&mut v, va, entries), Err(Errno::EINVAL), "{va:#x}");
        assert_eq!(v.cpu.seg.tables.ldt.entries, 0);
    }
    assert_eq!(ask_for_ldt(&mut v, LOW_END - 0x1000, 8192), Ok(()));
    assert_eq!(v.cpu.seg.tables.ldt.entries, 8192, "what was answered is so");
    // The second page of it is no address: using a selector there is a page fault.
    let (n, _, code) = trapped(&mut v);
    assert_eq!((n, code), (14, Some(0)));
}
