// SPDX-License-Identifier: Apache-2.0
//! xsave, xsaveopt, xsavec, xrstor, xgetbv.
//!
//! A component whose registers have their initial values is not in use (XINUSE), which is looked up when it is asked for.

use super::x87::{fxsave_image, load_x87, load_xmm, mxcsr_of, xmm_count, FXSAVE_LEN};
use crate::abi::x86::gpr::{RAX, RCX, RDX};
use crate::abi::x86::{mxcsr, xcr0};
use crate::cpu::fault::{Exec, Fault, Trap};
use crate::cpu::x87state::X87;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

/// Parts of the area: the x87 state in two, MXCSR between them, xmm registers, header, upper halves of the ymm registers.
const MXCSR: usize = 24;
const ST: usize = 32;
const XMM: usize = 160;
const HEADER: usize = 512;
const YMM: usize = 576;

/// In XCOMP_BV: the area is compacted. With the components that the engine has that moves nothing.
const COMPACTED: u64 = 1 << 63;

/// Which parts are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// All.
    Plain,
    /// Those in use.
    Optimised,
    /// Those in use, and XCOMP_BV.
    Compacted,
}

impl Cpu {
    /// Components of the state that are not as after reset.
    pub(crate) fn xinuse(&self) -> u64 {
        let f = &self.fpu;
        let some = |on: bool, bit: u64| if on { bit } else { 0 };
        let sse = f.mxcsr != mxcsr::INITIAL || f.xmm.iter().any(|&v| v != 0);
        some(!f.x87.is_initial(), xcr0::X87)
            | some(sse, xcr0::SSE)
            | some(f.ymm_hi.iter().any(|&v| v != 0), xcr0::AVX)
    }

    /// The components that xsave and its kin are asked for.
    fn requested(&self) -> u64 {
        let mask = self.regs[RDX] << 32 | self.regs[RAX] & 0xffff_ffff;
        mask & self.fpu.xcr0
    }

    fn check_xsave(&self) -> Exec {
        if !self.fpu.xsave {
            return Err(Fault::ud().into());
        }
        Ok(())
    }

    /// Bytes of the upper halves of ymm registers that code of this width can name.
    fn ymm_bytes(&self) -> usize {
        16 * xmm_count(self)
    }
}

/// The address of the area. #UD, #NM, and #GP unless it is aligned to 64 bytes.
fn area(cpu: &Cpu, i: &Instruction) -> Result<u64, Trap> {
    cpu.check_xsave()?;
    cpu.check_fpu()?;
    let va = cpu.ea(i);
    cpu.check_alignment(va, 4)?;
    if va & 63 != 0 {
        return Err(Fault::gp().into());
    }
    Ok(va)
}

fn save(cpu: &mut Cpu, i: &Instruction, wide: bool, form: Form) -> Exec {
    let va = area(cpu, i)?;
    let at = |offset: usize| va.wrapping_add(offset as u64);
    let asked = cpu.requested();
    let in_use = cpu.xinuse() & asked;
    let written = if form == Form::Plain { asked } else { in_use };
    // xsavec takes MXCSR for a part of SSE's component.
    let needs_mxcsr = if form == Form::Compacted {
        written & xcr0::SSE
    } else {
        asked & xcr0::YMM
    };
    let image = fxsave_image(cpu, wide);
    let xmm_end = XMM + 16 * xmm_count(cpu);
    let mut ymm = [0; 256];
    for (to, v) in ymm.chunks_exact_mut(16).zip(cpu.fpu.ymm_hi) {
        to.copy_from_slice(&v.to_le_bytes());
    }
    let parts = [
        (written & xcr0::X87 != 0, 0, image.get(..MXCSR)),
        (needs_mxcsr != 0, MXCSR, image.get(MXCSR..ST)),
        (written & xcr0::X87 != 0, ST, image.get(ST..XMM)),
        (written & xcr0::SSE != 0, XMM, image.get(XMM..xmm_end)),
        (written & xcr0::AVX != 0, YMM, ymm.get(..cpu.ymm_bytes())),
    ];
    // Nothing is written before all of it can be.
    for (wanted, offset, bytes) in parts {
        if wanted {
            cpu.probe_write(at(offset), bytes.map_or(0, <[u8]>::len))?;
        }
    }
    if form == Form::Compacted {
        let mut header = [0; 16];
        header[..8].copy_from_slice(&in_use.to_le_bytes());
        header[8..].copy_from_slice(&(asked | COMPACTED).to_le_bytes());
        cpu.write_bytes(at(HEADER), &header)?;
    } else {
        cpu.probe_write(at(HEADER), 8)?;
        let before = cpu.read::<u64>(at(HEADER))?;
        cpu.write::<u64>(at(HEADER), before & !asked | in_use)?;
    }
    for (wanted, offset, bytes) in parts {
        if wanted {
            cpu.write_bytes(at(offset), bytes.unwrap_or_default())?;
        }
    }
    Ok(())
}

