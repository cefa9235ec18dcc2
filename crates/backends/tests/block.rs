// SPDX-License-Identifier: Apache-2.0
//! The block back end against a front end that is driven by hand.

mod front;
mod granter;

use domzero_backends::block::{
    serve_all, start_thread, Agreed, Counts, Disk, Next, Qcow2Disk, Queue, RawDisk, MAX_INDIRECT_SEGMENTS,
};
use domzero_backends::RingBroken;
use domzero_machine::abi::blkif::{self, X86_32, X86_64};
use domzero_machine::abi::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD};
use front::{agreed, contents, file, qemu_img, raw, Front, Told, SOON};
use granter::{PERMIT, READ_ONLY};
use std::fs::File;
use std::io::Seek;
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::Arc;

#[test]
fn sectors_are_read_and_written_in_both_layouts() {
    for layout in [X86_64, X86_32] {
        let front = Front::new(layout, 1);
        let (disk, mut file) = raw(64);
        let mut queue = front.connect(disk, agreed(layout));
        let (gref, mfn) = front.page();
        let read = front.request(blkif::OP_READ, 0xdead_beef_0123, 5, &[(gref, 2, 4)]);
        assert_eq!(front.ask(&mut queue, &read), blkif::RSP_OKAY);
        assert_eq!(
            front.response(0),
            (0xdead_beef_0123, blkif::OP_READ, blkif::RSP_OKAY)
        );
        let page = front.read(mfn, 0, 4096);
        let expected: Vec<u8> = [0, 0, 5, 6, 7, 0, 0, 0].iter().flat_map(|n| [*n; 512]).collect();
        assert_eq!(page, expected);

        let (other, second) = front.page();
        front.write(second, 0, &[0xaa; 4096]);
        let write = front.request(
            blkif::OP_WRITE,
            2,
            60,
            &[(other, 0, 0), (gref, 3, 3), (other, 7, 7)],
        );
        assert_eq!(front.ask(&mut queue, &write), blkif::RSP_OKAY);
        let bytes = contents(&mut file);
        assert_eq!(bytes.len(), 64 * 512);
        assert_eq!([60, 61, 62, 63].map(|n| bytes[n * 512]), [0xaa, 6, 0xaa, 63]);
        drop(queue);
        assert_eq!(front.grants.audit(), Vec::<String>::new());
    }
}

#[test]
fn a_ring_of_several_pages_goes_around_and_its_entries_cross_pages() {
    for (layout, pages, entries) in [
        (X86_64, 1, 32),
        (X86_64, 4, 128),
        (X86_32, 2, 64),
        (X86_32, 1, 32),
    ] {
        let front = Front::new(layout, pages);
        assert_eq!(front.entries(), entries);
        let mut queue = front.connect(raw(1000).0, agreed(layout));
        let (gref, mfn) = front.page();
        for n in 0..u64::from(entries) * 2 + 3 {
            let read = front.request(blkif::OP_READ, n, n, &[(gref, 0, 0)]);
            assert_eq!(front.ask(&mut queue, &read), blkif::RSP_OKAY);
            assert_eq!(front.response(n as u32).0, n);
            assert_eq!(front.read(mfn, 0, 512), [n as u8; 512]);
        }
    }
}

