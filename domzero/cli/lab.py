# SPDX-License-Identifier: Apache-2.0
"""`domzero lab`: the architecture made visible."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys

from domzero.cli.status import ExitStatus
from domzero.errors import ConfigError

_DESCRIPTION = """\
Shows how x86 and Xen's paravirtualization work, by running small programs on this engine and looking at what they do:
on a bare machine (a processor with all its rings and no hypervisor), and as a PV guest. Nothing is recited; what you
see has just happened. Without a topic, the topics are listed. Needs no image, no root and no daemon;
`full` needs QEMU (qemu-system-x86).
"""

_EPILOG = """\
topics:
{topics}
  all           all of them but full, one after the other

examples:
  domzero lab instructions
  domzero lab instructions popfq cli sgdt      everything about these three
  domzero lab page-table --json
  domzero lab unported --kernel /boot/vmlinuz  a PV-capable kernel, started at its native entry

The same as a page: docs/guide/lab.md
"""
_TOPICS = {
    "instructions": "every sensitive instruction in ring 0, 1 and 3, and in a PV kernel",
    "page-table": "one page-table update: natively, and with Xen's types and counts",
    "syscall": "a system call, from the application to its kernel and back",
    "page-fault": "a page fault, from the application to its kernel and back",
    "unported": "why a kernel that was not ported cannot be a PV guest",
}
_FULL = "the same instructions and update in a machine of QEMU's: what traps now, and what both cost"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    topics = "\n".join(f"  {name:<12}  {about}" for name, about in (*_TOPICS.items(), ("full", _FULL)))
    parser = subparsers.add_parser(
        "lab",
        help="see the architecture: rings, page tables, traps",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(topics=topics),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "topic", nargs="?", metavar="TOPIC", choices=[*_TOPICS, "full", "all"], help="what to show; see below"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="instructions: only these")
    parser.add_argument("--kernel", metavar="FILE", help="unported: this kernel, instead of the lab's own")
    parser.add_argument("--width", metavar="COLUMNS", type=int, help="60 to 100 (default: the terminal's)")
    parser.add_argument("--json", action="store_true", help="what was seen, as JSON")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """The verb."""
    from domzero.lab import instructions, unported
    from domzero.lab.lessons import LESSONS, lesson

    if args.topic is None:
        if args.json:
            print(json.dumps({"topics": {**_TOPICS, "full": _FULL}}, indent=2))
        else:
            print("\n".join(f"{name:<14}{about}" for name, about in (*_TOPICS.items(), ("full", _FULL))))
            print("\n`domzero lab TOPIC` shows one of them; `domzero lab --help` says more.")
        return ExitStatus.OK
    unknown = [name for name in args.names if args.topic != "instructions" or name not in instructions.names()]
    if unknown:
        hint = f"there are {', '.join(instructions.names())}" if args.topic == "instructions" else None
        raise ConfigError(f"{args.topic} has no {unknown[0]!r}", key="name", hint=hint)
    if args.kernel is not None and args.topic != "unported":
        raise ConfigError("only `domzero lab unported` takes one", key="kernel")
    if args.names:
        documents = [instructions.document(args.names)]
    elif args.topic == "full":
        from domzero.lab import full  # it needs what the others do without

        documents = [full.document()]
    elif args.kernel is not None:
        documents = [unported.document(args.kernel)]
    else:
        chosen = LESSONS if args.topic == "all" else tuple(one for one in (lesson(args.topic),) if one is not None)
        documents = [one.run() for one in chosen]
    if args.json:
        data = [document.data for document in documents]
        print(json.dumps(data[0] if len(data) == 1 else dict(zip(_TOPICS, data, strict=True)), indent=2))
        return ExitStatus.OK
    width = args.width if args.width is not None else shutil.get_terminal_size((92, 24)).columns
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    print("\n".join(document.text(width, colour=colour) for document in documents), end="")
    return ExitStatus.OK
