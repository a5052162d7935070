"""What status says in plain words: why a job is where it is, and what comes next, by the database's clock."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from blobferry import Client, Job, JobState
from blobferry.cli.explanation import explanation
from blobferry.cli.wording import briefly
from blobferry.sql.clock import db_now
from blobferry.sql.tables import attempts
from tests.client.conftest import MIB, SOURCE, Command, Site

CLOCK = r"\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d \d\d:\d\d"
SLOW = {"error_code": "slow_down", "error_message": "asks for fewer requests"}
SENT = "sent; succeeds once Stat shows the blob"
RUNNING = {"state": "running", "worker": "w1@host:7", "attempt": 1, "size": 4 * MIB, "bytes_done": MIB}
LEASED = RUNNING | {"lease_expires_at": db_now(12.9)}

#: name: (values of the row, the upload's, why, what comes next)
SITUATIONS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "just submitted": ({}, {}, "waits for a free worker slot, not yet published by a caretaker", "then it runs"),
    "published": (
        {"published_at": db_now(-3.2)},
        {},
        r"waits for a free worker slot, published [34] s ago",
        "then it runs",
    ),
    "forgotten": (
        {"updated_at": db_now(-60), "created_at": db_now(-60)},
        {},
        rf"waits for a free worker slot, not published since ({CLOCK}): check that a worker runs",
        "then it runs",
    ),
    "before its time": (
        {"run_at": db_now(300)},
        {},
        rf"not before ({CLOCK}) \(in 5 min\)",
        "then it waits for a free worker slot",
    ),
    "between two slices": (
        {"attempt": 1, "size": 4 * MIB, "bytes_done": MIB},
        {},
        "between two slices: waits for a free worker slot, not yet published by a caretaker",
        r"then it continues after 1.0 of 4.0 MiB \(25%\)",
    ),
    "running": (
        LEASED,
        {},
        r"on w1@host:7: 1.0 of 4.0 MiB \(25%\)",
        r"the lease of w1@host:7 expires in 1[123] s unless it is renewed; then another worker takes over",
    ),
    "worker silent": (
        RUNNING | {"lease_expires_at": db_now(-3)},
        {},
        r"on w1@host:7: .*",
        r"the lease of w1@host:7 expired [34] s ago; the next sweep gives the job to another worker",
    ),
    "past the return": (
        LEASED | {"phase": "completing"},
        {},
        "on w1@host:7: completing the upload",
        r"the lease of .* another worker takes over; too late to cancel",
    ),
    "pausing": (
        LEASED | {"pause_requested": True},
        {},
        "on .*",
        "pause requested; takes effect after the current part",
    ),
    "cancelling": (
        LEASED | {"cancel_requested": True, "pause_requested": True},
        {},
        "on .*",
        "cancel requested; takes effect after the current part",
    ),
    "cancelling idle": (
        {"cancel_requested": True},
        {},
        "waits for a free worker slot.*",
        "cancel requested; takes effect within seconds",
    ),
    "too late to cancel": (
        {"cancel_requested": True, "state": "verifying", "phase": "verifying"},
        {},
        SENT,
        "next poll as soon as a worker has a free slot",
    ),
    "late": (
        {"deadline": db_now(-5)},
        {},
        "waits for a free worker slot.*",
        rf"its deadline ({CLOCK}) has passed; it fails within seconds",
    ),
    "retrying": (
        {"state": "retrying", "attempt": 3, "failures": 3, "max_attempts": 8, "run_at": db_now(12.9), **SLOW},
        {},
        rf"retry 3 of 7 at ({CLOCK}) \(in 1[123] s\) because slow_down: asks for fewer requests",
        "then it runs",
    ),
    "retrying, counted by a worker of the last version": (
        {"state": "retrying", "attempt": 3, "failures": 3, "run_at": db_now(12.9), **SLOW},
        {},
        r"retry 3 at .*",
        "then it runs",
    ),
    "retrying, counted by two workers that are set differently": (
        {"state": "retrying", "attempt": 9, "failures": 9, "max_attempts": 8, "run_at": db_now(12.9), **SLOW},
        {},
        r"retry 9 at .*",
        "then it runs",
    ),
    "worker died": (
        {
            "state": "retrying",
            "attempt": 2,
            "crashes": 2,
            "error_code": "worker_died",
            "error_message": "worker w died",
        },
        {},
        "waits for a free worker slot, .* because worker_died: worker w died "
        r"\(worker died 2 times\)",
        "then it runs",
    ),
    "verifying": (
        {"state": "verifying", "polls": 2, "run_at": db_now(4.9), "verify_until": db_now(200)},
        {},
        f"{SENT}, which it has not in 2 polls",
        rf"next poll at ({CLOCK}) \(in [345] s\), gives up at ({CLOCK})",
    ),
    "paused": (
        {"state": "paused", "pause_requested": True},
        {"state": "open", "size": 4 * MIB, "recheck_at": db_now(7 * 86_400)},
        "pause requested",
        rf"its upload, with 1.0 of 4.0 MiB stored, is kept until ({CLOCK}) \(in 7 d\); "
        r"`blobferry resume JOB` lets it continue",
    ),
    "paused before it began": ({"state": "paused"}, {}, "pause requested", "`blobferry resume JOB` lets it continue"),
    "failed, parts kept": (
        {"state": "failed", **SLOW},
        {"state": "open", "size": 4 * MIB, "recheck_at": db_now(86_400)},
        "slow_down: asks for fewer requests",
        "`blobferry retry JOB` continues after the 1.0 of 4.0 MiB that are stored "
        rf"until ({CLOCK}) \(in 24 h\), and starts again later",
    ),
    "failed, parts given up": (
        {"state": "failed", **SLOW},
        {"state": "open", "size": 4 * MIB, "recheck_at": db_now(-1)},
        "slow_down: .*",
        "`blobferry retry JOB` starts it again",
    ),
    "failed, too late to retry": (
        {"state": "failed", "error_code": "deadline", "deadline": db_now(-5)},
        {},
        "deadline",
        "its deadline has passed; submit it again",
    ),
    "source changed": (
        {"state": "failed", "error_code": "source_changed"},
        {},
        "source_changed",
        "`blobferry retry JOB` starts it again, with the source as it is now",
    ),
    "source refused, parts kept": (
        {"state": "failed", "error_code": "source_not_allowed"},
        {"state": "open", "size": 4 * MIB, "recheck_at": db_now(86_400)},
        "source_not_allowed",
        "`blobferry retry JOB`, with `--source URL` if its URL has expired, continues after the 1.0 of 4.0 MiB that "
        rf"are stored until ({CLOCK}) \(in 24 h\), and starts again later",
    ),
    "another source with other bytes, parts kept": (
        {"state": "failed", "error_code": "source_changed"},
        {"state": "open", "size": 4 * MIB, "recheck_at": db_now(86_400)},
        "source_changed",
        "`blobferry retry JOB --source URL`, with the content that was sent, continues after the 1.0 of 4.0 MiB that "
        rf"are stored until ({CLOCK}) \(in 24 h\), and starts again later",
    ),
    "cancelled": (
        {"state": "cancelled"},
        {"state": "aborting"},
        "nothing more will be done",
        "what it had sent is being removed",
    ),
    "succeeded": ({"state": "succeeded", "size": 5}, {}, "Stat shows 5 B at /a", ""),
}


class Matching(str):
    """Equal to whatever matches it whole."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(str(self), other) is not None