#[test]
fn indirect_requests_have_up_to_256_segments() {
    let front = Front::new(X86_64, 1);
    let (disk, mut file) = raw(2100);
    let mut queue = front.connect(disk, agreed(X86_64));
    let pages: Vec<_> = (0..MAX_INDIRECT_SEGMENTS + 1).map(|_| front.page()).collect();
    let segments: Vec<_> = pages.iter().map(|(gref, _)| (*gref, 0, 7)).collect();
    let all = &segments[..MAX_INDIRECT_SEGMENTS];
    assert_eq!(
        front.ask(&mut queue, &front.indirect(blkif::OP_READ, 1, 0, all)),
        blkif::RSP_OKAY
    );
    assert_eq!(front.response(0).1, blkif::OP_READ);
    for (n, (_, mfn)) in pages[..MAX_INDIRECT_SEGMENTS].iter().enumerate() {
        assert_eq!(front.read(*mfn, 0, 1)[0], (n * 8) as u8);
        front.write(*mfn, 0, &[!(n as u8); 4096]);
    }
    assert_eq!(
        front.ask(&mut queue, &front.indirect(blkif::OP_WRITE, 2, 8, all)),
        blkif::RSP_OKAY
    );
    assert_eq!(contents(&mut file)[8 * 512 + 4096], !1);
    let refused = [
        front.indirect(blkif::OP_READ, 3, 0, &segments), // too many
        front.indirect(blkif::OP_READ, 4, 0, &[]),
        front.indirect(blkif::OP_INDIRECT, 5, 0, all),
        front.indirect(blkif::OP_DISCARD, 6, 0, all),
        {
            let mut entry = front.indirect(blkif::OP_READ, 7, 0, all);
            entry[X86_64.indirect_grefs..X86_64.indirect_grefs + 4]
                .copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
            entry
        },
    ];
    for entry in refused {
        assert_eq!(front.ask(&mut queue, &entry), blkif::RSP_ERROR);
    }
}

#[test]
fn bad_requests_get_an_error_and_harm_nobody() {
    let front = Front::new(X86_64, 1);
    let (disk, mut file) = raw(64);
    let before = contents(&mut file);
    let mut queue = front.connect(disk, agreed(X86_64));
    let (gref, mfn) = front.page();
    let unwritable = front.grant(mfn, PERMIT | READ_ONLY);
    let not_ours = front.grant(mfn, PERMIT | 7 << 16);
    let many: Vec<_> = (0..12).map(|_| (gref, 0, 0)).collect();
    let far = front.request(blkif::OP_WRITE, 1, u64::MAX, &[(gref, 0, 0)]);
    for (entry, status) in [
        (front.request(blkif::OP_READ, 1, 0, &[]), blkif::RSP_ERROR),
        (front.request(blkif::OP_READ, 1, 0, &many), blkif::RSP_ERROR),
        (
            front.request(blkif::OP_READ, 1, 0, &[(gref, 4, 3)]),
            blkif::RSP_ERROR,
        ),
        (
            front.request(blkif::OP_READ, 1, 0, &[(gref, 0, 8)]),
            blkif::RSP_ERROR,
        ),
        (
            front.request(blkif::OP_READ, 1, 0, &[(gref, 0, 255)]),
            blkif::RSP_ERROR,
        ),
        (
            front.request(blkif::OP_READ, 1, 63, &[(gref, 0, 1)]),
            blkif::RSP_ERROR,
        ),
        (
            front.request(blkif::OP_READ, 1, 64, &[(gref, 0, 0)]),
            blkif::RSP_ERROR,
        ),
        (
            front.request(blkif::OP_WRITE, 1, 1 << 55, &[(gref, 0, 0)]),
            blkif::RSP_ERROR,
        ),
        (far, blkif::RSP_ERROR),
        (
            front.request(blkif::OP_READ, 1, 0, &[(unwritable, 0, 0)]),
            blkif::RSP_ERROR,
        ),
        (
            front.request(blkif::OP_WRITE, 1, 0, &[(not_ours, 0, 0)]),
            blkif::RSP_ERROR,
        ),
        (
            front.request(blkif::OP_WRITE, 1, 0, &[(0x7fff_ffff, 0, 0)]),
            blkif::RSP_ERROR,
        ),
        (
            front.request(blkif::OP_WRITE, 1, 0, &[(gref, 0, 0), (u32::MAX, 0, 0)]),
            blkif::RSP_ERROR,
        ),
        (front.request(4, 1, 0, &[(gref, 0, 0)]), blkif::RSP_EOPNOTSUPP),
        (front.request(255, 1, 0, &[(gref, 0, 0)]), blkif::RSP_EOPNOTSUPP),
        (front.entry(blkif::OP_DISCARD, 1, 1, 0), blkif::RSP_EOPNOTSUPP),
    ] {
        assert_eq!(front.ask(&mut queue, &entry), status, "{entry:?}");
    }
    assert_eq!(contents(&mut file), before);
    let good = front.request(blkif::OP_WRITE, 1, 0, &[(unwritable, 0, 0)]);
    assert_eq!(front.ask(&mut queue, &good), blkif::RSP_OKAY);
    drop(queue);
    assert_eq!(front.grants.audit(), Vec::<String>::new());
}

