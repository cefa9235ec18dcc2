# SPDX-License-Identifier: Apache-2.0
"""How much of the hypervisor's own memory a domain may use."""

from dataclasses import dataclass

MAX_PORT = 1023
"""The highest port that Xen's toolstack allows a domain by default (max_event_channels)."""
MAX_GRANT_FRAMES = 64
"""What Xen allows a domain by default."""
MAX_MAPTRACK_FRAMES = 1024
"""What Xen allows a domain by default."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Limits:
    """What a domain may use of the hypervisor's own memory; Xen's defaults (struct xen_domctl_createdomain).

    :param event_channels: the highest port (xl's `max_event_channels`).
    :param grant_frames: pages of the grant table (`max_grant_frames`).
    :param maptrack_frames: pages in which Xen would track the grants it maps (`max_maptrack_frames`).
    :param grant_version: the newest layout of the grant table, 1 or 2 (`max_grant_version`).
    """

    event_channels: int = MAX_PORT
    grant_frames: int = MAX_GRANT_FRAMES
    maptrack_frames: int = MAX_MAPTRACK_FRAMES
    grant_version: int = 2
