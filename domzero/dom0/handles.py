# SPDX-License-Identifier: Apache-2.0
"""What Domain 0 has of a domain that is there: a worker of our own, or a QEMU. Both take the same requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from domzero.dom0.config import DomainConfig
from domzero.dom0.messages import Change
from domzero.dom0.qemu.handle import QemuHandle
from domzero.dom0.worker_handle import WorkerHandle
from domzero.dom0.worker_spawner import WorkerSpawner
from domzero.dom0.xenstore import Store
from domzero.dom0.xenstore_nodes import back_end_directories

Handle: TypeAlias = WorkerHandle | QemuHandle


def new_handle(
    spawner: WorkerSpawner,
    store: Store,
    config: DomainConfig,
    domid: int,
    *,
    on_console: Callable[[bytes], None],
    on_event: Callable[[Change], None],
    on_gone: Callable[[str], None],
) -> Handle:
    """For a domain that is to be started: which of the two its type says. The callbacks are `WorkerHandle`'s."""
    if config.type.is_full:
        outlives = spawner if spawner.outlives else None
        return QemuHandle(store, domid, on_console=on_console, on_event=on_event, on_gone=on_gone, spawner=outlives)
    scope = (f"/local/domain/{domid}", f"/vm/{config.uuid}", *back_end_directories(domid))
    return WorkerHandle(spawner, store, domid, scope, on_console=on_console, on_event=on_event, on_gone=on_gone)


__all__ = ["Handle", "new_handle"]
