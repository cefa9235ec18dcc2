# SPDX-License-Identifier: Apache-2.0
"""What VMs and the host have used, as XAPI's clients ask for it: /rrd_updates since a time, /vm_rrd and /host_rrd, all.

Values are kept by the minute for a day, and by the hour for a month: there are no steps of five seconds. A VM's disks,
and its interfaces, are measured together: with one of them it has XAPI's name, with more the sum has a name of its own.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from domzero.dom0.actors import Role
from domzero.dom0.database import Database
from domzero.dom0.memory_account import memory_mib
from domzero.dom0.metrics.history import DAY, HOST, HOUR, KEPT, MINUTE, History, Point
from domzero.dom0.records import Record
from domzero.dom0.xenapi import objects
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.handlers import object_in, refusal
from domzero.dom0.xenapi.http_access import authenticate, both, world_of
from domzero.dom0.xenapi.values import reference
from domzero.dom0.xenapi.world import World
from domzero.errors import DomzeroError

STEPS = (HOUR, MINUTE)
MIB = 1 << 20
NO_VALUE = float("nan")


@dataclass(frozen=True)
class Source:
    """One kind of values of a VM, or of the host.

    :param of: the value in a period.
    """

    name: str
    of: Callable[[Point], float]


def sources(world: World, vm: Record) -> list[Source]:
    """Those of a VM: processor time as a part of its vCPUs, memory in bytes, the others in bytes a second."""
    vbds, vifs = objects.vbds_of(world, vm), objects.vifs_of(world, vm)
    disk = f"vbd_{vbds[0].spec.vdev}" if len(vbds) == 1 else "vbd_all"
    vif = f"vif_{vifs[0].spec.devid}" if len(vifs) == 1 else "vif_all"
    vcpus = max(1, vm.config.vcpus)
    found = [
        Source("cpu0" if vcpus == 1 else "cpu_usage", lambda it: it.used.cpu_ns / 1e9 / it.covered / vcpus),
        Source("memory", lambda it: it.memory_mib * MIB),
    ]
    if vbds:
        found.append(Source(f"{disk}_read", lambda it: it.used.disk_read_bytes / it.covered))
        found.append(Source(f"{disk}_write", lambda it: it.used.disk_written_bytes / it.covered))
    if vifs:
        found.append(Source(f"{vif}_rx", lambda it: it.used.network_received_bytes / it.covered))
        found.append(Source(f"{vif}_tx", lambda it: it.used.network_sent_bytes / it.covered))
    return found


def host_sources() -> list[Source]:
    """Those of the host: processor time as a part of its processors, memory in KiB."""
    cpus, total_kib = os.cpu_count() or 1, memory_mib()[0] << 10
    return [
        Source("cpu_avg", lambda it: min(1.0, it.used.cpu_ns / 1e9 / it.covered / cpus)),
        Source("memory_total_kib", lambda it: total_kib),
        Source("memory_free_kib", lambda it: it.memory_mib * 1024),
    ]


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise Failure("INVALID_VALUE", name, f"{text[:40]}: a number of seconds")
    return int(text)


async def rrd_updates(request: Request) -> Response:
    """GET /rrd_updates?start=TIME: means of all VMs since then, the newest first; with host=true of the host, too."""
    world = world_of(request)
    try:
        actor = await authenticate(request)
        now = int(time.time())
        start, interval = _number(request, "start", now - HOUR), _number(request, "interval", MINUTE)
        if request.query_params.get("cf", "AVERAGE") != "AVERAGE":
            raise Failure("INVALID_VALUE", "cf", "only AVERAGE is kept")
        wanted = object_in(request, "vm_uuid") if request.query_params.get("vm_uuid") else None
        step = HOUR if interval >= HOUR else MINUTE
        start = max(start, now - KEPT[step])
        vms = [vm for vm in world.manager.all(halted=True) if wanted is None or vm.uuid == wanted]
        vms = [vm for vm in vms if actor.may(Role.READ_ONLY, vm.uuid)]
        kinds = [(f"vm:{vm.uuid}", vm.uuid, sources(world, vm)) for vm in vms]
        if request.query_params.get("host") == "true":
            actor.check(Role.READ_ONLY, "the host's rrd")
            kinds.append((f"host:{world.host}", HOST, host_sources()))
        table = _table(world.manager.database, kinds, start, now, step)
    except DomzeroError as error:
        return refusal(error)
    if request.query_params.get("json") == "true":
        return Response(json.dumps(table.as_json()), headers={"Content-Type": "application/json"})
    return Response(table.as_xml(), headers={"Content-Type": "text/xml"})


@dataclass(frozen=True)
class Table:
    """Rows of values.

    :param legend: of their columns.
    """

    start: int
    end: int
    step: int
    legend: list[str]
    rows: list[tuple[int, list[float]]]

    def as_json(self) -> dict[str, object]:
        """As XAPI has it with json=true; what is not known is text, for want of a number."""
        meta = {
            "start": self.start,
            "step": self.step,
            "end": self.end,
            "rows": len(self.rows),
            "columns": len(self.legend),
            "legend": self.legend,
        }
        rows = [{"t": at, "values": ["NaN" if math.isnan(v) else v for v in values]} for at, values in self.rows]
        return {"meta": meta, "data": rows}

    def as_xml(self) -> str:
        """As rrdtool exports it."""
        legend = "".join(f"<entry>{escape(each)}</entry>" for each in self.legend)
        rows = "".join(
            f"<row><t>{at}</t>{''.join(f'<v>{_text(value)}</v>' for value in values)}</row>" for at, values in self.rows
        )
        return (
            f"<xport><meta><start>{self.start}</start><step>{self.step}</step><end>{self.end}</end>"
            f"<rows>{len(self.rows)}</rows><columns>{len(self.legend)}</columns><legend>{legend}</legend></meta>"
            f"<data>{rows}</data></xport>"
        )


def _table(database: Database, kinds: list[tuple[str, UUID, list[Source]]], start: int, end: int, step: int) -> Table:
    history, legend = History(database), []
    columns: list[dict[int, float]] = []
    for name, identity, found in kinds:
        points = [point for point in history.read(identity, start, step) if point.covered > 0]
        for source in found:
            legend.append(f"AVERAGE:{name}:{source.name}")
            columns.append({point.at: source.of(point) for point in points})
    times = sorted({at for column in columns for at in column}, reverse=True)
    rows = [(at, [column.get(at, NO_VALUE) for column in columns]) for at in times]
    return Table(start, end, step, legend, rows)


def _text(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.4f}"


async def vm_rrd(request: Request) -> Response:
    """GET /vm_rrd: all that is kept of a VM, as an RRD's XML."""
    world = world_of(request)
    try:
        actor = await authenticate(request)
        identity = object_in(request, "uuid", "ref")
        actor.check(Role.READ_ONLY, "vm_rrd", identity)
        vm = world.record(identity)
        if vm is None or vm in (world.control_domain, world.template):
            raise Failure("HANDLE_INVALID", "VM", reference(identity))
    except DomzeroError as error:
        return refusal(error)
    rrd = _rrd(world.manager.database, vm.uuid, sources(world, vm), int(time.time()))
    return Response(rrd, headers={"Content-Type": "text/xml"})


