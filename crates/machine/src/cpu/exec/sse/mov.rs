// SPDX-License-Identifier: Apache-2.0
//! Moves between xmm registers, memory and general-purpose registers.

use super::{aligned, gn, handler, low32, low64, src128, src128u, src32, src64, x0, x1};
use crate::cpu::exec::sse::lane::{byte_mask, dwords, from_dwords, qwords};
use crate::cpu::fault::{Exec, Trap};
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

const HIGH: u128 = !0 << 64;

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Movups_xmm_xmmm128 | Movupd_xmm_xmmm128 | Movdqu_xmm_xmmm128 | Lddqu_xmm_m128 => {
            handler!(|cpu, i| {
                cpu.fpu.xmm[x0(i)] = src128u(cpu, i)?;
                Ok(())
            })
        }
        Movaps_xmm_xmmm128 | Movapd_xmm_xmmm128 | Movdqa_xmm_xmmm128 | Movntdqa_xmm_m128 => {
            handler!(|cpu, i| {
                cpu.fpu.xmm[x0(i)] = src128(cpu, i)?;
                Ok(())
            })
        }
        Movups_xmmm128_xmm | Movupd_xmmm128_xmm | Movdqu_xmmm128_xmm => handler!(|cpu, i| {
            let v = cpu.fpu.xmm[x1(i)];
            if i.op0_kind() == OpKind::Register {
                cpu.fpu.xmm[x0(i)] = v;
                return Ok(());
            }
            let va = cpu.ea(i);
            cpu.write::<u128>(va, v)
        }),
        Movaps_xmmm128_xmm | Movapd_xmmm128_xmm | Movdqa_xmmm128_xmm | Movntps_m128_xmm
        | Movntpd_m128_xmm | Movntdq_m128_xmm => handler!(|cpu, i| {
            let v = cpu.fpu.xmm[x1(i)];
            if i.op0_kind() == OpKind::Register {
                cpu.fpu.xmm[x0(i)] = v;
                return Ok(());
            }
            let va = aligned(cpu, i)?;
            cpu.write::<u128>(va, v)
        }),
        Movss_xmm_xmmm32 => handler!(|cpu, i| {
            let v = src32(cpu, i)?;
            let d = x0(i);
            cpu.fpu.xmm[d] = if i.op1_kind() == OpKind::Register {
                low32(cpu.fpu.xmm[d], v)
            } else {
                u128::from(v)
            };
            Ok(())
        }),
        Movss_xmmm32_xmm => handler!(|cpu, i| {
            let v = cpu.fpu.xmm[x1(i)] as u32;
            if i.op0_kind() == OpKind::Register {
                let d = x0(i);
                cpu.fpu.xmm[d] = low32(cpu.fpu.xmm[d], v);
                return Ok(());
            }
            let va = cpu.ea(i);
            cpu.write::<u32>(va, v)
        }),
        Movsd_xmm_xmmm64 => handler!(|cpu, i| {
            let v = src64(cpu, i)?;
            let d = x0(i);
            cpu.fpu.xmm[d] = if i.op1_kind() == OpKind::Register {
                low64(cpu.fpu.xmm[d], v)
            } else {
                u128::from(v)
            };
            Ok(())
        }),
        Movsd_xmmm64_xmm => handler!(|cpu, i| {
            let v = cpu.fpu.xmm[x1(i)] as u64;
            if i.op0_kind() == OpKind::Register {
                let d = x0(i);
                cpu.fpu.xmm[d] = low64(cpu.fpu.xmm[d], v);
                return Ok(());
            }
            let va = cpu.ea(i);
            cpu.write::<u64>(va, v)
        }),
        Movq_xmm_xmmm64 => handler!(|cpu, i| {
            cpu.fpu.xmm[x0(i)] = u128::from(src64(cpu, i)?);
            Ok(())
        }),
        Movq_xmmm64_xmm => handler!(|cpu, i| {
            let v = cpu.fpu.xmm[x1(i)] as u64;
            if i.op0_kind() == OpKind::Register {
                cpu.fpu.xmm[x0(i)] = u128::from(v);
                return Ok(());
            }
            let va = cpu.ea(i);
            cpu.write::<u64>(va, v)
        }),
        Movlps_xmm_m64 | Movlpd_xmm_m64 => handler!(|cpu, i| {
            let v = src64(cpu, i)?;
            let d = x0(i);
            cpu.fpu.xmm[d] = low64(cpu.fpu.xmm[d], v);
            Ok(())
        }),
        Movlps_m64_xmm | Movlpd_m64_xmm => handler!(|cpu, i| {
            let va = cpu.ea(i);
            cpu.write::<u64>(va, cpu.fpu.xmm[x1(i)] as u64)
        }),
        Movhps_xmm_m64 | Movhpd_xmm_m64 => handler!(|cpu, i| {
            let v = src64(cpu, i)?;
            let d = x0(i);
            cpu.fpu.xmm[d] = (cpu.fpu.xmm[d] & !HIGH) | u128::from(v) << 64;
            Ok(())
        }),
        Movhps_m64_xmm | Movhpd_m64_xmm => handler!(|cpu, i| {
            let va = cpu.ea(i);
            cpu.write::<u64>(va, (cpu.fpu.xmm[x1(i)] >> 64) as u64)
        }),
        Movhlps_xmm_xmm => handler!(|cpu, i| {
            let d = x0(i);
            cpu.fpu.xmm[d] = low64(cpu.fpu.xmm[d], (cpu.fpu.xmm[x1(i)] >> 64) as u64);
            Ok(())
        }),
        Movlhps_xmm_xmm => handler!(|cpu, i| {
            let d = x0(i);
            cpu.fpu.xmm[d] = (cpu.fpu.xmm[d] & !HIGH) | cpu.fpu.xmm[x1(i)] << 64;
            Ok(())
        }),
        Movd_xmm_rm32 => handler!(|cpu, i| {
            cpu.fpu.xmm[x0(i)] = u128::from(rm32(cpu, i)?);
            Ok(())
        }),
        Movq_xmm_rm64 => handler!(|cpu, i| {
            cpu.fpu.xmm[x0(i)] = u128::from(rm64(cpu, i)?);
            Ok(())
        }),
        Movd_rm32_xmm => handler!(|cpu, i| {
            let v = cpu.fpu.xmm[x1(i)] as u32;
            store32(cpu, i, v)
        }),
        Movq_rm64_xmm => handler!(|cpu, i| {
            let v = cpu.fpu.xmm[x1(i)] as u64;
            store64(cpu, i, v)
        }),
        Movddup_xmm_xmmm64 => handler!(|cpu, i| {
            let v = u128::from(src64(cpu, i)?);
            cpu.fpu.xmm[x0(i)] = v | v << 64;
            Ok(())
        }),
        Movsldup_xmm_xmmm128 => handler!(|cpu, i| {
            let v = dwords(src128(cpu, i)?);
            cpu.fpu.xmm[x0(i)] = from_dwords([v[0], v[0], v[2], v[2]]);
            Ok(())
        }),
        Movshdup_xmm_xmmm128 => handler!(|cpu, i| {
            let v = dwords(src128(cpu, i)?);
            cpu.fpu.xmm[x0(i)] = from_dwords([v[1], v[1], v[3], v[3]]);
            Ok(())
        }),
        Movmskps_r32_xmm | Movmskps_r64_xmm => handler!(|cpu, i| {
            let v = dwords(cpu.fpu.xmm[x1(i)]);
            cpu.regs[gn(i.op0_register())] = (0..4).map(|k| u64::from(v[k] >> 31) << k).sum();
            Ok(())
        }),
        Movmskpd_r32_xmm | Movmskpd_r64_xmm => handler!(|cpu, i| {
            let v = qwords(cpu.fpu.xmm[x1(i)]);
            cpu.regs[gn(i.op0_register())] = v[0] >> 63 | v[1] >> 63 << 1;
            Ok(())
        }),
        Pmovmskb_r32_xmm | Pmovmskb_r64_xmm => handler!(|cpu, i| {
            cpu.regs[gn(i.op0_register())] = u64::from(byte_mask(cpu.fpu.xmm[x1(i)]));
            Ok(())
        }),
        Maskmovdqu_rDI_xmm_xmm => handler!(|cpu, i| {
            let (value, mask) = (
                cpu.fpu.xmm[x1(i)],
                byte_mask(cpu.fpu.xmm[super::xn(i.op2_register())]),
            );
            masked_store(cpu, i, value, mask, 16)
        }),
        // These two use no FPU state, so no #NM.
        Movnti_m32_r32 => |cpu, i| {
            let va = cpu.ea(i);
            cpu.write::<u32>(va, cpu.regs[gn(i.op1_register())] as u32)
        },
        Movnti_m64_r64 => |cpu, i| {
            let va = cpu.ea(i);
            cpu.write::<u64>(va, cpu.regs[gn(i.op1_register())])
        },
        Ldmxcsr_m32 => handler!(|cpu, i| {
            let va = cpu.ea(i);
            let v = cpu.read::<u32>(va)?;
            if v & !MXCSR_MASK != 0 {
                return Err(crate::cpu::fault::Fault::gp().into());
            }
            cpu.fpu.mxcsr = v;
            Ok(())
        }),
        Stmxcsr_m32 => handler!(|cpu, i| {
            let va = cpu.ea(i);
            cpu.write::<u32>(va, cpu.fpu.mxcsr)
        }),
        _ => return None,
    })
}

