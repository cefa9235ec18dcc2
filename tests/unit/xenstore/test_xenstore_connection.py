# SPDX-License-Identifier: Apache-2.0
"""What a client of xenstore sees over the wire."""

import pytest
from xsclient import Client

from domzero.dom0.xenstore import Op, Quotas, Store
from domzero.dom0.xenstore.wire import HEADER, RingError

OK = b"OK\0"


@pytest.fixture
def store() -> Store:
    store = Store()
    store.mkdir("/local/domain/3", perms=("n0", "r3"))
    store.mkdir("/local/domain/3/data", perms=("n3",))
    store.write("/local/domain/3/name", "guest", perms=("n0", "r3"))
    store.write("/local/domain/4/secret", "x", perms=("n4",))
    return store


@pytest.fixture
def guest(store: Store) -> Client:
    return Client(store, 3)


@pytest.fixture
def dom0(store: Store) -> Client:
    return Client(store, 0)


def test_a_written_value_is_read_back_by_relative_and_absolute_path(guest: Client) -> None:
    assert guest.write("data/a/b", "hello") == OK
    assert guest.read("data/a/b") == b"hello"
    assert guest.read("/local/domain/3/data/a/b") == b"hello"
    assert guest.read("data/a") == b""


def test_values_may_hold_any_bytes(guest: Client) -> None:
    value = bytes(range(256))
    assert guest.call(Op.WRITE, "data/x", value, nul=False) == OK
    assert guest.read("data/x") == value


def test_a_domain_cannot_write_where_it_may_only_read(guest: Client) -> None:
    assert guest.read("name") == b"guest"
    assert guest.write("name", "other") == "EACCES"
    assert guest.write("new", "x") == "EACCES"
    assert guest.call(Op.RM, "name") == "EACCES"
    assert guest.call(Op.MKDIR, "new") == "EACCES"


def test_a_domain_cannot_tell_whether_unreadable_nodes_exist(guest: Client) -> None:
    assert guest.read("/local/domain/4/secret") == "EACCES"
    assert guest.read("/local/domain/4/nothing") == "EACCES"
    assert guest.call(Op.DIRECTORY, "/local/domain/4") == "EACCES"
    assert guest.read("data/nothing") == "ENOENT"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        "a//b",
        "data/",
        "/local/domain/",
        "/local/domain/3/",
        "data/ö",
        "data/a b",
        "data/a:b",
        "@x",
        "/@/../\x01",
    ],
)
def test_an_illegal_path_is_refused_and_the_root_stays(guest: Client, dom0: Client, path: str) -> None:
    assert guest.write(path, "x") in ("EINVAL", "EACCES")
    assert dom0.call(Op.RM, path) == "EINVAL"


def test_paths_longer_than_the_limits_are_refused(guest: Client, dom0: Client) -> None:
    assert guest.write("data/" + "a" * 2044, "x") == "EINVAL"
    assert dom0.write("/" + "a" * 3072, "x") == "EINVAL"
    assert dom0.write("/" + "a" * 3071, "x") == OK


@pytest.mark.parametrize("op", [Op.READ, Op.DIRECTORY, Op.MKDIR, Op.RM, Op.GET_PERMS, Op.WATCH, Op.WRITE, Op.UNWATCH])
def test_payloads_without_their_nul_are_refused(guest: Client, op: Op) -> None:
    assert guest.raw(op, b"data")[::3] == (Op.ERROR, b"EINVAL\0")
    assert guest.raw(op, b"")[::3] == (Op.ERROR, b"EINVAL\0")


def test_directory_lists_names_and_an_empty_one_lists_nothing(guest: Client) -> None:
    guest.write("data/a", "1")
    guest.write("data/b/c", "1")
    assert guest.call(Op.DIRECTORY, "data") == b"a\0b\0"
    assert guest.call(Op.DIRECTORY, "data/a") == b""


