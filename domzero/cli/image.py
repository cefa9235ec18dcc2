# SPDX-License-Identifier: Apache-2.0
"""`domzero image`: guest images in the user's cache."""

from __future__ import annotations

import argparse
import json
import sys

from domzero.cli.status import ExitStatus


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "image",
        help="get guest images and list them",
        description="Guest images: a kernel and a ramdisk each, kept in $XDG_CACHE_HOME/domzero/images.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    fetch = actions.add_parser(
        "fetch",
        help="get the newest kernel of a distribution and build a small initramfs",
        description="Gets the newest kernel through apt (as an ordinary user; nothing is installed) and builds an "
        "initramfs from busybox-static. Does nothing if both are in the cache.",
    )
    fetch.add_argument("name", choices=["debian"], help="which: debian (on Ubuntu, its own kernel)")
    fetch.add_argument("--refresh", action="store_true", help="ask the mirrors what is newest, even if lists are fresh")
    fetch.add_argument("--json", action="store_true", help="print the image as JSON")
    fetch.set_defaults(handler=_fetch)

    listing = actions.add_parser("list", help="list images", aliases=["ls"])
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    listing.set_defaults(handler=_list)

    remove = actions.add_parser("rm", help="delete an image")
    remove.add_argument("name", help="the image, or a distribution: its newest")
    remove.add_argument("--json", action="store_true", help="print the deleted image as JSON")
    remove.set_defaults(handler=_remove)


def _fetch(args: argparse.Namespace) -> int:
    from domzero.dom0.images import fetch_debian

    image, fetched = fetch_debian(lambda text: print(f"domzero: {text}", file=sys.stderr), refresh=args.refresh)
    if args.json:
        print(json.dumps({**image.as_dict(), "fetched": fetched}))
        return ExitStatus.OK
    print(f"{image.name}{'' if fetched else ' (was there already)'}")
    print(f"  kernel   {image.kernel}")
    print(f"  ramdisk  {image.ramdisk}")
    print(f"try: domzero run --image {image.distribution}")
    return ExitStatus.OK


def _list(args: argparse.Namespace) -> int:
    from domzero.dom0.images import ImageCache

    images = ImageCache().images()
    if args.json:
        print(json.dumps([image.as_dict() for image in images]))
        return ExitStatus.OK
    if not images:
        print("no images; `domzero image fetch debian` gets one", file=sys.stderr)
        return ExitStatus.OK
    width = max(len(image.name) for image in images)
    for image in images:
        print(f"{image.name:<{width}}  {image.version}")
    return ExitStatus.OK


def _remove(args: argparse.Namespace) -> int:
    from domzero.dom0.images import ImageCache

    image = ImageCache().remove(args.name)
    print(json.dumps(image.as_dict()) if args.json else f"deleted {image.name}")
    return ExitStatus.OK
