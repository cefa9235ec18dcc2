# SPDX-License-Identifier: Apache-2.0
"""Saving domains and going on with them: what Domain 0 does for it.

A PV guest suspends itself when it is asked to (control/shutdown), a machine of QEMU's stands still; it is written to a
file, which gets its name when it is whole; and the domain ends, or goes on as if it had not been suspended. Whatever
fails or is given up in between lets it go on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from domzero import __version__
from domzero.dom0.about import About
from domzero.dom0.config import DomainConfig
from domzero.dom0.corefile import CoreFile
from domzero.dom0.domain_image import read_config
from domzero.dom0.json_values import to_json
from domzero.dom0.life import DomainState, End, EndReason
from domzero.dom0.manager import BadState, Manager, NoAnswer
from domzero.dom0.messages import Done, ExpectSuspend, GoOn, Save, Saved
from domzero.dom0.names import is_text
from domzero.dom0.opening import in_thread
from domzero.dom0.paths import suspended_directory
from domzero.dom0.records import Record, Saving
from domzero.dom0.save_format import ImageReader, begin
from domzero.dom0.saved_files import remove_saved
from domzero.dom0.tasks import report_domain, report_progress, report_step
from domzero.dom0.xenstore_nodes import home
from domzero.errors import ConfigError, DomzeroError
from domzero.hypervisor.saved import RestoreError

ANSWER_SECONDS = 60.0
"""A guest may take to begin to suspend itself, and as long again to do it, as with libxl."""
LOOK_SECONDS = 0.1
GUEST_SHARE = 0.1
"""Of a task's progress, when the guest has suspended itself."""


async def suspend(manager: Manager, record: Record) -> None:
    """Suspends a defined domain to a file of Domain 0's; it is there until it is resumed. BadState, NoAnswer."""
    if not record.persistent:
        raise BadState(f"domain {record.name} is not defined", hint="save it to a file")
    path = suspended_directory(manager.database.path) / f"{record.uuid}.save"
    with _being_saved(manager, record):
        description = _description(record, None)
        await _write(manager, record, path, description)
        record.saved = str(path)
        await manager.changed(record)  # from here on it is suspended, whatever comes
        await manager.end(record, End(EndReason.SUSPEND))
        try:
            await asyncio.to_thread(check_head, str(path), description)
        except RestoreError:
            await manager.destroy(record)
            raise
    manager.say(f"domain {record.name} is suspended")


async def save(
    manager: Manager,
    record: Record,
    path: str,
    *,
    leave_running: bool = False,
    leave_paused: bool = False,
    config: DomainConfig | None = None,
) -> int:
    """Saves a domain to a file of the host; it ends, unless it is to go on. BadState, NoAnswer, ConfigError.

    :param config: with which it is restored, instead of its own; with as many vCPUs, as much memory, the same devices.
    :returns: bytes of the file.
    """
    with _being_saved(manager, record):
        if config is not None:
            config.check()
            check_fits(config, record.config)
        description = _description(record, config)
        size = await _write(manager, record, Path(path), description)
        if not (leave_running or leave_paused):
            await manager.end(record, End(EndReason.SUSPEND, (f"saved to {path}",)))
        else:
            if leave_paused:
                await manager.pause(record)
            await _go_on(manager, record)
    await asyncio.to_thread(check_head, path, description)
    return size


@contextmanager
def _being_saved(manager: Manager, record: Record) -> Iterator[None]:
    manager.check_runs(record)
    if record.saving is not None:
        raise BadState(f"domain {record.name} is being saved already")
    if record.state is DomainState.PAUSED and not record.config.type.is_full:
        raise BadState(f"domain {record.name} is paused, and does not suspend itself", hint="unpause it first")
    record.saving = Saving()
    try:
        yield
    finally:
        record.saving = None


async def _write(manager: Manager, record: Record, path: Path, description: dict[str, Any]) -> int:
    with closing(await in_thread(partial(_begun, path, description))) as file:
        await manager.ask(record, ExpectSuspend(), Done)
        try:
            if not record.config.type.is_full:
                await _suspend_guest(manager, record)
            report_step("memory is written")
            saved = await _written(record, file.fd)
            await in_thread(file.keep)
        except BaseException:
            with suppress(DomzeroError):
                await asyncio.shield(_go_on(manager, record))
            raise
    return saved.bytes


