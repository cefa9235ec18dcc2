# SPDX-License-Identifier: Apache-2.0
"""`domzero top`: what domains use now, as xentop shows it; on a terminal live, else line by line."""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

from domzero.cli.api_client import Dom0
from domzero.cli.signals import ended_by_signals
from domzero.cli.status import ExitStatus
from domzero.cli.terminal import RawMode, is_terminal
from domzero.cli.text import columns
from domzero.cli.verb import add_verb
from domzero.dom0.names import DOMAIN_0, shown
from domzero.errors import ConfigError

Json = dict[str, Any]
DELAY_S = 3.0
NAME_WIDTH = 10
SECTOR = 512
_HEADS = (
    *(("STATE", 6), ("CPU(sec)", 10), ("CPU(%)", 6), ("MEM(k)", 10), ("MEM(%)", 6), ("MAXMEM(k)", 10)),
    *(("MAXMEM(%)", 9), ("VCPUS", 5), ("NETS", 4), ("NETTX(k)", 8), ("NETRX(k)", 8), ("VBDS", 4), ("VBD_OO", 8)),
    *(("VBD_RD", 8), ("VBD_WR", 8), ("VBD_RSECT", 10), ("VBD_WSECT", 10), ("SSID", 4)),
)
"""Columns behind the name, and how wide they are."""
_KEYS = "Networks  vBds  VCPUs  Repeat header  Full names  Quit"
_ENTER, _LEAVE, _HOME = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"


@dataclass(frozen=True, slots=True)
class View:
    """What is shown beside the table."""

    networks: bool = False
    vbds: bool = False
    vcpus: bool = False
    repeat_header: bool = False
    full_names: bool = False


@dataclass(slots=True)
class Domain:
    """One row, Domain 0's among them."""

    name: str
    state: str
    cpu_seconds: float
    memory_kib: int
    max_memory_kib: int | None
    vcpus: int
    cpu_percent: float = 0.0
    vcpu_seconds: list[float] = field(default_factory=list)
    vifs: list[Json] = field(default_factory=list)
    disks: list[Json] = field(default_factory=list)
    key: str = ""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "top",
        handle,
        "watch what domains use",
        "Shows what domains use now, as xentop does: on a terminal live, else line by line.",
    )
    parser.add_argument("-b", "--batch", action="store_true", help="line by line on a terminal, too")
    parser.add_argument(
        "-d", "--delay", type=float, default=DELAY_S, metavar="SECONDS", help="between two (default: 3)"
    )
    parser.add_argument("-i", "--iterations", type=int, metavar="N", help="end after so many")
    parser.add_argument("-n", "--networks", action="store_true", help="with network interfaces")
    parser.add_argument("-x", "--vbds", action="store_true", help="with disks")
    parser.add_argument("-v", "--vcpus", action="store_true", help="with vCPUs")
    parser.add_argument("-r", "--repeat-header", action="store_true", help="with the header before each domain")
    parser.add_argument("-f", "--full-name", action="store_true", help="names in full")


def handle(args: argparse.Namespace) -> int:
    """`top`."""
    view = View(args.networks, args.vbds, args.vcpus, args.repeat_header, args.full_name)
    with Dom0.from_args(args) as dom0:
        return watch(dom0, view, delay_s=args.delay, iterations=args.iterations, batch=args.batch, as_json=args.json)


def watch(dom0: Dom0, view: View, *, delay_s: float, iterations: int | None, batch: bool, as_json: bool = False) -> int:
    """Shows domains until it has done so often enough, or Q is typed."""
    if not 0 < delay_s < 86400:
        raise ConfigError(f"{delay_s} is not possible: seconds", key="delay")
    if iterations is not None and iterations < 1:
        raise ConfigError(f"{iterations} is not possible: 1 or more", key="iterations")
    if batch or as_json or not is_terminal():
        _batch(dom0, view, delay_s, iterations, as_json=as_json)
    else:
        _live(dom0, view, delay_s, iterations)
    return ExitStatus.OK


