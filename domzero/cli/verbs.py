# SPDX-License-Identifier: Apache-2.0
"""The verbs that ask Domain 0 something: xl's names, xl's text, JSON beside it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any

from domzero.cli.api_client import Dom0, domain_path, is_domain_0
from domzero.cli.status import ExitStatus
from domzero.cli.text import duration, info_lines, list_table
from domzero.cli.verb import add_domain, add_domains, add_verb, answer, each_of
from domzero.dom0.names import DOMAIN_0, shown
from domzero.errors import ConfigError, DomzeroError

Json = dict[str, Any]
_POLL_SECONDS = 0.1
_REBOOT_SECONDS = 300.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds all of them."""
    add = partial(add_verb, subparsers)

    parser = add("list", list_domains, "list domains")
    add_domains(parser, can_be_none=True)
    parser.add_argument("-l", "--long", action="store_true", help="everything, as JSON")
    parser.add_argument(
        "-a", "--all", action="store_true", help="also domains that are halted or have ended, as far as they are kept"
    )

    parser = add("console", console, "attach to a domain's console; Ctrl-] detaches")
    add_domain(parser)
    parser.add_argument("-n", "--number", type=int, default=0, metavar="NUM", help="a channel: console 1, 2, ...")
    parser.add_argument("--history", action="store_true", help="only print what it has printed so far")
    parser.add_argument("--no-history", action="store_true", help="do not begin with what it has printed so far")

    _domains(add("pause", _action("pause"), "pause domains"))
    _domains(add("unpause", _action("unpause"), "unpause domains"))
    for verb, text in (("shutdown", "ask a domain to shut down"), ("reboot", "ask a domain to reboot")):
        parser = add(verb, shut_down, text)
        _domains(parser)
        parser.add_argument("-w", "--wait", action="store_true", help="wait until it is done")
        parser.add_argument("--timeout", type=float, metavar="SECONDS", help="wait no longer than this")
        parser.add_argument("-F", action="store_true", help=argparse.SUPPRESS)
    _domains(add("destroy", destroy, "end domains at once; forget those that have ended"))

    parser = add("rename", rename, "rename a domain")
    add_domain(parser)
    parser.add_argument("name", metavar="NEW-NAME")

    parser = add("dump-core", dump_core, "write a domain's core dump to a file")
    add_domain(parser)
    parser.add_argument("file", metavar="FILE", help="Xen's ELF format; what is there is replaced when it is whole")

    parser = add("sysrq", press_sysrq, "press a SysRq key in a domain")
    add_domain(parser)
    parser.add_argument("key", metavar="LETTER", help="such as h, for the help of a Linux kernel on its console")

    parser = add("trigger", trigger, "send a domain an NMI, or ask it to shut down")
    add_domain(parser)
    parser.add_argument("what", choices=["nmi", "power", "reset"], help="what happens: power and reset ask the guest")
    parser.add_argument("vcpu", metavar="VCPU", nargs="?", type=int, default=0, help="that the NMI is for (default: 0)")

    parser = add("dmesg", show_log, "show what the hypervisor has logged")
    parser.add_argument("-c", "--clear", action="store_true", help="and clear it")

    add_domain(add("audit", audit, "let a domain's hypervisor check its own books"))

    parser = add("info", info, "show the host")
    parser.add_argument("field", nargs="?", metavar="FIELD", help="only the value of this field")

    parser = add("uptime", uptime, "show how long domains have run")
    add_domains(parser, can_be_none=True)
    add("vm-list", list_vms, "list domains with their uuids")
    add_domain(add("domid", show_domid, "show a domain's domid"))
    add_domain(add("domname", show_name, "show a domain's name"))


