# SPDX-License-Identifier: Apache-2.0
"""docs/compat-xenapi.md, which says what of XenAPI is here: made from the table that messages are answered from.

`python tools/xenapi_page.py` writes the file; with `--check` it only says whether it is up to date (exit status 1 when
not).
"""

import argparse
import ast
import re
import sys
from functools import cache
from pathlib import Path

from domzero.dom0.xenapi.classes.others import OTHERS
from domzero.dom0.xenapi.registry import KINDS
from domzero.dom0.xenapi.table import Kind, Message

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "compat-xenapi.md"

_HEAD = """\
# What of XenAPI is here

Made by `python tools/xenapi_page.py` from the table that messages are answered from; `make check` fails when they
differ. How it is used: [xenapi.md](guide/xenapi.md).

Classes, fields and messages are those of XAPI's class reference, written down by hand. A message that XAPI has and that
is missing here is answered with `MESSAGE_METHOD_UNKNOWN`. "Refused" is answered with `NOT_IMPLEMENTED`. "Derived"
messages are those that fields and classes have by themselves (`get_record`, `get_F`, `set_F`, `add_to_F`,
`remove_from_F`, ...). XAPI's hidden and internal messages are left out. `tools/xapi_published.txt` has the names that
XAPI has published by version 24.16 and not removed since, from its own release notes; a test compares.

"""


PUBLISHED = ROOT / "tools" / "xapi_published.txt"


def published(what: str) -> dict[str, list[str]]:
    """The `fields` or the `messages` that XAPI has published, by class; messages that are not derived."""
    lines = [line for line in PUBLISHED.read_text().splitlines() if not line.startswith("#")]
    heads = [line.partition(": ") for line in lines]
    return {head.split()[0]: names.split() for head, _, names in heads if head.split()[1] == what}


def _published_share() -> str:
    known = {name: {each.name: each for each in kind.messages()} for name, kind in KINDS.items()}
    every = [(kind, name) for kind, names in published("messages").items() for name in names]
    here = [known[kind][name] for kind, name in every if name in known.get(kind, {})]
    answered = sum(map(_is_answered, here))
    return (
        f"Of the {len(every)} messages that XAPI has published and that are not derived {len(here)} are known here, "
        f"and {_share(answered, len(every))} answered."
    )


def _is_answered(message: Message) -> bool:
    return message.do is not None


@cache
def _tests() -> dict[str, str]:
    """Texts of the tests of XenAPI, by their names."""
    found = {}
    for path in sorted((ROOT / "tests" / "api").glob("test_xenapi*.py")):
        text = path.read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = ast.get_source_segment(text, node) or ""
    return found


def test_of(kind: str, name: str) -> str:
    """A test that sends a message, itself or through one of its helpers; empty: none."""
    wanted = re.compile(rf"(?:\.|\"){kind}\.{name}(?:\(|\"|, )")
    tests = _tests()
    for test, text in tests.items():
        if test.startswith("test_") and wanted.search(text):
            return test
    helpers = [name for name, text in tests.items() if not name.startswith("test_") and wanted.search(text)]
    for helper in helpers:
        for test, text in tests.items():
            if test.startswith("test_") and f"{helper}(" in text:
                return test
    return ""


def _counts(kind: Kind) -> tuple[int, int]:
    messages = kind.messages()
    return sum(map(_is_answered, messages)), len(messages)


def _share(answered: int, all: int) -> str:
    return f"{answered} of {all} ({100 * answered // all} %)" if all else "none"


def _class(kind: Kind) -> list[str]:
    messages = kind.messages()
    derived = [each for each in messages if each.implicit]
    lines = [f"## {kind.name}", ""]
    refused = [each.name for each in derived if not _is_answered(each)]
    text = f"{len(kind.fields)} fields; {_share(*_counts(kind))} messages are answered"
    lines.append(f"{text}; derived ones that are refused: {', '.join(refused)}." if refused else f"{text}.")
    explicit = [each for each in messages if not each.implicit]
    answered = [each for each in explicit if _is_answered(each)]
    if answered:
        lines += ["", "| message | shown by |", "| --- | --- |"]
        for each in answered:
            test = test_of(kind.name, each.name)
            lines.append(f"| {each.name} | {f'`{test}`' if test else ''} |")
    if refused_explicit := [each.name for each in explicit if not _is_answered(each)]:
        lines += ["", f"Refused: {', '.join(sorted(refused_explicit))}."]
    return [*lines, ""]


def render() -> str:
    """The document's text."""
    own = [kind for kind in KINDS.values() if kind not in OTHERS]
    answered = [sum(_counts(kind)[0] for kind in kinds) for kinds in (own, OTHERS)]
    every = [sum(_counts(kind)[1] for kind in kinds) for kinds in (own, OTHERS)]
    explicit = [each for kind in own for each in kind.messages() if not each.implicit]
    lines = [
        _HEAD.rstrip(),
        "",
        f"Answered: {_share(sum(answered), sum(every))} messages. Of the {len(own)} classes that have objects here "
        f"{_share(answered[0], every[0])}, and of their messages that are not derived "
        f"{_share(sum(map(_is_answered, explicit)), len(explicit))}. {_published_share()}",
        "",
    ]
    for kind in own:
        lines += _class(kind)
    lines += [
        f"## The {len(OTHERS)} classes without objects",
        "",
        f"{_share(answered[1], every[1])} messages: those that look are answered with nothing, or with HANDLE_INVALID",
        "for a reference, as there is nothing; all others are refused.",
        "",
        "| class | messages answered | refused |",
        "| --- | --- | --- |",
    ]
    for kind in OTHERS:
        yes, all = _counts(kind)
        lines.append(f"| {kind.name} | {yes} | {all - yes} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Writes the document, or with --check compares it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--output", type=Path, default=DOCUMENT)
    args = parser.parse_args(arguments)
    text = render()
    if args.check:
        same = args.output.exists() and args.output.read_text() == text
        if not same:
            print(f"{args.output} differs: python tools/xenapi_page.py", file=sys.stderr)
        return 0 if same else 1
    args.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
