# SPDX-License-Identifier: Apache-2.0
"""What the API refuses, and how it says so."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from dom0_server import Server

GOOD = {"name": "good", "kernel": "/nonexistent/kernel"}


@pytest.mark.parametrize(
    ("change", "field", "word"),
    [
        ({"memory_mib": 0}, "memory_mib", "greater"),
        ({"memory_mib": "lots"}, "memory_mib", "integer"),
        ({"memory_mib": 2**80}, "memory_mib", "less"),
        ({"vcpus": 33}, "vcpus", "less"),
        ({"name": ""}, "name", "at least"),
        ({"name": "a/b"}, "name", "without '/'"),
        ({"name": ".."}, "name", "'..'"),
        ({"name": "27"}, "name", "domid"),
        ({"name": "a\u202eb"}, "name", "printable"),
        ({"name": "00000000-0000-0000-0000-000000000001"}, "name", "uuid"),
        ({"kernel": "/a\0b"}, "kernel", "NUL"),
        ({"ramdisk": "/a\0b"}, "ramdisk", "NUL"),
        ({"memory_mib": "256"}, "memory_mib", "integer"),
        ({"memory_mib": True}, "memory_mib", "integer"),
        ({"vcpus": "1"}, "vcpus", "integer"),
        ({"seed": True}, "seed", "integer"),
        ({"paused": "yes"}, "paused", "boolean"),
        ({"paused": 1}, "paused", "boolean"),
        ({"max_grant_frames": "7"}, "max_grant_frames", "integer"),
        ({"disks": ["x"] * 300}, "disks", "at most"),
        ({"name": "x" * 1000}, "name", "at most"),
        ({"uuid": "x"}, "uuid", "UUID"),
        ({"on_crash": "explode"}, "on_crash", "destroy"),
        ({"engine": "steam"}, "engine", "interpreter"),
        ({"cpu": "v9"}, "cpu", "'v1'"),
        ({"cpuid": ["host,nonsense=0"]}, "cpuid", "nonsense=0: no such feature"),
        ({"engine": "kvm"}, "engine", "not here yet"),
        ({"memroy_mib": 64}, "memroy_mib", "did you mean memory_mib?"),
        ({"cmdline": "x" * 5000}, "cmdline", "at most"),
        ({"disks": ["/img,vpc,xvda,rw"]}, "disks", "no such format"),
        ({"vifs": ["speed=1"]}, "vifs", "what is"),
        ({"shares": ["tag=a,path=/a,security_model=mapped"]}, "shares", "security_model=mapped is not supported"),
        ({"kernel": ""}, "kernel", "no kernel given"),
        ({"name": "Domain-0"}, "name", "Domain 0"),
        ({"name": None}, "name", "string"),
    ],
)
def test_a_wrong_field_is_named(api: httpx.Client, change: dict[str, object], field: str, word: str) -> None:
    response = api.post("/domains", json={**GOOD, **change})
    assert response.status_code in (409, 422)
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert [error["field"] for error in problem["errors"]] == [field]
    assert word in problem["errors"][0]["message"]
    assert problem["status"] == response.status_code


def test_all_wrong_fields_are_named_at_once(api: httpx.Client) -> None:
    response = api.post("/domains", json={"memory_mib": -1, "vcpus": "x"})
    assert {error["field"] for error in response.json()["errors"]} == {"name", "memory_mib", "vcpus"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"x"', b"null"])
def test_a_body_that_is_no_json_object_is_refused(api: httpx.Client, body: bytes) -> None:
    response = api.post("/domains", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert response.json()["errors"]


def test_a_missing_kernel_is_the_kernel_fields_fault(api: httpx.Client, machine: None) -> None:
    response = api.post("/domains", json=GOOD)
    assert response.status_code == 422
    assert response.json()["code"] == "INVALID_IMAGE"
    assert response.json()["errors"][0]["field"] == "kernel"
    assert api.get("/domains").json() == []


def test_a_kernel_that_is_none_is_refused(api: httpx.Client, machine: None, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a kernel\n" * 1000)
    response = api.post("/domains", json={**GOOD, "kernel": str(tmp_path / "text")})
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "kernel")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/domains/nobody"),
        ("PATCH", "/domains/nobody"),
        ("DELETE", "/domains/nobody"),
        ("POST", "/domains/nobody/pause"),
        ("POST", "/domains/nobody/unpause"),
        ("POST", "/domains/nobody/shutdown"),
        ("POST", "/domains/nobody/reboot"),
        ("GET", "/domains/nobody/console"),
        ("GET", "/domains/nobody/wait"),
        ("GET", "/domains/0"),
        ("GET", "/tasks/00000000-0000-0000-0000-000000000000"),
    ],
)
def test_what_does_not_exist_is_not_found(api: httpx.Client, method: str, path: str) -> None:
    response = api.request(method, path, json={} if method == "PATCH" else None)
    assert response.status_code == 404
    assert response.json()["code"] == "HANDLE_INVALID"


def test_unknown_paths_and_methods_are_problems_too(api: httpx.Client) -> None:
    for response, status in ((api.get("/nothing"), 404), (api.put("/domains"), 405)):
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"


def test_a_page_of_another_site_cannot_use_a_browser_to_get_in(server: Server) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket))) as client:
        assert client.get("http://127.0.0.1:80/v1", headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.get("http://localhost/v1").status_code == 200


def test_the_openapi_document_is_3_1_and_describes_every_problem(server: Server) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero") as client:
        document = client.get("/openapi.json").json()
        assert client.get("/docs").status_code == 200
    assert document["openapi"].startswith("3.1")
    validator = pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not here (dev extra)")
    assert list(validator.OpenAPIV31SpecValidator(document).iter_errors()) == []
    assert "Problem" in document["components"]["schemas"]
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]


def test_the_host_and_its_log_can_be_read(api: httpx.Client, server: Server) -> None:
    host = api.get("/host").json()
    assert host["pid"] == server.process.pid
    assert host["xen_major"] == 4
    assert isinstance(api.get("/host/dmesg").json()["lines"], list)
    assert api.delete("/host/dmesg").status_code == 204
    assert api.get("/host/dmesg").json()["lines"] == []
    assert api.get("/tasks").status_code == 200


def test_a_body_beyond_all_reason_is_refused_and_hurts_nothing(server: Server, api: httpx.Client) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero/v1") as client:
        for body in (b"[" + b"0," * (1 << 20), (b"x" * 65536 for _ in range(100))):
            try:
                response = client.post("/domains", content=body, headers={"content-type": "application/json"})
            except httpx.WriteError:
                continue  # it hung up on us, which is as good
            assert response.status_code == 413
            assert response.headers["content-type"] == "application/problem+json"
    assert api.get("/domains").json() == []
