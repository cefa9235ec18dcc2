// SPDX-License-Identifier: Apache-2.0
//! Timers that expire while guest code runs, and the hypercalls about them, which need no exit.

mod upcalls;

use domzero_machine::abi::evtchn::virq;
use domzero_machine::abi::hypercall::{nr, vcpuop, xenver};
use domzero_machine::testing::{TestVm, CODE, DATA};
use domzero_machine::{CpuidRow, DomainEvents, Exit, Vcpu, VcpuShared};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use upcalls::{vcpu_with_events, HANDLER};

/// `syscall`, then a loop of one instruction; at the handler a hypercall that is left to the layer above.
const CALL_AND_SPIN: [u8; 4] = [0x0f, 0x05, 0xeb, 0xfe];
const SYSCALL: [u8; 2] = [0x0f, 0x05];

struct Guest {
    vcpu: Vcpu,
    events: Arc<DomainEvents>,
    /// Of VIRQ_TIMER.
    port: u32,
}

/// A vCPU in kernel mode that makes a hypercall and spins; time is virtual, a nanosecond per instruction.
fn guest() -> Guest {
    let mut vm = TestVm::new(&CALL_AND_SPIN);
    vm.poke(HANDLER, &SYSCALL);
    let (vcpu, events, _) = vcpu_with_events(vm);
    let port = events.bind_virq(virq::TIMER, 0).expect("a port");
    Guest { vcpu, events, port }
}

impl Guest {
    fn now_ns(&self) -> u64 {
        self.vcpu.domain().machine.clock.now_ns()
    }

    /// Begins with a hypercall.
    fn call(&mut self, nr: u64, args: [u64; 3]) {
        self.vcpu.cpu.rip = CODE;
        self.vcpu.cpu.regs[0] = nr;
        for (register, value) in [7, 6, 2].into_iter().zip(args) {
            self.vcpu.cpu.regs[register] = value;
        }
    }

    /// What a hypercall is answered with; `None`: it is for the layer above.
    fn answer(&mut self, nr: u64, args: [u64; 3]) -> Option<i64> {
        self.call(nr, args);
        match self.vcpu.run(1, u64::MAX) {
            Exit::Budget => Some(self.vcpu.cpu.regs[0] as i64),
            Exit::Hypercall { .. } => None,
            exit => panic!("{exit:?}"),
        }
    }

    fn vcpu_op(&mut self, command: u32, vcpu: u32, va: u64) -> Option<i64> {
        self.answer(nr::VCPU_OP, [command.into(), vcpu.into(), va])
    }
}

#[test]
fn a_timer_that_a_running_guest_sets_interrupts_it_at_that_very_instruction() {
    for (nr, args) in [
        (nr::SET_TIMER_OP, [500, 0, 0]),
        (nr::VCPU_OP, [vcpuop::SET_SINGLESHOT_TIMER.into(), 0, DATA]),
    ] {
        let mut guest = guest();
        guest.vcpu.cpu.write::<u64>(DATA, 500).expect("mapped");
        guest.call(nr, args);
        let exit = guest.vcpu.run(1 << 20, u64::MAX);
        // The handler's hypercall is its first instruction, and number 0 is in rax, as the answer.
        assert!(matches!(exit, Exit::Hypercall { nr: 0, .. }), "{exit:?}");
        assert_eq!((guest.now_ns(), guest.vcpu.instructions()), (501, 501));
        assert_eq!(guest.events.is_pending(guest.port), Ok(true));
        assert_eq!(guest.vcpu.shared().timers.next_ns(), None);
    }
}

#[test]
fn a_periodic_timer_goes_on_without_an_exit_and_a_stopped_one_does_not() {
    let mut guest = guest();
    guest.vcpu.cpu.rip = CODE + 2;
    guest.vcpu.shared().timers.set_periodic(100);
    assert!(matches!(guest.vcpu.run(1000, u64::MAX), Exit::Hypercall { .. }));
    assert_eq!(guest.now_ns(), 101);
    assert_eq!(guest.vcpu.shared().timers.next_ns(), Some(200));
    guest.vcpu.shared().timers.set_periodic(0);
    guest.vcpu.cpu.rip = CODE + 2;
    assert_eq!(guest.vcpu.run(1000, u64::MAX), Exit::Budget);
}

