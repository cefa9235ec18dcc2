// SPDX-License-Identifier: Apache-2.0
//! The frame table's state, all behind the machine's memory lock: owners, types, counts, free frames.

use super::free::FreeFrames;
use super::life::Life;
use crate::abi::layout::INVALID_M2P_ENTRY;
use crate::abi::{DomId, DOMID_INVALID};
use crate::mem::{Mfn, PhysMem};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// As what a frame is used. A frame has one type at a time, for as long as its type count is not zero (page tables:
/// until they are devalidated).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Ty {
    /// As nothing, or only for reading.
    #[default]
    None,
    /// Mapped writable (PGT_writable_page).
    Writable,
    /// A page table that maps pages (PGT_l1_page_table).
    L1,
    /// A table of L1s (PGT_l2_page_table).
    L2,
    /// A table of L2s (PGT_l3_page_table); the root of a PAE guest's.
    L3,
    /// A table of L3s (PGT_l4_page_table).
    L4,
    /// The L2 that holds Xen's area of a PAE guest (slot 3 of its L3): no other L2 may stand there, nor it elsewhere.
    L2Xen,
    /// A page of a GDT or LDT (PGT_seg_desc_page).
    SegDesc,
}

impl Ty {
    /// That of a page table of level 1 to 4; of another, `None`.
    pub const fn table(level: u8) -> Ty {
        match level {
            1 => Ty::L1,
            2 => Ty::L2,
            3 => Ty::L3,
            4 => Ty::L4,
            _ => Ty::None,
        }
    }

    /// 1..=4 for page tables, else 0.
    pub const fn level(self) -> u8 {
        match self {
            Ty::L1 => 1,
            Ty::L2 | Ty::L2Xen => 2,
            Ty::L3 => 3,
            Ty::L4 => 4,
            _ => 0,
        }
    }

    /// Whether it is that of a page table.
    pub const fn is_table(self) -> bool {
        self.level() != 0
    }

    /// As `_machine.pyi` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Ty::None => "none",
            Ty::Writable => "writable",
            Ty::L1 => "l1",
            Ty::L2 | Ty::L2Xen => "l2",
            Ty::L3 => "l3",
            Ty::L4 => "l4",
            Ty::SegDesc => "segdesc",
        }
    }
}

/// Bits of [`FrameInfo::state`].
pub(crate) mod state {
    /// Handed out and not given back: holds one reference.
    pub(crate) const ALLOCATED: u8 = 1;
    /// Pinned as its type: holds one reference and one type reference.
    pub(crate) const PINNED: u8 = 2;
    /// A hypervisor frame shared with the owner: always writable, never a table, not the guest's to release.
    pub(crate) const XEN: u8 = 4;
    /// In its domain's list of dead tables, which holds one reference.
    pub(crate) const DEAD: u8 = 8;
    /// Given to a domain: on no free list.
    pub(crate) const IN_USE: u8 = 16;
}

/// No owner: free, of the hypervisor, or left over from a domain that is gone.
pub(crate) const NO_OWNER: DomId = DOMID_INVALID;

/// One frame-table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// The domain; DOMID_INVALID when there is none.
    pub owner: DomId,
    /// As what it is used now, or was last.
    pub ty: Ty,
    /// Bits: handed out (1), pinned (2), the hypervisor's (4), a dead table (8), given to a domain (16).
    pub state: u8,
    /// References as `ty`.
    pub type_count: u32,
    /// All references. A type reference comes with one of these.
    pub refs: u32,
    /// Linear page tables: how many tables of the same level name this one (above zero), or how many such entries this one
    /// has (below). Never both, so that a walk passes one at most and there are no loops. Entries that name their own table
    /// do not count.
    pub(super) linear: i32,
}

impl FrameInfo {
    pub(super) const FREE: FrameInfo = FrameInfo {
        owner: NO_OWNER,
        ty: Ty::None,
        state: 0,
        type_count: 0,
        refs: 0,
        linear: 0,
    };

