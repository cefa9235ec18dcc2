//! The page walk (four levels, or three of a 32-bit guest), as the hardware does it: permissions of all levels, NX, reserved bits, and accessed/dirty bits
//! set by compare-and-exchange, without any lock.

use crate::abi::layout::{M2P_COMPAT_VA, M2P_VA, XEN_DIRECT_MAP, XEN_SLOTS};
use crate::abi::pte::{self, A, D, NX, P, PSE, RW, USER};
use crate::fault::{pf, Fault};
use crate::mem::{Mfn, PhysMem};

/// What an access wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Fetch,
}

/// What a walk needs to know beside the address.
#[derive(Debug, Clone, Copy)]
pub struct Walker {
    /// The root table: an L4, or the L3 of a 32-bit guest.
    pub l4: Mfn,
    /// The root is an L3 of four entries.
    pub pae: bool,
    /// CPL 3: every level must have U set.
    pub user: bool,
    /// First frame and number of frames of the machine-to-phys table.
    pub m2p: (u64, u64),
}

/// A translation, with the path that led to it.
#[derive(Debug, Clone, Copy)]
pub struct Leaf {
    pub mfn: Mfn,
    pub nx: bool,
    /// Part of the machine-to-phys table: there are no entries behind it.
    pub m2p: bool,
    /// Machine addresses and values of the entries used, L4 first. Address 0: no such level.
    path: [(u64, u64); 4],
}

impl Walker {
    fn code(&self, access: Access) -> u32 {
        let u = if self.user { pf::U } else { 0 };
        u | match access {
            Access::Read => 0,
            Access::Write => pf::W,
            Access::Fetch => pf::I,
        }
    }

    /// Translates the canonical address `va`; sets A on every level, and D on the leaf of a write, when it succeeds.
    pub fn walk(&self, mem: &PhysMem, va: u64, access: Access) -> Result<Leaf, Fault> {
        let code = self.code(access);
        let xen = if self.pae {
            va >= M2P_COMPAT_VA
        } else {
            XEN_SLOTS.contains(&(va >> 39 & 511))
        };
        if xen {
            return self.walk_m2p(va, access, mem.frames());
        }
        let first = usize::from(self.pae);
        'again: loop {
            let mut table = self.l4;
            let mut path = [(0, 0); 4];
            let (mut all_rw, mut all_us, mut any_nx) = (true, true, false);
            for (depth, slot) in path.iter_mut().enumerate().skip(first) {
                let shift = 39 - 9 * depth as u32;
                let at = table.maddr() | (va >> shift & 511) << 3;
                let Some(e) = mem.read_u64(at) else {
                    return Err(Fault::pf(va, code | pf::P | pf::RSVD));
                };
                if e & P == 0 {
                    return Err(Fault::pf(va, code));
                }
                let next = pte::mfn(e);
                if next >= mem.frames() || (depth < 3 && e & PSE != 0) {
                    return Err(Fault::pf(va, code | pf::P | pf::RSVD));
                }
                all_rw &= e & RW != 0;
                all_us &= e & USER != 0;
                any_nx |= e & NX != 0;
                *slot = (at, e);
                table = Mfn(next);
            }
            let denied = (self.user && !all_us)
                || (access == Access::Write && !all_rw)
                || (access == Access::Fetch && any_nx);
            if denied {
                return Err(Fault::pf(va, code | pf::P));
            }
            for (depth, slot) in path.iter_mut().enumerate().skip(first) {
                let want = A | if depth == 3 && access == Access::Write {
                    D
                } else {
                    0
                };
                if slot.1 & want != want {
                    match mem.cmpxchg_u64(slot.0, slot.1, slot.1 | want) {
                        Some(Ok(_)) => slot.1 |= want,
                        _ => continue 'again,
                    }
                }
            }
            return Ok(Leaf {
                mfn: table,
                nx: any_nx,
                m2p: false,
                path,
            });
        }
    }

    fn walk_m2p(&self, va: u64, access: Access, frames: u64) -> Result<Leaf, Fault> {
        let base = if self.pae { M2P_COMPAT_VA } else { M2P_VA };
        let page = va.wrapping_sub(base) >> 12;
        let code = self.code(access);
        if va < base || page >= self.m2p.1 {
            // Xen's map of all memory is there, but not the guest's.
            let mapped = !self.pae && va.wrapping_sub(XEN_DIRECT_MAP) >> 12 < frames;
            return Err(Fault::pf(va, code | if mapped { pf::P } else { 0 }));
        }
        // The applications of a 32-bit guest are another privilege level than its kernel, and see nothing of Xen.
        if access != Access::Read || self.pae && self.user {
            return Err(Fault::pf(va, code | pf::P));
        }
        Ok(Leaf {
            mfn: Mfn(self.m2p.0 + page),
            nx: true,
            m2p: true,
            path: [(0, 0); 4],
        })
    }
}

impl Leaf {
    /// True if the entries that gave this translation are still what they were.
    pub fn still_valid(&self, mem: &PhysMem) -> bool {
        self.m2p
            || self
                .path
                .iter()
                .all(|&(at, e)| at == 0 || mem.read_u64(at) == Some(e))
    }
}

/// Reads entries without side effects, for hypercalls and crash reports: `(level, table, index, entry)`, the root
/// (with `pae` an L3, else an L4) first, as far as they are present.
pub fn inspect(mem: &PhysMem, root: Mfn, va: u64, pae: bool) -> Vec<(u8, Mfn, u16, u64)> {
    let mut out = Vec::with_capacity(4);
    let mut table = root;
    for depth in u32::from(pae)..4 {
        let index = va >> (39 - 9 * depth) & 511;
        let Some(e) = mem.read_u64(table.maddr() | index << 3) else {
            break;
        };
        out.push((4 - depth as u8, table, index as u16, e));
        if e & P == 0 || e & PSE != 0 && depth < 3 {
            break;
        }
        table = Mfn(pte::mfn(e));
    }
    out
}
