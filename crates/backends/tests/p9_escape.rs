// SPDX-License-Identifier: Apache-2.0
//! No name, link, race or special file leads out of a shared directory.

mod granter;
mod p9_front;

use domzero_backends::p9::{kind, Writer};
use libc::{EEXIST, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENXIO, EOPNOTSUPP, EPERM, EXDEV};
use p9_front::*;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn names_that_are_none_are_refused_everywhere() {
    let all = shared();
    let before = listing(all.path());
    let mut c = client(&all, true);
    let w = Writer::default;
    c.walk(ROOT, 1, &[b"a"]).unwrap();
    let long = [b'x'; 256];
    let names: [(&[u8], i32); 6] = [
        (b"", ENOENT),
        (b"/", ENOENT),
        (b"../out/secret", ENOENT),
        (b"sub/b", ENOENT),
        (b"a\0", ENOENT),
        (&long, ENAMETOOLONG),
    ];
    for (name, error) in names {
        let expected = Err(error);
        assert_eq!(c.walk(ROOT, 9, &[name]).map(|_| vec![]), expected);
        let new = [
            (kind::SYMLINK, w().u32(ROOT).text(name).text(b"a").u32(0)),
            (
                kind::MKNOD,
                w().u32(ROOT).text(name).u32(0o100644).u32(0).u32(0).u32(0),
            ),
            (kind::MKDIR, w().u32(ROOT).text(name).u32(0o755).u32(0)),
            (kind::LINK, w().u32(ROOT).u32(1).text(name)),
            (kind::RENAME, w().u32(1).u32(ROOT).text(name)),
            (kind::RENAMEAT, w().u32(ROOT).text(b"a").u32(ROOT).text(name)),
            (kind::RENAMEAT, w().u32(ROOT).text(name).u32(ROOT).text(b"n")),
            (kind::UNLINKAT, w().u32(ROOT).text(name).u32(0)),
            (
                kind::LCREATE,
                w().u32(ROOT).text(name).u32(WRONLY).u32(0o644).u32(0),
            ),
        ];
        for (request, body) in new {
            assert_eq!(c.call(request, body), expected, "{request} {name:?}");
        }
    }
    for name in [&b"."[..], b".."] {
        let new = [
            (
                kind::LCREATE,
                w().u32(ROOT).text(name).u32(WRONLY).u32(0o644).u32(0),
                EEXIST,
            ),
            (kind::MKDIR, w().u32(ROOT).text(name).u32(0o755).u32(0), EEXIST),
            (kind::RENAME, w().u32(1).u32(ROOT).text(name), EEXIST),
            (kind::UNLINKAT, w().u32(ROOT).text(name).u32(0x200), EINVAL),
        ];
        for (request, body, error) in new {
            assert_eq!(c.call(request, body), Err(error), "{request} {name:?}");
        }
    }
    assert_eq!(
        c.call(kind::SYMLINK, w().u32(ROOT).text(b"n").text(b"").u32(0)),
        Err(ENOENT)
    );
    assert_eq!(
        c.call(kind::SYMLINK, w().u32(ROOT).text(b"n").text(b"a\0b").u32(0)),
        Err(EINVAL)
    );
    assert_eq!(listing(all.path()), before);
}