def _begun(path: Path, description: dict[str, Any]) -> CoreFile:
    file = CoreFile(path)
    try:
        begin(file.fd, description)
    except OSError as error:
        file.close()
        raise ConfigError(f"the file could not be written: {error.strerror}", key="path") from error
    return file


def _description(record: Record, other: DomainConfig | None) -> dict[str, Any]:
    """What is needed to start it again: with the memory that its balloon is at, and the devices that it has."""
    config = other or record.config
    now = dataclasses.replace(
        config, memory_mib=record.memory_target_mib or config.memory_mib, maxmem_mib=config.static_max_mib, paused=False
    )
    return {
        "config": to_json(now),
        "description": record.about.description,
        "labels": record.about.labels,
        "saved_at": time.time(),
        "by": __version__,
    }


async def _suspend_guest(manager: Manager, record: Record) -> None:
    """Asks the guest, and waits until it has suspended itself. NoAnswer: it has not; BadState: it ended."""
    node = f"{home(record.domid or 0)}/control/shutdown"
    report_step("the guest suspends itself")
    manager.store.write(node, "suspend")
    until, accepted = time.monotonic() + ANSWER_SECONDS, False
    while not await _suspended(record):
        if not record.is_up:
            raise BadState(f"domain {record.name} has ended, and is not saved")
        if time.monotonic() < until:
            continue
        if accepted or manager.store.read(node) == "suspend":
            manager.store.write(node, "")
            raise NoAnswer(
                f"the guest of domain {record.name} does not suspend itself",
                hint="it needs a kernel that knows control/shutdown, and to have started; it goes on",
            )
        until, accepted = time.monotonic() + ANSWER_SECONDS, True  # it has begun to
    report_progress(GUEST_SHARE)


async def _suspended(record: Record) -> bool:
    saving = record.saving
    assert saving is not None
    with suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(saving.suspended.wait(), LOOK_SECONDS)
    return saving.suspended.is_set()


async def _written(record: Record, fd: int) -> Saved:
    saving, worker = record.saving, record.worker
    assert saving is not None
    if worker is None:
        raise BadState(f"domain {record.name} has ended, and is not saved")
    request = asyncio.ensure_future(worker.request(Save(), Saved, [fd]))
    try:
        while not request.done():
            await asyncio.wait({request}, timeout=LOOK_SECONDS)
            report_progress(GUEST_SHARE + (1 - GUEST_SHARE) * saving.progress)
        return request.result()
    finally:
        request.cancel()


async def _go_on(manager: Manager, record: Record) -> None:
    if record.is_up and record.worker is not None:
        manager.store.write(f"{home(record.domid or 0)}/control/shutdown", "")
        await record.worker.request(GoOn(), Done)


@asynccontextmanager
async def _reporting(record: Record) -> AsyncIterator[None]:
    """Its worker says how far it has read a file, and the task says so."""
    saving = record.saving = Saving()

    async def report() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            report_progress(saving.progress)

    job = asyncio.get_running_loop().create_task(report())
    try:
        yield
    finally:
        job.cancel()
        record.saving = None


async def resume(manager: Manager, record: Record, *, paused: bool = False) -> None:
    """Goes on with a suspended domain. BadState; RestoreError: its file is damaged, and it stays suspended."""
    if record.state is not DomainState.SUSPENDED or record.saved is None:
        raise BadState(f"domain {record.name} is {record.state.value}")
    with closing(await in_thread(partial(SavedFile, record.saved))) as file:
        config, before = file.config, record.config
        config.uuid, config.name = record.uuid, record.name
        record.config = config
        try:
            async with _reporting(record):
                await manager.begin(record, paused=True, persistent=True, saved=file.fd)
        except BaseException:
            record.config = before
            await manager.changed(record)
            raise
    path, record.saved = record.saved, None
    try:
        # It does not run before this is written down: it would change its disks under its file.
        await manager.changed(record)
        remove_saved(path)
    finally:
        if not paused and record.is_up:
            await manager.unpause(record)
    manager.say(f"domain {record.name} goes on from where it was suspended")


