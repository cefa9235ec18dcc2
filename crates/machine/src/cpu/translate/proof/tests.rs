// SPDX-License-Identifier: Apache-2.0
//! Code as the translator makes it is proved, and broken code is refused.

mod narrow;
mod rest;
mod stack;
mod two_ways;

use super::{walked, Outside, Refused};
use crate::abi::x86::gpr;
use crate::cpu::engine::TranslatorOptions;
use crate::cpu::region::{Frame, DELTAS, PAGES_AT, TLB_AT};
use crate::cpu::translate::callout::{Kind, BRANCH, GROUP, SITE_BYTES};
use crate::cpu::translate::rest::tests::straddling;
use crate::cpu::translate::{translator_available, Translator};
use crate::mmu::tlb::TlbEntry;
use crate::testing::{TestVm, CODE, DATA, STACK_TOP};
use crate::{Stop, Trap};
use iced_x86::code_asm::*;
use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, FlowControl, IcedError, Instruction, Mnemonic, Register,
};
use narrow::narrow_vm;
use rest::rests;
use std::mem::offset_of;

/// Code of all kinds that are translated, some rounds of it; ends with a system call.
fn program() -> Vec<u8> {
    let made = (|| -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let (mut top, mut sub, mut other, mut over, mut end) = (
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
        );
        a.mov(rsi, DATA)?;
        a.mov(rbp, 60u64)?;
        a.set_label(&mut top)?;
        // Groups, with the register that is moved between their operands.
        a.mov(rax, qword_ptr(rsi + 8))?;
        a.mov(rdx, qword_ptr(rsi + 16))?;
        a.add(rsi, 8)?;
        a.add(qword_ptr(rsi + 16), rax)?;
        a.mov(rbx, qword_ptr(rsi + rdx * 8 + 64))?;
        a.mov(r9, qword_ptr(rsi - 8))?;
        a.sub(rsi, 8)?;
        // Registers that are in the frame, and flags that are looked at.
        a.mov(r8, DATA)?;
        a.cmp(rbp, 7)?;
        a.mov(r15, qword_ptr(r8 + 24))?;
        a.adc(qword_ptr(r8 + 32), r15)?;
        a.mov(r11, rsp)?;
        a.mov(dword_ptr(r8 + 300), eax)?;
        a.mov(qword_ptr(DATA + 0x800), rax)?;
        // The stack, calls, jumps by registers.
        a.push(rbx)?;
        a.push(qword_ptr(rsi))?;
        a.call(sub)?;
        a.pop(rbx)?;
        a.pop(rbx)?;
        a.lea(r12, ptr(sub))?;
        a.call(r12)?;
        a.lea(r12, ptr(over))?;
        a.jmp(r12)?;
        a.nop()?;
        a.set_label(&mut over)?;
        // Bits of memory, bytes ah to bh, division, selectors, 16 bytes at once.
        a.mov(ecx, 77)?;
        a.bts(qword_ptr(rsi + 128), rcx)?;
        a.mov(ah, byte_ptr(rsi + 3))?;
        a.add(byte_ptr(rsi + 200), bh)?;
        a.xor(edx, edx)?;
        a.mov(eax, 1000)?;
        a.mov(ecx, 7)?;
        a.div(ecx)?;
        a.mov(word_ptr(rsi + 210), ss)?;
        a.lock().cmpxchg16b(ptr(rsi + 0x100))?;
        a.lock().inc(dword_ptr(rsi + 0x110))?;
        a.lock().xadd(qword_ptr(rsi + 0x118), rbx)?;
        // Strings.
        a.mov(r13, rsi)?;
        a.mov(rdi, DATA + 0x400)?;
        a.mov(ecx, 40)?;
        a.rep().movsq()?;
        a.mov(ecx, 16)?;
        a.rep().stosb()?;
        a.mov(rsi, r13)?;
        // Vector registers.
        a.movaps(xmm1, xmmword_ptr(rsi + 0x40))?;
        a.paddq(xmm1, xmmword_ptr(rsi + 0x50))?;
        a.movdqu(xmmword_ptr(rsi + 0x61), xmm1)?;
        // x87: numbers of all sizes, a control word, conditions.
        a.fld(qword_ptr(rsi + 0x240))?;
        a.fadd(dword_ptr(rsi + 0x248))?;
        a.fild(word_ptr(rsi + 0x24c))?;
        a.mov(word_ptr(rsi + 0x24e), 0x27f)?;
        a.fldcw(word_ptr(rsi + 0x24e))?;
        a.fcomi(st0, st1)?;
        a.fstp(tbyte_ptr(rsi + 0x250))?;
        a.fistp(qword_ptr(rsi + 0x25c))?;
        a.fnstsw(ax)?;
        a.fnstcw(word_ptr(rsi + 0x264))?;
        a.fsin()?;
        a.cpuid()?;
        a.mov(rcx, qword_ptr(rsi + 8))?;
        a.rdtsc()?;
        a.test(ebp, 1)?;
        a.jne(other)?;
        a.mov(qword_ptr(rsi + 0x200), rax)?;
        a.set_label(&mut other)?;
        a.dec(rbp)?;
        a.je(end)?;
        a.jmp(top)?;
        a.set_label(&mut end)?;
        a.syscall()?;
        // In another page.
        while a.instructions().len() < 1200 {
            a.nop_1(rax)?;
        }
        for _ in 0..1400 {
            a.nop_1(dword_ptr(rax + rax + 0x1000))?;
        }
        a.set_label(&mut sub)?;
        a.mov(rax, qword_ptr(rsp + 8))?;
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.leave()?;
        // The return's operand is checked before these, where nobody looks at the flags.
        a.add(rax, qword_ptr(rsi + 8))?;
        a.mov(qword_ptr(rsi + 24), rax)?;
        a.ret()?;
        a.assemble(CODE)
    })();
    made.expect("code that can be assembled")
}

