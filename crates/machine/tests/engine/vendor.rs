// SPDX-License-Identifier: Apache-2.0
//! What the makers of processors do differently where their manuals leave it open. The engine does what AMD's do. On
//! another maker's processor its other outcome, described exactly, is accepted (`intel.rs`), or what is open is not
//! compared. Of AMD's the newest (family 1Ah, Zen 5) are what the engine follows, and nothing is excused there; what
//! those before them do otherwise is what [`before_zen5`] is asked for.
// Instructions run on the host.
#![allow(unsafe_code)]

use crate::generate::Case;
use crate::state::*;
use domzero_machine::Vendor;
use iced_x86::{Code, DecoderOptions, Mnemonic, OpKind, Register};
use std::sync::OnceLock;

/// The masks of MXCSR's exceptions.
const MXCSR_MASKS: u32 = 0x1f80;

/// Whether the host's processor is AMD's (or Hygon's, which is the same). In a virtual machine `cpuid` is an exit to the
/// hypervisor, as slow as the rest of a case: it is asked once.
pub fn host_is_amd() -> bool {
    static AMD: OnceLock<bool> = OnceLock::new();
    *AMD.get_or_init(|| {
        // SAFETY: every x86-64 processor has this leaf.
        #[allow(unused_unsafe)]
        let leaf = unsafe { std::arch::x86_64::__cpuid(0) };
        matches!(&leaf.ebx.to_le_bytes(), b"Auth" | b"Hygo")
    })
}

/// Whether the host's processor is one of AMD's older ones. Seen on family 19h, model 11h (Zen 4).
pub fn before_zen5() -> bool {
    static OLD: OnceLock<bool> = OnceLock::new();
    *OLD.get_or_init(|| {
        // SAFETY: every x86-64 processor has this leaf.
        #[allow(unused_unsafe)]
        let leaf = unsafe { std::arch::x86_64::__cpuid(1) };
        let (family, extended) = (leaf.eax >> 8 & 15, leaf.eax >> 20 & 255);
        host_is_amd() && family + extended < 0x1a
    })
}

/// What the host decodes.
pub fn host_vendor() -> Vendor {
    if host_is_amd() {
        Vendor::Amd
    } else {
        Vendor::Intel
    }
}

/// The same for this side's decoder.
pub fn decoder_options() -> u32 {
    if host_is_amd() {
        DecoderOptions::AMD
    } else {
        DecoderOptions::NONE
    }
}

/// Stores of MMX registers: whether they make the transition from x87 to MMX.
fn stores_mmx(code: Code) -> bool {
    matches!(
        code,
        Code::Movd_rm32_mm | Code::Movq_rm64_mm | Code::Movq_mmm64_mm | Code::Movntq_m64_mm
    )
}

/// 16-bit double shifts by more than 16 bits: the result is undefined.
fn shifts_too_far(code: Code) -> bool {
    matches!(
        code,
        Code::Shld_rm16_r16_CL | Code::Shld_rm16_r16_imm8 | Code::Shrd_rm16_r16_CL | Code::Shrd_rm16_r16_imm8
    )
}

/// Operands that may lie anywhere.
fn need_not_be_aligned(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        m,
        Lddqu
            | Movdqu
            | Movupd
            | Movups
            | Pcmpestri
            | Pcmpestri64
            | Pcmpestrm
            | Pcmpestrm64
            | Pcmpistri
            | Pcmpistrm
            | Vcvtph2ps
            | Vcvtps2ph
    )
}

/// Forms that leave something behind which later instructions of a sequence could see.
pub fn open_in_sequences(code: Code) -> bool {
    let rotates = |c: Code| matches!(c.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr);
    let rounds_half = code.mnemonic() == Mnemonic::Vcvtps2ph;
    !host_is_amd() && (stores_mmx(code) || shifts_too_far(code) || rotates(code))
        || before_zen5() && rounds_half
}

/// Whether a store of half precision tells MXCSR of its rounding: before Zen 5 it does not always.
pub fn rounding_untold(case: &Case) -> bool {
    let stores =
        |i: &iced_x86::Instruction| i.mnemonic() == Mnemonic::Vcvtps2ph && i.op0_kind() == OpKind::Memory;
    before_zen5() && case.insns.iter().any(stores)
}

