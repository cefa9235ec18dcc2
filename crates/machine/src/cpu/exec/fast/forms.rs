//! Lowering of branches, string and vector instructions: see [`super::lower`].

use super::lower::{cond_number, is_mem, is_reg, memory, op_size, reg_off, target, with, Low, LowExt};
use super::{flow, string, vector, Handler, Op, RSP};
use crate::cpu::regs::xmm_index;
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register};

pub(super) fn flow_form(i: &Instruction) -> Option<Low> {
    let mut op = Op::new(super::op_nop);
    match i.code() {
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => {
            let target = target(i)?;
            let near = (0..4096).contains(&target);
            op.h = if near { flow::op_fall } else { flow::op_far };
            op.links = u8::from(near);
            // A jump to the very start of the page has target 0, and is near.
            return Some(Low::Op(op, LowExt { imm: 0, target }));
        }
        Code::Call_rel32_64 => {
            let target = target(i)?;
            let near = (0..4096).contains(&target);
            op.base = RSP;
            op.h = if near { flow::call_near } else { flow::call_far };
            op.links = u8::from(near);
            return Some(Low::Op(op, LowExt { imm: 0, target }));
        }
        Code::Retnq => {
            op.base = RSP;
            return with(flow::ret, op);
        }
        Code::Call_rm64 | Code::Jmp_rm64 => {
            let call = i.code() == Code::Call_rm64;
            if is_reg(i, 0) {
                op.base = RSP;
                op.src = reg_off(i.op0_register());
                return with(if call { flow::call_reg } else { flow::jmp_reg }, op);
            }
            let h: Handler = match (call, memory(i, &mut op)?) {
                (true, false) => flow::call_mem::<false>,
                (true, true) => flow::call_mem::<true>,
                (false, false) => flow::jmp_mem::<false>,
                (false, true) => flow::jmp_mem::<true>,
            };
            return with(h, op);
        }
        _ => {}
    }
    let cc = cond_number(i)?;
    if i.is_jcc_short_or_near() {
        op.h = flow::pick_jcc(cc);
        op.links = 2;
        return Some(Low::Op(
            op,
            LowExt {
                imm: 0,
                target: target(i)?,
            },
        ));
    }
    let name = format!("{:?}", i.mnemonic());
    if name.starts_with("Set") {
        if is_reg(i, 0) {
            op.dst = reg_off(i.op0_register());
            return with(flow::pick_set(cc, false), op);
        }
        memory(i, &mut op)?;
        return with(flow::pick_set(cc, true), op);
    }
    if name.starts_with("Cmov") {
        op.dst = reg_off(i.op0_register());
        let mem = is_mem(i, 1);
        if mem {
            memory(i, &mut op)?;
        } else {
            op.src = reg_off(i.op1_register());
        }
        return with(flow::pick_cmov(cc, op_size(i, 0), mem)?, op);
    }
    None
}

pub(super) fn string_form(i: &Instruction) -> Option<Low> {
    let op = Op::new(super::op_nop);
    if !i.has_rep_prefix() && !i.has_repne_prefix() {
        return None;
    }
    // 64-bit addresses without a segment base only.
    let wide = (0..i.op_count()).all(|n| {
        matches!(
            i.op_kind(n),
            OpKind::MemoryESRDI | OpKind::MemorySegRSI | OpKind::Register
        )
    });
    if !wide || matches!(i.memory_segment(), Register::FS | Register::GS) {
        return None;
    }
    match i.mnemonic() {
        M::Movsb => with(string::movs::<u8>, op),
        M::Movsw => with(string::movs::<u16>, op),
        M::Movsd if i.code() == Code::Movsd_m32_m32 => with(string::movs::<u32>, op),
        M::Movsq => with(string::movs::<u64>, op),
        M::Stosb => with(string::stos::<u8>, op),
        M::Stosw => with(string::stos::<u16>, op),
        M::Stosd => with(string::stos::<u32>, op),
        M::Stosq => with(string::stos::<u64>, op),
        _ => None,
    }
}

