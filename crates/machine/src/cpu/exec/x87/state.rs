// SPDX-License-Identifier: Apache-2.0
//! Control instructions, and saving and restoring state: environment, fnsave, fxsave.

use super::{sn, waiting};
use crate::cpu::exec::sse::{aligned, handler, MXCSR_MASK};
use crate::cpu::fault::{Exec, Fault, Trap};
use crate::cpu::x87state::{sw, F80, X87};
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

/// Bytes that fxsave writes; the rest of its 512 is left to software.
pub(crate) const FXSAVE_LEN: usize = 416;
/// Bytes that must be accessible.
const FXSAVE_AREA: usize = 512;

fn put<const N: usize>(buf: &mut [u8], at: usize, v: [u8; N]) {
    if let Some(to) = buf.get_mut(at..at + N) {
        to.copy_from_slice(&v);
    }
}
fn take<const N: usize>(buf: &[u8], at: usize) -> [u8; N] {
    buf.get(at..at + N)
        .and_then(|b| b.try_into().ok())
        .unwrap_or([0; N])
}

fn raw(v: F80) -> [u8; 10] {
    take(
        (u128::from(v.m) | u128::from(v.se) << 64)
            .to_le_bytes()
            .as_slice(),
        0,
    )
}
fn cooked(b: [u8; 10]) -> F80 {
    F80 {
        m: u64::from_le_bytes(take(&b, 0)),
        se: u16::from_le_bytes(take(&b, 8)),
    }
}

/// xmm registers that the code can name, which are the ones that fxsave and fxrstor move.
pub(crate) fn xmm_count(cpu: &Cpu) -> usize {
    if cpu.seg.code32 {
        8
    } else {
        16
    }
}

/// FIP, FDP and FOP, which are shown only while an exception is pending.
fn pointers(f: &X87) -> (u64, u64, u16) {
    if f.status & sw::ES != 0 {
        (f.fip, f.fdp, f.fop)
    } else {
        (0, 0, 0)
    }
}

/// The image of fxsave; `wide` is the form with REX.W, which holds 64-bit pointers.
pub(crate) fn fxsave_image(cpu: &Cpu, wide: bool) -> [u8; FXSAVE_LEN] {
    let mut b = [0; FXSAVE_LEN];
    let f = &cpu.fpu.x87;
    put(&mut b, 0, f.control.to_le_bytes());
    put(&mut b, 2, f.status_word().to_le_bytes());
    put(&mut b, 4, [f.tags]);
    let (fip, fdp, fop) = pointers(f);
    put(&mut b, 6, fop.to_le_bytes());
    if wide {
        put(&mut b, 8, fip.to_le_bytes());
        put(&mut b, 16, fdp.to_le_bytes());
    } else {
        put(&mut b, 8, (fip as u32).to_le_bytes());
        put(&mut b, 16, (fdp as u32).to_le_bytes());
    }
    put(&mut b, 24, cpu.fpu.mxcsr.to_le_bytes());
    put(&mut b, 28, MXCSR_MASK.to_le_bytes());
    for n in 0..8 {
        put(&mut b, 32 + 16 * n, raw(f.regs[f.slot(n as u8) & 7]));
    }
    for (n, x) in cpu.fpu.xmm.iter().enumerate().take(xmm_count(cpu)) {
        put(&mut b, 160 + 16 * n, x.to_le_bytes());
    }
    b
}

/// MXCSR of an fxsave image; #GP for reserved bits.
pub(crate) fn mxcsr_of(b: &[u8; FXSAVE_LEN]) -> Result<u32, Fault> {
    let mxcsr = u32::from_le_bytes(take(b, 24));
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(Fault::gp());
    }
    Ok(mxcsr)
}

/// Loads the x87 part of an fxsave image.
pub(crate) fn load_x87(cpu: &mut Cpu, b: &[u8; FXSAVE_LEN], wide: bool) {
    let f = &mut cpu.fpu.x87;
    f.set_control(u16::from_le_bytes(take(b, 0)));
    f.set_status_word(u16::from_le_bytes(take(b, 2)));
    f.tags = take::<1>(b, 4)[0];
    f.fop = u16::from_le_bytes(take(b, 6)) & 0x7ff;
    if wide {
        f.fip = u64::from_le_bytes(take(b, 8));
        f.fdp = u64::from_le_bytes(take(b, 16));
    } else {
        f.fip = u64::from(u32::from_le_bytes(take(b, 8)));
        f.fdp = u64::from(u32::from_le_bytes(take(b, 16)));
    }
    for n in 0..8 {
        let at = f.slot(n as u8) & 7;
        f.regs[at] = cooked(take(b, 32 + 16 * n));
    }
}

