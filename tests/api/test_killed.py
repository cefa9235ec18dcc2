# SPDX-License-Identifier: Apache-2.0
"""Domain 0 killed at any moment, while clients change things: its database is whole, and nothing of it is left."""

from __future__ import annotations

import random
import signal
import sqlite3
import threading
import uuid
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from dom0_server import Server
from waiting import until

FEW, MANY = pytest.param(3, id="few"), pytest.param(100, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


class Client(threading.Thread):
    """Defines, starts, changes and removes domains until its server is gone; knows what was answered."""

    def __init__(self, server: Server, shell: str, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._shell = shell
        self._dice = dice
        self.named: dict[str, str] = {}
        """Uuid -> name of domains whose definition was answered, and whose removal was not asked for."""
        self.answered = threading.Event()

    def run(self) -> None:
        """Until the connection breaks."""
        transport = httpx.HTTPTransport(uds=str(self._server.socket))
        with (
            suppress(httpx.HTTPError),
            httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=60) as api,
        ):
            while True:
                self._step(api)
                self.answered.set()

    def _step(self, api: httpx.Client) -> None:
        known = list(self.named)
        choice = self._dice.randrange(5) if known else 0
        target = self._dice.choice(known) if known else ""
        if choice == 0 and len(known) < 12:
            name, identity = f"d{uuid.uuid4().hex[:8]}", str(uuid.uuid4())
            body: dict[str, Any] = {"name": name, "uuid": identity, "kernel": self._shell, "memory_mib": 8}
            if api.post("/domains", json={**body, "persistent": True, "start": False}).status_code == 201:
                self.named[identity] = name
        elif choice == 1:
            api.post(f"/domains/{target}/start")
        elif choice == 2:
            name = self.named[target] = f"n{uuid.uuid4().hex[:8]}"
            if api.patch(f"/domains/{target}", json={"name": name}).status_code != 200:
                self.named[target] = api.get(f"/domains/{target}").json()["name"]
        elif choice == 3:
            del self.named[target]  # it may be there or not, whatever is answered
            api.delete(f"/domains/{target}")
            api.delete(f"/domains/{target}")
        else:
            api.post(f"/domains/{target}/reset")


def are_gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_a_kill_at_any_moment_leaves_the_database_whole_and_nothing_else(
    kills: int, tmp_path: Path, shell: str
) -> None:
    dice = random.Random(7)
    database = tmp_path / "d.sock.db"
    for number in range(kills):
        server = Server(tmp_path)
        client = Client(server, shell, random.Random(number))
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://d/v1") as api:
            for domain in api.get("/domains", params={"halted": True}).json():
                client.named[domain["uuid"]] = domain["name"]
        client.start()
        assert client.answered.wait(60)
        client.join(dice.random() * 0.7)
        workers = server.workers()
        server.stop(signal.SIGKILL)
        client.join(60)
        assert not client.is_alive()
        until(partial(are_gone, workers))
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            kept = dict(connection.execute("SELECT uuid, name FROM domains"))
        missing = client.named.keys() - kept.keys()
        assert not missing, f"kill {number}: answered and not kept: {[client.named[each] for each in missing]}"
    server = Server(tmp_path)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://d/v1") as api:
            domains = api.get("/domains", params={"halted": True}).json()
            assert {domain["uuid"]: domain["name"] for domain in domains} == kept
            assert {domain["state"] for domain in domains} <= {"halted"}
            assert all(task["state"] != "running" for task in api.get("/tasks").json())
    finally:
        assert server.stop() == 0
