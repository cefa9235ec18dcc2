// SPDX-License-Identifier: Apache-2.0
//! PV trap mechanics: frames, modes, events, as a guest kernel sees them.

use domzero_machine::abi::evtchn::evtchnop;
use domzero_machine::abi::hypercall::nr;
use domzero_machine::abi::layout::HYPERVISOR_VIRT_START;
use domzero_machine::abi::selector::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, FLAT_RING3_CS32};
use domzero_machine::testing::{TestVm, CODE, DATA, RWX, STACK_TOP};
use domzero_machine::{
    attention, vector, Bell, Callback, CallbackKind, Events, Exit, Fault, PrivInsn, SeenTrap, TrapGate, Vcpu,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// Selectors, as they stand in a frame.
const CS: u64 = FLAT_KERNEL_CS as u64;
const SS: u64 = FLAT_KERNEL_SS as u64;
const HANDLER: u64 = CODE + 0x800;
const INFO_VA: u64 = DATA + 0x3000;
/// At the handler: the test sees a hypercall exit there.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// A vCPU in kernel mode at CODE whose handlers, all at HANDLER, make a hypercall; and its vcpu_info.
fn vcpu(code: &[u8]) -> (Vcpu, u64) {
    let mut vm = TestVm::new(code);
    vm.poke(HANDLER, &SYSCALL);
    let maddr = vm.maddr(INFO_VA);
    let mut v = Vcpu::with_cpu(vm.cpu, 0);
    v.set_vcpu_info(maddr);
    for n in 0..=255 {
        v.set_trap(
            n,
            TrapGate {
                cs: FLAT_KERNEL_CS,
                address: HANDLER,
                flags: 0,
            },
        );
    }
    v.set_callback(
        CallbackKind::Event,
        Callback {
            cs: FLAT_KERNEL_CS,
            address: HANDLER,
            mask_events: true,
        },
    );
    v.set_callback(
        CallbackKind::Syscall,
        Callback {
            cs: FLAT_KERNEL_CS,
            address: HANDLER,
            mask_events: false,
        },
    );
    v.set_kernel_stack(FLAT_KERNEL_SS, STACK_TOP);
    v.load_base(false, v.base(true));
    (v, maddr)
}

fn frame(v: &mut Vcpu, words: usize) -> Vec<u64> {
    let sp = v.cpu.regs[4];
    (0..words as u64)
        .map(|i| v.cpu.read::<u64>(sp + 8 * i).expect("stack"))
        .collect()
}

fn byte(v: &Vcpu, maddr: u64) -> u8 {
    let mut b = [0xee];
    v.cpu.domain.machine.mem.read(maddr, &mut b);
    b[0]
}

#[test]
fn a_syscall_of_the_kernel_is_a_hypercall_with_its_arguments() {
    let (mut v, _) = vcpu(&SYSCALL);
    v.cpu.regs[0] = 17;
    for (reg, value) in [(7, 1), (6, 2), (2, 3), (10, 4), (8, 5), (9, 6)] {
        v.cpu.regs[reg] = value;
    }
    assert_eq!(
        v.run(10, u64::MAX),
        Exit::Hypercall {
            nr: 17,
            args: [1, 2, 3, 4, 5, 6]
        }
    );
    assert_eq!(v.cpu.rip, CODE + 2);
    v.hypercall_restart();
    assert_eq!(v.cpu.rip, CODE);
}

#[test]
fn a_syscall_of_an_application_enters_the_kernel_on_its_stack() {
    let (mut v, _) = vcpu(&SYSCALL);
    assert!(v.set_guest_kernel(false));
    v.set_gs_base(true, 0x1111);
    v.set_gs_base(false, 0x2222);
    v.cpu.seg.sel[1] = 0x33;
    v.cpu.seg.sel[2] = 0x2b;
    let user_sp = STACK_TOP - 0x2000;
    v.cpu.regs[4] = user_sp;
    assert!(matches!(v.run(10, u64::MAX), Exit::Hypercall { .. }));
    assert!(v.guest_kernel());
    assert_eq!(v.cpu.bases.gs, 0x1111);
    assert_eq!(v.cpu.regs[4], STACK_TOP - 7 * 8);
    let f = frame(&mut v, 7);
    assert_eq!(f[2], CODE + 2, "rip");
    assert_eq!(f[3], CS, "cs as syscall sets it, with an open event mask");
    assert_eq!(f[4] & (1 << 9), 1 << 9, "IF is the inverse of the mask");
    assert_eq!((f[5], f[6]), (user_sp, SS));
}

#[test]
fn a_page_fault_of_the_kernel_has_its_address_and_no_user_bit() {
    // mov rax, [0x10]
    let (mut v, info) = vcpu(&[0x48, 0x8b, 0x04, 0x25, 0x10, 0, 0, 0]);
    let sp = v.cpu.regs[4];
    assert!(matches!(v.run(10, u64::MAX), Exit::Hypercall { .. }));
    let f = frame(&mut v, 8);
    assert_eq!(f[2], 0, "error code: not present, read, supervisor");
    assert_eq!(f[3], CODE, "rip of the faulting instruction");
    assert_eq!(f[4] & 0xffff, CS & !3, "the kernel's selector with RPL 0");
    assert_eq!(f[6], sp);
    assert_eq!(
        v.cpu.domain.machine.mem.read_u64(info + 16),
        Some(0x10),
        "vcpu_info.arch.cr2"
    );
}

#[test]
fn iret_returns_to_an_application_and_opens_the_event_mask() {
    let (mut v, info) = vcpu(&SYSCALL);
    v.cpu.domain.machine.mem.write(info + 1, &[1]);
    let words = [7u64, 8, 9, 0, RWX, CS, 0x202, STACK_TOP - 0x100, SS];
    let sp = STACK_TOP - 0x800;
    for (i, w) in words.iter().enumerate() {
        v.cpu.write(sp + 8 * i as u64, *w).expect("stack");
    }
    v.cpu.regs[4] = sp;
    v.cpu.regs[0] = nr::IRET;
    v.cpu.write(RWX, 0x9090_9090_9090_9090u64).expect("code");
    assert_eq!(v.run(2, u64::MAX), Exit::Budget);
    assert!(!v.guest_kernel());
    assert_eq!(v.cpu.rip, RWX + 1);
    assert_eq!((v.cpu.regs[0], v.cpu.regs[11], v.cpu.regs[1]), (7, 8, 9));
    assert_eq!(
        (v.cpu.seg.sel[1], v.cpu.seg.sel[2]),
        (FLAT_KERNEL_CS, FLAT_KERNEL_SS)
    );
    assert_eq!(byte(&v, info + 1), 0);
}

#[test]
fn an_iret_frame_that_is_not_mapped_crashes_the_domain_only() {
    let (mut v, _) = vcpu(&SYSCALL);
    v.cpu.regs[0] = nr::IRET;
    v.cpu.regs[4] = 0x1000;
    assert!(matches!(
        v.run(10, u64::MAX),
        Exit::Fault {
            reason: "iret frame not readable",
            ..
        }
    ));
}

#[test]
fn a_pending_event_is_delivered_and_masks_further_ones() {
    let (mut v, info) = vcpu(&[0x90; 64]);
    v.cpu.domain.machine.mem.write(info, &[1]);
    assert!(matches!(v.run(10, u64::MAX), Exit::Hypercall { .. }));
    let f = frame(&mut v, 7);
    assert_eq!(f[2], CODE);
    assert_eq!(f[3] >> 32, 0, "the mask that was in force is saved in the frame");
    assert_eq!(byte(&v, info + 1), 1);
}

#[test]
fn a_masked_event_stays_pending() {
    let (mut v, info) = vcpu(&[0x90; 64]);
    v.cpu.domain.machine.mem.write(info, &[1, 1]);
    assert_eq!(v.run(10, u64::MAX), Exit::Budget);
    assert_eq!(v.cpu.rip, CODE + 10);
}

#[test]
fn an_exception_without_a_handler_is_an_exit_that_says_so() {
    let (mut v, _) = vcpu(&[0x0f, 0x0b]);
    v.set_trap(vector::UD, TrapGate::default());
    let exit = v.run(10, u64::MAX);
    assert!(
        matches!(
            exit,
            Exit::Fault {
                vector: vector::UD,
                ..
            }
        ),
        "{exit:?}"
    );
    assert_eq!(v.cpu.rip, CODE);
}

#[test]
fn a_kernel_stack_that_is_not_usable_crashes_the_domain_only() {
    let (mut v, _) = vcpu(&[0x0f, 0x0b]);
    v.cpu.regs[4] = 0x2000;
    assert!(matches!(
        v.run(10, u64::MAX),
        Exit::Fault {
            reason: "kernel stack not mapped writable",
            ..
        }
    ));
    let (mut v, _) = vcpu(&[0x0f, 0x0b]);
    v.cpu.regs[4] = HYPERVISOR_VIRT_START + 0x1000;
    assert!(matches!(v.run(10, u64::MAX), Exit::Fault { .. }));
}

#[test]
fn a_handler_that_cannot_be_fetched_ends_within_the_budget() {
    let (mut v, _) = vcpu(&[0x0f, 0x0b]);
    for n in 0..=255 {
        v.set_trap(
            n,
            TrapGate {
                cs: FLAT_KERNEL_CS,
                address: 0x10,
                flags: 0,
            },
        );
    }
    let exit = v.run(100_000, u64::MAX);
    assert!(matches!(exit, Exit::Fault { .. } | Exit::Budget), "{exit:?}");
}

#[test]
fn the_forced_emulation_prefix_asks_the_hypervisors_cpuid() {
    let (mut v, _) = vcpu(&[0x0f, 0x0b, b'x', b'e', b'n', 0x0f, 0xa2, 0x90]);
    v.cpu.set_cpuid(vec![domzero_machine::CpuidRow {
        leaf: 0x4000_0000,
        subleaf: None,
        regs: [1, 2, 3, 4],
    }]);
    v.cpu.regs[0] = 0x4000_0000;
    assert_eq!(v.run(2, u64::MAX), Exit::Budget);
    assert_eq!(
        (v.cpu.regs[0], v.cpu.regs[3], v.cpu.regs[1], v.cpu.regs[2]),
        (1, 2, 3, 4)
    );
}

#[test]
fn privileged_instructions_of_the_kernel_exit_and_those_of_applications_fault() {
    const RDMSR: [u8; 2] = [0x0f, 0x32];
    let (mut v, _) = vcpu(&RDMSR);
    assert_eq!(
        v.run(10, u64::MAX),
        Exit::Privileged {
            insn: PrivInsn::Rdmsr,
            len: 2
        }
    );
    let (mut v, _) = vcpu(&RDMSR);
    assert!(v.set_guest_kernel(false));
    assert!(matches!(v.run(10, u64::MAX), Exit::Hypercall { .. }));
    assert_eq!(frame(&mut v, 3)[2], 0, "#GP(0)");
}

#[test]
fn what_xen_does_not_emulate_faults_in_the_kernel_too() {
    // hlt, invd, swapgs, lmsw ax, rdpmc, invlpg [rax]
    let insns: [&[u8]; 6] = [
        &[0xf4],
        &[0x0f, 0x08],
        &[0x0f, 0x01, 0xf8],
        &[0x0f, 0x01, 0xf0],
        &[0x0f, 0x33],
        &[0x0f, 0x01, 0x38],
    ];
    for insn in insns {
        let (mut v, _) = vcpu(insn);
        assert!(matches!(v.run(10, u64::MAX), Exit::Hypercall { .. }));
        assert_eq!(frame(&mut v, 4)[2..], [0, CODE], "#GP(0) at the instruction");
    }
}

#[test]
fn cli_and_sti_do_nothing_for_a_kernel_whose_iopl_allows_them() {
    let (mut v, _) = vcpu(&[0xfa, 0xfb, 0x90]);
    v.set_iopl(1);
    assert_eq!(v.run(3, u64::MAX), Exit::Budget);
    assert_eq!(v.cpu.rip, CODE + 3);
}

#[test]
fn a_software_interrupt_obeys_the_gates_dpl() {
    let (mut v, _) = vcpu(&[0xcd, 0x80]);
    assert!(v.set_guest_kernel(false));
    assert!(matches!(v.run(10, u64::MAX), Exit::Hypercall { .. }));
    assert_eq!(frame(&mut v, 4)[2], 0x80 << 3 | 2, "#GP with the vector");
    let (mut v, _) = vcpu(&[0xcd, 0x80]);
    v.set_trap(
        0x80,
        TrapGate {
            cs: FLAT_KERNEL_CS,
            address: HANDLER,
            flags: 3,
        },
    );
    assert!(v.set_guest_kernel(false));
    assert!(matches!(v.run(10, u64::MAX), Exit::Hypercall { .. }));
    assert_eq!(frame(&mut v, 4)[2], CODE + 2, "no error code: rip comes third");
}

#[test]
fn a_kick_from_another_thread_stops_an_endless_loop() {
    let (mut v, _) = vcpu(&[0xeb, 0xfe]);
    let shared = v.shared().clone();
    let t = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        Vcpu::kick(&shared);
    });
    assert_eq!(v.run(u64::MAX / 4, u64::MAX), Exit::Interrupted);
    assert_eq!(v.shared().attention.load(Ordering::SeqCst) & attention::STOP, 0);
    t.join().expect("thread");
}

