# SPDX-License-Identifier: Apache-2.0
"""VM: domains. Its fields; what is done with one is in `vm_messages`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from domzero.dom0 import freshness
from domzero.dom0.actors import Role
from domzero.dom0.config import Action
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.records import Record
from domzero.dom0.xenapi import objects
from domzero.dom0.xenapi.classes.vm_changes import (
    BLOCKED,
    blocked_operations,
    put_about,
    put_action,
    put_cmdline,
    put_kernel,
    put_name,
    put_ramdisk,
    put_template,
)
from domzero.dom0.xenapi.classes.vm_making import messages as making
from domzero.dom0.xenapi.classes.vm_messages import MESSAGES, allowed_operations
from domzero.dom0.xenapi.classes.vm_processors import PARAMS, params_of, put_params
from domzero.dom0.xenapi.classes.vm_types import BOOT_PARAMS, DOMAIN_TYPE, boot_params, boot_policy, put_boot_params
from domzero.dom0.xenapi.guest_agent import said
from domzero.dom0.xenapi.objects import HALTED, is_there, power_state
from domzero.dom0.xenapi.table import Field, Found, Kind, kept, message, ro, rw
from domzero.dom0.xenapi.values import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP, STRINGS, Enum, Map, Ref, Set
from domzero.dom0.xenapi.values import Record as RecordType
from domzero.dom0.xenapi.world import Call, World

MIB = 1 << 20
_OPERATIONS = (
    "snapshot clone copy create_template revert checkpoint snapshot_with_quiesce provision start start_on pause "
    "unpause clean_shutdown clean_reboot hard_shutdown power_state_reset hard_reboot suspend csvm resume resume_on "
    "pool_migrate migrate_send get_boot_record send_sysrq send_trigger query_services shutdown call_plugin "
    "changing_memory_live awaiting_memory_live changing_dynamic_range changing_static_range changing_memory_limits "
    "changing_shadow_memory changing_shadow_memory_live changing_VCPUs changing_VCPUs_live changing_NVRAM "
    "assert_operation_valid data_source_op update_allowed_operations make_into_template import export "
    "metadata_export reverting destroy create_vtpm sysprep"
)
OPERATION = Enum("enum vm_operations", tuple(_OPERATIONS.split()))
ON_NORMAL_EXIT = Enum("enum on_normal_exit", ("destroy", "restart"))
ON_SOFTREBOOT = Enum("enum on_softreboot_behavior", ("soft_reboot", "destroy", "restart", "preserve"))
CRASHES = {
    Action.DESTROY: "destroy",
    Action.COREDUMP_DESTROY: "coredump_and_destroy",
    Action.RESTART: "restart",
    Action.COREDUMP_RESTART: "coredump_and_restart",
    Action.PRESERVE: "preserve",
}
ON_CRASH = Enum("enum on_crash_behaviour", tuple(CRASHES.values()))


def _on_normal_exit(action: Action) -> str:
    return "restart" if action.after_dump is Action.RESTART else "destroy"


def _is_running(vm: Record) -> bool:
    return is_there(vm)


def _current_memory(vm: Record) -> int:
    return (vm.current_memory_mib or vm.config.memory_mib) * MIB


FIELDS: tuple[Field, ...] = (
    ro("uuid", STRING, lambda w, vm: vm.uuid),
    ro("allowed_operations", Set(OPERATION),
       lambda w, vm: [each for each in allowed_operations(vm, is_domain=vm is not w.control_domain)
                      if each not in blocked_operations(w, vm)]),
    ro("current_operations", Map(STRING, OPERATION), default={}),
    rw("name_label", STRING, lambda w, vm: vm.name, put_name),
    rw("name_description", STRING, lambda w, vm: vm.about.description, put_about("description")),
    ro("power_state", Enum("enum vm_power_state"), lambda w, vm: power_state(vm)),
    kept("user_version", INT, 1),
    rw("is_a_template", BOOL, lambda w, vm: vm.about.template, put_template),
    ro("is_default_template", BOOL, lambda w, vm: vm is w.template),
    rw("suspend_VDI", Ref("VDI", nullable=True), lambda w, vm: None, None),
    ro("resident_on", Ref("host"), lambda w, vm: w.host if _is_running(vm) else None),
    ro("scheduled_to_be_resident_on", Ref("host")),
    Field("affinity", Ref("host", nullable=True), default=None, kept=True, writable=True),
    ro("memory_overhead", INT, default=0),
    ro("memory_target", INT, lambda w, vm: (vm.memory_target_mib or vm.config.memory_mib) * MIB),
    ro("memory_static_max", INT, lambda w, vm: vm.config.static_max_mib * MIB),
    ro("memory_dynamic_max", INT, lambda w, vm: (vm.memory_target_mib or vm.config.memory_mib) * MIB),
    ro("memory_dynamic_min", INT, lambda w, vm: (vm.memory_target_mib or vm.config.memory_mib) * MIB),
    ro("memory_static_min", INT, default=0),
    rw(PARAMS, STRING_MAP, params_of, put_params),
    ro("VCPUs_max", INT, lambda w, vm: vm.config.vcpus_max),
    ro("VCPUs_at_startup", INT, lambda w, vm: vm.config.vcpus),
    ro("actions_after_softreboot", ON_SOFTREBOOT, default="destroy"),
    rw("actions_after_shutdown", ON_NORMAL_EXIT, lambda w, vm: _on_normal_exit(vm.config.on_poweroff),
       put_action("on_poweroff")),
    rw("actions_after_reboot", ON_NORMAL_EXIT, lambda w, vm: _on_normal_exit(vm.config.on_reboot),
       put_action("on_reboot")),
    rw("actions_after_crash", ON_CRASH, lambda w, vm: CRASHES[vm.config.on_crash], put_action("on_crash")),
    ro("consoles", Set(Ref("console")), lambda w, vm: _consoles(w, vm)),
    ro("VIFs", Set(Ref("VIF")), lambda w, vm: [vif.id for vif in objects.vifs_of(w, vm)]),
    ro("VBDs", Set(Ref("VBD")), lambda w, vm: [vbd.id for vbd in objects.vbds_of(w, vm)]),
    ro("VUSBs", Set(Ref("VUSB")), default=[]),
    ro("crash_dumps", Set(Ref("crashdump")), default=[]),
    ro("VTPMs", Set(Ref("VTPM")), default=[]),
    kept("PV_bootloader", STRING),
    rw("PV_kernel", STRING, lambda w, vm: vm.config.kernel, put_kernel),
    rw("PV_ramdisk", STRING, lambda w, vm: vm.config.ramdisk or "", put_ramdisk),
    rw("PV_args", STRING, lambda w, vm: vm.config.cmdline, put_cmdline),
    kept("PV_bootloader_args", STRING),
    kept("PV_legacy_args", STRING),
    ro("HVM_boot_policy", STRING, lambda w, vm: boot_policy(vm)),
    rw(BOOT_PARAMS, STRING_MAP, boot_params, put_boot_params),
    ro("HVM_shadow_multiplier", FLOAT, default=1.0),
    kept("platform"),
    kept("PCI_bus", STRING),
    rw("other_config", STRING_MAP, lambda w, vm: vm.about.labels, put_about("labels")),
    ro("domid", INT, lambda w, vm: -1 if power_state(vm) == HALTED or vm.domid is None else vm.domid),
    ro("domarch", STRING, default="x86_64"),
    ro("last_boot_CPU_flags", STRING_MAP, default={}),
    ro("is_control_domain", BOOL, lambda w, vm: vm is w.control_domain),
    ro("metrics", Ref("VM_metrics"), lambda w, vm: objects.metrics_id(vm)),
    ro("guest_metrics", Ref("VM_guest_metrics"),
       lambda w, vm: objects.guest_metrics_id(vm) if _has_console(w, vm) else None),
    ro("last_booted_record", STRING, default=""),
    kept("recommendations", STRING),
    kept("xenstore_data"),
    ro("ha_always_run", BOOL, default=False),
    ro("ha_restart_priority", STRING, default=""),
    ro("is_a_snapshot", BOOL, default=False),
    ro("snapshot_of", Ref("VM")),
    ro("snapshots", Set(Ref("VM")), default=[]),
    ro("snapshot_time", DATETIME, default=0),
    ro("transportable_snapshot_id", STRING, default=""),
    ro("blobs", Map(STRING, Ref("blob")), default={}),
    kept("tags", STRINGS),
    kept(BLOCKED, Map(OPERATION, STRING)),
    ro("snapshot_info", STRING_MAP, default={}),
    ro("snapshot_metadata", STRING, default=""),
    ro("parent", Ref("VM")),
    ro("children", Set(Ref("VM")), default=[]),
    ro("bios_strings", STRING_MAP, default={}),
    ro("protection_policy", Ref("VMPP")),
    ro("is_snapshot_from_vmpp", BOOL, default=False),
    ro("snapshot_schedule", Ref("VMSS")),
    ro("is_vmss_snapshot", BOOL, default=False),
    ro("appliance", Ref("VM_appliance")),
    ro("start_delay", INT, default=0),
    ro("shutdown_delay", INT, default=0),
    ro("order", INT, default=0),
    ro("VGPUs", Set(Ref("VGPU")), default=[]),
    ro("attached_PCIs", Set(Ref("PCI")), default=[]),
    rw("suspend_SR", Ref("SR", nullable=True), lambda w, vm: None, None),
    ro("version", INT, default=0),
    ro("generation_id", STRING, default=""),
    rw("hardware_platform_version", INT, lambda w, vm: 0, None),
    ro("has_vendor_device", BOOL, default=False),
    ro("requires_reboot", BOOL, default=False),
    ro("reference_label", STRING, default=""),
    ro("domain_type", DOMAIN_TYPE, lambda w, vm: vm.config.type.value),
    ro("NVRAM", STRING_MAP, default={}),
    ro("pending_guidances", Set(Enum("enum update_guidances")), default=[]),
    ro("pending_guidances_recommended", Set(Enum("enum update_guidances")), default=[]),
    ro("pending_guidances_full", Set(Enum("enum update_guidances")), default=[]),
    ro("groups", Set(Ref("VM_group")), default=[]),
)  # fmt: skip


def _consoles(world: World, vm: Record) -> list[UUID]:
    return [console.id for console in objects.consoles_of(vm)] if vm is not world.control_domain else []


def _has_console(world: World, vm: Record) -> bool:
    return _is_running(vm) and vm is not world.control_domain


async def refresh(world: World, records: Iterable[Record]) -> None:
    """Asks the workers what domains use now."""
    await asyncio.gather(*(freshness.refresh(record) for record in records if record.worker is not None))


async def _boot_record(call: Call, vm: Found) -> Any:
    """VM.get_boot_record: what it runs with is in its record."""
    await refresh(call.world, [vm.it])
    return VM.record(call.world, vm.identity, vm.it)


VM = Kind(
    "VM",
    FIELDS,
    World.records,
    find=World.record,
    prepare=refresh,
    role=Role.VM_ADMIN,
    explicit=(
        *MESSAGES,
        *making(FIELDS),
        message("get_boot_record", _boot_record, RecordType("VM"), self=Ref("VM")),
    ),
)


def _all_metrics(world: World) -> dict[UUID, Record]:
    return {objects.metrics_id(record): record for record in world.records().values()}


def _state(vm: Record) -> list[str]:
    return [vm.state.value]


VM_METRICS = Kind(
    "VM_metrics",
    (
        ro("uuid", STRING, lambda w, vm: objects.metrics_id(vm)),
        ro("memory_actual", INT, lambda w, vm: _current_memory(vm) if _is_running(vm) else 0, volatile=True),
        ro("VCPUs_number", INT, lambda w, vm: vm.config.vcpus if _is_running(vm) else 0),
        ro("VCPUs_utilisation", Map(INT, FLOAT), default={}),
        ro("VCPUs_CPU", Map(INT, INT), default={}),
        ro("VCPUs_params", STRING_MAP, default={}),
        ro("VCPUs_flags", Map(INT, STRINGS), default={}),
        ro("state", STRINGS, lambda w, vm: _state(vm), volatile=True),
        ro("start_time", DATETIME, lambda w, vm: vm.started_at or 0),
        ro("install_time", DATETIME, lambda w, vm: vm.created_at),
        ro("last_updated", DATETIME, lambda w, vm: vm.started_at or vm.created_at, volatile=True),
        kept("other_config"),
        ro("hvm", BOOL, lambda w, vm: vm.config.type is DomainType.HVM and _is_running(vm)),
        ro("nested_virt", BOOL, default=False),
        ro("nomigrate", BOOL, default=True),
        ro(
            "current_domain_type", DOMAIN_TYPE, lambda w, vm: vm.config.type.value if _is_running(vm) else "unspecified"
        ),
    ),
    _all_metrics,
    prepare=refresh,
)


def _all_guest_metrics(world: World) -> dict[UUID, Record]:
    return {objects.guest_metrics_id(vm): vm for vm in objects.domains(world) if _is_running(vm)}


def _hotplug(vm: Record) -> str:
    return "unspecified" if vm.config.type.is_full else "yes"


VM_GUEST_METRICS = Kind(
    "VM_guest_metrics",
    (
        ro("uuid", STRING, lambda w, vm: objects.guest_metrics_id(vm)),
        ro("os_version", STRING_MAP, lambda w, vm: said(w, vm).os),
        ro("netbios_name", STRING_MAP, default={}),
        ro("PV_drivers_version", STRING_MAP, lambda w, vm: said(w, vm).drivers),
        ro("PV_drivers_up_to_date", BOOL, lambda w, vm: not vm.config.type.is_full),
        ro("PV_drivers_detected", BOOL, lambda w, vm: not vm.config.type.is_full),
        ro("memory", STRING_MAP, lambda w, vm: said(w, vm).memory, volatile=True),
        ro("disks", STRING_MAP, default={}),
        ro("networks", STRING_MAP, lambda w, vm: said(w, vm).networks),
        ro("services", STRING_MAP, default={}),
        ro("other", STRING_MAP, default={}),
        ro("last_updated", DATETIME, lambda w, vm: vm.started_at or 0, volatile=True),
        kept("other_config"),
        ro("live", BOOL, default=True),
        ro("can_use_hotplug_vbd", Enum("enum tristate_type"), lambda w, vm: _hotplug(vm)),
        ro("can_use_hotplug_vif", Enum("enum tristate_type"), lambda w, vm: _hotplug(vm)),
    ),
    _all_guest_metrics,
)

CONSOLE = Kind(
    "console",
    (
        ro("uuid", STRING, lambda w, it: it.id),
        ro("protocol", Enum("enum console_protocol"), lambda w, it: it.protocol),
        ro("location", STRING, lambda w, it: f"{w.url}/console?uuid={it.id}"),
        ro("VM", Ref("VM"), lambda w, it: it.vm.uuid),
        kept("other_config"),
    ),
    objects.consoles,
)

__all__ = ["CONSOLE", "VM", "VM_GUEST_METRICS", "VM_METRICS"]
