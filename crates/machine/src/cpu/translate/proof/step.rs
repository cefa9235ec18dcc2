// SPDX-License-Identifier: Apache-2.0
//! What one instruction of translated code makes of what is known, and whether it may be there.

use super::operands::{field, Where};
use super::value::{Bytes, Extent, Fact, Name, Names, Place, Right, State, Table, Value};
use crate::cpu::exec::fast::string::elements;
use crate::cpu::region::STACK_SPAN;
use crate::cpu::translate::x87::ROUNDING;
use crate::cpu::Cpu;
use crate::mmu::tlb::{TlbEntry, TLB_SIZE};
use iced_x86::{
    Code, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic as M, OpAccess, OpKind, Register,
    RflagsBits,
};
use Register as R;

/// An entry's number times its size: how far an address is turned round for it, and what is left of it then.
const ENTRY_ROTATION: u8 = 12 - size_of::<TlbEntry>().trailing_zeros() as u8;
const ENTRY_MASK: u32 = ((TLB_SIZE - 1) * size_of::<TlbEntry>()) as u32;

/// Why code is refused.
pub(super) type Why = &'static str;

/// One instruction in its state.
pub(super) struct Step<'a> {
    pub state: &'a mut State,
    pub i: &'a Instruction,
    pub(super) info: &'a InstructionInfo,
    pub(super) names: &'a mut Names,
}

