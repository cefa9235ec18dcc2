// SPDX-License-Identifier: Apache-2.0
//! Operands on the stack: the frame has a copy of the TLB entry of the page that the stack pointer was in at the last callout, so that most of them
//! need not look for theirs. What is not in that page looks in the TLB, in code apart.

use super::asm::{frame, indexed, Label, GUEST_RSP, S0, S1};
use super::emit::{Emitter, Here, Wanted};
use crate::cpu::region::STACK_SPAN;
use iced_x86::{Code, Register};

/// Operands that are not in the page that the frame knows.
pub(super) struct Elsewhere {
    label: Label,
    /// Where it goes on with what to add to their addresses in `S1`.
    hit: Label,
    disp: i64,
    wanted: Wanted,
    /// For the site.
    flags: u8,
    here: Here,
}

impl Emitter<'_> {
    /// Whether operands on the stack are looked for in the page that the frame has.
    pub(super) fn by_frame(&self, wanted: Wanted) -> bool {
        self.flags_dead() && !self.flat && wanted.align == 1 && u64::from(wanted.size) <= STACK_SPAN
    }

    /// Checks operands at `disp` from the stack pointer; what to add to their addresses is in `S1` then.
    pub(super) fn check_by_frame(&mut self, disp: i64, wanted: Wanted, flags: u8) {
        let (label, hit) = (self.asm.label(), self.asm.label());
        self.asm.load(S0, frame!(stack_tag));
        self.asm.lea(S0, indexed(S0, GUEST_RSP, 1, disp));
        self.asm.cmp_mem(S0, frame!(stack_room));
        self.asm.jcc(Code::Jae_rel32_64, label);
        self.asm.load(S1, frame!(stack_delta));
        self.asm.bind(hit);
        let here = self.here();
        self.elsewhere.push(Elsewhere {
            label,
            hit,
            disp,
            wanted,
            flags,
            here,
        });
    }

    /// What looks in the TLB.
    pub(super) fn put_elsewhere(&mut self) {
        for e in std::mem::take(&mut self.elsewhere) {
            self.return_to(e.here);
            self.asm.bind(e.label);
            let ea = self.address_at(Register::RSP, e.disp, usize::from(e.wanted.size));
            self.check_for_site(ea, e.wanted, e.flags);
            self.asm.jmp(e.hit);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::abi::x86::{gpr, pf, vector};
    use crate::cpu::engine::TranslatorOptions;
    use crate::cpu::translate::translator_available;
    use crate::testing::{pte, TestVm, CODE, STACK_TOP};
    use crate::Trap;
    use iced_x86::code_asm::*;

    /// A page of the stack.
    const PAGE: u64 = STACK_TOP - 4096;

    /// Pushes rcx and takes it back as rdx, many times; ends with a system call.
    fn program() -> Vec<u8> {
        let made = (|| {
            let mut a = CodeAssembler::new(64)?;
            let mut top = a.create_label();
            a.set_label(&mut top)?;
            a.push(rcx)?;
            a.push(rbx)?;
            a.add(rbx, 1)?;
            a.pop(rax)?;
            a.pop(rdx)?;
            a.cmp(ebx, 40)?;
            a.jb(top)?;
            a.syscall()?;
            a.assemble(CODE)
        })();
        made.expect("code that can be assembled")
    }

    fn run(vm: &mut TestVm, stack_pointer: u64, value: u64) -> Trap {
        vm.cpu.rip = CODE;
        vm.cpu.regs[gpr::RCX] = value;
        vm.cpu.regs[gpr::RBX] = 0;
        vm.cpu.regs[gpr::RSP] = stack_pointer;
        vm.run_to_trap()
    }

    /// After the program was translated and has run on this page.
    fn vm() -> Option<TestVm> {
        translator_available().ok()?;
        let mut vm = TestVm::new(&program());
        let options = TranslatorOptions {
            threshold: 2,
            ..TranslatorOptions::default()
        };
        vm.cpu.set_translator(Some(options)).expect("a translator");
        for round in 0..4 {
            assert_eq!(run(&mut vm, PAGE + 0x800, round), Trap::Syscall);
            assert_eq!((vm.cpu.regs[gpr::RDX], vm.peek_u64(PAGE + 0x7f8)), (round, round));
        }
        assert!(vm.cpu.translated().blocks > 0);
        // SAFETY: the frame of the current view, which nobody else looks at.
        let frame = unsafe { &*vm.cpu.views.beside().frame() };
        assert_eq!(
            (frame.stack_tag, frame.stack_room > 0),
            (PAGE.wrapping_neg(), true)
        );
        Some(vm)
    }

    fn fault(trap: Trap) -> (u8, Option<u32>) {
        match trap {
            Trap::Fault(f) => (f.vector, f.error_code),
            other => panic!("no fault: {other:?}"),
        }
    }

    #[test]
    fn a_stack_that_is_mapped_elsewhere_is_found_there() {
        let Some(mut vm) = vm() else { return };
        let before = vm.maddr(PAGE);
        vm.map(PAGE, 1, pte::P | pte::US | pte::RW | pte::NX);
        vm.cpu.invlpg(PAGE);
        assert_eq!(run(&mut vm, PAGE + 0x800, 77), Trap::Syscall);
        assert_eq!((vm.cpu.regs[gpr::RDX], vm.peek_u64(PAGE + 0x7f8)), (77, 77));
        assert_ne!(vm.machine.mem.read_u64(before + 0x7f8), Some(77));
    }

    #[test]
    fn a_stack_that_may_not_be_written_to_any_more_is_not() {
        let Some(mut vm) = vm() else { return };
        let frame = crate::mem::Mfn(vm.maddr(PAGE) >> 12);
        for (bits, error) in [(pte::P | pte::US | pte::NX, pf::P), (0, 0)] {
            vm.map_frame(PAGE, frame, bits);
            vm.cpu.invlpg(PAGE);
            let found = fault(run(&mut vm, PAGE + 0x800, 77));
            assert_eq!(found, (vector::PF, Some(error | pf::W | pf::U)));
            assert_eq!((vm.cpu.rip, vm.cpu.regs[gpr::RSP]), (CODE, PAGE + 0x800));
        }
        vm.map_frame(PAGE, frame, pte::P | pte::US | pte::RW | pte::NX);
        vm.cpu.flush_tlb_view();
        assert_eq!(run(&mut vm, PAGE + 0x800, 78), Trap::Syscall);
        assert_eq!(vm.peek_u64(PAGE + 0x7f8), 78);
    }

    #[test]
    fn a_stack_in_other_pages_and_over_their_borders_is_found_in_the_tlb() {
        let Some(mut vm) = vm() else { return };
        for round in 100..160 {
            let at = PAGE - 4096 * (round % 3) - 8 * (round % 5) + 16;
            assert_eq!(run(&mut vm, at, round), Trap::Syscall, "{at:x}");
            assert_eq!(
                (vm.cpu.regs[gpr::RDX], vm.peek_u64(at - 8)),
                (round, round),
                "{at:x}"
            );
            let odd = PAGE + 3 - 4096 * (round % 2);
            assert_eq!(run(&mut vm, odd, round), Trap::Syscall, "{odd:x}");
            assert_eq!(vm.cpu.regs[gpr::RDX], round, "{odd:x}");
        }
        for bad in [1 << 63, 0x8000_0000_0000, PAGE.wrapping_neg(), u64::MAX - 3] {
            let (number, _) = fault(run(&mut vm, bad, 1));
            assert!([vector::SS, vector::PF].contains(&number), "{bad:x}: {number}");
            assert_eq!(vm.cpu.regs[gpr::RSP], bad);
        }
    }
}
