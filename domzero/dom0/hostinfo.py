# SPDX-License-Identifier: Apache-2.0
"""What the host is, under the names that `xl info` has for it."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domzero import __version__
from domzero.abi.arch_x86 import HYPERVISOR_VIRT_START
from domzero.abi.start_info import MAGIC_32, MAGIC_64
from domzero.abi.xen import PAGE_SIZE
from domzero.dom0 import confinement, network
from domzero.dom0.memory_account import memory_mib
from domzero.dom0.qemu import trial
from domzero.hypervisor.engine import Engine, choose

if TYPE_CHECKING:
    from domzero.dom0.manager import Manager

_STAT_UTIME, _STAT_STIME, _STAT_PROCESSOR = 11, 12, 36
"""Where /proc/PID/stat has them (proc(5): 14, 15 and 39), counted from behind the command's name."""
XEN_VERSION = (4, 17, "-domzero")


async def full_host_info(manager: Manager) -> dict[str, Any]:
    """As `host_info`, with what it takes a trial to know."""
    return host_info(manager) | {"full_virtualization": await asyncio.to_thread(trial.described)}


def host_info(manager: Manager) -> dict[str, Any]:
    """All fields of `xl info`, and some of our own."""
    uname = platform.uname()
    cpus = len(os.sched_getaffinity(0))
    total, free = memory_mib()
    major, minor, extra = XEN_VERSION
    return {
        "host": uname.node,
        "release": uname.release,
        "version": uname.version,
        "machine": uname.machine,
        "nr_cpus": cpus,
        "max_cpu_id": cpus - 1,
        "nr_nodes": 1,
        "cores_per_socket": cpus,
        "threads_per_core": 1,
        "cpu_mhz": _cpu_mhz(),
        "hw_caps": "",
        "virt_caps": "pv",
        "total_memory": total,
        "free_memory": free,
        "outstanding_claims": 0,
        "free_cpus": 0,
        "xen_major": major,
        "xen_minor": minor,
        "xen_extra": extra,
        "xen_version": f"{major}.{minor}{extra}",
        "xen_caps": f"{MAGIC_64.decode()} {MAGIC_32.decode()}",
        "xen_scheduler": "host",
        "xen_pagesize": PAGE_SIZE,
        "platform_params": f"virt_start={HYPERVISOR_VIRT_START:#x}",
        "xen_changeset": f"domzero {__version__}",
        "xen_commandline": "",
        "cc_compiler": f"Python {platform.python_version()}",
        "xend_config_format": 4,
        "domzero_version": __version__,
        "engine": str(choose(Engine.AUTO)),
        "user_network": network.user_network(),
        "worker_confinement": confinement.described(confined=manager.confined),
        "dom0_memory_mib": _resident_mib(),
        "dom0_cpu_seconds": round(time.process_time(), 3),
        "uptime_seconds": round(time.time() - manager.started_at, 3),
        "domains": len(manager.all()),
        "pid": os.getpid(),
    }


def _resident_mib() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except OSError:
        return 0


def _cpu_mhz() -> float:
    try:
        match = re.search(r"^cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return float(match[1]) if match else 0.0


@dataclass(slots=True, frozen=True)
class ThreadUsage:
    """What a thread has used.

    :param processor: that it ran on last.
    :param cpu_ns: of processors, in user and system mode.
    """

    processor: int
    cpu_ns: int


def thread_usage(pid: int, thread_id: int) -> ThreadUsage | None:
    """Of a process' thread; None when it is not there any more."""
    try:
        fields = Path(f"/proc/{pid}/task/{thread_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ticks = int(fields[_STAT_UTIME]) + int(fields[_STAT_STIME])
    return ThreadUsage(int(fields[_STAT_PROCESSOR]), ticks * 10**9 // os.sysconf("SC_CLK_TCK"))
