// SPDX-License-Identifier: Apache-2.0
//! Event channels (`event_channel.h`): commands, states, layouts. All of them are the same for 32-bit guests.

/// Commands (`EVTCHNOP_*`).
pub mod evtchnop {
    /// Connects a new port to another domain's unbound one.
    pub const BIND_INTERDOMAIN: u32 = 0;
    /// A port for a virtual interrupt.
    pub const BIND_VIRQ: u32 = 1;
    /// A port for a physical interrupt: refused to guests without devices.
    pub const BIND_PIRQ: u32 = 2;
    /// Gives a port back.
    pub const CLOSE: u32 = 3;
    /// Sends an event through a port.
    pub const SEND: u32 = 4;
    /// Tells what a port is bound to.
    pub const STATUS: u32 = 5;
    /// A new port that another domain may connect to.
    pub const ALLOC_UNBOUND: u32 = 6;
    /// A port that a vCPU interrupts itself or another one with.
    pub const BIND_IPI: u32 = 7;
    /// Chooses the vCPU that is told of a port's events.
    pub const BIND_VCPU: u32 = 8;
    /// Clears a port's mask, and delivers what is pending.
    pub const UNMASK: u32 = 9;
    /// Closes all ports; the 2-level ABI is back.
    pub const RESET: u32 = 10;
    /// Registers a vCPU's control block: the FIFO ABI begins.
    pub const INIT_CONTROL: u32 = 11;
    /// Adds a page of event words.
    pub const EXPAND_ARRAY: u32 = 12;
    /// Chooses a port's queue.
    pub const SET_PRIORITY: u32 = 13;
    /// How Xen goes on with a long reset; in no public header. Guests may make it, too.
    pub const RESET_CONT: u32 = 14;
}

/// `evtchn_status.status` (`EVTCHNSTAT_*`).
pub mod evtchnstat {
    /// Not in use.
    pub const CLOSED: u32 = 0;
    /// Waits for another domain to connect.
    pub const UNBOUND: u32 = 1;
    /// Connected to another port.
    pub const INTERDOMAIN: u32 = 2;
    /// Bound to a virtual interrupt.
    pub const VIRQ: u32 = 4;
    /// Bound to a vCPU.
    pub const IPI: u32 = 5;
}

/// Virtual interrupts (`VIRQ_*` of `xen.h`).
pub mod virq {
    /// A vCPU's timer.
    pub const TIMER: u32 = 0;
    /// Asks for a report of the guest's state.
    pub const DEBUG: u32 = 1;
    /// Samples of xenoprof.
    pub const XENOPROF: u32 = 7;
    /// Performance counters.
    pub const XENPMU: u32 = 13;
    /// How many there are (`NR_VIRQS`).
    pub const COUNT: u32 = 24;

    /// Each vCPU has its own; any other is one for the domain.
    pub const fn is_per_vcpu(virq: u32) -> bool {
        matches!(virq, TIMER | DEBUG | XENOPROF | XENPMU)
    }
}

/// Physical interrupts that there could be: a number beyond them is EINVAL, not EPERM.
pub const NR_PIRQS: u32 = 272;

/// `struct evtchn_op` of the interface before 3.0.2: the command, then its argument.
pub mod compat_op {
    /// Its size in bytes.
    pub const SIZE: usize = 28;
    /// Where the argument is.
    pub const ARGUMENT: u64 = 4;
}

/// `struct evtchn_alloc_unbound`: offsets of its fields.
pub mod alloc_unbound {
    /// Its size in bytes.
    pub const SIZE: usize = 8;
    /// `dom`, a domid.
    pub const DOM: usize = 0;
    /// `remote_dom`: the other end's domid.
    pub const REMOTE_DOM: usize = 2;
    /// `port`.
    pub const PORT: usize = 4;
}

/// `struct evtchn_bind_interdomain`: offsets of its fields.
pub mod bind_interdomain {
    /// Its size in bytes.
    pub const SIZE: usize = 12;
    /// `remote_dom`: the other end's domid.
    pub const REMOTE_DOM: usize = 0;
    /// `remote_port`: the other end's.
    pub const REMOTE_PORT: usize = 4;
    /// `local_port`, an answer.
    pub const LOCAL_PORT: usize = 8;
}

/// `struct evtchn_bind_virq`: offsets of its fields.
pub mod bind_virq {
    /// Its size in bytes.
    pub const SIZE: usize = 12;
    /// `virq`: its number.
    pub const VIRQ: usize = 0;
    /// `vcpu`: its number.
    pub const VCPU: usize = 4;
    /// `port`.
    pub const PORT: usize = 8;
}

/// `struct evtchn_bind_pirq`: offsets of its fields.
pub mod bind_pirq {
    /// Its size in bytes.
    pub const SIZE: usize = 12;
    /// `pirq`: its number.
    pub const PIRQ: usize = 0;
}

