"""Xenstore's wire protocol (xs_wire.h): message header, operations, error names and limits."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from domzero.errors import DomzeroError

HEADER = struct.Struct("<IIII")
PAYLOAD_MAX = 4096
ABS_PATH_MAX = 3072
REL_PATH_MAX = 2048
RING_SIZE = 1024


class Op(IntEnum):
    """enum xsd_sockmsg_type."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22


class ServerFeature(IntFlag):
    """XENSTORE_SERVER_FEATURE_*."""

    RECONNECTION = 1
    ERROR = 2
    WATCH_DEPTH = 4


class RingError(IntEnum):
    """XENSTORE_ERROR_*: the ring's error field."""

    NONE = 0
    COMM = 1
    RINGIDX = 2
    PROTO = 3


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
