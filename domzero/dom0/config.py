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
    :param memory_mib: memory in MiB.
    :param seed: seed of the host's entropy and of the machine frame order; None draws one.
    """

    kernel: str
    name: str = ""
    uuid: uuid_module.UUID = field(default_factory=uuid_module.uuid4)
    ramdisk: str | None = None
    cmdline: str = ""
    memory_mib: int = 256
    vcpus: int = 1
    on_poweroff: Action = Action.DESTROY
    on_reboot: Action = Action.RESTART
    on_crash: Action = Action.DESTROY
    on_watchdog: Action = Action.DESTROY
    seed: int | None = None
    paused: bool = False
    engine: str = "auto"
    disks: list[str] = field(default_factory=list)
    vifs: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raises ConfigError, with the key at fault, for what cannot be a domain. Does not open files."""
        if not self.kernel:
            raise ConfigError("no kernel given", key="kernel")
        if not MEMORY_MIN_MIB <= self.memory_mib <= MEMORY_MAX_MIB:
            raise ConfigError(
                f"{self.memory_mib} MiB is not possible: {MEMORY_MIN_MIB} to {MEMORY_MAX_MIB} MiB", key="memory"
            )
        if not 1 <= self.vcpus <= VCPUS_MAX:
            raise ConfigError(f"{self.vcpus} is not possible: 1 to {VCPUS_MAX}", key="vcpus")
        if len(self.cmdline.encode()) > CMDLINE_MAX or "\0" in self.cmdline:
            raise ConfigError(f"at most {CMDLINE_MAX} bytes, without NUL", key="cmdline")
        if not self.name:
            self.name = Path(self.kernel).name[:NAME_MAX] or "domain"
        if len(self.name) > NAME_MAX or any(c in "/\0\n" for c in self.name):
            raise ConfigError(f"at most {NAME_MAX} characters, without '/'", key="name")
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