impl<'a> Step<'a> {
    pub(super) fn new(
        state: &'a mut State,
        i: &'a Instruction,
        factory: &'a mut InstructionInfoFactory,
        names: &'a mut Names,
    ) -> Step<'a> {
        let info = factory.info(i);
        Step {
            state,
            i,
            info,
            names,
        }
    }

    /// Does the instruction, which is no branch.
    pub(super) fn take(&mut self) -> Result<(), Why> {
        self.allowed()?;
        let i = self.i;
        let (r0, r1) = (i.op0_register(), i.op1_register());
        let of_memory = |n: u32| i.op_kind(n) == OpKind::Memory;
        let imm = i.try_immediate(1).unwrap_or(0) as i64;
        match i.code() {
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 if !of_memory(0) && !of_memory(1) => {
                let v = self.named(r1);
                self.put(r0, v)
            }
            Code::Mov_r64_rm64 => {
                let v = self.load()?;
                self.put(r0, v)
            }
            Code::Mov_rm64_r64 => {
                let v = self.named(r1);
                self.store(v)
            }
            Code::Mov_rm64_imm32 if !of_memory(0) => self.put(r0, Value::Const(i.immediate(1))),
            Code::Mov_r64_imm64 => self.put(r0, Value::Const(i.immediate64())),
            Code::Lea_r64_m if i.memory_base() == R::RIP => self.put(r0, Value::Code { of: None }),
            Code::Lea_r64_m => {
                let (base, index) = (i.memory_base(), i.memory_index());
                if base == R::RSP || index == R::RSP || i.segment_prefix() != R::None {
                    return Err("an address in the frame");
                }
                if base.is_gpr32() || index.is_gpr32() {
                    return self.anything();
                }
                let v = self.sum(
                    base,
                    index,
                    i.memory_index_scale(),
                    i.memory_displacement64() as i64,
                );
                self.put(r0, v)
            }
            Code::Add_rm64_imm8 | Code::Add_rm64_imm32 | Code::Add_RAX_imm32 if !of_memory(0) => {
                self.add(r0, imm)
            }
            Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 | Code::Sub_RAX_imm32 if !of_memory(0) => {
                self.add(r0, -imm)
            }
            Code::Inc_rm64 if !of_memory(0) => self.add(r0, 1),
            Code::Dec_rm64 if !of_memory(0) => self.add(r0, -1),
            Code::VEX_Pext_r64_r64_rm64 => {
                let v = self.extract(of_memory(2))?;
                self.put(r0, v)
            }
            Code::VEX_Rorx_r64_rm64_imm8 if !of_memory(1) => {
                let v = match (self.named(r1), i.immediate8()) {
                    (
                        Value::Entry {
                            of,
                            scaled: false,
                            hit,
                        },
                        59,
                    ) => Value::Entry {
                        of,
                        scaled: true,
                        hit,
                    },
                    (Value::Slice(taken), 32) => Value::SliceHigh(taken),
                    (Value::Sum(p), ENTRY_ROTATION) => Value::Rotated(p),
                    (v, _) if v.is_of_host() => return Err("arithmetic with an address of the host's"),
                    _ => Value::Any,
                };
                self.put(r0, v)
            }
            Code::Shl_rm64_imm8 if matches!(self.state.reg(r0), Value::Entry { .. }) && !of_memory(0) => {
                let v = match (self.state.reg(r0), i.immediate8()) {
                    (
                        Value::Entry {
                            of,
                            scaled: false,
                            hit,
                        },
                        5,
                    ) => Value::Entry {
                        of,
                        scaled: true,
                        hit,
                    },
                    _ => Value::Any,
                };
                self.flags_change();
                self.put(r0, v)
            }
            Code::Shr_rm64_imm8 if !of_memory(0) && i.immediate8() == 12 => {
                let v = self.state.reg(r0);
                if v.is_of_host() {
                    return Err("arithmetic with an address of the host's");
                }
                self.flags_change();
                self.state.zero = hit(v, 1);
                self.put(r0, Value::Any)
            }
            Code::Test_rm64_imm32 if !of_memory(0) && matches!(self.state.reg(r0), Value::TagSum { .. }) => {
                self.flags_change();
                let align = imm & 0xfff;
                let pages = imm & !0xfff == !0xfff;
                if pages && (align + 1) & align == 0 && align < 64 {
                    self.state.zero = hit(self.state.reg(r0), align + 1);
                }
                Ok(())
            }
            Code::Cmp_r64_rm64 if of_memory(1) && matches!(self.state.reg(r0), Value::StackSum(_)) => {
                let Where::Frame(room) = self.operand()? else {
                    return self.anything();
                };
                let fact = match self.state.reg(r0) {
                    Value::StackSum(at) if room == field!(stack_room) => Some(Fact::OnStack(Bytes {
                        name: at.name,
                        low: at.plus,
                        high: Extent::At(at.plus.wrapping_add(STACK_SPAN as i64)),
                        right: Right::Write,
                    })),
                    _ => return Err("a field of the frame that is no guest's business"),
                };
                self.flags_change();
                self.state.carry = fact;
                Ok(())
            }
            Code::Test_rm8_imm8 if of_memory(0) && i.memory_base() == R::RSP => {
                let place = self.operand()?;
                self.flags_change();
                self.state.zero = match place {
                    Where::Frame(at) if at == field!(vectors_away) => Some(Fact::Vectors(false)),
                    Where::Frame(at) if at == field!(ymm_away) => Some(Fact::Vectors(true)),
                    Where::Frame(at) if at == field!(x87_away) => Some(Fact::X87),
                    _ => return Err("a test of what is not the guest's"),
                };
                Ok(())
            }
            Code::And_rm32_imm32 if !of_memory(0) && matches!(self.state.reg(r0), Value::Rotated(_)) => {
                let v = match self.state.reg(r0) {
                    Value::Rotated(of) if i.immediate32() == ENTRY_MASK => Value::Entry {
                        of,
                        scaled: true,
                        hit: None,
                    },
                    _ => Value::Any,
                };
                self.flags_change();
                self.put(r0, v)
            }
            Code::VEX_Pdep_r64_r64_rm64
                if !of_memory(2)
                    && self.state.reg(i.op2_register()) == Value::Const(ROUNDING)
                    && !self.state.reg(r1).is_of_host() =>
            {
                self.put(r0, Value::Rounding)
            }
            Code::Fldcw_m2byte => match self.operand()? {
                Where::Frame(at) if at == field!(control) => Ok(()),
                _ => Err("a control word that may unmask exceptions"),
            },
            Code::Not_rm64 if !of_memory(0) && matches!(self.state.reg(r0), Value::Delta(_)) => {
                self.put(r0, Value::NotDelta)
            }
            _ if matches!(i.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc)
                && of_memory(0)
                && !r1.is_gpr8()
                && r1 != R::None =>
            {
                let size = i.memory_size().size() as u64;
                match self.state.reg(r1) {
                    Value::Below(n) if n <= 8 * size => self.anything(),
                    _ => Err("a bit beside the operand that was checked"),
                }
            }
            _ if i.has_rep_prefix() || i.has_repne_prefix() => self.repeat(),
            _ => self.anything(),
        }
    }

    fn flags_change(&mut self) {
        self.state.zero = None;
        self.state.carry = None;
        self.state.slice_sign = None;
    }

    /// A register has a value.
    fn put(&mut self, r: Register, v: Value) -> Result<(), Why> {
        let slice = matches!(v, Value::Slice(_));
        if r.full_register() == R::RSP || (r.full_register() == R::R15) != slice {
            return Err("the registers of the frame and of the slice are not for values");
        }
        self.state.set(r, v);
        Ok(())
    }

    fn add(&mut self, r: Register, by: i64) -> Result<(), Why> {
        let v = match self.named(r) {
            Value::Sum(p) => Value::Sum(Place {
                plus: p.plus.wrapping_add(by),
                ..p
            }),
            Value::Slice(taken) => Value::Slice(taken - by),
            v if v.is_of_host() => return Err("arithmetic with an address of the host's"),
            _ => Value::Any,
        };
        self.flags_change();
        self.state.slice_sign = match v {
            Value::Slice(taken) => Some(taken),
            _ => None,
        };
        self.put(r, v)
    }

    fn extract(&mut self, of_memory: bool) -> Result<Value, Why> {
        let from = self.i.op1_register();
        if !of_memory {
            let mask = self.state.reg(self.i.op2_register());
            if self.state.reg(from).is_of_host() || mask.is_of_host() {
                return Err("arithmetic with an address of the host's");
            }
            return Ok(match mask {
                Value::Const(mask) if mask.count_ones() < 64 => Value::Below(1 << mask.count_ones()),
                _ => Value::Any,
            });
        }
        let place = self.operand()?;
        let Where::Frame(at) = place else {
            self.load()?;
            return match self.state.reg(from).is_of_host() {
                true => Err("arithmetic with an address of the host's"),
                false => Ok(Value::Any),
            };
        };
        let masks = at - field!(page_masks);
        if masks >= 0 && masks % 8 == 0 && masks / 8 < 6 {
            return Ok(hit(self.state.reg(from), 1 << (masks / 8)).map_or(Value::Any, Value::Unless));
        }
        if at == field!(spilled) || at < field!(page) {
            return Err("a mask of the guest's in the frame");
        }
        let of = self
            .place_of(from)
            .ok_or("the number of an address of the host's")?;
        let line = |table| Value::Line {
            table,
            of,
            twice: false,
            known: None,
        };
        match at {
            a if a == field!(index_mask) => Ok(Value::Entry {
                of,
                scaled: false,
                hit: None,
            }),
            a if a == field!(jump_mask) => Ok(line(Table::Jumps)),
            a if a == field!(return_mask) => Ok(line(Table::Returns)),
            a if a == field!(canonical_mask) => Ok(Value::Any),
            a if a == field!(count_mask) => Ok(Value::Unless(Fact::Counts(self.alone(from, of)))),
            _ => Err("a mask that is none"),
        }
    }

    /// A name for all of a register's value.
    fn alone(&mut self, r: Register, of: Place) -> Name {
        if of.plus != 0 {
            self.state.set(r, Value::Any);
        }
        self.place_of(r).map_or(of.name, |p| p.name)
    }

    /// rep movs and rep stos, within what was checked for so many elements.
    fn repeat(&mut self) -> Result<(), Why> {
        let i = self.i;
        let Some((size, movs)) = elements(i.mnemonic()) else {
            return Err("a repeated instruction that is not done as it is");
        };
        if i.segment_prefix() != R::None || i.code_size() != iced_x86::CodeSize::Code64 {
            return Err("a segment's prefix");
        }
        let Value::Sum(count) = self.state.reg(R::RCX) else {
            return Err("a count that was not checked");
        };
        if self.state.counts != Some(count.name) || count.plus != 0 {
            return Err("a count that was not checked");
        }
        for (r, write) in [(R::RDI, true), (R::RSI, false)] {
            if r == R::RSI && !movs {
                continue;
            }
            let Value::Host { at, bytes } = self.state.reg(r) else {
                return Err("a repeated instruction whose address no check has given");
            };
            let right = bytes.right == Right::Write || bytes.right == Right::Read && !write;
            let begins = at.name == bytes.name && at.plus == bytes.low;
            let ends =
                matches!(bytes.high, Extent::Count { name, size: s } if name == count.name && s == size);
            if !(right && begins && ends) {
                return Err("a repeated instruction on other bytes than those that were checked");
            }
            self.state.set(r, Value::Moved);
        }
        self.state.set(R::RCX, Value::Any);
        Ok(())
    }

    /// An instruction of which no more is asked than that it accesses what it may.
    fn anything(&mut self) -> Result<(), Why> {
        let used: Vec<_> = self.info.used_memory().to_vec();
        for m in used.iter().filter(|m| m.access() != OpAccess::NoMemAccess) {
            if matches!(m.segment(), R::FS | R::GS) || m.base().is_gpr32() || m.index().is_gpr32() {
                return Err("an operand in a segment, or with an address of 32 bits");
            }
            let write = !matches!(
                m.access(),
                OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
            );
            match self.locate(m.base(), m.index(), m.scale(), m.displacement() as i64)? {
                Where::Guest { at, bytes } => Self::access(at, bytes, m.memory_size().size(), write)?,
                // Registers of the guest's that are in the frame.
                Where::Frame(at) if at >= 0 && at + m.memory_size().size() as i64 <= field!(page) => {
                    if write {
                        self.state.spilled[at as usize / 8] = Value::Any;
                    }
                }
                Where::Cpu(at)
                    if !write && at >= 0 && at as usize + m.memory_size().size() <= size_of::<Cpu>() => {}
                _ => return Err("an operand that is not the guest's"),
            }
        }
        let reads = |access| {
            !matches!(
                access,
                OpAccess::Write | OpAccess::CondWrite | OpAccess::NoMemAccess
            )
        };
        for n in 0..self.i.op_count() {
            let of_host =
                self.i.op_kind(n) == OpKind::Register && self.state.reg(self.i.op_register(n)).is_of_host();
            if of_host && reads(self.info.op_access(n)) {
                return Err("an address of the host's for something else than addressing");
            }
        }
        let used: Vec<_> = self.info.used_registers().to_vec();
        let addresses = [self.i.memory_base(), self.i.memory_index()];
        for u in used.iter().filter(|u| reads(u.access()) && u.register().is_gpr()) {
            let named = addresses.contains(&u.register()) || self.explicit(u.register()).is_some();
            if !named && self.state.reg(u.register()).is_of_host() {
                return Err("an address of the host's for something else than addressing");
            }
        }
        for u in &used {
            if !matches!(u.access(), OpAccess::Read | OpAccess::CondRead) && u.register().is_gpr() {
                self.put(u.register(), Value::Any)?;
            }
        }
        if self.i.rflags_modified() & (RflagsBits::ZF | RflagsBits::CF) != 0 {
            self.flags_change();
        }
        Ok(())
    }

    /// The number of the operand that is this register.
    pub(super) fn explicit(&self, r: Register) -> Option<u32> {
        (0..self.i.op_count()).find(|&n| {
            self.i.op_kind(n) == OpKind::Register
                && self.i.op_register(n).full_register() == r.full_register()
        })
    }
}

/// What a tag's sum says that has no bits above those of a page's offset, nor those of the alignment.
fn hit(v: Value, align: i64) -> Option<Fact> {
    match v {
        Value::TagSum { of, right, checked } => Some(Fact::Translated {
            of,
            bytes: Bytes {
                name: of.name,
                low: of.plus.wrapping_add(checked.min(0)),
                high: Extent::At(of.plus.wrapping_add((checked + align).max(1))),
                right,
            },
        }),
        Value::TagRun {
            of,
            right,
            count,
            size,
        } => Some(Fact::Translated {
            of,
            bytes: Bytes {
                name: of.name,
                low: of.plus,
                high: Extent::Count {
                    name: count.name,
                    size,
                },
                right,
            },
        }),
        _ => None,
    }
}

/// The fact of a value that is zero.
pub(super) fn if_zero(v: Value) -> Option<Fact> {
    match v {
        Value::Unless(fact) => Some(fact),
        Value::TagSum { .. } => hit(v, 1),
        Value::SliceHigh(taken) => Some(Fact::Afforded(taken)),
        _ => None,
    }
}
