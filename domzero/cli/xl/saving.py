# SPDX-License-Identifier: Apache-2.0
"""`xl save` and `xl restore`."""

from __future__ import annotations

from domzero.cli.api_client import Dom0
from domzero.cli.saving import restore_domain, save_domain
from domzero.cli.xl.create import read_config
from domzero.cli.xl.domains import find
from domzero.cli.xl.grammar import Given, XlError, XlStatus
from domzero.dom0.names import shown
from domzero.errors import DomzeroError


def save(dom0: Dom0, given: Given) -> int:
    """`save`."""
    from domzero.cli.create import request_body

    if len(given.words) > 3:
        raise given.wrong("xl save: too many arguments", XlStatus.USAGE)
    domain = find(dom0, given.words[0])
    options: dict[str, object] = {"leave_running": given.has("c"), "leave_paused": given.has("p")}
    if len(given.words) == 3:
        options["config"] = request_body(read_config(given.words[2], [], quiet=False, tells=False))
    print(f"Saving to {shown(given.words[1])} new xl format", flush=True)
    try:
        save_domain(dom0, domain["uuid"], given.words[1], **options)
    except DomzeroError as error:
        raise XlError(f"Failed to save domain, resuming domain\nxl: error: {error}") from None
    return XlStatus.OK


def restore(dom0: Dom0, given: Given) -> int:
    """`restore`: a configuration comes before the file."""
    from domzero.cli.create import request_body

    if len(given.words) > 2:
        raise given.wrong("xl restore: too many arguments", XlStatus.USAGE)
    for key, what in (("V", "--vncviewer"), ("A", "--vncviewer-autopass")):
        if given.has(key):
            raise XlError(f"{what}: not with restore; `xl vncviewer` shows the screen afterwards, -c the console")
    options: dict[str, object] = {"paused": given.has("p")}
    if len(given.words) == 2:
        config = read_config(given.words[0], [], quiet=False)
        options |= {"config": request_body(config), "name": config.name}
    path = given.words[-1]
    print(f"Loading new save file {shown(path)}", flush=True)
    try:
        domain = restore_domain(dom0, path, **options)
    except DomzeroError as error:
        raise XlError(f"xl: error: {error}", XlStatus.NOT_MADE) from None
    if given.has("c"):
        from domzero.cli.attach import attach

        attach(dom0, domain["uuid"])
    if given.has("F"):
        dom0.wait_ended(domain["uuid"])
    return XlStatus.OK
