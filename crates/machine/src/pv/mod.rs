// SPDX-License-Identifier: Apache-2.0
//! PV trap mechanics, the same for every engine: bounce frames, iret, syscall, kernel/user switch, page-table hypercalls.
//!
//! Layouts and rules: `arch-x86/xen.h`, `arch-x86/xen-x86_64.h` and `vcpu.h` of Xen's public headers.

mod argument;
mod bounce;
mod debugreg;
pub(crate) mod event_channel;
mod exit;
mod gate;
pub(crate) mod gnttab;
mod guest_copy;
pub(crate) use guest_copy::Efault;
mod hypercall;
mod io;
mod iret;
pub(crate) mod mmu_ops;
pub(crate) mod mmuext;
mod multicall;
mod platform;
mod pv32;
mod pv_cpu;
mod run;
mod sched;
mod trap;
mod vcpu_op;
mod within;

pub(crate) use bounce::BounceError;
pub use exit::{Exit, SeenTrap};
pub use platform::platform;

use crate::abi::hypercall::vmasst;
use crate::abi::selector;
use crate::abi::structs::{trap_info, vcpu_info};
use crate::abi::x86::{cr4, seg, xcr0};
use crate::cpu::fault::Fault;
use crate::cpu::Cpu;
use crate::evtchn::DomainEvents;
use crate::frames::Domain;
use crate::grants::DomainGrants;
use crate::mem::Mfn;
use crate::shared::{attention, VcpuShared};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// One entry of the guest's trap table (`struct trap_info`, without the vector).
#[derive(Debug, Clone, Copy, Default)]
pub struct TrapGate {
    /// Selector of the handler's code.
    pub cs: u16,
    /// The handler.
    pub address: u64,
    /// TI_GET_DPL in bits 0..1, TI_GET_IF in bit 2.
    pub flags: u8,
}

impl TrapGate {
    /// The lowest privilege whose `int n` may go here: 0 to 3.
    pub fn dpl(self) -> u8 {
        self.flags & trap_info::DPL
    }
    /// Whether the handler is entered with events masked.
    pub fn masks_events(self) -> bool {
        self.flags & trap_info::IF != 0
    }
}

/// Where the guest kernel is entered. The selector counts in 32-bit guests only: the others have one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub cs: u16,
    pub address: u64,
}

impl TrapGate {
    fn entry(self) -> Entry {
        Entry {
            cs: self.cs,
            address: self.address,
        }
    }
}

impl Callback {
    fn entry(self) -> Entry {
        Entry {
            cs: self.cs,
            address: self.address,
        }
    }
}

/// A guest entry point that the hypervisor calls (`callback.h`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Callback {
    /// Selector of its code, of 32-bit guests.
    pub cs: u16,
    /// Where it begins.
    pub address: u64,
    /// Whether it is entered with events masked (CALLBACKF_mask_events).
    pub mask_events: bool,
}

/// Which callback; the order is that of `Vcpu::callbacks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackKind {
    /// CALLBACKTYPE_event
    Event,
    /// CALLBACKTYPE_failsafe
    Failsafe,
    /// CALLBACKTYPE_syscall
    Syscall,
    /// CALLBACKTYPE_syscall32
    Syscall32,
    /// CALLBACKTYPE_sysenter
    Sysenter,
    /// CALLBACKTYPE_nmi
    Nmi,
}

/// Upcalls in a row that a return from the one before leads to at once, with nothing executed in between.
///
/// A handler that sends its own vCPU an event each time would let what it interrupted never go on, and that may be what
/// ends the sending: Linux with PREEMPT_RT hangs so when RCU waits for code that has preemption disabled.
#[derive(Debug, Default)]
struct Returns {
    /// An iret has been carried out, and no instruction since.
    fresh: bool,
    in_a_row: u32,
}