/// MXCSR bits that exist: everything but AMD's misaligned-exception mask.
pub(crate) const MXCSR_MASK: u32 = 0xffff;

/// `maskmovdqu`, `maskmovq`: stores the bytes whose mask bit is set at `[rdi]`.
pub(crate) fn masked_store(cpu: &mut Cpu, i: &Instruction, value: u128, mask: u32, len: usize) -> Exec {
    let va = cpu.ea(i);
    cpu.check_alignment(va, 8)?;
    // The whole operand must be writable, whatever the mask says, as on AMD's processors.
    cpu.probe_write(va, len)?;
    for (k, b) in value.to_le_bytes().into_iter().enumerate() {
        if mask >> k & 1 != 0 {
            cpu.write::<u8>(va.wrapping_add(k as u64), b)?;
        }
    }
    Ok(())
}

/// Operand 1 as r32/m32 and r64/m64.
pub(crate) fn rm32(cpu: &mut Cpu, i: &Instruction) -> Result<u32, Trap> {
    if i.op1_kind() == OpKind::Register {
        return Ok(cpu.regs[gn(i.op1_register())] as u32);
    }
    let va = cpu.ea(i);
    cpu.read::<u32>(va)
}
pub(crate) fn rm64(cpu: &mut Cpu, i: &Instruction) -> Result<u64, Trap> {
    if i.op1_kind() == OpKind::Register {
        return Ok(cpu.regs[gn(i.op1_register())]);
    }
    let va = cpu.ea(i);
    cpu.read::<u64>(va)
}

/// Stores to operand 0; a register is zero-extended.
pub(crate) fn store32(cpu: &mut Cpu, i: &Instruction, v: u32) -> Exec {
    if i.op0_kind() == OpKind::Register {
        cpu.regs[gn(i.op0_register())] = u64::from(v);
        return Ok(());
    }
    let va = cpu.ea(i);
    cpu.write::<u32>(va, v)
}
pub(crate) fn store64(cpu: &mut Cpu, i: &Instruction, v: u64) -> Exec {
    if i.op0_kind() == OpKind::Register {
        cpu.regs[gn(i.op0_register())] = v;
        return Ok(());
    }
    let va = cpu.ea(i);
    cpu.write::<u64>(va, v)
}
