# SPDX-License-Identifier: Apache-2.0
"""A QEMU that its guest has taken over: whatever it says or does not say, Domain 0 goes on, and does not grow."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("domzero._machine", reason="the machine is not built", exc_type=ImportError)

import fake_qemu

from domzero.dom0.config import DomainConfig
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.json_values import MessageError
from domzero.dom0.messages import Change, GetStats, ListDisks, ListVcpus, Pause, Request
from domzero.dom0.qemu import handle as qemu_handle
from domzero.dom0.qemu.handle import QemuHandle
from domzero.dom0.qemu.qmp import UNANSWERED_MAX, QmpBehind
from domzero.dom0.worker_handle import WorkerGone
from domzero.dom0.xenstore import Store
from domzero.errors import DomzeroError, ResourceError

Scene = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A domain whose QEMU is the fake one."""

    def __init__(self, directory: Path) -> None:
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.events: list[Change] = []
        disk = directory / "disk.img"
        disk.write_bytes(bytes(512))
        self.config = DomainConfig(
            kernel="",
            name="hostile",
            type=DomainType.HVM,
            memory_mib=64,
            engine="tcg",
            disks=[f"{disk},raw,hda"],
            vifs=[],
        )
        self.handle = QemuHandle(
            Store(), 1, on_console=lambda _: None, on_event=self.events.append, on_gone=self.gone.set_result
        )

    async def start(self) -> None:
        """Starts it."""
        await self.handle.start(self.config)

    async def ask(self, request: Request, seconds: float = 0.05) -> Any:
        """As the manager asks: it does not wait for ever."""
        return await asyncio.wait_for(self.handle.request(request, object), seconds)

    @property
    def jobs(self) -> int:
        """What goes on beside."""
        return len(self.handle._jobs)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Scene], None]:
    """Runs a scene with a QEMU that behaves so; its process is gone afterwards, however it went."""
    program = tmp_path / "qemu"
    program.write_bytes(Path(fake_qemu.__file__).read_bytes())
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("DOMZERO_QEMU", str(program))
    monkeypatch.setenv("DOMZERO_NO_CONFINE", "1")
    monkeypatch.setattr(qemu_handle, "_commands", {})
    monkeypatch.setattr(qemu_handle, "STOP_SECONDS", 0.2)

    def play(how: str, scene: Scene) -> None:
        monkeypatch.setenv("DOMZERO_FAKE_QEMU", how)

        async def run() -> None:
            stage = Stage(tmp_path)
            try:
                await scene(stage)
            finally:
                pid = stage.handle.pid
                await stage.handle.stop()
                assert pid is None or not os.path.exists(f"/proc/{pid}")

        asyncio.run(run())

    return play


Play = Callable[[str, Scene], None]


async def turns(count: int = 20) -> None:
    """The loop goes round: others have their turns."""
    for _ in range(count):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("how", ["silent", "no-start"])
def test_a_qemu_that_does_not_answer_is_given_up(play: Play, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(qemu_handle, "START_SECONDS", 0.5)

    async def scene(stage: Stage) -> None:
        with pytest.raises(ResourceError, match="has not started the domain"):
            await stage.start()

    play(how, scene)


def test_the_last_words_of_one_that_dies_in_its_handshake_are_the_reason(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        with pytest.raises(ResourceError, match=r"status 1: cannot set up guest memory .* Cannot allocate memory"):
            await stage.start()

    play("dies", scene)


def test_a_greeting_that_is_no_json_is_an_error(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        with pytest.raises(DomzeroError):
            await stage.start()

    play("no-greeting", scene)


def test_a_schema_that_is_none_is_an_error(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        with pytest.raises(MessageError, match="the schema: no list of objects"):
            await stage.start()

    play("wrong-schema", scene)


def test_a_flood_of_events_leaves_others_their_turn(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.start()
        await turns()
        assert stage.jobs == 0 and not stage.gone.done()

    play("events", scene)


@pytest.mark.parametrize("how", ["endless-line", "deep", "no-json"])
def test_nonsense_ends_the_qemu_that_says_it(play: Play, how: str) -> None:
    async def scene(stage: Stage) -> None:
        with suppress(ResourceError):  # nonsense may come before the start is over
            await stage.start()
            assert "signal SIGKILL" in await stage.gone
        await stage.handle.process.ended

    play(how, scene)


def test_commands_without_an_answer_are_bounded(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.start()
        for _ in range(UNANSWERED_MAX):
            with pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await stage.ask(Pause(), 0.001)
        with pytest.raises(QmpBehind):
            await stage.ask(Pause(), 10)

    play("deaf", scene)


def test_one_that_closes_its_monitor_ends(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.start()
        assert "signal SIGKILL" in await stage.gone

    play("closes", scene)


def test_answers_to_others_are_nobodys(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.start()
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            await stage.ask(GetStats(), 0.5)
        assert not stage.gone.done()

    play("answers-others", scene)


def test_answers_of_other_types_are_refused(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.start()
        for request in (GetStats(), ListVcpus(), ListDisks()):
            with pytest.raises(MessageError):
                await stage.ask(request, 10)
        assert not stage.gone.done()

    play("wrong-answers", scene)


def test_a_disk_that_is_said_to_go_again_and_again_is_looked_at_once(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.start()
        most = 0
        while stage.jobs == 0:
            await turns(1)
        for _ in range(200):
            await turns(1)
            most = max(most, stage.jobs)
        assert most == 1

    play("deletes", scene)


def test_last_words_are_bounded(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.start()
        await turns()
        assert 0 < len(stage.handle.stderr_text) <= 8192
        with pytest.raises((TimeoutError, asyncio.TimeoutError, WorkerGone)):
            await stage.ask(GetStats())

    play("prints", scene)
