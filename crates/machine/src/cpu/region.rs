// SPDX-License-Identifier: Apache-2.0
//! Memory of one address space's view that translated code addresses from one register: room for a stack, the frame, the TLB, and
//! the jumps to translated blocks. Interpreted code uses the TLB alone.
// The region is one allocation, seen as its parts.
#![allow(unsafe_code)]

use crate::mmu::tlb::{empty_tlb, tlb_index, TlbEntry, TLB_SIZE};
use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::ptr::NonNull;

/// Jumps to translated blocks that are kept, direct mapped.
pub(crate) const CODE_JUMPS: usize = 1 << 16;

/// Bits of an address below those that choose a jump: blocks begin that far from each other, mostly.
pub(crate) const JUMP_SHIFT: u32 = 2;

/// What no code key has, and no page: what a link compares with that leads nowhere.
pub(crate) const NO_KEY: i32 = 2;

/// Calls whose return is kept in mind, by where on its stack the guest has the address.
pub(crate) const RETURNS: usize = 512;

/// The inverted address of a return that was never kept: that of address 0, whose code is [`Frame::lost`].
const NO_RETURN: u64 = !0;

/// Room below the frame: return addresses of callouts, and the frames of signals that arrive in translated code.
pub(crate) const STACK: usize = 64 << 10;

/// A jump to a translated block. Tag and code lie side by side: who looks a jump up touches one cache line.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeJump {
    /// The negated address.
    pub tag: u64,
    /// Where its code begins.
    pub code: u64,
}

/// A jump's tag that no address with this index has. All but the first are zero, as new memory is.
pub(crate) fn no_tag(index: usize) -> u64 {
    u64::from(index == 0)
}

/// Registers of the guest's that are in the frame while translated code runs.
pub(crate) const SPILLED: usize = 5;

/// Groups of operands whose distance from the host's memory is in the frame at a time.
pub(crate) const DELTAS: usize = 3;

/// Bytes of the stack that are looked for in [`Frame::stack_tag`]'s page at once, at most.
pub(crate) const STACK_SPAN: u64 = 128;

/// Where operands of so many bytes begin at most that lie in their page whole.
const STACK_ROOM: u64 = 4096 - STACK_SPAN + 1;

/// What translated code finds at its stack pointer. Offsets of the first fields fit into a byte.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Frame {
    /// The guest's r8 to r11 and r15, whose registers of the host have other uses.
    pub spilled: [u64; SPILLED],
    /// Linear address of the page of the running block: a copy of [`Bases::page`](super::regs::Bases).
    pub page: u64,
    /// Of the TLB entry of the page that the stack pointer was in at some callout: its tag for stores. It means nothing without `stack_room`.
    pub stack_tag: u64,
    /// Offsets in that page below this one are those of operands that lie in it whole: [`STACK_ROOM`], or 0 if the entry is not there any more.
    pub stack_room: u64,
    /// What that entry says is to be added to addresses.
    pub stack_delta: u64,
    pub gs: u64,
    /// Bits of an address that choose a TLB entry.
    pub index_mask: u64,
    /// Bits of a stack pointer that choose a return.
    pub return_mask: u64,
    /// Where callouts go.
    pub callout: u64,
    /// Host address less guest address of the operands of groups.
    pub deltas: [u64; DELTAS],
    /// Bits of an address that must match an entry, for operands that are aligned to 1 << n bytes.
    pub page_masks: [u64; 6],
    /// Not zero: the host's vector registers are not the guest's at the moment.
    pub vectors_away: u64,
    pub fs: u64,
    /// A copy of [`Budget::slice`](super::run::Budget), while translated code does not run.
    pub slice: i64,
    /// The address that was missed, or jumped to.
    pub va: u64,
    /// Arithmetic flags as `lahf` and `seto al` give them.
    pub flags: u64,
    pub cpu: u64,
    pub host_stack: u64,
    /// Bits of an address that choose a jump.
    pub jump_mask: u64,
    /// Where code goes that has lost its way: it looks for the block at `va`.
    pub lost: u64,
    /// Where rdtsc goes.
    pub clock: u64,
    /// The host's own MXCSR.
    pub host_mxcsr: u32,
    pub unused: u32,
    /// Bits that the count of a repeated instruction must not have.
    pub count_mask: u64,
    /// Bits that one more than an address has none of, rotated right by 47, if it is canonical.
    pub canonical_mask: u64,
    /// Host address less guest address of an operand that is not in the page of its base register.
    pub delta: u64,
    /// For instructions with two memory operands.
    pub kept: [u64; 2],
    /// Not zero: the upper halves of the host's ymm registers are not the guest's. They never are without the lower ones.
    pub ymm_away: u64,
    /// Not zero: the host's x87 registers are not the guest's.
    pub x87_away: u64,
    /// An x87 control word on its way there: all exceptions are masked in it.
    pub control: u64,
}

