# SPDX-License-Identifier: Apache-2.0
"""A domain's screen: as a picture."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

from fastapi import APIRouter, Response

from domzero.dom0.actors import Role
from domzero.dom0.api.asking import ASKED, ManagerDep, record_for
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.manager import BadState
from domzero.dom0.messages import Picture, TakePicture
from domzero.dom0.records import Record

router = APIRouter(prefix="/v1", tags=["screen"], responses={404: RESPONSES[404], 422: RESPONSES[422]})

ScreenOf = Annotated[Record, record_for(Role.VM_OPERATOR, "a screen")]
_PICTURE: dict[int | str, dict[str, object]] = {
    200: {
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        "description": "The picture.",
    }
}


@router.get("/domains/{domain}/screenshot", response_class=Response, responses={**ASKED, **_PICTURE})
async def screenshot(record: ScreenOf, manager: ManagerDep) -> Response:
    """What the domain's framebuffer shows now, black if nothing."""
    check_screen(record)
    fd = os.memfd_create("picture", os.MFD_CLOEXEC)
    try:
        picture = await manager.ask(record, TakePicture(), Picture, [fd])
        data = await asyncio.to_thread(os.pread, fd, picture.bytes, 0)
    finally:
        os.close(fd)
    return Response(data, media_type="image/png", headers={"Cache-Control": "no-store"})


def check_screen(record: Record) -> None:
    """Raises BadState for a domain without one."""
    if not record.config.vfbs:
        raise BadState(f"domain {record.name} has no framebuffer", hint="it is given one by its vfb, when it starts")
