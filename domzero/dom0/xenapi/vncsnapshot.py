# SPDX-License-Identifier: Apache-2.0
"""GET /vncsnapshot: what a VM's screen shows now. XAPI answers with a JPEG, this with a PNG: nothing of it is lost."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from domzero.dom0.actors import Role
from domzero.dom0.api.screens import picture_of
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.handlers import object_in, refusal
from domzero.dom0.xenapi.http_access import authenticate, both, world_of
from domzero.dom0.xenapi.objects import consoles, power_state
from domzero.dom0.xenapi.table import may_see
from domzero.dom0.xenapi.values import reference
from domzero.errors import DomzeroError


async def vncsnapshot(request: Request) -> Response:
    """The console, or its VM, is named by `uuid` or `ref`."""
    try:
        actor = await authenticate(request)
        world = world_of(request)
        identity = object_in(request, "uuid", "ref")
        found = consoles(world).get(identity)
        record = found.vm if found is not None else world.record(identity)
        if record is None or not may_see(actor, [record.uuid]):
            raise Failure("HANDLE_INVALID", "console", reference(identity))
        actor.check(Role.VM_OPERATOR, "a screen", record.uuid)
        if record.worker is None:
            raise Failure("VM_BAD_POWER_STATE", reference(record.uuid), "running", power_state(record).lower())
        return await picture_of(world.manager, record)
    except DomzeroError as error:
        return refusal(error)


ROUTES = [Route(path, vncsnapshot, methods=["GET"], include_in_schema=False) for path in both("/vncsnapshot")]
