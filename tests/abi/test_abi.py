# SPDX-License-Identifier: Apache-2.0
"""`domzero.abi` says what Xen's public headers say."""

import json

import probe
import pytest

GOLDEN: dict[str, dict[str, int]] = json.loads(probe.GOLDEN.read_text())


def differences(ours: dict[str, int], theirs: dict[str, int]) -> list[str]:
    return [
        f"{key}: here {ours.get(key)}, there {theirs.get(key)}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


@pytest.mark.parametrize("width", ["64", "32"])
def test_layouts_and_numbers_are_those_of_the_golden_file(width: str) -> None:
    assert differences(probe.declared()[width], GOLDEN[width]) == []


@pytest.mark.parametrize("width", ["64", "32"])
@pytest.mark.skipif(probe.why_not() is not None, reason=str(probe.why_not()))
def test_the_golden_file_is_what_the_compiler_says_of_the_installed_headers(width: str) -> None:
    keys = sorted(GOLDEN[width])
    assert differences(probe.ask(keys, width), GOLDEN[width]) == []


def test_the_probe_covers_what_guests_share_with_the_hypervisor() -> None:
    names = set(probe.structures())
    assert {
        "start_info",
        "shared_info",
        "vcpu_info",
        "vcpu_time_info",
        "vcpu_guest_context",
        "multicall_entry",
    } <= names
    assert "offsetof shared_info evtchn_pending" in GOLDEN["32"]
