# SPDX-License-Identifier: Apache-2.0
"""xl's verbs for memory, processors and the host."""

from __future__ import annotations

from collections.abc import Callable

from domzero.cli.api_client import Dom0, domain_path, is_domain_0
from domzero.cli.text import memory_kib, schedule_table, vcpu_table
from domzero.cli.xl import text
from domzero.cli.xl.domains import find
from domzero.cli.xl.grammar import Given, XlError, XlStatus
from domzero.dom0.cpuspec import format_cpus, parse_cpus
from domzero.dom0.names import shown
from domzero.errors import DomzeroError


def set_memory(field: str, what: str) -> Callable[[Dom0, Given], int]:
    """`mem-set` and `mem-max`.

    :param field: that the API has for it.
    :param what: is told when it cannot be.
    """

    def handler(dom0: Dom0, given: Given) -> int:
        domain, amount = find(dom0, given.words[0]), given.words[1]
        kib = memory_kib(amount)
        if kib is None:
            raise XlError(f"invalid memory size: {amount}")
        try:
            dom0.patch(domain["uuid"], **{field: kib >> 10})
        except DomzeroError as error:
            raise XlError(f"xl: error: {error}\ncannot set domid {domain['domid']} {what} to : {amount}") from None
        return XlStatus.OK

    return handler


def list_vcpus(dom0: Dom0, given: Given) -> int:
    """`vcpu-list`."""
    words = [word for word in given.words if not is_domain_0(word)]
    keys = [find(dom0, word)["uuid"] for word in words]
    if not given.words:
        keys = [domain["uuid"] for domain in dom0.get("/domains")]
    print(vcpu_table(dom0.parts(keys, "vcpus"), dom0.get("/host")["nr_cpus"]))
    return XlStatus.OK


def set_vcpus(dom0: Dom0, given: Given) -> int:
    """`vcpu-set`."""
    domain, count = find(dom0, given.words[0]), given.words[1]
    if not count.isdecimal():
        raise XlError("Error: Invalid argument.")
    dom0.patch(domain["uuid"], vcpus=int(count))
    return XlStatus.OK


def pin_vcpu(dom0: Dom0, given: Given) -> int:
    """`vcpu-pin`."""
    domain, vcpu, hard = find(dom0, given.words[0]), given.words[1], given.words[2]
    soft = given.words[3] if len(given.words) > 3 else "-"
    if vcpu != "all" and not vcpu.isdecimal():
        raise XlError(f"Error: Invalid argument {vcpu} as VCPU.")
    if vcpu == "all" and given.has("f"):
        raise XlError("Error: --force and 'all' as VCPU not allowed.")
    if soft not in ("-", "all"):
        raise XlError(f"soft affinity {soft}: the host's scheduler has hard affinity only; give - or all")
    if given.dry:
        print(f"cpumap: {_cpumap(dom0, hard)}{'' if soft == '-' else ' all'}")
        return XlStatus.OK
    if hard == "-":
        return XlStatus.OK
    body = {"vcpu": None if vcpu == "all" else int(vcpu), "cpus": hard}
    try:
        dom0.request("PUT", f"{domain_path(domain['uuid'])}/vcpus/affinity", body)
    except DomzeroError as error:
        what = "Could not set affinity." if vcpu == "all" else f"Could not set affinity for vcpu `{vcpu}'."
        raise XlError(f"xl: error: {error}\n{what}") from None
    return XlStatus.OK


def _cpumap(dom0: Dom0, word: str) -> str:
    """Processors as xl writes a set of them."""
    if word == "-":
        return "-"
    there = frozenset(range(dom0.get("/host")["nr_cpus"]))
    cpus = parse_cpus(word, there)
    return "all" if cpus >= there else format_cpus(cpus)


def schedule(dom0: Dom0, given: Given) -> int:
    """`sched-credit` and `sched-credit2`: weight and cap, which both have."""
    for key in ("t", "r", "m"):
        if given.has(key):
            raise XlError(f"-{key}: the host's scheduler has no such parameter")
    changes = {field: _number(given, key) for key, field in (("w", "cpu_weight"), ("c", "cap")) if given.has(key)}
    pool, name = given.last("p"), given.last("d")
    if name is None and changes:
        raise XlError("Must specify a domain.")
    if name is not None and (pool is not None or given.has("s")):
        raise XlError("Specifying a cpupool or schedparam is not allowed with domain options.")
    if pool not in (None, "0", text.POOL):
        raise XlError(f"unknown cpupool '{pool}'")
    if name is not None:
        uuid = find(dom0, name)["uuid"]
        if changes:
            dom0.patch(uuid, **changes)
        else:
            print(schedule_table([dom0.domain(uuid)]))
        return XlStatus.OK
    print(f"Cpupool {text.POOL}: [sched params unavailable]")
    if not given.has("s"):
        print(schedule_table(dom0.get("/domains")))
    return XlStatus.OK


def _number(given: Given, key: str) -> int:
    value = (given.last(key) or "").lstrip("=")
    if not value.isdecimal():
        raise XlError(f"-{key}: not a number: {value}")
    return int(value)


def list_pools(dom0: Dom0, given: Given) -> int:
    """`cpupool-list`."""
    if given.words and given.words[0] not in ("0", text.POOL):
        raise XlError(f"Pool '{given.words[0]}' does not exist")
    host = dom0.get("/host")
    cpus = range(host["nr_cpus"])
    print(text.pool_table(cpus, host["domains"] + 1, host["xen_scheduler"], with_cpus=given.has("c")))
    return XlStatus.OK


def info(dom0: Dom0, given: Given) -> int:
    """`info`."""
    lines = text.info_lines(dom0.get("/host"), topology=given.has("n") and not given.words)
    if given.words:
        found = next((line for line in lines if line.split()[0] == given.words[0]), None)
        if found is None:
            raise XlError(f"no such field: {given.words[0]}")
        lines = [found.partition(": ")[2]]
    print("\n".join(lines))
    return XlStatus.OK


def show_log(dom0: Dom0, given: Given) -> int:
    """`dmesg`."""
    for line in dom0.get("/host/dmesg")["lines"]:
        print(shown(line))
    if given.has("c"):
        dom0.request("DELETE", "/host/dmesg")
    return XlStatus.OK


def press_debug_keys(dom0: Dom0, given: Given) -> int:
    """`debug-keys`: what they are for is in `dmesg`."""
    try:
        dom0.request("POST", "/host/debug-keys", {"keys": given.words[0]})
    except DomzeroError as error:
        raise XlError(f"cannot send debug keys: {error}") from None
    return XlStatus.OK


def show_top(dom0: Dom0, given: Given) -> int:
    """`top`: xentop's options."""
    from domzero.cli.top import DELAY_S, View, watch

    view = View(given.has("n"), given.has("x"), given.has("v"), given.has("r"), given.has("f"))
    try:
        delay_s = float(given.last("d") or DELAY_S)
    except ValueError:
        raise XlError(f"-d: not a number: {given.last('d')}") from None
    iterations = _number(given, "i") if given.has("i") else None
    return watch(dom0, view, delay_s=delay_s, iterations=iterations, batch=given.has("b"))
