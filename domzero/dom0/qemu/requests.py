# SPDX-License-Identifier: Apache-2.0
"""What Domain 0 asks of a domain (`messages`), carried out by QMP; what QEMU's machine does not have is refused."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Sequence
from typing import Any

from domzero.dom0 import messages
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.life import DomainState
from domzero.dom0.messages import Answer, Done, Request
from domzero.dom0.qemu import devices
from domzero.dom0.qemu.command import cpu_id
from domzero.dom0.qemu.machine import Job, Machine
from domzero.dom0.qemu.qmp import QmpError, number, objects
from domzero.errors import ConfigError, DomzeroError

PICTURE_MAX = 64 << 20
"""Bytes of a picture, which Domain 0 reads as a whole."""
VCPUS_MAX = 1024
"""Of QEMU's list; its PCs have 288 at most."""
CPU_PLACE = ("socket-id", "die-id", "module-id", "core-id", "thread-id")
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_STATES = {
    "running": DomainState.RUNNING,
    "paused": DomainState.PAUSED,
    "prelaunch": DomainState.PAUSED,
    "suspended": DomainState.BLOCKED,
    "shutdown": DomainState.SHUTDOWN,
    "guest-panicked": DomainState.CRASHED,
    "internal-error": DomainState.CRASHED,
    "io-error": DomainState.PAUSED,
    "inmigrate": DomainState.PAUSED,
    "finish-migrate": DomainState.PAUSED,
    "postmigrate": DomainState.PAUSED,
}
_REFUSED = {
    messages.SetCap: ("cap", "QEMU bounds no processor time"),
    messages.RenewThreads: ("cpu_weight", "QEMU's vCPUs keep their threads: a weight is raised by who may do so"),
    messages.CaptureVif: ("capture", "QEMU's cards show no frames; the switch of their network does"),
}
QUESTIONS = (messages.GetStats, messages.Measure, messages.ListVcpus, messages.ListDisks, messages.ListVifs)
"""What is answered while a domain's state is being saved, too."""


async def carry_out(handle: Machine, request: Request, files: Sequence[int]) -> Answer:
    """Carries it out. DomzeroError: it cannot be; QmpGone.

    :param files: that came with it; they stay the caller's.
    """
    if refusal := _REFUSED.get(type(request)):
        key, why = refusal
        raise ConfigError(f"not for a domain of type {_type(handle).value}: {why}", key=key)
    job = _JOBS.get(type(request))
    if job is None:
        raise ConfigError(f"{type(request).__name__} is not for a domain of type {_type(handle).value}")
    try:
        return await job(handle, request, files)
    except QmpError as error:
        raise ConfigError(f"QEMU refuses: {error.message}") from error


def _type(handle: Machine) -> DomainType:
    return DomainType.HVM if handle.config is None else handle.config.type


