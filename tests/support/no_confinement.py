# SPDX-License-Identifier: Apache-2.0
"""Processes that a kernel does not confine, where this one would."""

from __future__ import annotations

from pathlib import Path

MISSING = "landlock: a test says so"
_SITE = f"""
from domzero import _machine
_machine.confine = lambda *_: [{MISSING!r}]
_machine.confine_network = lambda: [{MISSING!r}]
"""


def python_path(directory: Path) -> str:
    """PYTHONPATH of processes whose confinement fails; made in a directory."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(_SITE)
    return str(directory)
