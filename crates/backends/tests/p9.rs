// SPDX-License-Identifier: Apache-2.0
//! What a guest can do with a shared directory, and what it is told when it does it wrong.

mod granter;
mod p9_front;

use domzero_backends::p9::{
    kind, Broken, ConnectError, Device, Ring, Turn, Writer, FIDS_MAX, OPEN_MAX, VERSION,
};
use domzero_machine::abi::p9::data_intf;
use libc::{
    EBADF, EEXIST, EINVAL, EISDIR, ELOOP, EMFILE, EMSGSIZE, ENFILE, ENOENT, ENOTDIR, ENOTEMPTY, EOPNOTSUPP,
    EPROTO, EROFS,
};
use p9_front::*;
use std::fs;
use std::os::unix::fs::MetadataExt;

#[test]
fn files_are_found_read_and_listed() {
    let all = shared();
    let big: Vec<u8> = (0..100_000u32).map(|n| (n / 3) as u8).collect();
    fs::write(all.path().join("in/sub/big"), &big).unwrap();
    let mut c = client(&all, false);
    assert_eq!(c.contents(&[b"a"]), Ok(b"alpha".to_vec()));
    assert_eq!(c.contents(&[b"sub", b"b"]), Ok(b"beta".to_vec()));
    assert_eq!(c.contents(&[b"none"]), Err(ENOENT));
    assert_eq!(c.walk(ROOT, 1, &[b"sub", b"none"]), Ok(1));
    assert_eq!(c.clunk(1), Err(EBADF), "a walk that ends early makes no fid");
    c.walk(ROOT, 1, &[b"sub", b"big"]).unwrap();
    assert_eq!(c.attributes(1).unwrap().1, 100_000);
    c.open(1, 0).unwrap();
    // Large and small, across the ring's end and the pages' again and again.
    let mut got = Vec::new();
    for count in [16_373u32, 1, 4096, 5000, 8191].into_iter().cycle() {
        let part = c.read(1, got.len() as u64, count).unwrap();
        if part.is_empty() {
            break;
        }
        got.extend(part);
    }
    assert!(got == big);
    assert_eq!(c.read(1, 0, u32::MAX).unwrap().len(), MSIZE as usize - 11);
    let names = (0..300).map(|n| format!("file number {n}")).collect::<Vec<_>>();
    fs::create_dir(all.path().join("in/many")).unwrap();
    for name in &names {
        fs::write(all.path().join("in/many").join(name), b"").unwrap();
    }
    c.walk(ROOT, 2, &[b"many"]).unwrap();
    c.open(2, 0).unwrap();
    for count in [200, 1000, 60_000] {
        let mut found = c.names(2, count).unwrap();
        found.retain(|name| !matches!(name.as_slice(), b"." | b".."));
        found.sort();
        let mut expected: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        expected.sort();
        assert_eq!(found, expected);
    }
    assert_eq!(
        c.names(2, 20),
        Err(EINVAL),
        "no entry fits, and that is not the end"
    );
    is_clean(c);
}

#[test]
fn a_guest_that_may_only_read_changes_nothing() {
    let all = shared();
    let before = listing(all.path());
    let mut c = client(&all, false);
    c.walk(ROOT, 1, &[b"a"]).unwrap();
    for flags in [WRONLY, RDWR, TRUNC] {
        assert_eq!(c.open(1, flags), Err(EROFS));
    }
    let w = Writer::default;
    let tries = [
        (kind::LCREATE, w().u32(ROOT).text(b"new").u32(0).u32(0o644).u32(0)),
        (kind::SYMLINK, w().u32(ROOT).text(b"new").text(b"a").u32(0)),
        (
            kind::MKNOD,
            w().u32(ROOT).text(b"new").u32(0o100644).u32(0).u32(0).u32(0),
        ),
        (kind::MKDIR, w().u32(ROOT).text(b"new").u32(0o755).u32(0)),
        (kind::LINK, w().u32(ROOT).u32(1).text(b"new")),
        (kind::RENAME, w().u32(1).u32(ROOT).text(b"new")),
        (kind::RENAMEAT, w().u32(ROOT).text(b"a").u32(ROOT).text(b"new")),
        (kind::UNLINKAT, w().u32(ROOT).text(b"a").u32(0)),
    ];
    for (request, body) in tries {
        assert_eq!(c.call(request, body), Err(EROFS), "{request}");
    }
    assert_eq!(c.set(1, 1, 0o600, 0), Err(EROFS));
    assert_eq!(c.set(1, 8, 0, 0), Err(EROFS));
    c.open(1, 0).unwrap();
    assert_eq!(c.write(1, 0, b"x"), Err(EBADF));
    assert_eq!(c.call(kind::REMOVE, w().u32(1)), Err(EROFS));
    assert_eq!(
        c.clunk(1),
        Err(EBADF),
        "remove lets go of the fid, whatever happens"
    );
    assert_eq!(listing(all.path()), before);
}