pub(super) fn vector_form(i: &Instruction) -> Option<Low> {
    use Code as C;
    let mut op = Op::new(super::op_nop);
    let (dst, src) = (i.op0_register(), i.op1_register());
    let logic = |h: Handler, mut op: Op| {
        if i.op1_kind() != OpKind::Register {
            return None;
        }
        (op.dst, op.src) = (xmm_index(dst) as u8, xmm_index(src) as u8);
        with(h, op)
    };
    let (load, store): (Handler, Handler) = match i.code() {
        C::Movups_xmm_xmmm128
        | C::Movupd_xmm_xmmm128
        | C::Movdqu_xmm_xmmm128
        | C::Lddqu_xmm_m128
        | C::Movups_xmmm128_xmm
        | C::Movupd_xmmm128_xmm
        | C::Movdqu_xmmm128_xmm => (vector::load::<false>, vector::store::<false>),
        C::Movaps_xmm_xmmm128
        | C::Movapd_xmm_xmmm128
        | C::Movdqa_xmm_xmmm128
        | C::Movaps_xmmm128_xmm
        | C::Movapd_xmmm128_xmm
        | C::Movdqa_xmmm128_xmm
        | C::Movntdq_m128_xmm
        | C::Movntps_m128_xmm => (vector::load::<true>, vector::store::<true>),
        C::Movq_xmm_xmmm64 | C::Movq_xmmm64_xmm if dst.is_xmm() && src.is_xmm() => {
            return logic(vector::low_rr, op)
        }
        C::Movq_xmm_xmmm64 | C::Movq_xmm_rm64 | C::Movq_xmmm64_xmm | C::Movq_rm64_xmm
            if is_mem(i, 0) || is_mem(i, 1) =>
        {
            (vector::low_load::<u64>, vector::low_store::<u64>)
        }
        C::Movd_xmm_rm32 | C::Movd_rm32_xmm if is_mem(i, 0) || is_mem(i, 1) => {
            (vector::low_load::<u32>, vector::low_store::<u32>)
        }
        C::Movd_xmm_rm32 | C::Movq_xmm_rm64 => {
            (op.dst, op.src) = (xmm_index(dst) as u8, reg_off(src));
            return with(
                if src.size() == 8 {
                    vector::low_from_gpr::<u64>
                } else {
                    vector::low_from_gpr::<u32>
                },
                op,
            );
        }
        C::Movd_rm32_xmm | C::Movq_rm64_xmm => {
            (op.dst, op.src) = (reg_off(dst), xmm_index(src) as u8);
            return with(
                if dst.size() == 8 {
                    vector::low_to_gpr::<u64>
                } else {
                    vector::low_to_gpr::<u32>
                },
                op,
            );
        }
        C::Pxor_xmm_xmmm128 | C::Xorps_xmm_xmmm128 | C::Xorpd_xmm_xmmm128 => {
            return logic(vector::logic::<0>, op)
        }
        C::Por_xmm_xmmm128 | C::Orps_xmm_xmmm128 | C::Orpd_xmm_xmmm128 => {
            return logic(vector::logic::<1>, op)
        }
        C::Pand_xmm_xmmm128 | C::Andps_xmm_xmmm128 | C::Andpd_xmm_xmmm128 => {
            return logic(vector::logic::<2>, op)
        }
        C::Pandn_xmm_xmmm128 | C::Andnps_xmm_xmmm128 | C::Andnpd_xmm_xmmm128 => {
            return logic(vector::logic::<3>, op)
        }
        _ => return super::simd::lower(i),
    };
    if is_mem(i, 1) {
        memory(i, &mut op)?;
        op.dst = xmm_index(dst) as u8;
        return with(load, op);
    }
    if is_mem(i, 0) {
        memory(i, &mut op)?;
        op.src = xmm_index(src) as u8;
        return with(store, op);
    }
    logic(vector::mov_rr, op)
}
