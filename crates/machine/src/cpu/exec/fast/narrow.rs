// SPDX-License-Identifier: Apache-2.0
//! push, pop, leave, calls and returns of flat 32-bit code.

use super::*;

macro_rules! push {
    ($cpu:expr, $op:expr, $v:expr) => {{
        let sp = rd::<u32>($cpu, RSP).wrapping_sub(4);
        st!(u32, $cpu, $op, u64::from(sp), $v);
        wr::<u32>($cpu, RSP, sp);
    }};
}

pub(crate) unsafe fn push_r(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        push!(cpu, op, rd::<u32>(cpu, (*op).src));
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn push_i(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        push!(cpu, op, (*op).imm as u32);
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn push_m<const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let v = ld!(u32, cpu, op, ea::<X>(cpu, op));
        push!(cpu, op, v);
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn pop_r(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let sp = rd::<u32>(cpu, RSP);
        let v = ld!(u32, cpu, op, u64::from(sp));
        wr::<u32>(cpu, RSP, sp.wrapping_add(4));
        wr::<u32>(cpu, (*op).dst, v);
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn leave(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let bp = rd::<u32>(cpu, RBP);
        let v = ld!(u32, cpu, op, u64::from(bp));
        wr::<u32>(cpu, RSP, bp.wrapping_add(4));
        wr::<u32>(cpu, RBP, v);
        go!(cpu, op.add(1))
    })
}

/// Pushes the return address.
macro_rules! push_return {
    ($cpu:expr, $op:expr) => {{
        let ret = ((*$cpu).bases.page as u32).wrapping_add((*$op).off as u32 + (*$op).len as u32);
        push!($cpu, $op, ret);
    }};
}

pub(crate) unsafe fn call_near(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        push_return!(cpu, op);
        let l = (*op).imm as *const Op;
        if !l.is_null() {
            enter!(cpu, l)
        }
        flow::follow(cpu, op, true)
    })
}

pub(crate) unsafe fn call_far(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        push_return!(cpu, op);
        jump!(
            cpu,
            u64::from(((*cpu).bases.page as u32).wrapping_add((*op).disp as u32))
        )
    })
}

pub(crate) unsafe fn call_reg(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let rip = rd::<u32>(cpu, (*op).src);
        push_return!(cpu, op);
        jump!(cpu, u64::from(rip))
    })
}

pub(crate) unsafe fn call_mem<const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let rip = ld!(u32, cpu, op, ea::<X>(cpu, op));
        push_return!(cpu, op);
        jump!(cpu, u64::from(rip))
    })
}

pub(crate) unsafe fn jmp_reg(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({ jump!(cpu, u64::from(rd::<u32>(cpu, (*op).src))) })
}

pub(crate) unsafe fn jmp_mem<const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let rip = ld!(u32, cpu, op, ea::<X>(cpu, op));
        jump!(cpu, u64::from(rip))
    })
}

/// ret, with the bytes that it releases.
pub(crate) unsafe fn ret(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let sp = rd::<u32>(cpu, RSP);
        let rip = ld!(u32, cpu, op, u64::from(sp));
        wr::<u32>(cpu, RSP, sp.wrapping_add(4).wrapping_add((*op).imm as u32));
        jump!(cpu, u64::from(rip))
    })
}
