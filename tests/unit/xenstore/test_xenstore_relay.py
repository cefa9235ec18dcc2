# SPDX-License-Identifier: Apache-2.0
"""A worker's view of the store, over a socket pair to an event loop in another thread."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest
from waiting import until

from domzero.dom0.xenstore import Connection, Op, RemoteStore, RingError, Store, StoreApi, XenstoreError
from domzero.dom0.xenstore.relay import RelayConnection, RelayServer
from domzero.dom0.xenstore.wire import HEADER


class Loop:
    """An event loop in a thread, as the Domain 0 process has."""

    def __init__(self) -> None:
        self.store = Store()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def relay(self, connection: Connection) -> RelayConnection:
        ours, theirs = socket.socketpair()
        asyncio.run_coroutine_threadsafe(RelayServer.start(ours, connection), self.loop).result(10)
        return RelayConnection(theirs)

    def pump(self) -> None:
        """Returns after a turn of the loop."""
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result(10)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()


def collect(relay: RelayConnection) -> bytearray:
    data = bytearray()
    relay.on_output = lambda: data.extend(relay.take_output())
    return data


def request(kind: int, payload: bytes) -> bytes:
    return HEADER.pack(kind, 1, 0, len(payload)) + payload


def test_a_relayed_guest_reads_writes_and_watches(loop: Loop) -> None:
    loop.store.mkdir("/local/domain/1", perms=("n1",))
    relay = loop.relay(Connection(loop.store, 1))
    data = collect(relay)
    relay.receive(request(Op.WRITE, b"a\0hello") + request(Op.WATCH, b"a\0t\0"))
    until(lambda: b"a\0t\0" in data)
    assert loop.store.read("/local/domain/1/a") == "hello"
    data.clear()
    loop.store.write("/local/domain/1/a", "x")
    until(lambda: b"a\0t\0" in data)
    relay.close()


def test_a_reset_in_the_middle_of_a_message_starts_again(loop: Loop) -> None:
    loop.store.write("/local/domain/1/a", "1", perms=("n1",))
    relay = loop.relay(Connection(loop.store, 1))
    data = collect(relay)
    relay.receive(request(Op.READ, b"a\0")[:10])
    relay.reset()
    relay.receive(request(Op.READ, b"a\0"))
    until(lambda: len(data) == 17)
    assert data == HEADER.pack(Op.READ, 1, 0, 1) + b"1"
    relay.close()


def test_a_protocol_violation_is_told_to_the_ring_and_a_reset_mends_it(loop: Loop) -> None:
    relay = loop.relay(Connection(loop.store, 1))
    data = collect(relay)
    relay.receive(HEADER.pack(Op.READ, 1, 0, 9999))
    until(lambda: relay.error == RingError.PROTO)
    assert not relay.wants_input
    relay.reset()
    relay.receive(request(Op.GET_DOMAIN_PATH, b"1\0"))
    until(lambda: b"/local/domain/1" in data)
    relay.close()


def test_a_guest_that_reads_nothing_is_held_back_and_loses_nothing(loop: Loop) -> None:
    loop.store.write("/local/domain/1/a", "v" * 1000, perms=("n1",))
    connection = Connection(loop.store, 1)
    relay = loop.relay(connection)
    sent = 0
    held_back = 0  # turns of the loop in which nothing was taken
    while held_back < 500:
        if relay.wants_input:
            relay.receive(request(Op.READ, b"a\0"))
            sent += 1
            held_back = 0
        else:
            loop.pump()
            held_back += 1
        assert sent < 100_000, "nothing holds it back"
    data = collect(relay)
    data.extend(relay.take_output())
    until(lambda: len(data) == sent * 1016)
    relay.close()


def test_the_end_of_the_store_is_an_error_on_the_ring(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    relay = RelayConnection(theirs)
    ours.close()
    until(lambda: relay.error == RingError.COMM)
    relay.close()


@pytest.fixture(params=["local", "in-process", "relayed"])
def api(request: pytest.FixtureRequest) -> Iterator[StoreApi]:
    if request.param == "local":
        yield Store()
        return
    if request.param == "in-process":
        store = Store()
        remote = RemoteStore(Connection(store, 0))
        yield remote
        remote.close()
        return
    loop = Loop()
    remote = RemoteStore(loop.relay(Connection(loop.store, 0)))
    yield remote
    remote.close()
    loop.stop()


def test_a_remote_store_behaves_as_a_local_one(api: StoreApi) -> None:
    api.write("/a/b", 5, perms=("n0", "r2"))
    api.mkdir("/a/c")
    assert api.read("/a/b") == "5"
    assert api.ls("/a") == ["b", "c"]
    assert api.ls("/a/c") == []
    assert api.get_perms("/a/b") == ["n0", "r2"]
    assert api.get("/none") is None
    assert api.exists("/a/c")
    with pytest.raises(XenstoreError, match="ENOENT"):
        api.read("/none")
    api.rm("/a/b")
    api.rm("/none/at/all")
    assert api.ls("/a") == ["c"]


def test_a_watch_callback_may_use_the_store_it_watches(api: StoreApi) -> None:
    seen: list[str | None] = []
    watch = api.watch("/x", lambda path: seen.append(api.get(path)))
    until(lambda: len(seen) == 1)
    api.write("/x", "1")
    until(lambda: len(seen) == 2)
    assert seen == [None, "1"]
    watch.close()
    api.write("/x", "2")
    assert seen == [None, "1"]
