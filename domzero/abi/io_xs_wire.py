# SPDX-License-Identifier: Apache-2.0
"""io/xs_wire.h: the xenstore protocol, the same on the ring and on the socket."""

from enum import IntEnum

from domzero.abi.layout import Annotated, Wire, chars, u32, wire

XENSTORE_RING_SIZE = 1024
XENSTORE_PAYLOAD_MAX = 4096
XENSTORE_ABS_PATH_MAX = 3072
XENSTORE_REL_PATH_MAX = 2048
XENSTORE_SERVER_FEATURE_RECONNECTION = 1
XENSTORE_SERVER_FEATURE_ERROR = 2
XENSTORE_CONNECTED = 0
XENSTORE_RECONNECT = 1


class XsMessage(IntEnum):
    """`enum xsd_sockmsg_type`."""

    XS_CONTROL = 0
    XS_DIRECTORY = 1
    XS_READ = 2
    XS_GET_PERMS = 3
    XS_WATCH = 4
    XS_UNWATCH = 5
    XS_TRANSACTION_START = 6
    XS_TRANSACTION_END = 7
    XS_INTRODUCE = 8
    XS_RELEASE = 9
    XS_GET_DOMAIN_PATH = 10
    XS_WRITE = 11
    XS_MKDIR = 12
    XS_RM = 13
    XS_SET_PERMS = 14
    XS_WATCH_EVENT = 15
    XS_ERROR = 16
    XS_IS_DOMAIN_INTRODUCED = 17
    XS_RESUME = 18
    XS_SET_TARGET = 19
    XS_RESET_WATCHES = 21
    XS_DIRECTORY_PART = 22


class XenstoreRingError(IntEnum):
    """xenstore_domain_interface.error."""

    XENSTORE_ERROR_NONE = 0
    XENSTORE_ERROR_COMM = 1
    XENSTORE_ERROR_RINGIDX = 2
    XENSTORE_ERROR_PROTO = 3


@wire
class xsd_sockmsg(Wire):
    """A message's header."""

    type: u32
    req_id: u32
    tx_id: u32
    len: u32


@wire
class xenstore_domain_interface(Wire):
    """The xenstore page."""

    req: Annotated[bytes, chars(XENSTORE_RING_SIZE)]
    rsp: Annotated[bytes, chars(XENSTORE_RING_SIZE)]
    req_cons: u32
    req_prod: u32
    rsp_cons: u32
    rsp_prod: u32
    server_features: u32
    connection: u32
    error: u32
