# SPDX-License-Identifier: Apache-2.0
"""io/netif.h: the rings of a network interface."""

from enum import IntEnum, IntFlag

from domzero.abi.layout import Wire, s16, u8, u16, u32, wire

XEN_NETIF_NR_SLOTS_MIN = 18
XEN_NETIF_MAX_TX_SIZE = 0xFFFF
XEN_NETIF_EXTRA_FLAG_MORE = 1


class NetTxFlags(IntFlag):
    """`NETTXF_*`."""

    NETTXF_csum_blank = 1
    NETTXF_data_validated = 2
    NETTXF_more_data = 4
    NETTXF_extra_info = 8


class NetRxFlags(IntFlag):
    """`NETRXF_*`."""

    NETRXF_data_validated = 1
    NETRXF_csum_blank = 2
    NETRXF_more_data = 4
    NETRXF_extra_info = 8


class NetifExtraType(IntEnum):
    """`XEN_NETIF_EXTRA_TYPE_*`."""

    XEN_NETIF_EXTRA_TYPE_GSO = 1
    XEN_NETIF_EXTRA_TYPE_MCAST_ADD = 2
    XEN_NETIF_EXTRA_TYPE_MCAST_DEL = 3
    XEN_NETIF_EXTRA_TYPE_HASH = 4


class NetifGsoType(IntEnum):
    """`XEN_NETIF_GSO_TYPE_*`."""

    XEN_NETIF_GSO_TYPE_TCPV4 = 1
    XEN_NETIF_GSO_TYPE_TCPV6 = 2


class NetifRsp(IntEnum):
    """`NETIF_RSP_*`: the status of a response."""

    NETIF_RSP_OKAY = 0
    NETIF_RSP_ERROR = -1
    NETIF_RSP_NULL = 1


@wire
class netif_tx_request(Wire):
    """A piece of a frame that the guest sends; the first has the size of the whole."""

    gref: u32
    offset: u16
    flags: u16
    id: u16
    size: u16


@wire
class netif_tx_response(Wire):
    """What became of a piece."""

    id: u16
    status: s16


@wire
class netif_rx_request(Wire):
    """A page for what the guest is to receive."""

    id: u16
    pad: u16
    gref: u32


@wire
class netif_rx_response(Wire):
    """A piece of a frame that the guest receives; status is its size, or an error."""

    id: u16
    offset: u16
    flags: u16
    status: s16


@wire
class netif_extra_info_gso(Wire):
    """The size of the segments that a large frame is to be cut into."""

    size: u16
    type: u8
    pad: u8
    features: u16


@wire
class netif_extra_info(Wire):
    """In a slot of its own, behind the first one of a frame."""

    type: u8
    flags: u8
    u: netif_extra_info_gso