#[test]
fn a_read_only_disk_is_not_written_to() {
    let front = Front::new(X86_64, 1);
    let (disk, mut file) = raw(64);
    let before = contents(&mut file);
    let mut queue = front.connect(
        disk,
        Agreed {
            writable: false,
            ..agreed(X86_64)
        },
    );
    let (gref, _) = front.page();
    for operation in [
        blkif::OP_WRITE,
        blkif::OP_WRITE_BARRIER,
        blkif::OP_FLUSH_DISKCACHE,
    ] {
        let entry = front.request(operation, 1, 0, &[(gref, 0, 0)]);
        assert_eq!(front.ask(&mut queue, &entry), blkif::RSP_ERROR);
    }
    let mut discard = front.entry(blkif::OP_DISCARD, 0, 1, 0);
    discard[X86_64.nr_sectors] = 8;
    assert_eq!(front.ask(&mut queue, &discard), blkif::RSP_ERROR);
    let flush = front.request(blkif::OP_FLUSH_DISKCACHE, 1, 0, &[]);
    assert_eq!(front.ask(&mut queue, &flush), blkif::RSP_OKAY);
    assert_eq!(contents(&mut file), before);
}

#[test]
fn only_whole_sectors_of_the_size_that_the_front_end_was_told_are_moved() {
    let front = Front::new(X86_64, 1);
    let (disk, mut file) = raw(67);
    let before = contents(&mut file);
    let sector_bytes = 4096;
    let mut queue = front.connect(
        disk,
        Agreed {
            sector_bytes,
            ..agreed(X86_64)
        },
    );
    let (gref, mfn) = front.page();
    let mut ask = |operation, sector, segments: &[_]| {
        front.ask(&mut queue, &front.request(operation, 1, sector, segments))
    };
    for (sector, first, last) in [(8, 0, 6), (9, 0, 7), (8, 1, 1), (64, 0, 7), (64, 0, 2), (1, 0, 0)] {
        for operation in [blkif::OP_READ, blkif::OP_WRITE] {
            assert_eq!(ask(operation, sector, &[(gref, first, last)]), blkif::RSP_ERROR);
        }
    }
    assert_eq!(ask(blkif::OP_READ, 8, &[(gref, 0, 7)]), blkif::RSP_OKAY);
    assert_eq!(front.read(mfn, 0, 1), [8]);
    // A sector in two pages is one.
    assert_eq!(
        ask(blkif::OP_READ, 16, &[(gref, 4, 7), (gref, 0, 3)]),
        blkif::RSP_OKAY
    );
    assert_eq!([0, 2048].map(|at| front.read(mfn, at, 1)), [[20], [16]]);
    assert_eq!(ask(blkif::OP_FLUSH_DISKCACHE, 0, &[]), blkif::RSP_OKAY);
    let mut discard = front.entry(blkif::OP_DISCARD, 0, 1, 8);
    discard[X86_64.nr_sectors] = 9;
    assert_eq!(front.ask(&mut queue, &discard), blkif::RSP_ERROR);
    assert_eq!(contents(&mut file), before);
}

