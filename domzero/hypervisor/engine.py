# SPDX-License-Identifier: Apache-2.0
"""The engine that executes a domain's code: which one is asked for, which one it is, and why."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from domzero import _machine
from domzero.errors import ConfigError, ResourceError

VARIABLE = "DOMZERO_ENGINE"
"""In the environment: what `auto` means, for tests and to look for a fault: "interpreter", "translator", or
"translator:N", which translates what has run N times."""
THRESHOLD = _machine.TRANSLATOR_THRESHOLD
"""Runs of a block before it is translated: most of what a boot runs once stays interpreted."""
CHECK_THRESHOLD = 2
"""The same for `check`, which is to see as much translated code as there is."""
THRESHOLD_MAX = 1 << 30
_HINT = "use 'interpreter' or 'auto'"


class Engine(str, Enum):
    """What `engine=` in configurations says."""

    AUTO = "auto"
    INTERPRETER = "interpreter"
    TRANSLATOR = "translator"
    CHECK = "check"
    """Both: each slice is translated, undone, interpreted, and must be the same."""
    KVM = "kvm"


TRANSLATING = (Engine.TRANSLATOR, Engine.CHECK)
"""Those that make host code."""


@dataclass(slots=True, frozen=True)
class Choice:
    """An engine, and why it is that one.

    :param engine: never `auto`.
    :param threshold: of the translator: runs of a block before it is translated; 0 for others.
    """

    engine: Engine
    why: str
    threshold: int = 0

    def __str__(self) -> str:
        return f"{self.engine.value} ({self.why})"


def find(name: str) -> Engine:
    """The engine with this name, if it can be had here. ConfigError."""
    try:
        engine = Engine(name)
    except ValueError:
        hint = ", ".join(engine.value for engine in Engine)
        raise ConfigError(f"no such engine: {name[:40]}", key="engine", hint=hint) from None
    if engine is Engine.KVM:
        raise ConfigError("the kvm engine is not here yet", key="engine", hint=_HINT)
    if engine in TRANSLATING and (reason := _machine.translator_unavailable()) is not None:
        raise ConfigError(f"the translator cannot run here: {reason}", key="engine", hint=_HINT)
    return engine


def choose(engine: Engine) -> Choice:
    """What `engine` means on this host. ConfigError: it cannot run here."""
    engine = find(engine.value)
    if engine is Engine.INTERPRETER:
        return Choice(engine, "asked for")
    if engine is Engine.TRANSLATOR:
        return Choice(engine, "asked for", THRESHOLD)
    if engine is Engine.CHECK:
        return Choice(engine, "asked for", CHECK_THRESHOLD)
    if (wish := os.environ.get(VARIABLE)) is not None:
        return _wished(wish)
    if (reason := _machine.translator_unavailable()) is not None:
        return Choice(Engine.INTERPRETER, reason)
    return Choice(Engine.TRANSLATOR, "auto: the fastest here", THRESHOLD)


def _wished(wish: str) -> Choice:
    name, colon, number = wish.partition(":")
    threshold = THRESHOLD
    if colon:
        is_number = number.isascii() and number.isdigit() and len(number) < 12
        threshold = int(number) if is_number else 0
    if name not in (Engine.INTERPRETER.value, Engine.TRANSLATOR.value) or not 1 <= threshold <= THRESHOLD_MAX:
        hint = "interpreter, translator, translator:RUNS"
        raise ConfigError(f"{VARIABLE}={wish[:40]!r} is no engine", key="engine", hint=hint)
    if find(name) is Engine.INTERPRETER:
        return Choice(Engine.INTERPRETER, f"{VARIABLE} says so")
    return Choice(Engine.TRANSLATOR, f"{VARIABLE} says so", threshold)


def apply(wanted: Engine, vcpus: Sequence[_machine.Vcpu], *, virtual_time: bool) -> Choice:
    """Gives the vCPUs of a new domain their engine; none of them has run. ConfigError, ResourceError.

    `check` undoes what its one vCPU has done: nobody else may do anything meanwhile.

    With `auto` a host that gives no memory for code (a sandbox around this process, perhaps) has the interpreter.
    """
    choice = choose(wanted)
    if choice.engine is Engine.CHECK and not (virtual_time and len(vcpus) == 1):
        raise ConfigError("check compares runs of one vCPU, with virtual time", key="engine", hint="use 'translator'")
    try:
        for vcpu in vcpus:
            vcpu.set_translator(choice.threshold)
            if choice.engine is Engine.CHECK:
                vcpu.set_check(True)
    except OSError as error:
        if wanted is not Engine.AUTO:
            raise ResourceError(f"the translator cannot run here: {error}", key="engine", hint=_HINT) from error
        for vcpu in vcpus:
            vcpu.set_translator(0)
        return Choice(Engine.INTERPRETER, str(error))
    return choice


def makes_code(engine: Engine) -> bool:
    """Whether a process with such a domain needs memory that holds code."""
    return choose(engine).engine in TRANSLATING