#[test]
fn virtual_time_advances_by_instructions_and_stops_at_the_deadline() {
    let (mut v, _) = vcpu(&[0xeb, 0xfe]);
    assert_eq!(v.run(1_000_000, 5_000), Exit::Deadline);
    assert_eq!(v.instructions(), 5_000);
    assert_eq!(v.cpu.domain.machine.clock.now_ns(), 5_000);
}

/// Writes an iret frame below the stack's top and makes the iret hypercall.
fn iret(v: &mut Vcpu, cs: u64) -> Exit {
    let words = [7u64, 8, 9, 0, RWX, cs, 0x202, STACK_TOP - 0x100, SS];
    let sp = STACK_TOP - 0x800;
    for (i, w) in words.iter().enumerate() {
        v.cpu.write(sp + 8 * i as u64, *w).expect("stack");
    }
    v.cpu.regs[4] = sp;
    v.cpu.regs[0] = nr::IRET;
    v.run(2, u64::MAX)
}

#[test]
fn iret_to_a_bad_code_selector_is_a_general_protection_fault_at_its_target() {
    let (mut v, _) = vcpu(&SYSCALL);
    let gate = TrapGate {
        cs: FLAT_KERNEL_CS,
        address: HANDLER,
        flags: 0,
    };
    v.set_trap(13, gate);
    assert!(matches!(iret(&mut v, 0x53), Exit::Hypercall { .. }));
    assert!(v.guest_kernel());
    let f = frame(&mut v, 8);
    assert_eq!((f[0], f[1]), (9, 8), "rcx, r11");
    assert_eq!((f[2], f[3]), (0x50, RWX), "error code, rip");
    assert_eq!((f[4] & 0xffff, f[6]), (0x53, STACK_TOP - 0x100));
}

