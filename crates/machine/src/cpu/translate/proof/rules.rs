// SPDX-License-Identifier: Apache-2.0
//! Which instructions may be in translated code at all.

use super::step::{Step, Why};
use super::x87;
use iced_x86::{CpuidFeature, EncodingKind, Mnemonic as M, OpAccess, Register as R, RflagsBits};

impl Step<'_> {
    /// Whether the instruction may be in translated code at all.
    pub(super) fn allowed(&self) -> Result<(), Why> {
        let i = self.i;
        if !matches!(i.encoding(), EncodingKind::Legacy | EncodingKind::VEX) || i.is_invalid() {
            return Err("no instruction that the translator makes");
        }
        if i.is_privileged() || i.is_stack_instruction() {
            return Err("a privileged instruction, or one on the host's stack");
        }
        if i.rflags_modified() & (RflagsBits::DF | RflagsBits::IF | RflagsBits::AC) != 0 {
            return Err("a flag that is the host's");
        }
        let x87 = x87::is_one(i);
        if x87 && !x87::is_known(i) {
            return Err("an x87 instruction that is left to its handler");
        }
        if x87 && !self.state.x87 {
            return Err("x87 registers that may be the host's");
        }
        let known = |f: &CpuidFeature| {
            use CpuidFeature as F;
            matches!(
                f,
                F::INTEL8086
                    | F::INTEL186
                    | F::INTEL386
                    | F::INTEL486
                    | F::X64
                    | F::CMOV
                    | F::CX8
                    | F::CMPXCHG16B
                    | F::SSE
                    | F::SSE2
                    | F::SSE3
                    | F::SSSE3
                    | F::SSE4_1
                    | F::SSE4_2
                    | F::POPCNT
                    | F::BMI1
                    | F::BMI2
                    | F::LZCNT
                    | F::MOVBE
                    | F::ADX
                    | F::AES
                    | F::PCLMULQDQ
                    | F::SHA
                    | F::AVX
                    | F::AVX2
                    | F::FMA
                    | F::F16C
                    | F::VAES
                    | F::VPCLMULQDQ
            )
        };
        if !x87 && !i.cpuid_features().iter().all(known)
            || matches!(i.mnemonic(), M::Ldmxcsr | M::Stmxcsr | M::Vldmxcsr | M::Vstmxcsr)
        {
            return Err("an instruction that is left to its handler");
        }
        if i.is_string_instruction() && !i.has_rep_prefix() {
            return Err("a string instruction that is not repeated");
        }
        let mut vectors = 0;
        for u in self.info.used_registers() {
            let r = u.register();
            let writes = !matches!(u.access(), OpAccess::Read | OpAccess::CondRead);
            if r.is_vector_register() {
                vectors = vectors.max(if i.encoding() == EncodingKind::VEX { 2 } else { 1 });
            } else if !(x87 && r.is_st() || r.is_gpr() || r == R::RIP || r.is_segment_register() && !writes) {
                return Err("a register that translated code does not use");
            }
            if r.full_register() == R::RSP && (writes || self.explicit(r).is_some()) {
                return Err("the register of the frame");
            }
        }
        if vectors > self.state.vectors {
            return Err("vector registers that may be the host's");
        }
        Ok(())
    }
}
