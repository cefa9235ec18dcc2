// SPDX-License-Identifier: Apache-2.0
//! Decoded blocks: 32-byte ops in an arena, found by machine frame, offset and mode, so that every process that maps the
//! frame shares them: nothing in a block depends on the virtual address of its page.
// Ops lie in an arena that handlers point into.
#![allow(unsafe_code)]

use super::exec::fast;
use super::Cpu;
use crate::mem::Mfn;
use iced_x86::Instruction;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::MaybeUninit;

/// Runs one op. Release builds end every handler in a call of the next one, which LLVM turns into a jump, and return null
/// at the end of the chain; with debug assertions the next op is returned to a loop.
///
/// # Safety
/// The contract of every handler, and of what handlers call with their own arguments (`exec/fast`: `by_contract!`):
///
/// 1. The CPU may be read and written, and nobody else holds a reference to it: handlers are called by each other and by
///    `Cpu::chain` only.
/// 2. The op is the one whose `h` the handler is, in a block of this CPU's arena (or in `step_ops`), and it is followed by what
///    lower.rs put behind it: further ops, or the decoded instruction.
/// 3. Its operands were made by lower.rs: byte offsets of registers in the first fields of [`Cpu`], links that are null or
///    lead to a block of the arena.
/// 4. `tlb` and `jumps` point to the current view. What a TLB entry gives for an address whose tag matches is guest RAM, to the end
///    of the page.
pub(crate) type Handler = unsafe fn(*mut Cpu, *const Op) -> *const Op;

/// One decoded instruction (or two fused ones). Registers are byte offsets into [`Cpu`].
#[repr(C, align(32))]
#[derive(Clone, Copy)]
pub(crate) struct Op {
    pub h: Handler,
    /// Immediate, slow handler, or linked block.
    pub imm: u64,
    pub disp: i32,
    /// Offset of the instruction in its page.
    pub off: u16,
    /// Instructions from this one to the end of the block, inclusive: what a block costs at its entry, and what is
    /// given back when it is left before this op has completed.
    pub left: u8,
    pub len: u8,
    pub dst: u8,
    pub src: u8,
    pub base: u8,
    pub index: u8,
    pub scale: u8,
    /// 32-byte slots that this op takes.
    pub slots: u8,
    /// Links that it holds: in `imm`, and in `imm` of the next slot.
    pub links: u8,
    /// The block was forgotten.
    pub dead: u8,
}

/// The slot after an op with links.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
pub(crate) struct Ext {
    pub unused: u64,
    /// Link to the block that follows when a branch is not taken.
    pub fall: u64,
    /// Immediate operand of a fused comparison.
    pub imm: i32,
    /// Frame that the block lies in.
    pub mfn: u32,
    /// Branch target, relative to the start of the page.
    pub target: i32,
    pub flags: [u8; 4],
}

/// What a slot can be.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union Slot {
    pub op: Op,
    pub ext: Ext,
    pub raw: [u64; 4],
}

/// Two slots hold the instruction of a slow op.
const _: () = assert!(std::mem::size_of::<Op>() == 32 && std::mem::size_of::<Instruction>() <= 64);

impl Op {
    /// The number of the translated block that begins with this op.
    pub(crate) fn translated(&self) -> Option<u32> {
        (self.h as usize == fast::op_translated as *const () as usize).then_some(self.disp as u32)
    }

    /// How often the block that begins with this op is to run before it is translated; `None` if it never is.
    pub(crate) fn runs_left(&self) -> Option<u64> {
        let counts = self.h as usize == fast::op_count as *const () as usize;
        match self.translated() {
            Some(_) => Some(0),
            None => counts.then_some(self.imm),
        }
    }

    pub(crate) fn new(h: Handler) -> Op {
        Op {
            h,
            imm: 0,
            disp: 0,
            off: 0,
            left: 0,
            len: 0,
            dst: 0,
            src: 0,
            base: 0,
            index: 0,
            scale: 0,
            slots: 1,
            links: 0,
            dead: 0,
        }
    }
}

/// Ops per arena chunk, and chunks before everything is flushed: 64 MiB.
const CHUNK: usize = 1 << 15;
const MAX_CHUNKS: usize = 64;

/// Finds a block: machine frame, offset, mode.
pub(crate) type Key = u64;

pub(crate) fn key(mfn: Mfn, offset: u64, mode: u8) -> Key {
    mfn.0 << 16 | (offset & 0xfff) << 4 | u64::from(mode & 15)
}

/// Multiplicative hashing is enough: the keys are not the guest's choice alone, and a chain costs only its own time.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u64(u64::from(b)));
    }
    fn write_u64(&mut self, v: u64) {
        let x = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = x ^ x >> 32;
    }
}

type Map<V> = HashMap<u64, V, BuildHasherDefault<KeyHasher>>;

#[derive(Clone, Copy)]
struct Record {
    first: *mut Op,
    ops: u16,
    start: u16,
    end: u16,
    key: Key,
}

/// The blocks of one vCPU.
#[derive(Default)]
pub(crate) struct BlockCache {
    /// Memory that nothing was written to is not there.
    chunks: Vec<Box<[MaybeUninit<Slot>]>>,
    /// Chunk in use, and slots of it that are taken.
    chunk: usize,
    used: usize,
    /// Slots after which everything is flushed; 0 stands for all there are.
    limit: usize,
    taken: usize,
    map: Map<*const Op>,
    frames: Map<Vec<Record>>,
    /// Numbers of translated blocks that were forgotten, for the translator.
    pub(crate) killed: Vec<u32>,
}