/// A gather that faults: before Zen 5 the mask's elements that are not done are as they were, later all ones.
pub fn gathered_in_part(case: &Case, native: &End) -> bool {
    before_zen5() && matches!(native, End::Fault { .. }) && case.insns.iter().any(|i| i.is_vsib())
}

/// Far transfers before Zen 5: a far call with REX.W pushes words of 8 bytes, and the error code of iretq's #GP may be
/// 0 in the place of a selector.
pub fn far_open(case: &Case, diff: &str) -> bool {
    let only_code = diff
        .lines()
        .all(|line| line.trim_start().starts_with("end: host Fault { vector: d"));
    let open = |i: &iced_x86::Instruction| match i.mnemonic() {
        Mnemonic::Call => i.memory_size().size() > 0,
        Mnemonic::Iretq => only_code,
        _ => false,
    };
    before_zen5() && case.insns.iter().any(open)
}

/// Cases of which nothing can be compared.
pub fn open(case: &Case) -> bool {
    if host_is_amd() {
        // Whether what has more than 8 bytes raises #AC, and which comes first: #GP of the address or #XM of the rounding.
        let aligning = |i: &iced_x86::Instruction| {
            i.encoding() == iced_x86::EncodingKind::VEX && (i.memory_size().size() > 8 || i.is_vsib())
        };
        let unmasked = case.state.mxcsr() & MXCSR_MASKS != MXCSR_MASKS;
        return before_zen5()
            && (case.state.rflags & AC != 0 && case.insns.iter().any(aligning)
                || unmasked && rounding_untold(case));
    }
    case.insns.iter().any(|i| {
        let count = match i.op_count() {
            3 if i.op2_kind() == OpKind::Immediate8 => u64::from(i.immediate8()),
            _ => case.state.regs[1],
        };
        // Whether what need not be aligned raises #AC.
        let anywhere = need_not_be_aligned(i.mnemonic())
            || i.encoding() == iced_x86::EncodingKind::VEX && i.memory_size().size() > 8
            || i.is_vsib();
        let aligning = case.state.rflags & AC != 0 && anywhere;
        aligning || shifts_too_far(i.code()) && count & 31 > 16
    })
}

pub fn mmx_transition_open(case: &Case) -> bool {
    !host_is_amd() && case.insns.iter().any(|i| stores_mmx(i.code()))
}

/// Arithmetic flags that are open besides those of [`Case::undefined`].
pub fn open_flags(case: &Case, native: &End) -> u64 {
    use Mnemonic::*;
    if host_is_amd() {
        return 0;
    }
    let of = |i: &iced_x86::Instruction| match i.mnemonic() {
        // Flags of the iterations before the one that faulted.
        Cmpsb | Cmpsw | Cmpsd | Cmpsq | Scasb | Scasw | Scasd | Scasq if *native != End::Breakpoint => ARITH,
        Rcl | Rcr => {
            let count = match i.op1_kind() {
                OpKind::Immediate8 => u64::from(i.immediate8()),
                _ if i.op1_register() == Register::CL => case.state.regs[1],
                _ => 1,
            };
            let mask = if i.op0_register().size() == 8 || i.memory_size().size() == 8 {
                63
            } else {
                31
            };
            if count & mask > 1 {
                OF
            } else {
                0
            }
        }
        _ => 0,
    };
    case.insns.iter().map(of).fold(0, |a, b| a | b)
}

/// A call that faults because of its target may have pushed, and a store of ten bytes may have stored a part.
pub fn stored_in_vain(case: &Case, native: &End) -> bool {
    !host_is_amd()
        && matches!(native, End::Fault { .. })
        && case
            .insns
            .iter()
            .any(|i| i.mnemonic() == Mnemonic::Call || i.memory_size().size() == 10)
}

/// Misalignment, the limit of 4 GiB and what is not mapped beyond it: which comes first, or is looked at at all.
pub fn ends_agree(case: &Case, native: &End, guest: &End) -> bool {
    let fault = |e: &End| {
        matches!(
            e,
            End::Fault {
                vector: 12..=14 | 17,
                ..
            }
        )
    };
    !host_is_amd()
        && case.state.bits == 32
        && fault(native)
        && matches!(guest, End::Fault { vector: 12 | 13, .. })
}