/// Translators that have run the programs, of 64- and of 32-bit code; none on hosts that have none.
fn translated(exact: bool) -> Vec<TestVm> {
    match translator_available() {
        Ok(()) => vec![
            ran(TestVm::new(&program()), exact),
            ran(narrow_vm(), exact),
            ran(TestVm::new(&straddling(CODE, 60)), exact),
        ],
        Err(_) => Vec::new(),
    }
}

fn ran(vm: TestVm, exact: bool) -> TestVm {
    ran_after(vm, exact, 2)
}

/// With blocks translated after so many runs.
fn ran_after(mut vm: TestVm, exact: bool, threshold: u32) -> TestVm {
    let options = TranslatorOptions {
        threshold,
        code_bytes: 1 << 20,
        exact_flags: exact,
        same_blocks: exact,
        prove: true,
        ..TranslatorOptions::default()
    };
    vm.cpu.set_translator(Some(options)).expect("a translator");
    vm.cpu.regs[gpr::RSP] = STACK_TOP - 64;
    vm.cpu.budget.left = 1 << 20;
    loop {
        match vm.cpu.run() {
            Stop::Trap(Trap::Syscall | Trap::SoftInt { vector: 0x80 | 3, .. }) => break,
            Stop::Trap(Trap::Priv { len, .. }) => vm.cpu.rip += u64::from(len),
            other => panic!("{other:?}"),
        }
    }
    vm
}

fn translator(vm: &TestVm) -> &Translator {
    vm.cpu.code.translator.as_ref().expect("a translator")
}

/// Code as the last run has left it, links and all, with bytes of it changed. Gives where instructions and sites begin that can be reached.
fn with_change(t: &Translator, id: usize, at: u64, bytes: &[u8]) -> Result<Vec<u64>, Refused> {
    let (block, source) = (&t.blocks[id], t.blocks[id].source.as_ref().expect("kept"));
    let mut pieces = source
        .pieces
        .map(|(base, len)| (base, t.memory.code(base, len).expect("code").to_vec()));
    for (base, code) in &mut pieces {
        if let Some(place) = at
            .checked_sub(*base)
            .and_then(|n| code.get_mut(n as usize..n as usize + bytes.len()))
        {
            place.copy_from_slice(bytes);
        }
    }
    let outside = |to: u64| {
        let near = t.blocks.iter().find(|b| b.near == to && b.mode == block.mode);
        let far = t.blocks.iter().any(|b| b.far == to && b.mode == block.mode);
        match near {
            Some(b) if b.mfn == block.mfn => Some(Outside::Same),
            Some(b) => Some(Outside::Near(b.key)),
            None if far => Some(Outside::Far),
            None => rests(t).find_map(|(body, b)| (body == to).then(|| b.rest_of(block))?.map(Outside::Rest)),
        }
    };
    let [hot, cold] = &pieces;
    let subject = t.subject(id, block, source, [(hot.0, &hot.1), (cold.0, &cold.1)]);
    let proof = walked(&subject, &outside)?;
    Ok(proof.seen.keys().copied().collect())
}