async def restore(
    manager: Manager,
    path: str,
    *,
    paused: bool = False,
    name: str | None = None,
    config: DomainConfig | None = None,
    persistent: bool = False,
) -> Record:
    """Makes a domain of what `save` has written. ConfigError, RestoreError, NameInUse.

    :param name: other than the saved one's; it gets a uuid of its own then.
    :param config: in place of the saved one, with as many vCPUs, as much memory and the same devices.
    """
    try:
        with closing(await in_thread(partial(SavedFile, path))) as file:
            wanted = config or file.config
            if config is not None:
                check_fits(config, file.config)
            if name is not None and name != wanted.name:
                wanted = dataclasses.replace(wanted, name=name, uuid=uuid4())
            if wanted.type.is_full:
                _keep_addresses(wanted, file.config)
            wanted.check()
            manager.roster.check_unique(wanted.name, wanted.uuid)
            record = Record(wanted, about=file.about)
            record.about.check()
            report_domain(record.uuid)
            async with _reporting(record):
                await manager.begin(record, paused=True, persistent=persistent, saved=file.fd)
            if not paused and record.is_up:
                await manager.unpause(record)
    except RestoreError as error:
        raise RestoreError(f"{path}: {error.message}", hint=error.hint) from error
    manager.say(f"domain {record.name} goes on from {path}")
    return record


def _keep_addresses(config: DomainConfig, saved: DomainConfig) -> None:
    """Cards of QEMU's have the addresses that the guest knows, also those that follow from the uuid that it had."""
    known = {vif.devid: vif.mac_of(saved.uuid) for vif in saved.vif_specs}
    for vif in config.vif_specs:
        if vif.devid in known and vif.mac is None:
            config.put_vif(vif.devid, dataclasses.replace(vif, mac=known[vif.devid]))


def check_fits(config: DomainConfig, saved: DomainConfig) -> None:
    """A guest that goes on finds what it had: ConfigError names what it would not."""
    same = (
        ("vcpus", config.vcpus_max, saved.vcpus_max),
        ("maxmem", config.static_max_mib, saved.static_max_mib),
        ("disk", [disk.vdev for disk in config.disk_specs], [disk.vdev for disk in saved.disk_specs]),
        ("vif", [vif.devid for vif in config.vif_specs], [vif.devid for vif in saved.vif_specs]),
    )
    for key, wanted, had in same:
        if wanted != had:
            raise ConfigError(f"the saved domain has {had}, not {wanted}", key=key)


def check_head(path: str, description: dict[str, Any]) -> None:
    """Looks whether a file still says of its domain what Domain 0 wrote into it. A worker that is its guest's could say
    something else there, such as another disk, which would be opened when the domain goes on. RestoreError."""
    with closing(SavedFile(path)) as file:
        if file.description != json.loads(json.dumps(description)):
            raise RestoreError("the file does not say what Domain 0 wrote: its worker has changed it")


class SavedFile:
    """The file of a saved domain, open at `fd`, with what it says of it: checked, but for what its worker reads.

    :raises ConfigError: it cannot be opened. RestoreError: it is none, or damaged.
    """

    def __init__(self, path: str) -> None:
        if not is_text(path) or not os.path.isabs(path):
            raise ConfigError("an absolute path of UTF-8 text is needed", key="path")
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}", key="path") from error
        try:
            if not stat.S_ISREG(os.fstat(self.fd).st_mode):
                raise ConfigError(f"{path} is no regular file", key="path")
            self.description = description = ImageReader(self.fd).description()
            self.config = _config(description)
            self.about = _about(description)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of it."""
        os.close(self.fd)


def _config(description: dict[str, Any]) -> DomainConfig:
    try:
        return read_config(description)
    except RestoreError:
        raise
    except DomzeroError as error:
        raise RestoreError(f"the saved domain: {error}", key=error.key, hint=error.hint) from error


def _about(description: dict[str, Any]) -> About:
    text, labels = description.get("description"), description.get("labels")
    is_labels = isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values())
    return About(description=text if isinstance(text, str) else "", labels=labels if is_labels and labels else {})


__all__ = ["ANSWER_SECONDS", "SavedFile", "restore", "resume", "save", "suspend"]
