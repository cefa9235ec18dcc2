# SPDX-License-Identifier: Apache-2.0
"""The verbs, against a real Domain 0."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from building import ROOT
from dom0_server import Server
from waiting import until

from domzero.cli.main import VERBS
from domzero.dom0.memory_account import guest_memory_mib

Create = Callable[..., dict[str, object]]


def test_list_is_xls_table(server: Server, create: Create) -> None:
    domain = create("table")
    lines = server.cli("list").stdout.splitlines()
    assert lines[0] == "Name                                        ID   Mem VCPUs\tState\tTime(s)"
    assert re.fullmatch(r"Domain-0 {33}    0 +\d+ +\d+     r-----  +\d+\.\d", lines[1])
    row = rf"table {{36}}{domain['domid']:5d}    16     1     (r-----|-b----)  {{5,7}}\d+\.\d"
    assert re.fullmatch(row, lines[2])
    only = server.cli("list", "table").stdout.splitlines()
    assert len(only) == 2 and only[1].startswith("table")
    assert [entry["name"] for entry in json.loads(server.cli("list", "--json").stdout)] == ["table"]
    assert [entry["name"] for entry in json.loads(server.cli("list", "-l", "table").stdout)] == ["table"]
    assert server.cli("list", "nobody").returncode == 1


def test_info_is_xls_and_one_field_is_its_value_alone(server: Server) -> None:
    lines = server.cli("info").stdout.splitlines()
    assert all(re.match(r"\w+ *: ", line) and line[23] == ":" for line in lines)
    assert server.cli("info", "xen_major").stdout == "4\n"
    assert json.loads(server.cli("info", "--json").stdout)["xen_major"] == 4
    assert server.cli("info", "nothing").returncode == 2


def test_a_domain_is_created_from_an_xl_file_and_words_of_the_command_line(
    server: Server, api: httpx.Client, shell: str, tmp_path: Path
) -> None:
    config = tmp_path / "guest.cfg"
    config.write_text(f'name = "file"\nkernel = "{shell}"\nmemory = 32\nextra = "from file"\nmemroy = 5\n')
    result = server.cli("create", str(config), "memory=16", "name=word")
    assert result.returncode == 0, result.stderr
    assert "unknown key memroy ignored: did you mean memory?" in result.stderr
    domain = api.get("/domains/word").json()
    assert (domain["memory_mib"], domain["cmdline"]) == (16, "from file")


def test_options_alone_make_a_domain_and_relative_paths_are_the_callers(
    server: Server, api: httpx.Client, shell: str
) -> None:
    relative = os.path.relpath(shell)
    result = server.cli("create", "--kernel", relative, "--memory", "16", "--cmdline", "a b", "--json", "-p")
    domain = json.loads(result.stdout)
    kernel = os.path.normpath(domain["kernel"])
    assert (kernel, domain["cmdline"], domain["state"]) == (shell, "a b", "paused")
    assert re.fullmatch(r"guest-[0-9a-f]{6}", domain["name"])


def test_a_dry_run_shows_the_configuration_and_needs_no_domain_0(tmp_path: Path, shell: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DOMZERO_SOCKET": str(tmp_path / "none")}
    command = [sys.executable, "-m", "domzero", "create", "-n", f"kernel='{shell}'", "memory=64"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["memory_mib"] == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "/no/such.cfg"], "/no/such.cfg: No such file"),
        (["create"], "nothing to create"),
        (["create", "--kernel", "/no/such/kernel"], "/no/such/kernel"),
        (["create", "kernel='/k'", "memory=0"], "memory: 0 MiB"),
        (["create", "kernel='/k'", "disk=['/img,vpc,xvda,w']"], "disk: '/img,vpc,xvda,w': no such format"),
        (["create", "kernel='/k'", "pci=['x']"], "pci: not supported yet"),
        (["mem-set", "x", "much"], "not an amount of memory"),
        (["shutdown"], "which domain?"),
        (["serve", "--listen", "0.0.0.0:80"], "not a loopback address"),
        (["serve", "--listen", "80"], "expected ADDRESS:PORT"),
        (["serve", "--listen", "example.org:80"], "not an IP address"),
        (["serve", "--socket", "/no/such/directory/x"], "no such directory"),
        (["serve", "--socket", "/tmp/" + "x" * 200], "longer than"),
        (["serve", "--socket", "/"], "a directory"),
        (["serve", "--socket", "/tmp/nobody.sock", "--xenstore-socket", "/"], "a directory"),
        (["list", "--url", "ftp://x"], "not an http:// or https:// address"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(server: Server, machine: None, arguments: list[str], message: str) -> None:
    result = server.cli(*arguments)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["pause", "unpause", "shutdown", "reboot", "destroy", "console", "domid", "domname"])
def test_an_unknown_domain_is_status_1_and_one_line(server: Server, verb: str) -> None:
    result = server.cli(verb, "nobody")
    assert result.returncode == 1
    assert result.stderr == "domzero: no such domain: nobody (`domzero list` shows what there is)\n"


@pytest.mark.parametrize("word", ["", ".", "..", "a/../b", "\udcff", "\x1b[31m", "27"])
@pytest.mark.parametrize("verb", ["pause", "destroy", "shutdown", "console", "domid", "audit", "list"])
def test_a_word_that_names_nothing_is_told_and_changes_nothing(server: Server, verb: str, word: str) -> None:
    result = server.cli(verb, word)
    assert result.returncode == 1
    assert result.stderr.startswith("domzero: no such domain: ") and result.stderr.count("\n") == 1
    assert result.stderr[:-1].isprintable()


@pytest.mark.parametrize("arguments", [["list"], ["info"], ["list", "--json"], ["dmesg", "--json"]])
def test_output_that_cannot_be_written_is_one_line_and_a_status(server: Server, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "domzero", *arguments]
    with open("/dev/full", "wb") as full:
        result = subprocess.run(command, env=server.env, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (1, b"domzero: No space left on device\n")


def test_a_reader_that_goes_away_is_no_fault(server: Server) -> None:
    command = f"{sys.executable} -m domzero info | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], env=server.env, capture_output=True, text=True)
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [["list"], ["console", "x"], ["create", "kernel='/k'"]])
def test_without_domain_0_every_verb_says_how_to_start_it(tmp_path: Path, arguments: list[str]) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DOMZERO_SOCKET": str(tmp_path / "none")}
    command = [sys.executable, "-m", "domzero", *arguments]
    result = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 1
    where = tmp_path / "none"
    assert result.stderr == f"domzero: Domain 0 is not running at {where} (start it with `domzero serve`)\n"


def test_the_life_of_a_domain_by_verbs(server: Server, create: Create, api: httpx.Client) -> None:
    domain = create("verbs")
    until(lambda: "hello" in server.cli("console", "--history", "verbs").stdout)
    assert server.cli("pause", "verbs").returncode == 0
    assert api.get("/domains/verbs").json()["state"] == "paused"
    assert server.cli("unpause", str(domain["domid"])).returncode == 0
    assert server.cli("mem-set", "verbs", "8m").returncode == 0
    assert server.cli("mem-max", "verbs", "8193k").returncode == 0
    below = server.cli("mem-max", "verbs", "7m")
    assert (below.returncode, "7 MiB is not possible: 8, which is the domain's memory target" in below.stderr) == (
        2,
        True,
    )
    assert server.cli("rename", "verbs", "renamed").returncode == 0
    assert server.cli("domid", "renamed").stdout == f"{domain['domid']}\n"
    assert server.cli("domname", str(domain["uuid"])).stdout == "renamed\n"
    assert "renamed" in server.cli("uptime").stdout
    assert str(domain["uuid"]) in server.cli("vm-list").stdout
    assert server.cli("reboot", "-w", "renamed").returncode == 0
    until(lambda: server.cli("console", "--history", "renamed").stdout.count("hello") == 2)
    result = server.cli("shutdown", "-w", "renamed")
    assert (result.returncode, result.stdout) == (0, "Shutting down domain renamed\n")
    assert api.get("/domains").json() == []
    assert "renamed" in server.cli("dmesg", "-c").stdout
    assert server.cli("dmesg").stdout == ""
    assert server.cli("destroy", "renamed").returncode == 0


def test_shutdown_waits_no_longer_than_it_is_told(server: Server, api: httpx.Client, create: Create) -> None:
    create("deaf")
    until(lambda: "hello" in server.cli("console", "--history", "deaf").stdout)
    process = subprocess.Popen(
        [sys.executable, "-m", "domzero", "console", "deaf"],
        env=server.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"spin\n")
    process.stdin.close()
    until(lambda: bool(api.get("/domains/deaf").json()["state"] == "running"), what="spinning")
    result = server.cli("shutdown", "-w", "--timeout", "0.5", "deaf")
    assert result.returncode == 1
    assert "has not shut down" in result.stderr
    assert server.cli("destroy", "deaf").returncode == 0
    assert process.wait(20) == 0


def test_create_in_the_foreground_ends_as_the_guest_did(server: Server, shell: str) -> None:
    options = ["--kernel", shell, "--memory", "16", "-q"]
    result = server.cli("create", *options, "--name", "fore", "-c", "-F", stdin="echo in a pipe\npoweroff\n")
    assert result.returncode == 0
    assert "in a pipe" in result.stdout
    result = server.cli("create", *options, "--name", "aft", "-c", "-F", stdin="crash\n")
    assert result.returncode == 3


def test_a_console_on_a_terminal_is_raw_and_left_by_its_escape(server: Server, create: Create) -> None:
    create("tty")
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "domzero", "console", "tty"], env=server.env, stdin=follower, stdout=follower
    )
    os.close(follower)
    seen = b""
    while b"hello" not in seen:
        seen += os.read(leader, 1000)
    os.write(leader, b"echo \x03 typed\r")
    while b"\x03 typed\r\n" not in seen:
        seen += os.read(leader, 1000)
    os.write(leader, b"\x1d")
    assert process.wait(20) == 0
    os.close(leader)


def test_the_socket_is_private_and_gone_after_the_end_as_are_the_workers(tmp_path: Path, shell: str) -> None:
    server = Server(tmp_path)
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o600
    server.cli("create", "--kernel", shell, "--memory", "16", "--name", "x", "-q")
    server.cli("create", "--kernel", shell, "--memory", "16", "--name", "y", "-q", "-p")
    workers = server.workers()
    assert len(workers) == 2
    console = subprocess.Popen(
        [sys.executable, "-m", "domzero", "console", "x"],
        env=server.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert console.stdout is not None
    console.stdout.read(5)
    assert server.stop(signal.SIGINT) == 0
    assert console.wait(20) == 0
    assert not server.socket.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_workers_do_not_outlive_a_killed_domain_0_and_its_socket_is_taken_over(tmp_path: Path, shell: str) -> None:
    first = Server(tmp_path)
    first.cli("create", "--kernel", shell, "--memory", "16", "--name", "x", "-q")
    workers = first.workers()
    assert len(workers) == 1
    first.stop(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), what="the end of the workers")
    assert first.socket.exists()
    second = Server(tmp_path)
    assert "Domain-0" in second.cli("list").stdout
    assert second.stop() == 0


def test_two_domain_0s_do_not_share_a_socket(server: Server) -> None:
    result = server.cli("serve")
    assert result.returncode == 1
    assert "running already" in result.stderr
    assert server.cli("list").returncode == 0


def test_loopback_tcp_is_served_on_request_with_its_port_told(tmp_path: Path) -> None:
    server = Server(tmp_path, "--listen", "127.0.0.1:0")
    assert "Domain-0" in server.cli("list", "--url", server.url).stdout
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.token}"}) as client:
        assert client.get("/v1").json()["name"] == "domzero"
        assert client.get("/v1", headers={"Host": "rebound.example"}).status_code == 403
    port = server.address[1]
    assert server.cli("serve", "--socket", str(tmp_path / "b"), "--listen", f"127.0.0.1:{port}").returncode == 1
    assert server.stop() == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_audit_says_that_nothing_is_wrong(server: Server, api: httpx.Client, create: Create) -> None:
    create("sound")
    assert api.get("/domains/sound/audit").json() == {"problems": []}
    result = server.cli("audit", "sound")
    assert (result.returncode, result.stdout) == (0, "nothing is wrong\n")
    assert server.cli("audit", "nobody").returncode == 1


def on_a_terminal(server: Server, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """`domzero` on a pseudo-terminal, and that terminal's other end."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "domzero", *arguments]
    process = subprocess.Popen(command, env=server.env, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    return process, leader


def read_until(leader: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(leader, 1000)
    return seen


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_console_that_is_ended_gives_the_terminal_back(
    server: Server, create: Create, signum: signal.Signals
) -> None:
    create("borrowed")
    process, leader = on_a_terminal(server, "console", "borrowed")
    before = termios.tcgetattr(leader)
    assert b"Ctrl-] leaves it" in read_until(leader, b"hello")
    assert termios.tcgetattr(leader) != before
    process.send_signal(signum)
    assert process.wait(20) == 128 + signum
    assert termios.tcgetattr(leader) == before
    os.close(leader)


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("poweroff", 0, "domain told: the guest powered off"),
        ("crash", 3, "domain told: the guest crashed"),
        ("fault", 3, "domain told: the guest crashed: "),
        ("watchdog", 6, "domain told: the guest's watchdog fired"),
    ],
)
def test_a_console_says_how_the_domain_ended(
    server: Server, create: Create, command: str, status: int, words: str
) -> None:
    create("told")
    result = server.cli("console", "told", stdin=f"{command}\nspin\n" if command == "watchdog" else f"{command}\n")
    assert (result.returncode, result.stderr.startswith(f"domzero: {words}")) == (status, True), result.stderr
    assert result.stderr.count("\n") == 1


