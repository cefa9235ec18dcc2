# SPDX-License-Identifier: Apache-2.0
"""Lists: a page at a time, with some of the fields, as JSON or a line for each (NDJSON)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Query, Request
from fastapi.responses import JSONResponse, Response

from domzero.dom0.api.models import Model
from domzero.errors import ConfigError

NDJSON = "application/x-ndjson"
T = TypeVar("T")
Place = tuple[float, str]
"""Of an object in the order of a list: when it was made, and its identity."""


@dataclass(slots=True, frozen=True)
class Page:
    """The part of a list that somebody wants.

    :param limit: objects at most; None: all.
    :param after: the place behind which it begins.
    :param fields: of each object; None: all.
    """

    limit: int | None
    after: Place | None
    fields: tuple[str, ...] | None

    def cut(self, objects: Sequence[T], place: Callable[[T], Place]) -> tuple[list[T], Place | None]:
        """The objects of this page, and the place behind which the next one begins, if there is one.

        Pages come in the order of their places, so that what comes and goes meanwhile moves nothing from one to
        another.
        """
        if self.limit is None and self.after is None:
            return list(objects), None
        rest = sorted((each for each in objects if self.after is None or place(each) > self.after), key=place)
        if self.limit is None or len(rest) <= self.limit:
            return rest, None
        return rest[: self.limit], place(rest[self.limit - 1])

    def answer(self, request: Request, found: Sequence[Model], following: Place | None) -> Response:
        """The page, with `Link: <...>; rel="next"` if there is another."""
        rows = [item.model_dump(mode="json") for item in found]
        if self.fields is not None:
            unknown = set(self.fields) - set(rows[0]) if rows else set()
            if unknown:
                raise ConfigError(f"no such field: {sorted(unknown)[0][:100]}", key="fields")
            rows = [{name: row[name] for name in self.fields} for row in rows]
        headers = {}
        if following is not None:
            target = request.url.include_query_params(after=_encode(following))
            headers["Link"] = f'<{target.path}?{target.query}>; rel="next"'
        if NDJSON in request.headers.get("accept", ""):
            return Response("".join(json.dumps(row) + "\n" for row in rows), media_type=NDJSON, headers=headers)
        return JSONResponse(rows, headers=headers)


async def page_of(
    limit: Annotated[int | None, Query(ge=1, le=1000, description="Objects at most; `Link` leads to the next.")] = None,
    after: Annotated[str, Query(max_length=200, description="Of a page's `Link`.")] = "",
    fields: Annotated[str, Query(max_length=1000, description="Of each object, with commas; all if absent.")] = "",
) -> Page:
    """The part of a list that a request asks for. ConfigError."""
    wanted = tuple(dict.fromkeys(name.strip() for name in fields.split(",") if name.strip()))
    return Page(limit, _decode(after) if after else None, wanted or None)


def _encode(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _decode(text: str) -> Place:
    try:
        made, identity = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return float(made), str(identity)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise ConfigError("this is no page's", key="after", hint="take it from the Link of a page") from None
