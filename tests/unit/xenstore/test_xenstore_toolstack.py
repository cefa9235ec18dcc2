# SPDX-License-Identifier: Apache-2.0
"""What only Domain 0 may ask of xenstore, and what its tools may have."""

from __future__ import annotations

import logging

import pytest
from xsclient import Client

from domzero.dom0.xenstore import Connection, Op, Quotas, Store, quotas
from domzero.dom0.xenstore.events import BYTES_MAX
from domzero.dom0.xenstore.wire import HEADER, PAYLOAD_MAX

OK = b"OK\0"


@pytest.fixture
def store() -> Store:
    store = Store()
    for domid in (3, 4):
        store.mkdir(f"/local/domain/{domid}", perms=(f"n{domid}",))
        store.introduce(domid)
    store.write("/local/domain/3/store/ring-ref", 77)
    store.write("/local/domain/3/store/port", 1)
    return store


@pytest.fixture
def tool(store: Store) -> Client:
    return tool_of(store)


def tool_of(store: Store) -> Client:
    client = Client(store, 0)
    client.connection = Connection(store, 0, tool=True)
    return client


def test_a_target_lends_its_rights_until_either_domain_goes(store: Store, tool: Client) -> None:
    stubdom, hvm = Client(store, 3), Client(store, 4)
    store.write("/shared", "x", perms=("n0", "r4"))
    hvm.write("mine", "secret")
    assert stubdom.read("/local/domain/4/mine") == "EACCES"
    assert stubdom.read("/shared") == "EACCES"
    assert tool.call(Op.SET_TARGET, "3", "4") == OK
    assert stubdom.read("/local/domain/4/mine") == b"secret"
    assert stubdom.call(Op.SET_PERMS, "/local/domain/4/mine", "n4", "r7") == OK
    assert stubdom.read("/shared") == b"x"
    assert stubdom.write("/shared", "y") == "EACCES"
    assert hvm.read("/local/domain/3") == "EACCES", "not the other way round"
    store.write("/elsewhere", "z", perms=("n0", "r4"))
    store.release(4)
    store.write("/elsewhere", "z", perms=("n0", "r4"))
    assert stubdom.read("/elsewhere") == "EACCES"


def test_watches_from_before_a_target_was_set_hear_of_what_it_may_read(store: Store, tool: Client) -> None:
    stubdom = Client(store, 3)
    stubdom.call(Op.WATCH, "/local/domain/4", "t")
    stubdom.take_events()
    store.write("/local/domain/4/a", 1)
    assert stubdom.take_events() == []
    tool.call(Op.SET_TARGET, "3", "4")
    store.write("/local/domain/4/a", 2)
    assert stubdom.take_events() == [("/local/domain/4/a", "t")]


@pytest.mark.parametrize(
    ("domid", "target", "error"), [("0", "4", "EINVAL"), ("3", "9", "ENOENT"), ("9", "3", "ENOENT")]
)
def test_targets_are_domains_that_are_there(tool: Client, domid: str, target: str, error: str) -> None:
    assert tool.call(Op.SET_TARGET, domid, target) == error


def test_introducing_a_domain_again_is_accepted_only_as_it_was(tool: Client) -> None:
    assert tool.call(Op.INTRODUCE, "3", "77", "1") == OK
    assert tool.call(Op.INTRODUCE, "3", "77", "2") == "EINVAL"
    assert tool.call(Op.INTRODUCE, "9", "77", "1") == "ENOENT"
    assert tool.call(Op.INTRODUCE, "0", "77", "1") == "EINVAL"
    assert tool.call(Op.INTRODUCE, "3") == "EINVAL"
    assert tool.call(Op.INTRODUCE, "3", "x", "1") == "EINVAL"


def test_a_domain_that_is_there_is_not_released_and_may_be_resumed(store: Store, tool: Client) -> None:
    for op in (Op.RELEASE, Op.RESUME):
        assert tool.call(op, "9") == "ENOENT"
        assert tool.call(op, "0") == "EINVAL"
        assert tool.call(op, "") == "EINVAL"
    assert tool.call(Op.RELEASE, "3") == "EBUSY"
    assert tool.call(Op.RESUME, "3") == OK
    assert store.is_introduced(3)


def test_control_helps_checks_counts_and_prints(store: Store, tool: Client, caplog: pytest.LogCaptureFixture) -> None:
    assert tool.call(Op.CONTROL, "help") == b"check\nhelp\nprint\nquota\0"
    assert tool.call(Op.CONTROL, "check") == OK
    quota = tool.call(Op.CONTROL, "quota")
    assert isinstance(quota, bytes) and b"nodes                  :     1000 Nodes per domain\n" in quota
    guest = Client(store, 3)
    guest.call(Op.WATCH, "a", "t")
    guest.write("a", "1")
    counts = tool.call(Op.CONTROL, "quota", "3")
    assert isinstance(counts, bytes)
    assert [line.split(b":")[1].strip(b" \0") for line in counts.split(b"\n")[1:]] == [b"5", b"1"], (
        "its home, three below it by Domain 0, and its own"
    )
    with caplog.at_level(logging.INFO):
        assert tool.call(Op.CONTROL, "print", "some words") == OK
    assert "xenstore: some words" in caplog.text


@pytest.mark.parametrize(
    "words",
    [(), ("live-update", "-s"), ("logfile", "/etc/passwd"), ("quota", "set", "nodes", "1"), ("quota", "9"), ("print",)],
)
def test_other_control_requests_are_refused(tool: Client, words: tuple[str, ...]) -> None:
    assert tool.call(Op.CONTROL, *words) == "EINVAL"


