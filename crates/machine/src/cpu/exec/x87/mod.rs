// SPDX-License-Identifier: Apache-2.0
//! x87, fxsave/fxrstor.
//!
//! Arithmetic is that of [`super::softfp`], rounded to the precision that the control word asks for. An unmasked exception
//! sets ES; the next waiting instruction raises #MF. FCS and FDS are not kept, as on processors that deprecate them.

mod arith;
mod compare;
mod load;
mod remainder;
mod state;
mod store;
mod transcendental;
mod wide;

pub(crate) use state::{
    fxsave_image, load_image, load_x87, load_xmm, mxcsr_of, save_image, xmm_count, FXSAVE_LEN,
};

use crate::cpu::exec::operand::memory_operand;
use crate::cpu::exec::softfp::{flag, Class, Env, Res, Rounded, Target, Un, LEADING};
use crate::cpu::fault::{Exec, Trap};
use crate::cpu::x87state::{sw, F80};
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, Register};

/// The handler for an x87 or state-saving instruction form, if it is one.
pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    state::lookup(code)
        .or_else(|| load::lookup(code))
        .or_else(|| store::lookup(code))
        .or_else(|| arith::lookup(code))
        .or_else(|| compare::lookup(code))
        .or_else(|| remainder::lookup(code))
        .or_else(|| transcendental::lookup(code))
}

/// A waiting instruction that leaves its address in FIP if it raises an unmasked exception.
macro_rules! waiting {
    (|$cpu:ident, $i:ident| $body:expr) => {{
        #[allow(unused_variables)]
        fn handler($cpu: &mut $crate::cpu::Cpu, $i: &iced_x86::Instruction) -> $crate::cpu::fault::Exec {
            $crate::cpu::exec::x87::begin($cpu)?;
            let done: $crate::cpu::fault::Exec = $body;
            done?;
            $crate::cpu::exec::x87::record($cpu, $i);
            Ok(())
        }
        handler as $crate::cpu::SlowFn
    }};
}
use waiting;

/// #NM if the FPU is switched off, #MF if an exception is pending.
fn begin(cpu: &Cpu) -> Exec {
    super::sse::check(cpu)?;
    cpu.fpu.x87.check_pending()
}

/// The pointers are kept for instructions with an unmasked exception only, as AMD's processors do and Intel's with
/// FDP_EXCPTN_ONLY.
#[inline]
fn record(cpu: &mut Cpu, i: &Instruction) {
    if cpu.fpu.x87.status & sw::ES == 0 {
        return;
    }
    if memory_operand(i).is_some() {
        cpu.fpu.x87.fdp = cpu.ea(i);
    }
    cpu.fpu.x87.fip = cpu.rip;
    cpu.fpu.x87.fop = 0;
    // The opcode is the low three bits of the escape byte D8..DF, and the byte after it.
    let mut last = 0u8;
    for k in 0..14 {
        let Ok(byte) = cpu.read::<u8>(cpu.rip.wrapping_add(k)) else {
            return;
        };
        if (0xd8..=0xdf).contains(&last) {
            cpu.fpu.x87.fop = u16::from(last & 7) << 8 | u16::from(byte);
            return;
        }
        last = byte;
    }
}

/// Number of a stack register operand.
fn sn(r: Register) -> u8 {
    (r as usize).wrapping_sub(Register::ST0 as usize) as u8 & 7
}

pub(crate) const INDEFINITE: F80 = F80 {
    m: 3 << 62,
    se: 0xffff,
};
const ONE: F80 = F80 {
    m: LEADING,
    se: 0x3fff,
};
const ZERO: F80 = F80 { m: 0, se: 0 };
const BIAS: i32 = 16383;

/// Full precision, for what the precision control does not govern.
const EXTENDED: Target = Target {
    precision: 64,
    emin: 1 - BIAS,
    emax: BIAS,
    wrap: 24576,
};

/// The target that the precision control asks for.
fn target(cpu: &Cpu) -> Target {
    let precision = match cpu.fpu.x87.control >> 8 & 3 {
        0 => 24,
        2 => 53,
        _ => 64,
    };
    Target {
        precision,
        ..EXTENDED
    }
}

fn unpack(v: F80) -> Un {
    let sign = v.se & 0x8000 != 0;
    let plain = |class, exp, sig, denormal| Un {
        sign,
        class,
        exp,
        sig,
        denormal,
    };
    match v.se & 0x7fff {
        0 if v.m == 0 => Un::zero(sign),
        0 => {
            let lz = v.m.leading_zeros();
            plain(Class::Num, 1 - BIAS - lz as i32, v.m << lz, true)
        }
        _ if v.m & LEADING == 0 => plain(Class::Bad, 0, 0, false),
        0x7fff if v.m == LEADING => Un::inf(sign),
        0x7fff => plain(Class::Nan, 0, v.m, false),
        e => plain(Class::Num, i32::from(e) - BIAS, v.m, false),
    }
}

fn pack(env: &mut Env, res: Res, target: &Target) -> F80 {
    let (sign, e, m) = match res {
        Res::Zero(sign) => (sign, 0, 0),
        Res::Inf(sign) => (sign, 0x7fff, LEADING),
        Res::Nan(n) => (n.sign, 0x7fff, n.sig | LEADING),
        Res::Num(sign, exp, sig) => match crate::cpu::exec::softfp::round(env, sign, exp, sig, target) {
            Rounded::Zero => (sign, 0, 0),
            Rounded::Inf => (sign, 0x7fff, LEADING),
            Rounded::Num(exp, m) if m & LEADING != 0 => (sign, (exp + BIAS).clamp(1, 0x7ffe) as u16, m),
            Rounded::Num(_, m) => (sign, 0, m),
        },
    };
    F80 {
        m,
        se: e | u16::from(sign) << 15,
    }
}

