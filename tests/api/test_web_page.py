# SPDX-License-Identifier: Apache-2.0
"""The page at /, in Chromium: what a person does with it, for everybody's eyes and hands, and under its own policy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import web_fixtures
from dom0_server import Server
from playwright.sync_api import Page, Route, expect
from waiting import until
from web_fixtures import TIMEOUT_MS, create, serious

from domzero.dom0.images import fetch_debian
from domzero.dom0.images.cache import Image
from domzero.dom0.images.tools import find_tool
from domzero.errors import DomzeroError

VIEWS = ["/", "/create", "/images", "/networks", "/tasks", "/log", "/host", "/users", "/users/viewed"]
TABS = ["", "/console", "/screen", "/disks", "/network", "/settings"]


dom0, playwright, browser = web_fixtures.dom0, web_fixtures.playwright, web_fixtures.browser
api, open_page = web_fixtures.api, web_fixtures.open_page


@pytest.fixture(scope="module")
def debian() -> Image:
    try:
        return fetch_debian(lambda text: None)[0]
    except DomzeroError as error:
        pytest.skip(f"no Debian kernel: {error}")


def says(page: Page, text: str) -> None:
    """Waits until the console shows it. (Playwright's own wait for a function is a string: the policy refuses it.)"""
    until(lambda: text in page.locator(".xterm-rows").inner_text(), what=text)


def test_a_person_creates_a_domain_talks_with_it_sees_it_work_and_deletes_it(
    open_page: Callable[..., Page], api: httpx.Client, shell: str
) -> None:
    page = open_page()
    expect(page.get_by_role("heading", name="Domains")).to_be_visible(timeout=TIMEOUT_MS)
    assert "token" not in page.url
    page.get_by_role("link", name="New domain").click()
    page.get_by_label("Name", exact=True).fill("first")
    page.get_by_label("Memory (MiB)").fill("16")
    page.get_by_label("Kernel", exact=True).fill(shell)
    page.get_by_role("button", name="Create").click()

    page.locator("domain-console[data-connected]").wait_for()
    page.locator(".console-screen").click()
    page.keyboard.type("echo seventeen\n")
    until(lambda: page.locator(".xterm-rows").inner_text().split("\n").count("seventeen") == 1)

    page.keyboard.type("spin\n")
    page.keyboard.press("Control+]")
    page.keyboard.press("Shift+Tab")  # from Console to Overview, without a mouse
    page.keyboard.press("Enter")
    busy = page.get_by_role("img", name=re.compile(r"^CPU: (\d{2,}|[1-9]\.\d) %"))
    busy.wait_for()
    line = page.locator(".graph .line.cpu").last
    before = line.get_attribute("points")
    until(lambda: line.get_attribute("points") != before, what="another point")

    page.get_by_role("button", name="Pause first").click()
    page.locator("h1 .badge.paused").wait_for()
    page.get_by_role("button", name="Resume first").click()
    page.locator("h1 .badge.running").wait_for()
    page.get_by_role("button", name="Power off first").click()
    page.get_by_role("dialog").get_by_role("button", name="Power off").click()
    page.locator("h1 .badge.halted").wait_for()
    page.get_by_role("button", name="Delete first").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No domain is here yet.")).to_be_visible(timeout=TIMEOUT_MS)
    assert api.get("/domains", params={"halted": True}).json() == []


def test_what_is_wrong_with_a_copy_is_said_in_the_form(open_page: Callable[..., Page], api: httpx.Client) -> None:
    page = open_page(wrong="422")
    page.get_by_role("link", name="New domain").click()
    page.get_by_label("Starts from").select_option("base")
    assert page.get_by_label("Memory (MiB)").input_value() == "512"
    page.get_by_label("Name", exact=True).fill("no name of an image")
    page.get_by_label("SSH keys").fill("no key")
    page.get_by_label("Start it now").uncheck()
    assert serious(page) == []
    with page.expect_response("**/clones") as refused:
        page.get_by_role("button", name="Create").click()
    assert refused.value.status == 422
    page.get_by_role("alert").wait_for()
    assert api.get("/domains", params={"halted": True}).json() == []


def test_the_copy_has_its_own_disk_and_its_own_first_start(open_page: Callable[..., Page], api: httpx.Client) -> None:
    page = open_page()
    page.get_by_role("link", name="New domain").click()
    page.get_by_label("Starts from").select_option("base")
    page.get_by_label("Name", exact=True).fill("copy")
    page.get_by_label("SSH keys").fill("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 anna@example")
    page.get_by_label("Start it now").uncheck()
    page.get_by_role("button", name="Create").click()
    page.locator("h1 .badge.halted").wait_for()
    images = {image["name"]: image for image in api.get("/images").json() if image["kind"] == "disk"}
    assert images["copy"]["has_first_boot"] and not images["base"]["has_first_boot"]
    (domain,) = api.get("/domains", params={"halted": True}).json()
    assert domain["disks"] == images["copy"]["disks"] and len(domain["disks"]) == 2
    assert api.post("/images/absent/clones", json={"name": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (390, "dark"),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(390, "light", marks=pytest.mark.slow),
    ],
)
def test_each_view_is_for_everybody_and_fits(
    open_page: Callable[..., Page], api: httpx.Client, shell: str, tmp_path: Path, width: int, scheme: str
) -> None:
    disk = tmp_path / "a.img"
    disk.write_bytes(bytes(1 << 20))
    body = {"name": "seen", "kernel": shell, "memory_mib": 16, "persistent": True, "disks": [f"{disk},raw,xvda,rw"]}
    uuid = create(api, **body, vifs=["bridge=lan"], vfbs=["vnc=0"])
    halted = create(api, **{**body, "name": "halted", "start": False})
    api.post("/users", json={"name": "viewed", "role": "read-only"})
    api.post("/users/viewed/tokens", json={"description": "backups"})
    api.put(f"/users/viewed/grants/{uuid}", json={"role": "vm-admin"})
    page = open_page(width=width, scheme=scheme)
    page.locator(".card").first.wait_for()
    found = []
    tabs = [*(f"/domains/{uuid}{tab}" for tab in TABS), *(f"/domains/{halted}{tab}" for tab in TABS[3:])]
    for path in [*VIEWS, *tabs]:
        page.goto(f"{page.url.partition('#')[0]}#{path}")
        page.locator("#main h1").wait_for()
        expect(page.locator("#main")).not_to_contain_text("Loading…", timeout=TIMEOUT_MS)
        found += serious(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.goto(f"{page.url.partition('#')[0]}#/domains/{uuid}")
    assert page.get_by_role("link", name="Screen").count() == 1
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("button", name="Day").click()
    expect(page.get_by_role("button", name="Day")).to_have_attribute("aria-pressed", "true", timeout=TIMEOUT_MS)
    expect(page.get_by_text("24 hours ago")).to_have_count(4, timeout=TIMEOUT_MS)
    found += serious(page)
    assert found == []


def test_whoever_has_no_token_logs_in_by_name_and_is_shown_what_they_may_do(
    open_page: Callable[..., Page], api: httpx.Client, shell: str
) -> None:
    body = {"kernel": shell, "memory_mib": 16, "persistent": True, "start": False}
    theirs, other = (create(api, **body, name=name) for name in ("theirs", "other"))
    api.post("/users", json={"name": "anna", "role": "read-only", "password": "a long pass phrase"})
    api.put(f"/users/anna/grants/{theirs}", json={"role": "vm-operator"})
    page = open_page("/host")
    page.get_by_label("a name").check()
    assert serious(page) == []
    page.get_by_label("Name", exact=True).fill("anna")
    page.get_by_label("Password").fill("a long pass phrase")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Hypervisor").wait_for()
    assert page.get_by_role("link", name="Users").count() == 0
    page.reload()
    page.get_by_role("heading", name="Hypervisor").wait_for()
    page.get_by_role("link", name="Domains", exact=True).click()
    page.get_by_role("button", name="Start theirs").wait_for()
    assert page.locator(".card button").count() == 1
    assert page.get_by_role("link", name="New domain").count() == 0
    page.goto(f"{page.url.partition('#')[0]}#/domains/{other}/settings")
    page.get_by_role("heading", name="other").wait_for()
    assert page.locator("#main button, #main input").count() == 0
    held: list[Route] = []
    page.route("**/v1/domains?*", lambda route: held.append(route))
    page.get_by_role("link", name="Host").click()
    until(lambda: page.evaluate("1") == 1 and bool(held), what="a request that is under way")
    page.get_by_role("button", name="Log out").click()
    late: list[str] = []
    page.on("request", lambda request: late.extend(re.findall("/v1(.*)", request.url)))
    held[0].continue_()  # it is answered before the session ends, and nothing comes of it
    page.get_by_role("button", name="Log in").wait_for()
    assert page.context.cookies() == [] and late == ["/sessions/current"]


def test_the_owner_gives_a_user_a_token_that_is_shown_once_and_takes_all_of_it_again(
    open_page: Callable[..., Page], api: httpx.Client, dom0: Server, shell: str
) -> None:
    body = {"name": "theirs", "kernel": shell, "memory_mib": 16, "persistent": True, "start": False}
    uuid = create(api, **body)
    page = open_page()
    page.get_by_role("link", name="Users").click()
    page.get_by_label("Name", exact=True).fill("berta")
    page.get_by_label("Role", exact=True).select_option("")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("heading", name="berta").wait_for()
    page.get_by_label("Role on it").select_option("vm-operator")
    page.get_by_role("button", name="Grant").click()
    page.get_by_role("button", name=f"Revoke the role on {uuid}").wait_for()
    page.get_by_label("What it is for").fill("backups")
    page.get_by_label("Gives at most").select_option("read-only")
    page.get_by_role("button", name="Make").click()
    token = page.get_by_role("dialog").locator("code").inner_text()
    assert serious(page) == []
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0, timeout=TIMEOUT_MS)
    page.get_by_role("button", name="Revoke backups").wait_for()
    assert token not in page.content()
    with httpx.Client(base_url=f"{dom0.url}/v1", headers={"Authorization": f"Bearer {token}"}) as berta:
        assert [each["name"] for each in berta.get("/domains", params={"halted": True}).json()] == ["theirs"]
        assert berta.post(f"/domains/{uuid}/start").status_code == 403  # the token gives less than its user may
        page.get_by_role("button", name="Revoke backups").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        page.get_by_text("There is no token.").wait_for()
        assert berta.get("/domains").status_code == 401
    page.get_by_label("New password").fill("a long pass phrase")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Take the password away").wait_for()
    page.get_by_role("button", name=f"Revoke the role on {uuid}").click()
    page.get_by_text("Nothing is granted beside the role.").wait_for()
    user = api.get("/users/berta").json()
    assert (user["role"], user["grants"], user["has_password"]) == (None, {}, True)
    api.delete("/users/berta")


def test_images_are_imported_cloned_and_deleted_and_a_domain_begins_from_one(
    open_page: Callable[..., Page], api: httpx.Client, dom0: Server
) -> None:
    page = open_page()
    page.get_by_role("link", name="Images").click()
    page.get_by_label("File", exact=True).fill(str(dom0.socket.parent / "disk.img"))
    page.locator("#import-name").fill("brought")
    page.get_by_role("button", name="Import").click()
    page.get_by_label("Disk on this computer").set_input_files(dom0.socket.parent / "disk.img")
    assert page.get_by_label("Name of the image").input_value() == "disk"
    page.get_by_label("Name of the image").fill("sent")
    page.get_by_role("button", name="Upload", exact=True).click()
    page.get_by_role("button", name="Delete sent").wait_for()
    page.get_by_role("button", name="Clone brought").click()
    page.get_by_role("dialog").get_by_label("Name").fill("larger")
    page.get_by_role("dialog").get_by_label("Size").fill("+3M")
    page.get_by_role("dialog").get_by_role("button", name="Clone").click()
    page.get_by_role("button", name="Delete larger").wait_for()
    page.get_by_role("button", name="Delete brought").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Delete brought")).to_have_count(0, timeout=TIMEOUT_MS)
    until(lambda: {image["name"]: image["bytes"] for image in api.get("/images").json()}.get("larger") == 4 << 20)
    page.get_by_role("button", name="New domain from larger").click()
    expect(page.get_by_label("Starts from")).to_have_value("larger", timeout=TIMEOUT_MS)
    page.get_by_label("Name", exact=True).fill("sized")
    page.get_by_label("Size of the disk").fill("8M")
    page.get_by_label("Memory at most (MiB)").fill("1024")
    page.get_by_label("A screen").check()
    page.get_by_label("Start it now").uncheck()
    page.get_by_role("button", name="Create").click()
    page.locator("h1 .badge.halted").wait_for()
    (domain,) = api.get("/domains", params={"halted": True}).json()
    assert (domain["maxmem_mib"], domain["vfbs"]) == (1024, ["vnc=0"])
    assert {image["name"]: image["bytes"] for image in api.get("/images").json()}["sized"] == 8 << 20
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Memory (MiB)").fill("768")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("It is changed.").wait_for()
    page.get_by_role("link", name="Network", exact=True).click()
    page.get_by_label("Interface").fill("bridge=lan")
    page.get_by_role("button", name="Plug in").click()
    page.get_by_role("button", name="Detach 0").wait_for()
    page.get_by_role("link", name="Disks").click()
    page.get_by_role("button", name="Detach xvda").click()
    page.get_by_role("dialog").get_by_role("button", name="Detach").click()
    page.get_by_text("It has no disks.").wait_for()
    (domain,) = api.get("/domains", params={"halted": True}).json()
    assert (domain["memory_mib"], domain["disks"], len(domain["vifs"])) == (768, [], 1)


def test_a_kernel_is_sent_from_this_computer_and_a_domain_starts_with_it(
    open_page: Callable[..., Page], api: httpx.Client, shell: str, tmp_path: Path
) -> None:
    page = open_page()
    page.get_by_role("link", name="Images").click()
    (tmp_path / "initrd").write_bytes(b"a ramdisk" * 1000)
    page.get_by_label("Kernel on this computer").set_input_files(shell)
    assert page.get_by_label("Name of the kernel").input_value() == "shell"
    page.get_by_label("Its ramdisk, if it needs one").set_input_files(tmp_path / "initrd")
    page.get_by_label("Command line").fill("of its own")
    page.get_by_role("button", name="Upload kernel").click()
    page.get_by_text("shell is there.").wait_for()
    page.get_by_role("button", name="New domain from shell").click()
    expect(page.get_by_label("Starts from")).to_have_value("shell", timeout=TIMEOUT_MS)
    page.get_by_label("Name", exact=True).fill("by-kernel")
    page.get_by_label("Memory (MiB)").fill("16")
    page.get_by_role("button", name="Create").click()
    until(lambda: "hello" in api.get("/domains/by-kernel/console").text, what="the kernel's greeting")
    domain = api.get("/domains/by-kernel").json()
    assert (Path(domain["kernel"]).parts[-2:], domain["cmdline"]) == (("shell", "kernel"), "of its own")
    assert Path(domain["ramdisk"]).read_bytes() == b"a ramdisk" * 1000
    assert api.delete("/images/shell").status_code == 204


def test_what_changes_is_shown_by_events_and_by_asking_where_they_do_not_come(
    open_page: Callable[..., Page], api: httpx.Client
) -> None:
    page = open_page(wrong="503")
    link, rows = page.locator(".link"), page.locator("table").first
    page.goto(f"{page.url.partition('#')[0]}#/users")
    expect(link).to_have_text("Live", timeout=TIMEOUT_MS)
    page.get_by_role("heading", name="Add a user").wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    api.post("/users", json={"name": "heard"})
    expect(rows).to_contain_text("heard", timeout=TIMEOUT_MS)
    # Nothing was asked for that the event was no reason for: each is one list of domains, users and the audit log.
    assert 1 <= sum("/v1/users" in url for url in asked) <= 2
    page.route("**/v1/events*", lambda route: route.fulfill(status=503))
    page.reload()
    expect(link).to_have_text("Polling", timeout=TIMEOUT_MS)
    api.post("/users", json={"name": "asked"})
    expect(rows).to_contain_text("asked", timeout=TIMEOUT_MS)
    page.route("**/v1/domains?*", lambda route: route.fulfill(status=503))
    expect(link).to_have_text("Not connected", timeout=TIMEOUT_MS)
    page.get_by_role("alert").wait_for()
    assert serious(page) == []
    with page.expect_request("**/v1/domains?*"):
        page.get_by_role("button", name="Ask now").click()
    page.unroute("**/v1/domains?*")
    page.unroute("**/v1/events*")
    expect(link).to_have_text("Live", timeout=TIMEOUT_MS)
    for name in ("heard", "asked"):
        api.delete(f"/users/{name}")


def test_what_a_guest_and_a_name_say_is_text(open_page: Callable[..., Page], api: httpx.Client, shell: str) -> None:
    name = "<img src=x onerror=alert(1)>"
    body = {"name": name, "kernel": shell, "memory_mib": 16, "description": "<script>alert(2)</script>"}
    uuid = create(api, **body)
    page = open_page()
    expect(page.locator(".card h2")).to_have_text(name, timeout=TIMEOUT_MS)
    assert page.locator(".card img, .card script").count() == 0
    page.goto(f"{page.url.partition('#')[0]}#/domains/{uuid}/console")
    page.locator("domain-console[data-connected]").wait_for()
    api.post(f"/domains/{uuid}/console", json={"data": "echo <i>\x1b[38;2;1;200;3mgreen\n"})
    says(page, "<i>")
    green = page.locator(".xterm-rows span", has_text="green").first
    assert green.evaluate("each => getComputedStyle(each).color") == "rgb(1, 200, 3)"


def test_files_of_the_page_are_for_everybody_and_nothing_else_of_the_host_is(dom0: Server) -> None:
    with httpx.Client(base_url=dom0.url) as client:
        page = client.get("/")
        assert page.status_code == 200 and page.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "img-src 'self' data:; connect-src 'self'; " in policy
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Referrer-Policy"] == "no-referrer"
        for tag in re.findall(r"<(?:script|style|link)\b[^>]*>", page.text):
            assert "/web/" in tag, f"inline: {tag}"
        script = client.get("/web/js/main.js")
        assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
        again = client.get("/web/js/main.js", headers={"If-None-Match": script.headers["ETag"]})
        assert again.status_code == 304 and again.content == b""
        for path in (
            "/web/../files.py",
            "/web/%2e%2e/files.py",
            "/web/..%2f..%2fserver.py",
            "/web//etc/passwd",
            "/web/",
        ):
            assert client.get(path).status_code in (401, 404), path
        assert client.get("/v1/domains").status_code == 401
        assert client.post("/web/js/main.js").status_code == 405
        assert client.head("/").status_code == 200


def pixels(page: Page) -> str:
    """Of the screen's canvas, as a text that is another one if they are."""
    text: str = page.locator(".vnc-screen canvas").evaluate("canvas => canvas.toDataURL()")
    return text


def type_keys(page: Page, text: str) -> None:
    """With Shift where a keyboard of the United States needs it; Playwright's own `type` presses none."""
    for letter in text:
        shifted = letter.isupper() or letter in '~!@#$%^&*()_+{}|:"<>?'
        page.keyboard.press(("Shift+" if shifted else "") + ("Enter" if letter == "\n" else letter))


@pytest.mark.guest
@pytest.mark.timeout(600)
def test_a_person_types_on_debians_screen_and_leaves_it(
    open_page: Callable[..., Page], api: httpx.Client, debian: Image
) -> None:
    start = {"kernel": str(debian.kernel), "ramdisk": str(debian.ramdisk), "cmdline": f"console=tty0 {debian.cmdline}"}
    body = {"name": "seen", "memory_mib": 160, "vfbs": ["vnc=1,vncpasswd=geheim"], **start}
    uuid = create(api, **body)
    until(lambda: ":/root# " in api.get(f"/domains/{uuid}/console").text, 240, "Debian's prompt")
    page = open_page()
    page.locator(".card").first.wait_for()
    page.goto(f"{page.url.partition('#')[0]}#/domains/{uuid}/screen")
    page.locator("domain-screen[data-connected]").wait_for()
    canvas = page.locator(".vnc-screen canvas")
    until(lambda: canvas.evaluate("canvas => canvas.width") == 800, what="a picture")
    canvas.click()
    before = pixels(page)
    # What the screen's shell writes to the other console shows that each key has come as it was typed.
    type_keys(page, 'echo "$((6*7)) {by} KEYS" > /dev/hvc0\n')
    until(lambda: "42 {by} KEYS" in api.get(f"/domains/{uuid}/console").text, what="the answer")
    until(lambda: pixels(page) != before, what="another picture")
    assert serious(page) == []
    page.keyboard.press("Control+]")
    expect(page.get_by_role("link", name="Screen")).to_be_focused(timeout=TIMEOUT_MS)
    page.set_viewport_size({"width": 390, "height": 844})
    until(lambda: canvas.evaluate("canvas => canvas.getBoundingClientRect().width") <= 362, what="a smaller picture")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Keyboard", exact=True).click()
    page.keyboard.type('echo "A Phone" > /dev/hvc0\n')
    until(lambda: "A Phone" in api.get(f"/domains/{uuid}/console").text, what="the phone's answer")


@pytest.mark.skipif(find_tool("qemu-system-x86_64") is None, reason="there is no QEMU (qemu-system-x86)")
def test_an_hvm_domains_screen_is_shown_without_a_framebuffer(
    open_page: Callable[..., Page], api: httpx.Client
) -> None:
    uuid = create(api, name="hvm", type="hvm", memory_mib=64)
    page = open_page()
    page.locator(".card").first.wait_for()
    page.goto(f"{page.url.partition('#')[0]}#/domains/{uuid}")
    page.get_by_role("link", name="Screen").click()
    page.locator("domain-screen[data-connected]").wait_for()
    until(lambda: page.locator(".vnc-screen canvas").evaluate(web_fixtures.LIT), what="what its BIOS says")


@pytest.mark.slow
@pytest.mark.guest
def test_a_person_works_on_debians_console(open_page: Callable[..., Page], api: httpx.Client, debian: Image) -> None:
    page = open_page()
    page.get_by_role("link", name="New domain").click()
    page.get_by_label("Starts from").select_option(debian.name)
    page.get_by_label("Name", exact=True).fill("debian")
    page.get_by_role("button", name="Create").click()
    page.locator("domain-console[data-connected]").wait_for()
    says(page, "# ")
    page.locator(".console-screen").click()
    page.keyboard.type("echo $((6 * 7)) in $(uname -s)\n")
    says(page, "42 in Linux")
    page.keyboard.type("poweroff -f\n")
    page.locator("h1 .badge.halted").wait_for()
