# SPDX-License-Identifier: Apache-2.0
"""One configuration ends alike by both doors: in `domzero run`'s session, and over HTTP in Domain 0."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import kernels
import pytest
from created import created
from dom0_server import Server
from waiting import until

from domzero.abi.sched import ShutdownReason
from domzero.dom0.config import Action, DomainConfig

R = ShutdownReason


@pytest.mark.parametrize(
    ("code", "actions", "boots", "kept"),
    [
        (R.SHUTDOWN_poweroff, {}, 1, False),
        (R.SHUTDOWN_poweroff, {"on_poweroff": "preserve"}, 1, True),
        (R.SHUTDOWN_reboot, {"on_reboot": "destroy"}, 1, False),
        (R.SHUTDOWN_suspend, {"on_poweroff": "restart"}, 1, True),
        (R.SHUTDOWN_crash, {"on_crash": "restart"}, 4, False),
        (R.SHUTDOWN_watchdog, {"on_watchdog": "preserve"}, 1, True),
        (R.SHUTDOWN_soft_reset, {"on_reboot": "restart"}, 1, False),
        (R.SHUTDOWN_soft_reset, {"on_soft_reset": "preserve"}, 1, True),
        (R.SHUTDOWN_reboot, {"on_reboot": "preserve"}, 1, True),
        (77, {"on_crash": "restart", "on_reboot": "restart"}, 1, False),
    ],
)
def test_an_end_is_followed_by_the_same_thing(
    api: httpx.Client, machine: None, tmp_path: Path, code: int, actions: dict[str, str], boots: int, kept: bool
) -> None:
    from domzero.dom0.lifecycle import DomainSession

    kernel = tmp_path / "kernel"
    kernel.write_bytes(kernels.shutdown(code))
    session = DomainSession(
        DomainConfig(kernel=str(kernel), memory_mib=16, **{key: Action(value) for key, value in actions.items()})  # type: ignore[arg-type]
    )
    session.start()
    end = session.wait(60)
    assert end is not None
    here = (end.reason.value, end.detail[:1], end.state.value, session.boots, session.domain is not None)
    session.destroy()

    body = {"name": "ends", "kernel": str(kernel), "memory_mib": 16, **actions}
    created(api, api.post("/domains", json=body))
    until(lambda: bool(api.get("/domains/ends/wait", params={"timeout": 60}).json()["exit"]))
    domain = api.get("/domains/ends/wait", params={"timeout": 60}).json()
    text = domain["exit"]["message"].partition(": ")[2]
    there = (
        domain["exit"]["reason"],
        (text,) if text else (),
        domain["state"],
        domain["reboots"] + 1,
        domain["exists"],
    )
    assert here == there
    assert there[3:] == (boots, kept)


def test_a_worker_that_does_not_answer_is_said_to_be_one_and_is_ended_all_the_same(
    server: Server, create: Callable[..., dict[str, object]], api: httpx.Client
) -> None:
    pid = create("stiff")["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGSTOP)
    response = api.post("/domains/stiff/pause")
    assert (response.status_code, response.json()["code"]) == (504, "NO_ANSWER")
    assert str(pid) in response.json()["detail"]
    assert api.get("/domains/stiff").json()["exists"]
    assert api.delete("/domains/stiff").status_code == 204
    assert pid not in server.workers()
