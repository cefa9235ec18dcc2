// SPDX-License-Identifier: Apache-2.0
//! Which instructions are translated, and how. What is not named here is left to its handler.

use crate::cpu::descriptor_cache::MODE_LONG;
use crate::cpu::exec::fast::lower::{flags_live, immediate, is_shift};
use crate::cpu::regs::is_high_byte;
use iced_x86::{
    Code, CodeSize, ConditionCode, CpuidFeature, EncodingKind, Instruction, Mnemonic as M, OpKind, Register,
};
use std::sync::OnceLock;

/// How an instruction is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It does nothing that is seen.
    Nothing,
    /// Branches, calls and returns.
    Flow,
    /// push, pop and leave.
    Stack,
    /// The same instruction, with its operands where the host has them.
    Same,
    /// The same instruction, for which the host's vector registers must be the guest's.
    Vector,
    /// The same instruction, with its operands brought to where it can have them.
    Special,
    /// rep movs and rep stos.
    Repeat,
    /// The same with their upper halves, and AVX enabled.
    Avx,
    /// The same on the x87 registers, which must be the guest's.
    X87,
    Handler,
}

/// Which of the host's vector registers are the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Vectors {
    None,
    Xmm,
    /// Both halves.
    Ymm,
}

/// How each instruction of a block of this mode is translated; `exact`: see `TranslatorOptions`.
pub(super) fn hows(insns: &[Instruction], mode: u8, exact: bool) -> Vec<How> {
    let exact = exact && !host_is_amd();
    let seen = if exact { flags_live(insns) } else { Vec::new() };
    let host_differs = |n: usize, i: &Instruction| exact && seen.get(n) != Some(&false) && opens_flags(i);
    let each = |(n, i): (usize, &Instruction)| match how_in(i, mode) {
        How::Same | How::Special if host_differs(n, i) => How::Handler,
        // Makers differ in C1 after stack faults, and some instructions leave it as it was or not.
        How::X87 if exact || !host_is_amd() && super::x87::opens_codes(i) => How::Handler,
        other => other,
    };
    insns.iter().enumerate().map(each).collect()
}

/// Whether the interpreter's flags, which are those of AMD's processors, are the host's also where they are undefined.
fn host_is_amd() -> bool {
    static AMD: OnceLock<bool> = OnceLock::new();
    *AMD.get_or_init(|| {
        let leaf = std::arch::x86_64::__cpuid(0);
        matches!(&leaf.ebx.to_le_bytes(), b"Auth" | b"Hygo")
    })
}

/// Whether an instruction leaves flags undefined, and processors of different makers set them in different ways.
fn opens_flags(i: &Instruction) -> bool {
    match i.mnemonic() {
        // Makers agree.
        M::And | M::Or | M::Xor | M::Test | M::Bsf | M::Bsr | M::Bt | M::Bts | M::Btr | M::Btc => false,
        M::Rcl | M::Rcr => true,
        _ => i.rflags_undefined() != 0,
    }
}

fn how_in(i: &Instruction, mode: u8) -> How {
    match mode {
        MODE_LONG => how(i),
        _ => super::flat::how(i, mode, how),
    }
}

fn how(i: &Instruction) -> How {
    if i.code_size() != CodeSize::Code64 {
        return How::Handler;
    }
    match i.mnemonic() {
        M::Nop | M::Endbr64 | M::Endbr32 | M::Pause => return How::Nothing,
        M::Prefetchw | M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 => return How::Nothing,
        M::Push | M::Pop | M::Leave if super::flow::is_stack(i) => return How::Stack,
        _ if super::flow::is_flow(i) => return How::Flow,
        _ if super::special::is_special(i) => return How::Special,
        _ if super::repeat::is_repeat(i) => return How::Repeat,
        _ if super::x87::is_native(i) => return How::X87,
        _ => {}
    }
    if !ordinary_operands(i) || !on_every_host(i) {
        return How::Handler;
    }
    let on_vectors =
        (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && is_vector(i.op_register(n)));
    match on_vectors || matches!(i.mnemonic(), M::Vzeroupper | M::Vzeroall) {
        true if vector(i) => How::Vector,
        true if avx(i) => How::Avx,
        false if integer(i) => How::Same,
        _ => How::Handler,
    }
}

