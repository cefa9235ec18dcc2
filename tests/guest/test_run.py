# SPDX-License-Identifier: Apache-2.0
"""`domzero run` with a guest in it: console, exit statuses, signals, and that nothing is left behind."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kernels
import no_confinement
import pytest
from building import COMMAND, ROOT, Run
from dom0_server import children
from waiting import until

from domzero import _machine
from domzero.dom0 import network

pytestmark = pytest.mark.guest
SMALL = ("--memory", "16")


def ending(stderr: bytes) -> dict[str, object]:
    result: dict[str, object] = json.loads(stderr.splitlines()[-1])
    return result


@pytest.mark.parametrize(
    ("command", "options", "status", "kind"),
    [
        ("poweroff", (), 0, "poweroff"),
        ("crash", (), 3, "crash"),
        ("fault", (), 3, "crash"),
        ("reboot", ("--on-reboot", "exit"), 4, "reboot"),
        ("suspend", (), 5, "suspend"),
        ("watchdog", (), 6, "watchdog"),
    ],
)
def test_the_exit_status_tells_how_the_guest_ended(
    shell: str, domzero_run: Run, command: str, options: tuple[str, ...], status: int, kind: str
) -> None:
    result = domzero_run("--kernel", shell, *SMALL, "--json", *options, stdin=command.encode() + b"\n")
    assert result.returncode == status
    assert ending(result.stderr)["ending"] == kind
    assert ending(result.stderr)["status"] == status


def test_stdout_has_the_guests_console_in_plain_lines_and_nothing_else(shell: str, domzero_run: Run) -> None:
    result = domzero_run(
        "--kernel", shell, *SMALL, "--cmdline", "from here", "-v", stdin=b"echo one\necho two\npoweroff\n"
    )
    assert result.stdout == b"hello from here\none\ntwo\n"
    assert b"(XEN) d1 " in result.stderr


def test_what_is_translated_is_dumped_beside_what_it_was_made_of(shell: str, domzero_run: Run, tmp_path: Path) -> None:
    if (reason := _machine.translator_unavailable()) is not None:
        pytest.skip(reason)
    dump = tmp_path / "code"
    options = ("--engine", "check", "--dump-code", str(dump))
    result = domzero_run("--kernel", shell, *SMALL, *options, stdin=b"echo one\npoweroff\n")
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, b"one")
    blocks = dump.read_text().split("\n\n")
    assert re.match(r"frame [0-9a-f]+, offset [0-9a-f]{3}: \d+ instructions, \d+ bytes of code", blocks[0])
    assert any(re.search(r"\n[0-9a-f]{3} mov .*\[.*\n    [0-9a-f]{12}  .*rsp", block) for block in blocks)
    result = domzero_run("--kernel", shell, *SMALL, "--dump-code", str(tmp_path / "no" / "code"))
    assert result.returncode == 2
    assert b"No such file" in result.stderr


def test_without_verbose_a_clean_end_says_nothing(shell: str, domzero_run: Run) -> None:
    result = domzero_run("--kernel", shell, *SMALL, stdin=b"poweroff\n")
    assert (result.returncode, result.stderr) == (0, b"")


def test_what_a_process_is_not_confined_by_is_in_the_log(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", no_confinement.python_path(tmp_path / "site"))
    monkeypatch.setenv(network.CHOICE, network.OWN)
    command = [*COMMAND, "run", "--kernel", shell, *SMALL, "--name", "web", "--vif", "", "-v"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for line in (b"reboot\n", b"poweroff\n"):
            assert process.stdout.readline() == b"hello \n"
            process.stdin.write(line)
            process.stdin.flush()
        said = process.communicate(timeout=60)[1].decode()
    assert said.count(f"is not confined by {no_confinement.MISSING}") == 3, said
    assert re.search(rf"^\(DOM0\) process \d+ is not confined by {no_confinement.MISSING}$", said, re.MULTILINE)
    assert (
        said.count(f"(DOM0) the user network of web is not confined by {no_confinement.MISSING}") == 2
    )  # its reboot's


def test_a_crash_is_reported_with_registers_on_stderr(shell: str, domzero_run: Run) -> None:
    result = domzero_run("--kernel", shell, *SMALL, stdin=b"fault\n")
    assert result.returncode == 3
    assert b"RIP" in result.stderr.upper()
    assert b"Traceback" not in result.stderr


def test_the_end_of_stdin_does_not_end_the_guest(shell: str, domzero_run: Run) -> None:
    result = domzero_run("--kernel", shell, *SMALL, "--timeout", "4", "--json", stdin=b"")
    assert result.returncode == 124
    assert result.stdout == b"hello \n"
    assert ending(result.stderr)["ending"] == "timeout"


def test_closed_standard_files_do_no_harm(shell: str) -> None:
    command = [*COMMAND, "run", "--kernel", shell, *SMALL, "--timeout", "1.5"]
    result = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command])
    assert result.returncode == 124


def test_a_guest_that_only_spins_is_ended_by_the_timeout(shell: str, domzero_run: Run) -> None:
    result = domzero_run("--kernel", shell, *SMALL, "--timeout", "1.5", stdin=b"spin\n")
    assert result.returncode == 124


def test_a_reboot_starts_the_domain_again_with_the_same_console(shell: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", "--kernel", shell, *SMALL, "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    for command in (b"reboot\n", b"poweroff\n"):  # one for each life: what a guest has not read dies with it
        assert process.stdout.readline() == b"hello \n"
        process.stdin.write(command)
        process.stdin.flush()
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, b"")
    assert ending(error)["boots"] == 2


def seccomp_of(pid: int) -> str:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Seccomp:"))
    return line.split()[1]


@pytest.mark.parametrize("options", [(), ("--no-confine",)])
def test_it_is_confined_and_starts_its_guest_again_with_what_it_opens_no_more(
    shell: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Another process opens it, for as long as this one lives."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    # The files are its own: a path from its directory is one from there each time.
    devices = ("--disk", "disk,raw,xvda,rw", "--share", "tag=a,path=.,writable", "--vif", "bridge=again")
    process = subprocess.Popen(
        [*COMMAND, "run", "--kernel", shell, *SMALL, *devices, *options, "--json"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None and process.stdout is not None
    beside = []
    for command in (b"reboot\n", b"poweroff\n"):
        assert process.stdout.readline() == b"hello \n"
        beside = [
            pid for pid in children(process.pid) if b"run" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ]
        if options:
            assert (seccomp_of(process.pid), beside) == ("0", [])
        else:
            assert (seccomp_of(process.pid), [seccomp_of(pid) for pid in beside]) == ("2", ["0"])
        process.stdin.write(command)
        process.stdin.flush()
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output, ending(error)["boots"]) == (0, b"", 2)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in beside), what="the end of the other process")


def test_a_guest_finds_itself_in_xenstore(shell: str, domzero_run: Run) -> None:
    commands = (
        b"store name\nstore domid\nstore memory/target\nstore control/platform-feature-xs_reset_watches\npoweroff\n"
    )
    result = domzero_run("--kernel", shell, *SMALL, "--name", "me", stdin=commands)
    assert result.stdout.splitlines()[1:] == [b"value me", b"value 1", b"value 16384", b"value 1"]


def test_a_flood_of_output_arrives_whole(shell: str, domzero_run: Run) -> None:
    result = domzero_run("--kernel", shell, *SMALL, stdin=b"flood 12345678\npoweroff\n")
    lines = result.stdout.splitlines()
    assert lines.count(b"a line of output that is repeated very often") == 8000
    assert lines[-1] == b"flooded"


def test_input_longer_than_the_ring_arrives_whole(shell: str, domzero_run: Run) -> None:
    words = [b"%0100d" % number for number in range(200)]
    result = domzero_run(
        "--kernel", shell, *SMALL, stdin=b"".join(b"echo %s\n" % word for word in words) + b"poweroff\n"
    )
    assert result.stdout.splitlines()[1:] == words


@pytest.fixture
def running(shell: str) -> Iterator[subprocess.Popen[bytes]]:
    """A guest that has said hello."""
    process = subprocess.Popen(
        [*COMMAND, "run", "--kernel", shell, *SMALL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"hello \n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("busy", [False, True])
def test_a_signal_ends_everything(running: subprocess.Popen[bytes], number: int, status: int, busy: bool) -> None:
    assert running.stdin is not None
    if busy:
        running.stdin.write(b"echo busy\nspin\n")
        running.stdin.flush()
        assert running.stdout is not None
        assert running.stdout.readline() == b"busy\n"
    running.send_signal(number)
    assert running.wait(10) == status


def test_a_reader_that_goes_away_ends_the_guest(running: subprocess.Popen[bytes]) -> None:
    assert running.stdin is not None and running.stdout is not None
    running.stdout.close()
    running.stdin.write(b"flood 123\n")
    running.stdin.flush()
    assert running.wait(20) == 1


def test_nothing_is_left_in_the_temporary_directory(shell: str, domzero_run: Run, tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm")) | set(os.listdir(tmp_path))
    domzero_run("--kernel", shell, *SMALL, stdin=b"poweroff\n")
    assert set(os.listdir("/dev/shm")) | set(os.listdir(tmp_path)) == before


class Terminal:
    """A pseudo-terminal with the command at its other end."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(COMMAND[0], [*COMMAND, "run", *arguments])
        self.seen = b""

    def expect(self, text: bytes, limit: float = 30) -> bytes:
        deadline = time.monotonic() + limit
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.fd], [], [], left)[0], self.seen
            try:
                self.seen += os.read(self.fd, 4096)
            except OSError as error:
                assert error.errno == errno.EIO, self.seen
                raise AssertionError(f"ended: {self.seen!r}") from error
        return self.seen

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    def wait(self) -> int:
        while True:
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            self.seen += data
            if not data:
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_on_a_terminal_the_guest_gets_every_key_and_ctrl_bracket_leaves(shell: str) -> None:
    terminal = Terminal("--kernel", shell, *SMALL)
    terminal.expect(b"hello \r\n")
    terminal.type(b"echo \x03\x04\x1a!\r")  # no signal, no end of file: these are the guest's
    terminal.expect(b"\x03\x04\x1a!\r\n")
    terminal.type(b"\x1d")
    assert terminal.wait() == 130
    assert b"interrupted" in terminal.seen


