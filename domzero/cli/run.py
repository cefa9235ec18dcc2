# SPDX-License-Identifier: Apache-2.0
"""`domzero run`: one domain in the foreground, its console on stdin and stdout, its end in the exit status."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from domzero.cli.domain_type import add_type, choose_type, console_of, options_of
from domzero.cli.first_boot import add_documents, add_options, seed_image
from domzero.cli.signals import wait
from domzero.cli.status import ExitStatus
from domzero.dom0.channelspec import HELP as CHANNEL_HELP
from domzero.dom0.channelspec import PTY, PTY_HELP
from domzero.dom0.diskspec import HELP as DISK_HELP
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.names import shown
from domzero.dom0.sharespec import HELP as SHARE_HELP
from domzero.dom0.vfbspec import HELP as VFB_HELP
from domzero.dom0.vifspec import HELP as VIF_HELP
from domzero.errors import ConfigError, DomzeroError, ImageError
from domzero.hypervisor.emulate.cpu_features import DEFAULT_LEVEL, LEVELS
from domzero.hypervisor.emulate.cpu_policy import CPU_HELP, CPUID_HELP

if TYPE_CHECKING:
    from types import FrameType

    from domzero.cli.terminal import LogWriter
    from domzero.dom0.config import DomainConfig
    from domzero.dom0.life import End, EndReason
    from domzero.dom0.lifecycle import DomainSession
    from domzero.dom0.opener import Opener
    from domzero.dom0.qemu.session import QemuSession
    from domzero.hypervisor.domain import Domain

MEMORY_MIB = 256
_LOG_KEPT = 120
_AUDIT_PERIOD_S = 1.0
_LOG_SECONDS = 1.0
"""For a reader of the log that is behind at the end."""
_GRACE_S = 0.8
"""What is left of a second for an orderly end after SIGINT or SIGTERM."""

_DESCRIPTION = """\
Builds and runs one domain in the foreground. Its console is stdin and stdout: in raw mode on a terminal (Ctrl-]
ends the domain and leaves), as plain lines in a pipe (the end of stdin does not end the guest). Needs no daemon and no
root, and leaves no files behind. What the hypervisor has to say goes to stderr.
"""

_EPILOG = """\
exit status:
  0  the guest powered off         4  it asked for a reboot (--on-reboot exit)
  2  bad usage or bad image        5  it suspended itself
  3  it crashed                    6  its watchdog fired
  124  --timeout has passed        130, 143  ended by SIGINT (Ctrl-C, Ctrl-]), SIGTERM
  1  anything else

