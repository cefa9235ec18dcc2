# SPDX-License-Identifier: Apache-2.0
"""A worker is confined before it looks at anything: what it can do no more, and what is said when it tries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from building import ROOT
from dom0_server import Server, children

from domzero import _machine
from domzero.dom0.confinement import OOM_SCORE

pytestmark = pytest.mark.usefixtures("machine")

Json = dict[str, object]
Create = Callable[..., Json]

# Processes of workers from their beginning, as the fork server calls them; but each does one thing and ends.
PLANTED = """
import ctypes, json, mmap, os, signal, socket, sys, threading
import domzero.dom0.confinement as confinement
import domzero.dom0.worker as worker
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)

def memory():
    fd = os.memfd_create("x")
    os.ftruncate(fd, 4096)
    return fd

def mapped(fd, prot, flags=mmap.MAP_SHARED):
    return len(mmap.mmap(fd, 4096, prot=prot, flags=flags))

def becomes_code():
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, 4096, 3, 1, memory(), 0)
    call("mprotect", ctypes.c_void_p(at), 4096, 5)

def openat2(path, flags, directory=-100):
    how = (ctypes.c_uint64 * 3)(flags, 0o600 if flags & os.O_CREAT else 0, 0)
    fd = libc.syscall(437, directory, path.encode(), how, 24)
    if fd == -1:
        raise OSError(ctypes.get_errno(), path)
    return fd

def run(code, target, victim, share, writable, confined, makes_code):
    shares = []
    if share:
        kept = os.open(share, os.O_PATH)
        shares = [(os.dup(kept), writable)]
    names = {**globals(), **locals()}

    def planted(self):
        try:
            print("result:", eval(code, names), flush=True)
        except Exception as error:
            print("raised:", type(error).__name__, flush=True)
        os._exit(0)

    worker.Worker.run = planted
    ends = [socket.socketpair() for _ in range(4)]
    worker.run(os.getppid(), [end[1] for end in ends], shares, confined=confined, makes_code=makes_code)

for line in sys.stdin:
    output, *what = json.loads(line)
    pid = os.fork()
    if pid == 0:
        for fd, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{output}.{name}", os.O_CREAT | os.O_WRONLY, 0o600), fd)
        try:
            run(*what)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Planter:
    """Evaluates expressions, each in a worker of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._done = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", PLANTED],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self,
        code: str,
        *,
        target: str | Path = "/",
        victim: int = 0,
        share: str | Path = "",
        writable: bool = False,
        confined: bool = True,
        makes_code: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """What became of it. It has `target` and `victim`, and of a `share` that it serves `kept`, a descriptor."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._done += 1
        output = str(self._directory / str(self._done))
        what = [output, code, str(target), victim, str(share), writable, confined, makes_code]
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        texts = [Path(f"{output}.{name}").read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess(code, status, *texts)

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def do_confined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planter]:
    planter = Planter(tmp_path_factory.mktemp("planter"))
    yield planter
    planter.close()


