// SPDX-License-Identifier: Apache-2.0
//! Tests of the frame table, all through the hypercalls a guest makes.

mod attacks;
mod behaviour;
mod engine_race;
mod grants;
mod linear;
mod model;
mod pae;
mod parts;
mod upper;

use super::BaseKind;
pub use crate::abi::hypercall::mmuext as op;
pub use crate::abi::layout::{HYPERVISOR_VIRT_START, INVALID_M2P_ENTRY};
use crate::abi::pte;
pub use crate::abi::selector::{FLAT_COMPAT_RING1_CS, XEN_CS64};
pub use crate::abi::Errno;
use crate::abi::{errno, DOMID_IO, DOMID_SELF, DOMID_XEN};
use crate::clock::Clock;
use crate::frames::{Domain, Machine, MmError, MmResult};
use crate::mem::Mfn;
use crate::pv::mmu_ops::{self, Outcome, PvCpu, Who};
use crate::pv::mmuext;
pub(super) use crate::shared::{Caller, VcpuShared};
use std::sync::Arc;

pub const EPERM: i64 = Errno::EPERM.rc();
pub const ESRCH: i64 = Errno::ESRCH.rc();
pub const EBUSY: i64 = Errno::EBUSY.rc();
pub const EINVAL: i64 = Errno::EINVAL.rc();
pub const ENOSYS: i64 = Errno::ENOSYS.rc();

/// What an operation in parts ends with when it refuses.
pub const REFUSED: MmResult = Err(MmError::Errno(Errno::EINVAL));

/// `foreigndom` of a page-table hypercall.
pub const SELF: u32 = DOMID_SELF as u32;
pub const IO: u32 = DOMID_IO as u32;
pub const XEN: u32 = DOMID_XEN as u32;

/// A page-table entry for tests: P, RW, USER.
pub const RO: u64 = pte::P | pte::USER;
pub const RW: u64 = pte::P | pte::USER | pte::RW;

pub fn machine(frames: u64) -> Arc<Machine> {
    Machine::new(frames, 7, Clock::virtual_at(0)).expect("memory")
}

pub fn entry(m: Mfn, bits: u64) -> u64 {
    m.maddr() | bits
}

/// A vCPU without an engine: its hypercall arguments lie in `args`, at address `ARGS`.
pub struct Guest {
    pub domain: Arc<Domain>,
    pub shared: Arc<VcpuShared>,
    pub id: u32,
    pub args: Vec<u8>,
    pub bases: [Option<Mfn>; 2],
    pub flushes: Vec<Who>,
    pub ldt: (u64, u32),
}

pub const ARGS: u64 = 0x10_0000;

impl PvCpu for Guest {
    fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }
    fn shared(&self) -> &Arc<VcpuShared> {
        &self.shared
    }
    fn vcpu_id(&self) -> u32 {
        self.id
    }
    fn copy_in(&mut self, va: u64, buf: &mut [u8]) -> bool {
        let at = va.wrapping_sub(ARGS) as usize;
        match self.args.get(at..at.saturating_add(buf.len())) {
            Some(b) => {
                buf.copy_from_slice(b);
                true
            }
            None => false,
        }
    }
    fn copy_out(&mut self, va: u64, buf: &[u8]) -> bool {
        let at = va.wrapping_sub(ARGS) as usize;
        match self.args.get_mut(at..at.saturating_add(buf.len())) {
            Some(b) => {
                b.copy_from_slice(buf);
                true
            }
            None => false,
        }
    }
    fn load_base(&mut self, kind: BaseKind, mfn: Option<Mfn>) {
        self.bases[kind as usize] = mfn;
    }
    fn flush_tlb(&mut self, who: Who) {
        self.flushes.push(who);
    }
    fn invlpg(&mut self, _va: u64, who: Who) {
        self.flushes.push(who);
    }
    fn set_ldt(&mut self, va: u64, entries: u32) -> Result<(), Errno> {
        self.domain.ldt_clear(self.id, Caller::Host);
        self.ldt = (va, entries);
        Ok(())
    }
}

impl Guest {
    pub fn new(machine: &Arc<Machine>, domid: u16) -> Guest {
        Guest::of(Domain::new(machine.clone(), domid))
    }

