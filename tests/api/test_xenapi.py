# SPDX-License-Identifier: Apache-2.0
"""XenAPI as its clients use it: XenAPI's own for Python, and JSON-RPC."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import pyxs  # type: ignore[import-untyped]
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from waiting import until
from xenapi_client import json_rpc, over_socket, over_tcp

from domzero.dom0.uplinks import uplinks
from domzero.dom0.xenapi.registry import KINDS

NULL = "OpaqueRef:NULL"


@pytest.fixture
def session(server: Server) -> Iterator[Any]:
    session = over_socket(server.socket)
    yield session
    session.xenapi.session.logout()


@pytest.fixture
def raw(server: Server) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(server.socket))
    with httpx.Client(transport=transport, base_url="http://domzero", timeout=60) as client:
        yield client


def since(session: Any, classes: list[str], token: str, timeout: float) -> Any:
    """event.from, whose name Python keeps for itself."""
    return session.xenapi_request("event.from", (classes, token, timeout))


def failure(session: Any, method: str, *parameters: Any) -> list[str]:
    """The error that a message is answered with."""
    with pytest.raises(XenAPI.Failure) as found:
        session.xenapi_request(method, parameters)
    details: list[str] = found.value.details
    return details


def test_a_session_is_a_secret_that_ends_with_its_logout(server: Server) -> None:
    session = over_socket(server.socket)
    handle = session.handle
    assert session.xenapi.session.get_originator(handle) == "domzero's tests"
    assert session.API_version == "2.21"
    session.xenapi.session.logout()
    answer = session.VM.get_all(handle)
    assert answer == {"Status": "Failure", "ErrorDescription": ["SESSION_INVALID", handle]}
    assert session.VM.get_all("OpaqueRef:NULL")["ErrorDescription"][0] == "SESSION_INVALID"


def test_over_tcp_the_password_is_the_token(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = Server(tmp_path_factory.mktemp("tcp"), "--listen", "127.0.0.1:0")
    try:
        with pytest.raises(XenAPI.Failure) as found:
            over_tcp(server.url, "wrong")
        assert found.value.details[0] == "SESSION_AUTHENTICATION_FAILED"
        session = over_tcp(server.url, server.token)
        (pool,) = session.xenapi.pool.get_all()
        (host,) = session.xenapi.host.get_all()
        assert session.xenapi.pool.get_master(pool) == host
        assert session.xenapi.host.get_address(host) == "127.0.0.1"
        assert httpx.get(f"{server.url}/v1/domains").status_code == 401
    finally:
        assert server.stop() == 0


def test_a_domains_record_is_what_runs(session: Any, create: Callable[..., dict[str, object]]) -> None:
    domain = create("seen", memory_mib=16, maxmem_mib=32, cmdline="a b", vifs=["bridge=lan9"])
    xenapi = session.xenapi
    (vm,) = xenapi.VM.get_by_name_label("seen")
    assert vm == f"OpaqueRef:{domain['uuid']}" == xenapi.VM.get_by_uuid(domain["uuid"])
    record = xenapi.VM.get_record(vm)
    assert record == {**xenapi.VM.get_all_records()[vm], "memory_target": record["memory_target"]}
    assert (record["power_state"], record["domid"]) == ("Running", str(domain["domid"]))
    assert (record["PV_args"], record["memory_static_max"]) == ("a b", str(32 << 20))
    assert record["resident_on"] == xenapi.host.get_all()[0]
    (vif,) = record["VIFs"]
    assert xenapi.network.get_name_label(xenapi.VIF.get_network(vif)) == "lan9"
    assert xenapi.VIF.get_VM(vif) == vm
    (console,) = record["consoles"]
    assert xenapi.console.get_protocol(console) == "vt100"
    assert xenapi.VM_metrics.get_memory_actual(record["metrics"]) == str(16 << 20)


def test_what_is_done_to_a_vm_is_done_to_the_domain(
    session: Any, api: httpx.Client, create: Callable[..., dict[str, object]]
) -> None:
    domain = create("done")
    vm = f"OpaqueRef:{domain['uuid']}"
    session.xenapi.VM.pause(vm)
    assert api.get("/domains/done").json()["state"] == "paused"
    assert failure(session, "VM.pause", vm) == ["VM_BAD_POWER_STATE", vm, "running", "paused"]
    session.xenapi.VM.unpause(vm)
    session.xenapi.VM.set_name_label(vm, "renamed")
    assert api.get("/domains/renamed").json()["uuid"] == domain["uuid"]
    session.xenapi.VM.hard_shutdown(vm)
    assert api.get("/domains").json() == []


def test_clients_fields_are_kept_and_compared_key_by_key(
    session: Any, create: Callable[..., dict[str, object]]
) -> None:
    vm = f"OpaqueRef:{create('kept')['uuid']}"
    xenapi = session.xenapi
    xenapi.VM.add_to_other_config(vm, "folder", "/lab")
    assert failure(session, "VM.add_to_other_config", vm, "folder", "x")[0] == "MAP_DUPLICATE_KEY"
    xenapi.VM.add_tags(vm, "red")
    xenapi.VM.add_tags(vm, "red")
    record = xenapi.VM.get_record(vm)
    assert (record["other_config"], record["tags"]) == ({"folder": "/lab"}, ["red"])
    xenapi.VM.remove_from_other_config(vm, "folder")
    xenapi.VM.remove_from_other_config(vm, "folder")
    xenapi.VM.remove_tags(vm, "red")
    record = xenapi.VM.get_record(vm)
    assert (record["other_config"], record["tags"]) == ({}, [])


def test_an_event_tells_once_of_what_changed_and_of_what_is_gone(
    session: Any, create: Callable[..., dict[str, object]]
) -> None:
    xenapi = session.xenapi
    start = since(session, ["vm"], "", 5.0)
    assert {event["operation"] for event in start["events"]} == {"add"}
    vm = f"OpaqueRef:{create('told')['uuid']}"
    session.xenapi.VM.pause(vm)
    session.xenapi.VM.add_to_other_config(vm, "a", "b")
    batch = since(session, ["vm"], start["token"], 60.0)
    (event,) = [event for event in batch["events"] if event["ref"] == vm]
    assert (event["operation"], event["class"]) == ("add", "vm")
    assert event["snapshot"]["other_config"] == {"a": "b"}
    assert batch["valid_ref_counts"]["vm"] == str(len(xenapi.VM.get_all()))
    xenapi.VM.hard_shutdown(vm)
    after = since(session, ["vm/" + vm], batch["token"], 60.0)
    assert [(event["operation"], event["ref"]) for event in after["events"]] == [("del", vm)]
    quiet = since(session, ["vm/" + vm], after["token"], 0.0)
    assert quiet["events"] == []
    assert failure(session, "event.from", ["vm"], "1,other", 0.0) == ["EVENTS_LOST"]
    assert failure(session, "event.from", ["vm"], "x", 0.0) == ["EVENT_FROM_TOKEN_PARSE_FAILURE", "x"]


def test_what_a_guests_agent_says_in_xenstore_is_in_its_metrics(
    server: Server, session: Any, create: Callable[..., dict[str, object]]
) -> None:
    domain = create("agent")
    metrics = session.xenapi.VM.get_guest_metrics(f"OpaqueRef:{domain['uuid']}")
    assert session.xenapi.VM_guest_metrics.get_networks(metrics) == {}
    start = since(session, ["vm_guest_metrics"], "", 0.0)["token"]
    said = {"attr/vif/0/ipv4/0": "10.0.2.15", "attr/vif/0/ipv4/1": "10.0.2.16", "attr/vif/0/ipv6/0": "fe80::1",
            "attr/eth1/ip": "192.168.0.2", "attr/vif/x/ipv4/0": "no number", "data/os_name": "Debian",
            "data/os_majorver": "12", "data/meminfo_free": "1234", "attr/PVAddons/MajorVersion": "7"}  # fmt: skip
    with pyxs.Client(unix_socket_path=str(server.xenstore)) as store:
        for path, value in said.items():
            store[f"/local/domain/{domain['domid']}/{path}".encode()] = value.encode()
    record = session.xenapi.VM_guest_metrics.get_record(metrics)
    assert record["networks"] == {
        "0/ip": "10.0.2.15", "0/ipv4/0": "10.0.2.15", "0/ipv4/1": "10.0.2.16", "0/ipv6/0": "fe80::1",
        "1/ip": "192.168.0.2",
    }  # fmt: skip
    assert (record["os_version"], record["memory"], record["PV_drivers_version"]) == (
        {"name": "Debian", "major": "12"}, {"free": "1234"}, {"major": "7"},
    )  # fmt: skip
    assert metrics in {event["ref"] for event in since(session, ["vm_guest_metrics"], start, 0.0)["events"]}


def test_the_legacy_events_are_for_who_has_registered(session: Any, create: Callable[..., dict[str, object]]) -> None:
    assert failure(session, "event.next")[0] == "SESSION_NOT_REGISTERED"
    session.xenapi.event.register(["VM"])
    vm = f"OpaqueRef:{create('legacy')['uuid']}"
    events = session.xenapi.event.next()
    assert vm in {event["ref"] for event in events}
    session.xenapi.event.unregister(["VM"])
    assert failure(session, "event.next")[0] == "SESSION_NOT_REGISTERED"


def test_asynchronous_messages_are_tasks(session: Any, create: Callable[..., dict[str, object]]) -> None:
    vm = f"OpaqueRef:{create('later')['uuid']}"
    xenapi = session.xenapi
    task = xenapi.Async.VM.pause(vm)
    until(lambda: xenapi.task.get_status(task) == "success")
    assert xenapi.VM.get_power_state(vm) == "Paused"
    again = xenapi.Async.VM.pause(vm)
    until(lambda: xenapi.task.get_status(again) == "failure")
    assert xenapi.task.get_error_info(again) == ["VM_BAD_POWER_STATE", vm, "running", "paused"]
    xenapi.task.destroy(again)
    assert failure(session, "task.get_status", again)[0] == "HANDLE_INVALID"
    result = xenapi.Async.VM.get_allowed_VIF_devices(vm)
    until(lambda: xenapi.task.get_status(result) == "success")
    assert xenapi.task.get_result(result).startswith("<value><array><data><value>0</value>")


def test_json_rpc_has_numbers_and_errors_of_both_versions(raw: httpx.Client) -> None:
    handle = json_rpc(raw, "session.login_with_password", "root", "")
    records = json_rpc(raw, "VM.get_all_records", handle)
    (control,) = [record for record in records.values() if record["is_control_domain"]]
    assert (control["name_label"], control["domid"]) == ("Domain-0", 0)
    first = raw.post("/json", json={"method": "VM.get_record", "params": [handle, NULL], "id": 7}).json()
    assert first == {"result": None, "error": ["HANDLE_INVALID", "VM", NULL], "id": 7}
    body = {"jsonrpc": "2.0", "method": "VM.no", "params": [handle], "id": "x"}
    second = raw.post("/jsonrpc", json=body).json()
    assert second["error"] == {"code": 1, "message": "MESSAGE_METHOD_UNKNOWN", "data": ["VM.no"]}
    assert second["id"] == "x"


def test_xml_answers_are_one_line(raw: httpx.Client) -> None:
    answer = raw.post("/RPC2", content=b"<methodCall><methodName>system.listMethods</methodName></methodCall>")
    assert b"\n" not in answer.content
    assert b"<value>VM.get_all_records</value>" in answer.content
    assert answer.headers["Content-Type"] == "text/xml"


CALL = "<methodCall><methodName>{}</methodName><params>{}</params></methodCall>"
HOSTILE = {
    "nothing": b"",
    "no xml": b"<<<",
    "entities": b'<!DOCTYPE a [<!ENTITY x "y">]>' + CALL.format("VM.get_all", "<param>&x;</param>").encode(),
    "nested": b"<methodCall><params>" + b"<value><array><data>" * 5000,
    "no method": b"<methodCall><params/></methodCall>",
    "an answer": b"<methodResponse><params><param><value>1</value></param></params></methodResponse>",
    "a huge number": CALL.format("VM.get_all", f"<param><value><int>{'9' * 5000}</int></value></param>").encode(),
    "a fault": b"<methodResponse><fault><value><int>4</int></value></fault></methodResponse>",
    "binary": CALL.format("VM.get_all", "<param><value><base64>AAAA</base64></value></param>").encode(),
    "a struct without names": CALL.format("VM.get_all", "<param><value><struct><member><value>1</value></member>"
                                          "</struct></value></param>").encode(),
    "other encoding": CALL.format("VM.get_all", "").encode("utf-16"),
}  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_message_is_answered_with_a_failure(raw: httpx.Client, body: bytes) -> None:
    answer = raw.post("/", content=body)
    assert answer.status_code == 200
    assert b"<name>Status</name><value>Failure</value>" in answer.content


@pytest.mark.parametrize("body", [b"{", b"[" * 20_000, b"[]", b'{"method": 1}', b'{"method":"x","params":{}}', b"\xff"])
def test_what_is_no_json_request_is_answered_with_an_error(raw: httpx.Client, body: bytes) -> None:
    answer = raw.post("/jsonrpc", content=body)
    assert answer.status_code == 200
    assert answer.json()["error"]["code"] in (-32700, -32600)


def test_a_body_that_no_message_needs_is_too_large(raw: httpx.Client) -> None:
    assert raw.post("/", content=b"<" * (1 << 20)).status_code == 413


@pytest.mark.parametrize(
    ("method", "parameters", "code"),
    [
        ("VM.get_record", [5], "FIELD_TYPE_ERROR"),
        ("VM.get_record", ["OpaqueRef:x"], "HANDLE_INVALID"),
        ("VM.get_record", [], "MESSAGE_PARAMETER_COUNT_MISMATCH"),
        ("VM.get_by_uuid", ["x"], "HANDLE_INVALID"),
        ("VM.get_by_uuid", ["7b3c2f4e-0000-4000-8000-000000000000"], "UUID_INVALID"),
        ("event.from", [["vm"], "", float("inf")], "FIELD_TYPE_ERROR"),
        ("event.from", ["vm", "", 1.0], "FIELD_TYPE_ERROR"),
        ("host.dmesg", [{"a": "b"}], "FIELD_TYPE_ERROR"),
        ("Async.VM.get_record", ["OpaqueRef:x"], "MESSAGE_METHOD_UNKNOWN"),
        ("nonsense", [], "MESSAGE_METHOD_UNKNOWN"),
        ("session.slave_login", [], "NOT_IMPLEMENTED"),
        ("session.login_with_password", [], "MESSAGE_PARAMETER_COUNT_MISMATCH"),
    ],
)
def test_wrong_parameters_are_named_failures(raw: httpx.Client, method: str, parameters: list[Any], code: str) -> None:
    handle = json_rpc(raw, "session.login_with_password", "root", "")
    full = [] if method.startswith("session.") else [handle, *parameters]
    text = json.dumps({"jsonrpc": "2.0", "method": method, "params": full, "id": 1})
    assert raw.post("/jsonrpc", content=text).json()["error"]["message"] == code


def test_every_class_answers_what_looks_at_it(session: Any) -> None:
    for kind in KINDS.values():
        if not kind.visible:
            continue
        every = session.xenapi_request(f"{kind.name}.get_all", ())
        records = session.xenapi_request(f"{kind.name}.get_all_records", ())
        assert sorted(records) == sorted(every), kind.name
        for reference, record in records.items():
            assert record["uuid"] == reference.removeprefix("OpaqueRef:"), kind.name
            assert session.xenapi_request(f"{kind.name}.get_by_uuid", (record["uuid"],)) == reference
            assert session.xenapi_request(f"{kind.name}.get_record", (reference,)).keys() == record.keys()
            for field in record:
                session.xenapi_request(f"{kind.name}.get_{field}", (reference,))
    assert session.xenapi.Bond.get_all() == []
    assert failure(session, "PIF.get_MAC", "OpaqueRef:7b3c2f4e-0000-4000-8000-000000000000")[0] == "HANDLE_INVALID"
    assert failure(session, "pool.join", "elsewhere", "root", "x") == ["NOT_IMPLEMENTED", "pool.join"]


def test_a_pif_is_the_hosts_interface_that_the_network_to_the_outside_leaves_by(session: Any) -> None:
    xenapi = session.xenapi
    (host,) = xenapi.host.get_all()
    (outside,) = (ref for ref, each in xenapi.network.get_all_records().items() if each["bridge"] == "user")
    expected = [each.name for each in uplinks([])]
    pifs = xenapi.network.get_PIFs(outside)
    assert [xenapi.PIF.get_device(pif) for pif in pifs] == expected
    assert set(pifs) <= set(xenapi.PIF.get_all()) == set(xenapi.host.get_PIFs(host))
    if not pifs:
        assert failure(session, "host.get_management_interface", host)[0] == "OPERATION_NOT_ALLOWED"
        return
    record = xenapi.PIF.get_record(pifs[0])
    assert (record["network"], record["host"], record["management"]) == (outside, host, True)
    assert (record["VLAN"], record["MTU"], record["IP"]) == ("-1", str(uplinks([])[0].mtu), uplinks([])[0].ip)
    assert xenapi.PIF_metrics.get_carrier(record["metrics"]) is uplinks([])[0].has_carrier
    assert xenapi.host.get_management_interface(host) == pifs[0]
    assert xenapi.PIF.scan(host) == ""
    assert failure(session, "PIF.unplug", pifs[0]) == ["NOT_IMPLEMENTED", "PIF.unplug"]


def test_the_host_says_what_it_is(session: Any) -> None:
    xenapi = session.xenapi
    (host,) = xenapi.host.get_all()
    record = xenapi.host.get_record(host)
    assert record["software_version"]["product_brand"] == "Domzero"
    assert len(record["host_CPUs"]) == int(record["cpu_info"]["cpu_count"])
    assert int(xenapi.host.compute_free_memory(host)) > 0
    assert int(xenapi.host.compute_memory_overhead(host)) > 0
    assert "(DOM0)" in xenapi.host.dmesg(host) or xenapi.host.dmesg(host) == ""
    assert str(xenapi.host.get_servertime(host)).endswith("Z")
    (pool,) = xenapi.pool.get_all()
    sr = xenapi.pool.get_default_SR(pool)
    assert xenapi.SR.get_name_label(sr) == "Local storage"
    xenapi.pool.set_default_SR(pool, sr)
    assert xenapi.SR.get_supported_types() == ["file", "ext", "iso"]
    xenapi.SR.scan(sr)
    assert {xenapi.role.get_name_label(role) for role in xenapi.role.get_all()} >= {"pool-admin", "read-only"}
    assert xenapi.message.get_since(xenapi.host.get_servertime(host)) == {}
    assert xenapi.message.get_all_records_where("true") == {}
    assert xenapi.host.get_tls_verification_enabled(host) is False
