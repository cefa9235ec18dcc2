# SPDX-License-Identifier: Apache-2.0
"""XML-RPC as XAPI speaks it: bounded, without entities; answers in one line, integers as text."""

from __future__ import annotations

import re
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape
from xmlrpc.client import DateTime, Error, Unmarshaller

from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.values import Time

MEDIA_TYPE = "text/xml"
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_UNREADABLE = (
    expat.ExpatError,
    Error,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    ArithmeticError,
)


class _Declared(ValueError):
    """A document that declares types or entities."""


def _refuse(*_about: object) -> None:
    raise _Declared("no document type declaration is taken")


def read_call(body: bytes) -> tuple[str, list[Any]]:
    """The method and parameters of a call. Failure: it is none."""
    target = Unmarshaller()
    target.xml("", None)  # what it is given is text already
    parser = expat.ParserCreate("utf-8")  # whatever it says of itself
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler = target.start
    parser.EndElementHandler = target.end
    parser.CharacterDataHandler = target.data
    try:
        parser.Parse(body, True)
        parameters, method = target.close(), target.getmethodname()
    except _UNREADABLE as error:
        raise Failure("XMLRPC_UNMARSHAL_FAILURE", "methodCall", f"{type(error).__name__}: {error}") from error
    if not isinstance(method, str):
        raise Failure("XMLRPC_UNMARSHAL_FAILURE", "methodCall", "there is no methodName")
    return method, [_plain(value) for value in parameters]


def _plain(value: Any) -> Any:
    """Times are text from here on; types that XenAPI does not have are refused where they are read."""
    return str(value) if isinstance(value, DateTime) else value


def write_success(value: Any) -> bytes:
    """The answer to a message that was carried out."""
    return _response({"Status": "Success", "Value": value})


def write_failure(failure: Failure) -> bytes:
    """The answer to one that was not."""
    return _response({"Status": "Failure", "ErrorDescription": failure.description})


def write_plain(value: Any) -> bytes:
    """An answer without a status, as `system.listMethods` gives it."""
    return _response(value)


def value_text(value: Any) -> str:
    """A value as an element of XML-RPC."""
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts)


def _response(value: Any) -> bytes:
    text = value_text(value)
    return f'<?xml version="1.0"?><methodResponse><params><param>{text}</param></params></methodResponse>'.encode()


def _write(value: Any, parts: list[str]) -> None:
    if isinstance(value, bool):
        parts.append(f"<value><boolean>{int(value)}</boolean></value>")
    elif isinstance(value, Time):
        parts.append(f"<value><dateTime.iso8601>{value}</dateTime.iso8601></value>")
    elif isinstance(value, str | int):
        parts.append(f"<value>{escape(_NO_XML.sub('?', str(value)))}</value>")
    elif isinstance(value, float):
        parts.append(f"<value><double>{value!r}</double></value>")
    elif isinstance(value, list):
        parts.append("<value><array><data>")
        for item in value:
            _write(item, parts)
        parts.append("</data></array></value>")
    elif isinstance(value, dict):
        parts.append("<value><struct>")
        for key, item in value.items():
            parts.append(f"<member><name>{escape(_NO_XML.sub('?', key))}</name>")
            _write(item, parts)
            parts.append("</member>")
        parts.append("</struct></value>")
    else:
        raise TypeError(f"no value of XenAPI's: {type(value).__name__}")
