# SPDX-License-Identifier: Apache-2.0
"""What a domain that runs starts with the next time (`xl config-update`)."""

from __future__ import annotations

from domzero.dom0.config import DomainConfig
from domzero.dom0.manager import BadState, Manager
from domzero.dom0.memory_account import check_growth
from domzero.dom0.records import Record
from domzero.dom0.vfbspec import with_passwords


async def replace_next(manager: Manager, record: Record, config: DomainConfig) -> None:
    """Lets a domain start with another configuration when it is started again; its uuid and its name stay.

    What is changed of it until then is of its present start alone. ConfigError, BadState, ResourceError.
    """
    if not record.is_up:
        raise BadState(f"domain {record.name} is {record.state.value}")
    config.uuid, config.name = record.uuid, record.name
    config.vfbs = with_passwords(config.vfbs, record.config.vfbs)
    config.check()
    check_growth(record, config.memory_mib, manager.all(), key="memory")
    record.next_config = config
    await manager.changed(record)
