// SPDX-License-Identifier: Apache-2.0
//! Random programs: a loop around straight runs, skips, loops, calls into other pages and code that changes code.

use super::emit::Builder;
use super::fill::Roles;
use super::place::{Region, CODE_REGIONS};
use crate::rng::Rng;
use iced_x86::InstructionInfoFactory;

pub struct Program {
    /// The width of its code.
    pub bits: u32,
    calls: bool,
    pub start: u64,
    pub chunks: Vec<(u64, Vec<u8>)>,
    /// Every instruction: its address and length.
    pub insns: Vec<(u64, u8)>,
    pub functions: Vec<u64>,
    pub roles: Roles,
    /// Where four bytes are that stores may replace by any others: immediate operands.
    pub sites: Vec<u64>,
    /// Where four bytes are that mean nothing: displacements of instructions that do nothing.
    pub nops: Vec<u64>,
}

impl Program {
    /// `writable`: some of it lies where it can be written.
    /// `x87`: every other instruction is an x87 one; `bits`: the width of code.
    pub fn new(rng: &mut Rng, writable: bool, x87: bool, bits: u32, calls: bool) -> Program {
        let roles = Roles::new(rng, bits);
        let mut program = Program {
            bits,
            calls,
            start: 0,
            chunks: Vec::new(),
            insns: Vec::new(),
            functions: Vec::new(),
            roles,
            sites: Vec::new(),
            nops: Vec::new(),
        };
        for _ in 0..2 + rng.below(4) {
            if let Some(va) = program.chunk(rng, false, writable, x87) {
                program.functions.push(va);
            }
        }
        program.start = loop {
            if let Some(va) = program.chunk(rng, true, writable, x87) {
                break va;
            }
        };
        program.insns.sort_unstable();
        program
    }

    /// A function, or the main loop, where there is room for it.
    fn chunk(&mut self, rng: &mut Rng, main: bool, writable: bool, x87: bool) -> Option<u64> {
        let regions: &[usize] = match (writable, self.bits) {
            (true, 64) => &[0, 0, 1, 1, 2],
            (true, _) => &[0, 0, 1, 1],
            (false, 64) => &[0, 2],
            (false, _) => &[0],
        };
        let Region { va, pages, .. } = CODE_REGIONS[rng.pick(regions)];
        let page = va + rng.below(pages - 1) * 4096;
        let start = page
            + if rng.chance(60) {
                4096 - rng.below(100)
            } else {
                rng.below(3900)
            };
        let mut factory = InstructionInfoFactory::new();
        let mut b = Builder {
            bits: self.bits,
            calls: self.calls,
            rng,
            roles: self.roles.clone(),
            factory: &mut factory,
            start,
            bytes: Vec::new(),
            insns: Vec::new(),
            sites: Vec::new(),
            nops: Vec::new(),
            functions: &self.functions,
            x87,
        };
        if main {
            b.main();
        } else {
            b.function();
        }
        let (bytes, insns, sites, nops) = (b.bytes, b.insns, b.sites, b.nops);
        let end = start + bytes.len() as u64;
        let free = self
            .chunks
            .iter()
            .all(|(at, c)| end <= *at || start >= at + c.len() as u64);
        if end > va + pages * 4096 || !free {
            return None;
        }
        self.chunks.push((start, bytes));
        self.insns.extend(insns);
        self.sites.extend(sites);
        self.nops.extend(nops);
        Some(start)
    }

    /// The address of the instruction after the one at `va`; the byte after it between instructions.
    pub fn after(&self, va: u64) -> u64 {
        match self.insns.binary_search_by_key(&va, |i| i.0) {
            Ok(n) => va.wrapping_add(u64::from(self.insns[n].1)),
            Err(n) => self.insns.get(n).map_or(va.wrapping_add(1), |i| i.0),
        }
    }
}
