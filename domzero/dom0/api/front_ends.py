# SPDX-License-Identifier: Apache-2.0
"""/v1/domains/DOMAIN/front-ends: the guest's ends of its devices."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from domzero.dom0.api.asking import ManagerDep, RecordDep
from domzero.dom0.api.models import Model
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.front_ends import front_ends
from domzero.dom0.json_values import to_json

router = APIRouter(prefix="/v1/domains/{domain}", tags=["domains"])


class FrontEndInfo(Model):
    """A guest's end of a device, as it stands in xenstore. What the guest has not said is null."""

    kind: Literal["vbd", "vif", "console"]
    devid: int
    state: Annotated[int | None, Field(description="enum xenbus_state; 4 is connected.")]
    event_channel: int | None
    ring_refs: Annotated[list[int | None], Field(description="Of a vif, for sending and for receiving.")]


@router.get("/front-ends", responses={404: RESPONSES[404], 422: RESPONSES[422]})
async def list_front_ends(record: RecordDep, manager: ManagerDep) -> list[FrontEndInfo]:
    """What the guest has said of its ends of disks, network interfaces and channels."""
    if record.domid is None or record.gone:
        return []
    return [FrontEndInfo(**to_json(each)) for each in front_ends(manager.store, record.domid)]