#[test]
fn a_deadline_of_the_layer_above_comes_before_a_later_timer() {
    let mut guest = guest();
    guest.call(nr::SET_TIMER_OP, [500, 0, 0]);
    assert_eq!(guest.vcpu.run(1 << 20, 300), Exit::Deadline);
    assert_eq!(guest.now_ns(), 300);
    assert_eq!(guest.vcpu.shared().timers.next_ns(), Some(500));
}

#[test]
fn vcpu_op_about_oneself_is_answered_in_the_order_of_its_checks() {
    let mut guest = guest();
    let other = Arc::new(VcpuShared::default());
    guest.events.add_vcpu(&other);
    const ENOENT: i64 = -2;
    const EFAULT: i64 = -14;
    const EINVAL: i64 = -22;
    let nowhere = 0x1000;
    for command in [
        vcpuop::IS_UP,
        vcpuop::SET_SINGLESHOT_TIMER,
        vcpuop::STOP_SINGLESHOT_TIMER,
    ] {
        assert_eq!(guest.vcpu_op(command, 2, nowhere), Some(ENOENT));
        assert_eq!(guest.vcpu_op(command, u32::MAX, nowhere), Some(ENOENT));
    }
    for command in [vcpuop::SET_SINGLESHOT_TIMER, vcpuop::STOP_SINGLESHOT_TIMER] {
        assert_eq!(guest.vcpu_op(command, 1, nowhere), Some(EINVAL));
    }
    assert_eq!(
        guest.vcpu_op(vcpuop::SET_SINGLESHOT_TIMER, 0, nowhere),
        Some(EFAULT)
    );
    assert_eq!(guest.vcpu.shared().timers.next_ns(), None);
    guest.vcpu.cpu.write::<u64>(DATA, 1 << 40).expect("mapped");
    assert_eq!(guest.vcpu_op(vcpuop::SET_SINGLESHOT_TIMER, 0, DATA), Some(0));
    assert_eq!(guest.vcpu.shared().timers.next_ns(), Some(1 << 40));
    assert_eq!(guest.vcpu_op(vcpuop::STOP_SINGLESHOT_TIMER, 0, nowhere), Some(0));
    assert_eq!(guest.vcpu.shared().timers.next_ns(), None);
    assert_eq!(guest.vcpu_op(vcpuop::IS_UP, 1, 0), Some(0));
    other.is_up.store(true, Ordering::SeqCst);
    assert_eq!(guest.vcpu_op(vcpuop::IS_UP, 1, 0), Some(1));
    assert_eq!(guest.vcpu_op(99, 0, 0), None);
    guest.vcpu.set_fast_hypercalls(false);
    assert_eq!(guest.vcpu_op(vcpuop::IS_UP, 1, 0), None);
}

#[test]
fn the_version_is_what_cpuid_says_also_in_a_multicall() {
    let mut guest = guest();
    let row = CpuidRow {
        leaf: xenver::CPUID_LEAF,
        subleaf: None,
        regs: [4 << 16 | 17, 0, 0, 0],
    };
    guest.vcpu.cpu.set_cpuid(vec![row]);
    assert_eq!(guest.answer(nr::XEN_VERSION, [0; 3]), Some(4 << 16 | 17));
    assert_eq!(guest.answer(nr::XEN_VERSION, [1, DATA, 0]), None);
    guest
        .vcpu
        .cpu
        .write::<u64>(DATA, nr::XEN_VERSION)
        .expect("mapped");
    assert_eq!(guest.answer(nr::MULTICALL, [DATA, 1, 0]), Some(0));
    assert_eq!(guest.vcpu.cpu.read::<u64>(DATA + 8), Ok(4 << 16 | 17));
}
