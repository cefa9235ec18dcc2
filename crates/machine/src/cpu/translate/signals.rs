// SPDX-License-Identifier: Apache-2.0
//! Signals of the host's that translated code raises. It raises none unless the translator has a bug: the process dies of it, as it would, and
//! says before that which guest instruction it was. Whoever had the signal before gets it then.
// Signal handlers look at what they interrupt.
#![allow(unsafe_code)]

use super::Translator;
use crate::cpu::Cpu;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::fmt::{self, Write};
use std::sync::OnceLock;

/// Those that instructions raise, and their names.
const SIGNALS: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGTRAP, "SIGTRAP"),
];

/// Registers as the host saves them, in the order of their numbers.
const REGISTERS: [(c_int, &str); 16] = [
    (libc::REG_RAX, "rax"),
    (libc::REG_RCX, "rcx"),
    (libc::REG_RDX, "rdx"),
    (libc::REG_RBX, "rbx"),
    (libc::REG_RSP, "rsp"),
    (libc::REG_RBP, "rbp"),
    (libc::REG_RSI, "rsi"),
    (libc::REG_RDI, "rdi"),
    (libc::REG_R8, "r8"),
    (libc::REG_R9, "r9"),
    (libc::REG_R10, "r10"),
    (libc::REG_R11, "r11"),
    (libc::REG_R12, "r12"),
    (libc::REG_R13, "r13"),
    (libc::REG_R14, "r14"),
    (libc::REG_R15, "r15"),
];

/// Bytes of a thread's stack for signals: translated code's own may be what is wrong.
const STACK: usize = 64 << 10;

/// Bytes of code that are shown.
const SHOWN: usize = 16;

/// What was done with these signals before.
static BEFORE: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();

thread_local! {
    /// The CPU whose translated code this thread runs.
    static RUNNING: Cell<*const Cpu> = const { Cell::new(std::ptr::null()) };
    static OWN_STACK: SignalStack = SignalStack::new();
}

/// As long as it lives this thread runs translated code.
pub(super) struct Running;

impl Running {
    pub(super) fn new(cpu: *const Cpu) -> Running {
        OWN_STACK.with(|_| ());
        RUNNING.set(cpu);
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(std::ptr::null());
    }
}

/// The stack of this thread's signal handlers, unless somebody else has given it one.
struct SignalStack(Option<Box<[u8]>>);

impl SignalStack {
    fn new() -> SignalStack {
        let mut memory = vec![0; STACK].into_boxed_slice();
        let own = libc::stack_t {
            ss_sp: memory.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: STACK,
        };
        let mut other = none();
        // SAFETY: `other` is written to; `own` is memory that lives until the stack is taken away again.
        let set = unsafe {
            libc::sigaltstack(std::ptr::null(), &mut other) == 0
                && other.ss_flags & libc::SS_DISABLE != 0
                && libc::sigaltstack(&own, std::ptr::null_mut()) == 0
        };
        SignalStack(set.then_some(memory))
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        if self.0.is_some() {
            // SAFETY: it is this thread's, which is at its end. If it fails, the stack is in use, and the thread ends in a signal handler.
            unsafe { libc::sigaltstack(&none(), std::ptr::null_mut()) };
        }
    }
}

fn none() -> libc::stack_t {
    libc::stack_t {
        ss_sp: std::ptr::null_mut(),
        ss_flags: libc::SS_DISABLE,
        ss_size: 0,
    }
}

/// From now on this process says what translated code it dies in.
pub(super) fn install() {
    let mut first = false;
    BEFORE.get_or_init(|| {
        first = true;
        SIGNALS.map(|(signal, _)| {
            // SAFETY: zeroes are a valid action, which is written to.
            unsafe {
                let mut before: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &mut before);
                before
            }
        })
    });
    for (signal, _) in SIGNALS.into_iter().filter(|_| first) {
        // SAFETY: zeroes are a valid action, with no signals in its mask; the handler has the form that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Says where it was, if that is translated code, and gives the signal back to whoever had it.
///
/// # Safety
/// For the kernel to call.
unsafe extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: what the kernel gives. The CPU is that of the code that was interrupted, which does not go on: nobody else looks at it.
    unsafe {
        let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let cpu = RUNNING.try_with(Cell::get).unwrap_or(std::ptr::null());
        if let Some(t) = cpu.as_ref().and_then(|c| c.code.translator.as_deref()) {
            let mut text = Text::default();
            if t.tell(&mut text, signal, (*info).si_addr() as u64, registers)
                .is_some()
            {
                libc::write(libc::STDERR_FILENO, text.bytes.as_ptr().cast(), text.len);
            }
        }
        let mut known = SIGNALS.iter().zip(BEFORE.get().into_iter().flatten());
        if let Some((_, before)) = known.find(|(s, _)| s.0 == signal) {
            give_back(signal, before, info, context);
        }
    }
}

