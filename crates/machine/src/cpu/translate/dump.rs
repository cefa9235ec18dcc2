// SPDX-License-Identifier: Apache-2.0
//! Instructions of blocks beside the host's that were made of them, for whoever wants to read them.

use super::Translator;
use crate::cpu::Cpu;
use crate::mem::Mfn;
use iced_x86::{Decoder, DecoderOptions, FastFormatter, Instruction};
use std::fmt::Write as _;
use std::io::Write;

/// A block that was just translated.
pub(super) struct Block<'a> {
    pub mfn: Mfn,
    /// Offset of its first byte in its page.
    pub off: u16,
    pub insns: &'a [Instruction],
    /// Where in `code` that of each instruction begins, and where that of the last one ends.
    pub starts: &'a [usize],
    /// What runs often; it runs at `base`.
    pub code: &'a [u8],
    pub base: u64,
    pub cold_bytes: usize,
}

fn host_code(out: &mut String, formatter: &mut FastFormatter, code: &[u8], at: u64) {
    let mut decoder = Decoder::with_ip(64, code, at, DecoderOptions::NONE);
    while decoder.can_decode() {
        let insn = decoder.decode();
        let _ = write!(out, "    {:012x}  ", insn.ip());
        formatter.format(&insn, out);
        out.push('\n');
    }
}

fn text(block: &Block<'_>) -> String {
    let mut out = String::new();
    let mut formatter = FastFormatter::new();
    formatter.options_mut().set_use_hex_prefix(true);
    let Block {
        mfn, off, code, base, ..
    } = *block;
    let (count, bytes, cold) = (block.insns.len(), code.len(), block.cold_bytes);
    let _ = writeln!(
        out,
        "frame {:x}, offset {off:03x}: {count} instructions, {bytes} bytes of code and {cold} apart",
        mfn.0
    );
    let part = |from: usize, to: usize| code.get(from..to).unwrap_or_default();
    let first = block.starts.first().copied().unwrap_or(0);
    host_code(&mut out, &mut formatter, part(0, first), base);
    for (insn, bounds) in block.insns.iter().zip(block.starts.windows(2)) {
        let _ = write!(out, "{:03x} ", insn.ip());
        formatter.format(insn, &mut out);
        out.push('\n');
        if let [from, to] = *bounds {
            host_code(&mut out, &mut formatter, part(from, to), base + from as u64);
        }
    }
    let last = block.starts.last().copied().unwrap_or(0);
    if last < bytes {
        out.push_str("the end\n");
        host_code(&mut out, &mut formatter, part(last, bytes), base + last as u64);
    }
    out.push('\n');
    out
}

impl Translator {
    /// Writes the block to the dump, if there is one; a dump that cannot be written ends.
    pub(super) fn dump(&mut self, block: &Block<'_>) {
        if let Some(out) = self.dump.as_mut() {
            if out.write_all(text(block).as_bytes()).is_err() {
                self.dump = None;
            }
        }
    }
}

impl Cpu {
    /// Writes what is translated from now on; nothing without a translator.
    pub fn set_code_dump(&mut self, out: Box<dyn Write + Send>) {
        if let Some(t) = self.code.translator.as_mut() {
            t.dump = Some(out);
        }
    }
}
