// SPDX-License-Identifier: Apache-2.0
//! Event channels (`event_channel.h`): commands, states, layouts. All of them are the same for 32-bit guests.

/// Commands (`EVTCHNOP_*`).
pub mod evtchnop {
    pub const BIND_INTERDOMAIN: u32 = 0;
    pub const BIND_VIRQ: u32 = 1;
    pub const BIND_PIRQ: u32 = 2;
    pub const CLOSE: u32 = 3;
    pub const SEND: u32 = 4;
    pub const STATUS: u32 = 5;
    pub const ALLOC_UNBOUND: u32 = 6;
    pub const BIND_IPI: u32 = 7;
    pub const BIND_VCPU: u32 = 8;
    pub const UNMASK: u32 = 9;
    pub const RESET: u32 = 10;
    pub const INIT_CONTROL: u32 = 11;
    pub const EXPAND_ARRAY: u32 = 12;
    pub const SET_PRIORITY: u32 = 13;
    /// How Xen goes on with a long reset; in no public header. Guests may make it, too.
    pub const RESET_CONT: u32 = 14;
}

/// `evtchn_status.status` (`EVTCHNSTAT_*`).
pub mod evtchnstat {
    pub const CLOSED: u32 = 0;
    pub const UNBOUND: u32 = 1;
    pub const INTERDOMAIN: u32 = 2;
    pub const VIRQ: u32 = 4;
    pub const IPI: u32 = 5;
}

/// Virtual interrupts (`VIRQ_*` of `xen.h`).
pub mod virq {
    pub const TIMER: u32 = 0;
    pub const DEBUG: u32 = 1;
    pub const XENOPROF: u32 = 7;
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
    pub const SIZE: usize = 28;
    pub const ARGUMENT: u64 = 4;
}

pub mod alloc_unbound {
    pub const SIZE: usize = 8;
    pub const DOM: usize = 0;
    pub const REMOTE_DOM: usize = 2;
    pub const PORT: usize = 4;
}

pub mod bind_interdomain {
    pub const SIZE: usize = 12;
    pub const REMOTE_DOM: usize = 0;
    pub const REMOTE_PORT: usize = 4;
    pub const LOCAL_PORT: usize = 8;
}

pub mod bind_virq {
    pub const SIZE: usize = 12;
    pub const VIRQ: usize = 0;
    pub const VCPU: usize = 4;
    pub const PORT: usize = 8;
}

pub mod bind_pirq {
    pub const SIZE: usize = 12;
    pub const PIRQ: usize = 0;
}

pub mod bind_ipi {
    pub const SIZE: usize = 8;
    pub const VCPU: usize = 0;
    pub const PORT: usize = 4;
}

/// `evtchn_close`, `evtchn_send` and `evtchn_unmask`.
pub mod one_port {
    pub const SIZE: usize = 4;
    pub const PORT: usize = 0;
}

pub mod status {
    pub const SIZE: usize = 24;
    pub const DOM: usize = 0;
    pub const PORT: usize = 4;
    pub const STATUS: usize = 8;
    pub const VCPU: usize = 12;
    /// `u.virq`, `u.interdomain.dom`.
    pub const U: usize = 16;
    pub const U_INTERDOMAIN_PORT: usize = 20;
}

pub mod bind_vcpu {
    pub const SIZE: usize = 8;
    pub const PORT: usize = 0;
    pub const VCPU: usize = 4;
}

pub mod reset {
    pub const SIZE: usize = 2;
    pub const DOM: usize = 0;
}

pub mod init_control {
    pub const SIZE: usize = 24;
    pub const CONTROL_GFN: usize = 0;
    pub const OFFSET: usize = 8;
    pub const VCPU: usize = 12;
    pub const LINK_BITS: usize = 16;
}

pub mod expand_array {
    pub const SIZE: usize = 8;
    pub const ARRAY_GFN: usize = 0;
}

pub mod set_priority {
    pub const SIZE: usize = 8;
    pub const PORT: usize = 0;
    pub const PRIORITY: usize = 4;
}

/// The FIFO ABI (`EVTCHN_FIFO_*`, `struct evtchn_fifo_control_block`).
pub mod fifo {
    pub const PRIORITY_DEFAULT: u32 = 7;
    pub const MAX_QUEUES: u32 = 16;
    pub const NR_CHANNELS: u32 = 1 << 17;
    pub const LINK_BITS: u32 = 17;
    /// Numbers of bits in a word.
    pub const PENDING: u32 = 31;
    pub const MASKED: u32 = 30;
    pub const LINKED: u32 = 29;
    pub const BUSY: u32 = 28;

    pub mod control_block {
        pub const SIZE: u64 = 72;
        pub const READY: u64 = 0;
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
    pub const fn evtchn_mask(is_32bit: bool) -> u64 {
        EVTCHN_PENDING + (ports(is_32bit) / 8) as u64
    }
    /// `vcpu_info.evtchn_pending_sel`, an `unsigned long`.
    pub const fn evtchn_pending_sel(is_32bit: bool) -> u64 {
        long(is_32bit) as u64
    }
}
