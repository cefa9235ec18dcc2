# SPDX-License-Identifier: Apache-2.0
"""The time, as records of images have it."""

from __future__ import annotations

from datetime import datetime, timezone


def now() -> str:
    """ISO 8601, in UTC."""
    return datetime.now(timezone.utc).replace(microsecond=0).isoformat()
