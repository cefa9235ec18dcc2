// SPDX-License-Identifier: Apache-2.0
//! Random requests, bytes and indices to a shared directory: DOMZERO_FUZZ_SECONDS of each.

mod dice;
mod granter;
mod p9_front;

use dice::{fuzz_seconds, Dice};
use domzero_backends::p9::{kind, Turn, Writer, MSIZE_MAX};
use domzero_machine::abi::p9::data_intf;
use p9_front::*;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

const REQUESTS: [u8; 27] = [
    kind::STATFS,
    kind::LOPEN,
    kind::LCREATE,
    kind::SYMLINK,
    kind::MKNOD,
    kind::RENAME,
    kind::READLINK,
    kind::GETATTR,
    kind::SETATTR,
    kind::XATTRWALK,
    kind::READDIR,
    kind::FSYNC,
    kind::LOCK,
    kind::GETLOCK,
    kind::LINK,
    kind::MKDIR,
    kind::RENAMEAT,
    kind::UNLINKAT,
    kind::AUTH,
    kind::ATTACH,
    kind::FLUSH,
    kind::WALK,
    kind::WALK,
    kind::READ,
    kind::WRITE,
    kind::CLUNK,
    kind::REMOVE,
];
const NAMES: [&[u8]; 16] = [
    b"a", b"b", b"c", b"d", b"link", b"up", b"fifo", b"..", b".", b"", b"/", b"../out", b"a/b", b"x\0y",
    b"secret", b"abs",
];

fn number(dice: &mut Dice) -> u64 {
    match dice.below(4) {
        0 => dice.below(8),
        1 => dice.below(5000),
        2 => [
            0o100644,
            0o40755,
            0o4755,
            0x1ff,
            u64::MAX,
            1 << 63,
            0x200,
            u64::from(MSIZE_MAX),
        ][dice.below(8) as usize],
        _ => dice.roll(),
    }
}

fn name(dice: &mut Dice) -> Vec<u8> {
    match dice.below(12) {
        0 => (0..dice.below(300)).map(|_| dice.roll() as u8).collect(),
        _ => NAMES[dice.below(NAMES.len() as u64) as usize].to_vec(),
    }
}

fn fid(dice: &mut Dice) -> u32 {
    dice.below(10) as u32
}

/// Mostly of the form that the kind has.
fn request(dice: &mut Dice) -> Vec<u8> {
    let what = match dice.once_in(50) {
        true => dice.roll() as u8,
        false => REQUESTS[dice.below(REQUESTS.len() as u64) as usize],
    };
    let flags = [0u32, 1, 2, 0o1000, 0o1002, 0o200, 0o2001, 0o200000][dice.below(8) as usize];
    let w = Writer::default();
    let mut body = match what {
        kind::LOPEN => w.u32(fid(dice)).u32(flags),
        kind::LCREATE => w
            .u32(fid(dice))
            .text(&name(dice))
            .u32(flags)
            .u32(number(dice) as u32)
            .u32(0),
        kind::SYMLINK => w.u32(fid(dice)).text(&name(dice)).text(&name(dice)).u32(0),
        kind::MKNOD | kind::MKDIR => w
            .u32(fid(dice))
            .text(&name(dice))
            .u32(number(dice) as u32)
            .u32(1)
            .u32(3)
            .u32(0),
        kind::RENAME | kind::LINK => w.u32(fid(dice)).u32(fid(dice)).text(&name(dice)),
        kind::RENAMEAT => w
            .u32(fid(dice))
            .text(&name(dice))
            .u32(fid(dice))
            .text(&name(dice)),
        kind::UNLINKAT => w
            .u32(fid(dice))
            .text(&name(dice))
            .u32([0, 0x200, 7][dice.below(3) as usize]),
        kind::ATTACH => w.u32(fid(dice)).u32(NOFID).text(&name(dice)).text(b"").u32(0),
        kind::WALK => {
            let count = dice.below(4) as u16;
            let w = w.u32(fid(dice)).u32(fid(dice)).u16(count);
            (0..count).fold(w, |w, _| w.text(&name(dice)))
        }
        kind::SETATTR => {
            let valid = dice.below(0x200) as u32;
            let w = w
                .u32(fid(dice))
                .u32(valid)
                .u32(number(dice) as u32)
                .u32(!0)
                .u32(!0);
            // A file of 2^63 bytes is of no use.
            let size = number(dice) % (1 << 20);
            w.u64(size)
                .u64(number(dice))
                .u64(number(dice))
                .u64(number(dice))
                .u64(number(dice))
        }
        kind::WRITE => {
            let data = dice.below(3000);
            let mut w = w.u32(fid(dice)).u64(number(dice) % (1 << 20)).u32(data as u32);
            w.0.extend((0..data).map(|n| n as u8));
            w
        }
        _ => w
            .u32(fid(dice))
            .u64(number(dice))
            .u32(number(dice) as u32)
            .u64(number(dice))
            .u64(0),
    };
    if dice.once_in(20) {
        body.0.truncate(dice.below(body.0.len() as u64 + 1) as usize);
    }
    message(what, dice.roll() as u16, &body.0)
}

