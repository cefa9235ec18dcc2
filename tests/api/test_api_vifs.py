# SPDX-License-Identifier: Apache-2.0
"""Network interfaces of running domains, over HTTP and by the verbs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import httpx
import pyxs  # type: ignore[import-untyped]
from dom0_server import Server

Json = dict[str, object]
Create = Callable[..., Json]

LAN = f"bridge=test{os.getpid()}"


def test_interfaces_are_attached_listed_and_detached(api: httpx.Client, create: Create) -> None:
    domain = create("one", vifs=[LAN, f"{LAN},mac=00:16:3e:01:02:03"])
    path = f"/domains/{domain['uuid']}/vifs"
    first, second = api.get(path).json()
    assert (second["devid"], second["mac"], second["mtu"]) == (1, "00:16:3e:01:02:03", 1500)
    answer = api.post(path, json={"spec": f"{LAN},mtu=1400"})
    assert answer.status_code == 201 and answer.json()["devid"] == 2
    assert answer.json()["mtu"] == 1400
    assert api.post(path, json={"spec": f"{LAN},mac=00:16:3E:01:02:03"}).status_code == 422  # taken
    assert api.post(path, json={"spec": f"{LAN},devid=1"}).status_code == 422
    assert api.post(path, json={"spec": "bridge=../lan"}).status_code == 422
    assert api.delete(f"{path}/0").status_code == 204
    assert api.delete(f"{path}/0").status_code == 422
    assert api.delete(f"{path}/64").status_code == 422
    # The others are what they were, also after a reboot, and the number is free again.
    kept = api.get(f"/domains/{domain['uuid']}").json()["vifs"]
    assert [text.partition(",")[0] for text in kept] == ["devid=1", "devid=2"]
    assert api.post(path, json={"spec": LAN}).json()["devid"] == 0
    assert [vif["mac"] for vif in api.get(path).json()][:2] == [first["mac"], second["mac"]]


def test_the_rate_and_the_link_change_while_a_domain_runs_and_stay_so(
    api: httpx.Client, server: Server, create: Create
) -> None:
    domain = create("bound", vifs=[f"{LAN},rate=10Mb/s", f"{LAN},link=down"])
    path = f"/domains/{domain['uuid']}/vifs"
    first, second = api.get(path).json()
    assert (first["rate"], first["link"]) == ("10Mb/s", "up")
    assert (second["rate"], second["link"]) == (None, "down")

    def nodes(devid: int) -> dict[str, str]:
        at = f"/local/domain/0/backend/vif/{domain['domid']}/{devid}"
        with pyxs.Client(unix_socket_path=str(server.xenstore)) as store:
            there = {name.decode() for name in store.list(at.encode())}
        return {name: server.read_store(f"{at}/{name}") for name in ("rate", "carrier") if name in there}

    assert nodes(0) == {"rate": "62500,50000", "carrier": "1"} and nodes(1) == {"carrier": "0"}
    changed = api.patch(f"{path}/0", json={"link": "down", "rate": ""}).json()
    assert (changed["rate"], changed["link"]) == (None, "down") and nodes(0) == {"carrier": "0"}
    (vif,) = [
        json.loads(server.cli("network-set", "--json", str(domain["name"]), "1", "link=up", "rate=1MB/s@20ms").stdout)
    ]
    assert (vif["rate"], vif["link"]) == ("1MB/s@20ms", "up") and nodes(1) == {"rate": "20000,20000", "carrier": "1"}
    kept = api.get(f"/domains/{domain['uuid']}").json()["vifs"]
    assert "link=down" in kept[0] and "rate" not in kept[0] and "rate=1MB/s@20ms" in kept[1]
    assert api.patch(f"{path}/0", json={}).json() == changed
    assert api.patch(f"{path}/0", json={"rate": "fast"}).status_code == 422
    assert api.patch(f"{path}/0", json={"link": "sideways"}).status_code == 422
    assert api.patch(f"{path}/9", json={"link": "up"}).status_code == 422
    wrong = server.cli("network-set", str(domain["name"]), "1", "speed=1")
    assert wrong.returncode == 2 and "what is 'speed=1'?" in wrong.stderr


def test_the_verbs_are_those_of_xl(server: Server, create: Create) -> None:
    name = str(create("plugged")["name"])
    assert server.cli("network-attach", name, LAN, "mac=00:16:3e:01:02:04").returncode == 0
    (vif,) = json.loads(server.cli("network-list", "--json", name).stdout)
    assert (vif["devid"], vif["mac"]) == (0, "00:16:3e:01:02:04")
    listed = server.cli("network-list", name).stdout
    assert "00:16:3e:01:02:04" in listed and "/local/domain/0/backend/vif/" in listed
    wrong = server.cli("network-attach", name, "mtu=fast")
    assert wrong.returncode == 2 and "no MTU" in wrong.stderr
    assert server.cli("network-detach", name, "00:16:3E:01:02:04").returncode == 0
    gone = server.cli("network-detach", name, "0")
    assert gone.returncode == 2 and "there is no interface 0" in gone.stderr
    assert json.loads(server.cli("network-list", "--json", name).stdout) == []
