# SPDX-License-Identifier: Apache-2.0
"""The guests of guests/suite, each in a domain of its own, as 64-bit and as 32-bit kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from building import build_guests
from suite_guests import CASES, options_of

from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.life import EndReason
from domzero.dom0.lifecycle import DomainSession

pytestmark = [pytest.mark.guest, pytest.mark.engines]
PATIENCE = 240
"""Seconds: no guest is busy for more than some of them, where it has a processor."""


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with all guests, built."""
    return build_guests(tmp_path_factory.mktemp("suite"))


@pytest.mark.parametrize(("name", "width"), CASES)
def test_a_guest_of_the_suite_passes(suite: Path, name: str, width: str) -> None:
    options = options_of(name)
    config = DomainConfig(
        kernel=str(suite / width / name), memory_mib=int(options.get("memory", "16")),
        vcpus=int(options.get("vcpus", "1")), on_poweroff=Action.PRESERVE, on_crash=Action.PRESERVE,
    )  # fmt: skip
    log: list[str] = []
    session = DomainSession(config, log=log.append)
    session.start()
    try:
        end = session.wait(PATIENCE)
        output = session.console.history.decode(errors="replace").replace("\r", "")
        assert end is not None, output
        assert session.audit() == []
    finally:
        session.destroy()
    assert "  FAIL" not in output, output
    if options.get("ends") == "crash":
        assert (end.reason, f"READY {name}" in output, "FAIL" in output) == (EndReason.CRASH, True, False), output
    else:
        skipped = re.search(f"^SKIP {name}: (.*)", output, re.M)
        if skipped and end.reason is EndReason.POWEROFF:
            pytest.skip(skipped[1])
        said = f"PASS {name}" in output.splitlines()
        assert (said, end.reason) == (True, EndReason.POWEROFF), output + "\n".join(log)
