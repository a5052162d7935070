"""Cancel, pause, resume and retry: what they write and refuse, and that many may call them at once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select, update

from blobferry import Client, Job
from blobferry.errors import InvalidRequestError, JobNotFoundError, TooLateError
from blobferry.sealing import Sealer
from blobferry.sql.clock import db_now
from blobferry.sql.tables import jobs, uploads
from dev.services import free_port
from tests.client.conftest import SOURCE, Site, Submit, all_at_once

PASSED, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
ASK: dict[str, Callable[[Client, str], Job]] = {
    "cancel": Client.cancel,
    "pause": Client.pause,
    "resume": Client.resume,
    "retry": Client.retry,
}
RUNNING: dict[str, Any] = {"state": "running", "worker": "w", "token": 1, "lease_expires_at": LATER}

everything = pytest.mark.parametrize("asked_for", ASK)


@pytest.fixture
def submit(ferry: Client, site: Site) -> Submit:
    """A job whose row has these values; the message of its submit is gone."""

    def submit(**values: Any) -> Job:
        job = ferry.write_stream("/a", SOURCE)
        site.take_messages()
        site.change(job, **values)
        return ferry.get(job.id)

    return submit


def kept_until(site: Site, job: Job) -> dict[str, datetime | None]:
    """When the uploads of the job are aborted, by their state."""
    with site.database.begin() as session:
        found = session.execute(select(uploads.c.state, uploads.c.recheck_at).where(uploads.c.job_id == job.id))
        return {state: moment for state, moment in found}


def seconds_from_now(site: Site, moment: datetime) -> float:
    with site.database.begin() as session:
        now = session.scalars(select(db_now())).one()
    return (moment - now).total_seconds()


# --- all four ------------------------------------------------------------------------------------------------------


@everything
def test_an_unknown_job_is_not_found(ferry: Client, asked_for: str) -> None:
    with pytest.raises(JobNotFoundError, match="nobody"):
        ASK[asked_for](ferry, "nobody")
    with pytest.raises(InvalidRequestError, match="job id"):
        ASK[asked_for](ferry, "")


BEYOND_RETURN = [("running", "completing"), ("verifying", "verifying"), ("retrying", "deleting_source")]
#: (who is asked, the row, what the error says)
TOO_LATE: list[tuple[str, dict[str, Any], str]] = [
    *((asked_for, {"state": "succeeded", "finished_at": LATER}, "it has succeeded") for asked_for in ASK),
    *(
        (asked_for, {"state": state, "phase": phase}, rf"it is {state} \(phase {phase}\); readers may see")
        for asked_for in ("cancel", "pause")
        for state, phase in BEYOND_RETURN
    ),
    *(
        (asked_for, {"state": state, "cancel_requested": True}, r"a cancel is requested; .* submit it again")
        for asked_for in ("pause", "resume", "retry")
        for state in ("running", "queued", "paused")
    ),
    *((asked_for, {"state": "failed"}, "retry lets it continue") for asked_for in ("pause", "resume")),
    *((asked_for, {"state": "cancelled"}, "submit it again") for asked_for in ("pause", "resume")),
    ("retry", {"state": "cancelled"}, "it is cancelled; what it had sent is given up, submit it again"),
    ("retry", {"state": "failed", "deadline": PASSED}, "its deadline was 2026-01-01T.*; submit"),
]


@pytest.mark.parametrize(("asked_for", "values", "words"), TOO_LATE, ids=str)
def test_what_comes_too_late_says_why_and_changes_nothing(
    ferry: Client, submit: Submit, site: Site, asked_for: str, values: dict[str, Any], words: str
) -> None:
    job = submit(**values)
    site.add_upload(job, state="open", recheck_at=LATER)
    before = site.row(job)
    with pytest.raises(TooLateError, match=words) as caught:
        ASK[asked_for](ferry, job.id)
    assert (caught.value.job_id, caught.value.asked) == (job.id, asked_for)
    assert (site.row(job), kept_until(site, job), site.take_messages()) == (before, {"open": LATER}, [])


@pytest.mark.parametrize(
    ("asked_for", "values"),
    [
        ("cancel", {"state": "cancelled", "cancel_requested": True}),
        ("pause", {"state": "paused", "pause_requested": True}),
        ("resume", {"state": "retrying", "run_at": LATER}),
        *((ask, {"state": state, "phase": phase}) for ask in ("resume", "retry") for state, phase in BEYOND_RETURN),
        *(("retry", {"state": state}) for state in ("queued", "running", "retrying", "verifying", "paused")),
    ],
    ids=str,
)
def test_a_job_that_is_so_already_is_returned_as_it_is(
    ferry: Client, submit: Submit, site: Site, asked_for: str, values: dict[str, Any]
) -> None:
    before = site.row(job := submit(**values))
    assert ASK[asked_for](ferry, job.id) == job
    assert site.row(job) == before
    if asked_for != "retry" and "phase" not in values:  # those may publish what is due
        assert site.messages() == []


@everything
def test_a_broker_that_is_away_is_only_a_remark(ferry: Client, submit: Submit, site: Site, asked_for: str) -> None:
    job = submit(state={"resume": "paused", "retry": "failed"}.get(asked_for, "queued"))
    for broker in (f"redis://127.0.0.1:{free_port()}/0", None):
        with site.client(broker_url=broker) as client:
            ASK[asked_for](client, job.id)
    now = ferry.get(job.id)
    assert (now.state, now.cancel_requested, now.pause_requested) == {
        "cancel": ("queued", True, False),
        "pause": ("queued", False, True),
        "resume": ("queued", False, False),
        "retry": ("retrying", False, False),
    }[asked_for]


# --- cancel --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["queued", "retrying", "paused"])
@pytest.mark.parametrize("run_at", [None, LATER])
def test_a_cancel_of_a_job_that_nobody_runs_is_asked_for_and_a_message_brings_it(
    ferry: Client, submit: Submit, site: Site, state: str, run_at: datetime | None
) -> None:
    job = submit(state=state, run_at=run_at, publish_seq=3)
    now = ferry.cancel(job.id)
    assert (now.cancel_requested, now.state, site.row(job)["cancel_requested"]) == (True, state, True)
    assert [(message["id"], message["publish_seq"]) for message in site.messages()] == [(job.id, 3)]
    assert ferry.cancel(job.id).cancel_requested


def test_a_cancel_of_a_running_job_needs_no_message(ferry: Client, submit: Submit, site: Site) -> None:
    job = submit(**RUNNING)
    assert ferry.cancel(job.id).cancel_requested
    after = site.row(job)
    assert ({name: after[name] for name in RUNNING}, site.take_messages()) == (RUNNING, [])


def test_a_cancel_of_a_failed_job_gives_up_the_upload_that_it_kept(ferry: Client, submit: Submit, site: Site) -> None:
    job = submit(state="failed", error_code="slow_down")
    others = submit(state="failed")
    for state in ("opening", "open", "completing", "completed", "gone"):
        site.add_upload(job, state=state, recheck_at=LATER)
    site.add_upload(others, state="open", recheck_at=LATER)
    now = ferry.cancel(job.id)
    assert (now.state, now.error_code, now.cancel_requested) == ("failed", "slow_down", False)
    kept = kept_until(site, job)
    assert {state for state, moment in kept.items() if moment == LATER} == {"completing", "completed", "gone"}
    assert all(-60 < seconds_from_now(site, kept[state] or LATER) <= 0 for state in ("opening", "open"))
    assert kept_until(site, others) == {"open": LATER}
    assert site.take_messages() == []


# --- pause and resume ----------------------------------------------------------------------------------------------


def test_a_pause_is_asked_for_and_a_message_brings_it_to_a_row_that_nobody_runs(
    ferry: Client, submit: Submit, site: Site
) -> None:
    waiting, running = submit(), submit(**RUNNING)
    asked = [ferry.pause(job.id) for job in (waiting, running)]
    assert [(job.pause_requested, job.state) for job in asked] == [(True, "queued"), (True, "running")]
    assert site.take_messages() == [waiting.id]


@pytest.mark.parametrize("not_before", [None, LATER])
def test_a_resumed_job_waits_for_a_slot_and_its_upload_is_kept(
    ferry: Client, submit: Submit, site: Site, not_before: datetime | None
) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    values = {"published_at": hour_ago, "run_at": hour_ago, "not_before": not_before, "publish_seq": 5}
    job = submit(state="paused", pause_requested=True, **values)
    site.add_upload(job, state="open", recheck_at=LATER)
    for now in (ferry.resume(job.id), ferry.resume(job.id)):
        assert (now.state, now.pause_requested, now.run_at) == ("queued", False, not_before)
    after = site.row(job)
    assert (after["published_at"], after["publish_seq"], kept_until(site, job)) == (None, 5, {"open": None})
    sent = set(site.take_messages())
    assert sent == ({job.id} if not_before is None else set())  # one before its time is the caretaker's


@pytest.mark.parametrize(("outcome", "state"), [("retrying", "retrying"), ("died", "retrying"), (None, "queued")])
def test_a_job_paused_between_two_attempts_goes_on_with_the_next_one(
    ferry: Client, submit: Submit, site: Site, outcome: str | None, state: str
) -> None:
    job = submit(state="paused", pause_requested=True, attempt=2)
    site.add_attempt(job, attempt=1, outcome="retrying")
    site.add_attempt(job, attempt=2, outcome=outcome)
    assert (ferry.resume(job.id).state, ferry.get(job.id).attempt) == (state, 2)


def test_a_pause_that_has_not_taken_effect_is_withdrawn(ferry: Client, submit: Submit, site: Site) -> None:
    job = submit(pause_requested=True, **RUNNING)
    site.add_upload(job, state="open", recheck_at=LATER)
    before = site.row(job)
    assert not ferry.resume(job.id).pause_requested
    after = site.row(job)
    assert {name for name in before if before[name] != after[name]} <= {"pause_requested", "updated_at"}
    assert kept_until(site, job) == {"open": LATER}


# --- retry ---------------------------------------------------------------------------------------------------------


def test_a_retried_job_has_all_its_tries_again_and_keeps_its_parts(ferry: Client, submit: Submit, site: Site) -> None:
    counters = dict.fromkeys(("failures", "crashes", "crash_streak", "restarts", "polls"), 4)
    over = dict.fromkeys(("run_at", "finished_at", "verify_until", "published_at"), LATER)
    last = {"error_code": "slow_down", "error_message": "asks for fewer"}
    stays = {"attempt": 3, "token": 9, "publish_seq": 7, "bytes_done": 5, "bytes_sent": 6, **last}
    flags = {"cancel_requested": True, "pause_requested": True}
    job = submit(state="failed", result={"a": 1}, waits_for="x", **counters, **over, **stays, **flags)
    for state in ("opening", "open", "completing", "aborting", "gone"):
        site.add_upload(job, state=state, recheck_at=LATER)
    now = ferry.retry(job.id)
    assert (now.state, now.error_code, now.finished_at) == ("retrying", "slow_down", None)
    after = site.row(job)
    nothing = dict.fromkeys((*over, "result", "waits_for"))
    expected = dict.fromkeys(counters, 0) | nothing | stays | dict.fromkeys(flags, False)
    assert {name: after[name] for name in expected} == expected
    kept = kept_until(site, job)
    assert {state for state, moment in kept.items() if moment is None} == {"opening", "open", "completing"}
    assert site.take_messages() == [job.id]
    assert ferry.retry(job.id) == now


def test_a_deadline_that_is_still_to_come_is_no_hindrance(ferry: Client, submit: Submit) -> None:
    assert ferry.retry(submit(state="failed", deadline=LATER).id).state == "retrying"


# --- retry with another source ------------------------------------------------------------------------------------

OTHER = "https://store.example.com/a?X-Amz-Signature=new"


def failed_upload(submit: Submit, site: Site, **values: Any) -> Job:
    job = submit(state="failed", bytes_done=20, error_code="source_not_allowed", **values)
    site.add_upload(job, state="open", recheck_at=LATER)
    return job


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (SOURCE, {"size": 9, "replaced": True}),
        ("https://store.example.com/b?X-Amz-Signature=old", {"size": 9, "replaced": True}),
        ("https://store.example.com/a?X-Amz-Signature=***", {"size": 9, "etag": '"a"', "replaced": True}),
    ],
)
def test_a_retry_may_name_another_source_of_the_same_content(
    ferry: Client, submit: Submit, site: Site, before: str, after: dict[str, Any]
) -> None:
    """An ETag proves something at the same place only, whose URL was signed anew."""
    job = failed_upload(submit, site, source=before, source_fingerprint={"size": 9, "etag": '"a"'})
    asked = ferry.retry(job.id, source=OTHER)
    assert (asked.state, asked.source) == ("retrying", "https://store.example.com/a?X-Amz-Signature=***")
    found = site.row(job)
    assert found["request"] == {**found["request"], "source": OTHER, "path": "/a"}
    assert (found["source_fingerprint"], found["bytes_done"], found["error_code"]) == (after, 20, "source_not_allowed")
    assert kept_until(site, job) == {"open": None}
    (message,) = site.messages()
    assert "new" not in repr(message)
    assert ferry.retry(job.id, source=OTHER).state == "retrying"  # repeated: nothing more happens
    assert site.row(job)["request"] == found["request"]


def test_another_source_may_have_any_path_where_a_storage_has(submit: Submit, site: Site) -> None:
    job = failed_upload(submit, site)
    with Client(database_url=site.url, keys="any") as client:
        assert client.retry(job.id, source="blob://other/a%20b").source == "blob://other/a%20b"


def test_another_source_is_sealed_in_the_row(submit: Submit, site: Site) -> None:
    key = Fernet.generate_key().decode()
    job = failed_upload(submit, site)
    with Client(database_url=site.url, encryption_keys=key) as client:
        client.retry(job.id, source=OTHER)
        client.retry(job.id, source=OTHER)
    row = site.row(job)
    assert "new" not in repr(row)
    assert (Sealer([key]).opened(row["request"]["source"]), row["request_version"]) == (OTHER, 2)


@pytest.mark.parametrize("state", ["queued", "running", "retrying", "paused", "verifying"])
def test_only_a_failed_job_takes_another_source(ferry: Client, submit: Submit, site: Site, state: str) -> None:
    before = site.row(job := submit(state=state))
    with pytest.raises(TooLateError, match=f"it is {state}, and only a failed job takes another source"):
        ferry.retry(job.id, source=OTHER)
    assert site.row(job) == before


def test_a_source_that_cannot_be_read_is_refused_and_changes_nothing(ferry: Client, submit: Submit, site: Site) -> None:
    before = site.row(job := failed_upload(submit, site))
    for source in ("ftp://host/a", "", "file:relative", 7):
        with pytest.raises(InvalidRequestError, match="source"):
            ferry.retry(job.id, source=source)  # type: ignore[arg-type]
    assert site.row(job) == before
    moved = ferry.move("/a", "/b")
    with pytest.raises(InvalidRequestError, match="is a move, which reads no source"):
        ferry.retry(moved.id, source=OTHER)


# --- at once -------------------------------------------------------------------------------------------------------


def test_many_may_ask_for_a_retry_at_once(ferry: Client, submit: Submit, site: Site) -> None:
    job = submit(state="failed", failures=8)
    assert {job.state for job in all_at_once([partial(ferry.retry, job.id)] * 8)} == {"retrying"}
    assert (site.row(job)["failures"], set(site.take_messages())) == (0, {job.id})


def test_a_cancel_beside_a_retry_never_takes_the_upload_of_a_job_that_continues(
    ferry: Client, submit: Submit, site: Site
) -> None:
    for _ in range(10):
        job = submit(state="failed")
        site.add_upload(job, state="open", recheck_at=LATER)
        all_at_once([partial(ferry.cancel, job.id), partial(ferry.retry, job.id)])
        assert (ferry.get(job.id).state, kept_until(site, job)) == ("retrying", {"open": None})


@pytest.fixture
def completing(postgres_site: Site) -> Iterator[tuple[str, Any]]:
    """A running job whose worker has just passed the point of no return, and not committed it yet."""
    with postgres_site.client(broker_url=None) as client:
        job = client.write_stream("/a", SOURCE)
    postgres_site.change(job, **RUNNING)
    with postgres_site.database.engine.connect() as connection:
        connection.execute(update(jobs).where(~jobs.c.cancel_requested).values(phase="completing"))
        yield job.id, connection


@pytest.mark.parametrize("asked_for", ["cancel", "pause"])
@pytest.mark.parametrize("commits", [True, False])
def test_a_request_that_races_a_completion_waits_for_its_commit(
    completing: tuple[str, Any], postgres_site: Site, asked_for: str, commits: bool
) -> None:
    job_id, connection = completing
    with postgres_site.client(broker_url=None) as client, ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ASK[asked_for], client, job_id)
        postgres_site.wait_until_somebody_waits_for_a_lock()
        if commits:
            connection.commit()
            with pytest.raises(TooLateError, match="phase completing"):
                asking.result(10)
        else:
            connection.rollback()
            job = asking.result(10)
            assert job.cancel_requested or job.pause_requested


@pytest.mark.parametrize(
    ("left", "fingerprint", "done"), [("gone", None, 0), ("aborting", None, 0), ("open", {"mtime_ns": 1}, 20)]
)
def test_a_retry_without_an_upload_takes_the_source_as_it_is_now(
    ferry: Client, submit: Submit, site: Site, left: str, fingerprint: Any, done: int
) -> None:
    job = submit(state="failed", source_fingerprint={"mtime_ns": 1}, bytes_done=20, error_code="source_changed")
    site.add_upload(job, state=left)
    ferry.retry(job.id)
    found = site.row(job)
    assert (found["source_fingerprint"], found["bytes_done"]) == (fingerprint, done)
