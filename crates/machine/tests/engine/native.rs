// SPDX-License-Identifier: Apache-2.0
//! The host's own CPU: loads a whole state through a signal frame, runs the code, and reads the state back from the
//! frame of the signal that ends it. Hardly any assembly but one int3.
// Instructions run on the host.
#![allow(unsafe_code)]

use crate::state::{End, Page, State, CODE_PAGES, CODE_VA, DATA_VA, FX, GS_BASE, PAGES};
use std::sync::{Mutex, MutexGuard};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Enter,
    Run,
}

struct Shared {
    phase: Phase,
    state: State,
    end: End,
    host_gregs: [i64; 23],
    host_fx: [u8; FX],
    host_extended: Extended,
}

/// Of the XSAVE area in a signal frame: which components it has, and the upper halves of the ymm registers.
type Extended = (u64, [u128; 16]);

/// Where Linux says that an XSAVE area follows, and how.
const MAGIC: usize = 464;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FEATURES: usize = 472;
/// Offsets in that area.
const XSTATE_BV: usize = 512;
const YMM: usize = 576;
/// x87, SSE and AVX.
const ALL: u64 = 7;

/// The extended state of a signal frame, where the host has AVX.
///
/// # Safety
/// `fpregs` must be that of a signal frame.
unsafe fn extended(fpregs: *mut u8) -> Option<(*mut u64, *mut [u128; 16])> {
    // SAFETY: the first 512 bytes are there; the rest is if they say so.
    unsafe {
        let has = fpregs.add(MAGIC).cast::<u32>().read_unaligned() == FP_XSTATE_MAGIC1
            && fpregs.add(FEATURES).cast::<u64>().read_unaligned() & ALL == ALL;
        has.then(|| (fpregs.add(XSTATE_BV).cast(), fpregs.add(YMM).cast()))
    }
}

static LOCK: Mutex<()> = Mutex::new(());
static mut SHARED: *mut Shared = std::ptr::null_mut();

/// REG_R8.. order of the kernel's `gregs`, for our order of registers.
const GREG: [usize; 16] = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];
const RIP: usize = 16;
const EFL: usize = 17;
const SEGMENTS: usize = 18;
const ERR: usize = 19;
/// Linux's selectors of 32-bit code, and of data.
const CS32: i64 = 0x23;
const DS: u16 = 0x2b;
const TRAPNO: usize = 20;
const CR2: usize = 22;
const SIGNALS: [i32; 5] = [
    libc::SIGTRAP,
    libc::SIGSEGV,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGBUS,
];

extern "C" fn handler(sig: i32, _info: *mut libc::siginfo_t, ctx: *mut libc::c_void) {
    // SAFETY: clears AC, with which the kernel would let this handler run.
    unsafe { std::arch::asm!("pushfq", "and qword ptr [rsp], 0xfffffffffffbffff", "popfq") };
    // SAFETY: runs on the thread that holds LOCK and set SHARED; everything else means a crash of the test itself,
    // for which the default action is put back.
    unsafe {
        let Some(shared) = SHARED.as_mut().filter(|s| s.phase != Phase::Idle) else {
            libc::signal(sig, libc::SIG_DFL);
            return;
        };
        let uc = &mut (*ctx.cast::<libc::ucontext_t>()).uc_mcontext;
        let fx = std::slice::from_raw_parts_mut(uc.fpregs.cast::<u8>(), FX);
        let extended = extended(uc.fpregs.cast());
        if shared.phase == Phase::Enter {
            shared.host_gregs = uc.gregs;
            shared.host_fx.copy_from_slice(fx);
            for (reg, &g) in shared.state.regs.iter().zip(&GREG) {
                uc.gregs[g] = *reg as i64;
            }
            uc.gregs[RIP] = shared.state.rip as i64;
            uc.gregs[EFL] = shared.state.rflags as i64;
            if shared.state.bits == 32 {
                uc.gregs[SEGMENTS] = uc.gregs[SEGMENTS] & !0xffff | CS32;
            }
            let mask: [u8; 4] = fx[28..32].try_into().unwrap_or_default();
            fx.copy_from_slice(&shared.state.fx);
            fx[28..32].copy_from_slice(&mask);
            if let Some((features, ymm)) = extended {
                shared.host_extended = (features.read(), ymm.read());
                features.write(features.read() | ALL);
                ymm.write(shared.state.ymm);
            }
            shared.phase = Phase::Run;
            return;
        }
        for (reg, &g) in shared.state.regs.iter_mut().zip(&GREG) {
            *reg = uc.gregs[g] as u64;
        }
        shared.state.rip = uc.gregs[RIP] as u64;
        shared.state.rflags = uc.gregs[EFL] as u64;
        shared.state.fx.copy_from_slice(fx);
        if let Some((features, ymm)) = extended {
            let in_use = features.read() & 4 != 0;
            shared.state.ymm = if in_use { ymm.read() } else { [0; 16] };
            features.write(shared.host_extended.0);
            ymm.write(shared.host_extended.1);
        }
        let vector = uc.gregs[TRAPNO] as u8;
        shared.end = match vector {
            3 => End::Breakpoint,
            8 | 10..=14 | 17 => End::Fault {
                vector,
                code: Some(uc.gregs[ERR] as u32),
                cr2: if vector == 14 { uc.gregs[CR2] as u64 } else { 0 },
            },
            _ => End::Fault {
                vector,
                code: None,
                cr2: 0,
            },
        };
        uc.gregs = shared.host_gregs;
        fx.copy_from_slice(&shared.host_fx);
        shared.phase = Phase::Idle;
    }
}

