# SPDX-License-Identifier: Apache-2.0
"""What is done with VMs."""

from __future__ import annotations

from domzero.dom0.changes import Changes
from domzero.dom0.records import Record
from domzero.dom0.xenapi.classes.vm_changes import MIB, bad_state, check_domain, check_state
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.objects import HALTED, PAUSED, RUNNING, power_state
from domzero.dom0.xenapi.table import Found, Message, message
from domzero.dom0.xenapi.values import BOOL, INT, STRING, Ref, Set, reference
from domzero.dom0.xenapi.world import Call

SHUTDOWN_SECONDS = 1200.0
"""How long a guest may take to shut down, as XAPI has it."""
_SELF = Ref("VM")


def _domain(call: Call, vm: Found) -> Record:
    record: Record = vm.it
    check_domain(call, record)
    return record


async def pause(call: Call, vm: Found) -> None:
    """VM.pause."""
    record = _domain(call, vm)
    check_state(record, RUNNING)
    await call.world.manager.pause(record)


async def unpause(call: Call, vm: Found) -> None:
    """VM.unpause."""
    record = _domain(call, vm)
    check_state(record, PAUSED)
    await call.world.manager.unpause(record)


async def clean_shutdown(call: Call, vm: Found) -> None:
    """VM.clean_shutdown: done when the guest is."""
    record = _domain(call, vm)
    check_state(record, RUNNING)
    call.world.manager.request_shutdown(record, "poweroff")
    if not await call.world.manager.wait_ended(record, SHUTDOWN_SECONDS):
        raise Failure("VM_SHUTDOWN_TIMEOUT", reference(record.uuid), str(SHUTDOWN_SECONDS))


async def clean_reboot(call: Call, vm: Found) -> None:
    """VM.clean_reboot: done when the guest has been asked."""
    record = _domain(call, vm)
    check_state(record, RUNNING)
    call.world.manager.request_shutdown(record, "reboot")


async def hard_shutdown(call: Call, vm: Found) -> None:
    """VM.hard_shutdown."""
    record = _domain(call, vm)
    if power_state(record) == HALTED:
        raise bad_state(record, RUNNING, PAUSED)
    await call.world.manager.destroy(record)


async def set_vcpus_live(call: Call, vm: Found, number: int) -> None:
    """VM.set_VCPUs_number_live."""
    record = _domain(call, vm)
    check_state(record, RUNNING)
    await call.world.manager.change(record, Changes(vcpus=number))


async def set_memory_dynamic_range(call: Call, vm: Found, least: int, most: int) -> None:
    """VM.set_memory_dynamic_range: the balloon's target is its upper end."""
    if least > most:
        raise Failure("MEMORY_CONSTRAINT_VIOLATION", "the least is more than the most")
    await call.world.manager.change(_domain(call, vm), Changes(memory_target_mib=most // MIB))


async def set_memory_target(call: Call, vm: Found, target: int) -> None:
    """VM.set_memory_target_live."""
    await call.world.manager.change(_domain(call, vm), Changes(memory_target_mib=target // MIB))


async def send_sysrq(call: Call, vm: Found, key: str) -> None:
    """VM.send_sysrq."""
    call.world.manager.send_sysrq(_domain(call, vm), key)


async def get_allowed_devices(call: Call, vm: Found) -> list[str]:
    """VM.get_allowed_VBD_devices: numbers of disks that it does not have."""
    taken = {spec.devid for spec in vm.it.config.disk_specs}
    return [str(number) for number in range(16) if (202 << 8 | number << 4) not in taken]


async def get_allowed_vif_devices(call: Call, vm: Found) -> list[str]:
    """VM.get_allowed_VIF_devices."""
    taken = {spec.devid for spec in vm.it.config.vif_specs}
    return [str(number) for number in range(16) if number not in taken]


async def get_cooperative(call: Call, vm: Found) -> bool:
    """VM.get_cooperative: XAPI has it for old clients, and always says so."""
    return True


MESSAGES: tuple[Message, ...] = (
    message("pause", pause, vm=_SELF),
    message("unpause", unpause, vm=_SELF),
    message("clean_shutdown", clean_shutdown, vm=_SELF),
    message("clean_reboot", clean_reboot, vm=_SELF),
    message("hard_shutdown", hard_shutdown, vm=_SELF),
    message("set_VCPUs_number_live", set_vcpus_live, self=_SELF, nvcpu=INT),
    message("set_memory_dynamic_range", set_memory_dynamic_range, self=_SELF, min=INT, max=INT),
    message("set_memory_target_live", set_memory_target, self=_SELF, target=INT),
    message("send_sysrq", send_sysrq, vm=_SELF, key=STRING),
    message("get_allowed_VBD_devices", get_allowed_devices, Set(STRING), vm=_SELF),
    message("get_allowed_VIF_devices", get_allowed_vif_devices, Set(STRING), vm=_SELF),
    message("get_cooperative", get_cooperative, BOOL, self=_SELF),
)
