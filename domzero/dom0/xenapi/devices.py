# SPDX-License-Identifier: Apache-2.0
"""Plugging disks and interfaces of domains in and out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from domzero.dom0 import disk_changes, vif_changes
from domzero.dom0.actions import Action, AttachDisk, AttachVif, DetachDisk, DetachVif
from domzero.dom0.diskspec import DiskSpec, device_number
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.manager import BadState
from domzero.dom0.records import Record
from domzero.dom0.vifspec import VifSpec
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.objects import HALTED, LOOSE_DISKS, LOOSE_VIFS, Device, power_state, vbds_of, vifs_of
from domzero.dom0.xenapi.values import reference
from domzero.dom0.xenapi.world import Call, World

S = TypeVar("S", bound=DiskSpec | VifSpec)
LETTERS = 26
IDE_DISKS = 4


def vdev_of(userdevice: str, vm: Record) -> str:
    """A disk's name in its guest, by XenAPI's number or by the name itself. Failure.

    Number 0 is xvda; of an HVM domain hda, where any system finds it, up to 3.
    """
    if re.fullmatch("[0-9]{1,6}", userdevice):
        number = int(userdevice)
        if vm.config.type is DomainType.HVM and number < IDE_DISKS:
            return f"hd{chr(ord('a') + number)}"
        return f"xvd{chr(ord('a') + number)}" if number < LETTERS else f"d{number}p0"
    return userdevice


def free_vdev(world: World, vm: Record) -> str:
    """The first name of a disk that a domain does not have."""
    taken = {vbd.spec.devid for vbd in vbds_of(world, vm)}
    for number in range(256):
        if device_number(vdev := vdev_of(str(number), vm)) not in taken:
            return vdev
    raise Failure("DEVICE_ALREADY_EXISTS", "autodetect")


@dataclass(frozen=True)
class Plugs(Generic[S]):
    """Plugging in and out of devices of one class.

    :param of: all that a domain has.
    :param loose_name: under which those are kept that are not plugged in.
    :param text: a specification as Domain 0 has it.
    :param attach: Domain 0's action that plugs one in.
    :param detach: its action that takes one out; the flag: even if the guest uses it.
    """

    of: Callable[[World, Record], Sequence[Device[S]]]
    loose_name: str
    text: Callable[[S], str]
    attach: Callable[[Record, S], Action[Any]]
    detach: Callable[[Record, S, bool], Action[Any]]

    def loose(self, world: World, vm: Record) -> list[S]:
        """Those of a domain that are not plugged in."""
        return [device.spec for device in self.of(world, vm) if device.loose]

    def keep_loose(self, world: World, vm: Record, specs: Iterable[S]) -> None:
        """Says which of a domain are not plugged in."""
        world.fields.put(vm.uuid, self.loose_name, [self.text(spec) for spec in specs])

    def replace_loose(self, world: World, device: Device[S], *changed: S) -> None:
        """Puts another one in the place of one that is not plugged in, or none."""
        rest = [spec for spec in self.loose(world, device.vm) if spec.devid != device.spec.devid]
        self.keep_loose(world, device.vm, [*rest, *changed])

    async def add(self, call: Call, vm: Record, spec: S, about: UUID) -> None:
        """Gives a domain one; a domain that runs has it when it is plugged in.

        :param about: what its identity will be.
        """
        attach = self.attach(vm, spec)
        if power_state(vm) == HALTED:
            await call.do(attach)
            return

        async def keep() -> None:
            self.keep_loose(call.world, vm, [*self.loose(call.world, vm), spec])

        await call.do_instead(attach, keep, about)

    async def change(self, call: Call, device: Device[S], changed: S, action: Action[Any] | None = None) -> None:
        """Changes one that is not plugged in.

        :param action: that would change one that is; None: plugging it in as it will be.
        """

        async def keep() -> None:
            self.replace_loose(call.world, device, changed)

        await call.do_instead(action or self.attach(device.vm, changed), keep, device.id)

    async def plug(self, call: Call, device: Device[S]) -> None:
        """Plugs a loose one into a domain that runs."""
        await call.do(self.attach(device.vm, device.spec))
        self.replace_loose(call.world, device)

    async def unplug(self, call: Call, device: Device[S], *, force: bool) -> None:
        """Takes one out of a domain that runs; it is loose then."""
        try:
            await call.do(self.detach(device.vm, device.spec, force))
        except BadState as error:
            raise Failure("DEVICE_DETACH_REJECTED", device.kind, reference(device.id), str(error)) from error
        self.keep_loose(call.world, device.vm, [*self.loose(call.world, device.vm), device.spec])

    async def remove(self, call: Call, device: Device[S]) -> None:
        """Takes one from a domain that does not have it now."""
        detach = self.detach(device.vm, device.spec, False)

        async def forget() -> None:
            self.replace_loose(call.world, device)

        if device.loose:
            await call.do_instead(detach, forget, device.id)
        else:
            await call.do(detach)
        call.world.fields.forget(device.id)


DISKS: Plugs[DiskSpec] = Plugs(
    vbds_of,
    LOOSE_DISKS,
    lambda spec: spec.text(spec.target),
    lambda vm, spec: AttachDisk(domain=vm.uuid, spec=spec.text(spec.target)),
    lambda vm, spec, force: DetachDisk(domain=vm.uuid, vdev=spec.vdev, force=force),
)
VIFS: Plugs[VifSpec] = Plugs(
    vifs_of,
    LOOSE_VIFS,
    lambda spec: spec.text(),
    lambda vm, spec: AttachVif(domain=vm.uuid, spec=spec.text()),
    lambda vm, spec, force: DetachVif(domain=vm.uuid, devid=spec.devid, force=force),
)


async def plug_all(call: Call, vm: Record) -> None:
    """Puts a halted domain's loose devices into its configuration: it starts with all that it has."""
    world = call.world
    if power_state(vm) != HALTED:
        return
    for spec in DISKS.loose(world, vm):
        await disk_changes.attach_disk(world.manager, vm, DISKS.text(spec))
    for vif in VIFS.loose(world, vm):
        await vif_changes.attach_vif(world.manager, vm, VIFS.text(vif))
    for plugs in (DISKS, VIFS):
        if world.fields.get(vm.uuid, plugs.loose_name, []):
            world.fields.put(vm.uuid, plugs.loose_name, [])
