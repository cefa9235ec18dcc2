// SPDX-License-Identifier: Apache-2.0
//! A domain as the engine's vCPUs and the hypercalls see it. What it does with memory is in `memory`.

use super::changes::Changes;
use super::life::Life;
use super::machine::{wait_for, Machine};
use crate::abi::DomId;
use crate::random::RandomStream;
use crate::shared::{attention, Caller, Purge, VcpuShared};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// What the machine keeps for one domain.
pub struct Domain {
    /// Whose frames it has.
    pub machine: Arc<Machine>,
    /// Its number, which an earlier domain may have had.
    pub domid: DomId,
    /// A PAE guest with 3-level page tables.
    pub is_32bit: bool,
    /// Counts changes of present page-table entries: a view whose last count differs is flushed when it becomes the
    /// base pointer again (loading CR3 flushes the TLB on real hardware).
    pub pt_generation: AtomicU64,
    /// Those that concern the upper half of addresses: what kernels keep of it over a flush is forgotten by these.
    pub(crate) upper_changes: Changes,
    /// Whether it is dying; the frame table reads the same.
    pub(super) life: Arc<Life>,
    /// Tables of it wait to be taken down: [`Domain::settle`]. Written with the memory lock held.
    pub(super) owes: AtomicBool,
    /// Tables validated and taken down so far: what a round of a long operation is measured by.
    pub(super) work: AtomicU64,
    /// The behaviours that the guest has asked for with vm_assist, a bit for each: its vCPUs see a change when they next
    /// begin to run.
    vm_assist: AtomicU64,
    /// What was last written to port 0xcf8, the index of the PCI configuration space. Index ports are all that a guest can
    /// write.
    pub pci_config_address: AtomicU32,
    /// What was last written to port 0x70, the index of the clock.
    pub rtc_index: AtomicU8,
    /// Domains of this number before this one.
    predecessors: u32,
    vcpus: Mutex<Vec<Weak<VcpuShared>>>,
}

impl Domain {
    /// A 64-bit domain. If there is one of that number already, it gets no memory.
    pub fn new(machine: Arc<Machine>, domid: DomId) -> Arc<Domain> {
        Domain::new_with(machine, domid, false)
    }

    /// As [`Domain::new`]; with `is_32bit` a PAE guest.
    pub fn new_with(machine: Arc<Machine>, domid: DomId, is_32bit: bool) -> Arc<Domain> {
        let entered = machine.lock_mm(Caller::Host).add_domain(domid, is_32bit);
        let predecessors = machine.random.add_domain(domid);
        Arc::new(Domain {
            machine,
            domid,
            is_32bit,
            pt_generation: AtomicU64::new(0),
            upper_changes: Changes::new(),
            life: entered.unwrap_or_else(|| Arc::new(Life::over())),
            owes: AtomicBool::new(false),
            work: AtomicU64::new(0),
            vm_assist: AtomicU64::new(0),
            pci_config_address: AtomicU32::new(0),
            rtc_index: AtomicU8::new(0),
            predecessors,
            vcpus: Mutex::default(),
        })
    }

    /// The behaviours that the guest has asked for: bits by the numbers in `abi::hypercall::vmasst`.
    pub fn vm_assist(&self) -> u64 {
        self.vm_assist.load(Ordering::SeqCst)
    }

    /// Chooses them. Vcpus that run guest code are told by whoever changes them, with an interruption.
    pub fn set_vm_assist(&self, bits: u64) {
        self.vm_assist.store(bits, Ordering::SeqCst);
    }

    /// What rdrand and rdseed give on one vCPU.
    pub(crate) fn random_stream(&self, vcpu_id: u32) -> RandomStream {
        self.machine.random.stream(self.domid, self.predecessors, vcpu_id)
    }

    /// A vCPU of this domain: purges reach it from now on, and `destroy` waits for it.
    pub fn register_vcpu(&self, shared: &Arc<VcpuShared>) {
        self.machine.register_vcpu(shared);
        let mut list = self.vcpus.lock().unwrap_or_else(|e| e.into_inner());
        list.retain(|w| w.strong_count() > 0 && !std::ptr::eq(w.as_ptr(), Arc::as_ptr(shared)));
        list.push(Arc::downgrade(shared));
    }

    /// Queues `p` on this domain's vCPUs whose bit in `mask` is set, but not on the caller's, and waits until each one that
    /// runs guest code has applied it. The caller applies what was queued for it meanwhile.
    pub(crate) fn purge_vcpus(&self, mask: u64, p: Purge, caller: Caller<'_>) {
        let mut list: Vec<_> = {
            let list = self.vcpus.lock().unwrap_or_else(|e| e.into_inner());
            list.iter().filter_map(Weak::upgrade).collect()
        };
        list.retain(|v| {
            let bit = 1u64.checked_shl(v.vcpu_id.load(Ordering::Relaxed)).unwrap_or(0);
            mask & bit != 0 && !caller.is(v)
        });
        for v in &list {
            v.push_purge(p);
        }
        wait_for(&list, caller);
    }

    /// Whether its end has begun: its vCPUs do not begin to run any more, and no new reference to its frames is given out.
    pub fn is_dying(&self) -> bool {
        self.life.is_dying()
    }

    /// Begins its end, which [`Domain::destroy`] completes. Does not wait for vCPUs that run guest code.
    pub fn begin_end(&self) {
        self.life.begin_end();
    }

    /// Returns when none of its vCPUs runs guest code any more, nor will again. They may hold the frame table's lock until
    /// then. False if somebody has called it before.
    pub(super) fn stop_for_good(&self) -> bool {
        if !self.life.end() {
            return false;
        }
        let list: Vec<_> = {
            let list = self.vcpus.lock().unwrap_or_else(|e| e.into_inner());
            list.iter().filter_map(Weak::upgrade).collect()
        };
        for v in &list {
            v.request(attention::STOP);
            while v.in_guest() {
                std::thread::yield_now();
            }
        }
        true
    }
}