#[test]
fn a_guest_that_may_write_does_what_an_ordinary_user_does() {
    let all = shared();
    let at = |path: &str| all.path().join("in").join(path);
    let w = Writer::default;
    let mut c = client(&all, true);
    c.walk(ROOT, 1, &[]).unwrap();
    c.create(1, b"new", RDWR | EXCL, 0o666).unwrap();
    assert_eq!(c.write(1, 3, b"written"), Ok(7));
    assert_eq!(c.read(1, 0, 100), Ok(b"\0\0\0written".to_vec()));
    c.call(kind::FSYNC, w().u32(1).u32(0)).unwrap();
    c.call(kind::FSYNC, w().u32(1).u32(1)).unwrap();
    assert_eq!(
        fs::metadata(at("new")).unwrap().mode() & 0o7777,
        0o666,
        "the guest's umask counts"
    );
    c.walk(ROOT, 2, &[]).unwrap();
    assert_eq!(c.create(2, b"new", RDWR | EXCL, 0o600), Err(EEXIST));
    c.create(2, b"new", RDWR | TRUNC, 0o600).unwrap();
    assert_eq!(c.attributes(1).unwrap().1, 0);

    c.call(kind::MKDIR, w().u32(ROOT).text(b"dir").u32(0o777).u32(0))
        .unwrap();
    assert_eq!(fs::metadata(at("dir")).unwrap().mode() & 0o7777, 0o777);
    c.walk(ROOT, 3, &[b"dir"]).unwrap();
    c.call(kind::RENAMEAT, w().u32(ROOT).text(b"a").u32(3).text(b"moved"))
        .unwrap();
    c.walk(3, 4, &[b"moved"]).unwrap();
    c.call(kind::RENAME, w().u32(3).u32(ROOT).text(b"directory"))
        .unwrap();
    c.open(4, 0).unwrap();
    assert_eq!(
        c.read(4, 0, 9),
        Ok(b"alpha".to_vec()),
        "fids go with what they stand for"
    );
    c.call(kind::SYMLINK, w().u32(3).text(b"link").text(b"/anywhere").u32(0))
        .unwrap();
    c.walk(3, 5, &[b"link"]).unwrap();
    assert_eq!(c.call(kind::READLINK, w().u32(5)), Ok(w().text(b"/anywhere").0));
    assert_eq!(c.open(5, 0), Err(ELOOP));
    c.call(kind::LINK, w().u32(ROOT).u32(4).text(b"again")).unwrap();
    assert_eq!(fs::metadata(at("again")).unwrap().nlink(), 2);
    c.call(
        kind::MKNOD,
        w().u32(ROOT).text(b"node").u32(0o100640).u32(0).u32(0).u32(0),
    )
    .unwrap();
    assert_eq!(fs::metadata(at("node")).unwrap().mode(), 0o100640);

    // An open file is there without a name.
    c.call(kind::UNLINKAT, w().u32(ROOT).text(b"new").u32(0)).unwrap();
    assert_eq!(c.write(1, 0, b"still"), Ok(5));
    c.set(1, 8 | 1, 0o600, 3).unwrap();
    assert_eq!(c.attributes(1), Ok((0o100600, 3)));
    assert_eq!(
        c.call(kind::UNLINKAT, w().u32(ROOT).text(b"directory").u32(0)),
        Err(EISDIR)
    );
    assert_eq!(
        c.call(kind::UNLINKAT, w().u32(ROOT).text(b"directory").u32(0x200)),
        Err(ENOTEMPTY)
    );
    assert_eq!(
        c.call(kind::UNLINKAT, w().u32(ROOT).text(b"node").u32(0x200)),
        Err(ENOTDIR)
    );

    c.walk(ROOT, 6, &[b"again"]).unwrap();
    c.set(6, 0x1b0 | 8, 0, 2).unwrap();
    let stat = fs::metadata(at("again")).unwrap();
    assert_eq!(
        (stat.size(), stat.atime(), stat.mtime(), stat.mtime_nsec()),
        (2, 1, 3, 4)
    );
    c.set(ROOT, 0x20, 0, 0).unwrap();
    let statfs = c.call(kind::STATFS, w().u32(6)).unwrap();
    assert_eq!(statfs.len(), 60);
    c.call(kind::REMOVE, w().u32(6)).unwrap();
    assert!(!at("again").exists());
    is_clean(c);
}

