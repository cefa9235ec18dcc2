# SPDX-License-Identifier: Apache-2.0
"""Errors as application/problem+json (RFC 9457), with the field at fault."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from domzero.dom0.actors import PermissionDenied
from domzero.dom0.api.models import DomainCreate, DomainPatch, FieldError, Problem
from domzero.dom0.manager import BadState, NoAnswer
from domzero.dom0.names import name_fault, shown
from domzero.dom0.roster import HasChanged, NameInUse, NotFound
from domzero.dom0.users import NotAuthenticated
from domzero.errors import ConfigError, ConfigErrors, DomzeroError, ImageError, ResourceError

MEDIA_TYPE = "application/problem+json"
ERRORS_MAX = 20
"""Wrong fields that an answer lists."""
DETAIL_MAX = 1000
FIELD_MAX = 100
"""Characters."""

# DomainConfig's keys and fields have xl's names, the API its own.
_FIELD_OF_KEY = {
    "memory": "memory_mib",
    "maxmem": "maxmem_mib",
    "disk": "disks",
    "vif": "vifs",
    "p9": "shares",
    "vfb": "vfbs",
    "maxvcpus": "max_vcpus",
}

_STATUS: list[tuple[type[DomzeroError], int, str]] = [
    (NotFound, 404, "HANDLE_INVALID"),
    (NotAuthenticated, 401, "SESSION_AUTHENTICATION_FAILED"),
    (PermissionDenied, 403, "RBAC_PERMISSION_DENIED"),
    (NameInUse, 409, "DUPLICATE_VM"),
    (HasChanged, 412, "PRECONDITION_FAILED"),
    (BadState, 409, "VM_BAD_POWER_STATE"),
    (NoAnswer, 504, "NO_ANSWER"),
    (ResourceError, 409, "HOST_NOT_ENOUGH_FREE_MEMORY"),
    (ImageError, 422, "INVALID_IMAGE"),
    (ConfigError, 422, "INVALID_VALUE"),
    (DomzeroError, 500, "INTERNAL_ERROR"),
]

RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status, text in (
        (400, "The request is malformed: its Host, its Origin or its body."),
        (401, "The request shows no credentials that count; over TCP it needs some."),
        (403, "The role does not cover it; or the request does not name this host, or comes from another site's page."),
        (404, "There is no such thing."),
        (409, "It cannot be done in this state, or the name is taken."),
        (412, "It has changed since `If-Match` saw it."),
        (413, "The body is larger than any request needs."),
        (422, "A field is wrong; `errors` says which."),
        (429, "The user asks too often; `Retry-After` says when the next request is answered."),
        (431, "The request has more headers than any needs."),
        (504, "The domain's worker process does not answer in time."),
    )
}


def problem(status: int, code: str, detail: str, errors: Iterable[FieldError] = ()) -> Problem:
    """An error's answer. What it repeats of the request is bounded, and text that can be shown."""
    kept = list(itertools.islice(errors, ERRORS_MAX))
    return Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=_bounded(detail, DETAIL_MAX),
        code=code,
        errors=[
            FieldError(field=_bounded(item.field, FIELD_MAX), message=_bounded(item.message, DETAIL_MAX))
            for item in kept
        ],
    )


def _bounded(text: str, most: int) -> str:
    return shown(text if len(text) <= most else text[: most - 1] + "…")


def problem_of(error: DomzeroError) -> Problem:
    """The answer to an error of ours."""
    status, code = next((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
    errors = []
    for one in error.errors if isinstance(error, ConfigErrors) else (error,):
        if one.key is not None:
            text = f"{one.message} ({one.hint})" if one.hint else one.message
            errors.append(FieldError(field=_FIELD_OF_KEY.get(one.key, one.key), message=text))
    return problem(status, code, str(error).replace("\n", "; "), errors)


def respond(what: Problem) -> JSONResponse:
    """The HTTP answer."""
    return JSONResponse(what.model_dump(mode="json"), what.status, media_type=MEDIA_TYPE)


def _allowed(request: Request) -> list[str]:
    """The methods that the request's path has, over all routes."""
    methods = set()
    for template, operations in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), request.url.path):
            methods |= {method.upper() for method in operations}
    return sorted(methods)


def _field_message(error: dict[str, Any], field: str) -> str:
    if error["type"] == "string_pattern_mismatch" and field == "name":
        return name_fault(str(error["input"])) or str(error["msg"])
    if error["type"] != "extra_forbidden":
        return str(error["msg"])
    if field in DomainCreate.model_fields:
        return "it is fixed when a domain is created"
    if field in DomainPatch.model_fields:
        return "it is for domains that exist: create the domain, then change it"
    known = {*DomainCreate.model_fields, *DomainPatch.model_fields}
    near = difflib.get_close_matches(field[:FIELD_MAX], known, 1)
    return "no such field" + (f": did you mean {near[0]}?" if near else "")


def install(app: FastAPI) -> None:
    """Makes every error of an application a problem."""

    async def validation(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        found = error.errors()
        errors = []
        for item in found[:ERRORS_MAX]:
            where = [str(part) for part in item["loc"][1:]]
            field = ".".join(where) if item["type"] != "json_invalid" else ""
            errors.append(FieldError(field=field or "body", message=_field_message(item, field)))
        detail = "; ".join(f"{item.field[:FIELD_MAX]}: {item.message}" for item in errors)
        if len(found) > ERRORS_MAX:
            detail = f"{len(found)} fields are wrong: {detail}"
        return respond(problem(422, "INVALID_VALUE", detail, errors))

    async def ours(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, DomzeroError):
            raise error
        return respond(problem_of(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        code = HTTPStatus(error.status_code).phrase.upper().replace(" ", "_").replace("-", "_")
        response = respond(problem(error.status_code, code, str(error.detail)))
        response.headers.update(error.headers or {})
        if error.status_code == 405:
            response.headers["Allow"] = ", ".join(_allowed(request))
        return response

    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        return respond(problem(500, "INTERNAL_ERROR", f"a fault of Domain 0: {type(error).__name__}"))

    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(DomzeroError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)
