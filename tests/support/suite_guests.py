# SPDX-License-Identifier: Apache-2.0
"""Which guests there are in guests/suite, and what each asks for."""

from __future__ import annotations

import re

import pytest
from building import ROOT

SUITE = ROOT / "guests" / "suite"
NAMES = sorted(path.stem for path in SUITE.glob("*.c"))


def options_of(name: str) -> dict[str, str]:
    """What the `domain:` line of a guest's first comment asks for: vcpus, memory, ends, widths."""
    found = re.search(r"domain: *(.*)", (SUITE / f"{name}.c").read_text())
    return dict(word.split("=", 1) for word in found[1].split() if "=" in word) if found else {}


CASES = [
    pytest.param(name, width, id=f"{name}-{width}")
    for name in NAMES
    for width in ("64", "32")
    if options_of(name).get("widths", width) == width
]
