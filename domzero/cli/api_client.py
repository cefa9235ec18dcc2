# SPDX-License-Identifier: Apache-2.0
"""The client of Domain 0's HTTP API that the verbs use."""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from domzero.dom0.names import DOMAIN_0, is_domid, is_text, shown
from domzero.dom0.paths import existing_socket
from domzero.dom0.token import check_token, find_token, read_token
from domzero.errors import ConfigError, DomzeroError, ImageError

if TYPE_CHECKING:
    import httpx
    from websockets.sync.client import ClientConnection

Json = dict[str, Any]
NOT_RUNNING_HINT = "start it with `domzero serve`"
TOKEN_HINT = "`domzero serve --listen` says where its token is: name that file with --token-file"


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """--socket, --url, --token-file and --json, which every verb has."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--socket", metavar="PATH", help="Domain 0's Unix socket (default: DOMZERO_SOCKET, or as serve's)"
    )
    where.add_argument("--url", metavar="URL", help="Domain 0's address, such as http://127.0.0.1:8080 (DOMZERO_URL)")
    parser.add_argument(
        "--token-file",
        metavar="PATH",
        help="file with the token that --url needs (default: DOMZERO_TOKEN, or the one that `domzero serve` left)",
    )
    parser.add_argument(
        "--cacert",
        metavar="FILE",
        help="certificate (PEM) that Domain 0's is checked against with an https:// --url (default: DOMZERO_CACERT, or "
        "those that this host trusts)",
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON on stdout")


class Dom0:
    """A client of the HTTP API.

    :param path: the Unix socket.
    :param url: its address on TCP, instead.
    :param token_file: a file with the token for that address; else `DOMZERO_TOKEN`, or what Domain 0 keeps for us.
    :param cacert: a file with the certificate that an https address is checked against; else `DOMZERO_CACERT`.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        url: str | None = None,
        token_file: str | None = None,
        cacert: str | None = None,
    ) -> None:
        import httpx

        url = url or (None if path else os.environ.get("DOMZERO_URL"))
        self._path: Path | None = None
        self._headers: dict[str, str] = {}
        self._tls: ssl.SSLContext | None = None
        if url is not None:
            self._base = url.rstrip("/")
            if (token := _token_for(url, token_file)) is not None:
                self._headers["Authorization"] = f"Bearer {token}"
            if url.startswith("https:"):
                self._tls = _trust(cacert or os.environ.get("DOMZERO_CACERT"))
            transport = httpx.HTTPTransport(verify=self._tls or True)
        else:
            self._path = Path(path) if path else existing_socket()
            self._base = "http://domzero"
            transport = httpx.HTTPTransport(uds=str(self._path))
        self._http = httpx.Client(
            transport=transport, base_url=self._base, headers=self._headers, timeout=httpx.Timeout(60, connect=5)
        )

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Dom0:
        """As `add_connection_options` says."""
        return cls(path=args.socket, url=args.url, token_file=args.token_file, cacert=args.cacert)

    def __enter__(self) -> Dom0:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._http.close()

    def request(self, method: str, path: str, body: Json | None = None, **query: str | float | bool) -> httpx.Response:
        """One request; a problem in the answer is raised as the error that it was on the other side."""
        import httpx

        try:
            response = self._http.request(method, f"/v1{path}", json=body, params=query)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._not_running(error) from error
        except httpx.HTTPError as error:
            raise DomzeroError(f"Domain 0 broke off: {error or type(error).__name__}") from error
        except UnicodeEncodeError as error:  # bytes of the command line that are no text
            raise ConfigError("not UTF-8 text", key=_key_of(body)) from error
        if response.status_code >= 300:  # no redirect is Domain 0's
            raise _error_of(response)
        return response

    @contextmanager
    def stream(self, path: str, **query: str | float | bool) -> Iterator[Iterator[bytes]]:
        """The parts of an answer that goes on for as long as it takes."""
        import httpx

        try:
            with self._http.stream("GET", f"/v1{path}", params=query, timeout=httpx.Timeout(5, read=None)) as response:
                if response.status_code >= 300:
                    response.read()
                    raise _error_of(response)
                yield response.iter_raw()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._not_running(error) from error
        except httpx.HTTPError as error:
            raise DomzeroError(f"Domain 0 broke off: {error or type(error).__name__}") from error

    def get(self, path: str, **query: str | float | bool) -> Any:
        """JSON of a GET."""
        return self.request("GET", path, None, **query).json()

    def domain(self, key: str) -> Json:
        """One domain, by name, domid or uuid."""
        found: Json = self.get(domain_path(key))
        return found

    def parts(self, keys: Iterable[str], kind: str) -> list[tuple[Json, list[Json]]]:
        """Domains, and what each has of a kind: its "disks". Domain 0 is passed over: it is the host, and has none."""
        return [(self.domain(key), self.get(f"{domain_path(key)}/{kind}")) for key in keys if not is_domain_0(key)]

    def act(self, key: str, action: str) -> Json:
        """POST of an action on a domain."""
        answer: Json = self.request("POST", f"{domain_path(key)}/{action}").json()
        return answer

    def patch(self, key: str, **changes: object) -> Json:
        """Changes a domain."""
        answer: Json = self.request("PATCH", domain_path(key), changes).json()
        return answer

    def wait_ended(self, key: str, timeout: float | None = None) -> Json:
        """Waits until a domain has ended; `timeout` in seconds, or for ever."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 30.0 if end is None else min(30.0, end - time.monotonic())
            domain: Json = self.get(f"{domain_path(key)}/wait", timeout=max(left, 0.1))
            if not domain["exists"] or (end is not None and time.monotonic() >= end):
                return domain
            if domain["exit"] and domain["state"] in ("shutdown", "crashed") and _preserved(domain):
                return domain

    def create(self, body: Json, *, quiet: bool = True) -> Json:
        """Creates a domain; waits for the task if it takes longer."""
        done, answer = self.long("/domains", body, None if quiet else f"building {body['name']}…")
        return answer if done else self.domain(str(answer["domain"]))

    def dump_core(self, key: str, path: str, *, quiet: bool = True) -> Json:
        """Writes a domain's core dump; waits for the task if it takes longer."""
        what = None if quiet else f"dumping core of {key}…"
        done, answer = self.long(f"{domain_path(key)}/core", {"path": path}, what)
        return answer if done else {"path": path}

    def long(self, path: str, body: Json, what: str | None, **query: bool) -> tuple[bool, Json]:
        """A POST that may become a task, which is waited for. True and its answer, or False and the task.

        :param what: told on stderr when it becomes one.
        """
        response = self.request("POST", path, body, **query)
        answer: Json = response.json()
        if response.status_code != 202:
            return True, answer
        if what is not None:
            print(what, file=sys.stderr, flush=True)
        while answer["state"] == "running":
            time.sleep(0.2)
            answer = self.get(f"/tasks/{answer['id']}")
        if answer["error"]:
            raise _error_of_problem(answer["error"])
        return False, answer

    def console(self, key: str, *, history: bool = True) -> ClientConnection:
        """The websocket of a domain's console."""
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.sync.client import connect, unix_connect

        scheme, _, rest = self._base.partition("://")
        uri = f"{'wss' if scheme == 'https' else 'ws'}://{rest}/v1{domain_path(key)}/console/stream"
        uri += "" if history else "?history=false"
        try:
            if self._path is not None:
                return unix_connect(str(self._path), uri, max_size=None)
            where = urlsplit(self._base)
            sock = socket.create_connection((where.hostname or "", where.port or _port(scheme)), timeout=5)
            return connect(uri, max_size=None, sock=sock, ssl=self._tls, additional_headers=self._headers)
        except InvalidStatus as error:
            raise _refused(error.response.status_code, error.response.reason_phrase) from error
        except (OSError, WebSocketException) as error:
            raise self._not_running(error) from error

    def _not_running(self, error: Exception) -> DomzeroError:
        where = str(self._path) if self._path is not None else self._base
        if self._path is not None and isinstance(error.__cause__ or error, PermissionError):
            return DomzeroError(f"no permission to open {where}")
        return DomzeroError(f"Domain 0 is not running at {where}", hint=NOT_RUNNING_HINT)


