# SPDX-License-Identifier: Apache-2.0
"""`domzero lab full`: what a guest with a whole machine gets, beside a PV kernel, in one run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from domzero.cli.main import main
from domzero.lab.full import LESSONS, TABLE

SOURCE = Path(__file__).parents[2] / "guests" / "lab" / "full.S"


@pytest.fixture(scope="module")
def lesson() -> dict[str, Any]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not here (qemu-system-x86)")
    from domzero.lab.full import document

    data: dict[str, Any] = document("tcg").data
    return data


def test_the_table_is_the_guests() -> None:
    text = SOURCE.read_text()
    table = text[text.index("\ntable:") : text.index("\ntable_end:")]
    assert tuple(re.findall(r"[a-z_0-9]+", table.replace("table:", "").replace(".quad", ""))) == TABLE


def test_in_its_own_ring_0_nothing_is_refused_and_nothing_lies(lesson: dict[str, Any]) -> None:
    full = lesson["full"]
    assert {name for name in LESSONS if full[name]["vector"] is not None} == {"int3"}
    assert full["popfq"]["shows"] & 0x200 == 0 and lesson["pv"]["popfq"] == "SILENT"
    assert full["sti"]["shows"] & 0x200
    assert full["sidt"]["shows"] == 0x114000 and lesson["pv"]["sidt"] == "LEAKS"
    assert full["read_cr3"]["shows"] == 0x110000 and full["read_cs"]["shows"] == 8
    assert full["lar"]["shows"] and lesson["pv"]["lar"] == "SILENT"


def test_the_guest_writes_its_own_page_table(lesson: dict[str, Any]) -> None:
    assert lesson["full"]["update_table"]["shows"] == 0x100003
    assert all(cost > 0 for cost in lesson["pv_ns"].values())
    assert lesson["engine"] == "tcg" and lesson["full"]["cli"]["exits"] is None


def test_without_qemu_the_lesson_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOMZERO_QEMU", "no-such-qemu")
    assert main(["lab", "full", "--json"]) == 2
    assert "apt-get install qemu-system-x86" in capsys.readouterr().err
    assert main(["lab", "--json"]) == 0
    assert "full" in json.loads(capsys.readouterr().out)["topics"]