/// The instructions of the hot part of a block.
fn hot(t: &Translator, id: usize) -> Vec<Instruction> {
    let source = t.blocks[id].source.as_ref().expect("kept");
    let (base, len) = source.pieces[0];
    let code = t.memory.code(base, len).expect("code");
    Decoder::with_ip(64, code, base, DecoderOptions::NONE)
        .into_iter()
        .collect()
}

fn live(t: &Translator) -> impl Iterator<Item = usize> + '_ {
    (0..t.blocks.len()).filter(|&id| t.blocks[id].lives())
}

/// Bytes that do nothing, in the place of an instruction.
fn nothing(len: usize) -> Vec<u8> {
    vec![0x90; len]
}

#[test]
fn all_code_of_a_program_is_proved_as_it_was_made_and_as_it_was_linked() {
    for exact in [false, true] {
        for (n, vm) in translated(exact).into_iter().enumerate() {
            let all = vm.cpu.prove_code().unwrap_or_else(|refused| panic!("{refused}"));
            let (blocks, accesses) = if n < 2 { (6, 30) } else { (3, 10) };
            assert!(all.blocks >= blocks && all.accesses > accesses, "{all:?}");
        }
    }
}

/// Whether instruction `n` is one whose removal must be found out: what finds or compares an entry, and the jump to the stub.
fn guards(insns: &[Instruction], n: usize) -> bool {
    let i = &insns[n];
    let before = |k: usize| n.checked_sub(k).map(|n| &insns[n]);
    let by_number = i.memory_base() == Register::RSP && i.memory_index() == Register::R10;
    let of_page = i.memory_index_scale() == 8 && i.memory_displacement64() as i64 == PAGES_AT;
    let number = i.code() == Code::VEX_Pext_r64_r64_rm64 && i.op0_register() == Register::R10;
    // shr rcx,12 or test rcx, and jne.
    let on_rcx =
        before(1).is_some_and(|i| i.op0_register() == Register::RCX && i.mnemonic() != Mnemonic::Mov);
    let jne = i.code() == Code::Jne_rel32_64 && on_rcx;
    // pext rcx,rcx with the bits of the page, jrcxz, and jmp. Whether a call's target is an address is no matter of what is reached.
    let canonical = offset_of!(Frame, canonical_mask) as u64;
    let compared = before(2).is_some_and(|i| {
        i.code() == Code::VEX_Pext_r64_r64_rm64
            && i.op1_register() == Register::RCX
            && (i.memory_base(), i.memory_displacement64()) != (Register::RSP, canonical)
    });
    let jmp = i.code() == Code::Jmp_rel32_64
        && compared
        && before(1).is_some_and(|i| i.code() == Code::Jrcxz_rel8_64);
    i.code() == Code::Mov_r64_rm64 && by_number && !of_page || number || jne || jmp
}

#[test]
fn a_check_that_is_left_out_is_found_out() {
    for exact in [false, true] {
        for (number, vm) in translated(exact).into_iter().enumerate() {
            let (t, mut tried) = (translator(&vm), 0);
            for id in live(t) {
                let insns = hot(t, id);
                for (n, i) in insns.iter().enumerate().filter(|&(n, _)| guards(&insns, n)) {
                    let refused = with_change(t, id, i.ip(), &nothing(i.len()));
                    assert!(
                        refused.is_err(),
                        "block {id}: {:x} {i} is not missed, {n}",
                        i.ip()
                    );
                    tried += 1;
                }
            }
            assert!(tried > if number < 2 { 60 } else { 30 }, "{tried}");
        }
    }
}

