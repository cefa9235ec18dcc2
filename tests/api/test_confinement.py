# SPDX-License-Identifier: Apache-2.0
"""A worker is confined before it looks at anything: what it can do no more, and what is said when it tries."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from building import ROOT
from dom0_server import Server, children

from domzero.dom0.confinement import OOM_SCORE

pytestmark = pytest.mark.usefixtures("machine")

Json = dict[str, object]
Create = Callable[..., Json]

# The process of a worker from its beginning, as the fork server calls it; but it does one thing and ends.
PLANTED = """
import ctypes, mmap, os, signal, socket, sys, threading
import domzero.dom0.worker as worker
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)

def planted(self):
    target, victim = sys.argv[2:]
    try:
        print("result:", eval(sys.argv[1]), flush=True)
    except Exception as error:
        print("raised:", type(error).__name__, flush=True)
    os._exit(0)

worker.Worker.run = planted
ends = [socket.socketpair() for _ in range(4)]
worker.run(os.getppid(), [end[1] for end in ends])
"""


def do_confined(
    code: str, *, target: str = "/", victim: int = 0, wrapper: str = ""
) -> subprocess.CompletedProcess[str]:
    """Evaluates an expression in a confined worker."""
    return subprocess.run(
        [sys.executable, "-c", wrapper + PLANTED, code, target, str(victim)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


REFUSED = {
    "a file is read": "open('/etc/passwd')",
    "a file is made": "open(target + '/new', 'w')",
    "a directory is listed": "os.listdir('/')",
    "memory of a process": "open('/proc/self/mem', 'rb')",
    "a file is asked about": "os.stat('/etc/passwd')",
    "a link is read": "os.readlink('/proc/self/exe')",
    "memory becomes code": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "a limit is raised": "__import__('resource').setrlimit(7, (1, 1))",
    "a device is controlled": "__import__('fcntl').ioctl(0, 0x5412, b'x')",
    "it becomes dumpable": "call('prctl', 4, 1, 0, 0, 0)",
}
ENDED = {
    "socket": "socket.socket()",
    "socketpair": "socket.socketpair(socket.AF_INET)",
    "connect": "libc.connect(0, b'\\0' * 16, 16)",
    "bind": "libc.bind(0, b'\\0' * 16, 16)",
    "execve": "os.execv('/bin/true', ['true'])",
    "clone": "os.fork()",
    "ptrace": "libc.ptrace(16, int(victim), 0, 0)",
    "kill": "os.kill(int(victim), signal.SIGTERM)",
    "tgkill": "libc.syscall(234, int(victim), int(victim), 15)",
    "unlink": "os.unlink(target + '/old')",
    "mkdir": "os.mkdir(target + '/new')",
    "rename": "os.rename(target + '/old', target + '/new')",
    "chmod": "os.chmod(target + '/old', 0o777)",
    "execveat": "libc.syscall(322, os.memfd_create('x'), b'', None, None, 0x1000)",
    "process_vm_readv": "libc.process_vm_readv(int(victim), None, 0, None, 0, 0)",
    "pidfd_getfd": "libc.syscall(438, 0, 0, 0)",
    "io_uring_setup": "libc.syscall(425, 1, 0)",
    "bpf": "libc.syscall(321, 0, 0, 0)",
    "unshare": "libc.unshare(0x10000000)",
    "mount": "libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)",
    "setuid": "os.setuid(0)",
    "seccomp": "libc.syscall(317, 0, 0, 0)",
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_confined_worker_is_refused(what: str, tmp_path: Path) -> None:
    done = do_confined(REFUSED[what], target=str(tmp_path))
    assert re.search(r"raised: (PermissionError|OSError|ValueError)", done.stdout), done
    assert done.returncode == 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ENDED)
def test_a_confined_worker_that_makes_another_call_ends_with_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    with subprocess.Popen(["sleep", "60"]) as victim:
        done = do_confined(ENDED[name], target=str(tmp_path), victim=victim.pid)
        assert victim.poll() is None
        victim.kill()
    assert done.returncode == 159 and "result" not in done.stdout, done
    assert re.search(rf"system call that is not allowed: {name}(at|at2)? \(\d+\)$", done.stderr.strip()), done.stderr
    assert (tmp_path / "old").read_text() == "old" and (tmp_path / "old").stat().st_mode & 0o777 != 0o777
    assert len(list(tmp_path.iterdir())) == 1


def test_the_same_is_possible_without(tmp_path: Path) -> None:
    """So that the tests above cannot pass for another reason."""
    unconfined = "import domzero.dom0.confinement as c; c.confine = lambda: []\n"
    (tmp_path / "old").write_text("old")
    for code in ("open('/etc/passwd').read(1)", "socket.socket().fileno() > 0", "os.unlink(target + '/old')"):
        done = do_confined(code, target=str(tmp_path), wrapper=unconfined)
        assert done.stdout.startswith("result:"), done
    assert not list(tmp_path.iterdir())


def test_a_confined_worker_has_threads_and_memory_and_its_own_files() -> None:
    thread = "(lambda t: (t.start(), t.join()))(threading.Thread(target=print))"
    done = do_confined(f"({thread}, os.urandom(4), os.fstat(0), len(bytearray(64 << 20)))[3]")
    assert f"result: {64 << 20}" in done.stdout, done


def test_a_real_worker_is_confined_and_has_little(api: httpx.Client, create: Create, server: Server) -> None:
    pid = create("confined")["pid"]
    status = dict(re.findall(r"^(\w+):\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for thread in Path(f"/proc/{pid}/task").iterdir():
        assert re.search(r"^Seccomp_filters:\s*3$", (thread / "status").read_text(), re.MULTILINE)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == str(OOM_SCORE)
    assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) == 0
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"^Max core file size\s+0\s+0\s", limits, re.MULTILINE)
    assert not re.search(r"^Max data size\s+unlimited", limits, re.MULTILINE)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    (spawner,) = children(server.process.pid)
    names = {word.partition(b"=")[0] for word in Path(f"/proc/{spawner}/environ").read_bytes().split(b"\0")}
    assert b"XENSTORED_PATH" not in names and b"PYTHONPATH" in names
    files = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    outside = [name for name in files if name.startswith("/") and not name.startswith(("/memfd:", "/dev/null"))]
    assert outside == []
    assert "seccomp" in api.get("/host").json()["worker_confinement"]


def test_the_call_that_ended_a_worker_is_the_reason_of_its_domains_end(tmp_path: Path) -> None:
    """As Domain 0 takes the last line of a worker's stderr for it."""
    done = do_confined("os.getpgid(0)")
    assert done.stderr.strip().splitlines()[-1].startswith("a confined worker made a system call")


def test_workers_stay_unconfined_when_somebody_looks_for_a_fault(tmp_path: Path, shell: str) -> None:
    server = Server(tmp_path, "--no-confine")
    try:
        assert server.cli("create", "--name", "free", "--kernel", shell, "--memory", "16").returncode == 0
        (pid,) = server.workers()
        assert re.search(r"^Seccomp:\s*0$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert "worker_confinement     : none" in server.cli("info").stdout
    finally:
        assert server.stop() == 0


def test_a_worker_that_opens_files_of_a_shared_directory_is_not_confined(
    api: httpx.Client, create: Create, tmp_path: Path
) -> None:
    domain = create("shares", shares=[f"tag=it,path={tmp_path}"])
    status = Path(f"/proc/{domain['pid']}/status").read_text()
    assert re.search(r"^Seccomp:\s*0$", status, re.MULTILINE)
