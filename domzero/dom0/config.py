# SPDX-License-Identifier: Apache-2.0
"""What a person asks of a domain: the one configuration that `domzero run`, the API and xl.cfg files all become."""

from __future__ import annotations

import uuid as uuid_module
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from domzero.dom0.channelspec import PTY, ChannelSpec, parse_channels
from domzero.dom0.cpuspec import parse_cpus
from domzero.dom0.diskspec import DiskSpec, is_named, parse_disks
from domzero.dom0.hostfiles import HostFile, Use
from domzero.dom0.hvmspec import ACCELERATORS, NIC_MODELS, DomainType, HvmOptions, Screen
from domzero.dom0.names import NAME_MAX, is_text, name_fault
from domzero.dom0.sharespec import ShareSpec, parse_shares
from domzero.dom0.vfbspec import VfbSpec, parse_vfbs
from domzero.dom0.vifspec import USER, VifSpec, parse_vifs
from domzero.errors import ConfigError, ConfigErrors
from domzero.hypervisor.clock import local_offset_s
from domzero.hypervisor.emulate.cpu_features import DEFAULT_LEVEL
from domzero.hypervisor.emulate.cpu_policy import policy as cpu_policy
from domzero.hypervisor.engine import find as find_engine

MEMORY_MIN_MIB = 4
MEMORY_MAX_MIB = 512 * 1024
VCPUS_MAX = 32
CAP_MAX = 100 * VCPUS_MAX
WEIGHT = 256
"""Of a domain that does not say (xl's default)."""
WEIGHT_MAX = 65535
TIME_OFFSET_MAX_S = (1 << 31) - 1
"""libxl keeps it in an int32_t."""
EVENT_CHANNELS_MAX = (1 << 17) - 1
"""EVTCHN_FIFO_NR_CHANNELS - 1: the highest port that a guest can use."""
EVENT_CHANNELS_MIN = 2
"""The ports of xenstore and the console, which every domain starts with."""
GRANT_FRAMES_MAX = 1024
MAPTRACK_FRAMES_MAX = 1 << 20
CMDLINE_MAX = 1023  # MAX_GUEST_CMDLINE with its terminator


class Action(str, Enum):
    """What happens when a domain ends (xl.cfg's on_poweroff, on_reboot, on_crash, on_watchdog, on_soft_reset)."""

    DESTROY = "destroy"
    RESTART = "restart"
    PRESERVE = "preserve"
    COREDUMP_DESTROY = "coredump-destroy"
    COREDUMP_RESTART = "coredump-restart"

    @property
    def dumps_core(self) -> bool:
        """Whether a core dump comes first."""
        return self in (Action.COREDUMP_DESTROY, Action.COREDUMP_RESTART)

    @property
    def after_dump(self) -> Action:
        """What it is without the core dump."""
        return {Action.COREDUMP_DESTROY: Action.DESTROY, Action.COREDUMP_RESTART: Action.RESTART}.get(self, self)