/// One virtual CPU of a PV domain: the engine's state and what the guest registered with the hypervisor.
pub struct Vcpu {
    /// The engine, with the registers that guest code has.
    pub cpu: Box<Cpu>,
    /// The vCPU's number in its domain.
    pub id: u32,
    traps: Box<[TrapGate; 256]>,
    callbacks: [Callback; 6],
    kernel_ss: u16,
    kernel_sp: u64,
    /// Machine address of this vCPU's `struct vcpu_info`.
    vcpu_info: Option<u64>,
    base_kernel: Option<Mfn>,
    base_user: Option<Mfn>,
    /// Whose code runs in a 64-bit guest, whose kernel and applications are both at CPL 3.
    guest_kernel: bool,
    /// GS base of the mode that is not running: `swapgs` exchanges it with `cpu.gs_base`.
    gs_base_other: u64,
    /// What keeps a guest going that is only ever interrupted (see `Returns`).
    returns: Returns,
    /// Virtual IOPL (PHYSDEVOP_set_iopl).
    iopl: u8,
    /// Where the guest has its LDT.
    ldt_base: u64,
    /// CR2 as the guest last saw it.
    cr2: u64,
    /// An exception to deliver before the next instruction.
    injected: Option<Fault>,
    /// ds, es, fs or gs were set from outside: whether they can be loaded shows when the guest is entered.
    segments_are_new: bool,
    fast_hypercalls: bool,
    /// Which exceptions end `run` once they are delivered: a bit per vector.
    watched: [u64; 4],
    /// One of them was delivered, and `run` has not ended yet.
    seen: Option<SeenTrap>,
    /// The guest's own I/O permission bitmap: address and number of ports.
    io_bitmap: (u64, u32),
    /// An NMI waits for delivery; and none is delivered until the handler of the last one has done its iret.
    nmi_pending: bool,
    /// In a part of a page-table hypercall: when it is over (`Domain::work_done`).
    round_end: Option<u64>,
    nmi_masked: bool,
    /// A timer was set or stopped: what there is to wait for is another.
    timers_changed: bool,
    instructions: u64,
    /// Why the run ends, while the engine does not know yet.
    ends: Option<Exit>,
    /// What it knows of its idle times.
    idle: sched::Idle,
    /// The grants of the domain, once it has some.
    grants: Option<DomainGrants>,
    /// Its ports, as soon as it has some.
    events: Option<Arc<DomainEvents>>,
    /// How often each hypercall was answered without an exit.
    pub fast_counts: [u64; 64],
}

impl Vcpu {
    /// A vCPU of the domain, with all registers zero and nothing registered.
    pub fn new(domain: &Arc<Domain>, id: u32) -> Vcpu {
        let shared = Arc::new(VcpuShared::default());
        Vcpu::with_cpu(Cpu::new(domain.clone(), shared, platform(domain)), id)
    }

    /// A vCPU around an engine that is already set up, with its current base as the kernel's (tests, benchmarks).
    pub fn with_cpu(mut cpu: Box<Cpu>, id: u32) -> Vcpu {
        cpu.set_cr4(cr4::INITIAL);
        // It always can be.
        cpu.set_xcr0(xcr0::INITIAL);
        let kernel_ss = if cpu.domain.is_32bit {
            selector::FLAT_COMPAT_RING1_SS
        } else {
            selector::FLAT_KERNEL_SS
        };
        cpu.shared.vcpu_id.store(id, Ordering::Relaxed);
        cpu.model.random = cpu.domain.random_stream(id);
        Vcpu {
            base_kernel: cpu.base(),
            cpu,
            id,
            traps: Box::new([TrapGate::default(); 256]),
            callbacks: [Callback::default(); 6],
            kernel_ss,
            kernel_sp: 0,
            vcpu_info: None,
            base_user: None,
            guest_kernel: true,
            gs_base_other: 0,
            returns: Returns::default(),
            iopl: 0,
            ldt_base: 0,
            cr2: 0,
            injected: None,
            segments_are_new: false,
            fast_hypercalls: true,
            watched: [0; 4],
            seen: None,
            io_bitmap: (0, 0),
            nmi_pending: false,
            round_end: None,
            nmi_masked: false,
            timers_changed: false,
            instructions: 0,
            ends: None,
            idle: sched::Idle::default(),
            grants: None,
            events: None,
            fast_counts: [0; 64],
        }
    }

    /// What other threads reach of it.
    pub fn shared(&self) -> &Arc<VcpuShared> {
        &self.cpu.shared
    }