    /// That of a frame which has just been handed out to a domain: nothing yet, with the allocation reference.
    pub(super) const fn handed_to(owner: DomId) -> FrameInfo {
        FrameInfo {
            owner,
            state: state::ALLOCATED | state::IN_USE,
            refs: 1,
            ..FrameInfo::FREE
        }
    }

    /// The domain that has it.
    pub fn owner(&self) -> Option<DomId> {
        (self.owner != NO_OWNER).then_some(self.owner)
    }
    /// Whether the guest has pinned it as its type (MMUEXT_PIN_L*_TABLE).
    pub fn pinned(&self) -> bool {
        self.state & state::PINNED != 0
    }
    /// Whether it was handed out to its owner and not given back.
    pub fn allocated(&self) -> bool {
        self.state & state::ALLOCATED != 0
    }
    /// The name of its type, as `_machine.pyi` has it.
    pub fn type_name(&self) -> &'static str {
        self.ty.name()
    }
    /// There is no partial validation here: a typed frame is a validated one.
    pub fn validated(&self) -> bool {
        self.ty != Ty::None
    }
}

/// Whose unfinished operation something is held for: a vCPU's, or the host's. A base pointer that is loaded for a vCPU is
/// an operation beside those that it makes itself.
pub(super) type Holder = (Option<u32>, Option<BaseKind>);

/// What an operation that is not finished has validated in advance.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Each holds a reference and a type reference, so that the operation's continuation finds them done.
    pub tables: Vec<Mfn>,
    /// A conflict has made it let go of all it held. The next one is an error: trees that contradict themselves are not
    /// validated for ever.
    pub started_again: bool,
}

/// Which page-table base of a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BaseKind {
    /// The guest kernel's; of 32-bit guests the only one (MMUEXT_NEW_BASEPTR).
    Kernel,
    /// That of a 64-bit guest's applications (MMUEXT_NEW_USER_BASEPTR).
    User,
}

/// What the frame table keeps per domain.
#[derive(Debug, Default)]
pub(crate) struct DomMm {
    pub is_32bit: bool,
    /// Once it is dying, no new reference to any of its frames is given out.
    pub(super) life: Arc<Life>,
    /// Destroyed, and no frame is its any more: forgotten with the last reference from outside.
    pub(super) gone: bool,
    /// It is giving everything back: what it sets free waits in [`Mm::waiting`].
    pub(super) relinquishes: bool,
    /// Where the search for an extent goes on, and how many frames it has looked at in vain.
    pub(super) search: (usize, usize),
    /// Frames allocated, those included that were released and are still mapped; not the hypervisor's shared ones.
    pub owned: u64,
    /// Tables whose type count fell to zero, still validated: devalidated in bounded steps.
    pub(super) dead: Vec<Mfn>,
    /// What unfinished operations have validated in advance.
    pub(super) held: BTreeMap<Holder, Held>,
    /// Tables that were held, and are not needed any more: they keep their references until a step has time for them.
    pub(super) let_go: Vec<Mfn>,
    /// Bases loaded by vCPUs.
    pub(super) bases: BTreeMap<(u32, BaseKind), Mfn>,
    /// Descriptor pages in use: GDT frames are slots 0..16, LDT pages from 16 on.
    pub(super) descs: BTreeMap<(u32, u8), Mfn>,
    /// Frames that the host writes through its own mapping for as long as the domain lives.
    pub(super) holds: BTreeSet<Mfn>,
    /// References taken by `get_ref`, by frame: (plain, writable).
    pub(super) ext: HashMap<u64, (u32, u32)>,
}

/// Everything the memory lock protects.
#[derive(Debug)]
pub struct Mm {
    pub(super) info: Vec<FrameInfo>,
    pub(super) free: FreeFrames,
    pub(super) domains: Vec<Option<Box<DomMm>>>,
    /// Tables that were devalidated since the last walk barrier: an engine may still be walking through them.
    pub(super) retired: Vec<Mfn>,
    /// Frames without references, to be given back at the end of the operation.
    pub(super) to_free: Vec<Mfn>,
    /// Free frames of domains that relinquish everything, whose memory the host still has: it comes back in the order of
    /// their numbers, many neighbours at once, and they are handed out after that.
    pub(super) waiting: BTreeSet<Mfn>,
    /// Frames of other domains that lost a mapping: the mapper's stale translations must go before the owner goes on.
    pub(super) foreign: Vec<Mfn>,
    pub(super) m2p_base: u64,
    pub(super) m2p_frames: u64,
    pub(super) m2p_compat_frames: u64,
}

