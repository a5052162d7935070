"""A job belongs to the transaction of Django's that is open: it is there, and published, if that commits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import Client as Browser
from django.test import override_settings
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from blobferry import NewJob
from blobferry.errors import ConflictError, InvalidRequestError, TooLateError, UnreachableError
from blobferry.sql.tables import metadata
from tests.client.conftest import SOURCE, Site
from tests.django.conftest import Project, as_in_settings, connect

INSERT_VIDEO = "INSERT INTO app_video (id) VALUES (%s)"


class RolledBack(Exception):
    """What a view raises."""


@contextmanager
def rolled_back(alias: str = "default") -> Iterator[None]:
    """A block of a view that raises in the end."""
    with suppress(RolledBack), transaction.atomic(using=alias):
        yield
        raise RolledBack


def submit_one(project: Project) -> list[str]:
    return [project.ferry.write_stream("/a", SOURCE).id]


def submit_many(project: Project) -> list[str]:
    return list(project.ferry.submit_many([NewJob.write_stream(f"/{name}", SOURCE) for name in "ab"]))


both_ways = pytest.mark.parametrize("submit", [submit_one, submit_many])


@both_ways
def test_the_message_leaves_after_the_commit(project: Project, submit: Callable[[Project], list[str]]) -> None:
    with transaction.atomic():
        project.run(INSERT_VIDEO, 1)
        ids = submit(project)
        assert (project.videos(), project.job_ids(), project.site.messages()) == ([], [], [])
    assert (project.videos(), project.job_ids()) == ([1], ids)
    assert sorted(project.site.message_ids()) == sorted(ids)
    assert all(row["published_at"] is not None for row in project.site.rows())


@both_ways
def test_a_rollback_leaves_no_job_and_no_message(project: Project, submit: Callable[[Project], list[str]]) -> None:
    with rolled_back():
        project.run(INSERT_VIDEO, 1)
        submit(project)
    assert (project.videos(), project.job_ids(), project.site.messages()) == ([], [], [])


@both_ways
def test_a_rolled_back_savepoint_takes_its_job_with_it(
    project: Project, submit: Callable[[Project], list[str]]
) -> None:
    with transaction.atomic():
        project.run(INSERT_VIDEO, 1)
        with rolled_back():
            submit(project)
        with transaction.atomic(), transaction.atomic():
            kept = project.ferry.delete("/kept").id
    assert (project.videos(), project.job_ids(), project.site.message_ids()) == ([1], [kept], [kept])


def test_a_manual_savepoint_takes_its_job_with_it_too(project: Project) -> None:
    # Not its message, as Django keeps the callback: a message about no row does nothing.
    with transaction.atomic():
        savepoint = connections["default"].savepoint()
        project.ferry.delete("/lost")
        connections["default"].savepoint_rollback(savepoint)
        kept = project.ferry.delete("/kept").id
    assert project.job_ids() == [kept]
    assert kept in project.site.message_ids()


@both_ways
def test_outside_of_a_block_a_job_is_committed_at_once(
    project: Project, submit: Callable[[Project], list[str]]
) -> None:
    ids = submit(project)
    assert (project.job_ids(), sorted(project.site.message_ids())) == (ids, sorted(ids))


def test_an_earlier_callback_that_fails_leaves_the_job_to_the_caretaker(project: Project) -> None:
    def fail() -> None:
        raise RolledBack

    with suppress(RolledBack), transaction.atomic():
        transaction.on_commit(fail)
        job = project.ferry.delete("/a")
    assert (project.job_ids(), project.site.messages()) == ([job.id], [])


def test_a_job_from_a_callback_of_the_commit_is_published(project: Project) -> None:
    ids = []
    with transaction.atomic():
        transaction.on_commit(lambda: ids.append(project.ferry.delete("/a").id))
    assert (project.job_ids(), project.site.message_ids()) == (ids, ids)


def test_a_request_is_a_block_where_the_project_says_so(project: Project) -> None:
    connect("default", as_in_settings(project.site.url) | {"ATOMIC_REQUESTS": True})
    browser = Browser()
    with pytest.raises(ZeroDivisionError):
        browser.get("/videos/0/")
    assert (project.videos(), project.job_ids(), project.site.messages()) == ([], [], [])
    assert browser.get("/videos/1/").status_code == 100
    assert (project.videos(), len(project.job_ids())) == ([1], 1)
    assert project.site.message_ids() == project.job_ids()


def test_each_database_has_jobs_of_its_own(project: Project, sqlite_url: str) -> None:
    connect("other", as_in_settings(sqlite_url + "-other"))
    create = create_engine(sqlite_url + "-other")
    metadata.create_all(create)
    create.dispose()
    other = project.ferry.using("other")
    assert other is project.ferry.using("other"), "one connection to the broker, however often it is asked for"
    with rolled_back("other"):
        kept = project.ferry.delete("/kept").id
        lost = other.delete("/lost").id
        assert other.get(lost).path == "/lost"
    with transaction.atomic(using="other"):
        both = other.delete("/there").id
        with transaction.atomic():
            pass
        assert project.site.message_ids() == [kept]
    assert project.job_ids() == [kept]
    assert [job.id for job in other.jobs()] == [both]
    assert sorted(project.site.message_ids()) == sorted([kept, both])


def test_errors_leave_the_block_usable(project: Project) -> None:
    with transaction.atomic():
        project.run(INSERT_VIDEO, 1)
        first = project.ferry.delete("/a", idempotency_key="k")
        again = project.ferry.delete("/a", idempotency_key="k")
        with pytest.raises(ConflictError):
            project.ferry.delete("/b", idempotency_key="k")
        with pytest.raises(ConflictError, match=r"requests\[1\]"):
            project.ferry.submit_many([NewJob.delete("/c"), NewJob.delete("/b", idempotency_key="k")])
        project.ferry.cancel(first.id)
        with pytest.raises(TooLateError):
            project.ferry.resume(first.id)
        project.run(INSERT_VIDEO, 2)
    assert again.id == first.id
    assert (project.videos(), project.job_ids()) == ([1, 2], [first.id])


def test_a_broken_block_is_explained_by_django(project: Project) -> None:
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(TransactionManagementError, match="until the end of the 'atomic' block"):
            project.ferry.delete("/a")
    assert project.job_ids() == []


def test_control_and_reads_belong_to_the_block(project: Project) -> None:
    job = project.ferry.delete("/a")
    project.site.take_messages()
    with rolled_back():
        assert project.ferry.pause(job.id).pause_requested
        assert project.ferry.get(job.id).pause_requested
        assert project.ferry.jobs()[0].pause_requested
    assert not project.ferry.get(job.id).pause_requested
    assert project.site.messages() == []
    with transaction.atomic():
        project.ferry.cancel(job.id)
        assert project.site.messages() == []
    assert project.site.message_ids() == [job.id]


def test_inside_of_a_block_nobody_waits_for_a_job_that_cannot_begin(project: Project) -> None:
    with transaction.atomic(), pytest.raises(InvalidRequestError, match="wait after the block"):
        project.ferry.wait(project.ferry.delete("/a").id, timeout=60)
    with pytest.raises(TimeoutError):
        project.ferry.wait(project.ferry.delete("/a").id, timeout=0)


def test_a_session_of_sqlalchemy_is_refused(project: Project) -> None:
    with Session(project.site.database.engine) as session, pytest.raises(InvalidRequestError, match=r"ferry\.using"):
        project.ferry.delete("/a", session=session)


def test_async_views_submit_through_the_same_connection(project: Project) -> None:
    async def view() -> tuple[str, list[str]]:
        job = await project.ferry.awrite_stream("/a", SOURCE, labels={"video": "1"})
        found = await project.ferry.ajobs(labels={"video": "1"})
        await project.ferry.acancel(job.id)
        return job.id, [each.id for each in found]

    with transaction.atomic():
        job_id, found = async_to_sync(view)()
        assert (found, project.job_ids()) == ([job_id], [])
    assert project.job_ids() == [job_id]


def test_without_time_zones_times_are_right_all_the_same(project: Project) -> None:
    connections["default"].close()
    with override_settings(USE_TZ=False, TIME_ZONE="America/New_York"):
        connect("default", as_in_settings(project.site.url))
        job = project.ferry.delete(
            "/a", not_before=datetime(2030, 6, 1, 12, tzinfo=UTC), deadline=datetime(2030, 7, 1, tzinfo=UTC)
        )
        seen = project.ferry.get(job.id)
    with project.site.client() as client:
        assert client.get(job.id) == seen == job
        assert abs((seen.seen_at - client.get(job.id).seen_at).total_seconds()) < 60
    assert seen.run_at == datetime(2030, 6, 1, 12, tzinfo=UTC)


def test_parameters_may_be_bound_by_the_server(make_project: Callable[..., Project], postgres_site: Site) -> None:
    project = make_project(postgres_site)
    connect("default", as_in_settings(postgres_site.url) | {"OPTIONS": {"server_side_binding": True}})
    job = project.ferry.put_content("/a/b", b"c", labels={"video": "7"}, deadline=datetime(2030, 7, 1, tzinfo=UTC))
    project.ferry.submit_many([NewJob.delete("/b", idempotency_key="k"), NewJob.delete("/c")])
    assert project.ferry.jobs(labels={"video": "7"}, under="/a", since=datetime(2020, 1, 1, tzinfo=UTC)) == [job]
    assert project.ferry.situation(job.id).ahead == 0
    assert project.ferry.uploads() == []
    assert project.ferry.attempts(job.id) == []
    assert project.ferry.cancel(job.id).cancel_requested
    with project.site.client() as client:
        assert client.get(job.id) == project.ferry.get(job.id)


def test_a_lost_connection_is_replaced_outside_of_a_block(
    make_project: Callable[..., Project], postgres_site: Site
) -> None:
    project = make_project(postgres_site)
    job = project.ferry.delete("/a")
    project.run("SELECT 1")
    with postgres_site.database.begin() as session:
        session.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
    with pytest.raises(UnreachableError):
        project.ferry.get(job.id)
    assert project.ferry.get(job.id) == job
