// SPDX-License-Identifier: Apache-2.0
//! The translator: blocks that run often become host code. docs/internals/translator.md tells how, and what stops a hostile guest.
//!
//! It shares decoder, block map, views, budget and exits with the interpreter, whose block stays behind the translated one: its
//! first op counts runs, and then leads to the code.
// Ops are changed in the arena.
#![allow(unsafe_code)]

mod asm;
mod callout;
mod clock;
mod dump;
mod emit;
mod find;
mod flat;
mod flow;
mod fork;
mod groups;
mod links;
mod liveness;
mod memory;
mod operand;
mod proof;
mod proven;
mod repeat;
mod rest;
mod same;
mod select;
mod signals;
mod special;
mod stack;
mod stubs;
mod thunk;
mod trace;
mod x87;

use crate::cpu::block::{KeyHasher, Op};
use crate::cpu::decode::{copy_code, decode_all};
use crate::cpu::engine::{Translated, TranslatorError, TranslatorOptions};
use crate::cpu::exec::fast;
use crate::cpu::exec::fast::string::RepeatFn;
use crate::cpu::region::NO_KEY;
use crate::cpu::{Cpu, SlowFn};
use crate::mem::Mfn;
use asm::Asm;
use flow::FarLink;
use iced_x86::Instruction;
use memory::CodeMemory;
use select::Vectors;
use std::any::Any;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io::Write;
use std::time::Instant;
use trace::Trace;

/// Blocks of one frame that a view gets jumps to at once.
const BLOCKS_OF_FRAME: usize = 128;

/// Keys of code that are given out before all code is forgotten: they are operands of 32 bits.
const KEYS: i32 = 1 << 28;

/// By what the blocks of a frame are found that were decoded for one mode.
fn of_frame(mfn: Mfn, mode: u8) -> u64 {
    mfn.0 << 8 | u64::from(mode)
}

/// Bytes of the call in a stub, which its site follows.
const CALL_BYTES: u64 = 4;

/// Whether this host's processor can run translated code.
pub fn translator_available() -> Result<(), TranslatorError> {
    for (name, has) in [
        ("BMI2", is_x86_feature_detected!("bmi2")),
        ("SSE4.2", is_x86_feature_detected!("sse4.2")),
        ("POPCNT", is_x86_feature_detected!("popcnt")),
    ] {
        if !has {
            return Err(TranslatorError::Processor(name));
        }
    }
    Ok(())
}

/// An instruction that is left to the interpreter.
#[derive(Clone, Copy)]
enum Handled {
    Slow(Instruction, SlowFn),
    Repeat(RepeatFn),
}

/// A jump that leads to a block: where its field is, and the stub that it led to before.
#[derive(Clone, Copy)]
enum Incoming {
    /// From the same page, or the address that a call leaves for its return.
    Near { field: u64, stub: u64 },
    /// From another one, behind a comparison of what that page shows ([`flow::FarLink`]).
    Far { field: u64, stub: u64 },
}

/// A translated block.
struct NativeBlock {
    /// The first op of the interpreter's block.
    op: *const Op,
    mfn: Mfn,
    /// What its instructions were decoded for.
    mode: u8,
    /// That of its frame's code.
    key: i32,
    /// Where the host has the page that its instruction crosses into.
    second: Option<u64>,
    /// Entry from another page: rip is in `va`'s register.
    far: u64,
    /// Entry from the same page. When the block is forgotten a jump to its last stub stands here.
    near: u64,
    dead: u64,
    /// Where the code of each instruction begins, from `far`, and its offset in the page: for who asks what a place in the code is of.
    places: Box<[(u16, u16)]>,
    /// Instructions that it has more than the interpreter's block.
    more: u8,
    vectors: Vectors,
    /// It begins with a look whether the x87 registers are the guest's.
    x87: bool,
    incoming: Vec<Incoming>,
    /// How often it is the rest of another one: 0 if it is a block.
    level: u8,
    /// What its instructions were, if one of its checks may lead to a rest.
    whole: Option<rest::Whole>,
    /// What its code was made of, if that is to be proved.
    source: Option<Box<proven::Source>>,
}

impl NativeBlock {
    /// It is not forgotten.
    fn lives(&self) -> bool {
        // SAFETY: blocks of the translator have their ops in the arena, which lives as long as they do.
        unsafe { (*self.op).dead == 0 }
    }
}

// SAFETY: the op lies in the arena of the CPU that the block belongs to.
unsafe impl Send for NativeBlock {}

