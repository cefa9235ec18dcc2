# SPDX-License-Identifier: Apache-2.0
"""How VMs are made: from a record, and from others."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

from domzero.dom0.about import About
from domzero.dom0.actions import ChangeDomain, CopyDisk, DefineDomain
from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.diskspec import DiskFormat, DiskSpec
from domzero.dom0.records import Record
from domzero.dom0.storage import Disk
from domzero.dom0.xenapi.classes.vm_changes import MIB, bad_state, check_not_blocked
from domzero.dom0.xenapi.classes.vm_messages import domain
from domzero.dom0.xenapi.classes.vm_processors import PARAMS, settings
from domzero.dom0.xenapi.classes.vm_types import BOOT_PARAMS, DOMAIN_TYPE, options_of, type_of
from domzero.dom0.xenapi.construct import Given, keep
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.objects import HALTED, LOOSE_DISKS, LOOSE_VIFS, power_state
from domzero.dom0.xenapi.storage import vdi_of
from domzero.dom0.xenapi.table import Field, Found, Message, message
from domzero.dom0.xenapi.values import BOOL, INT, STRING, STRING_MAP, Enum, Ref, reference
from domzero.dom0.xenapi.values import Record as RecordType
from domzero.dom0.xenapi.world import Call

_ACTION = Enum(
    "enum on_crash_behaviour",
    ("destroy", "restart", "preserve", "coredump_and_destroy", "coredump_and_restart", "rename_restart"),
)
DEFAULT_MEMORY = 256 * MIB


def _action(given: Given, name: str, default: Action) -> Action:
    word = given.get(name, _ACTION, default.value.replace("-", "_and_"))
    return Action.RESTART if word == "rename_restart" else Action(word.replace("_and_", "-"))


def _config(given: Given) -> DomainConfig:
    most = given.get("memory_static_max", INT, DEFAULT_MEMORY)
    memory = given.get("memory_dynamic_max", INT, most)
    vcpus_max = given.get("VCPUs_max", INT, 1)
    kind = type_of(given.get("domain_type", DOMAIN_TYPE, "unspecified"), given.get("HVM_boot_policy", STRING, ""))
    return DomainConfig(
        kernel=given.get("PV_kernel", STRING, ""),
        ramdisk=given.get("PV_ramdisk", STRING, "") or None,
        cmdline=given.get("PV_args", STRING, ""),
        name=given.need("name_label", STRING),
        uuid=uuid4(),
        type=kind,
        hvm=options_of(given.get(BOOT_PARAMS, STRING_MAP, {})),
        memory_mib=memory // MIB,
        maxmem_mib=most // MIB,
        **settings(given.get(PARAMS, STRING_MAP, {}), vcpus_max),
        vcpus=given.get("VCPUs_at_startup", INT, vcpus_max),
        max_vcpus=vcpus_max,
        on_poweroff=_action(given, "actions_after_shutdown", Action.DESTROY),
        on_reboot=_action(given, "actions_after_reboot", Action.RESTART),
        on_crash=_action(given, "actions_after_crash", Action.DESTROY),
    )


def messages(fields: tuple[Field, ...]) -> tuple[Message, ...]:
    """Those that make VMs.

    :param fields: of a VM: which ones are the clients' own.
    """

    async def create(call: Call, values: dict[str, object]) -> UUID:
        """VM.create."""
        given = Given(values)
        about = About(
            description=given.get("name_description", STRING, ""),
            labels=given.get("other_config", STRING_MAP, {}),
            template=given.get("is_a_template", BOOL, False),
        )
        config, own = _config(given), given.kept(fields)
        if params := given.get(BOOT_PARAMS, STRING_MAP, {}):
            own[BOOT_PARAMS] = params
        if params := given.get(PARAMS, STRING_MAP, {}):
            own[PARAMS] = params
        record = await call.do(DefineDomain(config=config, about=about, startable=False))
        keep(call.world, record.uuid, own)
        return record.uuid

    self = Ref("VM")
    return (
        message("create", create, self, args=RecordType("VM")),
        message("clone", _clone, self, vm=self, new_name=STRING),
        message("copy", _copy, self, vm=self, new_name=STRING, sr=Ref("SR", nullable=True)),
        message("provision", _provision, vm=self),
    )


async def _clone(call: Call, vm: Found, new_name: str) -> UUID:
    """VM.clone: with disks of its own, that share blocks with the old ones where the file system can."""
    return await _duplicate(call, vm.it, new_name, None)


async def _copy(call: Call, vm: Found, new_name: str, sr: Found | None) -> UUID:
    """VM.copy: the same, with the disks in another SR."""
    return await _duplicate(call, vm.it, new_name, None if sr is None else sr.identity)


async def _provision(call: Call, vm: Found) -> None:
    """VM.provision: a clone of a template becomes a VM."""
    record = domain(call, vm)
    await call.do(ChangeDomain(domain=record.uuid, about=replace(record.about, template=False)))


async def _duplicate(call: Call, vm: Record, name: str, sr: UUID | None) -> UUID:
    world = call.world
    check_not_blocked(world, vm, call.message.removeprefix("VM."))
    if vm is world.control_domain or power_state(vm) != HALTED:
        raise bad_state(vm, HALTED)
    config = replace(
        vm.config, name=name, uuid=uuid4(), vifs=[replace(vif, mac=None).text() for vif in vm.config.vif_specs]
    )
    about = replace(vm.about, labels=dict(vm.about.labels), autostart=False)
    config.check(startable=False)
    call.check(DefineDomain(config=config, about=about, startable=False))
    world.manager.roster.check_unique(name, None)
    made: list[Disk] = []
    try:
        config.disks = [await _duplicate_disk(call, spec, sr, made) for spec in vm.config.disk_specs]
        record = await call.do(DefineDomain(config=config, about=about, startable=False))
    except BaseException:
        for disk in made:
            await world.storage.delete(disk)
        raise
    world.fields.copy(vm.uuid, record.uuid)
    for loose in (LOOSE_DISKS, LOOSE_VIFS):
        world.fields.put(record.uuid, loose, [])
    return record.uuid


async def _duplicate_disk(call: Call, spec: DiskSpec, sr: UUID | None, made: list[Disk]) -> str:
    """The specification of a copy of a disk that a guest may write; of others, of the same."""
    if not spec.target or spec.is_cdrom or not spec.writable:
        return spec.text(spec.target)
    world = call.world
    identity = vdi_of(world, spec)
    disk = next((each for each in world.storage.disks() if each.uuid == identity), None)
    if disk is None:
        raise Failure("VDI_NOT_MANAGED", reference(identity))
    copy = await call.do(CopyDisk(storage=world.storage, disk=disk.uuid, repository=sr))
    made.append(copy)
    return replace(spec, format=DiskFormat(copy.format)).text(str(copy.path))
