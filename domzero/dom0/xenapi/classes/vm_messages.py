# SPDX-License-Identifier: Apache-2.0
"""What is done with VMs that are there; how they are made is in `vm_making`."""

from __future__ import annotations

from typing import Any

from domzero.dom0.actions import (
    ChangeDomain,
    DestroyDomain,
    PauseDomain,
    PressSysRq,
    RebootDomain,
    ResetDomain,
    ResumeDomain,
    ShutDownDomain,
    StartDomain,
    SuspendDomain,
    UndefineDomain,
    UnpauseDomain,
)
from domzero.dom0.changes import Changes
from domzero.dom0.diskspec import device_number
from domzero.dom0.manager import NoAnswer
from domzero.dom0.records import Record
from domzero.dom0.xenapi.classes.vm_changes import MIB, bad_state, check_domain, check_state, edit
from domzero.dom0.xenapi.classes.vm_processors import add_live
from domzero.dom0.xenapi.classes.vm_types import DOMAIN_TYPE, set_boot_policy, set_domain_type
from domzero.dom0.xenapi.devices import plug_all, vdev_of
from domzero.dom0.xenapi.failure import Failure, not_allowed
from domzero.dom0.xenapi.objects import HALTED, PAUSED, RUNNING, SUSPENDED, power_state, vbds_of, vifs_of
from domzero.dom0.xenapi.table import Found, Message, message
from domzero.dom0.xenapi.values import BOOL, INT, STRING, Ref, Set, reference
from domzero.dom0.xenapi.world import Call

SHUTDOWN_SECONDS = 1200.0
"""How long a guest may take to shut down, as XAPI has it."""
_SELF = Ref("VM")
_HOST = Ref("host")


_RUNNING = (
    "changing_dynamic_range",
    "changing_VCPUs_live",
    "pause",
    "suspend",
    "clean_shutdown",
    "clean_reboot",
    "hard_shutdown",
    "hard_reboot",
    "send_sysrq",
    "awaiting_memory_live",
)
_PAUSED = ("unpause", "hard_shutdown", "hard_reboot")
_SUSPENDED = ("resume", "resume_on", "hard_shutdown")
_HALTED = ("start", "start_on", "changing_static_range", "changing_memory_limits", "changing_VCPUs", "clone", "copy",
           "make_into_template", "export", "destroy")  # fmt: skip
_TEMPLATE = ("clone", "copy", "provision", "export", "destroy", "changing_static_range", "changing_VCPUs")


def allowed_operations(vm: Record, *, is_domain: bool) -> tuple[str, ...]:
    """What can be done with a VM as it is.

    :param is_domain: it is not Domain 0.
    """
    if not is_domain:
        return ()
    if vm.about.template:
        return _TEMPLATE
    allowed = {HALTED: _HALTED, PAUSED: _PAUSED, SUSPENDED: _SUSPENDED}.get(power_state(vm), _RUNNING)
    return allowed if vm.persistent else tuple(each for each in allowed if each != "suspend")


def domain(call: Call, vm: Found) -> Record:
    """The domain that a message is about. Failure: it is none of those that can be changed."""
    record: Record = vm.it
    check_domain(call, record)
    return record


async def start(call: Call, vm: Found, paused: bool, force: bool) -> None:
    """VM.start."""
    record = domain(call, vm)
    if record.about.template:
        raise Failure("VM_IS_TEMPLATE", reference(record.uuid))
    check_state(record, HALTED)
    action = StartDomain(domain=record.uuid, paused=paused)
    call.check(action)
    await plug_all(call, record)
    await call.do(action)


async def start_on(call: Call, vm: Found, host: Found, paused: bool, force: bool) -> None:
    """VM.start_on: there is one host."""
    await start(call, vm, paused, force)


async def pause(call: Call, vm: Found) -> None:
    """VM.pause."""
    record = domain(call, vm)
    check_state(record, RUNNING)
    await call.do(PauseDomain(domain=record.uuid))


async def unpause(call: Call, vm: Found) -> None:
    """VM.unpause."""
    record = domain(call, vm)
    check_state(record, PAUSED)
    await call.do(UnpauseDomain(domain=record.uuid))


async def clean_shutdown(call: Call, vm: Found) -> None:
    """VM.clean_shutdown: done when the guest is."""
    record = domain(call, vm)
    check_state(record, RUNNING)
    await call.do(ShutDownDomain(domain=record.uuid))
    if not await call.world.manager.wait_ended(record, SHUTDOWN_SECONDS):
        raise Failure("VM_SHUTDOWN_TIMEOUT", reference(record.uuid), str(SHUTDOWN_SECONDS))