async def host_rrd(request: Request) -> Response:
    """GET /host_rrd: all that is kept of the host, as an RRD's XML."""
    world = world_of(request)
    try:
        (await authenticate(request)).check(Role.READ_ONLY, "host_rrd")
    except DomzeroError as error:
        return refusal(error)
    rrd = _rrd(world.manager.database, HOST, host_sources(), int(time.time()))
    return Response(rrd, headers={"Content-Type": "text/xml"})


def _rrd(database: Database, identity: UUID, found: list[Source], now: int) -> str:
    described = "".join(
        f"<ds><name>{escape(each.name)}</name><type>GAUGE</type><minimal_heartbeat>{2 * MINUTE}.0</minimal_heartbeat>"
        "<min>0.0</min><max>Infinity</max><last_ds>0.0</last_ds><value>0.0</value><unknown_sec>0</unknown_sec></ds>"
        for each in found
    )
    prepared = "<ds><primary_value>0.0</primary_value><secondary_value>0.0</secondary_value><value>0.0</value>" \
               "<unknown_datapoints>0</unknown_datapoints></ds>"  # fmt: skip
    archives = []
    for step, seconds in ((MINUTE, DAY), (HOUR, KEPT[HOUR])):
        end = now // step * step
        points = {point.at: point for point in History(database).read(identity, end - seconds, step)}
        rows = "".join(
            "<row>" + "".join(f"<v>{_text(each.of(points[at]) if at in points else NO_VALUE)}</v>" for each in found)
            + "</row>" for at in range(end - seconds, end, step)
        )  # fmt: skip
        archives.append(
            f"<rra><cf>AVERAGE</cf><pdp_per_row>{step // MINUTE}</pdp_per_row><params><xff>0.5</xff></params>"
            f"<cdp_prep>{prepared * len(found)}</cdp_prep><database>{rows}</database></rra>"
        )
    head = f"<version>0003</version><step>{MINUTE}</step><lastupdate>{now // MINUTE * MINUTE}</lastupdate>"
    return f'<?xml version="1.0"?><rrd>{head}{described}{"".join(archives)}</rrd>'


ROUTES = [
    Route(each, handler, methods=["GET"], include_in_schema=False)
    for path, handler in (("/rrd_updates", rrd_updates), ("/vm_rrd", vm_rrd), ("/host_rrd", host_rrd))
    for each in both(path)
]
