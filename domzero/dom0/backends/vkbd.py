# SPDX-License-Identifier: Apache-2.0
"""The keyboard's and pointer's back end (io/kbdif.h): gives a guest what is typed and pointed at on a `Display`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from domzero.abi.io_kbdif import XenkbdRing, XenkbdType, xenkbd_key, xenkbd_motion, xenkbd_page, xenkbd_position
from domzero.abi.layout import offset_of
from domzero.dom0.backends.devices import Devices
from domzero.dom0.backends.vfb import FramebufferDevice, SharedPage
from domzero.dom0.backends.xenbus import Device, Front, Nodes
from domzero.dom0.vfbspec import VfbSpec
from domzero.dom0.vnc.display import HEIGHT, WIDTH, Display
from domzero.dom0.vnc.listener import OpenScreen
from domzero.dom0.vnc.server import VncServer
from domzero.dom0.xenstore.remote import StoreApi
from domzero.hypervisor.domain import Domain

_EVENT, _EVENTS, _LENGTH = (
    XenkbdRing.XENKBD_IN_EVENT_SIZE,
    XenkbdRing.XENKBD_IN_RING_OFFS,
    XenkbdRing.XENKBD_IN_RING_LEN,
)
_CONS, _PROD = (offset_of(xenkbd_page, name) for name in ("in_cons", "in_prod"))
_PAGE_MFN_MAX = (1 << 52) - 1
QUEUE_MAX = 4096
"""Events that wait until the guest has room for them; more are forgotten."""
KEY_MAX = 0x2FF
"""Linux' highest."""


class KeyboardDevice(Device):
    """Keyboard and pointer of one domain: a `vnc.display.InputSink`."""

    kind = "vkbd"

    def __init__(self, domain: Domain, devid: int, display: Display) -> None:
        self.devid = devid
        self.broken: Callable[[str], None] = lambda _: None
        self._domain = domain
        self._display = display
        self._lock = threading.Lock()
        self._queue: deque[bytes] = deque()
        self._shared: SharedPage | None = None
        self._is_absolute = False
        self._at = 0, 0

    def front_nodes(self) -> Nodes:
        """Written by the toolstack for the front end."""
        return {}

    def back_nodes(self) -> Nodes:
        """Written by the toolstack and the back end: a pointer's place is one on the screen of this size."""
        return {"feature-abs-pointer": 1, "width": WIDTH, "height": HEIGHT}

    def connect(self, front: Front) -> Nodes:
        """Takes the page that the front end has written down."""
        mfn, number = front.number("page-ref", most=_PAGE_MFN_MAX), front.number("event-channel")
        is_absolute = front.number("request-abs-pointer", 0) == 1
        shared = SharedPage(self._domain, mfn, number, self._push)
        with self._lock:
            self._queue.clear()
            self._is_absolute, self._shared = is_absolute, shared
        self._display.connect_input(self)
        return {}

    def disconnect(self) -> None:
        """Lets go of it: what is typed is forgotten."""
        with self._lock:
            shared, self._shared = self._shared, None
        if shared is not None:
            self._display.connect_input(None)
            shared.close()

    def close(self) -> None:
        """Nothing is behind it that is not the display's."""

    def key(self, code: int, *, pressed: bool) -> None:
        """A key or a button."""
        if 0 < code <= KEY_MAX:
            self._add(bytes(xenkbd_key(type=XenkbdType.XENKBD_TYPE_KEY, pressed=int(pressed), keycode=code)))

    def move(self, x: int, y: int, wheel: int, width: int, height: int) -> None:
        """The pointer's place on a screen of this size, and its wheel."""
        if self._is_absolute:
            x, y = x * WIDTH // width, y * HEIGHT // height  # of the size that the front end was told
            event: xenkbd_position | xenkbd_motion = xenkbd_position(
                type=XenkbdType.XENKBD_TYPE_POS, abs_x=x, abs_y=y, rel_z=wheel
            )
        else:
            before, self._at = self._at, (x, y)
            event = xenkbd_motion(
                type=XenkbdType.XENKBD_TYPE_MOTION, rel_x=x - before[0], rel_y=y - before[1], rel_z=wheel
            )
        self._add(bytes(event))

    def _add(self, event: bytes) -> None:
        with self._lock:
            if self._shared is not None and len(self._queue) < QUEUE_MAX:
                self._queue.append(event)
        self._push()

    def _push(self) -> None:
        """Moves what waits to the ring, as far as there is room. Also called when the guest has taken some."""
        with self._lock:
            shared = self._shared
            if shared is None or not self._queue:
                return
            cons, prod = shared.index(_CONS), shared.index(_PROD)
            room = _LENGTH - ((prod - cons) & 0xFFFFFFFF)
            if room < 0:
                fault = True
            else:
                fault = False
                for _ in range(min(room, len(self._queue))):
                    at = _EVENTS + prod % _LENGTH * _EVENT
                    shared.page[at : at + _EVENT] = self._queue.popleft().ljust(_EVENT, b"\0")
                    prod = (prod + 1) & 0xFFFFFFFF
                shared.set_index(_PROD, prod)
        if fault:
            self.broken("the ring of events makes no sense")
        elif room:
            shared.port.notify()


class DomainDisplay:
    """The screen of one domain with its devices, from when it is built to its end."""

    def __init__(self, store: StoreApi, domain: Domain) -> None:
        self.display = Display()
        self.server = VncServer(self.display, "", "", None)
        self._framebuffers: Devices[FramebufferDevice] = Devices(store, domain, "vfb")
        self._keyboards: Devices[KeyboardDevice] = Devices(store, domain, "vfb")

    def plug(self, spec: VfbSpec, view: OpenScreen | None, name: str) -> None:
        """Gives the domain a framebuffer with keyboard and pointer.

        :param view: where viewers come from, taken; None: from nowhere but Domain 0.
        :param name: that viewers see.
        """
        self.server = VncServer(self.display, name, spec.password, None if view is None else view.sock)
        address: Nodes = {} if view is None else view.nodes
        domain = self._framebuffers.domain
        what = f"a framebuffer {spec.devid}"
        self._keyboards.plug(KeyboardDevice(domain, spec.devid, self.display), what)
        self._framebuffers.plug(FramebufferDevice(domain, spec, self.display, address), what)

    def close(self) -> None:
        """Lets go of both, and of all viewers. Not with `host.lock` held."""
        self.server.close()
        self._framebuffers.close()
        self._keyboards.close()


__all__ = ["DomainDisplay", "KeyboardDevice"]
