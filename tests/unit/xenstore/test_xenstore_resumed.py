# SPDX-License-Identifier: Apache-2.0
"""A client of xenstore whose store goes away at any point, and another one that goes on from what was written down."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from domzero.dom0.keep.journal import Journal, entries
from domzero.dom0.socket_frames import FrameDecoder, encode_frame
from domzero.dom0.xenstore import Connection, Store
from domzero.dom0.xenstore.relay import RelayServer
from domzero.dom0.xenstore.unanswered import NUMBER, Frame, Unanswered
from domzero.dom0.xenstore.wire import Decoder, Message, Op

HOME = "/local/domain/7"


def written_store() -> tuple[Store, list[dict[str, Any]]]:
    """A store with a domain's home, and what is written down of it."""
    store = Store()
    notes: list[dict[str, Any]] = []
    store.keep(lambda entry: notes.append(json.loads(json.dumps(entry))))
    store.mkdir(HOME, ("n7",))
    return store, notes


def next_store(notes: list[dict[str, Any]]) -> Store:
    store = Store()
    store.keep(lambda entry: notes.append(json.loads(json.dumps(entry))))
    for entry in list(notes):
        store.restore(entry)
    return store


def resume(books: Unanswered, store: Store) -> Connection:
    """What a relay does with the frames of a client that begins again; its requests are answered."""
    connection = Connection(store, 7)
    for kind, payload in books.again():
        if kind in (Frame.WATCH, Frame.FRESH):
            connection.hold_watch(payload, is_new=kind == Frame.FRESH)
        elif kind == Frame.TRANSACTION:
            connection.hold_transaction(*NUMBER.unpack(payload))
        elif kind == Frame.SEEN:
            connection.catch_up(*NUMBER.unpack(payload))
        else:
            connection.receive(payload)
    return connection


def messages(data: bytes) -> Iterator[Message]:
    decoder = Decoder()
    decoder.feed(data)
    while (message := decoder.next()) is not None:
        yield message


def ask(books: Unanswered, kind: Op, payload: bytes, tx: int = 0) -> bytes:
    data = Message(kind, 1, tx, payload).encode()
    books.ask(data)
    return data


def test_the_event_that_a_watch_begins_with_comes_though_the_store_went_before_it() -> None:
    store, notes = written_store()
    books, connection = Unanswered(), Connection(store, 7)
    books.home = HOME
    connection.receive(ask(books, Op.WATCH, b"x\0t\0"))
    books.tell(connection.take_output(len(Message(Op.WATCH, 1, 0, b"OK\0").encode())))  # the answer, and no more
    after = resume(books, next_store(notes))
    assert [each.payload for each in messages(after.take_output())] == [b"x\0t\0"]


def test_changes_that_a_watch_was_not_told_of_are_told_by_the_next_store_and_no_others() -> None:
    store, notes = written_store()
    store.write(f"{HOME}/x/gone", "1", ("n7",))
    books, connection = Unanswered(), Connection(store, 7)
    books.home = HOME
    connection.receive(ask(books, Op.WATCH, b"x\0t\0"))
    books.tell(connection.take_output())
    assert store.told is not None
    books.has_seen(store.told)
    assert resume(books, next_store(notes)).take_output() == b""
    store.rm(f"{HOME}/x/gone")
    store.write(f"{HOME}/x/new", "1")
    store.write(f"{HOME}/other", "1")
    events = [each.payload for each in messages(resume(books, next_store(notes)).take_output())]
    assert events == [b"x/gone\0t\0", b"x/new\0t\0"]


def test_what_nobody_may_read_is_not_told_again_either() -> None:
    store, notes = written_store()
    books = Unanswered()
    ask(books, Op.WATCH, b"/secret\0t\0")
    books.tell(Message(Op.WATCH, 1, 0, b"OK\0").encode())
    books.has_seen(0)
    store.write("/secret/a", "1", ("n0",))
    store.rm("/secret/a")
    events = {each.payload for each in messages(resume(books, next_store(notes)).take_output())}
    assert b"/secret/a\0t\0" not in events