fn fill(all: &Path) {
    let inside = all.join("in");
    fs::create_dir_all(inside.join("d/d")).unwrap();
    fs::create_dir(all.join("out")).unwrap();
    fs::write(all.join("out/secret"), b"treasure").unwrap();
    for name in ["a", "b", "d/a", "d/d/a"] {
        fs::write(inside.join(name), b"contents").unwrap();
    }
    symlink("../out", inside.join("link")).unwrap();
    symlink(all.join("out/secret"), inside.join("abs")).unwrap();
    symlink("..", inside.join("d/up")).unwrap();
}

/// Nothing outside has changed, and nothing has come that must not.
fn check(all: &Path) {
    assert_eq!(fs::read_dir(all).unwrap().count(), 2);
    let out: Vec<_> = fs::read_dir(all.join("out"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    assert_eq!(out.len(), 1);
    assert_eq!(fs::read(all.join("out/secret")).unwrap(), b"treasure");
    assert_eq!(fs::metadata(all.join("out/secret")).unwrap().nlink(), 1);
    check_kinds(&all.join("in"));
}

fn check_kinds(path: &Path) {
    let what = fs::symlink_metadata(path).unwrap();
    assert!(what.is_dir() || what.is_file() || what.is_symlink(), "{path:?}");
    assert!(
        what.is_symlink() || what.mode() & 0o6000 == 0,
        "{path:?} {:o}",
        what.mode()
    );
    if what.is_dir() {
        // The guest may have locked its owner out.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            check_kinds(&entry.unwrap().path());
        }
    }
}

#[test]
fn random_requests_stay_inside_the_directory() {
    let start = Instant::now();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut good, mut bad) = (0u64, 0u64);
    while start.elapsed() < fuzz_seconds() {
        let all = tempfile::tempdir().unwrap();
        fill(all.path());
        let mut c = Client::new(&all.path().join("in"), !dice.once_in(5));
        for name in [&b"a"[..], b"d", b"link"] {
            c.walk(ROOT, fid(&mut dice), &[name]).ok();
        }
        for _ in 0..600 {
            c.front.put(0, &request(&mut dice));
            assert_eq!(c.device.turn(0, true), Ok(Turn::Answered));
            let (answer, _, body) = c.front.get(0);
            if answer == kind::LERROR + 1 {
                bad += 1;
            } else {
                good += 1;
            }
            assert!(
                !body.windows(8).any(|part| part == b"treasure"),
                "an answer of kind {answer}: {body:?}"
            );
            assert_eq!(c.front.unread(0), 0);
        }
        check(all.path());
        let Client { front, device } = c;
        drop(device);
        assert_eq!(front.grants.audit(), Vec::<String>::new());
    }
    // It is of no use when all is refused.
    assert!(good > 1000 && bad > 1000, "{good} {bad}");
}

#[test]
fn random_bytes_and_indices_end_the_device_or_are_answered() {
    let start = Instant::now();
    let mut dice = Dice(0x1234_5678_9abc_def1);
    let (mut answered, mut broken) = (0u64, 0u64);
    let all = tempfile::tempdir().unwrap();
    fill(all.path());
    while start.elapsed() < fuzz_seconds() {
        let mut c = Client::new(&all.path().join("in"), false);
        for _ in 0..64 {
            let mut bytes = request(&mut dice);
            for _ in 0..dice.below(3) {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] = dice.roll() as u8;
            }
            c.front.put(0, &bytes);
            if dice.once_in(30) {
                let at = [
                    data_intf::IN_CONS,
                    data_intf::IN_PROD,
                    data_intf::OUT_CONS,
                    data_intf::OUT_PROD,
                    data_intf::RING_ORDER,
                    data_intf::REF,
                ][dice.below(6) as usize];
                c.front.set_index(0, at, number(&mut dice) as u32);
            }
            match c.device.turn(0, true) {
                Ok(Turn::Answered) => answered += 1,
                Ok(_) => break,
                Err(_) => {
                    broken += 1;
                    break;
                }
            }
            // What is in the ring is of no interest here, only that there is room.
            let prod = c.front.index(0, data_intf::IN_PROD);
            c.front.set_index(0, data_intf::IN_CONS, prod);
        }
        let Client { front, device } = c;
        drop(device);
        assert_eq!(front.grants.audit(), Vec::<String>::new());
    }
    check(all.path());
    assert!(answered > 100 && broken > 10, "{answered} {broken}");
}
