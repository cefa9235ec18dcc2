# SPDX-License-Identifier: Apache-2.0
"""Users over TCP: who is somebody, what each role may do, and what is written down of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from waiting import until

from domzero.dom0.actors import Role

Json = dict[str, Any]
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("roles"), "--listen", "127.0.0.1:0")
    yield server
    assert server.stop() == 0


@contextmanager
def client(server: Server, **arguments: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/v1", timeout=60, **arguments) as client:
        yield client


def bearer(token: str) -> Json:
    return {"headers": {"Authorization": f"Bearer {token}"}}


@pytest.fixture
def owner(public: Server) -> Iterator[httpx.Client]:
    with client(public, **bearer(public.token)) as owner:
        yield owner
        for user in owner.get("/users").json():
            assert owner.delete(f"/users/{user['name']}").status_code == 204
        for domain in owner.get("/domains", params={"halted": True, "ended": True}).json():
            owner.delete(f"/domains/{domain['uuid']}")
            owner.delete(f"/domains/{domain['uuid']}")


@pytest.fixture
def user(public: Server, owner: httpx.Client) -> Iterator[Callable[..., httpx.Client]]:
    """Makes a user with a token, and a client that shows it."""
    clients: list[httpx.Client] = []

    def user(name: str, their_role: Role | None, **token: Any) -> httpx.Client:
        role = None if their_role is None else their_role.value
        body = {"name": name, "role": role, "password": PASSWORD}
        assert owner.post("/users", json=body).status_code == 201
        answer = owner.post(f"/users/{name}/tokens", json=token)
        assert answer.status_code == 201
        clients.append(httpx.Client(base_url=f"{public.url}/v1", timeout=60, **bearer(answer.json()["token"])))
        return clients[-1]

    yield user
    for each in clients:
        each.close()


def new_domain(owner: httpx.Client, shell: str, name: str, **fields: Any) -> Json:
    body = {"name": name, "kernel": shell, "memory_mib": 16, "persistent": True, "start": False, **fields}
    answer = owner.post("/domains", json=body)
    assert answer.status_code == 201, answer.text
    domain: Json = answer.json()
    return domain


LEAST: dict[tuple[str, str], tuple[Json | None, Role]] = {
    ("GET", ""): (None, Role.READ_ONLY),
    ("GET", "/disks"): (None, Role.READ_ONLY),
    ("GET", "/console"): (None, Role.VM_OPERATOR),
    ("POST", "/console"): ({"data": "x"}, Role.VM_OPERATOR),
    ("POST", "/pause"): (None, Role.VM_OPERATOR),
    ("POST", "/shutdown"): (None, Role.VM_OPERATOR),
    ("POST", "/sysrq"): ({"key": "h"}, Role.VM_OPERATOR),
    ("PATCH", ""): ({"description": "x"}, Role.VM_ADMIN),
    ("POST", "/disks"): ({"spec": "/nowhere,raw,xvdz"}, Role.POOL_ADMIN),
    ("GET", "/vifs/0/capture"): (None, Role.VM_ADMIN),
    ("PUT", "/vcpus/affinity"): ({"cpus": "all"}, Role.VM_POWER_ADMIN),
    ("POST", "/core"): ({"path": "/tmp/core-of-nobody"}, Role.POOL_ADMIN),
}
"""Requests about a halted domain, with the least role that is not refused."""


@pytest.mark.parametrize("role", Role)
def test_each_role_may_what_those_before_it_may_and_no_more(
    role: Role, owner: httpx.Client, user: Callable[..., httpx.Client], shell: str
) -> None:
    domain = new_domain(owner, shell, "web")
    somebody = user("somebody", role)
    for (method, what), (body, least) in LEAST.items():
        answer = somebody.request(method, f"/domains/{domain['uuid']}{what}", json=body)
        refused = answer.status_code == 403
        assert refused is not role.covers(least), f"{method} {what} by {role.value}: {answer.text}"
        if refused:
            assert answer.json()["code"] == "RBAC_PERMISSION_DENIED" and "needs the role" in answer.json()["detail"]
    for path, least in (("/users", Role.POOL_ADMIN), ("/audit", Role.POOL_ADMIN), ("/host", Role.READ_ONLY)):
        assert (somebody.get(path).status_code == 200) is role.covers(least), path
    assert (somebody.delete("/host/dmesg").status_code == 204) is role.covers(Role.POOL_OPERATOR)


def test_who_has_no_role_sees_what_is_granted_and_nothing_else(
    owner: httpx.Client, user: Callable[..., httpx.Client], shell: str
) -> None:
    theirs, other = new_domain(owner, shell, "theirs"), new_domain(owner, shell, "other")
    guest = user("guest", None)
    assert guest.get("/domains", params={"halted": True}).json() == []
    granted = owner.put(f"/users/guest/grants/{theirs['uuid']}", json={"role": "vm-operator"})
    assert granted.json()["grants"] == {theirs["uuid"]: "vm-operator"}
    assert [domain["name"] for domain in guest.get("/domains", params={"halted": True}).json()] == ["theirs"]
    for key in (other["uuid"], "other"):
        assert guest.get(f"/domains/{key}").status_code == 404
        assert guest.post(f"/domains/{key}/start").status_code == 404
    assert guest.post(f"/domains/{theirs['uuid']}/start").status_code in (200, 202)
    assert guest.patch(f"/domains/{theirs['uuid']}", json={"description": "x"}).status_code == 403
    assert guest.get("/host").status_code == 403
    assert owner.put(f"/users/guest/grants/{theirs['uuid']}", json={"role": "pool-admin"}).status_code == 422
    assert owner.delete(f"/users/guest/grants/{theirs['uuid']}").json()["grants"] == {}
    assert guest.get(f"/domains/{theirs['uuid']}").status_code == 404


def test_only_its_owner_names_files_of_the_host(
    owner: httpx.Client, user: Callable[..., httpx.Client], shell: str, tmp_path: Path
) -> None:
    """Domain 0 opens what a configuration names as its owner: a user could read the owner's files as a disk."""
    admin = user("admin", Role.VM_ADMIN)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4096))
    link = tmp_path / "link"
    link.symlink_to(secret)
    for fields in (
        {"kernel": str(secret)},
        {"kernel": "", "disks": [f"{secret},raw,xvda,r"]},
        {"kernel": "", "ramdisk": str(link)},
        {"kernel": "", "shares": [f"tag=a,path={tmp_path}"]},
        {"kernel": "", "channels": [f"name=a,connection=socket,path={tmp_path}/s"]},
    ):
        answer = admin.post("/domains", json={"name": "thief", "memory_mib": 16, **fields})
        assert (answer.status_code, answer.json()["code"]) == (403, "RBAC_PERMISSION_DENIED"), fields
    domain = new_domain(owner, shell, "theirs")
    answer = admin.post(f"/domains/{domain['uuid']}/disks", json={"spec": f"{secret},raw,xvdb"})
    assert (answer.status_code, str(secret) in answer.json()["detail"]) == (403, True)
    answer = user("operator", Role.POOL_OPERATOR).post("/images/imports", json={"name": "x", "file": "/x\0y"})
    assert answer.status_code == 403  # no file has such a name


