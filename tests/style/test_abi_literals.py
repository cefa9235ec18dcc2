# SPDX-License-Identifier: Apache-2.0
"""Facts of Xen's ABI and of x86 are spelled in `domzero/abi` and the crate's `abi` only; all others use their names."""

import io
import re
import tokenize
from enum import IntEnum, IntFlag
from pathlib import Path

import probe
import pytest

from domzero.abi import x86

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


BY_SHAPE = [
    (re.compile(r"\|[^\n#]*<< (?:4[0-7]|5[2-6])\b"), "fields of a descriptor: flat_segment, interrupt_gate"),
    (re.compile(r"(?i)\b0x(?:0{0,2}[0-9a-f]f_?[89a-f][0-9a-f]00_?0000_?ffff)\b"), "a descriptor: flat_segment"),
    (re.compile(r"\b1 << 47\b"), "where the lower half of addresses ends: LOW_CANONICAL_END"),
]


def spelled_in(code: str) -> dict[str, str]:
    """The facts that a file of Python spells, with what to use instead."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type != tokenize.NUMBER:
            continue
        try:
            value = int(token.string, 0)
        except ValueError:
            continue
        if value in NUMBERS:
            found[f"line {token.start[0]}: {token.string}"] = NUMBERS[value]
    return found | {match[0]: why for pattern, why in BY_SHAPE for match in pattern.finditer(code)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_number_of_the_abi_is_spelled_elsewhere(path: Path) -> None:
    assert spelled_in(path.read_text()) == {}


@pytest.mark.parametrize(
    "code",
    [
        "cs = 0xE033",
        "low = address | selector << 16 | (0x8E | dpl << 5) << 40",
        "GDT = (0, 0x00AF_9B00_0000_FFFF)",
        "if va >= 1 << 47: pass",
    ],
)
def test_the_rule_sees_the_ways_to_spell_a_fact(code: str) -> None:
    assert spelled_in(code) != {}


def test_the_numbers_that_are_looked_for_include_the_best_known() -> None:
    assert {0xE033, 0xE02B, 0x7FF0, 0xF5800000, 0xFFFF800000000000, 0xC0000080} <= NUMBERS.keys()


CRATES = ROOT / "crates"
RUST_ABI = CRATES / "machine" / "src" / "abi"
RUST_NUMBER = re.compile(r"\b(0x[0-9a-fA-F_]+|0b[01_]+|[0-9][0-9_]*)(?:[iu](?:8|16|32|64|128|size))?\b")
RUST_CONST = re.compile(r"^ *(?:pub(?:\([a-z]+\))? )?const (\w+): \w+ = ([^;]*);", re.MULTILINE)
BY_NUMBER = [
    (re.compile(r"\b(?:Fault::new|with_code|of_selector)\(\s*[0-9]"), "an exception by its number: abi::x86::vector"),
    (re.compile(r"& 0xfff[8c]\b"), "parts of a selector: abi::x86::selector"),
    (re.compile(r">> (?:45|47|44|53) &"), "a field of a descriptor: abi::x86::descriptor"),
    (re.compile(r"\b[cd]r\d\w* (?:&|\||>>) \(?(?:0x[0-9a-f]|[0-9])"), "bits of a control or debug register: abi::x86"),
]


def rust_code(text: str) -> str:
    """Code without comments, strings and the tests at the end of a file."""
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', re.sub(r"//[^\n]*", "", text))
    return re.split(r"#\[cfg\(test\)\]\s*mod \w+ \{", text)[0]


def rust_numbers(code: str) -> dict[int, str]:
    found = {}
    for match in RUST_NUMBER.finditer(code):
        digits = match[1].replace("_", "")
        if not re.fullmatch("0[0-9]+", digits):
            found[int(digits, 0)] = f"line {code[: match.start()].count(chr(10)) + 1}: {match[0]}"
    return found


def rust_bit(value: str) -> int | None:
    """The value of a constant that is one bit or number, however it is written."""
    match = re.fullmatch(r"([0-9_a-fx]+)(?: << ([0-9]+))?", value)
    return int(match[1].replace("_", ""), 0) << int(match[2] or 0) if match else None


def is_short_mask(value: int) -> bool:
    """Whether it is no more than some neighbouring bits of 32."""
    return value < 1 << 32 and bin(value).strip("0b").count("0") == 0


RUST_FACTS = [path.read_text() for path in sorted(RUST_ABI.rglob("*.rs"))]
RUST_NUMBERS = {
    n for text in RUST_FACTS for n in rust_numbers(rust_code(text)) if telling(n) and not is_short_mask(n)
} | NUMBERS.keys()
RUST_BITS = {
    (name, bit)
    for text in RUST_FACTS
    for name, value in RUST_CONST.findall(text)
    if (bit := rust_bit(value)) is not None
}
RUST_FILES = [
    path
    for path in sorted(CRATES.glob("*/src/**/*.rs"))
    if RUST_ABI not in path.parents and "tests" not in path.with_suffix("").parts and path.stem != "testing"
]


def rust_spelled(text: str) -> list[str]:
    code = rust_code(text)
    found = [where for n, where in rust_numbers(code).items() if n in RUST_NUMBERS]
    found += [f"{why}: {match[0]!r}" for pattern, why in BY_NUMBER for match in pattern.finditer(code)]
    consts = RUST_CONST.findall(code)
    return found + [f"{name} = {value}" for name, value in consts if (name, rust_bit(value)) in RUST_BITS]


@pytest.mark.parametrize("path", RUST_FILES, ids=lambda path: str(path.relative_to(CRATES)))
def test_no_number_of_the_abi_is_spelled_elsewhere_in_rust(path: Path) -> None:
    assert rust_spelled(path.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "0xc000_0080 => &mut self.efer,",
        "vm.sel = [0, 0xe033];",
        "Fault::with_code(13, 0)",
        "let null = selector & 0xfffc == 0;",
        "low >> 47 & 1 == 0",
        "const TF: u64 = 1 << 8;",
        "if self.cr0 & 0x8000_0001 != 0 {}",
        "self.dr7 >> 16 & 3",
    ],
)
def test_the_rule_sees_the_ways_to_spell_a_fact_in_rust(code: str) -> None:
    assert rust_spelled(code) != []


def test_the_rule_lets_names_and_other_numbers_pass() -> None:
    code = (
        "// 0xe033\nFault::with_code(vector::GP, 0); const MAX: u64 = 1 << 16; let x = va & 0xfff; dr7::kind(d.dr7, n)"
    )
    assert rust_spelled(code + "\n#[cfg(test)]\nmod tests { const X: u16 = 0xe033; }") == []


def rust_x86() -> dict[str, dict[str, int]]:
    """The single numbers of the modules of abi/x86.rs, by their module."""
    found: dict[str, dict[str, int]] = {}
    for module, body in re.findall(r"^pub mod (\w+) \{\n(.*?)^\}", (RUST_ABI / "x86.rs").read_text(), re.M | re.S):
        values = {name: rust_bit(value) for name, value in RUST_CONST.findall(body)}
        found[module] = {name: value for name, value in values.items() if value is not None}
    return found


@pytest.mark.parametrize(
    ("module", "prefix"),
    [("rflags", "X86_EFLAGS_"), ("cr0", "X86_CR0_"), ("cr4", "X86_CR4_"), ("efer", "EFER_"), ("msr", "MSR_")],
)
def test_both_languages_say_the_same_of_a_register(module: str, prefix: str) -> None:
    rust = rust_x86()[module]
    names = {name.removeprefix(prefix): value for name, value in vars(x86).items() if name.startswith(prefix)}
    shared = rust.keys() & names.keys()
    assert len(shared) >= 3
    assert {name: rust[name] for name in shared} == {name: names[name] for name in shared}


def test_both_languages_number_the_exceptions_alike() -> None:
    assert rust_x86()["vector"] == {vector.name: vector.value for vector in x86.Vector}
