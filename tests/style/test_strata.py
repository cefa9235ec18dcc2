# SPDX-License-Identifier: Apache-2.0
"""The machine crate is built in strata: what a file names of other parts lies below it. Tests may name anything."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "crates" / "machine" / "src"
STRATA = [
    {"abi", "bug"},
    {"mem", "fault", "clock", "random", "patience", "sleep", "timers"},
    {"shared"},
    {"frames"},
    {"grants", "evtchn"},
    {"mmu"},
    {"cpu"},
    {"pv", "bare"},
]
"""Lowest first. Parts of one stratum know nothing of each other."""
RANK = {part: n for n, parts in enumerate(STRATA) for part in parts}
TEST_ITEM = re.compile(r"#\[cfg\((?:(?:any|all)\()?test\b[^\]]*\]\s*(?:pub(?:\([a-z]+\))?\s+)?mod \w+\s*")


def part_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".rs")


def sources() -> list[Path]:
    def counts(path: Path) -> bool:
        return "tests" not in path.with_suffix("").parts and part_of(path) not in {"lib", "testing"}

    return [path for path in sorted(SRC.rglob("*.rs")) if counts(path)]


def without_tests(text: str) -> str:
    """Code without comments and test modules."""
    text = re.sub(r"//[^\n]*", "", text)
    while found := TEST_ITEM.search(text):
        end = found.end()
        if text[end] == "{":
            depth = 0
            for end in range(found.end(), len(text)):
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                if depth == 0:
                    break
        text = text[: found.start()] + text[end + 1 :]
    return text


def named_parts(path: Path, text: str) -> set[str]:
    """The parts of the crate that `text`, the code of `path`, names."""
    code = without_tests(text)
    parts = set(re.findall(r"\bcrate::(\w+)", code))
    for group in re.findall(r"\bcrate::\{([^;]*)\};", code):
        parts |= set(re.findall(r"(?:^|[,{])\s*(\w+)", group))
    relative = path.relative_to(SRC).with_suffix("").parts
    module = relative[:-1] if relative[-1] == "mod" else relative
    for supers, name in re.findall(r"\b((?:super::)+)(\w+)", code):
        above = module[: max(0, len(module) - supers.count("super"))]
        parts.add(above[0] if above else name)
    return parts - {"super"}


def wrong(path: Path, text: str) -> list[str]:
    own = part_of(path)
    names = sorted(named_parts(path, text) - {own})
    return [name for name in names if name not in RANK or RANK[name] >= RANK[own]]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(SRC)))
def test_a_part_names_only_parts_below_it(path: Path) -> None:
    assert part_of(path) in RANK, "a part without a stratum"
    assert not wrong(path, path.read_text()), f"{part_of(path)} may name only what lies below it, by its full path"


def xen_named(text: str) -> list[str]:
    """What the code of a processor's part says of Xen: facts of its ABI, or the kind of the domain."""
    code = without_tests(text)
    parts = re.findall(r"\bcrate::abi::(\w+)", code)
    for group in re.findall(r"\bcrate::abi::\{([^;]*)\};", code):
        parts += re.findall(r"(?:^|[,{])\s*(\w+)", group)
    return sorted(set(parts) - {"x86", "pte"}) + re.findall(r"domain\.is_32bit", code)


@pytest.mark.parametrize(
    "path", [p for p in sources() if part_of(p) in {"cpu", "mmu"}], ids=lambda p: str(p.relative_to(SRC))
)
def test_the_processor_knows_nothing_of_xen(path: Path) -> None:
    assert xen_named(path.read_text()) == [], "what surrounds the processor comes in cpu::platform::Platform"


@pytest.mark.parametrize(
    "code",
    [
        "use crate::abi::selector::FLAT_KERNEL_CS;",
        "use crate::abi::{pte, layout};",
        "if self.domain.is_32bit {}",
    ],
)
def test_the_rule_sees_what_is_xens(code: str) -> None:
    assert xen_named(code) != []


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("use crate::mem::Mfn;\nuse super::Cpu;", []),
        ("use crate::pv::Vcpu;", ["pv"]),
        ("use crate::{mem::Mfn, pv};", ["pv"]),
        ("let m: &crate::Machine = x;", ["Machine"]),
        ("use super::super::super::bare::Bare;", ["bare"]),
        ("// crate::pv is above\n#[cfg(test)]\nmod tests { use crate::pv; fn f() { {} } }\n", []),
        ("#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::pv;", ["pv"]),
        ("#[cfg(test)]\nmod tests;\nuse crate::pv;", ["pv"]),
    ],
)
def test_the_rule_sees_each_way_to_name_a_part(code: str, refused: list[str]) -> None:
    assert wrong(SRC / "cpu" / "exec" / "alu.rs", code) == refused
