// SPDX-License-Identifier: Apache-2.0
//! Where the operands of translated code are, and what is loaded from there.

use super::step::{Step, Why};
use super::value::{number, Bytes, Extent, Fact, Place, Right, Table, Value};
use crate::cpu::region::{
    CodeJump, DELTAS, JUMPS_AT, PAGES_AT, RETURN_CODES_AT, RETURN_TAGS_AT, SPILLED, TLB_AT,
};
use crate::cpu::translate::x87::MASKED;
use crate::cpu::Cpu;
use crate::mmu::tlb::TlbEntry;
use iced_x86::{OpAccess, Register};
use std::mem::offset_of;
use Register as R;

/// As far as an operand's sum with a tag may be from the address whose entry it is: nearer than the next page of the same entry.
const NEAR: i64 = 1 << 20;

/// Where a memory operand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Frame(i64),
    Entry {
        of: Place,
        hit: Option<Bytes>,
        field: i64,
    },
    LineTag {
        table: Table,
        of: Place,
    },
    LineCode {
        known: Option<Place>,
    },
    PageKey(Place),
    Guest {
        at: Place,
        bytes: Bytes,
    },
    Cpu(i64),
    Code(u64),
}

/// A field of the frame.
macro_rules! field {
    ($name:ident) => {
        std::mem::offset_of!(crate::cpu::region::Frame, $name) as i64
    };
}
pub(super) use field;