impl How {
    /// The vector registers that must be the guest's.
    pub(super) fn vectors(self) -> Vectors {
        match self {
            How::Vector => Vectors::Xmm,
            How::Avx => Vectors::Ymm,
            _ => Vectors::None,
        }
    }
}

fn is_vector(r: Register) -> bool {
    r.is_xmm() || r.is_ymm()
}

/// Registers, one memory operand and immediates that can be put into another instruction of the same form.
fn ordinary_operands(i: &Instruction) -> bool {
    (0..i.op_count()).all(|n| match i.op_kind(n) {
        OpKind::Register => {
            let r = i.op_register(n);
            r.is_gpr() && !is_high_byte(r) || is_vector(r)
        }
        OpKind::Memory => plain_memory(i) && (i.memory_size().size() > 0 || i.mnemonic() == M::Lea),
        _ => immediate(i, n).is_some(),
    })
}

/// The memory operand, if there is one, has an address that the translator makes.
pub(super) fn plain_memory(i: &Instruction) -> bool {
    let (base, index) = (i.memory_base(), i.memory_index());
    // Absolute addresses of 32 bits need the prefix that iced leaves out.
    let narrow = base == Register::None && index == Register::None && i.memory_displ_size() == 4;
    base != Register::EIP && !narrow && !is_moffs(i) && !index.is_vector_register()
}

/// The form of mov whose operand can be nothing but an absolute address.
fn is_moffs(i: &Instruction) -> bool {
    use Code as C;
    matches!(
        i.code(),
        C::Mov_AL_moffs8
            | C::Mov_AX_moffs16
            | C::Mov_EAX_moffs32
            | C::Mov_RAX_moffs64
            | C::Mov_moffs8_AL
            | C::Mov_moffs16_AX
            | C::Mov_moffs32_EAX
            | C::Mov_moffs64_RAX
    )
}

/// The host has the instruction if this one's features are all in here.
pub(super) fn on_every_host(i: &Instruction) -> bool {
    use CpuidFeature as F;
    i.cpuid_features().iter().all(|f| match f {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 | F::CMOV | F::CX8 => {
            true
        }
        F::SSE | F::SSE2 | F::SSE3 | F::SSSE3 | F::SSE4_1 | F::SSE4_2 | F::POPCNT | F::BMI2 => true,
        F::BMI1 => is_x86_feature_detected!("bmi1"),
        F::LZCNT => is_x86_feature_detected!("lzcnt"),
        F::MOVBE => is_x86_feature_detected!("movbe"),
        F::ADX => is_x86_feature_detected!("adx"),
        F::AES => is_x86_feature_detected!("aes"),
        F::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        F::SHA => is_x86_feature_detected!("sha"),
        F::AVX => is_x86_feature_detected!("avx"),
        F::AVX2 => is_x86_feature_detected!("avx2"),
        F::FMA => is_x86_feature_detected!("fma"),
        F::F16C => is_x86_feature_detected!("f16c"),
        F::VAES => is_x86_feature_detected!("vaes"),
        F::VPCLMULQDQ => is_x86_feature_detected!("vpclmulqdq"),
        _ => false,
    })
}

