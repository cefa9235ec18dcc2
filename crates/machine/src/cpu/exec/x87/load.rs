// SPDX-License-Identifier: Apache-2.0
//! Loads, constants, register moves.

use super::{
    mem_f32, mem_f64, mem_i16, mem_i32, mem_i64, pack, sn, waiting, EXTENDED, INDEFINITE, ONE, ZERO,
};
use crate::abi::x86::rflags::{CF, PF, ZF};
use crate::cpu::exec::softfp::{arith, rc, Class, Un};
use crate::cpu::fault::Exec;
use crate::cpu::x87state::F80;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

/// Pushes a single or double: a signalling NaN is quieted with #I, a denormal raises #D.
fn load(cpu: &mut Cpu, u: Un) -> Exec {
    if cpu.fpu.x87.get(7).is_some() {
        cpu.fpu.x87.push(ZERO);
        return Ok(());
    }
    let mut env = cpu.fpu.x87.env();
    let res = if u.class == Class::Nan {
        arith::pick_nan(&mut env, &u, &u)
    } else {
        u.res()
    };
    env.denormals(&u, &u);
    let v = pack(&mut env, res, &EXTENDED);
    if cpu.fpu.x87.settle(&env) {
        cpu.fpu.x87.push(v);
    }
    Ok(())
}

fn push(cpu: &mut Cpu, v: F80) -> Exec {
    cpu.fpu.x87.set_c1(false);
    cpu.fpu.x87.push(v);
    Ok(())
}

/// Pushes a positive constant given by its exponent and the first 128 bits of its significand, as RC rounds it.
fn constant(cpu: &mut Cpu, exp: i32, sig: u128) -> Exec {
    let half = 1u128 << 63;
    let up = match cpu.fpu.x87.env().rc {
        rc::NEAREST => sig & (u128::MAX >> 64) >= half,
        rc::UP => true,
        _ => false,
    };
    push(
        cpu,
        F80 {
            m: (sig >> 64) as u64 + u64::from(up),
            se: (16383 + exp) as u16,
        },
    )
}

fn exchange(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let n = sn(i.op1_register());
    let (a, b) = (cpu.fpu.x87.get(0), cpu.fpu.x87.get(n));
    cpu.fpu.x87.set_c1(false);
    if (a.is_none() || b.is_none()) && !cpu.fpu.x87.stack_fault(false) {
        return Ok(());
    }
    cpu.fpu.x87.put(0, b.unwrap_or(INDEFINITE));
    cpu.fpu.x87.put(n, a.unwrap_or(INDEFINITE));
    Ok(())
}

/// `fst st(i)`, `fstp st(i)`
fn copy(cpu: &mut Cpu, i: &Instruction, pop: bool) -> Exec {
    let n = sn(i.op0_register());
    cpu.fpu.x87.set_c1(false);
    let v = match cpu.fpu.x87.get(0) {
        Some(v) => v,
        None if cpu.fpu.x87.stack_fault(false) => INDEFINITE,
        None => return Ok(()),
    };
    cpu.fpu.x87.put(n, v);
    if pop {
        cpu.fpu.x87.pop();
    }
    Ok(())
}

/// `fcmovcc`
fn conditional(cpu: &mut Cpu, i: &Instruction, holds: bool) -> Exec {
    let n = sn(i.op1_register());
    match (cpu.fpu.x87.get(0), cpu.fpu.x87.get(n)) {
        (Some(_), Some(b)) => {
            if holds {
                cpu.fpu.x87.put(0, b);
            }
        }
        _ => {
            if cpu.fpu.x87.stack_fault(false) {
                cpu.fpu.x87.put(0, INDEFINITE);
            }
        }
    }
    Ok(())
}

/// Eighteen packed decimal digits and a sign.
fn load_bcd(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let va = cpu.ea(i);
    cpu.check_alignment(va, 8)?;
    let mut b = [0; 10];
    cpu.read_bytes(va, &mut b)?;
    let magnitude = b[..9]
        .iter()
        .rev()
        .fold(0u64, |v, &d| v * 100 + u64::from(d >> 4) * 10 + u64::from(d & 15));
    cpu.fpu.x87.set_c1(false);
    load(cpu, Un::int(b[9] & 0x80 != 0, magnitude))
}

