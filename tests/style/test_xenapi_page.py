# SPDX-License-Identifier: Apache-2.0
"""docs/compat-xenapi.md says what the table of XenAPI says, and names tests that there are."""

import re
from pathlib import Path

import xenapi_page

from domzero.dom0.xenapi.registry import KINDS


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


def test_all_that_xapi_has_published_is_known() -> None:
    """Fields of classes without references (`event`, `data_source`, ...) are parts of answers: nobody asks for them."""
    messages, fields = xenapi_page.published("messages"), xenapi_page.published("fields")
    assert sum(map(len, messages.values())) > 450 and sum(map(len, fields.values())) > 800
    for kind, names in messages.items():
        assert set(names) <= {each.name for each in KINDS[kind].messages()}, kind
    for kind, names in fields.items():
        known = {each.name for each in KINDS[kind].fields}
        assert set(names) <= known or not known, kind