def test_create_says_how_the_domain_ended(server: Server, shell: str) -> None:
    options = ["--kernel", shell, "--memory", "16", "--name", "brief"]
    result = server.cli("create", *options, "-c", stdin="crash\n")
    assert (result.returncode, "domain brief: the guest crashed" in result.stderr) == (3, True)


def test_an_amount_in_kib_that_was_meant_in_mib_gets_a_hint(server: Server) -> None:
    result = server.cli("mem-set", "web", "192")
    message = "domzero: MEM: 192: less than 4 MiB; the unit is KiB, as in xl (did you mean 192m?)\n"
    assert (result.returncode, result.stderr) == (2, message)


def test_no_verb_waits_for_a_fifo(server: Server, tmp_path: Path, machine: None) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    for arguments in (["create", fifo], ["create", "-f", fifo, "memory=16"]):
        result = server.cli(*arguments)
        assert (result.returncode, result.stderr) == (2, f"domzero: {fifo}: not a regular file\n")
    for arguments in (["create", "--kernel", fifo], ["run", "--kernel", fifo], ["create", "--kernel", "/dev/zero"]):
        result = server.cli(*arguments)
        assert (result.returncode, "not a regular file" in result.stderr) == (2, True)


def test_a_hangup_ends_domain_0_as_sigterm_does_unless_it_is_ignored(tmp_path: Path) -> None:
    server = Server(tmp_path)
    assert server.stop(signal.SIGHUP) == 0
    assert not server.socket.exists()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server = Server(tmp_path)
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    server.process.send_signal(signal.SIGHUP)
    assert server.cli("list").returncode == 0
    assert server.stop() == 0


