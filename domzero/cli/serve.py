# SPDX-License-Identifier: Apache-2.0
"""`domzero serve`: Domain 0 as a daemon."""

from __future__ import annotations

import argparse
import os
import sys

from domzero.cli.status import ExitStatus
from domzero.dom0.names import shown
from domzero.errors import ConfigError

DESCRIPTION = """Domain 0: creates, configures and ends domains, for whoever talks to it over HTTP.

It listens on a Unix socket that only you can open ($XDG_RUNTIME_DIR/domzero/domzero.sock, or under ~/.local/state, or
/tmp/domzero-UID), and on loopback TCP if asked to. It runs in the foreground; Ctrl-C, SIGTERM or SIGHUP ends it and
all of its domains. /openapi.json and /docs describe the API.

With --keep-domains they go on without it, also when it is killed, until the same command goes on with them.

Over TCP every request needs a token. It is made anew at each start and kept beside the socket, in a file that only you
can read (tcp-ADDRESS-PORT.token). The verbs find it with --url; others send it as `Authorization: Bearer TOKEN`. A
browser finds a page there, at an address that is printed; it asks for the token, or takes it from `#token=TOKEN`."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "serve",
        help="Domain 0 as a daemon: all other verbs talk to it",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--socket", metavar="PATH", help="listen on this Unix socket (default: DOMZERO_SOCKET, or as above)"
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        help="listen on loopback TCP as well, for who has the token (see above) or is a user; port 0 takes a free one; "
        "with TLS also on other addresses",
    )
    parser.add_argument(
        "--tls",
        action="store_true",
        help="speak TLS over TCP, with a certificate that is made for the address and kept beside the database",
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="speak TLS over TCP with this certificate (chain), PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="its key, PEM (default: in the same file)")
    parser.add_argument(
        "--xenstore-socket",
        metavar="PATH",
        help="serve xenstore's protocol on this Unix socket (default: XENSTORED_PATH, XENSTORED_RUNDIR/socket; else "
        "xenstored's own place if it can be had, or beside Domain 0's socket)",
    )
    parser.add_argument(
        "--database",
        metavar="PATH",
        help="keep definitions, users and the like in this file (default: DOMZERO_DATABASE; else domzero.db in the "
        "state directory, or SOCKET.db with a --socket of your own; `:memory:` keeps nothing)",
    )
    parser.add_argument(
        "--no-confine",
        action="store_true",
        help="leave workers all that this user may do, to look for a fault (also: DOMZERO_NO_CONFINE=1)",
    )
    parser.add_argument(
        "--keep-domains",
        action="store_true",
        help="domains go on when Domain 0 ends or is killed; the next one with the same database goes on with them",
    )
    parser.add_argument(
        "--end-kept-domains",
        action="store_true",
        help="before anything else, end all domains that go on without a Domain 0, also those of another version",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the hypervisor and Domain 0 say")
    parser.set_defaults(handler=handle)


def handle(args: argparse.Namespace) -> int:
    """Runs the daemon."""
    import asyncio
    import logging

    from domzero.dom0 import confinement, tls
    from domzero.dom0.database import MEMORY
    from domzero.dom0.listeners import parse_listen
    from domzero.dom0.paths import database_for, socket_for_serving, xenstore_sockets
    from domzero.dom0.server import serve

    encrypted = args.tls or args.tls_cert is not None
    listen = parse_listen(args.listen, encrypted=encrypted) if args.listen else None
    if listen is None and (encrypted or args.tls_key is not None):
        raise ConfigError("TLS is for --listen", key="tls", hint="the Unix socket leaves this host by no way")
    path = socket_for_serving(args.socket)
    xenstore = xenstore_sockets(args.xenstore_socket, path)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if args.verbose else logging.WARNING, format="domzero: %(message)s"
    )

    def show_controls(record: logging.LogRecord) -> bool:
        """Lines of guests are among them: what would move the terminal's cursor is shown instead."""
        record.msg, record.args = shown(record.getMessage()), None
        return True

    logging.getLogger().handlers[0].addFilter(show_controls)

    def announce(where: str, page: str) -> None:
        print(f"domzero: Domain 0 listens on {where}", file=sys.stderr, flush=True)
        if page:  # others may read a log: the token is shown to who sits at a terminal
            address = page if sys.stderr.isatty() else page.partition("#")[0]
            print(f"domzero: its page is {address}", file=sys.stderr, flush=True)

    if args.no_confine:
        os.environ[confinement.SWITCH] = "1"  # for QEMUs, too
    confined = confinement.is_wanted()
    database = database_for(args.database, path, own_socket=bool(args.socket))
    certificate = None
    if args.tls_cert is not None:
        certificate = tls.given(args.tls_cert, args.tls_key or args.tls_cert)
    elif listen is not None and encrypted:
        kept = database.parent if database != MEMORY else path.parent
        certificate = tls.made(kept, listen[0])
    if certificate is not None:
        tls.use_for_screens(certificate)
    job = serve(
        path,
        listen,
        xenstore,
        announce,
        confined=confined,
        database=database,
        certificate=certificate,
        keep=args.keep_domains,
        end_kept=args.end_kept_domains,
    )
    left = asyncio.run(job)
    if left:
        which = f"{left} domain{'' if left == 1 else 's'}"
        print(
            f"domzero: {which} left running; the same `domzero serve --keep-domains` goes on with them, and "
            "`--end-kept-domains` ends them",
            file=sys.stderr,
            flush=True,
        )
    return ExitStatus.OK
