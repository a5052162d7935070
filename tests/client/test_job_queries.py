"""Looking for jobs, uploads and attempts: what fits, in which order, and what is refused."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from blobferry import Client
from blobferry.errors import InvalidRequestError, JobNotFoundError
from tests.client.conftest import SOURCE, Site

LATER = datetime(2031, 1, 1, tzinfo=UTC)


# --- jobs ----------------------------------------------------------------------------------------------------------


def test_the_newest_jobs_come_first_and_no_more_than_asked_for(ferry: Client) -> None:
    submitted = [ferry.write_stream(f"/{number}", SOURCE) for number in range(5)]
    assert ferry.jobs() == submitted[::-1]
    assert ferry.jobs(limit=2) == submitted[:2:-1]


ODD = {'a"b': "x' OR 1=1", "c.d": "$", "é": "1"}


@pytest.fixture
def some_jobs(ferry: Client, site: Site) -> None:
    """Jobs that differ in all that can be looked for."""
    for year, state in ((2020, "queued"), (2021, "running"), (2096, "failed"), (2097, "failed")):
        submitted = datetime(year, 1, 1, tzinfo=UTC)
        site.change(ferry.write_stream(f"/{year}", SOURCE), state=state, created_at=submitted)
    for path in ("/a", "/a/b", "/a/b/c", "/ab", "/A/b", "/a_/b"):
        ferry.write_stream(path, SOURCE)
    ferry.delete("/deleted")
    ferry.delete("/archived", storage="archive")
    ferry.write_stream("/both", SOURCE, labels={"user": "5", "kind": "video"})
    ferry.write_stream("/user", SOURCE, labels={"user": "5"})
    ferry.write_stream("/odd", SOURCE, labels=ODD)


@pytest.mark.usefixtures("some_jobs")
@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"state": "failed"}, ["/2097", "/2096"]),
        ({"state": ("running", "failed")}, ["/2097", "/2096", "/2021"]),
        ({"state": "paused"}, []),
        ({"since": datetime(2096, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))}, ["/2097", "/2096"]),
        ({"until": datetime(2021, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))}, ["/2020"]),
        ({"since": "2096-01-01T00:00:00Z", "until": "2097-01-01T00:00:00+00:00"}, ["/2096"]),
        ({"operation": "delete"}, ["/archived", "/deleted"]),
        ({"operation": "delete", "storage": "default"}, ["/deleted"]),
        ({"under": "/a"}, ["/a/b/c", "/a/b", "/a"]),  # never a sibling
        ({"labels": {"user": "5"}}, ["/user", "/both"]),
        ({"labels": {"user": "5", "kind": "video"}}, ["/both"]),
        ({"labels": ODD}, ["/odd"]),
        ({"labels": {"user": "6"}}, []),
        ({"labels": {"5": "user"}}, []),
    ],
    ids=str,
)
def test_jobs_are_found_by_what_they_are(ferry: Client, filters: dict[str, Any], found: list[str]) -> None:
    assert [job.path for job in ferry.jobs(**filters)] == found


@pytest.mark.usefixtures("some_jobs")
@pytest.mark.parametrize("filters", [{"under": "/"}, {"labels": {}}], ids=str)
def test_a_filter_that_holds_for_all_jobs_finds_them_all(ferry: Client, filters: dict[str, Any]) -> None:
    assert ferry.jobs(**filters) == ferry.jobs()


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
        ({"labels": {"a": 1.5}}, "labels: "),
        ({"limit": 0}, "limit: needs a whole number from 1 to 10000, got 0"),
        ({"limit": True}, "limit: "),
        ({"limit": 10_001}, "limit: "),
    ],
    ids=str,
)
def test_what_cannot_be_looked_for_is_named(sqlite_site: Site, arguments: dict[str, Any], words: str) -> None:
    with sqlite_site.client() as client, pytest.raises(InvalidRequestError, match=words):
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
    all_of_it = [(each.state, each.bytes_at_risk) for each in ferry.uploads(running.id, finished=True)]
    assert all_of_it == [("completed", 0), ("opening", 0), ("aborting", 2)]
    assert len(ferry.uploads(finished=True)) == 5
    assert len(ferry.uploads(limit=1)) == 1
    assert ferry.uploads(failed.id)[0].as_json()["kept_until"] == LATER.isoformat()


def test_the_history_is_told_from_the_beginning(ferry: Client, site: Site) -> None:
    job, other = ferry.write_stream("/a", SOURCE), ferry.write_stream("/b", SOURCE)
    ended = {"outcome": "retrying", "error_code": "slow_down", "error_message": "asks", "finished_at": LATER}
    site.add_attempt(job, attempt=2, worker="w2")
    site.add_attempt(job, attempt=1, worker="w1", bytes_sent=7, **ended)
    site.add_attempt(other, attempt=1, remark="begun again")
    first, second = ferry.attempts(job.id)
    assert (first.attempt, first.worker, first.bytes_sent) == (1, "w1", 7)
    assert {name: getattr(first, name) for name in ended} == ended
    assert (second.attempt, second.worker, second.outcome, second.finished_at) == (2, "w2", None, None)
    assert [attempt.remark for attempt in ferry.attempts(other.id)] == ["begun again"]
    assert ferry.attempts(ferry.write_stream("/c", SOURCE).id) == []


def test_uploads_and_attempts_of_an_unknown_job_are_an_error_not_nothing(ferry: Client) -> None:
    for look in (ferry.uploads, ferry.attempts, ferry.situation):
        with pytest.raises(JobNotFoundError):
            look("nobody")