def test_memory_that_is_not_available_is_refused(server: Server, api: httpx.Client, shell: str) -> None:
    host = api.get("/host").json()
    assert host["xen_caps"].split() == ["xen-3.0-x86_64", "xen-3.0-x86_32p"]
    body = {"name": "greedy", "kernel": shell, "memory_mib": host["total_memory"] - 1}
    response = api.post("/domains", json=body)
    assert (response.status_code, response.json()["code"]) == (409, "HOST_NOT_ENOUGH_FREE_MEMORY")
    assert "available" in response.json()["detail"]


def test_what_a_running_domain_has_touched_is_known(create: Create) -> None:
    domain = create("touching")
    assert 0 < guest_memory_mib(int(str(domain["pid"]))) <= 40


def test_text_that_is_none_is_one_line(server: Server, create: Create) -> None:
    create("plain")
    for name, message in (("\udcff", "name: not UTF-8 text"), ("\x1b[2J", "name: "), ("27", "name: ")):
        result = server.cli("rename", "plain", name)
        assert (result.returncode, result.stderr.startswith(f"domzero: {message}")) == (2, True), result.stderr
        assert result.stderr.count("\n") == 1 and result.stderr[:-1].isprintable()


def test_verbs_that_change_take_several_domains_or_all(server: Server, api: httpx.Client, create: Create) -> None:
    for name in ("one", "two", "three"):
        create(name)

    def states() -> list[str]:
        return [domain["state"] for domain in api.get("/domains").json()]

    assert server.cli("pause", "one", "three").returncode == 0
    assert [state == "paused" for state in states()] == [True, False, True]
    assert server.cli("unpause", "--all").returncode == 0
    assert "paused" not in states()
    result = server.cli("pause", "one", "nobody")  # a slip in the list: none is touched
    assert (result.returncode, "no such domain: nobody" in result.stderr) == (1, True)
    assert "paused" not in states()
    for verb in ("pause", "unpause", "destroy", "shutdown", "reboot"):
        assert server.cli(verb).returncode == 2
        assert server.cli(verb, "one", "--all").returncode == 2
    assert server.cli("destroy", "two").returncode == 0
    assert server.cli("destroy", "-a").returncode == 0
    assert api.get("/domains").json() == []
    assert server.cli("destroy", "-a").returncode == 0


