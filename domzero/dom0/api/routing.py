# SPDX-License-Identifier: Apache-2.0
"""Which operation a request is: found by its path's first words, not by trying all one after the other."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send


class Index(BaseRoute):
    """Stands before the routes that it knows, and finds the one that a request fits: method, too. What it does not find
    is left to them: they know which methods there are.

    :param routes: in their order; only those whose path's parameters are single words are found here.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes: dict[tuple[int, str], list[Route]] = {}
        for route in routes:
            if isinstance(route, Route) and ":" not in route.path and not _key(route.path)[1].startswith("{"):
                self._routes.setdefault(_key(route.path), []).append(route)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """starlette: whether it is one of these."""
        if scope["type"] == "http":
            for route in self._routes.get(_key(scope["path"]), ()):
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    return match, {**child_scope, "route": route}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await scope["route"].handle(scope, receive, send)


def _key(path: str) -> tuple[int, str]:
    """How many words a path has, and the second one."""
    words = path.split("/", 3)
    return path.count("/"), words[2] if len(words) > 2 else ""


__all__ = ["Index"]
