# SPDX-License-Identifier: Apache-2.0
"""Names that programs give: of hypercalls, their commands and exceptions; refused with a suggestion when unknown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from domzero.abi.x86 import Vector
from domzero.abi.xen import Hypercall
from domzero.errors import ConfigError
from domzero.hypervisor import hypercalls  # fills the table
from domzero.hypervisor.hypercalls.table import TABLE, Operation

assert hypercalls

EXCEPTIONS = {int(vector): vector.name if vector is Vector.NMI else f"#{vector.name}" for vector in Vector}
"""The processor manuals' names of exceptions, and the NMI."""
VECTORS = 256


def unknown(what: str, name: str, known: Iterable[str], key: str) -> ConfigError:
    """The error for a name that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    return ConfigError(f"no such {what}: {name}", key=key, hint=f"did you mean {near[0]}?" if near else None)


def find_hypercall(name: str) -> Operation:
    """The row of a hypercall by Xen's name, with or without HYPERVISOR_.

    :raises ConfigError: there is none, or hooks cannot see it.
    """
    short = name.removeprefix("HYPERVISOR_").removeprefix("__HYPERVISOR_")
    for row in TABLE.values():
        if row.name == short:
            if row.nr is Hypercall.HYPERVISOR_iret:
                raise ConfigError("iret is done by the processor's side, where no hook is", key="hypercall")
            return row
    raise unknown("hypercall", short, (row.name for row in TABLE.values()), "hypercall")


def find_command(row: Operation, name: str) -> int:
    """The number of a command of a hypercall, by Xen's name.

    :raises ConfigError: the hypercall has no such command, or none at all.
    """
    known = {sub.name: number for number, sub in row.subs.items()}
    known |= {command.name: int(command) for command in row.commands or ()}
    if not known:
        raise ConfigError(f"{row.name} has no commands", key="command")
    if name not in known:
        raise unknown(f"command of {row.name}", name, known, "command")
    return known[name]


def find_vector(name: int | str) -> int:
    """An exception's vector by its number or its name ("#PF").

    :raises ConfigError: there is none.
    """
    if isinstance(name, int):
        if not 0 <= name < VECTORS:
            raise ConfigError(f"no such vector: {name}", key="vector", hint=f"0 to {VECTORS - 1}")
        return name
    for vector, known in EXCEPTIONS.items():
        if name.upper().lstrip("#") == known.lstrip("#"):
            return vector
    raise unknown("exception", name, EXCEPTIONS.values(), "vector")
