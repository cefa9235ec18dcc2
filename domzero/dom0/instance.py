# SPDX-License-Identifier: Apache-2.0
"""One start of a domain: its hypervisor, its memory and its back ends, from its kernel to its end.

It has no policy: what comes after the end is decided by `lifecycle.DomainSession` in `domzero run`, and by
`manager.Manager` in Domain 0.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from domzero import _machine
from domzero.abi.xen import PAGE_SHIFT
from domzero.builder.domain import SLACK_PAGES, RingPage, build_domain
from domzero.builder.files import FILE_MAX, read_open
from domzero.builder.image import KernelImage, load_kernel, read_kernel
from domzero.builder.layout import Layout, plan
from domzero.dom0.backends.block import use_disk
from domzero.dom0.backends.channels import DomainChannels
from domzero.dom0.backends.disks import DomainDisks
from domzero.dom0.backends.p9 import DomainShares, use_share
from domzero.dom0.backends.vifs import DomainVifs
from domzero.dom0.backends.vkbd import DomainDisplay
from domzero.dom0.config import DomainConfig
from domzero.dom0.console import Console, ConsoleRing
from domzero.dom0.console_io import ConsoleLink
from domzero.dom0.console_relay import OpenConsole
from domzero.dom0.coredump import write_core
from domzero.dom0.cpuspec import parse_cpus
from domzero.dom0.diskspec import DiskSpec
from domzero.dom0.domain_image import SavedImage, limits_of, write_image
from domzero.dom0.emergency import EmergencyConsole
from domzero.dom0.life import DomainState, End, EndReason
from domzero.dom0.open_files import DomainFiles, open_domain
from domzero.dom0.sharespec import ShareSpec
from domzero.dom0.vifspec import VifSpec
from domzero.dom0.vnc.listener import OpenScreen
from domzero.dom0.vnc.png import encode_png
from domzero.dom0.wire import Wire
from domzero.dom0.xenstore import RingBackend
from domzero.dom0.xenstore.remote import StoreApi
from domzero.dom0.xenstore_nodes import write_nodes
from domzero.errors import ConfigError, DomzeroError, ResourceError
from domzero.hypervisor.capture import go_on
from domzero.hypervisor.clock import Clock, VirtualClock
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.emulate.cpu_policy import policy
from domzero.hypervisor.engine import Engine
from domzero.hypervisor.evtchn import BackendPort
from domzero.hypervisor.host import Host
from domzero.hypervisor.saved import SaveError


class Instance:
    """Made by `build`; paused until `unpause`. Methods may be called from any thread but a vCPU's."""

    def __init__(
        self,
        host: Host,
        domain: Domain,
        layout: Layout | None,
        pages: tuple[RingPage, RingPage],
        console: Console,
        rings: tuple[RingBackend, ConsoleRing],
        ports: tuple[BackendPort, ...],
        emergency: EmergencyConsole,
        disks: DomainDisks,
        vifs: DomainVifs,
        shares: DomainShares,
        channels: DomainChannels,
        screen: DomainDisplay | None,
        link: ConsoleLink | None,
    ) -> None:
        self.host = host
        self.domain = domain
        self.layout = layout
        self._pages_of_rings = pages
        self.built_at = time.monotonic()
        self._console = console
        self._store_ring, self._console_ring = rings
        self._ports = ports
        self._emergency = emergency
        self.disks = disks
        self.vifs = vifs
        self.shares = shares
        self._channels = channels
        self.screen = screen
        self._console_link = link
        self._lock = threading.RLock()
        self._is_paused = True
        self._forced: EndReason | None = None
        self._stood_still = threading.Event()
        self._instructions = 0
        self._end: End | None = None
        self._lived_s = 0.0
        self._is_closed = False
        self._dumps = 0
        self._dumped = threading.Condition(self._lock)

    @classmethod
    def build(
        cls,
        config: DomainConfig,
        store: StoreApi,
        console: Console,
        *,
        domid: int,
        log: Callable[[str], None] | None = None,
        clock: Clock | None = None,
        image: KernelImage | None = None,
        files: DomainFiles | None = None,
        saved: int | None = None,
        progress: Callable[[float], None] = lambda _: None,
    ) -> Instance:
        """Reads the images, makes a hypervisor with the domain in it, and its back ends; writes its nodes.

        :param store: what `domid` will find in xenstore; introducing and releasing it is the caller's.
        :param image: its kernel; read from `config.kernel` when not given.
        :param files: all that it is made of; opened when not given. What is left of it is closed.
        :param saved: an open file (`save_format`): the domain goes on from what is in there, and no kernel is started.
        :param progress: is told how much of it is read, of 1.
        :raises DomzeroError: a bad image, or something is used up; nothing is left then.
        """
        if clock is None and config.engine == Engine.CHECK.value:
            clock = VirtualClock()
            config.seed = config.seed or 0
        if isinstance(clock, VirtualClock):
            _check_repeatable(config)
        with _refusals(config), ExitStack() as undo:
            files = files or open_domain(config, domid, kernel=False)
            undo.callback(files.close)
            for note in files.notes:
                if log is not None:
                    log(f"(DOM0) {note}")
            source = SavedImage(saved, config, progress) if saved is not None else _load(config, image, files)
            wires = list(zip(config.vif_specs, files.wires, strict=True))
            disks = []
            for spec, opened in zip(config.disk_specs, files.disks, strict=True):
                disks.append((spec, use_disk(spec, opened)))
                undo.callback(disks[-1][1].close)
            shares = []
            for share, fd in zip(config.share_specs, files.take_shares(), strict=True):
                shares.append((share, use_share(share, fd)))
                undo.callback(shares[-1][1].close)
            host = _host(config, source, clock, log)
            undo.callback(host.close)
            consoles, views = files.consoles, files.screens
            instance = cls._build(
                host, config, source, disks, wires, shares, consoles, views, store, console, domid, log
            )
            undo.pop_all()
            consoles.clear()
            files.wires.clear()
            files.close()
            return instance

    @classmethod
    def _build(
        cls,
        host: Host,
        config: DomainConfig,
        source: SavedImage | tuple[KernelImage, bytes],
        disks: list[tuple[DiskSpec, _machine.BlockDisk]],
        wires: list[tuple[VifSpec, Wire]],
        shares: list[tuple[ShareSpec, _machine.Share]],
        consoles: list[OpenConsole],
        views: list[OpenScreen],
        store: StoreApi,
        console: Console,
        domid: int,
        log: Callable[[str], None] | None,
    ) -> Instance:
        domain, store_page, console_page, layout = _make(host, config, source, domid)
        domain.set_cap(config.cap)
        if config.time_offset_s:
            domain.set_time_offset(config.time_offset_s)
        for vcpu, text in zip(domain.vcpus, config.cpus, strict=False):
            vcpu.pin(parse_cpus(text))
        ends = iter(consoles)
        main = next(ends) if config.console else None
        write_nodes(store, config, domid, store_page, console_page, tty="" if main is None else main.tty)
        connection = store.connect(domid)
        store_ring, store_port = store_page.connect(lambda page, notify: RingBackend(page, connection, notify))
        emergency = EmergencyConsole(domid, console, lambda: console_ring.used, log)
        console_ring, console_port = console_page.connect(
            lambda page, notify: ConsoleRing(page, console, notify, output=emergency.unrepeated)
        )
        domain.console_sink = emergency.write
        console.attach(console_ring)
        rings = (store_ring, console_ring)
        devices = DomainDisks(store, domain)
        for spec, disk in disks:
            devices.plug(spec, disk)
        vifs = DomainVifs(store, domain, config.uuid)
        for vif, wire in wires:
            vifs.plug(vif, wire)
        directories = DomainShares(store, domain)
        for spec_of_share, share in shares:
            directories.plug(spec_of_share, share)
        channels = DomainChannels(store, domain)
        for channel, end in zip(config.channel_specs, ends, strict=True):
            channels.plug(channel, end)
        screen = None
        for vfb in config.vfb_specs:
            screen = DomainDisplay(store, domain)
            screen.plug(vfb, views.pop(0) if vfb.vnc else None, config.name)
        link = None if main is None else ConsoleLink(console, main.sock)
        ports = (store_port, console_port)
        back_ends = (devices, vifs, directories, channels, screen)
        return cls(host, domain, layout, (store_page, console_page), console, rings, ports, emergency, *back_ends, link)

    @property
    def domid(self) -> int:
        """Its number."""
        return self.domain.domid

    @property
    def end(self) -> End | None:
        """How it ended, once it has."""
        return self._end

    @property
    def lived_s(self) -> float:
        """Seconds from the end of its building to its end, or to now."""
        return self._lived_s if self._end is not None else time.monotonic() - self.built_at

    @property
    def instructions(self) -> int:
        """Executed by its vCPUs until its end; 0 before that."""
        return self._instructions

    @property
    def state(self) -> DomainState:
        """What it is doing now."""
        end = self._end
        if end is not None:
            return end.state
        domain = self.domain
        if domain.shutdown_code is not None:
            return End.of_shutdown(domain.shutdown_code).state
        if domain.pause_count:
            return DomainState.PAUSED
        is_idle = all(vcpu.is_blocked or vcpu.is_down for vcpu in domain.vcpus)
        return DomainState.BLOCKED if is_idle else DomainState.RUNNING

    @property
    def memory_mib(self) -> int:
        """Memory that the domain has now, in MiB; what it has given back and still uses counts."""
        return self.domain.hw.frames_owned >> (20 - PAGE_SHIFT)

    def limit_memory(self, mib: int) -> None:
        """Lets the domain have so much memory (XEN_DOMCTL_max_mem), of what it was built for; it keeps what it has."""
        with self.host.lock:
            self.domain.max_pages = _pages(mib) + SLACK_PAGES

    def pause(self) -> None:
        """Stops the vCPUs until `unpause`; nothing happens if they are stopped."""
        with self._lock:
            if not self._is_paused and not self._is_closed:
                self._is_paused = True
                self.domain.pause()

    def unpause(self) -> None:
        """Lets the vCPUs run; nothing happens if they do."""
        with self._lock:
            if self._is_paused and not self._is_closed:
                self._is_paused = False
                self.domain.unpause()

    def destroy(self, reason: EndReason) -> None:
        """Ends it at once, unless it has ended; `wait` returns.

        :param reason: one of those that are forced.
        """
        with self._lock:
            if self._is_closed or self._forced is not None or self.domain.shutdown_code is not None:
                return
            self._forced = reason
            self.domain.log(f"ended from outside: {reason.value}")
        self.domain.stop_threads()
        self._stood_still.set()

    def wait(self) -> End:
        """Waits for the end; no vCPU is in the guest any more then, and its last words are in the console."""
        domain = self.domain
        code = domain.wait()
        if code is None and self._forced is not None:
            self._stood_still.wait()
        with self._lock:
            if self._end is None:
                self._lived_s = time.monotonic() - self.built_at
                if code is not None:
                    domain.pause()  # returns when no vCPU is in the guest any more
                    domain.back_ends.settle()
                self.drain()
                if not self._is_closed:
                    self._instructions = sum(vcpu.hw.instructions for vcpu in domain.vcpus)
                self._end = (
                    End(self._forced or EndReason.DESTROYED)
                    if code is None
                    else End.of_shutdown(code, tuple(domain.crash_report))
                )
            return self._end

    def go_on(self) -> None:
        """Lets a guest go on that has suspended itself, as if it had not been suspended after all. SaveError."""
        with self._lock:
            if self._is_closed or self._end is None:
                raise SaveError("the guest has not suspended itself")
            go_on(self.domain)
            self._end = None
            self.domain.unpause()  # `wait` has paused it

    def save(self, fd: int, *, cancelled: threading.Event, progress: Callable[[float], None]) -> int:
        """Writes it, once it has suspended itself, into a file that Domain 0 has begun (`save_format`).

        :returns: bytes of the file.
        :raises DomzeroError: it could not be written, or was cancelled.
        """
        store, console = self._pages_of_rings
        with self._in_file():
            if self._end is None:
                raise SaveError("the guest has not suspended itself")
            return write_image(self.domain, store, console, fd, cancelled=cancelled, progress=progress)

    def drain(self) -> None:
        """Takes the last words of a domain whose vCPUs have stopped."""
        with self._lock:
            if not self._is_closed:
                self._console_ring.drain()
                self._channels.drain()
                self._console.output(self._emergency.unfinished())
                self._emergency.finish()

    def audit(self) -> list[str]:
        """Where the hypervisor's books are wrong (`Host.audit`); nothing when all has been given back."""
        with self._lock:  # it is not taken apart meanwhile
            return [] if self._is_closed else self.host.audit()

    def dump_core(self, fd: int) -> int:
        """Writes its core dump into an empty file; the vCPUs stand still meanwhile. It may have ended.

        :returns: bytes of the file.
        :raises DomzeroError: it could not be written, or all has been given back.
        """
        with self._in_file():
            self.domain.pause()
            try:
                return write_core(self.domain, fd)
            finally:
                self.domain.unpause()

    @contextmanager
    def _in_file(self) -> Iterator[None]:
        """While it is written to a file, it is not taken apart. DomzeroError: that fails."""
        with self._lock:
            if self._is_closed:
                raise DomzeroError("the domain is not there any more")
            self._dumps += 1
        try:
            yield
        except OSError as error:
            raise DomzeroError(f"the file could not be written: {error.strerror}") from error
        finally:
            with self._lock:
                self._dumps -= 1
                self._dumped.notify_all()

    def add_viewer(self, sock: socket.socket) -> None:
        """Shows its screen to whoever is at the other end; it takes the socket. ConfigError: it has no screen."""
        if self.screen is None:
            sock.close()
            raise ConfigError("the domain has no framebuffer", key="vfb")
        self.screen.server.add(sock, is_known=True)

    def take_picture(self, fd: int) -> tuple[int, int, int]:
        """Writes what its screen shows to an empty file, as PNG.

        :returns: width and height in pixels, bytes of the file.
        :raises ConfigError: it has no screen.
        """
        if self.screen is None:
            raise ConfigError("the domain has no framebuffer", key="vfb")
        width, height, pixels = self.screen.display.picture()
        data = encode_png(width, height, pixels)
        os.truncate(fd, 0)
        os.pwrite(fd, data, 0)
        return width, height, len(data)

    def close(self, *, process_ends: bool = False) -> None:
        """Gives back all that it has.

        :param process_ends: its memory goes with this process at once, and need not be taken apart page table by page
            table before.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._dumped.wait_for(lambda: self._dumps == 0)
            self.disks.close()
            self.vifs.close()
            self.shares.close()
            self._channels.close()
            if self.screen is not None:
                self.screen.close()
            self._console.attach(None)
            self._console_ring.close()
            self._store_ring.close()
            for port in self._ports:
                port.close()
            if self._console_link is not None:
                self._console_link.close()
            if not process_ends:
                self.host.close()


def _pages(mib: int) -> int:
    return mib << (20 - PAGE_SHIFT)


def _host(
    config: DomainConfig,
    source: SavedImage | tuple[KernelImage, bytes],
    clock: Clock | None,
    log: Callable[[str], None] | None,
) -> Host:
    if not isinstance(source, SavedImage):
        return Host(config.static_max_mib, clock=clock, seed=config.seed, log=log)
    if clock is not None:
        raise ConfigError("a saved domain does not go on in virtual time", key="engine")
    saved = source.saved
    return Host(0, seed=config.seed, log=log, frames=saved.machine_frames, start_ns=saved.system_time_ns)


def _make(
    host: Host, config: DomainConfig, source: SavedImage | tuple[KernelImage, bytes], domid: int
) -> tuple[Domain, RingPage, RingPage, Layout | None]:
    """The domain, its rings of store and console, and where its builder has put what."""
    if isinstance(source, SavedImage):
        return *source.restore(host, domid), None
    image, ramdisk = source
    built = build_domain(
        host,
        image,
        pages=_pages(config.memory_mib),
        max_pages=_pages(config.static_max_mib),
        vcpus=config.vcpus_max,
        cmdline=config.cmdline,
        ramdisk=ramdisk,
        name=config.name,
        uuid=config.uuid,
        domid=domid,
        limits=limits_of(config),
        # Linux's 9pfs front end takes neighbours in its memory for neighbours in the machine.
        has_extents=bool(config.shares),
        engine=Engine(config.engine),
        cpu=policy(config.cpu, config.cpuid),
    )
    return built.domain, built.store, built.console, built.layout


def _check_repeatable(config: DomainConfig) -> None:
    """A run with virtual time is the same again: ConfigError for what cannot be."""
    hint = "leave it out, or use the host's time"
    if config.vifs:
        raise ConfigError("what comes from a network is not the same with each run", key="vif", hint=hint)
    if config.localtime:
        raise ConfigError("the host's time zone is not the same everywhere", key="localtime", hint=hint)
    if config.shares:
        raise ConfigError("what is in a directory of the host is not the same with each run", key="p9", hint=hint)
    if config.console or config.channels or config.vfbs:
        raise ConfigError("what is typed is not the same with each run", key="channel", hint=hint)
    if config.cap:
        raise ConfigError("the processor time that a cap bounds is not the same with each run", key="cap", hint=hint)
    if any(spec.limits.words() for spec in config.disk_specs):
        raise ConfigError("the host's time, in which a disk is bounded, is not the same", key="disk", hint=hint)


def _load(config: DomainConfig, image: KernelImage | None, files: DomainFiles) -> tuple[KernelImage, bytes]:
    """Reads the images and checks that they fit, before anything is made."""
    limit = min(FILE_MAX, config.memory_mib << 20)
    ramdisk = b""
    if files.ramdisk is not None:
        ramdisk = read_open(files.ramdisk, config.ramdisk or "", "ramdisk", limit)
    if image is None:  # in this process the next start may find it in memory
        image = load_kernel(config.kernel) if files.kernel is None else read_kernel(files.kernel, config.kernel)
    plan(image, _pages(config.memory_mib), len(ramdisk))
    return image, ramdisk


@contextmanager
def _refusals(config: DomainConfig) -> Iterator[None]:
    """What this machine cannot give is one clear error, whoever says so: the kernel, Python, or the machine crate."""
    try:
        yield
    except DomzeroError:
        raise
    except (MemoryError, OverflowError, OSError, _machine.MachineError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "thread" not in str(error):
            raise
        reason = str(error) or type(error).__name__
        raise ResourceError(
            f"a domain of {config.static_max_mib} MiB could not be made: {reason}",
            key="memory",
            hint="see `free -m`, `ulimit -v`, `ulimit -f` and `ulimit -u`",
        ) from error


__all__ = ["Instance"]