impl BlockCache {
    pub(crate) fn get(&self, key: Key) -> Option<*const Op> {
        self.map.get(&key).copied()
    }

    /// No room for another block of any size: flush before the next one.
    pub(crate) fn full(&self) -> bool {
        let end = self.chunk + 1 >= MAX_CHUNKS && self.used + 1024 > CHUNK;
        end || (self.limit > 0 && self.taken >= self.limit)
    }

    /// Flushes when `slots` are taken: for tests.
    pub(crate) fn set_limit(&mut self, slots: usize) {
        self.limit = slots;
    }

    /// Forgets all. Only when no op is running.
    pub(crate) fn clear(&mut self) {
        self.chunk = 0;
        self.used = 0;
        self.taken = 0;
        self.map.clear();
        self.frames.clear();
    }

    /// Bytes of all ops that there is room for.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * std::mem::size_of::<Slot>()
    }

    /// Forgets all, and gives its memory back. Only when no op is running, and nothing leads to one.
    pub(crate) fn shrink(&mut self) {
        *self = BlockCache {
            limit: self.limit,
            ..BlockCache::default()
        };
    }

    /// Copies `ops`, which begin with a header slot, into the arena as the block `key`, made from bytes `start..end` of `mfn` (and the first `second.1`
    /// bytes of the frame `second.0`).
    pub(crate) fn insert(
        &mut self,
        key: Key,
        ops: &[Slot],
        mfn: Mfn,
        start: u16,
        end: u16,
        second: Option<(Mfn, u16)>,
    ) -> *const Op {
        if self.chunks.is_empty() || self.used + ops.len() > CHUNK {
            if !self.chunks.is_empty() {
                self.chunk += 1;
            }
            self.used = 0;
            if self.chunk >= self.chunks.len() {
                self.chunks.push(Box::new_uninit_slice(CHUNK));
            }
        }
        let room = &mut self.chunks[self.chunk][self.used..self.used + ops.len()];
        for (slot, op) in room.iter_mut().zip(ops) {
            slot.write(*op);
        }
        let first = room.as_mut_ptr().cast::<Op>();
        self.used += ops.len();
        self.taken += ops.len();
        // SAFETY: the header slot is followed by at least one op.
        let entry: *const Op = unsafe { first.add(1) };
        self.map.insert(key, entry);
        let record = Record {
            first,
            ops: ops.len() as u16,
            start,
            end,
            key,
        };
        self.frames.entry(mfn.0).or_default().push(record);
        if let Some((mfn, end)) = second {
            self.frames.entry(mfn.0).or_default().push(Record {
                start: 0,
                end,
                ..record
            });
        }
        entry
    }

    /// The block whose first op after its header is `entry` depends on these bytes of its frame, too.
    pub(crate) fn depends_on(&mut self, entry: *const Op, mfn: Mfn, start: u16, end: u16) {
        let records = self.frames.get_mut(&mfn.0);
        let Some(records) = records else {
            return;
        };
        let own = |r: &&Record| std::ptr::eq(r.first.wrapping_add(1), entry);
        if let Some(&record) = records.iter().find(own) {
            records.push(Record { start, end, ..record });
        }
    }

    /// Forgets the blocks made from bytes `start..end` of `mfn`, also one that is running: its next op leaves it.
    pub(crate) fn forget(&mut self, mfn: Mfn, start: u16, end: u16) {
        let Some(records) = self.frames.get_mut(&mfn.0) else {
            return;
        };
        let (map, killed) = (&mut self.map, &mut self.killed);
        let before = records.len();
        records.retain(|r| {
            if r.start >= end || r.end <= start {
                return true;
            }
            if map
                .get(&r.key)
                .is_some_and(|&op| std::ptr::eq(op, r.first.wrapping_add(1)))
            {
                map.remove(&r.key);
            }
            killed.extend(kill(r));
            false
        });
        if records.len() == before {
            return;
        }
        // Links lead to blocks of the same page only.
        for r in records.iter() {
            // SAFETY: as in `kill`; a link is null or points to the first op of a block in the arena.
            unsafe {
                each_op(r, |op| {
                    for n in 0..(*op).links as usize {
                        let link = &mut (*op.add(n).cast::<Slot>()).raw[1];
                        if *link != 0 && (*(*link as *const Op)).dead != 0 {
                            *link = 0;
                        }
                    }
                })
            };
        }
        if records.is_empty() {
            self.frames.remove(&mfn.0);
        }
    }

    /// Makes every block leave at its next op; `clear` must follow when none is running.
    pub(crate) fn kill_all(&mut self) {
        let translated = self.frames.values().flatten().filter_map(kill);
        self.killed.extend(translated);
        self.map.clear();
        self.frames.clear();
    }
}

/// Makes a block leave at its next op; gives its number among the translated ones.
fn kill(r: &Record) -> Option<u32> {
    // SAFETY: records point to ops in the arena, which lives until `clear`; running handlers hold raw pointers only, and
    // read `h` of the next op after this.
    unsafe {
        // After the header.
        let translated = (*r.first.add(1)).translated();
        each_op(r, |op| {
            (*op).h = fast::op_leave;
            (*op).dead = 1;
        });
        translated
    }
}

/// # Safety
/// `r` must describe a block in a live arena.
unsafe fn each_op(r: &Record, mut f: impl FnMut(*mut Op)) {
    let mut i = 0usize;
    while i < r.ops as usize {
        // SAFETY: `i` stays within the block.
        unsafe {
            let op = r.first.add(i);
            i += ((*op).slots as usize).max(1);
            f(op);
        }
    }
}
