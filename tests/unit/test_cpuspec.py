# SPDX-License-Identifier: Apache-2.0
"""Lists of processors."""

from __future__ import annotations

import pytest

from domzero.dom0.cpuspec import format_cpus, parse_cpus
from domzero.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", {0, 1, 2, 3}),
        ("2", {2}),
        ("0-2", {0, 1, 2}),
        (" 0-3 , ^1 ", {0, 2, 3}),
        ("^1,0-3", {0, 1, 2, 3}),
        ("all,^0-1,0", {0, 2, 3}),
        ("1,^9", {1}),
    ],
)
def test_a_list_names_processors_in_the_order_in_which_it_is_written(text: str, expected: set[int]) -> None:
    assert parse_cpus(text, range(4)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a list"),
        ("x", "not a list"),
        ("1-", "not a list"),
        ("-1", "not a list"),
        ("1 2", "not a list"),
        ("\N{ARABIC-INDIC DIGIT ONE}", "not a list"),
        ("0," * 600 + "0", "not a list"),
        ("99999", "not a list"),
        ("4", "there is no 4"),
        ("2-9999", "there is no 4"),
        ("3-1", "nothing is left"),
        ("0,^0", "nothing is left"),
        ("all,^all", "nothing is left"),
    ],
)
def test_what_is_no_list_or_names_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_cpus(text, range(4))
    assert caught.value.key == "cpus"


def test_a_list_is_written_as_short_as_it_can_be() -> None:
    assert format_cpus([1000, 1001, 1002, 1005]) == "1000-1002,1005"
    assert format_cpus(parse_cpus("all")) == "all"