REFUSED = {
    "a file is read": "open('/etc/passwd')",
    "a file is made": "open(target + '/new', 'w')",
    "a directory is listed": "os.listdir('/')",
    "memory of a process": "open('/proc/self/mem', 'rb')",
    "a file is asked about": "os.stat('/etc/passwd')",
    "a link is read": "os.readlink('/proc/self/exe')",
    "memory becomes code": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "a file becomes code": "mapped(memory(), mmap.PROT_READ | mmap.PROT_EXEC)",
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
def test_a_confined_worker_is_refused(do_confined: Planter, what: str, tmp_path: Path) -> None:
    done = do_confined(REFUSED[what], target=tmp_path)
    assert re.search(r"raised: (PermissionError|OSError|ValueError)", done.stdout), done
    assert done.returncode == 0 and not list(tmp_path.iterdir())


# What a worker whose domain has the translator is refused all the same.
OTHER_CODE = {
    "written and run": "mapped(memory(), mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
    "run and not read": "mapped(memory(), mmap.PROT_EXEC)",
    "private": "mapped(memory(), mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE)",
    "of no file": "mapped(-1, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)",
    "made of what was written": "becomes_code()",
}


@pytest.mark.parametrize("what", OTHER_CODE)
def test_a_worker_that_translates_maps_no_code_but_the_translators(do_confined: Planter, what: str) -> None:
    done = do_confined(OTHER_CODE[what], makes_code=True)
    assert re.search(r"raised: (PermissionError|OSError)", done.stdout), done
    assert done.returncode == 0
    done = do_confined("mapped(memory(), mmap.PROT_READ | mmap.PROT_EXEC)", makes_code=True)
    assert "result: 4096" in done.stdout, done
    done = do_confined(OTHER_CODE[what], confined=False)
    assert "result:" in done.stdout, done  # so that the above cannot pass for another reason


@pytest.mark.parametrize("name", ENDED)
def test_a_worker_that_translates_makes_no_other_call(do_confined: Planter, name: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    with subprocess.Popen(["sleep", "60"]) as victim:
        done = do_confined(ENDED[name], target=tmp_path, victim=victim.pid, makes_code=True)
        assert victim.poll() is None
        victim.kill()
    assert done.returncode == 159 and "that is not allowed" in done.stderr and name in done.stderr, done


@pytest.mark.parametrize("engine", ["interpreter", "translator"])
def test_a_confined_worker_runs_its_guest_on_the_engine_that_it_is_given(
    api: httpx.Client, create: Create, engine: str
) -> None:
    if engine == "translator" and (reason := _machine.translator_unavailable()) is not None:
        pytest.skip(reason)
    domain = create("engine", engine=engine)
    assert domain["engine"] == engine
    code = [line for line in Path(f"/proc/{domain['pid']}/maps").read_text().splitlines() if "domzero-code" in line]
    assert sorted({line.split()[1] for line in code}) == (["r-xs", "rw-s"] if engine == "translator" else [])
    writable_code = [line for line in Path(f"/proc/{domain['pid']}/maps").read_text().splitlines() if " rwx" in line]
    assert writable_code == []


@pytest.mark.parametrize("name", ENDED)
def test_a_confined_worker_that_makes_another_call_ends_with_its_name(
    do_confined: Planter, name: str, tmp_path: Path
) -> None:
    (tmp_path / "old").write_text("old")
    with subprocess.Popen(["sleep", "60"]) as victim:
        done = do_confined(ENDED[name], target=tmp_path, victim=victim.pid)
        assert victim.poll() is None
        victim.kill()
    assert done.returncode == 159 and "result" not in done.stdout, done
    assert re.search(rf"system call that is not allowed: {name}(at|at2)? \(\d+\)$", done.stderr.strip()), done.stderr
    assert (tmp_path / "old").read_text() == "old" and (tmp_path / "old").stat().st_mode & 0o777 != 0o777
    assert len(list(tmp_path.iterdir())) == 1


def test_the_same_is_possible_without(do_confined: Planter, tmp_path: Path) -> None:
    """So that the tests above cannot pass for another reason."""
    (tmp_path / "old").write_text("old")
    for code in ("open('/etc/passwd').read(1)", "socket.socket().fileno() > 0", "os.unlink(target + '/old')"):
        done = do_confined(code, target=tmp_path, confined=False)
        assert done.stdout.startswith("result:"), done
    assert not list(tmp_path.iterdir())


def test_a_confined_worker_has_threads_and_memory_and_its_own_files(do_confined: Planter) -> None:
    thread = "(lambda t: (t.start(), t.join()))(threading.Thread(target=print))"
    done = do_confined(f"({thread}, os.urandom(4), os.fstat(0), len(bytearray(64 << 20)))[3]")
    assert f"result: {64 << 20}" in done.stdout, done


def status_of(thread: Path) -> str:
    """What /proc says of it; nothing if it has ended since it was listed."""
    try:
        return (thread / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_real_worker_is_confined_and_has_little(api: httpx.Client, create: Create, server: Server) -> None:
    pid = create("confined")["pid"]
    status = dict(re.findall(r"^(\w+):\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    threads = [text for thread in Path(f"/proc/{pid}/task").iterdir() if (text := status_of(thread))]
    assert threads
    for text in threads:
        assert re.search(r"^Seccomp_filters:\s*3$", text, re.MULTILINE)
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


def test_the_call_that_ended_a_worker_is_the_reason_of_its_domains_end(do_confined: Planter, tmp_path: Path) -> None:
    """As Domain 0 takes the last line of a worker's stderr for it."""
    done = do_confined("os.getpgid(0)")
    assert done.stderr.strip().splitlines()[-1].startswith("a confined process made a system call")


def test_workers_stay_unconfined_when_somebody_looks_for_a_fault(tmp_path: Path, shell: str) -> None:
    server = Server(tmp_path, "--no-confine")
    try:
        assert server.cli("create", "--name", "free", "--kernel", shell, "--memory", "16").returncode == 0
        (pid,) = server.workers()
        assert re.search(r"^Seccomp:\s*0$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert "worker_confinement     : none" in server.cli("info").stdout
    finally:
        assert server.stop() == 0


# What serving files by their names needs: none of it reaches out of the directory.
OUT_OF_A_SHARE = {
    "a file is read": "openat2(target + '/old', os.O_RDONLY)",
    "a file is read by way of the share": "openat2('../outside/old', os.O_RDONLY, kept)",
    "a file is read by way of a link": "openat2('link', os.O_RDONLY, kept)",
    "a file is written": "openat2(target + '/old', os.O_WRONLY)",
    "a file is cut off": "openat2(target + '/old', os.O_WRONLY | os.O_TRUNC)",
    "a file is made": "openat2(target + '/new', os.O_CREAT | os.O_WRONLY)",
    "a directory is listed": "os.listdir(openat2(target, os.O_RDONLY))",
    "memory of a process": "openat2('/proc/self/mem', os.O_RDWR)",
    "C's way to open": "open(target + '/old')",
}
OUT_OF_A_WRITABLE_SHARE = {
    "a file is removed": "os.unlink('../outside/old', dir_fd=kept)",
    "a directory is made": "os.mkdir('../outside/new', dir_fd=kept)",
    "a link is made": "os.symlink('x', '../outside/new', dir_fd=kept)",
    "a file gets a second name outside": "os.link('in', '../outside/new', src_dir_fd=kept, dst_dir_fd=kept)",
    "a file gets a second name inside": "os.link('../outside/old', 'new', src_dir_fd=kept, dst_dir_fd=kept)",
    "a file is moved out": "call('renameat', kept, b'in', kept, b'../outside/new')",
    "a file is moved in": "call('renameat', kept, b'../outside/old', kept, b'new')",
}


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A directory with a file and a link out of it, and one beside it."""
    (tmp_path / "share").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "old").write_text("old")
    (tmp_path / "share" / "in").write_text("in")
    (tmp_path / "share" / "link").symlink_to(tmp_path / "outside" / "old")
    return tmp_path / "share"


def is_untouched(share: Path) -> bool:
    outside = share.parent / "outside"
    return {path.name: path.read_text() for path in outside.iterdir()} == {"old": "old"} and sorted(
        path.name for path in share.iterdir()
    ) == ["in", "link"]


needs_landlock = pytest.mark.skipif(_machine.landlock_version() < 3, reason="this kernel's landlock does less")


@needs_landlock
@pytest.mark.parametrize("what", [*OUT_OF_A_SHARE, *OUT_OF_A_WRITABLE_SHARE])
def test_a_worker_that_serves_a_directory_reaches_nothing_outside(do_confined: Planter, what: str, share: Path) -> None:
    code = {**OUT_OF_A_SHARE, **OUT_OF_A_WRITABLE_SHARE}[what]
    done = do_confined(code, target=share.parent / "outside", share=share, writable=True)
    assert re.search(r"raised: (PermissionError|OSError)", done.stdout), done
    assert done.returncode == 0 and is_untouched(share)


@needs_landlock
@pytest.mark.parametrize("code", ["openat2('in', os.O_RDWR, kept)", "openat2('new', os.O_CREAT | os.O_RDONLY, kept)"])
def test_a_worker_that_serves_a_directory_for_reading_changes_nothing(
    do_confined: Planter, code: str, share: Path
) -> None:
    done = do_confined(code, share=share)
    assert "raised: PermissionError" in done.stdout and is_untouched(share), done


WITH_NAMES = {"unlink": "unlinkat", "mkdir": "mkdirat", "rename": "renameat", "chmod": "fchmod"}


@pytest.mark.parametrize("name", [name for name in ENDED if name not in WITH_NAMES])
def test_serving_a_directory_needs_no_other_call(do_confined: Planter, name: str, share: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        done = do_confined(ENDED[name], victim=victim.pid, share=share, writable=True)
        assert victim.poll() is None
        victim.kill()
    # glibc makes some calls in all threads at once, whose reports may mix.
    assert done.returncode == 159 and "that is not allowed" in done.stderr and name in done.stderr, done


@pytest.mark.parametrize("call", [*WITH_NAMES.values(), "symlinkat", "linkat", "fchownat", "utimensat"])
def test_serving_a_directory_for_reading_needs_no_call_that_changes(
    do_confined: Planter, call: str, share: Path
) -> None:
    done = do_confined(f"libc.{call}(-1, b'x', b'x', 0, 0)", share=share)
    assert done.returncode == 159 and "that is not allowed" in done.stderr and call in done.stderr, done


def test_a_worker_that_serves_a_directory_opens_and_makes_files_there(do_confined: Planter, share: Path) -> None:
    code = (
        "(os.read(openat2('in', os.O_RDONLY, kept), 9), os.mkdir('d', dir_fd=kept), os.close(openat2('d/f',"
        " os.O_CREAT | os.O_WRONLY, kept)), call('renameat', kept, b'd/f', kept, b'f'), os.listdir(openat2('.',"
        " os.O_RDONLY, kept)))"
    )
    done = do_confined(code, share=share, writable=True)
    assert "result: (b'in'" in done.stdout and {p.name for p in share.iterdir()} == {"in", "link", "d", "f"}, done


def test_a_worker_that_serves_directories_is_confined(api: httpx.Client, create: Create, tmp_path: Path) -> None:
    shares = [f"tag=r,path={tmp_path}", f"tag=w,path={tmp_path},writable"]
    domain = create("shares", shares=shares)
    status = Path(f"/proc/{domain['pid']}/status").read_text()
    assert re.search(r"^Seccomp:\s*2$", status, re.MULTILINE)
