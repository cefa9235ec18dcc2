// SPDX-License-Identifier: Apache-2.0
//! seccomp: filters of system calls. Each is asked, and the strictest answer counts: one refuses in silence, one says that
//! `clone3` does not exist, whose flags no filter can read (C libraries then use `clone`), and one ends the process for all
//! that is not listed.

use crate::{calls, report, Names, Sockets, Wanted};
use libc::c_long;
use seccompiler::{
    apply_filter_all_threads, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::env::consts::ARCH;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the filter cannot be made: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("{0}")]
    Kernel(#[from] seccompiler::Error),
    #[error("the handler of SIGSYS: {0}")]
    Handler(#[from] std::io::Error),
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

const EACCES: u32 = libc::EACCES as u32;
const ENOSYS: u32 = libc::ENOSYS as u32;
const WORD: SeccompCmpArgLen = SeccompCmpArgLen::Dword;

/// Installs them for all threads, those that come, too.
pub fn restrict(wanted: Wanted) -> Result<(), Error> {
    let filters = [
        program(
            refused(wanted)?,
            SeccompAction::Allow,
            SeccompAction::Errno(EACCES),
        )?,
        program(
            [(libc::SYS_clone3, Vec::new())].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(ENOSYS),
        )?,
        // Last: it does not allow to install others.
        program(allowed(wanted)?, SeccompAction::Trap, SeccompAction::Allow)?,
    ];
    report::install()?;
    for filter in &filters {
        apply_filter_all_threads(filter)?;
    }
    Ok(())
}

fn program(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, Error> {
    let filter = SeccompFilter::new(rules, otherwise, matched, ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

fn argument(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(index, WORD, op, value)?)
}

fn whole_argument(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(index, SeccompCmpArgLen::Qword, op, value)?)
}

/// An argument that is none of these.
fn other_than(index: u8, values: &[u64]) -> Result<Vec<SeccompRule>, Error> {
    let conditions = values
        .iter()
        .map(|value| argument(index, SeccompCmpOp::Ne, *value));
    Ok(vec![SeccompRule::new(conditions.collect::<Result<_, _>>()?)?])
}

fn bits(index: u8, mask: u64, value: u64) -> Result<Vec<SeccompRule>, Error> {
    Ok(vec![SeccompRule::new(vec![argument(
        index,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )?])?])
}

/// What serving names needs beside `calls::ALLOWED`.
fn by_name(names: Names) -> impl Iterator<Item = c_long> {
    let read: &[c_long] = if names >= Names::Read {
        calls::READ_NAMES
    } else {
        &[]
    };
    let write: [&[c_long]; 2] = match names {
        Names::Write => [calls::WRITE_NAMES, calls::WRITE_NAMES_OLD],
        Names::Read | Names::Nothing => [&[], &[]],
    };
    read.iter().chain(write.into_iter().flatten()).copied()
}

/// What fails in silence.
fn refused(wanted: Wanted) -> Result<Rules, Error> {
    const EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;
    const EXEC: u64 = libc::PROT_EXEC as u64;
    const CODE: u64 = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    const SHARED: u64 = libc::MAP_SHARED as u64;
    let mut ioctls = calls::IOCTLS.to_vec();
    if wanted.terminal {
        ioctls.extend(calls::TERMINAL_IOCTLS);
    }
    let mut rules = Rules::new();
    for call in calls::REFUSED.iter().chain(calls::REFUSED_OLD) {
        rules.insert(*call, Vec::new());
    }
    for call in by_name(wanted.names) {
        rules.remove(&call);
    }
    // Of an open file only, which is how C libraries spell fstat.
    rules.insert(libc::SYS_newfstatat, bits(3, EMPTY_PATH, 0)?);
    rules.insert(libc::SYS_statx, bits(2, EMPTY_PATH, 0)?);
    let executable = || argument(2, SeccompCmpOp::MaskedEq(EXEC), EXEC);
    let other_code = match wanted.makes_code {
        // Never to be written, at no particular address, and of a file: all files here were given, or are memory.
        true => vec![
            SeccompRule::new(vec![executable()?, argument(2, SeccompCmpOp::Ne, CODE)?])?,
            SeccompRule::new(vec![executable()?, argument(3, SeccompCmpOp::Ne, SHARED)?])?,
        ],
        false => vec![SeccompRule::new(vec![executable()?])?],
    };
    rules.insert(libc::SYS_mmap, other_code);
    rules.insert(libc::SYS_mprotect, bits(2, EXEC, EXEC)?);
    rules.insert(libc::SYS_ioctl, other_than(1, &ioctls)?);
    rules.insert(libc::SYS_fcntl, other_than(1, calls::FCNTLS)?);
    rules.insert(libc::SYS_prctl, other_than(0, calls::PRCTLS)?);
    // Limits are read, and of this process.
    rules.insert(
        libc::SYS_prlimit64,
        vec![
            SeccompRule::new(vec![argument(0, SeccompCmpOp::Ne, 0)?])?,
            SeccompRule::new(vec![whole_argument(2, SeccompCmpOp::Ne, 0)?])?,
        ],
    );
    Ok(rules)
}

/// What does not end the process: what is refused above, and what is really allowed.
fn allowed(wanted: Wanted) -> Result<Rules, Error> {
    let mut rules = Rules::new();
    rules.extend(refused(wanted)?.into_keys().map(|call| (call, Vec::new())));
    for call in calls::ALLOWED.iter().chain(calls::ALLOWED_OLD) {
        rules.insert(*call, Vec::new());
    }
    rules.extend(by_name(wanted.names).map(|call| (call, Vec::new())));
    if wanted.sockets == Sockets::Connected {
        rules.extend(connected()?);
    }
    rules.insert(libc::SYS_clone3, Vec::new());
    const UNIX: u64 = libc::AF_UNIX as u64;
    rules.insert(
        libc::SYS_socketpair,
        vec![SeccompRule::new(vec![argument(0, SeccompCmpOp::Eq, UNIX)?])?],
    );
    const THREAD: u64 = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, bits(0, THREAD, THREAD)?);
    let own = u64::from(std::process::id());
    rules.insert(
        libc::SYS_tgkill,
        vec![SeccompRule::new(vec![argument(0, SeccompCmpOp::Eq, own)?])?],
    );
    Ok(rules)
}

/// What connects sockets, and takes connections of those that listen.
fn connected() -> Result<Rules, Error> {
    /// The kind of a socket, without its flags.
    const KIND: u64 = 0xf;
    let kinds = [
        (libc::AF_INET, libc::SOCK_STREAM),
        (libc::AF_INET, libc::SOCK_DGRAM),
    ];
    let kinds = kinds.into_iter().chain([
        (libc::AF_INET6, libc::SOCK_STREAM),
        (libc::AF_INET6, libc::SOCK_DGRAM),
    ]);
    let mut sockets = Vec::new();
    for (family, kind) in kinds {
        sockets.push(SeccompRule::new(vec![
            argument(0, SeccompCmpOp::Eq, family as u64)?,
            argument(1, SeccompCmpOp::MaskedEq(KIND), kind as u64)?,
        ])?);
    }
    let mut options = Vec::new();
    for (level, option) in [
        (libc::SOL_SOCKET, libc::SO_LINGER),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    ] {
        options.push(SeccompRule::new(vec![
            argument(1, SeccompCmpOp::Eq, level as u64)?,
            argument(2, SeccompCmpOp::Eq, option as u64)?,
        ])?);
    }
    Ok([
        (libc::SYS_socket, sockets),
        (libc::SYS_setsockopt, options),
        (libc::SYS_connect, Vec::new()),
        (libc::SYS_accept4, Vec::new()),
    ]
    .into())
}
