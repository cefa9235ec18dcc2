// SPDX-License-Identifier: Apache-2.0
//! Operands on the stack by what the frame has of its page.

use super::{all_refused, changed, nothing};
use crate::cpu::region::Frame;
use iced_x86::{Code, Instruction, Register};
use std::mem::offset_of;

fn loads(i: &Instruction, field: usize) -> bool {
    i.code() == Code::Mov_r64_rm64 && of_frame(i, field)
}

fn of_frame(i: &Instruction, field: usize) -> bool {
    (i.memory_base(), i.memory_index()) == (Register::RSP, Register::None)
        && i.memory_displacement64() == field as u64
}

fn at_field(i: &Instruction, field: usize) -> Option<Vec<u8>> {
    changed(i, |i| i.set_memory_displacement64(field as u64))
}

#[test]
fn a_stack_that_is_not_compared_with_the_page_of_the_frame_is_found_out() {
    let (tag, room) = (offset_of!(Frame, stack_tag), offset_of!(Frame, stack_room));
    all_refused("no comparison", 2, |i| {
        (i.code() == Code::Cmp_r64_rm64 && of_frame(i, room)).then(|| nothing(i.len()))
    });
    all_refused("no jump", 2, |i| {
        (i.code() == Code::Jae_rel32_64).then(|| nothing(i.len()))
    });
    for other in [Code::Jb_rel32_64, Code::Ja_rel32_64, Code::Jge_rel32_64] {
        all_refused("another jump", 2, |i| {
            (i.code() == Code::Jae_rel32_64).then(|| changed(i, |i| i.set_code(other)))?
        });
    }
    for other in [tag, offset_of!(Frame, page), offset_of!(Frame, stack_delta)] {
        all_refused("another limit", 2, |i| {
            let compares = i.code() == Code::Cmp_r64_rm64 && of_frame(i, room);
            compares.then(|| at_field(i, other))?
        });
    }
    for other in [room, offset_of!(Frame, page), offset_of!(Frame, gs)] {
        all_refused("another tag", 2, |i| loads(i, tag).then(|| at_field(i, other))?);
    }
}

#[test]
fn an_operand_beside_what_was_compared_of_the_stack_is_found_out() {
    let delta = offset_of!(Frame, stack_delta);
    for other in [offset_of!(Frame, stack_tag), offset_of!(Frame, deltas)] {
        all_refused("what is added", 2, |i| {
            loads(i, delta).then(|| at_field(i, other))?
        });
    }
    // What is compared begins after the first operand.
    all_refused("other bytes", 1, |i| {
        let sum = i.code() == Code::Lea_r64_m
            && (i.memory_base(), i.memory_index()) == (Register::RCX, Register::R9)
            && (i.memory_displacement64() as i64) < 0;
        let more = i.memory_displacement64().wrapping_add(1);
        sum.then(|| changed(i, |i| i.set_memory_displacement64(more)))?
    });
}