#[test]
fn barriers_write_flushes_answer_and_discarded_sectors_are_zero() {
    let front = Front::new(X86_64, 1);
    let (disk, mut file) = raw(64);
    let mut queue = front.connect(disk, agreed(X86_64));
    let (gref, mfn) = front.page();
    front.write(mfn, 0, &[0x77; 4096]);
    let barrier = front.request(blkif::OP_WRITE_BARRIER, 1, 3, &[(gref, 0, 0)]);
    assert_eq!(front.ask(&mut queue, &barrier), blkif::RSP_OKAY);
    assert_eq!(
        front.ask(&mut queue, &front.request(blkif::OP_WRITE_BARRIER, 1, 0, &[])),
        blkif::RSP_OKAY
    );
    let flush = front.request(blkif::OP_FLUSH_DISKCACHE, 1, 5, &[(gref, 0, 0)]);
    assert_eq!(front.ask(&mut queue, &flush), blkif::RSP_OKAY);
    let mut discard = front.entry(blkif::OP_DISCARD, 0, 1, 8);
    discard[X86_64.nr_sectors] = 16;
    assert_eq!(front.ask(&mut queue, &discard), blkif::RSP_OKAY);
    let bytes = contents(&mut file);
    assert_eq!(
        [3, 4, 5, 7, 8, 23, 24].map(|n| bytes[n * 512]),
        [0x77, 4, 0x77, 7, 0, 0, 24]
    );
    discard[X86_64.nr_sectors + 7] = 0x80; // far behind the end
    assert_eq!(front.ask(&mut queue, &discard), blkif::RSP_ERROR);
}

#[test]
fn indices_that_cannot_be_break_the_ring() {
    for claimed in [33, 1000, u32::MAX, 1 << 31] {
        let front = Front::new(X86_64, 1);
        let mut queue = front.connect(raw(8).0, agreed(X86_64));
        front.set_head(REQ_PROD, claimed);
        let broken = RingBroken {
            requested: claimed,
            entries: 32,
        };
        assert_eq!(queue.serve(), Err(broken));
    }
    let front = Front::new(X86_64, 1);
    front.set_head(REQ_PROD, 40);
    let (client, counts) = (front.table.client(0), Arc::new(Counts::default()));
    let refused = Queue::connect(
        client,
        &front.ring_refs,
        Arc::new(raw(8).0),
        counts,
        Arc::default(),
        agreed(X86_64),
    );
    assert_eq!(
        refused.err().map(|e| e.to_string()).unwrap(),
        "40 requests are said to wait in a ring of 32"
    );
}

#[test]
fn a_new_back_end_goes_on_where_the_last_one_stopped() {
    let front = Front::new(X86_64, 1);
    let (disk, file) = raw(64);
    let mut queue = front.connect(disk, agreed(X86_64));
    let (gref, mfn) = front.page();
    for n in 0..5 {
        front.ask(&mut queue, &front.request(blkif::OP_READ, n, 0, &[(gref, 0, 0)]));
    }
    drop(queue);
    front.send(&front.request(blkif::OP_READ, 77, 9, &[(gref, 0, 0)]));
    let mut queue = front.connect(RawDisk::new(file, true).unwrap(), agreed(X86_64));
    queue.serve().unwrap();
    assert_eq!(front.response(5), (77, blkif::OP_READ, blkif::RSP_OKAY));
    assert_eq!(front.read(mfn, 0, 1), [9]);
}

#[test]
fn persistent_grants_stay_mapped_until_the_ring_is_let_go() {
    let front = Front::new(X86_64, 1);
    let mut queue = front.connect(
        raw(64).0,
        Agreed {
            persistent: true,
            ..agreed(X86_64)
        },
    );
    let (gref, mfn) = front.page();
    assert_eq!(
        front.ask(&mut queue, &front.request(blkif::OP_WRITE, 1, 0, &[(gref, 0, 0)])),
        blkif::RSP_OKAY
    );
    assert_eq!(
        front.ask(&mut queue, &front.request(blkif::OP_READ, 1, 9, &[(gref, 0, 0)])),
        blkif::RSP_OKAY
    );
    assert_eq!(front.read(mfn, 0, 1), [9]);
    let used = |gref| {
        let at = front.table.entry_maddr(gref).unwrap();
        front.grants.machine().mem.read_u64(at).unwrap() & 0x18
    };
    assert_eq!(used(gref), 0x18);
    drop(queue);
    assert_eq!(used(gref), 0);
    assert_eq!(front.grants.audit(), Vec::<String>::new());
}

