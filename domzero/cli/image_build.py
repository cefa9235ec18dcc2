# SPDX-License-Identifier: Apache-2.0
"""`domzero image build` and `domzero image seed`: who a machine is, and who may use it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from domzero.cli.first_boot import add_documents, add_options, documents_of, first_boot_of
from domzero.cli.progress import ProgressLines
from domzero.cli.signals import ended_by_signals
from domzero.cli.status import ExitStatus

_BUILD = """\
Makes a bootable disk with Debian on it: systemd, a login on the console, openssh, DHCP on its network interfaces. Needs
no root and no loop devices, only Debian's mmdebstrap, e2fsprogs and fdisk; an ordinary user also needs uidmap. Packages
are downloaded once and kept in the cache; an image of this name that was made with the same options is left as it is.
"""
_BUILD_EPILOG = """\
Without --user it is root that logs in; without --password and --ssh-key no password is asked for, on the console only.

examples:
  domzero image build debian && domzero run --image debian-disk
  domzero image build debian --name web --hostname web --user me --ssh-key ~/.ssh/id_ed25519.pub --packages nginx
  domzero image build debian --name big --size 20G --run 'systemctl disable ssh'
"""
_SEED = """\
Writes a small drive that tells a cloud image (one with cloud-init) at its first start who it is and who may use it:
cloud-init's NoCloud data source. Give it to the domain as a second disk; `domzero run --image NAME --user ...` makes
and keeps one by itself. Disks of `domzero image build` need none.
"""


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the two actions."""
    build = actions.add_parser(
        "build",
        help="make a bootable disk with Debian on it",
        description=_BUILD,
        epilog=_BUILD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    build.add_argument("what", choices=["debian"], metavar="debian", help="which distribution: debian")
    what = build.add_argument_group("the disk")
    what.add_argument("--name", default="debian-disk", help="name of the image (default: %(default)s)")
    what.add_argument(
        "--size", default="4G", metavar="SIZE", help="of the disk; takes room as it is used (default: 4G)"
    )
    what.add_argument(
        "--suite",
        default="bookworm",
        help="release of Debian (default: %(default)s; trixie is known to start, too)",
    )
    what.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="URL",
        help="take packages from there (default: as apt does here)",
    )
    what.add_argument("--packages", action="append", default=[], metavar="NAME,…", help="more packages to install")
    what.add_argument(
        "--kernel-package",
        default="linux-image-amd64",
        metavar="NAME",
        help="which kernel (default: %(default)s; linux-image-cloud-amd64 is smaller, and has no 9p)",
    )
    add_options(build, hostname="debian", run="run this shell command in it while it is built")
    how = build.add_argument_group("how")
    how.add_argument("--refresh", action="store_true", help="build it again, with the newest packages")
    how.add_argument("--replace", action="store_true", help="build it in the place of another image of this name")
    how.add_argument("--json", action="store_true", help="print the image as JSON")
    build.set_defaults(handler=_build)

    seed = actions.add_parser(
        "seed",
        help="make a drive that configures a cloud image at its first start",
        description=_SEED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    seed.add_argument("file", help="the ISO image to write; replaced if it is there")
    add_options(seed, hostname="guest", run="run this shell command at its first start")
    add_documents(seed)
    seed.add_argument("--json", action="store_true", help="print what was made as JSON")
    seed.set_defaults(handler=_seed)


def _build(args: argparse.Namespace) -> int:
    from domzero.dom0.images.debian_base import make_recipe
    from domzero.dom0.images.debian_disk import DiskRecipe, build_debian
    from domzero.dom0.images.options import check_image_name, parse_size
    from domzero.dom0.images.store import DiskStore

    packages = [name for words in args.packages for name in words.replace(",", " ").split()]
    name, size, first = check_image_name(args.name), parse_size(args.size), first_boot_of(args)
    recipe = DiskRecipe(make_recipe(args.suite, args.mirror, packages, args.kernel_package), first, size)
    lines = ProgressLines()
    with ended_by_signals(once=True):
        try:
            image, built = build_debian(
                DiskStore(),
                name,
                recipe,
                progress=lines.line,
                meter=lines.meter,
                refresh=args.refresh,
                replace=args.replace,
            )
        finally:
            lines.clear()
    if args.json:
        print(json.dumps({"kind": "disk", **image.as_dict(), "built": built}))
        return ExitStatus.OK
    print(f"{image.name}{'' if built else ' (was there already)'}")
    print(f"  disk     {image.disk} ({image.size / (1 << 30):g} GiB)")
    print(
        f"  login    {first.login}{'' if first.password or first.ssh_keys else ', without a password, on the console'}"
    )
    print(f"try: domzero run --image {image.name}")
    return ExitStatus.OK


def _seed(args: argparse.Namespace) -> int:
    from domzero.dom0.images.seed import make_seed

    target = Path(args.file)
    make_seed(target, documents_of(args, first_boot_of(args)))
    print(json.dumps({"file": str(target.absolute())}) if args.json else f"{target}: give it to a domain as a disk")
    return ExitStatus.OK
