// SPDX-License-Identifier: Apache-2.0
//! Which instruction forms can be compared, and facts about them.

use crate::state::*;
use iced_x86::{Code, Instruction, Mnemonic, OpCodeOperandKind as Kind, Register, RflagsBits};

#[rustfmt::skip]
pub const GPR64: [Register; 16] = [
    Register::RAX, Register::RCX, Register::RDX, Register::RBX, Register::RSP, Register::RBP, Register::RSI, Register::RDI,
    Register::R8, Register::R9, Register::R10, Register::R11, Register::R12, Register::R13, Register::R14, Register::R15,
];
#[rustfmt::skip]
pub const GPR32: [Register; 16] = [
    Register::EAX, Register::ECX, Register::EDX, Register::EBX, Register::ESP, Register::EBP, Register::ESI, Register::EDI,
    Register::R8D, Register::R9D, Register::R10D, Register::R11D, Register::R12D, Register::R13D, Register::R14D, Register::R15D,
];
#[rustfmt::skip]
pub const GPR16: [Register; 16] = [
    Register::AX, Register::CX, Register::DX, Register::BX, Register::SP, Register::BP, Register::SI, Register::DI,
    Register::R8W, Register::R9W, Register::R10W, Register::R11W, Register::R12W, Register::R13W, Register::R14W, Register::R15W,
];
#[rustfmt::skip]
pub const GPR8: [Register; 16] = [
    Register::AL, Register::CL, Register::DL, Register::BL, Register::SPL, Register::BPL, Register::SIL, Register::DIL,
    Register::R8L, Register::R9L, Register::R10L, Register::R11L, Register::R12L, Register::R13L, Register::R14L, Register::R15L,
];
#[rustfmt::skip]
pub const GPR8H: [Register; 4] = [
    Register::AH, Register::CH, Register::DH, Register::BH,
];
pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RBX: usize = 3;
pub const RSP: usize = 4;
pub const RBP: usize = 5;
pub const RSI: usize = 6;
pub const RDI: usize = 7;

/// iced's flag bits at their RFLAGS positions.
pub fn flag_bits(iced: u32) -> u64 {
    let pairs = [
        (RflagsBits::OF, OF),
        (RflagsBits::SF, SF),
        (RflagsBits::ZF, ZF),
        (RflagsBits::AF, AF),
        (RflagsBits::CF, CF),
        (RflagsBits::PF, PF),
        (RflagsBits::DF, DF),
    ];
    pairs
        .iter()
        .filter(|(b, _)| iced & b != 0)
        .fold(0, |m, (_, f)| m | f)
}

