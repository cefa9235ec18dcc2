# SPDX-License-Identifier: Apache-2.0
"""Manual pages, made from what argparse knows of the verbs, by argparse-manpage."""

from __future__ import annotations

import argparse
from pathlib import Path

from domzero import __version__
from domzero.cli.main import VERBS, build_parser, verb_parsers
from domzero.cli.status import ExitStatus
from domzero.errors import ConfigError, DomzeroError

_MISSING = "argparse-manpage is not here"
_HINT = "pip install 'domzero[man]'"


def page(verb: str | None) -> str:
    """The manual page of a verb, or of `domzero`, for `man`. DomzeroError."""
    try:
        from argparse_manpage.manpage import Manpage  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise DomzeroError(_MISSING, hint=_HINT) from None
    name = "domzero" if verb is None else f"domzero-{verb}"
    text = "a Xen-compatible paravirtualizing hypervisor" if verb is None else VERBS[verb][1]
    _, synopsis, rest = str(Manpage(_parser(verb))).partition(".SH SYNOPSIS")
    head = f'.TH {name.upper()} 1 "" "domzero {__version__}" Domzero\n.SH NAME\n{_quoted(name)} \\- {_quoted(text)}\n'
    others = (
        ", ".join(f"\\fB{_quoted(f'domzero-{each}')}\\fR(1)" for each in VERBS)
        if verb is None
        else ("\\fBdomzero\\fR(1)")
    )
    return f"{head}{synopsis}{rest.rstrip()}\n.SH SEE ALSO\n{others}\n"


def _parser(verb: str | None) -> argparse.ArgumentParser:
    if verb == "xl":
        from domzero.cli.xl.door import xl_parser

        return xl_parser()
    parser = build_parser(verb)
    return parser if verb is None else verb_parsers(parser)[verb]


def _quoted(text: str) -> str:
    """Text as roff has it."""
    return text.replace("\\", "\\\\").replace("-", "\\-").replace("'", "\\(aq")


def write_pages(directory: str) -> int:
    """Writes the pages of `domzero` and all verbs into a directory's man1."""
    target = Path(directory) / "man1"
    if not Path(directory).is_dir():
        raise ConfigError(f"{directory}: no such directory", key="man-pages")
    target.mkdir(exist_ok=True)
    for verb in (None, *VERBS):
        name = "domzero" if verb is None else f"domzero-{verb}"
        (target / f"{name}.1").write_text(page(verb))
    print(f"{len(VERBS) + 1} pages in {target}")
    return ExitStatus.OK
