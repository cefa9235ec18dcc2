// SPDX-License-Identifier: Apache-2.0
//! Instructions that the host does as they are, with their operands where translated code keeps them.

use super::asm::{at, frame, indexed, GUEST_RCX, S0, S1, S2};
use super::emit::{put_memory, wanted, Emitter};
use super::operand::{host_index, place, sized, slot, Place};
use super::select::{self, How};
use crate::cpu::descriptor_cache::access_of;
use crate::cpu::exec::operand::memory_operand;
use iced_x86::{Code, Instruction, OpKind, Register};

impl Emitter<'_> {
    /// The same instruction with its operands where they are.
    pub(super) fn same(&mut self, i: &Instruction, how: How) -> Option<()> {
        if self.moved(i) {
            return Some(());
        }
        let mut new = *i;
        let memory = memory_operand(i);
        let lea = i.mnemonic() == iced_x86::Mnemonic::Lea;
        let mut scratch: &[Register] = &[S0, S1, S2];
        if lea {
            let parts = if i.memory_base() == Register::RIP {
                self.asm.load(S2, frame!(page));
                at(S2, i.memory_displacement64() as i64)
            } else {
                self.parts(i)
            };
            put_memory(&mut new, &parts);
            // Its result may go to where its address was.
            scratch = &[S0];
        } else if let Some(n) = memory {
            let operand = if self.checked {
                let mut base = self.base(i.memory_base(), S2);
                if let Some((index, scale)) = host_index(i)? {
                    self.asm.lea(S2, indexed(base, index, scale, 0));
                    base = S2;
                }
                let moved = if i.memory_base() == Register::RSP {
                    self.stack_moves
                } else {
                    0
                };
                indexed(base, S1, 1, i.memory_displacement64() as i64 + moved)
            } else {
                let wanted = wanted(i, n, how)?;
                let ea = self.address(i);
                self.check(ea, wanted)
            };
            put_memory(&mut new, &operand);
            scratch = &[S0];
        } else if self.keeps_s1 {
            scratch = &[S0, S2];
        }
        let by_cl = select::counts_by_cl(i);
        if by_cl {
            self.asm.mov(S0, GUEST_RCX);
            scratch = match memory {
                Some(_) => &[],
                None if self.keeps_s1 => &[S2],
                None => &[S1, S2],
            };
        }
        let mut free = scratch.iter();
        let mut spilled: Vec<(usize, Register, bool)> = Vec::new();
        for n in 0..i.op_count() {
            if i.op_kind(n) != OpKind::Register || by_cl && n + 1 == i.op_count() {
                continue;
            }
            let r = i.op_register(n);
            if !r.is_gpr() {
                continue;
            }
            let to = match place(r) {
                Place::Host(h) => h,
                Place::Spilled(k) => {
                    let writes = access_of(i, n) == Some(true);
                    match spilled.iter_mut().find(|s| s.0 == k) {
                        Some(s) => {
                            s.2 |= writes;
                            s.1
                        }
                        None => {
                            let s = *free.next()?;
                            spilled.push((k, s, writes));
                            // Also when it is written only, if part of it may stay.
                            if !(n == 0 && writes_whole(i)) {
                                self.asm.load(s, slot(k));
                            }
                            s
                        }
                    }
                }
            };
            new.set_op_register(n, sized(to, r));
        }
        self.asm.emit(&new);
        if select::gives_index(i) {
            self.asm.mov32(GUEST_RCX, S0);
        }
        for (k, s, writes) in spilled {
            if writes {
                self.asm.store(slot(k), s);
            }
        }
        Some(())
    }

    /// A move of 32 or 64 bits between two registers one of which is in the frame; false if it is something else.
    fn moved(&mut self, i: &Instruction) -> bool {
        let wide = match i.code() {
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 => true,
            Code::Mov_r32_rm32 | Code::Mov_rm32_r32 => false,
            _ => return false,
        };
        if memory_operand(i).is_some() {
            return false;
        }
        let (to, from) = (place(i.op0_register()), place(i.op1_register()));
        let through = match (to, from) {
            (Place::Host(_), Place::Host(_)) => return false,
            (Place::Host(to), _) => to,
            (_, Place::Host(from)) if wide => from,
            _ => S0,
        };
        match from {
            Place::Host(_) if wide => {}
            Place::Host(from) => self.asm.mov32(through, from),
            Place::Spilled(k) if wide => self.asm.load(through, slot(k)),
            Place::Spilled(k) => self.asm.load32(through, slot(k)),
        }
        if let Place::Spilled(k) = to {
            self.asm.store(slot(k), through);
        }
        true
    }
}

/// Whether all 64 bits of the first operand, a register that is no other operand's, are the result, and nothing else.
fn writes_whole(i: &Instruction) -> bool {
    use iced_x86::Mnemonic as M;
    let r = i.op0_register();
    let alone = i.op_count() < 2
        || i.op1_kind() != OpKind::Register
        || i.op1_register().full_register() != r.full_register();
    matches!(i.mnemonic(), M::Mov | M::Movzx | M::Movsx | M::Movsxd | M::Lea) && r.size() >= 4 && alone
}
