# SPDX-License-Identifier: Apache-2.0
"""XenAPI over HTTP: XML-RPC and JSON-RPC at XAPI's paths."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from domzero.dom0.xenapi import wire_json, wire_xml
from domzero.dom0.xenapi.dispatch import dispatch
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.http_access import peer_of, world_of

XML_PATHS = ("/", "/RPC2", "/xmlrpc")
JSON_PATHS = ("/json", "/jsonrpc")
PATHS = (*XML_PATHS, *JSON_PATHS)
"""What is answered here to POST: who asks logs in by a message."""


async def _xml(request: Request) -> Response:
    body = await request.body()
    if body.lstrip()[:1] in (b"{", b"["):
        return await _json(request)
    try:
        method, parameters = wire_xml.read_call(body)
        answer = await dispatch(world_of(request), peer_of(request), method, parameters)
    except Failure as failure:
        return Response(wire_xml.write_failure(failure), media_type=None, headers=_type(wire_xml.MEDIA_TYPE))
    text = wire_xml.write_plain(answer.value) if answer.plain else wire_xml.write_success(answer.value)
    return Response(text, headers=_type(wire_xml.MEDIA_TYPE))


async def _json(request: Request) -> Response:
    headers = _type(wire_json.MEDIA_TYPE)
    try:
        call = wire_json.read_call(await request.body())
    except wire_json.Malformed as error:
        return Response(wire_json.write_malformed(error), headers=headers)
    try:
        answer = await dispatch(world_of(request), peer_of(request), call.method, call.parameters)
    except Failure as failure:
        return Response(wire_json.write_failure(call, failure), headers=headers)
    return Response(wire_json.write_success(call, answer.value), headers=headers)


def _type(media_type: str) -> dict[str, str]:
    return {"Content-Type": media_type}


ROUTES = [
    *(Route(path, _xml, methods=["POST"], include_in_schema=False) for path in XML_PATHS),
    *(Route(path, _json, methods=["POST"], include_in_schema=False) for path in JSON_PATHS),
]
