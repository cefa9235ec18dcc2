# SPDX-License-Identifier: Apache-2.0
"""xl's tables where they are not those of `domzero`'s own verbs, to the character."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from domzero.cli.text import duration, list_header, list_row, state_flags
from domzero.dom0.names import DOMAIN_0

Json = dict[str, Any]
POOL = "Pool-0"
"""The one pool of processors: the host's."""
REASONS = {"poweroff": 0, "reboot": 1, "suspend": 2, "crash": 3, "watchdog": 4, "soft_reset": 5}
"""enum sched_shutdown_reason."""
INFO_FIELDS = (
    *("host", "release", "version", "machine", "nr_cpus", "max_cpu_id", "nr_nodes", "cores_per_socket"),
    *("threads_per_core", "cpu_mhz", "hw_caps", "virt_caps", "total_memory", "free_memory", "sharing_freed_memory"),
    *("sharing_used_memory", "outstanding_claims", "free_cpus", "xen_major", "xen_minor", "xen_extra", "xen_version"),
    *("xen_caps", "xen_scheduler", "xen_pagesize", "platform_params", "xen_changeset", "xen_commandline"),
    *("cc_compiler", "cc_compile_by", "cc_compile_domain", "cc_compile_date", "build_id", "xend_config_format"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What the tables of domains show of one, Domain 0 among them."""

    name: str
    domid: int
    uuid: uuid.UUID
    memory_mib: int
    vcpus: int
    flags: str
    cpu_seconds: float
    reason: int | None

    @classmethod
    def of_host(cls, host: Json) -> Row:
        """Domain 0's."""
        seconds = host["dom0_cpu_seconds"]
        memory = host["dom0_memory_mib"]
        return cls(DOMAIN_0, 0, uuid.UUID(int=0), memory, host["nr_cpus"], "r-----", seconds, None)

    @classmethod
    def of(cls, domain: Json) -> Row:
        """A domain's."""
        over = domain["state"] in ("shutdown", "crashed")
        reason = REASONS.get((domain["exit"] or {}).get("reason", ""), 255) if over else None
        return cls(
            domain["name"],
            domain["domid"] or 0,
            uuid.UUID(domain["uuid"]),
            domain["current_memory_mib"],
            domain["vcpus"],
            state_flags(domain),
            domain["cpu_time_seconds"],
            reason,
        )


_Column = tuple[str, Callable[[Row], str]]
VERBOSE: _Column = (
    "   UUID                            Reason-Code\tSecurity Label",
    lambda row: f" {row.uuid} {'-' if row.reason is None else format(row.reason, 'x'):>8} {'-':>16}",
)
LABEL: _Column = ("   Security Label", lambda row: f" {'-':>16}")
CLAIMED: _Column = ("  Claimed", lambda row: f" {0:5d}")
CPUPOOL: _Column = ("         Cpupool", lambda row: f" {POOL:>16}")
NODES: _Column = (" NODE Affinity", lambda row: " all")


def domain_table(rows: Sequence[Row], columns: Sequence[_Column]) -> str:
    """All of `xl list`, with what its options add."""
    lines = [list_header() + "".join(head for head, _ in columns)]
    for row in rows:
        line = list_row(row.name, row.domid, row.memory_mib, row.vcpus, row.flags, row.cpu_seconds)
        lines.append(line + "".join(show(row) for _, show in columns))
    return "\n".join(lines)


def sharing_table(rows: Sequence[Row]) -> str:
    """All of `xl sharing`: domains share no pages here."""
    head = "Name                                        ID   Mem Shared"
    return "\n".join([head, *(f"{row.name:<40} {row.domid:5d} {row.memory_mib:5d}  {0:5d}" for row in rows)])


def block_table(domains: Sequence[tuple[Json, list[Json]]]) -> str:
    """All of `xl block-list`."""
    head = f"{'Vdev':<5} {'BE':<3} {'handle':<6} {'state':<5} {'evt-ch':<6} {'ring-ref':<8} {'BE-path':<30}"
    lines = [head]
    for domain, disks in domains:
        domid = domain["domid"]
        for disk in disks:
            front = disk["front"]
            path = f"/local/domain/0/backend/vbd/{domid}/{disk['devid']}"
            lines.append(
                f"{disk['devid']:<5d} {0:<3d} {domid:<6d} {_or_none(front['state']):<5d} "
                f"{_or_none(front['event_channel']):<6d} {_or_none(front['ring_refs'][0]):<8d} {path:<30}"
            )
    return "\n".join(lines)


def network_table(domains: Sequence[tuple[Json, list[Json]]]) -> str:
    """All of `xl network-list`."""
    head = f"{'Idx':<3} {'BE':<2} {'Mac Addr.':<17} {'handle':<6} {'state':<5} {'evt-ch':<6} "
    lines = [head + f"{'tx-':>5}/{'rx-ring-ref':<5} {'BE-path':<30}"]
    for domain, vifs in domains:
        for vif in vifs:
            front, (tx, rx) = vif["front"], vif["front"]["ring_refs"]
            path = f"/local/domain/0/backend/vif/{domain['domid']}/{vif['devid']}"
            lines.append(
                f"{vif['devid']:<3d} {0:<2d} {vif['mac']}{vif['devid']:6d} {_or_none(front['state']):5d} "
                f"{_or_none(front['event_channel']):6d} {_or_none(tx):5d}/{_or_none(rx):<11d} {path:<30}"
            )
    return "\n".join(lines)


def _or_none(number: int | None) -> int:
    """libxl's -1 for what a front end has not said."""
    return -1 if number is None else number


def channel_table(domains: Sequence[tuple[Json, list[Json]]]) -> str:
    """All of `xl channel-list`."""
    lines = [f"{'Idx':<3} {'BE':<2} {'state':<5} {'evt-ch':<6} {'ring-ref':>8} {'connection':<10} {'':<30}"]
    for _, consoles in domains:
        for console in (each for each in consoles if each["number"]):
            front = console["front"]
            lines.append(
                f"{console['number']:<3d} {0:<2d} {_or_none(front['state']):<5d} "
                f"{_or_none(front['event_channel']):<6d} {_or_none(front['ring_refs'][0]):<8d} "
                f"{console['connection']:<10} {console['place']:<30} "
            )
    return "\n".join(lines)


def uptime_lines(rows: Sequence[tuple[str, int, float]], *, short: bool) -> str:
    """All of `xl uptime`.

    :param rows: name, domid and seconds of each.
    """
    if not short:
        lines = [f"{'Name':<33} {'ID':>4} Uptime"]
        return "\n".join([*lines, *(f"{name:<33} {domid:4d} {duration(seconds)}" for name, domid, seconds in rows)])
    now = time.strftime("%H:%M:%S")
    return "\n".join(f" {now} up {duration(seconds)[:-3]}, {name} ({domid})" for name, domid, seconds in rows)


def pool_table(cpus: Sequence[int], domains: int, scheduler: str, *, with_cpus: bool) -> str:
    """All of `xl cpupool-list`."""
    head = f"{'Name':<19}" + ("CPU list" if with_cpus else "CPUs   Sched     Active   Domain count")
    row = f"{POOL:<19}"
    row += ",".join(map(str, cpus)) if with_cpus else f"{len(cpus):3d} {scheduler:>9}       y       {domains:4d}"
    return f"{head}\n{row}"


def _topology(host: Json) -> list[str]:
    """What `xl info -n` adds: each processor is a core of its own, of one node without known devices."""
    memory = f"{0:4d}:    {host['total_memory']:6d}     {host['free_memory']:6d}      10"
    return [
        "cpu_topology           :",
        "cpu:    core    socket     node",
        *(f"{cpu:3d}:    {cpu:4d}     {0:4d}     {0:4d}" for cpu in range(host["nr_cpus"])),
        "device topology        :",
        "device           node",
        "No device topology data available",
        "numa_info              :",
        "node:    memsize    memfree    distances",
        memory,
    ]


def info_lines(host: Json, *, topology: bool = False) -> list[str]:
    """All of `xl info`."""
    values = {**host, "cpu_mhz": f"{host['cpu_mhz']:.3f}", "sharing_freed_memory": 0, "sharing_used_memory": 0}
    lines = [f"{field:<23}: {values.get(field, '')}" for field in INFO_FIELDS]
    behind = INFO_FIELDS.index("free_cpus") + 1
    return [*lines[:behind], *_topology(host), *lines[behind:]] if topology else lines
