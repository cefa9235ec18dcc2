# SPDX-License-Identifier: Apache-2.0
"""`domzero user`, `token` and `task`: who may do what, and what is under way."""

from __future__ import annotations

import argparse
import getpass
import re
import sys
from typing import Any
from urllib.parse import quote

from domzero.cli.api_client import Dom0, add_connection_options
from domzero.cli.verb import answer
from domzero.dom0.actors import Role
from domzero.errors import ConfigError

_USERS = """\
Users of Domain 0 beside its owner: they come over TCP (`serve --listen`), with a password or a token, and may do what
their role covers. Without a role a user sees and does what is granted on single domains.

roles, each covers those before it: read-only, vm-operator, vm-admin, vm-power-admin, pool-operator, pool-admin
"""
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_ROLES = [role.value for role in Role]
_DOMAIN_ROLES = _ROLES[: _ROLES.index(Role.POOL_OPERATOR.value)]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verbs."""
    _register_users(subparsers)
    _register_tokens(subparsers)
    tasks = _verb(subparsers, "task", "long work of Domain 0", "Work that takes longer than a second.")
    _action(tasks, "list", _list_tasks, "list tasks")
    one = _action(tasks, "cancel", _cancel_task, "cancel a task, or forget one that is over")
    one.add_argument("id", metavar="ID", help="of `task list`")


def _register_users(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    users = _verb(subparsers, "user", "users of Domain 0, their roles and grants", _USERS)
    _action(users, "list", _list_users, "list users")
    add = _action(users, "add", _add_user, "add a user; the password is asked for, or read from stdin")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--role", choices=_ROLES, help="for everything (default: only what is granted)")
    add.add_argument("--no-password", action="store_true", help="only tokens")
    remove = _action(users, "remove", _remove_user, "remove a user with tokens and grants")
    remove.add_argument("name", metavar="NAME")
    role = _action(users, "role", _set_role, "give a user another role")
    role.add_argument("name", metavar="NAME")
    role.add_argument("role", metavar="ROLE", choices=[*_ROLES, "none"])
    password = _action(users, "passwd", _set_password, "give a user another password; lifts a lock")
    password.add_argument("name", metavar="NAME")
    grant = _action(users, "grant", _grant, "give a user a role on one domain, or take it")
    grant.add_argument("name", metavar="NAME")
    grant.add_argument("domain", metavar="DOMAIN", help="name, domid or uuid")
    grant.add_argument("role", metavar="ROLE", choices=[*_DOMAIN_ROLES, "none"])
    log = _action(users, "log", _show_audit, "who did what, and what came of it")
    log.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="so many (default: %(default)s)")


def _register_tokens(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tokens = _verb(subparsers, "token", "tokens of users, for programs", "What programs show instead of a password.")
    listing = _action(tokens, "list", _list_tokens, "list a user's tokens")
    listing.add_argument("user", metavar="USER")
    add = _action(tokens, "add", _add_token, "make a token: it is printed this once")
    add.add_argument("user", metavar="USER")
    add.add_argument("--description", metavar="TEXT", default="", help="what it is for")
    add.add_argument("--role", choices=_ROLES, help="the most that it gives (default: all that its user may)")
    add.add_argument("--expires", metavar="TIME", help="how long it counts, such as 12h, 30d or 8w (default: for ever)")
    remove = _action(tokens, "remove", _remove_token, "revoke a token")
    remove.add_argument("user", metavar="USER")
    remove.add_argument("id", metavar="ID", help="of `token list`")


def _verb(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, description: str
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    parser = subparsers.add_parser(
        name, help=text, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser.add_subparsers(dest="action", metavar="ACTION", required=True)


def _action(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser], name: str, handler: Any, text: str
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    add_connection_options(parser)
    parser.set_defaults(handler=handler)
    return parser


def _user(name: str) -> str:
    return f"/users/{quote(name, safe='')}"


def _ask_password(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass(f"password of {name}: ")
    if getpass.getpass("once more: ") != password:
        raise ConfigError("the two are not the same", key="password")
    return password


def _list_users(args: argparse.Namespace) -> int:
    with Dom0.from_args(args) as dom0:
        users = dom0.get("/users")
    rows = [f"{'Name':24} {'Role':16} {'Password':8} Grants"]
    for user in users:
        state = "locked" if user["locked_until"] else "yes" if user["has_password"] else "no"
        grants = " ".join(f"{domain}:{role}" for domain, role in user["grants"].items())
        rows.append(f"{user['name']:24} {user['role'] or '-':16} {state:8} {grants}".rstrip())
    return answer(args, users, "\n".join(rows))


def _add_user(args: argparse.Namespace) -> int:
    password = None if args.no_password else _ask_password(args.name)
    with Dom0.from_args(args) as dom0:
        body = {"name": args.name, "role": args.role, "password": password}
        return answer(args, dom0.request("POST", "/users", body).json())


def _remove_user(args: argparse.Namespace) -> int:
    with Dom0.from_args(args) as dom0:
        dom0.request("DELETE", _user(args.name))
    return answer(args, {"name": args.name})


def _set_role(args: argparse.Namespace) -> int:
    with Dom0.from_args(args) as dom0:
        body = {"role": None if args.role == "none" else args.role}
        return answer(args, dom0.request("PATCH", _user(args.name), body).json())


def _set_password(args: argparse.Namespace) -> int:
    body = {"password": _ask_password(args.name)}
    with Dom0.from_args(args) as dom0:
        return answer(args, dom0.request("PATCH", _user(args.name), body).json())


def _grant(args: argparse.Namespace) -> int:
    with Dom0.from_args(args) as dom0:
        path = f"{_user(args.name)}/grants/{dom0.domain(args.domain)['uuid']}"
        taken = args.role == "none"
        return answer(args, dom0.request(*("DELETE", path) if taken else ("PUT", path, {"role": args.role})).json())


def _show_audit(args: argparse.Namespace) -> int:
    with Dom0.from_args(args) as dom0:
        lines = dom0.get("/audit", limit=args.lines)[::-1]
    rows = [
        f"{line['at'][:19]} {line['actor']} ({line['via']}) {line['action']} {line['domain'] or '-'} {line['detail']}: "
        f"{line['outcome']}"
        for line in lines
    ]
    return answer(args, lines, "\n".join(rows))


def _list_tokens(args: argparse.Namespace) -> int:
    with Dom0.from_args(args) as dom0:
        tokens = dom0.get(f"{_user(args.user)}/tokens")
    rows = [f"{'ID':36} {'Role':14} {'Expires':19} Description"]
    for token in tokens:
        expires = (token["expires_at"] or "never")[:19]
        rows.append(f"{token['id']} {token['role'] or '-':14} {expires:19} {token['description']}".rstrip())
    return answer(args, tokens, "\n".join(rows))


def _add_token(args: argparse.Namespace) -> int:
    seconds = None
    if args.expires is not None:
        match = _DURATION.fullmatch(args.expires)
        if match is None:
            raise ConfigError(f"expected a time such as 12h, 30d or 8w, found {args.expires!r}", key="expires")
        seconds = int(match[1]) * _SECONDS[match[2]]
    body = {"description": args.description, "role": args.role, "expires_in_seconds": seconds}
    with Dom0.from_args(args) as dom0:
        token = dom0.request("POST", f"{_user(args.user)}/tokens", body).json()
    return answer(args, token, token["token"])


def _remove_token(args: argparse.Namespace) -> int:
    with Dom0.from_args(args) as dom0:
        dom0.request("DELETE", f"{_user(args.user)}/tokens/{quote(args.id, safe='')}")
    return answer(args, {"id": args.id})


def _list_tasks(args: argparse.Namespace) -> int:
    with Dom0.from_args(args) as dom0:
        tasks = dom0.get("/tasks")
    rows = [f"{'ID':36} {'Kind':20} {'State':9} {'':4} {'Since':19} Actor"]
    for task in tasks:
        done = f"{100 * task['progress']:3.0f}%"
        rows.append(
            f"{task['id']} {task['kind']:20} {task['state']:9} {done} {task['created_at'][:19]} {task['actor']}"
            + (f": {task['error']['detail']}" if task["error"] else "")
        )
    return answer(args, tasks, "\n".join(rows))


def _cancel_task(args: argparse.Namespace) -> int:
    with Dom0.from_args(args) as dom0:
        return answer(args, dom0.request("DELETE", f"/tasks/{quote(args.id, safe='')}").json())