def test_a_long_directory_comes_in_parts_of_whole_names(store: Store, dom0: Client) -> None:
    names = [f"node-with-a-long-name-{n:04}" for n in range(400)]
    for name in names:
        store.write(f"/big/{name}", "")
    assert dom0.call(Op.DIRECTORY, "/big") == "E2BIG"
    listing = b""
    generations = set()
    while True:
        reply = dom0.call(Op.DIRECTORY_PART, "/big", str(len(listing)))
        assert isinstance(reply, bytes) and len(reply) <= 4096
        generation, _, part = reply.partition(b"\0")
        generations.add(generation)
        if part.endswith(b"\0\0") or part == b"\0":
            listing += part[:-1]
            break
        listing += part
    assert listing.decode().rstrip("\0").split("\0") == names
    assert len(generations) == 1
    store.write("/big/more", "")
    reply = dom0.call(Op.DIRECTORY_PART, "/big", "0")
    assert isinstance(reply, bytes) and reply.partition(b"\0")[0] not in generations


def test_rm_takes_the_subtree_and_is_content_if_only_the_parent_exists(guest: Client) -> None:
    guest.write("data/a/b/c", "1")
    assert guest.call(Op.RM, "data/a") == OK
    assert guest.read("data/a/b/c") == "ENOENT"
    assert guest.call(Op.RM, "data/a") == OK
    assert guest.call(Op.RM, "data/a/b") == "ENOENT"


def test_a_node_created_by_a_domain_is_its_own_with_its_parents_other_permissions(
    store: Store, guest: Client, dom0: Client
) -> None:
    store.mkdir("/shared", perms=("n0", "b3", "r4"))
    assert guest.write("/shared/x", "1") == OK
    assert guest.call(Op.GET_PERMS, "/shared/x") == b"n3\0b3\0r4\0"
    assert dom0.call(Op.GET_PERMS, "/shared") == b"n0\0b3\0r4\0"
    assert Client(store, 4).read("/shared/x") == b"1"
    assert Client(store, 4).write("/shared/x", "2") == "EACCES"


def test_permissions_are_changed_by_the_owner_and_the_owner_by_domain_0_alone(guest: Client, dom0: Client) -> None:
    guest.write("data/x", "1")
    assert guest.call(Op.SET_PERMS, "data/x", "n3", "r4") == OK
    assert guest.call(Op.SET_PERMS, "data/x", "n4") == "EPERM"
    assert guest.call(Op.SET_PERMS, "name", "b3") == "EACCES"
    assert guest.call(Op.SET_PERMS, "data/x", "z3") == "EINVAL"
    assert guest.call(Op.SET_PERMS, "data/x", "r99999") == "EINVAL"
    assert guest.call(Op.SET_PERMS, "data/x") == "EINVAL"
    assert dom0.call(Op.SET_PERMS, "/local/domain/3/data/x", "n4") == OK
    assert guest.read("data/x") == "EACCES"


def test_a_watch_fires_at_once_and_on_changes_below_and_removal_above(guest: Client, store: Store) -> None:
    guest.write("data/w/x", "0")
    assert guest.call(Op.WATCH, "data/w", "token") == OK
    assert guest.take_events() == [("data/w", "token")]
    store.write("/local/domain/3/data/w/x/y", "1")
    assert guest.take_events() == [("data/w/x/y", "token")]
    store.write("/local/domain/3/data/other", "1")
    assert guest.take_events() == []
    store.rm("/local/domain/3/data")
    assert guest.take_events() == [("data/w", "token")]


def test_an_absolute_watch_gets_absolute_paths(guest: Client) -> None:
    guest.call(Op.WATCH, "/local/domain/3/data", "t")
    guest.take_events()
    guest.write("data/a", "1")
    assert guest.take_events() == [("/local/domain/3/data/a", "t")]


def test_a_watch_does_not_tell_of_nodes_that_its_owner_cannot_read(guest: Client, store: Store) -> None:
    guest.call(Op.WATCH, "/local/domain/4", "t")
    guest.take_events()
    store.write("/local/domain/4/secret", "y")
    store.rm("/local/domain/4")
    assert guest.take_events() == []


def test_a_watch_with_a_depth_ignores_what_is_deeper(guest: Client) -> None:
    assert guest.call(Op.WATCH, "data", "t", "1") == OK
    guest.take_events()
    guest.write("data/a/b", "1")
    assert guest.take_events() == []
    guest.write("data/a", "1")
    assert guest.take_events() == [("data/a", "t")]


