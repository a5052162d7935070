"""The feed of ended jobs misses none, although transactions commit in another order than they get their numbers."""

import threading
from base64 import urlsafe_b64encode
from collections import Counter

import pytest
from sqlalchemy.orm import Session

from blobferry import Client
from blobferry.contract import JobState
from blobferry.errors import InvalidRequestError
from models import queries
from tests.client.conftest import SOURCE, Site
from tests.models.rows import Rows


def run(site: Site, *paths: str, **labels: str) -> list[str]:
    """Submit and claim a job for each path; their ids."""
    with site.client(broker_url=None) as client:
        ids = [client.write_stream(path, SOURCE, labels=labels).id for path in paths]
    for job_id in ids:
        Rows(site.database).claim(job_id)
    return ids


def end(session: Session, site: Site, job_id: str) -> None:
    queries.finish_job(session, Rows(site.database).owned(job_id), {})


def end_now(site: Site, *ids: str) -> None:
    for job_id in ids:
        job = Rows(site.database).owned(job_id)
        with site.database.begin() as session:
            queries.finish_job(session, job, {})


def paths(page: object) -> list[str]:
    return [job.path for job in page]  # type: ignore[attr-defined]


def test_each_end_is_on_one_page(ferry: Client, site: Site) -> None:
    first = ferry.finished()
    assert paths(first) == []
    end_now(site, *run(site, "/1", "/2", "/3"))
    one = ferry.finished(after=first.cursor, limit=2)
    two = ferry.finished(after=one.cursor, limit=2)
    three = ferry.finished(after=two.cursor, limit=2)
    assert [paths(page) for page in (one, two, three)] == [["/1", "/2"], ["/3"], []]
    assert paths(ferry.finished()) == ["/1", "/2", "/3"]
    assert [job.state for job in one] == [JobState.SUCCEEDED] * 2
    assert paths(ferry.finished(after=ferry.finished(after="now").cursor)) == []


def test_only_those_with_the_labels(ferry: Client, site: Site) -> None:
    end_now(site, *run(site, "/1", app="shop"), *run(site, "/2", app="blog"))
    assert paths(ferry.finished(labels={"app": "shop"})) == ["/1"]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_an_end_that_commits_late_is_on_the_next_page(postgres_site: Site, limit: int) -> None:
    """Its transaction has the lower number, and a third one is still open when the late one commits."""
    late, early, latest = run(postgres_site, "/late", "/early", "/latest")
    late_job = Rows(postgres_site.database).owned(late)
    latest_job = Rows(postgres_site.database).owned(latest)
    with postgres_site.client() as ferry, postgres_site.database.begin() as outer:
        queries.finish_job(outer, latest_job, {})
        with postgres_site.database.begin() as session:
            queries.finish_job(session, late_job, {})
            end_now(postgres_site, early)
            first = ferry.finished(limit=limit)
            assert paths(first) == ["/early"]
        second = ferry.finished(after=first.cursor, limit=limit)
        assert paths(second) == ["/late"]
        outer.commit()
        third = ferry.finished(after=second.cursor, limit=limit)
        assert paths(third) == ["/latest"]
        assert paths(ferry.finished(after=third.cursor, limit=limit)) == []


def test_an_empty_page_says_that_nothing_has_ended_since(ferry: Client, site: Site) -> None:
    """Also if the page before was full, of a snapshot in which the next one was still to come."""
    end_now(site, *run(site, "/1"))
    full = ferry.finished(limit=1)
    end_now(site, *run(site, "/2"))
    assert paths(ferry.finished(after=full.cursor, limit=1)) == ["/2"]


def test_readers_see_each_of_many_concurrent_ends_once(ferry: Client, site: Site) -> None:
    ids = run(site, *(f"/{number}" for number in range(40)))
    seen, cursor = Counter[str](), None

    def work(some: list[str]) -> None:
        end_now(site, *some)

    threads = [threading.Thread(target=work, args=(ids[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    while True:
        is_last = not any(thread.is_alive() for thread in threads)
        page = ferry.finished(after=cursor, limit=3)
        seen.update(job.id for job in page)
        cursor = page.cursor
        if is_last and not len(page):
            break
    assert seen == Counter(ids)


def test_a_job_that_ends_again_is_there_again(ferry: Client, site: Site) -> None:
    (job_id,) = run(site, "/1")
    with site.database.begin() as session:
        queries.fail_job(session, Rows(site.database).owned(job_id), InvalidRequestError("x"))
    failed = ferry.finished()
    assert [job.state for job in failed] == ["failed"]
    ferry.retry(job_id)
    assert paths(ferry.finished()) == [], "it has not ended now"
    Rows(site.database).claim(job_id)
    end_now(site, job_id)
    assert [job.state for job in ferry.finished(after=failed.cursor)] == ["succeeded"]


def cursor_of(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "bnVsbA", 7, "W10"),
        cursor_of("[[Infinity,[]],null,[0,0]]"),
        cursor_of("[[-1,[]],null,[0,0]]"),
        cursor_of("[[9223372036854775808,[]],null,[0,0]]"),
        cursor_of("[[5,[]],[6,[]],[9223372036854775808,0]]"),
        cursor_of("[" * 100_000),
    ],
)
def test_what_is_no_cursor_is_refused(client: Client, cursor: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^after: needs the cursor"):
        client.finished(after=cursor)


def test_the_cursor_of_a_database_that_is_ahead_is_refused(postgres_site: Site) -> None:
    """After a restore from a dump, transactions count from the beginning."""
    ahead = "W1sxMDAwMDAwMDAwMDAsW11dLG51bGwsWzAsMF1d"
    with postgres_site.client() as ferry, pytest.raises(InvalidRequestError, match="another database"):
        ferry.finished(after=ahead)