async def _pause(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    await handle.qmp.ask("stop")
    return Done()


async def _unpause(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    await handle.qmp.ask("cont")
    return Done()


async def _press(handle: Machine, request: messages.PressButton, files: Sequence[int]) -> Answer:
    config = handle.config
    if request.how == "reboot":
        await handle.qmp.ask("system_reset")
    elif config is not None and not config.hvm.acpi:
        raise ConfigError("the domain has no ACPI, by which it is asked to power off", key="acpi", hint="destroy it")
    else:
        await handle.qmp.ask("system_powerdown")
    return Done()


async def state(handle: Machine) -> DomainState:
    """What its guest does, as QEMU says."""
    status = await handle.qmp.ask("query-status")
    return _STATES.get(str(status.get("status")) if isinstance(status, dict) else "", DomainState.RUNNING)


async def _memory_mib(handle: Machine) -> int:
    """What the guest has; all that it was built with while its balloon is not moved by a driver."""
    return number(await handle.qmp.ask("query-balloon"), "actual") >> 20


async def _stats(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    return messages.Stats(await state(handle), handle.process.cpu_ns(), await _memory_mib(handle))


async def _measure(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    return messages.Measured(
        await state(handle),
        handle.process.cpu_ns(),
        await _memory_mib(handle),
        await vcpus(handle),
        await devices.disk_stats(handle),
        await devices.vif_stats(handle),
        (),
    )


async def _audit(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    return messages.Audited(())  # there are no books of ours


async def vcpus(handle: Machine) -> tuple[messages.VcpuStats, ...]:
    """Its vCPUs: whatever QEMU says that their threads are, only its own are taken for them."""
    is_up = await state(handle) is DomainState.RUNNING
    doing = messages.VcpuState.RUNNING if is_up else messages.VcpuState.PAUSED
    found = []
    for entry in objects(await handle.qmp.ask("query-cpus-fast"), "vCPUs")[:VCPUS_MAX]:
        thread = number(entry, "thread-id")
        known = handle.process.has_thread(thread)
        affinity = tuple(sorted(os.sched_getaffinity(thread))) if known else ()
        index = number(entry, "cpu-index")
        found.append(messages.VcpuStats(index, doing, thread if known else None, affinity, 0))
    there = {vcpu.vcpu for vcpu in found}
    for index in range(0 if handle.config is None else handle.config.vcpus_max):
        if index not in there:
            found.append(messages.VcpuStats(index, messages.VcpuState.OFFLINE, None, (), 0))
    return tuple(sorted(found, key=lambda vcpu: vcpu.vcpu))


async def _set_vcpus(handle: Machine, request: messages.SetVcpus, files: Sequence[int]) -> Answer:
    """Plugs in those with the lowest numbers; those with the highest go as the guest agrees."""
    if handle.config is not None and not handle.config.hvm.acpi:
        raise ConfigError("the domain has no ACPI, by which vCPUs come and go", key="vcpus")
    places = objects(await handle.qmp.ask("query-hotpluggable-cpus"), "places of vCPUs")[:VCPUS_MAX]
    by_number = {number(place, "props", "core-id"): place for place in places}
    there = sorted(each for each, place in by_number.items() if "qom-path" in place)
    for each in sorted(by_number.keys() - set(there))[: max(0, request.count - len(there))]:
        props = by_number[each].get("props")
        where = {key: number(props, key) for key in CPU_PLACE if isinstance(props, dict) and key in props}
        await handle.qmp.ask("device_add", {"driver": str(by_number[each].get("type")), "id": cpu_id(each), **where})
    for each in list(reversed(there[1:]))[: max(0, len(there) - request.count)]:
        await handle.qmp.ask("device_del", {"id": cpu_id(each)})
    return Done()


async def _list_vcpus(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    return messages.Vcpus(await vcpus(handle))


async def _pin(handle: Machine, request: messages.PinVcpu, files: Sequence[int]) -> Answer:
    found = [vcpu for vcpu in await vcpus(handle) if request.vcpu in (None, vcpu.vcpu)]
    if not found:
        raise ConfigError(f"there is no vCPU {request.vcpu}", key="vcpu")
    for vcpu in found:
        if vcpu.thread_id is not None:
            try:
                os.sched_setaffinity(vcpu.thread_id, request.processors)
            except OSError as error:
                raise ConfigError(f"the host does not let vCPUs run there: {error.strerror}", key="cpus") from error
    return Done()


async def _nmi(handle: Machine, request: messages.SendNmi, files: Sequence[int]) -> Answer:
    await handle.qmp.ask("inject-nmi")
    return Done()


async def _limit_memory(handle: Machine, request: messages.SetMemoryLimit, files: Sequence[int]) -> Answer:
    await handle.qmp.ask("balloon", {"value": request.mib << 20})
    return Done()


async def _dump_core(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    """An ELF file of QEMU's making."""
    (fd,) = files
    await handle.qmp.ask("getfd", {"fdname": "core"}, [fd])
    await handle.qmp.ask("dump-guest-memory", {"paging": False, "protocol": "fd:core"})
    return messages.Dumped(os.fstat(fd).st_size)


def _check_screen(handle: Machine) -> None:
    if handle.config is None or not handle.config.has_screen:
        raise ConfigError("the domain has no screen", key="vga")


async def _picture(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    _check_screen(handle)
    (fd,) = files
    fdset = number(await add_fd(handle, fd, os.O_WRONLY), "fdset-id")
    try:
        await handle.qmp.ask("screendump", {"filename": f"/dev/fdset/{fdset}", "format": "png"})
    finally:
        await handle.qmp.ask("remove-fd", {"fdset-id": fdset})
    head = await asyncio.to_thread(os.pread, fd, 24, 0)
    if len(head) < 24 or head[:8] != PNG_HEAD:
        raise DomzeroError("QEMU's picture is no PNG")
    width, height = struct.unpack(">II", head[16:24])
    if (size := os.fstat(fd).st_size) > PICTURE_MAX:
        raise DomzeroError(f"QEMU's picture has {size} bytes")
    return messages.Picture(width, height, size)


async def add_fd(handle: Machine, fd: int, access: int) -> Any:
    """Gives QEMU a file, opened anew with this access, under a name that it takes for a path; `add-fd`'s answer."""
    again = os.open(f"/proc/self/fd/{fd}", access | os.O_CLOEXEC)
    try:
        return await handle.qmp.ask("add-fd", {}, [again])
    finally:
        os.close(again)


async def _add_viewer(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    _check_screen(handle)
    (fd,) = files
    await handle.add_viewer(fd, is_known=True)
    return Done()


_JOBS: dict[type, Job] = {
    messages.Pause: _pause,
    messages.Unpause: _unpause,
    messages.PressButton: _press,
    messages.GetStats: _stats,
    messages.Measure: _measure,
    messages.Audit: _audit,
    messages.ListVcpus: _list_vcpus,
    messages.PinVcpu: _pin,
    messages.SendNmi: _nmi,
    messages.SetMemoryLimit: _limit_memory,
    messages.SetVcpus: _set_vcpus,
    messages.DumpCore: _dump_core,
    messages.TakePicture: _picture,
    messages.AddViewer: _add_viewer,
    **devices.JOBS,
}

__all__ = ["carry_out", "state"]