#[test]
fn iret_to_a_bad_code_selector_crashes_a_domain_without_a_handler() {
    let (mut v, _) = vcpu(&SYSCALL);
    v.set_trap(13, TrapGate::default());
    assert!(matches!(iret(&mut v, 0x53), Exit::Fault { .. }));
}

#[test]
fn a_data_selector_from_outside_that_cannot_be_loaded_enters_the_failsafe_callback() {
    let (mut v, _) = vcpu(&SYSCALL);
    let cb = Callback {
        cs: FLAT_KERNEL_CS,
        address: HANDLER,
        mask_events: false,
    };
    v.set_callback(CallbackKind::Failsafe, cb);
    v.set_selector(3, 0x53);
    v.set_selector(0, FLAT_KERNEL_SS);
    assert!(matches!(v.run(1, u64::MAX), Exit::Hypercall { .. }));
    let f = frame(&mut v, 11);
    assert_eq!(f[2..6], [0x53, SS, 0, 0], "ds es fs gs");
    assert_eq!((v.cpu.seg.sel[3], v.cpu.seg.sel[0]), (0, FLAT_KERNEL_SS));
}

#[test]
fn syscall_in_32_bit_code_enters_the_callback_for_it() {
    let (mut v, _) = vcpu(&SYSCALL);
    let cb = Callback {
        cs: FLAT_KERNEL_CS,
        address: HANDLER,
        mask_events: false,
    };
    v.set_callback(CallbackKind::Syscall, Callback::default());
    v.set_callback(CallbackKind::Syscall32, cb);
    v.cpu.write(RWX, u16::from_le_bytes(SYSCALL)).expect("code");
    assert!(matches!(iret(&mut v, FLAT_RING3_CS32.into()), Exit::Budget));
    assert!(v.guest_kernel());
    let f = frame(&mut v, 7);
    assert_eq!(
        (f[0], f[2], f[3] & 0xffff),
        (RWX + 2, RWX + 2, u64::from(FLAT_RING3_CS32))
    );
}

