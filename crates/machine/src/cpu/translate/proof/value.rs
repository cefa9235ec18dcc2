// SPDX-License-Identifier: Apache-2.0
//! What is known of the host's registers and the frame at a place in translated code.

use crate::cpu::region::{DELTAS, SPILLED};
use iced_x86::Register;

/// A value that nothing is known of but where it came from.
pub(super) type Name = u64;

/// The page of the block's own code, and what r11 has at the entry from other pages.
pub(super) const OWN_PAGE: Name = 1;
pub(super) const TARGET: Name = 2;

/// Sums of two names, which have names of their own, so that two sums of the same are known to be equal.
#[derive(Default)]
pub(super) struct Names(Vec<(Name, Name, u32)>);

impl Names {
    const PAIR: Name = 1 << 63;

    /// The name of `a` plus `scale` times `b`.
    pub(super) fn pair(&mut self, a: Name, b: Name, scale: u32) -> Name {
        let known = self.0.iter().position(|&p| p == (a, b, scale));
        let n = known.unwrap_or_else(|| {
            self.0.push((a, b, scale));
            self.0.len() - 1
        });
        Names::PAIR | n as Name
    }

    /// A name, and the sums that it is part of.
    fn with(&self, name: Name) -> Vec<Name> {
        let mut all = vec![name];
        let mut next = 0;
        while let Some(&of) = all.get(next) {
            next += 1;
            for (n, &(a, b, _)) in self.0.iter().enumerate() {
                let sum = Names::PAIR | n as Name;
                if (a == of || b == of) && !all.contains(&sum) {
                    all.push(sum);
                }
            }
        }
        all
    }
}

/// What a TLB entry allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Write,
    Fetch,
}

/// Bytes at distances from a name's value that lie in the host's memory as they do in the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bytes {
    pub name: Name,
    pub low: i64,
    pub high: Extent,
    pub right: Right,
}

/// Where bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    At(i64),
    /// So many elements of so many bytes from the beginning.
    Count {
        name: Name,
        size: u32,
    },
}

impl Bytes {
    /// What both allow.
    fn both(self, other: Bytes) -> Option<Bytes> {
        if self.name != other.name {
            return None;
        }
        let high = match (self.high, other.high) {
            (Extent::At(a), Extent::At(b)) => Extent::At(a.min(b)),
            (a, b) if a == b => a,
            _ => return None,
        };
        let right = match (self.right, other.right) {
            (a, b) if a == b => a,
            (Right::Fetch, _) | (_, Right::Fetch) => return None,
            _ => Right::Read,
        };
        let low = self.low.max(other.low);
        (!matches!(high, Extent::At(high) if high <= low)).then_some(Bytes {
            low,
            high,
            right,
            ..self
        })
    }
}

/// What the sum of a tag and an address says if it is zero, or small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    /// The TLB entry of `of` is that of these bytes.
    Translated { of: Place, bytes: Bytes },
    /// The line of the jump table, or of the returns, for `of` is that of this address.
    Listed { of: Place, table: Table, address: Place },
    /// The page of the stack that the frame has is that of these bytes.
    OnStack(Bytes),
    /// The page `of` shows the code with this key.
    Shows { of: Place, key: i32 },
    /// The value has few enough bits to count elements of one page.
    Counts(Name),
    /// The host's vector registers are the guest's; with `true` all of them.
    Vectors(bool),
    /// The host's x87 registers are the guest's.
    X87,
    /// The slice has this many instructions.
    Afforded(i64),
}

/// A name's value plus something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub name: Name,
    pub plus: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Jumps,
    Returns,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Any,
    Const(u64),
    /// Less than this.
    Below(u64),
    Sum(Place),
    /// An address turned round, so that the bits of its TLB entry's number are where that times 32 has them.
    Rotated(Place),
    /// The number of the TLB entry of an address, times 1 or 32; and the bytes that it is known to translate.
    Entry {
        of: Place,
        scaled: bool,
        hit: Option<Bytes>,
    },
    /// The tag of an entry, with what has been added.
    Tag {
        of: Place,
        right: Right,
    },
    TagSum {
        of: Place,
        right: Right,
        checked: i64,
    },
    /// The tag of the page of the stack that the frame has, and with an address added.
    StackTag,
    StackSum(Place),
    /// The end of so many elements.
    TagRun {
        of: Place,
        right: Right,
        count: Place,
        size: u32,
    },
    /// Zero if and only if this is so.
    Unless(Fact),
    /// Host address less guest address of these bytes.
    Delta(Bytes),
    /// Its complement.
    NotDelta,
    /// The host address of `at`, one of these bytes or beside them.
    Host {
        at: Place,
        bytes: Bytes,
    },
    /// A host address that a string instruction has moved.
    Moved,
    /// The address of the CPU.
    Cpu,
    /// The number of the line for `of`, times 1 or 2; `known`: the address that it is of.
    Line {
        table: Table,
        of: Place,
        twice: bool,
        known: Option<Place>,
    },
    LineTag {
        table: Table,
        of: Place,
    },
    PageKey {
        of: Place,
    },
    /// Translated code: `of` the guest's address, or what a call leaves for its return.
    Code {
        of: Option<Place>,
    },
    /// What the slice had at the entry less this.
    Slice(i64),
    /// Its upper half.
    SliceHigh(i64),
    /// What an x87 control word has besides masks.
    Rounding,
    /// An x87 control word that masks all exceptions.
    Control,
}

