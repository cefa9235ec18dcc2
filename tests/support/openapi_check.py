# SPDX-License-Identifier: Apache-2.0
"""Checks live traffic against the served OpenAPI document: enough of JSON Schema for what it contains."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

Json = Any
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KNOWN = {
    *("$ref", "type", "enum", "const", "anyOf", "properties", "required", "additionalProperties", "items"),
    *("propertyNames", "maxProperties"),
    *("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern"),
    *("format", "title", "description", "default", "examples"),
}


class OpenApi:
    """An OpenAPI document, and the operations that were seen."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self.seen: set[tuple[str, str]] = set()

    def check(self, request: httpx.Request, response: httpx.Response) -> None:
        """The operation, its status, media type and body must be in the document."""
        media = response.headers.get("content-type", "")
        self.check_answer(request.method, request.url.path, response.status_code, media, response.content)

    def template(self, path: str, method: str = "") -> str | None:
        """The path of the document that a request's path, decoded, is one of; one with this method before others."""
        paths = self.document["paths"]
        fitting = [t for t in paths if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", t), path)]
        return next((t for t in fitting if method in paths[t]), fitting[0] if fitting else None)

    def check_answer(self, method: str, path: str, status: int, media: str, body: bytes) -> None:
        """The same, of an answer's parts.

        :param path: decoded.
        :param media: its Content-Type.
        """
        method = method.lower()
        template = self.template(path, method)
        if template is None:
            assert status == 404, f"{path!r} is not in the document, and the answer is {status}"
            return
        operation = self.document["paths"][template].get(method)
        if operation is None:
            assert status == 405, f"{method} {template} is not in the document, and the answer is {status}"
            return
        self.seen.add((method, template))
        described = operation["responses"].get(str(status))
        assert described is not None, f"{method} {template} answers {status}, which is not described: {body[:500]!r}"
        content = described.get("content")
        if not content:
            assert body == b""
            return
        media = media.partition(";")[0]
        assert media in content, f"{method} {template}: {media}"
        if media.endswith("json") and not media.endswith("ndjson"):
            self.validate(json.loads(body), content[media]["schema"], f"{method} {template}")

    def validate(self, value: Json, schema: Json, where: str) -> None:
        """One value against one schema."""
        assert set(schema) <= _KNOWN, f"{where}: this checker does not know {set(schema) - _KNOWN}"
        if "$ref" in schema:
            target: Json = self.document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            self.validate(value, target, where)
            return
        if "anyOf" in schema:
            errors = []
            for option in schema["anyOf"]:
                try:
                    self.validate(value, option, where)
                    return
                except AssertionError as error:
                    errors.append(str(error))
            raise AssertionError(f"{where}: {value!r} is none of the options: {errors}")
        if "enum" in schema:
            assert value in schema["enum"], f"{where}: {value!r}"
        kind = schema.get("type")
        if kind is not None:
            assert isinstance(value, _TYPES[kind]), f"{where}: {value!r} is not of type {kind}"
            assert kind == "boolean" or not isinstance(value, bool), f"{where}: {value!r}"
        if kind == "object":
            properties = schema.get("properties", {})
            assert set(schema.get("required", [])) <= set(value), f"{where}: lacks {schema['required']}"
            for key, item in value.items():
                self.validate(key, schema.get("propertyNames", {}), f"{where}: the name {key}")
                extra = schema.get("additionalProperties", True)
                assert key in properties or extra is not False, f"{where}: {key} is not described"
                inner = properties.get(key, extra if isinstance(extra, dict) else {})
                self.validate(item, inner, f"{where}.{key}")
        elif kind == "array":
            for item in value:
                self.validate(item, schema.get("items", {}), f"{where}[]")
        elif kind in ("integer", "number"):
            assert value >= schema.get("minimum", value) and value <= schema.get("maximum", value), f"{where}: {value}"
