# SPDX-License-Identifier: Apache-2.0
"""`domzero image resize` and `domzero image check`."""

from __future__ import annotations

import argparse
import json

from domzero.cli.status import ExitStatus

_RESIZE = """\
Makes an image's disk larger; it takes no more room until the guest writes. Of a raw disk of `image build` the partition
grows, too, and the file system at the next start. In others the guest does both: those with cloud-init at their next
start, elsewhere by `growpart /dev/xvda 1` and `resize2fs /dev/xvda1`.
"""
_CHECK = """\
Checks that an image's file, its tables and what it rests on are sound. File systems are for the guest, or e2fsck, to
check. Exit status 1 when something is wrong.
"""


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the two actions."""
    resize = actions.add_parser(
        "resize",
        help="make a disk larger",
        description=_RESIZE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    resize.add_argument("name", help="the image; not in use")
    resize.add_argument("size", metavar="SIZE", help="such as 20G, or +5G for so much more")
    resize.add_argument("--json", action="store_true", help="print the image as JSON")
    resize.set_defaults(handler=_resize)

    check = actions.add_parser(
        "check",
        help="check a disk's file",
        aliases=["verify"],
        description=_CHECK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("name", help="the image; not in use")
    check.add_argument("--json", action="store_true", help="print what is wrong as JSON")
    check.set_defaults(handler=_check)


def _resize(args: argparse.Namespace) -> int:
    from domzero.dom0.images.store import DiskStore
    from domzero.dom0.images.upkeep import resize_disk

    image = resize_disk(DiskStore(), args.name, args.size)
    text = f"{image.name} ({image.size / (1 << 30):.3g} GiB)"
    print(json.dumps({"kind": "disk", **image.as_dict()}) if args.json else text)
    return ExitStatus.OK


def _check(args: argparse.Namespace) -> int:
    from domzero.dom0.images.store import DiskStore
    from domzero.dom0.images.upkeep import check_disk

    problems = check_disk(DiskStore(), args.name)
    if args.json:
        print(json.dumps({"name": args.name, "problems": problems}))
    else:
        print("\n".join(f"{args.name}: {problem}" for problem in problems) or f"{args.name} is sound")
    return ExitStatus.FAILED if problems else ExitStatus.OK