#[test]
fn a_thread_serves_the_ring_and_sends_the_events_that_are_asked_for() {
    let front = Front::new(X86_64, 1);
    let (gref, mfn) = front.page();
    front.set_head(RSP_EVENT, 1);
    front.send(&front.request(blkif::OP_READ, 1, 4, &[(gref, 0, 0)]));
    let (tell, told) = channel();
    let mut thread = start_thread(
        "test".into(),
        front.connect(raw(64).0, agreed(X86_64)),
        Told(tell),
    )
    .unwrap();
    assert_eq!(told.recv_timeout(SOON), Ok(None));
    assert_eq!(front.read(mfn, 0, 1), [4]);
    // It asks for an event with the next request, and sends none until the second response.
    assert_eq!(front.head(REQ_EVENT), 2);
    front.set_head(RSP_EVENT, 3);
    for n in 2..4 {
        front.send(&front.request(blkif::OP_READ, n, n, &[(gref, 0, 0)]));
    }
    thread.bell().ring();
    assert_eq!(told.recv_timeout(SOON), Ok(None));
    assert_eq!(front.head(RSP_PROD), 3);
    front.set_head(REQ_PROD, 1000);
    thread.bell().ring();
    assert!(matches!(told.recv_timeout(SOON), Ok(Some(_))));
    thread.stop();
    assert_eq!(front.grants.audit(), Vec::<String>::new());
}

#[test]
fn without_a_thread_all_that_waits_is_done_at_once() {
    let front = Front::new(X86_64, 1);
    let mut queue = front.connect(raw(64).0, agreed(X86_64));
    let (gref, _) = front.page();
    front.set_head(RSP_EVENT, 1);
    for n in 0..32 {
        front.send(&front.request(blkif::OP_READ, n, n, &[(gref, 0, 0)]));
    }
    let (tell, told) = channel();
    assert_eq!(serve_all(&mut queue, &Told(tell), || false), Ok(None));
    assert_eq!((told.try_iter().count(), front.head(RSP_PROD)), (1, 32));
}

#[test]
fn a_large_request_is_answered_before_the_next_one_is_begun() {
    let front = Front::new(X86_64, 1);
    let mut queue = front.connect(raw(2048).0, agreed(X86_64));
    let (gref, _) = front.page();
    let segments = [(gref, 0, 7); 32];
    front.set_head(RSP_EVENT, 1);
    for n in 0..3 {
        front.send(&front.indirect(blkif::OP_READ, n, 0, &segments));
    }
    for n in 1..=3 {
        let turn = queue.serve().unwrap();
        assert_eq!(front.head(RSP_PROD), n);
        assert_eq!(
            (turn.notify, turn.next),
            (n == 1, if n < 3 { Next::Go } else { Next::Event })
        );
    }
}