#[test]
fn requests_cut_off_anywhere_and_of_any_kind_get_an_error() {
    let all = shared();
    let w = Writer::default;
    let bodies = [
        (kind::ATTACH, w().u32(50).u32(NOFID).text(b"u").text(b"")),
        (kind::WALK, w().u32(ROOT).u32(51).u16(1).text(b"a")),
        (kind::GETATTR, w().u32(ROOT).u64(1)),
        (
            kind::SETATTR,
            w().u32(ROOT)
                .u32(0)
                .u32(0)
                .u32(0)
                .u32(0)
                .u64(0)
                .u64(0)
                .u64(0)
                .u64(0)
                .u64(0),
        ),
        (kind::READDIR, w().u32(ROOT).u64(0).u32(0)),
        (kind::READ, w().u32(ROOT).u64(0).u32(0)),
        (kind::WRITE, w().u32(ROOT).u64(0).u32(0)),
        (
            kind::LOCK,
            w().u32(ROOT).u8(0).u32(0).u64(0).u64(0).u32(0).text(b"c"),
        ),
        (kind::GETLOCK, w().u32(ROOT).u8(0).u64(0).u64(0).u32(0).text(b"c")),
        (kind::MKDIR, w().u32(ROOT).text(b"d").u32(0)),
        (kind::SYMLINK, w().u32(ROOT).text(b"s").text(b"t")),
        (kind::RENAMEAT, w().u32(ROOT).text(b"a").u32(ROOT).text(b"z")),
        (kind::UNLINKAT, w().u32(ROOT).text(b"a").u32(0)),
    ];
    for (request, body) in bodies {
        let mut c = client(&all, true);
        for length in 0..body.0.len() {
            let answer = c.raw(request, &body.0[..length]).unwrap();
            assert_eq!(answer, Err(EINVAL), "{request} of {length} bytes");
        }
    }
    let known = [
        6, 8, 12, 14, 16, 18, 20, 22, 24, 26, 40, 50, 52, 54, 70, 72, 74, 76, 100, 104, 108, 110, 116, 118,
        120, 122,
    ];
    let mut c = client(&all, true);
    for request in (0..=u8::MAX).filter(|k| !known.contains(k)) {
        assert_eq!(c.raw(request, &[0; 64]).unwrap(), Err(EOPNOTSUPP), "{request}");
    }
    assert_eq!(listing(&all.path().join("in")).len(), 3);
}