/// All places of a block's code where a change is tried: instructions of both pieces that can be reached.
fn all(t: &Translator, id: usize) -> Vec<Instruction> {
    let source = t.blocks[id].source.as_ref().expect("kept");
    let (base, len) = source.pieces[1];
    let code = t.memory.code(base, len).expect("code");
    let (mut found, mut at) = (hot(t, id), 0);
    while at < code.len() {
        let i = Decoder::with_ip(64, &code[at..], base + at as u64, DecoderOptions::NONE).decode();
        at += i.len()
            + if i.flow_control() == FlowControl::IndirectCall {
                SITE_BYTES
            } else {
                0
            };
        found.push(i);
    }
    let reached = with_change(t, id, 0, &[]).expect("code that is proved");
    found.retain(|i| reached.contains(&i.ip()));
    found
}

/// Tries a change of each instruction that `change` gives other bytes for; all must be refused.
fn all_refused(what: &str, least: usize, change: impl Fn(&Instruction) -> Option<Vec<u8>>) {
    refused_in(&translated(false), what, least, change);
}

fn refused_in(vms: &[TestVm], what: &str, least: usize, change: impl Fn(&Instruction) -> Option<Vec<u8>>) {
    let mut tried = 0;
    for t in vms.iter().map(translator) {
        for (id, i) in live(t).flat_map(|id| all(t, id).into_iter().map(move |i| (id, i))) {
            let Some(bytes) = change(&i) else { continue };
            assert_eq!(bytes.len(), i.len());
            let refused = with_change(t, id, i.ip(), &bytes);
            assert!(
                refused.is_err(),
                "{what}: block {id}: {:x} {i} is not missed",
                i.ip()
            );
            tried += 1;
        }
    }
    assert!(tried >= least || vms.is_empty(), "{what}: only {tried}");
}

/// The instruction with one of its fields changed, if that takes as many bytes.
fn changed(i: &Instruction, change: impl FnOnce(&mut Instruction)) -> Option<Vec<u8>> {
    let mut other = *i;
    change(&mut other);
    let mut encoder = Encoder::new(64);
    encoder.encode(&other, i.ip()).ok()?;
    Some(encoder.take_buffer()).filter(|bytes| bytes.len() == i.len())
}

#[test]
fn an_access_beside_the_bytes_that_were_checked_is_found_out() {
    for by in [-64i64, 64, 120] {
        all_refused("beside", 3, |i| {
            let of_guest = i.memory_base() != Register::RSP && i.memory_index() == Register::R10;
            let accesses = i.mnemonic() != Mnemonic::Lea;
            (of_guest && accesses).then_some(())?;
            changed(i, |i| {
                let disp = (i.memory_displacement64() as i64).wrapping_add(by);
                i.set_memory_displacement64(disp as u64);
                i.set_memory_displ_size(1);
            })
        });
    }
}

#[test]
fn a_check_of_fewer_bytes_than_are_accessed_is_found_out() {
    all_refused("fewer", 20, |i| {
        let sum = i.code() == Code::Lea_r64_m && i.op0_register() == Register::RCX;
        let on_tag = sum && i.memory_base() == Register::RCX && i.memory_index() == Register::R11;
        let last = i.memory_displacement64();
        // Of one operand: groups that must be aligned have more than they need.
        (on_tag && matches!(last, 3 | 7)).then(|| {
            changed(i, |i| {
                i.set_memory_displacement64(last - 1);
                i.set_memory_displ_size(1);
            })
        })?
    });
}

#[test]
fn a_store_behind_a_check_for_loads_is_found_out() {
    let (reads, writes) = (
        TLB_AT + offset_of!(TlbEntry, neg_r) as i64,
        TLB_AT + offset_of!(TlbEntry, neg_w) as i64,
    );
    all_refused("loads", 8, |i| {
        let tag = i.memory_base() == Register::RSP && i.memory_displacement64() as i64 == writes;
        tag.then_some(())?;
        changed(i, |i| i.set_memory_displacement64(reads as u64))
    });
}

