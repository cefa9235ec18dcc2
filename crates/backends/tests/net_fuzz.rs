// SPDX-License-Identifier: Apache-2.0
//! Random slots and random frames to the network back end: DOMZERO_FUZZ_SECONDS of each.

mod dice;
mod granter;
mod net_front;

use dice::{fuzz_seconds, Dice};
use domzero_backends::net::{fill_checksum, has_right_checksum, split, Agreed, Multicast};
use domzero_machine::abi::netif;
use domzero_machine::abi::ring::{REQ_PROD, RSP_EVENT, RSP_PROD};
use granter::{PERMIT, READ_ONLY};
use net_front::*;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

/// A frame that is TCP, or was before some of its bytes were changed.
fn damaged(dice: &mut Dice) -> Vec<u8> {
    let mut frame = tcp(dice.below(9000) as usize);
    for _ in 0..dice.below(4) {
        let at = dice.below(60.min(frame.len() as u64)) as usize;
        frame[at] = dice.roll() as u8;
    }
    if dice.once_in(4) {
        frame.truncate(dice.below(frame.len() as u64) as usize);
    }
    frame
}

fn agreed_by_chance(dice: &mut Dice) -> Agreed {
    Agreed {
        scatter: dice.once_in(2),
        gso_v4: dice.once_in(2),
        keeps_mac: dice.once_in(4),
        mtu: [68, 1500, 65516][dice.below(3) as usize],
        multicast: Arc::new(Multicast::new(dice.once_in(2))),
        ..agreed()
    }
}

#[test]
fn random_slots_and_frames_harm_nobody() {
    let start = Instant::now();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut sent, mut broken, mut received) = (0u64, 0u64, 0u64);
    while start.elapsed() < fuzz_seconds() {
        let front = Front::new();
        let agreed = agreed_by_chance(&mut dice);
        let mut queue = front.connect(agreed);
        let (mut link, other) = wire();
        let pages: Vec<_> = (0..4).map(|_| front.page()).collect();
        let mut grefs: Vec<_> = pages.iter().map(|(gref, _)| *gref).collect();
        grefs.extend([
            front.grant(pages[0].1, PERMIT | READ_ONLY),
            front.grant(pages[1].1, PERMIT | 9 << 16),
            7777,
        ]);
        for round in 0..16 {
            for (_, mfn) in &pages {
                front.write(
                    *mfn,
                    0,
                    &damaged(&mut dice)[..]
                        .iter()
                        .copied()
                        .take(4096)
                        .collect::<Vec<_>>(),
                );
            }
            for _ in 0..dice.below(12) {
                let gref = grefs[dice.below(grefs.len() as u64) as usize];
                let mut flags = netif::TXF_CSUM_BLANK * dice.below(2) as u16;
                flags |= netif::TXF_MORE_DATA * u16::from(dice.once_in(5));
                flags |= netif::TXF_EXTRA_INFO * u16::from(dice.once_in(9));
                let size = if dice.once_in(30) {
                    dice.roll()
                } else {
                    dice.below(2000)
                } as u16;
                let offset = if dice.once_in(30) {
                    dice.roll()
                } else {
                    dice.below(2000)
                } as u16;
                front.put(TX, &slot(gref, offset, flags, round, size));
                if flags & netif::TXF_EXTRA_INFO != 0 && !dice.once_in(8) {
                    let kinds = [2, 2, 2, 4, 4, 4, 4, 7][dice.below(8) as usize];
                    let kind = dice.below(kinds) as u8;
                    front.put(
                        TX,
                        &extra(
                            kind.max(1),
                            u8::from(dice.once_in(9)),
                            1460,
                            1 + dice.below(2) as u8,
                        ),
                    );
                }
            }
            for _ in 0..dice.below(8) {
                let mut entry = vec![1, 0, 0, 0];
                entry.extend(grefs[dice.below(grefs.len() as u64) as usize].to_le_bytes());
                front.put(RX, &entry);
            }
            front.set_head(TX, RSP_EVENT, dice.roll() as u32);
            if dice.once_in(40) {
                front.set_head(dice.below(2) as usize, REQ_PROD, dice.roll() as u32);
            }
            let before = front.head(TX, RSP_PROD);
            match queue.transmit(&mut link) {
                Ok(_) => sent += u64::from(front.head(TX, RSP_PROD).wrapping_sub(before)),
                Err(_) => {
                    broken += 1;
                    break;
                }
            }
            match queue.receive(&damaged(&mut dice)) {
                Ok(given) => received += u64::from(given),
                Err(_) => break,
            }
            queue.push_received();
        }
        drop((queue, other));
        assert_eq!(front.grants.audit(), Vec::<String>::new());
    }
    // It is of no use when all is refused at once.
    assert!(
        sent > 100 && broken > 0 && received > 100,
        "{sent} {broken} {received}"
    );
}

#[test]
fn random_frames_are_cut_and_summed_in_bounds() {
    let start = Instant::now();
    let mut dice = Dice(0x1234_5678_9abc_def1);
    let mut cut = 0;
    while start.elapsed() < fuzz_seconds() {
        let mut frame = damaged(&mut dice);
        if fill_checksum(&mut frame) {
            assert!(has_right_checksum(&frame));
        }
        let size = dice.roll() as u16;
        let whole = frame.len();
        split(&frame, size, |part| {
            assert!(part.len() <= whole);
            cut += 1;
        });
    }
    assert!(cut > 100);
}

#[test]
fn random_bytes_on_a_wire_are_frames_or_end_it() {
    let start = Instant::now();
    let mut dice = Dice(0xfeed_beef_dead_cafe);
    while start.elapsed() < fuzz_seconds() {
        let (mut link, mut other) = wire();
        for _ in 0..20 {
            let mut bytes = (dice.below(200) as u32).to_be_bytes().to_vec();
            bytes.extend((0..dice.below(200)).map(|_| if dice.once_in(3) { dice.roll() as u8 } else { 0 }));
            if other.write_all(&bytes).is_err() {
                break;
            }
            link.fill();
            while let Some(frame) = link.peek() {
                assert!(frame.len() <= 0xffff);
                link.next();
            }
        }
        drop(other);
        link.fill();
        assert!(link.is_lost() && link.peek().is_none());
    }
}