    pub fn of(domain: Arc<Domain>) -> Guest {
        Guest {
            domain,
            shared: Arc::new(VcpuShared::default()),
            id: 0,
            args: Vec::new(),
            bases: [None; 2],
            flushes: Vec::new(),
            ldt: (0, 0),
        }
    }

    pub fn alloc(&self, n: u64) -> Vec<Mfn> {
        self.domain.alloc(n).expect("frames")
    }

    pub fn one(&self) -> Mfn {
        self.alloc(1)[0]
    }

    /// A frame that holds `entries`, as a guest kernel fills one through its own mapping.
    pub fn table(&self, entries: &[(usize, u64)]) -> Mfn {
        let m = self.one();
        self.fill(m, entries);
        m
    }

    pub fn fill(&self, m: Mfn, entries: &[(usize, u64)]) {
        for (i, e) in entries {
            self.domain.machine.mem.write_u64(m.maddr() + *i as u64 * 8, *e);
        }
    }

    pub fn read(&self, m: Mfn, i: usize) -> u64 {
        self.domain
            .machine
            .mem
            .read_u64(m.maddr() + i as u64 * 8)
            .expect("inside memory")
    }

    /// L4 -> L3 -> L2 -> L1 -> `leaves`, unpinned: [l4, l3, l2, l1].
    pub fn tree(&self, leaves: &[(usize, u64)]) -> [Mfn; 4] {
        let l1 = self.table(leaves);
        let l2 = self.table(&[(0, entry(l1, RW))]);
        let l3 = self.table(&[(0, entry(l2, RW))]);
        let l4 = self.table(&[(0, entry(l3, RW))]);
        [l4, l3, l2, l1]
    }

    fn set_args(&mut self, words: &[u64]) {
        self.args = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    }

    pub fn updates(&mut self, reqs: &[(u64, u64)], foreigndom: u32) -> i64 {
        let words: Vec<u64> = reqs.iter().flat_map(|(p, v)| [*p, *v]).collect();
        self.set_args(&words);
        let (mut va, mut n) = (ARGS, reqs.len() as u32);
        loop {
            match mmu_ops::mmu_update(self, va, n, 0, foreigndom) {
                Outcome::Done(done) => return errno::rc(done),
                Outcome::Continue { req_va, count } => (va, n) = (req_va, count),
            }
        }
    }

    pub fn update(&mut self, table: Mfn, index: usize, value: u64) -> i64 {
        self.updates(&[(table.maddr() + index as u64 * 8, value)], SELF)
    }

    pub fn ext(&mut self, cmd: u32, arg1: u64, arg2: u64) -> i64 {
        if self.domain.is_32bit {
            self.args = [cmd.into(), arg1, arg2]
                .iter()
                .flat_map(|w: &u64| (*w as u32).to_le_bytes())
                .collect();
        } else {
            self.set_args(&[cmd.into(), arg1, arg2]);
        }
        let (mut va, mut n) = (ARGS, 1);
        loop {
            match mmuext::mmuext_op(self, va, n, 0, SELF) {
                Outcome::Done(done) => return errno::rc(done),
                Outcome::Continue { req_va, count } => (va, n) = (req_va, count),
            }
        }
    }

    pub fn pin(&mut self, level: u32, m: Mfn) -> i64 {
        self.ext(level - 1, m.0, 0)
    }

    pub fn unpin(&mut self, m: Mfn) -> i64 {
        self.ext(op::UNPIN_TABLE, m.0, 0)
    }

    pub fn base(&mut self, m: Mfn) -> i64 {
        self.ext(op::NEW_BASEPTR, m.0, 0)
    }

    pub fn audit(&self) {
        let said = self.domain.machine.audit();
        assert!(said.is_empty(), "{said:#?}");
    }

    pub fn ty(&self, m: Mfn) -> &'static str {
        self.domain.machine.frame_info(m).expect("a frame").type_name()
    }

    pub fn count(&self, m: Mfn) -> u32 {
        self.domain.machine.frame_info(m).expect("a frame").type_count
    }

    pub fn refs(&self, m: Mfn) -> u32 {
        self.domain.machine.frame_info(m).expect("a frame").refs
    }
}

pub fn guest() -> Guest {
    Guest::new(&machine(1024), 1)
}
