# SPDX-License-Identifier: Apache-2.0
"""The page for what is rarer: full virtualization, definitions, media, many domains, odd names, two browsers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

import httpx
import pytest
import web_fixtures
from dom0_server import Server
from playwright.sync_api import Page, expect
from waiting import until
from web_fixtures import TIMEOUT_MS, create, serious

from domzero.dom0.images.tools import find_tool

dom0, playwright, browser = web_fixtures.dom0, web_fixtures.playwright, web_fixtures.browser
api, open_page = web_fixtures.api, web_fixtures.open_page


VIEWS_OF_ALL = ["/", "/create", "/images", "/networks", "/tasks", "/log", "/host", "/users"]
TABS = ["", "/console", "/screen", "/disks", "/network", "/settings"]
FOCUSED = """(document.activeElement.getAttribute("aria-label")
    || document.activeElement.labels?.[0]?.innerText || document.activeElement.innerText).trim()"""


def has_line(page: Page, line: str) -> bool:
    """Whether a console shows it, alone on its line."""
    return line in page.locator(".xterm-rows").inner_text().split("\n")


def go(page: Page, path: str) -> None:
    """To another view, when the page is there."""
    page.locator("#main h1").wait_for()
    page.goto(f"{page.url.partition('#')[0]}#{path}")


@pytest.mark.skipif(find_tool("qemu-system-x86_64") is None, reason="there is no QEMU (qemu-system-x86)")
def test_an_hvm_domain_is_created_with_a_drive_whose_medium_changes_and_shows_its_screen(
    open_page: Callable[..., Page], api: httpx.Client, dom0: Server
) -> None:
    cd = dom0.socket.parent / "cd.iso"
    page = open_page()
    page.get_by_role("link", name="New domain").click()
    page.get_by_label("Type").select_option("hvm")
    assert page.get_by_label("Kernel", exact=True).count() == 0
    page.get_by_label("Name", exact=True).fill("full")
    page.get_by_label("Memory (MiB)").fill("64")
    page.get_by_label("Boot order").fill("dc")
    page.get_by_label("Disks").fill(f"{cd},raw,hdc,cdrom")
    assert serious(page) == []
    page.get_by_role("button", name="Create").click()
    page.locator("domain-screen[data-connected]").wait_for()
    (domain,) = api.get("/domains").json()
    assert (domain["type"], domain["hvm"]["boot"]) == ("hvm", "dc")
    until(lambda: page.locator(".vnc-screen canvas").evaluate(web_fixtures.LIT), what="what its BIOS says")
    page.get_by_role("link", name="Console", exact=True).click()  # its serial port
    page.locator("domain-console[data-connected]").wait_for()
    page.get_by_role("link", name="Disks").click()
    page.get_by_role("button", name="Eject hdc").click()
    page.get_by_role("button", name="Eject hdc").wait_for(state="detached")
    page.get_by_role("button", name="Insert into hdc").click()
    page.get_by_role("dialog").get_by_label("Image").fill(str(dom0.socket.parent / "disk.img"))
    page.get_by_role("dialog").get_by_role("button", name="Insert").click()
    page.get_by_role("button", name="Eject hdc").wait_for()
    assert api.get(f"/domains/{domain['uuid']}/disks").json()[0]["target"].endswith("/disk.img")
    page.get_by_role("button", name="Pause full").click()
    page.get_by_role("button", name="Resume full").click()
    page.get_by_role("button", name="Power off full").click()
    page.get_by_role("dialog").get_by_role("button", name="Power off").click()
    page.locator("h1 .badge.halted").wait_for()


def test_the_definition_of_a_halted_domain_is_changed_and_the_rest_of_it_stays(
    open_page: Callable[..., Page], api: httpx.Client, shell: str
) -> None:
    rest = {"max_event_channels": 100, "seed": 7, "cpu": "v2", "vfbs": ["vnc=1,vncpasswd=secret"], "labels": {"a": "b"}}
    body = {"name": "halted", "kernel": shell, "memory_mib": 16, "persistent": True, "start": False, **rest}
    uuid = create(api, **body)
    before = api.get(f"/domains/{uuid}/definition").json()
    page = open_page()
    go(page, f"/domains/{uuid}/settings")
    page.get_by_label("Kernel command line").fill("first second")
    page.get_by_label("Memory at most (MiB)").fill("32")
    page.get_by_label("When it crashes").select_option("preserve")
    assert serious(page) == []
    page.get_by_role("button", name="Save the definition").click()
    page.get_by_text("It starts with what is here now.").wait_for()
    after = api.get(f"/domains/{uuid}/definition").json()
    changes = {"cmdline": "first second", "maxmem_mib": 32, "on_crash": "preserve"}
    assert after == {**before, **changes} and "********" in after["vfbs"][0]
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("button", name="Start halted").click()
    page.locator("h1 .badge.running").wait_for()
    page.get_by_role("link", name="Settings").click()
    page.get_by_role("button", name="Save", exact=True).wait_for()
    assert page.get_by_role("button", name="Save the definition").count() == 0


def test_what_domain_0_refuses_is_said_by_name(open_page: Callable[..., Page], api: httpx.Client, shell: str) -> None:
    uuid = create(api, name="halted", kernel=shell, memory_mib=16, persistent=True, start=False)
    page = open_page(wrong="422")
    go(page, f"/domains/{uuid}/settings")
    page.get_by_label("Screen", exact=True).fill("sdl=1")
    page.get_by_role("button", name="Save the definition").click()
    refused = page.get_by_role("status").get_by_text("vfbs: ")
    refused.wait_for()
    assert serious(page) == []
    page.get_by_role("button", name="Close message").click()
    expect(refused).to_have_count(0, timeout=TIMEOUT_MS)


def test_two_hundred_domains_are_listed_and_one_of_them_is_found(
    open_page: Callable[..., Page], api: httpx.Client, shell: str
) -> None:
    body = {"kernel": shell, "memory_mib": 16, "persistent": True, "start": False}
    for number in range(200):
        create(api, **body, name=f"many {number}")
    page = open_page()
    cards = page.locator(".card")
    expect(cards).to_have_count(200, timeout=TIMEOUT_MS)
    assert cards.locator("h2").all_inner_texts() == [f"many {number}" for number in range(200)]
    page.get_by_label("Find").fill("ANY 19")
    expect(cards).to_have_count(11, timeout=TIMEOUT_MS)
    assert serious(page) == []
    page.get_by_label("Find").fill("nobody")
    page.get_by_text("No domain has this in its name or description.").wait_for()
    page.get_by_label("Find").fill("")
    expect(cards).to_have_count(200, timeout=TIMEOUT_MS)


LONG = "a-name-without-any-place-to-break-" * 2
ODD = ["שרת הבדיקה", "اسم الجهاز", "東京の仮想機械", "≤ 𝓂 ☃"]


def test_long_names_and_those_of_other_scripts_have_room_and_their_own_direction(
    open_page: Callable[..., Page], api: httpx.Client, shell: str
) -> None:
    body = {"kernel": shell, "memory_mib": 16, "persistent": True, "start": False}
    uuids = [create(api, **body, name=name, description=name) for name in (LONG, *ODD)]
    page = open_page(width=390)
    expect(page.locator(".card")).to_have_count(5, timeout=TIMEOUT_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    hebrew = page.locator(".card h2 bdi", has_text=ODD[0])
    assert hebrew.evaluate("name => getComputedStyle(name).unicodeBidi") == "isolate"
    for uuid, name in zip(uuids[:2], (LONG, ODD[0]), strict=True):
        go(page, f"/domains/{uuid}")
        expect(page.locator("h1")).to_contain_text(name, timeout=TIMEOUT_MS)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name=f"Delete {ODD[0]}").click()
    page.get_by_role("dialog").get_by_text(ODD[0]).wait_for()
    assert serious(page) == []


@pytest.mark.parametrize(
    ("views", "tabs"),
    [(["/create"], ["/disks"]), pytest.param(VIEWS_OF_ALL, TABS, marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_each_view_is_there_again_after_a_reload(
    open_page: Callable[..., Page], api: httpx.Client, shell: str, views: list[str], tabs: list[str]
) -> None:
    uuid = create(api, name="linked", kernel=shell, memory_mib=16, vifs=["bridge=lan"], vfbs=["vnc=0"])
    page = open_page()
    for path in [*views, *(f"/domains/{uuid}{tab}" for tab in tabs)]:
        go(page, path)
        page.locator("#main h1").wait_for()
        title = page.title()
        page.reload()
        expect(page).to_have_title(title, timeout=TIMEOUT_MS)
        page.locator("#main h1").wait_for()
        assert page.url.endswith(f"#{path}")
    go(page, "/domains/no-such-domain/console")
    page.get_by_text("There is no such domain").wait_for()
    page.reload()
    page.get_by_text("There is no such domain").wait_for()


def test_two_browsers_see_the_same_and_one_sees_what_the_other_ends(
    open_page: Callable[..., Page], api: httpx.Client, shell: str
) -> None:
    uuid = create(api, name="shared", kernel=shell, memory_mib=16, persistent=True)
    pages = [open_page(), open_page(width=390)]
    for page in pages:
        go(page, f"/domains/{uuid}/console")
        page.locator("domain-console[data-connected]").wait_for()
    pages[0].locator(".console-screen").click()
    pages[0].keyboard.type("echo both\n")
    for page in pages:
        until(partial(has_line, page, "both"), what="an answer")
    pages[1].get_by_role("button", name="Power off shared").click()
    pages[1].get_by_role("dialog").get_by_role("button", name="Power off").click()
    for page in pages:
        page.locator("h1 .badge.halted").wait_for()
        expect(page.locator(".console-line")).to_contain_text("halted", timeout=TIMEOUT_MS)
        assert page.locator("domain-console[data-connected]").count() == 0
    pages[1].get_by_role("button", name="Start shared").click()
    for page in pages:  # and again, in the same view
        page.locator("domain-console[data-connected]").wait_for()


def test_everything_can_be_done_with_the_keyboard_alone(
    open_page: Callable[..., Page], api: httpx.Client, shell: str
) -> None:
    page = open_page()
    page.get_by_text("No domain is here yet.").wait_for()

    def reach(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(FOCUSED) == name:
                return
        raise AssertionError(f"no {name} is reached")

    reach("New domain")
    page.keyboard.press("Enter")
    page.get_by_label("Name", exact=True).wait_for()
    for name, text in (("Name", "keys"), ("Memory (MiB)", "16"), ("Kernel", shell)):
        reach(name)
        page.keyboard.press("Control+a")
        page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.locator("domain-console[data-connected]").wait_for()
    page.locator("#main").focus()
    reach("Pause keys")
    page.keyboard.press("Space")
    page.locator("h1 .badge.paused").wait_for()
    reach("Power off keys")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0, timeout=TIMEOUT_MS)
    assert page.evaluate(FOCUSED) == "Power off keys"  # as it was before the question
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("h1 .badge.halted").wait_for()


def test_work_is_given_up_in_the_list_of_tasks(open_page: Callable[..., Page], api: httpx.Client, dom0: Server) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(dom0.socket))
        client.sendall(
            b"PUT /v1/images/half HTTP/1.1\r\nHost: domzero\r\nContent-Length: 4194304\r\n\r\n" + bytes(1 << 21)
        )
        page = open_page()
        go(page, "/tasks")
        page.get_by_role("progressbar", name="Progress").wait_for()
        assert serious(page) == []
        page.get_by_role("button", name="Cancel image.upload").click()
        page.locator(".badge.cancelled").wait_for()
    assert "half" not in {image["name"] for image in api.get("/images").json()}
