# SPDX-License-Identifier: Apache-2.0
"""`xl create`."""

from __future__ import annotations

import json
import sys

from domzero.cli.api_client import Dom0
from domzero.cli.xl.grammar import Given, XlError, XlStatus
from domzero.errors import ConfigError, ConfigErrors, DomzeroError


def create(dom0: Dom0, given: Given) -> int:
    """`create`: the configuration is read as `domzero create` reads it."""
    from domzero.cli.create import from_words, request_body

    for key, what in (("V", "--vncviewer"), ("A", "--vncviewer-autopass")):
        if given.has(key):
            raise XlError(f"{what}: there is no VNC server yet; -c shows the console")
    quiet = given.has("q")
    words, path = list(given.words), given.last("f")
    if path is None and words and "=" not in words[0]:
        path = words.pop(0)
    if path is None and not words:
        raise XlError("Config file not specified and none in save file", XlStatus.NO_FILE)
    try:
        config, warnings = from_words(path, words)
    except ConfigError as error:
        if path is not None and error.message.startswith(f"{path}: "):
            raise XlError(f"Failed to read config file: {error.message}", XlStatus.NOT_MADE) from None
        if isinstance(error, ConfigErrors):
            raise XlError("\n".join(f"{path or 'command line'}: {one}" for one in error.errors)) from None
        raise XlError(str(error)) from None
    config.paused = given.has("p")
    if not quiet:
        if path is not None:
            print(f"Parsing config from {path}", flush=True)
        for warning in warnings:
            print(f"xl: warning: {warning}", file=sys.stderr)
    body = request_body(config)
    if given.dry or given.has("n"):
        print(json.dumps(body, indent=4))
        return XlStatus.OK
    try:
        domain = dom0.create(body)
    except DomzeroError as error:
        raise XlError(f"xl: error: {error}", XlStatus.NOT_MADE) from None
    if given.has("c"):
        from domzero.cli.attach import attach

        attach(dom0, domain["uuid"])
    if given.has("F"):
        dom0.wait_ended(domain["uuid"])
    return XlStatus.OK