async def shutdown(call: Call, vm: Found) -> None:
    """VM.shutdown: in good order if the guest obeys."""
    try:
        await clean_shutdown(call, vm)
    except Failure as failure:
        if failure.code == "VM_SHUTDOWN_TIMEOUT":
            await hard_shutdown(call, vm)
        else:
            raise


async def clean_reboot(call: Call, vm: Found) -> None:
    """VM.clean_reboot: done when the guest has been asked."""
    record = domain(call, vm)
    check_state(record, RUNNING)
    await call.do(RebootDomain(domain=record.uuid))


async def suspend(call: Call, vm: Found) -> None:
    """VM.suspend: its state is kept by Domain 0, and is no VDI."""
    record = domain(call, vm)
    action = SuspendDomain(domain=record.uuid)
    call.check(action)
    check_state(record, RUNNING)
    try:
        await call.do(action)
    except NoAnswer as error:
        raise Failure("VM_SUSPEND_TIMEOUT", reference(record.uuid), str(error)) from error


async def resume(call: Call, vm: Found, paused: bool, force: bool) -> None:
    """VM.resume."""
    record = domain(call, vm)
    action = ResumeDomain(domain=record.uuid, paused=paused)
    call.check(action)
    check_state(record, SUSPENDED)
    await call.do(action)


async def resume_on(call: Call, vm: Found, host: Found, paused: bool, force: bool) -> None:
    """VM.resume_on: there is one host."""
    await resume(call, vm, paused, force)


async def hard_shutdown(call: Call, vm: Found) -> None:
    """VM.hard_shutdown."""
    record = domain(call, vm)
    if power_state(record) == HALTED:
        raise bad_state(record, RUNNING, PAUSED, SUSPENDED)
    await call.do(DestroyDomain(domain=record.uuid))


async def hard_reboot(call: Call, vm: Found) -> None:
    """VM.hard_reboot."""
    record = domain(call, vm)
    if not record.persistent:
        raise not_allowed("the domain is not defined: it is gone with its end")
    if power_state(record) in (HALTED, SUSPENDED):
        raise bad_state(record, RUNNING, PAUSED)
    await call.do(ResetDomain(domain=record.uuid))


async def destroy(call: Call, vm: Found) -> None:
    """VM.destroy: its definition, and what is kept of it and its devices; its disks stay."""
    record = domain(call, vm)
    check_state(record, HALTED)
    devices = {vbd.id for vbd in vbds_of(call.world, record)} | {vif.id for vif in vifs_of(call.world, record)}
    await call.do(UndefineDomain(domain=record.uuid))
    for device in devices:
        call.world.fields.forget(device)
    call.world.fields.forget(record.uuid)


async def power_state_reset(call: Call, vm: Found) -> None:
    """VM.power_state_reset: as a hard shutdown, of one that is halted too."""
    if power_state(domain(call, vm)) != HALTED:
        await hard_shutdown(call, vm)


async def set_vcpus_live(call: Call, vm: Found, number: int) -> None:
    """VM.set_VCPUs_number_live."""
    record = domain(call, vm)
    check_state(record, RUNNING)
    await call.do(ChangeDomain(domain=record.uuid, changes=Changes(vcpus=number)))


async def set_vcpus_max(call: Call, vm: Found, number: int) -> None:
    """VM.set_VCPUs_max, of a halted one."""
    record = domain(call, vm)
    await edit(call, record, max_vcpus=number, vcpus=min(record.config.vcpus, max(number, 1)))


async def set_vcpus_at_startup(call: Call, vm: Found, number: int) -> None:
    """VM.set_VCPUs_at_startup, of a halted one."""
    record = domain(call, vm)
    if number > record.config.vcpus_max:
        raise Failure("INVALID_VALUE", "VCPUs_at_startup", f"{number}: it may have {record.config.vcpus_max}")
    await edit(call, record, max_vcpus=record.config.vcpus_max, vcpus=number)


async def set_memory(call: Call, vm: Found, value: int) -> None:
    """VM.set_memory: all its limits at once, of a halted one."""
    await set_memory_limits(call, vm, value, value, value, value)


