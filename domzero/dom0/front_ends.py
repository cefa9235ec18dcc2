# SPDX-License-Identifier: Apache-2.0
"""What guests have written into xenstore of their ends of devices."""

from __future__ import annotations

from dataclasses import dataclass

from domzero.dom0.config import EVENT_CHANNELS_MAX
from domzero.dom0.xenstore import Store
from domzero.dom0.xenstore_nodes import home

RINGS = {"vbd": ("ring-ref",), "vif": ("tx-ring-ref", "rx-ring-ref"), "console": ("ring-ref",)}
"""Kinds of devices, and the nodes of their rings."""
_GRANTS_MAX = (1 << 32) - 1


@dataclass(slots=True, frozen=True)
class FrontEnd:
    """A guest's end of a device. What it has not said, or says otherwise than in these nodes, is None.

    :param kind: `vbd`, `vif` or `console`.
    :param state: enum xenbus_state.
    :param ring_refs: grants of its rings: one, or those for sending and for receiving of a vif.
    """

    kind: str
    devid: int
    state: int | None
    event_channel: int | None
    ring_refs: tuple[int | None, ...]


def front_ends(store: Store, domid: int) -> list[FrontEnd]:
    """All of a domain's that have a number."""
    found = []
    for kind, rings in RINGS.items():
        directory = f"{home(domid)}/device/{kind}"
        names = store.ls(directory) if store.exists(directory) else []
        for devid in sorted(int(name) for name in names if name.isascii() and name.isdecimal() and len(name) < 10):
            path = f"{directory}/{devid}"
            found.append(
                FrontEnd(
                    kind,
                    devid,
                    _number(store, f"{path}/state", 8),
                    _number(store, f"{path}/event-channel", EVENT_CHANNELS_MAX),
                    tuple(_number(store, f"{path}/{ring}", _GRANTS_MAX) for ring in rings),
                )
            )
    return found


def _number(store: Store, path: str, most: int) -> int | None:
    """A node's number; None for what is none."""
    text = store.get(path) or ""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else None
    return number if number is not None and number <= most else None