/// The header of an area: the components that are in it, and whether it is compacted. #GP for one that makes no sense.
fn header(cpu: &mut Cpu, va: u64) -> Result<(u64, bool), Trap> {
    let mut bytes = [0; 64];
    cpu.read_bytes(va.wrapping_add(HEADER as u64), &mut bytes)?;
    let mut words = [0; 8];
    for (to, from) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *to = u64::from_le_bytes(*from);
    }
    let [present, layout, reserved @ ..] = words;
    let compacted = layout & COMPACTED != 0;
    let sound = if compacted {
        layout & !COMPACTED & !cpu.fpu.xcr0 == 0
            && present & !layout == 0
            && present & COMPACTED == 0
            && reserved == [0; 6]
    } else {
        present & !cpu.fpu.xcr0 == 0 && layout == 0 && reserved[0] == 0
    };
    if !sound {
        return Err(Fault::gp().into());
    }
    Ok((present, compacted))
}

fn restore(cpu: &mut Cpu, i: &Instruction, wide: bool) -> Exec {
    let va = area(cpu, i)?;
    let (present, compacted) = header(cpu, va)?;
    let asked = cpu.requested();
    let (loaded, initial) = (asked & present, asked & !present);
    // In the standard form MXCSR comes with either half of the ymm registers, whether they are there or not.
    let with_mxcsr = if compacted {
        loaded & xcr0::SSE
    } else {
        asked & xcr0::YMM
    } != 0;
    let mut image = [0; FXSAVE_LEN];
    let mut read = |from: usize, to: usize| match image.get_mut(from..to) {
        Some(part) => cpu.read_bytes(va.wrapping_add(from as u64), part),
        None => Ok(()),
    };
    if loaded & xcr0::X87 != 0 {
        read(0, MXCSR)?;
        read(ST, XMM)?;
    }
    if with_mxcsr {
        read(MXCSR, ST)?;
    }
    if loaded & xcr0::SSE != 0 {
        read(XMM, FXSAVE_LEN)?;
    }
    let mut ymm = [0; 256];
    let ymm_bytes = cpu.ymm_bytes();
    if loaded & xcr0::AVX != 0 {
        let part = ymm.get_mut(..ymm_bytes).unwrap_or_default();
        cpu.read_bytes(va.wrapping_add(YMM as u64), part)?;
    }
    if with_mxcsr {
        cpu.fpu.mxcsr = mxcsr_of(&image)?;
    } else if compacted && initial & xcr0::SSE != 0 {
        cpu.fpu.mxcsr = mxcsr::INITIAL;
    }
    if loaded & xcr0::X87 != 0 {
        load_x87(cpu, &image, wide);
    } else if initial & xcr0::X87 != 0 {
        cpu.fpu.x87 = X87::default();
    }
    // What was not read is zero, which is what these begin with.
    if asked & xcr0::SSE != 0 {
        load_xmm(cpu, &image);
    }
    if asked & xcr0::AVX != 0 {
        for (v, bytes) in cpu
            .fpu
            .ymm_hi
            .iter_mut()
            .zip(ymm.as_chunks::<16>().0)
            .take(ymm_bytes / 16)
        {
            *v = u128::from_le_bytes(*bytes);
        }
    }
    Ok(())
}

/// Of the registers that ecx can name there are XCR0, and what of it is in use.
fn xgetbv(cpu: &mut Cpu, _: &Instruction) -> Exec {
    cpu.check_xsave()?;
    let value = match cpu.regs[RCX] as u32 {
        0 => cpu.fpu.xcr0,
        1 => cpu.fpu.xcr0 & cpu.xinuse(),
        _ => return Err(Fault::gp().into()),
    };
    (cpu.regs[RAX], cpu.regs[RDX]) = (value & 0xffff_ffff, value >> 32);
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    Some(match code {
        Code::Xsave_mem => |cpu, i| save(cpu, i, false, Form::Plain),
        Code::Xsave64_mem => |cpu, i| save(cpu, i, true, Form::Plain),
        Code::Xsaveopt_mem => |cpu, i| save(cpu, i, false, Form::Optimised),
        Code::Xsaveopt64_mem => |cpu, i| save(cpu, i, true, Form::Optimised),
        Code::Xsavec_mem => |cpu, i| save(cpu, i, false, Form::Compacted),
        Code::Xsavec64_mem => |cpu, i| save(cpu, i, true, Form::Compacted),
        Code::Xrstor_mem => |cpu, i| restore(cpu, i, false),
        Code::Xrstor64_mem => |cpu, i| restore(cpu, i, true),
        Code::Xgetbv => xgetbv,
        _ => return None,
    })
}
