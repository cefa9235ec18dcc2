# SPDX-License-Identifier: Apache-2.0
"""Names of domains, and words that mean one."""

from __future__ import annotations

import asyncio

import pytest

from domzero.dom0.config import DomainConfig
from domzero.dom0.manager import Manager
from domzero.dom0.names import name_fault, shown
from domzero.dom0.records import Record
from domzero.dom0.roster import NotFound
from domzero.errors import ConfigError

BAD = [
    *("", ".", "..", "a/b", "27", "007", " a", "a ", " ", "x" * 129),
    *(
        "a\n",
        "a\0b",
        "\x1b[31m",
        "a\rb",
        "a\x9bb",
        "a\u202eb",
        "a\u200bb",
        "a\u2066b",
        "a\u2028b",
        "a\ud800b",
        "\x7f",
        "a\xa0b",
    ),
    *(
        "00000000-0000-0000-0000-000000000001",
        "00000000000000000000000000000001",
        "{00000000-0000-0000-0000-00000000000A}",
    ),
    "urn:uuid:00000000-0000-0000-0000-000000000001",
]


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_text_or_means_something_else_is_no_name(name: str) -> None:
    assert name_fault(name) is not None
    with pytest.raises(ConfigError) as caught:
        DomainConfig(kernel="/k", name=name or " ").check()
    assert caught.value.key == "name"


@pytest.mark.parametrize(
    "name", ["a", "web 1", "...", "27a", "-1", "+5", "2.7", "0x1b", "²", "müller-ß", "客人", "x" * 128]
)
def test_printable_text_is_a_name(name: str) -> None:
    assert name_fault(name) is None


def test_a_domain_without_a_name_gets_its_kernels_if_that_can_be_one() -> None:
    for kernel, name in (
        ("/k/vmlinuz", "vmlinuz"),
        ("/k/27", "domain"),
        ("/k/..", "domain"),
        ("/k/a\u202eb", "domain"),
    ):
        config = DomainConfig(kernel=kernel)
        config.check()
        assert config.name == name


@pytest.mark.parametrize("field", ["kernel", "ramdisk", "cmdline"])
@pytest.mark.parametrize("text", ["/a\0b", "/a\ud800b"])
def test_text_that_c_or_utf8_cannot_take_is_refused(field: str, text: str) -> None:
    config = DomainConfig(kernel="/k", name="n")
    setattr(config, field, text)
    with pytest.raises(ConfigError) as caught:
        config.check()
    assert caught.value.key == field


def test_a_word_is_a_domid_then_a_uuid_then_a_name() -> None:
    async def scene() -> None:
        manager = Manager()
        records = []
        # names that no domain gets any more, so that only the order decides
        for name, domid in (("2", 1), ("b", 2), ("", 3)):
            record = Record(DomainConfig(kernel="/k", name=name), domid=domid)
            records.append(record)
            manager.roster.live[record.uuid] = record
        records[2].config.name = str(records[0].uuid)
        assert manager.find("2") is records[1]
        assert manager.find("02") is records[1]
        assert manager.find(str(records[0].uuid)) is records[0]
        assert manager.find(str(records[0].uuid).upper()) is records[0]
        assert manager.find("b") is records[1]
        for nothing in ("27", "", "c", ".", "²", "\x1b", "\ud800"):
            with pytest.raises(NotFound) as caught:
                manager.find(nothing)
            assert str(caught.value).isprintable()

    asyncio.run(scene())


def test_guests_controls_are_shown_and_not_obeyed() -> None:
    assert shown("a\x1b[2J\tb\r\u202e\x9b→\\") == "a\\x1b[2J\tb\\r\\u202e\\x9b→\\"
