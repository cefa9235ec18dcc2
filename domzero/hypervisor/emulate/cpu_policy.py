# SPDX-License-Identifier: Apache-2.0
"""What CPUID may show a domain: the level asked for with `cpu`, and what `cpuid` changes of it, in both grammars of
xl.cfg(5), within what there is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from domzero.errors import ConfigError
from domzero.hypervisor.emulate.cpu_features import (
    ALIASES,
    DEFAULT_LEVEL,
    LEVELS,
    NAMES,
    PLACES,
    Register,
    available,
    supported,
)

CPUID_ITEMS_MAX = 64
CPU_HELP = "what its processor has at most: v1, v2 or v3 of x86-64, or max, all that there is here (default)"
CPUID_HELP = "what CPUID shows otherwise, as `cpuid` of xl.cfg(5): host,avx2=0"
_CHARACTERS = "10xks"
_LEAVES = re.compile(r"(0x[0-9a-fA-F]{1,8}|[0-9]{1,10})(?:,(0x[0-9a-fA-F]{1,8}|[0-9]{1,10}))?:(.*)", re.DOTALL)
_REGISTER = re.compile(r"(e[abcd]x)=([10xks]{32})")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}")

NUMBERS: dict[str, tuple[Register, int, int]] = {
    "maxleaf": ((0x0, None, "eax"), 0, 32),
    "family": ((0x1, None, "eax"), 8, 8),
    "model": ((0x1, None, "eax"), 4, 8),
    "stepping": ((0x1, None, "eax"), 0, 4),
    "brandid": ((0x1, None, "ebx"), 0, 8),
    "clflush": ((0x1, None, "ebx"), 8, 8),
    "proccount": ((0x1, None, "ebx"), 16, 8),
    "localapicid": ((0x1, None, "ebx"), 24, 8),
    "procpkg": ((0x4, 0, "eax"), 26, 6),
    "maxhvleaf": ((0x40000000, None, "eax"), 0, 8),
    "nc": ((0x80000008, None, "ecx"), 0, 8),
    "apicidsize": ((0x80000008, None, "ecx"), 12, 4),
}
"""libxl's keys that take a number: register, lowest bit, bits. Family and model lie in two parts each."""
_XEN_LEAVES = range(0x40000000, 0x40010000)
_XSTATE_LEAF = 0xD
MAX_LEAF = _XSTATE_LEAF
"""The highest basic leaf."""
_SPLIT = {"family": (8, 0xF, 20, 0xFF), "model": (4, 0xF, 16, 0xF)}


@dataclass(slots=True, frozen=True)
class Bits:
    """Bits of a register that are as somebody wants them.

    :param mask: which.
    :param value: what they are.
    """

    register: Register
    mask: int
    value: int


@dataclass(slots=True, frozen=True)
class CpuPolicy:
    """What CPUID shows a domain beside what is the same for all.

    :param features: libxl's names.
    :param bits: of registers without features; later ones count.
    """

    features: frozenset[str]
    bits: tuple[Bits, ...] = ()

    def word(self, leaf: int, subleaf: int | None, register: str) -> int:
        """The feature bits of a register."""
        names = NAMES[leaf, subleaf, register].split()
        return sum(1 << bit for bit, name in enumerate(names) if name in self.features)


@dataclass(slots=True)
class _Wishes:
    """What `cpuid` asks of features.

    :param off: without these.
    :param on: with these, which were forced, and what the wish was.
    """

    off: set[str]
    on: dict[str, str]
    host: set[str]
    bits: list[Bits]


def policy(level: str = DEFAULT_LEVEL, cpuid: Sequence[str] = ()) -> CpuPolicy:
    """What this level, and items as xl.cfg(5) has them under `cpuid`, come to on this host.

    :raises ConfigError: naming `cpu` or `cpuid`, the key in it and its value: it is not understood, or not there.
    """
    if level not in LEVELS:
        raise ConfigError(f"no such processor: {level[:40]}", key="cpu", hint=", ".join(LEVELS))
    most = available()
    features = LEVELS[level]
    if level != "max" and (missing := sorted(features - most)):
        what = f"{level}: this host has no {', '.join(missing)}"
        raise ConfigError(what, key="cpu", hint="max has what there is")
    if len(cpuid) > CPUID_ITEMS_MAX:
        raise ConfigError(f"{len(cpuid)} items: {CPUID_ITEMS_MAX} at most", key="cpuid")
    wishes = _Wishes(set(), {}, set(), [])
    for item in cpuid:
        _read(item, wishes)
    for name, text in wishes.on.items():
        if name not in most:
            raise _refused(text, f"a domain's processor has no {name} here")
    features = supported((features & most | set(wishes.on) | wishes.host & most) - wishes.off)
    if changed((0x0, None, "eax"), MAX_LEAF, wishes.bits) < MAX_LEAF:
        features = supported(features - {"xsave"})
    for name, text in wishes.on.items():
        if name not in features:
            raise _refused(text, f"{name} needs features that the domain has not got")
    return CpuPolicy(features, tuple(wishes.bits))


