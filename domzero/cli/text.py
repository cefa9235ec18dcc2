# SPDX-License-Identifier: Apache-2.0
"""xl's text formats, to the character: people's scripts parse them."""

from __future__ import annotations

from typing import Any
from unicodedata import combining, east_asian_width

from domzero.dom0.cpuspec import format_cpus
from domzero.dom0.names import DOMAIN_0

Json = dict[str, Any]

NAME_WIDTH = 40
VCPU_NAME_WIDTH = 32
# SHUTDOWN_poweroff, _reboot, _suspend, _crash, _watchdog, _soft_reset
_SHUTDOWN_LETTERS = {"poweroff": "-", "reboot": "r", "suspend": "s", "crash": "c", "watchdog": "w", "soft_reset": "S"}
INFO_FIELDS = (
    *("host", "release", "version", "machine", "nr_cpus", "max_cpu_id", "nr_nodes", "cores_per_socket"),
    *("threads_per_core", "cpu_mhz", "hw_caps", "virt_caps", "total_memory", "free_memory", "outstanding_claims"),
    *("free_cpus", "xen_major", "xen_minor", "xen_extra", "xen_version", "xen_caps", "xen_scheduler"),
    *("xen_pagesize", "platform_params", "xen_changeset", "xen_commandline", "cc_compiler", "xend_config_format"),
    "engine",
    "full_virtualization",
    "user_network",
    "worker_confinement",
)


def state_flags(domain: Json) -> str:
    """The six characters `rbpsSd` of `xl list`."""
    state = domain["state"]
    over = state in ("shutdown", "crashed")
    letter = _SHUTDOWN_LETTERS.get((domain.get("exit") or {}).get("reason", ""), "?") if over else "-"
    return "".join(
        (
            "r" if state in ("running", "building") else "-",
            "b" if state == "blocked" else "-",
            "p" if state == "paused" else "-",
            "s" if over else "-",
            letter,
            "d" if state == "destroyed" else "-",
        )
    )


def columns(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def list_header(width: int = NAME_WIDTH) -> str:
    """The first line of `xl list`."""
    return f"{'Name':<{width}} {'ID':>5}   Mem VCPUs\tState\tTime(s)"


def list_row(
    name: str, domid: int | None, memory_mib: int, vcpus: int, flags: str, seconds: float, width: int = NAME_WIDTH
) -> str:
    """A row of `xl list`.

    :param domid: None: it is halted.
    :param width: of the first column, in columns of a terminal.
    """
    padded = name + " " * (width - columns(name))
    number = "-" if domid is None else domid
    return f"{padded} {number:>5} {memory_mib:5d} {vcpus:5d}     {flags}  {seconds:8.1f}"


def list_table(domains: list[Json], host: Json | None) -> str:
    """All of `xl list`. Its first column is xl's, or as wide as the longest name.

    :param host: adds Domain 0's row.
    """
    width = max([NAME_WIDTH, *(columns(domain["name"]) for domain in domains)])
    rows = [list_header(width)]
    if host is not None:
        seconds = host["dom0_cpu_seconds"]
        rows.append(list_row(DOMAIN_0, 0, host["dom0_memory_mib"], host["nr_cpus"], "r-----", seconds, width))
    rows += [
        list_row(
            domain["name"],
            domain["domid"],
            domain["current_memory_mib"],
            domain["vcpus"],
            state_flags(domain),
            domain["cpu_time_seconds"],
            width,
        )
        for domain in domains
    ]
    return "\n".join(rows)


def vcpu_table(domains: list[tuple[Json, list[Json]]], processors: int) -> str:
    """All of `xl vcpu-list`: each domain with its vCPUs.

    :param processors: of the host, all of which a vCPU's affinity calls `all`.
    """
    width = max([VCPU_NAME_WIDTH, *(columns(domain["name"]) for domain, _ in domains)])
    head = f"{'ID':>5} {'VCPU':>5} {'CPU':>5} {'State':>5} {'Time(s)':>9} Affinity (Hard / Soft)"
    rows = [f"{'Name':<{width}} {head}"]
    for domain, vcpus in domains:
        name = domain["name"] + " " * (width - columns(domain["name"]))
        for vcpu in vcpus:
            state = {"running": "r--", "blocked": "-b-", "paused": "---", "offline": "--p"}[vcpu["state"]]
            processor = "-" if vcpu["processor"] is None or state == "--p" else vcpu["processor"]
            affinity = "all" if len(vcpu["affinity"]) == processors else format_cpus(vcpu["affinity"])
            rows.append(
                f"{name} {domain['domid'] or 0:5d} {vcpu['vcpu']:5d}{processor:>5} {state:>5} "
                f"{vcpu['cpu_time_seconds']:9.1f}  {affinity} / all"
            )
    return "\n".join(rows)


def schedule_table(domains: list[Json]) -> str:
    """All of `xl sched-credit2`, for domains."""
    width = max([VCPU_NAME_WIDTH + 1, *(columns(domain["name"]) for domain in domains)])
    rows = [f"{'Name':<{width}} {'ID':>4} {'Weight':>6} {'Cap':>4}"]
    for domain in domains:
        name = domain["name"] + " " * (width - columns(domain["name"]))
        rows.append(f"{name} {domain['domid'] or 0:4d} {domain['cpu_weight']:6d} {domain['cap']:4d}")
    return "\n".join(rows)


def info_lines(host: Json) -> list[str]:
    """All of `xl info`."""
    return [f"{field:<23}: {host[field]}" for field in INFO_FIELDS if field in host]


def duration(seconds: float) -> str:
    """As in `xl uptime`: days if there are any, then h:mm:ss."""
    whole = int(seconds)
    days, rest = divmod(whole, 86400)
    clock = f"{rest // 3600:2d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days} day{'s' if days != 1 else ''}, {clock}" if days else clock


def memory_kib(text: str) -> int | None:
    """xl's memory sizes: KiB unless there is a unit t, g, m, k or b; None if it is not one."""
    text = text.strip().lower()
    shifts = {"t": 30, "g": 20, "m": 10, "k": 0, "b": -10}
    shift = 0
    if text and text[-1] in shifts:
        shift = shifts[text[-1]]
        text = text[:-1]
    if not text.isascii() or not text.isdecimal():
        return None
    return int(text) << shift if shift >= 0 else int(text) >> -shift
