# SPDX-License-Identifier: Apache-2.0
"""`domzero image build` and `domzero image seed`: who a machine is, and who may use it."""

from __future__ import annotations

import argparse
import getpass
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from domzero.cli.progress import ProgressLines
from domzero.cli.status import ExitStatus
from domzero.errors import ConfigError

if TYPE_CHECKING:
    from domzero.dom0.images.options import FirstBoot

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
cloud-init's NoCloud data source. Give it to the domain as a second disk. Disks of `domzero image build` need none.
"""
_KEYS = "a public key, or a file of them, that may log in; may be repeated"


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
        help="release of Debian (default: %(default)s, the only one that is known to start)",
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
    _add_first_boot(build, hostname="debian", run="run this shell command in it while it is built")
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
    seed.add_argument("--user-data", metavar="FILE", help="cloud-init's user-data, instead of the options below")
    seed.add_argument("--network-config", metavar="FILE", help="cloud-init's network-config (default: DHCP)")
    _add_first_boot(seed, hostname="guest", run="run this shell command at its first start")
    seed.add_argument("--json", action="store_true", help="print what was made as JSON")
    seed.set_defaults(handler=_seed)


def _add_first_boot(parser: argparse.ArgumentParser, *, hostname: str, run: str) -> None:
    who = parser.add_argument_group("who it is, and who may use it")
    who.add_argument("--hostname", default=hostname, help="its host name (default: %(default)s)")
    who.add_argument("--user", metavar="NAME", help="an account with sudo that logs in instead of root")
    who.add_argument("--ssh-key", action="append", default=[], metavar="KEY|FILE", help=_KEYS)
    who.add_argument("--password", metavar="TEXT", help="the account's password; '-' asks, or reads a line of stdin")
    who.add_argument("--run", action="append", default=[], metavar="COMMAND", help=f"{run}; may be repeated")


def first_boot_of(args: argparse.Namespace) -> FirstBoot:
    """What the options ask for; raises ConfigError or ImageError."""
    from domzero.dom0.images.options import FirstBoot, read_ssh_keys

    keys = [key for word in args.ssh_key for key in read_ssh_keys(word)]
    password = _ask_password() if args.password == "-" else args.password
    first = FirstBoot(args.hostname, args.user, tuple(keys), password, tuple(args.run))
    first.check()
    return first


def _ask_password() -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        return getpass.getpass("Password for the new machine: ")
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line.strip("\n"):
        raise ConfigError("there is no line on stdin", key="password")
    return line.rstrip("\n")


def _build(args: argparse.Namespace) -> int:
    from domzero.dom0.images.debian_base import make_recipe
    from domzero.dom0.images.debian_disk import DiskRecipe, build_debian
    from domzero.dom0.images.options import check_image_name, parse_size
    from domzero.dom0.images.store import DiskStore

    packages = [name for words in args.packages for name in words.replace(",", " ").split()]
    name, size, first = check_image_name(args.name), parse_size(args.size), first_boot_of(args)
    recipe = DiskRecipe(make_recipe(args.suite, args.mirror, packages, args.kernel_package), first, size)
    lines = ProgressLines()
    with _ended_by_signals():
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
    from domzero.builder.files import read_file
    from domzero.dom0.images.seed import check_user_data, make_seed, meta_data, user_data

    def text_of(path: str, what: str) -> str:
        try:
            return read_file(path, what, 1 << 20).decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8 text", key=what) from error

    first = first_boot_of(args)
    if args.user_data is not None:
        if first.user or first.ssh_keys or first.password or first.run:
            raise ConfigError("it says all that --user, --ssh-key, --password and --run would", key="user-data")
        user = check_user_data(text_of(args.user_data, "user-data"))
    else:
        user = user_data(first)
    network = None if args.network_config is None else text_of(args.network_config, "network-config")
    target = Path(args.file)
    make_seed(target, user, meta_data(first.hostname), network)
    print(json.dumps({"file": str(target.absolute())}) if args.json else f"{target}: give it to a domain as a disk")
    return ExitStatus.OK


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP come as exceptions, so that what is half made is deleted."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # once: what follows is the tidying
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
