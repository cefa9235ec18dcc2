# SPDX-License-Identifier: Apache-2.0
"""`domzero xl`: xl's grammar, texts and exit statuses. What is expected here the xl of Xen 4.17 printed."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import httpx
import pytest
from dom0_server import Server
from waiting import until

from domzero.cli.xl.door import find_verb, run, verb_list
from domzero.cli.xl.grammar import XlError
from domzero.cli.xl.verbs import VERBS

Create = Callable[..., dict[str, object]]
XL_4_17 = """create config-update list destroy shutdown reboot pci-attach pci-detach pci-list pci-assignable-add
pci-assignable-remove pci-assignable-list pause unpause console vncviewer save migrate restore migrate-receive dump-core
cd-insert cd-eject mem-max mem-set button-press vcpu-list vcpu-pin vcpu-set vm-list info sharing sched-credit
sched-credit2 sched-rtds domid domname rename trigger sysrq debug-keys set-parameters dmesg top network-attach
network-list network-detach channel-list block-attach block-list block-detach vtpm-attach vtpm-list vtpm-detach
vkb-attach vkb-list vkb-detach vdispl-attach vdispl-list vdispl-detach vsnd-attach vsnd-list vsnd-detach uptime claims
cpupool-create cpupool-list cpupool-destroy cpupool-rename cpupool-cpu-add cpupool-cpu-remove cpupool-migrate
cpupool-numa-split getenforce setenforce loadpolicy remus devd psr-hwinfo psr-cmt-attach psr-cmt-detach psr-cmt-show
psr-cat-set psr-cat-show psr-mba-set psr-mba-show usbctrl-attach usbctrl-detach usbdev-attach usbdev-detach usb-list
qemu-monitor-command"""
"""What `xl help` of Debian's xen-utils-4.17 lists."""
HEAD = "Name                                        ID   Mem VCPUs\tState\tTime(s)"


