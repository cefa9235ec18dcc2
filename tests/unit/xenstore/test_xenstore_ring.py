# SPDX-License-Identifier: Apache-2.0
"""The xenstore ring, with a guest that may be hostile."""

import struct

import pytest

from domzero.dom0.xenstore import Connection, Op, RingBackend, Store
from domzero.dom0.xenstore.wire import HEADER, RingError

REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, FEATURES, CONNECTION, ERROR = range(7)


class Guest:
    """The frontend of a ring, as a guest would write it."""

    def __init__(self, start: int = 0) -> None:
        self.page = bytearray(4096)
        for field in (REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD):
            self[field] = start
        self.store = Store()
        self.store.mkdir("/local/domain/1", perms=("n1",))
        self.events = 0
        self.backend = RingBackend(memoryview(self.page), Connection(self.store, 1), self._event)

    def _event(self) -> None:
        self.events += 1

    def __getitem__(self, field: int) -> int:
        return int(struct.unpack_from("<I", self.page, 2048 + 4 * field)[0])

    def __setitem__(self, field: int, value: int) -> None:
        struct.pack_into("<I", self.page, 2048 + 4 * field, value & 0xFFFFFFFF)

    def send(self, data: bytes) -> None:
        while data:
            room = 1024 - ((self[REQ_PROD] - self[REQ_CONS]) & 0xFFFFFFFF)
            for byte in data[:room]:
                self.page[self[REQ_PROD] % 1024] = byte
                self[REQ_PROD] += 1
            data = data[room:]
            self.backend.pump()

    def take(self) -> bytes:
        data = bytearray()
        while self[RSP_CONS] != self[RSP_PROD]:
            data.append(self.page[1024 + self[RSP_CONS] % 1024])
            self[RSP_CONS] += 1
            if self[RSP_CONS] == self[RSP_PROD]:
                self.backend.pump()
        return bytes(data)

    def request(self, kind: int, payload: bytes) -> bytes:
        self.send(HEADER.pack(kind, 5, 0, len(payload)) + payload)
        return self.take()


@pytest.mark.parametrize("start", [0, 1000, 0xFFFFFF00])
def test_requests_and_replies_longer_than_the_ring_pass_from_any_index(start: int) -> None:
    guest = Guest(start)
    value = bytes(n % 251 for n in range(2000))
    assert guest.request(Op.WRITE, b"x\0" + value)[16:] == b"OK\0"
    reply = guest.request(Op.READ, b"x\0")
    assert HEADER.unpack_from(reply) == (Op.READ, 5, 0, 2000)
    assert reply[16:] == value
    assert guest.events > 0


def test_a_watch_event_reaches_an_idle_guest() -> None:
    guest = Guest()
    guest.request(Op.WATCH, b"x\0t\0")
    events = guest.events
    guest.store.write("/local/domain/1/x", "1")
    assert guest.events == events + 1
    assert guest.take()[16:] == b"x\0t\0"


def test_the_server_says_what_it_can_do() -> None:
    assert Guest()[FEATURES] == 7


@pytest.mark.parametrize("field", [REQ_PROD, RSP_PROD])
def test_impossible_indices_end_the_connection_with_an_error(field: int) -> None:
    guest = Guest()
    guest[field] = 1025
    guest.backend.pump()
    assert guest[ERROR] == RingError.RINGIDX
    guest[field] = 0
    guest.send(HEADER.pack(Op.READ, 1, 0, 2) + b"/\0")
    assert guest[RSP_PROD] == 0


def test_a_payload_that_is_too_long_ends_the_connection_with_an_error() -> None:
    guest = Guest()
    guest.send(HEADER.pack(Op.READ, 1, 0, 5000))
    assert guest[ERROR] == RingError.PROTO


def test_a_reset_by_the_guest_starts_again_from_nothing() -> None:
    guest = Guest()
    guest.request(Op.WATCH, b"x\0t\0")
    guest.send(HEADER.pack(Op.READ, 1, 0, 5000))
    guest[CONNECTION] = 1
    guest.backend.pump()
    assert [guest[n] for n in (REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, CONNECTION, ERROR)] == [0] * 6
    guest.store.write("/local/domain/1/x", "1")
    assert guest.take() == b""
    assert guest.request(Op.READ, b"x\0")[16:] == b"1"


def test_a_closed_ring_is_not_touched_again() -> None:
    guest = Guest()
    guest.request(Op.WATCH, b"x\0t\0")
    guest.backend.close()
    before = bytes(guest.page)
    guest.store.write("/local/domain/1/x", "1")
    guest.backend.pump()
    assert bytes(guest.page) == before


def test_a_guest_that_never_stops_writing_is_served_for_a_bounded_time() -> None:
    """Another vCPU fills the ring again as soon as it was emptied; it has to send an event for that."""
    guest = Guest()
    request = HEADER.pack(Op.READ, 0, 0, 2) + b"/\0"
    taken = []

    def receive(data: bytes) -> None:
        taken.append(data)
        if len(taken) < 1000:
            guest[REQ_PROD] += len(data)

    guest.page[:1024] = (request * 60)[:1024]
    guest[REQ_PROD] = 1024
    guest.backend.connection.receive = receive  # type: ignore[method-assign]
    guest.backend.pump()
    assert 1 < len(taken) < 10
    guest.backend.pump()
    assert len(taken) > 4


def test_a_request_may_come_in_pieces_with_rubbish_indices_in_between() -> None:
    guest = Guest()
    request = HEADER.pack(Op.GET_PERMS, 5, 0, 16) + b"/local/domain/1\0"
    for byte in request[:-1]:
        guest.send(bytes([byte]))
        assert guest[RSP_PROD] == 0
    guest.send(request[-1:])
    assert guest.take().endswith(b"n1\0")
    guest[REQ_PROD] += 2000
    guest.backend.pump()
    assert guest[ERROR] == RingError.RINGIDX
