# SPDX-License-Identifier: Apache-2.0
"""Programs that were written for xenstored, against a real Domain 0: Debian's xenstore-utils and PyPI's pyxs."""

from __future__ import annotations

import ctypes.util
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from dom0_server import Server
from waiting import until

Create = Callable[..., dict[str, object]]
pyxs = pytest.importorskip("pyxs", reason="pyxs is not installed (pip install pyxs)")


@pytest.fixture
def xs(server: Server) -> Callable[..., str]:
    """Runs xenstore-VERB and returns what it prints; fails if it does."""
    if shutil.which("xenstore-ls") is None:
        pytest.skip("xenstore-utils is not installed")

    def run(verb: str, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [f"xenstore-{verb}", *arguments], env=server.env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == status, done.stderr
        return done.stdout

    return run


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with pyxs.Client(unix_socket_path=str(server.xenstore)) as client:
        yield client
        del client[b"/test"]


def console(api: httpx.Client, key: object) -> str:
    return api.get(f"/domains/{key}/console").content.decode()


def type_line(api: httpx.Client, key: object, line: str) -> None:
    assert api.post(f"/domains/{key}/console", json={"data": line + "\n"}).status_code == 204


def test_a_running_guest_is_seen_with_xenstore_ls(api: httpx.Client, create: Create, xs: Callable[..., str]) -> None:
    domid = create("seen")["domid"]
    home = f"/local/domain/{domid}"
    flat = xs("ls", "-f", "-p", home).splitlines()
    assert any(line.startswith(f'{home}/name = "seen"') and line.endswith(f"(n0,r{domid})") for line in flat)
    assert any(line.startswith(f'{home}/memory/target = "16384"') for line in flat)
    assert str(domid) in xs("list", "/local/domain").split()
    assert xs("read", f"{home}/name", f"{home}/domid") == f"seen\n{domid}\n"
    tree = xs("ls", "/").splitlines()
    assert tree[tree.index(' domain = ""') :].count(f'  {domid} = ""') == 1
    xs("exists", f"{home}/name")
    xs("exists", f"{home}/nothing", status=1)
    xs("read", f"{home}/nothing", status=1)


def test_values_are_written_listed_and_removed(xs: Callable[..., str]) -> None:
    xs("write", "/test/a", "1", "/test/b/c", "two words")
    assert xs("list", "/test").split() == ["a", "b"]
    assert xs("read", "-p", "/test/a", "/test/b/c") == "/test/a: 1\n/test/b/c: two words\n"
    assert xs("ls", "/test") == 'a = "1"\nb = ""\n c = "two words"\n'
    xs("rm", "-t", "/test/b/c")
    assert xs("list", "/test").split() == ["a"], "-t removes what has become empty"
    xs("rm", "/test")
    xs("exists", "/test", status=1)
    xs("rm", "/none/at/all", status=1)


def test_relative_paths_are_domain_0s(xs: Callable[..., str]) -> None:
    assert xs("read", "name") == "Domain-0\n"


def test_what_a_tool_writes_and_permits_the_guest_can_read(
    api: httpx.Client, create: Create, xs: Callable[..., str]
) -> None:
    domid = create("reader")["domid"]
    until(lambda: "hello" in console(api, "reader"))
    xs("write", "/test/secret", "sesame")
    type_line(api, "reader", "store /test/secret")
    until(lambda: "error EACCES" in console(api, "reader"))
    xs("chmod", "/test/secret", "n0", f"r{domid}")
    type_line(api, "reader", "store /test/secret")
    until(lambda: "value sesame" in console(api, "reader"))
    xs("chmod", "-r", "/test", "b0")
    assert xs("ls", "-f", "-p", "/test").split()[-1] == "(b0)"
    xs("rm", "/test")


def test_a_guest_shuts_down_when_a_tool_asks_it(api: httpx.Client, create: Create, xs: Callable[..., str]) -> None:
    domid = create("asked")["domid"]
    until(lambda: "hello" in console(api, "asked"))
    xs("write", f"/local/domain/{domid}/control/shutdown", "poweroff")
    until(lambda: api.get("/domains/asked").json()["state"] == "shutdown")
    assert "asked to poweroff" in console(api, "asked")
    until(lambda: str(domid) not in xs("list", "/local/domain").split(), what="the end of its nodes")


def test_xenstore_watch_tells_of_domains_and_values(
    api: httpx.Client, create: Create, server: Server, xs: Callable[..., str]
) -> None:
    watch = subprocess.Popen(
        ["xenstore-watch", "-n", "4", "@introduceDomain", "/test"], env=server.env, stdout=subprocess.PIPE, text=True
    )
    assert watch.stdout is not None
    assert {watch.stdout.readline(), watch.stdout.readline()} == {"@introduceDomain\n", "/test\n"}
    xs("write", "/test/deep/er", "1")
    assert watch.stdout.readline() == "/test/deep/er\n"
    create("new")
    assert watch.stdout.readline() == "@introduceDomain\n"
    assert watch.wait(60) == 0
    watch.stdout.close()
    xs("rm", "/test")


def test_libxenstores_control_and_domain_calls(api: httpx.Client, create: Create, server: Server) -> None:
    name = ctypes.util.find_library("xenstore")
    if name is None:
        pytest.skip("libxenstore is not installed")
    domid = create("known")["domid"]
    assert isinstance(domid, int)
    # In a process of its own, as the library takes the socket's place from the environment.
    program = f"""
import ctypes
xs = ctypes.CDLL({name!r}, use_errno=True)
xs.xs_open.restype = ctypes.c_void_p
xs.xs_control_command.restype = xs.xs_get_domain_path.restype = ctypes.c_char_p
handle = ctypes.c_void_p(xs.xs_open(0))
print(xs.xs_control_command(handle, b"check", None, 0).decode())
print(xs.xs_control_command(handle, b"nonsense", None, 0), ctypes.get_errno())
print(xs.xs_is_domain_introduced(handle, {domid}), xs.xs_is_domain_introduced(handle, {domid} + 1))
print(xs.xs_get_domain_path(handle, {domid}).decode())
print(xs.xs_resume_domain(handle, {domid}), xs.xs_release_domain(handle, {domid}), ctypes.get_errno())
"""
    done = subprocess.run([sys.executable, "-c", program], env=server.env, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "OK",
        f"None {errno.EINVAL}",
        "1 0",
        f"/local/domain/{domid}",
        f"1 0 {errno.EBUSY}",
    ], done.stderr


def test_pyxs_reads_writes_lists_and_removes(client: Any) -> None:
    client[b"/test/a"] = b"1"
    client.mkdir(b"/test/b")
    assert client.list(b"/test") == [b"a", b"b"]
    assert client[b"/test/a"] == b"1"
    assert client.read(b"/test/none", b"default") == b"default"
    del client[b"/test/a"]
    assert not client.exists(b"/test/a") and client.exists(b"/test/b")
    assert [path for path, _, _ in client.walk(b"/test")] == [b"/test", b"/test/b"]


def test_pyxs_gets_and_sets_permissions(client: Any) -> None:
    client[b"/test/a"] = b"1"
    assert client.get_perms(b"/test/a") == [b"n0"]
    client.set_perms(b"/test/a", [b"b0", b"r5", b"w6"])
    assert client.get_perms(b"/test/a") == [b"b0", b"r5", b"w6"]


def test_of_two_transactions_on_one_node_the_second_is_told_to_try_again(client: Any, server: Server) -> None:
    client[b"/test/a"] = b"0"
    with pyxs.Client(unix_socket_path=str(server.xenstore)) as other:
        client.transaction()
        other.transaction()
        client[b"/test/a"] = client[b"/test/a"] + b"1"
        other[b"/test/a"] = other[b"/test/a"] + b"2"
        assert other.commit()
        assert not client.commit()
        assert client[b"/test/a"] == b"02"
        client.transaction()
        client[b"/test/a"] = b"3"
        assert other[b"/test/a"] == b"02", "nobody sees it before it is done"
        client.rollback()
    assert client[b"/test/a"] == b"02"


def test_a_pyxs_monitor_hears_of_domains_that_come_and_go(api: httpx.Client, create: Create, client: Any) -> None:
    with client.monitor() as monitor:
        events = monitor.wait()
        for name in (b"@introduceDomain", b"@releaseDomain"):
            monitor.watch(name, name[1:])
            assert next(events).path == name
        domid = str(create("guest")["domid"]).encode()
        assert next(events) == (b"@introduceDomain", b"introduceDomain")
        assert client.is_domain_introduced(int(domid))
        api.delete("/domains/guest")
        assert next(events) == (b"@releaseDomain", b"releaseDomain")
        until(lambda: not client.is_domain_introduced(int(domid)))


def test_pyxs_is_refused_what_domain_0_does_itself(
    create: Create, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyxs.Client, "SU", True)  # it believes so only where /proc/xen is
    domid = create("mine")["domid"]
    with pytest.raises(pyxs.PyXSError) as refused:
        client.release_domain(domid)
    assert refused.value.args[0] == errno.EBUSY
    with pytest.raises(pyxs.PyXSError) as unknown:
        client.introduce_domain(4000, 1, 1)
    assert unknown.value.args[0] == errno.ENOENT
    client.resume_domain(domid)
    assert client.is_domain_introduced(domid)


def test_the_tools_find_the_socket_by_rundir_too(server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("xenstore-read") is None:
        pytest.skip("xenstore-utils is not installed")
    directory = tmp_path_factory.mktemp("rundir")
    os.symlink(server.xenstore, directory / "socket")
    env = {key: value for key, value in server.env.items() if key != "XENSTORED_PATH"}
    done = subprocess.run(
        ["xenstore-read", "domid"], env={**env, "XENSTORED_RUNDIR": str(directory)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
