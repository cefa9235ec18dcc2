# SPDX-License-Identifier: Apache-2.0
"""What `make run` shows: Debian's own kernel as a PV domain, created over HTTP, from its boot to its shutdown.

`python tools/make_run.py`. Exit status 0 only if everything happened.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from domzero.cli.api_client import Dom0, Json
from domzero.cli.status import ExitStatus
from domzero.dom0.images.cache import Image, ImageCache
from domzero.errors import DomzeroError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

# busybox's line editor asks the terminal for the cursor's position after the prompt
PROMPT = re.compile(rb"(?:^|\n)[\w-]+:[~/][^\s#]*# (?:\x1b\[6n)?$")
COMMAND_SECONDS = 30.0
END_SECONDS = 30.0
MEMORY_MIB = 256


class DemoFailed(DomzeroError):
    """Something of what was to be shown did not happen."""


class GuestShell:
    """A shell on a domain's console: shows everything on stdout, and finds the answers in it."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self._seen = b""

    def until_prompt(self, seconds: float, what: str) -> bytes:
        """All output up to the next prompt."""
        from websockets.exceptions import ConnectionClosed

        end = time.monotonic() + seconds
        while not PROMPT.search(self._seen):
            try:
                message = self._websocket.recv(timeout=max(end - time.monotonic(), 0.01))
            except TimeoutError:
                raise DemoFailed(f"{what}: nothing after {seconds:.0f} s") from None
            except ConnectionClosed as error:
                raise DemoFailed(f"{what}: the domain has ended") from error
            data = message.encode() if isinstance(message, str) else message
            show(data)
            self._seen += data.replace(b"\r", b"")
        seen, self._seen = self._seen, b""
        return seen

    def run(self, command: str) -> str:
        """Types a command; the lines between it and the next prompt."""
        self._websocket.send(command.encode() + b"\n")
        lines = self.until_prompt(COMMAND_SECONDS, command).decode("utf-8", "replace").split("\n")
        return "\n".join(line for line in lines[:-1] if line and line != command and not line.endswith(f"# {command}"))

    def drain(self) -> None:
        """Shows what comes until the domain has ended."""
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed, TimeoutError):
            while True:
                message = self._websocket.recv(timeout=END_SECONDS)
                show(message.encode() if isinstance(message, str) else message)


def show(data: bytes) -> None:
    """The guest's output, as it comes."""
    sys.stdout.buffer.write(data.replace(b"\r\n", b"\n").replace(b"\x1b[6n", b""))
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """A line of the demonstration itself."""
    print(f"--- {text}", flush=True)


def fetch() -> Image:
    """Debian's newest kernel and an initramfs, from the cache or from Debian."""
    say("domzero image fetch debian")
    if subprocess.run([sys.executable, "-m", "domzero", "image", "fetch", "debian"], check=False).returncode != 0:
        raise DemoFailed("there is no image to run")
    return ImageCache().find("debian")


@contextmanager
def serving() -> Iterator[Path]:
    """Domain 0 on a socket of its own, and its clean end."""
    with tempfile.TemporaryDirectory(prefix="domzero-") as directory:
        path = Path(directory) / "domzero.sock"
        say(f"domzero serve --socket {path}")
        env = {key: value for key, value in os.environ.items() if key not in ("DOMZERO_SOCKET", "DOMZERO_URL")}
        command = [sys.executable, "-m", "domzero", "serve", "--socket", str(path)]
        process = subprocess.Popen(command, env=env, start_new_session=True)
        try:
            end = time.monotonic() + COMMAND_SECONDS
            while not path.is_socket():
                if process.poll() is not None or time.monotonic() > end:
                    raise DemoFailed("Domain 0 did not start")
                time.sleep(0.02)
            yield path
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            if process.poll() != 0:
                raise DemoFailed(f"Domain 0 ended with status {process.poll()}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def check_answers(shell: GuestShell, image: Image) -> str:
    """Types the two commands and checks what they say; the first answer."""
    uname = shell.run("uname -a")
    release = image.version.split()[0]
    if not re.match(rf"Linux \S+ {re.escape(release)} ", uname):
        raise DemoFailed(f"uname -a said {uname!r}, not Linux {release}")
    hypervisor = shell.run("cat /sys/hypervisor/type")
    if hypervisor.strip() != "xen":
        raise DemoFailed(f"/sys/hypervisor/type is {hypervisor!r}, not 'xen'")
    return uname


def run_domain(dom0: Dom0, image: Image, boot_seconds: float) -> str:
    """From creation to shutdown; what happened, in a few words."""
    body: Json = {
        "name": "debian",
        "kernel": image.kernel,
        "ramdisk": image.ramdisk,
        "cmdline": image.cmdline,
        "memory_mib": MEMORY_MIB,
    }
    say(f"POST /v1/domains  (kernel {image.version}, {MEMORY_MIB} MiB)")
    began = time.monotonic()
    domain = dom0.create(body)
    key = domain["uuid"]
    try:
        with dom0.console(key) as websocket:
            shell = GuestShell(websocket)
            shell.until_prompt(boot_seconds, "boot")
            booted = time.monotonic() - began
            check_answers(shell, image)
            print(flush=True)
            say(f"POST /v1/domains/{key}/shutdown")
            dom0.act(key, "shutdown")
            shell.drain()
        after = dom0.wait_ended(key, END_SECONDS)
        if after["exists"] or (after["exit"] or {}).get("reason") != "poweroff":
            raise DemoFailed(f"no clean shutdown: the domain is {after['state']}")
    except DemoFailed:
        _show_log(dom0, key)
        raise
    return f"Debian {image.version.split()[0]} booted as PV domain {domain['domid']} to a shell in {booted:.1f} s"


def _show_log(dom0: Dom0, key: str) -> None:
    with suppress(DomzeroError):
        end = dom0.domain(key)["exit"]
        print(f"\n--- the domain: {end['message'] if end else 'still there'}; the log:", file=sys.stderr)
        for line in dom0.get("/host/dmesg")["lines"][-40:]:
            print(line, file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make_run", description=__doc__)
    parser.add_argument("--boot-timeout", type=float, default=300.0, metavar="SECONDS")
    args = parser.parse_args(arguments)
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        image = fetch()
        with serving() as path, Dom0(path=str(path)) as dom0:
            what = run_domain(dom0, image, args.boot_timeout)
    except DomzeroError as error:
        print(f"\ndomzero: make run failed: {error}", file=sys.stderr)
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        print("\ndomzero: make run was interrupted", file=sys.stderr)
        return ExitStatus.SIGINT
    say(f"{what}, answered as a Xen guest, and shut down cleanly; {time.monotonic() - began:.1f} s in all")
    return ExitStatus.OK


if __name__ == "__main__":
    sys.exit(main())
