# SPDX-License-Identifier: Apache-2.0
"""`xl create` and `config-update`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from domzero.cli.api_client import Dom0, domain_path
from domzero.cli.xl.domains import find
from domzero.cli.xl.dry import config_json, text_of
from domzero.cli.xl.grammar import Given, XlError, XlStatus
from domzero.dom0.config import DomainConfig
from domzero.dom0.names import shown
from domzero.errors import ConfigError, ConfigErrors, DomzeroError


def create(dom0: Dom0, given: Given) -> int:
    """`create`: the configuration is read as `domzero create` reads it."""
    from domzero.cli.create import request_body

    if given.has("A"):
        raise XlError("--vncviewer-autopass: a viewer is told no password; it asks, with -V, too")
    quiet = given.has("q")
    path, words = _file_and_words(given, given.words)
    if path is None and not words:
        raise XlError("Config file not specified and none in save file", XlStatus.NO_FILE)
    config = read_config(path, words, quiet=quiet)
    config.paused = given.has("p")
    body = request_body(config)
    if given.dry or given.has("n"):
        print(text_of(config_json(config)))
        return XlStatus.OK
    try:
        domain = dom0.create(body)
    except DomzeroError as error:
        raise XlError(f"xl: error: {error}", XlStatus.NOT_MADE) from None
    if given.has("V"):
        _show(dom0, domain["uuid"])
    if given.has("c"):
        from domzero.cli.attach import attach

        attach(dom0, domain["uuid"])
    if given.has("F"):
        dom0.wait_ended(domain["uuid"])
    return XlStatus.OK


def _show(dom0: Dom0, uuid: str) -> None:
    """Opens the screen in a viewer of its own; what is wrong with that is told: the domain is there."""
    from domzero.cli.screens import start_viewer

    try:
        start_viewer(dom0.get(f"{domain_path(uuid)}/vnc")["address"])
    except DomzeroError as error:
        print(f"xl: error: {error}", file=sys.stderr)


def update(dom0: Dom0, given: Given) -> int:
    """`config-update`: for the domain's next start."""
    from domzero.cli.create import request_body

    if not given.words:
        raise given.wrong("xl config-update requires a domain argument")
    domain = find(dom0, given.words[0])
    path, words = _file_and_words(given, given.words[1:])
    if path is None:
        raise XlError("Config file not specified")
    config = read_config(path, words, quiet=given.has("q"), tells=False)
    if given.dry:
        print(text_of(config_json(config)))
        return XlStatus.OK
    print(f"setting dom{domain['domid']} configuration", file=sys.stderr)
    try:
        dom0.request("PUT", f"{domain_path(domain['uuid'])}/next-config", request_body(config))
    except DomzeroError as error:
        raise XlError(f"xl: error: {error}\nfailed to update configuration") from None
    return XlStatus.OK


def _file_and_words(given: Given, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The configuration file, and the configuration behind it."""
    path, rest = given.last("f"), list(words)
    if path is None and rest and "=" not in rest[0]:
        path = rest.pop(0)
    return path, rest


def read_config(path: str | None, words: Sequence[str], *, quiet: bool, tells: bool = True) -> DomainConfig:
    """What they mean; warnings are told. XlError.

    :param tells: which file is read.
    """
    from domzero.cli.create import from_words

    try:
        config, warnings = from_words(path, words)
    except ConfigError as error:
        if path is not None and error.message.startswith(f"{path}: "):
            raise XlError(f"Failed to read config file: {error.message}", XlStatus.NOT_MADE) from None
        if isinstance(error, ConfigErrors):
            raise XlError("\n".join(f"{path or 'command line'}: {one}" for one in error.errors)) from None
        raise XlError(str(error)) from None
    if not quiet:
        if path is not None and tells:
            print(f"Parsing config from {shown(path)}", file=sys.stderr)
        for warning in warnings:
            print(f"xl: warning: {shown(warning)}", file=sys.stderr)
    return config
