# SPDX-License-Identifier: Apache-2.0
"""Random requests made from an OpenAPI document: right ones, nearly right ones, and nonsense."""

from __future__ import annotations

import json
import random
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

Json = Any
ODD_TEXT = [
    "",
    "\0",
    "a\0b",
    "\x1b[2J",
    "\u202e",
    "é" * 70,
    "\ud800",
    "\U0001f427",
    "x" * 5000,
    ".",
    "..",
    "/",
    "null",
    "-1",
]
ODD: list[Json] = [None, True, False, 0, -1, 1 << 31, 1 << 64, 10**400, 0.5, -0.0, 1e308, [], {}, [[]], {"": {}}]
ODD_BODIES = [
    b"",
    b"{",
    b"[" * 20_000,
    b"\xff\xfe",
    b"nul",
    b'{"a":1}{"b":2}',
    b'"text"',
    b"1e999",
    b"NaN",
    b"\0" * 100,
]
MEDIA = [
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "x",
    "",
]
BINARY = "application/octet-stream"
OUTGOING = {"/v1/images/fetches", "/v1/images/builds"}
"""Requests for which Domain 0 asks the network: no test does at random."""
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND"]
Known = Callable[[str], Json | None]


@dataclass
class Case:
    """A request."""

    method: str
    template: str
    target: str
    """Path and query, encoded."""
    path: str
    """The path, decoded."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


class Cases:
    """Makes requests.

    :param known: values for fields and parameters of these names that mean something, as random ones mean nothing;
        None where there is none.
    """

    def __init__(self, document: Json, chance: random.Random, known: Known) -> None:
        self._document = document
        self._chance = chance
        self._known = known
        self._operations = [
            (method, template, operation)
            for template, operations in document["paths"].items()
            for method, operation in operations.items()
            if template not in OUTGOING
        ]
        self._left: list[tuple[str, str, Json]] = []

    def next(self) -> Case:
        """One request."""
        chance = self._chance
        if not self._left:  # each comes once before one comes again
            self._left = chance.sample(self._operations, len(self._operations))
        method, template, operation = self._left.pop()
        path, target = template, template
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                value = self.text(parameter["name"], parameter["schema"])
                mark = "{" + parameter["name"] + "}"
                path = path.replace(mark, value.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
                target = target.replace(mark, quote(value, safe="", errors="surrogatepass"))
        query = [
            (parameter["name"], self.text(parameter["name"], parameter["schema"]))
            for parameter in operation.get("parameters", [])
            if parameter["in"] == "query" and chance.random() < 0.7
        ]
        if chance.random() < 0.05:
            query.append((self._word(), self._word()))
        if query:
            parts = [f"{quote(k, errors='surrogatepass')}={quote(v, errors='surrogatepass')}" for k, v in query]
            target += "?" + "&".join(parts)
        case = Case(chance.choice(METHODS) if chance.random() < 0.05 else method.upper(), template, target, path)
        body = operation.get("requestBody")
        if body is not None or chance.random() < 0.02:
            media, schema = next(iter(body["content"].items())) if body is not None else (MEDIA[0], {"schema": {}})
            case.headers["Content-Type"] = chance.choice(MEDIA) if chance.random() < 0.05 else media
            if media == BINARY:
                case.body = chance.choice([b"", b"x", chance.randbytes(512), chance.randbytes(1 << 18), bytes(1 << 20)])
            elif chance.random() < 0.05:
                case.body = chance.choice(ODD_BODIES)
            else:
                case.body = self._encoded(self.value("", schema["schema"]))
        return case

    def _encoded(self, value: Json) -> bytes:
        data = json.dumps(value).encode()
        if self._chance.random() < 0.03 and data:  # one byte of it is another one
            at = self._chance.randrange(len(data))
            data = data[:at] + bytes([self._chance.randrange(256)]) + data[at + 1 :]
        return data

    def text(self, name: str, schema: Json) -> str:
        """A parameter's value."""
        value = self.value(name, schema)
        return value if isinstance(value, str) else json.dumps(value)

    def value(self, name: str, schema: Json) -> Json:
        """A value for a schema: mostly one that fits it."""
        chance = self._chance
        if chance.random() < 0.04:
            return self._nonsense()
        if (known := self._known(name)) is not None and chance.random() < 0.9:
            return known
        while "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if "anyOf" in schema:
            return self.value("", chance.choice(schema["anyOf"]))
        if "enum" in schema:
            return chance.choice(schema["enum"])
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return [self.value("", schema.get("items", {})) for _ in range(chance.choice([0, 0, 1, 2, 300]))]
        if kind in ("integer", "number"):
            return self._number(schema, kind == "integer")
        if kind == "boolean":
            return chance.random() < 0.5
        if kind == "null":
            return None
        if kind == "string":
            return str(uuid.UUID(int=chance.getrandbits(128))) if schema.get("format") == "uuid" else self._word()
        return self._nonsense()

    def _object(self, schema: Json) -> Json:
        chance, required = self._chance, schema.get("required", [])
        made = {
            name: self.value(name, inner)
            for name, inner in schema.get("properties", {}).items()
            if chance.random() < (0.98 if name in required else 0.25)
        }
        if chance.random() < 0.05:
            made[self._word()] = self._nonsense()
        return made

    def _number(self, schema: Json, whole: bool) -> Json:
        least = schema.get("minimum", schema.get("exclusiveMinimum", -(1 << 63)))
        most = schema.get("maximum", (1 << 64))
        chance = self._chance
        if chance.random() < 0.2:
            return chance.choice([least, most, least - 1, most + 1])
        near = least + (most - least) * chance.random() ** 8
        return int(near) if whole else near

    def _word(self) -> str:
        if self._chance.random() < 0.3:
            return self._chance.choice(ODD_TEXT)
        return "".join(self._chance.choices(string.ascii_lowercase + string.digits, k=self._chance.randint(1, 12)))

    def _nonsense(self) -> Json:
        chance = self._chance
        return chance.choice([*ODD, *ODD_TEXT, {self._word(): [1] * 50}, [self._word()] * 3, chance.getrandbits(70)])