def test_who_has_only_a_grant_names_no_disk_of_another_domain(
    owner: httpx.Client, user: Callable[..., httpx.Client], shell: str
) -> None:
    disks = [owner.post("/disks", json={"bytes": 4096, "name": name}).json() for name in ("a", "b")]
    mine = new_domain(owner, shell, "mine", disks=[f"{disks[0]['path']},raw,xvda,r"])
    new_domain(owner, shell, "other", disks=[f"{disks[1]['path']},raw,xvda,r"])
    guest, everybodys = user("guest", None), user("everybodys", Role.VM_ADMIN)
    owner.put(f"/users/guest/grants/{mine['uuid']}", json={"role": "vm-admin"})
    spec = {"spec": f"{disks[1]['path']},raw,xvdb,r"}
    assert guest.post(f"/domains/{mine['uuid']}/disks", json=spec).status_code == 403
    own = {"spec": f"{disks[0]['path']},raw,xvdb,r"}
    assert guest.post(f"/domains/{mine['uuid']}/disks", json=own).status_code == 201
    assert everybodys.post(f"/domains/{mine['uuid']}/disks", json={**spec, "spec": spec["spec"].replace("xvdb", "xvdc")}
                           ).status_code == 201  # fmt: skip


def test_who_may_change_a_domain_keeps_the_files_that_its_owner_has_named(
    public: Server, owner: httpx.Client, user: Callable[..., httpx.Client], shell: str, tmp_path: Path
) -> None:
    """At every door: what is looked at is what they change."""
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(4096))
    disk = f"{secret},raw,xvda,r"
    domain = new_domain(owner, shell, "owners", disks=[disk])
    uuid, admin = domain["uuid"], user("admin", Role.VM_ADMIN)
    body = {"name": "owners", "kernel": shell, "memory_mib": 20, "description": "changed", "disks": [disk]}
    assert admin.put(f"/domains/{uuid}", json=body).json()["memory_mib"] == 20
    for other in (
        {"kernel": str(secret)},
        {"ramdisk": str(secret)},
        {"disks": [f"{secret},raw,xvda,w"]},
        {"disks": [f"{secret},qcow2,xvda,r"]},
        {"disks": [disk, f"{shell},raw,xvdb,r"]},
    ):
        answer = admin.put(f"/domains/{uuid}", json={**body, **other})
        assert (answer.status_code, answer.json()["code"]) == (403, "RBAC_PERMISSION_DENIED"), other
    session = XenAPI.Session(public.url)
    session.xenapi.login_with_password("admin", PASSWORD)
    vm = session.xenapi.VM.get_by_uuid(uuid)
    session.xenapi.VM.set_memory(vm, str(24 << 20))
    session.xenapi.VM.set_PV_args(vm, "quiet")
    with pytest.raises(XenAPI.Failure, match="RBAC_PERMISSION_DENIED"):
        session.xenapi.VM.set_PV_kernel(vm, str(secret))
    assert owner.get(f"/domains/{uuid}").json()["memory_mib"] == 24
    assert owner.post(f"/domains/{uuid}/start").status_code in (200, 202)
    until(lambda: owner.get(f"/domains/{uuid}").json()["state"] in ("running", "blocked"))
    token = admin.headers["Authorization"].removeprefix("Bearer ")
    door = {**public.env, "DOMZERO_URL": public.url, "DOMZERO_TOKEN": token}
    door.pop("DOMZERO_SOCKET", None)
    config = tmp_path / "owners.cfg"
    config.write_text(f"name='owners'\nkernel='{shell}'\nmemory=28\ndisk=['{disk}']\n")
    for more, status in (("", 0), (f"kernel='{secret}'", 1)):
        words = [sys.executable, "-m", "domzero", "xl", "config-update", "owners", str(config), more]
        done = subprocess.run(words[: None if more else -1], env=door, capture_output=True, text=True)
        assert (done.returncode, "pool-admin" in done.stderr) == (status, bool(status)), done.stderr