@dataclass(slots=True, kw_only=True)
class DomainConfig:
    """A domain to be created.

    :param kernel: path of a PV kernel (bzImage or ELF, possibly compressed); without one, and with disks, it is GRUB's.
        A PVH domain needs one with a PVH entry note; an HVM domain needs none, and may have any that QEMU starts.
    :param ramdisk: path of an initramfs, or None.
    :param memory_mib: memory that it starts with, in MiB.
    :param maxmem_mib: memory that its balloon driver may grow it to (xl.cfg's maxmem), in MiB; memory_mib if None.
    :param vcpus: that it starts with, of `max_vcpus` that it may have (xl.cfg's maxvcpus); as many if None.
    :param rtc_timeoffset: seconds that its wall clock is ahead of the host's.
    :param localtime: its wall clock has the host's local time, not UTC, and rtc_timeoffset on top.
    :param cap: of one processor, in percent, that its vCPUs may use together; 0 for as much as there is.
    :param cpu_weight: 1 to 65535: of a processor that several want it gets as much more as its weight is more.
    :param cpus: for each vCPU the processors of the host that it may run on, as xl.cfg(5) has them; all if missing.
    :param disks: specifications of its block devices, as xl-disk-configuration(5) has them.
    :param vifs: specifications of its network interfaces, as xl-network-configuration(5) has them.
    :param shares: specifications of directories of the host for it, as xl.cfg(5) has them under `p9`.
    :param console: "pty": the console is a pty of the host's, too; nothing otherwise.
    :param channels: specifications of further consoles, as xl.cfg(5) has them under `channel`.
    :param vfbs: specifications of its framebuffer, as xl.cfg(5) has them under `vfb`.
    :param max_event_channels: the highest event channel port; 1023 is libxl's default.
    :param max_grant_frames: pages of its grant table at most; 64 is Xen's default.
    :param max_maptrack_frames: bounds the grants that it maps: 256 for each frame, as many as it could track.
    :param max_grant_version: 1 or 2, the newest layout of the grant table that it may choose.
    :param engine: what executes its code: auto, interpreter or translator; auto, kvm or tcg if its machine is QEMU's.
    :param cpu: what its processor has at most: v1, v2 or v3 of x86-64, or max, all that there is on this host.
    :param cpuid: what CPUID shows otherwise, as xl.cfg(5) has it.
    :param seed: seed of the host's entropy and of the machine frame order; None draws one.
    :param type: whether its machine is our own (pv) or QEMU's (pvh, hvm).
    :param hvm: what only an HVM domain has.
    """

    kernel: str
    name: str = ""
    uuid: uuid_module.UUID = field(default_factory=uuid_module.uuid4)
    ramdisk: str | None = None
    cmdline: str = ""
    memory_mib: int = 256
    maxmem_mib: int | None = None
    vcpus: int = 1
    max_vcpus: int | None = None
    on_poweroff: Action = Action.DESTROY
    on_reboot: Action = Action.RESTART
    on_crash: Action = Action.DESTROY
    on_watchdog: Action = Action.DESTROY
    on_soft_reset: Action = Action.DESTROY
    max_event_channels: int = 1023
    max_grant_frames: int = 64
    max_maptrack_frames: int = 1024
    max_grant_version: int = 2
    seed: int | None = None
    paused: bool = False
    engine: str = "auto"
    cpu: str = DEFAULT_LEVEL
    cpuid: list[str] = field(default_factory=list)
    rtc_timeoffset: int = 0
    localtime: bool = False
    cap: int = 0
    cpu_weight: int = WEIGHT
    cpus: list[str] = field(default_factory=list)
    disks: list[str] = field(default_factory=list)
    vifs: list[str] = field(default_factory=list)
    shares: list[str] = field(default_factory=list)
    console: str = ""
    channels: list[str] = field(default_factory=list)
    vfbs: list[str] = field(default_factory=list)
    type: DomainType = DomainType.PV
    hvm: HvmOptions = field(default_factory=HvmOptions)

    @property
    def has_screen(self) -> bool:
        """Whether there is something to look at: a framebuffer, or an HVM domain's display adapter."""
        return bool(self.vfbs) or (self.type is DomainType.HVM and self.hvm.vga is not Screen.NONE)

    @property
    def static_max_mib(self) -> int:
        """Memory that the domain may grow to (xenstore's memory/static-max), in MiB."""
        return self.memory_mib if self.maxmem_mib is None else self.maxmem_mib

    @property
    def vcpus_max(self) -> int:
        """vCPUs that the domain is built with: those beyond `vcpus` wait to be put online."""
        return self.vcpus if self.max_vcpus is None else self.max_vcpus

    @property
    def time_offset_s(self) -> int:
        """Seconds that the domain's wall clock is ahead of the host's, as the host's time zone is now."""
        return self.rtc_timeoffset + (local_offset_s() if self.localtime else 0)

    @property
    def disk_specs(self) -> list[DiskSpec]:
        """The disks, understood; those that cannot be are left out."""
        return [found for found in parse_disks(self.disks) if isinstance(found, DiskSpec)]

    @property
    def vif_specs(self) -> list[VifSpec]:
        """The network interfaces, understood; those that cannot be are left out."""
        return [found for found in parse_vifs(self.vifs) if isinstance(found, VifSpec)]

    @property
    def share_specs(self) -> list[ShareSpec]:
        """The shared directories, understood; those that cannot be are left out."""
        return [found for found in parse_shares(self.shares) if isinstance(found, ShareSpec)]

    @property
    def channel_specs(self) -> list[ChannelSpec]:
        """The channels, understood; those that cannot be are left out."""
        return [found for found in parse_channels(self.channels) if isinstance(found, ChannelSpec)]

    @property
    def vfb_specs(self) -> list[VfbSpec]:
        """The framebuffers, understood; those that cannot be are left out."""
        return [found for found in parse_vfbs(self.vfbs) if isinstance(found, VfbSpec)]

    def host_files(self) -> list[HostFile]:
        """Files and directories of the host that it names, and what they are for."""
        files = [
            HostFile(self.kernel, Use.BOOT),
            HostFile(self.ramdisk or "", Use.BOOT),
            *(HostFile(spec.target, Use.DISK, spec.writable, spec.format.value) for spec in self.disk_specs),
            *(HostFile(spec.path, Use.SHARE, spec.writable) for spec in self.share_specs),
            *(HostFile(spec.path, Use.SOCKET) for spec in self.channel_specs),
            *(HostFile(spec.path, Use.SOCKET) for spec in self.vfb_specs),
        ]
        return [file for file in files if file.path]

    def put_disk(self, devid: int, changed: DiskSpec | None) -> None:
        """Puts a disk's specification in the place of the one with its number, or takes that out."""
        disks = []
        for text, spec in zip(self.disks, self.disk_specs, strict=True):
            if spec.devid != devid:
                # What was named by its place in the list keeps its name without the other.
                disks.append(text if is_named(text) else spec.text(spec.target))
            elif changed is not None:
                disks.append(changed.text(changed.target))
        self.disks = disks

    def put_vif(self, devid: int, changed: VifSpec | None) -> None:
        """As `put_disk`, of a network interface."""
        specs = [changed if spec.devid == devid else spec for spec in self.vif_specs]
        self.vifs = [spec.text() for spec in specs if spec is not None]

    def check(self, *, startable: bool = True) -> None:
        """Raises ConfigErrors, with the keys at fault, for what cannot be a domain. Does not open files.

        :param startable: it has all that it needs to start, a kernel above all.
        """
        if startable and not self.kernel and self.disks and self.type is DomainType.PV:
            from domzero.dom0.images.grub import find_pvgrub  # only who starts from a disk needs it

            self.kernel = str(find_pvgrub() or "")
        if not self.name:
            name = Path(self.kernel).name[:NAME_MAX]
            self.name = name if name_fault(name) is None else "domain"
        errors = [error for error in self._errors() if startable or error.key != "kernel" or self.kernel]
        if errors:
            raise ConfigErrors(errors)

    def _errors(self) -> Iterator[ConfigError]:
        if self.type.is_full:
            yield from self._errors_full()
        elif not self.kernel and self.disks:
            what = "no kernel is given, and GRUB's PV kernel, which would start one from a disk, is not here"
            yield ConfigError(what, key="kernel", hint="apt-get install grub-xen-host, or give a kernel")
        elif not self.kernel:
            yield ConfigError("no kernel given", key="kernel")
        for key, path in (("kernel", self.kernel), ("ramdisk", self.ramdisk or "")):
            if not is_text(path):
                yield ConfigError("a path is UTF-8 text without NUL", key=key)
        if not MEMORY_MIN_MIB <= self.memory_mib <= MEMORY_MAX_MIB:
            what = f"{self.memory_mib} MiB is not possible: {MEMORY_MIN_MIB} to {MEMORY_MAX_MIB} MiB"
            yield ConfigError(what, key="memory")
        elif not self.memory_mib <= self.static_max_mib <= MEMORY_MAX_MIB:
            yield ConfigError(
                f"{self.static_max_mib} MiB is not possible: from the {self.memory_mib} MiB that the domain starts "
                f"with to {MEMORY_MAX_MIB} MiB",
                key="maxmem",
            )
        if not 1 <= self.vcpus <= VCPUS_MAX:
            yield ConfigError(f"{self.vcpus} is not possible: 1 to {VCPUS_MAX}", key="vcpus")
        elif not self.vcpus <= self.vcpus_max <= VCPUS_MAX:
            yield ConfigError(
                f"{self.vcpus_max} is not possible: from the {self.vcpus} that the domain starts with to {VCPUS_MAX}",
                key="maxvcpus",
            )
        if not -TIME_OFFSET_MAX_S <= self.rtc_timeoffset <= TIME_OFFSET_MAX_S:
            what = f"{self.rtc_timeoffset} is not possible: {TIME_OFFSET_MAX_S} seconds at most, either way"
            yield ConfigError(what, key="rtc_timeoffset")
        if not 0 <= self.cap <= CAP_MAX:
            yield ConfigError(f"{self.cap} is not possible: 0 to {CAP_MAX} percent of a processor", key="cap")
        if not 1 <= self.cpu_weight <= WEIGHT_MAX:
            yield ConfigError(f"{self.cpu_weight} is not possible: 1 to {WEIGHT_MAX}", key="cpu_weight")
        for text in dict.fromkeys(self.cpus):
            try:
                parse_cpus(text)
            except ConfigError as error:
                yield error
        if len(self.cpus) > self.vcpus_max:
            yield ConfigError(f"there are {len(self.cpus)} lists for {self.vcpus_max} vCPUs", key="cpus")
        if not is_text(self.cmdline) or len(self.cmdline.encode()) > CMDLINE_MAX:
            yield ConfigError(f"at most {CMDLINE_MAX} bytes of UTF-8 text, without NUL", key="cmdline")
        if fault := name_fault(self.name):
            yield ConfigError(fault, key="name")
        for key, least, most in (
            ("max_event_channels", EVENT_CHANNELS_MIN, EVENT_CHANNELS_MAX),
            ("max_grant_frames", 1, GRANT_FRAMES_MAX),
            ("max_maptrack_frames", 0, MAPTRACK_FRAMES_MAX),
            ("max_grant_version", 1, 2),
        ):
            if not least <= getattr(self, key) <= most:
                yield ConfigError(f"{getattr(self, key)} is not possible: {least} to {most}", key=key)
        if not self.type.is_full:
            try:
                find_engine(self.engine)
            except ConfigError as error:
                yield error
        try:
            cpu_policy(self.cpu, self.cpuid)
        except ConfigError as error:
            yield error
        yield from (found for found in parse_disks(self.disks) if isinstance(found, ConfigError))
        yield from (found for found in parse_vifs(self.vifs) if isinstance(found, ConfigError))
        yield from (found for found in parse_shares(self.shares) if isinstance(found, ConfigError))
        yield from (found for found in parse_channels(self.channels) if isinstance(found, ConfigError))
        yield from (found for found in parse_vfbs(self.vfbs) if isinstance(found, ConfigError))
        if self.console not in ("", PTY):
            yield ConfigError(f"no such console: {self.console[:40]!r}", key="console", hint=f"{PTY}, or leave it out")

    def _errors_full(self) -> Iterator[ConfigError]:
        """What a domain in a machine of QEMU's cannot have."""
        kind = self.type.value
        if self.type is DomainType.PVH and not self.kernel:
            yield ConfigError(
                "a PVH domain needs a kernel", key="kernel", hint='or type="hvm", which starts from disks'
            )
        if self.engine not in ACCELERATORS:
            what = f"no engine of a domain of type {kind}: {self.engine[:40]!r}"
            yield ConfigError(what, key="engine", hint=", ".join(ACCELERATORS))
        for key, given in (
            ("cpuid", self.cpuid),
            ("seed", self.seed is not None),
            ("cap", self.cap),
            ("p9", self.shares),
            ("vfb", self.vfbs if self.type is DomainType.PVH else ()),
        ):
            if given:
                yield ConfigError(f"not for a domain of type {kind}", key=key, hint='leave it out, or type="pv"')
        for spec in self.vif_specs:
            if spec.model and spec.model not in NIC_MODELS:
                what = f"no such model of a network card: {spec.model[:40]!r}"
                yield ConfigError(what, key="vif", hint=", ".join(NIC_MODELS))
            if spec.rate is not None and spec.network == USER:
                what = f"rate={spec.rate.text} on bridge={USER} is not for a domain of type {kind}"
                yield ConfigError(what, key="vif", hint="the switch of a network of domains bounds QEMU's cards")
        yield from self.hvm.errors()
