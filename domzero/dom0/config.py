"""What a person asks of a domain: the one configuration that `domzero run`, the API and xl.cfg files all become."""

from __future__ import annotations

import uuid as uuid_module
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from domzero.errors import ConfigError

MEMORY_MIN_MIB = 4
MEMORY_MAX_MIB = 512 * 1024
VCPUS_MAX = 32
EVENT_CHANNELS_MAX = (1 << 17) - 1
"""EVTCHN_FIFO_NR_CHANNELS - 1: the highest port that a guest can use."""
GRANT_FRAMES_MAX = 1024
MAPTRACK_FRAMES_MAX = 1 << 20
CMDLINE_MAX = 1023  # MAX_GUEST_CMDLINE with its terminator
NAME_MAX = 128


class Action(str, Enum):
    """What happens when a domain ends (xl.cfg's on_poweroff, on_reboot, on_crash, on_watchdog)."""

    DESTROY = "destroy"
    RESTART = "restart"
    PRESERVE = "preserve"


@dataclass(slots=True, kw_only=True)
class DomainConfig:
    """A domain to be created.

    :param kernel: path of a PV kernel (bzImage or ELF, possibly compressed).
    :param ramdisk: path of an initramfs, or None.
    :param memory_mib: memory that it starts with, in MiB.
    :param maxmem_mib: memory that its balloon driver may grow it to (xl.cfg's maxmem), in MiB; memory_mib if None.
    :param max_event_channels: the highest event channel port; 1023 is libxl's default.
    :param max_grant_frames: pages of its grant table at most; 64 is Xen's default.
    :param max_maptrack_frames: bounds the grants that it maps: 256 for each frame, as many as it could track.
    :param max_grant_version: 1 or 2, the newest layout of the grant table that it may choose.
    :param seed: seed of the host's entropy and of the machine frame order; None draws one.
    """

    kernel: str
    name: str = ""
    uuid: uuid_module.UUID = field(default_factory=uuid_module.uuid4)
    ramdisk: str | None = None
    cmdline: str = ""
    memory_mib: int = 256
    maxmem_mib: int | None = None
    vcpus: int = 1
    on_poweroff: Action = Action.DESTROY
    on_reboot: Action = Action.RESTART
    on_crash: Action = Action.DESTROY
    on_watchdog: Action = Action.DESTROY
    max_event_channels: int = 1023
    max_grant_frames: int = 64
    max_maptrack_frames: int = 1024
    max_grant_version: int = 2
    seed: int | None = None
    paused: bool = False
    engine: str = "auto"
    disks: list[str] = field(default_factory=list)
    vifs: list[str] = field(default_factory=list)

    @property
    def static_max_mib(self) -> int:
        """Memory that the domain may grow to (xenstore's memory/static-max), in MiB."""
        return self.memory_mib if self.maxmem_mib is None else self.maxmem_mib

    def check(self) -> None:
        """Raises ConfigError, with the key at fault, for what cannot be a domain. Does not open files."""
        if not self.kernel:
            raise ConfigError("no kernel given", key="kernel")
        if not MEMORY_MIN_MIB <= self.memory_mib <= MEMORY_MAX_MIB:
            raise ConfigError(
                f"{self.memory_mib} MiB is not possible: {MEMORY_MIN_MIB} to {MEMORY_MAX_MIB} MiB", key="memory"
            )
        if not self.memory_mib <= self.static_max_mib <= MEMORY_MAX_MIB:
            raise ConfigError(
                f"{self.static_max_mib} MiB is not possible: from the {self.memory_mib} MiB that the domain starts "
                f"with to {MEMORY_MAX_MIB} MiB",
                key="maxmem",
            )
        if not 1 <= self.vcpus <= VCPUS_MAX:
            raise ConfigError(f"{self.vcpus} is not possible: 1 to {VCPUS_MAX}", key="vcpus")
        if len(self.cmdline.encode()) > CMDLINE_MAX or "\0" in self.cmdline:
            raise ConfigError(f"at most {CMDLINE_MAX} bytes, without NUL", key="cmdline")
        if not self.name:
            self.name = Path(self.kernel).name[:NAME_MAX] or "domain"
        if len(self.name) > NAME_MAX or any(c in "/\0\n" for c in self.name):
            raise ConfigError(f"at most {NAME_MAX} characters, without '/'", key="name")
        for key, least, most in (
            ("max_event_channels", 1, EVENT_CHANNELS_MAX),
            ("max_grant_frames", 1, GRANT_FRAMES_MAX),
            ("max_maptrack_frames", 0, MAPTRACK_FRAMES_MAX),
            ("max_grant_version", 1, 2),
        ):
            if not least <= getattr(self, key) <= most:
                raise ConfigError(f"{getattr(self, key)} is not possible: {least} to {most}", key=key)
        if self.engine in ("translator", "kvm"):
            raise ConfigError(
                f"the {self.engine} engine is not here yet", key="engine", hint="use 'interpreter' or 'auto'"
            )
        if self.engine not in ("auto", "interpreter"):
            raise ConfigError(f"no such engine: {self.engine}", key="engine", hint="interpreter, translator, kvm, auto")
        if self.disks:
            raise ConfigError("block devices are not here yet", key="disk")
        if self.vifs:
            raise ConfigError("network interfaces are not here yet", key="vif")