def test_the_terminal_is_as_before_when_the_command_ends(shell: str) -> None:
    import termios

    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    process = subprocess.Popen(
        [*COMMAND, "run", "--kernel", shell, *SMALL], stdin=follower, stdout=follower, stderr=subprocess.DEVNULL
    )
    seen = b""
    while b"hello" not in seen:
        seen += os.read(leader, 100)
    assert termios.tcgetattr(follower) != before
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    assert termios.tcgetattr(follower) == before
    os.close(leader)
    os.close(follower)


def test_a_kernel_that_prints_with_console_io_alone_is_seen_on_stdout(tmp_path: Path, domzero_run: Run) -> None:
    text = b"just console_io\n"
    kernel = tmp_path / "kernel"
    kernel.write_bytes(kernels.shutdown(0, text))
    result = domzero_run("--kernel", str(kernel), *SMALL, "-v")
    assert (result.returncode, result.stdout) == (0, text)
    assert b"(d1) just console_io\n" in result.stderr


def test_a_shutdown_reason_that_xen_does_not_know_is_told_by_its_number(tmp_path: Path, domzero_run: Run) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(kernels.shutdown(77))
    result = domzero_run("--kernel", str(kernel), *SMALL, "--json", "--on-crash", "restart")
    assert result.returncode == 1
    assert b"for a reason that Xen does not know" in result.stderr and b"shutdown reason 77" in result.stderr
    assert (ending(result.stderr)["ending"], ending(result.stderr)["boots"]) == ("unknown", 1)


@pytest.mark.parametrize("limit", ["-f 1000", "-v 400000"])
def test_a_start_for_which_there_is_no_room_ends_as_one_line(shell: str, limit: str) -> None:
    command = [*COMMAND, "run", "--kernel", shell, "--memory", "512"]
    result = subprocess.run(["sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *command], capture_output=True)
    assert result.returncode == 1
    assert result.stderr.count(b"\n") == 1 and b"a domain of 512 MiB could not be made" in result.stderr


def test_the_log_says_what_ended_the_guest_and_a_restart_is_said_without_a_log(shell: str, domzero_run: Run) -> None:
    timed_out = domzero_run("--kernel", shell, *SMALL, "-v", "--timeout", "1.5")
    assert b"(XEN) d1 ended from outside: timeout" in timed_out.stderr and b"poweroff" not in timed_out.stderr
    again = domzero_run("--kernel", shell, *SMALL, "--timeout", "4", stdin=b"reboot\n")
    assert b"domzero: the guest asked for a reboot; it is started again\n" in again.stderr
