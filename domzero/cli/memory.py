# SPDX-License-Identifier: Apache-2.0
"""`mem-set`, `mem-max`: how much memory a domain that runs should have, and how much it may have, as xl has them."""

from __future__ import annotations

import argparse

from domzero.cli.api_client import Dom0
from domzero.cli.text import memory_kib
from domzero.cli.verb import add_domain, add_verb, answer
from domzero.dom0.config import MEMORY_MIN_MIB
from domzero.errors import ConfigError

_MEM = "in KiB, or with a unit: 2g, 512m, 65536k"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds both."""
    parser = add_verb(
        subparsers,
        "mem-set",
        set_target,
        "set a domain's memory target",
        "Asks the guest's balloon driver to use so much memory, up to the domain's maxmem, and lets it have no more. "
        "The domain starts again with it.",
    )
    add_domain(parser)
    parser.add_argument("memory", metavar="MEM", help=_MEM)

    parser = add_verb(
        subparsers,
        "mem-max",
        set_limit,
        "set how much memory a domain may have",
        "Sets the hypervisor's limit: from the domain's memory target to its maxmem. The guest is not told. It holds "
        "until the next mem-set or start.",
    )
    add_domain(parser)
    parser.add_argument("memory", metavar="MEM", help=_MEM)


def set_target(args: argparse.Namespace) -> int:
    """`mem-set`."""
    mib = _mib(args.memory)
    with Dom0.from_args(args) as dom0:
        return answer(args, dom0.patch(args.domain, memory_target_mib=mib), None)


def set_limit(args: argparse.Namespace) -> int:
    """`mem-max`."""
    mib = _mib(args.memory)
    with Dom0.from_args(args) as dom0:
        return answer(args, dom0.patch(args.domain, memory_limit_mib=mib), None)


def _mib(text: str) -> int:
    kib = memory_kib(text)
    if kib is None:
        raise ConfigError(f"not an amount of memory: {text!r}", key="MEM", hint="such as 512m")
    if kib < MEMORY_MIN_MIB << 10:
        hint = f"did you mean {text}m?" if text.isdecimal() else None
        raise ConfigError(f"{text}: less than {MEMORY_MIN_MIB} MiB; the unit is KiB, as in xl", key="MEM", hint=hint)
    return kib >> 10
