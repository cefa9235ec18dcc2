// SPDX-License-Identifier: Apache-2.0
//! SSE4.2 string compares: `pcmpestri`, `pcmpestrm`, `pcmpistri`, `pcmpistrm`.

use super::{handler, lane as l, src128u, x0};
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

/// One operand: its elements, sign-extended if the compare is signed, and how many count.
struct Side {
    e: [i32; 16],
    len: usize,
}

fn elements(v: u128, imm: u8) -> ([i32; 16], usize) {
    fn words(w: [i32; 8]) -> ([i32; 16], usize) {
        let mut e = [0; 16];
        e[..8].copy_from_slice(&w);
        (e, 8)
    }
    match imm & 3 {
        0 => (l::bytes(v).map(i32::from), 16),
        1 => words(l::words(v).map(i32::from)),
        2 => (l::ibytes(v).map(i32::from), 16),
        _ => words(l::iwords(v).map(i32::from)),
    }
}

/// The comparison before polarity: bit `j` is about element `j` of `b`.
fn aggregate(a: &Side, b: &Side, n: usize, imm: u8) -> u32 {
    let (av, bv) = (&a.e[..a.len], &b.e[..b.len]);
    let bits = |bit: &dyn Fn(usize) -> bool, n: usize| (0..n).fold(0, |m, j| m | u32::from(bit(j)) << j);
    match imm >> 2 & 3 {
        0 => bits(&|j| av.contains(&bv[j]), b.len),
        1 => bits(
            &|j| av.chunks_exact(2).any(|r| r[0] <= bv[j] && bv[j] <= r[1]),
            b.len,
        ),
        2 => bits(
            &|j| match (av.get(j), bv.get(j)) {
                (Some(x), Some(y)) => x == y,
                (None, None) => true,
                _ => false,
            },
            n,
        ),
        _ => bits(
            &|j| {
                av.iter()
                    .take(n - j)
                    .enumerate()
                    .all(|(k, x)| bv.get(j + k) == Some(x))
            },
            n,
        ),
    }
}

/// Compares and sets the flags; gives the result mask and the number of elements.
fn compare(cpu: &mut Cpu, a: Side, b: Side, n: usize, imm: u8) -> (u32, usize) {
    let all = (1u32 << n) - 1;
    let raw = aggregate(&a, &b, n, imm);
    let result = match imm >> 4 & 3 {
        1 => raw ^ all,
        3 => raw ^ ((1u32 << b.len) - 1),
        _ => raw,
    };
    let flags = u64::from(result != 0)
        | u64::from(b.len < n) << 6
        | u64::from(a.len < n) << 7
        | u64::from(result & 1) << 11;
    cpu.set_arith_flags(flags);
    (result, n)
}

fn implicit(cpu: &mut Cpu, i: &Instruction) -> Result<(u32, usize), crate::cpu::fault::Trap> {
    let b = src128u(cpu, i)?;
    let imm = i.immediate8();
    let side = |v: u128| {
        let (e, n) = elements(v, imm);
        (
            Side {
                e,
                len: e[..n].iter().position(|&x| x == 0).unwrap_or(n),
            },
            n,
        )
    };
    let (a, n) = side(cpu.fpu.xmm[x0(i)]);
    let (b, _) = side(b);
    Ok(compare(cpu, a, b, n, imm))
}

fn explicit<const WIDE: bool>(
    cpu: &mut Cpu,
    i: &Instruction,
) -> Result<(u32, usize), crate::cpu::fault::Trap> {
    let b = src128u(cpu, i)?;
    let imm = i.immediate8();
    let length = |r: u64, n: usize| {
        let v = if WIDE { r as i64 } else { i64::from(r as i32) };
        v.unsigned_abs().min(n as u64) as usize
    };
    let (e, n) = elements(cpu.fpu.xmm[x0(i)], imm);
    let a = Side {
        e,
        len: length(cpu.regs[0], n),
    };
    let b = Side {
        e: elements(b, imm).0,
        len: length(cpu.regs[2], n),
    };
    Ok(compare(cpu, a, b, n, imm))
}

/// Stores the index of the lowest or highest set bit in ecx, or the number of elements.
fn index(cpu: &mut Cpu, i: &Instruction, (result, n): (u32, usize)) -> Exec {
    cpu.regs[1] = if result == 0 {
        n as u64
    } else if i.immediate8() & 0x40 != 0 {
        u64::from(31 - result.leading_zeros())
    } else {
        u64::from(result.trailing_zeros())
    };
    Ok(())
}

/// Stores the mask in xmm0, as bits or as whole elements.
fn mask(cpu: &mut Cpu, i: &Instruction, (result, n): (u32, usize)) -> Exec {
    let on = |k: usize| result >> k & 1 != 0;
    cpu.fpu.xmm[0] = if i.immediate8() & 0x40 == 0 {
        u128::from(result)
    } else if n == 16 {
        l::from_bytes(std::array::from_fn(|k| if on(k) { 0xff } else { 0 }))
    } else {
        l::from_words(std::array::from_fn(|k| if on(k) { 0xffff } else { 0 }))
    };
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Pcmpistri_xmm_xmmm128_imm8 => handler!(|cpu, i| {
            let r = implicit(cpu, i)?;
            index(cpu, i, r)
        }),
        Pcmpistrm_xmm_xmmm128_imm8 => handler!(|cpu, i| {
            let r = implicit(cpu, i)?;
            mask(cpu, i, r)
        }),
        Pcmpestri_xmm_xmmm128_imm8 => handler!(|cpu, i| {
            let r = explicit::<false>(cpu, i)?;
            index(cpu, i, r)
        }),
        Pcmpestri64_xmm_xmmm128_imm8 => handler!(|cpu, i| {
            let r = explicit::<true>(cpu, i)?;
            index(cpu, i, r)
        }),
        Pcmpestrm_xmm_xmmm128_imm8 => handler!(|cpu, i| {
            let r = explicit::<false>(cpu, i)?;
            mask(cpu, i, r)
        }),
        Pcmpestrm64_xmm_xmmm128_imm8 => handler!(|cpu, i| {
            let r = explicit::<true>(cpu, i)?;
            mask(cpu, i, r)
        }),
        _ => return None,
    })
}
