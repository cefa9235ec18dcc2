// SPDX-License-Identifier: Apache-2.0
//! SCHEDOP_block where the event is there, or comes soon: no exit is needed.

mod upcalls;

use domzero_machine::abi::evtchn::virq;
use domzero_machine::abi::hypercall::{nr, schedop};
use domzero_machine::testing::{TestVm, CODE};
use domzero_machine::{Clock, Domain, DomainEvents, Exit, Machine, Vcpu};
use std::sync::Arc;
use upcalls::{vcpu_with_events, HANDLER};

const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Byte of `struct vcpu_info`: `evtchn_upcall_mask`.
const UPCALL_MASK: u64 = 1;
/// A hypercall that the layer above answers.
const CONSOLE_IO: u64 = 18;

struct Guest {
    vcpu: Vcpu,
    events: Arc<DomainEvents>,
    info: u64,
}

impl Guest {
    /// A vCPU whose event handler makes the hypercall whose number is in rbx.
    fn new(clock: Clock) -> Guest {
        let machine = Machine::new(4096, 1, clock).expect("machine memory");
        let mut vm = TestVm::in_domain(Domain::new(machine, 1), &SYSCALL, 2048);
        vm.poke(HANDLER, &[0x48, 0x89, 0xd8, SYSCALL[0], SYSCALL[1]]); // mov rax, rbx
        let (vcpu, events, info) = vcpu_with_events(vm);
        events.bind_virq(virq::TIMER, 0).expect("a port");
        Guest { vcpu, events, info }
    }

    /// Blocks with upcalls disabled, and runs until the layer above is asked for something: for which hypercall.
    fn block(&mut self) -> u64 {
        let mem = &self.vcpu.domain().machine.mem;
        mem.write(self.info + UPCALL_MASK, &[1]);
        self.vcpu.cpu.rip = CODE;
        let (rax, rbx, rdi) = (0, 3, 7);
        self.vcpu.cpu.regs[rax] = nr::SCHED_OP;
        self.vcpu.cpu.regs[rbx] = CONSOLE_IO;
        self.vcpu.cpu.regs[rdi] = schedop::BLOCK.into();
        match self.vcpu.run(100, u64::MAX) {
            Exit::Hypercall { nr, .. } => nr,
            exit => panic!("{exit:?}"),
        }
    }

    fn answered_here(&self) -> u64 {
        self.vcpu.fast_counts[nr::SCHED_OP as usize]
    }
}

#[test]
fn a_guest_that_blocks_with_an_event_pending_goes_on_at_its_handler() {
    let mut guest = Guest::new(Clock::host());
    guest.events.send_virq(0, virq::TIMER);
    assert_eq!(guest.block(), CONSOLE_IO);
    assert_eq!(guest.answered_here(), 1);
}

#[test]
fn a_sleep_is_begun_by_the_layer_above_and_so_is_every_one_with_virtual_time() {
    let mut guest = Guest::new(Clock::host());
    assert_eq!(guest.block(), nr::SCHED_OP);
    assert_eq!(guest.answered_here(), 0);
    let mut guest = Guest::new(Clock::virtual_at(0));
    guest.events.send_virq(0, virq::TIMER);
    assert_eq!(guest.block(), nr::SCHED_OP);
    assert_eq!(guest.answered_here(), 0);
}

#[test]
fn who_has_slept_for_short_waits_for_its_timer_without_an_exit() {
    let mut guest = Guest::new(Clock::host());
    // On a busy host a sleep may always have been long.
    let waited = (0..10_000).any(|_| {
        guest.vcpu.shared().timers.set_singleshot(None);
        guest.block();
        let soon = guest.vcpu.domain().machine.clock.now_ns() + 20_000;
        guest.vcpu.shared().timers.set_singleshot(Some(soon));
        let before = guest.answered_here();
        guest.block() == CONSOLE_IO && guest.answered_here() > before
    });
    assert!(waited);
}