#[test]
fn each_request_wants_a_fid_that_is_there_and_is_right() {
    let all = shared();
    let mut c = client(&all, true);
    let w = Writer::default;
    let unknown = 4711;
    let bodies = [
        (kind::WALK, w().u32(unknown).u32(1).u16(0)),
        (kind::LOPEN, w().u32(unknown).u32(0)),
        (kind::LCREATE, w().u32(unknown).text(b"n").u32(0).u32(0).u32(0)),
        (kind::GETATTR, w().u32(unknown).u64(0)),
        (kind::READ, w().u32(unknown).u64(0).u32(1)),
        (kind::READDIR, w().u32(unknown).u64(0).u32(100)),
        (kind::READLINK, w().u32(unknown)),
        (kind::STATFS, w().u32(unknown)),
        (kind::FSYNC, w().u32(unknown).u32(0)),
        (kind::CLUNK, w().u32(unknown)),
        (kind::REMOVE, w().u32(unknown)),
        (kind::RENAME, w().u32(unknown).u32(ROOT).text(b"n")),
        (kind::RENAME, w().u32(ROOT).u32(unknown).text(b"n")),
        (kind::LINK, w().u32(ROOT).u32(unknown).text(b"n")),
        (
            kind::LOCK,
            w().u32(unknown).u8(0).u32(0).u64(0).u64(0).u32(0).text(b""),
        ),
    ];
    for (request, body) in bodies {
        assert_eq!(c.call(request, body), Err(EBADF), "{request}");
    }
    c.walk(ROOT, 1, &[b"a"]).unwrap();
    assert_eq!(c.walk(ROOT, 1, &[]), Err(EINVAL), "a fid in use");
    assert_eq!(c.walk(ROOT, NOFID, &[]), Err(EINVAL));
    assert_eq!(c.read(1, 0, 1), Err(EBADF), "not open");
    assert_eq!(c.walk(1, 2, &[b"b"]), Err(ENOTDIR));
    c.open(1, 0).unwrap();
    assert_eq!(c.open(1, 0), Err(EINVAL), "open already");
    assert_eq!(c.names(1, 1000), Err(ENOTDIR));
    assert_eq!(c.read(1, 1 << 63, 1), Err(EINVAL));
    assert_eq!(c.walk(ROOT, 3, &[b"sub"]), Ok(1));
    assert_eq!(c.open(3, RDWR), Err(EISDIR));
    c.open(3, 0).unwrap();
    assert_eq!(c.read(3, 0, 1), Err(EISDIR));
    let far = w().u32(3).u64(1 << 63).u32(1000);
    assert_eq!(c.call(kind::READDIR, far), Err(EINVAL));
    assert_eq!(
        c.call(kind::RENAME, w().u32(ROOT).u32(ROOT).text(b"n")),
        Err(libc::EBUSY)
    );
    assert_eq!(c.set(ROOT, 8, 0, 0), Err(EISDIR));
    // More data said than brought.
    let body = w().u32(1).u64(0).u32(1000);
    assert_eq!(c.call(kind::WRITE, body), Err(EINVAL));
    // Locks are granted; extended attributes there are none.
    let lock = w().u32(1).u8(1).u32(1).u64(0).u64(0).u32(1).text(b"me");
    assert_eq!(c.call(kind::LOCK, lock), Ok(vec![0]));
    let lock = w().u32(1).u8(1).u64(0).u64(9).u32(1).text(b"me");
    assert_eq!(
        c.call(kind::GETLOCK, lock),
        Ok(w().u8(2).u64(0).u64(9).u32(1).text(b"me").0)
    );
    assert_eq!(c.call(30, w().u32(1).u32(9).text(b"user.a")), Err(EOPNOTSUPP));
}