impl Value {
    fn names(self) -> [Option<Name>; 3] {
        match self {
            Value::Sum(p) | Value::Rotated(p) | Value::StackSum(p) => [Some(p.name), None, None],
            Value::Entry { of, hit, .. } => [Some(of.name), hit.map(|b| b.name), None],
            Value::Tag { of, .. } | Value::TagSum { of, .. } => [Some(of.name), None, None],
            Value::TagRun { of, count, .. } => [Some(of.name), Some(count.name), None],
            Value::Delta(b) => [Some(b.name), count_of(b), None],
            Value::Host { at, bytes } => [Some(at.name), Some(bytes.name), count_of(bytes)],
            Value::Line { of, known, .. } => [Some(of.name), known.map(|p| p.name), None],
            Value::LineTag { of, .. } | Value::PageKey { of } => [Some(of.name), None, None],
            Value::Code { of } => [of.map(|p| p.name), None, None],
            Value::Unless(fact) => match fact {
                Fact::Translated { of, bytes } => [Some(of.name), Some(bytes.name), count_of(bytes)],
                Fact::Listed { of, address, .. } => [Some(of.name), Some(address.name), None],
                Fact::Shows { of, .. } => [Some(of.name), None, None],
                Fact::Counts(name) => [Some(name), None, None],
                Fact::OnStack(bytes) => [Some(bytes.name), count_of(bytes), None],
                Fact::Vectors(_) | Fact::X87 | Fact::Afforded(_) => [None; 3],
            },
            _ => [None; 3],
        }
    }

    /// It says where the host has something: nothing that may come to the guest.
    pub(super) fn is_of_host(self) -> bool {
        use Value as V;
        matches!(
            self,
            V::Delta(_) | V::NotDelta | V::Host { .. } | V::Moved | V::Cpu | V::Code { .. } | V::Slice(_)
        )
    }

    fn both(self, other: Value) -> Value {
        match (self, other) {
            (a, b) if a == b => a,
            (Value::Delta(a), Value::Delta(b)) => a.both(b).map_or(Value::Any, Value::Delta),
            (Value::Host { at, bytes }, Value::Host { at: other, bytes: b }) if at == other => bytes
                .both(b)
                .map_or(Value::Any, |bytes| Value::Host { at, bytes }),
            (Value::Entry { of, scaled, .. }, Value::Entry { of: o, scaled: s, .. })
                if (of, scaled) == (o, s) =>
            {
                Value::Entry {
                    of,
                    scaled,
                    hit: None,
                }
            }
            _ => Value::Any,
        }
    }
}

fn count_of(b: Bytes) -> Option<Name> {
    match b.high {
        Extent::Count { name, .. } => Some(name),
        Extent::At(_) => None,
    }
}

/// All that is known at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub regs: [Value; 16],
    pub spilled: [Value; SPILLED],
    pub deltas: [Value; DELTAS],
    pub kept: [Value; 2],
    /// `Frame::page`.
    pub page: Value,
    /// `Frame::delta`.
    pub delta: Value,
    /// What a set zero flag means.
    pub zero: Option<Fact>,
    /// What a set carry flag means.
    pub carry: Option<Fact>,
    /// Bytes of the page of the stack that the frame has.
    pub stack: Option<Bytes>,
    /// The sign flag is that of the slice when this was taken from it.
    pub slice_sign: Option<i64>,
    /// Values that have few bits.
    pub counts: Option<Name>,
    /// The page that `Place` names shows the code with this key.
    pub shows: Option<(Place, i32)>,
    /// Which of the vector registers are the guest's.
    pub vectors: u8,
    /// The x87 registers are.
    pub x87: bool,
    /// As many instructions as this the slice has had at the entry.
    pub afforded: i64,
}

