# SPDX-License-Identifier: Apache-2.0
"""What Domain 0 hears of a domain that is being saved, and the files of suspended ones."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from domzero.dom0.messages import Progress, Suspended
from domzero.dom0.records import Record


def heard(record: Record, event: Suspended | Progress) -> None:
    """The worker of a domain says how saving goes."""
    if (saving := record.saving) is None:
        return
    if isinstance(event, Suspended):
        saving.suspended.set()
    else:
        saving.progress = min(max(event.done, 0.0), 1.0)


def remove_saved(path: str) -> None:
    """Removes the file of a domain that does not go on from it any more, once that is written down."""
    with suppress(OSError):
        Path(path).unlink()


def sweep(directory: Path, kept: Iterable[str]) -> None:
    """Removes what a Domain 0 has left that was killed: files that were not whole, or are nobody's."""
    names = set(kept)
    with suppress(OSError):
        for path in directory.iterdir():
            if str(path) not in names and path.name.endswith((".save", ".part")):
                remove_saved(str(path))


__all__ = ["heard", "remove_saved", "sweep"]