const _: () = assert!(size_of::<Frame>() <= 4096 && std::mem::offset_of!(Frame, deltas) + 8 * DELTAS <= 128);

/// What the region consists of.
#[repr(C, align(4096))]
struct Parts {
    stack: [u8; STACK],
    frame: Frame,
    tlb: Aligned,
    jumps: [CodeJump; CODE_JUMPS],
    /// By TLB index: the negated address of a page of code less the key of its code. Zero: none.
    pages: [u64; TLB_SIZE],
    returns: Returns,
}

/// What calls have left for their returns, by bits of the stack pointer.
#[repr(C)]
struct Returns {
    /// The processor takes addresses for equal at first whose last 12 bits are: here those of the stack itself.
    apart: [u64; 160],
    /// The inverted addresses they return to.
    tags: [u64; RETURNS],
    /// And those of the tags.
    apart_too: [u64; 80],
    /// The code there.
    codes: [u64; RETURNS],
}

#[repr(C, align(4096))]
struct Aligned([TlbEntry; TLB_SIZE]);

/// Displacements from the frame.
pub(crate) const TLB_AT: i64 = (std::mem::offset_of!(Parts, tlb) - STACK) as i64;
pub(crate) const JUMPS_AT: i64 = (std::mem::offset_of!(Parts, jumps) - STACK) as i64;
pub(crate) const PAGES_AT: i64 = (std::mem::offset_of!(Parts, pages) - STACK) as i64;
pub(crate) const RETURN_TAGS_AT: i64 = (std::mem::offset_of!(Parts, returns.tags) - STACK) as i64;
pub(crate) const RETURN_CODES_AT: i64 = (std::mem::offset_of!(Parts, returns.codes) - STACK) as i64;

/// Bytes of a region that are in use as soon as code runs.
pub(crate) const REGION_BYTES: usize = size_of::<Parts>() - STACK;

pub(crate) struct Region {
    parts: NonNull<Parts>,
}

// SAFETY: the region owns its memory.
unsafe impl Send for Region {}

impl Region {
    pub(crate) fn new() -> Region {
        let layout = Layout::new::<Parts>();
        // SAFETY: the layout has a size; zeroes are valid for every part.
        let Some(parts) = NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<Parts>()) else {
            handle_alloc_error(layout)
        };
        let mut region = Region { parts };
        region.tlb().copy_from_slice(&empty_tlb());
        region.jumps()[0].tag = no_tag(0);
        region
    }

    fn parts(&mut self) -> &mut Parts {
        // SAFETY: allocated in `new`, owned by self.
        unsafe { self.parts.as_mut() }
    }

    /// The translations, to be changed: what the frame has of one is forgotten.
    pub(crate) fn tlb(&mut self) -> &mut [TlbEntry] {
        let parts = self.parts();
        parts.frame.stack_room = 0;
        &mut parts.tlb.0
    }

    /// The frame has the translation of the page that the guest's stack is in, if stores go through it.
    pub(crate) fn note_stack(&mut self, stack_pointer: u64) {
        // What is pushed next.
        let top = stack_pointer.wrapping_sub(8);
        let Parts { frame, tlb, .. } = self.parts();
        let within = |tag: u64| tag.wrapping_add(top) < 4096;
        if frame.stack_room != 0 && within(frame.stack_tag) {
            return;
        }
        let e = tlb.0[tlb_index(top)];
        if within(e.neg_w) {
            (frame.stack_tag, frame.stack_delta) = (e.neg_w, e.delta);
            frame.stack_room = STACK_ROOM;
        }
    }

    /// The jumps to translated blocks.
    pub(crate) fn jumps(&mut self) -> &mut [CodeJump; CODE_JUMPS] {
        &mut self.parts().jumps
    }

    /// Which code is where.
    pub(crate) fn pages(&mut self) -> &mut [u64; TLB_SIZE] {
        &mut self.parts().pages
    }

    /// No return is kept any more. Before code runs `Frame::lost` is filled in, and then this is called.
    pub(crate) fn forget_returns(&mut self) {
        let parts = self.parts();
        parts.returns.tags = [NO_RETURN; RETURNS];
        parts.returns.codes = [parts.frame.lost; RETURNS];
    }

    /// The frame, which stays where it is as long as the region.
    pub(crate) fn frame(&mut self) -> *mut Frame {
        // SAFETY: the field lies in the allocation.
        unsafe { &raw mut (*self.parts.as_ptr()).frame }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.parts.as_ptr().cast(), Layout::new::<Parts>()) };
    }
}
