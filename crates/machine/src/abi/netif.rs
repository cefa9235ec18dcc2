// SPDX-License-Identifier: Apache-2.0
//! `io/netif.h`: the two rings of a network interface.

/// Slots of one frame that every back end takes (`XEN_NETIF_NR_SLOTS_MIN`).
pub const NR_SLOTS_MIN: usize = 18;

/// The checksum of TCP or UDP is to be filled in (`NETTXF_csum_blank`).
pub const TXF_CSUM_BLANK: u16 = 1;
/// The data are known to be good (`NETTXF_data_validated`).
pub const TXF_DATA_VALIDATED: u16 = 2;
/// The frame goes on in the next request (`NETTXF_more_data`).
pub const TXF_MORE_DATA: u16 = 4;
/// A slot of extra information follows (`NETTXF_extra_info`).
pub const TXF_EXTRA_INFO: u16 = 8;

/// The data are known to be good (`NETRXF_data_validated`).
pub const RXF_DATA_VALIDATED: u16 = 1;
/// The checksum of TCP or UDP is not filled in (`NETRXF_csum_blank`).
pub const RXF_CSUM_BLANK: u16 = 2;
/// The frame goes on in the next response (`NETRXF_more_data`).
pub const RXF_MORE_DATA: u16 = 4;
/// A slot of extra information follows (`NETRXF_extra_info`).
pub const RXF_EXTRA_INFO: u16 = 8;

/// How a large frame is to be cut (`XEN_NETIF_EXTRA_TYPE_GSO`).
pub const EXTRA_TYPE_GSO: u8 = 1;
/// A multicast address to be received (`XEN_NETIF_EXTRA_TYPE_MCAST_ADD`).
pub const EXTRA_TYPE_MCAST_ADD: u8 = 2;
/// One to be received no more (`XEN_NETIF_EXTRA_TYPE_MCAST_DEL`).
pub const EXTRA_TYPE_MCAST_DEL: u8 = 3;
/// The hash of a frame (`XEN_NETIF_EXTRA_TYPE_HASH`).
pub const EXTRA_TYPE_HASH: u8 = 4;
/// One more slot of extra information follows (`XEN_NETIF_EXTRA_FLAG_MORE`).
pub const EXTRA_FLAG_MORE: u8 = 1;

/// TCP segments in IPv4 packets (`XEN_NETIF_GSO_TYPE_TCPV4`).
pub const GSO_TYPE_TCPV4: u8 = 1;
/// TCP segments in IPv6 packets (`XEN_NETIF_GSO_TYPE_TCPV6`).
pub const GSO_TYPE_TCPV6: u8 = 2;

/// Sent (`XEN_NETIF_RSP_OKAY`).
pub const RSP_OKAY: i16 = 0;
/// Not sent, or not received (`XEN_NETIF_RSP_ERROR`).
pub const RSP_ERROR: i16 = -1;
/// Answers a slot that holds extra information.
pub const RSP_NULL: i16 = 1;

/// `struct netif_tx_request`, the larger of request and response.
pub mod tx_request {
    /// `sizeof`.
    pub const SIZE: usize = 12;
    /// `grant_ref_t` of the page.
    pub const GREF: usize = 0;
    /// `uint16_t`: where the data begin in the page, in bytes.
    pub const OFFSET: usize = 4;
    /// `uint16_t`, of `TXF_`.
    pub const FLAGS: usize = 6;
    /// `uint16_t`, repeated in the response.
    pub const ID: usize = 8;
    /// Of the whole frame in its first request, of the piece in the others.
    pub const LENGTH: usize = 10;
}

/// `struct netif_tx_response`.
pub mod tx_response {
    /// `sizeof`.
    pub const SIZE: usize = 4;
    /// `uint16_t` of the request.
    pub const ID: usize = 0;
    /// `int16_t`, of `RSP_`.
    pub const STATUS: usize = 2;
}

/// `struct netif_rx_request`.
pub mod rx_request {
    /// `sizeof`.
    pub const SIZE: usize = 8;
    /// `uint16_t`, repeated in the response.
    pub const ID: usize = 0;
    /// `grant_ref_t` of a page that may be written.
    pub const GREF: usize = 4;
}

/// `struct netif_rx_response`.
pub mod rx_response {
    /// `sizeof`.
    pub const SIZE: usize = 8;
    /// `uint16_t` of the request.
    pub const ID: usize = 0;
    /// `uint16_t`: where the data begin in the page, in bytes.
    pub const OFFSET: usize = 2;
    /// `uint16_t`, of `RXF_`.
    pub const FLAGS: usize = 4;
    /// Bytes, or a negative error.
    pub const STATUS: usize = 6;
}

/// `struct netif_extra_info`.
pub mod extra_info {
    /// `sizeof`: it takes the place of a request or response.
    pub const SIZE: usize = 8;
    /// `uint8_t`, of `EXTRA_TYPE_`.
    pub const TYPE: usize = 0;
    /// `uint8_t`, of `EXTRA_FLAG_`.
    pub const FLAGS: usize = 1;
    /// `u.mcast.addr`: 6 bytes.
    pub const MCAST_ADDR: usize = 2;
    /// `u.gso.size`, `uint16_t`: bytes of a segment's payload.
    pub const GSO_SIZE: usize = 2;
    /// `u.gso.type`, `uint8_t`, of `GSO_TYPE_`.
    pub const GSO_TYPE: usize = 4;
}