/// Exclusive use of the shared addresses and of the signal handlers.
pub struct Native {
    shared: Box<Shared>,
    _stack: Vec<u8>,
    _lock: MutexGuard<'static, ()>,
}

fn map(va: u64, pages: u64, prot: i32) {
    // SAFETY: a new anonymous mapping at an address that must be free.
    let p = unsafe {
        libc::mmap(
            va as *mut libc::c_void,
            (pages * 4096) as usize,
            prot,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    assert_eq!(
        p as u64,
        va,
        "cannot map {va:#x}: {}",
        std::io::Error::last_os_error()
    );
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

impl Native {
    pub fn new() -> Native {
        let lock = LOCK.lock().unwrap_or_else(|e| e.into_inner());
        map(CODE_VA, CODE_PAGES, RW | libc::PROT_EXEC);
        for (i, page) in PAGES.iter().enumerate() {
            if *page != Page::None {
                map(crate::state::page_va(i), 1, RW);
            }
        }
        let mut stack = vec![0u8; 256 << 10];
        let mut shared = Box::new(Shared {
            phase: Phase::Idle,
            state: State::default(),
            end: End::Breakpoint,
            host_gregs: [0; 23],
            host_fx: [0; FX],
            host_extended: (0, [0; 16]),
        });
        // SAFETY: the stack lives as long as self, which lives on this thread; handlers are plain functions.
        unsafe {
            let ss = libc::stack_t {
                ss_sp: stack.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: stack.len(),
            };
            assert_eq!(libc::sigaltstack(&ss, std::ptr::null_mut()), 0);
            for sig in SIGNALS {
                let mut sa: libc::sigaction = std::mem::zeroed();
                sa.sa_sigaction = handler as *const () as usize;
                sa.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                assert_eq!(libc::sigaction(sig, &sa, std::ptr::null_mut()), 0);
            }
            const ARCH_SET_GS: i32 = 0x1001;
            assert_eq!(libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE), 0);
            SHARED = &mut *shared;
        }
        Native {
            shared,
            _stack: stack,
            _lock: lock,
        }
    }

    /// The base of gs, which loads of its selector have changed.
    pub fn reset_gs(&mut self) {
        const ARCH_SET_GS: i32 = 0x1001;
        // SAFETY: nothing but the cases uses gs.
        let rc = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE) };
        assert_eq!(rc, 0);
    }

    /// Read-only pages get their contents before this, and are read-only after it.
    pub fn seal(&mut self) {
        for (i, page) in PAGES.iter().enumerate() {
            if *page == Page::Ro {
                let va = crate::state::page_va(i) as *mut libc::c_void;
                // SAFETY: our own mapping.
                assert_eq!(unsafe { libc::mprotect(va, 4096, libc::PROT_READ) }, 0);
            }
        }
    }

    /// Bytes of a mapped page of the shared address space.
    pub fn page(&self, va: u64) -> &[u8] {
        // SAFETY: a page of ours; nobody else uses it while the lock is held.
        unsafe { std::slice::from_raw_parts(va as *const u8, 4096) }
    }

    pub fn write(&mut self, va: u64, bytes: &[u8]) {
        let data = va >= DATA_VA && va + bytes.len() as u64 <= crate::state::page_va(PAGES.len());
        let code = va >= CODE_VA && va + bytes.len() as u64 <= CODE_VA + CODE_PAGES * 4096;
        assert!(data || code);
        // SAFETY: inside our own mappings (an unmapped one stops the test).
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), va as *mut u8, bytes.len()) };
    }

    /// Runs from `state` until an exception; `state` is what it was at that point.
    pub fn run(&mut self, state: &mut State) -> End {
        let shared: *mut Shared = &mut *self.shared;
        // SAFETY: the handler runs inside this block only, on this thread; it restores all of this thread's registers.
        unsafe {
            (*shared).state = state.clone();
            (*shared).phase = Phase::Enter;
            // 32-bit code needs data segments; to 64-bit code they are nothing.
            std::arch::asm!("mov ds, {0:x}", "mov es, {0:x}", in(reg) u32::from(DS), options(nostack));
            std::arch::asm!("int3");
            *state = (*shared).state.clone();
            if state.bits == 32 {
                // The kernel returns to 16-bit stacks in a way that leaves its own bits up there.
                state.regs[4] &= 0xffff_ffff;
            }
            (*shared).end.clone()
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: takes down what `new` set up, before the stack is freed.
        unsafe {
            SHARED = std::ptr::null_mut();
            for sig in SIGNALS {
                libc::signal(sig, libc::SIG_DFL);
            }
            let ss = libc::stack_t {
                ss_sp: std::ptr::null_mut(),
                ss_flags: libc::SS_DISABLE,
                ss_size: 0,
            };
            libc::sigaltstack(&ss, std::ptr::null_mut());
            libc::munmap(CODE_VA as *mut libc::c_void, (CODE_PAGES * 4096) as usize);
            libc::munmap(DATA_VA as *mut libc::c_void, PAGES.len() * 4096);
        }
    }
}
