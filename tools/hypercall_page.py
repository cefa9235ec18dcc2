# SPDX-License-Identifier: Apache-2.0
"""docs/compat.md, which says what of Xen's hypercall interface is here: made from the hypervisor's dispatch tables.

`python tools/hypercall_page.py` writes the file; with `--check` it only says whether it is up to date (exit status 1
when not).
"""

import argparse
import sys
from pathlib import Path

from hypercall_tests import IN_MACHINE_COMMANDS, REFUSED_IN_MACHINE, TESTS

from domzero.abi.xen import Hypercall
from domzero.hypervisor.hypercalls import TABLE, Operation, State, SubOperation

DOCUMENT = Path(__file__).parents[1] / "docs" / "compat.md"

_HEAD = """\
# What of Xen's hypercall interface is here

Made by `python tools/hypercall_page.py` from the dispatch tables; `make check` fails when they differ.

| state | meaning |
| --- | --- |
| yes | does what Xen does for an unprivileged PV domain |
| refused | Xen refuses it to an unprivileged PV domain; the same errno here |
| missing | not there yet: the guest sees -ENOSYS, and the log one line |

"Shown by" names a test that fails when the operation does not do that; tests beginning with `test_` are pytest's, the
others Rust's. Many operations have more tests than the one that is named.

"In the machine" means that the compiled part answers it without Python; its rules are in `docs/internals/contract.md`.

"""


def _errno(item: Operation | SubOperation) -> str:
    return f"-{item.errno.name}" if item.errno is not None else ""


def _note(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _operation_state(row: Operation) -> State:
    if row.state is State.REFUSED:
        return State.REFUSED
    return State.DONE if row.handler or row.subs else State.MISSING


def key_of(hypercall: str, command: str) -> str:
    """The key of `hypercall_tests.TESTS`."""
    return f"{hypercall} {command}".rstrip()


def keys() -> list[str]:
    """Every operation there is, as `hypercall_tests.TESTS` names them."""
    found = []
    for row in TABLE.values():
        commands = IN_MACHINE_COMMANDS.get(row.name) or [sub.name for sub in row.subs.values()] or [""]
        found += [key_of(row.name, command) for command in commands]
    return found


def render() -> str:
    """The document's text."""
    lines = [_HEAD, "| nr | hypercall | command | state | notes | shown by |", "| --- | --- | --- | --- | --- | --- |"]
    counts = dict.fromkeys(State, 0)

    def add(nr: int, name: str, command: str, state: State, note: str) -> None:
        counts[state] += 1
        test = TESTS.get(key_of(name, command), "")
        lines.append(f"| {nr} | {name} | {command} | {state.value} | {note} | {test and f'`{test}`'} |")

    for nr in Hypercall:
        row = TABLE.get(nr)
        name = nr.name.removeprefix("HYPERVISOR_")
        if row is None:
            if not name.startswith("arch_"):
                add(nr, name, "", State.MISSING, "")
            continue
        machine = "in the machine" if row.in_machine else ""
        for command in IN_MACHINE_COMMANDS.get(name, ()):
            errno = REFUSED_IN_MACHINE.get(command)
            refusal = f"-{errno.name}" if errno is not None else ""
            add(nr, name, command, State.REFUSED if errno is not None else State.DONE, _note(refusal, machine))
        if name in IN_MACHINE_COMMANDS:
            continue
        if not row.subs:
            add(nr, name, "", _operation_state(row), _note(_errno(row), row.note, machine))
            continue
        for _, sub in sorted(row.subs.items()):
            add(nr, name, sub.name, sub.state, _note(_errno(sub), sub.note or row.note))
        for command in row.missing():
            add(nr, name, command, State.MISSING, "")
    summary = ", ".join(f"{count} {state.value}" for state, count in counts.items())
    return "\n".join([*lines, "", f"In all: {summary}.", ""])


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the document."""
    parser = argparse.ArgumentParser(prog="hypercall_page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="say whether the document is up to date")
    parser.add_argument("--output", type=Path, default=DOCUMENT)
    options = parser.parse_args(argv)
    text = render()
    if not options.check:
        options.output.write_text(text)
        return 0
    if options.output.exists() and options.output.read_text() == text:
        return 0
    print(f"{options.output} is out of date: python tools/hypercall_page.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
