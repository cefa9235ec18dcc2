// SPDX-License-Identifier: Apache-2.0
//! Jumps to the rest of a block that are not the ones that may lead there.

use super::{all, changed, live, translated, translator, with_change};
use crate::cpu::translate::callout::{Kind, SITE_BYTES};
use crate::cpu::translate::{NativeBlock, Translator, CALL_BYTES};
use iced_x86::Instruction;

/// Rests of blocks, with their bodies.
pub(super) fn rests(t: &Translator) -> impl Iterator<Item = (u64, &NativeBlock)> {
    let blocks = t.blocks.iter().filter(|b| b.level > 0);
    blocks.filter_map(|b| Some((b.source.as_ref()?.body, b)))
}

/// The bodies of the rests of a block.
fn rests_of(t: &Translator, id: usize) -> Vec<u64> {
    let own = rests(t).filter(|(_, b)| b.rest_of(&t.blocks[id]).is_some());
    own.map(|(body, _)| body).collect()
}

fn bent(i: &Instruction, to: u64) -> Vec<u8> {
    changed(i, |i| i.set_near_branch64(to)).expect("a jump as long")
}

#[test]
fn a_jump_to_the_rest_of_a_block_from_elsewhere_is_found_out() {
    let (mut tried, mut led) = (0, 0);
    let vms = translated(false);
    for t in vms.iter().map(translator) {
        let bodies: Vec<u64> = rests(t).map(|(body, _)| body).collect();
        for id in live(t) {
            let own = rests_of(t, id);
            let jumps = all(t, id);
            for i in jumps.iter().filter(|i| i.is_jcc_near() || i.is_jmp_near()) {
                let leads = own.contains(&i.near_branch64());
                led += u32::from(leads);
                // The one that is there already; others are those of other instructions, or of other blocks.
                for &body in bodies.iter().filter(|&&b| b != i.near_branch64()) {
                    // A stub of a check of the same instruction may lead there, too.
                    let left = |at: u64| t.memory.code(at + 5 + CALL_BYTES, SITE_BYTES).map(|s| s[2]);
                    let miss = t
                        .memory
                        .code(i.ip() + 5 + CALL_BYTES, 1)
                        .is_some_and(|s| s[0] == Kind::Miss as u8);
                    let of = rests(t)
                        .find(|&(b, _)| b == body)
                        .and_then(|(_, b)| b.rest_of(&t.blocks[id]));
                    if i.is_jmp_near() && miss && left(i.ip()).map(usize::from) == of {
                        continue;
                    }
                    let refused = with_change(t, id, i.ip(), &bent(i, body));
                    assert!(
                        refused.is_err(),
                        "block {id}: {:x} {i} to {body:x} is not missed",
                        i.ip()
                    );
                    tried += 1;
                }
                if leads {
                    let past = bent(i, i.near_branch64() + 1);
                    assert!(with_change(t, id, i.ip(), &past).is_err(), "behind its beginning");
                }
            }
        }
    }
    assert!(vms.is_empty() || tried > 100 && led > 1, "{tried} {led}");
}

#[test]
fn a_jump_to_the_rest_of_a_block_before_a_site_of_something_else_is_found_out() {
    let mut tried = 0;
    let vms = translated(false);
    for t in vms.iter().map(translator) {
        for id in live(t) {
            let own = rests_of(t, id);
            let jumps = all(t, id);
            for i in jumps
                .iter()
                .filter(|i| i.is_jmp_near() && own.contains(&i.near_branch64()))
            {
                let at = i.next_ip() + CALL_BYTES;
                let site = t.memory.code(at, SITE_BYTES).expect("a site").to_vec();
                for (what, n, byte) in [
                    ("another kind", 0, Kind::Exec as u8),
                    ("another number of instructions", 2, site[2] ^ 1),
                    ("another place", 4, site[4] ^ 1),
                    ("another block", 8, site[8] ^ 1),
                ] {
                    assert!(with_change(t, id, at + n, &[byte]).is_err(), "{what}");
                    tried += 1;
                }
            }
        }
    }
    assert!(vms.is_empty() || tried >= 8, "{tried}");
}