def _refused(text: str, why: str, hint: str | None = None) -> ConfigError:
    return ConfigError(f"{text[:80]}: {why}", key="cpuid", hint=hint)


def _read(item: str, wishes: _Wishes) -> None:
    first, _, rest = item.partition(",")
    if first.strip() == "host":
        for part in rest.split(",") if rest else []:
            _read_key(part.strip(), wishes)
    elif match := _LEAVES.fullmatch(item.strip()):
        subleaf = None if match[2] is None else int(match[2], 0 if match[2].startswith("0x") else 10)
        _read_leaf(int(match[1], 0 if match[1].startswith("0x") else 10), subleaf, match[3], wishes)
    else:
        hint = "'host,KEY=VALUE,…', or a list of 'LEAF[,SUBLEAF]:REGISTER=BITS,…'"
        raise _refused(item, "not understood", hint)


def _read_key(text: str, wishes: _Wishes) -> None:
    """One `key=value` of libxl's grammar."""
    key, equals, value = text.partition("=")
    name = key if key in NUMBERS else ALIASES.get(key, key)
    if not equals or (name not in PLACES and name not in NUMBERS):
        raise _refused(text, "no such feature" if equals else "a value is missing")
    if name in NUMBERS:
        _read_number(name, value, text, wishes)
    elif len(value) != 1 or value not in _CHARACTERS:
        raise _refused(text, "not a value", "1, 0, x, k or s")
    else:
        _wish(name, value, text, wishes)


def _read_number(name: str, value: str, text: str, wishes: _Wishes) -> None:
    if value in ("x", "k", "s"):
        return  # as it is
    register, low, width = NUMBERS[name]
    if _NUMBER.fullmatch(value) is None:
        raise _refused(text, "not a number")
    try:
        number = int(value, 0)
    except ValueError:
        raise _refused(text, "not a number") from None
    most = 0x10E if name == "family" else (1 << width) - 1
    if number > most:
        raise _refused(text, f"0 to {most}")
    if name not in _SPLIT:
        wishes.bits.append(Bits(register, (1 << width) - 1 << low, number << low))
        return
    low, mask, high, high_mask = _SPLIT[name]
    lower, upper = (min(number, 0xF), max(number - 0xF, 0)) if name == "family" else (number & 0xF, number >> 4)
    wishes.bits.append(Bits(register, mask << low | high_mask << high, lower << low | upper << high))


def _read_leaf(leaf: int, subleaf: int | None, text: str, wishes: _Wishes) -> None:
    """The registers of a leaf in XEND's grammar."""
    where = f"{leaf:#x}" + ("" if subleaf is None else f",{subleaf:#x}")
    for part in text.split(","):
        match = _REGISTER.fullmatch(part.strip())
        if leaf > 0xFFFFFFFF or match is None:
            raise _refused(f"{where}:{part.strip()}", "not understood", "such as 1:ecx=, and 32 of 1, 0, x, k and s")
        name, bits = match[1], match[2]
        register = next((known for known in NAMES if _same(known, leaf, subleaf, name)), None)
        if register is not None:
            names = NAMES[register].split()
            for bit, value in enumerate(reversed(bits)):
                wish = f"{where}:{name}, bit {bit}={value}"
                feature = names[bit] if bit < len(names) else "-"
                if feature != "-":
                    _wish(feature, value, wish, wishes)
                elif value == "1":
                    raise _refused(wish, "a domain's processor has no such feature")
        elif leaf == _XSTATE_LEAF:
            raise _refused(f"{where}:{name}", "this leaf follows from the features")
        else:
            _add_bits((leaf, subleaf, name), bits, wishes)


def _same(known: Register, leaf: int, subleaf: int | None, name: str) -> bool:
    return known[0] == leaf and known[2] == name and (known[1] or 0) == (subleaf or 0)


def _add_bits(register: Register, bits: str, wishes: _Wishes) -> None:
    mask = int("".join("1" if bit in "10" else "0" for bit in bits), 2)
    value = int("".join("1" if bit == "1" else "0" for bit in bits), 2)
    if register[0] in _XEN_LEAVES:
        # As on Xen, of its own leaves only the highest one can be chosen, and what else is said is nothing.
        mask = mask & 0xFF if register[0] & 0xFF == 0 and register[2] == "eax" else 0
    if mask:
        wishes.bits.append(Bits(register, mask, value & mask))


def _wish(name: str, value: str, text: str, wishes: _Wishes) -> None:
    wishes.off.discard(name)
    wishes.on.pop(name, None)
    wishes.host.discard(name)
    if value == "0":
        wishes.off.add(name)
    elif value == "1":
        wishes.on[name] = text
    elif value in "ks":
        wishes.host.add(name)


def changed(register: Register, value: int, bits: Sequence[Bits]) -> int:
    """A register's value with the bits that are wanted otherwise."""
    for wanted in bits:
        if wanted.register == register:
            value = value & ~wanted.mask | wanted.value
    return value
