// SPDX-License-Identifier: Apache-2.0
//! Flag control, traps, system registers, and what is privileged: a guest always runs at CPL > 0.

use super::operand::*;
use crate::abi::x86::{cr0, cr4};
use crate::cpu::fault::{Exec, Fault, PrivInsn, Trap};
use crate::cpu::regs::gpr_index;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind, Register};

fn set_flag<const BIT: u64, const ON: bool>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let f = cpu.rflags();
    cpu.set_rflags(if ON { f | BIT } else { f & !BIT });
    Ok(())
}

fn cmc(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let f = cpu.rflags();
    cpu.set_arith_flags(f ^ CF);
    Ok(())
}

fn nop(_: &mut Cpu, _: &Instruction) -> Exec {
    Ok(())
}

fn undefined(_: &mut Cpu, _: &Instruction) -> Exec {
    Err(Fault::ud().into())
}

fn fence(_: &mut Cpu, _: &Instruction) -> Exec {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

/// clflush, clflushopt, clwb: nothing to flush, but the address must be readable.
fn cache_line(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let va = cpu.ea(i);
    cpu.read::<u8>(va).map(|_| ())
}

fn cpuid(cpu: &mut Cpu, i: &Instruction) -> Exec {
    if cpu.model.cpuid_traps {
        return privileged(i, PrivInsn::Cpuid);
    }
    cpu.do_cpuid();
    Ok(())
}

impl Cpu {
    /// cpuid, whoever may execute it.
    pub fn do_cpuid(&mut self) {
        let [a, b, c, d] = self.cpuid(self.regs[RAX] as u32, self.regs[RCX] as u32);
        self.regs[RAX] = a as u64;
        self.regs[RBX] = b as u64;
        self.regs[RCX] = c as u64;
        self.regs[RDX] = d as u64;
    }

    /// rdtsc, and with `aux` rdtscp.
    pub fn do_rdtsc(&mut self, aux: bool) {
        let t = self.tsc();
        self.regs[RAX] = t & mask(32);
        self.regs[RDX] = t >> 32;
        if aux {
            self.regs[RCX] = self.model.tsc_aux as u64;
        }
    }
}

fn rdtsc<const P: bool>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    if cpu.model.cr4 & cr4::TSD != 0 {
        return privileged(i, PrivInsn::Rdtsc { aux: P });
    }
    cpu.do_rdtsc(P);
    Ok(())
}

fn rdpid(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = cpu.model.tsc_aux as u64;
    set_gpr(cpu, i.op0_register(), v);
    Ok(())
}

/// rdrand and rdseed: always a number, so CF is set; the other arithmetic flags are clear.
fn random<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    cpu.run_once()?;
    let v = cpu.model.random.number();
    set_gpr(cpu, i.op0_register(), v & mask(B));
    cpu.set_arith_flags(CF);
    Ok(())
}

fn syscall(cpu: &mut Cpu, _: &Instruction) -> Exec {
    cpu.regs[RCX] = cpu.next_rip;
    cpu.regs[11] = cpu.rflags() & !RF;
    Err(Trap::Syscall)
}

fn sysenter(_: &mut Cpu, _: &Instruction) -> Exec {
    Err(Trap::Sysenter)
}

fn soft_int(vector: u8, i: &Instruction) -> Exec {
    Err(Trap::SoftInt {
        vector,
        len: i.len() as u8,
    })
}
fn int3(_: &mut Cpu, i: &Instruction) -> Exec {
    soft_int(3, i)
}
fn int1(_: &mut Cpu, i: &Instruction) -> Exec {
    soft_int(1, i)
}
fn int(_: &mut Cpu, i: &Instruction) -> Exec {
    soft_int(imm(i, 0) as u8, i)
}

/// The four instructions on bases exist in 64-bit code, while CR4.FSGSBASE is set.
fn check_fsgsbase(cpu: &Cpu) -> Exec {
    if cpu.model.cr4 & cr4::FSGSBASE == 0 || cpu.is_32bit_code() {
        return Err(Fault::ud().into());
    }
    Ok(())
}

fn rd_base(cpu: &mut Cpu, i: &Instruction) -> Exec {
    check_fsgsbase(cpu)?;
    let v = match i.code() {
        Code::Rdfsbase_r32 | Code::Rdfsbase_r64 => cpu.bases.fs,
        _ => cpu.bases.gs,
    };
    set_gpr(cpu, i.op0_register(), v);
    Ok(())
}