#[test]
fn a_watched_exception_ends_the_run_at_its_handler_and_others_do_not() {
    let seen = |vector, error_code, cr2, rip| {
        Exit::Trap(SeenTrap {
            vector,
            error_code,
            cr2,
            rip,
            in_kernel: true,
        })
    };
    // mov rax, [0x10]
    let load = [0x48, 0x8b, 0x04, 0x25, 0x10, 0, 0, 0];
    let (mut v, _) = vcpu(&load);
    v.watch_traps(&[13, 14, 255]);
    assert_eq!(v.run(10, u64::MAX), seen(14, Some(0), 0x10, CODE));
    assert_eq!(v.cpu.rip, HANDLER);
    assert!(matches!(v.run(10, u64::MAX), Exit::Hypercall { .. }), "once only");
    v.inject(Fault::gp());
    let at = v.cpu.rip;
    assert_eq!(v.run(0, u64::MAX), seen(13, Some(0), 0, at));

    let (mut v, _) = vcpu(&[0xcd, 0xff]);
    v.watch_traps(&[255]);
    v.set_guest_kernel(true);
    let gate = TrapGate {
        cs: FLAT_KERNEL_CS,
        address: HANDLER,
        flags: 3,
    };
    v.set_trap(255, gate);
    assert_eq!(v.run(10, u64::MAX), seen(255, None, 0, CODE + 2));

    let (mut v, _) = vcpu(&SYSCALL);
    v.watch_traps(&[13]);
    let Exit::Trap(trap) = iret(&mut v, 0x53) else {
        panic!("a #GP at the target of iret");
    };
    assert_eq!(
        (trap.vector, trap.error_code, trap.rip, trap.in_kernel),
        (13, Some(0x50), RWX, false)
    );

    let (mut v, _) = vcpu(&load);
    v.watch_traps(&[13]);
    assert!(matches!(v.run(10, u64::MAX), Exit::Hypercall { .. }));
}