macro_rules! cmov {
    ($mask:expr, $when:literal) => {
        waiting!(|cpu, i| {
            let holds = (cpu.rflags() & $mask != 0) == $when;
            conditional(cpu, i, holds)
        })
    };
}
/// The first 128 bits of log2(e), exponent 0.
pub(crate) const LOG2_E: u128 = 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88;

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Fld_m32fp => waiting!(|cpu, i| {
            let u = mem_f32(cpu, i)?;
            load(cpu, u)
        }),
        Fld_m64fp => waiting!(|cpu, i| {
            let u = mem_f64(cpu, i)?;
            load(cpu, u)
        }),
        Fild_m16int => waiting!(|cpu, i| {
            let u = mem_i16(cpu, i)?;
            load(cpu, u)
        }),
        Fild_m32int => waiting!(|cpu, i| {
            let u = mem_i32(cpu, i)?;
            load(cpu, u)
        }),
        Fild_m64int => waiting!(|cpu, i| {
            let u = mem_i64(cpu, i)?;
            load(cpu, u)
        }),
        Fld_m80fp => waiting!(|cpu, i| {
            let va = cpu.ea(i);
            cpu.check_alignment(va, 8)?;
            let mut b = [0; 16];
            cpu.read_bytes(va, &mut b[..10])?;
            let v = u128::from_le_bytes(b);
            push(
                cpu,
                F80 {
                    m: v as u64,
                    se: (v >> 64) as u16,
                },
            )
        }),
        Fbld_m80bcd => waiting!(|cpu, i| load_bcd(cpu, i)),
        Fld_sti => waiting!(|cpu, i| {
            match cpu.fpu.x87.get(sn(i.op0_register())) {
                Some(v) => push(cpu, v),
                None => {
                    if cpu.fpu.x87.stack_fault(false) {
                        cpu.fpu.x87.push_unchecked(INDEFINITE);
                    }
                    Ok(())
                }
            }
        }),
        Fld1 => waiting!(|cpu, i| push(cpu, ONE)),
        Fldz => waiting!(|cpu, i| push(cpu, ZERO)),
        Fldl2t => waiting!(|cpu, i| constant(cpu, 1, 0xd49a_784b_cd1b_8afe_492b_f6ff_4daf_db4c)),
        Fldl2e => waiting!(|cpu, i| constant(cpu, 0, LOG2_E)),
        Fldpi => waiting!(|cpu, i| constant(cpu, 1, super::transcendental::PI)),
        Fldlg2 => waiting!(|cpu, i| constant(cpu, -2, 0x9a20_9a84_fbcf_f798_8f89_59ac_0b7c_9178)),
        Fldln2 => waiting!(|cpu, i| constant(cpu, -1, super::transcendental::LN2)),
        Fxch_st0_sti | Fxch_st0_sti_DDC8 | Fxch_st0_sti_DFC8 => waiting!(|cpu, i| exchange(cpu, i)),
        Fst_sti => waiting!(|cpu, i| copy(cpu, i, false)),
        Fstp_sti | Fstp_sti_DFD0 | Fstp_sti_DFD8 => waiting!(|cpu, i| copy(cpu, i, true)),
        // As fstp, but an empty ST(0) is no stack fault and is not copied.
        Fstpnce_sti => waiting!(|cpu, i| {
            if cpu.fpu.x87.get(0).is_some() {
                return copy(cpu, i, true);
            }
            cpu.fpu.x87.set_c1(false);
            cpu.fpu.x87.pop();
            Ok(())
        }),
        Fcmovb_st0_sti => cmov!(CF, true),
        Fcmovnb_st0_sti => cmov!(CF, false),
        Fcmove_st0_sti => cmov!(ZF, true),
        Fcmovne_st0_sti => cmov!(ZF, false),
        Fcmovbe_st0_sti => cmov!(CF | ZF, true),
        Fcmovnbe_st0_sti => cmov!(CF | ZF, false),
        Fcmovu_st0_sti => cmov!(PF, true),
        Fcmovnu_st0_sti => cmov!(PF, false),
        _ => return None,
    })
}