/// splitmix64: the shuffle must be the same on every host for one seed.
fn next_random(s: &mut u64) -> u64 {
    *s = s.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *s;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl DomMm {
    /// Whether tables wait to be taken down.
    pub(super) fn owes(&self) -> bool {
        !self.dead.is_empty() || !self.let_go.is_empty()
    }
}

impl Mm {
    pub fn new(mem: &PhysMem, seed: u64) -> Mm {
        let frames = mem.frames();
        let m2p_frames = (frames * 8).div_ceil(4096);
        let m2p_compat_frames = (frames * 4).div_ceil(4096);
        // Frame 0 is never used: a forgotten zero must not name memory.
        let first = (1 + m2p_frames + m2p_compat_frames).min(frames);
        let mut info = vec![FrameInfo::FREE; frames as usize];
        for i in info.iter_mut().take(first as usize) {
            i.refs = 1;
            i.state = state::XEN | state::IN_USE;
        }
        for m in 0..frames {
            mem.write_u64(4096 + m * 8, INVALID_M2P_ENTRY);
        }
        mem.write(4096 * (1 + m2p_frames), &vec![0xff; (frames * 4) as usize]);
        let mut free: Vec<u64> = (first..frames).collect();
        let mut s = seed ^ 0xd0_2e20;
        for i in (1..free.len()).rev() {
            let j = next_random(&mut s) % (i as u64 + 1);
            free.swap(i, j as usize);
        }
        Mm {
            info,
            free: FreeFrames::new(free, frames),
            domains: Vec::new(),
            retired: Vec::new(),
            to_free: Vec::new(),
            waiting: BTreeSet::new(),
            foreign: Vec::new(),
            m2p_base: 1,
            m2p_frames,
            m2p_compat_frames,
        }
    }

    pub fn info(&self, mfn: Mfn) -> Option<&FrameInfo> {
        self.info.get(mfn.0 as usize)
    }

    pub fn free_frames(&self) -> u64 {
        self.free.len() as u64
    }

    /// First frame and number of frames of the machine-to-phys table of 64-bit guests.
    pub fn m2p(&self) -> (Mfn, u64) {
        (Mfn(self.m2p_base), self.m2p_frames)
    }

    /// The same for 32-bit guests: 4 bytes per frame.
    pub fn m2p_compat(&self) -> (Mfn, u64) {
        (Mfn(self.m2p_base + self.m2p_frames), self.m2p_compat_frames)
    }

    pub fn domain_exists(&self, domid: DomId) -> bool {
        self.dom(domid).is_some_and(|d| !d.life.is_dying())
    }

    pub(super) fn dom(&self, domid: DomId) -> Option<&DomMm> {
        self.domains.get(domid as usize).and_then(|d| d.as_deref())
    }

    pub(super) fn dom_mut(&mut self, domid: DomId) -> Option<&mut DomMm> {
        self.domains
            .get_mut(domid as usize)
            .and_then(|d| d.as_deref_mut())
    }

    /// Enters a new domain, and returns its life; None if there is one with this number.
    pub(super) fn add_domain(&mut self, domid: DomId, is_32bit: bool) -> Option<Arc<Life>> {
        let i = domid as usize;
        if self.domains.len() <= i {
            self.domains.resize_with(i + 1, || None);
        }
        match self.domains.get_mut(i) {
            Some(slot @ None) => {
                let life = Arc::<Life>::default();
                *slot = Some(Box::new(DomMm {
                    is_32bit,
                    life: life.clone(),
                    ..DomMm::default()
                }));
                Some(life)
            }
            _ => None,
        }
    }
}
