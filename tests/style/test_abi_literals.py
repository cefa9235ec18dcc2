# SPDX-License-Identifier: Apache-2.0
"""Numbers of Xen's ABI and of x86 are spelled in domzero/abi only; everybody else uses their names."""

import tokenize
from enum import IntEnum, IntFlag
from pathlib import Path

import probe
import pytest

ROOT = Path(__file__).parents[2]
SMALL = 1 << 10


def telling(value: int) -> bool:
    """Whether a number can hardly be anything but a fact of the ABI: large, no power of two, no mask of low bits."""
    return value > SMALL and value & (value - 1) != 0 and value & (value + 1) != 0


def declared() -> dict[int, str]:
    """The telling numbers of domzero.abi, with their names."""
    found = {}
    for module in probe.modules():
        for name, value in vars(module).items():
            if type(value) is int and name[0].isupper() and telling(value):
                found[value] = f"{module.__name__}.{name}"
            elif isinstance(value, type) and issubclass(value, IntEnum | IntFlag):
                found |= {int(member): f"{value.__name__}.{member.name}" for member in value if telling(int(member))}
    return found


NUMBERS = declared()
FILES = [path for path in sorted((ROOT / "domzero").rglob("*.py")) if "abi" not in path.relative_to(ROOT).parts]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_number_of_the_abi_is_spelled_elsewhere(path: Path) -> None:
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type == tokenize.NUMBER]
    spelled = {}
    for token in tokens:
        try:
            value = int(token.string, 0)
        except ValueError:
            continue
        if value in NUMBERS:
            spelled[f"line {token.start[0]}: {token.string}"] = NUMBERS[value]
    assert spelled == {}


def test_the_numbers_that_are_looked_for_include_the_best_known() -> None:
    assert {0xE033, 0xE02B, 0x7FF0, 0xF5800000, 0xFFFF800000000000, 0xC0000080} <= NUMBERS.keys()
