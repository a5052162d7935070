"""What status says in plain words: why a job is where it is, and what comes next, by the database's clock."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from blobferry import Client, Job, JobState
from blobferry.cli.explanation import explanation
from blobferry.cli.wording import briefly
from blobferry.sql.clock import db_now
from tests.client.conftest import MIB, SOURCE, Command, Site, add_living_worker

CLOCK = r"\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d \d\d:\d\d"
CONTINUES = rf"continues after the 1.0 of 4.0 MiB that are stored until ({CLOCK}) \(in 24 h\), and starts again later"
SLOW = {"error_code": "slow_down", "error_message": "asks for fewer requests"}
DIED = {"error_code": "worker_died", "error_message": "worker w died"}
SENT = "sent; succeeds once Stat shows the blob"
WAITS = "waits for a free worker slot"
QUARTER = {"size": 4 * MIB, "bytes_done": MIB}
RUNNING = {"state": "running", "worker": "w1@host:7", "attempt": 1, **QUARTER}
LEASED = RUNNING | {"lease_expires_at": db_now(12.9)}
RETRYING = {"state": "retrying", "run_at": db_now(12.9), **SLOW}


class Situation(NamedTuple):
    """Patterns of what is said, and what the row and its upload hold."""

    why: str
    follows: str = "then it runs"
    row: Mapping[str, Any] = {}
    upload: Mapping[str, Any] = {}


def open_until(seconds: float) -> dict[str, Any]:
    """An upload that is kept for so long."""
    return {"state": "open", "size": 4 * MIB, "recheck_at": db_now(seconds)}


SITUATIONS = {
    "just submitted": Situation(f"{WAITS}, published [0-9] s ago"),
    "not published": Situation(f"{WAITS}, not yet published by a caretaker", row={"published_at": None}),
    "published": Situation(rf"{WAITS}, published [34] s ago", row={"published_at": db_now(-3.2)}),
    "forgotten": Situation(
        rf"{WAITS}, not published since ({CLOCK}): check that a worker runs",
        row={"updated_at": db_now(-60), "created_at": db_now(-60), "published_at": None},
    ),
    "before its time": Situation(
        rf"not before ({CLOCK}) \(in 5 min\)", f"then it {WAITS}", row={"run_at": db_now(300)}
    ),
    "between two slices": Situation(
        f"between two slices: {WAITS}, not yet published by a caretaker",
        r"then it continues after 1.0 of 4.0 MiB \(25%\)",
        row={"attempt": 1, "published_at": None, **QUARTER},
    ),
    "running": Situation(
        r"on w1@host:7: 1.0 of 4.0 MiB \(25%\)",
        r"the lease of w1@host:7 expires in 1[123] s unless it is renewed; then another worker takes over",
        row=LEASED,
    ),
    "worker silent": Situation(
        r"on w1@host:7: .*",
        r"the lease of w1@host:7 expired [34] s ago; the next sweep gives the job to another worker",
        row=RUNNING | {"lease_expires_at": db_now(-3)},
    ),
    "past the return": Situation(
        "on w1@host:7: completing the upload",
        r"the lease of .* another worker takes over; too late to cancel",
        row=LEASED | {"phase": "completing"},
    ),
    "pausing": Situation(
        "on .*", "pause requested; takes effect after the current part", row=LEASED | {"pause_requested": True}
    ),
    "cancelling": Situation(
        "on .*",
        "cancel requested; takes effect after the current part",
        row=LEASED | {"cancel_requested": True, "pause_requested": True},
    ),
    "cancelling idle": Situation(
        f"{WAITS}.*", "cancel requested; takes effect within seconds", row={"cancel_requested": True}
    ),
    "too late to cancel": Situation(
        SENT,
        "next poll as soon as a worker has a free slot",
        row={"cancel_requested": True, "state": "verifying", "phase": "verifying"},
    ),
    "late": Situation(
        f"{WAITS}.*", rf"its deadline ({CLOCK}) has passed; it fails within seconds", row={"deadline": db_now(-5)}
    ),
    "retrying": Situation(
        rf"retry 3 of 7 at ({CLOCK}) \(in 1[123] s\) because slow_down: asks for fewer requests",
        row=RETRYING | {"attempt": 3, "failures": 3, "max_attempts": 8},
    ),
    "retrying, counted by a worker of the last version": Situation(
        r"retry 3 at .*", row=RETRYING | {"attempt": 3, "failures": 3}
    ),
    "retrying, counted by two workers that are set differently": Situation(
        r"retry 9 at .*", row=RETRYING | {"attempt": 9, "failures": 9, "max_attempts": 8}
    ),
    "worker died": Situation(
        rf"{WAITS}, .* because worker_died: worker w died \(worker died 2 times\)",
        row={"state": "retrying", "attempt": 2, "crashes": 2, **DIED},
    ),
    "verifying": Situation(
        f"{SENT}, which it has not in 2 polls",
        rf"next poll at ({CLOCK}) \(in [345] s\), gives up at ({CLOCK})",
        row={"state": "verifying", "polls": 2, "run_at": db_now(4.9), "verify_until": db_now(200)},
    ),
    "paused": Situation(
        "pause requested",
        rf"its upload, with 1.0 of 4.0 MiB stored, is kept until ({CLOCK}) \(in 7 d\); "
        r"`blobferry resume JOB` lets it continue",
        row={"state": "paused", "pause_requested": True},
        upload=open_until(7 * 86_400),
    ),
    "paused before it began": Situation(
        "pause requested", "`blobferry resume JOB` lets it continue", row={"state": "paused"}
    ),
    "failed, parts kept": Situation(
        "slow_down: asks for fewer requests",
        f"`blobferry retry JOB` {CONTINUES}",
        row={"state": "failed", **SLOW},
        upload=open_until(86_400),
    ),
    "failed, parts given up": Situation(
        "slow_down: .*",
        "`blobferry retry JOB` starts it again",
        row={"state": "failed", **SLOW},
        upload=open_until(-1),
    ),
    "failed, too late to retry": Situation(
        "deadline",
        "its deadline has passed; submit it again",
        row={"state": "failed", "error_code": "deadline", "deadline": db_now(-5)},
    ),
    "source changed": Situation(
        "source_changed",
        "`blobferry retry JOB` starts it again, with the source as it is now",
        row={"state": "failed", "error_code": "source_changed"},
    ),
    "source refused, parts kept": Situation(
        "source_not_allowed",
        f"`blobferry retry JOB`, with `--source URL` if its URL has expired, {CONTINUES}",
        row={"state": "failed", "error_code": "source_not_allowed"},
        upload=open_until(86_400),
    ),
    "another source with other bytes, parts kept": Situation(
        "source_changed",
        f"`blobferry retry JOB --source URL`, with the content that was sent, {CONTINUES}",
        row={"state": "failed", "error_code": "source_changed"},
        upload=open_until(86_400),
    ),
    "cancelled": Situation(
        "nothing more will be done",
        "what it had sent is being removed",
        row={"state": "cancelled"},
        upload={"state": "aborting"},
    ),
    "succeeded": Situation("Stat shows 5 B at /a", "", row={"state": "succeeded", "size": 5}),
}


class Matching(str):
    """Equal to whatever matches it whole."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(str(self), other) is not None


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)
def test_status_says_why_and_what_comes_next(ferry: Client, site: Site, situation: Situation) -> None:
    job = ferry.write_stream("/a", SOURCE)
    add_living_worker(site)
    site.change(job, **situation.row)
    if situation.upload:
        site.add_upload(job, (MIB,), **situation.upload)
    said = explanation(ferry.situation(job.id))
    # A pattern is matched whole: nothing else is said.
    assert (said.why, said.next.replace(job.id, "JOB")) == (Matching(situation.why), Matching(situation.follows))


