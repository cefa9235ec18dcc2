// SPDX-License-Identifier: Apache-2.0
//! Xen's error numbers (`errno.h`).

/// Why a request was refused. A guest sees [`Errno::rc`]. `Display` gives the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Errno {
    EPERM = 1,
    ENOENT = 2,
    ESRCH = 3,
    ENOMEM = 12,
    EACCES = 13,
    EFAULT = 14,
    EBUSY = 16,
    EEXIST = 17,
    ENODEV = 19,
    EINVAL = 22,
    ENOSPC = 28,
    ERANGE = 34,
    ENOSYS = 38,
    EOPNOTSUPP = 95,
}

impl Errno {
    /// Every number that the machine gives.
    pub const ALL: [Errno; 14] = [
        Errno::EPERM,
        Errno::ENOENT,
        Errno::ESRCH,
        Errno::ENOMEM,
        Errno::EACCES,
        Errno::EFAULT,
        Errno::EBUSY,
        Errno::EEXIST,
        Errno::ENODEV,
        Errno::EINVAL,
        Errno::ENOSPC,
        Errno::ERANGE,
        Errno::ENOSYS,
        Errno::EOPNOTSUPP,
    ];

    /// The positive number.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// What a hypercall that fails so returns: `-errno`.
    pub const fn rc(self) -> i64 {
        -(self as i64)
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Errno {}

/// What a hypercall returns in its register: 0, or `-errno`.
pub fn rc(result: Result<(), Errno>) -> i64 {
    result.map_or_else(Errno::rc, |()| 0)
}