/// Loads the xmm registers of an fxsave image.
pub(crate) fn load_xmm(cpu: &mut Cpu, b: &[u8; FXSAVE_LEN]) {
    let count = xmm_count(cpu);
    for (n, x) in cpu.fpu.xmm.iter_mut().enumerate().take(count) {
        *x = u128::from_le_bytes(take(b, 160 + 16 * n));
    }
}

/// Loads an fxsave image; #GP for reserved MXCSR bits.
pub(crate) fn fxrstor_image(cpu: &mut Cpu, b: &[u8; FXSAVE_LEN], wide: bool) -> Exec {
    cpu.fpu.mxcsr = mxcsr_of(b)?;
    load_x87(cpu, b, wide);
    load_xmm(cpu, b);
    Ok(())
}

/// An fxsave area, with zeros in what fxsave leaves as it is.
pub(crate) fn save_image(cpu: &Cpu, wide: bool) -> [u8; FXSAVE_AREA] {
    let mut area = [0; FXSAVE_AREA];
    put(&mut area, 0, fxsave_image(cpu, wide));
    area
}

/// Loads the first part of an fxsave area.
pub(crate) fn load_image(cpu: &mut Cpu, area: &[u8; FXSAVE_AREA], wide: bool) -> Exec {
    fxrstor_image(cpu, &take(area, 0), wide)
}

/// The address of the area, which must be aligned. Of its segment only the first byte is looked at before the alignment is.
fn fxsave_area(cpu: &mut Cpu, i: &Instruction) -> Result<u64, Trap> {
    let first = cpu.operand_va(i, 0, i.memory_segment(), cpu.ea_offset(i), 1);
    if cpu.is_refused(first) {
        return Err(cpu.not_canonical(first).into());
    }
    cpu.check_alignment(cpu.ea(i), 4)?;
    aligned(cpu, i)
}

fn fxsave(cpu: &mut Cpu, i: &Instruction, wide: bool) -> Exec {
    let va = fxsave_area(cpu, i)?;
    let image = fxsave_image(cpu, wide);
    // The whole area must be writable, though its last part is not written.
    cpu.probe_write(va, FXSAVE_AREA)?;
    cpu.write_bytes(va, image.get(..160 + 16 * xmm_count(cpu)).unwrap_or(&image))
}

fn fxrstor(cpu: &mut Cpu, i: &Instruction, wide: bool) -> Exec {
    let va = fxsave_area(cpu, i)?;
    let mut area = [0; FXSAVE_AREA];
    cpu.read_bytes(va, &mut area)?;
    fxrstor_image(cpu, &take(&area, 0), wide)
}

/// The full tag word: two bits per physical register.
fn tag_word(f: &X87) -> u16 {
    f.regs.iter().enumerate().fold(0, |w, (n, v)| {
        let tag = if f.tags >> n & 1 == 0 {
            3
        } else if v.m == 0 && v.se & 0x7fff == 0 {
            1
        } else if matches!(v.se & 0x7fff, 0 | 0x7fff) || v.m >> 63 == 0 {
            2
        } else {
            0
        };
        w | tag << (2 * n)
    })
}

/// The environment: 28 bytes (32-bit form) or 14 bytes (16-bit form), at the start of `b`.
fn environment(f: &X87, b: &mut [u8], short: bool) {
    let (control, status, tags) = (f.control, f.status_word(), tag_word(f));
    let (fip, fdp, fop) = pointers(f);
    if short {
        for (k, w) in [control, status, tags, fip as u16, 0, fdp as u16, 0]
            .into_iter()
            .enumerate()
        {
            put(b, 2 * k, w.to_le_bytes());
        }
        return;
    }
    let high = |w: u16| 0xffff_0000 | u32::from(w);
    let words = [
        high(control),
        high(status),
        high(tags),
        fip as u32,
        u32::from(fop) << 16,
        fdp as u32,
        0xffff_0000,
    ];
    for (k, w) in words.into_iter().enumerate() {
        put(b, 4 * k, w.to_le_bytes());
    }
}