def test_the_same_watch_twice_is_refused_and_an_unknown_one_cannot_be_removed(guest: Client) -> None:
    assert guest.call(Op.WATCH, "data", "t") == OK
    assert guest.call(Op.WATCH, "/local/domain/3/data", "t") == "EEXIST"
    assert guest.call(Op.WATCH, "data", "u") == OK
    assert guest.call(Op.UNWATCH, "data", "v") == "ENOENT"
    assert guest.call(Op.UNWATCH, "data", "t") == OK
    guest.take_events()
    guest.write("data/a", "1")
    assert guest.take_events() == [("data/a", "u")]


def test_changes_made_in_a_transaction_are_seen_by_others_only_after_its_commit(guest: Client, dom0: Client) -> None:
    dom0.call(Op.WATCH, "/local/domain/3/data", "t")
    dom0.take_events()
    tx = guest.begin()
    assert guest.write("data/a", "1", tx=tx) == OK
    assert guest.read("data/a", tx=tx) == b"1"
    assert guest.read("data/a") == "ENOENT"
    assert dom0.take_events() == []
    assert guest.end(tx) == OK
    assert guest.read("data/a") == b"1"
    assert dom0.take_events() == [("/local/domain/3/data/a", "t")]


def test_a_discarded_transaction_changes_nothing(guest: Client) -> None:
    tx = guest.begin()
    guest.write("data/a", "1", tx=tx)
    assert guest.end(tx, commit=False) == OK
    assert guest.read("data/a") == "ENOENT"
    assert guest.end(tx) == "ENOENT"


def test_a_transaction_that_read_what_others_changed_gets_eagain(guest: Client, store: Store) -> None:
    guest.write("data/a", "1")
    tx = guest.begin()
    assert guest.read("data/a", tx=tx) == b"1"
    store.write("/local/domain/3/data/a", "2")
    assert guest.read("data/a", tx=tx) == b"1"
    guest.write("data/b", "1", tx=tx)
    assert guest.end(tx) == "EAGAIN"
    assert guest.read("data/b") == "ENOENT"


def test_a_transaction_is_not_disturbed_by_changes_elsewhere(guest: Client, store: Store) -> None:
    tx = guest.begin()
    guest.write("data/a", "1", tx=tx)
    store.write("/local/domain/3/data/b", "2")
    assert guest.end(tx) == OK
    assert guest.call(Op.DIRECTORY, "data") == b"b\0a\0"


def test_a_listing_in_a_transaction_conflicts_with_new_children(guest: Client, store: Store) -> None:
    tx = guest.begin()
    guest.call(Op.DIRECTORY, "data", tx=tx)
    store.write("/local/domain/3/data/b", "2")
    guest.write("data/a", "1", tx=tx)
    assert guest.end(tx) == "EAGAIN"


def test_transaction_requests_that_make_no_sense_are_refused(guest: Client) -> None:
    assert guest.read("data", tx=99) == "ENOENT"
    assert guest.end(0) == "ENOENT"
    tx = guest.begin()
    assert guest.call(Op.TRANSACTION_START, "", tx=tx) == "EBUSY"
    assert guest.call(Op.TRANSACTION_END, "X", tx=tx) == "EINVAL"


@pytest.mark.parametrize("op", [Op.INTRODUCE, Op.RELEASE, Op.RESUME, Op.SET_TARGET, Op.CONTROL])
def test_control_requests_are_refused_to_guests(guest: Client, op: Op) -> None:
    assert guest.call(op, "3", "1", "1") == "EACCES"


@pytest.mark.parametrize("op", [15, 16, 20, 23, 0xFFFF, 0xFFFFFFFF])
def test_unknown_requests_get_enosys(guest: Client, op: int) -> None:
    assert guest.call(op, "x") == "ENOSYS"


def test_domain_paths_and_presence_are_told(guest: Client, store: Store) -> None:
    assert guest.call(Op.GET_DOMAIN_PATH, "17") == b"/local/domain/17\0"
    assert guest.call(Op.GET_DOMAIN_PATH, "x") == "EINVAL"
    assert guest.call(Op.IS_DOMAIN_INTRODUCED, "3") == b"F\0"
    store.introduce(3)
    assert guest.call(Op.IS_DOMAIN_INTRODUCED, "3") == b"T\0"


