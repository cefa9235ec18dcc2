// SPDX-License-Identifier: Apache-2.0
//! Says which system call was not allowed, and ends the process: whoever runs it with another C library or kernel can
//! report the name.
// A handler of a signal is told where by the kernel, and writes with plain calls.
#![allow(unsafe_code)]

use std::io;
use syscalls::Sysno;

/// `si_code` of what seccomp sends.
const SYS_SECCOMP: libc::c_int = 1;
/// Where `siginfo_t` has the number of the system call.
const SI_SYSCALL: usize = 24;
/// As if SIGSYS had ended it, to a shell.
const STATUS: libc::c_int = 128 + libc::SIGSYS;

/// More than the longest line has: names of calls have up to 28 bytes.
const LINE_MAX: usize = 160;

/// Sets the handler of SIGSYS.
pub fn install() -> io::Result<()> {
    // SAFETY: all zeros are a `sigaction` without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: `handler` has the signature that SA_SIGINFO asks for, and only makes calls that a handler may.
    match unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn handler(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a `siginfo_t`, which has room for this at its place.
    let (code, call) = unsafe {
        let call = info.cast::<u8>().add(SI_SYSCALL).cast::<libc::c_int>();
        ((*info).si_code, call.read_unaligned())
    };
    if code == SYS_SECCOMP {
        let mut room = [0; LINE_MAX];
        say(line(call, &mut room));
    }
    // SAFETY: ends the process, and nothing of it runs any more.
    unsafe { libc::_exit(STATUS) }
}

/// The line that is said. In one piece, because other threads may say theirs. Without allocation.
fn line(call: libc::c_int, room: &mut [u8; LINE_MAX]) -> &[u8] {
    let mut digits = [0; 10];
    let number = decimal(call, &mut digits);
    let parts: [&[u8]; 5] = [
        b"a confined process made a system call that is not allowed: ",
        name(call).as_bytes(),
        b" (",
        number,
        b")\n",
    ];
    let mut used = 0;
    for (to, from) in room.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
        used += 1;
    }
    room.get(..used).unwrap_or_default()
}

fn name(call: libc::c_int) -> &'static str {
    let known = usize::try_from(call).ok().and_then(Sysno::new);
    known.map_or("unknown", |known| known.name())
}

/// Without allocation.
fn decimal(number: libc::c_int, room: &mut [u8; 10]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut start = room.len();
    for (at, digit) in room.iter_mut().enumerate().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        start = at;
        if rest == 0 {
            break;
        }
    }
    room.get(start..).unwrap_or_default()
}

fn say(text: &[u8]) {
    // SAFETY: `text` is as long as it says. What cannot be written is lost.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_calls_are_named() {
        let mut room = [0; 10];
        assert_eq!(decimal(0, &mut room), b"0");
        assert_eq!(decimal(1_234_567_890, &mut room), b"1234567890");
        assert_eq!(name(libc::SYS_ptrace as libc::c_int), "ptrace");
        assert_eq!(name(-1), "unknown");
    }

    #[test]
    fn every_line_fits() {
        for call in (0..1000).chain([libc::c_int::MAX]) {
            let mut room = [0; LINE_MAX];
            let said = line(call, &mut room);
            assert!(said.ends_with(b")\n") && said.len() < LINE_MAX);
        }
        let mut room = [0; LINE_MAX];
        let said = line(libc::SYS_ptrace as libc::c_int, &mut room);
        let expected = format!(
            "a confined process made a system call that is not allowed: ptrace ({})\n",
            libc::SYS_ptrace
        );
        assert_eq!(said, expected.as_bytes());
    }
}