fn set_environment(f: &mut X87, b: &[u8], short: bool) {
    let step = if short { 2 } else { 4 };
    let word = |k: usize| u16::from_le_bytes(take(b, k * step));
    let pointer = |k: usize| {
        if short {
            u64::from(word(k))
        } else {
            u64::from(u32::from_le_bytes(take(b, k * 4)))
        }
    };
    f.set_control(word(0));
    f.set_status_word(word(1));
    let tags = word(2);
    f.tags = (0..8)
        .filter(|n| tags >> (2 * n) & 3 != 3)
        .fold(0, |t, n| t | 1 << n);
    f.fip = pointer(3);
    f.fdp = pointer(5);
    f.fop = if short {
        0
    } else {
        u16::from_le_bytes(take(b, 18)) & 0x7ff
    };
}

fn fnstenv(cpu: &mut Cpu, i: &Instruction, short: bool) -> Exec {
    let va = cpu.ea(i);
    cpu.check_alignment(va, env_unit(short))?;
    let mut b = [0; 28];
    environment(&cpu.fpu.x87, &mut b, short);
    cpu.write_bytes(va, b.get(..env_len(short)).unwrap_or(&[]))?;
    cpu.fpu.x87.control |= 0x3f;
    cpu.fpu.x87.update_pending();
    Ok(())
}

fn fldenv(cpu: &mut Cpu, i: &Instruction, short: bool) -> Exec {
    let va = cpu.ea(i);
    cpu.check_alignment(va, env_unit(short))?;
    let mut b = [0; 28];
    cpu.read_bytes(va, b.get_mut(..env_len(short)).unwrap_or(&mut []))?;
    set_environment(&mut cpu.fpu.x87, &b, short);
    Ok(())
}

/// What the fields of an environment are aligned to.
fn env_unit(short: bool) -> usize {
    if short {
        2
    } else {
        4
    }
}

fn env_len(short: bool) -> usize {
    if short {
        14
    } else {
        28
    }
}

fn fnsave(cpu: &mut Cpu, i: &Instruction, short: bool) -> Exec {
    let va = cpu.ea(i);
    cpu.check_alignment(va, env_unit(short))?;
    let mut b = [0; 108];
    environment(&cpu.fpu.x87, &mut b, short);
    for n in 0..8 {
        let v = cpu.fpu.x87.regs[cpu.fpu.x87.slot(n as u8) & 7];
        put(&mut b, env_len(short) + 10 * n, raw(v));
    }
    cpu.write_bytes(va, b.get(..env_len(short) + 80).unwrap_or(&[]))?;
    init(cpu);
    Ok(())
}

fn frstor(cpu: &mut Cpu, i: &Instruction, short: bool) -> Exec {
    let va = cpu.ea(i);
    cpu.check_alignment(va, env_unit(short))?;
    let mut b = [0; 108];
    cpu.read_bytes(va, b.get_mut(..env_len(short) + 80).unwrap_or(&mut []))?;
    set_environment(&mut cpu.fpu.x87, &b, short);
    for n in 0..8 {
        let at = cpu.fpu.x87.slot(n as u8) & 7;
        cpu.fpu.x87.regs[at] = cooked(take(&b, env_len(short) + 10 * n));
    }
    Ok(())
}

/// As `fninit`: everything but the contents of the registers.
fn init(cpu: &mut Cpu) {
    let regs = cpu.fpu.x87.regs;
    cpu.fpu.x87 = X87 {
        regs,
        ..X87::default()
    };
}

fn store_status(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let va = cpu.ea(i);
    cpu.write::<u16>(va, cpu.fpu.x87.status_word())
}

fn rotate(cpu: &mut Cpu, by: u8) -> Exec {
    cpu.fpu.x87.top = cpu.fpu.x87.top.wrapping_add(by) & 7;
    cpu.fpu.x87.set_c1(false);
    Ok(())
}

