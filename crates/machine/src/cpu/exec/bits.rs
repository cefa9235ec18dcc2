// SPDX-License-Identifier: Apache-2.0
//! Bit tests, bit scans, population count, crc32.

use super::operand::*;
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

const BT: u8 = 0;
const BTS: u8 = 1;
const BTR: u8 = 2;
const BTC: u8 = 3;

/// bt, bts, btr, btc. With a register as offset a memory operand is a bit string that reaches to both sides.
fn bit_test<const OP: u8, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let off = read_op::<B>(cpu, i, 1)?;
    let bit = 1u64 << (off as u32 & (B - 1));
    let apply = |old: u64| match OP {
        BTS => old | bit,
        BTR => old & !bit,
        _ => old ^ bit,
    };
    let old = if i.op0_kind() == OpKind::Register {
        let r = i.op0_register();
        let old = gpr(cpu, r);
        if OP != BT {
            set_gpr(cpu, r, apply(old));
        }
        old
    } else {
        let va = if i.op1_kind() == OpKind::Register {
            let words = (sext(B, off) as i64) >> B.trailing_zeros();
            ea_moved(cpu, i, (words as u64).wrapping_mul(B as u64 / 8), B as u64 / 8)
        } else {
            cpu.ea(i)
        };
        if OP == BT {
            load::<B>(cpu, va)?
        } else {
            rmw_mem::<B>(cpu, va, i.has_lock_prefix(), &mut |o| Some(apply(o)))?
        }
    };
    // The undefined flags stay as they were on AMD.
    let flags = cpu.rflags() & ARITH & !CF;
    cpu.set_arith_flags(flags | flag(CF, old & bit != 0));
    Ok(())
}

/// bsf (`FORWARD`) and bsr. A zero source leaves the destination alone, even its upper half.
fn scan<const FORWARD: bool, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?;
    // AMD clears CF OF SF AF and sets PF by the result.
    let flags = if v == 0 {
        ZF | PF
    } else {
        let n = if FORWARD {
            v.trailing_zeros()
        } else {
            63 - v.leading_zeros()
        } as u64;
        set_gpr(cpu, i.op0_register(), n);
        szp::<B>(n) & PF
    };
    cpu.set_arith_flags(flags);
    Ok(())
}

/// tzcnt and lzcnt. OF SF AF PF are undefined: AMD keeps OF and clears the others.
fn count<const TRAILING: bool, const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?;
    let n = if TRAILING {
        v.trailing_zeros().min(B)
    } else {
        v.leading_zeros() - (64 - B)
    } as u64;
    set_gpr(cpu, i.op0_register(), n);
    let old = cpu.rflags() & OF;
    cpu.set_arith_flags(old | flag(CF, v == 0) | flag(ZF, n == 0));
    Ok(())
}

fn popcnt<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?;
    set_gpr(cpu, i.op0_register(), v.count_ones() as u64);
    cpu.set_arith_flags(flag(ZF, v == 0));
    Ok(())
}

/// CRC-32C of one byte: the reflected polynomial 0x11EDC6F41.
const fn crc_table() -> [u32; 256] {
    let mut t = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut c = n as u32;
        let mut k = 0;
        while k < 8 {
            c = (c >> 1) ^ (0x82f6_3b78 & (c & 1).wrapping_neg());
            k += 1;
        }
        t[n] = c;
        n += 1;
    }
    t
}
static CRC: [u32; 256] = crc_table();

fn crc32<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = read_op::<B>(cpu, i, 1)?;
    let mut c = gpr(cpu, i.op0_register()) as u32;
    for byte in &v.to_le_bytes()[..(B / 8) as usize] {
        c = (c >> 8) ^ CRC[usize::from(c as u8 ^ byte)];
    }
    set_gpr(cpu, i.op0_register(), c as u64);
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Bt_rm16_r16 | Bt_rm16_imm8 => bit_test::<BT, 16>,
        Bt_rm32_r32 | Bt_rm32_imm8 => bit_test::<BT, 32>,
        Bt_rm64_r64 | Bt_rm64_imm8 => bit_test::<BT, 64>,
        Bts_rm16_r16 | Bts_rm16_imm8 => bit_test::<BTS, 16>,
        Bts_rm32_r32 | Bts_rm32_imm8 => bit_test::<BTS, 32>,
        Bts_rm64_r64 | Bts_rm64_imm8 => bit_test::<BTS, 64>,
        Btr_rm16_r16 | Btr_rm16_imm8 => bit_test::<BTR, 16>,
        Btr_rm32_r32 | Btr_rm32_imm8 => bit_test::<BTR, 32>,
        Btr_rm64_r64 | Btr_rm64_imm8 => bit_test::<BTR, 64>,
        Btc_rm16_imm8 | Btc_rm16_r16 => bit_test::<BTC, 16>,
        Btc_rm32_imm8 | Btc_rm32_r32 => bit_test::<BTC, 32>,
        Btc_rm64_imm8 | Btc_rm64_r64 => bit_test::<BTC, 64>,
        Bsf_r16_rm16 => scan::<true, 16>,
        Bsf_r32_rm32 => scan::<true, 32>,
        Bsf_r64_rm64 => scan::<true, 64>,
        Bsr_r16_rm16 => scan::<false, 16>,
        Bsr_r32_rm32 => scan::<false, 32>,
        Bsr_r64_rm64 => scan::<false, 64>,
        Tzcnt_r16_rm16 => count::<true, 16>,
        Tzcnt_r32_rm32 => count::<true, 32>,
        Tzcnt_r64_rm64 => count::<true, 64>,
        Lzcnt_r16_rm16 => count::<false, 16>,
        Lzcnt_r32_rm32 => count::<false, 32>,
        Lzcnt_r64_rm64 => count::<false, 64>,
        Popcnt_r16_rm16 => popcnt::<16>,
        Popcnt_r32_rm32 => popcnt::<32>,
        Popcnt_r64_rm64 => popcnt::<64>,
        Crc32_r32_rm8 | Crc32_r64_rm8 => crc32::<8>,
        Crc32_r32_rm16 => crc32::<16>,
        Crc32_r32_rm32 => crc32::<32>,
        Crc32_r64_rm64 => crc32::<64>,
        _ => return None,
    })
}
