// SPDX-License-Identifier: Apache-2.0
//! `io/netif.h`: the two rings of a network interface.

pub const NR_SLOTS_MIN: usize = 18;

pub const TXF_CSUM_BLANK: u16 = 1;
pub const TXF_DATA_VALIDATED: u16 = 2;
pub const TXF_MORE_DATA: u16 = 4;
pub const TXF_EXTRA_INFO: u16 = 8;

pub const RXF_DATA_VALIDATED: u16 = 1;
pub const RXF_CSUM_BLANK: u16 = 2;
pub const RXF_MORE_DATA: u16 = 4;
pub const RXF_EXTRA_INFO: u16 = 8;

pub const EXTRA_TYPE_GSO: u8 = 1;
pub const EXTRA_TYPE_MCAST_ADD: u8 = 2;
pub const EXTRA_TYPE_MCAST_DEL: u8 = 3;
pub const EXTRA_TYPE_HASH: u8 = 4;
pub const EXTRA_FLAG_MORE: u8 = 1;

pub const GSO_TYPE_TCPV4: u8 = 1;
pub const GSO_TYPE_TCPV6: u8 = 2;

pub const RSP_OKAY: i16 = 0;
pub const RSP_ERROR: i16 = -1;
/// Answers a slot that holds extra information.
pub const RSP_NULL: i16 = 1;

/// `struct netif_tx_request`, the larger of request and response.
pub mod tx_request {
    pub const SIZE: usize = 12;
    pub const GREF: usize = 0;
    pub const OFFSET: usize = 4;
    pub const FLAGS: usize = 6;
    pub const ID: usize = 8;
    /// Of the whole frame in its first request, of the piece in the others.
    pub const LENGTH: usize = 10;
}

/// `struct netif_tx_response`.
pub mod tx_response {
    pub const SIZE: usize = 4;
    pub const ID: usize = 0;
    pub const STATUS: usize = 2;
}

/// `struct netif_rx_request`.
pub mod rx_request {
    pub const SIZE: usize = 8;
    pub const ID: usize = 0;
    pub const GREF: usize = 4;
}

/// `struct netif_rx_response`.
pub mod rx_response {
    pub const SIZE: usize = 8;
    pub const ID: usize = 0;
    pub const OFFSET: usize = 2;
    pub const FLAGS: usize = 4;
    /// Bytes, or a negative error.
    pub const STATUS: usize = 6;
}

/// `struct netif_extra_info`.
pub mod extra_info {
    pub const SIZE: usize = 8;
    pub const TYPE: usize = 0;
    pub const FLAGS: usize = 1;
    pub const GSO_SIZE: usize = 2;
    pub const GSO_TYPE: usize = 4;
}
