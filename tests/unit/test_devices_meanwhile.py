# SPDX-License-Identifier: Apache-2.0
"""What a request is about goes away meanwhile, by another request or by itself: the answer says so."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from runtime_dir import short_runtime_directory

pytest.importorskip("domzero._machine", reason="the machine is not built", exc_type=ImportError)

from domzero.dom0 import network, networks
from domzero.dom0.about import About
from domzero.dom0.api.app import create_app
from domzero.dom0.changes import Changes
from domzero.dom0.config import DomainConfig
from domzero.dom0.corefile import CoreFile
from domzero.dom0.device_stats import VifStats
from domzero.dom0.life import DomainState
from domzero.dom0.manager import BadState, Manager
from domzero.dom0.messages import Disks, Done, ListDisks, ListVifs, Request, SetCap, SetMemoryLimit, Vifs
from domzero.dom0.records import Record
from domzero.dom0.vifspec import parse_vif
from domzero.errors import ConfigError

VIF = VifStats(0, "00:16:3e:00:00:01", "lan", 1500, "devid=0,bridge=lan", 4, "up", None, 0, 0, 0, 0, 0, 0, 0)


Served = Callable[[Manager, Record, Request], None]


class Worker(Manager):
    """A Domain 0 whose worker does what it is asked, and has lost the device when it is listed again.

    :param lists: what it says of its devices, one after the other.
    :param served: what another request does before an answer comes.
    """

    def __init__(self, *lists: Any, served: Served = lambda *_: None) -> None:
        super().__init__()
        self.lists = list(lists)
        self.asked: list[str] = []
        self.requests: list[Request] = []
        self._served = served

    async def ask(self, record: Record, request: Request, expected: type[Any], files: Sequence[int] = ()) -> Any:
        self.asked.append(type(request).__name__)
        self.requests.append(request)
        self._served(self, record, request)
        return self.lists.pop(0) if isinstance(request, ListDisks | ListVifs) else Done()


def request(manager: Manager, method: str, path: str, **arguments: Any) -> httpx.Response:
    app = create_app(manager, token="token")

    async def ask() -> httpx.Response:
        headers = {"Authorization": "Bearer token"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost/v1") as client:
            return await client.request(method, path, headers=headers, **arguments)

    return asyncio.run(ask())


def domain(manager: Manager, name: str = "web", **fields: Any) -> Record:
    record = Record(DomainConfig(kernel="/k", name=name, **fields), domid=1, state=DomainState.RUNNING)
    manager.roster.live[record.uuid] = record
    return record


@pytest.mark.parametrize(
    ("method", "path", "body", "asked"),
    [
        ("POST", "", {"spec": "{image},raw,xvdb"}, ["ListDisks", "AttachDisk", "ListDisks"]),
        ("PATCH", "/xvda", {"bps": 1}, ["LimitDisk", "ListDisks"]),
        ("POST", "/xvda/size", {"bytes": 4096}, ["GrowDisk", "ListDisks"]),
        ("PUT", "/hdc/medium", {"target": "{image}"}, ["ChangeMedium", "ListDisks"]),
        ("DELETE", "/hdc/medium", None, ["ChangeMedium", "ListDisks"]),
    ],
)
def test_a_disk_that_is_taken_away_while_it_is_changed_is_said_to_be(
    method: str, path: str, body: dict[str, Any] | None, asked: list[str], tmp_path: Path
) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(4096))
    manager = Worker(*[Disks(())] * asked.count("ListDisks"))
    domain(manager, disks=[f"{image},raw,xvda,w", ",,hdc,cdrom"])
    if body is not None:
        body = {key: value.format(image=image) if isinstance(value, str) else value for key, value in body.items()}
    answer = request(manager, method, f"/domains/web/disks{path}", json=body)
    assert (answer.status_code, manager.asked) == (409, asked)
    assert "the disk has been taken away meanwhile" in answer.json()["detail"]


def test_an_interface_that_is_taken_away_while_it_is_changed_is_said_to_be() -> None:
    manager = Worker(Vifs((VIF,)), Vifs(()))
    domain(manager, vifs=["bridge=lan"])
    answer = request(manager, "PATCH", "/domains/web/vifs/0", json={"link": "down"})
    assert (answer.status_code, manager.asked) == (409, ["ListVifs", "SetVif", "ListVifs"])
    assert "the interface has been taken away meanwhile" in answer.json()["detail"]


def test_a_domain_that_was_destroyed_before_its_creation_is_answered_is_described_all_the_same() -> None:
    class Quick(Manager):
        async def create(self, config: DomainConfig, about: About | None = None, *, persistent: bool = False) -> Record:
            return Record(config, state=DomainState.DESTROYED, gone=True)

    answer = request(Quick(), "POST", "/domains", json={"name": "web", "kernel": "/k"})
    assert answer.status_code == 201 and answer.json()["exists"] is False


def take_its_name(manager: Manager, _record: Record, _request: Request) -> None:
    domain(manager, "mail")


def end_it(_manager: Manager, record: Record, _request: Request) -> None:
    record.ending = True


def refuse_memory(_manager: Manager, _record: Record, request: Request) -> None:
    if isinstance(request, SetMemoryLimit):
        raise BadState("no")


@pytest.mark.parametrize("served", [take_its_name, end_it, refuse_memory])
def test_changes_are_all_or_nothing_also_when_others_are_served_meanwhile(served: Served) -> None:
    manager = Worker(served=served)
    record = domain(manager, "web", memory_mib=64, maxmem_mib=128)
    record.memory_target_mib = record.memory_limit_mib = 64
    before = Changes.of(record)
    answer = request(manager, "PATCH", "/domains/web", json={"name": "mail", "cap": 50, "memory_limit_mib": 100})
    assert answer.status_code == 409
    assert Changes.of(record) == before
    made: list[Request] = [SetCap(50), SetMemoryLimit(100)]
    undone: list[Request] = [SetCap(0), SetMemoryLimit(64)]
    assert manager.requests == made + (undone[:1] if served is refuse_memory else undone)
    assert not manager.store.exists("/local/domain/1")


@pytest.fixture
def places() -> Iterator[Path]:
    """Where the sockets of switches are."""
    with short_runtime_directory():
        yield networks.control_socket("").parent


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


WHOLE = b"0\t1\t2\t3\t4\t5\t6\t\t{}\n"


@pytest.mark.parametrize("cut", range(len(WHOLE) + 1))
def test_a_switch_that_ends_in_the_middle_of_its_answer_is_left_out(places: Path, cut: int) -> None:
    def answer(listener: socket.socket) -> None:
        with listener.accept()[0] as asked:
            asked.recv(100)
            asked.sendall(WHOLE + WHOLE[:cut])

    with listening(places / f"lan{networks.CONTROL_SUFFIX}") as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        found = networks.networks()
        thread.join()
    if cut == 0:
        assert [len(network.ports) for network in found] == [1]
    elif cut < WHOLE.index(b"{"):
        assert found == []
    else:  # what it says of the owner is no JSON yet, and nothing else is missing
        assert [len(network.ports) for network in found] == [2]


def test_a_switch_that_ends_while_an_interface_is_connected_is_said_to_be_out_of_reach(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(places / "lan.sock") as listener:

        @contextmanager
        def then_gone(_directory: Path) -> Iterator[None]:
            yield
            listener.close()

        monkeypatch.setattr(network, "locked_directory", then_gone)
        with pytest.raises(ConfigError, match=r"the network 'lan' cannot be reached: .*pipe"):
            network.connect(parse_vif("bridge=lan"), DomainConfig(kernel="/k", name="web"), 1)


def test_a_switch_that_does_not_start_is_said_to_be_out_of_reach(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigError, match=r"the network 'lan' cannot be reached: .*exit status 1"):
        network.connect(parse_vif("bridge=lan"), DomainConfig(kernel="/k", name="web"), 1)


def test_a_core_dump_whose_directory_becomes_another_is_refused_and_let_go_of(tmp_path: Path) -> None:
    directory = tmp_path / "there"
    directory.mkdir()
    file = CoreFile(directory / "core")
    directory.rename(tmp_path / "elsewhere")
    directory.touch()
    with pytest.raises(ConfigError, match="Not a directory"):
        file.keep()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.fd)
