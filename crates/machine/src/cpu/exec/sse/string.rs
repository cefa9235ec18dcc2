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
    let mut e = [0; 16];
    let n = if imm & 1 == 0 { 16 } else { 8 };
    for (k, slot) in e.iter_mut().enumerate().take(n) {
        *slot = match imm & 3 {
            0 => i32::from(l::bytes(v)[k]),
            1 => i32::from(l::words(v)[k & 7]),
            2 => i32::from(l::ibytes(v)[k]),
            _ => i32::from(l::iwords(v)[k & 7]),
        };
    }
    (e, n)
}

/// The comparison before polarity: bit `j` is about element `j` of `b`.
fn aggregate(a: &Side, b: &Side, n: usize, imm: u8) -> u32 {
    let av = &a.e[..a.len];
    let bit = |j: usize| match imm >> 2 & 3 {
        0 => j < b.len && av.contains(&b.e[j]),
        1 => j < b.len && av.chunks_exact(2).any(|r| r[0] <= b.e[j] && b.e[j] <= r[1]),
        2 => match (j < a.len, j < b.len) {
            (true, true) => a.e[j] == b.e[j],
            (false, false) => true,
            _ => false,
        },
        _ => av
            .iter()
            .take(n - j)
            .enumerate()
            .all(|(k, &x)| j + k < b.len && x == b.e[j + k]),
    };
    (0..n).filter(|&j| bit(j)).fold(0, |m, j| m | 1 << j)
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
    let (a, n) = side(cpu.xmm[x0(i)]);
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
    let (e, n) = elements(cpu.xmm[x0(i)], imm);
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
    cpu.xmm[0] = if i.immediate8() & 0x40 == 0 {
        u128::from(result)
    } else if n == 16 {
        l::from_bytes(std::array::from_fn(|k| if on(k) { 0xff } else { 0 }))
    } else {
        l::from_words(std::array::from_fn(|k| if on(k) { 0xffff } else { 0 }))
    };
    Ok(())
}

pub fn lookup(code: Code) -> Option<SlowFn> {
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