impl crate::cpu::x87state::X87 {
    fn slot(&self, n: u8) -> usize {
        usize::from(self.top.wrapping_add(n) & 7)
    }
    /// ST(n), or `None` if it is empty.
    fn get(&self, n: u8) -> Option<F80> {
        let at = self.slot(n);
        (self.tags >> at & 1 != 0).then_some(self.regs[at & 7])
    }
    fn put(&mut self, n: u8, v: F80) {
        let at = self.slot(n);
        self.regs[at & 7] = v;
        self.tags |= 1 << at;
    }
    fn free(&mut self, n: u8) {
        let at = self.slot(n);
        self.tags &= !(1 << at);
    }
    fn pop(&mut self) {
        self.free(0);
        self.top = self.top.wrapping_add(1) & 7;
    }
    fn masked(&self, flags: u32) -> bool {
        flags & !u32::from(self.control) & flag::ALL == 0
    }
    fn set_c1(&mut self, on: bool) {
        self.status = (self.status & !sw::C1) | if on { sw::C1 } else { 0 };
    }
    /// Adds exception flags and sets C1.
    fn raise(&mut self, flags: u32, c1: bool) {
        self.status |= (flags & flag::ALL) as u16;
        self.set_c1(c1);
        self.update_pending();
    }
    /// [`Self::raise`] for instructions that leave C1 alone.
    fn raise_keeping_c1(&mut self, flags: u32) {
        let c1 = self.status & sw::C1 != 0;
        self.raise(flags, c1);
    }
    /// A stack overflow or underflow; true if it is masked, so that the caller stores the indefinite value.
    fn stack_fault(&mut self, overflow: bool) -> bool {
        self.status |= sw::SF;
        self.raise(flag::IE, overflow);
        self.masked(flag::IE)
    }
    /// Pushes `v`, or what a stack overflow leaves there. False if nothing was pushed.
    fn push(&mut self, v: F80) -> bool {
        let v = if self.get(7).is_some() {
            if !self.stack_fault(true) {
                return false;
            }
            INDEFINITE
        } else {
            v
        };
        self.push_unchecked(v);
        true
    }
    fn push_unchecked(&mut self, v: F80) {
        self.top = self.top.wrapping_sub(1) & 7;
        self.put(0, v);
    }
    fn env(&self) -> Env {
        Env::x87(self.control)
    }
    /// Takes over an operation's flags. False if the result must not be stored in a register: one of #I, #D, #Z is unmasked.
    fn settle(&mut self, env: &Env) -> bool {
        let pre = env.flags & flag::PRE;
        if !self.masked(pre) {
            self.raise(pre, false);
            return false;
        }
        self.raise(env.flags, env.flags & flag::PE != 0 && env.up);
        true
    }
    /// [`Self::settle`] for a result that goes to memory: overflow and underflow keep it from being stored, too.
    fn would_store(&self, env: &Env) -> bool {
        self.masked(env.flags & !flag::PE)
    }
}

/// The operand at `[ea]` as an unpacked number.
fn mem_f32(cpu: &mut Cpu, i: &Instruction) -> Result<Un, Trap> {
    let va = cpu.ea(i);
    let v = cpu.read::<u32>(va)?;
    Ok(crate::cpu::exec::softfp::unpack::<crate::cpu::exec::softfp::F32>(
        u64::from(v),
        false,
    ))
}
fn mem_f64(cpu: &mut Cpu, i: &Instruction) -> Result<Un, Trap> {
    let va = cpu.ea(i);
    let v = cpu.read::<u64>(va)?;
    Ok(crate::cpu::exec::softfp::unpack::<crate::cpu::exec::softfp::F64>(
        v, false,
    ))
}
fn mem_i16(cpu: &mut Cpu, i: &Instruction) -> Result<Un, Trap> {
    let va = cpu.ea(i);
    let v = cpu.read::<u16>(va)? as i16;
    Ok(Un::int(v < 0, u64::from(v.unsigned_abs())))
}
fn mem_i32(cpu: &mut Cpu, i: &Instruction) -> Result<Un, Trap> {
    let va = cpu.ea(i);
    let v = cpu.read::<u32>(va)? as i32;
    Ok(Un::int(v < 0, u64::from(v.unsigned_abs())))
}
fn mem_i64(cpu: &mut Cpu, i: &Instruction) -> Result<Un, Trap> {
    let va = cpu.ea(i);
    let v = cpu.read::<u64>(va)? as i64;
    Ok(Un::int(v < 0, v.unsigned_abs()))
}

/// `ST(dst) = f(ST(0))`, stored with `target`.
fn unary(cpu: &mut Cpu, target: &Target, f: impl Fn(&mut Env, &Un) -> Res) -> Exec {
    let Some(a) = cpu.fpu.x87.get(0) else {
        if cpu.fpu.x87.stack_fault(false) {
            cpu.fpu.x87.put(0, INDEFINITE);
        }
        return Ok(());
    };
    let mut env = cpu.fpu.x87.env();
    let res = f(&mut env, &unpack(a));
    let v = pack(&mut env, res, target);
    if cpu.fpu.x87.settle(&env) {
        cpu.fpu.x87.put(0, v);
    }
    Ok(())
}
