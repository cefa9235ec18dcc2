# SPDX-License-Identifier: Apache-2.0
"""Specifications of shared directories: xl.cfg's `p9 = [...]` (xl.cfg(5)) and `--share`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from domzero.dom0.names import is_text, shown
from domzero.errors import ConfigError

HELP = (
    "a directory for the guest: tag=NAME,path=DIR[,writable]; it mounts it by "
    "`mount -t 9p -o trans=xen,version=9p2000.L NAME /mnt`"
)
EXAMPLE = "for instance 'tag=share,path=/srv/share', or 'tag=share,path=/srv/share,writable'"
SHARES_MAX = 16

_TAG = re.compile(r"[A-Za-z0-9_./-]{1,31}", re.ASCII)
_MODELS = ("mapped", "mapped-xattr", "mapped-file", "passthrough")
_REFUSED = ("backend", "type", "max-files", "max-open-files", "max-space", "auto-delete")


@dataclass(slots=True, frozen=True)
class ShareSpec:
    """One shared directory.

    :param devid: its number in xenstore: 0, 1, ...
    :param tag: what the guest mounts.
    :param path: the directory of the host.
    """

    devid: int
    tag: str
    path: str
    writable: bool = False

    def text(self, path: str) -> str:
        """The same with another path, as a specification."""
        return f"tag={self.tag},path={path}{',writable' if self.writable else ''}"


def parse_share(text: str, index: int = 0) -> ShareSpec:
    """Understands xl's `key=value` parts between commas, and `writable`.

    :param index: how many shares there are before it.
    :raises ConfigError: with the reason.
    """
    if not is_text(text):
        raise _refused(shown(text), "a path is UTF-8 text without NUL")
    words: dict[str, str] = {}
    writable = False
    for part in (each.strip(" ") for each in text.split(",")):
        key, equals, value = part.partition("=")
        if not part:
            continue
        if part == "writable":
            writable = True
        elif key in _REFUSED and equals:
            raise _refused(text, f"{key} is not supported")
        elif key not in ("tag", "path", "security_model") or not equals:
            raise _refused(text, f"what is {part!r}?")
        elif words.setdefault(key, value) != value:
            raise _refused(text, f"{key} is given twice")
    model = words.get("security_model", "none")
    if model in _MODELS:
        raise _refused(text, f"security_model={model} is not supported", "security_model=none, which is the default")
    if model != "none":
        raise _refused(text, f"no such security_model: {model!r} (none)")
    tag, path = words.get("tag", ""), words.get("path", "")
    if not _TAG.fullmatch(tag):
        what = f"no tag: {tag!r}" if tag else "there is no tag"
        raise _refused(text, what, "tag=NAME: up to 31 letters, digits, '_', '-', '.' and '/'")
    if not path:
        raise _refused(text, "there is no path")
    return ShareSpec(index, tag, path, writable)


def parse_shares(texts: list[str]) -> Iterator[ShareSpec | ConfigError]:
    """Each specification, or what is wrong with it; two shares with one tag are wrong."""
    seen: dict[str, str] = {}
    if len(texts) > SHARES_MAX:
        yield ConfigError(f"{len(texts)} shared directories: {SHARES_MAX} are possible", key="p9")
        return
    for index, text in enumerate(texts):
        try:
            spec = parse_share(text, index)
            if spec.tag in seen:
                raise _refused(text, f"{spec.tag} is taken by {seen[spec.tag]!r}")
        except ConfigError as error:
            yield error
            continue
        seen[spec.tag] = text
        yield spec


def _refused(text: str, what: str, hint: str = EXAMPLE) -> ConfigError:
    return ConfigError(f"{text[:200]!r}: {what}", key="p9", hint=hint)
