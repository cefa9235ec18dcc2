# SPDX-License-Identifier: Apache-2.0
"""What is kept of a domain beside its configuration: for people and programs that manage it."""

from __future__ import annotations

from dataclasses import dataclass, field

from domzero.errors import ConfigError

LABELS_MAX = 256
LABEL_KEY_MAX = 255
LABEL_VALUE_MAX = 64 << 10
DESCRIPTION_MAX = 4096


@dataclass(slots=True, kw_only=True)
class About:
    """What Domain 0 keeps of a domain beside its configuration.

    :param autostart: it starts with Domain 0.
    :param template: it is there to be cloned, and does not start.
    :param labels: for whoever manages it; nothing here depends on them (XenAPI's other_config).
    """

    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    autostart: bool = False
    template: bool = False

    def check(self) -> None:
        """Raises ConfigError for what is too long."""
        if len(self.description) > DESCRIPTION_MAX:
            raise ConfigError(f"at most {DESCRIPTION_MAX} characters", key="description")
        check_labels(self.labels)


def check_labels(labels: dict[str, str]) -> None:
    """Raises ConfigError for too many labels, or too long ones."""
    if len(labels) > LABELS_MAX:
        raise ConfigError(f"at most {LABELS_MAX} labels", key="labels")
    for key, value in labels.items():
        if not 0 < len(key) <= LABEL_KEY_MAX or len(value) > LABEL_VALUE_MAX:
            what = f"keys of 1 to {LABEL_KEY_MAX} characters, values of at most {LABEL_VALUE_MAX}"
            raise ConfigError(what, key="labels")
