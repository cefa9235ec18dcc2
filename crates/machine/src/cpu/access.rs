// SPDX-License-Identifier: Apache-2.0
//! Guest memory as instructions see it: software TLB first, then page walk, page-crossing accesses, stores into decoded
//! code and into live page tables.
// Guest memory is read and written through the TLB.
#![allow(unsafe_code)]

use super::debug::WATCHED;
use super::fault::{pf, vector, Exec, Fault, Trap};
use super::platform::Mode;
use super::{Cpu, Scalar};
use crate::abi::x86::canonical;
use crate::frames::{flag, PtwrResult};
use crate::mem::Mfn;
use crate::mmu::tlb::tlb_index;
use crate::mmu::walk::{Access, Walker};
use crate::shared::Caller;
use std::sync::atomic::{fence, AtomicU16, AtomicU32, AtomicU64, AtomicU8, Ordering};
use std::sync::Mutex;

/// Serialises locked accesses that the host cannot do atomically (16 bytes without cmpxchg16b, line-crossing ones).
static SPLIT_LOCK: Mutex<()> = Mutex::new(());

/// Where the bytes of a translated page are, and what to beware of.
#[derive(Clone, Copy)]
pub(crate) struct Page {
    pub host: *mut u8,
    pub mfn: Mfn,
    pub flags: u32,
}

/// Where a store goes.
#[derive(Clone, Copy)]
pub(crate) enum Dest {
    Plain(*mut u8),
    /// There may be decoded instructions from this frame.
    Code(*mut u8, Mfn),
    /// A live page table, mapped read-only: machine address.
    Table(u64, Fault),
}

/// What memory accesses do beside the walk.
#[derive(Debug, Clone)]
pub struct AccessRules {
    /// Misaligned accesses raise #AC.
    pub(crate) aligning: bool,
    /// The stack segment is the cause if a non-canonical address faults next.
    pub(crate) noncanonical: bool,
    /// The code that runs may have its stores to live page tables emulated: a kernel's, not its applications'.
    pub table_stores: bool,
    /// The guest has asked for that emulation; without it such stores are page faults.
    pub writable_tables: bool,
    /// What the platform's window shows is not mapped now: an application runs.
    pub window_hidden: bool,
}

impl AccessRules {
    pub(crate) fn new() -> AccessRules {
        AccessRules {
            aligning: false,
            noncanonical: false,
            table_stores: true,
            writable_tables: true,
            window_hidden: false,
        }
    }
}

impl Cpu {
    /// Walks the page tables for one page and fills the TLB as the rules of docs/internals/contract.md allow.
    pub(crate) fn translate(&mut self, va: u64, access: Access) -> Result<Page, Fault> {
        if !canonical(va) {
            return Err(self.not_canonical(va));
        }
        let watched = self.debug.armed() && self.debug.watches(va, access);
        if watched && self.debug.refuses && access != Access::Fetch {
            return Err(WATCHED);
        }
        let Some(walker) = self.walker() else {
            return Err(Fault::pf(va, 0));
        };
        let machine = &self.domain.machine;
        loop {
            let leaf = walker.walk(&machine.mem, va, access)?;
            let Some(frame) = machine.mem.frame(leaf.mfn) else {
                return Err(Fault::gp());
            };
            let host = frame.wrapping_add((va & 0xfff) as usize);
            let bits = if access == Access::Write {
                flag::TLB_R | flag::TLB_W
            } else {
                flag::TLB_R
            };
            if self.views.shares(va) {
                leaf.tables()
                    .for_each(|table| machine.frames.mark(table, flag::UPPER_TABLE));
            }
            let mut flags = machine.frames.flags(leaf.mfn);
            if flags & bits != bits && !leaf.window {
                flags = machine.frames.set_flags(leaf.mfn, bits) | bits;
            }
            // The flags must be seen by whoever changes the entries before the entries are read again.
            fence(Ordering::SeqCst);
            if !leaf.still_valid(&machine.mem) {
                continue;
            }
            let write = access == Access::Write && flags & (flag::CODE | flag::PROTECTED) == 0;
            let mfn = leaf.mfn;
            if access == Access::Write {
                self.note_store(mfn);
            }
            // A page with a breakpoint on all accesses has no entry at all; one on writes is not writable.
            if !self.debug.armed() || !self.debug.watches(va, Access::Read) {
                self.views
                    .fill(va, frame, write && !watched, access == Access::Fetch);
            }
            return Ok(Page { host, mfn, flags });
        }
    }

