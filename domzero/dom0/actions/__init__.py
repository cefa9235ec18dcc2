# SPDX-License-Identifier: Apache-2.0
"""What can be done with domains: one type for each action, whichever door it is asked for at.

A door (REST, XenAPI, the page, the verbs) makes one of these and gives it to `Actions`, which checks the permission,
writes the audit line and does it. A new action is a type here, with its `run`, and its tests.
"""

from domzero.dom0.actions.base import Action, Actions, AuditLine, DomainAction
from domzero.dom0.actions.devices import (
    AttachDisk,
    AttachVif,
    ChangeMedium,
    DetachDisk,
    DetachVif,
    GrowDisk,
    LimitDisk,
    SetVif,
)
from domzero.dom0.actions.domains import (
    ChangeDomain,
    CreateDomain,
    DefineDomain,
    DestroyDomain,
    DumpCore,
    PauseDomain,
    PinVcpu,
    PressSysRq,
    RebootDomain,
    RedefineDomain,
    ResetDomain,
    SendNmi,
    ShutDownDomain,
    StartDomain,
    TypeText,
    UndefineDomain,
    UnpauseDomain,
)
from domzero.dom0.actions.users import AddToken, AddUser, ChangeUser, Grant, RemoveToken, RemoveUser

__all__ = [
    "Action",
    "Actions",
    "AddToken",
    "AddUser",
    "AttachDisk",
    "AttachVif",
    "AuditLine",
    "ChangeDomain",
    "ChangeMedium",
    "ChangeUser",
    "CreateDomain",
    "DefineDomain",
    "DestroyDomain",
    "DetachDisk",
    "DetachVif",
    "DomainAction",
    "DumpCore",
    "Grant",
    "GrowDisk",
    "LimitDisk",
    "PauseDomain",
    "PinVcpu",
    "PressSysRq",
    "RebootDomain",
    "RedefineDomain",
    "RemoveToken",
    "RemoveUser",
    "ResetDomain",
    "SendNmi",
    "SetVif",
    "ShutDownDomain",
    "StartDomain",
    "TypeText",
    "UndefineDomain",
    "UnpauseDomain",
]