def test_a_check_of_a_large_store_takes_turns_and_finds_what_is_wrong(store: Store, tool: Client) -> None:
    for n in range(2000):
        store.mkdir(f"/many/n{n}")
    connection = tool.connection
    connection.receive(HEADER.pack(Op.CONTROL, 1, 0, 6) + b"check\0")
    turns = 0
    while connection.has_work:
        connection.turn()
        turns += 1
    assert turns > 2
    assert connection.take_output()[HEADER.size :] == OK
    store._tree.owned[7] = 5
    assert tool.call(Op.CONTROL, "quota", "3") != "EINVAL"
    connection.receive(HEADER.pack(Op.CONTROL, 1, 0, 6) + b"check\0")
    while connection.has_work:
        connection.turn()
    assert b"domain 7 owns 0 nodes, accounted are 5\0" in connection.take_output()


def test_a_worker_is_no_toolstack(store: Store) -> None:
    worker = Client(store, 0)
    worker.connection = Connection(store, 0, scope=("/local/domain/3",))
    for op in (Op.CONTROL, Op.INTRODUCE, Op.RELEASE, Op.RESUME, Op.SET_TARGET):
        assert worker.call(op, "3", "4", "5") == "EACCES"


def test_a_tool_may_have_more_than_a_guest_and_not_everything(
    store: Store, tool: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(300):
        assert tool.call(Op.WATCH, f"/w/{n}", "t") == OK
    tool.take_events()
    for _ in range(quotas.TOOL.transactions):
        tool.begin()
    assert tool.call(Op.TRANSACTION_START, "") == "ENOSPC"
    small = Quotas(nodes=20, depth=0, watches=2, transactions=1, transaction_operations=3, node_size=0, perms=0)
    monkeypatch.setattr("domzero.dom0.xenstore.store.TOOL", small)
    limited = tool_of(store)
    assert limited.call(Op.WATCH, "/a", "1") == OK
    assert limited.call(Op.WATCH, "/a", "2") == OK
    assert limited.call(Op.WATCH, "/a", "3") == "ENOSPC"
    wrote = [limited.write(f"/n{n}", "x" * 4000) for n in range(30)]
    assert wrote.count("ENOSPC") > 5 and wrote[0] == OK
    tx = limited.begin()
    assert [limited.read(f"/n{n}", tx) for n in range(4)][-1] == "ENOSPC"


def test_a_wide_directory_is_read_in_parts_also_while_it_changes(store: Store, tool: Client) -> None:
    names = [f"node-{n}" for n in range(5000)]
    for name in names:
        store.mkdir(f"/wide/{name}")
    assert tool.call(Op.DIRECTORY, "/wide") == "E2BIG"

    def read(disturb: bool) -> tuple[set[bytes], list[str]]:
        found, generations, offset = b"", set(), 0
        while True:
            part = tool.call(Op.DIRECTORY_PART, "/wide", str(offset))
            assert isinstance(part, bytes) and len(part) <= PAYLOAD_MAX
            generation, _, rest = part.partition(b"\0")
            generations.add(generation)
            if rest.endswith(b"\0\0") or rest == b"\0":
                return generations, (found + rest[:-1]).decode().rstrip("\0").split("\0")
            found += rest
            offset += len(rest)
            if disturb:
                store.mkdir(f"/wide/other-{offset}")

    assert read(disturb=False) == ({str(store._tree.lookup("/wide").generation).encode()}, names)  # type: ignore[union-attr]
    generations, found = read(disturb=True)
    assert len(generations) > 5, "the client sees that it has to begin again"
    assert found[:5000] == names


def test_parts_of_a_directory_cost_its_names_once(store: Store, tool: Client) -> None:
    for n in range(20_000):
        store.mkdir(f"/wide/n{n}")
    tool.call(Op.DIRECTORY_PART, "/wide", "0")
    store.meter.start()
    tool.call(Op.DIRECTORY_PART, "/wide", "4000")
    assert store.meter.steps < 100


def test_of_equal_events_one_waits_also_when_its_watches_are_gone(tool: Client) -> None:
    tool.call(Op.WATCH, "/a", "t")
    tool.call(Op.WATCH, "/a/b", "t")
    tool.take_events()
    write, end_outer = (Op.WRITE, b"/a/b\0v"), (Op.UNWATCH, b"/a\0t\0")
    assert events_of(tool, write) == [("/a/b", "t")]
    assert events_of(tool, write, end_outer) == [("/a/b", "t")]
    assert events_of(tool, write, (Op.UNWATCH, b"/a/b\0t\0")) == [("/a/b", "t")]
    assert events_of(tool, write) == []


def events_of(client: Client, *requests: tuple[Op, bytes]) -> list[tuple[str, str]]:
    """The events after requests that came at once."""
    client.connection.receive(b"".join(HEADER.pack(op, 1, 0, len(payload)) + payload for op, payload in requests))
    return client.take_events()


def test_unread_events_are_bounded_in_bytes_too(store: Store, tool: Client) -> None:
    token = "t" * 2000
    tool.call(Op.WATCH, "/", token)
    tool.take_events()
    for n in range(3000):
        store.write(f"/{'x' * 1500}/{n}", "")
    size = 0
    while data := tool.connection.take_output():
        size += len(data)
    assert BYTES_MAX / 2 < size < 2 * BYTES_MAX