@pytest.mark.parametrize(("values", "upload", "why", "follows"), SITUATIONS.values(), ids=SITUATIONS)
def test_status_says_why_and_what_comes_next(
    ferry: Client, site: Site, values: dict[str, Any], upload: dict[str, Any], why: str, follows: str
) -> None:
    job = ferry.write_stream("/a", SOURCE)
    if values:
        site.change(job, **values)
    if upload:
        site.add_upload(job, (MIB,), **upload)
    said = explanation(ferry.situation(job.id))
    # A pattern is matched whole: nothing else is said.
    assert (said.why, said.next.replace(job.id, "JOB")) == (Matching(why), Matching(follows))


def test_a_job_that_waits_for_another_names_it(ferry: Client, site: Site) -> None:
    first = ferry.move("/in/a", "/videos/a")
    second = ferry.write_stream("/videos/a", SOURCE)
    site.change(second, waits_for=first.id)
    said = explanation(ferry.situation(second.id))
    assert said.why == f"waits for job {first.id}, which holds or needs /in/a and /videos/a first (move, queued)"
    assert said.next == "it runs within seconds after that job ends"
    site.change(first, **LEASED)
    assert explanation(ferry.situation(second.id)).why.endswith("first (move, running on w1@host:7)")
    site.change(first, state="succeeded", lease_expires_at=None)
    assert explanation(ferry.situation(second.id)).why.startswith(f"waited for job {first.id}, which has ended; ")


