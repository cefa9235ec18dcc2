# SPDX-License-Identifier: Apache-2.0
"""A Domain 0 with its page in Chromium, for the tests of the page: each module takes these fixtures as its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
from dom0_server import Server
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, sync_playwright

CHROMIUM = "/usr/bin/chromium"
TIMEOUT_MS = 60_000
"""For what a loaded machine may take; nothing waits for its end."""
LIT = """canvas => {
    const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    return copy.getImageData(0, 0, 300, 100).data.some((it, at) => at % 4 < 3 && it > 0);
}"""
"""Whether a canvas shows anything. Of a copy: Chromium warns of a page that reads its own canvas often."""


@pytest.fixture(scope="module")
def dom0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On TCP, with one disk image."""
    directory = tmp_path_factory.mktemp("web")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(directory / "data"))
        server = Server(directory, "--listen", "127.0.0.1:0")
    for name in ("disk.img", "cd.iso"):
        (directory / name).write_bytes(bytes(1 << 20))
    imported = server.cli("image", "import", str(directory / "disk.img"), "--name", "base")
    assert imported.returncode == 0, imported.stderr
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no {CHROMIUM} (apt-get install chromium)")
    options = [
        "--no-sandbox",
        "--disable-dev-shm-usage",
    ]  # root has no sandbox there, and a container little in /dev/shm
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
    yield browser
    browser.close()


@pytest.fixture
def api(dom0: Server) -> Iterator[httpx.Client]:
    """Domain 0 as programs see it; leaves no domains behind."""
    headers = {"Authorization": f"Bearer {dom0.token}"}
    with httpx.Client(base_url=f"{dom0.url}/v1", headers=headers, timeout=60) as client:
        yield client
        for domain in client.get("/domains", params={"ended": True, "halted": True}).json():
            for _ in range(2):
                client.delete(f"/domains/{domain['uuid']}")


@pytest.fixture
def open_page(browser: Browser, dom0: Server, api: httpx.Client) -> Iterator[Callable[..., Page]]:
    """Opens the page as somebody who has the token. What it complains of in the console fails the test: refused
    styles and scripts, errors, requests that fail (but with the status `wrong`), and requests to anywhere else.
    It is closed before `api` takes the domains away that it shows."""
    contexts, complaints = [], []

    def open_page(
        fragment: str | None = None, width: int = 1280, scheme: str = "light", wrong: str | None = None
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)

        def heard(said: ConsoleMessage) -> None:
            expected = wrong is not None and f"a status of {wrong}" in said.text
            # Asked of a domain that has ended since the page was told that it is there: it says that it has none now.
            ended = "a status of 409" in said.text and said.location["url"].endswith(("/disks", "/vifs"))
            if said.type in ("error", "warning") and not (expected or ended):
                complaints.append(f"{said.text}: {said.location['url']}")

        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(dom0.url) else complaints.append(asked.url))
        page.goto(f"{dom0.url}/#token={dom0.token}" if fragment is None else f"{dom0.url}/#{fragment}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints, complaints


def create(api: httpx.Client, **body: Any) -> str:
    """A new domain's uuid; on a host that is busy its creation is a task."""
    answer = api.post("/domains", json=body).json()
    if "uuid" not in answer:
        task = api.get(f"/tasks/{answer['id']}", params={"wait": 120}).json()
        assert task["state"] == "done", task
        return str(task["domain"])
    return str(answer["uuid"])


AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text()


def serious(page: Page) -> list[str]:
    """What axe finds that keeps people out."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)")
    return [
        f"{page.url}: {each['id']}: {node['target']} {node['html'][:120]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
