"""Watching the rows from outside, often: who runs what, that tokens only grow, and how soon jobs go on."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from blobferry.contract import FINAL_STATES

BETWEEN_LOOKS: Final = 0.2  #: seconds
NEWS: Final = """
    SELECT id, idempotency_key, operation, storage, path, request, state, phase, token, publish_seq, worker, bytes_done,
        lease_expires_at IS NOT NULL AS is_owned, attempt, updated_at
    FROM blobferry_jobs WHERE updated_at > clock_timestamp() - interval '1 minute' OR finished_at IS NULL
"""

Row = dict[str, Any]


@dataclass(slots=True)
class Harm:
    """What one fault did to one job."""

    kind: str
    job_id: str
    since: float  #: when the fault was over
    before: tuple[Any, ...]  #: how far the job was then
    recovered: float | None = None  #: seconds until it went on


@dataclass
class RowWatch:
    """What has been seen so far. Thread-safe enough: one thread looks, others read whole values."""

    url: str
    rows: dict[str, Row] = field(default_factory=dict)  #: by job id, as last seen
    harms: list[Harm] = field(default_factory=list)
    injected: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  #: by the kind of fault
    violations: list[str] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)  #: from when to when a fault lasted
    excused: dict[str, str] = field(default_factory=dict)  #: error codes with which jobs may fail, by their id
    looks: int = 0
    _owners: dict[tuple[str, int], str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def running(self, pids: Collection[int] | None = None) -> list[Row]:
        """The jobs that are running; if processes are given, those that they run."""
        owned = [row for row in list(self.rows.values()) if row["is_owned"] and row["worker"]]
        return [row for row in owned if pids is None or int(row["worker"].rsplit(":", 1)[1]) in pids]

    def unfinished(self) -> int:
        """How many jobs are not final."""
        return sum(row["state"] not in FINAL_STATES for row in list(self.rows.values()))

    def __str__(self) -> str:
        states = Counter(row["state"] for row in list(self.rows.values()))
        shown = ", ".join(f"{count} {state}" for state, count in states.most_common())
        open_harms = sum(harm.recovered is None for harm in list(self.harms))
        return f"{shown or 'no jobs'}; {sum(self.injected.values())} faults, {open_harms} harms open"

    def undisturbed(self, harm: Harm) -> float | None:
        """The seconds that the job took to go on, without those in which any other fault lasted."""
        if harm.recovered is None:
            return None
        begin = harm.since
        free = 0.0
        for began, ended in sorted(self.outages):
            free += max(min(began, harm.since + harm.recovered) - begin, 0)
            begin = max(begin, ended)
        return free + max(harm.since + harm.recovered - begin, 0)

    def harmed(self, kind: str, hit: Sequence[Row], began: float, ended: float) -> None:
        """A fault that hit these jobs is over; those that ended in spite of it were not harmed."""
        with self._lock:
            self.outages.append((began, ended))
            self.injected[kind] += 1
            for row in hit:
                now = self.rows[row["id"]]
                if now["state"] not in FINAL_STATES:
                    self.harms.append(Harm(kind, row["id"], ended, _progress(now)))

    def look(self, connection: psycopg.Connection[Row]) -> None:
        """Look once."""
        rows = connection.execute(NEWS).fetchall()
        with self._lock:
            for row in rows:
                self._check(row)
                seen = self.rows.get(row["id"], {"claimed": 0})
                row["claimed"] = row["token"] if row["is_owned"] else seen["claimed"]
                self.rows[row["id"]] = row
            now = time.monotonic()
            for harm in self.harms:
                if harm.recovered is None and _progress(self.rows[harm.job_id]) != harm.before:
                    harm.recovered = max(now - harm.since, 0.0)
            self.looks += 1

    def _check(self, row: Row) -> None:
        seen = self.rows.get(row["id"])
        if seen and row["token"] < seen["token"]:
            self.violations.append(f"{row['id']}: the token went from {seen['token']} back to {row['token']}")
        if row["is_owned"]:
            owner = self._owners.setdefault((row["id"], row["token"]), row["worker"])
            if owner != row["worker"]:
                self.violations.append(f"{row['id']}: {owner} and {row['worker']} had the token {row['token']}")

    def loop(self, ended: threading.Event) -> None:
        """Watch until the event is set; reconnect whenever the database goes away."""
        while not ended.is_set():
            with (
                suppress(psycopg.Error),
                psycopg.connect(self.url, autocommit=True, row_factory=dict_row, connect_timeout=3) as connection,
            ):
                while not ended.wait(BETWEEN_LOOKS):
                    self.look(connection)
            ended.wait(BETWEEN_LOOKS)


@contextmanager
def watching(url: str) -> Iterator[RowWatch]:
    """A watch that looks until the end of the block."""
    watch = RowWatch(url.replace("postgresql+psycopg://", "postgresql://", 1))
    ended = threading.Event()
    thread = threading.Thread(target=watch.loop, args=(ended,), name="watch")
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


def _progress(row: Row) -> tuple[Any, ...]:
    """What changes when a job goes on: a claim, a checkpoint, a phase, its end. Not: being taken from a dead worker."""
    return row["claimed"], row["bytes_done"], row["phase"], row["state"] in FINAL_STATES