#[derive(Default)]
struct Count(AtomicU32);

impl Bell for Count {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Makes event_channel_op once; what is in rax where it is answered, or the exit.
fn event_op(v: &mut Vcpu, command: u32, port: u32) -> Result<u64, Exit> {
    v.cpu.write::<u32>(DATA, port).expect("mapped");
    v.cpu.rip = CODE;
    v.cpu.regs[0] = nr::EVENT_CHANNEL_OP;
    v.cpu.regs[7] = command.into();
    v.cpu.regs[6] = DATA;
    match v.run(1, u64::MAX) {
        Exit::Budget => Ok(v.cpu.regs[0]),
        exit => Err(exit),
    }
}

#[test]
fn event_channel_op_is_answered_without_an_exit_but_for_what_is_the_layer_aboves() {
    for above in [false, true] {
        let (mut v, info) = vcpu(&SYSCALL);
        let all = Arc::<Events>::default();
        let events = all.add(v.domain(), info & !0xfff, 1023, above);
        v.set_events(events.clone());
        let (ipi, host) = (events.bind_ipi(0).unwrap(), events.alloc_unbound(0).unwrap());
        let bell = Arc::new(Count::default());
        events.bind_host(host, 0, Some(bell.clone())).unwrap();
        assert_eq!(event_op(&mut v, evtchnop::SEND, ipi), Ok(0));
        assert_eq!(events.is_pending(ipi), Ok(true));
        assert_eq!(event_op(&mut v, evtchnop::SEND, 0), Ok(-22i64 as u64));
        let sent = event_op(&mut v, evtchnop::SEND, host);
        assert_eq!(
            (sent.is_ok(), bell.0.load(Ordering::SeqCst)),
            (!above, u32::from(!above))
        );
        for command in [
            evtchnop::RESET,
            evtchnop::INIT_CONTROL,
            evtchnop::EXPAND_ARRAY,
            99,
        ] {
            assert!(matches!(
                event_op(&mut v, command, 0),
                Err(Exit::Hypercall { nr: 32, .. })
            ));
        }
        v.set_fast_hypercalls(false);
        assert!(event_op(&mut v, evtchnop::SEND, ipi).is_err());
    }
}