def test_a_definition_that_fails_keeps_no_other_from_its_turn(
    server: Server, api: httpx.Client, create: Create, shell: str
) -> None:
    for name in ("first", "second", "third"):
        create(name, persistent=True, start=name == "second")
    result = server.cli("start", "first", "second", "third")
    assert result.returncode == 1 and "second" in result.stderr.splitlines()[-1]
    assert {domain["name"] for domain in api.get("/domains").json()} == {"first", "second", "third"}
    assert "domain first is domain " in result.stderr and "domain third is domain " in result.stderr
    create("passing")
    result = server.cli("reset", "passing", "third")
    assert result.returncode == 1 and api.get("/domains/third").json()["state"] in ("running", "blocked")
    assert "domain third is domain " in result.stderr
    result = server.cli("undefine", "passing", "first", "third")
    assert result.returncode == 1
    assert [api.get(f"/domains/{name}").json()["persistent"] for name in ("first", "second", "third")] == [
        False, True, False,
    ]  # fmt: skip


def test_what_fails_for_one_domain_is_told_and_done_for_the_others(
    server: Server, api: httpx.Client, create: Create
) -> None:
    create("kept", on_crash="preserve")
    create("live")
    api.post("/domains/kept/console", json={"data": "crash\n"})
    until(lambda: bool(api.get("/domains/kept").json()["state"] == "crashed"))
    result = server.cli("pause", "kept", "live")
    assert (result.returncode, result.stderr) == (1, "domzero: domain kept is crashed\n")
    assert api.get("/domains/live").json()["state"] == "paused"