    /// The walk of the current view; `None`: there is no base yet.
    fn walker(&self) -> Option<Walker<'_>> {
        let key = self.views.key()?;
        Some(Walker {
            l4: key.l4,
            pae: self.platform.mode == Mode::Legacy,
            user: key.user,
            window: self.platform.window.as_ref(),
            window_hidden: self.access.window_hidden,
        })
    }

    /// The page table that `va`, to which a store was refused, can be read from. Nothing is kept of the walk.
    fn table_at(&self, va: u64) -> Option<Mfn> {
        let machine = &self.domain.machine;
        let leaf = self.walker()?.walk(&machine.mem, va, Access::Read).ok()?;
        (machine.frames.flags(leaf.mfn) & flag::PROTECTED != 0).then_some(leaf.mfn)
    }

    /// Where a store at `va` goes; a #PF on a page table that is mapped read-only becomes `Dest::Table`.
    pub(crate) fn dest(&mut self, va: u64) -> Result<Dest, Trap> {
        let fault = match self.translate(va, Access::Write) {
            Ok(p) if p.flags & flag::PROTECTED != 0 => {
                return Err(Fault::pf(va, self.pf_code(pf::P | pf::W)).into())
            }
            Ok(p) if p.flags & flag::CODE != 0 => return Ok(Dest::Code(p.host, p.mfn)),
            Ok(p) => return Ok(Dest::Plain(p.host)),
            Err(f) => f,
        };
        let emulated = self.access.table_stores && self.access.writable_tables;
        if emulated && fault.error_code.is_some_and(|c| c & (pf::P | pf::RSVD) == pf::P) {
            if let Some(table) = self.table_at(va) {
                self.run_once()?;
                return Ok(Dest::Table(table.maddr() | (va & 0xfff), fault));
            }
        }
        Err(fault.into())
    }

    /// An access of the hypervisor's own: to any address, whatever code the guest runs at the moment.
    pub(crate) fn flat<R>(&mut self, access: impl FnOnce(&mut Cpu) -> R) -> R {
        let code32 = std::mem::take(&mut self.seg.code32);
        let result = access(self);
        self.seg.code32 = code32;
        result
    }

    /// An access whose last byte is not canonical faults as such, before the page of its first byte is looked at.
    pub(crate) fn check_span(&mut self, va: u64, len: usize) -> Exec {
        if !canonical(va.wrapping_add(len as u64 - 1)) {
            return Err(self.not_canonical(va).into());
        }
        // The hypervisor's own accesses lie elsewhere.
        if self.seg.code32 && va >> 32 == 0 && va.wrapping_add(len as u64) > 1 << 32 {
            return Err(Fault::gp().into());
        }
        Ok(())
    }

    /// #AC for an operand that is not aligned to its size, which its segment allows.
    pub(crate) fn check_alignment(&self, va: u64, size: usize) -> Exec {
        if self.access.aligning && va & (size as u64 - 1) != 0 && !self.is_refused(va) {
            return Err(Fault::with_code(vector::AC, 0).into());
        }
        Ok(())
    }

    fn pf_code(&self, bits: u32) -> u32 {
        if self.cpl == 3 {
            bits | pf::U
        } else {
            bits
        }
    }

    /// Reads guest memory at linear address `va` as the current privilege. Unaligned and page-crossing allowed.
    #[inline(always)]
    pub fn read<T: Scalar>(&mut self, va: u64) -> Result<T, Trap> {
        // SAFETY: the index is in range, and `tlb` points to the current view; a matching tag means that the whole
        // access lies in a page whose host address is `va + delta`.
        unsafe {
            let e = &*self.chain.tlb.add(tlb_index(va));
            if e.neg_r.wrapping_add(va) <= 4096 - T::SIZE as u64 {
                return Ok(T::load(va.wrapping_add(e.delta) as *const u8));
            }
        }
        self.read_slow(va)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn read_slow<T: Scalar>(&mut self, va: u64) -> Result<T, Trap> {
        let first = (4096 - (va & 0xfff)) as usize;
        self.check_span(va, T::SIZE)?;
        self.check_alignment(va, T::SIZE)?;
        let page = self.translate(va, Access::Read)?;
        if first >= T::SIZE {
            // SAFETY: `host` points into guest RAM with at least `first` bytes left in its page.
            return Ok(unsafe { T::load(page.host) });
        }
        let second = self.translate(va.wrapping_add(first as u64), Access::Read)?;
        let mut buf = [0u8; 16];
        // SAFETY: `first` bytes are left in the first page, the rest begins the second.
        unsafe {
            std::ptr::copy(page.host, buf.as_mut_ptr(), first);
            std::ptr::copy(second.host, buf.as_mut_ptr().add(first), T::SIZE - first);
        }
        Ok(T::from_u128(u128::from_le_bytes(buf)))
    }

    /// Writes guest memory; on a fault nothing is written, also across pages.
    #[inline(always)]
    pub fn write<T: Scalar>(&mut self, va: u64, value: T) -> Result<(), Trap> {
        // SAFETY: as in `read`, for the write tag.
        unsafe {
            let e = &*self.chain.tlb.add(tlb_index(va));
            if e.neg_w.wrapping_add(va) <= 4096 - T::SIZE as u64 {
                value.store(va.wrapping_add(e.delta) as *mut u8);
                return Ok(());
            }
        }
        self.write_slow(va, value)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn write_slow<T: Scalar>(&mut self, va: u64, value: T) -> Result<(), Trap> {
        let first = (4096 - (va & 0xfff)) as usize;
        self.check_alignment(va, T::SIZE)?;
        if first < T::SIZE {
            let wide: u128 = value.into();
            return self.write_bytes(va, &wide.to_le_bytes()[..T::SIZE]);
        }
        match self.dest(va)? {
            // SAFETY: the page has at least `SIZE` bytes from here on.
            Dest::Plain(p) => unsafe { value.store(p) },
            Dest::Code(p, mfn) => {
                // SAFETY: as above.
                unsafe { value.store(p) };
                self.code_written(mfn, (va & 0xfff) as u16, T::SIZE);
            }
            Dest::Table(maddr, fault) => {
                let wide: u128 = value.into();
                let done = self.table_rmw(maddr, fault, T::SIZE, true, &mut |_| Some(wide as u64))?;
                if done.is_none() {
                    return self.write_slow(va, value);
                }
            }
        }
        Ok(())
    }

    /// Checks that `len` bytes (at most a page) can be written at `va`, so that later writes of them cannot fault.
    pub fn probe_write(&mut self, va: u64, len: usize) -> Exec {
        if len == 0 {
            return Ok(());
        }
        // A second page faults at its first byte.
        self.check_span(va, len)?;
        let last = va.wrapping_add(len as u64 - 1);
        let last = if (last ^ va) >> 12 == 0 { va } else { last & !0xfff };
        for at in [va, last] {
            // SAFETY: as in `read`.
            let hit = unsafe { (*self.chain.tlb.add(tlb_index(at))).neg_w.wrapping_add(at) < 4096 };
            if !hit {
                self.dest(at)?;
            }
        }
        Ok(())
    }

    /// Copies `buf.len()` bytes from guest memory (hypercall arguments, fxrstor images).
    pub fn read_bytes(&mut self, va: u64, buf: &mut [u8]) -> Exec {
        let mut done = 0usize;
        while done < buf.len() {
            let at = va.wrapping_add(done as u64);
            let n = (buf.len() - done).min((4096 - (at & 0xfff)) as usize);
            let host = self.page_for_read(at)?;
            // SAFETY: `n` bytes are left both in the page and in the buffer.
            unsafe { std::ptr::copy(host, buf.as_mut_ptr().add(done), n) };
            done += n;
        }
        Ok(())
    }

    /// Copies into guest memory; on a fault nothing is written if `buf` spans at most two pages.
    pub fn write_bytes(&mut self, va: u64, buf: &[u8]) -> Exec {
        if let Some(last) = buf.len().checked_sub(1) {
            self.check_span(va, buf.len())?;
            let end = va.wrapping_add(last as u64);
            if (end ^ va) >> 12 != 0 {
                self.dest_bytes(va)?;
                self.dest_bytes(end & !0xfff)?;
            }
        }
        let mut done = 0usize;
        while done < buf.len() {
            let at = va.wrapping_add(done as u64);
            let n = (buf.len() - done).min((4096 - (at & 0xfff)) as usize);
            let dest = self.dest_bytes(at)?;
            let (Dest::Plain(p) | Dest::Code(p, _)) = dest else {
                break;
            };
            // SAFETY: `n` bytes are left both in the page and in the buffer.
            unsafe { std::ptr::copy(buf.as_ptr().add(done), p, n) };
            if let Dest::Code(_, mfn) = dest {
                self.code_written(mfn, (at & 0xfff) as u16, n);
            }
            done += n;
        }
        Ok(())
    }

    /// Host address for reads from `va` to the end of its page.
    pub(crate) fn page_for_read(&mut self, va: u64) -> Result<*const u8, Trap> {
        // SAFETY: as in `read`.
        let e = unsafe { *self.chain.tlb.add(tlb_index(va)) };
        if e.neg_r.wrapping_add(va) < 4096 {
            return Ok(va.wrapping_add(e.delta) as *const u8);
        }
        Ok(self.translate(va, Access::Read)?.host)
    }

    /// Where a multi-byte store from `va` to the end of its page goes; page tables fault.
    pub(crate) fn dest_bytes(&mut self, va: u64) -> Result<Dest, Trap> {
        // SAFETY: as in `read`.
        let e = unsafe { *self.chain.tlb.add(tlb_index(va)) };
        if e.neg_w.wrapping_add(va) < 4096 {
            return Ok(Dest::Plain(va.wrapping_add(e.delta) as *mut u8));
        }
        match self.dest(va)? {
            Dest::Table(_, fault) => Err(fault.into()),
            d => Ok(d),
        }
    }

    /// Read-modify-write: needs write permission up front, calls `f` with the old value (again if another CPU was
    /// faster), stores what it gives, returns the last old value. Atomic on the host if `lock`.
    #[inline]
    pub fn rmw<T: Scalar>(
        &mut self,
        va: u64,
        lock: bool,
        f: &mut dyn FnMut(T) -> Option<T>,
    ) -> Result<T, Trap> {
        // SAFETY: as in `read`.
        let e = unsafe { *self.chain.tlb.add(tlb_index(va)) };
        if e.neg_w.wrapping_add(va) <= 4096 - T::SIZE as u64 {
            // SAFETY: the tag matched for writes of this size.
            return Ok(unsafe { rmw_host(va.wrapping_add(e.delta) as *mut u8, lock, f) });
        }
        self.rmw_slow(va, lock, f)
    }

    #[cold]
    #[inline(never)]
    fn rmw_slow<T: Scalar>(
        &mut self,
        va: u64,
        lock: bool,
        f: &mut dyn FnMut(T) -> Option<T>,
    ) -> Result<T, Trap> {
        let first = (4096 - (va & 0xfff)) as usize;
        self.check_alignment(va, T::SIZE)?;
        if first < T::SIZE {
            self.check_span(va, T::SIZE)?;
            let next = va.wrapping_add(first as u64);
            let parts = [
                (va, self.dest_bytes(va)?, 0..first),
                (next, self.dest_bytes(next)?, first..T::SIZE),
            ];
            let mut buf = [0u8; 16];
            let old;
            let stored = {
                // Nothing in here may wait: others wait for this lock while they count as running the guest.
                let _guard = lock.then(|| SPLIT_LOCK.lock().unwrap_or_else(|e| e.into_inner()));
                for (_, dest, part) in &parts {
                    if let (Dest::Plain(p) | Dest::Code(p, _), Some(b)) = (dest, buf.get_mut(part.clone())) {
                        // SAFETY: the part lies in the page that `p` points into.
                        unsafe { std::ptr::copy(*p, b.as_mut_ptr(), b.len()) };
                    }
                }
                old = T::from_u128(u128::from_le_bytes(buf));
                let new = f(old);
                if let Some(new) = new {
                    let bytes = Into::<u128>::into(new).to_le_bytes();
                    for (_, dest, part) in &parts {
                        if let (Dest::Plain(p) | Dest::Code(p, _), Some(b)) = (dest, bytes.get(part.clone()))
                        {
                            // SAFETY: as above.
                            unsafe { std::ptr::copy(b.as_ptr(), *p, b.len()) };
                        }
                    }
                }
                new.is_some()
            };
            for (at, dest, part) in parts {
                if let (true, Dest::Code(_, mfn)) = (stored, dest) {
                    self.code_written(mfn, (at & 0xfff) as u16, part.len());
                }
            }
            return Ok(old);
        }
        match self.dest(va)? {
            // SAFETY: the page has at least `SIZE` bytes from here on.
            Dest::Plain(p) => Ok(unsafe { rmw_host(p, lock, f) }),
            Dest::Code(p, mfn) => {
                // SAFETY: as above.
                let old = unsafe { rmw_host(p, lock, f) };
                self.code_written(mfn, (va & 0xfff) as u16, T::SIZE);
                Ok(old)
            }
            Dest::Table(maddr, fault) => {
                let mut wide =
                    |old: u64| f(T::from_u128(u128::from(old))).map(|n| Into::<u128>::into(n) as u64);
                match self.table_rmw(maddr, fault, T::SIZE, !lock, &mut wide)? {
                    Some(old) => Ok(T::from_u128(u128::from(old))),
                    None => self.rmw_slow(va, lock, f),
                }
            }
        }
    }

    /// A store to a live page table: validated by the frame table, or the #PF that the page walk found. `None`: it is
    /// none any more, translate again.
    fn table_rmw(
        &mut self,
        maddr: u64,
        fault: Fault,
        size: usize,
        plain: bool,
        f: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Result<Option<u64>, Trap> {
        // A smaller store than a whole entry changes its part of it.
        let shift = (maddr & 7) * 8;
        let bits = size as u64 * 8;
        let low = u64::MAX
            .checked_shr(64u32.saturating_sub(bits as u32))
            .unwrap_or(0);
        // Only naturally aligned ones are emulated.
        let result = if matches!(size, 1 | 2 | 4 | 8) && maddr & (size as u64 - 1) == 0 {
            let upper = plain && (shift, size) == (32, 4);
            (self.platform.table_store)(
                &self.domain,
                Caller::Vcpu(&self.shared),
                maddr & !7,
                upper,
                &mut |old| f(old >> shift & low).map(|new| (old & !(low << shift)) | (new & low) << shift),
            )
        } else {
            PtwrResult::Fault
        };
        // The memory lock was taken: others may have waited for this vCPU to forget something.
        self.apply_purges();
        match result {
            PtwrResult::Done { old } => Ok(Some(old >> shift & low)),
            PtwrResult::Fault => Err(fault.into()),
            PtwrResult::NotPageTable => Ok(None),
            PtwrResult::Again => Err(Trap::Again),
        }
    }
}

/// Read-modify-write at a host address.
///
/// # Safety
/// `p` must point into guest RAM with `T::SIZE` bytes left.
unsafe fn rmw_host<T: Scalar>(p: *mut u8, lock: bool, f: &mut dyn FnMut(T) -> Option<T>) -> T {
    if !lock {
        // SAFETY: the caller's promise.
        unsafe {
            let old = T::load(p);
            if let Some(new) = f(old) {
                new.store(p);
            }
            return old;
        }
    }
    macro_rules! cas {
        ($atomic:ty, $int:ty) => {{
            // SAFETY: aligned, inside guest RAM, which is only touched atomically or through raw pointers.
            let a = unsafe { &*p.cast::<$atomic>() };
            let mut seen = a.load(Ordering::SeqCst);
            loop {
                let old = T::from_u128(u128::from(<$int>::from_le(seen)));
                let Some(new) = f(old) else { return old };
                let new = (Into::<u128>::into(new) as $int).to_le();
                match a.compare_exchange(seen, new, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => return old,
                    Err(now) => seen = now,
                }
            }
        }};
    }
    let at = p as usize;
    match T::SIZE {
        1 => cas!(AtomicU8, u8),
        2 if at & 1 == 0 => cas!(AtomicU16, u16),
        4 if at & 3 == 0 => cas!(AtomicU32, u32),
        8 if at & 7 == 0 => cas!(AtomicU64, u64),
        2 | 4 if (at & 7) + T::SIZE <= 8 => {
            // Inside one aligned word: exchange that.
            let shift = (at & 7) as u32 * 8;
            let mask = (if T::SIZE == 2 { 0xffff } else { 0xffff_ffffu64 }) << shift;
            // SAFETY: as above; the aligned word lies in the same page.
            let a = unsafe { &*((at & !7) as *const AtomicU64) };
            let mut seen = a.load(Ordering::SeqCst);
            loop {
                let word = u64::from_le(seen);
                let old = T::from_u128(u128::from((word & mask) >> shift));
                let Some(new) = f(old) else { return old };
                let new = (Into::<u128>::into(new) as u64) << shift;
                let new = ((word & !mask) | (new & mask)).to_le();
                match a.compare_exchange(seen, new, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => return old,
                    Err(now) => seen = now,
                }
            }
        }
        // SAFETY: the caller's promise.
        16 if at & 15 == 0 => unsafe { rmw_16(p, f) },
        _ => {
            let _guard = SPLIT_LOCK.lock().unwrap_or_else(|e| e.into_inner());
            // SAFETY: the caller's promise.
            unsafe { rmw_host(p, false, f) }
        }
    }
}

/// # Safety
/// `p` must point to 16 aligned bytes of guest RAM.
unsafe fn rmw_16<T: Scalar>(p: *mut u8, f: &mut dyn FnMut(T) -> Option<T>) -> T {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("cmpxchg16b") {
        let dst = p.cast::<u128>();
        // SAFETY: the feature was just detected; aligned, inside guest RAM.
        let cas = |old, new| unsafe { cmpxchg_16(dst, old, new) };
        // SAFETY: the caller's promise; a torn read only makes the first exchange fail.
        let mut seen = unsafe { dst.read_unaligned() };
        loop {
            let new = f(T::from_u128(seen));
            let now = cas(seen, new.map_or(seen, Into::into));
            if now == seen {
                return T::from_u128(seen);
            }
            seen = now;
        }
    }
    let _guard = SPLIT_LOCK.lock().unwrap_or_else(|e| e.into_inner());
    // SAFETY: the caller's promise.
    unsafe { rmw_host(p, false, f) }
}

/// The standard library's intrinsic ends up as a call into libatomic, which nobody links.
///
/// # Safety
/// The host has cmpxchg16b; `p` is aligned to 16 and points into guest RAM.
#[cfg(target_arch = "x86_64")]
unsafe fn cmpxchg_16(p: *mut u128, old: u128, new: u128) -> u128 {
    let (lo, hi): (u64, u64);
    // SAFETY: the caller's promise; rbx, which the compiler keeps for itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg rsi, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            in("rdi") p,
            inout("rsi") new as u64 => _,
            in("rcx") (new >> 64) as u64,
            inout("rax") old as u64 => lo,
            inout("rdx") (old >> 64) as u64 => hi,
            options(nostack),
        );
    }
    u128::from(hi) << 64 | u128::from(lo)
}
