// SPDX-License-Identifier: Apache-2.0
//! Which system calls a worker makes. Found by running the guests of the test suite; those of other C libraries and of
//! Python's other versions are added when somebody reports the name that the log says.

use libc::{c_long, *};

/// Always allowed: they concern this process, and files that it has.
pub const ALLOWED: &[c_long] = &[
    // files that are open
    SYS_read,
    SYS_readv,
    SYS_pread64,
    SYS_preadv,
    SYS_preadv2,
    SYS_write,
    SYS_writev,
    SYS_pwrite64,
    SYS_pwritev,
    SYS_pwritev2,
    SYS_lseek,
    SYS_close,
    SYS_fstat,
    SYS_fstatfs,
    SYS_flock,
    SYS_sync_file_range,
    SYS_fsync,
    SYS_fdatasync,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_dup,
    SYS_eventfd2,
    SYS_ppoll,
    SYS_pselect6,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    // sockets that are connected
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_sendto,
    SYS_sendmsg,
    SYS_shutdown,
    SYS_getsockname,
    SYS_getpeername,
    SYS_getsockopt,
    // memory
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_membarrier,
    SYS_memfd_create,
    // threads and signals
    SYS_futex,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_set_tid_address,
    SYS_exit,
    SYS_exit_group,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sched_setaffinity,
    SYS_getcpu,
    SYS_gettid,
    SYS_getpid,
    SYS_getppid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_restart_syscall,
    // time and the host
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_getrandom,
    SYS_getrusage,
    SYS_sysinfo,
    SYS_uname,
];

/// As above, calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
pub const ALLOWED_OLD: &[c_long] = &[SYS_poll, SYS_select, SYS_epoll_wait, SYS_time, SYS_getrlimit];
#[cfg(not(target_arch = "x86_64"))]
pub const ALLOWED_OLD: &[c_long] = &[];

/// Allowed to who serves directories: files are looked for by `openat2` alone, which is told not to leave them.
pub const READ_NAMES: &[c_long] = &[SYS_openat2, SYS_readlinkat, SYS_getdents64];

/// Allowed to who serves directories that are written, too. landlock has no say in who changes modes, owners and times.
pub const WRITE_NAMES: &[c_long] = &[
    SYS_mkdirat,
    SYS_symlinkat,
    SYS_linkat,
    SYS_renameat,
    SYS_unlinkat,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchownat,
    SYS_utimensat,
];

/// As above, calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
pub const WRITE_NAMES_OLD: &[c_long] = &[SYS_chmod];
#[cfg(not(target_arch = "x86_64"))]
pub const WRITE_NAMES_OLD: &[c_long] = &[];

/// Fail with EACCES: libraries look for files in passing (a module, the time zone, a traceback's source), and go on
/// without them.
pub const REFUSED: &[c_long] = &[
    SYS_openat,
    SYS_openat2,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlinkat,
    SYS_getcwd,
    SYS_statfs,
];

/// As above, calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
pub const REFUSED_OLD: &[c_long] = &[SYS_open, SYS_creat, SYS_stat, SYS_lstat, SYS_access, SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
pub const REFUSED_OLD: &[c_long] = &[];

/// Commands of ioctl: of terminals that are none, flags, and block devices.
pub const IOCTLS: &[u64] = &[TCGETS, FIONBIO, FIOCLEX, 0x8008_1272, 0x1268, 0x1277, 0x127f];

/// Those that give a terminal other settings, and ask for them as newer C libraries do.
pub const TERMINAL_IOCTLS: &[u64] = &[TCSETS, TCSETSW, TCSETSF, TCGETS2, TCSETS2, TCSETSW2, TCSETSF2];

/// Commands of fcntl: flags, copies, and locks of open files.
pub const FCNTLS: &[u64] = &[
    F_DUPFD as u64,
    F_DUPFD_CLOEXEC as u64,
    F_GETFD as u64,
    F_SETFD as u64,
    F_GETFL as u64,
    F_SETFL as u64,
    F_OFD_SETLK as u64,
    F_OFD_GETLK as u64,
];

/// Of prctl: a thread's name, and what is asked for again with each filter.
pub const PRCTLS: &[u64] = &[PR_SET_NAME as u64, PR_GET_NAME as u64, PR_SET_NO_NEW_PRIVS as u64];
