"""Times the statements of a job's life: ``statements.py '{"fill": "finished", "queued": …, "repeats": 15}'``.

Runs against the code of any checkout, on the database of BLOBFERRY_DATABASE_URL, which is migrated and has no jobs. It
loads the rows first, then calls the real functions, and prints the lower quartile of its milliseconds, as JSON. A time
is that from the beginning of the transaction to right before its end: what COMMIT waits for is the disk, on any table
alike.
"""

import json
import os
import sys
import time
from statistics import quantiles

from sqlalchemy import text

from blobferry import Client
from blobferry.contract import check_request
from blobferry.jobs.submission import insert_job
from models import Database, queries

DAY = 24 * 3600.0
OWN = 60  #: jobs, queued and then claimed, on any table
OLD = 200  #: finished jobs that may be pruned, on any table
NUMBERS = {
    "postgresql": "SELECT n FROM generate_series(1, :rows) AS n",
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows) "
    "SELECT n FROM numbers",
}
CLOCK = {
    "postgresql": "clock_timestamp() + make_interval(secs => {})",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+f seconds', {}))",
}


class StatementTimes:
    """The statements on one database."""

    def __init__(self, what):
        self.what = what
        self.database = Database(os.environ["BLOBFERRY_DATABASE_URL"])
        self.client = Client(engine=self.database.engine)
        self.dialect = self.database.engine.dialect.name
        self.taken = {}

    # --- rows --------------------------------------------------------------------------------------------------------

    def load(self):
        self._insert("old", OLD, "succeeded", finished=f"-{40 * DAY} - n")
        if self.what["fill"] == "finished":
            self._insert("finished", self.what["finished"], "succeeded", finished="-3600.0 - n")
            self._insert("queued", self.what["queued"], "queued")
        if self.what["fill"] == "scheduled":
            self._insert("scheduled", self.what["scheduled"], "queued", run_at=f"{DAY} + n")
        if self.dialect == "postgresql":
            with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))

    def _insert(self, name, rows, state, *, finished=None, run_at=None):
        request = json.dumps({"path": "/a/b", "source": "file:///srv/incoming/some/file.bin"})
        columns = {
            "id": f"'{name}-' || n",
            "operation": "'write_stream'",
            "path": f"'/{name}/' || n",
            "source": "'file:///srv/incoming/some/file.bin'",
            "request": f"'{request}'".replace(":", "\\:"),
            "priority": "n % 10",
            "state": f"'{state}'",
            "created_at": self._clock("-3600.0 - n" if finished is None else finished),
        }
        if finished is not None:
            columns |= {"finished_at": self._clock(finished), "attempt": "1", "token": "1", "publish_seq": "1"}
        if run_at is not None:
            columns |= {"run_at": self._clock(run_at), "not_before": self._clock(run_at)}
        numbers = NUMBERS[self.dialect].removesuffix("SELECT n FROM numbers")
        if self.dialect == "postgresql":
            start, source = "", f"({NUMBERS['postgresql']}) AS numbers"
            columns["request"] += "\\:\\:jsonb"
        else:
            start, source = numbers, "numbers"
        names, values = ", ".join(columns), ", ".join(columns.values())
        with self.database.begin() as session:
            session.execute(
                text(f"INSERT INTO blobferry_jobs ({names}) {start}SELECT {values} FROM {source}"), {"rows": rows}
            )
            if finished is not None:
                session.execute(
                    text(
                        "INSERT INTO blobferry_attempts (job_id, attempt, worker, outcome) "
                        "SELECT id, 1, 'host:1', 'succeeded' FROM blobferry_jobs WHERE id LIKE :name"
                    ),
                    {"name": f"{name}-%"},
                )

    def _clock(self, seconds):
        return CLOCK[self.dialect].format(f"({seconds})")

    # --- times -------------------------------------------------------------------------------------------------------

    def time(self, name, work, *, keep=False):
        """Time the work in a transaction that is kept or rolled back; return what it returns."""
        with self.database.begin() as session:
            started = time.perf_counter()
            answer = work(session)
            session.flush()
            self.taken.setdefault(name, []).append((time.perf_counter() - started) * 1000)
            if not keep:
                session.rollback()
        return answer

    def run(self):
        ids = [f"own-{number}" for number in range(OWN)]
        for job_id in ids:
            arguments = {"path": f"/own/{job_id}", "source": "file:///srv/a"}
            request = check_request("write_stream", arguments)
            self.time("submit", lambda session: insert_job(session.connection(), request, job_id=job_id), keep=True)  # noqa: B023
        claiming = {"worker": "host:1", "lease_seconds": 600.0, "failed_upload_seconds": DAY}
        jobs = [
            self.time("claim", lambda session: queries.claim_job(session, job_id, **claiming), keep=True)  # noqa: B023
            for job_id in ids[: OWN // 2]
        ]
        for job in jobs[: OWN // 4]:
            self.time("finish", lambda session: queries.finish_job(session, job, {}), keep=True)  # noqa: B023
        for _ in range(self.what["repeats"]):
            self.time("publish", lambda session: queries.jobs_to_publish(session, limit=8))
            self.time("next run", queries.seconds_to_next_run)
            self.time(
                "control requests",
                lambda session: queries.apply_requests(session, limit=100, paused_upload_seconds=DAY),
            )
            self.time("leases", lambda session: queries.requeue_expired(session, limit=100, failed_upload_seconds=DAY))
            self.time("owners", queries.owners)
            self.time("stale locks", queries.drop_stale_locks)
            self.time(
                "prune",
                lambda session: queries.prune(session, job_seconds=30 * DAY, tombstone_seconds=90 * DAY, limit=100),
            )
            self._list("list", {})
            self._list("list failed", {"state": "failed"})
            self._list("list under a path", {"under": "/own"})

    def _list(self, name, arguments):
        started = time.perf_counter()
        self.client.jobs(limit=100, **arguments)
        self.taken.setdefault(name, []).append((time.perf_counter() - started) * 1000)


def main():
    """Load, run, report."""
    bench = StatementTimes(json.loads(sys.argv[1]))
    bench.load()
    bench.run()
    # The first call of each compiles the statement and fills the caches. Not the median: whatever else the machine does
    # makes some calls slower and none quicker.
    print(json.dumps({name: quantiles(times[1:], n=4, method="inclusive")[0] for name, times in bench.taken.items()}))


if __name__ == "__main__":
    main()