fn wr_base(cpu: &mut Cpu, i: &Instruction) -> Exec {
    check_fsgsbase(cpu)?;
    let v = gpr(cpu, i.op0_register());
    if !canonical(v) {
        return Err(Fault::gp().into());
    }
    match i.code() {
        Code::Wrfsbase_r32 | Code::Wrfsbase_r64 => cpu.bases.fs = v,
        _ => cpu.bases.gs = v,
    }
    Ok(())
}

fn store_table(cpu: &mut Cpu, i: &Instruction) -> Exec {
    use Code::*;
    let gdt = matches!(i.code(), Sgdt_m1664 | Sgdt_m1632 | Sgdt_m1632_16);
    let registers = &cpu.platform.registers;
    let (limit, base) = if gdt { registers.gdtr } else { registers.idtr };
    let mut b = [0u8; 10];
    b[..2].copy_from_slice(&limit.to_le_bytes());
    b[2..].copy_from_slice(&base.to_le_bytes());
    let va = cpu.ea(i);
    let len = if cpu.is_32bit_code() { 6 } else { 10 };
    cpu.write_bytes(va, &b[..len])
}

/// sldt, str, smsw: 16 bits into memory, zero-extended into a register.
fn store_word(cpu: &mut Cpu, i: &Instruction, v: u64) -> Exec {
    if i.op0_kind() == OpKind::Register {
        set_gpr(cpu, i.op0_register(), v);
        Ok(())
    } else {
        let va = cpu.ea(i);
        store::<16>(cpu, va, v)
    }
}
fn sldt(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = if cpu.seg.tables.ldt.entries == 0 {
        0
    } else {
        u64::from(cpu.platform.registers.ldtr)
    };
    store_word(cpu, i, v)
}
fn str_(cpu: &mut Cpu, i: &Instruction) -> Exec {
    store_word(cpu, i, u64::from(cpu.platform.registers.tr))
}
fn smsw(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let v = cpu.platform.registers.cr0 | flag(cr0::TS, cpu.fpu.ts);
    store_word(cpu, i, v)
}

/// A privileged instruction: the layer above emulates it or delivers #GP(0).
fn privileged(i: &Instruction, insn: PrivInsn) -> Exec {
    Err(Trap::Priv {
        insn,
        len: i.len() as u8,
    })
}

fn plain_privileged(_: &mut Cpu, i: &Instruction) -> Exec {
    use Code::*;
    privileged(
        i,
        match i.code() {
            Cli => PrivInsn::Cli,
            Sti => PrivInsn::Sti,
            Hlt => PrivInsn::Hlt,
            Rdmsr => PrivInsn::Rdmsr,
            Wrmsr => PrivInsn::Wrmsr,
            Rdpmc => PrivInsn::Rdpmc,
            Clts => PrivInsn::Clts,
            Invd => PrivInsn::Invd,
            Wbinvd | Wbnoinvd => PrivInsn::Wbinvd,
            Swapgs => PrivInsn::Swapgs,
            Xsetbv => PrivInsn::Xsetbv,
            Sysretd | Sysretq => PrivInsn::Sysret,
            Sysexitd | Sysexitq => PrivInsn::Sysexit,
            _ => PrivInsn::Other,
        },
    )
}

/// Number of a control or debug register; `None` for those that no processor has: #UD.
fn control(r: Register) -> Option<u8> {
    let n = (r as usize).wrapping_sub(Register::CR0 as usize);
    matches!(n, 0 | 2 | 3 | 4 | 8).then_some(n as u8)
}
fn debug(r: Register) -> Option<u8> {
    let n = (r as usize).wrapping_sub(Register::DR0 as usize);
    (n < 8).then_some(n as u8)
}

fn mov_control(_: &mut Cpu, i: &Instruction) -> Exec {
    let (to, from) = (i.op0_register(), i.op1_register());
    let reg = |r: Register| gpr_index(r) as u8;
    let insn = match i.code() {
        Code::Mov_r64_cr | Code::Mov_r32_cr => {
            control(from).map(|cr| PrivInsn::MovFromCr { cr, reg: reg(to) })
        }
        Code::Mov_cr_r64 | Code::Mov_cr_r32 => control(to).map(|cr| PrivInsn::MovToCr { cr, reg: reg(from) }),
        Code::Mov_r64_dr | Code::Mov_r32_dr => debug(from).map(|dr| PrivInsn::MovFromDr { dr, reg: reg(to) }),
        _ => debug(to).map(|dr| PrivInsn::MovToDr { dr, reg: reg(from) }),
    };
    match insn {
        Some(insn) => privileged(i, insn),
        None => Err(Fault::ud().into()),
    }
}

