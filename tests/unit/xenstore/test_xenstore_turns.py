# SPDX-License-Identifier: Apache-2.0
"""What one client may take of the others' time: long work is done in turns of a bounded number of steps."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest
from xsclient import Client

from domzero.dom0.socket_frames import FrameDecoder, encode_frame
from domzero.dom0.xenstore import Connection, Op, Quotas, Store, XenstoreError
from domzero.dom0.xenstore.relay import RelayServer
from domzero.dom0.xenstore.store import DOM0, TURN_STEPS
from domzero.dom0.xenstore.tree import SETTLED_AT_ONCE
from domzero.dom0.xenstore.unanswered import Frame
from domzero.dom0.xenstore.watches import Watch
from domzero.dom0.xenstore.wire import HEADER

LARGEST_STEP = 200
"""More than any single operation of these tests costs: turns end behind the operation in which they are spent."""


def message(kind: Op, payload: bytes, tx: int = 0) -> bytes:
    return HEADER.pack(kind, 1, tx, len(payload)) + payload


def home(store: Store, domid: int) -> Client:
    store.mkdir(f"/local/domain/{domid}", perms=(f"n{domid}",))
    return Client(store, domid)


def turns(connection: Connection) -> int:
    """Does all that is left to do, and checks each turn; how many it took."""
    count = 0
    while connection.has_work:
        connection.turn()
        assert connection.store.meter.steps <= TURN_STEPS + LARGEST_STEP
        connection.take_output()
        count += 1
    return count


def filled(store: Store, guest: Client, writes: int, directory: str = "a") -> int:
    """A transaction with so many writes."""
    tx = guest.begin()
    for n in range(writes):
        guest.write(f"{directory}/n{n}", "v", tx)
    return tx


def test_many_small_requests_take_several_turns() -> None:
    store = Store()
    guest = home(store, 1)
    guest.connection.receive(b"".join(message(Op.WRITE, f"n{n}\0v".encode()) for n in range(300)))
    assert store.meter.steps <= TURN_STEPS + LARGEST_STEP
    assert not guest.connection.wants_input
    assert turns(guest.connection) > 2
    assert len(store.ls("/local/domain/1")) == 300
    assert guest.connection.wants_input


def test_a_commit_on_an_unchanged_store_replays_nothing() -> None:
    store = Store()
    guest = home(store, 1)
    tx = filled(store, guest, 900)
    guest.connection.receive(message(Op.TRANSACTION_END, b"T\0", tx))
    turns(guest.connection)
    assert len(store.ls("/local/domain/1/a")) == 900

    small, large = (filled(store, guest, count, directory) for count, directory in ((1, "b"), (90, "c")))
    guest.end(small, commit=False)
    store.meter.start()
    assert guest.end(large) == b"OK\0"
    assert store.meter.steps < 90 * 8, "as many steps as paths to tell watches of, not as operations are worth"


def test_a_long_commit_gives_way_to_others_and_takes_their_changes_along() -> None:
    store = Store()
    guest, other = home(store, 1), home(store, 2)
    tx = filled(store, guest, 900)
    store.write("/elsewhere", 1)
    guest.connection.receive(message(Op.TRANSACTION_END, b"T\0", tx))
    assert guest.connection.has_work
    assert not store.exists("/local/domain/1/a"), "all or nothing"
    assert other.write("mine", "x") == b"OK\0"
    turns(guest.connection)
    assert len(store.ls("/local/domain/1/a")) == 900
    assert store.read("/local/domain/2/mine") == "x"
    assert store.check() == []


def test_a_commit_that_is_disturbed_in_every_turn_ends_with_eagain() -> None:
    store = Store()
    guest = home(store, 1)
    tx = filled(store, guest, 900)
    store.write("/elsewhere", 0)
    guest.connection.receive(message(Op.TRANSACTION_END, b"T\0", tx))
    reply = b""
    for n in range(10_000):
        store.write("/elsewhere", n)
        guest.connection.turn()
        reply += guest.connection.take_output()
        if not guest.connection.has_work:
            break
    assert reply[HEADER.size :] == b"EAGAIN\0"
    assert not store.exists("/local/domain/1/a")


def test_watches_hear_of_a_path_once_for_a_commit() -> None:
    store = Store()
    guest = home(store, 1)
    told: list[str] = []
    store.add_watch(Watch.create(DOM0, "/local/domain/1", "t", None, lambda _watch, path: told.append(path)))
    told.clear()
    tx = guest.begin()
    for value in "123":
        guest.write("a", value, tx)
    guest.call(Op.RM, "a", tx=tx)
    guest.write("a", "4", tx)
    guest.end(tx)
    assert told == ["/local/domain/1/a"]


def test_a_watch_below_what_a_commit_removed_and_made_again_hears_of_it() -> None:
    store = Store()
    guest = home(store, 1)
    guest.write("a/b", "1")
    told: list[str] = []
    store.add_watch(Watch.create(DOM0, "/local/domain/1/a/b", "t", None, lambda _watch, path: told.append(path)))
    told.clear()
    tx = guest.begin()
    guest.call(Op.RM, "a", tx=tx)
    guest.write("a", "", tx)
    guest.end(tx)
    assert told == ["/local/domain/1/a/b"]


@pytest.mark.parametrize("end", [Connection.reset, Connection.close])
def test_others_hear_of_a_commit_whose_client_goes_in_the_middle(end: Callable[[Connection], None]) -> None:
    store = Store()
    guest = home(store, 1)
    told: list[str] = []
    store.add_watch(Watch.create(DOM0, "/local/domain/1", "t", None, lambda _watch, path: told.append(path)))
    told.clear()
    tx = filled(store, guest, 900)
    guest.connection.receive(message(Op.TRANSACTION_END, b"T\0", tx))
    while not store.exists("/local/domain/1/a"):
        guest.connection.turn()
    assert guest.connection.has_work and len(told) < 900
    end(guest.connection)
    assert len(set(told)) == 900


def test_a_domain_cannot_nest_deeper_than_its_quota() -> None:
    store = Store(Quotas(depth=6))
    guest = home(store, 1)
    assert guest.write("a/b/c", "v") == b"OK\0"
    assert guest.write("a/b/c/d", "v") == "ENOSPC"
    tx = guest.begin()
    assert guest.write("a/b/c/d", "v", tx) == "ENOSPC"
    assert guest.call(Op.WATCH, "a/b/c/d", "t") == "ENOSPC"
    assert guest.call(Op.WATCH, "a/b/c", "t") == b"OK\0"
    store.write("/local/domain/1/a/b/c/d/e", "Domain 0's own")
    assert guest.read("a/b/c/d/e") == b"Domain 0's own", "what is there can be read at any depth"


def test_a_write_costs_the_length_of_its_path_not_the_width_of_its_directory() -> None:
    store = Store()
    for n in range(5000):
        store.mkdir(f"/wide/n{n}")
    store.meter.start()
    store.write("/wide/n17", "x")
    assert store.meter.steps < 10


def test_watches_elsewhere_cost_a_change_nothing() -> None:
    store = Store()
    for n in range(1000):
        store.watch(f"/elsewhere/n{n}", lambda _path: None)
    store.mkdir("/a/b")
    store.meter.start()
    store.rm("/a")
    assert store.meter.steps < 20


def test_a_released_domain_is_forgotten_everywhere_in_turns() -> None:
    due: list[Callable[[], None]] = []
    store = Store(schedule=due.append)
    home(store, 1)
    for n in range(1000):
        store.write(f"/shared/n{n}", "v", perms=("n1",) if n % 2 else ("n0", "r1", "w2"))
    store.release(1)
    assert not store.exists("/local/domain/1") and store.ls("/shared"), "its home goes at once"
    count = 0
    while due:
        due.pop(0)()
        assert store.meter.steps <= TURN_STEPS + LARGEST_STEP
        count += 1
    assert count > 2
    assert len(store.ls("/shared")) == 500
    assert store.get_perms("/shared/n0") == ["n0", "w2"]
    assert store.check() == []


def test_a_released_domain_that_has_nothing_elsewhere_needs_no_search() -> None:
    due: list[Callable[[], None]] = []
    store = Store(schedule=due.append)
    home(store, 1).write("a", "v")
    store.release(1)
    assert due == []


def test_a_flood_of_one_worker_leaves_another_ones_request_a_turn_in_each_round_of_the_loop() -> None:
    async def scenario() -> int:
        store = Store()
        home(store, 1)
        home(store, 2)
        loop = asyncio.get_running_loop()
        ends = []
        for domid in (1, 2):
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            await RelayServer.start(ours, Connection(store, domid))
            ends.append(theirs)
        flood, polite = ends
        flood.send(encode_frame(Frame.DATA, b"".join(message(Op.WRITE, f"n{n}\0v".encode()) for n in range(700))))
        while not store.exists("/local/domain/1/n0"):
            await asyncio.sleep(0)
        polite.send(encode_frame(Frame.DATA, message(Op.WRITE, b"x\0v")))
        rounds = 0
        while not store.exists("/local/domain/2/x"):
            await asyncio.sleep(0)
            rounds += 1
            assert not store.exists("/local/domain/1/n699"), "the flood is still under way"
        decoder = FrameDecoder()
        replies = b""
        while replies.count(b"OK\0") < 700:
            with contextlib.suppress(BlockingIOError):
                for _, payload in decoder.feed(flood.recv(65536)):
                    replies += payload
            await asyncio.sleep(0)
        for end in ends:
            end.close()
        await asyncio.sleep(0)
        assert loop.is_running()
        return rounds

    assert asyncio.run(asyncio.wait_for(scenario(), 60)) <= 4


def test_an_operation_of_a_commit_that_fails_meanwhile_changes_nothing() -> None:
    store = Store(Quotas(nodes=3))
    guest = home(store, 1)
    tx = guest.begin()
    assert guest.write("a", "v", tx) == b"OK\0"
    guest.write("b", "v")
    guest.write("c", "v")
    assert guest.end(tx) in ("ENOSPC", "EAGAIN")
    assert not store.exists("/local/domain/1/a")
    with pytest.raises(XenstoreError):
        store.read("/local/domain/1/a")


def test_a_large_removal_is_seen_at_once_and_taken_out_of_the_books_in_turns() -> None:
    due: list[Callable[[], None]] = []
    store = Store(schedule=due.append)
    for n in range(5000):
        store.write(f"/large/d{n // 100}/n{n}", "v", perms=("n1",))
    store.meter.start()
    store.rm("/large")
    assert store.meter.steps <= TURN_STEPS
    assert not store.exists("/large") and store.owned_nodes(1) > 4000
    tx = store.begin()
    before = store.owned_nodes(1)
    due.pop(0)()
    assert store.owned_nodes(1) < before
    assert (tx.tree.owned[1], tx.tree.debts != []) == (before, True), "a transaction has its own books"
    count = 0
    while due:
        due.pop(0)()
        assert store.meter.steps <= TURN_STEPS + 2 * SETTLED_AT_ONCE
        count += 1
    assert count > 5
    assert store.owned_nodes(1) == 0
    assert store.check() == []
    store.set_value(DOM0, "/other", b"", tx)
    store.commit(tx)
    while due:
        due.pop(0)()
    assert store.owned_nodes(1) == 0 and store.check() == []


def test_a_quota_counts_nothing_that_was_removed() -> None:
    store = Store(Quotas(nodes=1000), schedule=lambda _turn: None)
    guest = home(store, 1)
    for round_ in range(3):
        for n in range(900):
            assert guest.write(f"a/n{n}", "v") == b"OK\0", (round_, n)
        assert guest.call(Op.RM, "a") == b"OK\0"
    for n in range(998):
        assert guest.write(f"b/n{n}", "v") == b"OK\0"
    assert guest.write("c", "v") == "ENOSPC"


def test_a_removal_in_a_transaction_is_settled_after_its_commit() -> None:
    store = Store()
    for n in range(2000):
        store.write(f"/large/n{n}", "v", perms=("n1",))
    for disturbed in (False, True):
        tx = store.begin()
        store.remove(DOM0, "/large", tx)
        store.set_value(DOM0, "/large/again", b"", tx)
        if disturbed:
            store.write("/elsewhere", 1)
        store.commit(tx)
        assert store.ls("/large") == ["again"]
        assert store.check() == []


def test_nobody_hears_of_what_a_commit_both_made_and_removed() -> None:
    store = Store()
    store.mkdir("/a/b")
    told: list[str] = []
    for path in ("/a", "/a/b/new", "/gone"):
        store.add_watch(Watch.create(DOM0, path, "t", None, lambda _watch, path: told.append(path)))
    for disturbed in (False, True):
        told.clear()
        tx = store.begin()
        store.set_value(DOM0, "/a/b/new", b"", tx)
        store.remove(DOM0, "/a/b", tx)
        store.set_value(DOM0, "/gone/x", b"", tx)
        store.remove(DOM0, "/gone", tx)
        if disturbed:
            store.write("/elsewhere", 1)
        store.commit(tx)
        assert told == ["/a/b"]
        store.mkdir("/a/b")