#[test]
fn an_operand_by_what_was_kept_of_another_check_is_found_out() {
    let first = offset_of!(Frame, deltas) as u64;
    let kept = |i: &Instruction| {
        let of_frame = i.memory_base() == Register::RSP && i.memory_index() == Register::None;
        let n = i.memory_displacement64().wrapping_sub(first) / 8;
        let moves = matches!(i.code(), Code::Mov_r64_rm64 | Code::Mov_rm64_r64);
        (of_frame && moves && n < DELTAS as u64).then_some(n)
    };
    all_refused("another slot", 2, |i| {
        let other = (kept(i)? + 1) % DELTAS as u64;
        changed(i, |i| i.set_memory_displacement64(first + 8 * other))
    });
    all_refused("nothing kept", 2, |i| kept(i).map(|_| nothing(i.len())));
}

#[test]
fn a_jump_out_of_the_code_is_found_out() {
    for by in [-0x10_0000i64, 0x10_0000, 0x4000_0000] {
        all_refused("jumps", 40, |i| {
            let near = i.is_jcc_near() || i.is_jmp_near();
            near.then(|| {
                changed(i, |i| {
                    i.set_near_branch64(i.near_branch64().wrapping_add(by as u64))
                })
            })?
        });
    }
}

#[test]
fn jumps_and_calls_by_other_places_of_the_frame_are_found_out() {
    let callout = offset_of!(Frame, callout) as u64;
    for other in [
        offset_of!(Frame, return_mask),
        offset_of!(Frame, page),
        offset_of!(Frame, gs),
    ] {
        all_refused("the frame", 30, |i| {
            let call = i.flow_control() == FlowControl::IndirectCall && i.memory_displacement64() == callout;
            call.then(|| changed(i, |i| i.set_memory_displacement64(other as u64)))?
        });
    }
}

#[test]
fn instructions_that_are_not_the_guests_are_found_out() {
    let bad: [(&str, &[u8]); 12] = [
        ("syscall", &[0x0f, 0x05]),
        ("std", &[0xfd]),
        ("popfq", &[0x9d]),
        ("push rax", &[0x50]),
        ("ret", &[0xc3]),
        ("int3", &[0xcc]),
        ("mov rax, rsp", &[0x48, 0x89, 0xe0]),
        ("mov rsp, rax", &[0x48, 0x89, 0xc4]),
        ("mov rax, [rbx]", &[0x48, 0x8b, 0x03]),
        ("mov [rbx], al", &[0x88, 0x03]),
        ("sgdt [rbx]", &[0x0f, 0x01, 0x03]),
        ("wrfsbase rax", &[0xf3, 0x48, 0x0f, 0xae, 0xd0]),
    ];
    for (name, bytes) in bad {
        all_refused(name, 20, |i| {
            let room = i.len() >= bytes.len() && i.flow_control() == FlowControl::Next;
            // In the place of a jump's way round it would never be executed.
            room.then(|| [bytes, &nothing(i.len() - bytes.len())].concat())
        });
    }
}

#[test]
fn a_site_that_leads_elsewhere_is_found_out() {
    for vm in translated(false) {
        let (t, mut tried) = (translator(&vm), 0);
        for id in live(t) {
            for i in all(t, id) {
                if i.flow_control() != FlowControl::IndirectCall
                    || i.memory_displacement64() != offset_of!(Frame, callout) as u64
                {
                    continue;
                }
                let at = i.next_ip();
                // Kind, instructions left, length, block.
                let source = t.blocks[id].source.as_ref().expect("kept");
                let (base, len) = source.pieces[1];
                let site =
                    t.memory.code(base, len).expect("code")[(at - base) as usize..][..SITE_BYTES].to_vec();
                assert!(
                    with_change(t, id, at, &[0xee]).is_err(),
                    "a kind that there is not"
                );
                assert!(
                    with_change(t, id, at + 8, &[site[8] ^ 1]).is_err(),
                    "another block"
                );
                if site[0] == Kind::Miss as u8 || site[0] == Kind::Exec as u8 {
                    assert!(
                        with_change(t, id, at + 2, &[site[2] ^ 1]).is_err(),
                        "another instruction"
                    );
                    assert!(
                        with_change(t, id, at + 3, &[site[3] ^ 1]).is_err(),
                        "a longer instruction"
                    );
                    let goes_on = site[1] & (GROUP | BRANCH) == 0;
                    assert!(
                        !goes_on || with_change(t, id, at + 16, &[0, 0, 0, 0x40]).is_err(),
                        "on to nowhere"
                    );
                }
                if site[0] == Kind::Miss as u8 {
                    assert!(
                        with_change(t, id, at + 12, &[0, 0, 0, 0x40]).is_err(),
                        "again nowhere"
                    );
                    assert!(
                        with_change(t, id, at + 7, &[site[7] ^ 4]).is_err(),
                        "another operand"
                    );
                }
                if site[0] == Kind::Exec as u8 {
                    assert!(
                        with_change(t, id, at + 12, &[0xff, 0xff, 0xff, 0]).is_err(),
                        "a handler that there is not"
                    );
                }
                tried += 1;
            }
        }
        assert!(tried > 25, "{tried}");
    }
}