async def set_memory_limits(
    call: Call, vm: Found, static_min: int, static_max: int, dynamic_min: int, dynamic_max: int
) -> None:
    """VM.set_memory_limits, of a halted one: it starts with the upper end of its dynamic range."""
    if not static_min <= dynamic_min <= dynamic_max <= static_max:
        raise Failure("MEMORY_CONSTRAINT_VIOLATION", "static_min <= dynamic_min <= dynamic_max <= static_max")
    await edit(call, domain(call, vm), memory_mib=dynamic_max // MIB, maxmem_mib=static_max // MIB)


async def set_static_range(call: Call, vm: Found, least: int, most: int) -> None:
    """VM.set_memory_static_range."""
    record = domain(call, vm)
    await edit(call, record, memory_mib=min(record.config.memory_mib, most // MIB), maxmem_mib=most // MIB)


async def set_static_max(call: Call, vm: Found, most: int) -> None:
    """VM.set_memory_static_max."""
    await set_static_range(call, vm, 0, most)


async def set_dynamic_range(call: Call, vm: Found, least: int, most: int) -> None:
    """VM.set_memory_dynamic_range: the balloon's target is its upper end."""
    if least > most:
        raise Failure("MEMORY_CONSTRAINT_VIOLATION", "the least is more than the most")
    await set_memory_target(call, vm, most)


async def set_memory_target(call: Call, vm: Found, target: int) -> None:
    """VM.set_memory_target_live, VM.set_memory_dynamic_max."""
    changes = Changes(memory_target_mib=target // MIB)
    await call.do(ChangeDomain(domain=domain(call, vm).uuid, changes=changes))


async def check_dynamic_min(call: Call, vm: Found, least: int) -> None:
    """VM.set_memory_dynamic_min: the guest is given what it is asked for, never less; nothing is to be set."""
    if least > (vm.it.memory_target_mib or vm.it.config.memory_mib) * MIB:
        raise Failure("MEMORY_CONSTRAINT_VIOLATION", "more than the upper end of the dynamic range")


async def wait_memory_target(call: Call, vm: Found) -> None:
    """VM.wait_memory_target_live: how far the guest's balloon is its memory_actual says."""


async def maximise_memory(call: Call, vm: Found, total: int, approximate: bool) -> int:
    """VM.maximise_memory: nothing goes on top of a domain's memory."""
    return max(0, total // MIB * MIB)


async def compute_overhead(call: Call, vm: Found) -> int:
    """VM.compute_memory_overhead: as its memory_overhead, nothing is set aside beside its memory."""
    return 0


async def send_sysrq(call: Call, vm: Found, key: str) -> None:
    """VM.send_sysrq."""
    await call.do(PressSysRq(domain=domain(call, vm).uuid, key=key))


async def get_allowed_vbd_devices(call: Call, vm: Found) -> list[str]:
    """VM.get_allowed_VBD_devices: numbers of disks that it does not have."""
    taken = {vbd.spec.devid for vbd in vbds_of(call.world, vm.it)}
    return [str(number) for number in range(16) if device_number(vdev_of(str(number), vm.it)) not in taken]


async def get_allowed_vif_devices(call: Call, vm: Found) -> list[str]:
    """VM.get_allowed_VIF_devices."""
    taken = {vif.spec.devid for vif in vifs_of(call.world, vm.it)}
    return [str(number) for number in range(16) if number not in taken]


async def get_cooperative(call: Call, vm: Found) -> bool:
    """VM.get_cooperative: XAPI has it for old clients, and always says so."""
    return True


async def get_possible_hosts(call: Call, vm: Found) -> list[Any]:
    """VM.get_possible_hosts."""
    return [call.world.host]


async def assert_can_boot_here(call: Call, vm: Found, host: Found) -> None:
    """VM.assert_can_boot_here: its configuration is one that can be started."""
    record = domain(call, vm)
    record.config.check(startable=bool(record.config.disks or record.config.kernel))


async def assert_operation_valid(call: Call, vm: Found, operation: str) -> None:
    """VM.assert_operation_valid: it is among those that the VM's record names now."""
    allowed = allowed_operations(vm.it, is_domain=vm.it is not call.world.control_domain)
    if operation not in allowed:
        raise not_allowed(f"{operation[:100]}: {', '.join(allowed) or 'nothing'} is possible now")


async def update_allowed_operations(call: Call, vm: Found) -> None:
    """VM.update_allowed_operations: they are looked up anew whenever somebody asks."""


async def assert_agile(call: Call, vm: Found) -> None:
    """VM.assert_agile: to where, with one host?"""
    raise Failure("HOST_NOT_ENOUGH_FREE_MEMORY", "there is no other host")


MESSAGES: tuple[Message, ...] = (
    message("start", start, vm=_SELF, start_paused=BOOL, force=BOOL),
    message("start_on", start_on, vm=_SELF, host=_HOST, start_paused=BOOL, force=BOOL),
    message("pause", pause, vm=_SELF),
    message("unpause", unpause, vm=_SELF),
    message("suspend", suspend, vm=_SELF),
    message("resume", resume, vm=_SELF, start_paused=BOOL, force=BOOL),
    message("resume_on", resume_on, vm=_SELF, host=_HOST, start_paused=BOOL, force=BOOL),
    message("clean_shutdown", clean_shutdown, vm=_SELF),
    message("shutdown", shutdown, vm=_SELF),
    message("clean_reboot", clean_reboot, vm=_SELF),
    message("hard_shutdown", hard_shutdown, vm=_SELF),
    message("hard_reboot", hard_reboot, vm=_SELF),
    message("power_state_reset", power_state_reset, vm=_SELF),
    message("destroy", destroy, self=_SELF),
    message("set_VCPUs_number_live", set_vcpus_live, self=_SELF, nvcpu=INT),
    message("set_VCPUs_max", set_vcpus_max, self=_SELF, value=INT),
    message("set_VCPUs_at_startup", set_vcpus_at_startup, self=_SELF, value=INT),
    message("set_memory", set_memory, self=_SELF, value=INT),
    message("set_memory_limits", set_memory_limits, self=_SELF, static_min=INT, static_max=INT, dynamic_min=INT,
            dynamic_max=INT),
    message("set_memory_static_range", set_static_range, self=_SELF, min=INT, max=INT),
    message("set_memory_static_max", set_static_max, self=_SELF, value=INT),
    message("set_memory_dynamic_range", set_dynamic_range, self=_SELF, min=INT, max=INT),
    message("set_memory_dynamic_max", set_memory_target, self=_SELF, value=INT),
    message("set_memory_dynamic_min", check_dynamic_min, self=_SELF, value=INT),
    message("set_memory_target_live", set_memory_target, self=_SELF, target=INT),
    message("wait_memory_target_live", wait_memory_target, self=_SELF),
    message("maximise_memory", maximise_memory, INT, self=_SELF, total=INT, approximate=BOOL),
    message("compute_memory_overhead", compute_overhead, INT, vm=_SELF),
    message("send_sysrq", send_sysrq, vm=_SELF, key=STRING),
    message("get_allowed_VBD_devices", get_allowed_vbd_devices, Set(STRING), vm=_SELF),
    message("get_allowed_VIF_devices", get_allowed_vif_devices, Set(STRING), vm=_SELF),
    message("get_cooperative", get_cooperative, BOOL, self=_SELF),
    message("get_possible_hosts", get_possible_hosts, Set(_HOST), vm=_SELF),
    message("assert_can_boot_here", assert_can_boot_here, self=_SELF, host=_HOST),
    message("assert_operation_valid", assert_operation_valid, self=_SELF, op=STRING),
    message("update_allowed_operations", update_allowed_operations, self=_SELF),
    message("assert_agile", assert_agile, self=_SELF),
    message("add_to_VCPUs_params_live", add_live, self=_SELF, key=STRING, value=STRING),
    message("set_domain_type", set_domain_type, self=_SELF, value=DOMAIN_TYPE),
    message("set_HVM_boot_policy", set_boot_policy, self=_SELF, value=STRING),
    *(
        message(name, None, self=_SELF)
        for name in (
            "snapshot", "snapshot_with_quiesce", "checkpoint", "revert",
            "pool_migrate", "migrate_send", "assert_can_migrate", "send_trigger", "csvm", "update_snapshot_metadata",
            "set_HVM_shadow_multiplier", "set_shadow_multiplier_live",
            "set_memory_static_min", "set_bios_strings", "copy_bios_strings",
            "set_protection_policy", "set_snapshot_schedule", "set_start_delay", "set_shutdown_delay", "set_order",
            "set_suspend_VDI", "assert_can_be_recovered", "get_SRs_required_for_recovery", "recover", "import_convert",
            "set_appliance", "query_services", "call_plugin", "set_has_vendor_device", "import",
            "set_NVRAM", "add_to_NVRAM", "remove_from_NVRAM", "restart_device_models", "set_uefi_mode",
            "get_secureboot_readiness", "sysprep", "set_groups", "create_new_blob",
            "record_data_source", "query_data_source", "forget_data_source_archives", "get_data_sources",
            "set_ha_restart_priority", "set_ha_always_run",
            "retrieve_wlb_recommendations",
        )
    ),
)  # fmt: skip
__all__ = ["MESSAGES", "allowed_operations", "domain"]
