# SPDX-License-Identifier: Apache-2.0
"""What CPUID shows a domain: levels, `cpuid` of xl.cfg in both grammars, and what is said of what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import make_domain, make_host

from domzero import _machine
from domzero.errors import ConfigError
from domzero.hypervisor.emulate import cpuid
from domzero.hypervisor.emulate.cpu_features import BY_HOST, LEVELS, NAMES, PLACES
from domzero.hypervisor.emulate.cpu_policy import policy

XSAVE, OSXSAVE, AVX = 1 << 26, 1 << 27, 1 << 28


@pytest.fixture(autouse=True)
def host_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "host_features", lambda: sorted(BY_HOST))


def table(level: str = "max", *items: str) -> dict[tuple[int, int | None], tuple[int, ...]]:
    domain: Any = make_domain(make_host(), cpu=policy(level, items))
    return {(leaf, subleaf): tuple(values) for leaf, subleaf, *values in cpuid.leaves(domain, 0)}


def test_every_feature_has_one_place_in_a_register_of_32_bits() -> None:
    names = [name for register in NAMES.values() for name in register.split() if name != "-"]
    assert len(names) == len(set(names)) == len(PLACES)
    assert all(bit < 32 for _, bit in PLACES.values())
    assert LEVELS["v1"] < LEVELS["v2"] < LEVELS["v3"] < LEVELS["max"] <= PLACES.keys()


@pytest.mark.parametrize(
    ("level", "ecx", "ebx7"),
    [
        ("v1", 0xC0000000, 0x018C0201),
        ("v2", 0xC2982203, 0x218C0201),
        ("v3", 0xF6D83203, 0x218C0329),
        ("max", 0xF6D83203, 0x218C0329),
    ],
)
def test_a_level_is_what_the_psabi_names(level: str, ecx: int, ebx7: int) -> None:
    leaves = table(level)
    assert (leaves[1, None][2], leaves[7, 0][1]) == (ecx, ebx7)
    assert leaves[1, None][3] == 0x07C9C3F5
    assert leaves[7, 0][2] == (0x600 if level == "max" else 0)
    assert leaves[0x80000001, None][2] >> 5 & 1 == (level in ("v3", "max"))  # lzcnt
    assert leaves[0x80000001, None][3] == 0x2991CBF5


def test_the_xsave_area_is_shown_as_it_is_with_and_without_avx() -> None:
    leaves = table()
    assert leaves[0xD, 0] == (7, 832, 832, 0)
    assert leaves[0xD, 1] == (7, 832, 0, 0)
    assert leaves[0xD, 2] == (256, 576, 0, 0)
    leaves = table("max", "host,avx=0,xsavec=0")
    assert (leaves[0xD, 0], leaves[0xD, 1]) == ((3, 576, 576, 0), (5, 0, 0, 0))
    assert (0xD, 2) not in leaves
    assert not any(leaf == 0xD for leaf, _ in table("v2"))


def test_a_host_without_avx_offers_none_and_refuses_v3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "host_features", list)
    assert table()[1, None][2] & (XSAVE | AVX) == XSAVE
    assert table("v2") == table("v2")
    with pytest.raises(ConfigError, match=r"cpu: v3: this host has no avx, avx2, f16c, fma \(max has"):
        policy("v3")


def test_what_needs_a_feature_that_is_off_is_off() -> None:
    assert policy("max").features - policy("max", ["host,avx=0"]).features == {
        "avx", "avx2", "fma", "f16c", "vaes", "vpclmulqdq",
    }  # fmt: skip
    assert "xsaveopt" not in policy("max", ["host,xsave=0"]).features


@pytest.mark.parametrize(
    "items",
    [
        ["host,avx2=0,sse4_2=0"],
        ["1:ecx=" + "x" * 11 + "0" + "x" * 20, "7,0:ebx=" + "x" * 26 + "0" + "x" * 5],
        ["0x1:ecx=" + "k" * 11 + "0" + "x" * 20 + ",edx=" + "s" * 32, "host,avx2=0"],
    ],
)
def test_both_grammars_say_the_same(items: list[str]) -> None:
    assert policy("v3").features - policy("v3", items).features == {"avx2", "sse4.2"}


def test_single_features_can_be_added_to_a_level_if_they_are_there() -> None:
    assert policy("v2", ["host,bmi2=1"]).features - policy("v2").features == {"bmi2"}
    assert policy("v2", ["host,bmi1=k,movbe=s,bmi2=x"]).features - policy("v2").features == {"bmi1", "movbe"}
    assert policy("v2", ["host,avx512f=k"]) == policy("v2")


def test_numbers_take_their_places() -> None:
    leaves = table("max", "host,family=0x17,model=49,stepping=2,clflush=16,nc=3,procpkg=1,maxhvleaf=2")
    assert leaves[1, None][0] == 0x830F12
    assert leaves[1, None][1] & 0xFF00 == 0x1000
    assert leaves[4, 0] == (1 << 26, 0, 0, 0)
    assert leaves[0x80000008, None][2] == 3
    assert leaves[0x40000000, None][0] == 0x40000002
    assert table("max", "host,family=6")[1, None][0] >> 8 & 0xFF00F == 6


def test_without_the_leaf_of_xsave_there_is_no_xsave() -> None:
    leaves = table("max", "host,maxleaf=7")
    assert max(leaf for leaf, _ in leaves if leaf < 0x40000000) == 7
    assert not leaves[1, None][2] & (XSAVE | AVX)


def test_bits_of_other_registers_are_set_and_cleared_and_of_xens_leaves_only_the_highest_is_chosen() -> None:
    ones, leave = "1" * 32, "x" * 24
    leaves = table("max", "0x80000005:ecx=" + ones, "0x6:eax=" + ones, f"0x40000000:eax={leave}00000001,ebx={ones}")
    assert (leaves[0x80000005, None][2], leaves[6, None][0]) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert leaves[0x40000000, None][:2] == (0x40000001, 0x566E6558)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (["host,foo=1"], "cpuid: foo=1: no such feature"),
        (["host,avx2"], "cpuid: avx2: a value is missing"),
        (["host,avx2=2"], "cpuid: avx2=2: not a value (1, 0, x, k or s)"),
        (["host,avx512f=1"], "cpuid: avx512f=1: a domain's processor has no avx512f here"),
        (["host,avx=1,xsave=0"], "cpuid: avx=1: avx needs features that the domain has not got"),
        (["host,stepping=16"], "cpuid: stepping=16: 0 to 15"),
        (["host,stepping=09x"], "cpuid: stepping=09x: not a number"),
        (["avx=1"], "cpuid: avx=1: not understood ('host,KEY=VALUE,…', or a list of 'LEAF[,SUBLEAF]:REGISTER=BITS,…')"),
        (["1:ecx=01"], "cpuid: 0x1:ecx=01: not understood (such as 1:ecx=, and 32 of 1, 0, x, k and s)"),
        (["7:ebx=" + "1" * 32], "cpuid: 0x7:ebx, bit 2=1: a domain's processor has no such feature"),
        (["0xd:eax=" + "0" * 32], "cpuid: 0xd:eax: this leaf follows from the features"),
        (["host,avx=0"] * 65, "cpuid: 65 items: 64 at most"),
    ],
)
def test_an_error_names_key_and_value(items: list[str], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy("max", items)
    assert str(caught.value) == text


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="cpu: no such processor: v4"):
        policy("v4")


def test_all_vcpus_of_a_domain_have_the_same_features_on_every_engine() -> None:
    from domzero.hypervisor.engine import Engine

    tables = []
    for engine in (Engine.INTERPRETER, Engine.AUTO):
        domain: Any = make_domain(make_host(), vcpus=2, engine=engine)
        for vcpu in domain.vcpus:
            rows = cpuid.leaves(domain, vcpu.vcpu_id)
            tables.append([row for row in rows if row[0] != 1])
    assert all(rows == tables[0] for rows in tables)
