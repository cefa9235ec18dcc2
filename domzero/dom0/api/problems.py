"""Errors as application/problem+json (RFC 9457), with the field at fault."""

from __future__ import annotations

import difflib
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from domzero.dom0.api.models import DomainCreate, DomainPatch, FieldError, Problem
from domzero.dom0.manager import BadState, NameInUse, NotFound
from domzero.errors import ConfigError, ConfigErrors, DomzeroError, ImageError, ResourceError

MEDIA_TYPE = "application/problem+json"

# DomainConfig's keys and fields have xl's names, the API its own.
_FIELD_OF_KEY = {"memory": "memory_mib", "maxmem": "maxmem_mib", "disk": "disks", "vif": "vifs"}

_STATUS: list[tuple[type[DomzeroError], int, str]] = [
    (NotFound, 404, "HANDLE_INVALID"),
    (NameInUse, 409, "DUPLICATE_VM"),
    (BadState, 409, "VM_BAD_POWER_STATE"),
    (ResourceError, 409, "HOST_NOT_ENOUGH_FREE_MEMORY"),
    (ImageError, 422, "INVALID_IMAGE"),
    (ConfigError, 422, "INVALID_VALUE"),
    (DomzeroError, 500, "INTERNAL_ERROR"),
]

RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status, text in (
        (404, "There is no such thing."),
        (409, "It cannot be done in this state, or the name is taken."),
        (422, "A field is wrong; `errors` says which."),
    )
}


def problem_of(error: DomzeroError) -> Problem:
    """The answer to an error of ours."""
    status, code = next((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
    errors = []
    for one in error.errors if isinstance(error, ConfigErrors) else (error,):
        if one.key is not None:
            text = f"{one.message} ({one.hint})" if one.hint else one.message
            errors.append(FieldError(field=_FIELD_OF_KEY.get(one.key, one.key), message=text))
    detail = str(error).replace("\n", "; ")
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code, errors=errors)


def respond(problem: Problem) -> JSONResponse:
    """The HTTP answer."""
    return JSONResponse(problem.model_dump(mode="json"), problem.status, media_type=MEDIA_TYPE)


def _field_message(error: dict[str, Any], field: str) -> str:
    if error["type"] != "extra_forbidden":
        return str(error["msg"])
    known = {*DomainCreate.model_fields, *DomainPatch.model_fields}
    near = difflib.get_close_matches(field, known, 1)
    return "no such field" + (f": did you mean {near[0]}?" if near else "")


def install(app: FastAPI) -> None:
    """Makes every error of an application a problem."""

    async def validation(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        errors = []
        for item in error.errors():
            where = [str(part) for part in item["loc"][1:]]
            field = ".".join(where) if item["type"] != "json_invalid" else ""
            errors.append(FieldError(field=field or "body", message=_field_message(item, field)))
        detail = "; ".join(f"{item.field}: {item.message}" for item in errors)
        return respond(
            Problem(title="Unprocessable Entity", status=422, detail=detail, code="INVALID_VALUE", errors=errors)
        )

    async def ours(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, DomzeroError):
            raise error
        return respond(problem_of(error))

    async def http(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.upper().replace(" ", "_").replace("-", "_")
        problem = Problem(title=phrase, status=error.status_code, detail=str(error.detail), code=code)
        response = respond(problem)
        response.headers.update(error.headers or {})
        return response

    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        detail = f"a fault of Domain 0: {type(error).__name__}"
        return respond(Problem(title="Internal Server Error", status=500, detail=detail, code="INTERNAL_ERROR"))

    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(DomzeroError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)