pub fn gpr(reg: Register) -> Option<usize> {
    let full = reg.full_register();
    GPR64.iter().position(|&r| r == full)
}
/// Instructions whose native outcome depends on the host's kernel or on things the guest does not share with it.
#[rustfmt::skip]
fn foreign(code: Code, bits: u32) -> bool {
    use Mnemonic::*;
    let op = code.op_code();
    if !(if bits == 32 { op.mode32() } else { op.mode64() })
        || !matches!(
            op.encoding(),
            iced_x86::EncodingKind::Legacy | iced_x86::EncodingKind::VEX
        )
        || op.is_instruction() && code == Code::INVALID
    {
        return true;
    }
    if matches!(
        code.mnemonic(),
        Syscall | Sysenter | Sysexit | Sysret | Int | Int1 | Into | Cpuid | Rdtsc | Rdtscp | Rdpid | Rdfsbase | Wrfsbase | Wrgsbase | Sgdt | Sidt | Sldt | Smsw | Str | Lar | Lsl | Verr | Verw | Xgetbv | Rdrand | Rdseed | Rdpmc | Iret | Iretd | Iretq | Retf | Rsm | Hlt | Monitor | Mwait | Xsave | Xsave64 | Xsaveopt | Xsaveopt64 | Xsavec | Xsavec64 | Xrstor | Xrstor64 | Lss | Lfs | Lgs | Lds | Les | Clflush | Vmcall | Vmmcall | Vmgexit | Int3 | Lgdt | Lidt | Lldt | Ltr | Lmsw | Invlpg | Swapgs | Rdpkru | Wrpkru | Clzero | Monitorx | Mwaitx
    ) {
        return true;
    }
    op.op_kinds().iter().any(|k| {
        matches!(
            k,
            Kind::farbr2_2 | Kind::farbr4_2 | Kind::br16_1 | Kind::br16_2 | Kind::brdisp_2 | Kind::brdisp_4 | Kind::seg_reg | Kind::es | Kind::cs | Kind::ss | Kind::ds | Kind::fs | Kind::gs | Kind::cr_reg | Kind::dr_reg | Kind::tr_reg
        ) || bits == 64 && *k == Kind::mem_offs
    }) || matches!(
        code,
        Code::Jmp_rm16 | Code::Call_rm16 | Code::Retnw | Code::Retnw_imm16 | Code::Jmp_m1616 | Code::Jmp_m1632 | Code::Jmp_m1664 | Code::Call_m1616 | Code::Call_m1632 | Code::Call_m1664 | Code::Jrcxz_rel8_16 | Code::Jecxz_rel8_16 | Code::Popfw | Code::Fstpnce_sti | Code::Movsxd_r16_rm16 | Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D | Code::Reservednop_rm64_r64_0F0D
    ) || matches!(code.mnemonic(), Loop | Loope | Loopne) && op.op_kinds().contains(&Kind::br16_1)
}

/// All instruction forms the interpreter knows and the host can run for comparison.
pub fn forms(bits: u32, known: impl Fn(Code) -> bool) -> Vec<Code> {
    Code::values()
        .filter(|&c| c.op_code().is_instruction() && !foreign(c, bits) && known(c))
        .collect()
}
/// Which arithmetic flags have no defined value after `insn` in `state`.
pub fn undefined_flags(insn: &Instruction, state: &State) -> u64 {
    use Mnemonic::*;
    let all = flag_bits(insn.rflags_undefined());
    let last = insn.op_count().saturating_sub(1);
    let shift = matches!(
        insn.mnemonic(),
        Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd
    );
    if !shift || insn.op_register(last) != Register::CL {
        return all;
    }
    let wide = insn.op0_register().size() == 8 || insn.memory_size().size() == 8;
    match state.regs[RCX] & if wide { 63 } else { 31 } {
        0 => 0,
        1 => all & !OF,
        _ => all,
    }
}

pub fn is_branch(code: Code) -> bool {
    use iced_x86::FlowControl::*;
    matches!(
        code.flow_control(),
        ConditionalBranch | UnconditionalBranch | IndirectBranch | Call | IndirectCall | Return
    ) && !matches!(code.mnemonic(), Mnemonic::Xbegin)
}

pub fn code_uses_stack(code: Code) -> bool {
    let mut i = Instruction::default();
    i.set_code(code);
    i.is_stack_instruction()
}

/// What programs mostly consist of, and what the fast handlers are for.
pub fn everyday(m: Mnemonic) -> bool {
    use Mnemonic::*;
    let name = format!("{m:?}");
    name.starts_with("Cmov")
        || name.starts_with("Set")
        || matches!(
            m,
            Cmp | Test
                | Add
                | Sub
                | And
                | Or
                | Xor
                | Inc
                | Dec
                | Neg
                | Not
                | Adc
                | Sbb
                | Shl
                | Shr
                | Sar
                | Rol
                | Ror
                | Mov
                | Lea
                | Movzx
                | Movsx
                | Movsxd
                | Imul
                | Xchg
                | Bt
                | Movups
                | Movdqu
                | Movq
                | Movd
                | Pxor
                | Xadd
                | Cmpxchg
        )
}