/// The translated code of one vCPU.
pub(crate) struct Translator {
    options: TranslatorOptions,
    memory: CodeMemory,
    blocks: Vec<NativeBlock>,
    /// Blocks by frame and mode: offset in it, and `NativeBlock::far`. Those of a frame are left out once one of them was forgotten, and then
    /// begun anew.
    by_frame: HashMap<u64, Vec<(u16, u64)>, BuildHasherDefault<KeyHasher>>,
    /// What links to blocks of a frame compare with. A frame whose code was forgotten gets another one, so that nothing that still has the
    /// one before leads to new code.
    keys: HashMap<u64, i32, BuildHasherDefault<KeyHasher>>,
    /// Keys that were given out.
    keys_given: i32,
    /// Instructions that are left to their handlers.
    handled: Vec<Handled>,
    /// How often a check failed for good, by its site.
    failed: HashMap<u64, u8, BuildHasherDefault<KeyHasher>>,
    /// Instructions whose operands cross into another page.
    crossing: Box<rest::Crossing>,
    asm: Asm,
    /// The next block is interpreted though it has code.
    interpret_once: bool,
    /// How often that was.
    #[cfg(test)]
    interpreted: u64,
    panic: Option<Box<dyn Any + Send>>,
    /// All that was ever translated.
    made: Translated,
    /// Where blocks are written that are translated.
    dump: Option<Box<dyn Write + Send>>,
}

impl Translator {
    pub(crate) fn new(options: TranslatorOptions) -> Result<Translator, TranslatorError> {
        translator_available()?;
        signals::install();
        Ok(Translator {
            memory: CodeMemory::new(options.code_bytes).map_err(TranslatorError::Memory)?,
            options,
            blocks: Vec::new(),
            by_frame: HashMap::default(),
            keys: HashMap::default(),
            keys_given: 0,
            handled: Vec::new(),
            failed: HashMap::default(),
            crossing: Box::default(),
            asm: Asm::new(),
            interpret_once: false,
            #[cfg(test)]
            interpreted: 0,
            panic: None,
            made: Translated::default(),
            dump: None,
        })
    }

    /// Arithmetic flags are exact from now on, also where no instruction looks at them. Only when no code is there.
    pub(crate) fn keep_flags(&mut self) {
        (self.options.exact_flags, self.options.same_blocks) = (true, true);
    }

    /// Runs before a block is translated.
    pub(crate) fn threshold(&self) -> u32 {
        self.options.threshold
    }

    /// Whether the next block is to be interpreted.
    pub(crate) fn interpret_once(&mut self) -> bool {
        std::mem::take(&mut self.interpret_once)
    }

    /// Instructions that the code of a block takes from the slice beyond those of the interpreter's block.
    pub(crate) fn more(&self, id: u32) -> i64 {
        self.blocks.get(id as usize).map_or(0, |b| b.more.into())
    }

    /// Forgets all code. Only when none is running.
    pub(crate) fn clear(&mut self) {
        self.memory.clear();
        self.blocks.clear();
        self.by_frame.clear();
        self.keys.clear();
        self.keys_given = 0;
        self.handled.clear();
        self.failed.clear();
        *self.crossing = rest::Crossing::default();
        // `interpret_once` stays: with room for a single block, what asked for it would be translated again for ever.
    }

    /// The same, and gives the memory back.
    pub(crate) fn shrink(&mut self) {
        self.clear();
        self.memory.give_back();
        self.blocks.shrink_to_fit();
        self.handled.shrink_to_fit();
        self.failed.shrink_to_fit();
    }