def test_a_job_for_which_no_worker_is_alive_says_so(ferry: Client, site: Site) -> None:
    job = ferry.write_stream("/a", SOURCE)
    says = "no worker is alive on this database: start `blobferry-worker run` with it as database_url"
    assert explanation(ferry.situation(job.id)).next == says
    add_living_worker(site)
    assert explanation(ferry.situation(job.id)).next == "then it runs"


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
    assert re.search(r"published \d s ago; 1 job comes first$", explanation(ferry.situation(job.id)).why)


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def job(client: Client, sqlite_site: Site) -> Job:
    """A job with two attempts behind it and an upload that is kept."""
    job = client.write_stream("/a", SOURCE)
    red = {"error_code": "slow_down", "error_message": "asks for fewer \x1b[31mrequests"}
    sqlite_site.change(job, state="failed", attempt=2, size=4 * MIB, **red)
    sqlite_site.add_upload(job, (MIB,), state="open", size=4 * MIB, recheck_at=db_now(86_400))
    ended = {"outcome": "died", "error_code": "worker_died", "error_message": "gone\x1b[31m", "bytes_sent": 5 * MIB}
    times = {"started_at": db_now(-100.5), "finished_at": db_now(-70)}
    sqlite_site.add_attempt(job, attempt=1, worker="w1@host:7", **times, **ended)
    sqlite_site.add_attempt(job, attempt=2, worker="w2@host:8", remark="begun again from byte 0")
    return job


def test_status_prints_the_history_a_line_for_each_attempt(command: Command, job: Job) -> None:
    done = command("status", job.id)
    lines = done.stdout.splitlines()
    assert (done.exit_code, done.stderr, "\x1b" in done.stdout) == (0, "", False)
    assert lines[-2:] == [
        Matching(rf"history +1\. ({CLOCK}), 3[01] s on w1@host:7, 5\.0 MiB sent: died \(worker_died: gone\\x1b\[31m\)"),
        Matching(rf" +2\. ({CLOCK}), \d s on w2@host:8, 0 B sent: not ended \[begun again from byte 0\]"),
    ]
    assert lines[1] == r"state       failed: slow_down: asks for fewer \x1b[31mrequests"
    assert lines[2].startswith(
        f"next        `blobferry retry {job.id}` continues after the 1.0 of 4.0 MiB that are stored"
    )


def test_status_in_json_holds_the_same_facts(command: Command, client: Client, job: Job) -> None:
    said = json.loads(command("status", job.id, "--json").stdout)
    assert said["explanation"].startswith(r"slow_down: asks for fewer \x1b[31mrequests; `blobferry retry ")
    assert [attempt["outcome"] for attempt in said["attempts"]] == ["died", None]
    assert [upload["bytes_at_risk"] for upload in said["uploads"]] == [MIB]
    assert datetime.fromisoformat(said.pop("seen_at")).utcoffset() == timedelta()
    now = client.get(job.id).as_json()
    del now["seen_at"]
    assert {name: said[name] for name in now} == now


def test_the_history_of_a_paused_job_says_paused_and_stops_its_clock(
    command: Command, sqlite_site: Site, client: Client
) -> None:
    job = client.write_stream("/a", SOURCE)
    began, paused = db_now(-100), db_now(-90)
    sqlite_site.add_attempt(job, attempt=1, worker="w1@host:7", started_at=began)
    sqlite_site.change(job, state="paused", attempt=1, updated_at=paused)
    assert re.search(r"1\. \S+, 10 s on w1@host:7, 0 B sent: paused", command("status", job.id).stdout)
