# SPDX-License-Identifier: Apache-2.0
"""The store against a dictionary: random operations of Domain 0, in and out of transactions, and hostile bytes."""

from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domzero.dom0.xenstore import Connection, Op, Quotas, RingBackend, Store
from domzero.dom0.xenstore.store import DOM0
from domzero.dom0.xenstore.transaction import Transaction
from domzero.dom0.xenstore.wire import HEADER, Decoder, XenstoreError

PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda parts: "/m/" + "/".join(parts))
VALUES = st.binary(max_size=4)
Model = dict[str, bytes]


def model_write(model: Model, path: str, value: bytes | None) -> None:
    parts = path.split("/")
    for end in range(2, len(parts)):
        model.setdefault("/".join(parts[:end]), b"")
    if value is not None or path not in model:
        model[path] = value or b""


def model_rm(model: Model, path: str) -> None:
    for other in [other for other in model if other == path or other.startswith(path + "/")]:
        del model[other]


class StoreMachine(RuleBasedStateMachine):
    """One live tree and at most one open transaction, each beside its model."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.store.mkdir("/m")
        self.model: Model = {"/m": b""}
        self.tx: Transaction | None = None
        self.tx_model: Model = {}
        self.disturbed = False

    def _target(self, in_tx: bool) -> tuple[Transaction | None, Model]:
        return (self.tx, self.tx_model) if in_tx and self.tx is not None else (None, self.model)

    @rule(path=PATHS, value=st.none() | VALUES, in_tx=st.booleans())
    def write(self, path: str, value: bytes | None, in_tx: bool) -> None:
        tx, model = self._target(in_tx)
        self.disturbed |= tx is None
        self.store.set_value(DOM0, path, value, tx)
        model_write(model, path, value)

    @rule(path=PATHS, in_tx=st.booleans())
    def remove(self, path: str, in_tx: bool) -> None:
        tx, model = self._target(in_tx)
        self.disturbed |= tx is None
        try:
            self.store.remove(DOM0, path, tx)
        except XenstoreError as error:
            assert error.name == "ENOENT" and path.rpartition("/")[0] not in model
        model_rm(model, path)

    @rule(path=PATHS, in_tx=st.booleans())
    def read(self, path: str, in_tx: bool) -> None:
        tx, model = self._target(in_tx)
        try:
            node = self.store.node(DOM0, path, tx)
        except XenstoreError as error:
            assert error.name == "ENOENT" and path not in model
        else:
            assert node.value == model[path]

    @rule()
    def begin(self) -> None:
        self.tx = self.store.begin()
        self.tx_model = dict(self.model)
        self.disturbed = False

    @rule()
    def commit(self) -> None:
        if self.tx is None:
            return
        tx, self.tx = self.tx, None
        try:
            self.store.commit(tx)
        except XenstoreError as error:
            assert error.name == "EAGAIN" and self.disturbed
            return
        self.model = self._tree() if self.disturbed else self.tx_model

    def _tree(self) -> Model:
        found: Model = {}
        stack = ["/m"]
        while stack:
            path = stack.pop()
            if self.store.exists(path):
                found[path] = self.store.read_bytes(path)
                stack += [f"{path}/{name}" for name in self.store.ls(path)]
        return found

    @invariant()
    def same_tree(self) -> None:
        assert self._tree() == self.model
        assert self.store.check() == []


TestStoreMachine = StoreMachine.TestCase

MESSAGES = st.builds(
    lambda kind, tx, payload: HEADER.pack(kind, 1, tx, len(payload)) + payload,
    st.integers(0, 24),
    st.integers(0, 4),
    st.lists(
        st.sampled_from(["/", "a", "a/b", "/local/domain/1/a", "@releaseDomain", "T", "F", "n1", "b2", "0"]), max_size=4
    ).map(lambda strings: "".join(f"{text}\0" for text in strings).encode())
    | st.binary(max_size=20),
)


@given(st.lists(MESSAGES | st.binary(max_size=40), max_size=40))
def test_no_bytes_of_a_guest_hurt_the_store_or_pass_its_quotas(stream: list[bytes]) -> None:
    store = Store(Quotas(nodes=4, watches=2, transactions=2))
    store.mkdir("/local/domain/1", perms=("n1",))
    store.mkdir("/private", perms=("n0",))
    connection = Connection(store, 1)
    for data in stream:
        connection.receive(data)
        connection.take_output()
    assert store.check() == []
    assert store.owned_nodes(1) <= 4
    assert store.get_perms("/private") == ["n0"]
    connection.close()
    store.release(1)
    assert store.check() == []


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 0xFFFFFFFF) | st.integers(0, 2000)), max_size=20), st.binary()
)
def test_no_indices_of_a_guest_hurt_the_ring(fields: list[tuple[int, int]], requests: bytes) -> None:
    page = bytearray(4096)
    page[: len(requests[:1024])] = requests[:1024]
    backend = RingBackend(memoryview(page), Connection(Store(), 1), lambda: None)
    words = memoryview(page)[2048:2076].cast("I")
    for field, value in fields:
        words[field] = value
        backend.pump()
        assert bytes(page[2076:]) == bytes(4096 - 2076)


def packed(op: Op, payload: bytes) -> bytes:
    return HEADER.pack(op, 1, 0, len(payload)) + payload


def contents(store: Store) -> list[tuple[str, bytes, list[str]]]:
    found = []
    stack = ["/"]
    while stack:
        path = stack.pop()
        found.append((path, store.read_bytes(path), store.get_perms(path)))
        stack += sorted(f"{path.rstrip('/')}/{name}" for name in store.ls(path))
    return found


@given(st.lists(MESSAGES, max_size=40))
@example([packed(Op.WATCH, b"/\0t\0"), packed(Op.RESET_WATCHES, b"\0")])
@example([packed(Op.WATCH, b"/\0t\0"), packed(Op.UNWATCH, b"/\0t\0")])
@example([packed(Op.WATCH, b"/\0t\0"), *[packed(Op.WRITE, b"a\0v"), packed(Op.WRITE, b"b\0v")] * 9])
def test_a_client_is_answered_the_same_however_short_its_turns_are(stream: list[bytes]) -> None:
    answers = []
    for limit in (1, 1_000_000):
        store = Store()
        store.meter.limit = limit
        store.mkdir("/local/domain/1", perms=("n1",))
        connection = Connection(store, 1)
        connection.receive(b"".join(stream))
        output = Decoder()
        output.feed(connection.take_output())
        while connection.has_work:
            connection.turn()
            output.feed(connection.take_output())
        connection.close()
        assert store.check() == []
        messages = list(iter(output.next, None))
        replies = [message for message in messages if message.type != Op.WATCH_EVENT]
        # Of equal events one waits, so how often one comes depends on when the client looks.
        events = {message.payload for message in messages if message.type == Op.WATCH_EVENT}
        answers.append((replies, events, contents(store)))
    assert answers[0] == answers[1]