    /// Bytes of code, and of what is kept about it.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.used()
            + self.blocks.capacity() * size_of::<NativeBlock>()
            + self.blocks.iter().map(|b| size_of_val(&*b.places)).sum::<usize>()
            + self.handled.capacity() * size_of::<Handled>()
            + self.failed.capacity() * size_of::<(u64, u8)>()
    }

    /// Replaces bytes in all code: a fault for a test. Gives how often they were there.
    #[cfg(test)]
    pub(crate) fn replace(&mut self, old: [u8; 4], new: [u8; 4]) -> usize {
        let start = self.memory.next() - self.memory.hot() as u64;
        let code = self.memory.code(start, self.memory.hot()).unwrap_or_default();
        let found: Vec<u64> = code
            .windows(4)
            .zip(start..)
            .filter(|(w, _)| *w == old)
            .map(|(_, at)| at)
            .collect();
        found.iter().for_each(|&at| self.memory.patch(at, new));
        found.len()
    }

    /// The field of a jump or call leads to `target` from now on.
    fn lead(&mut self, field: u64, target: u64) {
        let rel = target.wrapping_sub(field + 4) as u32;
        self.memory.patch(field, rel.to_le_bytes());
    }

    /// The key of a frame's code: neither zero nor `NO_KEY`, and so that it plus no page's address is zero. `None`: all have been given out.
    fn key(&mut self, mfn: Mfn) -> Option<i32> {
        let given = &mut self.keys_given;
        if *given >= KEYS {
            return None;
        }
        Some(*self.keys.entry(mfn.0).or_insert_with(|| {
            *given += 1;
            4 * *given + 1
        }))
    }

    /// All code of a frame is forgotten.
    pub(crate) fn forget_frame(&mut self, mfn: Mfn) {
        self.keys.remove(&mfn.0);
    }

    /// Block `id` is forgotten: whoever enters it leaves, and what led to it looks for another one.
    pub(crate) fn kill(&mut self, id: u32) {
        let Some(block) = self.blocks.get_mut(id as usize) else {
            return;
        };
        let (near, dead) = (block.near, block.dead);
        self.by_frame.remove(&of_frame(block.mfn, block.mode));
        let incoming = std::mem::take(&mut block.incoming);
        let [a, b, c, d] = (dead.wrapping_sub(near + 5) as u32).to_le_bytes();
        self.memory.patch(near, [0xe9, a, b, c, d]);
        for jump in incoming {
            match jump {
                Incoming::Near { field, stub } => self.lead(field, stub),
                Incoming::Far { field, stub } => {
                    let link = FarLink(field);
                    self.memory.patch(link.key(), NO_KEY.to_le_bytes());
                    self.lead(link.otherwise(), stub);
                }
            }
        }
    }
}

/// Where the code of each instruction is, from the block's entry on.
fn places(made: &emit::Made, base: u64, insns: &[Instruction]) -> Box<[(u16, u16)]> {
    let from = |start: usize| u16::try_from(base + start as u64 - made.far).ok();
    let all = made.starts.iter().zip(insns);
    all.map_while(|(&start, i)| Some((from(start)?, i.ip() as u16)))
        .collect()
}

/// What code is to be made of.
struct Order<'a> {
    /// As in [`NativeBlock`].
    op: *const Op,
    mfn: Mfn,
    second: Option<u64>,
    more: u8,
    insns: &'a [Instruction],
    /// Its second way, if it has one.
    fork: Option<&'a fork::Fork>,
    /// The flags that are looked at after it.
    after: u32,
    /// As in [`NativeBlock`]: no jumps lead to a rest.
    level: u8,
    /// What registers hold where a rest begins; if it has groups.
    start: Option<groups::Registers>,
}

impl Cpu {
    /// Translates hot blocks from now on, or no more. The CPU is not in `run`.
    pub fn set_translator(&mut self, options: Option<TranslatorOptions>) -> Result<(), TranslatorError> {
        let translator = options.map(Translator::new).transpose()?;
        self.forget_all_code();
        self.code.translator = translator.map(Box::new);
        Ok(())
    }

    /// What has been translated so far, and what is kept of it.
    pub fn translated(&self) -> Translated {
        self.code
            .translator
            .as_ref()
            .map_or(Translated::default(), |t| Translated {
                bytes: t.memory.used(),
                ..t.made
            })
    }

    /// Translates the block that begins with `op`, whose runs have been counted down.
    ///
    /// # Safety
    /// `op` must be the first op of a live block of this CPU, after its header.
    pub(crate) unsafe fn translate_block(&mut self, op: *mut Op) {
        // SAFETY: the caller's promise.
        let (mfn, off, count) = unsafe { (Mfn((*op.sub(1)).imm), (*op).off, (*op).left) };
        let start = Instant::now();
        let body = self.translate_code(op, mfn, off, count);
        if let Some(t) = self.code.translator.as_mut().filter(|_| body.is_some()) {
            t.made.blocks += 1;
            t.made.time += start.elapsed();
        }
        // SAFETY: as above; whoever holds the op reads its handler again.
        unsafe {
            match body {
                Some((body, id)) => {
                    (*op).h = fast::op_translated;
                    (*op).imm = body;
                    (*op).disp = id as i32;
                }
                None => (*op).h = fast::op_nop,
            }
        }
    }

