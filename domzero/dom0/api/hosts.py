# SPDX-License-Identifier: Apache-2.0
"""/v1/host: what this host is, and what its hypervisor has said."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from domzero.dom0.actions import ClearLog, PressDebugKeys
from domzero.dom0.actors import Role
from domzero.dom0.api.asking import ActionsDep, ActorDep, ManagerDep, needs
from domzero.dom0.api.models import HostInfo, HostLog, Model
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.debug_keys import KEYS_MAX
from domzero.dom0.hostinfo import full_host_info

router = APIRouter(prefix="/v1/host", tags=["host"])


class DebugKeys(Model):
    """Keys to be pressed."""

    keys: Annotated[str, Field(min_length=1, max_length=KEYS_MAX, examples=["q"])]


@router.get("", dependencies=[needs(Role.READ_ONLY, "the host")])
async def read_host(manager: ManagerDep) -> HostInfo:
    """The host, as `xl info` shows it."""
    return HostInfo(**await full_host_info(manager))


@router.get("/dmesg", dependencies=[needs(Role.READ_ONLY, "the log")])
async def read_log(manager: ManagerDep) -> HostLog:
    """The last lines of the hypervisor's log, of all domains, and of Domain 0's."""
    return HostLog(lines=manager.log.lines())


@router.post("/debug-keys", status_code=204, responses={422: RESPONSES[422]})
async def press_debug_keys(body: DebugKeys, actions: ActionsDep, actor: ActorDep) -> None:
    """Lets the hypervisor write into its log what Xen's debug keys are for; `h` shows which there are."""
    await actions.perform(actor, PressDebugKeys(keys=body.keys))


@router.delete("/dmesg", status_code=204)
async def clear_log(actions: ActionsDep, actor: ActorDep) -> None:
    """Empties the log."""
    await actions.perform(actor, ClearLog())
