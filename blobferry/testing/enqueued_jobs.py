"""The jobs that were enqueued while a test looked, and assertions about them."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, select

from blobferry.client import Client
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.tables import JOB_COLUMNS, jobs
from blobferry.testing.wanted_job import WantedJob, described
from blobferry.values import Job

SHOWN: Final = 20  #: jobs that a message lists


class EnqueuedJobs:
    """The jobs whose rows were inserted after a moment, and before another one, and which are there now.

    They are read anew at each question, so a job whose transaction was rolled back is not among them. A submit that
    returned an older job, by its idempotency key, has enqueued none.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._after = self._last_number()
        self._until: int | None = None

    def close(self) -> None:
        """What is enqueued from now on is not among them."""
        self._until = self._last_number()

    def assert_enqueued(self, operation: str | None = None, *, count: int | None = None, **fields: Any) -> Job:
        """Assert that a job was enqueued that has all these fields; return it, the first of several.

        Args:
            operation: ``write_stream``, ``move``, …; any if it is not given.
            count: how many there must be; at least one if it is not given.
            fields: arguments of the submit and their values, or ``state``. Of ``labels``, ``metadata`` and a callback
                those that are named; others may be there. ``unittest.mock.ANY`` is any value. A callback is given as
                its signature, or as the name of the task.

        Raises AssertionError that lists what was enqueued instead, and ValueError for a field that no such job has.
        """
        __tracebackhide__ = True
        wanted, rows = self._asked(operation, fields)
        found = [row for row in rows if not wanted.differences(row)]
        if len(found) == count or (found and count is None):
            return Job.from_row(found[0]) if found else _none()
        needed = "" if count is None else f", not {count}"
        how_many = f"{len(found) or 'no'} job{'s were' if len(found) > 1 else ' was'} enqueued as {wanted}{needed}"
        raise AssertionError(f"{how_many}\n{_listed(rows, wanted)}")

    def refute_enqueued(self, operation: str | None = None, **fields: Any) -> None:
        """Assert that no such job was enqueued. Raises AssertionError that lists those that were, and ValueError."""
        __tracebackhide__ = True
        wanted, rows = self._asked(operation, fields)
        found = [row for row in rows if not wanted.differences(row)]
        if found:
            raise AssertionError(f"a job was enqueued as {wanted}\n{_listed(found, None)}")

    def all_enqueued(self, operation: str | None = None, **fields: Any) -> list[Job]:
        """Those of the jobs that match, in the order of their submission. Raises ValueError."""
        wanted, rows = self._asked(operation, fields)
        return [Job.from_row(row) for row in rows if not wanted.differences(row)]

    def _asked(self, operation: str | None, fields: dict[str, Any]) -> tuple[WantedJob, Sequence[dict[str, Any]]]:
        return WantedJob.of(operation, fields, self._client._sealer.shown), self._rows()

    def _rows(self) -> list[dict[str, Any]]:
        conditions: list[ColumnElement[bool]] = [jobs.c.seq > self._after]
        if self._until is not None:
            conditions.append(jobs.c.seq <= self._until)
        columns = (*JOB_COLUMNS, jobs.c.contents, jobs.c.on_end, db_now().label("seen_at"))
        return self._read(select(*columns).where(*conditions).order_by(jobs.c.seq))

    def _last_number(self) -> int:
        newest = self._read(select(jobs.c.seq).order_by(jobs.c.seq.desc()).limit(1))
        return int(newest[0]["seq"]) if newest else 0

    def _read(self, statement: Select[Any]) -> list[dict[str, Any]]:
        engine = self._client._engine
        with reachable(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]


def _none() -> Any:
    return None  # count=0 asks for none


def _listed(rows: Sequence[dict[str, Any]], wanted: WantedJob | None) -> str:
    if not rows:
        return "nothing was enqueued"
    lines = [f"enqueued {'was 1 job' if len(rows) == 1 else f'were {len(rows)} jobs'}:"]
    for number, row in enumerate(rows[:SHOWN], start=1):
        differences = wanted.differences(row) if wanted else []
        lines.append(f"  {number}. {described(row)}" + (f"\n     {'; '.join(differences)}" if differences else ""))
    return "\n".join([*lines, *(["  …"] if len(rows) > SHOWN else [])])
