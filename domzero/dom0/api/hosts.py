# SPDX-License-Identifier: Apache-2.0
"""/v1/host: what this host is, and what its hypervisor has said."""

from __future__ import annotations

from fastapi import APIRouter

from domzero.dom0.actors import Role
from domzero.dom0.api.asking import ManagerDep, needs
from domzero.dom0.api.models import HostInfo, HostLog
from domzero.dom0.hostinfo import host_info

router = APIRouter(prefix="/v1/host", tags=["host"])


@router.get("", dependencies=[needs(Role.READ_ONLY, "the host")])
async def read_host(manager: ManagerDep) -> HostInfo:
    """The host, as `xl info` shows it."""
    return HostInfo(**host_info(manager))


@router.get("/dmesg", dependencies=[needs(Role.READ_ONLY, "the log")])
async def read_log(manager: ManagerDep) -> HostLog:
    """The last lines of the hypervisor's log, of all domains, and of Domain 0's."""
    return HostLog(lines=manager.log.lines())


@router.delete("/dmesg", status_code=204, dependencies=[needs(Role.POOL_OPERATOR, "clearing the log")])
async def clear_log(manager: ManagerDep) -> None:
    """Empties the log."""
    manager.log.clear()