def test_the_session_of_a_page_is_a_cookie_that_another_site_cannot_use(public: Server, owner: httpx.Client) -> None:
    owner.post("/users", json={"name": "anna", "role": "vm-admin", "password": PASSWORD})
    with client(public) as page:
        assert page.get("/domains").status_code == 401
        assert page.post("/sessions", json={"user": "anna", "password": "wrong password"}).status_code == 401
        login = page.post("/sessions", json={"user": "anna", "password": PASSWORD})
        assert login.status_code == 201 and login.json()["role"] == "vm-admin"
        cookie = login.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert page.get("/domains").status_code == 200
        refused = page.post("/domains", json={})
        assert refused.status_code == 403 and "x-domzero-csrf" in refused.json()["detail"]
        csrf = {"X-Domzero-CSRF": login.json()["csrf"]}
        assert page.post("/domains", json={}, headers=csrf).status_code == 422
        assert page.get("/sessions/current").json()["csrf"] == login.json()["csrf"]
        assert owner.patch("/users/anna", json={"role": "read-only"}).status_code == 200
        assert page.get("/sessions/current").json()["role"] == "read-only"  # at once
        assert page.delete("/sessions/current", headers=csrf).status_code == 204
        assert page.get("/domains").status_code == 401
    with client(public) as page:
        assert page.post("/sessions", json={"token": public.token}).json()["role"] == "pool-admin"
        assert page.get("/users").status_code == 200


def test_a_password_is_shown_by_basic_and_an_account_is_locked_after_wrong_ones(
    public: Server, owner: httpx.Client
) -> None:
    owner.post("/users", json={"name": "bob", "role": "read-only", "password": PASSWORD})
    with client(public, auth=("bob", PASSWORD)) as bob, client(public, auth=("bob", "guess")) as thief:
        assert bob.get("/domains").status_code == 200
        for _ in range(5):
            assert thief.get("/domains").status_code == 401
        locked = bob.get("/domains")
        assert locked.status_code == 401 and "locked" in locked.json()["detail"]
        assert owner.get("/users/bob").json()["locked_until"] is not None
        assert owner.patch("/users/bob", json={"password": PASSWORD}).status_code == 200
        assert bob.get("/domains").status_code == 200
        assert owner.delete("/users/bob").status_code == 204
        assert bob.get("/domains").status_code == 401


