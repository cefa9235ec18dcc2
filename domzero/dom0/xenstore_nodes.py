# SPDX-License-Identifier: Apache-2.0
"""The xenstore nodes that a PV domain finds when it starts (xenstore-paths), as Xen's own toolstack writes them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol
from uuid import UUID

from domzero.builder.domain import RingPage
from domzero.dom0.config import DomainConfig

CONSOLE_LIMIT = 1 << 20


class Writer(Protocol):
    """What is needed of a store."""

    def write(self, path: str, value: str | bytes | int, perms: tuple[str, ...] | None = None) -> None: ...
    def mkdir(self, path: str, perms: tuple[str, ...] | None = None) -> None: ...
    def rm(self, path: str) -> None: ...


def home(domid: int) -> str:
    """A domain's own directory."""
    return f"/local/domain/{domid}"


def back_end_directories(domid: int) -> list[str]:
    """Where the nodes of a domain's back ends are."""
    return [f"/local/domain/0/backend/{kind}/{domid}" for kind in ("console", "vbd", "vif", "9pfs", "vfb", "vkbd")]


def write_nodes(
    store: Writer, config: DomainConfig, domid: int, xenstore: RingPage, console: RingPage, *, tty: str = ""
) -> None:
    """Writes everything; the domain is introduced afterwards.

    :param tty: the host's pty that its console is on, too.
    """
    path, vm = home(domid), f"/vm/{config.uuid}"
    shown = ("n0", f"r{domid}")
    own = (f"n{domid}",)

    store.mkdir(vm, shown)
    _write(store, shown, ((f"{vm}/uuid", config.uuid), (f"{vm}/name", config.name), (f"{vm}/start_time", _now())))
    store.mkdir(path, shown)
    _write(
        store,
        shown,
        (
            (f"{path}/vm", vm),
            (f"{path}/name", config.name),
            (f"{path}/domid", domid),
            *vcpu_nodes(domid, config.vcpus, config.vcpus_max),
            (f"{path}/memory/static-max", config.static_max_mib << 10),
            (f"{path}/memory/target", config.memory_mib << 10),
            (f"{path}/memory/videoram", -1),
            (f"{path}/control/platform-feature-multiprocessor-suspend", 1),
            (f"{path}/control/platform-feature-xs_reset_watches", 1),
            (f"{path}/store/ring-ref", xenstore.mfn),
            (f"{path}/store/port", xenstore.port),
            (f"{path}/console/ring-ref", console.mfn),
            (f"{path}/console/port", console.port),
            (f"{path}/console/limit", CONSOLE_LIMIT),
            (f"{path}/console/type", "xenconsoled"),
            (f"{path}/console/output", "pty"),
            (f"{path}/console/tty", tty),
        ),
    )
    for directory in ("device", "device/suspend"):
        store.mkdir(f"{path}/{directory}", shown)
    features = ("poweroff", "reboot", "suspend", "s3", "s4")
    _write(
        store,
        own,
        (
            (f"{path}/control/shutdown", ""),
            (f"{path}/control/sysrq", ""),
            *((f"{path}/control/feature-{name}", "") for name in features),
            (f"{path}/device/suspend/event-channel", ""),
        ),
    )
    for directory in ("data", "drivers", "feature", "attr", "error"):
        store.mkdir(f"{path}/{directory}", own)


def vcpu_nodes(domid: int, online: int, most: int) -> list[tuple[str, str]]:
    """What tells a guest how many of its vCPUs it should use: the first `online` of `most`."""
    states = ("online" if cpu < online else "offline" for cpu in range(most))
    return [(f"{home(domid)}/cpu/{cpu}/availability", state) for cpu, state in enumerate(states)]


def forget_nodes(store: Writer, uuid: UUID, domid: int | None) -> None:
    """Removes what `Store.release` does not: nodes of its back ends, and of the machine, which outlives its domains."""
    for directory in () if domid is None else back_end_directories(domid):
        store.rm(directory)
    store.rm(f"/vm/{uuid}")


def _write(store: Writer, perms: tuple[str, ...], nodes: Iterable[tuple[str, object]]) -> None:
    for path, value in nodes:
        store.write(path, str(value), perms)


def _now() -> str:
    return f"{time.time():.2f}"
