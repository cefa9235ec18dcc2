# SPDX-License-Identifier: Apache-2.0
"""Options that say who a machine is, and who may use it: of `image build`, `image seed`, `run` and `create`."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import TYPE_CHECKING

from domzero.errors import ConfigError

if TYPE_CHECKING:
    from domzero.dom0.images.options import FirstBoot
    from domzero.dom0.images.seed import Documents

_KEYS = "a public key, or a file of them, that may log in; may be repeated"
_DOCUMENT_MAX = 1 << 20
_OPTIONS = ("hostname", "user", "ssh_key", "password", "run", "user_data", "network_config")


def add_options(parser: argparse.ArgumentParser, *, hostname: str | None, run: str) -> None:
    """Adds those that every such verb has.

    :param hostname: default; None stands for the image's name.
    :param run: what --run does.
    """
    who = parser.add_argument_group("who it is, and who may use it")
    default = "the image's name" if hostname is None else hostname
    who.add_argument("--hostname", default=hostname, metavar="NAME", help=f"its host name (default: {default})")
    who.add_argument("--user", metavar="NAME", help="an account with sudo that logs in instead of root")
    who.add_argument("--ssh-key", action="append", default=[], metavar="KEY|FILE", help=_KEYS)
    who.add_argument("--password", metavar="TEXT", help="the account's password; '-' asks, or reads a line of stdin")
    who.add_argument("--run", action="append", default=[], metavar="COMMAND", help=f"{run}; may be repeated")


def add_documents(parser: argparse.ArgumentParser) -> None:
    """Adds those for cloud-init's own documents."""
    own = parser.add_argument_group("cloud-init's own documents")
    own.add_argument("--user-data", metavar="FILE", help="its user-data, instead of --user and what belongs to that")
    own.add_argument("--network-config", metavar="FILE", help="its network-config (default: DHCP)")


def first_boot_of(args: argparse.Namespace, hostname: str = "guest") -> FirstBoot:
    """What the options ask for. ConfigError or ImageError.

    :param hostname: when none is given.
    """
    from domzero.dom0.images.options import FirstBoot, read_ssh_keys

    keys = [key for word in args.ssh_key for key in read_ssh_keys(word)]
    password = _ask_password() if args.password == "-" else args.password
    name = hostname if args.hostname is None else args.hostname
    first = FirstBoot(name, args.user, tuple(keys), password, tuple(args.run))
    first.check()
    return first


def documents_of(args: argparse.Namespace, first: FirstBoot) -> Documents:
    """Documents for cloud-init. ConfigError or ImageError."""
    from domzero.dom0.images.seed import Documents, check_network_config, check_user_data, user_data

    if args.user_data is None:
        user = user_data(first)
    elif first.user or first.ssh_keys or first.password or first.run:
        raise ConfigError("it says all that --user, --ssh-key, --password and --run would", key="user-data")
    else:
        user = check_user_data(_text_of(args.user_data, "user-data"))
    network = None
    if args.network_config is not None:
        network = check_network_config(_text_of(args.network_config, "network-config"))
    return Documents(user, first.hostname, network)


def seed_image(args: argparse.Namespace) -> None:
    """Keeps what the options say, if any, with the image that a domain starts from. ConfigError or ImageError."""
    if not any(getattr(args, name) for name in _OPTIONS):
        return
    from domzero.dom0.images.lookup import find_image
    from domzero.dom0.images.seed import keep_seed

    if args.image is None:
        raise ConfigError("--hostname, --user and so on are for the cloud image that --image names", key="image")
    image = find_image(args.image)
    keep_seed(image, documents_of(args, first_boot_of(args, hostname=image.name)))


def _text_of(path: str, what: str) -> str:
    from domzero.builder.files import read_file

    try:
        return read_file(path, what, _DOCUMENT_MAX).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text", key=what) from error


def _ask_password() -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        return getpass.getpass("Password for the new machine: ")
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line.strip("\n"):
        raise ConfigError("there is no line on stdin", key="password")
    return line.rstrip("\n")
