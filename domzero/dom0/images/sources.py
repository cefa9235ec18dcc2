# SPDX-License-Identifier: Apache-2.0
"""Where the packages of a new Debian come from: the machine's own mirrors of it, those that are named, or Debian's."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from domzero.dom0.images.tools import find_tool, run_tool
from domzero.errors import ConfigError, ImageError

_COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware")
_FIELDS = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"
_CARRIED = ("Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::http::Proxy", "Acquire::https::Proxy")
"""Options without which the machine's mirrors cannot be used."""
SUITE = re.compile(r"[a-z][a-z0-9.-]{0,40}")


def check_mirror(mirror: str, suite: str) -> str:
    """A line of sources.list for a mirror, given as its address or as such a line. Raises ConfigError."""
    if not mirror.isprintable() or not re.match(r"(deb |https?://|file:/|copy:/)", mirror):
        raise ConfigError(f"{mirror[:80]!r} is no mirror", key="mirror", hint="such as http://deb.debian.org/debian")
    return mirror if mirror.startswith("deb ") else f"deb {mirror} {suite} main"


def host_sources(suite: str) -> list[str]:
    """Lines of sources.list for what the machine's own apt has of this suite; none if it is not Debian's."""
    if (apt := find_tool("apt-get")) is None:
        return []
    try:
        command = [apt, "indextargets", "--format", _FIELDS, "Created-By: Packages", "Architecture: amd64"]
        rows = [line.split("|") for line in run_tool(command).splitlines()]
    except ImageError:
        return []
    found: dict[tuple[str, str], list[str]] = {}
    for uri, release, component, origin in (row for row in rows if len(row) == 4):
        wanted = (suite, f"{suite}-updates", f"{suite}-security")
        if origin == "Debian" and release in wanted and component in _COMPONENTS:
            found.setdefault((uri, release), []).append(component)
    if not any(release == suite for _, release in found):
        return []
    return [f"deb {uri} {release} {' '.join(components)}" for (uri, release), components in found.items()]


def apt_options() -> list[str]:
    """The machine's settings of apt that its mirrors need, as lines of apt.conf."""
    if (tool := find_tool("apt-config")) is None:
        return []
    try:
        lines = run_tool([tool, "dump"]).splitlines()
    except ImageError:
        return []
    options = [line for line in lines if line.startswith(tuple(f'{name} "' for name in _CARRIED)) and '""' not in line]
    for variable, name in (("http_proxy", _CARRIED[2]), ("https_proxy", _CARRIED[3])):
        proxy = os.environ.get(variable, "")
        if proxy and '"' not in proxy and not any(line.startswith(f"{name} ") for line in options):
            options.append(f'{name} "{proxy}";')
    return options


def sources_for(suite: str, mirrors: Sequence[str]) -> list[str]:
    """Lines of sources.list; none lets mmdebstrap take Debian's own mirrors."""
    return [check_mirror(mirror, suite) for mirror in mirrors] or host_sources(suite)
