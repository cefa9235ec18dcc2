# SPDX-License-Identifier: Apache-2.0
"""What all tests begin with, and the engine that guests of theirs run on: `--engine`."""

from __future__ import annotations

import os
import signal

import pytest

# A shell without job control ignores SIGINT for what runs in the background, nohup ignores SIGHUP: programs that tests
# start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

VARIABLE = "DOMZERO_ENGINE"
"""As `domzero.hypervisor.engine` has it, which needs the machine; programs that tests start inherit it."""
WHAT_IT_IS = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        default="translator:2",
        help=f"what domains run on whose engine is `auto`, unless {VARIABLE} says it (default: %(default)s, which "
        "translates all that runs twice)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[WHAT_IT_IS] = choose_engine(config.getoption("--engine"))


def choose_engine(wanted: str) -> str:
    """Sets the variable, if it is not set; gives what it says, and why it is something else than what is wanted."""
    if (set_before := os.environ.get(VARIABLE)) is not None:
        return f"{set_before} ({VARIABLE} says so)"
    why_not = why_no_translator() if wanted.startswith("translator") else None
    os.environ[VARIABLE] = "interpreter" if why_not else wanted
    return f"interpreter ({why_not})" if why_not else wanted


def why_no_translator() -> str | None:
    try:
        from domzero import _machine
    except ImportError:
        return "the machine is not built"
    return _machine.translator_unavailable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(f"engine: {config.stash[WHAT_IT_IS]}")
