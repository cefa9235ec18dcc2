// SPDX-License-Identifier: Apache-2.0
//! Jumps that lead to blocks from now on: their fields are patched, and the blocks know of them.

use super::callout::{Site, SITE_BYTES};
use super::flow::FarLink;
use super::{Incoming, NativeBlock, Translator, CALL_BYTES};

impl Translator {
    /// Lets the jump whose field is at `field` lead to block `id`; `stub` is the site it came from. Gives where to go on.
    pub(super) fn link(&mut self, id: u32, field: u64, site: u64) -> Option<u64> {
        let block: &mut NativeBlock = self.blocks.get_mut(id as usize)?;
        let near = block.near;
        let stub = site - CALL_BYTES;
        block.incoming.push(Incoming::Near { field, stub });
        self.lead(field, near);
        Some(near)
    }

    /// The block whose code begins at `far`, unless it is forgotten.
    fn beginning_at(&mut self, far: u64) -> Option<&mut NativeBlock> {
        // Code is never put before other code.
        let n = self.blocks.binary_search_by_key(&far, |b| b.far).ok()?;
        self.blocks.get_mut(n).filter(|b| b.lives())
    }

    /// Lets the calls of the block of site `s`, which is at `site`, leave the block at `far` to their returns, if it is of the same
    /// frame. The field of the address is at `field`.
    pub(super) fn link_return(&mut self, s: Site, far: u64, field: u64, site: u64) -> Option<()> {
        let from = self.blocks.get(s.block as usize).filter(|b| b.lives())?;
        let of = (from.mfn, from.mode);
        let block = self.beginning_at(far).filter(|b| (b.mfn, b.mode) == of)?;
        let stub = site - CALL_BYTES;
        block.incoming.push(Incoming::Near { field, stub });
        self.lead(field, far);
        Some(())
    }

    /// The same from another page; gives the key of the code that it must show.
    pub(super) fn link_far(&mut self, far: u64, field: u64, site: u64) -> Option<i32> {
        let block = self.beginning_at(far)?;
        let (near, key) = (block.near, block.key);
        let stub = site - CALL_BYTES;
        block.incoming.push(Incoming::Far { field, stub });
        let link = FarLink(field);
        self.lead(field, near);
        self.lead(link.otherwise(), site + SITE_BYTES as u64);
        self.memory.patch(link.key(), key.to_le_bytes());
        Some(key)
    }
}
