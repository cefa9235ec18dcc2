# SPDX-License-Identifier: Apache-2.0
"""Every message of XenAPI with right, nearly right and nonsensical parameters: each is answered, none is a fault."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dom0_server import Server
from openapi_cases import ODD, ODD_TEXT

from domzero.dom0.xenapi.classes.others import OTHERS
from domzero.dom0.xenapi.registry import KINDS, MESSAGES
from domzero.dom0.xenapi.table import Message
from domzero.dom0.xenapi.values import BOOL, DATETIME, FLOAT, INT, STRING, Enum, Map, Record, Ref, Set, Type

CASES = 300
WAITING = ("VM.clean_shutdown", "VM.shutdown", "event.next")
"""They wait for a guest, or for something to happen."""


@pytest.fixture
def fuzzed(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    assert server.stop() == 0


class Cases:
    """Parameters for messages.

    :param call: sends a message and gives its value, or None.
    """

    def __init__(self, seed: int, call: Any, kernel: str, directory: Path) -> None:
        self._random = random.Random(seed)
        self._call = call
        self._kernel = kernel
        self._directory = directory
        self._references: dict[str, list[str]] = {}

    def look(self) -> None:
        """Finds out which objects there are."""
        for kind in KINDS.values():
            if kind.visible:
                self._references[kind.name] = self._call(f"{kind.name}.get_all") or []

    def value(self, type: Type, name: str) -> Any:
        """A value for a parameter, which is of its type more often than not."""
        choose = self._random
        if choose.random() < 0.1:
            return choose.choice([*ODD, *ODD_TEXT])
        if isinstance(type, Ref):
            there = self._references.get(type.kind, [])
            return choose.choice([*there, *there, *there, *there, "OpaqueRef:NULL", "OpaqueRef:x"])
        if isinstance(type, Set):
            return [self.value(type.of, name) for _ in range(choose.randrange(3))]
        if isinstance(type, Map):
            if name == "device_config":
                return {"location": choose.choice([str(self._directory), "relative", "/proc/none", ""])}
            return {str(self.value(type.key, name)): self.value(type.value, name) for _ in range(choose.randrange(3))}
        if isinstance(type, Record):
            return self._record(type.kind)
        if isinstance(type, Enum):
            return choose.choice([*type.words, "nonsense"])
        if type is INT:
            return choose.choice([0, 1, 2, 4, "3", 16 << 20, 64 << 20, -1, 1 << 62, "x"])
        if type is FLOAT:
            return choose.choice([0.0, 0.1, -1.0])
        if type is BOOL:
            return choose.choice([True, False])
        if type is DATETIME:
            return choose.choice(["20261122T16:00:00Z", "19700101T00:00:00Z", "99999999T99:99:99Z"])
        assert type is STRING
        return choose.choice(["", "a", "0", "7", "autodetect", "xvdb", "file", "user", "destroy", "00:16:3e:00:00:01"])

    def _record(self, kind: str) -> dict[str, Any]:
        fields = KINDS[kind].fields if kind in KINDS else ()
        found = {one.name: self.value(one.type, one.name) for one in fields if self._random.random() < 0.5}
        if kind == "VM":
            found["PV_kernel"], found["memory_static_max"] = self._kernel, 16 << 20
            found.pop("memory_dynamic_max", None)
        if kind in ("VM", "VDI", "network"):
            found["name_label"] = f"n{self._random.randrange(20)}"
        if kind == "VDI":
            found["virtual_size"] = self._random.choice([512, 1 << 20, "4096", 1 << 60])
        for name in ("VM", "VDI", "SR", "network"):
            if name in found or kind in ("VBD", "VIF", "VDI"):
                found[name] = self.value(Ref(name), name)
        return found

    def parameters(self, message: Message) -> list[Any]:
        """For a message; now and then too many or too few."""
        found = [self.value(type, name) for name, type in message.parameters]
        if self._random.random() < 0.03:
            found = found[:-1] if self._random.random() < 0.5 else [*found, "more"]
        return found

    def choose(self, names: list[str]) -> str:
        """One of some messages: those that are not derived from fields more often."""
        explicit = [name for name in names if not MESSAGES[name].implicit]
        return self._random.choice(explicit if self._random.random() < 0.7 else names)


def test_no_message_is_a_fault(fuzzed: Server, shell: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("DOMZERO_FUZZ_SEED", "1"))
    transport = httpx.HTTPTransport(uds=str(fuzzed.socket))
    counts: Counter[str] = Counter()
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:

        def send(method: str, parameters: list[Any]) -> dict[str, Any]:
            body = {"jsonrpc": "2.0", "method": method, "params": parameters, "id": 1}
            text = json.dumps(body).replace(": Infinity", ": 1e999")
            answer = client.post("/jsonrpc", content=text)
            assert answer.status_code == 200, (seed, method, parameters, answer.text)
            found: dict[str, Any] = answer.json()
            return found

        def log_in() -> str:
            handle: str = send("session.login_with_password", ["root", ""])["result"]
            return handle

        session = log_in()
        cases = Cases(seed, lambda method: send(method, [session]).get("result"), shell, tmp_path / "more")
        own = {kind.name for kind in KINDS.values() if kind not in OTHERS}
        answered = [name for name, each in MESSAGES.items() if each.do is not None and name not in WAITING]
        names = [name for name in answered if name.partition(".")[0] in own]
        for number in range(int(os.environ.get("DOMZERO_XENAPI_CASES", str(CASES)))):
            if number % 50 == 0:
                cases.look()
            name = cases.choose(names)
            message = MESSAGES[name]
            parameters = cases.parameters(message)
            answer = send(name, [session, *parameters] if message.session else parameters)
            code = answer["error"]["message"] if "error" in answer else "ok"
            counts[code] += 1
            assert code != "INTERNAL_ERROR", (seed, name, parameters, answer, fuzzed.log.read_text()[-3000:])
            if code == "SESSION_INVALID" or name.endswith("logout"):
                session = log_in()
        assert send("VM.get_all", [session])["result"]
    print(f"seed {seed}: {dict(counts.most_common())}")
    assert counts["ok"] > sum(counts.values()) // 10