examples:
  domzero image fetch debian && domzero run --image debian
  domzero run --kernel vmlinuz --ramdisk initramfs.cpio.gz --cmdline "console=hvc0" --memory 512
  echo 'uname -a; poweroff' | domzero run --image debian --timeout 60
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "run",
        help="build and run one domain in the foreground",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("the domain")
    what.add_argument("--kernel", metavar="FILE", help="PV or PVH kernel: bzImage or ELF")
    what.add_argument("--ramdisk", metavar="FILE", help="initramfs")
    what.add_argument("--image", metavar="NAME", help="a fetched kernel, or a disk, that `domzero image` has")
    what.add_argument("--cmdline", metavar="TEXT", help="kernel command line (default: none; for an image, its own)")
    what.add_argument(
        "--memory", metavar="MiB", type=int, help=f"memory in MiB (default: {MEMORY_MIB}; disk images: 512)"
    )
    what.add_argument("--vcpus", metavar="N", type=int, default=1, help="virtual CPUs (default: %(default)s)")
    what.add_argument("--disk", metavar="SPEC", action="append", default=[], help=DISK_HELP)
    what.add_argument("--vif", metavar="SPEC", action="append", default=[], help=VIF_HELP)
    what.add_argument("--share", metavar="SPEC", action="append", default=[], help=SHARE_HELP)
    what.add_argument("--channel", metavar="SPEC", action="append", default=[], help=CHANNEL_HELP)
    what.add_argument("--vfb", metavar="SPEC", action="append", default=[], help=VFB_HELP)
    what.add_argument("--pty", action="store_true", help=PTY_HELP)
    what.add_argument("--name", default="", help="its name (default: the kernel's)")
    add_type(what)
    add_options(parser, hostname=None, run="run this shell command at its first start")
    add_documents(parser)
    how = parser.add_argument_group("how it runs")
    how.add_argument(
        "--engine",
        choices=["interpreter", "translator", "check", "kvm", "tcg", "auto"],
        default="auto",
        help="what executes guest code (default: the fastest there is); check: both, compared, slowly; "
        "kvm, tcg: for pvh and hvm",
    )
    how.add_argument(
        "--dump-code", metavar="FILE", help="write there what the translator makes of the first vCPU's code"
    )
    how.add_argument("--cpu", choices=list(LEVELS), default=DEFAULT_LEVEL, help=CPU_HELP)
    how.add_argument("--cpuid", metavar="SPEC", action="append", default=[], help=CPUID_HELP)
    how.add_argument("--seed", metavar="N", type=int, help="seed of all randomness of the hypervisor")
    how.add_argument("--timeout", metavar="SECONDS", type=float, help="end the domain after so long")
    how.add_argument(
        "--on-reboot", choices=["restart", "exit"], default="restart", help="when the guest reboots (default: restart)"
    )
    how.add_argument("--on-crash", choices=["restart", "exit"], default="exit", help="when it crashes (default: exit)")
    how.add_argument(
        "--no-confine",
        action="store_true",
        help="leave this process all that it may do, to look for a fault (also DOMZERO_NO_CONFINE=1)",
    )
    how.add_argument(
        "--audit",
        action="store_true",
        help="check the hypervisor's own books every second and at the end; status 1 when something is wrong",
    )
    shown = parser.add_argument_group("what is shown")
    shown.add_argument("-v", "--verbose", action="store_true", help="the hypervisor's log on stderr")
    shown.add_argument("--json", action="store_true", help="how it ended, as a JSON object on the last line of stderr")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """The verb."""
    runner = _Runner(args)
    try:
        return runner.run()
    except DomzeroError as error:
        if not args.json:
            raise
        is_usage = isinstance(error, ConfigError | ImageError)
        status = ExitStatus.USAGE if is_usage else ExitStatus.FAILED
        print(f"domzero: {error}", file=sys.stderr)
        _print_json({"ending": "error", "status": int(status), "key": error.key, "error": error.message})
        return status


def config_of(args: argparse.Namespace) -> DomainConfig:
    """The configuration that the arguments ask for; raises ConfigError."""
    from domzero.dom0.config import Action, DomainConfig

    kernel, ramdisk, cmdline, memory_mib = args.kernel, args.ramdisk, args.cmdline, args.memory
    disks, name = args.disk, args.name
    seed_image(args)
    if args.image is not None:
        from domzero.dom0.images.lookup import start_of

        image = start_of(args.image, lambda text: print(f"domzero: {text}", file=sys.stderr))
        kernel = image.kernel if kernel is None else kernel
        ramdisk = image.ramdisk if ramdisk is None else ramdisk
        cmdline = console_of(args.type, image.cmdline) if cmdline is None else cmdline
        memory_mib = image.memory_mib if memory_mib is None else memory_mib
        disks = [*image.disks, *disks, *image.drives]
        name = name or (args.image if image.disks else "")
    if kernel is None and not disks:
        raise ConfigError("nothing to run: give --kernel FILE, --image NAME or --disk SPEC")
    kind = choose_type(args.type, kernel, disks)
    if kernel is None and kind is DomainType.PV:
        from domzero.dom0.images.grub import fetch_pvgrub

        kernel = str(fetch_pvgrub(lambda text: print(f"domzero: {text}", file=sys.stderr)))
    if args.timeout is not None and not 0 < args.timeout < 1e9:
        raise ConfigError("must be more than 0 seconds", key="timeout")
    config = DomainConfig(
        kernel=kernel or "",
        type=kind,
        hvm=options_of(args),
        name=name,
        ramdisk=ramdisk,
        cmdline=cmdline or "",
        memory_mib=MEMORY_MIB if memory_mib is None else memory_mib,
        vcpus=args.vcpus,
        on_reboot=Action.RESTART if args.on_reboot == "restart" else Action.DESTROY,
        on_crash=Action.RESTART if args.on_crash == "restart" else Action.DESTROY,
        seed=args.seed,
        engine=args.engine,
        cpu=args.cpu,
        cpuid=args.cpuid,
        disks=disks,
        vifs=args.vif,
        shares=args.share,
        channels=args.channel,
        vfbs=args.vfb,
        console=PTY if args.pty else "",
    )
    config.check()
    return config


