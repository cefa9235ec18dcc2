# SPDX-License-Identifier: Apache-2.0
"""The verbs for a domain's screen."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import NoReturn

from domzero.cli.api_client import Dom0, domain_path
from domzero.cli.status import ExitStatus
from domzero.cli.verb import add_domain, add_verb, answer
from domzero.errors import ConfigError


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds them."""
    parser = add_verb(subparsers, "screenshot", screenshot, "write what a domain's screen shows to a PNG file")
    add_domain(parser)
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="(default: the standard output)")

    parser = add_verb(subparsers, "vncviewer", vncviewer, "show where a domain's screen is, or open it")
    add_domain(parser)
    parser.add_argument("--open", action="store_true", help="run vncviewer (DOMZERO_VNCVIEWER) with it")


def vncviewer(args: argparse.Namespace) -> int:
    """`vncviewer`."""
    with Dom0.from_args(args) as dom0:
        screen = dom0.get(f"{domain_path(args.domain)}/vnc")
    if args.open:
        open_viewer(screen["address"])
    where = screen["address"] or "only Domain 0 shows it"
    return answer(args, screen, f"{where}{' (it asks for its password)' if screen['password'] else ''}")


def open_viewer(address: str | None) -> NoReturn:
    """Becomes a viewer. ConfigError: there is none, or nothing to look at."""
    command = _viewer(address)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise _no_viewer(command, address, error) from error


def start_viewer(address: str | None) -> None:
    """Starts a viewer beside this process, which it outlives. As `open_viewer`."""
    command = _viewer(address)
    try:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        raise _no_viewer(command, address, error) from error


def _viewer(address: str | None) -> list[str]:
    if address is None:
        raise ConfigError("the domain has a screen without VNC", key="vfb", hint="`domzero screenshot` shows it")
    host, _, port = address.rpartition(":")
    program = os.environ.get("DOMZERO_VNCVIEWER", "vncviewer")
    return [program, port if host == "unix" else f"{host}::{port}"]


def _no_viewer(command: list[str], address: str | None, error: OSError) -> ConfigError:
    return ConfigError(f"{command[0]}: {error.strerror}", hint=f"open {address} with a viewer of your own")


def screenshot(args: argparse.Namespace) -> int:
    """`screenshot`."""
    with Dom0.from_args(args) as dom0:
        data = dom0.request("GET", f"{domain_path(args.domain)}/screenshot").content
    if args.output == "-":
        sys.stdout.buffer.write(data)
        return ExitStatus.OK
    with open(args.output, "wb") as file:
        file.write(data)
    return answer(args, {"file": os.path.abspath(args.output), "bytes": len(data)}, None)
