# SPDX-License-Identifier: Apache-2.0
"""A machine of QEMU's goes to a file and comes back: it goes on where it was, and nowhere else."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

pytest.importorskip("domzero._machine", reason="the machine is not built", exc_type=ImportError)

from domzero.dom0.config import DomainConfig
from domzero.dom0.diskspec import DiskFile, DiskFormat
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.json_values import to_json
from domzero.dom0.life import DomainState
from domzero.dom0.messages import (
    AttachDisk,
    Change,
    Done,
    ExpectSuspend,
    GetStats,
    GoOn,
    GrowDisk,
    Pause,
    Progress,
    Save,
    Saved,
    Stats,
    Suspended,
    Unpause,
)
from domzero.dom0.qemu import saving
from domzero.dom0.qemu.handle import QemuHandle
from domzero.dom0.qemu.saved import Fact, SavedMachine, SavedState
from domzero.dom0.save_format import ImageWriter, begin
from domzero.dom0.worker_handle import WorkerGone
from domzero.dom0.xenstore import Store
from domzero.errors import ConfigError, ResourceError
from domzero.hypervisor.saved import RestoreError
from domzero.lab.listing import listing

needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here")


class Stage:
    """QEMUs that run the lab's guest, and a file for the state of one."""

    def __init__(self, directory: Path) -> None:
        kernel, self.disk, self.later = (directory / name for name in ("full.elf", "disk.img", "later.img"))
        kernel.write_bytes(listing("full").pvh_elf())
        for image in (self.disk, self.later):
            image.write_bytes(bytes(1 << 20))
        self.config = DomainConfig(
            kernel=str(kernel),
            name="saved",
            type=DomainType.PVH,
            memory_mib=32,
            engine="tcg",
            disks=[f"{self.disk},raw,xvda"],
            vifs=[],
        )
        self.file = directory / "state"
        self.said = bytearray()
        self.handles: list[QemuHandle] = []
        self.events: list[Change] = []

    def new(self) -> QemuHandle:
        """One that is not started."""
        self.said.clear()
        handle = QemuHandle(
            Store(),
            len(self.handles) + 1,
            on_console=self.said.extend,
            on_event=self.events.append,
            on_gone=lambda how: None,
        )
        self.handles.append(handle)
        return handle

    async def hear(self, count: int) -> list[str]:
        """So many lines of the guest's."""
        for _ in range(6000):
            if self.said.count(b"\n") >= count:
                break
            await asyncio.sleep(0.01)
        return self.said.decode().splitlines()

    async def ask(self, handle: QemuHandle) -> int:
        """The guest's time stamp counter."""
        before = self.said.count(b"\n")
        await handle.console_input(b"t")
        return int((await self.hear(before + 1))[-1], 16)

    async def save(self, handle: QemuHandle) -> SavedMachine:
        """Saves it to the file, as Domain 0 does."""
        with self.begun() as file:
            await handle.request(ExpectSuspend(), Done)
            saved = await handle.request(Save(), Saved, [file.fileno()])
            assert saved.bytes == os.fstat(file.fileno()).st_size
            return SavedState(file.fileno()).machine

    def begun(self) -> IO[bytes]:
        """The file, with its head."""
        file = self.file.open("wb+")
        begin(file.fileno(), {"by": "a test"})
        return file

    async def restore(self, config: DomainConfig) -> QemuHandle:
        """Another QEMU that goes on from the file, or still stands if the configuration says so."""
        handle = self.new()
        with self.file.open("rb") as file:
            await handle.start(config, file.fileno())
        return handle


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Callable[[Stage], Awaitable[None]]], None]:
    """Plays a scene, of which no QEMU is left."""

    def play(scene: Callable[[Stage], Awaitable[None]]) -> None:
        async def run() -> None:
            stage = Stage(tmp_path)
            try:
                await scene(stage)
            finally:
                for handle in stage.handles:
                    await handle.stop()

        asyncio.run(run())

    return play


async def state(handle: QemuHandle) -> DomainState:
    return (await handle.request(GetStats(), Stats)).state


@needs_qemu
def test_a_machine_goes_on_in_another_qemu_with_what_came_meanwhile(play: Callable[[Any], None]) -> None:
    async def scene(stage: Stage) -> None:
        first = stage.new()
        await first.start(stage.config)
        assert await stage.hear(1) == ["full: ready"]
        fd = os.open(stage.later, os.O_RDWR)
        kinds = (DiskFile(DiskFormat.RAW),)
        await first.request(AttachDisk(f"{stage.later},raw,xvdb", kinds), Done, [fd])
        os.close(fd)
        before = await stage.ask(first)

        await stage.save(first)
        progress = [event.done for event in stage.events if isinstance(event, Progress)]
        assert Suspended() in stage.events and progress == sorted(progress) and 0 < progress[-1] <= 1
        assert await state(first) is DomainState.PAUSED
        with pytest.raises(ResourceError, match="as in its saved state"):
            await first.request(GrowDisk("xvda", 2 << 20), Done)
        assert first.config is not None
        config = first.config
        await first.stop()

        second = await stage.restore(config)
        after = await stage.ask(second)
        assert after > before and b"ready" not in stage.said
        await second.request(GrowDisk("xvdb", 2 << 20), Done)
        assert stage.later.stat().st_size == 2 << 20
        await second.stop()

        third = await stage.restore(replace(config, paused=True))
        assert await state(third) is DomainState.PAUSED
        await third.request(Unpause(), Done)
        assert await stage.ask(third) > before

    play(scene)