def xl(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`domzero xl`, in this process: a hundred of its own would take their time."""
    output, error = io.StringIO(), io.StringIO()
    options = [] if "--socket" in arguments else [f"--socket={server.socket}"]
    with redirect_stdout(output), redirect_stderr(error):
        status = run([*options, *arguments])
    return subprocess.CompletedProcess(arguments, int(status), output.getvalue(), error.getvalue())


def test_every_verb_of_xl_is_there_or_refused_with_a_reason() -> None:
    assert set(VERBS) == set(XL_4_17.split())
    for verb in VERBS.values():
        assert (verb.handler is None) == bool(verb.refused), verb.name


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if verb.refused])
def test_a_refused_verb_says_its_name_and_why(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "x"]) == 1
    assert capsys.readouterr().err == f"xl: {name} is refused: {VERBS[name].refused}\n"


def test_a_verb_may_be_shortened_to_what_is_its_alone() -> None:
    assert find_verb("pau").name == "pause"
    assert find_verb("list").name == "list"
    for word in ("p", "", "frob"):
        with pytest.raises(XlError, match="command not implemented"):
            find_verb(word)
    assert all(re.search(rf"^ {re.escape(name)} ", verb_list(), re.MULTILINE) for name in VERBS)


@pytest.mark.parametrize(
    ("arguments", "status", "error", "output"),
    [
        ("frob", 1, "command not implemented\n", ""),
        ("-x list", 1, "unknown global option\n", ""),
        ("list -x", 2, "option `x' not supported.\n", ""),
        ("sched-credit2 -d", 2, "option `d' not supported.\n", ""),
        ("pause", 2, "'xl pause' requires at least 1 argument.\n\n", "Usage: xl [-vtTf] pause <Domain>\n"),
        ("rename a", 2, "'xl rename' requires at least 2 arguments.\n\n", "Usage: xl [-vtTf] rename "),
        ("-N pause web", 1, "command does not implement -N (dryrun) option\n", ""),
        ("pause nobody", 1, "nobody is an invalid domain identifier (rc=-6)\n", ""),
        ("list nobody", 1, "nobody is an invalid domain identifier (rc=-6)\n", ""),
        ("list a b", 1, "", "Usage: xl [-vtT] list "),
        ("console nobody", 1, "nobody is an invalid domain identifier (rc=-6)\n", ""),
        ("console -t foo nobody", 1, "console type supported are: pv, serial, vuart\n", ""),
        ("console -t serial nobody", 1, "there is no serial console: a PV domain has pv consoles only\n", ""),
        ("shutdown", 1, "You must specify -a or a domain id.\n\n", "Usage: xl [-vtTf] shutdown "),
        ("destroy 0", 1, "Not destroying domain 0; use -f to force.\nThis can only be done when", ""),
        ("domid nobody", 1, "Can't get domid of domain name 'nobody', maybe this domain does not exist.\n", ""),
        ("domname 999", 1, "Can't get domain name of domain id '999', maybe this domain does not exist.\n", ""),
        ("domname web", 1, "Invalid domain id.\n\n", "Usage: xl [-vtT] domname "),
        ("sched-credit2 -w 5", 1, "Must specify a domain.\n", ""),
        ("sched-credit2 -t 5", 1, "-t: the host's scheduler has no such parameter\n", ""),
        ("cpupool-list foo", 1, "Pool 'foo' does not exist\n", ""),
        ("create /no/such.cfg", 3, "Failed to read config file: /no/such.cfg: No such file or directory\n", ""),
        ("create", 6, "Config file not specified and none in save file\n", ""),
        (
            "create -A x",
            1,
            "--vncviewer-autopass: a viewer is told no password; it asks, with -V, too\n",
            "",
        ),
    ],
)
def test_what_is_wrong_is_said_as_xl_says_it(
    server: Server, arguments: str, status: int, error: str, output: str
) -> None:
    result = xl(server, *arguments.split())
    assert result.returncode == status, result.stderr
    assert result.stderr.startswith(error) and bool(result.stderr) == bool(error)
    assert result.stdout.startswith(output) and bool(result.stdout) == bool(output)


@pytest.mark.parametrize("word", ["", ".", "a/b", "\udcff", "\x1b[2J", "9" * 40])
@pytest.mark.parametrize("verb", ["pause", "destroy", "list", "block-list", "uptime", "domid", "vcpu-list"])
def test_a_word_that_names_nothing_is_told_in_one_printable_line(server: Server, verb: str, word: str) -> None:
    result = xl(server, verb, word)
    assert result.stderr.count("\n") == 1 and result.stderr[:-1].isprintable()
    assert result.returncode == (0 if verb == "block-list" else 1)


def test_help_is_xls_form(server: Server) -> None:
    expected = "Usage: xl [-vtTf] pause <Domain>\n\nPause a domain.\n\n"
    assert [xl(server, *words).stdout for words in (("help", "pause"), ("pause", "-h"))] == [expected, expected]
    assert xl(server).returncode == 1
    assert xl(server, "help").stdout == f"{verb_list()}\n"
    assert "--install-alias DIR" in xl(server, "--help").stdout == server.cli("help", "xl").stdout


def test_the_tables_of_domains_are_xls_to_the_character(server: Server, create: Create) -> None:
    domain = create("web")
    row = rf"web {{38}}{domain['domid']:5d}    1[56]     1     [r-][b-]---- {{3,7}}\d+\.\d"
    for options, head, more in (
        ([], "", ""),
        (["-Z"], "   Security Label", " {16}-"),
        (["-c"], "         Cpupool", " {11}Pool-0"),
        (["-n"], " NODE Affinity", " all"),
        (
            ["-v"],
            "   UUID                            Reason-Code\tSecurity Label",
            rf" {domain['uuid']} {{8}}- {{16}}-",
        ),
        (["-vn"], "   UUID                            Reason-Code\tSecurity Label NODE Affinity", r" .* all"),
    ):
        lines = xl(server, "list", *options).stdout.splitlines()
        assert lines[0] == HEAD + head
        assert lines[1].startswith("Domain-0                                     0 ")
        assert re.fullmatch(row + more, lines[2]), lines[2]
    lines = xl(server, "list", "web").stdout.splitlines()
    assert len(lines) == 2
    lines = xl(server, "vm-list").stdout.splitlines()
    assert lines[0] == "UUID                                  ID    name"
    assert lines[1] == "00000000-0000-0000-0000-000000000000  0    Domain-0                      "
    assert lines[2] == f"{domain['uuid']}  {domain['domid']}    {'web':<30}"
    assert xl(server, "claims").stdout.splitlines()[0] == f"{HEAD}  Claimed"
    shared = xl(server, "sharing", "web").stdout.splitlines()
    assert shared[0] == "Name                                        ID   Mem Shared"
    assert re.fullmatch(rf"web {{38}}{domain['domid']:5d}    1[56]      0", shared[1])
    lines = xl(server, "uptime").stdout.splitlines()
    assert lines[0] == "Name                                ID Uptime"
    assert re.fullmatch(rf"web {{31}}{domain['domid']:4d}  0:\d\d:\d\d", lines[2]), lines
    assert re.fullmatch(
        rf" \d\d:\d\d:\d\d up  \d:\d\d, web \({domain['domid']}\)\n", xl(server, "uptime", "-s", "web").stdout
    )


def test_processors_and_weights_are_xls_tables(server: Server, create: Create) -> None:
    domain = create("web", vcpus=1, max_vcpus=2)
    lines = xl(server, "vcpu-list", "web").stdout.splitlines()
    assert lines[0] == "Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)"
    first = rf"web {{30}}{domain['domid']:5d}     0 {{4}}\d   [r-][b-]- {{5,7}}\d+\.\d  all / all"
    assert re.fullmatch(first, lines[1]), lines[1]
    assert lines[2] == f"web {'':28} {domain['domid']:5d}     1    -   --p       0.0  all / all"
    assert xl(server, "sched-credit2", "-d", "web", "-w", "512", "-c50").returncode == 0
    head = "Name                                ID Weight  Cap"
    row = f"web {'':29} {domain['domid']:4d}    512   50"
    assert xl(server, "sched-credit2").stdout == f"Cpupool Pool-0: [sched params unavailable]\n{head}\n{row}\n"
    assert xl(server, "sched-credit", "--domain=web").stdout == f"{head}\n{row}\n"
    assert xl(server, "vcpu-pin", "web", "all", "0", "all").returncode == 0
    assert xl(server, "vcpu-pin", "web", "0", "-", "-").returncode == 0
    assert xl(server, "-N", "vcpu-pin", "web", "0", "all").stdout == "cpumap: all\n"
    assert xl(server, "-N", "vcpu-pin", "web", "0", "-", "all").stdout == "cpumap: - all\n"
    result = xl(server, "vcpu-pin", "web", "0", "4000")
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, "Could not set affinity for vcpu `0'.")
    assert xl(server, "vcpu-pin", "web", "x", "0").stderr == "Error: Invalid argument x as VCPU.\n"
    assert xl(server, "vcpu-pin", "web", "0", "0", "0").returncode == 1
    assert xl(server, "vcpu-set", "web", "x").stderr == "Error: Invalid argument.\n"
    assert xl(server, "vcpu-set", "web", "2").returncode == 0
    lines = xl(server, "cpupool-list").stdout.splitlines()
    assert lines[0] == "Name               CPUs   Sched     Active   Domain count"
    assert re.fullmatch(r"Pool-0 {13} +\d+ +host {7}y          2", lines[1])
    assert xl(server, "cpupool-list", "-c").stdout.startswith("Name               CPU list\nPool-0             0")


def test_info_has_xls_fields_in_xls_order(server: Server) -> None:
    lines = xl(server, "info").stdout.splitlines()
    fields = [line.split()[0] for line in lines]
    assert fields[:4] == ["host", "release", "version", "machine"] and fields[-1] == "xend_config_format"
    assert fields.index("outstanding_claims") + 1 == fields.index("free_cpus")
    assert all(line[23:25] == ": " for line in lines)
    assert re.fullmatch(r"\d+\.\d{3}\n", xl(server, "info", "cpu_mhz").stdout)
    more = xl(server, "info", "-n").stdout.splitlines()
    begin = more.index("cpu_topology           :")
    assert more[begin - 1].startswith("free_cpus  ")
    assert more[begin + 1 : begin + 3] == ["cpu:    core    socket     node", "  0:       0        0        0"]
    end = more.index("numa_info              :")
    assert more[end + 1] == "node:    memsize    memfree    distances"
    assert re.fullmatch(r"   0: +\d+ +\d+      10", more[end + 2]) and more[end + 3].startswith("xen_major  ")


def test_devices_are_xls_tables_with_what_the_guest_has_said(
    server: Server, api: httpx.Client, create: Create, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    domain = create("web", vifs=["mac=00:16:3e:01:02:03"])
    cd = create("drive", disks=["format=raw,vdev=xvdc,devtype=cdrom,target="])
    domid = domain["domid"]
    assert xl(server, "block-attach", "web", str(image), "raw", "xvdb", "rw").returncode == 0
    lines = xl(server, "block-list", "web").stdout.splitlines()
    assert lines[0] == "Vdev  BE  handle state evt-ch ring-ref BE-path                       "
    path = f"/local/domain/0/backend/vbd/{domid}/51728"
    assert lines[1] == f"51728 0   {domid:<6} 1     -1     -1       {path}"
    lines = xl(server, "network-list", "web").stdout.splitlines()
    assert lines[0] == "Idx BE Mac Addr.         handle state evt-ch   tx-/rx-ring-ref BE-path                       "
    path = f"/local/domain/0/backend/vif/{domid}/0"
    assert lines[1] == f"0   0  00:16:3e:01:02:03     0     1     -1    -1/-1          {path}"
    assert api.get("/domains/web/front-ends").json()[0] == {
        "kind": "vbd",
        "devid": 51728,
        "state": 1,
        "event_channel": None,
        "ring_refs": [None],
    }
    assert xl(server, "block-detach", "web", "xvdz").stderr == "Error: Device xvdz not connected.\n"
    assert xl(server, "block-detach", "--force", "web", "51728").returncode == 0
    assert xl(server, "network-detach", "web", "7").stderr == "Unknown device 7.\n"
    words = ("mac=00:16:3e:01:02:04", "bridge=lan", "rate=1MB/s", "model=e1000")
    assert dry(xl(server, "-N", "network-attach", "web", *words), "vif") == {
        "model": "e1000",
        "mac": "00:16:3e:01:02:04",
        "bridge": "lan",
        "rate_bytes_per_interval": 50000,
        "rate_interval_usecs": 50000,
    }
    assert dry(xl(server, "-N", "block-attach", "web", "/x.img,raw,xvde,w"), "disk") == {
        "pdev_path": "/x.img",
        "vdev": "xvde",
        "format": "raw",
        "readwrite": 1,
    }
    drive = {"vdev": "xvdc", "removable": 1, "is_cdrom": 1}
    inserted = xl(server, "-N", "cd-insert", "drive", "xvdc", "/dev/null")
    assert dry(inserted, "disk") == {"pdev_path": "/dev/null", "format": "raw", **drive}
    assert dry(xl(server, "-N", "cd-eject", str(cd["domid"]), "xvdc"), "disk") == {"format": "empty", **drive}
    result = xl(server, "block-list", "nobody", "web")
    assert (result.returncode, result.stderr) == (0, "nobody is an invalid domain identifier\n")
    assert xl(server, "cd-insert", "web", "xvdz", "/nope").stderr == "Cannot stat file: /nope\n"


def dry(result: subprocess.CompletedProcess[str], what: str) -> dict[str, object]:
    """What is shown instead of being done: JSON behind a word, and an empty line."""
    word, _, text = result.stdout.partition(": ")
    assert (result.returncode, result.stderr, word, text[-3:]) == (0, "", what, "}\n\n")
    found: dict[str, object] = json.loads(text)
    return found


def test_the_life_of_a_domain_by_xls_verbs(server: Server, api: httpx.Client, shell: str, tmp_path: Path) -> None:
    config = tmp_path / "guest.cfg"
    config.write_text(f'name = "life"\nkernel = "{shell}"\nmemory = 32\n')
    result = xl(server, "-N", "create", str(config), "memory=16")
    assert (json.loads(result.stdout)["b_info"]["target_memkb"], api.get("/domains").json()) == (16 << 10, [])
    result = xl(server, "create", "-p", str(config), "memory=16; vcpus=1", "name='life2'")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", f"Parsing config from {config}\n")
    domain = api.get("/domains/life2").json()
    assert (domain["state"], domain["memory_mib"]) == ("paused", 16)
    assert xl(server, "unpause", "life2").returncode == 0
    assert xl(server, "rename", "life2", "life").returncode == 0
    assert xl(server, "create", "-q", f"-f{config}").returncode == 3  # the name is in use
    assert xl(server, "domid", "life").stdout == f"{domain['domid']}\n"
    assert xl(server, "domname", str(domain["domid"])).stdout == "life\n"
    until(lambda: "hello" in server.cli("console", "--history", "life").stdout)
    assert xl(server, "mem-set", "life", "x").stderr == "invalid memory size: x\n"
    result = xl(server, "mem-set", "life", "1g")
    what = f"cannot set domid {domain['domid']} dynamic max memory to : 1g"
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, what)
    assert xl(server, "mem-set", "life", "8m").returncode == 0
    assert xl(server, "trigger", "life", "foo").stderr == 'Invalid trigger "foo"\n'
    assert xl(server, "sysrq", "life", "hh").stderr == "Invalid sysrq.\n\n"
    assert xl(server, "pause", "life").returncode == 0
    assert xl(server, "unpause", "life").returncode == 0
    result = xl(server, "reboot", "life", "-w")
    assert (result.returncode, result.stdout) == (0, "Waiting for 1 domains\n")
    assert result.stderr.startswith(f"Rebooting domain {domain['domid']}\n")
    until(lambda: server.cli("console", "--history", "life").stdout.count("hello") == 2)
    domid = api.get("/domains/life").json()["domid"]
    result = xl(server, "shutdown", "-aw")
    assert (result.returncode, result.stdout) == (0, "Waiting for 1 domains\n")
    assert result.stderr == f"Shutting down domain {domid}\nDomain {domid} has been shut down, reason code 0\n"
    assert xl(server, "shutdown", "-a").returncode == 0
    assert "life" in xl(server, "dmesg", "-c").stdout
    assert xl(server, "dmesg").stdout == ""


def test_create_in_the_foreground_shows_the_console_and_ends_well(server: Server, shell: str, tmp_path: Path) -> None:
    config = tmp_path / "guest.cfg"
    config.write_text(f'name = "fore"\nkernel = "{shell}"\nmemory = 16\nmemroy = 1\n')
    result = server.cli("xl", "create", "-cF", str(config), stdin="echo in a pipe\ncrash\n")
    assert (result.returncode, "in a pipe" in result.stdout) == (0, True)
    assert "xl: warning: unknown key memroy ignored: did you mean memory?\n" in result.stderr


def test_create_opens_the_screen_that_a_domain_has(
    server: Server, api: httpx.Client, shell: str, tmp_path: Path
) -> None:
    viewer, seen = tmp_path / "viewer", tmp_path / "seen"
    viewer.write_text(f'#!/bin/sh\necho "$@" >{seen}.new && mv {seen}.new {seen}\n')
    viewer.chmod(0o755)
    config = tmp_path / "guest.cfg"
    for name, vfb, program, said in (
        ("shows", "vfb=['vnc=1']", viewer, ""),
        ("blind", "vfb=['vnc=1']", tmp_path / "none", "No such file or directory"),
        ("dark", "", viewer, "has no framebuffer"),
    ):
        config.write_text(f'name="{name}"\nkernel="{shell}"\nmemory=16\n{vfb}\n')
        words = [sys.executable, "-m", "domzero", "xl", "create", "-qV", str(config)]
        env = {**server.env, "DOMZERO_VNCVIEWER": str(program)}
        result = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
        assert (result.returncode, said in result.stderr) == (0, True), result.stderr
        address = api.get(f"/domains/{name}/vnc").json().get("address")
        api.delete(f"/domains/{name}")
        if name == "shows":
            until(seen.exists, what="the viewer")
            assert address and seen.read_text().strip() in address
            seen.unlink()
    assert not seen.exists()


def test_destroy_ends_a_domain(server: Server, api: httpx.Client, create: Create) -> None:
    create("gone")
    assert xl(server, "destr", "gone").returncode == 0
    assert api.get("/domains").json() == []


def test_an_alias_is_written_where_it_is_asked_for_and_over_nothing_else(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "xl"
    for _ in range(2):
        assert xl(server, "--install-alias", str(tmp_path)).stdout == f"{script} is `domzero xl`\n"
    result = subprocess.run([script, "list"], env=server.env, capture_output=True, text=True)
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, HEAD)
    script.write_text("something else")
    assert xl(server, "--install-alias", str(tmp_path)).returncode == 1
    assert script.read_text() == "something else"
    assert xl(server, "--install-alias", str(tmp_path / "no")).returncode == 1


def test_without_domain_0_xl_says_how_to_start_it(server: Server, tmp_path: Path) -> None:
    result = xl(server, "--socket", str(tmp_path / "none"), "list")
    assert result.returncode == 1
    assert result.stderr.startswith("xl: error: Domain 0 is not running at ")


def test_config_update_is_for_the_next_start(
    server: Server, api: httpx.Client, create: Create, shell: str, tmp_path: Path
) -> None:
    domain = create("kept")
    config = tmp_path / "guest.cfg"
    config.write_text(f'name = "other"\nkernel = "{shell}"\nmemory = 16\nvcpus = 1\n')
    result = xl(server, "config-update", "kept", str(config), "memory=24; maxvcpus=2", "cmdline='next'")
    assert (result.returncode, result.stderr) == (0, f"setting dom{domain['domid']} configuration\n")
    now = api.get("/domains/kept").json()
    assert (now["memory_mib"], now["max_vcpus"], now["cmdline"]) == (16, 1, "")
    until(lambda: "hello" in server.cli("console", "--history", "kept").stdout)
    assert xl(server, "rename", "kept", "keeps").returncode == 0
    assert xl(server, "reboot", "-w", "keeps").returncode == 0
    now = api.get("/domains/keeps").json()
    assert (now["uuid"], now["memory_mib"], now["max_vcpus"], now["cmdline"]) == (domain["uuid"], 24, 2, "next")
    until(lambda: server.cli("console", "--history", "keeps").stdout.count("hello") == 2)
    result = xl(server, "config-update")
    assert (result.returncode, result.stderr) == (1, "xl config-update requires a domain argument\n\n")
    assert xl(server, "config-update", "keeps").stderr == "Config file not specified\n"
    result = xl(server, "config-update", "keeps", str(config), "memory=400000")
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, "failed to update configuration")
    result = xl(server, "-N", "config-update", "-q", "keeps", f"-f{config}")
    assert json.loads(result.stdout)["b_info"]["target_memkb"] == 16 << 10


def test_what_a_defined_domain_starts_with_next_is_its_definition_after_its_end(
    api: httpx.Client, create: Create, shell: str
) -> None:
    create("defined", persistent=True)
    body = {"name": "x", "kernel": shell, "memory_mib": 24}
    assert api.put("/domains/defined/next-config", json=body).status_code == 200
    assert api.delete("/domains/defined").status_code == 204
    halted = api.get("/domains/defined").json()
    assert (halted["state"], halted["memory_mib"]) == ("halted", 24)
    assert api.put("/domains/defined/next-config", json=body).status_code == 409


def test_debug_keys_write_into_the_log(server: Server, api: httpx.Client, create: Create) -> None:
    domain = create("seen", vcpus=2)
    xl(server, "dmesg", "-c")
    assert xl(server, "debug-keys", "hqrmaZ").returncode == 0
    lines = xl(server, "dmesg").stdout.splitlines()
    for text in (
        "(XEN) 'h' pressed -> show this help",
        "(XEN)  key 'q' (ascii '71') => show domains and their vCPUs",
        f"(XEN) General information for domain {domain['domid']}:",
        f"(XEN) domain {domain['domid']}: nothing is wrong",
        "(XEN) 'Z' pressed -> there is no such debug key; h shows which there are",
    ):
        assert text in lines
    assert sum(line.startswith(f"(XEN)     d{domain['domid']}v1: ") for line in lines) == 2
    assert xl(server, "debug-keys", "x" * 17).stderr.startswith("cannot send debug keys: ")
    assert api.post("/host/debug-keys", json={"keys": "\x1b"}).status_code == 422


def test_xl_knows_no_domain_that_does_not_exist_any_more(server: Server, api: httpx.Client, create: Create) -> None:
    create("halted", persistent=True)
    ended = create("ended")
    assert api.delete("/domains/halted").status_code == 204
    assert api.delete("/domains/ended").status_code == 204
    for word in ("halted", str(ended["uuid"])):
        assert xl(server, "pause", word).stderr == f"{word} is an invalid domain identifier (rc=-6)\n"
        assert xl(server, "destroy", word).returncode == 1
        assert xl(server, "domid", word).returncode == 1
    assert len(xl(server, "list").stdout.splitlines()) == 2
    assert api.get("/domains/halted").status_code == 200


def test_the_long_list_is_libxls_json(server: Server, create: Create, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    domain = create(
        "web",
        vcpus=1,
        max_vcpus=2,
        cmdline="quiet",
        cap=50,
        on_crash="coredump-destroy",
        disks=[f"{image},raw,,rw", "format=raw,vdev=xvdc,devtype=cdrom,target="],
        vifs=["mac=00:16:3e:01:02:03,bridge=lan"],
    )
    (found,) = json.loads(xl(server, "list", "-l", "web").stdout)
    config = found["config"]
    assert found["domid"] == domain["domid"]
    assert config["c_info"] == {"type": "pv", "name": "web", "uuid": domain["uuid"]}
    build = config["b_info"]
    assert (build["max_vcpus"], build["avail_vcpus"], build["max_memkb"]) == (2, [0], 16 << 10)
    assert build["sched_params"] == {"weight": 256, "cap": 50}
    assert [(disk["vdev"], disk["format"], disk["readwrite"]) for disk in config["disks"]] == [
        ("xvda", "raw", 1),
        ("xvdc", "empty", 0),
    ]
    assert config["nics"] == [{"devid": 0, "mtu": 1500, "mac": "00:16:3e:01:02:03", "bridge": "lan"}]
    everything = json.loads(xl(server, "list", "-l").stdout)
    assert [each["config"]["c_info"]["name"] for each in everything] == ["Domain-0", "web"]
    program = libxl(tmp_path)
    for each in everything:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(each["config"]))
        result = subprocess.run([program, path], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        kept = json.loads(result.stdout)
        assert kept["c_info"]["name"] == each["config"]["c_info"]["name"]
        assert kept["b_info"]["max_memkb"] == each["config"]["b_info"]["max_memkb"]
    assert kept["nics"][0]["bridge"] == "lan" and kept["on_crash"] == "coredump_destroy"


CONFIG = """name = "c1"
uuid = "00000000-0000-0000-0000-000000000009"
kernel = "/boot/vmlinuz"
ramdisk = "/boot/initrd"
cmdline = "console=hvc0"
memory = 256
maxmem = 512
vcpus = 2
maxvcpus = 4
cpus = "0"
cpu_weight = 512
cap = 50
disk = ['/d.qcow2,qcow2,xvdb,r', 'format=raw,vdev=xvdc,access=r,devtype=cdrom,target=/x.iso', 'phy:/dev/sda1,xvdd,w',
        'vdev=xvde,devtype=cdrom']
vif = ['mac=00:16:3e:00:00:02,bridge=br0,vifname=v0,rate=10Mb/s,mtu=9000', 'ip=10.0.0.1']
vfb = ['vnc=1,vnclisten=127.0.0.2,vncpasswd=x,vncdisplay=3']
p9 = ['tag=t,path=/p,security_model=none']
channel = ['connection=pty,name=c', 'connection=socket,path=/s,name=d']
on_poweroff = "restart"
on_crash = "coredump-destroy"
on_watchdog = "preserve"
max_grant_frames = 32
max_event_channels = 100
max_grant_version = 1
localtime = 1
rtc_timeoffset = 60
"""
SHOWN = {
    "c_info": {
        "type": "pv",
        "name": "c1",
        "uuid": "00000000-0000-0000-0000-000000000009",
        "run_hotplug_scripts": "True",
    },
    "b_info": {
        "max_vcpus": 4,
        "avail_vcpus": [0, 1],
        "vcpu_hard_affinity": [[0], [0], [0], [0]],
        "max_memkb": 524288,
        "target_memkb": 262144,
        "rtc_timeoffset": 60,
        "localtime": "True",
        "max_grant_frames": 32,
        "max_grant_version": 1,
        "sched_params": {"weight": 512, "cap": 50},
        "event_channels": 100,
        "kernel": "/boot/vmlinuz",
        "cmdline": "console=hvc0",
        "ramdisk": "/boot/initrd",
        "type.pv": {},
    },
    "disks": [
        {"pdev_path": "/d.qcow2", "vdev": "xvdb", "format": "qcow2"},
        {"pdev_path": "/x.iso", "vdev": "xvdc", "format": "raw", "removable": 1, "is_cdrom": 1},
        {"pdev_path": "/dev/sda1", "vdev": "xvdd", "format": "raw", "readwrite": 1},
        {"vdev": "xvde", "format": "empty", "removable": 1, "is_cdrom": 1},
    ],
    "nics": [
        {
            "devid": 0,
            "mtu": 9000,
            "mac": "00:16:3e:00:00:02",
            "bridge": "br0",
            "ifname": "v0",
            "rate_bytes_per_interval": 62500,
            "rate_interval_usecs": 50000,
        },
        {"devid": 1, "ip": "10.0.0.1"},
    ],
    "vfbs": [{"devid": 0, "vnc": {"enable": "True", "listen": "127.0.0.2", "passwd": "x", "display": 3}, "sdl": {}}],
    "vkbs": [{"devid": 0}],
    "p9s": [{"tag": "t", "path": "/p", "security_model": "none"}],
    "channels": [
        {"devid": 0, "name": "c", "connection.pty": {}},
        {"devid": 1, "name": "d", "connection.socket": {"path": "/s"}},
    ],
    "on_poweroff": "restart",
    "on_reboot": "restart",
    "on_watchdog": "preserve",
    "on_crash": "coredump_destroy",
}
"""What Debian's xl 4.17 shows of it, without its `claim_mode`, its empty `arch_arm` and `arch_x86`, and the default of
`on_soft_reset`, which is another one here."""


def test_a_dry_run_shows_the_structure_that_xl_shows(tmp_path: Path) -> None:
    config = tmp_path / "c1.cfg"
    config.write_text(CONFIG)
    output, error = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(error):
        assert run(["create", "-n", str(config)]) == 0  # no Domain 0 is needed
    assert error.getvalue() == f"Parsing config from {config}\n"
    assert json.loads(output.getvalue()) == SHOWN
    program, path = libxl(tmp_path), tmp_path / "config.json"
    path.write_text(output.getvalue())
    result = subprocess.run([program, path], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    kept = json.loads(result.stdout)
    assert kept["vfbs"] == SHOWN["vfbs"] and kept["channels"] == SHOWN["channels"] and kept["nics"] == SHOWN["nics"]


def libxl(directory: Path) -> Path:
    """A program that reads a configuration by libxl, and writes it again."""
    if shutil.which("cc") is None or not Path("/usr/include/libxl.h").exists():
        pytest.skip("libxen-dev is not here")
    program = directory / "xlconfig"
    source = Path(__file__).parents[1] / "support" / "xlconfig.c"
    command = ["cc", "-o", str(program), str(source), "-Wl,--export-dynamic", "-lxenlight"]
    subprocess.run(command, check=True, capture_output=True)
    return program