def test_domain_0_is_known_to_what_only_reads(server: Server) -> None:
    for word in ("0", "Domain-0", "00"):
        assert server.cli("domid", word).stdout == "0\n"
        assert server.cli("domname", word).stdout == "Domain-0\n"
        assert server.cli("list", word).stdout.splitlines()[1].startswith("Domain-0 ")
        assert server.cli("uptime", word).stdout.splitlines()[1].startswith("Domain-0 ")
    for verb in ("block-list", "network-list", "vcpu-list"):
        result = server.cli(verb, "Domain-0")  # it has none of its own
        assert (result.returncode, result.stderr, len(result.stdout.splitlines())) == (0, "", 1), verb
        assert server.cli(verb, "Domain-0", "--json").stdout == "[]\n"
    assert "00000000-0000-0000-0000-000000000000  0    Domain-0" in server.cli("vm-list").stdout
    for verb, *more in (["pause"], ["destroy"], ["console"], ["rename", "x"], ["mem-set", "64m"], ["mem-max", "64m"]):
        result = server.cli(verb, "Domain-0", *more)
        assert (result.returncode, "Domain-0 is Domain 0 itself" in result.stderr) == (1, True), verb


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["crate"], 2, "no such verb: crate (did you mean create?)"),
        (["stop", "x"], 2, "no such verb: stop (did you mean shutdown?)"),
        (["ls"], 2, "no such verb: ls (did you mean list?)"),
        (["zzzzz"], 2, "no such verb: zzzzz (`domzero help` lists them)"),
        (["help", "pasue"], 2, "no such verb: pasue (did you mean pause?)"),
    ],
)
def test_a_verb_that_is_none_gets_a_suggestion(server: Server, arguments: list[str], status: int, text: str) -> None:
    result = server.cli(*arguments)
    assert (result.returncode, result.stderr) == (status, f"domzero: {text}\n")


