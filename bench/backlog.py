"""A backlog that a worker works off: the measurement of all loads of many jobs.

All jobs are submitted first. The clock starts when a share of them is done, so that neither side's start counts, and
ends with the last one. CPU is that of the worker's whole tree in between.
"""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from bench.measurement import Measurement
from bench.process_tree import moment
from bench.stage import Stage, control
from bench.tracked_process import Tracked
from dev.process import ServiceError

POLL: Final = 0.05  #: seconds
WARM: Final = 0.1  #: share of the jobs after which the clock starts
LONGEST: Final = 1800.0  #: seconds


class Workers(Protocol):
    """Somebody's worker and clients."""

    def submit(self, **what: Any) -> object: ...  # noqa: D102

    def worker(self) -> AbstractContextManager[Tracked]: ...  # noqa: D102

    def sql_counts(self) -> Mapping[str, int]: ...  # noqa: D102

    def succeeded(self) -> int: ...  # noqa: D102

    def failed(self) -> int: ...  # noqa: D102


def work_off(stage: Stage, workers: Workers, count: int, units: float, **what: Any) -> Measurement:
    """Submit ``count`` jobs and let the worker work them off. ``units``: what all of them together are."""
    workers.submit(first=0, count=count, **what)
    with workers.worker() as tracked:
        _wait(workers, max(1, round(count * WARM)))
        reset_counts(stage)
        sql = workers.sql_counts()
        begun = moment(tracked.pid, workers.succeeded())
        _wait(workers, count)
        ended = moment(tracked.pid, count)
        asked = {name: number - sql[name] for name, number in workers.sql_counts().items()}
    done = (ended.done - begun.done) or 1
    measured = done / count * units
    return Measurement(
        units=measured,
        wall=ended.at - begun.at,
        cpu=ended.cpu - begun.cpu,
        memory=tracked.peak.memory,
        more=request_counts(stage, done) | {f"{name} per job": number / done for name, number in asked.items()},
    )


def _wait(workers: Workers, count: int) -> None:
    deadline = time.monotonic() + LONGEST
    while (succeeded := workers.succeeded()) < count:
        if workers.failed():
            raise ServiceError(f"{workers.failed()} jobs have failed after {succeeded}")
        if time.monotonic() > deadline:
            raise ServiceError(f"only {succeeded} of {count} jobs within {LONGEST:g} seconds")
        time.sleep(POLL)


def reset_counts(stage: Stage) -> None:
    """Count requests from zero, if the store counts them."""
    if stage.options.store == "sink":
        control(stage.sink, "reset")


def request_counts(stage: Stage, jobs: int) -> dict[str, float]:
    """The requests per job, by verb, if the store counts them."""
    if stage.options.store != "sink":
        return {}
    counts = control(stage.sink, "counts", "GET")
    return {f"{verb} per job": number / jobs for verb, number in sorted(counts["verbs"].items())}
