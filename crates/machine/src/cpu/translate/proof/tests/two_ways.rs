// SPDX-License-Identifier: Apache-2.0
//! Code of blocks with a second way is proved, and broken code of them is refused.

use super::*;

/// A loop whose block has two ways.
fn two_ways() -> Vec<u8> {
    let made = (|| -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let (mut top, mut other, mut end) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(rsi, DATA)?;
        a.mov(rbp, 60u64)?;
        a.set_label(&mut top)?;
        a.test(ebp, 1)?;
        a.je(other)?;
        a.add(rbx, qword_ptr(rsi + 8))?;
        a.dec(rbp)?;
        a.jne(top)?;
        a.jmp(end)?;
        a.set_label(&mut other)?;
        a.mov(rdx, qword_ptr(rsi + 24))?;
        a.add(rdx, qword_ptr(rsi + 32))?;
        a.cld()?;
        a.mov(qword_ptr(rdx + rsi), rdx)?;
        a.dec(rbp)?;
        a.jne(top)?;
        a.set_label(&mut end)?;
        a.syscall()?;
        a.assemble(CODE)
    })();
    made.expect("code that can be assembled")
}

/// The program, with its loop's block.
fn vms() -> Vec<TestVm> {
    match translator_available() {
        Ok(()) => vec![ran_after(TestVm::new(&two_ways()), false, 8)],
        Err(_) => Vec::new(),
    }
}

fn takes_from_slice(i: &Instruction) -> bool {
    i.code() == Code::Sub_rm64_imm8 && i.op0_register() == Register::R15
}

#[test]
fn a_block_with_two_ways_is_proved_and_looks_at_the_slice_for_both() {
    for vm in vms() {
        let all = vm.cpu.prove_code().unwrap_or_else(|refused| panic!("{refused}"));
        assert!(all.accesses > 4, "{all:?}");
        let t = translator(&vm);
        let two: Vec<_> = live(t)
            .filter(|&id| t.blocks[id].source.as_ref().is_some_and(|s| !s.forked.is_empty()))
            .collect();
        assert_eq!(two.len(), 1);
        let ways = t.blocks[two[0]].source.as_ref().map(|s| s.forked.len());
        assert_eq!(ways, Some(2));
        let looks = hot(t, two[0]).iter().filter(|i| takes_from_slice(i)).count();
        assert!(looks > 1, "{looks}");
    }
}

#[test]
fn checks_that_are_left_out_of_either_way_are_found_out() {
    for vm in vms() {
        let (t, mut tried) = (translator(&vm), 0);
        for id in live(t) {
            let insns = hot(t, id);
            for (_, i) in insns.iter().enumerate().filter(|&(n, _)| guards(&insns, n)) {
                assert!(
                    with_change(t, id, i.ip(), &nothing(i.len())).is_err(),
                    "{i} is not missed"
                );
                tried += 1;
            }
        }
        assert!(tried > 8, "{tried}");
    }
}

#[test]
fn a_way_that_the_slice_may_not_have_is_found_out() {
    let vms = vms();
    refused_in(&vms, "no look at the slice", 2, |i| {
        (i.code() == Code::Jl_rel32_64).then(|| nothing(i.len()))
    });
    for by in [-1, 1] {
        refused_in(&vms, "another number of instructions", 2, |i| {
            takes_from_slice(i).then_some(())?;
            changed(i, |i| i.set_immediate8to64(i.immediate8to64() + by))
        });
    }
    refused_in(&vms, "nothing taken", 2, |i| {
        takes_from_slice(i).then(|| nothing(i.len()))
    });
}

#[test]
fn a_site_of_the_other_way_is_found_out() {
    for vm in vms() {
        let (t, mut tried) = (translator(&vm), 0);
        for id in live(t) {
            let source = t.blocks[id].source.as_ref().expect("kept");
            let (base, len) = source.pieces[1];
            let calls = all(t, id).into_iter();
            for i in calls.filter(|i| i.flow_control() == FlowControl::IndirectCall) {
                let at = (i.next_ip() - base) as usize;
                let site = t.memory.code(base, len).expect("code")[at..][..SITE_BYTES].to_vec();
                if site[0] == Kind::Miss as u8 || site[0] == Kind::Exec as u8 {
                    for by in [1, 2, 4, 8, 16] {
                        let other = [site[2] ^ by];
                        assert!(
                            with_change(t, id, i.next_ip() + 2, &other).is_err(),
                            "another instruction"
                        );
                        tried += 1;
                    }
                }
            }
        }
        assert!(tried > 20, "{tried}");
    }
}
