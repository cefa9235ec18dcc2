// SPDX-License-Identifier: Apache-2.0
//! The instruction forms that streams are made of, by how often real code has them.

use domzero_machine::testing::executes;
use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic, OpCodeOperandKind as Kind};
use std::sync::OnceLock;

/// A class of forms, and how many of a thousand operands-only instructions are of it.
pub struct Class {
    pub weight: u64,
    pub codes: Vec<Code>,
}

/// Forms that need more than operands: they branch, use registers by themselves, or end in the layer above.
pub struct Forms {
    pub classes: Vec<Class>,
    pub total: u64,
    pub privileged: Vec<Code>,
    pub strings: Vec<Code>,
    pub x87: Vec<Code>,
}

/// What `instruction` makes of operands alone; which class it is in.
fn class_of(code: Code) -> Option<usize> {
    use Mnemonic::*;
    let op = code.op_code();
    let name = format!("{:?}", code.mnemonic());
    let features = code.cpuid_features();
    let vector = op.op_kinds().iter().any(|k| format!("{k:?}").contains("mm"));
    Some(match code.mnemonic() {
        Mov => 0,
        Lea => 1,
        Add | Sub | And | Or | Xor => 2,
        Cmp | Test => 3,
        Inc | Dec | Neg | Not => 4,
        Adc | Sbb => 5,
        Shl | Sal | Shr | Sar => 6,
        Rol | Ror | Rcl | Rcr | Shld | Shrd => 7,
        Movzx | Movsx | Movsxd => 8,
        Imul => 9,
        Mul => 10,
        Bt | Bts | Btr | Btc => 11,
        Bsf | Bsr | Popcnt | Tzcnt | Lzcnt | Bswap | Movbe | Crc32 => 12,
        Xchg => 13,
        Cmpxchg | Xadd | Cmpxchg8b | Cmpxchg16b => 14,
        Cbw | Cwde | Cdqe | Cwd | Cdq | Cqo | Nop | Endbr64 | Pause | Lahf | Sahf | Clc | Stc | Cmc => 15,
        Movaps | Movups | Movdqa | Movdqu | Movd | Movq | Movss | Movsd | Movapd | Movupd | Movlps
        | Movhps | Movlpd | Movhpd
            if vector =>
        {
            16
        }
        _ if name.starts_with("Cmov") => 17,
        _ if name.starts_with("Set") => 18,
        _ if features.contains(&CpuidFeature::FPU) => X87,
        _ if vector && op.op_kinds().iter().any(|k| format!("{k:?}").starts_with("mm_")) => 20,
        _ if vector && op.encoding() == EncodingKind::VEX => 21,
        _ if vector => 22,
        _ if op.encoding() == EncodingKind::VEX => 23,
        Mfence | Lfence | Sfence | Prefetcht0 | Prefetchw | Stmxcsr | Ldmxcsr | Rdtsc | Rdtscp | Cpuid
        | Rdrand | Rdseed | Cld | Std | Rdfsbase | Rdgsbase | Wrfsbase | Wrgsbase | Xgetbv | Rdpid
        | Fxsave | Fxsave64 | Sgdt | Sidt | Smsw | Str | Sldt => 24,
        _ => return None,
    })
}

/// The class of x87 instructions.
const X87: usize = 19;

/// Weights of the classes, in their order.
#[rustfmt::skip]
const WEIGHTS: [u64; 25] = [
    260, 60, 150, 60, 45, 20, 60, 15, 60, 25, 6, 20, 15, 15, 15, 20, 70, 30, 20, 20, 10, 30, 60, 8, 8,
];

/// Operands that are not random: segment registers, far pointers, branches, control registers.
fn has_odd_operand(code: Code) -> bool {
    code.op_code().op_kinds().iter().any(|k| {
        let name = format!("{k:?}");
        name.starts_with("far")
            || name.starts_with("br")
            || matches!(
                k,
                Kind::seg_reg
                    | Kind::es
                    | Kind::cs
                    | Kind::ss
                    | Kind::ds
                    | Kind::fs
                    | Kind::gs
                    | Kind::cr_reg
                    | Kind::dr_reg
                    | Kind::tr_reg
            )
    })
}

impl Forms {
    /// Those of code of this width that the engine executes.
    pub fn of(bits: u32) -> &'static Forms {
        static FORMS: [OnceLock<Forms>; 2] = [OnceLock::new(), OnceLock::new()];
        FORMS[usize::from(bits == 32)].get_or_init(|| {
            let mut forms = Forms {
                classes: WEIGHTS
                    .iter()
                    .map(|&weight| Class {
                        weight,
                        codes: Vec::new(),
                    })
                    .collect(),
                total: 0,
                privileged: Vec::new(),
                strings: Vec::new(),
                x87: Vec::new(),
            };
            for code in Code::values().filter(|&c| {
                let op = c.op_code();
                op.is_instruction()
                    && if bits == 32 { op.mode32() } else { op.mode64() }
                    && matches!(op.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
                    && executes(c)
            }) {
                use Mnemonic::*;
                match code.mnemonic() {
                    Hlt | Cli | Sti | Clts | Invlpg | Swapgs | Wbinvd | Rdmsr | Wrmsr | Int3 | Int | In
                    | Out | Lgdt | Syscall | Iretq | Ud2 => forms.privileged.push(code),
                    Movsb | Movsw | Movsq | Stosb | Stosw | Stosd | Stosq | Lodsb | Lodsw | Lodsd | Lodsq
                    | Cmpsb | Cmpsw | Cmpsq | Scasb | Scasw | Scasd | Scasq => forms.strings.push(code),
                    _ if matches!(code, Code::Movsd_m32_m32 | Code::Cmpsd_m32_m32) => {
                        forms.strings.push(code)
                    }
                    Mov if has_odd_operand(code) => forms.privileged.push(code),
                    _ if has_odd_operand(code) => {}
                    _ => {
                        if let Some(class) = class_of(code) {
                            if class == X87 {
                                forms.x87.push(code);
                            }
                            forms.classes[class].codes.push(code);
                        }
                    }
                }
            }
            forms.classes.retain(|c| !c.codes.is_empty());
            forms.total = forms.classes.iter().map(|c| c.weight).sum();
            forms
        })
    }

    /// An x87 instruction; those that unmask exceptions, with what they happen to load, are rare.
    pub fn pick_x87(&self, rng: &mut crate::rng::Rng) -> Code {
        let code = rng.pick(&self.x87);
        match code.mnemonic() {
            Mnemonic::Fldcw | Mnemonic::Fldenv | Mnemonic::Frstor if rng.chance(90) => Code::Fld_m64fp,
            _ => code,
        }
    }

    pub fn pick(&self, rng: &mut crate::rng::Rng) -> Code {
        let mut n = rng.below(self.total);
        for class in &self.classes {
            if n < class.weight {
                return rng.pick(&class.codes);
            }
            n -= class.weight;
        }
        Code::Nopd
    }
}
