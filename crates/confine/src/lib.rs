// SPDX-License-Identifier: Apache-2.0
//! A process gives up what it does not need: `landlock` files, sockets and signals to others, `seccomp` all system calls but
//! those in `calls`. Nothing gives them back, and threads and children have no more than who started them. What serves
//! shared directories keeps what that needs, below these directories; what connects for a guest, the sockets for that.

mod calls;
mod files;
mod report;
mod seccomp;

use std::os::fd::BorrowedFd;

pub use files::landlock_version;

/// A directory below which files are opened.
#[derive(Debug, Clone, Copy)]
pub struct Directory<'a> {
    /// A descriptor of it, by `O_PATH` perhaps.
    pub fd: BorrowedFd<'a>,
    /// Files are written, made, renamed and removed, too.
    pub writable: bool,
}

/// What is done with files by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Names {
    Nothing,
    Read,
    Write,
}

impl Names {
    fn of(directories: &[Directory<'_>]) -> Names {
        let wanted = directories.iter().map(|directory| match directory.writable {
            true => Names::Write,
            false => Names::Read,
        });
        wanted.max().unwrap_or(Names::Nothing)
    }
}

/// What is done with sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sockets {
    /// Those that are there are used.
    Given,
    /// Those of TCP, UDP and echo requests are made and connected.
    Connected,
}

/// What a process goes on to do.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    names: Names,
    sockets: Sockets,
    /// Its terminal's settings are changed.
    terminal: bool,
    /// Shared memory is mapped to be read and run.
    makes_code: bool,
}

/// What could not be done. The rest is in force all the same.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// landlock: {0}
    #[error("landlock: {0}")]
    Landlock(String),
    /// seccomp: {0}
    #[error("seccomp: {0}")]
    Seccomp(String),
}

/// Confines the calling process; to be called while it has one thread. Returns what this kernel, or whoever confined
/// this process before, did not let happen.
///
/// `directories`: what is left of the host's files. `terminal`: its settings are changed. `makes_code`: code is made, and
/// mapped a second time to be run.
pub fn confine(directories: &[Directory<'_>], terminal: bool, makes_code: bool) -> Vec<Missing> {
    let wanted = Wanted {
        names: Names::of(directories),
        sockets: Sockets::Given,
        terminal,
        makes_code,
    };
    give_up(directories, wanted)
}

/// As `confine`, what makes a guest's flows sockets of the host's: no file is left, no socket of another kind, and none
/// that others could connect to but those that it has.
pub fn confine_network() -> Vec<Missing> {
    let wanted = Wanted {
        names: Names::Nothing,
        sockets: Sockets::Connected,
        terminal: false,
        makes_code: false,
    };
    give_up(&[], wanted)
}

fn give_up(directories: &[Directory<'_>], wanted: Wanted) -> Vec<Missing> {
    let files = files::give_up(directories, wanted.sockets).map_err(Missing::Landlock);
    let calls = seccomp::restrict(wanted);
    let calls = calls.map_err(|e| Missing::Seccomp(e.to_string()));
    [files.err(), calls.err()].into_iter().flatten().collect()
}
