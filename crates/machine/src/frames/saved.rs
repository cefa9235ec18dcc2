// SPDX-License-Identifier: Apache-2.0
//! What saving a domain and going on with it needs of its memory: which frames there are, and the same ones again.

use super::domain::Domain;
use super::frame_info::{state, FrameInfo, Ty};
use super::op::{MmResult, EINVAL};
use crate::mem::Mfn;
use crate::shared::Caller;

impl Domain {
    /// These frames, zeroed, with the allocation reference; false, and none of them, when one is not free.
    pub fn alloc_at(&self, mfns: &[Mfn]) -> bool {
        let mut op = self.op(Caller::Host);
        if self.is_dying() {
            return false;
        }
        for (done, m) in mfns.iter().enumerate() {
            if !op.mm.free.contains(m.0) {
                for m in mfns.iter().take(done) {
                    op.mm.free.push(m.0);
                }
                return false;
            }
            op.mm.free.remove(m.0);
        }
        for m in mfns {
            if let Some(f) = op.frame_mut(*m) {
                *f = FrameInfo::handed_to(self.domid);
            }
        }
        if let Some(d) = op.dom_mut() {
            d.owned += mfns.len() as u64;
        }
        true
    }

    /// The frames that it owns, but for those of the hypervisor's that it may map, in order; and the tables that it has
    /// pinned, with their levels.
    pub fn list_frames(&self) -> (Vec<Mfn>, Vec<(Mfn, u8)>) {
        let op = self.op(Caller::Host);
        let (mut frames, mut pinned) = (Vec::new(), Vec::new());
        for (i, f) in op.mm.info.iter().enumerate() {
            if f.owner != self.domid || f.state & state::XEN != 0 {
                continue;
            }
            frames.push(Mfn(i as u64));
            if f.pinned() {
                pinned.push((Mfn(i as u64), f.ty.level()));
            }
        }
        (frames, pinned)
    }

    /// Pins a table of this level, 1 to 4, as the guest's hypercall does: it is validated first. In parts.
    pub fn pin_table(&self, mfn: Mfn, level: u8) -> MmResult {
        let top = if self.is_32bit { 3 } else { 4 };
        if !(1..=top).contains(&level) {
            return Err(EINVAL);
        }
        self.part(Caller::Host, |op| op.pin(mfn, Ty::table(level)))
    }
}
