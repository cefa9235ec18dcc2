# SPDX-License-Identifier: Apache-2.0
"""What domains used: counters, the history in the database, and Prometheus' text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families

from domzero.dom0.config import DomainConfig
from domzero.dom0.database import Database
from domzero.dom0.device_stats import DiskStats, VifStats
from domzero.dom0.diskspec import DiskLimits
from domzero.dom0.life import DomainState
from domzero.dom0.messages import ExitCount, ExitKind, Measured, VcpuState, VcpuStats
from domzero.dom0.metrics.exposition import exposition
from domzero.dom0.metrics.history import DAY, HOUR, MINUTE, History, Point, Recorder
from domzero.dom0.metrics.host import HostMeter, busy_ns
from domzero.dom0.metrics.sampler import COUNT_MAX, Counters, Sample, is_sane
from domzero.dom0.records import Record

WEB = UUID(int=1)
NOON = 1_800_000_000 // HOUR * HOUR
DISK = DiskStats("xvda", 51712, "/d", "raw", True, 4, 1 << 20, 3, 5, 4096, 8192, 1, 0, 0, 2, DiskLimits())
VIF = VifStats(0, "00:16:3e:00:00:01", "lan", 1500, "", 4, "up", None, 10, 1000, 20, 2000, 0, 0, 1)
MEASURED = Measured(
    DomainState.BLOCKED,
    2_000_000_000,
    64,
    (VcpuStats(0, VcpuState.BLOCKED, 7, (0, 1), 5),),
    (DISK, replace(DISK, vdev="xvdb", reads=1)),
    (VIF,),
    (ExitCount(ExitKind.HYPERCALL, 100), ExitCount(ExitKind.CLTS, 11)),
)
HOST = {
    "domzero_version": "1.2", "engine": "translator: the host has what it needs", "nr_cpus": 2, "total_memory": 100,
    "free_memory": 50, "dom0_memory_mib": 40, "uptime_seconds": 12.5, "dom0_cpu_seconds": 3.5,
}  # fmt: skip


def sample(at: float, measured: Measured | None = MEASURED, name: str = "web", domid: int = 3) -> Sample:
    record = Record(DomainConfig(kernel="/k", name=name, uuid=WEB, cap=50), domid=domid, state=DomainState.RUNNING)
    record.started_at = NOON - 30.0
    return Sample(at, record, domid, measured, (1_500_000_000,))


@pytest.fixture
def history() -> Iterator[History]:
    with closing(Database()) as database:
        yield History(database)


def test_counters_are_sums_of_the_devices() -> None:
    counters = sample(NOON).counters
    assert (counters.cpu_ns, counters.disk_reads, counters.disk_writes, counters.exits) == (2_000_000_000, 4, 10, 111)
    assert (counters.network_sent_bytes, counters.network_received_frames) == (1000, 20)
    assert sample(NOON, None).counters == Counters()


def test_a_counter_that_has_begun_again_counts_from_0() -> None:
    assert Counters(cpu_ns=70, disk_reads=3).since(Counters(cpu_ns=50, disk_reads=9)) == Counters(
        cpu_ns=20, disk_reads=3
    )


def test_minutes_add_up_to_longer_periods_and_to_hours(history: History) -> None:
    for minute in range(120):
        used = Counters(cpu_ns=30_000_000_000, disk_reads=minute)
        history.add([(WEB, Point(NOON + minute * MINUTE, 60.0, 64 + minute % 2, used))])
    minutes = history.read(WEB, NOON, MINUTE)
    assert len(minutes) == 120 and [point.used.disk_reads for point in minutes] == list(range(120))
    quarters = history.read(WEB, NOON + 1, 15 * MINUTE)
    assert [point.at for point in quarters[:2]] == [NOON, NOON + 900]
    assert (quarters[0].used.disk_reads, quarters[0].covered) == (sum(range(15)), 900.0)
    hours = history.read(WEB, NOON, HOUR)
    assert [point.used.disk_reads for point in hours] == [sum(range(60)), sum(range(60, 120))]
    assert hours[0].memory_mib == pytest.approx(64.5) and hours[0].covered == 3600.0
    assert history.read(UUID(int=2), NOON, MINUTE) == []


def test_a_day_is_kept_by_the_minute_and_a_month_by_the_hour(history: History) -> None:
    history.add([(WEB, Point(NOON, 60.0, 64, Counters(cpu_ns=1)))])
    history.thin(NOON + DAY)
    assert len(history.read(WEB, 0, MINUTE)) == 1
    history.thin(NOON + DAY + 1)
    assert (len(history.read(WEB, 0, MINUTE)), len(history.read(WEB, 0, HOUR))) == (0, 1)
    history.thin(NOON + 31 * DAY + 1)
    assert history.read(WEB, 0, HOUR) == []


def test_the_recorder_keeps_what_was_used_since_the_last_time(history: History) -> None:
    recorder = Recorder(None, history, now=lambda: NOON + 120.0)  # type: ignore[arg-type]  # it is given the samples
    recorder.keep([sample(NOON + 30.0)])
    (first,) = history.read(WEB, NOON, MINUTE)
    assert (first.at, first.covered, first.used.exits) == (NOON, 60.0, 111)  # from its start on
    later = replace(MEASURED, cpu_ns=5_000_000_000)
    recorder.keep([sample(NOON + 90.0, later), sample(NOON + 90.0, None, "gone")])
    assert history.read(WEB, NOON, MINUTE)[1].used == Counters(cpu_ns=3_000_000_000)
    recorder.keep([sample(NOON + 150.0, domid=4)])  # rebooted: all of it is new
    assert history.read(WEB, NOON, MINUTE)[-1].used.cpu_ns == 2_000_000_000


def test_numbers_that_can_be_no_counts_are_not_believed() -> None:
    assert is_sane(MEASURED)
    for bad in (-1, COUNT_MAX, 10**400):
        assert not is_sane(replace(MEASURED, memory_mib=bad))
        assert not is_sane(replace(MEASURED, disks=(replace(DISK, reads=bad),)))
    assert not is_sane(replace(MEASURED, disks=(DISK,) * 2000))


def test_prometheus_text_has_every_family_with_its_values() -> None:
    text = exposition(HOST, [sample(NOON, name='a "b"\n'), sample(NOON, None, "dead")]).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    values = {
        (each.name, each.labels.get("disk") or each.labels.get("kind") or each.labels.get("vcpu") or ""): each.value
        for family in families.values()
        for each in family.samples
        if each.labels.get("domain", "").startswith("a ")
    }
    assert values["domzero_domain_cpu_seconds_total", ""] == 2.0
    assert values["domzero_domain_vcpu_seconds_total", "0"] == 1.5
    assert values["domzero_domain_exits_total", "clts"] == 11
    assert values["domzero_disk_read_bytes_total", "xvdb"] == 4096
    assert values["domzero_disk_size_bytes", "xvda"] == 1 << 20
    assert values["domzero_network_transmit_bytes_total", ""] == 1000
    assert values["domzero_domain_memory_bytes", ""] == 64 << 20
    assert values["domzero_domain_cpu_cap_ratio", ""] == 0.5
    states = {each.labels["state"]: each.value for each in families["domzero_domains"].samples}
    assert (states["blocked"], states["running"], states["crashed"]) == (1, 1, 0)
    assert families["domzero_build_info"].samples[0].labels == {"version": "1.2", "engine": "translator"}
    labels = families["domzero_domain_info"].samples[0].labels
    assert (labels["domain"], labels["uuid"], labels["domid"]) == ('a "b"\n', str(WEB), "3")
    for family in families.values():
        assert family.documentation and family.type in ("counter", "gauge"), family.name


def test_the_host_is_measured_beside_its_domains() -> None:
    text = "cpu  100 10 20 1000 300 1 2 3 50 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert busy_ns(text) == 136 * 10**9 // os.sysconf("SC_CLK_TCK")
    times = iter([100.0, 160.0, 160.0])
    meter = HostMeter(lambda: next(times))
    point = meter.point()
    assert point is not None and (point.at, point.covered) == (130, 60.0) and point.memory_mib > 0
    assert meter.point() is None