def _batch(dom0: Dom0, view: View, delay_s: float, iterations: int | None, *, as_json: bool) -> None:
    before: Json | None = None
    done = 0
    while True:
        now = dom0.get("/metrics")
        if as_json:
            print(json.dumps(now), flush=True)
        else:
            print("\n".join(table(domains(now, before), now["host"], view)), flush=True)
        before, done = now, done + 1
        if done == iterations:
            return
        time.sleep(delay_s)


def _live(dom0: Dom0, view: View, delay_s: float, iterations: int | None) -> None:
    before: Json | None = None
    done = 0
    with ended_by_signals(), RawMode(enabled=True, keeps_signals=True):
        sys.stdout.write(_ENTER)
        try:
            while True:
                now = dom0.get("/metrics")
                found = domains(now, before)
                before, done = now, done + 1
                end = time.monotonic() + delay_s
                while True:  # each key shows the same numbers otherwise
                    _draw(now["host"], found, view)
                    key = _key(end)
                    if key in ("q", "\x1b"):
                        return
                    if not key:
                        break
                    view = _toggled(view, key)
                if done == iterations:
                    return
        finally:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()


def _key(until: float) -> str:
    """A key that is typed until then, in lower case."""
    ready, _, _ = select.select([0], [], [], max(until - time.monotonic(), 0.0))
    return (os.read(0, 1).decode("latin-1").lower() or "q") if ready else ""


def _toggled(view: View, key: str) -> View:
    name = {"n": "networks", "b": "vbds", "x": "vbds", "v": "vcpus", "r": "repeat_header", "f": "full_names"}.get(key)
    return view if name is None else replace(view, **{name: not getattr(view, name)})


def _draw(host: Json, found: list[Domain], view: View) -> None:
    size = shutil.get_terminal_size()
    lines = [*summary(host, found), *table(found, host, view)]
    text = [_cut(line, size.columns) + _CLEAR_LINE for line in [*lines[: size.lines - 1]]]
    text += [""] * (size.lines - 1 - len(text))
    sys.stdout.write(
        _HOME + "\r\n".join([*(line or _CLEAR_LINE for line in text), _KEYS[: size.columns]]) + _CLEAR_BELOW
    )
    sys.stdout.flush()


def _cut(line: str, width: int) -> str:
    while columns(line) > width:
        line = line[:-1]
    return line


def domains(now: Json, before: Json | None) -> list[Domain]:
    """The rows, by name.

    :param now: `/v1/metrics`.
    :param before: the same, earlier: of the time between are the percents.
    """
    host = now["host"]
    found = [
        Domain(
            DOMAIN_0, "-----r", host["dom0_cpu_seconds"], host["dom0_memory_mib"] << 10, None, host["nr_cpus"], key="0"
        )
    ]
    for domain in now["domains"]:
        found.append(
            Domain(
                shown(domain["name"]),
                _flags(domain),
                domain["cpu_time_seconds"],
                domain["memory_mib"] << 10,
                domain["max_memory_mib"] << 10,
                domain["vcpus"],
                vcpu_seconds=domain["vcpu_time_seconds"],
                vifs=domain["vifs"],
                disks=domain["disks"],
                key=f"{domain['uuid']} {domain['domid']}",
            )
        )
    if before is not None:
        seconds = _seconds(now) - _seconds(before)
        earlier = {domain.key: domain.cpu_seconds for domain in domains(before, None)}
        for row in found:
            if row.key in earlier and seconds > 0:
                row.cpu_percent = max(row.cpu_seconds - earlier[row.key], 0.0) / seconds * 100
    return sorted(found, key=lambda domain: domain.name.lower())


def _seconds(metrics: Json) -> float:
    from datetime import datetime

    return datetime.fromisoformat(metrics["at"].replace("Z", "+00:00")).timestamp()


def _flags(domain: Json) -> str:
    """xentop's six letters: dying, shut down, blocked, crashed, paused, running."""
    state = domain["state"]
    letters = (("d", "destroyed"), ("s", "shutdown"), ("b", "blocked"), ("c", "crashed"), ("p", "paused"))
    running = "r" if state in ("running", "building") else "-"
    return "".join(letter if state == word else "-" for letter, word in letters) + running


