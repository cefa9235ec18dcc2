# SPDX-License-Identifier: Apache-2.0
"""Interfaces in a bridge of the host: in a network namespace of its own, where everybody may make one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from building import build_guests

from domzero.dom0.images.cache import Image

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]
CASES = Path(__file__).with_name("bridge_cases.py")
MAKES = "ip link add xenbr0 type bridge && ip tuntap add tap0 mode tap && exec 3<>/dev/net/tun"


def _in_namespace(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "-rn", *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500, check=False
    )


def _run(*arguments: str) -> None:
    if (tried := _in_namespace("sh", "-c", MAKES)).returncode:
        pytest.skip(f"no bridge can be made in a network namespace here: {tried.stderr.strip()[:200]}")
    result = _in_namespace(sys.executable, str(CASES), *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def test_two_guests_meet_on_a_bridge_of_the_host(tmp_path: Path) -> None:
    _run("guests_meet", str(build_guests(tmp_path, "devices") / "64" / "device_net"))


def test_confined_workers_are_given_taps_at_the_start_and_later(tmp_path: Path) -> None:
    _run("through_domain_0", str(build_guests(tmp_path, "devices") / "64" / "device_net"))


def test_tcp_between_the_host_and_a_guest_goes_in_large_segments(debian: Image) -> None:
    _run("large_segments", json.dumps(debian.as_dict()))


@pytest.mark.skipif(os.system("command -v setpriv >/dev/null") != 0, reason="setpriv is not here (util-linux)")
def test_without_the_right_to_it_the_error_says_what_to_do() -> None:
    _run("refused")
