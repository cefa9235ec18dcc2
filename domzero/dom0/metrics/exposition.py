# SPDX-License-Identifier: Apache-2.0
"""Prometheus' text: names and units by its conventions, by its own library.

Counters are those of the domain's present start: they begin again at 0 when it is started again, as counters may.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from domzero.dom0.device_stats import DiskStats, VifStats
from domzero.dom0.life import DomainState
from domzero.dom0.metrics.sampler import Sample

__all__ = ["CONTENT_TYPE_LATEST", "exposition"]

_MIB = 1 << 20
_DOMAIN = ("domain", "uuid")
_DISK_COUNTERS: tuple[tuple[str, str, str], ...] = (
    ("reads", "reads", "Read requests of the guest."),
    ("writes", "writes", "Write requests of the guest."),
    ("read_bytes", "read_bytes", "Bytes that the guest has read."),
    ("written_bytes", "written_bytes", "Bytes that the guest has written."),
    ("flushes", "flushes", "Flush requests of the guest."),
    ("discards", "discards", "Discard requests of the guest."),
    ("errors", "errors", "Requests that were answered with an error."),
    ("held", "throttled", "How often requests have waited for the disk's limits."),
)
"""Field, name and help of each."""
_VIF_COUNTERS: tuple[tuple[str, str, str], ...] = (
    ("sent_frames", "transmit_frames", "Frames that the guest has sent."),
    ("sent_bytes", "transmit_bytes", "Bytes that the guest has sent."),
    ("received_frames", "receive_frames", "Frames that the guest has received."),
    ("received_bytes", "receive_bytes", "Bytes that the guest has received."),
    ("errors", "transmit_errors", "Frames of the guest's that were answered with an error."),
    ("spoofed", "transmit_spoofed", "Frames of the guest's that were dropped for their source."),
    ("dropped", "receive_dropped", "Frames for the guest that were dropped."),
)


class _Families(Collector):
    """What `generate_latest` writes."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """prometheus_client."""
        return self._metrics


def exposition(host: dict[str, Any], samples: Sequence[Sample]) -> bytes:
    """The text of all metrics.

    :param host: `hostinfo.host_info`.
    """
    metrics = [*_host(host, samples), *_domains(samples), *_disks(samples), *_vifs(samples)]
    return generate_latest(_Families(metrics))


def _host(host: dict[str, Any], samples: Sequence[Sample]) -> Iterator[Metric]:
    build = GaugeMetricFamily("domzero_build_info", "What runs here; always 1.", labels=("version", "engine"))
    build.add_metric((host["domzero_version"], host["engine"].split()[0].rstrip(":,")), 1)
    yield build
    for name, text, value in (
        ("host_processors", "Processors of the host that Domain 0 may use.", host["nr_cpus"]),
        ("host_memory_bytes", "Memory of the host.", host["total_memory"] * _MIB),
        ("host_memory_available_bytes", "Memory of the host that can still be had.", host["free_memory"] * _MIB),
        ("dom0_resident_memory_bytes", "Memory of the Domain 0 process.", host["dom0_memory_mib"] * _MIB),
        ("dom0_start_time_seconds", "When Domain 0 was started, since 1970.", time.time() - host["uptime_seconds"]),
    ):
        yield GaugeMetricFamily(f"domzero_{name}", text, value=value)
    yield CounterMetricFamily(
        "domzero_dom0_cpu_seconds", "Processor time of the Domain 0 process.", value=host["dom0_cpu_seconds"]
    )
    states = GaugeMetricFamily("domzero_domains", "Domains that exist, by what they do.", labels=("state",))
    counts = Counter(_state(sample) for sample in samples)
    for state in DomainState:
        states.add_metric((state.value,), counts[state])
    yield states


def _state(sample: Sample) -> DomainState:
    """What it does; the worker knows whether it is blocked."""
    known = sample.record.state
    is_up = known in (DomainState.RUNNING, DomainState.BLOCKED)
    return sample.measured.state if is_up and sample.measured is not None else known


def _domains(samples: Sequence[Sample]) -> Iterator[Metric]:
    about = GaugeMetricFamily(
        "domzero_domain_info", "A domain that exists; always 1.", labels=(*_DOMAIN, "domid", "engine", "state")
    )
    gauges = {
        name: GaugeMetricFamily(f"domzero_domain_{name}", text, labels=_DOMAIN)
        for name, text in (
            ("start_time_seconds", "When it was started the last time, since 1970."),
            ("vcpus", "vCPUs that it should use."),
            ("memory_bytes", "Memory that it has."),
            ("memory_target_bytes", "Memory that its balloon driver is asked for."),
            ("memory_max_bytes", "Memory that it may grow to."),
            ("cpu_weight", "Its part of a processor that several domains want."),
            ("cpu_cap_ratio", "Processors that its vCPUs may use together; 0 is no bound."),
        )
    }
    reboots = CounterMetricFamily("domzero_domain_reboots", "How often it was started again.", labels=_DOMAIN)
    cpu = CounterMetricFamily(
        "domzero_domain_cpu_seconds", "Processor time of the domain: its vCPUs and back ends.", labels=_DOMAIN
    )
    vcpu = CounterMetricFamily("domzero_domain_vcpu_seconds", "Processor time of a vCPU.", labels=(*_DOMAIN, "vcpu"))
    exits = CounterMetricFamily(
        "domzero_domain_exits", "How often guest code left the machine, by reason.", labels=(*_DOMAIN, "kind")
    )
    for sample in samples:
        record, measured, names = sample.record, sample.measured, _names(sample)
        config = record.config
        about.add_metric((*names, str(sample.domid), record.engine or "", _state(sample).value), 1)
        reboots.add_metric(names, record.reboots)
        values: dict[str, float] = {
            "start_time_seconds": record.started_at or 0.0,
            "vcpus": config.vcpus,
            "memory_bytes": (measured.memory_mib if measured else record.current_memory_mib) * _MIB,
            "memory_target_bytes": record.memory_target_mib * _MIB,
            "memory_max_bytes": config.static_max_mib * _MIB,
            "cpu_weight": config.cpu_weight,
            "cpu_cap_ratio": config.cap / 100,
        }
        for name, value in values.items():
            gauges[name].add_metric(names, value)
        if measured is None:
            continue
        cpu.add_metric(names, measured.cpu_ns / 1e9)
        for number, spent_ns in enumerate(sample.vcpu_ns):
            vcpu.add_metric((*names, str(number)), spent_ns / 1e9)
        for each in measured.exits:
            exits.add_metric((*names, each.kind.value), each.count)
    yield from (about, *gauges.values(), reboots, cpu, vcpu, exits)


def _names(sample: Sample) -> tuple[str, str]:
    return sample.record.name, str(sample.record.uuid)


def _disks(samples: Sequence[Sample]) -> Iterator[Metric]:
    labels = (*_DOMAIN, "disk")
    found: list[tuple[tuple[str, ...], DiskStats]] = [
        ((*_names(sample), disk.vdev), disk)
        for sample in samples
        for disk in (sample.measured.disks if sample.measured else ())
    ]
    size = GaugeMetricFamily("domzero_disk_size_bytes", "Size of the disk.", labels=labels)
    for names, disk in found:
        size.add_metric(names, disk.bytes)
    yield size
    for field, name, text in _DISK_COUNTERS:
        counter = CounterMetricFamily(f"domzero_disk_{name}", text, labels=labels)
        for names, disk in found:
            counter.add_metric(names, getattr(disk, field))
        yield counter


def _vifs(samples: Sequence[Sample]) -> Iterator[Metric]:
    labels = (*_DOMAIN, "interface", "network")
    found: list[tuple[tuple[str, ...], VifStats]] = [
        ((*_names(sample), str(vif.devid), vif.network), vif)
        for sample in samples
        for vif in (sample.measured.vifs if sample.measured else ())
    ]
    up = GaugeMetricFamily("domzero_network_up", "Whether the interface's link is up.", labels=labels)
    for names, vif in found:
        up.add_metric(names, vif.link == "up")
    yield up
    for field, name, text in _VIF_COUNTERS:
        counter = CounterMetricFamily(f"domzero_network_{name}", text, labels=labels)
        for names, vif in found:
            counter.add_metric(names, getattr(vif, field))
        yield counter
