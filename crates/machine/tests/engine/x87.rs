// SPDX-License-Identifier: Apache-2.0
//! Comparison of x87 states, and what of it is up to the maker of the CPU.

use crate::generate::Case;
use crate::state::*;
use iced_x86::Mnemonic;
use std::fmt::Write;

const IE: u16 = 1;
const UE: u16 = 0x10;
const PE: u16 = 0x20;
const STACK_FAULT: u16 = 0x40;
const ES: u16 = 0x80;
const C1: u16 = 0x200;
const CODES: u16 = 0x4700;

fn word(s: &State, i: usize) -> u16 {
    u16::from_le_bytes([s.fx[i], s.fx[i + 1]])
}

/// Computed by approximations of which only the error is specified.
pub fn transcendental(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        m,
        F2xm1 | Fyl2x | Fyl2xp1 | Fpatan | Fptan | Fsin | Fcos | Fsincos
    )
}

/// Leaves something to the maker that a later instruction could see: not for sequences.
pub fn leaves_something_open(m: Mnemonic) -> bool {
    use Mnemonic::*;
    transcendental(m)
        || matches!(
            m,
            Fcmovb
                | Fcmovbe
                | Fcmove
                | Fcmovnb
                | Fcmovnbe
                | Fcmovne
                | Fcmovnu
                | Fcmovu
                | Fcomi
                | Fcomip
                | Fucomi
                | Fucomip
                | Ldmxcsr
                | Vldmxcsr
                | Vrcpps
                | Vrcpss
                | Vrsqrtps
                | Vrsqrtss
                | Vdppd
                | Vdpps
                | Fldcw
                | Fldenv
                | Frstor
                | Fxrstor
                | Fxrstor64
                | Popf
                | Popfd
                | Popfq
                | Ffree
                | Ffreep
                | Fprem
                | Fprem1
                | Fxtract
                | Cvtpi2ps
                | Cvtpi2pd
                | Maskmovq
                | Cvtps2pi
                | Cvttps2pi
                | Cvtpd2pi
                | Cvttpd2pi
                | Fnstenv
                | Fnsave
                | Fxsave
                | Fxsave64
                | Rcpps
                | Rcpss
                | Rsqrtps
                | Rsqrtss
                | Dppd
                | Dpps
        )
}

fn is_nan(s: &State, i: usize) -> bool {
    word(s, 40 + 16 * i) & 0x7fff == 0x7fff
}

/// Bits of the status word that manuals leave open, or on which Intel and AMD disagree.
fn open_status(case: &Case, native: &State) -> u16 {
    use Mnemonic::*;
    let after = word(native, 2);
    let mut open = 0;
    for i in &case.insns {
        open |= match i.mnemonic() {
            Fcmovb | Fcmovbe | Fcmove | Fcmovnb | Fcmovnbe | Fcmovne | Fcmovnu | Fcmovu | Fcomi | Fcomip
            | Fucomi | Fucomip => C1,
            Ffree | Ffreep => CODES,
            Fprem | Fprem1 if after & IE != 0 || is_nan(&case.state, 0) || is_nan(&case.state, 1) => CODES,
            m if transcendental(m) => C1 | PE | UE,
            _ if after & STACK_FAULT != 0 => C1,
            _ => 0,
        };
    }
    open
}

/// Values of 80 bits that are the same but for the last bits of the significand: hosts lose some of them in the reduction of
/// angles near multiples of pi / 2.
fn close(a: &[u8], b: &[u8]) -> bool {
    let ordered = |v: &[u8]| {
        let m = u128::from(u64::from_le_bytes(v[..8].try_into().expect("ten bytes")));
        let se = u16::from_le_bytes([v[8], v[9]]);
        ((u128::from(se & 0x7fff) << 63) + (m & !(1 << 63)), se & 0x8000)
    };
    let ((x, sx), (y, sy)) = (ordered(a), ordered(b));
    sx == sy && x.abs_diff(y) <= 64
}

/// After an unmasked exception makers differ in how much of the instruction is done.
pub fn unmasked(case: &Case, native: &State, guest: &State) -> bool {
    let newly = |s: &State| word(s, 2) & !word(&case.state, 2) & ES != 0;
    let approximate = case.insns.iter().any(|i| transcendental(i.mnemonic()));
    newly(native) && newly(guest) || approximate && (newly(native) || newly(guest))
}

/// fyl2xp1 has no defined result unless its operand is near zero.
fn out_of_domain(m: Mnemonic, state: &State) -> bool {
    m == Mnemonic::Fyl2xp1 && (word(state, 40) & 0x7fff) >= 0x3ffd
}

pub fn compare_x87(case: &Case, native: &State, guest: &State, out: &mut String) {
    if unmasked(case, native, guest)
        || case
            .insns
            .iter()
            .any(|i| out_of_domain(i.mnemonic(), &case.state))
    {
        return;
    }
    let open = open_status(case, native);
    for (name, at, mask) in [("fcw", 0, 0xffff), ("fsw", 2, !open), ("tags", 4, 0xff)] {
        if (word(native, at) ^ word(guest, at)) & mask != 0 {
            let (was, n, g) = (word(&case.state, at), word(native, at), word(guest, at));
            let _ = writeln!(out, "    {name}: was {was:#x} host {n:#x} guest {g:#x}");
        }
    }
    let approximate = case.insns.iter().any(|i| transcendental(i.mnemonic()));
    for i in 0..8 {
        let (a, b) = (32 + 16 * i, 42 + 16 * i);
        let value = |s: &State| {
            s.fx[a..b]
                .iter()
                .rev()
                .fold(String::new(), |t, x| format!("{t}{x:02x}"))
        };
        if native.fx[a..b] != guest.fx[a..b] && !(approximate && close(&native.fx[a..b], &guest.fx[a..b])) {
            let (was, n, g) = (value(&case.state), value(native), value(guest));
            let _ = writeln!(out, "    st{i}: was {was} host {n} guest {g}");
        }
    }
}