def test_requests_without_an_answer_are_answered_once_and_a_half_answer_is_whole() -> None:
    store, notes = written_store()
    books, connection = Unanswered(), Connection(store, 7)
    books.home = HOME
    connection.receive(ask(books, Op.WRITE, b"x\0one"))
    connection.receive(ask(books, Op.READ, b"x\0"))
    half = connection.take_output(25)
    told = books.tell(half)
    assert [each.type for each in messages(told)] == [Op.WRITE]
    books.ask(Message(Op.READ, 2, 0, b"x\0").encode()[:9])  # and half a request
    after = resume(books, next_store(notes))
    assert [(each.type, each.payload) for each in messages(books.tell(after.take_output()))] == [(Op.READ, b"one")]
    rest = Message(Op.READ, 2, 0, b"x\0").encode()[9:]
    books.ask(rest)
    after.receive(rest)
    assert [each.payload for each in messages(books.tell(after.take_output()))] == [b"one"]
    assert books.bytes == 0


def test_a_transaction_that_was_open_ends_with_eagain_and_changes_nothing() -> None:
    store, notes = written_store()
    books, connection = Unanswered(), Connection(store, 7)
    books.home = HOME
    connection.receive(ask(books, Op.TRANSACTION_START, b"\0"))
    (started,) = messages(books.tell(connection.take_output()))
    number = int(started.payload.rstrip(b"\0"))
    ask(books, Op.WRITE, b"x\0lost", number)
    ask(books, Op.TRANSACTION_END, b"T\0", number)
    following = next_store(notes)
    answers = list(messages(books.tell(resume(books, following).take_output())))
    assert [(each.type, each.payload) for each in answers] == [(Op.WRITE, b"OK\0"), (Op.ERROR, b"EAGAIN\0")]
    assert not following.exists(f"{HOME}/x")


def test_a_store_is_what_was_written_down_after_transactions_removals_and_permissions() -> None:
    store, notes = written_store()
    store.write(f"{HOME}/a/b/c", b"\xff\0x", ("n7", "r3"))
    with store.transaction() as view:
        view.rm(f"{HOME}/a")
        view.write(f"{HOME}/a/d/e", "again", ("n7",))
    store.introduce(7)
    store.set_perms("@releaseDomain", "n0", "r7")
    following = next_store(notes)
    assert next(following.written())["xs"] == next(store.written())["xs"]
    assert following.is_introduced(7) and following.check() == []
    store.release(7)
    assert not next_store(notes).exists(HOME)


@pytest.mark.parametrize(
    "frames",
    [
        [(Frame.DATA, b"x")],
        [(Frame.SEEN, bytes(8)), (Frame.WATCH, b"x\0t\0")],
        [(Frame.SEEN, bytes(8)), (Frame.SEEN, bytes(8))],
        [(Frame.SEEN, b"short")],
        [(Frame.TRANSACTION, NUMBER.pack(0))],
        [(Frame.TRANSACTION, NUMBER.pack(1 << 40))],
        [(Frame.TRANSACTION, NUMBER.pack(n)) for n in range(1, 100)],
        [(Frame.WATCH, b"no end")],
        [(Frame.WATCH, b"x\0%d\0" % n) for n in range(1000)],
        [(99, b"")],
    ],
)
def test_a_worker_that_begins_again_in_another_way_loses_its_connection(frames: list[tuple[int, bytes]]) -> None:
    async def scenario() -> bytes:
        store, _ = written_store()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        with theirs:
            await RelayServer.start(ours, Connection(store, 7), resumes=True)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(theirs, b"".join(encode_frame(*frame) for frame in frames))
            decoder = FrameDecoder()
            while data := await asyncio.wait_for(loop.sock_recv(theirs, 65536), 60):
                decoder.feed(data)
            return data

    assert asyncio.run(scenario()) == b""


def test_a_journal_that_was_cut_anywhere_has_all_that_is_whole() -> None:
    held: list[int] = []
    journal = Journal(lambda fd: held.append(os.dup(fd)), lambda: [{"first": 1}])
    with closing(journal):
        journal.begin()
        for number in range(5):
            journal.write({"number": number, "text": "x" * 100})
        (fd,) = held
        whole = [{"first": 1}, *({"number": number, "text": "x" * 100} for number in range(5))]
        assert list(entries(fd)) == whole
        for size in range(os.fstat(fd).st_size, -1, -1):
            os.ftruncate(fd, size)
            found = list(entries(fd))
            assert found == whole[: len(found)]
        assert found == []
        os.close(fd)
