# SPDX-License-Identifier: Apache-2.0
"""What may be changed of a domain that runs: all that is asked for, or nothing."""

from __future__ import annotations

from dataclasses import dataclass

from domzero.dom0.config import CAP_MAX, MEMORY_MIN_MIB, WEIGHT_MAX
from domzero.dom0.names import check_name
from domzero.dom0.records import Record
from domzero.dom0.xenstore import Store
from domzero.dom0.xenstore_nodes import home, vcpu_nodes
from domzero.errors import ConfigError


@dataclass(slots=True, frozen=True, kw_only=True)
class Changes:
    """What is to be changed; None leaves it as it is.

    :param memory_target_mib: what the guest's balloon driver is asked for, in MiB, and its hypervisor lets it have.
    :param memory_limit_mib: what its hypervisor lets it have, if that is more than the target, in MiB.
    :param cap: of one processor, in percent, that its vCPUs may use together; 0 for as much as there is.
    :param cpu_weight: what it gets of a processor that several domains want, beside their weights.
    :param vcpus: how many of its vCPUs the guest is asked to use.
    """

    name: str | None = None
    memory_target_mib: int | None = None
    memory_limit_mib: int | None = None
    vcpus: int | None = None
    cap: int | None = None
    cpu_weight: int | None = None

    @classmethod
    def of(cls, record: Record) -> Changes:
        """What would make it again as it is now."""
        return cls(
            name=record.name,
            memory_target_mib=record.memory_target_mib,
            memory_limit_mib=record.memory_limit_mib,
            vcpus=record.config.vcpus,
            cap=record.config.cap,
            cpu_weight=record.config.cpu_weight,
        )

    @property
    def needs_guest(self) -> bool:
        """Whether the guest is asked for something: it must run."""
        return not (self.limit_mib is None and self.vcpus is None and self.cap is None and self.cpu_weight is None)

    @property
    def limit_mib(self) -> int | None:
        """The limit that its hypervisor is told: with a new target that is the target, as with xl."""
        return self.memory_target_mib if self.memory_limit_mib is None else self.memory_limit_mib

    def check(self, record: Record) -> None:
        """Raises ConfigError for what this domain cannot have. Whether the name is free is not looked at."""
        if self.name is not None:
            check_name(self.name)
        most = record.config.static_max_mib
        if self.memory_target_mib is not None and not MEMORY_MIN_MIB <= self.memory_target_mib <= most:
            raise ConfigError(
                f"{self.memory_target_mib} MiB is not possible: {MEMORY_MIN_MIB} to the domain's maximum of {most}",
                key="memory_target_mib",
            )
        target = record.memory_target_mib if self.memory_target_mib is None else self.memory_target_mib
        if self.memory_limit_mib is not None and not target <= self.memory_limit_mib <= most:
            raise ConfigError(
                f"{self.memory_limit_mib} MiB is not possible: {target}, which is the domain's memory target, to its "
                f"maximum of {most}",
                key="memory_limit_mib",
            )
        most = record.config.vcpus_max
        if self.vcpus is not None and not 1 <= self.vcpus <= most:
            hint = f"a domain has as many as it was made with (maxvcpus, max_vcpus): {most}"
            raise ConfigError(f"{self.vcpus} is not possible: 1 to {most}", key="vcpus", hint=hint)

        if self.cap is not None and not 0 <= self.cap <= CAP_MAX:
            raise ConfigError(f"{self.cap} is not possible: 0 to {CAP_MAX} percent of a processor", key="cap")
        if self.cpu_weight is not None and not 1 <= self.cpu_weight <= WEIGHT_MAX:
            raise ConfigError(f"{self.cpu_weight} is not possible: 1 to {WEIGHT_MAX}", key="cpu_weight")

    def apply(self, record: Record, store: Store) -> None:
        """Makes them, checked already, but for what its worker has to do; in the definition of a halted domain."""
        config = record.config
        if self.name is not None:
            config.name = self.name
        if self.memory_target_mib is not None:
            record.memory_target_mib = self.memory_target_mib
        if self.limit_mib is not None:
            record.memory_limit_mib = self.limit_mib
        if self.cap is not None:
            config.cap = self.cap
        if self.cpu_weight is not None:
            config.cpu_weight = self.cpu_weight
        if self.vcpus is not None:
            config.vcpus, config.max_vcpus = self.vcpus, config.vcpus_max
        if record.domid is None or record.ending:
            if self.memory_target_mib is not None:
                config.memory_mib, config.maxmem_mib = self.memory_target_mib, config.static_max_mib
        else:
            self._tell_guest(record, record.domid, store)

    def _tell_guest(self, record: Record, domid: int, store: Store) -> None:
        """Writes into xenstore what the guest looks at."""
        if self.name is not None:
            for path in (f"{home(domid)}/name", f"/vm/{record.uuid}/name"):
                if store.exists(path):
                    store.write(path, self.name)
        if self.memory_target_mib is not None:
            store.write(f"{home(domid)}/memory/target", self.memory_target_mib << 10)
        if self.vcpus is not None:
            for path, state in vcpu_nodes(domid, self.vcpus, record.config.vcpus_max):
                store.write(path, state)
