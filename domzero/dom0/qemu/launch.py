# SPDX-License-Identifier: Apache-2.0
"""`python -I -S launch.py PARENT FILES QEMU ...`: takes from itself what a QEMU does not need, and becomes it.

FILES: numbers of descriptors that are opened again by their names, with commas; `-`: it stays unconfined.

Imports nothing of Domzero, and little else: it is there for some milliseconds. It is in a session of its own already.
What is taken away here stays away over the change of programs: landlock leaves the programs and libraries of the system
to be read, KVM, and these files; seccomp leaves no new sockets, no signals to others, and no changes of files that are
not open. QEMU's own filter (`-sandbox`) comes on top, when it has started.
"""

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
OOM_SCORE = 500
NICE = 5
FILES = 4096
UNCONFINED = "-"
NOT_CONFINED = "not confined by "
"""Begins a line on stderr."""

# linux/landlock.h
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _IOCTL_DEV = 1, 2, 4, 8, 1 << 15
_RIGHTS = ((1, 13), (2, 14), (3, 15), (5, 16))
"""How many rights of files there are since which version of landlock."""
_NET, _SCOPES = 3, 3
READABLE = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
SINGLE = ("/etc/ld.so.cache", "/etc/localtime", "/dev/zero", "/dev/urandom")
WRITTEN = ("/dev/kvm", "/dev/null")
"""By a lock of the second a QEMU finds out whether it can lock images."""

# linux/seccomp.h, linux/filter.h, linux/audit.h, and asm/unistd_64.h
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_LOAD, _EQUAL, _NOT_LESS, _RETURN = 0x20, 0x15, 0x35, 0x06
_X86_64, _X32 = 0xC000003E, 0x40000000
_TO_ITSELF = (62, 234)
"""kill, tgkill"""
_REFUSED = (
    *(41, 42, 49, 50),  # socket, connect, bind, listen
    *(200, 424, 434, 438, 101, 310, 311),  # tkill, pidfd_*, ptrace, process_vm_*
    *(425, 426, 427),  # io_uring_*, which does what is refused here
    *(90, 268, 452, 92, 94, 260, 132, 235, 261, 280),  # modes, owners and times of files by their names
    *(188, 189, 190, 197, 198, 199, 463, 466),  # attributes of files
    *(272, 308, 250, 248, 249, 321, 298, 323, 135),  # namespaces, keys, bpf, perf, userfaultfd
)


def main(arguments: list[str]) -> None:
    """Becomes QEMU, which ends with Domain 0."""
    parent, files, program = int(arguments[0]), arguments[1], arguments[2]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    for name, value in (("oom_score_adj", OOM_SCORE), ("coredump_filter", 0)):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(str(value))
        except OSError:
            pass
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.nice(NICE)
    if files != UNCONFINED:
        again = [int(number) for number in files.split(",") if number]
        _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _try("landlock", lambda: _give_up_files(libc, program, again))
        _try("seccomp", lambda: _give_up_calls(libc))
    os.execv(program, arguments[2:])


def _try(name: str, job: Callable[[], None]) -> None:
    """Goes on without what a kernel or a container does not let it have, and says so."""
    try:
        job()
    except OSError as error:
        os.write(2, f"{NOT_CONFINED}{name}: {error.strerror}\n".encode())


def _give_up_files(libc: ctypes.CDLL, program: str, files: list[int]) -> None:
    """landlock, as much as this kernel has."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        raise OSError(errno.ENOSYS, "this kernel has none")
    rights = (1 << max(count for since, count in _RIGHTS if version >= since)) - 1
    attributes = struct.pack("<QQQ", rights, _NET, _SCOPES)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _check(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))

    def allow(path: str, wanted: int) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # this system has none
        rule = struct.pack("<Qi", wanted & rights, fd)
        _check(libc.syscall(_ADD_RULE, ruleset, 1, rule, 0))
        os.close(fd)

    for path in (*READABLE, *_of(program)):
        allow(path, _EXECUTE | _READ_FILE | _READ_DIR)
    for path in SINGLE:
        allow(path, _READ_FILE)
    allow(os.path.realpath(program), _EXECUTE | _READ_FILE)
    for path in WRITTEN:
        allow(path, _READ_FILE | _WRITE_FILE | _IOCTL_DEV)
    for number in files:
        allow(f"/proc/self/fd/{number}", _READ_FILE)
    _check(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _of(program: str) -> list[str]:
    """Libraries and firmware of a QEMU that is not the system's: those beside its bin."""
    prefix, bin_ = os.path.split(os.path.dirname(os.path.realpath(program)))
    found = [os.path.join(prefix, name) for name in ("lib", "lib64", "share/qemu", "share/seabios")]
    return found if bin_ == "bin" else []


def _give_up_calls(libc: ctypes.CDLL) -> None:
    """seccomp: a list of what is refused, which QEMU's own lists go beyond in their parts."""
    if os.uname().machine != "x86_64":
        raise OSError(errno.ENOSYS, f"not known for {os.uname().machine}")
    words: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, _X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    checks = [(_NOT_LESS, _X32), *((_EQUAL, number) for number in (*_REFUSED, *_TO_ITSELF))]
    # Behind them: allowed; [the first argument is loaded; itself?; allowed]; refused.
    for at, (code, value) in enumerate(checks):
        left = len(checks) - at - 1
        words.append((code, left + (1 if value in _TO_ITSELF and code == _EQUAL else 4), 0, value))
    words += [
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, 16),
        (_EQUAL, 0, 1, os.getpid()),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *word) for word in words))
    filter_ = struct.pack("<HxxxxxxQ", len(words), ctypes.addressof(program))
    _check(libc.prctl(PR_SET_SECCOMP, 2, filter_, 0, 0))


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "confinement")
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
