# SPDX-License-Identifier: Apache-2.0
"""`domzero image`: kernels and disks to start domains from."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from domzero.cli import image_build, image_upkeep
from domzero.cli.status import ExitStatus

_DESCRIPTION = """\
What domains start from. Kernels with a small ramdisk (fetch) are kept in $XDG_CACHE_HOME/domzero/images, since they can
be fetched again; disks (build, import, clone) are kept in $XDG_DATA_HOME/domzero/images. `domzero run --image NAME`
starts either; a domain that starts from a disk writes to it, so clone those that are to stay as they are.
"""
_FORMATS = "raw, qcow2, vhd, vhdx, vmdk, vdi, qed"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "image",
        help="get and make images, and list them",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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

    image_build.register(actions)

    bring = actions.add_parser(
        "import",
        help="bring a disk in from a file",
        description="Copies a disk into the store: a distribution's cloud image, for one. Raw disks stay raw; other "
        "formats become qcow2 (with qemu-img). GRUB's PV kernel will look for the kernel in it.",
    )
    bring.add_argument("file", help="the disk")
    bring.add_argument("--name", help="name of the image (default: the file's)")
    bring.add_argument("--format", metavar="FORMAT", help=f"{_FORMATS} (default: by its first bytes)")
    bring.add_argument("--replace", action="store_true", help="put it in the place of another image of this name")
    bring.add_argument("--json", action="store_true", help="print the image as JSON")
    bring.set_defaults(handler=_import)

    export = actions.add_parser(
        "export", help="write a disk to a file", description="Writes an image's disk to a file, with all it rests on."
    )
    export.add_argument("name", help="the image")
    export.add_argument("file", help="the file; must not be there")
    export.add_argument("--format", metavar="FORMAT", default="raw", help=f"{_FORMATS} (default: raw)")
    export.add_argument("--json", action="store_true", help="print what was written as JSON")
    export.set_defaults(handler=_export)

    clone = actions.add_parser(
        "clone",
        help="make another image with the same contents, at once",
        description="Makes an image with the same contents in well under a second: blocks are shared until one of the "
        "two writes them. Where neither the file system nor qemu-img can do that, it is a copy.",
    )
    clone.add_argument("name", help="the image; not in use")
    clone.add_argument("new", help="name of the clone")
    clone.add_argument("--json", action="store_true", help="print the clone as JSON")
    clone.set_defaults(handler=_clone)

    listing = actions.add_parser("list", help="list images", aliases=["ls"])
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    listing.set_defaults(handler=_list)

    show = actions.add_parser("show", help="show all about an image, or a disk's file")
    show.add_argument("name", help="the image, a distribution (its newest kernel), or a file that could be imported")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    show.set_defaults(handler=_show)

    image_upkeep.register(actions)

    remove = actions.add_parser("remove", help="delete an image", aliases=["rm"])
    remove.add_argument("name", help="the image, or a distribution: its newest kernel")
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


def _import(args: argparse.Namespace) -> int:
    from domzero.cli.progress import ProgressLines
    from domzero.dom0.images.disks import import_disk
    from domzero.dom0.images.grub import fetch_pvgrub
    from domzero.dom0.images.store import DiskStore

    file = Path(args.file)
    lines = ProgressLines()
    name = args.name if args.name is not None else file.stem
    found = import_disk(DiskStore(), file, name, format=args.format, replace_old=args.replace)
    fetch_pvgrub(lines.line)
    image, table = found.image, found.table
    if args.json:
        partitions = None if table is None else table.as_dict()
        print(json.dumps({"kind": "disk", **image.as_dict(), "partitions": partitions}))
        return ExitStatus.OK
    if table is not None and not table.may_be_linux:
        lines.line(f"warning: none of {image.name}'s partitions looks like a Linux system's")
    print(image.name)
    print(f"  disk     {image.disk} ({image.size / (1 << 30):.3g} GiB, {image.format})")
    if table is not None:
        count = len(table.partitions)
        print(f"  on it    {'no partition table' if table.label is None else f'{table.label}, {count} partitions'}")
    print(f"try: domzero run --image {image.name}")
    return ExitStatus.OK


def _export(args: argparse.Namespace) -> int:
    from domzero.dom0.images.disks import export_disk
    from domzero.dom0.images.store import DiskStore

    target = Path(args.file)
    export_disk(DiskStore(), args.name, target, args.format)
    made = {"file": str(target.absolute()), "format": args.format, "bytes": target.stat().st_size}
    print(json.dumps(made) if args.json else f"{target} ({args.format})")
    return ExitStatus.OK


def _clone(args: argparse.Namespace) -> int:
    from domzero.dom0.images.disks import clone_disk
    from domzero.dom0.images.store import DiskStore

    image = clone_disk(DiskStore(), args.name, args.new)
    print(json.dumps({"kind": "disk", **image.as_dict()}) if args.json else f"{image.name}, a clone of {args.name}")
    return ExitStatus.OK


def _list(args: argparse.Namespace) -> int:
    from domzero.dom0.images.kernels import all_kernels
    from domzero.dom0.images.store import DiskStore

    disks, kernels = DiskStore().images(), all_kernels()
    if args.json:
        found = [{"kind": "kernel", **image.as_dict()} for image in kernels]
        print(json.dumps([*found, *({"kind": "disk", **disk.as_dict()} for disk in disks)]))
        return ExitStatus.OK
    rows = [(disk.name, "disk", f"{disk.size / (1 << 30):.3g} GiB, {disk.origin}") for disk in disks]
    rows += [(image.name, "kernel", image.version) for image in kernels]
    if not rows:
        print("no images; `domzero image fetch debian` gets a kernel, `build debian` makes a disk", file=sys.stderr)
        return ExitStatus.OK
    width = max(len(name) for name, _, _ in rows)
    for name, kind, text in rows:
        print(f"{name:<{width}}  {kind:<6}  {text}")
    return ExitStatus.OK


def _show(args: argparse.Namespace) -> int:
    from domzero.dom0.images.cache import Image
    from domzero.dom0.images.disks import describe, describe_file
    from domzero.dom0.images.lookup import find_image
    from domzero.dom0.images.store import DiskStore
    from domzero.dom0.images.upkeep import is_file

    if is_file(args.name):
        about = describe_file(Path(args.name))
    else:
        image = find_image(args.name)
        about = {"kind": "kernel", **image.as_dict()} if isinstance(image, Image) else describe(DiskStore(), image)
    if args.json:
        print(json.dumps(about, indent=2))
        return ExitStatus.OK
    for key, value in about.items():
        text = value if isinstance(value, str) else json.dumps(value)
        print(f"{key:<13}: {text}")
    return ExitStatus.OK


def _remove(args: argparse.Namespace) -> int:
    from domzero.dom0.images.cache import Image
    from domzero.dom0.images.kernels import remove_kernel
    from domzero.dom0.images.lookup import find_image
    from domzero.dom0.images.store import DiskStore

    found = find_image(args.name)
    image = remove_kernel(found) if isinstance(found, Image) else DiskStore().remove(found.name)
    print(json.dumps(image.as_dict()) if args.json else f"deleted {image.name}")
    return ExitStatus.OK
