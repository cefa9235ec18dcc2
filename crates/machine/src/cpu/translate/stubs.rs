// SPDX-License-Identifier: Apache-2.0
//! Stubs: what a block does where its code cannot go on, each a callout with its site.

use super::asm::{at, frame, Label, S1, S2};
use super::callout::{Kind, Site, BRANCH, GROUP};
use super::emit::Emitter;
use super::operand::Ea;
use super::Handled;
use crate::cpu::exec;
use crate::cpu::exec::fast::string::repeated;
use iced_x86::Instruction;

/// What a stub does before its callout.
pub(super) struct Stub {
    pub label: Label,
    /// Brought into `S2`, where the callout looks for the address.
    pub va: Option<Ea>,
    pub site: Site,
    /// Where `a` and `b` of the site lead, if they are addresses.
    pub a: Option<Label>,
    pub b: Option<Label>,
    /// Offset of the field of the jump that leads to the stub, for `b`.
    pub field: Option<usize>,
    /// Where it goes on with the operand's host address less the guest's from the frame.
    pub hit: Option<Label>,
    /// A look-up of the jump table follows, for this offset in the page in `S2`.
    pub table: Option<u16>,
}

impl Emitter<'_> {
    pub(super) fn last_stub(&mut self) -> &mut Stub {
        // Called right after a stub was added.
        let n = self.stubs.len() - 1;
        &mut self.stubs[n]
    }

    /// A stub for the current instruction.
    pub(super) fn stub(&mut self, label: Label, kind: Kind, va: Option<Ea>) {
        debug_assert_eq!(self.stack_moves, 0, "a stub knows where the stack is");
        let site = Site {
            kind,
            flags: if self.branch { BRANCH } else { 0 },
            left: self.left,
            len: self.len,
            off: self.off,
            size: 0,
            disp: va.map_or(0, |ea| ea.disp),
            block: self.block,
            a: 0,
            b: 0,
        };
        self.stubs.push(Stub {
            label,
            va,
            site,
            a: None,
            b: None,
            field: None,
            hit: None,
            table: None,
        });
    }

    pub(super) fn put_stubs(&mut self) {
        while !self.stubs.is_empty() {
            let stubs = std::mem::take(&mut self.stubs);
            stubs.into_iter().for_each(|stub| self.put_stub(stub));
        }
    }

    fn put_stub(&mut self, stub: Stub) {
        self.asm.bind(stub.label);
        if let Some(va) = stub.va {
            self.asm.lea(S2, at(va.reg, i64::from(va.disp)));
        }
        if stub.site.flags & GROUP != 0 || stub.hit.is_some() {
            // Later it may lead to the rest of the block (`rest`).
            self.rests = true;
            let call = self.asm.label();
            self.asm.jmp(call);
            self.asm.bind(call);
        }
        self.asm.call_mem(frame!(callout));
        let here = self.asm.address(self.asm.here());
        let asm = &*self.asm;
        let relative = |offset: usize| asm.address(offset).wrapping_sub(here) as i32;
        let mut site = stub.site;
        if let Some(a) = stub.a {
            site.a = relative(asm.offset_of(a));
        }
        if let Some(b) = stub.b {
            site.b = relative(asm.offset_of(b));
        }
        if let Some(field) = stub.field {
            site.b = relative(field);
        }
        self.asm.data(&site.to_bytes());
        if let Some(hit) = stub.hit {
            if let Some(Ea { reg: S2, disp, .. }) = stub.va {
                self.asm.lea(S2, at(S2, -i64::from(disp)));
            }
            self.asm.load(S1, frame!(delta));
            self.asm.jmp(hit);
        }
        if let Some(off) = stub.table {
            self.put_table_jump(off);
        }
    }

    /// A stub that leaves the current instruction to its handler.
    pub(super) fn handler_stub(&mut self, i: &Instruction, label: Label, end: bool) -> Option<()> {
        let own = if self.flat { &self.insn } else { i };
        self.handled.push(match repeated(own) {
            Some(repeat) => Handled::Repeat(repeat),
            None => Handled::Slow(*own, exec::lookup(own.code())?),
        });
        let n = i32::try_from(self.handled.len() - 1).ok()?;
        self.stub(label, if end { Kind::End } else { Kind::Exec }, None);
        let next = self.next;
        let s = self.last_stub();
        s.site.a = n;
        s.b = (!end).then_some(next);
        Some(())
    }

    /// A jump, whose field ends here, that leads to offset `target` of this page when it is linked.
    pub(super) fn link_stub(&mut self, label: Label, target: i64, field: usize) {
        self.stub(label, Kind::Link, None);
        let s = self.last_stub();
        s.site.a = target as i32;
        s.field = Some(field);
    }

    /// A jump to offset `off` of the page in `S2`, whose last field ends here.
    pub(super) fn far_stub(&mut self, label: Label, off: u16, field: usize) {
        self.stub(label, Kind::Far, None);
        let s = self.last_stub();
        s.site.a = i32::from(off);
        s.field = Some(field);
        s.table = Some(off);
    }

    /// What code at offset `off` of the page is, for a return there: the field of its address ends here.
    pub(super) fn return_stub(&mut self, label: Label, off: u16) {
        let field = self.asm.here() - 4;
        self.stub(label, Kind::Return, None);
        let s = self.last_stub();
        s.site.a = i32::from(off);
        s.field = Some(field);
    }
}