class _Runner:
    """One run of the command."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._stop = threading.Event()
        self._stopped_by: EndReason | None = None
        self._unsound = False
        self._log_writer: LogWriter | None = None
        self._failure: BaseException | None = None
        self._log: deque[str] = deque(maxlen=_LOG_KEPT)
        self._dump: int | None = None
        """The descriptor that code is dumped to."""
        self._missing: list[str] = []
        """Of its confinement."""
        self._began = time.monotonic()

    def run(self) -> int:
        """Runs the domain; returns the exit status."""
        _fill_standard_fds()
        config = config_of(self._args)
        from domzero.cli.terminal import LogWriter, RawMode, is_terminal

        if self._args.dump_code is not None:
            self._dump = _create(self._args.dump_code)
        opener = self._confine(config)

        if self._args.verbose:
            self._log_writer = LogWriter()
        for what in self._missing:
            self._on_log(f"(DOM0) process {os.getpid()} is not confined by {what}")

        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in signals}
        raw = RawMode(enabled=is_terminal())
        try:
            session = self._session(config, opener)
            with raw:
                end = self._foreground(session, interactive=is_terminal())
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._log_writer is not None:
                self._log_writer.finish(_LOG_SECONDS)
        return self._report(session, end)

    def _confine(self, config: DomainConfig) -> Opener | None:
        """Confines this process, which has one thread, and leaves another one that opens the domain's files."""
        from domzero.dom0 import confinement

        if self._args.no_confine:
            os.environ[confinement.SWITCH] = "1"  # for a QEMU, too
        if not confinement.is_wanted() or config.type.is_full:
            return None  # QEMU has a confinement of its own
        # Nothing is imported later: that opens files.
        from domzero.cli import terminal as _terminal  # noqa: F401
        from domzero.dom0 import console_io as _console_io  # noqa: F401
        from domzero.dom0 import lifecycle as _lifecycle  # noqa: F401
        from domzero.dom0.open_files import open_share
        from domzero.dom0.opener import Opener
        from domzero.hypervisor.engine import Engine, makes_code

        opener = Opener(config)
        shares = [(open_share(share), share.writable) for share in config.share_specs]
        confinement.step_down()
        self._missing = confinement.confine(shares, terminal=True, makes_code=makes_code(Engine(config.engine)))
        return opener

    def _session(self, config: DomainConfig, opener: Opener | None) -> DomainSession | QemuSession:
        if config.type.is_full:
            from domzero.dom0.qemu.session import QemuSession

            return QemuSession(config, log=self._on_log, on_restart=self._on_restart)
        from domzero.dom0.lifecycle import DomainSession

        open_files = None if opener is None else opener.open
        return DomainSession(
            config,
            log=self._on_log,
            on_restart=self._on_restart,
            on_build=None if self._dump is None else self._dump_code,
            open_files=open_files,
        )

    def _dump_code(self, domain: Domain) -> None:
        assert self._dump is not None
        domain.vcpus[0].hw.dump_code(os.dup(self._dump))

    def _foreground(self, session: DomainSession | QemuSession, *, interactive: bool) -> End:
        from domzero.dom0.console import LineFilter
        from domzero.dom0.console_io import InputReader, OutputWriter
        from domzero.dom0.life import End, EndReason

        console = session.console
        output = OutputWriter(
            1,
            transform=bytes if interactive else LineFilter(),
            hold=console.hold,
            release=console.release,
            closed=lambda: self._end(EndReason.CLOSED),
        )
        console.add_sink(output.write)
        # Started in a thread: unpacking takes a second, and a signal must not have to wait for it.
        starter = threading.Thread(target=self._start, args=(session,), name="start", daemon=True)
        starter.start()
        if self._args.audit:
            threading.Thread(target=self._audit_often, args=(session,), name="audit", daemon=True).start()
        escape = (lambda: self._end(EndReason.INTERRUPTED)) if interactive else None
        reader = InputReader(0, send=console.send, wait_room=console.wait_room, escape=escape)
        timeout = self._args.timeout
        in_time = wait(self._stop, None if timeout is None else max(0.0, self._began + timeout - time.monotonic()))
        if not in_time:
            self._end(EndReason.TIMEOUT)
        reader.stop()
        if self._failure is not None:
            raise self._failure
        if self._args.audit:
            self._audit(session)
        reason = self._stopped_by
        self._destroy(session, reason)
        output.finish(10.0 if reason is None else 0.2)
        return session.ending or End(reason or EndReason.DESTROYED)

    def _audit(self, session: DomainSession | QemuSession) -> bool:
        """True when nothing is wrong; else it is said, once."""
        problems = session.audit()
        if problems and not self._unsound:
            self._unsound = True
            for line in problems:
                print(f"domzero: audit: {shown(line)}", file=sys.stderr)
        return not self._unsound

    def _audit_often(self, session: DomainSession | QemuSession) -> None:
        while not self._stop.wait(_AUDIT_PERIOD_S):
            if not self._audit(session):
                from domzero.dom0.life import EndReason

                self._end(EndReason.DESTROYED)

    def _destroy(self, session: DomainSession | QemuSession, reason: EndReason | None) -> None:
        """Ends the domain; a second is all it may take when somebody waits for that."""
        if reason is None:
            session.destroy()
            return
        thread = threading.Thread(target=session.destroy, args=(reason,), name="destroy", daemon=True)
        thread.start()
        thread.join(_GRACE_S)

    def _start(self, session: DomainSession | QemuSession) -> None:
        try:
            session.start()
            self._say_ttys(session)
            session.wait()
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._failure = error
        self._stop.set()

    def _say_ttys(self, session: DomainSession | QemuSession) -> None:
        from domzero.cli.terminal import say
        from domzero.dom0.backends.channels import hosts_consoles

        for console in hosts_consoles(session.store.get, session.config, session.domid):
            if console.place:
                say(f"domzero: console {console.number}{console.name and f' ({console.name})'} is {console.place}")

    def _end(self, reason: EndReason) -> None:
        if self._stopped_by is None and not self._stop.is_set():
            self._stopped_by = reason
        self._stop.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        from domzero.dom0.life import EndReason

        self._end(EndReason.INTERRUPTED if number == signal.SIGINT else EndReason.TERMINATED)

    def _on_restart(self, end: End) -> None:
        from domzero.cli.terminal import say

        say(f"domzero: {_describe(end)}; it is started again")

    def _on_log(self, line: str) -> None:
        if self._log_writer is not None:
            self._log_writer(line)
        else:
            self._log.append(line)

    def _report(self, session: DomainSession | QemuSession, end: End) -> int:
        """Says how it ended; returns the exit status."""
        from domzero.dom0.life import EndReason

        seconds = time.monotonic() - self._began
        if self._unsound:
            print(f"domzero: the hypervisor's books are wrong after {seconds:.1f} s", file=sys.stderr)
            return ExitStatus.FAILED
        if end.reason is EndReason.CRASH:
            for line in self._log:  # the crash report is in there
                print(shown(line), file=sys.stderr)
        if end.reason is not EndReason.POWEROFF or os.isatty(2):
            print(f"domzero: {_describe(end, after_s=seconds)}", file=sys.stderr)
        if self._args.json:
            _print_json(
                {
                    "ending": end.reason.value,
                    "status": end.reason.exit_status,
                    "seconds": round(seconds, 3),
                    "boots": session.boots,
                    "instructions": session.instructions,
                    "detail": list(end.detail),
                }
            )
        return end.reason.exit_status


def _describe(end: End, *, after_s: float | None = None) -> str:
    when = f" after {after_s:.1f} s" if after_s is not None else ""
    return f"{end.reason.words}{when}" + (f": {end.detail[0]}" if end.detail else "")


def _create(path: str) -> int:
    """A file to write, before this process may open none. ConfigError."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(path)}: {error}", key="dump-code") from error


def _fill_standard_fds() -> None:
    """Started with stdin, stdout or stderr closed, the next file opened would take its place: guest memory, even."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _print_json(fields: dict[str, object]) -> None:
    print(json.dumps(fields), file=sys.stderr)
