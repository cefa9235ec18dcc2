// SPDX-License-Identifier: Apache-2.0
//! Which x87 instructions may be in translated code: those that move and compute, and raise nothing while all exceptions are masked.

use iced_x86::{CpuidFeature as F, Instruction, MemorySize, Mnemonic as M, OpKind, Register};

/// Whether it uses the x87 registers, or waits for them.
pub(super) fn is_one(i: &Instruction) -> bool {
    let features = i.cpuid_features();
    let on_stack = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_st());
    let of_fpu = |f: &F| {
        matches!(
            f,
            F::FPU | F::FPU287 | F::FPU287XL_ONLY | F::FPU387 | F::FPU387SL_ONLY
        )
    };
    on_stack || i.fpu_stack_increment_info().writes_top() || features.iter().any(of_fpu)
}

/// Whether it is one of those, with an operand of the size that it has.
pub(super) fn is_known(i: &Instruction) -> bool {
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    match i.mnemonic() {
        M::Fld | M::Fst | M::Fstp | M::Fild | M::Fist | M::Fistp | M::Fisttp => !memory || is_number(i),
        M::Fadd | M::Fsub | M::Fsubr | M::Fmul | M::Fdiv | M::Fdivr | M::Fcom | M::Fcomp => {
            !memory || is_number(i)
        }
        M::Fiadd | M::Fisub | M::Fisubr | M::Fimul | M::Fidiv | M::Fidivr | M::Ficom | M::Ficomp => {
            is_number(i)
        }
        M::Fldcw | M::Fnstcw => memory,
        M::Fnstsw => memory || i.op0_register() == Register::AX,
        M::Faddp | M::Fsubp | M::Fsubrp | M::Fmulp | M::Fdivp | M::Fdivrp => true,
        M::Fcompp | M::Fucom | M::Fucomp | M::Fucompp | M::Ftst | M::Fxam => true,
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => true,
        M::Fld1 | M::Fldz | M::Fldl2t | M::Fldl2e | M::Fldpi | M::Fldlg2 | M::Fldln2 => true,
        M::Fxch | M::Fchs | M::Fabs | M::Fsqrt | M::Frndint | M::Fscale => true,
        M::Fprem | M::Fprem1 | M::Fxtract | M::Ffree | M::Ffreep => true,
        M::Fcmovb | M::Fcmovnb | M::Fcmove | M::Fcmovne => true,
        M::Fcmovbe | M::Fcmovnbe | M::Fcmovu | M::Fcmovnu => true,
        M::Fnclex | M::Fnop | M::Fincstp | M::Fdecstp => true,
        _ => false,
    }
}

fn is_number(i: &Instruction) -> bool {
    use MemorySize as S;
    matches!(
        i.memory_size(),
        S::Float32 | S::Float64 | S::Float80 | S::Int16 | S::Int32 | S::Int64
    )
}