def test_special_watches_reach_domain_0_and_those_it_allows(guest: Client, dom0: Client, store: Store) -> None:
    for client in (guest, dom0):
        assert client.call(Op.WATCH, "@introduceDomain", "i") == OK
        assert client.call(Op.WATCH, "@releaseDomain", "r", "1") == OK
        client.take_events()
    store.introduce(5)
    store.release(5)
    assert dom0.take_events() == [("@introduceDomain", "i"), ("@releaseDomain/5", "r")]
    assert guest.take_events() == []
    assert guest.call(Op.SET_PERMS, "@releaseDomain", "n0", "r3") == "EACCES"
    assert dom0.call(Op.SET_PERMS, "@releaseDomain", "n0", "r3") == OK
    store.release(6)
    assert guest.take_events() == [("@releaseDomain/6", "r")]


def test_reset_watches_drops_watches_and_transactions(guest: Client) -> None:
    guest.call(Op.WATCH, "data", "t")
    tx = guest.begin()
    assert guest.call(Op.RESET_WATCHES, "") == OK
    guest.take_events()
    guest.write("data/a", "1")
    assert guest.take_events() == []
    assert guest.end(tx) == "ENOENT"


def test_quotas_hold_and_domain_0_has_none() -> None:
    store = Store(Quotas(nodes=5, watches=2, transactions=1, transaction_operations=3, node_size=10, perms=2))
    store.mkdir("/d", perms=("n3",))
    guest = Client(store, 3)
    assert guest.write("/d/a/b/c/d", "") == OK
    assert guest.write("/d/e", "") == "ENOSPC"
    assert guest.call(Op.RM, "/d/a/b/c") == OK
    assert guest.write("/d/e", "12345678901") == "ENOSPC"
    assert guest.call(Op.WATCH, "/d", "1") == guest.call(Op.WATCH, "/d", "2") == OK
    assert guest.call(Op.WATCH, "/d", "3") == "ENOSPC"
    assert guest.call(Op.SET_PERMS, "/d", "n3", "r1", "r2") == "ENOSPC"
    tx = guest.begin()
    assert guest.call(Op.TRANSACTION_START, "") == "ENOSPC"
    for name in "abc":
        guest.read(f"/d/{name}", tx=tx)
    assert guest.read("/d/d", tx=tx) == "ENOSPC"
    for n in range(20):
        store.write(f"/d/dom0-{n}", "a value that is long")
    assert store.check() == []


def test_quota_counts_what_a_transaction_creates() -> None:
    store = Store(Quotas(nodes=3))
    store.mkdir("/d", perms=("n3",))
    guest = Client(store, 3)
    first = guest.begin()
    second = guest.begin()
    assert guest.write("/d/a/b", "", tx=first) == OK
    assert guest.write("/d/c/d", "", tx=second) == OK
    assert guest.write("/d/e", "", tx=first) == "ENOSPC"
    assert guest.end(first) == OK
    assert guest.end(second) == "ENOSPC"
    assert store.check() == []


def test_a_payload_longer_than_the_protocol_allows_ends_the_connection(guest: Client) -> None:
    guest.call(Op.WATCH, "data", "t")
    guest.connection.receive(HEADER.pack(Op.READ, 1, 0, 4097))
    assert guest.connection.error == RingError.PROTO
    assert not guest.connection.wants_input
    guest.connection.receive(HEADER.pack(Op.READ, 1, 0, 2) + b"/\0")
    guest.take_events()
    assert guest.replies == []


def test_a_message_may_arrive_byte_by_byte(guest: Client) -> None:
    for byte in HEADER.pack(Op.READ, 1, 0, 5) + b"name\0":
        guest.connection.receive(bytes([byte]))
    guest.poll()
    assert guest.replies == [(Op.READ, 1, 0, b"guest")]


def test_a_client_that_does_not_read_is_not_answered_without_end(guest: Client) -> None:
    request = HEADER.pack(Op.READ, 1, 0, 5) + b"name\0"
    sent = 0
    while guest.connection.wants_input:
        guest.connection.receive(request)
        sent += 1
        assert sent < 10000
    guest.connection.receive(request * 10)
    guest.poll()
    while guest.connection.has_output or guest.connection.has_work:
        guest.connection.turn()
        guest.poll()
    assert len(guest.replies) == sent + 10