/// A waiting control instruction: FIP is left alone.
macro_rules! control {
    (|$cpu:ident, $i:ident| $body:expr) => {
        handler!(|$cpu, $i| {
            $cpu.fpu.x87.check_pending()?;
            $body
        })
    };
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Fxsave_m512byte => handler!(|cpu, i| fxsave(cpu, i, false)),
        Fxsave64_m512byte => handler!(|cpu, i| fxsave(cpu, i, true)),
        Fxrstor_m512byte => handler!(|cpu, i| fxrstor(cpu, i, false)),
        Fxrstor64_m512byte => handler!(|cpu, i| fxrstor(cpu, i, true)),
        Wait => control!(|cpu, i| Ok(())),
        Fnop => waiting!(|cpu, i| Ok(())),
        Fninit | Finit => handler!(|cpu, i| {
            init(cpu);
            Ok(())
        }),
        Fnclex | Fclex => handler!(|cpu, i| {
            cpu.fpu.x87.status &= !(sw::BUSY | sw::ES | sw::SF | 0x3f);
            Ok(())
        }),
        // Of the 287 and 8087: no effect since the 387.
        Fneni | Feni | Fndisi | Fdisi | Fnsetpm | Fsetpm => handler!(|cpu, i| Ok(())),
        Fldcw_m2byte => control!(|cpu, i| {
            let va = cpu.ea(i);
            let v = cpu.read::<u16>(va)?;
            cpu.fpu.x87.set_control(v);
            Ok(())
        }),
        Fnstcw_m2byte | Fstcw_m2byte => handler!(|cpu, i| {
            let va = cpu.ea(i);
            cpu.write::<u16>(va, cpu.fpu.x87.control)
        }),
        Fnstsw_m2byte | Fstsw_m2byte => handler!(|cpu, i| store_status(cpu, i)),
        Fnstsw_AX | Fstsw_AX => handler!(|cpu, i| {
            cpu.regs[0] = (cpu.regs[0] & !0xffff) | u64::from(cpu.fpu.x87.status_word());
            Ok(())
        }),
        Fnstenv_m28byte | Fstenv_m28byte => handler!(|cpu, i| fnstenv(cpu, i, false)),
        Fnstenv_m14byte | Fstenv_m14byte => handler!(|cpu, i| fnstenv(cpu, i, true)),
        Fldenv_m28byte => control!(|cpu, i| fldenv(cpu, i, false)),
        Fldenv_m14byte => control!(|cpu, i| fldenv(cpu, i, true)),
        Fnsave_m108byte | Fsave_m108byte => handler!(|cpu, i| fnsave(cpu, i, false)),
        Fnsave_m94byte | Fsave_m94byte => handler!(|cpu, i| fnsave(cpu, i, true)),
        Frstor_m108byte => control!(|cpu, i| frstor(cpu, i, false)),
        Frstor_m94byte => control!(|cpu, i| frstor(cpu, i, true)),
        Ffree_sti => waiting!(|cpu, i| {
            cpu.fpu.x87.set_c1(false);
            cpu.fpu.x87.free(sn(i.op0_register()));
            Ok(())
        }),
        Ffreep_sti => waiting!(|cpu, i| {
            cpu.fpu.x87.set_c1(false);
            cpu.fpu.x87.free(sn(i.op0_register()));
            cpu.fpu.x87.pop();
            Ok(())
        }),
        Fincstp => waiting!(|cpu, i| rotate(cpu, 1)),
        Fdecstp => waiting!(|cpu, i| rotate(cpu, 7)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::lookup;
    use crate::testing::{TestVm, DATA};
    use iced_x86::{Code, Decoder, DecoderOptions};

    #[test]
    fn code_of_32_bits_saves_and_restores_eight_xmm_registers() {
        let mut vm = TestVm::new(&[]);
        // fxsave [esi]
        let save = Decoder::new(32, &[0x0f, 0xae, 0x06], DecoderOptions::NONE).decode();
        let (Some(fxsave), Some(fxrstor)) = (lookup(save.code()), lookup(Code::Fxrstor_m512byte)) else {
            panic!("no handler");
        };
        (vm.cpu.seg.code32, vm.cpu.seg.whole) = (true, !0);
        vm.cpu.regs[6] = DATA;
        vm.cpu.fpu.xmm = std::array::from_fn(|n| n as u128 + 1);
        vm.poke(DATA + 160 + 128, &[0x77; 16]);
        assert_eq!(fxsave(&mut vm.cpu, &save), Ok(()));
        assert_eq!(vm.peek(DATA + 160 + 112, 2), [8, 0]);
        assert_eq!(vm.peek(DATA + 160 + 128, 16), [0x77; 16]);
        vm.cpu.fpu.xmm = [0; 16];
        assert_eq!(fxrstor(&mut vm.cpu, &save), Ok(()));
        assert_eq!((vm.cpu.fpu.xmm[7], vm.cpu.fpu.xmm[8]), (8, 0));
    }
}
