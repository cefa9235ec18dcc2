// SPDX-License-Identifier: Apache-2.0
//! landlock: no file can be opened, made or removed but below the directories that are left, no port bound or connected
//! to where that is not what the process is for, no process outside signalled.
// The version of the kernel's interface is asked for by a system call.
#![allow(unsafe_code)]

use crate::{Directory, Sockets};
use landlock::{
    make_bitflags, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, ABI,
};

/// What is asked for; kernels that know less do less.
const WANTED: ABI = ABI::V6;

/// The kernel's version of landlock's interface; 0: there is none.
pub fn landlock_version() -> u32 {
    const CREATE_RULESET_VERSION: libc::c_ulong = 1;
    let nothing: *const libc::c_void = std::ptr::null();
    // SAFETY: with this flag the call reads and writes no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            nothing,
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Neither programs nor anything but files, directories and symbolic links.
fn allowed(directory: &Directory<'_>) -> BitFlags<AccessFs> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let write = make_bitflags!(AccessFs::{
        WriteFile | Truncate | RemoveDir | RemoveFile | MakeDir | MakeReg | MakeSym | Refer
    });
    match directory.writable {
        true => read | write,
        false => read,
    }
}

/// Allows nothing but these directories. `Err`: why it has no effect.
pub fn give_up(directories: &[Directory<'_>], sockets: Sockets) -> Result<(), String> {
    let status = rules(directories, sockets).map_err(|e| e.to_string())?;
    match status {
        RulesetStatus::NotEnforced => Err("this kernel has none".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

fn rules(directories: &[Directory<'_>], sockets: Sockets) -> Result<RulesetStatus, RulesetError> {
    let ports = match sockets {
        Sockets::Given => AccessNet::from_all(WANTED),
        Sockets::Connected => AccessNet::BindTcp.into(),
    };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(ports)?
        .scope(Scope::from_all(WANTED))?
        .create()?;
    // What no rule allows is not allowed.
    for directory in directories {
        rules = rules.add_rule(PathBeneath::new(directory.fd, allowed(directory)))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}