#[test]
fn a_session_begins_with_a_version_and_ends_with_the_next() {
    let all = shared();
    let mut c = Client::silent(&all.path().join("in"), false);
    let w = Writer::default;
    let attach = || w().u32(ROOT).u32(NOFID).text(b"").text(b"").u32(0);
    assert_eq!(c.call(kind::ATTACH, attach()), Err(EPROTO));
    assert_eq!(c.call(kind::VERSION, w().u32(4095).text(VERSION)), Err(EMSGSIZE));
    let unknown = w().u32(8192).text(b"unknown").0;
    assert_eq!(
        c.call(kind::VERSION, w().u32(8192).text(b"9P2000.u")),
        Ok(unknown)
    );
    assert_eq!(c.call(kind::ATTACH, attach()), Err(EPROTO));
    // A message has room in the smallest ring.
    let agreed = w().u32(32 << 10).text(VERSION).0;
    assert_eq!(c.call(kind::VERSION, w().u32(u32::MAX).text(VERSION)), Ok(agreed));
    let elsewhere = w().u32(ROOT).u32(NOFID).text(b"").text(b"../out").u32(0);
    assert_eq!(c.call(kind::ATTACH, elsewhere), Err(ENOENT));
    c.call(kind::ATTACH, attach()).unwrap();
    assert_eq!(c.call(kind::ATTACH, attach()), Err(EINVAL));
    assert_eq!(c.contents(&[b"a"]), Ok(b"alpha".to_vec()));
    c.call(kind::VERSION, w().u32(8192).text(VERSION)).unwrap();
    assert_eq!(c.contents(&[b"a"]), Err(EBADF));
    is_clean(c);
}

#[test]
fn fids_and_open_files_are_bounded() {
    let all = shared();
    let mut c = client(&all, false);
    for fid in 1..=OPEN_MAX as u32 {
        c.walk(ROOT, fid, &[b"a"]).unwrap();
        c.open(fid, 0).unwrap();
    }
    c.walk(ROOT, 5000, &[b"a"]).unwrap();
    assert_eq!(c.open(5000, 0), Err(EMFILE));
    c.clunk(1).unwrap();
    c.open(5000, 0).unwrap();
    let all_fids = (10_000..).take(FIDS_MAX).map(|fid| c.walk(ROOT, fid, &[]));
    let made = all_fids.take_while(|made| made.is_ok()).count();
    assert_eq!(made, FIDS_MAX - OPEN_MAX - 1);
    assert_eq!(c.walk(ROOT, 9999, &[]), Err(ENFILE));
    assert_eq!(c.walk(5000, 5000, &[]), Err(EINVAL), "an open one");
    assert_eq!(c.walk(10_000, 10_000, &[b"a"]), Ok(1));
}

#[test]
fn frames_and_indices_that_cannot_be_end_the_device() {
    let all = shared();
    let fresh = || client(&all, false);
    for size in [0u32, 6, MSIZE + 1, u32::MAX] {
        let mut c = fresh();
        let mut bytes = message(kind::CLUNK, 1, &[0; 4]);
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        c.front.put(0, &bytes);
        let most = MSIZE;
        assert_eq!(c.device.turn(0, true), Err(Broken::Message { size, most }));
    }
    let mut c = fresh();
    let prod = c.front.index(0, data_intf::OUT_PROD);
    c.front.set_index(0, data_intf::OUT_PROD, prod + 32769);
    assert!(matches!(
        c.device.turn(0, true),
        Err(Broken::Waiting { waiting: 32769, .. })
    ));
    c.front.set_index(0, data_intf::OUT_PROD, prod.wrapping_sub(1));
    assert!(matches!(c.device.turn(0, true), Err(Broken::Waiting { .. })));
    let mut c = fresh();
    c.front.put(0, &message(kind::CLUNK, 1, &[0; 4]));
    let cons = c.front.index(0, data_intf::IN_CONS);
    c.front.set_index(0, data_intf::IN_CONS, cons + 1);
    assert!(matches!(c.device.turn(0, true), Err(Broken::Unread { .. })));

    // A message that is not there whole is waited for.
    let mut c = fresh();
    let bytes = message(kind::CLUNK, 1, &ROOT.to_le_bytes());
    for part in bytes.chunks(1) {
        assert_eq!(c.device.turn(0, true), Ok(Turn::Idle));
        c.front.put(0, part);
    }
    assert_eq!(c.device.turn(0, true), Ok(Turn::Answered));
}

