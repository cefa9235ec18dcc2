# SPDX-License-Identifier: Apache-2.0
"""What Domain 0 does with the network interfaces of a domain that runs. What is changed stays so at its next starts."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from functools import partial

from domzero.dom0 import networks
from domzero.dom0.device_changes import wait_gone
from domzero.dom0.device_stats import VifStats
from domzero.dom0.life import DomainState
from domzero.dom0.manager import Manager
from domzero.dom0.messages import AttachVif, CaptureVif, DetachVif, Done, ListVifs, SetVif, Vifs
from domzero.dom0.network import connect
from domzero.dom0.opening import in_thread
from domzero.dom0.records import Record
from domzero.dom0.vifspec import INTERFACES_MAX, VifSpec, changed, parse_vif
from domzero.errors import ConfigError


async def list_vifs(manager: Manager, record: Record) -> list[VifStats]:
    """The domain's network interfaces, with what its guest did with them."""
    if record.state is DomainState.HALTED:
        return [VifStats.at_rest(spec, record.uuid) for spec in record.config.vif_specs]
    return list((await manager.ask(record, ListVifs(), Vifs)).vifs)


async def attach_vif(manager: Manager, record: Record, text: str) -> VifSpec:
    """Plugs a network interface in. ConfigError."""
    parse_vif(text)
    is_halted = record.state is DomainState.HALTED
    async with record.plugging:
        taken = {each.devid for each in (record.config.vif_specs if is_halted else await list_vifs(manager, record))}
        free = next((number for number in range(INTERFACES_MAX) if number not in taken), INTERFACES_MAX)
        if free == INTERFACES_MAX:
            raise ConfigError(f"it has {INTERFACES_MAX} interfaces already", key="vif")
        spec = parse_vif(text, free)
        if not is_halted:
            with closing(await in_thread(partial(connect, spec, record.config, record.domid or 0))) as wire:
                for note in wire.notes:
                    manager.say(note)
                await manager.ask(record, AttachVif(spec.text()), Done, [wire.fileno()])
        record.config.vifs = [*(each.text() for each in record.config.vif_specs), spec.text()]
    await manager.changed(record)
    return spec


async def set_vif(manager: Manager, record: Record, devid: int, *, link: str | None, rate: str | None) -> None:
    """Changes an interface's settings; None: as it is. ConfigError."""
    async with record.plugging:
        if record.state is DomainState.HALTED:
            spec = changed(_find(record, devid), link=link, rate=rate)
        else:
            current = next((vif for vif in await list_vifs(manager, record) if vif.devid == devid), None)
            if current is None:
                raise ConfigError(f"there is no interface {devid}", key="vif")
            spec = changed(parse_vif(current.spec), link=link, rate=rate)
            await manager.ask(record, SetVif(spec.text()), Done)
        record.config.put_vif(devid, spec)
    await manager.changed(record)


async def detach_vif(manager: Manager, record: Record, devid: int, *, force: bool) -> None:
    """Takes an interface away, when the guest lets go of it or, with `force`, at once. BadState: it did not in time."""
    if record.state is DomainState.HALTED:
        record.config.put_vif(_find(record, devid).devid, None)
        await manager.changed(record)
        return

    async def is_there() -> bool:
        return any(vif.devid == devid for vif in await list_vifs(manager, record))

    async with record.plugging:  # what is plugged in at the same time is in the configuration before it is taken out
        await manager.ask(record, DetachVif(devid, force), Done)
    await wait_gone(record, f"interface {devid}", is_there, "wait for its driver")


def _find(record: Record, devid: int) -> VifSpec:
    spec = next((spec for spec in record.config.vif_specs if spec.devid == devid), None)
    if spec is None:
        raise ConfigError(f"there is no interface {devid}", key="vif")
    return spec


async def _capture_port(manager: Manager, record: Record, devid: int, *, snaplen: int, frames: int) -> socket.socket:
    """Of a card of QEMU's, which the switch of its network sees."""
    manager.check_runs(record)
    spec = _find(record, devid)
    port = await asyncio.to_thread(networks.port_of, spec, record.config)
    if port is None:
        what = f"interface {devid} is on no network of domains, whose switch would see its frames"
        raise ConfigError(what, key="capture")
    return await in_thread(partial(networks.capture_port, spec.network, port, snaplen=snaplen, frames=frames))


async def capture_vif(manager: Manager, record: Record, devid: int, *, snaplen: int, frames: int) -> socket.socket:
    """The frames of an interface from now on, as a pcapng file that is to be read until its end. ConfigError.

    :param frames: how many; 0: until the socket is shut down for writing, or closed.
    """
    if record.config.type.is_full:
        return await _capture_port(manager, record, devid, snaplen=snaplen, frames=frames)
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            await manager.ask(record, CaptureVif(devid, snaplen, frames), Done, [theirs.fileno()])
    except BaseException:
        ours.close()
        raise
    return ours