impl Step<'_> {
    /// Whether it accesses memory outside of the frame.
    pub(super) fn touches_guest(&self) -> bool {
        self.info
            .used_memory()
            .iter()
            .any(|m| m.base() != R::RSP && m.access() != OpAccess::NoMemAccess)
    }

    /// A value with a name: its own if it has one, else a new one.
    pub(super) fn named(&mut self, r: Register) -> Value {
        let v = self.state.reg(r);
        if !matches!(
            v,
            Value::Any | Value::Const(_) | Value::Below(_) | Value::Rotated(_)
        ) {
            return v;
        }
        let name = self.i.ip() << 8 | number(r).unwrap_or(31) as u64;
        self.state.renew(name, self.names);
        let v = Value::Sum(Place { name, plus: 0 });
        self.state.set(r, v);
        v
    }

    pub(super) fn place_of(&mut self, r: Register) -> Option<Place> {
        match self.named(r) {
            Value::Sum(p) => Some(p),
            _ => None,
        }
    }

    /// Where an operand with this address lies, if that is anywhere known.
    pub(super) fn locate(
        &mut self,
        base: Register,
        index: Register,
        scale: u32,
        disp: i64,
    ) -> Result<Where, Why> {
        if base == R::RIP {
            return Ok(Where::Code(disp as u64));
        }
        if base != R::RSP {
            if base == R::None && index == R::None {
                return Err("an absolute address");
            }
            return match self.sum(base, index, scale, disp) {
                Value::Host { at, bytes } => Ok(Where::Guest { at, bytes }),
                _ if index == R::None && self.state.reg(base) == Value::Cpu => Ok(Where::Cpu(disp)),
                _ => Err("an operand whose address no check has given"),
            };
        }
        if index == R::None {
            return Ok(Where::Frame(disp));
        }
        match (self.state.reg(index), scale) {
            (
                Value::Entry {
                    of,
                    scaled: true,
                    hit,
                },
                1,
            ) => {
                let field = disp - TLB_AT;
                Ok(Where::Entry { of, hit, field })
            }
            (
                Value::Entry {
                    of, scaled: false, ..
                },
                8,
            ) if disp == PAGES_AT => Ok(Where::PageKey(of)),
            (
                Value::Line {
                    table: Table::Jumps,
                    of,
                    twice: true,
                    known,
                },
                8,
            ) => match disp - JUMPS_AT {
                d if d == offset_of!(CodeJump, tag) as i64 => Ok(Where::LineTag {
                    table: Table::Jumps,
                    of,
                }),
                d if d == offset_of!(CodeJump, code) as i64 => Ok(Where::LineCode { known }),
                _ => Err("a place beside the jump table's fields"),
            },
            (
                Value::Line {
                    table: Table::Returns,
                    of,
                    twice: false,
                    known,
                },
                8,
            ) => match disp {
                RETURN_TAGS_AT => Ok(Where::LineTag {
                    table: Table::Returns,
                    of,
                }),
                RETURN_CODES_AT => Ok(Where::LineCode { known }),
                _ => Err("a place beside the returns"),
            },
            _ => Err("a place beside the frame by an unknown number"),
        }
    }

    /// Where the instruction's one memory operand is.
    pub(super) fn operand(&mut self) -> Result<Where, Why> {
        let i = self.i;
        let scale = i.memory_index_scale();
        if !matches!(i.segment_prefix(), R::None) {
            return Err("a segment's prefix");
        }
        if i.memory_base().is_gpr32() || i.memory_index().is_gpr32() {
            return Err("an address of 32 bits");
        }
        self.locate(
            i.memory_base(),
            i.memory_index(),
            scale,
            i.memory_displacement64() as i64,
        )
    }

    /// What `lea` gives.
    pub(super) fn sum(&mut self, base: Register, index: Register, scale: u32, disp: i64) -> Value {
        use Value as V;
        let b = if base == R::None {
            V::Const(0)
        } else {
            self.named(base)
        };
        if index == R::None {
            return match b {
                V::Sum(p) => V::Sum(Place {
                    plus: p.plus.wrapping_add(disp),
                    ..p
                }),
                V::Slice(taken) => V::Slice(taken - disp),
                V::Host { at, bytes } => V::Host {
                    at: Place {
                        plus: at.plus.wrapping_add(disp),
                        ..at
                    },
                    bytes,
                },
                V::Rounding if disp == MASKED => V::Control,
                other if other.is_of_host() => V::Moved,
                _ => V::Any,
            };
        }
        let x = self.named(index);
        match (b, x, scale) {
            (V::Tag { of, right }, V::Sum(p), 1) if p.name == of.name => {
                let checked = p.plus.wrapping_add(disp).wrapping_sub(of.plus);
                match checked.abs() < NEAR {
                    true => V::TagSum { of, right, checked },
                    false => V::Any,
                }
            }
            (V::StackTag, V::Sum(p), 1) => V::StackSum(Place {
                plus: p.plus.wrapping_add(disp),
                ..p
            }),
            (
                V::TagSum {
                    of,
                    right,
                    checked: 0,
                },
                V::Sum(count),
                size,
            ) if disp == -1 && count.plus == 0 => V::TagRun {
                of,
                right,
                count,
                size,
            },
            (V::Sum(p), V::Delta(bytes), 1) | (V::Delta(bytes), V::Sum(p), 1) if p.name == bytes.name => {
                V::Host {
                    at: Place {
                        plus: p.plus.wrapping_add(disp),
                        ..p
                    },
                    bytes,
                }
            }
            (
                V::LineTag {
                    table: Table::Jumps,
                    of,
                },
                V::Sum(p),
                1,
            ) => match p.name == of.name && p.plus.wrapping_add(disp) == of.plus {
                true => V::Unless(Fact::Listed {
                    of,
                    table: Table::Jumps,
                    address: of,
                }),
                false => V::Any,
            },
            (
                V::LineTag {
                    table: Table::Returns,
                    of,
                },
                V::Sum(address),
                1,
            ) if disp == 1 => V::Unless(Fact::Listed {
                of,
                table: Table::Returns,
                address,
            }),
            (V::PageKey { of }, V::Sum(p), 1) if p == of => match i32::try_from(disp) {
                Ok(key) => V::Unless(Fact::Shows { of, key }),
                Err(_) => V::Any,
            },
            (
                V::Line {
                    table,
                    of,
                    twice: false,
                    ..
                },
                V::Line {
                    twice: false, of: o, ..
                },
                1,
            ) if of == o && disp == 0 => V::Line {
                table,
                of,
                twice: true,
                known: None,
            },
            (V::Moved, V::NotDelta, 1) if disp == 1 => V::Any,
            (V::Sum(a), V::Sum(b), scale) => {
                let more = b.plus.wrapping_mul(i64::from(scale)).wrapping_add(disp);
                V::Sum(Place {
                    name: self.names.pair(a.name, b.name, scale),
                    plus: a.plus.wrapping_add(more),
                })
            }
            (a, b, _) if a.is_of_host() || b.is_of_host() => V::Moved,
            _ => V::Any,
        }
    }

    /// The value of a field of the frame; `Err`: nobody is to read it.
    pub(super) fn frame_value(&mut self, at: i64) -> Result<Value, Why> {
        let words = |from: i64, n: usize| {
            let k = at - from;
            (k >= 0 && k % 8 == 0 && k / 8 < n as i64).then_some((k / 8) as usize)
        };
        if let Some(k) = words(field!(spilled), SPILLED) {
            if matches!(
                self.state.spilled[k],
                Value::Any | Value::Const(_) | Value::Below(_)
            ) {
                let name = self.i.ip() << 8 | 0x20 | k as u64;
                self.state.renew(name, self.names);
                self.state.spilled[k] = Value::Sum(Place { name, plus: 0 });
            }
            return Ok(self.state.spilled[k]);
        }
        if let Some(k) = words(field!(deltas), DELTAS) {
            return Ok(self.state.deltas[k]);
        }
        if let Some(k) = words(field!(kept), 2) {
            return Ok(self.state.kept[k]);
        }
        Ok(match at {
            a if a == field!(page) => self.state.page,
            a if a == field!(delta) => self.state.delta,
            a if a == field!(stack_tag) => Value::StackTag,
            a if a == field!(stack_delta) => match self.state.stack {
                Some(bytes) => Value::Delta(bytes),
                None => return Err("a host address of the stack's page that was not compared"),
            },
            a if a == field!(cpu) => Value::Cpu,
            a if a == field!(vectors_away) => Value::Unless(Fact::Vectors(false)),
            a if a == field!(ymm_away) => Value::Unless(Fact::Vectors(true)),
            a if a == field!(x87_away) => Value::Unless(Fact::X87),
            a if a == field!(fs) || a == field!(gs) => Value::Any,
            _ => return Err("a field of the frame that is no guest's business"),
        })
    }

    pub(super) fn set_frame(&mut self, at: i64, v: Value) -> Result<(), Why> {
        let words = |from: i64, n: usize| {
            let k = at - from;
            (k >= 0 && k % 8 == 0 && k / 8 < n as i64).then_some((k / 8) as usize)
        };
        if let Some(k) = words(field!(spilled), SPILLED) {
            if v.is_of_host() {
                return Err("an address of the host's for a register of the guest's");
            }
            self.state.spilled[k] = v;
        } else if let Some(k) = words(field!(deltas), DELTAS) {
            self.state.deltas[k] = v;
        } else if let Some(k) = words(field!(kept), 2) {
            self.state.kept[k] = v;
        } else if at == field!(page) {
            self.state.page = v;
        } else if at == field!(control) && v == Value::Control {
            // It never has anything else.
        } else {
            return Err("a store to a field of the frame that is not the guest's");
        }
        Ok(())
    }

    /// Bytes of guest memory that are accessed.
    pub(super) fn access(at: Place, bytes: Bytes, size: usize, write: bool) -> Result<(), Why> {
        if write && bytes.right != Right::Write {
            return Err("a store behind a check for loads");
        }
        if bytes.right == Right::Fetch {
            return Err("an access behind a check for code");
        }
        let Extent::At(high) = bytes.high else {
            return Err("an access behind a check for a repeated instruction");
        };
        let inside =
            at.name == bytes.name && at.plus >= bytes.low && at.plus.saturating_add(size as i64) <= high;
        match inside && size > 0 {
            true => Ok(()),
            false => Err("an access to other bytes than those that were checked"),
        }
    }

    pub(super) fn load(&mut self) -> Result<Value, Why> {
        let size = self.i.memory_size().size();
        match self.operand()? {
            Where::Frame(at) => match size == 8 || (size == 4 && at < field!(page)) {
                true => self.frame_value(at),
                false => Err("part of a field of the frame"),
            },
            Where::Entry { of, hit, field } => {
                let tag = |right| Ok(Value::Tag { of, right });
                match field {
                    f if f == offset_of!(TlbEntry, neg_r) as i64 => tag(Right::Read),
                    f if f == offset_of!(TlbEntry, neg_w) as i64 => tag(Right::Write),
                    f if f == offset_of!(TlbEntry, neg_x) as i64 => tag(Right::Fetch),
                    f if f == offset_of!(TlbEntry, delta) as i64 => match hit {
                        Some(bytes) => Ok(Value::Delta(bytes)),
                        None => Err("a host address of an entry that was not checked"),
                    },
                    _ => Err("a place beside the fields of a TLB entry"),
                }
            }
            Where::LineTag { table, of } => Ok(Value::LineTag { table, of }),
            Where::LineCode { known } => match known {
                Some(address) => Ok(Value::Code { of: Some(address) }),
                None => Err("code of a line that was not compared"),
            },
            Where::PageKey(of) => Ok(Value::PageKey { of }),
            Where::Guest { at, bytes } => Self::access(at, bytes, size, false).map(|()| Value::Any),
            Where::Cpu(at) => match at >= 0 && at as usize + size <= size_of::<Cpu>() {
                true => Ok(Value::Any),
                false => Err("a place beside the CPU"),
            },
            Where::Code(_) => Err("a load of code"),
        }
    }

    pub(super) fn store(&mut self, v: Value) -> Result<(), Why> {
        let size = self.i.memory_size().size();
        match self.operand()? {
            Where::Frame(at) if size == 8 => self.set_frame(at, v),
            Where::Frame(at) if at >= 0 && at + size as i64 <= field!(page) && !v.is_of_host() => {
                self.state.spilled[at as usize / 8] = Value::Any;
                Ok(())
            }
            Where::Frame(_) => Err("a store to part of a field of the frame"),
            Where::LineTag {
                table: Table::Returns,
                ..
            } if size == 8 => Ok(()),
            Where::LineCode { .. } if size == 8 && v == (Value::Code { of: None }) => Ok(()),
            Where::Guest { at, bytes } if !v.is_of_host() => Self::access(at, bytes, size, true),
            Where::Guest { .. } => Err("an address of the host's for the guest's memory"),
            _ => Err("a store to what is not the guest's"),
        }
    }
}
