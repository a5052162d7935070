"""Looking for jobs, uploads and attempts: what fits, in which order, and what is refused."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import insert

from blobferry import Client, Job
from blobferry.errors import InvalidRequestError, JobNotFoundError
from blobferry.sql.tables import attempts
from tests.client.conftest import SOURCE, Site

LATER = datetime(2031, 1, 1, tzinfo=UTC)


def paths(found: list[Job]) -> list[str | None]:
    return [job.path for job in found]


# --- jobs ----------------------------------------------------------------------------------------------------------


def test_the_newest_jobs_come_first_and_no_more_than_asked_for(ferry: Client) -> None:
    submitted = [ferry.write_stream(f"/{number}", SOURCE) for number in range(5)]
    assert ferry.jobs() == submitted[::-1]
    assert paths(ferry.jobs(limit=2)) == ["/4", "/3"]


def test_jobs_are_found_by_state(ferry: Client, site: Site) -> None:
    for state in ("queued", "running", "failed", "failed"):
        site.change(ferry.write_stream("/a", SOURCE), state=state)
    assert [job.state for job in ferry.jobs(state="failed")] == ["failed", "failed"]
    assert [job.state for job in ferry.jobs(state=("running", "failed"))] == ["failed", "failed", "running"]
    assert ferry.jobs(state="paused") == []


def test_jobs_are_found_by_the_time_of_their_submit(ferry: Client, site: Site) -> None:
    for hour in (1, 2, 3):
        site.change(ferry.write_stream(f"/{hour}", SOURCE), created_at=datetime(2026, 1, 1, hour, tzinfo=UTC))
    two = datetime(2026, 1, 1, 4, tzinfo=timezone(timedelta(hours=2)))
    assert paths(ferry.jobs(since=two)) == ["/3", "/2"]
    assert paths(ferry.jobs(until=two)) == ["/1"]
    assert paths(ferry.jobs(since="2026-01-01T02:00:00Z", until="2026-01-01T03:00:00+00:00")) == ["/2"]


def test_jobs_are_found_by_operation_and_storage(ferry: Client) -> None:
    ferry.write_stream("/a", SOURCE)
    ferry.delete("/b")
    ferry.delete("/c", storage="archive")
    assert paths(ferry.jobs(operation="delete")) == ["/c", "/b"]
    assert paths(ferry.jobs(operation="delete", storage="default")) == ["/b"]


def test_jobs_are_found_by_the_path_that_they_lie_under_never_a_siblings(ferry: Client) -> None:
    for path in ("/a", "/a/b", "/a/b/c", "/ab", "/A/b", "/a_/b"):
        ferry.write_stream(path, SOURCE)
    assert paths(ferry.jobs(under="/a")) == ["/a/b/c", "/a/b", "/a"]
    assert len(ferry.jobs(under="/")) == 6


def test_jobs_are_found_by_all_of_the_labels(ferry: Client) -> None:
    odd = {'a"b': "x' OR 1=1", "c.d": "$", "é": "1"}
    ferry.write_stream("/1", SOURCE, labels={"user": "5", "kind": "video"})
    ferry.write_stream("/2", SOURCE, labels={"user": "5"})
    ferry.write_stream("/3", SOURCE, labels=odd)
    ferry.write_stream("/4", SOURCE)
    assert paths(ferry.jobs(labels={"user": "5"})) == ["/2", "/1"]
    assert paths(ferry.jobs(labels={"user": "5", "kind": "video"})) == ["/1"]
    assert paths(ferry.jobs(labels=odd)) == ["/3"]
    assert ferry.jobs(labels={"user": "6"}) == ferry.jobs(labels={"5": "user"}) == []
    assert len(ferry.jobs(labels={})) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"state": "done"}, "state: needs one or more of queued, running, .*got 'done'"),
        ({"state": ["failed", 1]}, "state: "),
        ({"state": []}, "state: "),
        ({"state": 5}, "state: "),
        ({"since": "yesterday"}, "since: "),
        ({"until": datetime(2026, 1, 1)}, "until: "),  # noqa: DTZ001
        ({"operation": "stat"}, "operation: needs one of put_content, "),
        ({"operation": 7}, "operation: "),
        ({"storage": "A B"}, "storage: "),
        ({"under": "videos/"}, "videos/"),
        ({"labels": {"a": 1}}, "labels: "),
        ({"limit": 0}, "limit: needs a whole number from 1 to 10000, got 0"),
        ({"limit": True}, "limit: "),
        ({"limit": 10_001}, "limit: "),
    ],
    ids=str,
)
def test_what_cannot_be_looked_for_is_named(sqlite_site: Site, arguments: dict[str, Any], words: str) -> None:
    with Client(database_url=sqlite_site.url) as client, pytest.raises(InvalidRequestError, match=words):
        client.jobs(**arguments)


# --- uploads and attempts ------------------------------------------------------------------------------------------


def test_unfinished_uploads_are_listed_with_the_bytes_at_risk(ferry: Client, site: Site) -> None:
    failed, running = ferry.write_stream("/a", SOURCE), ferry.write_stream("/b", SOURCE)
    site.change(failed, state="failed")
    site.change(running, state="running")
    site.add_upload(failed, (1,), state="gone", bucket="b", key="k-gone", recheck_at=LATER)
    site.add_upload(failed, (5, 7), state="open", bucket="b", key="k-open", upload_id="u", size=100, recheck_at=LATER)
    site.add_upload(running, (3, 4), state="completed", bucket="b", key="k-completed")
    site.add_upload(running, state="opening", bucket="b", key="k-opening")
    site.add_upload(running, (2,), state="aborting", bucket="b", key="k-aborting", recheck_at=LATER)
    found = [
        (each.job_id, each.job_state, each.state, each.key, each.bytes_at_risk, each.kept_until)
        for each in ferry.uploads()
    ]
    assert found == [
        (failed.id, "failed", "open", "k-open", 12, LATER),
        (running.id, "running", "opening", "k-opening", 0, None),
        (running.id, "running", "aborting", "k-aborting", 2, None),
    ]
    assert [each.state for each in ferry.uploads(running.id)] == ["opening", "aborting"]
    assert [(each.state, each.bytes_at_risk) for each in ferry.uploads(running.id, finished=True)] == [
        ("completed", 0),
        ("opening", 0),
        ("aborting", 2),
    ]
    assert len(ferry.uploads(finished=True)) == 5
    assert len(ferry.uploads(limit=1)) == 1
    assert ferry.uploads(failed.id)[0].as_json()["kept_until"] == LATER.isoformat()


def test_the_history_is_told_from_the_beginning(ferry: Client, site: Site) -> None:
    job, other = ferry.write_stream("/a", SOURCE), ferry.write_stream("/b", SOURCE)
    ended = {"outcome": "retrying", "error_code": "slow_down", "error_message": "asks", "finished_at": LATER}
    with site.database.begin() as session:
        session.execute(insert(attempts).values(job_id=job.id, attempt=2, worker="w2"))
        session.execute(insert(attempts).values(job_id=job.id, attempt=1, worker="w1", bytes_sent=7, **ended))
        session.execute(insert(attempts).values(job_id=other.id, attempt=1, remark="begun again"))
    first, second = ferry.attempts(job.id)
    assert (first.attempt, first.worker, first.bytes_sent, first.outcome) == (1, "w1", 7, "retrying")
    assert (first.error_code, first.error_message, first.finished_at) == ("slow_down", "asks", LATER)
    assert (second.attempt, second.worker, second.outcome, second.finished_at) == (2, "w2", None, None)
    assert [attempt.remark for attempt in ferry.attempts(other.id)] == ["begun again"]
    assert ferry.attempts(ferry.write_stream("/c", SOURCE).id) == []


def test_uploads_and_attempts_of_an_unknown_job_are_an_error_not_nothing(ferry: Client) -> None:
    for look in (ferry.uploads, ferry.attempts, ferry.situation):
        with pytest.raises(JobNotFoundError):
            look("nobody")
