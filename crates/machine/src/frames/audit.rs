// SPDX-License-Identifier: Apache-2.0
//! The frame table against what it ought to say.

use super::flag;
use super::frame_info::{state, FrameInfo, Mm, Ty, NO_OWNER};
use super::machine::Machine;
use super::types::{is_xen_slot, used_entries};
use crate::abi::pte;
use crate::mem::Mfn;

#[derive(Default, Clone, Copy)]
struct Expect {
    refs: u64,
    types: u64,
    writable: u64,
    /// Linear entries that name this table, and that it has.
    linear_uses: i32,
    linear_entries: i32,
}

impl Mm {
    /// Recomputes all counts from allocation, pins, bases, descriptor tables, outside references and the entries of
    /// every table; says where they differ.
    pub fn audit(&self, machine: &Machine) -> Vec<String> {
        let mut out = Vec::new();
        let mut want = vec![Expect::default(); self.info.len()];
        let first_free = self.m2p_base + self.m2p_frames + self.m2p_compat_frames;
        for (i, f) in self.info.iter().enumerate() {
            self.audit_frame(machine, Mfn(i as u64), f, first_free, &mut want, &mut out);
        }
        for (domid, d) in self
            .domains
            .iter()
            .enumerate()
            .filter_map(|(i, d)| Some((i, d.as_deref()?)))
        {
            for m in &d.dead {
                add(&mut want, *m, 1, 0, 0);
                if self.info(*m).is_none_or(|f| f.state & state::DEAD == 0) {
                    out.push(format!("d{domid}: {m:?} is on the dead list without the mark"));
                }
            }
            let held = d.held.values().flat_map(|h| &h.tables).chain(&d.let_go);
            for m in held.chain(d.bases.values()).chain(d.descs.values()) {
                add(&mut want, *m, 1, 1, 0);
            }
            for m in &d.holds {
                add(&mut want, *m, 1, 1, 1);
            }
            for (m, (plain, writable)) in &d.ext {
                add(&mut want, Mfn(*m), u64::from(*plain), 0, 0);
                add(
                    &mut want,
                    Mfn(*m),
                    u64::from(*writable),
                    u64::from(*writable),
                    u64::from(*writable),
                );
            }
            let mine =
                |f: &&FrameInfo| usize::from(f.owner) == domid && f.refs > 0 && f.state & state::XEN == 0;
            let owned = self.info.iter().filter(mine).count() as u64;
            if owned != d.owned {
                out.push(format!(
                    "d{domid} owns {owned} frames, its count says {}",
                    d.owned
                ));
            }
        }
        for (i, (f, w)) in self.info.iter().zip(&want).enumerate() {
            if u64::from(f.refs) != w.refs || u64::from(f.type_count) != w.types {
                out.push(format!(
                    "mfn {i:#x} ({:?}, d{}): refs {} want {}, type count {} want {}",
                    f.ty, f.owner, f.refs, w.refs, f.type_count, w.types
                ));
            }
            if f.linear != w.linear_uses - w.linear_entries || (w.linear_uses > 0 && w.linear_entries > 0) {
                out.push(format!(
                    "mfn {i:#x} ({:?}): linear {} with {} uses and {} entries",
                    f.ty, f.linear, w.linear_uses, w.linear_entries
                ));
            }
            if w.writable > 0 && f.ty != Ty::Writable {
                out.push(format!(
                    "mfn {i:#x} is {:?} and mapped writable {} times",
                    f.ty, w.writable
                ));
            }
        }
        self.audit_free(&mut out);
        out
    }

    fn audit_frame(
        &self,
        machine: &Machine,
        mfn: Mfn,
        f: &FrameInfo,
        first_free: u64,
        want: &mut [Expect],
        out: &mut Vec<String>,
    ) {
        let xen = f.state & state::XEN != 0;
        if f.allocated() || (xen && (f.owner != NO_OWNER || mfn.0 < first_free)) {
            add(want, mfn, 1, 0, 0);
        }
        if xen && mfn.0 >= first_free {
            add(want, mfn, 0, 1, 1);
        }
        if f.pinned() {
            add(want, mfn, 1, 1, 0);
        }
        let protected = machine.frames.flags(mfn) & flag::PROTECTED != 0;
        if protected != (f.ty.is_table() || f.ty == Ty::SegDesc) {
            out.push(format!("mfn {:#x} is {:?}, PROTECTED {protected}", mfn.0, f.ty));
        }
        if !f.ty.is_table() {
            return;
        }
        let is_32bit = self.dom(f.owner).is_some_and(|d| d.is_32bit);
        let level = f.ty.level();
        for i in 0..used_entries(f.ty, is_32bit) {
            let e = machine.mem.read_u64(mfn.maddr() + i as u64 * 8).unwrap_or(0);
            if !pte::present(e) {
                continue;
            }
            let child = Mfn(pte::mfn(e));
            let say = |what: &str| format!("mfn {:#x} ({:?}) entry {i} = {e:#x}: {what}", mfn.0, f.ty);
            if is_xen_slot(f.ty, i, is_32bit) {
                out.push(say("in a slot of Xen's"));
            } else if e & pte::disallowed(level, is_32bit) & !pte::GLOBAL != 0 {
                out.push(say("bits that are not allowed"));
            } else if level == 1 {
                let w = u64::from(pte::writable(e));
                add(want, child, 1, w, w);
            } else if child == mfn || self.info(child).is_some_and(|c| c.ty.level() == level) {
                if e & pte::RW != 0 || is_32bit && f.ty == Ty::L3 {
                    out.push(say("a linear entry that may not be"));
                }
                if child != mfn {
                    add(want, child, 1, 1, 0);
                    if let Some(w) = want.get_mut(mfn.0 as usize) {
                        w.linear_entries += 1;
                    }
                    if let Some(w) = want.get_mut(child.0 as usize) {
                        w.linear_uses += 1;
                    }
                    if self.info(child).is_none_or(|c| c.owner != f.owner) {
                        out.push(say("a linear entry that names another domain's table"));
                    }
                }
            } else {
                add(want, child, 1, 1, 0);
                let below = match (f.ty, i) {
                    (Ty::L3, 3) if is_32bit => Ty::L2Xen,
                    _ => Ty::table(level - 1),
                };
                if self
                    .info(child)
                    .is_none_or(|c| c.ty != below || c.owner != f.owner)
                {
                    out.push(say("its child is no table of the level below"));
                }
            }
        }
    }

    fn audit_free(&self, out: &mut Vec<String>) {
        let mut seen = vec![false; self.info.len()];
        for &m in self.free.iter().chain(self.waiting.iter().map(|m| &m.0)) {
            match seen.get_mut(m as usize) {
                Some(s) if !*s => *s = true,
                _ => out.push(format!("mfn {m:#x} is on the free list twice")),
            }
            if self.info(Mfn(m)).is_some_and(|f| *f != FrameInfo::FREE) {
                out.push(format!("mfn {m:#x} is on the free list and in use"));
            }
        }
        for (i, f) in self.info.iter().enumerate() {
            if *f == FrameInfo::FREE && !seen.get(i).copied().unwrap_or(true) {
                out.push(format!("mfn {i:#x} is lost: free, and on no free list"));
            }
        }
    }
}

fn add(want: &mut [Expect], mfn: Mfn, refs: u64, types: u64, writable: u64) {
    if let Some(w) = want.get_mut(mfn.0 as usize) {
        w.refs += refs;
        w.types += types;
        w.writable += writable;
    }
}
