// SPDX-License-Identifier: Apache-2.0
//! Random requests to the block back end, and random damage to images: DOMZERO_FUZZ_SECONDS of each.

mod dice;
mod front;
mod granter;

use dice::{fuzz_seconds, Dice};
use domzero_backends::block::{Agreed, Disk, Next, Qcow2Disk};
use domzero_machine::abi::blkif::{self, X86_32, X86_64};
use domzero_machine::abi::ring::{REQ_PROD, RSP_EVENT, RSP_PROD};
use front::{agreed, packed, qemu_img, raw, Front};
use granter::{PERMIT, READ_ONLY};

#[test]
fn random_requests_harm_nobody() {
    let start = std::time::Instant::now();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    while start.elapsed() < fuzz_seconds() {
        let layout = if dice.once_in(2) { X86_64 } else { X86_32 };
        let front = Front::new(layout, 1 << dice.below(3));
        let (disk, file) = raw(256);
        let agreed = Agreed {
            layout,
            persistent: dice.once_in(2),
            sector_bytes: if dice.once_in(4) { 4096 } else { 512 },
            writable: !dice.once_in(4),
        };
        let mut queue = front.connect(disk, agreed);
        let pages: Vec<_> = (0..4).map(|_| front.page()).collect();
        let read_only = front.grant(pages[0].1, PERMIT | READ_ONLY);
        let other = front.grant(pages[1].1, PERMIT | 9 << 16);
        'ring: for _ in 0..64 {
            for _ in 0..dice.below(40) {
                let mut entry = vec![0; layout.entry];
                entry.iter_mut().for_each(|byte| *byte = dice.roll() as u8);
                // Mostly plausible, or nothing gets far.
                entry[0] = dice.below(8) as u8;
                if !dice.once_in(8) {
                    entry[1] = dice.below(13) as u8;
                    let sector = if dice.once_in(4) {
                        dice.roll()
                    } else {
                        dice.below(260)
                    };
                    entry[layout.sector_number..layout.sector_number + 8]
                        .copy_from_slice(&sector.to_le_bytes());
                    for n in 0..11 {
                        let gref = match dice.below(8) {
                            0 => read_only,
                            1 => other,
                            2 => dice.roll() as u32,
                            n => pages[n as usize % pages.len()].0,
                        };
                        let at = layout.seg + n * 8;
                        entry[at..at + 8].copy_from_slice(&packed((
                            gref,
                            dice.below(9) as u8,
                            dice.below(9) as u8,
                        )));
                    }
                }
                front.send(&entry);
            }
            if dice.once_in(50) {
                front.set_head(REQ_PROD, dice.roll() as u32);
            }
            front.set_head(RSP_EVENT, dice.roll() as u32);
            while match queue.serve() {
                Ok(served) => served.next == Next::Go,
                Err(_) => break 'ring,
            } {}
        }
        drop(queue);
        assert_eq!(file.metadata().unwrap().len(), 256 * 512);
        assert_eq!(front.grants.audit(), Vec::<String>::new());
    }
}

#[test]
fn a_damaged_qcow2_image_is_an_error_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    let name = path.to_str().unwrap();
    if !qemu_img(&["create", "-q", "-f", "qcow2", name, "8M"]) {
        return;
    }
    let good = std::fs::read(&path).unwrap();
    let front = Front::new(X86_64, 1);
    let (gref, _) = front.page();
    let start = std::time::Instant::now();
    let mut dice = Dice(77);
    let mut opened = 0;
    while start.elapsed() < fuzz_seconds() {
        let mut image = good.clone();
        for _ in 0..=dice.below(3) {
            // The header, and the entries of the tables behind it.
            let at = if dice.once_in(3) {
                dice.below(image.len() as u64)
            } else {
                dice.below(112)
            } as usize;
            image[at] = dice.roll() as u8;
        }
        std::fs::write(&path, &image).unwrap();
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let Ok(disk) = Qcow2Disk::open(vec![file], false, true) else {
            continue;
        };
        opened += 1;
        let sectors = disk.sectors();
        front.set_head(REQ_PROD, 0);
        front.set_head(RSP_PROD, 0);
        front.req_prod.set(0);
        let mut queue = front.connect(disk, agreed(X86_64));
        for sector in [0, sectors / 2, sectors.saturating_sub(8)] {
            for operation in [blkif::OP_READ, blkif::OP_WRITE, blkif::OP_FLUSH_DISKCACHE] {
                let segments: &[_] = if operation == blkif::OP_FLUSH_DISKCACHE {
                    &[]
                } else {
                    &[(gref, 0, 7)]
                };
                front.ask(&mut queue, &front.request(operation, 1, sector, segments));
            }
        }
    }
    assert!(opened > 0);
}