/// Instructions on general-purpose registers that use no register but their operands, rax and rdx, and raise no
/// exception but for memory.
pub(super) fn integer(i: &Instruction) -> bool {
    match i.mnemonic() {
        M::Mov | M::Movzx | M::Movsx | M::Movsxd | M::Movbe | M::Movnti | M::Bswap => true,
        M::Lea => i.op0_register().size() >= 4,
        M::Add | M::Or | M::Adc | M::Sbb | M::And | M::Sub | M::Xor | M::Cmp | M::Test => true,
        M::Inc | M::Dec | M::Neg | M::Not => true,
        M::Imul | M::Mul | M::Mulx | M::Adcx | M::Adox => true,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr => true,
        // Makers of processors shift 16 bits by more than 16 in different ways.
        M::Shld | M::Shrd => i.op1_register().size() > 2,
        M::Sarx | M::Shlx | M::Shrx | M::Rorx => true,
        M::Bsf | M::Bsr | M::Tzcnt | M::Lzcnt | M::Popcnt | M::Crc32 => true,
        M::Andn | M::Bextr | M::Blsi | M::Blsmsk | M::Blsr | M::Bzhi | M::Pdep | M::Pext => true,
        // With a register as the number, the operand is not where its address says.
        M::Bt | M::Bts | M::Btr | M::Btc => {
            i.op0_kind() == OpKind::Register || i.op1_kind() != OpKind::Register
        }
        M::Xchg | M::Xadd | M::Cmpxchg => true,
        M::Cbw | M::Cwde | M::Cdqe | M::Cwd | M::Cdq | M::Cqo => true,
        M::Clc | M::Stc | M::Cmc | M::Lahf | M::Sahf => true,
        M::Lfence | M::Mfence | M::Sfence => true,
        // setcc and cmovcc: branches have other operands.
        _ => i.condition_code() != ConditionCode::None,
    }
}

/// Instructions on xmm registers, without implied memory operands.
fn vector(i: &Instruction) -> bool {
    // Of a dot product with several NaNs, makers of processors take different ones, and they estimate in different ways.
    let unsuited = matches!(
        i.mnemonic(),
        M::Maskmovdqu | M::Dpps | M::Dppd | M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss
    );
    !unsuited && i.encoding() == EncodingKind::Legacy
}

/// The same in the encoding of AVX. Masked moves access what their masks say, and gathers several places.
fn avx(i: &Instruction) -> bool {
    let unsuited = matches!(
        i.mnemonic(),
        M::Vmaskmovdqu
            | M::Vmaskmovps
            | M::Vmaskmovpd
            | M::Vpmaskmovd
            | M::Vpmaskmovq
            | M::Vdpps
            | M::Vdppd
            | M::Vrcpps
            | M::Vrcpss
            | M::Vrsqrtps
            | M::Vrsqrtss
    );
    !unsuited && i.encoding() == EncodingKind::VEX
}

/// Whether the count of a shift is in cl.
pub(super) fn counts_by_cl(i: &Instruction) -> bool {
    let last = i.op_count().wrapping_sub(1);
    i.op_count() >= 2
        && i.op_kind(last) == OpKind::Register
        && i.op_register(last) == Register::CL
        && is_shift(i)
}

/// Whether ecx is a result that is not named.
pub(super) fn gives_index(i: &Instruction) -> bool {
    matches!(
        i.mnemonic(),
        M::Pcmpistri | M::Pcmpestri | M::Pcmpestri64 | M::Vpcmpistri | M::Vpcmpestri | M::Vpcmpestri64
    )
}

/// Whether an operand that is not aligned is left to the handler: where the processor raises #GP, and where it would have to
/// lock two lines.
pub(super) fn must_be_aligned(i: &Instruction, how: How) -> bool {
    if i.has_lock_prefix() || i.mnemonic() == M::Xchg {
        return true;
    }
    if how == How::Avx {
        return matches!(
            i.mnemonic(),
            M::Vmovaps | M::Vmovapd | M::Vmovdqa | M::Vmovntps | M::Vmovntpd | M::Vmovntdq | M::Vmovntdqa
        );
    }
    if how != How::Vector || i.memory_size().size() != 16 {
        return false;
    }
    !matches!(
        i.mnemonic(),
        M::Movups
            | M::Movupd
            | M::Movdqu
            | M::Lddqu
            | M::Pcmpistri
            | M::Pcmpistrm
            | M::Pcmpestri
            | M::Pcmpestrm
            | M::Pcmpestri64
            | M::Pcmpestrm64
    )
}
