// SPDX-License-Identifier: Apache-2.0
//! Blocks whose code is proved (`proof`): when they are made, and as they are after jumps have been linked.

use super::proof::{prove, Outside, Proved, Refused, Subject};
use super::{NativeBlock, Translator};
use crate::cpu::engine::ProvedCode;
use crate::cpu::Cpu;
use iced_x86::Instruction;
use std::collections::{HashMap, HashSet};

/// What a block's code was made of.
pub(super) struct Source {
    /// Where its two pieces are, and how long.
    pub pieces: [(u64, usize); 2],
    pub body: u64,
    pub off: u16,
    pub insns: Vec<Instruction>,
    /// Those of each second way from the block's first one on.
    pub forked: Vec<Vec<Instruction>>,
}

impl Translator {
    /// Proves the block that was made last. A refusal is a bug of the translator's: the code must not run.
    pub(super) fn prove_new(&mut self) {
        let id = self.blocks.len().wrapping_sub(1);
        let refused = self.blocks.get(id).and_then(|b| self.proof_of(id, b, &|_| None));
        if let Some(Err(refused)) = refused {
            panic!("translated code is refused: {refused}\n{}", self.code_of(id));
        }
    }

    fn proof_of(
        &self,
        id: usize,
        block: &NativeBlock,
        outside: &dyn Fn(u64) -> Option<Outside>,
    ) -> Option<Result<Proved, Refused>> {
        let source = block.source.as_deref()?;
        let piece = |(at, len): (u64, usize)| Some((at, self.memory.code(at, len)?));
        let [hot, cold] = source.pieces;
        let subject = self.subject(id, block, source, [piece(hot)?, piece(cold)?]);
        Some(prove(&subject, outside))
    }

    /// What is proved of a block, whose code is in these pieces.
    pub(super) fn subject<'a>(
        &'a self,
        id: usize,
        block: &NativeBlock,
        source: &'a Source,
        pieces: [(u64, &'a [u8]); 2],
    ) -> Subject<'a> {
        Subject {
            pieces,
            far: block.far,
            near: block.near,
            body: source.body,
            dead: block.dead,
            off: source.off,
            block: id as u32,
            insns: &source.insns,
            forked: &source.forked,
            handled: &self.handled,
        }
    }

    /// The guest's instructions and the host's of a block.
    fn code_of(&self, id: usize) -> String {
        let Some(source) = self.blocks.get(id).and_then(|b| b.source.as_deref()) else {
            return String::new();
        };
        let insns = source.insns.iter().chain(source.forked.iter().flatten());
        let mut text: String = insns.map(|i| format!("{:03x} {i}\n", i.ip())).collect();
        for (at, len) in source.pieces {
            let code = self.memory.code(at, len).unwrap_or_default();
            let decoder = iced_x86::Decoder::with_ip(64, code, at, iced_x86::DecoderOptions::NONE);
            decoder
                .into_iter()
                .for_each(|i| text += &format!("    {:x}  {i}\n", i.ip()));
        }
        text
    }

    /// Proves all blocks that are not forgotten, with their jumps as they are now.
    fn prove_all(&self) -> Result<ProvedCode, String> {
        // Code of another mode is nothing that jumps may lead to.
        let near: HashMap<_, &NativeBlock> = self.blocks.iter().map(|b| ((b.near, b.mode), b)).collect();
        let far: HashSet<_> = self.blocks.iter().map(|b| (b.far, b.mode)).collect();
        let rests: HashMap<_, _> = self
            .blocks
            .iter()
            .filter(|b| b.level > 0)
            .filter_map(|b| Some((b.source.as_ref()?.body, b)))
            .collect();
        let mut all = ProvedCode::default();
        for (id, block) in self.blocks.iter().enumerate().filter(|(_, b)| b.lives()) {
            let outside = |at: u64| match near.get(&(at, block.mode)) {
                Some(other) if other.mfn == block.mfn => Some(Outside::Same),
                Some(other) => Some(Outside::Near(other.key)),
                None if far.contains(&(at, block.mode)) => Some(Outside::Far),
                None => rests.get(&at).and_then(|b| b.rest_of(block)).map(Outside::Rest),
            };
            match self.proof_of(id, block, &outside) {
                Some(Ok(proved)) => {
                    all.blocks += 1;
                    all.instructions += proved.instructions;
                    all.accesses += proved.accesses;
                }
                Some(Err(refused)) => return Err(format!("{refused}\n{}", self.code_of(id))),
                None => return Err("a block whose source was not kept".into()),
            }
        }
        Ok(all)
    }
}

impl Cpu {
    /// Proves all translated code as it is now, with its links ([`TranslatorOptions::prove`](crate::TranslatorOptions::prove) must be set).
    /// Gives how much that was, or the first block that is refused.
    pub fn prove_code(&self) -> Result<ProvedCode, String> {
        self.code
            .translator
            .as_ref()
            .map_or(Ok(ProvedCode::default()), |t| t.prove_all())
    }
}
