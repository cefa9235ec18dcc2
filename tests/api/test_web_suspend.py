# SPDX-License-Identifier: Apache-2.0
"""The page suspends a domain, shows that it is, and resumes it or gives its memory up."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import web_fixtures
from playwright.sync_api import Page, expect
from waiting import until
from web_fixtures import TIMEOUT_MS, create, serious

from domzero.dom0.images.tools import find_tool
from domzero.lab.listing import listing

dom0, playwright, browser = web_fixtures.dom0, web_fixtures.playwright, web_fixtures.browser
api, open_page = web_fixtures.api, web_fixtures.open_page


@pytest.mark.skipif(find_tool("qemu-system-x86_64") is None, reason="there is no QEMU (qemu-system-x86)")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_person_suspends_a_domain_resumes_it_and_gives_its_memory_up(
    open_page: Callable[..., Page], api: httpx.Client, tmp_path: Path, width: int, scheme: str
) -> None:
    kernel = tmp_path / "full.elf"
    kernel.write_bytes(listing("full").pvh_elf())
    uuid = create(api, name="still", kernel=str(kernel), type="pvh", engine="tcg", memory_mib=32, persistent=True)
    until(lambda: "ready" in api.get(f"/domains/{uuid}/console").text, 60, "the guest")
    page = open_page(width=width, scheme=scheme)
    page.get_by_role("link", name="still", exact=True).click()
    badge = page.locator("h1 .badge")
    expect(badge).to_have_text("Running", timeout=TIMEOUT_MS)
    found = serious(page)

    page.get_by_role("button", name="Suspend still").click()
    expect(badge).to_have_text("Suspended", timeout=TIMEOUT_MS)
    for name in ("Start still", "Pause still", "Delete still", "Suspend still"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    assert page.get_by_role("link", name="Settings").count() == 0
    found += serious(page)
    picture(page, f"suspended-{width}-{scheme}")
    page.get_by_role("link", name="Domains", exact=True).first.click()
    expect(page.locator("[data-domain=still] .badge")).to_have_text("Suspended", timeout=TIMEOUT_MS)
    found += serious(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture(page, f"suspended-list-{width}-{scheme}")

    page.get_by_role("button", name="Resume still").click()
    expect(page.locator("[data-domain=still] .badge")).to_have_text("Running", timeout=TIMEOUT_MS)
    assert api.get(f"/domains/{uuid}/console").text.count("ready") == 1
    page.get_by_role("button", name="Suspend still").click()
    expect(page.locator("[data-domain=still] .badge")).to_have_text("Suspended", timeout=TIMEOUT_MS)
    page.get_by_role("button", name="Give up memory still").click()
    picture(page, f"give-up-{width}-{scheme}")
    page.get_by_role("dialog").get_by_role("button", name="Give up memory").click()
    expect(page.locator("[data-domain=still] .badge")).to_have_text("Halted", timeout=TIMEOUT_MS)
    assert found == []


def picture(page: Page, name: str) -> None:
    """To be looked at, where somebody wants to."""
    if directory := os.environ.get("DOMZERO_PICTURES"):
        page.screenshot(path=f"{directory}/{name}.png")
