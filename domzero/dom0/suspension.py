# SPDX-License-Identifier: Apache-2.0
"""A worker's side of saving: its guest is expected to suspend itself, is written to a file, and goes on or not."""

from __future__ import annotations

import threading
from collections.abc import Callable

from domzero.dom0.instance import Instance
from domzero.dom0.life import EndReason
from domzero.dom0.messages import Change, Suspended
from domzero.dom0.save_progress import in_steps
from domzero.hypervisor.saved import SaveError


class Suspension:
    """What is asked of a worker's domain. Any thread."""

    def __init__(self, tell: Callable[[Change], None]) -> None:
        self._tell = tell
        self._lock = threading.Condition()
        self._is_expected = False
        self._is_there = False
        self._goes_on = False
        self._writing = 0
        self._cancelled = threading.Event()

    def expect(self) -> None:
        """The guest is about to be asked."""
        with self._lock:
            if self._is_there or self._writing:
                raise SaveError("the guest is suspended already")
            self._is_expected, self._goes_on = True, False
            self._cancelled.clear()

    def go_on(self) -> None:
        """The guest is to go on; returns when nothing is being written any more."""
        with self._lock:
            self._cancelled.set()
            self._lock.wait_for(lambda: not self._writing)
            if self._is_expected:
                self._goes_on = True
                self._lock.notify_all()

    def give_up(self) -> None:
        """The domain ends: what is being written is given up."""
        self._cancelled.set()

    def write(self, instance: Instance, fd: int) -> int:
        """Writes the suspended domain: how many bytes. DomzeroError."""
        with self._lock:
            if not self._is_there or self._goes_on:
                raise SaveError("the guest has not suspended itself")
            self._writing += 1
        try:
            return instance.save(fd, cancelled=self._cancelled, progress=self.progress())
        finally:
            with self._lock:
                self._writing -= 1
                self._lock.notify_all()

    def progress(self) -> Callable[[float], None]:
        """Tells how much is done, now and then."""
        return in_steps(self._tell)

    def takes(self, instance: Instance, reason: EndReason) -> bool:
        """Waits, if a guest has ended by suspending itself as it was asked to, until it is to go on, and lets it. False
        means that it is at its end."""
        with self._lock:
            if reason is not EndReason.SUSPEND or not self._is_expected:
                return False
            self._is_there = True
            if not self._goes_on:
                self._tell(Suspended())
            self._lock.wait_for(lambda: self._goes_on)
            self._is_expected = self._is_there = self._goes_on = False
        instance.go_on()
        return True


__all__ = ["Suspension"]