/// `struct evtchn_bind_ipi`: offsets of its fields.
pub mod bind_ipi {
    /// Its size in bytes.
    pub const SIZE: usize = 8;
    /// `vcpu`: its number.
    pub const VCPU: usize = 0;
    /// `port`.
    pub const PORT: usize = 4;
}

/// `evtchn_close`, `evtchn_send` and `evtchn_unmask`.
pub mod one_port {
    /// Its size in bytes.
    pub const SIZE: usize = 4;
    /// `port`.
    pub const PORT: usize = 0;
}

/// `struct evtchn_status`: offsets of its fields.
pub mod status {
    /// Its size in bytes.
    pub const SIZE: usize = 24;
    /// `dom`, a domid.
    pub const DOM: usize = 0;
    /// `port`.
    pub const PORT: usize = 4;
    /// `status`, of [`evtchnstat`](super::evtchnstat).
    pub const STATUS: usize = 8;
    /// `vcpu`: its number.
    pub const VCPU: usize = 12;
    /// `u.virq`, `u.interdomain.dom`.
    pub const U: usize = 16;
    /// `u.interdomain.port`.
    pub const U_INTERDOMAIN_PORT: usize = 20;
}

/// `struct evtchn_bind_vcpu`: offsets of its fields.
pub mod bind_vcpu {
    /// Its size in bytes.
    pub const SIZE: usize = 8;
    /// `port`.
    pub const PORT: usize = 0;
    /// `vcpu`: its number.
    pub const VCPU: usize = 4;
}

/// `struct evtchn_reset`: offsets of its fields.
pub mod reset {
    /// Its size in bytes.
    pub const SIZE: usize = 2;
    /// `dom`, a domid.
    pub const DOM: usize = 0;
}

/// `struct evtchn_init_control`: offsets of its fields.
pub mod init_control {
    /// Its size in bytes.
    pub const SIZE: usize = 24;
    /// `control_gfn`: the frame of the control block.
    pub const CONTROL_GFN: usize = 0;
    /// `offset` in that frame.
    pub const OFFSET: usize = 8;
    /// `vcpu`: its number.
    pub const VCPU: usize = 12;
    /// `link_bits`, an answer.
    pub const LINK_BITS: usize = 16;
}

/// `struct evtchn_expand_array`: offsets of its fields.
pub mod expand_array {
    /// Its size in bytes.
    pub const SIZE: usize = 8;
    /// `array_gfn`: the frame of the new page.
    pub const ARRAY_GFN: usize = 0;
}

/// `struct evtchn_set_priority`: offsets of its fields.
pub mod set_priority {
    /// Its size in bytes.
    pub const SIZE: usize = 8;
    /// `port`.
    pub const PORT: usize = 0;
    /// `priority`: 0 is served first.
    pub const PRIORITY: usize = 4;
}

/// The FIFO ABI (`EVTCHN_FIFO_*`, `struct evtchn_fifo_control_block`).
pub mod fifo {
    /// Of a port for which none was chosen.
    pub const PRIORITY_DEFAULT: u32 = 7;
    /// Priorities, each with a queue; 0 is served first.
    pub const MAX_QUEUES: u32 = 16;
    /// Ports that there can be.
    pub const NR_CHANNELS: u32 = 1 << 17;
    /// Bits of a link: the number of the next port in a queue.
    pub const LINK_BITS: u32 = 17;
    /// Numbers of bits in a word: an event waits.
    pub const PENDING: u32 = 31;
    /// No event is delivered.
    pub const MASKED: u32 = 30;
    /// The port is in a queue.
    pub const LINKED: u32 = 29;
    /// The guest is looking at the word.
    pub const BUSY: u32 = 28;

    /// `struct evtchn_fifo_control_block`: offsets of its fields.
    pub mod control_block {
        /// Its size in bytes.
        pub const SIZE: u64 = 72;
        /// `ready`: a bit for each queue that has something.
        pub const READY: u64 = 0;
        /// `head`: the first port of each queue, `uint32_t` each.
        pub const HEAD: u64 = 8;
    }
}

/// `struct shared_info`: where the 2-level ABI has its bits.
pub mod shared_info {
    use crate::abi::structs::long;

    /// Bits of a word, by the power of two.
    pub const fn word_shift(is_32bit: bool) -> u32 {
        if is_32bit {
            5
        } else {
            6
        }
    }
    /// Ports that there can be: a word of them for each bit of a word.
    pub const fn ports(is_32bit: bool) -> u32 {
        1 << (2 * word_shift(is_32bit))
    }
    /// `evtchn_pending`: behind 32 `vcpu_info`.
    pub const EVTCHN_PENDING: u64 = 2048;
    /// `evtchn_mask`: behind the pending bits of all ports.
    pub const fn evtchn_mask(is_32bit: bool) -> u64 {
        EVTCHN_PENDING + (ports(is_32bit) / 8) as u64
    }
    /// `vcpu_info.evtchn_pending_sel`, an `unsigned long`.
    pub const fn evtchn_pending_sel(is_32bit: bool) -> u64 {
        long(is_32bit) as u64
    }
}
