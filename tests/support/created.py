# SPDX-License-Identifier: Apache-2.0
"""Domains that tests create and change over HTTP, on hosts of any speed."""

from __future__ import annotations

import json
from typing import Any

import httpx
from waiting import until


def changed(api: httpx.Client, answer: httpx.Response) -> None:
    """What was asked for is done; a slow host answers with the task that goes on with it."""
    assert answer.status_code < 300, answer.text
    if answer.status_code == 202:
        task = f"/tasks/{answer.json()['id']}"
        until(lambda: api.get(task).json()["state"] != "running", what="the end of a task")
        ended = api.get(task).json()
        assert ended["state"] == "done", ended


def created(api: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """The domain that a POST to /v1/domains has made; a slow host answers with the task that goes on with it."""
    if answer.status_code == 202:
        changed(api, answer)
        answer = api.get(f"/domains/{json.loads(answer.request.content)['name']}")
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())