    /// The domain that it is one of.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.cpu.domain
    }

    /// Makes a running vCPU look at its pending events. Any thread.
    pub fn notify(shared: &VcpuShared) {
        shared.request(attention::EVENT);
    }

    /// Makes `run` return `Exit::Interrupted`. Any thread.
    pub fn kick(shared: &VcpuShared) {
        shared.request(attention::STOP);
    }

    // --- what the guest registered

    /// Sets the handler of an exception or software interrupt (set_trap_table).
    pub fn set_trap(&mut self, vector: u8, gate: TrapGate) {
        self.traps[usize::from(vector)] = gate;
    }

    /// The handler that the guest has set.
    pub fn trap(&self, vector: u8) -> TrapGate {
        self.traps[usize::from(vector)]
    }

    /// Sets an entry point (callback_op, set_callbacks).
    pub fn set_callback(&mut self, kind: CallbackKind, cb: Callback) {
        self.callbacks[kind as usize] = cb;
    }

    /// The entry point that the guest has set.
    pub fn callback(&self, kind: CallbackKind) -> Callback {
        self.callbacks[kind as usize]
    }

    /// Sets where the kernel's stack begins when it is entered from an application (stack_switch).
    pub fn set_kernel_stack(&mut self, ss: u16, sp: u64) {
        self.kernel_ss = if self.is_32bit() && selector::rpl(ss) != 0 {
            ss
        } else {
            ss | self.kernel_rpl()
        };
        self.kernel_sp = sp;
    }

    /// Where the kernel's stack is: selector and pointer.
    pub fn kernel_stack(&self) -> (u16, u64) {
        (self.kernel_ss, self.kernel_sp)
    }

    /// `maddr` must lie in memory with room for a `struct vcpu_info` (64 bytes) in its frame.
    pub fn set_vcpu_info(&mut self, maddr: u64) {
        self.vcpu_info = Some(maddr);
    }

    /// Whether the guest kernel runs, not one of its applications.
    pub fn guest_kernel(&self) -> bool {
        if self.is_32bit() {
            self.cpu.cpl < 3
        } else {
            self.guest_kernel
        }
    }

    /// Whether it is of a PAE guest.
    pub fn is_32bit(&self) -> bool {
        self.cpu.domain.is_32bit
    }

    /// The ring of guest kernels.
    fn kernel_rpl(&self) -> u16 {
        if self.is_32bit() {
            1
        } else {
            3
        }
    }

    /// Sets a selector of a vCPU that does not run; CS says the privilege of a 32-bit guest.
    pub fn set_selector(&mut self, index: usize, selector: u16) {
        if let Some(s) = self.cpu.seg.sel.get_mut(index) {
            *s = selector;
        }
        match index {
            seg::CS => self.cpu.set_cpl(selector::rpl(selector).max(1)),
            seg::SS => {}
            _ => self.segments_are_new = true,
        }
    }

    /// The virtual IOPL.
    pub fn iopl(&self) -> u8 {
        self.iopl
    }

    /// Sets the virtual IOPL, 0 to 3 (PHYSDEVOP_set_iopl).
    pub fn set_iopl(&mut self, iopl: u8) {
        self.iopl = iopl & 3;
    }

    /// Whether the guest has asked for a behaviour with vm_assist.
    fn assists(&self, number: u32) -> bool {
        self.cpu.domain.vm_assist() >> number & 1 != 0
    }

    /// Before guest code runs: what the engine does as the guest has asked.
    pub(super) fn take_assists(&mut self) {
        self.cpu.access.writable_tables = self.assists(vmasst::WRITABLE_PAGETABLES);
    }

    /// Whether frequent hypercalls are answered here, without an exit.
    pub fn set_fast_hypercalls(&mut self, enabled: bool) {
        self.fast_hypercalls = enabled;
    }

    /// Makes `run` end with `Exit::Trap` after each delivery of one of these exceptions to the guest kernel.
    pub fn watch_traps(&mut self, vectors: &[u8]) {
        self.watched = [0; 4];
        for &v in vectors {
            self.watched[usize::from(v >> 6)] |= 1 << (v & 63);
        }
        self.seen = None;
    }

    /// The grants that this vCPU's grant_table_op is about.
    pub fn set_grants(&mut self, grants: DomainGrants) {
        self.grants = Some(grants);
    }

    /// The ports that this vCPU's event_channel_op is about; it is the next one of their domain.
    pub fn set_events(&mut self, events: Arc<DomainEvents>) {
        events.add_vcpu(&self.cpu.shared);
        self.events = Some(events);
    }

    /// Sets CR0.TS as the guest has it (fpu_taskswitch).
    pub fn set_ts(&mut self, ts: bool) {
        self.cpu.fpu.ts = ts;
    }

    /// How many it has executed, since the beginning.
    pub fn instructions(&self) -> u64 {
        self.instructions
    }

    /// CR2: the address of the last page fault that it was told.
    pub fn cr2(&self) -> u64 {
        self.cr2
    }

    /// Queues an exception for the next `run`.
    pub fn inject(&mut self, fault: Fault) {
        self.injected = Some(fault);
    }

    // --- kernel/user

    /// Root of the kernel's page tables, or of the applications'.
    pub fn base(&self, kernel: bool) -> Option<Mfn> {
        if kernel {
            self.base_kernel
        } else {
            self.base_user
        }
    }

    /// Records a base pointer whose type reference the caller holds, and loads it if it is the running one.
    pub fn load_base(&mut self, kernel: bool, mfn: Option<Mfn>) {
        if kernel {
            self.base_kernel = mfn;
        } else {
            self.base_user = mfn;
        }
        if kernel == self.guest_kernel || self.is_32bit() {
            if let Some(mfn) = mfn {
                self.cpu.set_base(mfn, true);
            }
        }
    }

    /// Switches between the guest kernel's and its applications' page tables and GS base, as `swapgs` and a CR3 load
    /// would. False when the other mode has no page tables.
    pub fn toggle_guest_mode(&mut self) -> bool {
        let Some(base) = self.base(!self.guest_kernel) else {
            return false;
        };
        self.guest_kernel = !self.guest_kernel;
        self.cpu.access.table_stores = self.guest_kernel;
        std::mem::swap(&mut self.cpu.bases.gs, &mut self.gs_base_other);
        // Xen's entry is in the tables of the kernel; in those of applications only if they are the same, and the
        // guest has not asked for more (VMASST_TYPE_m2p_strict).
        let shared = self.base_user == self.base_kernel;
        let strict = self.assists(vmasst::M2P_STRICT);
        self.cpu.access.window_hidden = !self.guest_kernel && (strict || !shared);
        self.cpu.set_base(base, false);
        if strict && shared {
            self.cpu.flush_tlb_view();
        }
        true
    }

    /// Sets the mode of a vCPU that is being set up (`VGCF_in_kernel` of vcpu_guest_context).
    pub fn set_guest_kernel(&mut self, kernel: bool) -> bool {
        self.is_32bit() || self.guest_kernel == kernel || self.toggle_guest_mode()
    }

    /// Base of GS that the kernel has, or the applications.
    pub fn gs_base(&self, kernel: bool) -> u64 {
        if kernel == self.guest_kernel {
            self.cpu.bases.gs
        } else {
            self.gs_base_other
        }
    }

    /// Sets the base of GS that the kernel has, or the applications.
    pub fn set_gs_base(&mut self, kernel: bool, base: u64) {
        if kernel == self.guest_kernel {
            self.cpu.bases.gs = base;
        } else {
            self.gs_base_other = base;
        }
    }

    /// The guest privilege that DPLs and IOPL are compared with.
    fn guest_cpl(&self) -> u8 {
        match self.guest_kernel() {
            true if self.architectural_iopl() => 0,
            true => 1,
            false => 3,
        }
    }

    fn architectural_iopl(&self) -> bool {
        self.assists(vmasst::ARCHITECTURAL_IOPL)
    }

    /// Whether nothing was registered: as Xen sees it, a null selector in 32-bit guests and address 0 in others.
    fn is_null(&self, to: Entry) -> bool {
        if self.is_32bit() {
            selector::is_null(to.cs)
        } else {
            to.address == 0
        }
    }

    // --- vcpu_info

    fn upcall_mask(&self) -> bool {
        self.vcpu_info_byte(vcpu_info::EVTCHN_UPCALL_MASK) != 0
    }

    fn set_upcall_mask(&mut self, masked: bool) {
        if let Some(at) = self.vcpu_info {
            self.cpu
                .domain
                .machine
                .mem
                .write(at + vcpu_info::EVTCHN_UPCALL_MASK, &[u8::from(masked)]);
        }
    }

    /// An event is pending, whether upcalls are enabled or not.
    fn has_upcall(&self) -> bool {
        self.vcpu_info_byte(vcpu_info::EVTCHN_UPCALL_PENDING) != 0
    }

    fn vcpu_info_byte(&self, offset: u64) -> u8 {
        let mut b = [0];
        if let Some(at) = self.vcpu_info {
            self.cpu.domain.machine.mem.read(at + offset, &mut b);
        }
        b[0]
    }

    fn event_deliverable(&self) -> bool {
        self.has_upcall() && !self.upcall_mask()
    }

    /// Sets CR2, also where a PV guest reads it: `vcpu_info.arch.cr2`.
    pub fn set_cr2(&mut self, va: u64) {
        self.cr2 = va;
        if let Some(at) = self.vcpu_info {
            let mem = &self.cpu.domain.machine.mem;
            let at = at + vcpu_info::arch_cr2(self.is_32bit());
            match self.is_32bit() {
                true => mem.write(at, &(va as u32).to_le_bytes()),
                false => mem.write(at, &va.to_le_bytes()),
            };
        }
    }
}
