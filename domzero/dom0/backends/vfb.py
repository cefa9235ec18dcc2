# SPDX-License-Identifier: Apache-2.0
"""The framebuffer's back end (io/fbif.h): shows on a `Display` what a guest draws."""

from __future__ import annotations

import threading
from collections.abc import Callable

from domzero.abi.io_fbif import XenfbRing, XenfbType, xenfb_page, xenfb_resize, xenfb_update
from domzero.abi.layout import offset_of, sizeof
from domzero.dom0.backends.framebuffer import Framebuffer
from domzero.dom0.backends.xenbus import Device, Front, FrontendError, Nodes
from domzero.dom0.vfbspec import VfbSpec
from domzero.dom0.vnc.display import Display, Rect
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.evtchn import BackendPort, bind_backend
from domzero.hypervisor.host_frames import HostFrames, NotItsFrame

_EVENT, _EVENTS, _LENGTH = XenfbRing.XENFB_OUT_EVENT_SIZE, XenfbRing.XENFB_OUT_RING_OFFS, XenfbRing.XENFB_OUT_RING_LEN
_CONS, _PROD = (offset_of(xenfb_page, name) for name in ("out_cons", "out_prod"))
_PAGE_MFN_MAX = (1 << 52) - 1
PROTOCOLS = {"x86_32-abi": True, "x86_64-abi": False}


class SharedPage:
    """A page that a front end names by its frame, with the event channel that goes with it."""

    def __init__(self, domain: Domain, mfn: int, number: int, answer: Callable[[], None]) -> None:
        """:raises FrontendError: neither can be used; nothing is held then."""
        self.frames = HostFrames(domain)
        try:
            self.page = self.frames.take(mfn, writable=True)
        except NotItsFrame:
            raise FrontendError(f"page-ref {mfn:#x} is no ordinary frame of the domain's") from None
        try:
            self.port: BackendPort = bind_backend(domain, number, answer)
        except XenError as error:
            self.frames.release()
            raise FrontendError(f"event-channel {number}: {error}") from error

    def index(self, at: int) -> int:
        """An index of a ring, read once."""
        return int.from_bytes(self.page[at : at + 4], "little")

    def set_index(self, at: int, value: int) -> None:
        """Writes one."""
        self.page[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    def close(self) -> None:
        """Lets go of both; nobody uses the page any more."""
        self.port.close()
        self.frames.release()


class FramebufferDevice(Device):
    """One framebuffer of one domain."""

    kind = "vfb"

    def __init__(self, domain: Domain, spec: VfbSpec, display: Display, address: Nodes) -> None:
        self.devid = spec.devid
        self.broken: Callable[[str], None] = lambda _: None
        self.spec = spec
        self._domain = domain
        self._display = display
        self._address = address
        self._lock = threading.RLock()
        self._shared: SharedPage | None = None
        self._buffer: Framebuffer | None = None
        self._pixels: HostFrames | None = None

    def front_nodes(self) -> Nodes:
        """Written by the toolstack for the front end."""
        return {}

    def back_nodes(self) -> Nodes:
        """Written by the toolstack and the back end."""
        return {"vnc": int(self.spec.vnc), **self._address, "feature-resize": 1}

    def connect(self, front: Front) -> Nodes:
        """Takes the page and the frames that the front end has written down."""
        protocol = front.text("protocol")
        is_32bit = self._domain.is_32bit if protocol is None else PROTOCOLS.get(protocol)
        if is_32bit is None:
            raise FrontendError(f"protocol {protocol!r} is unknown")
        mfn, number = front.number("page-ref", most=_PAGE_MFN_MAX), front.number("event-channel")
        with self._lock:
            self._shared = shared = SharedPage(self._domain, mfn, number, self._answer)
            self._pixels = HostFrames(self._domain)
            try:
                self._buffer = Framebuffer.take(bytes(shared.page), self._pixels, is_32bit=is_32bit)
                self._display.tells_changes = front.number("feature-update", 0) == 1
            except FrontendError:
                self.disconnect()
                raise
            self._display.show(self._buffer)
        return {"request-update": int(self._display.tells_changes)}

    def disconnect(self) -> None:
        """Lets go of them: nothing is shown any more."""
        with self._lock:
            shared, self._shared = self._shared, None
            pixels, self._pixels = self._pixels, None
            if self._buffer is not None:
                self._buffer = None
                self._display.show(None)
            if pixels is not None:
                pixels.release()
            if shared is not None:
                shared.close()

    def close(self) -> None:
        """Nothing is behind it that is not the display's."""

    def _answer(self) -> None:
        """Takes the front end's events; one call takes at most a ring of them."""
        with self._lock:
            self._take_events()

    def _take_events(self) -> None:
        shared = self._shared
        if shared is None or self._buffer is None:
            return
        cons, prod = shared.index(_CONS), shared.index(_PROD)
        if (prod - cons) & 0xFFFFFFFF > _LENGTH:
            self.broken("the ring of events makes no sense")
            return
        if prod == cons:
            return
        count = (prod - cons) & 0xFFFFFFFF
        try:
            for index in range(cons, cons + count):
                at = _EVENTS + (index & 0xFFFFFFFF) % _LENGTH * _EVENT
                self._take(bytes(shared.page[at : at + _EVENT]))
        except FrontendError as error:
            self.broken(str(error))
            return
        shared.set_index(_CONS, prod)
        shared.port.notify()

    def _take(self, event: bytes) -> None:
        buffer = self._buffer
        if buffer is None:
            return
        if event[0] == XenfbType.XENFB_TYPE_UPDATE:
            update = xenfb_update.from_buffer_copy(event[: sizeof(xenfb_update)])
            self._display.damage(Rect(update.x, update.y, max(update.width, 0), max(update.height, 0)))
        elif event[0] == XenfbType.XENFB_TYPE_RESIZE:
            resize = xenfb_resize.from_buffer_copy(event[: sizeof(xenfb_resize)])
            self._buffer = buffer.resized(resize)
            self._display.show(self._buffer)


__all__ = ["FramebufferDevice", "SharedPage"]
