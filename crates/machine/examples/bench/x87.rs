// SPDX-License-Identifier: Apache-2.0
//! A loop of x87 instructions.

use super::{assemble, Result, DATA};
use iced_x86::code_asm::*;

/// x87 as compilers make it of long double: a polynomial of doubles, a sum that is kept in memory, a comparison.
pub fn code() -> Result<Vec<u8>> {
    assemble(|a| {
        let (mut top, mut small) = (a.create_label(), a.create_label());
        a.mov(rsi, DATA)?;
        a.set_label(&mut top)?;
        a.fld(qword_ptr(rsi))?;
        a.fld(st0)?;
        a.fmul(qword_ptr(rsi + 8))?;
        a.fadd(qword_ptr(rsi + 16))?;
        a.fmulp(st1, st0)?;
        a.fld(tbyte_ptr(rsi + 32))?;
        a.faddp(st1, st0)?;
        a.fcomi(st0, st0)?;
        a.jp(small)?;
        a.fld(st0)?;
        a.fstp(tbyte_ptr(rsi + 32))?;
        a.set_label(&mut small)?;
        a.fstp(qword_ptr(rsi + 24))?;
        a.sub(rdi, 1)?;
        a.jne(top)?;
        a.ret()
    })
}

pub fn data() -> Vec<u8> {
    [1.25f64, 0.5, -1.0, 0.0, 0.0, 0.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect()
}