fn lmsw(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let value = read_op::<16>(cpu, i, 0)? as u16;
    privileged(i, PrivInsn::Lmsw { value })
}

fn invlpg(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let va = cpu.ea(i);
    privileged(i, PrivInsn::Invlpg { va })
}

/// The port of in and out: dx or an immediate.
fn port(cpu: &Cpu, i: &Instruction, n: u32) -> u16 {
    if i.op_kind(n) == OpKind::Register {
        cpu.regs[RDX] as u16
    } else {
        imm(i, n) as u8 as u16
    }
}
fn in_<const SIZE: u8>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    privileged(
        i,
        PrivInsn::In {
            port: port(cpu, i, 1),
            size: SIZE,
        },
    )
}
fn out<const SIZE: u8>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    privileged(
        i,
        PrivInsn::Out {
            port: port(cpu, i, 0),
            size: SIZE,
        },
    )
}

/// ins and outs: one element, or as many as rcx says.
fn string_io<const SIZE: u8, const OUT: bool>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let mask = match i.op_kind(u32::from(OUT)) {
        OpKind::MemorySegSI | OpKind::MemoryESDI => 0xffff,
        OpKind::MemorySegESI | OpKind::MemoryESEDI => 0xffff_ffff,
        _ => u64::MAX,
    };
    let va = cpu.ea(i);
    privileged(
        i,
        PrivInsn::StringIo {
            port: cpu.regs[RDX] as u16,
            size: SIZE,
            out: OUT,
            rep: i.has_rep_prefix() || i.has_repne_prefix(),
            mask,
            va,
        },
    )
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Clc => set_flag::<CF, false>,
        Stc => set_flag::<CF, true>,
        Cld => set_flag::<DF, false>,
        Std => set_flag::<DF, true>,
        Cmc => cmc,
        Nopw | Nopd | Nopq | Pause | Endbr64 | Endbr32 | Cldemote_m8 | Rdsspd_r32 | Rdsspq_r64 => nop,
        Nop_rm16 | Nop_rm32 | Nop_rm64 => nop,
        Reservednop_rm16_r16_0F0D
        | Reservednop_rm32_r32_0F0D
        | Reservednop_rm64_r64_0F0D
        | Reservednop_rm16_r16_0F18
        | Reservednop_rm32_r32_0F18
        | Reservednop_rm64_r64_0F18
        | Reservednop_rm16_r16_0F19
        | Reservednop_rm32_r32_0F19
        | Reservednop_rm64_r64_0F19
        | Reservednop_rm16_r16_0F1A
        | Reservednop_rm32_r32_0F1A
        | Reservednop_rm64_r64_0F1A
        | Reservednop_rm16_r16_0F1B
        | Reservednop_rm32_r32_0F1B
        | Reservednop_rm64_r64_0F1B
        | Reservednop_rm16_r16_0F1C
        | Reservednop_rm32_r32_0F1C
        | Reservednop_rm64_r64_0F1C
        | Reservednop_rm16_r16_0F1D
        | Reservednop_rm32_r32_0F1D
        | Reservednop_rm64_r64_0F1D
        | Reservednop_rm16_r16_0F1E
        | Reservednop_rm32_r32_0F1E
        | Reservednop_rm64_r64_0F1E
        | Reservednop_rm16_r16_0F1F
        | Reservednop_rm32_r32_0F1F
        | Reservednop_rm64_r64_0F1F => nop,
        Bndldx_bnd_mib => nop,
        Bndmov_bnd_bndm64 | Bndmov_bnd_bndm128 | Bndmov_bndm64_bnd | Bndmov_bndm128_bnd => nop,
        Bndcl_bnd_rm32 | Bndcl_bnd_rm64 => nop,
        Bndcu_bnd_rm32 | Bndcu_bnd_rm64 => nop,
        Bndstx_mib_bnd => nop,
        Bndmk_bnd_m32 | Bndmk_bnd_m64 => nop,
        Bndcn_bnd_rm32 | Bndcn_bnd_rm64 => nop,
        Prefetch_m8 | Prefetchw_m8 | Prefetchwt1_m8 | Prefetchnta_m8 | Prefetcht0_m8 | Prefetcht1_m8
        | Prefetcht2_m8 | Prefetchreserved3_m8 | Prefetchreserved4_m8 | Prefetchreserved5_m8
        | Prefetchreserved6_m8 | Prefetchreserved7_m8 | Prefetchit0_m8 | Prefetchit1_m8 => nop,
        Lfence | Mfence | Sfence => fence,
        Lfence_E9 | Lfence_EA | Lfence_EB | Lfence_EC | Lfence_ED | Lfence_EE | Lfence_EF => fence,
        Mfence_F1 | Mfence_F2 | Mfence_F3 | Mfence_F4 | Mfence_F5 | Mfence_F6 | Mfence_F7 => fence,
        Sfence_F9 | Sfence_FA | Sfence_FB | Sfence_FC | Sfence_FD | Sfence_FE | Sfence_FF => fence,
        Clflush_m8 | Clflushopt_m8 | Clwb_m8 => cache_line,
        Cpuid => cpuid,
        Rdtsc => rdtsc::<false>,
        Rdtscp => rdtsc::<true>,
        Rdpid_r32 | Rdpid_r64 => rdpid,
        Rdrand_r16 | Rdseed_r16 => random::<16>,
        Rdrand_r32 | Rdseed_r32 => random::<32>,
        Rdrand_r64 | Rdseed_r64 => random::<64>,
        Syscall => syscall,
        Sysenter => sysenter,
        Int3 => int3,
        Int1 => int1,
        Int_imm8 => int,
        Ud2 => undefined,
        Ud0_r16_rm16 | Ud0_r32_rm32 | Ud0_r64_rm64 | Ud0 => undefined,
        Ud1_r16_rm16 | Ud1_r32_rm32 | Ud1_r64_rm64 => undefined,
        Rdfsbase_r32 | Rdfsbase_r64 | Rdgsbase_r32 | Rdgsbase_r64 => rd_base,
        Wrfsbase_r32 | Wrfsbase_r64 | Wrgsbase_r32 | Wrgsbase_r64 => wr_base,
        Sgdt_m1664 | Sidt_m1664 | Sgdt_m1632 | Sidt_m1632 | Sgdt_m1632_16 | Sidt_m1632_16 => store_table,
        Sldt_rm16 | Sldt_r32m16 | Sldt_r64m16 => sldt,
        Str_rm16 | Str_r32m16 | Str_r64m16 => str_,
        Smsw_rm16 | Smsw_r32m16 | Smsw_r64m16 => smsw,
        Lmsw_rm16 | Lmsw_r32m16 | Lmsw_r64m16 => lmsw,
        Invlpg_m => invlpg,
        Mov_r64_cr | Mov_cr_r64 | Mov_r64_dr | Mov_dr_r64 | Mov_r32_cr | Mov_cr_r32 | Mov_r32_dr
        | Mov_dr_r32 => mov_control,
        In_AL_imm8 | In_AL_DX => in_::<1>,
        In_AX_imm8 | In_AX_DX => in_::<2>,
        In_EAX_imm8 | In_EAX_DX => in_::<4>,
        Out_imm8_AL | Out_DX_AL => out::<1>,
        Out_imm8_AX | Out_DX_AX => out::<2>,
        Out_imm8_EAX | Out_DX_EAX => out::<4>,
        Cli | Sti | Hlt | Rdmsr | Wrmsr | Rdpmc | Clts | Invd | Wbinvd | Wbnoinvd | Swapgs | Xsetbv
        | Sysretd | Sysretq | Sysexitd | Sysexitq | Lgdt_m1632 | Lidt_m1632 | Lgdt_m1632_16
        | Lidt_m1632_16 | Lgdt_m1664 | Lidt_m1664 | Invpcid_r64_m128 => plain_privileged,
        Insb_m8_DX => string_io::<1, false>,
        Insw_m16_DX => string_io::<2, false>,
        Insd_m32_DX => string_io::<4, false>,
        Outsb_DX_m8 => string_io::<1, true>,
        Outsw_DX_m16 => string_io::<2, true>,
        Outsd_DX_m32 => string_io::<4, true>,
        Lldt_rm16 | Lldt_r32m16 | Lldt_r64m16 => plain_privileged,
        Ltr_rm16 | Ltr_r32m16 | Ltr_r64m16 => plain_privileged,
        _ => return None,
    })
}