def summary(host: Json, found: list[Domain]) -> list[str]:
    """The lines above the table."""
    counts = {letter: sum(letter in domain.state for domain in found) for letter in "rbpcds"}
    total, free = host["total_memory"] << 10, host["free_memory"] << 10
    return [
        f"domzero top - {time.strftime('%H:%M:%S')}   Xen {host['xen_version']}",
        f"{len(found)} domains: {counts['r']} running, {counts['b']} blocked, {counts['p']} paused, "
        f"{counts['c']} crashed, {counts['d']} dying, {counts['s']} shutdown",
        f"Mem: {total}k total, {total - free}k used, {free}k free    "
        f"CPUs: {host['nr_cpus']} @ {host['cpu_mhz']:.0f}MHz",
        "",
    ]


def table(found: list[Domain], host: Json, view: View) -> list[str]:
    """All of `xentop -b`."""
    width = max([NAME_WIDTH, *(columns(domain.name) for domain in found)]) if view.full_names else NAME_WIDTH
    head = " ".join([f"{'NAME':>{width}}", *(f"{name:>{size}}" for name, size in _HEADS)])
    lines = [] if view.repeat_header else [head]
    for domain in found:
        if view.repeat_header:
            lines.append(head)
        lines.append(_row(domain, host, width))
        if view.vcpus:
            lines += _vcpu_lines(domain)
        if view.networks:
            lines += [_network_line(vif) for vif in domain.vifs]
        if view.vbds:
            lines += [_vbd_line(disk) for disk in domain.disks]
    return lines


def _row(domain: Domain, host: Json, width: int) -> str:
    name = _cut(domain.name, width)
    total = (host["total_memory"] << 10) or 1
    most = domain.max_memory_kib
    disks, vifs = domain.disks, domain.vifs

    def total_of(devices: list[Json], key: str) -> int:
        return sum(device[key] for device in devices)

    values = (
        domain.state,
        int(domain.cpu_seconds),
        f"{domain.cpu_percent:.1f}",
        domain.memory_kib,
        f"{domain.memory_kib / total * 100:.1f}",
        "no limit" if most is None else most,
        "n/a" if most is None else f"{most / total * 100:.1f}",
        domain.vcpus,
        len(vifs),
        total_of(vifs, "sent_bytes") >> 10,
        total_of(vifs, "received_bytes") >> 10,
        len(disks),
        total_of(disks, "held"),
        total_of(disks, "reads"),
        total_of(disks, "writes"),
        total_of(disks, "read_bytes") // SECTOR,
        total_of(disks, "written_bytes") // SECTOR,
        0,
    )
    cells = [f"{value:>{size}}" for value, (_, size) in zip(values, _HEADS, strict=True)]
    return " ".join([" " * (width - columns(name)) + name, *cells])


def _vcpu_lines(domain: Domain) -> list[str]:
    seconds = domain.vcpu_seconds
    lines = []
    for begin in range(0, len(seconds), 5):
        part = "".join(f" {begin + n:2d}: {int(each):10d}s" for n, each in enumerate(seconds[begin : begin + 5]))
        lines.append(("VCPUs(sec): " if not begin else " " * 8) + part)
    return lines


def _network_line(vif: Json) -> str:
    received = (vif["received_bytes"], vif["received_frames"], 0, vif["dropped"])
    sent = (vif["sent_bytes"], vif["sent_frames"], vif["errors"], vif["spoofed"])
    texts = ["{:8d}bytes {:8d}pkts {:8d}err {:8d}drop".format(*values) for values in (received, sent)]
    return f"Net{vif['devid']} RX: {texts[0]}  TX: {texts[1]}"


def _vbd_line(disk: Json) -> str:
    number = disk["devid"]
    return (
        f"VBD BlkBack {number} [{number >> 8 & 0xFF:2x}:{number & 0xFF:2x}]  OO: {disk['held']:8d}   "
        f"RD: {disk['reads']:8d}   WR: {disk['writes']:8d}   RSECT: {disk['read_bytes'] // SECTOR:10d}   "
        f"WSECT: {disk['written_bytes'] // SECTOR:10d}"
    )
