# SPDX-License-Identifier: Apache-2.0
"""xl's verbs for disks, network interfaces and channels."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

from domzero.cli.api_client import Dom0, Json, domain_path, is_domain_0
from domzero.cli.xl import text
from domzero.cli.xl.domains import find, look_for
from domzero.cli.xl.dry import disk_json, text_of, vif_json
from domzero.cli.xl.grammar import Given, XlError, XlStatus
from domzero.dom0.diskspec import is_named, parse_disk
from domzero.dom0.names import shown
from domzero.dom0.vifspec import parse_vif

_Table = Callable[[list[tuple[Json, list[Json]]]], str]


_FRONTS: dict[str, tuple[str, str]] = {
    "disks": ("vbd", "devid"),
    "vifs": ("vif", "devid"),
    "consoles": ("console", "number"),
}
"""For each kind of devices of the API, its kind of front ends, and what numbers it."""


def _list(kind: str, table: _Table) -> Callable[[Dom0, Given], int]:
    """A verb that lists devices of domains. One that is not there is told, and the others are shown."""

    def handler(dom0: Dom0, given: Given) -> int:
        found: list[tuple[Json, list[Json]]] = []
        for word in given.words:
            if is_domain_0(word):
                continue
            if (domain := look_for(dom0, word)) is None:
                print(f"{shown(word)} is an invalid domain identifier", file=sys.stderr)
                continue
            found += dom0.parts([domain["uuid"]], kind)
            _add_fronts(dom0, found[-1], *_FRONTS[kind])
        print(table(found))
        return XlStatus.OK

    return handler


def _add_fronts(dom0: Dom0, of: tuple[Json, list[Json]], kind: str, number: str) -> None:
    """Puts the guest's end of each device into it."""
    domain, devices = of
    said = dom0.get(f"{domain_path(domain['uuid'])}/front-ends")
    fronts = {front["devid"]: front for front in said if front["kind"] == kind}
    nothing = {"state": None, "event_channel": None, "ring_refs": [None, None]}
    for device in devices:
        device["front"] = fronts.get(device[number], nothing)


list_blocks = _list("disks", text.block_table)
list_networks = _list("vifs", text.network_table)
list_channels = _list("consoles", text.channel_table)


def attach_block(dom0: Dom0, given: Given) -> int:
    """`block-attach`."""
    domain = find(dom0, given.words[0])
    what = ",".join(given.words[1:])
    spec = parse_disk(what)
    if given.dry:
        print(f"disk: {text_of(disk_json(replace(spec, target=spec.absolute())))}\n")
        return XlStatus.OK
    body: Json = {"spec": spec.text(spec.absolute(), named=is_named(what))}
    dom0.request("POST", f"{domain_path(domain['uuid'])}/disks", body)
    return XlStatus.OK


def detach_block(dom0: Dom0, given: Given) -> int:
    """`block-detach`."""
    domain = find(dom0, given.words[0])
    path = _disk_path(dom0, domain, given.words[1])
    dom0.request("DELETE", path, force=given.has("f"))
    return XlStatus.OK


def _disk_path(dom0: Dom0, domain: Json, word: str) -> str:
    path = f"{domain_path(domain['uuid'])}/disks"
    found = next((disk for disk in dom0.get(path) if word in (disk["vdev"], str(disk["devid"]))), None)
    if found is None:
        raise XlError(f"Error: Device {word} not connected.")
    return f"{path}/{quote(found['vdev'], safe='')}"


def insert_cd(dom0: Dom0, given: Given) -> int:
    """`cd-insert`."""
    domain, target = find(dom0, given.words[0]), given.words[2]
    if not os.path.exists(target):
        raise XlError(f"Cannot stat file: {target}")
    path = _disk_path(dom0, domain, given.words[1])
    if given.dry:
        print(f"disk: {text_of(_drive(given.words[1], os.path.abspath(target)))}\n")
        return XlStatus.OK
    dom0.request("PUT", f"{path}/medium", {"target": os.path.abspath(target)})
    return XlStatus.OK


def eject_cd(dom0: Dom0, given: Given) -> int:
    """`cd-eject`."""
    domain = find(dom0, given.words[0])
    path = _disk_path(dom0, domain, given.words[1])
    if given.dry:
        print(f"disk: {text_of(_drive(given.words[1], ''))}\n")
    else:
        dom0.request("DELETE", f"{path}/medium")
    return XlStatus.OK


def _drive(vdev: str, target: str) -> Json:
    return disk_json(parse_disk(f"vdev={vdev},devtype=cdrom,access=ro,target={target}"))


def attach_network(dom0: Dom0, given: Given) -> int:
    """`network-attach`."""
    domain = find(dom0, given.words[0])
    what = ",".join(given.words[1:])
    spec = parse_vif(what)
    if given.dry:
        words = vif_json(spec)
        del words["devid"]  # it is chosen when it is plugged in
        print(f"vif: {text_of(words)}\n")
        return XlStatus.OK
    dom0.request("POST", f"{domain_path(domain['uuid'])}/vifs", {"spec": what})
    return XlStatus.OK


def detach_network(dom0: Dom0, given: Given) -> int:
    """`network-detach`."""
    domain, word = find(dom0, given.words[0]), given.words[1]
    path = f"{domain_path(domain['uuid'])}/vifs"
    found = next((vif for vif in dom0.get(path) if word.lower() in (vif["mac"], str(vif["devid"]))), None)
    if found is None:
        raise XlError(f"Unknown device {word}.")
    dom0.request("DELETE", f"{path}/{found['devid']}", force=given.has("f"))
    return XlStatus.OK