def test_a_token_has_a_scope_and_an_end_and_is_kept_nowhere(
    public: Server, owner: httpx.Client, user: Callable[..., httpx.Client]
) -> None:
    admin = user("carol", Role.POOL_ADMIN, description="monitoring", role="read-only")
    assert admin.get("/domains").status_code == 200
    assert admin.get("/users").status_code == 403
    (token,) = owner.get("/users/carol/tokens").json()
    assert token["description"] == "monitoring" and "token" not in token
    text = admin.headers["Authorization"].removeprefix("Bearer ").encode()
    database = public.socket.with_name("d.sock.db")
    for path in (database, database.with_name("d.sock.db-wal"), public.log):
        assert text not in path.read_bytes()
    short = owner.post("/users/carol/tokens", json={"expires_in_seconds": 1}).json()["token"]
    with client(public, **bearer(short)) as brief:
        until(lambda: brief.get("/domains").status_code == 401)
    assert owner.delete(f"/users/carol/tokens/{token['id']}").status_code == 204
    assert admin.get("/domains").status_code == 401


def test_the_audit_log_says_who_did_what_and_what_came_of_it(
    owner: httpx.Client, user: Callable[..., httpx.Client], shell: str
) -> None:
    domain = new_domain(owner, shell, "web")
    reader = user("reader", Role.READ_ONLY)
    reader.post(f"/domains/{domain['uuid']}/start")
    owner.post(f"/domains/{domain['uuid']}/pause")
    owner.patch("/users/reader", json={"password": "another good one"})
    lines = owner.get("/audit", params={"limit": 10}).json()
    seen = {(line["actor"], line["action"]): line for line in reversed(lines)}
    assert seen["reader", "domain.start"]["outcome"] == "refused"
    assert seen["reader", "domain.start"]["via"] == "token"
    assert seen["owner", "domain.pause"]["outcome"] == "domain web is halted"
    assert seen["owner", "domain.define"]["outcome"] == "ok"
    assert "another good one" not in json.dumps(lines) and PASSWORD not in json.dumps(lines)
    about = owner.get("/audit", params={"domain": domain["uuid"]}).json()
    assert {line["action"] for line in about} == {"domain.define", "domain.start", "domain.pause"}


def test_events_come_once_each_to_those_who_may_know(
    owner: httpx.Client, user: Callable[..., httpx.Client], shell: str
) -> None:
    guest = user("guest", None)
    token = owner.get("/events").json()["token"]
    theirs, other = new_domain(owner, shell, "theirs"), new_domain(owner, shell, "other")
    owner.put(f"/users/guest/grants/{theirs['uuid']}", json={"role": "read-only"})
    seen = owner.get("/events", params={"since": token, "kinds": "domain"}).json()
    assert [(event["ref"], event["operation"]) for event in seen["events"]] == [
        (theirs["uuid"], "add"),
        (other["uuid"], "add"),
    ]
    assert owner.get("/events", params={"since": seen["token"], "kinds": "domain"}).json()["events"] == []
    assert [event["ref"] for event in guest.get("/events", params={"since": token}).json()["events"]] == [
        theirs["uuid"]
    ]
    assert owner.get("/events", params={"since": 1 << 60}).json()["lost"] is True
    with owner.stream("GET", "/events", params={"since": token}, headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        while 'data: {"token"' not in (line := next(lines)):
            pass
        assert json.loads(line.removeprefix("data: "))["ref"] in (theirs["uuid"], other["uuid"], "guest")


def test_the_verbs_make_users_tokens_and_grants(public: Server, owner: httpx.Client, shell: str) -> None:
    domain = new_domain(owner, shell, "web")
    assert public.cli("user", "add", "dora", "--role", "read-only", stdin=f"{PASSWORD}\n").returncode == 0
    short = public.cli("user", "add", "x", stdin="short\n")
    assert short.returncode == 2 and "password: 8 to 1024 characters" in short.stderr
    assert public.cli("user", "grant", "dora", "web", "vm-operator").returncode == 0
    listed = public.cli("user", "list").stdout.splitlines()[1]
    assert listed.split() == ["dora", "read-only", "yes", f"{domain['uuid']}:vm-operator"]
    token = public.cli("token", "add", "dora", "--expires", "2h", "--description", "a script").stdout.strip()
    with client(public, **bearer(token)) as dora:
        assert dora.get("/domains/web/console").status_code == 200
    assert "a script" in public.cli("token", "list", "dora").stdout
    assert public.cli("token", "add", "dora", "--expires", "soon").returncode == 2
    assert public.cli("user", "role", "dora", "none").returncode == 0
    assert public.cli("user", "passwd", "dora", stdin="another password\n").returncode == 0
    with client(public, auth=("dora", "another password")) as dora:
        assert dora.get("/domains/web").status_code == 200 and dora.get("/host").status_code == 403
    log = public.cli("user", "log").stdout
    assert "owner (unix) user.grant" in log and PASSWORD not in log
    assert public.cli("task", "list").returncode == 0
    assert public.cli("user", "remove", "dora").returncode == 0
    assert public.cli("user", "remove", "dora").returncode == 1
