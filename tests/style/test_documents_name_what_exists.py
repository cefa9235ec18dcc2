"""Tests and guests that the security and limits pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("docs/internals/security.md", "docs/guide/limits.md")


def known() -> set[str]:
    """Names of Rust and Python tests (without `test_`), and of guests."""
    names = {path.stem for path in (ROOT / "guests" / "suite").glob("*.c")}
    for path in [*(ROOT / "crates").rglob("*.rs"), *(ROOT / "tests").rglob("*.py")]:
        names |= set(re.findall(r"(?:fn|def) (?:test_)?(\w+)", path.read_text()))
    return names


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    words = re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){4,})`", (ROOT / page).read_text())
    assert words
    assert [word for word in words if word not in known()] == []