def _domains(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domains", nargs="*", metavar="DOMAIN", help="name, domid or uuid")
    parser.add_argument("-a", "--all", action="store_true", help="all domains")


def _asked_for(dom0: Dom0, args: argparse.Namespace) -> list[Json]:
    """The domains of a verb that takes several. All must exist: of a list with a slip in it, none is touched."""
    if args.all == bool(args.domains):
        raise ConfigError("which domain? Give names, domids or uuids, or --all", key=args.verb)
    return _selected(dom0, args.domains)


def _action(action: str) -> Callable[[argparse.Namespace], int]:
    def handler(args: argparse.Namespace) -> int:
        with Dom0.from_args(args) as dom0:
            done = each_of(_asked_for(dom0, args), lambda key: dom0.act(key, action))
            return answer(args, done, None)

    return handler


def audit(args: argparse.Namespace) -> int:
    """`audit`: status 1 when something is wrong."""
    with Dom0.from_args(args) as dom0:
        found = dom0.get(f"{domain_path(args.domain)}/audit")
    problems: list[str] = found["problems"]
    answer(args, found, "\n".join(problems) or "nothing is wrong")
    return ExitStatus.FAILED if problems else ExitStatus.OK


def _selected(dom0: Dom0, keys: Iterable[str], *, ended: bool = False) -> list[Json]:
    domains: list[Json] = [dom0.domain(key) for key in keys] or dom0.get("/domains", ended=ended, halted=ended)
    return domains


def list_domains(args: argparse.Namespace) -> int:
    """`list`."""
    with Dom0.from_args(args) as dom0:
        keys = [key for key in args.domains if not is_domain_0(key)]
        with_host = len(keys) < len(args.domains) or not args.domains
        domains = _selected(dom0, keys, ended=args.all) if keys or not args.domains else []
        if args.json or args.long:
            print(json.dumps(domains, indent=2))
            return ExitStatus.OK
        print(list_table(domains, dom0.get("/host") if with_host else None))
    return ExitStatus.OK


def console(args: argparse.Namespace) -> int:
    """`console`."""
    with Dom0.from_args(args) as dom0:
        if args.history:
            data = dom0.request("GET", f"{domain_path(args.domain)}/console").content
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return ExitStatus.OK
        if args.number:
            from domzero.cli.channels import attach_channel

            return attach_channel(dom0, args.domain, args.number)
        from domzero.cli.attach import attach

        return attach(dom0, args.domain, history=not args.no_history)


def shut_down(args: argparse.Namespace) -> int:
    """`shutdown` and `reboot`."""
    with Dom0.from_args(args) as dom0:
        domains = _asked_for(dom0, args)
        for domain in domains:
            dom0.act(domain["uuid"], args.verb)
            if not args.json:
                print(f"{'Shutting down' if args.verb == 'shutdown' else 'Rebooting'} domain {domain['name']}")
        if args.wait:
            for domain in domains:
                wait_done(dom0, domain, reboot=args.verb == "reboot", timeout=args.timeout)
        if args.json:
            print(json.dumps([dom0.domain(domain["uuid"]) for domain in domains], indent=2))
    return ExitStatus.OK


def wait_done(dom0: Dom0, domain: Json, *, reboot: bool, timeout: float | None) -> None:
    """Waits until a domain that was asked to has shut down, or rebooted. DomzeroError."""
    if not reboot:
        after = dom0.wait_ended(domain["uuid"], timeout)
        if after["exists"] and after["state"] not in ("shutdown", "crashed"):
            raise DomzeroError(f"domain {domain['name']} has not shut down", hint="`domzero destroy` ends it at once")
        return
    end = time.monotonic() + (timeout if timeout is not None else _REBOOT_SECONDS)
    while (after := dom0.domain(domain["uuid"]))["reboots"] == domain["reboots"] and after["exists"]:
        if time.monotonic() >= end:
            raise DomzeroError(f"domain {domain['name']} has not rebooted", hint="`domzero destroy` ends it at once")
        time.sleep(_POLL_SECONDS)


def destroy(args: argparse.Namespace) -> int:
    """`destroy`."""
    with Dom0.from_args(args) as dom0:
        each_of(_asked_for(dom0, args), lambda key: dom0.request("DELETE", domain_path(key)))
    return answer(args, {}, None)


def rename(args: argparse.Namespace) -> int:
    """`rename`."""
    with Dom0.from_args(args) as dom0:
        return answer(args, dom0.patch(args.domain, name=args.name), None)


def dump_core(args: argparse.Namespace) -> int:
    """`dump-core`."""
    with Dom0.from_args(args) as dom0:
        return answer(args, dom0.dump_core(args.domain, os.path.abspath(args.file), quiet=args.json), None)


def press_sysrq(args: argparse.Namespace) -> int:
    """`sysrq`."""
    with Dom0.from_args(args) as dom0:
        return answer(args, dom0.request("POST", f"{domain_path(args.domain)}/sysrq", {"key": args.key}).json(), None)


def trigger(args: argparse.Namespace) -> int:
    """`trigger`."""
    path, body = {
        "nmi": ("nmi", {"vcpu": args.vcpu}),
        "power": ("shutdown", None),
        "reset": ("reboot", None),
    }[args.what]
    with Dom0.from_args(args) as dom0:
        return answer(args, dom0.request("POST", f"{domain_path(args.domain)}/{path}", body).json(), None)


def show_log(args: argparse.Namespace) -> int:
    """`dmesg`."""
    with Dom0.from_args(args) as dom0:
        lines = dom0.get("/host/dmesg")["lines"]
        if args.clear:
            dom0.request("DELETE", "/host/dmesg")
        return answer(args, lines, "\n".join(map(shown, lines)) if lines else None)


def info(args: argparse.Namespace) -> int:
    """`info`."""
    with Dom0.from_args(args) as dom0:
        host = dom0.get("/host")
        if args.field is None:
            return answer(args, host, "\n".join(info_lines(host)))
        if args.field not in host:
            raise ConfigError(f"no such field: {args.field}", hint="`domzero info` shows all")
        return answer(args, host[args.field], str(host[args.field]))


def uptime(args: argparse.Namespace) -> int:
    """`uptime`."""
    with Dom0.from_args(args) as dom0:
        host = dom0.get("/host")
        keys = [key for key in args.domains if not is_domain_0(key)]
        with_host = len(keys) < len(args.domains) or not args.domains
        rows = [(DOMAIN_0, 0, float(host["uptime_seconds"]))] if with_host else []
        for domain in _selected(dom0, keys) if keys or not args.domains else []:
            started = domain["started_at"]
            seconds = (
                time.time() - datetime.fromisoformat(started.replace("Z", "+00:00")).timestamp() if started else 0.0
            )
            rows.append((domain["name"], domain["domid"], max(seconds, 0.0)))
    value = [{"name": name, "domid": domid, "seconds": round(seconds, 1)} for name, domid, seconds in rows]
    lines = ["Name                                ID Uptime"]
    lines += [f"{name:<33} {domid:4d} {duration(seconds)}" for name, domid, seconds in rows]
    return answer(args, value, "\n".join(lines))


def list_vms(args: argparse.Namespace) -> int:
    """`vm-list`."""
    with Dom0.from_args(args) as dom0:
        domains = dom0.get("/domains")
    lines = ["UUID                                  ID    name"]
    lines.append(f"{uuid.UUID(int=0)}  0    {DOMAIN_0:<30}")
    lines += [f"{domain['uuid']}  {domain['domid']}    {domain['name']:<30}" for domain in domains]
    value = [{key: domain[key] for key in ("uuid", "domid", "name")} for domain in domains]
    return answer(args, value, "\n".join(lines))


def show_domid(args: argparse.Namespace) -> int:
    """`domid`."""
    with Dom0.from_args(args) as dom0:
        domid = 0 if is_domain_0(args.domain) else dom0.domain(args.domain)["domid"]
    return answer(args, domid, str(domid))


def show_name(args: argparse.Namespace) -> int:
    """`domname`."""
    with Dom0.from_args(args) as dom0:
        name = DOMAIN_0 if is_domain_0(args.domain) else dom0.domain(args.domain)["name"]
    return answer(args, name, str(name))
