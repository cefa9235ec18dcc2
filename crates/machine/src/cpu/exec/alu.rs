// SPDX-License-Identifier: Apache-2.0
//! Two-operand arithmetic and logic, inc/dec/neg/not, adcx/adox.

use super::operand::*;
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

const ADD: u8 = 0;
const OR: u8 = 1;
const ADC: u8 = 2;
const SBB: u8 = 3;
const AND: u8 = 4;
const SUB: u8 = 5;
const XOR: u8 = 6;
const CMP: u8 = 7;
const TEST: u8 = 8;

/// Sum of `a`, `b` and a carry, with all six flags.
#[inline]
pub(crate) fn add<const B: u32>(a: u64, b: u64, carry: u64) -> (u64, u64) {
    let r = a.wrapping_add(b).wrapping_add(carry) & mask(B);
    let carries = (a & b) | ((a | b) & !r);
    let f = flag(CF, carries & msb(B) != 0) | flag(AF, carries & 8 != 0);
    (r, f | flag(OF, (a ^ r) & (b ^ r) & msb(B) != 0) | szp::<B>(r))
}

/// `a - b - borrow`, with all six flags.
#[inline]
pub(crate) fn sub<const B: u32>(a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let r = a.wrapping_sub(b).wrapping_sub(borrow) & mask(B);
    let borrows = (!a & b) | ((!a | b) & r);
    let f = flag(CF, borrows & msb(B) != 0) | flag(AF, borrows & 8 != 0);
    (r, f | flag(OF, (a ^ b) & (a ^ r) & msb(B) != 0) | szp::<B>(r))
}

#[inline(always)]
fn compute<const OP: u8, const B: u32>(a: u64, b: u64, carry: u64) -> (u64, u64) {
    match OP {
        ADD => add::<B>(a, b, 0),
        ADC => add::<B>(a, b, carry),
        SUB | CMP => sub::<B>(a, b, 0),
        SBB => sub::<B>(a, b, carry),
        _ => {
            let r = match OP {
                OR => a | b,
                XOR => a ^ b,
                _ => a & b,
            };
            // AF is undefined after a logical operation; AMD clears it.
            (r, szp::<B>(r))
        }
    }
}

fn binary<const OP: u8, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let b = read_op::<B>(cpu, i, 1)?;
    let carry = if OP == ADC || OP == SBB {
        cpu.rflags() & CF
    } else {
        0
    };
    let mut flags = 0;
    if OP == CMP || OP == TEST {
        let a = read_op::<B>(cpu, i, 0)?;
        flags = compute::<OP, B>(a, b, 0).1;
    } else {
        rmw_op::<B>(cpu, i, &mut |a| {
            let (r, f) = compute::<OP, B>(a, b, carry);
            flags = f;
            Some(r)
        })?;
    }
    cpu.set_arith_flags(flags);
    Ok(())
}

/// inc (`STEP` = 1) and dec (`STEP` = !0): CF stays.
fn step<const INC: bool, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let carry = cpu.rflags() & CF;
    let mut flags = 0;
    rmw_op::<B>(cpu, i, &mut |a| {
        let (r, f) = if INC { add::<B>(a, 1, 0) } else { sub::<B>(a, 1, 0) };
        flags = f;
        Some(r)
    })?;
    cpu.set_arith_flags(flags & !CF | carry);
    Ok(())
}

fn neg<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let mut flags = 0;
    rmw_op::<B>(cpu, i, &mut |a| {
        let (r, f) = sub::<B>(0, a, 0);
        flags = f;
        Some(r)
    })?;
    cpu.set_arith_flags(flags);
    Ok(())
}

fn not<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    rmw_op::<B>(cpu, i, &mut |a| Some(!a & mask(B))).map(|_| ())
}