def _token_for(url: str, token_file: str | None) -> str | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _port(parts.scheme)
    except ValueError:
        parts, host, port = urlsplit(""), None, 0
    if host is None or parts.scheme not in ("http", "https"):
        raise ConfigError(f"not an http:// or https:// address: {url}", key="url")
    if token_file is not None:
        return read_token(Path(token_file))
    if given := os.environ.get("DOMZERO_TOKEN"):
        return check_token(given, "DOMZERO_TOKEN")
    return find_token(host, port)


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _trust(cacert: str | None) -> ssl.SSLContext:
    """What a certificate is checked against. ConfigError."""
    try:
        return ssl.create_default_context(cafile=cacert)
    except OSError as error:  # SSLError, too
        raise ConfigError(f"{cacert}: {error.strerror or error}", key="cacert") from error


def _refused(status: int, reason: str) -> DomzeroError:
    if status == 401:
        return DomzeroError("Domain 0 does not know this token, or none was found for its address", hint=TOKEN_HINT)
    return DomzeroError(f"unexpected answer of Domain 0: {status} {reason}")


def _key_of(body: Json | None) -> str | None:
    """The field whose text is none."""
    return next((key for key, value in (body or {}).items() if isinstance(value, str) and not is_text(value)), None)


def is_domain_0(key: str) -> bool:
    """Whether a word means Domain 0 itself."""
    return key == DOMAIN_0 or (is_domid(key) and not key.strip("0"))


def domain_path(key: str) -> str:
    """The path of a domain's routes; DomzeroError for what would make another path."""
    if is_domain_0(key):
        raise DomzeroError(f"{DOMAIN_0} is Domain 0 itself: this is for other domains")
    if key in ("", ".", "..") or "/" in key or not is_text(key):
        raise DomzeroError(f"no such domain: '{shown(key)}'", hint="`domzero list` shows what there is")
    return f"/domains/{quote(key, safe='')}"


def _preserved(domain: Json) -> bool:
    action = {
        "poweroff": "on_poweroff",
        "reboot": "on_reboot",
        "crash": "on_crash",
        "watchdog": "on_watchdog",
        "soft_reset": "on_soft_reset",
    }.get(domain["exit"]["reason"])
    return action is not None and domain[action] == "preserve"


def _error_of(response: httpx.Response) -> DomzeroError:
    if response.status_code == 401:
        return _refused(response.status_code, response.reason_phrase)
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        return _refused(response.status_code, response.reason_phrase)
    return _error_of_problem(problem)


def _error_of_problem(problem: Json) -> DomzeroError:
    kind: type[DomzeroError] = DomzeroError
    if problem.get("status") == 422:
        kind = ImageError if problem.get("code") == "INVALID_IMAGE" else ConfigError
    errors = problem.get("errors") or []
    if len(errors) == 1:
        return kind(str(errors[0]["message"]), key=errors[0]["field"])
    return kind(str(problem["detail"]))
