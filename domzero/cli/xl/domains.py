# SPDX-License-Identifier: Apache-2.0
"""xl's verbs for the life of domains."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from domzero.cli.api_client import Dom0, Json, domain_path, is_domain_0
from domzero.cli.xl import libxl_json, text
from domzero.cli.xl.grammar import Given, XlError, XlStatus
from domzero.dom0.names import DOMAIN_0, is_domid, shown
from domzero.errors import ConfigError, DomzeroError


def find(dom0: Dom0, word: str) -> Json:
    """The domain that a word means, which is not Domain 0. XlError."""
    found = look_for(dom0, word)
    if found is None:
        raise XlError(f"{word} is an invalid domain identifier (rc=-6)")
    return found


def look_for(dom0: Dom0, word: str) -> Json | None:
    """The domain that a word means and that exists: xl knows none that is halted or has ended."""
    try:
        domain = dom0.domain(word)
    except DomzeroError as error:
        if not error.message.startswith("no such domain"):
            raise
        return None
    return domain if domain["exists"] else None


def rows(dom0: Dom0, words: Iterable[str]) -> list[text.Row]:
    """Rows of the tables of domains: those that are named, or all with Domain 0."""
    words = list(words)
    if not words:
        return [text.Row.of_host(dom0.get("/host")), *map(text.Row.of, dom0.get("/domains"))]
    return [
        text.Row.of_host(dom0.get("/host")) if is_domain_0(word) else text.Row.of(find(dom0, word)) for word in words
    ]


def list_domains(dom0: Dom0, given: Given) -> int:
    """`list`."""
    if len(given.words) > 1:
        raise XlError("", help_of=given.verb)
    if given.has("l"):
        print(json.dumps(_configurations(dom0, given.words), indent=4))
        return XlStatus.OK
    columns = [text.VERBOSE] if given.has("v") else [text.LABEL] if given.has("Z") else []
    columns += [text.CPUPOOL] if given.has("c") else []
    columns += [text.NODES] if given.has("n") else []
    print(text.domain_table(rows(dom0, given.words), columns))
    return XlStatus.OK


def _configurations(dom0: Dom0, words: Sequence[str]) -> list[Json]:
    """libxl's, of the domains that are named, or of all."""
    with_host = not words or is_domain_0(words[0])
    domains = dom0.get("/domains") if not words else [find(dom0, word) for word in words if not is_domain_0(word)]
    found = [libxl_json.of_host(dom0.get("/host"))] if with_host else []
    for domain in domains:
        try:
            vifs = dom0.get(f"{domain_path(domain['uuid'])}/vifs")
        except DomzeroError:  # its worker does not answer, or it has ended
            vifs = []
        found.append(libxl_json.of(domain, vifs))
    return found


def list_claims(dom0: Dom0, given: Given) -> int:
    """`claims`: memory is claimed for nobody, it is there or a domain is refused."""
    print(text.domain_table(rows(dom0, ()), [text.CLAIMED]))
    return XlStatus.OK


def list_sharing(dom0: Dom0, given: Given) -> int:
    """`sharing`."""
    print(text.sharing_table(rows(dom0, given.words[:1])))
    return XlStatus.OK


def list_vms(dom0: Dom0, given: Given) -> int:
    """`vm-list`."""
    print("UUID                                  ID    name")
    for row in rows(dom0, ()):
        print(f"{row.uuid}  {row.domid}    {row.name:<30}")
    return XlStatus.OK


def uptime(dom0: Dom0, given: Given) -> int:
    """`uptime`."""
    found = []
    for word in given.words or [DOMAIN_0, *(domain["uuid"] for domain in dom0.get("/domains"))]:
        if is_domain_0(word):
            found.append((DOMAIN_0, 0, float(dom0.get("/host")["uptime_seconds"])))
            continue
        domain = find(dom0, word)
        started = domain["started_at"] and datetime.fromisoformat(domain["started_at"].replace("Z", "+00:00"))
        seconds = time.time() - started.timestamp() if started else 0.0
        found.append((domain["name"], domain["domid"] or 0, max(seconds, 0.0)))
    print(text.uptime_lines(found, short=given.has("s")))
    return XlStatus.OK


def act(action: str) -> Callable[[Dom0, Given], int]:
    """A verb that is an action of Domain 0's on one domain."""

    def handler(dom0: Dom0, given: Given) -> int:
        dom0.act(find(dom0, given.words[0])["uuid"], action)
        return XlStatus.OK

    return handler


def destroy(dom0: Dom0, given: Given) -> int:
    """`destroy`."""
    if is_domain_0(given.words[0]):
        if given.has("f"):
            raise XlError("Domain 0 is the process `domzero serve`: end that")
        raise XlError(
            "Not destroying domain 0; use -f to force.\n"
            "This can only be done when using a disaggregated hardware domain and toolstack.\n"
        )
    dom0.request("DELETE", domain_path(find(dom0, given.words[0])["uuid"]))
    return XlStatus.OK


