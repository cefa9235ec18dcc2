# SPDX-License-Identifier: Apache-2.0
"""Xenstore's wire protocol (xs_wire.h): message header, operations, error names and limits."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from domzero.abi.io_xs_wire import (
    XENSTORE_ABS_PATH_MAX,
    XENSTORE_PAYLOAD_MAX,
    XENSTORE_REL_PATH_MAX,
    XENSTORE_RING_SIZE,
    XENSTORE_SERVER_FEATURE_ERROR,
    XENSTORE_SERVER_FEATURE_RECONNECTION,
    XenstoreRingError,
    XsMessage,
)
from domzero.errors import DomzeroError

HEADER = struct.Struct("<IIII")
PAYLOAD_MAX = XENSTORE_PAYLOAD_MAX
ABS_PATH_MAX = XENSTORE_ABS_PATH_MAX
REL_PATH_MAX = XENSTORE_REL_PATH_MAX
RING_SIZE = XENSTORE_RING_SIZE


class Op(IntEnum):
    """enum xsd_sockmsg_type."""

    CONTROL = XsMessage.XS_CONTROL
    DIRECTORY = XsMessage.XS_DIRECTORY
    READ = XsMessage.XS_READ
    GET_PERMS = XsMessage.XS_GET_PERMS
    WATCH = XsMessage.XS_WATCH
    UNWATCH = XsMessage.XS_UNWATCH
    TRANSACTION_START = XsMessage.XS_TRANSACTION_START
    TRANSACTION_END = XsMessage.XS_TRANSACTION_END
    INTRODUCE = XsMessage.XS_INTRODUCE
    RELEASE = XsMessage.XS_RELEASE
    GET_DOMAIN_PATH = XsMessage.XS_GET_DOMAIN_PATH
    WRITE = XsMessage.XS_WRITE
    MKDIR = XsMessage.XS_MKDIR
    RM = XsMessage.XS_RM
    SET_PERMS = XsMessage.XS_SET_PERMS
    WATCH_EVENT = XsMessage.XS_WATCH_EVENT
    ERROR = XsMessage.XS_ERROR
    IS_DOMAIN_INTRODUCED = XsMessage.XS_IS_DOMAIN_INTRODUCED
    RESUME = XsMessage.XS_RESUME
    SET_TARGET = XsMessage.XS_SET_TARGET
    RESET_WATCHES = XsMessage.XS_RESET_WATCHES
    DIRECTORY_PART = XsMessage.XS_DIRECTORY_PART


class ServerFeature(IntFlag):
    """XENSTORE_SERVER_FEATURE_*."""

    RECONNECTION = XENSTORE_SERVER_FEATURE_RECONNECTION
    ERROR = XENSTORE_SERVER_FEATURE_ERROR
    WATCH_DEPTH = 4


class RingError(IntEnum):
    """XENSTORE_ERROR_*: the ring's error field."""

    NONE = XenstoreRingError.XENSTORE_ERROR_NONE
    COMM = XenstoreRingError.XENSTORE_ERROR_COMM
    RINGIDX = XenstoreRingError.XENSTORE_ERROR_RINGIDX
    PROTO = XenstoreRingError.XENSTORE_ERROR_PROTO


# struct xsd_errors: the only names that a client can decode.
ERROR_NAMES = {
    *("EINVAL", "EACCES", "EEXIST", "EISDIR", "ENOENT", "ENOMEM", "ENOSPC", "EIO"),
    *("ENOTEMPTY", "ENOSYS", "EROFS", "EBUSY", "EAGAIN", "EISCONN", "E2BIG", "EPERM"),
}


class XenstoreError(DomzeroError):
    """A request that xenstore refuses; `name` is what goes over the wire, such as "ENOENT"."""

    def __init__(self, name: str, path: str | None = None) -> None:
        if name not in ERROR_NAMES:
            raise ValueError(f"{name} is not an error of xs_wire.h")
        super().__init__(f"{name} {path}" if path else name)
        self.name = name
        self.path = path


class ProtocolError(DomzeroError):
    """The byte stream is not the wire protocol (a payload longer than XENSTORE_PAYLOAD_MAX)."""


@dataclass(slots=True, frozen=True)
class Message:
    """One request, reply or watch event."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes

    def encode(self) -> bytes:
        """Header and payload as they go over a ring or socket."""
        return HEADER.pack(self.type, self.req_id, self.tx_id, len(self.payload)) + self.payload


class Decoder:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._buffer)

    @property
    def has_message(self) -> bool:
        """Whether `next` would give a message, or an error."""
        if len(self._buffer) < HEADER.size:
            return False
        length: int = HEADER.unpack_from(self._buffer)[3]
        return length > PAYLOAD_MAX or len(self._buffer) >= HEADER.size + length

    @property
    def rest(self) -> bytes:
        """What no whole message has been made of yet."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> None:
        """Adds bytes as they arrive."""
        self._buffer += data

    def next(self) -> Message | None:
        """The next whole message, or None; ProtocolError if its header asks for too much."""
        if len(self._buffer) < HEADER.size:
            return None
        kind, req_id, tx_id, length = HEADER.unpack_from(self._buffer)
        if length > PAYLOAD_MAX:
            raise ProtocolError(f"a payload of {length} bytes; the limit is {PAYLOAD_MAX}")
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return Message(kind, req_id, tx_id, payload)

    def clear(self) -> None:
        """Forgets a partial message."""
        self._buffer.clear()