/// What was done with a signal before is done now.
///
/// # Safety
/// `before` is what the kernel had for it, the rest what it has called a handler with.
unsafe fn give_back(
    signal: c_int,
    before: &libc::sigaction,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: the caller's promise: whoever is called has the form that the flags say.
    unsafe {
        if matches!(before.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
            // What the instruction does not raise once more: what somebody has sent, and traps, which come after it.
            libc::sigaction(signal, before, std::ptr::null_mut());
            if (*info).si_code <= 0 || signal == libc::SIGTRAP {
                libc::raise(signal);
            }
        } else if before.sa_flags & libc::SA_SIGINFO != 0 {
            let other: unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                std::mem::transmute(before.sa_sigaction);
            other(signal, info, context);
        } else {
            let other: unsafe extern "C" fn(c_int) = std::mem::transmute(before.sa_sigaction);
            other(signal);
        }
    }
}

/// Text without memory of its own.
struct Text {
    bytes: [u8; 1024],
    len: usize,
}

impl Default for Text {
    fn default() -> Text {
        Text {
            bytes: [0; 1024],
            len: 0,
        }
    }
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self
            .bytes
            .get_mut(self.len..self.len + s.len())
            .ok_or(fmt::Error)?;
        room.copy_from_slice(s.as_bytes());
        self.len += s.len();
        Ok(())
    }
}

impl Translator {
    /// Which guest instruction the code at an address of the host's is of, if it is translated code.
    fn tell(&self, to: &mut Text, signal: c_int, address: u64, registers: &[i64]) -> Option<()> {
        let of = |n: c_int| registers.get(n as usize).map_or(0, |&r| r as u64);
        let at = of(libc::REG_RIP);
        let code = self
            .memory
            .code(at, 1)
            .and_then(|_| self.memory.code(at, SHOWN))
            .or_else(|| self.memory.code(at, 1))?;
        let name = SIGNALS.iter().find(|s| s.0 == signal).map_or("a signal", |s| s.1);
        writeln!(
            to,
            "domzero: a fault of the translator: {name} in translated code at {at:#x}, address {address:#x}"
        )
        .ok()?;
        let n = self.blocks.partition_point(|b| b.far <= at);
        match n
            .checked_sub(1)
            .and_then(|n| self.blocks.get(n))
            .filter(|_| self.memory.is_hot(at))
        {
            Some(b) => {
                let from = at - b.far;
                let n = b.places.partition_point(|&(host, _)| u64::from(host) <= from);
                let place = n.checked_sub(1).and_then(|n| b.places.get(n));
                let first = b.places.first().map_or(0, |p| p.1);
                write!(to, "  frame {:#x}, block at offset {first:#x}, ", b.mfn.0).ok()?;
                match place {
                    Some((_, offset)) => writeln!(to, "instruction at offset {offset:#x}").ok()?,
                    None => writeln!(to, "its entry").ok()?,
                }
            }
            None => writeln!(to, "  in code apart, which seldom runs").ok()?,
        }
        for (n, (register, name)) in REGISTERS.into_iter().enumerate() {
            let end = if n % 4 == 3 { "\n" } else { "" };
            write!(to, "  {name:>3}={:016x}{end}", of(register)).ok()?;
        }
        write!(to, "  code").ok()?;
        code.iter().try_for_each(|byte| write!(to, " {byte:02x}")).ok()?;
        writeln!(to, "\n  --engine interpreter does without the translator").ok()
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::engine::TranslatorOptions;
    use crate::cpu::translate::translator_available;
    use crate::testing::{TestVm, CODE};
    use iced_x86::code_asm::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Set in the process that is to die.
    const DIES: &str = "DOMZERO_TEST_DIES";

    /// Runs a translated loop, one instruction of which has become one that there is not.
    fn die() {
        let program = (|| {
            let mut a = CodeAssembler::new(64)?;
            let mut top = a.create_label();
            a.mov(ecx, 1000)?;
            a.set_label(&mut top)?;
            a.xor(eax, eax)?;
            a.add(rbx, 0x11)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.syscall()?;
            a.assemble(CODE)
        })();
        let mut vm = TestVm::new(&program.expect("code that can be assembled"));
        let options = TranslatorOptions {
            threshold: 2,
            ..TranslatorOptions::default()
        };
        vm.cpu.set_translator(Some(options)).expect("a translator");
        vm.run_ok(100);
        let t = vm.cpu.code.translator.as_mut().expect("a translator");
        // add rbx, 0x11 becomes ud2.
        assert!(t.replace([0x48, 0x83, 0xc3, 0x11], [0x0f, 0x0b, 0x90, 0x90]) > 0);
        vm.run_to_trap();
    }

    #[test]
    fn what_translated_code_dies_of_is_said_and_the_process_dies_of_it() {
        if std::env::var_os(DIES).is_some() {
            return die();
        }
        if translator_available().is_err() {
            return;
        }
        let own = std::env::current_exe().expect("this program");
        let name =
            "cpu::translate::signals::tests::what_translated_code_dies_of_is_said_and_the_process_dies_of_it";
        let made = Command::new(own)
            .args(["--exact", name, "--nocapture"])
            .env(DIES, "1")
            .output();
        let made = made.expect("a process");
        let said = String::from_utf8_lossy(&made.stderr);
        assert_eq!(made.status.signal(), Some(libc::SIGILL), "{said}");
        // The loop begins behind mov ecx, 1000; the instruction is its second one.
        for part in [
            "SIGILL in translated code",
            "block at offset 0x5, instruction at offset 0x7",
            "code 0f 0b 90 90",
            "rbx=",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
