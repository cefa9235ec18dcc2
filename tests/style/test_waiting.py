# SPDX-License-Identifier: Apache-2.0
"""Tests wait for conditions in one place, and never sleep to see that nothing happens."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAITING = ROOT / "tests" / "support" / "waiting.py"


def test_no_test_sleeps() -> None:
    sleeping = re.compile(r"\btime\.sleep\(|\bfrom time import .*\bsleep\b")
    files = [path for path in (ROOT / "tests").rglob("*.py") if path not in (WAITING, Path(__file__))]
    assert [str(path.relative_to(ROOT)) for path in files if sleeping.search(path.read_text())] == []


def test_no_test_may_fail_and_pass_all_the_same() -> None:
    files = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert [str(path.relative_to(ROOT)) for path in files if re.search(r"strict=False", path.read_text())] == []