/// The x87 instructions of a block's code, and what looks whether their registers are the guest's.
fn looks_at_x87(i: &Instruction) -> bool {
    i.memory_base() == Register::RSP && i.memory_displacement64() == offset_of!(Frame, x87_away) as u64
}

#[test]
fn x87_instructions_without_the_look_whether_the_registers_are_the_guests_are_found_out() {
    let vms = translated(false);
    let mut tried = 0;
    for (t, id) in vms
        .iter()
        .map(translator)
        .flat_map(|t| live(t).map(move |id| (t, id)))
    {
        let insns = hot(t, id);
        for pair in insns.windows(2).filter(|pair| looks_at_x87(&pair[0])) {
            for i in pair {
                assert!(
                    with_change(t, id, i.ip(), &nothing(i.len())).is_err(),
                    "{i} is not missed"
                );
            }
            let other = changed(&pair[0], |i| {
                i.set_memory_displacement64(offset_of!(Frame, ymm_away) as u64)
            });
            let other = other.expect("as long");
            assert!(with_change(t, id, pair[0].ip(), &other).is_err(), "another look");
            tried += 1;
        }
        // fld1, where nobody has looked.
        for i in insns.iter().filter(|i| !t.blocks[id].x87 && i.len() >= 2) {
            let bytes = [&[0xd9, 0xe8], &nothing(i.len() - 2)[..]].concat();
            assert!(with_change(t, id, i.ip(), &bytes).is_err(), "{:x} {i}", i.ip());
        }
    }
    assert!(tried > 0 || vms.is_empty());
}

#[test]
fn an_x87_control_word_that_may_unmask_exceptions_is_found_out() {
    let control = offset_of!(Frame, control) as u64;
    let elsewhere = offset_of!(Frame, kept) as u64;
    all_refused("another word", 1, |i| {
        (i.code() == Code::Fldcw_m2byte).then(|| changed(i, |i| i.set_memory_displacement64(elsewhere)))?
    });
    all_refused("a store of something else", 1, |i| {
        let stores = i.code() == Code::Mov_rm64_r64 && i.memory_displacement64() == control;
        stores.then(|| changed(i, |i| i.set_op1_register(Register::RAX)))?
    });
    all_refused("fewer masks", 1, |i| {
        let masks = i.code() == Code::Lea_r64_m
            && i.memory_index() == Register::None
            && i.memory_displacement64() == 0x7f;
        masks.then(|| changed(i, |i| i.set_memory_displacement64(0x5f)))?
    });
    all_refused("bits that are masks", 1, |i| {
        (i.code() == Code::VEX_Pdep_r64_r64_rm64).then(|| nothing(i.len()))
    });
}

#[test]
fn x87_instructions_that_are_left_to_their_handlers_are_found_out() {
    let bad: [(&str, &[u8]); 9] = [
        ("fninit", &[0xdb, 0xe3]),
        ("fsin", &[0xd9, 0xfe]),
        ("fldcw [rbx]", &[0xd9, 0x2b]),
        ("fnstenv [rbx]", &[0xd9, 0x33]),
        ("fldenv [rbx]", &[0xd9, 0x23]),
        ("fnsave [rbx]", &[0xdd, 0x33]),
        ("frstor [rbx]", &[0xdd, 0x23]),
        ("fstp qword ptr [rbx]", &[0xdd, 0x1b]),
        ("emms", &[0x0f, 0x77]),
    ];
    for (name, bytes) in bad {
        all_refused(name, 20, |i| {
            let room = i.len() >= bytes.len() && i.flow_control() == FlowControl::Next;
            room.then(|| [bytes, &nothing(i.len() - bytes.len())].concat())
        });
    }
}