#[test]
fn a_qcow2_image_with_a_backing_file_is_what_qemu_says_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::io::copy(
        &mut {
            let mut f = file(4096);
            f.rewind().unwrap();
            f
        },
        &mut File::create(path("base.raw")).unwrap(),
    )
    .unwrap();
    if !qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-c",
        &path("base.raw"),
        &path("base.qcow2"),
    ]) {
        return;
    }
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        &path("base.qcow2"),
        &path("top.qcow2"),
    ]);
    let front = Front::new(X86_64, 1);
    let open = |name: &str, writable| {
        File::options()
            .read(true)
            .write(writable)
            .open(path(name))
            .unwrap()
    };
    let disk = Qcow2Disk::open(
        vec![open("top.qcow2", true), open("base.qcow2", false)],
        false,
        true,
    )
    .unwrap();
    assert_eq!(disk.sectors(), 4096);
    let mut queue = front.connect(disk, agreed(X86_64));
    let (gref, mfn) = front.page();
    assert_eq!(
        front.ask(
            &mut queue,
            &front.request(blkif::OP_READ, 1, 300, &[(gref, 0, 7)])
        ),
        blkif::RSP_OKAY
    );
    assert_eq!(front.read(mfn, 0, 4096)[512 * 7], 307u64 as u8);
    front.write(mfn, 0, &[0x99; 4096]);
    assert_eq!(
        front.ask(
            &mut queue,
            &front.request(blkif::OP_WRITE, 1, 301, &[(gref, 0, 1)])
        ),
        blkif::RSP_OKAY
    );
    let mut discard = front.entry(blkif::OP_DISCARD, 0, 1, 2048);
    discard[X86_64.nr_sectors] = 128;
    assert_eq!(front.ask(&mut queue, &discard), blkif::RSP_OKAY);
    assert_eq!(
        front.ask(&mut queue, &front.request(blkif::OP_FLUSH_DISKCACHE, 1, 0, &[])),
        blkif::RSP_OKAY
    );
    // What was flushed is there for a reader that opens the image now, without a word from us.
    qemu_img(&["check", "-q", "-f", "qcow2", "-U", &path("top.qcow2")]);
    qemu_img(&[
        "convert",
        "-U",
        "-f",
        "qcow2",
        "-O",
        "raw",
        &path("top.qcow2"),
        &path("out.raw"),
    ]);
    let bytes = std::fs::read(path("out.raw")).unwrap();
    assert_eq!(
        [300, 301, 302, 303, 2047].map(|n| bytes[n * 512]),
        [300u64 as u8, 0x99, 0x99, 303u64 as u8, 0xff]
    );
}

#[test]
fn what_was_written_to_a_qcow2_image_is_in_it_when_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    if !qemu_img(&["create", "-q", "-f", "qcow2", &path("disk.qcow2"), "8M"]) {
        return;
    }
    let front = Front::new(X86_64, 1);
    let image = File::options()
        .read(true)
        .write(true)
        .open(path("disk.qcow2"))
        .unwrap();
    let mut queue = front.connect(Qcow2Disk::open(vec![image], false, true).unwrap(), agreed(X86_64));
    let (gref, mfn) = front.page();
    front.write(mfn, 0, &[0x5a; 4096]);
    for cluster in [3, 7, 9] {
        let write = front.request(blkif::OP_WRITE, 1, cluster * 128, &[(gref, 0, 7)]);
        assert_eq!(front.ask(&mut queue, &write), blkif::RSP_OKAY);
    }
    drop(queue);
    qemu_img(&["check", "-q", "-f", "qcow2", &path("disk.qcow2")]);
    qemu_img(&[
        "convert",
        "-f",
        "qcow2",
        "-O",
        "raw",
        &path("disk.qcow2"),
        &path("out.raw"),
    ]);
    let bytes = std::fs::read(path("out.raw")).unwrap();
    assert_eq!([3, 5, 7, 9].map(|n| bytes[n * 65536]), [0x5a, 0, 0x5a, 0x5a]);
}

#[test]
fn an_image_is_for_many_readers_or_one_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    std::fs::write(&path, [0; 4096]).unwrap();
    let open = |writable| {
        let file = File::options().read(true).write(writable).open(&path).unwrap();
        RawDisk::new(file, writable).map_err(|e| e.kind())
    };
    let busy = Some(std::io::ErrorKind::ResourceBusy);
    let first = open(false).unwrap();
    let second = open(false).unwrap();
    assert_eq!(open(true).err(), busy);
    // Between fork and exec children of other tests have what was open here.
    let soon = || {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            match open(true) {
                Err(e) if Some(e) == busy && std::time::Instant::now() < end => std::thread::yield_now(),
                result => return result.unwrap(),
            }
        }
    };
    drop((first, second));
    let writer = soon();
    assert_eq!((open(true).err(), open(false).err()), (busy, busy));
    if let Ok(output) = Command::new("qemu-img")
        .args(["resize", "-f", "raw", path.to_str().unwrap(), "8192"])
        .output()
    {
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("lock"),
            "{output:?}"
        );
    }
    drop(writer);
    soon();
}
