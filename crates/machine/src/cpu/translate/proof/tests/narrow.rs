// SPDX-License-Identifier: Apache-2.0
//! The 32-bit program that `tests` has proved and breaks.

use crate::abi::selector::{FLAT_RING3_CS32, FLAT_RING3_DS32};
use crate::testing::{TestVm, CODE, DATA};
use iced_x86::code_asm::*;
use iced_x86::IcedError;

/// Code of all kinds that are translated, some rounds of it; ends with int 0x80.
fn program() -> Vec<u8> {
    let made = (|| -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(32)?;
        let [mut top, mut other, mut here, mut end] = std::array::from_fn(|_| a.create_label());
        let data = DATA as u32;
        a.mov(esi, data)?;
        a.mov(ebp, 60)?;
        a.set_label(&mut top)?;
        // Operands near each other, with the register that is moved between them.
        a.mov(eax, dword_ptr(esi + 8))?;
        a.mov(edx, dword_ptr(esi + 16))?;
        a.add(esi, 8)?;
        a.add(dword_ptr(esi + 16), eax)?;
        a.mov(ebx, dword_ptr(esi + edx * 8 + 64))?;
        a.mov(edi, dword_ptr(esi - 8))?;
        a.sub(esi, 8)?;
        // Absolute addresses, segments, and flags that are looked at.
        a.cmp(ebp, 7)?;
        a.mov(ecx, dword_ptr(data + 24))?;
        a.adc(dword_ptr(data + 32), ecx)?;
        a.mov(eax, dword_ptr(data + 0x204))?;
        a.mov(dword_ptr(edx * 4 + data + 0x100), eax)?;
        a.mov(eax, dword_ptr(0x20).gs())?;
        a.mov(dword_ptr(esi + edx * 4).gs(), eax)?;
        a.lea(eax, ptr(esi + edx * 4 + 3))?;
        a.inc(ecx)?;
        // The stack, calls, jumps by registers.
        a.push(ebx)?;
        a.push(dword_ptr(esi))?;
        a.push(0x1234_5678)?;
        a.call(FUNCTION)?;
        a.pop(ebx)?;
        a.pop(ebx)?;
        a.pop(ebx)?;
        a.mov(ebx, FUNCTION as u32)?;
        a.push(ebx)?;
        a.call(ebx)?;
        a.call(dword_ptr(esp))?;
        a.pop(ebx)?;
        a.call(here)?;
        a.set_label(&mut here)?;
        a.pop(ebx)?;
        a.add(ebx, 6)?;
        a.jmp(ebx)?;
        // Bytes ah to bh, division, what handlers do.
        a.mov(ah, byte_ptr(esi + 3))?;
        a.add(byte_ptr(esi + 200), bh)?;
        a.xor(edx, edx)?;
        a.mov(eax, 1000)?;
        a.mov(ecx, 7)?;
        a.div(ecx)?;
        a.lock().inc(dword_ptr(esi + 0x110))?;
        a.lock().xadd(dword_ptr(esi + 0x118), ebx)?;
        a.pushad()?;
        a.popad()?;
        a.bts(dword_ptr(esi + 128), ecx)?;
        a.mov(edi, data + 0x400)?;
        a.mov(ecx, 40)?;
        a.rep().movsd()?;
        a.mov(ecx, 16)?;
        a.rep().stosb()?;
        a.mov(esi, data)?;
        // Vector registers.
        a.movaps(xmm1, xmmword_ptr(esi + 0x40))?;
        a.paddq(xmm1, xmmword_ptr(esi + 0x50))?;
        a.movdqu(xmmword_ptr(esi + 0x61), xmm1)?;
        a.cpuid()?;
        a.mov(ecx, dword_ptr(esi + 8))?;
        a.rdtsc()?;
        a.test(ebp, 1)?;
        a.jne(other)?;
        a.mov(dword_ptr(esi + 0x200), eax)?;
        a.set_label(&mut other)?;
        a.dec(ebp)?;
        a.je(end)?;
        a.jmp(top)?;
        a.set_label(&mut end)?;
        a.int(0x80)?;
        a.assemble(CODE)
    })();
    made.expect("code that can be assembled")
}

/// Where a function is, in another page.
const FUNCTION: u64 = CODE + 0x2010;

/// mov eax, [esp+4]; push ebp; mov ebp, esp; leave; ret
const FUNCTION_CODE: [u8; 9] = [0x8b, 0x44, 0x24, 0x04, 0x55, 0x89, 0xe5, 0xc9, 0xc3];

/// At the start of the program, in flat segments.
pub(super) fn narrow_vm() -> TestVm {
    let mut vm = TestVm::new(&program());
    vm.poke(FUNCTION, &FUNCTION_CODE);
    let data = FLAT_RING3_DS32;
    vm.cpu.seg.sel = [data, FLAT_RING3_CS32, data, data, 0, data];
    vm.run(0);
    vm.cpu.bases.gs = 0x8000;
    vm.map(0x8000, 1, crate::testing::pte::P | crate::testing::pte::US);
    vm.map(
        DATA + 0x8000,
        1,
        crate::testing::pte::P | crate::testing::pte::US | crate::testing::pte::RW,
    );
    vm
}