@needs_qemu
def test_one_that_is_saved_goes_on_if_it_shall_or_if_that_fails(
    play: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(stage: Stage) -> None:
        handle = stage.new()
        await handle.start(stage.config)
        await stage.hear(1)
        await stage.save(handle)
        await handle.request(GoOn(), Done)
        await stage.ask(handle)
        await handle.request(GrowDisk("xvda", 2 << 20), Done)

        monkeypatch.setattr(ImageWriter, "stream", lambda writer, data: _no_room())
        with pytest.raises(ResourceError, match="the disk is full"):
            await stage.save(handle)
        monkeypatch.undo()
        assert await state(handle) is DomainState.PAUSED
        await handle.request(GoOn(), Done)
        assert await state(handle) is DomainState.RUNNING

        # Nothing more is taken of a state that QEMU has begun to write.
        monkeypatch.setattr(saving._Drain, "_run", lambda drain, writer: _idle(drain))
        job = asyncio.ensure_future(stage.save(handle))
        await asyncio.sleep(0.3)
        assert not job.done()
        with pytest.raises(ResourceError, match="being saved"):
            await handle.request(Pause(), Done)
        assert await state(handle) is DomainState.PAUSED
        await handle.request(GoOn(), Done)
        with pytest.raises(asyncio.CancelledError):
            await job
        monkeypatch.undo()
        assert await state(handle) is DomainState.RUNNING
        await stage.ask(handle)

        await handle.request(Pause(), Done)
        monkeypatch.setattr(saving, "BESIDES_MEMORY", -(32 << 20))
        with pytest.raises(ResourceError, match="it has more than 0 MiB"):
            await stage.save(handle)
        monkeypatch.undo()
        await handle.request(GoOn(), Done)
        assert await state(handle) is DomainState.PAUSED  # as it was before
        await handle.request(Unpause(), Done)
        await stage.ask(handle)
        assert stage.said.count(b"ready") == 1

        job = asyncio.ensure_future(stage.save(handle))
        await asyncio.sleep(0)
        await handle.stop()
        with suppress(WorkerGone, ResourceError):
            await job
        assert handle.pid is None

    def _no_room() -> None:
        raise OSError(errno.ENOSPC, "full")

    def _idle(drain: saving._Drain) -> None:
        while drain.wanted:
            os.sched_yield()

    play(scene)


@needs_qemu
def test_a_state_is_for_the_same_machine_alone(play: Callable[[Any], None]) -> None:
    async def scene(stage: Stage) -> None:
        handle = stage.new()
        await handle.start(stage.config)
        await stage.hear(1)
        await stage.save(handle)
        await handle.stop()
        with pytest.raises(ConfigError, match="with memory 32 MiB, not 33 MiB"):
            await stage.restore(replace(stage.config, memory_mib=33))
        whole = stage.file.read_bytes()
        for damaged, words in (
            (whole[: len(whole) // 2], "cut off"),
            (whole[:-10], "cut off"),
            (whole[:-1] + bytes([whole[-1] ^ 1]), "its checksum differs|the checksum of section DONE differs"),
            (whole + b"x", "something behind its end"),
        ):
            stage.file.write_bytes(damaged)
            with pytest.raises(RestoreError, match=words):
                await stage.restore(stage.config)
        # A file that is in order, whose stream is none of QEMU's.
        with stage.begun() as file:
            writer = ImageWriter(file.fileno())
            writer.machine(to_json(SavedState(_file(stage, whole)).machine))
            writer.stream(b"no stream of QEMU's" * 1000)
            writer.finish()
        with pytest.raises(ResourceError, match=r"Not a migration stream|load of migration failed"):
            await stage.restore(stage.config)
        assert all(handle.pid is None for handle in stage.handles)

    play(scene)


def _file(stage: Stage, data: bytes) -> int:
    fd = os.memfd_create("whole")
    os.write(fd, data)
    return fd


def test_what_must_be_the_same_is_named() -> None:
    machine = SavedMachine((Fact("QEMU", "7.2"), Fact("disk xvda", "virtio")), (Fact("vif0", "4.0"),))
    machine.check_same(replace(machine, vcpus=(0,)))
    for changed, words in (
        (replace(machine, facts=(Fact("QEMU", "8.2"), *machine.facts[1:])), "with QEMU 7.2, not 8.2"),
        (replace(machine, facts=machine.facts[:1]), "with disk xvda virtio, not none"),
        (replace(machine, places=()), "with other devices or vCPUs"),
        (replace(machine, vcpus=(0, 1)), "with other devices or vCPUs"),
    ):
        with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
            machine.check_same(changed)


@pytest.mark.parametrize(
    "machine",
    [
        SavedMachine((), (Fact("vif0,romfile=/x", "4.0"),)),
        SavedMachine((), (Fact("vif0", "4.0,romfile=/x"),)),
        SavedMachine((), (Fact("vif0", "4.8"),)),
        SavedMachine((), vcpus=(0, 5000)),
        SavedMachine((), vcpus=(0, 1, 1)),
        SavedMachine((), vcpus=(-1,)),
    ],
    ids=str,
)
def test_what_is_said_of_a_machine_is_no_more_than_that(machine: SavedMachine) -> None:
    with pytest.raises(RestoreError, match="nonsense"):
        machine.check()
