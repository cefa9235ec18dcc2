// SPDX-License-Identifier: Apache-2.0
//! The page walk (four levels, or three of a 32-bit guest), as the hardware does it: permissions of all levels, NX, reserved bits, and accessed/dirty bits
//! set by compare-and-exchange, without any lock.

use crate::abi::pte::{self, A, D, NX, P, PSE, RW, USER};
use crate::fault::{pf, Fault};
use crate::mem::{Mfn, PhysMem, PAGE_SHIFT};
use std::ops::{Range, RangeInclusive};

/// What an access wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Fetch,
}

/// A part of every address space that is not the guest's: its page tables are not looked at there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub addresses: RangeInclusive<u64>,
    /// What the guest may read from the beginning of `addresses` on: first frame, number of frames.
    pub shown: (Mfn, u64),
    /// Supervisor code alone reads it.
    pub supervisor_only: bool,
    /// Addresses at which something is mapped that is not for the guest: an access violates, where elsewhere it misses.
    pub forbidden: Range<u64>,
}

/// What a walk needs to know beside the address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walker<'a> {
    /// The root table: an L4, or the L3 of a 32-bit guest.
    pub l4: Mfn,
    /// The root is an L3 of four entries.
    pub pae: bool,
    /// CPL 3: every level must have U set.
    pub user: bool,
    pub window: Option<&'a Window>,
    /// What the window shows is not mapped at present.
    pub window_hidden: bool,
}

/// A translation, with the path that led to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaf {
    pub mfn: Mfn,
    /// From the window: there are no entries behind it.
    pub window: bool,
    /// Machine addresses and values of the entries used, L4 first. Address 0: no such level.
    path: [(u64, u64); 4],
}

impl Walker<'_> {
    fn code(&self, access: Access) -> u32 {
        let u = if self.user { pf::U } else { 0 };
        u | match access {
            Access::Read => 0,
            Access::Write => pf::W,
            Access::Fetch => pf::I,
        }
    }

    /// Translates the canonical address `va`; sets A on every level, and D on the leaf of a write, when it succeeds.
    pub(crate) fn walk(&self, mem: &PhysMem, va: u64, access: Access) -> Result<Leaf, Fault> {
        let code = self.code(access);
        if let Some(window) = self.window.filter(|w| w.addresses.contains(&va)) {
            return self.walk_window(window, va, access);
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
                window: false,
                path,
            });
        }
    }

    fn walk_window(&self, window: &Window, va: u64, access: Access) -> Result<Leaf, Fault> {
        let code = self.code(access);
        let page = va.wrapping_sub(*window.addresses.start()) >> 12;
        if self.window_hidden || page >= window.shown.1 {
            let mapped = window.forbidden.contains(&va);
            return Err(Fault::pf(va, code | if mapped { pf::P } else { 0 }));
        }
        if access != Access::Read || window.supervisor_only && self.user {
            return Err(Fault::pf(va, code | pf::P));
        }
        Ok(Leaf {
            mfn: Mfn(window.shown.0 .0 + page),
            window: true,
            path: [(0, 0); 4],
        })
    }
}

impl Leaf {
    /// The tables that were walked through below the root.
    pub(crate) fn tables(&self) -> impl Iterator<Item = Mfn> + '_ {
        let below = self.path.iter().skip(1).filter(|&&(at, _)| at != 0);
        below.map(|&(at, _)| Mfn(at >> PAGE_SHIFT))
    }

    /// True if the entries that gave this translation are still what they were.
    pub(crate) fn still_valid(&self, mem: &PhysMem) -> bool {
        self.window
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