def test_unread_watch_events_are_bounded_and_none_is_lost_for_good() -> None:
    store = Store(Quotas(queued_events=10))
    store.mkdir("/d", perms=("r0",))
    guest = Client(store, 3)
    guest.call(Op.WATCH, "/d", "t")
    guest.take_events()
    for n in range(100):
        store.write(f"/d/{n}", "1")
    events = guest.take_events()
    assert len(events) == 11
    assert events[-1] == ("/d", "t")


@pytest.mark.parametrize("tail", [(Op.UNWATCH, b"n%d\0t\0"), (Op.RESET_WATCHES, b"\0")])
@pytest.mark.parametrize("token", [b"t", b"t" * 1500])
def test_events_of_watches_that_come_and_go_are_bounded_and_all_told(tail: tuple[Op, bytes], token: bytes) -> None:
    guest = Client(Store(Quotas(queued_events=10, watches=5)), 3)
    op, payload = tail
    unread = 0
    for n in range(1000):
        watch = b"n%d\0%s\0" % (n, token)
        end = payload.replace(b"%d", b"%d" % n).replace(b"t", token)
        for kind, data in ((Op.WATCH, watch), (op, end)):
            guest.connection.receive(HEADER.pack(kind, 1, 0, len(data)) + data)
        unread += 1
        if not guest.connection.wants_input:
            unread = 0
            guest.poll()
            while guest.connection.has_work:
                guest.connection.turn()
                guest.poll()
        assert unread <= 20
    assert guest.take_events() == [(f"n{n}", token.decode()) for n in range(1000)]


def test_a_watch_event_that_no_message_can_hold_names_the_watched_path(store: Store, guest: Client) -> None:
    token = "t" * 2000
    assert guest.call(Op.WATCH, "/local/domain/3/data", token) == OK
    guest.take_events()
    path = "/local/domain/3/data/" + "a" * 2500
    store.write(path, "1", perms=("n3",))
    assert guest.take_events() == [("/local/domain/3/data", token)]


def test_a_new_domain_of_a_used_domid_inherits_no_permissions(store: Store) -> None:
    store.write("/shared", "secret", perms=("n0", "r3"))
    store.release(3)
    assert Client(store, 3).read("/shared") == "EACCES"


def test_giving_nodes_away_does_not_lift_a_quota() -> None:
    store = Store(Quotas(nodes=3))
    store.mkdir("/d", perms=("n3", "b4"))
    first, second = Client(store, 3), Client(store, 4)
    assert second.write("/d/of-four", "") == OK
    assert first.write("/d/a", "") == first.write("/d/b", "") == OK
    assert first.call(Op.SET_PERMS, "/d/a", "n4") == "EPERM"
    assert first.write("/d/c", "") == "ENOSPC"
    assert store.check() == []


def test_nodes_below_a_removed_node_are_not_counted_any_more() -> None:
    store = Store(Quotas(nodes=4))
    store.mkdir("/d", perms=("n3",))
    guest = Client(store, 3)
    for _ in range(5):
        assert guest.write("/d/a/b/c", "") == OK
        tx = guest.begin()
        assert guest.call(Op.RM, "/d/a", tx=tx) == OK
        assert guest.end(tx) == OK
    assert store.owned_nodes(3) == 1


def test_a_released_domain_leaves_nothing_behind(store: Store, guest: Client) -> None:
    guest.write("data/a/b", "1")
    store.mkdir("/shared", perms=("n0", "b3", "r4"))
    guest.write("/shared/mine/x", "1")
    store.write("/shared/mine/x/dom0", "1")
    store.release(3)
    assert not store.exists("/local/domain/3")
    assert store.ls("/shared") == []
    assert store.get_perms("/shared") == ["n0", "r4"]
    assert store.owned_nodes(3) == 0
    assert store.check() == []


def test_a_path_of_a_thousand_levels_is_no_problem(dom0: Client, store: Store) -> None:
    path = "/a" * 1500
    assert dom0.write(path, "deep") == OK
    assert dom0.read(path) == b"deep"
    store.watch("/", lambda _path: None).close()
    store.release(9)
    assert dom0.call(Op.RM, "/a") == OK
    assert store.check() == []
