# SPDX-License-Identifier: Apache-2.0
"""What domains have used, in the database: a day by the minute, a month by the hour."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from uuid import UUID

from domzero.dom0.database import Database
from domzero.dom0.metrics.sampler import Counters, Sample, Sampler

logger = logging.getLogger(__name__)

MINUTE, HOUR, DAY = 60, 3600, 86400
HOST = UUID(int=0)
"""In the place of a domain: the host itself."""
KEPT = {MINUTE: DAY, HOUR: 31 * DAY}
"""Seconds that rows of each step are kept."""
_COUNTERS = tuple(field.name for field in fields(Counters))
_ADD = f"""
    INSERT INTO metrics (domain, step, at, covered, memory_mib, {", ".join(_COUNTERS)})
    VALUES (?, ?, ?, ?, ?, {", ".join("?" * len(_COUNTERS))})
    ON CONFLICT DO UPDATE SET
        memory_mib = (memory_mib * covered + excluded.memory_mib * excluded.covered) / (covered + excluded.covered),
        covered = covered + excluded.covered,
        {", ".join(f"{name} = {name} + excluded.{name}" for name in _COUNTERS)}
"""
_READ = f"""
    SELECT at / :step * :step AS period, SUM(covered) AS covered,
        SUM(memory_mib * covered) / SUM(covered) AS memory_mib,
        {", ".join(f"SUM({name}) AS {name}" for name in _COUNTERS)}
    FROM metrics WHERE domain = :domain AND step = :of AND at >= :since GROUP BY period ORDER BY period
"""


@dataclass(slots=True, frozen=True)
class Point:
    """What a domain used in a period.

    :param at: begin of the period, in seconds since 1970.
    :param covered: seconds of it in which the domain ran and was measured.
    :param memory_mib: mean.
    :param used: in the period.
    """

    at: int
    covered: float
    memory_mib: float
    used: Counters


class History:
    """The table `metrics`. Methods take a millisecond or so."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, points: Sequence[tuple[UUID, Point]]) -> None:
        """Adds what domains used to the minutes and the hours of it."""
        with self._database.write() as cursor:
            for domain, point in points:
                for step in KEPT:
                    values = (str(domain), step, point.at // step * step, point.covered, point.memory_mib)
                    cursor.execute(_ADD, (*values, *astuple(point.used)))

    def thin(self, now: float) -> None:
        """Drops what is older than it is kept."""
        with self._database.write() as cursor:
            for step, seconds in KEPT.items():
                cursor.execute("DELETE FROM metrics WHERE step = ? AND at < ?", (step, int(now) - seconds))

    def read(self, domain: UUID, since: float, step: int) -> list[Point]:
        """What a domain used, in periods of `step` seconds: a multiple of a minute, from an hour on of an hour."""
        of = HOUR if step % HOUR == 0 else MINUTE
        since = int(since) // step * step
        arguments = {"domain": str(domain), "step": step, "of": of, "since": since}
        return [
            Point(row["period"], row["covered"], row["memory_mib"], Counters(*(row[name] for name in _COUNTERS)))
            for row in self._database.rows(_READ, arguments)
        ]


class Recorder:
    """Measures all domains each minute, and keeps what they used since the last time.

    :param now: seconds since 1970.
    :param host: what the host itself has used since it was asked last.
    """

    def __init__(
        self,
        sampler: Sampler,
        history: History,
        now: Callable[[], float] = time.time,
        host: Callable[[], Point | None] = lambda: None,
    ) -> None:
        self._host = host
        self._sampler = sampler
        self._history = history
        self._now = now
        self._before: dict[tuple[UUID, int | None], Sample] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(MINUTE - self._now() % MINUTE)
            try:
                self.keep(await self._sampler.samples())
            except sqlite3.Error as error:  # a full disk: it goes on when there is room again
                logger.warning("what domains use could not be kept: %s", error)

    def keep(self, samples: Sequence[Sample]) -> None:
        """Adds what was used since the last samples; a domain's first start counts from its begin."""
        points = []
        for sample in samples:
            if sample.measured is None:
                continue
            key = (sample.record.uuid, sample.domid)
            before = self._before.get(key)
            begun = sample.record.started_at or sample.at
            covered = sample.at - (before.at if before is not None else max(begun, sample.at - MINUTE))
            used = sample.counters.since(before.counters if before is not None else Counters())
            if covered > 0:
                # The period is the one in which most of it was used.
                at = int(sample.at - covered / 2)
                points.append((key[0], Point(at, covered, sample.measured.memory_mib, used)))
        if (point := self._host()) is not None:
            points.append((HOST, point))
        self._before = {(sample.record.uuid, sample.domid): sample for sample in samples if sample.measured is not None}
        if points:
            self._history.add(points)
        self._history.thin(self._now())
