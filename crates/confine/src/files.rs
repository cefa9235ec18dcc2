// SPDX-License-Identifier: Apache-2.0
//! landlock: no file can be opened, made or removed, no port bound or connected to, no process outside signalled.
// The version of the kernel's interface is asked for by a system call.
#![allow(unsafe_code)]

use landlock::{
    Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError, RulesetStatus,
    Scope, ABI,
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

/// Allows nothing. `Err`: why it has no effect.
pub fn give_up() -> Result<(), String> {
    let status = rules().map_err(|e| e.to_string())?;
    match status {
        RulesetStatus::NotEnforced => Err("this kernel has none".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

fn rules() -> Result<RulesetStatus, RulesetError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?;
    // No rule: nothing is allowed.
    Ok(rules.create()?.restrict_self()?.ruleset)
}
