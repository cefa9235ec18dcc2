# SPDX-License-Identifier: Apache-2.0
"""The xenstore nodes of a domain whose machine is QEMU's: what the toolstack's programs look at."""

from __future__ import annotations

import time
from collections.abc import Sequence

from domzero.abi.io_xenbus import XenbusState
from domzero.dom0.config import DomainConfig
from domzero.dom0.vnc.listener import OpenScreen
from domzero.dom0.xenstore import Store
from domzero.dom0.xenstore_nodes import home, vcpu_nodes


def write_nodes(
    store: Store, config: DomainConfig, domid: int, *, tty: str, channels: Sequence[str], screen: OpenScreen | None
) -> None:
    """Writes them; the domain is introduced afterwards.

    :param tty: the host's pty that its console is on, too.
    :param channels: the ptys of its channels, empty for sockets.
    :param screen: where its screen can be looked at.
    """
    path, vm = home(domid), f"/vm/{config.uuid}"
    nodes: list[tuple[str, str | int]] = [
        (f"{vm}/uuid", str(config.uuid)),
        (f"{vm}/name", config.name),
        (f"{vm}/start_time", f"{time.time():.2f}"),
        (f"{path}/vm", vm),
        (f"{path}/name", config.name),
        (f"{path}/domid", domid),
        *vcpu_nodes(domid, config.vcpus, config.vcpus_max),
        (f"{path}/memory/static-max", config.static_max_mib << 10),
        (f"{path}/memory/target", config.memory_mib << 10),
        (f"{path}/memory/videoram", config.hvm.videoram_mib << 10),
        (f"{path}/control/shutdown", ""),
        (f"{path}/serial/0/tty", tty),
        (f"{path}/console/tty", tty),
        (f"{path}/console/output", "pty"),
    ]
    for spec, channel in zip(config.channel_specs, channels, strict=True):
        back = f"/local/domain/0/backend/console/{domid}/{spec.devid}"
        nodes += [
            (f"{back}/tty", channel),
            (f"{back}/name", spec.name),
            (f"{back}/state", XenbusState.XenbusStateConnected),
        ]
    if screen is not None:
        nodes += [(f"/local/domain/0/backend/vfb/{domid}/0/{name}", value) for name, value in screen.nodes.items()]
    shown = ("n0", f"r{domid}")
    for name, value in nodes:
        store.write(name, str(int(value)) if isinstance(value, int) else value, shown)


__all__ = ["write_nodes"]
