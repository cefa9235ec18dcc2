# SPDX-License-Identifier: Apache-2.0
"""Every operation of the hypercall interface names a test that shows it, and that test is there."""

import re
from pathlib import Path

import hypercall_page
from hypercall_tests import TESTS

ROOT = Path(__file__).parents[2]


def functions(pattern: str, *places: tuple[str, str]) -> set[str]:
    found: set[str] = set()
    for folder, glob in places:
        for path in (ROOT / folder).rglob(glob):
            if "target" not in path.parts:
                found |= set(re.findall(pattern, path.read_text(), re.MULTILINE))
    return found


def test_every_operation_names_the_test_that_shows_it() -> None:
    assert sorted(set(hypercall_page.keys()) - TESTS.keys()) == [], "add them to tools/hypercall_tests.py"
    assert sorted(TESTS.keys() - set(hypercall_page.keys())) == []


def test_the_tests_that_are_named_exist() -> None:
    python = functions(r"^ *def (test_\w+)", ("tests", "test_*.py"))
    rust = functions(r"#\[test\]\s+fn (\w+)", ("crates", "*.rs"))
    missing = {test for test in TESTS.values() if test not in (python if test.startswith("test_") else rust)}
    assert missing == set()


def test_the_document_is_what_the_tables_say() -> None:
    assert hypercall_page.main(["--check"]) == 0, "python tools/hypercall_page.py"


def test_a_document_that_differs_is_noticed(tmp_path: Path) -> None:
    document = tmp_path / "compat.md"
    assert hypercall_page.main(["--check", "--output", str(document)]) == 1
    assert hypercall_page.main(["--output", str(document)]) == 0
    assert hypercall_page.main(["--check", "--output", str(document)]) == 0
