# SPDX-License-Identifier: Apache-2.0
"""The guests of guests/suite, each in a domain of its own, as 64-bit and as 32-bit kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from building import ROOT, Run, build_guests

pytestmark = [pytest.mark.guest, pytest.mark.engines]
SUITE = ROOT / "guests" / "suite"
NAMES = sorted(path.stem for path in SUITE.glob("*.c"))


def options_of(name: str) -> dict[str, str]:
    """What the `domain:` line of a guest's first comment asks for: vcpus, memory, ends, widths, seconds."""
    found = re.search(r"domain: *(.*)", (SUITE / f"{name}.c").read_text())
    return dict(word.split("=", 1) for word in found[1].split() if "=" in word) if found else {}


CASES = [
    pytest.param(name, width, id=f"{name}-{width}")
    for name in NAMES
    for width in ("64", "32")
    if options_of(name).get("widths", width) == width
]


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with all guests, built."""
    return build_guests(tmp_path_factory.mktemp("suite"))


@pytest.mark.parametrize(("name", "width"), CASES)
def test_a_guest_of_the_suite_passes(suite: Path, domzero_run: Run, name: str, width: str) -> None:
    options = options_of(name)
    result = domzero_run(
        *("--kernel", str(suite / width / name)),
        *("--memory", options.get("memory", "16"), "--vcpus", options.get("vcpus", "1")),
        *("--timeout", options.get("seconds", "60"), "--audit"),
        limit=240,
    )
    output = result.stdout.decode(errors="replace")
    assert "  FAIL" not in output, output
    if options.get("ends") == "crash":
        assert (result.returncode, f"READY {name}" in output, "FAIL" in output) == (3, True, False), output
    else:
        skipped = re.search(f"^SKIP {name}: (.*)", output, re.M)
        if skipped and result.returncode == 0:
            pytest.skip(skipped[1])
        said = f"PASS {name}" in output.splitlines()
        assert (said, result.returncode) == (True, 0), output + result.stderr.decode()
