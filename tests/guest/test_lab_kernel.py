# SPDX-License-Identifier: Apache-2.0
"""`domzero lab unported` with a real kernel."""

from __future__ import annotations

import pytest

from domzero.dom0.images.cache import Image
from domzero.lab import unported

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]


def test_debians_kernel_started_at_its_native_entry_goes_wrong_at_once(debian: Image) -> None:
    data = unported.document(debian.kernel).data
    assert data["native_entry"] != data["pv_entry"]
    traps = [event for event in data["events"] if event["verdict"].startswith("traps #GP")]
    assert traps and int(traps[0]["after"]) < 100
    assert any(event["bytes"].startswith("0f 01") for event in traps)  # lgdt or lidt
