# SPDX-License-Identifier: Apache-2.0
"""Tests, guests and files that documents name exist."""

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


DOCUMENTS = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
PLACES = "crates|domzero|tests|tools|docs|guests|benchmarks|fuzz|examples"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(page: Path) -> None:
    text = page.read_text()
    names = re.findall(rf"`((?:{PLACES})/[\w./-]+)`", text)
    links = re.findall(r"\]\(([^)#:\s]+)\)", text)
    missing = [
        name for name in names if not any((base / name).exists() for base in (ROOT, ROOT / "crates" / "machine"))
    ]
    assert missing + [link for link in links if not (page.parent / link).exists()] == []
