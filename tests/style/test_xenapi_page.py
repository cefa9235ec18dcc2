# SPDX-License-Identifier: Apache-2.0
"""docs/compat-xenapi.md says what the table of XenAPI says, and names tests that there are."""

import re
from pathlib import Path

import xenapi_page


def test_the_document_is_what_the_table_says() -> None:
    assert xenapi_page.main(["--check"]) == 0, "python tools/xenapi_page.py"


def test_a_document_that_differs_is_noticed(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    assert xenapi_page.main(["--check", "--output", str(document)]) == 1
    assert xenapi_page.main(["--output", str(document)]) == 0
    assert xenapi_page.main(["--check", "--output", str(document)]) == 0


def test_the_messages_that_make_and_end_domains_name_tests() -> None:
    for message in ("VM.create", "VM.start", "VM.clean_shutdown", "VM.destroy", "VDI.create", "VBD.plug", "event.from"):
        kind, _, name = message.partition(".")
        assert re.fullmatch(r"test_\w+", xenapi_page.test_of(kind, name)), message
