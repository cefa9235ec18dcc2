# SPDX-License-Identifier: Apache-2.0
"""XAPI's permissions: each message is one, by its name in small letters, and a role has those that it covers.

XAPI keeps a permission as an internal role; it is one of `role`'s objects here, too, that `get_all` leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any
from uuid import UUID, uuid5

from domzero.dom0.actions import (
    Action,
    AddStorage,
    AddUser,
    AttachDisk,
    AttachVif,
    ChangeDisk,
    ChangeDomain,
    ChangeMedium,
    ChangeStorage,
    ChangeUser,
    ClearLog,
    CopyDisk,
    CreateDisk,
    DefineDomain,
    DeleteDisk,
    DestroyDomain,
    DetachDisk,
    DetachVif,
    PauseDomain,
    PressDebugKeys,
    PressSysRq,
    RebootDomain,
    RedefineDomain,
    RemoveStorage,
    RemoveUser,
    ResetDomain,
    ResizeDisk,
    ResumeDomain,
    ScanStorage,
    ShutDownDomain,
    StartDomain,
    SuspendDomain,
    UndefineDomain,
    UnpauseDomain,
)
from domzero.dom0.actors import Role
from domzero.dom0.xenapi.table import Message
from domzero.dom0.xenapi.world import NAMESPACE

_ASKS: dict[type[Action[Any]], str] = {
    StartDomain: "VM.start VM.start_on",
    PauseDomain: "VM.pause",
    UnpauseDomain: "VM.unpause",
    ShutDownDomain: "VM.clean_shutdown VM.shutdown",
    RebootDomain: "VM.clean_reboot",
    DestroyDomain: "VM.hard_shutdown VM.power_state_reset",
    ResetDomain: "VM.hard_reboot",
    SuspendDomain: "VM.suspend",
    ResumeDomain: "VM.resume VM.resume_on",
    UndefineDomain: "VM.destroy",
    DefineDomain: "VM.create VM.clone VM.copy",
    PressSysRq: "VM.send_sysrq",
    RedefineDomain: "VM.set_VCPUs_max VM.set_VCPUs_at_startup VM.set_memory VM.set_memory_limits "
    "VM.set_memory_static_range VM.set_memory_static_max VM.set_PV_kernel VM.set_PV_ramdisk VM.set_PV_args "
    "VM.set_HVM_boot_params VM.add_to_HVM_boot_params VM.remove_from_HVM_boot_params VM.set_domain_type "
    "VM.set_HVM_boot_policy VIF.set_locking_mode VIF.move VIF.set_ipv4_allowed VIF.set_ipv6_allowed",
    ChangeDomain: "VM.set_VCPUs_number_live VM.set_memory_dynamic_range VM.set_memory_dynamic_max "
    "VM.set_memory_target_live VM.provision VM.set_name_label VM.set_name_description VM.set_is_a_template "
    "VM.set_other_config VM.add_to_other_config VM.remove_from_other_config VM.set_actions_after_shutdown "
    "VM.set_actions_after_reboot VM.set_actions_after_crash VM.add_to_VCPUs_params_live VM.set_VCPUs_params "
    "VM.add_to_VCPUs_params VM.remove_from_VCPUs_params",
    AttachDisk: "VBD.create VBD.plug VBD.set_mode",
    DetachDisk: "VBD.destroy VBD.unplug VBD.unplug_force",
    ChangeMedium: "VBD.insert VBD.eject",
    AttachVif: "VIF.create VIF.plug VIF.set_qos_algorithm_type VIF.set_qos_algorithm_params "
    "VIF.add_to_qos_algorithm_params VIF.remove_from_qos_algorithm_params",
    DetachVif: "VIF.destroy VIF.unplug VIF.unplug_force",
    CreateDisk: "VDI.create",
    DeleteDisk: "VDI.destroy",
    ResizeDisk: "VDI.resize VDI.resize_online",
    CopyDisk: "VDI.clone VDI.copy VDI.snapshot",
    ChangeDisk: "VDI.set_name_label VDI.set_name_description VDI.set_other_config VDI.add_to_other_config "
    "VDI.remove_from_other_config",
    AddStorage: "SR.create",
    ScanStorage: "SR.scan",
    RemoveStorage: "SR.forget SR.destroy",
    ChangeStorage: "SR.set_name_label SR.set_name_description SR.set_other_config SR.add_to_other_config "
    "SR.remove_from_other_config",
    ClearLog: "host.dmesg_clear",
    PressDebugKeys: "host.send_debug_keys",
    AddUser: "subject.create",
    RemoveUser: "subject.destroy",
    ChangeUser: "subject.add_to_roles subject.remove_from_roles",
}
"""Messages whose role is that of the action of Domain 0's that they ask for."""
ROLES_OF_ACTIONS: dict[str, Role] = {name: action.role for action, names in _ASKS.items() for name in names.split()}
_LEAST: dict[str, Role | None] = {}


def declare(messages: Mapping[str, Message]) -> None:
    """Says which messages there are, by their full names."""
    for name, each in messages.items():
        if each.session and each.do is not None:
            _LEAST[name.lower()] = least = _least(name, each)
            if not each.implicit:
                _LEAST[f"async.{name.lower()}"] = least


def _least(name: str, message: Message) -> Role | None:
    if name == "session.get_all_subject_identifiers":
        return Role.READ_ONLY
    found = message.role or ROLES_OF_ACTIONS.get(name)
    if found is not None or message.open or name.startswith("session."):
        return found
    return Role.READ_ONLY


def permissions_of(role: Role | None) -> list[str]:
    """The permissions that a role has; without a role, those of whoever has logged in."""
    return [name for name, least in _LEAST.items() if least is None or (role is not None and role.covers(least))]


def roles_with(permission: str) -> list[Role]:
    """The roles that have a permission, the mightiest first; none: there is no such permission."""
    if (name := permission.lower()) not in _LEAST:
        return []
    least = _LEAST[name]
    return [role for role in reversed(Role) if least is None or role.covers(least)]


def permission_id(name: str) -> UUID:
    """Of a permission, as an object."""
    return uuid5(NAMESPACE, f"permission:{name}")


@cache
def permission_ids() -> dict[UUID, str]:
    """All permissions by their identities."""
    return {permission_id(name): name for name in _LEAST}
