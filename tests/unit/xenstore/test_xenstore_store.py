# SPDX-License-Identifier: Apache-2.0
"""The store as Domain 0's own code uses it."""

import threading

import pytest

from domzero.dom0.xenstore import Connection, Store, XenstoreError
from domzero.dom0.xenstore.wire import HEADER, Op


def test_what_is_written_is_read_as_text() -> None:
    store = Store()
    store.write("/a/b", 42)
    store.write("/a/c", "text", perms=("n0", "r1"))
    assert store.read("/a/b") == "42"
    assert store.ls("/a") == ["b", "c"]
    assert store.get_perms("/a/c") == ["n0", "r1"]
    assert store.get("/a/none") is None
    assert store.get("/a/none", "x") == "x"


def test_an_error_has_xenstores_name_and_the_path() -> None:
    with pytest.raises(XenstoreError, match="ENOENT /none") as caught:
        Store().read("/none")
    assert caught.value.name == "ENOENT"


def test_a_local_watch_sees_changes_until_it_is_closed() -> None:
    store = Store()
    seen: list[str] = []
    watch = store.watch("/a", seen.append)
    store.write("/a/b", "1")
    store.rm("/a")
    watch.close()
    store.write("/a/b", "2")
    assert seen == ["/a", "/a/b", "/a"]


def test_a_watch_callback_may_change_the_store() -> None:
    store = Store()
    store.watch("/request", lambda path: store.write("/answer", store.get(path, "") or ""))
    store.write("/request", "ping")
    assert store.read("/answer") == "ping"


def test_a_watch_callback_that_fails_does_not_hurt_the_writer() -> None:
    store = Store()
    seen: list[str] = []

    def fail(_path: str) -> None:
        raise RuntimeError("a bug")

    store.watch("/a", fail)
    store.watch("/a", seen.append)
    store.write("/a", "1")
    assert seen == ["/a", "/a"]
    assert store.read("/a") == "1"


def test_a_transaction_makes_all_changes_or_none() -> None:
    store = Store()
    with store.transaction() as tx:
        tx.write("/a", 1)
        tx.mkdir("/b", perms=("n0", "r2"))
        assert not store.exists("/a")
    assert store.read("/a") == "1"
    assert store.get_perms("/b") == ["n0", "r2"]
    with pytest.raises(XenstoreError, match="EAGAIN"), store.transaction() as tx:
        tx.write("/c", tx.read("/a"))
        store.write("/a", 2)
    assert not store.exists("/c")


def test_a_scoped_connection_reaches_only_its_subtrees() -> None:
    store = Store()
    store.write("/local/domain/3/name", "x")
    store.write("/local/domain/31/name", "y")
    connection = Connection(store, 0, scope=("/local/domain/3",))

    def read(path: bytes) -> bytes:
        connection.receive(HEADER.pack(Op.READ, 0, 0, len(path) + 1) + path + b"\0")
        return connection.take_output()[HEADER.size :]

    assert read(b"/local/domain/3/name") == b"x"
    assert read(b"/local/domain/31/name") == b"EACCES\0"


def test_callbacks_of_other_threads_may_hold_a_lock_that_a_writer_needs() -> None:
    """The order of locks is free: no callback runs with the store locked."""
    store = Store()
    outer = threading.Lock()
    done = []

    def callback(_path: str) -> None:
        with outer:
            done.append(1)

    store.watch("/a", callback)

    def hold_and_write() -> None:
        for _ in range(200):
            with outer:
                store.get("/a")
                store.exists("/b")

    threads = [threading.Thread(target=hold_and_write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(200):
        store.write("/a", n)
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert len(done) == 201
