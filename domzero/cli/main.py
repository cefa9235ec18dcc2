# SPDX-License-Identifier: Apache-2.0
"""`domzero VERB …`: finds the verb's module, imports only that, and turns errors into one line.

A verb's module has `register(subparsers)`, which adds its parsers with `set_defaults(handler=function)`; the function
takes the parsed arguments and returns the exit status. One module may register several verbs.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from domzero import __version__
from domzero.cli.status import ExitStatus
from domzero.dom0.names import shown
from domzero.errors import ConfigError, ConfigErrors, DomzeroError, ImageError

VERBS: dict[str, tuple[str, str]] = {
    "run": ("domzero.cli.run", "build and run one domain in the foreground"),
    "image": ("domzero.cli.image", "get and make images, and list them"),
    "serve": ("domzero.cli.serve", "Domain 0 as a daemon: all other verbs talk to it"),
    "create": ("domzero.cli.create", "create a domain"),
    "start": ("domzero.cli.definitions", "start halted domains"),
    "list": ("domzero.cli.verbs", "list domains"),
    "console": ("domzero.cli.verbs", "attach to a domain's console"),
    "pause": ("domzero.cli.verbs", "pause a domain"),
    "unpause": ("domzero.cli.verbs", "unpause a domain"),
    "shutdown": ("domzero.cli.verbs", "ask a domain to shut down"),
    "reboot": ("domzero.cli.verbs", "ask a domain to reboot"),
    "destroy": ("domzero.cli.verbs", "end a domain at once"),
    "reset": ("domzero.cli.definitions", "end a defined domain at once and start it again"),
    "suspend": ("domzero.cli.saving", "suspend defined domains: Domain 0 keeps their state"),
    "resume": ("domzero.cli.saving", "go on with suspended domains"),
    "save": ("domzero.cli.saving", "save a domain to a file"),
    "restore": ("domzero.cli.saving", "make a domain of a file that one was saved to"),
    "undefine": ("domzero.cli.definitions", "forget the definitions of domains"),
    "set": ("domzero.cli.definitions", "change what Domain 0 keeps of a defined domain"),
    "rename": ("domzero.cli.verbs", "rename a domain"),
    "mem-set": ("domzero.cli.memory", "set a domain's memory target"),
    "mem-max": ("domzero.cli.memory", "set how much memory a domain may have"),
    "vcpu-list": ("domzero.cli.vcpus", "list the vCPUs of domains"),
    "vcpu-set": ("domzero.cli.vcpus", "set how many vCPUs a domain uses"),
    "vcpu-pin": ("domzero.cli.vcpus", "choose the processors that vCPUs run on"),
    "sched-credit2": ("domzero.cli.vcpus", "show or set weight and cap of domains"),
    "channel-list": ("domzero.cli.channels", "list channels of domains"),
    "dump-core": ("domzero.cli.verbs", "write a domain's core dump to a file"),
    "vncviewer": ("domzero.cli.screens", "show where a domain's screen is"),
    "screenshot": ("domzero.cli.screens", "write what a domain's screen shows to a file"),
    "sysrq": ("domzero.cli.verbs", "press a SysRq key in a domain"),
    "trigger": ("domzero.cli.verbs", "send a domain an NMI, or ask it to shut down"),
    "block-attach": ("domzero.cli.block", "plug a disk into a domain"),
    "block-list": ("domzero.cli.block", "list disks of domains"),
    "block-set": ("domzero.cli.block", "bound what a domain does with a disk"),
    "block-resize": ("domzero.cli.block", "make a disk of a domain larger"),
    "block-detach": ("domzero.cli.block", "take a disk away from a domain"),
    "cd-insert": ("domzero.cli.block", "put a CD into a domain's drive"),
    "cd-eject": ("domzero.cli.block", "take the CD out of a domain's drive"),
    "network-attach": ("domzero.cli.vifs", "plug a network interface into a domain"),
    "network-list": ("domzero.cli.vifs", "list network interfaces of domains"),
    "network-set": ("domzero.cli.vifs", "change a network interface of a domain"),
    "network-detach": ("domzero.cli.vifs", "take a network interface away from a domain"),
    "net": ("domzero.cli.net", "networks of domains: who is on them, what passes"),
    "user": ("domzero.cli.users", "users of Domain 0, their roles and grants"),
    "token": ("domzero.cli.users", "tokens of users, for programs"),
    "task": ("domzero.cli.users", "long work of Domain 0"),
    "dmesg": ("domzero.cli.verbs", "show what the hypervisor has logged"),
    "audit": ("domzero.cli.verbs", "let a domain's hypervisor check its own books"),
    "info": ("domzero.cli.verbs", "show the host"),
    "top": ("domzero.cli.top", "watch what domains use"),
    "uptime": ("domzero.cli.verbs", "show how long domains have run"),
    "vm-list": ("domzero.cli.verbs", "list domains with their uuids"),
    "domid": ("domzero.cli.verbs", "show a domain's domid"),
    "domname": ("domzero.cli.verbs", "show a domain's name"),
    "xl": ("domzero.cli.xl.door", "xl's own grammar and texts: domzero xl VERB ..."),
    "completion": ("domzero.cli.completion", "print the completion script of a shell"),
    "help": ("domzero.cli.help", "show the help of a verb"),
    "lab": ("domzero.cli.lab", "see the architecture: rings, page tables, traps"),
}
"""Verb -> (module, one-line help), in the order of the help text."""
# Names that people know from elsewhere, and the verbs that do the same.
_XL_VERBS = {"stop": "shutdown", "ls": "list", "ps": "list", "kill": "destroy", "rm": "destroy"}


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser; only the module of `verb` is imported, the other verbs are there with their one-line help."""
    parser = argparse.ArgumentParser(
        prog="domzero",
        description="A Xen-compatible paravirtualizing hypervisor that runs as an ordinary user.",
        epilog="`domzero VERB --help` says more about a verb.",
    )
    parser.add_argument("--version", action="version", version=f"domzero {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    if verb in VERBS:
        import_module(VERBS[verb][0]).register(subparsers)
        return parser
    for name, (module, text) in VERBS.items():
        if find_spec(module) is not None:
            subparsers.add_parser(name, help=text)
    return parser


def verb_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the verbs in a parser."""
    (choices,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(choices)


def check_verb(word: str) -> None:
    """Raises ConfigError, with a suggestion, for a word that is no verb."""
    if word not in VERBS:
        near = difflib.get_close_matches(word[:40], [*VERBS, *_XL_VERBS], 1)
        meant = _XL_VERBS.get(near[0], near[0]) if near else None
        raise ConfigError(
            f"no such verb: {shown(word[:40])}", hint=f"did you mean {meant}?" if meant else "`domzero help` lists them"
        )


def _verb_of(argv: Sequence[str]) -> str | None:
    word = next((word for word in argv if not word.startswith("-")), None)
    return word if word in VERBS and find_spec(VERBS[word][0]) is not None else None


def _parse(arguments: list[str]) -> argparse.Namespace:
    if arguments and not arguments[0].startswith("-"):
        check_verb(arguments[0])
    if arguments[:1] == ["xl"]:  # its words are not argparse's
        from domzero.cli.xl.door import run

        return argparse.Namespace(handler=lambda _args: run(arguments[1:]))
    parser = build_parser(_verb_of(arguments))
    args, unknown = parser.parse_known_args(arguments)
    if unknown:  # said by the verb's own parser, so that its usage is shown
        verb_parsers(parser)[args.verb].error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def _complete() -> None:
    """Answers the shell's completion, which runs this command with _ARGCOMPLETE set, and ends."""
    from domzero.cli.completion import answer

    parser = build_parser(None)
    words = os.environ.get("COMP_LINE", "").split()
    if words and os.path.basename(words[0]) == "xl":
        from domzero.cli.xl.door import xl_parser

        answer(xl_parser())
    answer(build_parser(words[1]) if len(words) > 1 and words[1] in VERBS else parser)


def _tell(error: DomzeroError, arguments: Sequence[str]) -> None:
    """An error on stderr: a line each, or with --json an object."""
    errors = error.errors if isinstance(error, ConfigErrors) else (error,)
    if "--json" in arguments:
        found = [{"message": one.message, "key": one.key, "hint": one.hint} for one in errors]
        print(json.dumps({"errors": found}), file=sys.stderr)
        return
    for one in errors:
        print(f"domzero: {shown(str(one))}", file=sys.stderr)


def _text_of(error: OSError) -> str:
    what = f"{error.filename}: " if error.filename is not None else ""
    return what + (error.strerror or str(error) or type(error).__name__)


def _drop_output() -> None:
    """Lets what is still buffered for stdout go nowhere: the interpreter would write it at its end, and complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `domzero` command. Returns the exit status; bad usage leaves through SystemExit(2)."""
    if "_ARGCOMPLETE" in os.environ and argv is None:
        _complete()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parse(arguments)
        status = int(args.handler(args))
        if sys.stdout is not None:  # the command may be started with it closed
            sys.stdout.flush()  # here its failure can still be told
        return status
    except DomzeroError as error:
        _tell(error, arguments)
        return ExitStatus.USAGE if isinstance(error, ConfigError | ImageError) else ExitStatus.FAILED
    except BrokenPipeError:  # the reader has gone: nothing left to say
        _drop_output()
        return ExitStatus.FAILED
    except OSError as error:
        print(f"domzero: {_text_of(error)}", file=sys.stderr)
        _drop_output()
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        return ExitStatus.SIGINT


if __name__ == "__main__":
    sys.exit(main())
