"""A worker: the process that one domain lives in, with its ring 0, its vCPUs and its backends.

`python -m domzero.dom0.worker CONTROL_FD GUEST_FD TOOLSTACK_FD PARENT_PID`, started by `workers.Worker`. It does what
the control socket says (see `control`), and ends with that socket, or with its parent.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time

from domzero.dom0.console import Console
from domzero.dom0.control import Json, Kind, config_from_json, decode_json, encode_json, error_to_json
from domzero.dom0.framing import FrameDecoder, encode_frame
from domzero.dom0.guest import Guest
from domzero.dom0.xenstore import RemoteStore
from domzero.dom0.xenstore.relay import RelayConnection
from domzero.errors import ConfigError, DomzeroError

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_CHUNK = 64 * 1024


class ControlChannel:
    """The socket to the Domain 0 process. Sending is safe from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._decoder = FrameDecoder()

    def send(self, kind: Kind, payload: bytes) -> None:
        """Sends a frame; when there is nobody left to send it to, the process ends."""
        try:
            with self._lock:
                self._sock.sendall(encode_frame(kind, payload))
        except OSError:
            os._exit(0)

    def send_json(self, message: Json) -> None:
        """Sends a message."""
        self.send(Kind.JSON, encode_json(message))

    def send_console(self, data: bytes) -> None:
        """Sends the guest's output."""
        for start in range(0, len(data), _CHUNK):
            self.send(Kind.CONSOLE, data[start : start + _CHUNK])

    def log(self, line: str) -> None:
        """Sends a line of the hypervisor's log."""
        self.send_json({"event": "log", "line": line})

    def frames(self) -> list[tuple[int, bytes]]:
        """Waits for bytes; the whole frames among them. EOFError at the end."""
        data = self._sock.recv(_CHUNK)
        if not data:
            raise EOFError
        return self._decoder.feed(data)


class Worker:
    """Carries out what Domain 0 asks."""

    def __init__(self, control: ControlChannel, guest_sock: socket.socket, toolstack_sock: socket.socket) -> None:
        self._control = control
        self._store = RemoteStore(
            RelayConnection(toolstack_sock, name="toolstack"), RelayConnection(guest_sock, name="guest")
        )
        self._console = Console()
        self._console.add_sink(control.send_console)
        self._guest: Guest | None = None
        self._input: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # bounded by Domain 0, which waits for `input`
        threading.Thread(target=self._type, name="console-input", daemon=True).start()

    def run(self) -> None:
        """Until the control socket closes or says stop."""
        try:
            while True:
                for kind, payload in self._control.frames():
                    if kind == Kind.CONSOLE:
                        self._input.put(payload)
                    elif not self._request(decode_json(payload)):
                        return
        except (EOFError, ConnectionError):
            return

    def _request(self, message: Json) -> bool:
        op = message.get("op")
        answer: Json = {"id": message.get("id")}
        try:
            answer["result"] = self._do(str(op), message)
        except DomzeroError as error:
            answer["error"] = error_to_json(error)
        except Exception as error:
            logger.exception("a fault of the worker")  # to stderr, which Domain 0 keeps
            answer["error"] = {"message": f"a fault of the worker: {type(error).__name__}: {error}"}
        self._control.send_json(answer)
        return op != "stop"

    def _do(self, op: str, message: Json) -> Json:
        if op == "start":
            if self._guest is not None:
                raise ConfigError("this worker has its domain already")
            config = config_from_json(message["config"])
            self._guest = Guest(
                config, int(message["domid"]), self._store, self._console, log=self._control.log, on_exit=self._exited
            )
            self._guest.start()
            return {}
        if op == "stop":
            if self._guest is not None:
                self._guest.stop()
            return {}
        if self._guest is None:
            raise DomzeroError("there is no domain yet")
        if op == "pause":
            self._guest.pause()
            return {}
        if op == "unpause":
            self._guest.unpause()
            return {}
        if op == "stats":
            return self._guest.stats()
        if op == "audit":
            return self._guest.audit()
        raise DomzeroError(f"unknown request: {op}")

    def _exited(self, reason: str, message: str) -> None:
        self._control.send_json(
            {"event": "exit", "reason": reason, "message": message, "cpu_ns": time.process_time_ns()}
        )

    def _type(self) -> None:
        while True:
            data = self._input.get()
            count = len(data)
            while data:
                data = data[self._console.send(data) :]
                if data:
                    self._console.wait_room(1.0)
            self._control.send_json({"event": "input", "bytes": count})


def _die_with(parent: int) -> None:
    """Asks the kernel to end this process with its parent, also if that is killed."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def main(arguments: list[str]) -> int:
    """Entry point."""
    control_fd, guest_fd, toolstack_fd, parent = (int(argument) for argument in arguments)
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    socks = [socket.socket(fileno=fd) for fd in (control_fd, guest_fd, toolstack_fd)]
    for sock in socks:
        sock.set_inheritable(False)
    Worker(ControlChannel(socks[0]), socks[1], socks[2]).run()
    sys.stderr.flush()
    # Threads of vCPUs and relays need not be waited for: all that they hold goes with the process.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