def test_help_knows_every_verb(server: Server) -> None:
    first_words = [line.split()[0] for line in server.cli("help").stdout.splitlines() if line.startswith("    ")]
    assert set(VERBS) <= set(first_words)
    assert server.cli("help", "pause").stdout.startswith("usage: domzero pause")
    assert server.cli("help", "image").stdout == server.cli("image", "--help").stdout


NOBODY = "no such domain: nobody (`domzero list` shows what there is)"


def test_errors_are_json_where_answers_are(server: Server) -> None:
    result = server.cli("destroy", "nobody", "--json")
    assert (result.returncode, json.loads(result.stderr)["errors"][0]["message"]) == (1, NOBODY)
    result = server.cli("create", "--json", "kernel='/k'", "memory=1", "name='7'")
    assert (result.returncode, [one["key"] for one in json.loads(result.stderr)["errors"]]) == (2, ["memory", "name"])


def test_the_shell_completes_verbs_options_and_names(server: Server, create: Create, tmp_path: Path) -> None:
    pytest.importorskip("argcomplete", reason="argcomplete is not here")
    create("complete-me")
    assert server.cli("create", "--define", "name='complete-later'", "kernel='/k'").returncode == 0
    script = server.cli("completion", "bash").stdout
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    for line, word in (
        ("domzero unp", "unpause"),
        ("domzero create --mem", "--memory"),
        ("domzero pause comp", "complete-me"),
        ("domzero start comp", "complete-later"),
        ("domzero xl sched-", "sched-credit2"),
        ("domzero xl pause comp", "complete-me"),
        ("xl unp", "unpause"),
        ("xl destroy comp", "complete-me"),
        ("xl create --q", "--quiet"),
    ):
        answer = tmp_path / "answer"
        about = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "IFS": "\013"}
        env = {**server.env, **about, "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
        assert subprocess.run([sys.executable, "-m", "domzero"], env=env).returncode == 0
        words = answer.read_text().replace(" ", "").split("\013")
        assert word in words and not (line.startswith("xl") and "complete-later" in words)
    assert server.cli("undefine", "complete-later").returncode == 0


def test_every_verb_has_a_manual_page(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("argparse_manpage", reason="argparse-manpage is not here")
    result = server.cli("help", "--man-pages", str(tmp_path))
    assert result.returncode == 0, result.stderr
    pages = {path.name: path.read_text() for path in (tmp_path / "man1").iterdir()}
    assert pages.keys() == {"domzero.1", *(f"domzero-{verb}.1" for verb in VERBS)}
    for name, text in pages.items():
        assert text.startswith(f'.TH {name.removesuffix(".1").upper()} 1 "" "domzero ')
    assert "\\- create a domain" in pages["domzero-create.1"] and "sched" in pages["domzero-xl.1"]
    assert server.cli("help", "--man", "create").stdout == pages["domzero-create.1"]
    if shutil.which("man"):
        warnings = subprocess.run(
            ["man", "--warnings", "-l", tmp_path / "man1" / "domzero-create.1"], capture_output=True, text=True
        )
        said = [line for line in warnings.stderr.splitlines() if "adjust line" not in line]  # a long word is no fault
        assert (warnings.returncode, said, "domzero-create" in warnings.stdout) == (0, [], True)
    assert server.cli("help", "--man-pages", str(tmp_path / "none")).returncode == 2
    assert server.cli("help", "--man", "frob").returncode == 2


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_is_a_script_of_its_own(server: Server, shell_name: str) -> None:
    pytest.importorskip("argcomplete", reason="argcomplete is not here")
    script = server.cli("completion", shell_name, "--xl").stdout
    assert "domzero" in script and re.search(r"\bxl\b", script)
    assert not re.search(r"\bxl\b", server.cli("completion", shell_name).stdout)
    if shutil.which(shell_name):
        assert subprocess.run([shell_name, "-n"], input=script, text=True).returncode == 0
