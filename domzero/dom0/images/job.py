# SPDX-License-Identifier: Apache-2.0
"""Images made for Domain 0, in a process of their own: `python -m domzero.dom0.images.job PARENT_PID`.

Its standard input is a request as JSON, its standard output lines of JSON: `step` (what is done now), and at the end
`image` (its name) or `error`. SIGTERM gives it up, and so does the end of Domain 0; what is half made is deleted then,
as when `domzero image build` is interrupted. A thread of Domain 0 could not be given up, and what comes from elsewhere
(packages, disks) is none of its business.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from domzero.dom0.images.debian import fetch_debian
from domzero.dom0.images.debian_base import BaseRecipe, check_packages, make_recipe
from domzero.dom0.images.debian_disk import DiskRecipe, build_debian
from domzero.dom0.images.disks import import_disk
from domzero.dom0.images.grub import fetch_pvgrub
from domzero.dom0.images.options import FirstBoot, check_image_name, parse_size
from domzero.dom0.images.store import DiskStore
from domzero.dom0.parent import die_with
from domzero.errors import ConfigError, DomzeroError, ImageError

_STEP_MAX = 200
_GIVE_UP_S = 20.0
"""Seconds for the tidying after SIGTERM."""
_LINE_MAX = 1 << 16


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def _step(text: str) -> None:
    _say(step=text[:_STEP_MAX])


def _meter(what: str, part: float) -> None:
    _step(f"{what}: {part:.0%}")


def _fetch(request: dict[str, Any]) -> str:
    return fetch_debian(_step, refresh=request["refresh"])[0].name


def _build(request: dict[str, Any]) -> str:
    first, size = check_build(request)
    name, recipe = request["name"], DiskRecipe(make_recipe(request["suite"], (), request["packages"]), first, size)
    return build_debian(DiskStore(), name, recipe, progress=_step, meter=_meter)[0].name


def check_build(request: dict[str, Any]) -> tuple[FirstBoot, int]:
    """What is built for whom, and how large. Raises ConfigError for what cannot be, before apt is asked."""
    check_image_name(request["name"])
    first = FirstBoot(request["hostname"], request["user"], tuple(request["ssh_keys"]), request["password"])
    size = parse_size(request["size"])
    DiskRecipe(BaseRecipe(), first, size).check()
    check_packages(request["packages"])
    return first, size


def _import(request: dict[str, Any]) -> str:
    _step("copying the disk")
    found = import_disk(
        DiskStore(),
        Path(request["file"]),
        request["name"],
        format=request["format"],
        uploaded=request.get("uploaded"),
        is_shared=request.get("is_shared", False),
    )
    with suppress(ImageError):  # it is looked for again when a domain starts from it
        fetch_pvgrub(_step)
    return found.image.name


_KINDS = {"fetch": _fetch, "build": _build, "import": _import}


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once: what follows is the tidying
    raise SystemExit(128 + number)


def main() -> int:
    """The process."""
    signal.signal(signal.SIGTERM, _leave)
    die_with(int(sys.argv[1]), signal.SIGTERM)
    request = json.load(sys.stdin)
    try:
        _say(image=_KINDS[request["kind"]](request))
    except DomzeroError as error:
        config = isinstance(error, ConfigError)
        _say(error=error.message, key=error.key, hint=error.hint, config=config)
    return 0


async def run(request: dict[str, Any], step: Callable[[str], None]) -> str:
    """Has an image made, and returns its name. Who cancels this waits until nothing of it is left.

    :param request: `kind` (fetch, build, import), and what that needs.
    :param step: takes what is done now.
    :raises ConfigError, ImageError: as the functions that make images do.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "domzero.dom0.images.job", str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LINE_MAX,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
        last: dict[str, Any] = {}
        async for line in process.stdout:
            last = json.loads(line)
            if "step" in last:
                step(last["step"])
        await process.wait()
    finally:
        await asyncio.shield(_end(process))
    if "image" in last:
        return str(last["image"])
    if "error" not in last:
        raise ImageError(f"what makes images has ended with status {process.returncode}")
    kind = ConfigError if last["config"] else ImageError
    raise kind(last["error"], key=last["key"], hint=last["hint"])


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _GIVE_UP_S)
    except (TimeoutError, asyncio.TimeoutError):
        process.kill()
        await process.wait()


if __name__ == "__main__":
    sys.exit(main())
