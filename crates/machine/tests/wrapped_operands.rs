// SPDX-License-Identifier: Apache-2.0
//! Operands over the end of 4 GiB in 32-bit code: which fault they raise, on each engine, is what the processor raises.

use domzero_machine::abi::selector::{FLAT_KERNEL_SS, FLAT_RING3_CS32};
use domzero_machine::testing::{TestVm, CODE};
use domzero_machine::{translator_available, vector, Fault, TranslatorOptions, Trap};

const RAX: usize = 0;
const RBP: usize = 5;
const LAST: u64 = 0xffff_ffff;

/// Instructions with an operand at ebp or eax, and the fault of one over the end of 4 GiB that is not aligned.
const CASES: [(&[u8], u8); 14] = [
    (&[0x8b, 0x4d, 0x00], vector::SS),                      // mov ecx, [ebp]
    (&[0xf0, 0x66, 0x21, 0x4d, 0x00], vector::SS),          // lock and [ebp], cx
    (&[0xf0, 0xff, 0x45, 0x00], vector::SS),                // lock inc dword [ebp]
    (&[0x87, 0x4d, 0x00], vector::SS),                      // xchg [ebp], ecx
    (&[0xf0, 0x0f, 0xc1, 0x4d, 0x00], vector::SS),          // lock xadd [ebp], ecx
    (&[0x0f, 0xb1, 0x4d, 0x00], vector::SS),                // cmpxchg [ebp], ecx
    (&[0xf0, 0x0f, 0xb1, 0x4d, 0x00], vector::SS),          // lock cmpxchg [ebp], ecx
    (&[0xf3, 0x0f, 0x6f, 0x45, 0x00], vector::SS),          // movdqu xmm0, [ebp]
    (&[0x66, 0x0f, 0x6f, 0x45, 0x00], vector::GP),          // movdqa xmm0, [ebp]
    (&[0x66, 0x0f, 0x7f, 0x45, 0x00], vector::GP),          // movdqa [ebp], xmm0
    (&[0x66, 0x0f, 0xfe, 0x45, 0x00], vector::GP),          // paddd xmm0, [ebp]
    (&[0x66, 0x0f, 0x3a, 0x0f, 0x45, 0x00, 1], vector::GP), // palignr xmm0, [ebp], 1
    (&[0xf0, 0x66, 0x21, 0x08], vector::GP),                // lock and [eax], cx
    (&[0x66, 0x0f, 0x6f, 0x00], vector::GP),                // movdqa xmm0, [eax]
];

fn raises(code: &[u8], threshold: Option<u32>) -> Vec<Trap> {
    let mut vm = TestVm::new(&[&[0x90], code].concat());
    let options = threshold.map(|threshold| TranslatorOptions {
        threshold,
        prove: true,
        ..TranslatorOptions::default()
    });
    vm.cpu.set_translator(options).expect("a translator");
    vm.cpu.seg.sel = [
        FLAT_KERNEL_SS,
        FLAT_RING3_CS32,
        FLAT_KERNEL_SS,
        FLAT_KERNEL_SS,
        0,
        0,
    ];
    let traps = (0..6).map(|_| {
        vm.cpu.rip = CODE;
        vm.cpu.regs[RAX] = LAST;
        vm.cpu.regs[RBP] = LAST;
        vm.run_to_trap()
    });
    let traps = traps.collect();
    assert!(threshold.is_none() || vm.cpu.translated().blocks > 0);
    traps
}

#[test]
fn an_operand_over_the_end_of_4_gib_raises_what_the_processor_raises() {
    let translated = translator_available().is_ok().then_some(Some(2));
    for threshold in [None].into_iter().chain(translated) {
        for (code, vector) in CASES {
            let fault = Trap::Fault(Fault::with_code(vector, 0));
            assert_eq!(raises(code, threshold), vec![fault; 6], "{code:x?} {threshold:?}");
        }
    }
}