#[test]
fn rings_that_are_none_are_refused() {
    let front = Front::new(1, 1);
    let all = shared();
    let connect = |gref| {
        let tree = tree(&all.path().join("in"));
        Device::connect(&front.table.client(0), &[gref], tree, false, Default::default()).err()
    };
    let intf = front.rings[0].intf;
    front.set_word(intf.1, data_intf::RING_ORDER, 10);
    assert_eq!(connect(intf.0), Some(ConnectError::Order(10)));
    front.set_word(intf.1, data_intf::RING_ORDER, u32::MAX);
    assert_eq!(connect(intf.0), Some(ConnectError::Order(u32::MAX)));
    front.set_word(intf.1, data_intf::RING_ORDER, 2);
    assert_eq!(connect(intf.0), Some(ConnectError::Grant(0)));
    assert_eq!(connect(7777), Some(ConnectError::Grant(7777)));
    front.set_word(intf.1, data_intf::RING_ORDER, 1);
    front.set_word(intf.1, data_intf::IN_PROD, 4097);
    assert!(matches!(
        connect(intf.0),
        Some(ConnectError::Broken(Broken::Unread { unread: 4097, .. }))
    ));
    assert_eq!(front.grants.audit(), Vec::<String>::new());
    front.set_word(intf.1, data_intf::IN_PROD, 0);
    assert!(Ring::connect(&front.table.client(0), intf.0).is_ok_and(|ring| ring.size() == 4096));
}

#[test]
fn an_answer_waits_for_room_and_a_flush_for_what_came_before_it() {
    let all = shared();
    fs::write(all.path().join("in/big"), vec![7; 20_000]).unwrap();
    let front = Front::new(2, ORDER);
    let mut device = front.connect(tree(&all.path().join("in")), false);
    let w = Writer::default;
    let send = |ring, request, tag, body: Writer| front.put(ring, &message(request, tag, &body.0));
    let answered = |device: &mut Device, ring| {
        assert_eq!(device.turn(ring, false), Ok(Turn::Answered));
        front.get(ring)
    };
    send(0, kind::VERSION, 1, w().u32(MSIZE).text(VERSION));
    assert_eq!(answered(&mut device, 0).0, kind::VERSION + 1);
    send(
        1,
        kind::ATTACH,
        2,
        w().u32(ROOT).u32(NOFID).text(b"").text(b"").u32(0),
    );
    assert_eq!(answered(&mut device, 1).0, kind::ATTACH + 1);
    send(0, kind::WALK, 3, w().u32(ROOT).u32(1).u16(1).text(b"big"));
    assert_eq!(answered(&mut device, 0).0, kind::WALK + 1);
    send(1, kind::LOPEN, 4, w().u32(1).u32(0));
    assert_eq!(answered(&mut device, 1).0, kind::LOPEN + 1);
    for tag in 10..14 {
        send(0, kind::READ, tag, w().u32(1).u64(0).u32(12_000));
    }
    assert_eq!(device.turn(0, false), Ok(Turn::Answered));
    assert_eq!(device.turn(0, false), Ok(Turn::Answered));
    assert_eq!(device.turn(0, false), Ok(Turn::Idle), "no room for a third");
    assert_eq!(front.get(0).2.len(), 12_004);
    send(1, kind::FLUSH, 20, w().u16(12));
    assert_eq!(device.turn(1, false), Ok(Turn::Flush));
    let told = std::sync::Mutex::new(Vec::new());
    struct Told<'a>(&'a std::sync::Mutex<Vec<usize>>);
    impl domzero_backends::p9::Notice for Told<'_> {
        fn notify(&self, ring: usize) {
            self.0.lock().unwrap().push(ring);
        }
        fn broken(&self, _: Broken) {}
    }
    device.serve(&Told(&told), &|| false).unwrap();
    assert_eq!(
        *told.lock().unwrap(),
        [0, 1],
        "the read in the other ring comes first"
    );
    assert_eq!(front.get(1).0, kind::FLUSH + 1);
}