#[test]
fn no_link_and_no_dots_lead_out() {
    let all = shared();
    let inside = all.path().join("in");
    symlink("../out", inside.join("relative")).unwrap();
    symlink(all.path().join("out"), inside.join("absolute")).unwrap();
    symlink(all.path().join("out/secret"), inside.join("file")).unwrap();
    symlink("sub", inside.join("harmless")).unwrap();
    let mut c = client(&all, true);
    assert_eq!(c.contents(&[b"..", b"out", b"secret"]), Err(ENOENT));
    assert_eq!(
        c.contents(&[b"..", b"..", b"sub", b"..", b"..", b"a"]),
        Ok(b"alpha".to_vec())
    );
    for name in [&b"relative"[..], b"absolute", b"harmless"] {
        assert_eq!(c.walk(ROOT, 1, &[name, b"secret"]), Ok(1));
        c.walk(ROOT, 1, &[name]).unwrap();
        assert_eq!(c.walk(1, 2, &[b"secret"]), Err(ELOOP));
        // `..` is the directory that the link is in.
        assert_eq!(c.walk(1, 2, &[b"..", b"a"]), Ok(2));
        c.clunk(2).unwrap();
        assert_eq!(c.create(1, b"planted", WRONLY, 0o644), Err(ELOOP));
        let w = Writer::default;
        for (request, body) in [
            (kind::MKDIR, w().u32(1).text(b"planted").u32(0o755).u32(0)),
            (kind::UNLINKAT, w().u32(1).text(b"secret").u32(0)),
            (
                kind::RENAMEAT,
                w().u32(1).text(b"secret").u32(ROOT).text(b"stolen"),
            ),
            (kind::RENAMEAT, w().u32(ROOT).text(b"a").u32(1).text(b"secret")),
            (kind::LINK, w().u32(1).u32(ROOT).text(b"planted")),
        ] {
            assert!(
                matches!(c.call(request, body), Err(ELOOP | ENOTDIR | libc::EBUSY)),
                "{request}"
            );
        }
        assert_eq!(c.open(1, 0), Err(ELOOP));
        c.clunk(1).unwrap();
    }
    c.walk(ROOT, 1, &[b"file"]).unwrap();
    assert_eq!(c.open(1, 0), Err(ELOOP));
    assert_eq!(c.set(1, 8, 0, 0), Err(ELOOP), "a size");
    assert_eq!(c.set(1, 1, 0o777, 0), Err(EOPNOTSUPP), "a mode");
    c.set(1, 0x30, 0, 0).unwrap(); // The link's own times.
                                   // Making a file where a link is makes none where the link leads.
    symlink("../out/planted", inside.join("dangling")).unwrap();
    c.walk(ROOT, 2, &[]).unwrap();
    assert_eq!(c.create(2, b"dangling", WRONLY | TRUNC, 0o644), Err(ELOOP));
    assert_eq!(fs::read(all.path().join("out/secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(all.path().join("out")).unwrap().count(), 1);
}

#[test]
fn only_regular_files_and_directories_are_opened_and_nobody_waits() {
    let all = shared();
    let inside = all.path().join("in");
    let fifo = std::ffi::CString::new(inside.join("fifo").as_os_str().as_bytes()).unwrap();
    // SAFETY: a terminated path.
    #[allow(unsafe_code)]
    let made = unsafe { libc::mkfifo(fifo.as_ptr(), 0o666) };
    assert_eq!(made, 0);
    let _socket = UnixListener::bind(inside.join("socket")).unwrap();
    let mut c = client(&all, true);
    for name in [&b"fifo"[..], b"socket"] {
        for flags in [0, WRONLY, RDWR, TRUNC] {
            c.walk(ROOT, 1, &[name]).unwrap();
            assert_eq!(c.open(1, flags), Err(ENXIO));
            c.clunk(1).unwrap();
            c.walk(ROOT, 1, &[]).unwrap();
            assert_eq!(c.create(1, name, flags, 0o644), Err(ENXIO));
            c.clunk(1).unwrap();
        }
        c.walk(ROOT, 1, &[name]).unwrap();
        assert_eq!(c.set(1, 8, 0, 0), Err(ENXIO));
        c.clunk(1).unwrap();
    }
    let mut dev = Client::new(Path::new("/dev"), true);
    dev.walk(ROOT, 1, &[b"null"]).unwrap();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert_eq!(dev.open(1, 0), Err(ENXIO));
    let w = Writer::default;
    for mode in [0o020666u32, 0o060666, 0o010666, 0o140666] {
        let body = w().u32(ROOT).text(b"node").u32(mode).u32(1).u32(3).u32(0);
        assert_eq!(c.call(kind::MKNOD, body), Err(EPERM), "{mode:o}");
    }
}

#[test]
fn mount_points_and_magic_links_are_not_entered() {
    let mut c = Client::new(Path::new("/"), false);
    assert_eq!(c.walk(ROOT, 1, &[b"proc"]), Err(EXDEV));
    let mut c = Client::new(Path::new("/proc"), false);
    let me = std::process::id().to_string();
    for link in [&b"cwd"[..], b"root", b"exe"] {
        c.walk(ROOT, 1, &[me.as_bytes(), link]).unwrap();
        assert_eq!(c.open(1, 0), Err(ELOOP));
        assert_eq!(c.walk(1, 2, &[b"etc"]), Err(ELOOP));
        c.clunk(1).unwrap();
    }
}

#[test]
fn set_id_bits_are_not_made_and_what_has_them_is_not_written() {
    let all = shared();
    let inside = all.path().join("in");
    let mode = |name: &str| fs::metadata(inside.join(name)).unwrap().mode() & 0o7777;
    fs::write(inside.join("su"), b"program").unwrap();
    fs::set_permissions(inside.join("su"), fs::Permissions::from_mode(0o4755)).unwrap();
    let mut c = client(&all, true);
    let w = Writer::default;
    c.walk(ROOT, 1, &[]).unwrap();
    c.create(1, b"new", WRONLY, 0o6755).unwrap();
    assert_eq!(mode("new"), 0o755);
    assert_eq!(c.set(1, 1, 0o4755, 0), Err(EPERM));
    assert_eq!(c.set(1, 1, 0o2755, 0), Err(EPERM));
    c.set(1, 1, 0o1700, 0).unwrap();
    assert_eq!(mode("new"), 0o1700);
    c.call(kind::MKDIR, w().u32(ROOT).text(b"dir").u32(0o6755).u32(0))
        .unwrap();
    assert_eq!(mode("dir") & 0o6000, 0);
    for flags in [WRONLY, RDWR, TRUNC] {
        c.walk(ROOT, 2, &[b"su"]).unwrap();
        assert_eq!(c.open(2, flags), Err(EPERM));
        assert_eq!(c.set(2, 8, 0, 0), Err(EPERM));
        c.clunk(2).unwrap();
    }
    assert_eq!(c.contents(&[b"su"]), Ok(b"program".to_vec()));
}

#[test]
fn a_directory_that_becomes_a_link_while_a_guest_walks_does_not_lead_out() {
    let all = shared();
    let inside = all.path().join("in");
    fs::create_dir(inside.join("real")).unwrap();
    fs::write(inside.join("real/secret"), b"public").unwrap();
    symlink("../out", inside.join("trap")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut found, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(inside.join("real"), inside.join("d")).unwrap();
                fs::rename(inside.join("d"), inside.join("real")).unwrap();
                fs::rename(inside.join("trap"), inside.join("d")).unwrap();
                fs::rename(inside.join("d"), inside.join("trap")).unwrap();
            }
        });
        let mut c = client(&all, true);
        let w = Writer::default;
        for turn in 0..40_000u32 {
            match c.contents(&[b"d", b"secret"]) {
                Ok(data) => {
                    assert_eq!(data, b"public");
                    found += 1;
                }
                Err(_) => refused += 1,
            }
            if c.walk(ROOT, 1, &[b"d"]) == Ok(1) {
                c.call(kind::MKDIR, w().u32(1).text(b"planted").u32(0o755).u32(0))
                    .ok();
                c.call(kind::UNLINKAT, w().u32(1).text(b"planted").u32(0x200))
                    .ok();
                c.call(kind::SYMLINK, w().u32(1).text(b"link").text(b"x").u32(0))
                    .ok();
                c.call(kind::UNLINKAT, w().u32(1).text(b"link").u32(0)).ok();
                c.clunk(1).unwrap();
            }
            if turn > 2000 && found > 100 && refused > 100 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(found > 0 && refused > 0, "{found} {refused}");
    let outside: Vec<_> = fs::read_dir(all.path().join("out"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(outside, ["secret"]);
}

#[test]
fn a_directory_that_was_moved_out_is_out_of_reach() {
    let all = shared();
    let mut c = client(&all, true);
    c.walk(ROOT, 1, &[b"sub"]).unwrap();
    c.walk(ROOT, 2, &[b"sub", b"b"]).unwrap();
    fs::rename(all.path().join("in/sub"), all.path().join("out/sub")).unwrap();
    assert_eq!(c.walk(1, 3, &[b"b"]), Err(ENOENT));
    assert_eq!(c.walk(1, 3, &[b"..", b"a"]), Ok(2));
    assert_eq!(c.open(2, 0), Err(ENOENT));
    assert_eq!(c.create(1, b"planted", WRONLY, 0o644), Err(ENOENT));
}