/// adcx (`BIT` = CF) and adox (`BIT` = OF): add with that flag as carry, changing no other.
fn adx<const BIT: u64, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let b = read_op::<B>(cpu, i, 1)?;
    let a = gpr(cpu, i.op0_register());
    let flags = cpu.rflags();
    let (r, f) = add::<B>(a, b, (flags & BIT != 0) as u64);
    set_gpr(cpu, i.op0_register(), r);
    cpu.set_arith_flags(flags & !BIT & ARITH | flag(BIT, f & CF != 0));
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Add_rm8_r8 | Add_r8_rm8 | Add_AL_imm8 | Add_rm8_imm8 | Add_rm8_imm8_82 => binary::<ADD, 8>,
        Add_rm16_r16 | Add_r16_rm16 | Add_AX_imm16 | Add_rm16_imm16 | Add_rm16_imm8 => binary::<ADD, 16>,
        Add_rm32_r32 | Add_r32_rm32 | Add_EAX_imm32 | Add_rm32_imm32 | Add_rm32_imm8 => binary::<ADD, 32>,
        Add_rm64_r64 | Add_r64_rm64 | Add_RAX_imm32 | Add_rm64_imm32 | Add_rm64_imm8 => binary::<ADD, 64>,
        Or_rm8_r8 | Or_r8_rm8 | Or_AL_imm8 | Or_rm8_imm8 | Or_rm8_imm8_82 => binary::<OR, 8>,
        Or_rm16_r16 | Or_r16_rm16 | Or_AX_imm16 | Or_rm16_imm16 | Or_rm16_imm8 => binary::<OR, 16>,
        Or_rm32_r32 | Or_r32_rm32 | Or_EAX_imm32 | Or_rm32_imm32 | Or_rm32_imm8 => binary::<OR, 32>,
        Or_rm64_r64 | Or_r64_rm64 | Or_RAX_imm32 | Or_rm64_imm32 | Or_rm64_imm8 => binary::<OR, 64>,
        Adc_rm8_r8 | Adc_r8_rm8 | Adc_AL_imm8 | Adc_rm8_imm8 | Adc_rm8_imm8_82 => binary::<ADC, 8>,
        Adc_rm16_r16 | Adc_r16_rm16 | Adc_AX_imm16 | Adc_rm16_imm16 | Adc_rm16_imm8 => binary::<ADC, 16>,
        Adc_rm32_r32 | Adc_r32_rm32 | Adc_EAX_imm32 | Adc_rm32_imm32 | Adc_rm32_imm8 => binary::<ADC, 32>,
        Adc_rm64_r64 | Adc_r64_rm64 | Adc_RAX_imm32 | Adc_rm64_imm32 | Adc_rm64_imm8 => binary::<ADC, 64>,
        Sbb_rm8_r8 | Sbb_r8_rm8 | Sbb_AL_imm8 | Sbb_rm8_imm8 | Sbb_rm8_imm8_82 => binary::<SBB, 8>,
        Sbb_rm16_r16 | Sbb_r16_rm16 | Sbb_AX_imm16 | Sbb_rm16_imm16 | Sbb_rm16_imm8 => binary::<SBB, 16>,
        Sbb_rm32_r32 | Sbb_r32_rm32 | Sbb_EAX_imm32 | Sbb_rm32_imm32 | Sbb_rm32_imm8 => binary::<SBB, 32>,
        Sbb_rm64_r64 | Sbb_r64_rm64 | Sbb_RAX_imm32 | Sbb_rm64_imm32 | Sbb_rm64_imm8 => binary::<SBB, 64>,
        And_rm8_r8 | And_r8_rm8 | And_AL_imm8 | And_rm8_imm8 | And_rm8_imm8_82 => binary::<AND, 8>,
        And_rm16_r16 | And_r16_rm16 | And_AX_imm16 | And_rm16_imm16 | And_rm16_imm8 => binary::<AND, 16>,
        And_rm32_r32 | And_r32_rm32 | And_EAX_imm32 | And_rm32_imm32 | And_rm32_imm8 => binary::<AND, 32>,
        And_rm64_r64 | And_r64_rm64 | And_RAX_imm32 | And_rm64_imm32 | And_rm64_imm8 => binary::<AND, 64>,
        Sub_rm8_r8 | Sub_r8_rm8 | Sub_AL_imm8 | Sub_rm8_imm8 | Sub_rm8_imm8_82 => binary::<SUB, 8>,
        Sub_rm16_r16 | Sub_r16_rm16 | Sub_AX_imm16 | Sub_rm16_imm16 | Sub_rm16_imm8 => binary::<SUB, 16>,
        Sub_rm32_r32 | Sub_r32_rm32 | Sub_EAX_imm32 | Sub_rm32_imm32 | Sub_rm32_imm8 => binary::<SUB, 32>,
        Sub_rm64_r64 | Sub_r64_rm64 | Sub_RAX_imm32 | Sub_rm64_imm32 | Sub_rm64_imm8 => binary::<SUB, 64>,
        Xor_rm8_r8 | Xor_r8_rm8 | Xor_AL_imm8 | Xor_rm8_imm8 | Xor_rm8_imm8_82 => binary::<XOR, 8>,
        Xor_rm16_r16 | Xor_r16_rm16 | Xor_AX_imm16 | Xor_rm16_imm16 | Xor_rm16_imm8 => binary::<XOR, 16>,
        Xor_rm32_r32 | Xor_r32_rm32 | Xor_EAX_imm32 | Xor_rm32_imm32 | Xor_rm32_imm8 => binary::<XOR, 32>,
        Xor_rm64_r64 | Xor_r64_rm64 | Xor_RAX_imm32 | Xor_rm64_imm32 | Xor_rm64_imm8 => binary::<XOR, 64>,
        Cmp_rm8_r8 | Cmp_r8_rm8 | Cmp_AL_imm8 | Cmp_rm8_imm8 | Cmp_rm8_imm8_82 => binary::<CMP, 8>,
        Cmp_rm16_r16 | Cmp_r16_rm16 | Cmp_AX_imm16 | Cmp_rm16_imm16 | Cmp_rm16_imm8 => binary::<CMP, 16>,
        Cmp_rm32_r32 | Cmp_r32_rm32 | Cmp_EAX_imm32 | Cmp_rm32_imm32 | Cmp_rm32_imm8 => binary::<CMP, 32>,
        Cmp_rm64_r64 | Cmp_r64_rm64 | Cmp_RAX_imm32 | Cmp_rm64_imm32 | Cmp_rm64_imm8 => binary::<CMP, 64>,
        Test_rm8_r8 | Test_AL_imm8 | Test_rm8_imm8 | Test_rm8_imm8_F6r1 => binary::<TEST, 8>,
        Test_rm16_r16 | Test_AX_imm16 | Test_rm16_imm16 | Test_rm16_imm16_F7r1 => binary::<TEST, 16>,
        Test_rm32_r32 | Test_EAX_imm32 | Test_rm32_imm32 | Test_rm32_imm32_F7r1 => binary::<TEST, 32>,
        Test_rm64_r64 | Test_RAX_imm32 | Test_rm64_imm32 | Test_rm64_imm32_F7r1 => binary::<TEST, 64>,
        Inc_rm8 => step::<true, 8>,
        Inc_r16 | Inc_rm16 => step::<true, 16>,
        Inc_r32 | Inc_rm32 => step::<true, 32>,
        Inc_rm64 => step::<true, 64>,
        Dec_rm8 => step::<false, 8>,
        Dec_r16 | Dec_rm16 => step::<false, 16>,
        Dec_r32 | Dec_rm32 => step::<false, 32>,
        Dec_rm64 => step::<false, 64>,
        Neg_rm8 => neg::<8>,
        Neg_rm16 => neg::<16>,
        Neg_rm32 => neg::<32>,
        Neg_rm64 => neg::<64>,
        Not_rm8 => not::<8>,
        Not_rm16 => not::<16>,
        Not_rm32 => not::<32>,
        Not_rm64 => not::<64>,
        Adcx_r32_rm32 => adx::<CF, 32>,
        Adcx_r64_rm64 => adx::<CF, 64>,
        Adox_r32_rm32 => adx::<OF, 32>,
        Adox_r64_rm64 => adx::<OF, 64>,
        _ => return None,
    })
}
