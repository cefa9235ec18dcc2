// SPDX-License-Identifier: Apache-2.0
//! Xen's error numbers (`errno.h`).

/// Why a request was refused. A guest sees [`Errno::rc`]. `Display` gives the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Errno {
    /// Not permitted.
    EPERM = 1,
    /// No such thing.
    ENOENT = 2,
    /// No such domain.
    ESRCH = 3,
    /// Out of memory.
    ENOMEM = 12,
    /// Permission denied.
    EACCES = 13,
    /// A bad guest address.
    EFAULT = 14,
    /// In use as something else, or by somebody else.
    EBUSY = 16,
    /// It is there already.
    EEXIST = 17,
    /// No such device or register.
    ENODEV = 19,
    /// An invalid argument.
    EINVAL = 22,
    /// No room is left.
    ENOSPC = 28,
    /// An argument out of range.
    ERANGE = 34,
    /// No such operation here.
    ENOSYS = 38,
    /// An operation that is known and not supported.
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