def test_countdowns_are_the_databases_whatever_the_clock_here_says(ferry: Client) -> None:
    now = ferry.situation(ferry.write_stream("/a", SOURCE).id)
    for years in (-5, 5):
        seen_at = now.job.seen_at + timedelta(days=365 * years)
        job = replace(now.job, state=JobState.RETRYING, seen_at=seen_at, run_at=seen_at + timedelta(seconds=12))
        assert "(in 12 s)" in explanation(replace(now, job=job)).why
        assert briefly(job).endswith("(in 12 s)")


def test_jobs_that_come_first_are_counted(ferry: Client, site: Site) -> None:
    ferry.write_stream("/1", SOURCE)
    job = ferry.write_stream("/2", SOURCE, priority=1)
    ferry.write_stream("/3", SOURCE, priority=9)
    ferry.write_stream("/4", SOURCE, priority=1)
    ferry.write_stream("/5", SOURCE, priority=9, not_before=datetime.now(UTC) + timedelta(days=1))
    site.change(ferry.write_stream("/6", SOURCE, priority=9), state="running", lease_expires_at=db_now(9))
    site.change(ferry.write_stream("/7", SOURCE, priority=9), waits_for=job.id)
    assert ferry.situation(job.id).ahead == 1
    assert explanation(ferry.situation(job.id)).why.endswith("not yet published by a caretaker; 1 job comes first")


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def job(client: Client, sqlite_site: Site) -> Job:
    """A job with two attempts behind it and an upload that is kept."""
    job = client.write_stream("/a", SOURCE)
    sqlite_site.change(job, state="failed", attempt=2, size=4 * MIB, **SLOW)
    sqlite_site.add_upload(job, (MIB,), state="open", size=4 * MIB, recheck_at=db_now(86_400))
    ended = {"outcome": "died", "error_code": "worker_died", "error_message": "gone\x1b[31m", "bytes_sent": 5 * MIB}
    times = {"started_at": db_now(-100.5), "finished_at": db_now(-70)}
    with sqlite_site.database.begin() as session:
        session.execute(insert(attempts).values(job_id=job.id, attempt=1, worker="w1@host:7", **times, **ended))
        session.execute(
            insert(attempts).values(job_id=job.id, attempt=2, worker="w2@host:8", remark="begun again from byte 0")
        )
    return job


def test_status_prints_the_history_a_line_for_each_attempt(command: Command, job: Job) -> None:
    done = command("status", job.id)
    lines = done.stdout.splitlines()
    assert (done.exit_code, done.stderr, "\x1b" in done.stdout) == (0, "", False)
    assert lines[-2] == Matching(
        rf"history +1\. ({CLOCK}), 3[01] s on w1@host:7, 5\.0 MiB sent: died \(worker_died: gone\\x1b\[31m\)"
    )
    assert lines[-1] == Matching(
        rf" +2\. ({CLOCK}), \d s on w2@host:8, 0 B sent: not ended \[begun again from byte 0\]"
    )
    assert lines[1] == "state       failed: slow_down: asks for fewer requests"
    assert lines[2].startswith(
        f"next        `blobferry retry {job.id}` continues after the 1.0 of 4.0 MiB that are stored"
    )


def test_status_in_json_holds_the_same_facts(command: Command, client: Client, job: Job) -> None:
    said = json.loads(command("status", job.id, "--json").stdout)
    assert said["explanation"].startswith("slow_down: asks for fewer requests; `blobferry retry ")
    assert [attempt["outcome"] for attempt in said["attempts"]] == ["died", None]
    assert [upload["bytes_at_risk"] for upload in said["uploads"]] == [MIB]
    assert datetime.fromisoformat(said.pop("seen_at")).utcoffset() == timedelta()
    now = client.get(job.id).as_json()
    del now["seen_at"]
    assert {name: said[name] for name in now} == now