def shut_down(verb: str) -> Callable[[Dom0, Given], int]:
    """`shutdown` and `reboot`."""
    saying = "Shutting down" if verb == "shutdown" else "Rebooting"

    def handler(dom0: Dom0, given: Given) -> int:
        if not given.has("a") and not given.words:
            raise given.wrong("You must specify -a or a domain id.")
        domains = dom0.get("/domains") if given.has("a") else [find(dom0, given.words[0])]
        asked, failed = [], False
        for domain in domains:
            print(f"{saying} domain {domain['domid']}", file=sys.stderr)
            try:
                dom0.act(domain["uuid"], verb)
                asked.append(domain)
            except DomzeroError as error:
                if not given.has("a"):
                    raise
                print(f"xl: error: {shown(str(error))}", file=sys.stderr)
                failed = True
        if given.has("w"):
            _wait(dom0, asked, verb, twice=given.count("w") > 1)
        return XlStatus.FAILED if failed else XlStatus.OK

    return handler


def _wait(dom0: Dom0, domains: list[Json], verb: str, *, twice: bool) -> None:
    from domzero.cli.verbs import wait_done

    print(f"Waiting for {len(domains)} domains", flush=True)
    for domain in domains:
        wait_done(dom0, domain, reboot=verb == "reboot", timeout=None)
        after = dom0.domain(domain["uuid"])
        reason = text.REASONS.get((after["exit"] or {}).get("reason", ""))
        if twice or reason is None:
            print(f"Domain {domain['domid']} has been destroyed", file=sys.stderr)
        else:
            print(f"Domain {domain['domid']} has been shut down, reason code {reason}", file=sys.stderr)


def console(dom0: Dom0, given: Given) -> int:
    """`console`."""
    kind = given.last("t") or "pv"
    if kind not in ("pv", "serial", "vuart"):
        raise XlError("console type supported are: pv, serial, vuart")
    if kind != "pv":
        raise XlError(f"there is no {kind} console: a PV domain has pv consoles only")
    number = given.last("n") or "0"
    if not number.isdecimal():
        raise XlError(f"not the number of a console: {number}")
    domain = find(dom0, given.words[0])
    if int(number):
        from domzero.cli.channels import attach_channel

        attach_channel(dom0, domain["uuid"], int(number))
    else:
        from domzero.cli.attach import attach

        attach(dom0, domain["uuid"])
    return XlStatus.OK


def show_domid(dom0: Dom0, given: Given) -> int:
    """`domid`."""
    word = given.words[0]
    domain = {"domid": 0} if is_domain_0(word) else look_for(dom0, word)
    if domain is None:
        raise XlError(f"Can't get domid of domain name '{word}', maybe this domain does not exist.")
    print(domain["domid"])
    return XlStatus.OK


def show_name(dom0: Dom0, given: Given) -> int:
    """`domname`."""
    word = given.words[0]
    if not is_domid(word):
        raise given.wrong("Invalid domain id.")
    domain = {"name": DOMAIN_0} if is_domain_0(word) else look_for(dom0, word)
    if domain is None:
        raise XlError(f"Can't get domain name of domain id '{word}', maybe this domain does not exist.")
    print(domain["name"])
    return XlStatus.OK


def view(dom0: Dom0, given: Given) -> int:
    """`vncviewer`: becomes one."""
    from domzero.cli.screens import open_viewer

    if given.has("autopass") or given.has("vncviewer-autopass"):
        raise XlError("--autopass: a viewer is told no password; it asks")
    screen = dom0.get(f"{domain_path(find(dom0, given.words[0])['uuid'])}/vnc")
    try:
        open_viewer(screen["address"])
    except ConfigError as error:
        raise XlError(str(error)) from None


def rename(dom0: Dom0, given: Given) -> int:
    """`rename`."""
    domain = find(dom0, given.words[0])
    try:
        dom0.patch(domain["uuid"], name=given.words[1])
    except ConfigError as error:
        raise XlError(f"Can't rename domain '{given.words[0]}'.\nxl: error: {error}") from None
    return XlStatus.OK


def dump_core(dom0: Dom0, given: Given) -> int:
    """`dump-core`."""
    dom0.dump_core(find(dom0, given.words[0])["uuid"], os.path.abspath(given.words[1]))
    return XlStatus.OK


def press_sysrq(dom0: Dom0, given: Given) -> int:
    """`sysrq`."""
    domain = find(dom0, given.words[0])
    if len(given.words[1]) != 1:
        raise given.wrong("Invalid sysrq.")
    dom0.request("POST", f"{domain_path(domain['uuid'])}/sysrq", {"key": given.words[1]})
    return XlStatus.OK


_TRIGGERS = {"nmi": "nmi", "power": "shutdown", "reset": "reboot"}


def trigger(dom0: Dom0, given: Given) -> int:
    """`trigger`."""
    domain, what = find(dom0, given.words[0]), given.words[1]
    if what in ("init", "sleep", "s3resume"):
        raise XlError(f"trigger {what}: a PV domain has no such thing; there are nmi, power and reset")
    if what not in _TRIGGERS:
        raise XlError(f'Invalid trigger "{what}"')
    body: Json | None = None
    if what == "nmi":
        vcpu = given.words[2] if len(given.words) > 2 else "0"
        if not vcpu.isdecimal():
            print("Invalid vcpuid, using default vcpuid=0.\n", file=sys.stderr)
            vcpu = "0"
        body = {"vcpu": int(vcpu)}
    dom0.request("POST", f"{domain_path(domain['uuid'])}/{_TRIGGERS[what]}", body)
    return XlStatus.OK
