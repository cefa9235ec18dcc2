# SPDX-License-Identifier: Apache-2.0
"""/metrics for Prometheus, /v1/metrics for programs, and what a domain used in the past."""

from __future__ import annotations

import asyncio
import datetime
import time
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from domzero.dom0.actors import Role
from domzero.dom0.api.asking import ManagerDep, RecordDep, needs
from domzero.dom0.api.device_models import DiskInfo, VifInfo
from domzero.dom0.api.models import HostInfo, Model, to_time
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.hostinfo import full_host_info, host_info
from domzero.dom0.life import DomainState
from domzero.dom0.manager import Manager
from domzero.dom0.messages import ExitKind
from domzero.dom0.metrics.history import DAY, HOUR, MINUTE, History, Point, Recorder
from domzero.dom0.metrics.host import HostMeter
from domzero.dom0.metrics.sampler import Sample, Sampler
from domzero.errors import ConfigError

router = APIRouter(tags=["metrics"])
_PROMETHEUS = {"text/plain": {"schema": {"type": "string"}}}


class Metrics:
    """The sampler of an application and its history; measures each minute until it is closed."""

    def __init__(self, manager: Manager) -> None:
        self.sampler = Sampler(manager)
        self.history = History(manager.database)
        recorder = Recorder(self.sampler, self.history, host=HostMeter().point)
        self._job = asyncio.get_running_loop().create_task(recorder.run())

    async def close(self) -> None:
        """Stops measuring."""
        self._job.cancel()
        with suppress(asyncio.CancelledError):
            await self._job
        await self.sampler.close()


async def get_metrics(request: Request) -> Metrics:
    """The application's."""
    metrics: Metrics = request.app.state.metrics
    return metrics


MetricsDep = Annotated[Metrics, Depends(get_metrics)]


class ExitCountInfo(Model):
    """How often guest code left the machine for one reason."""

    kind: ExitKind
    count: int


class DomainMetrics(Model):
    """What a domain has used since its start. Without its worker's answer there are neither devices nor exits."""

    uuid: str
    domid: int | None
    name: str
    state: DomainState
    cpu_time_seconds: Annotated[float, Field(description="Of its vCPUs and back ends.")]
    vcpu_time_seconds: list[float]
    memory_mib: int
    max_memory_mib: int
    vcpus: int
    disks: list[DiskInfo]
    vifs: list[VifInfo]
    exits: list[ExitCountInfo]

    @classmethod
    def of(cls, sample: Sample) -> DomainMetrics:
        """From a sample."""
        record, measured = sample.record, sample.measured
        is_up = record.state in (DomainState.RUNNING, DomainState.BLOCKED)
        return cls(
            uuid=str(record.uuid),
            domid=sample.domid,
            name=record.name,
            state=measured.state if measured is not None and is_up else record.state,
            cpu_time_seconds=round((measured.cpu_ns if measured else record.cpu_ns) / 1e9, 3),
            vcpu_time_seconds=[round(ns / 1e9, 3) for ns in sample.vcpu_ns],
            memory_mib=measured.memory_mib if measured else record.current_memory_mib,
            max_memory_mib=record.config.static_max_mib,
            vcpus=record.config.vcpus,
            disks=[DiskInfo.of(disk, record) for disk in measured.disks] if measured else [],
            vifs=[VifInfo.of(vif) for vif in measured.vifs] if measured else [],
            exits=[ExitCountInfo(kind=each.kind, count=each.count) for each in measured.exits] if measured else [],
        )


class AllMetrics(Model):
    """The host and all domains at one moment."""

    at: datetime.datetime
    host: HostInfo
    domains: list[DomainMetrics]


class MetricsPoint(Model):
    """What a domain used in a period; rates are over the time in which it ran."""

    at: Annotated[datetime.datetime, Field(description="Begin of the period.")]
    seconds: Annotated[float, Field(description="Of the period, in which it ran and was measured.")]
    cpu: Annotated[float, Field(description="Processors that it used: 0.5 is half of one.")]
    memory_mib: float
    disk_reads: Annotated[float, Field(description="A second, as all that follow.")]
    disk_writes: float
    disk_read_bytes: float
    disk_written_bytes: float
    network_sent_frames: float
    network_received_frames: float
    network_sent_bytes: float
    network_received_bytes: float
    exits: Annotated[float, Field(description="How often guest code left the machine.")]

    @classmethod
    def of(cls, point: Point) -> MetricsPoint:
        """From the history."""
        used = point.used
        rates = {
            name: round(getattr(used, name) / point.covered, 3)
            for name in cls.model_fields.keys() - {"at", "seconds", "cpu", "memory_mib"}
        }
        return cls(
            at=to_time(point.at),
            seconds=round(point.covered, 3),
            cpu=round(used.cpu_ns / 1e9 / point.covered, 4),
            memory_mib=round(point.memory_mib, 3),
            **rates,
        )


class MetricsHistory(Model):
    """What a domain used in the past."""

    step: Annotated[int, Field(description="Seconds of a period.")]
    points: list[MetricsPoint]


@router.get(
    "/metrics",
    dependencies=[needs(Role.READ_ONLY, "metrics")],
    response_class=Response,
    responses={200: {"content": _PROMETHEUS, "description": "Prometheus' text format."}},
)
async def scrape(metrics: MetricsDep, manager: ManagerDep) -> Response:
    """What all domains and Domain 0 have used, for Prometheus."""
    from domzero.dom0.metrics.exposition import CONTENT_TYPE_LATEST, exposition

    samples = await metrics.sampler.samples()
    return Response(exposition(host_info(manager), samples), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/v1/metrics", dependencies=[needs(Role.READ_ONLY, "metrics")])
async def read_all(metrics: MetricsDep, manager: ManagerDep) -> AllMetrics:
    """What all domains have used since their start, at one moment: `domzero top` shows it."""
    samples = await metrics.sampler.samples()
    domains = [DomainMetrics.of(sample) for sample in samples]
    return AllMetrics(at=to_time(time.time()), host=HostInfo(**await full_host_info(manager)), domains=domains)


@router.get("/v1/domains/{domain}/metrics", responses={404: RESPONSES[404], 422: RESPONSES[422]})
async def read_history(
    record: RecordDep,
    metrics: MetricsDep,
    since: Annotated[
        datetime.datetime | None, Query(description="With its time zone; an hour ago, or 100 steps, if absent.")
    ] = None,
    step: Annotated[
        int, Query(ge=MINUTE, le=31 * DAY, description="Seconds of a period: a multiple of 60; from 3600 on of 3600.")
    ] = MINUTE,
) -> MetricsHistory:
    """What a domain used: a day is kept by the minute, a month by the hour."""
    if step % (HOUR if step >= HOUR else MINUTE):
        raise ConfigError("a multiple of 60, and from 3600 on of 3600", key="step")
    if since is not None and since.tzinfo is None:
        raise ConfigError("without a time zone: 2026-11-28T05:00:00Z has one", key="since")
    begin = since.timestamp() if since is not None else time.time() - max(HOUR, 100 * step)
    points = metrics.history.read(record.uuid, max(begin, 0.0), step)
    return MetricsHistory(step=step, points=[MetricsPoint.of(point) for point in points])