    fn translate_code(&mut self, op: *const Op, mfn: Mfn, off: u16, count: u8) -> Option<(u64, u32)> {
        let frame = self.domain.machine.mem.frame(mfn)?;
        let mut bytes = [0u8; crate::cpu::decode::WINDOW];
        // SAFETY: the op of a block is followed by its others.
        let second = unsafe { fast::crosses_into(op.add(1)) };
        let len = match second {
            Some(_) => 15,
            None => bytes.len().min(4096 - usize::from(off)),
        };
        let bytes = bytes.get_mut(..len)?;
        // The guest may be changing them, which is found out at the next boundary.
        copy_code(frame, usize::from(off), second, bytes)?;
        let (insns, _) = decode_all(
            flat::bits(self.seg.mode),
            self.model.vendor,
            bytes,
            u64::from(off),
            usize::from(count),
        );
        if insns.len() != usize::from(count) {
            return None;
        }
        let whole = self.code.translator.as_ref()?.options.same_blocks || second.is_some();
        let trace = match whole {
            true => Trace::of(insns),
            false => self.trace(mfn, insns),
        };
        let Trace {
            insns,
            mut others,
            fork,
        } = trace;
        let after = match insns.last() {
            Some(last) if !whole => self.live_after(mfn, last, &mut others),
            _ => liveness::ALL,
        };
        for (start, end) in others {
            self.code.blocks.depends_on(op, mfn, start, end);
        }
        let insns = &insns;
        self.make(&Order {
            op,
            mfn,
            second,
            insns,
            fork: fork.as_ref(),
            more: insns.len() as u8 - count,
            after,
            level: 0,
            start: None,
        })
    }

    /// Makes code of instructions. Gives where its body is, and its number.
    fn make(&mut self, order: &Order<'_>) -> Option<(u64, u32)> {
        let &Order {
            op,
            mfn,
            second,
            insns,
            fork,
            ..
        } = order;
        let off = insns.first()?.ip() as u16;
        let mode = self.seg.mode;
        let t = self.code.translator.as_mut()?;
        let Some(key) = t.key(mfn) else {
            self.code.forget_all = true;
            return None;
        };
        let id = t.blocks.len() as u32;
        let (base, cold_base) = (t.memory.next(), t.memory.next_cold());
        let handled = t.handled.len();
        let options = t.options;
        let fork_hows = fork.map(|f| select::hows(&f.insns, mode, options.exact));
        let second_way = fork.zip(fork_hows.as_deref());
        let mut emitter = emit::Emitter::new(&mut t.asm, &mut t.handled, id, off, base, options, mode);
        (emitter.apart, emitter.start) = (order.level > 0, order.start);
        let made = emitter.block(
            insns,
            &select::hows(insns, mode, options.exact),
            cold_base,
            second,
            order.after,
            second_way.map(|(fork, hows)| fork::Planned { fork, hows }),
        );
        let Some(made) = made else {
            t.handled.truncate(handled);
            return None;
        };
        let (hot, cold) = made.code.split_at(made.split);
        // From the first instruction on, too.
        let forked: Vec<_> = fork.map_or(Vec::new(), |f| {
            let way = |&at: &usize| [&insns[..=at], &f.insns].concat();
            f.at.iter().map(way).collect()
        });
        let source = options.prove.then(|| proven::Source {
            pieces: [(base, hot.len()), (cold_base, cold.len())],
            body: made.body,
            off,
            insns: insns.to_vec(),
            forked: forked.clone(),
        });
        if !t.memory.append(hot, cold) {
            self.code.forget_all = true;
            return None;
        }
        if t.dump.is_some() {
            let block = dump::Block {
                mfn,
                off,
                insns,
                starts: &made.starts,
                code: hot,
                base,
                cold_bytes: cold.len(),
            };
            t.dump(&block);
        }
        let of_frame = t.by_frame.entry(of_frame(mfn, mode)).or_default();
        if order.level == 0 && of_frame.len() < BLOCKS_OF_FRAME {
            of_frame.push((off, made.far));
        }
        // All second ways are one from where they begin.
        let second_insns = forked.first().map_or(&[][..], Vec::as_slice);
        t.blocks.push(NativeBlock {
            op,
            mfn,
            mode,
            key,
            second,
            far: made.far,
            near: made.near,
            dead: made.dead,
            places: places(&made, base, insns),
            more: order.more,
            vectors: made.vectors,
            x87: made.x87,
            incoming: Vec::new(),
            level: order.level,
            whole: (made.rests && second.is_none())
                .then(|| rest::Whole::of(insns, second_insns, order.after)),
            source: source.map(Box::new),
        });
        let body = made.body;
        t.asm.recycle(made.code);
        t.prove_new();
        Some((body, id))
    }
}
