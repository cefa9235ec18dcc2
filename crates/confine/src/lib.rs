// SPDX-License-Identifier: Apache-2.0
//! A process gives up what it does not need: `landlock` files, sockets and signals to others, `seccomp` all system calls but
//! those in `calls`. Nothing gives them back, and threads and children have no more than who started them.

mod calls;
mod files;
mod report;
mod seccomp;

pub use files::landlock_version;

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
pub fn confine() -> Vec<Missing> {
    let files = files::give_up().map_err(Missing::Landlock);
    let calls = seccomp::restrict().map_err(|e| Missing::Seccomp(e.to_string()));
    [files.err(), calls.err()].into_iter().flatten().collect()
}
