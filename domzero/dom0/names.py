# SPDX-License-Identifier: Apache-2.0
"""Names of domains: which can be had, and which word means which domain."""

from __future__ import annotations

import uuid

from domzero.errors import ConfigError

NAME_MAX = 128
"""Characters."""
DOMAIN_0 = "Domain-0"


def is_domid(text: str) -> bool:
    """Whether a word is a domid wherever a domain is asked for: digits only, as in xl."""
    return text.isascii() and text.isdecimal()


def as_uuid(text: str) -> uuid.UUID | None:
    """The uuid that a word is in any of its usual spellings, or None."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def is_text(text: str) -> bool:
    """Whether a string can be written as UTF-8 and given to C: no lone surrogates, no NUL."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def name_fault(name: str) -> str | None:
    """Why a domain cannot have this name, or None.

    A name stands in xenstore, in paths of URLs and on terminals, and is told apart from domids and uuids.
    """
    if not name:
        return "a name has at least one character"
    if len(name) > NAME_MAX:
        return f"at most {NAME_MAX} characters"
    if not name.isprintable():
        return "only printable characters, without controls and direction marks"
    if "/" in name or name in (".", ".."):
        return "without '/', and not '.' or '..'"
    if name != name.strip():
        return "without blanks at its ends"
    if is_domid(name):
        return "digits alone are a domid"
    if as_uuid(name) is not None:
        return "it reads as a uuid"
    return None


def check_name(name: str) -> None:
    """Raises ConfigError for what cannot be a name."""
    fault = name_fault(name)
    if fault is not None:
        raise ConfigError(fault, key="name")


def shown(text: str) -> str:
    """Text of a guest for a terminal: what is not printable is shown as an escape, as `\\x1b`; a tab stays."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)