impl State {
    /// At an entry.
    pub(super) fn new(page: Value, taken: i64, afforded: i64) -> State {
        let mut regs = [Value::Any; 16];
        regs[15] = Value::Slice(taken);
        State {
            regs,
            spilled: [Value::Any; SPILLED],
            deltas: [Value::Any; DELTAS],
            kept: [Value::Any; 2],
            page,
            delta: Value::Any,
            zero: None,
            carry: None,
            stack: None,
            slice_sign: None,
            counts: None,
            shows: None,
            vectors: 0,
            x87: false,
            afforded,
        }
    }

    fn values(&mut self) -> impl Iterator<Item = &mut Value> {
        let frame = self
            .spilled
            .iter_mut()
            .chain(&mut self.deltas)
            .chain(&mut self.kept);
        let one = [&mut self.page, &mut self.delta].into_iter();
        self.regs.iter_mut().chain(frame).chain(one)
    }

    /// Only what is known by both ways stays known.
    pub(super) fn meet(&mut self, other: &State) {
        let mut other = other.clone();
        self.values()
            .zip(other.values())
            .for_each(|(a, b)| *a = a.both(*b));
        let same = |a: bool, b: bool| a && b;
        self.zero = self.zero.filter(|_| self.zero == other.zero);
        self.carry = self.carry.filter(|_| self.carry == other.carry);
        self.stack = self.stack.filter(|_| self.stack == other.stack);
        self.slice_sign = self.slice_sign.filter(|_| self.slice_sign == other.slice_sign);
        self.counts = self.counts.filter(|_| self.counts == other.counts);
        self.shows = self.shows.filter(|_| self.shows == other.shows);
        self.vectors = self.vectors.min(other.vectors);
        self.x87 = same(self.x87, other.x87);
        self.afforded = self.afforded.min(other.afforded);
    }

    /// The name is given anew: what it meant before is over, and so are its sums.
    pub(super) fn renew(&mut self, name: Name, names: &Names) {
        let over = names.with(name);
        let meant = |v: Value| v.names().into_iter().flatten().any(|n| over.contains(&n));
        for v in self.values().filter(|v| meant(**v)) {
            *v = Value::Any;
        }
        self.zero = self.zero.filter(|&f| !meant(Value::Unless(f)));
        self.carry = self.carry.filter(|&f| !meant(Value::Unless(f)));
        self.stack = self.stack.filter(|&b| !meant(Value::Delta(b)));
        self.counts = self.counts.filter(|n| !over.contains(n));
        self.shows = self.shows.filter(|(p, _)| !over.contains(&p.name));
    }

    pub(super) fn reg(&self, r: Register) -> Value {
        number(r).map_or(Value::Any, |n| self.regs[n])
    }

    pub(super) fn set(&mut self, r: Register, v: Value) {
        if let Some(n) = number(r) {
            self.regs[n] = v;
        }
    }

    /// How many instructions have been taken from the slice, if it is known to have had them.
    pub(super) fn taken(&self) -> Option<i64> {
        match self.reg(Register::R15) {
            Value::Slice(taken) if taken <= self.afforded => Some(taken),
            _ => None,
        }
    }

    /// A fact is known from here on.
    pub(super) fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::Translated { of: wanted, bytes } => {
                for v in self.values() {
                    match v {
                        Value::Entry { of, hit, .. } if *of == wanted => *hit = Some(bytes),
                        _ => {}
                    }
                }
            }
            Fact::Listed {
                of: wanted,
                table,
                address,
            } => {
                for v in self.values() {
                    match v {
                        Value::Line {
                            of, table: t, known, ..
                        } if (*of, *t) == (wanted, table) => *known = Some(address),
                        _ => {}
                    }
                }
            }
            Fact::OnStack(bytes) => self.stack = Some(bytes),
            Fact::Shows { of, key } => self.shows = Some((of, key)),
            Fact::Counts(name) => self.counts = Some(name),
            Fact::Vectors(all) => self.vectors = if all { 2 } else { self.vectors.max(1) },
            Fact::X87 => self.x87 = true,
            Fact::Afforded(taken) => self.afforded = self.afforded.max(taken),
        }
    }
}

/// The number of a general-purpose register, whatever part of it is named.
pub(super) fn number(r: Register) -> Option<usize> {
    r.is_gpr()
        .then(|| r.full_register() as usize - Register::RAX as usize)
}
