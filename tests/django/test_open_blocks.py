"""A client that takes no part in Django's transactions says so when it is called inside of one."""

import time
import warnings
from collections.abc import Callable

import pytest
from django.db import connections, transaction

from blobferry import Client, NewJob
from blobferry.errors import InvalidRequestError
from models import Database
from tests.client.conftest import SOURCE, Site
from tests.django.conftest import Project, as_in_settings, connect

Write = Callable[[Client], object]
WRITES: dict[str, Write] = {
    "submit": lambda client: client.write_stream("/a", SOURCE),
    "submit_many": lambda client: client.submit_many([NewJob.delete("/a")]),
}
each_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


@each_write
def test_it_warns_the_caller_and_writes_all_the_same(
    make_project: Callable[..., Project], broker_url: str, postgres_database: Database, sqlite_url: str, write: Write
) -> None:
    site = Site(postgres_database, broker_url)
    make_project(site)
    connect("other", as_in_settings(sqlite_url))
    with (
        site.client() as client,
        transaction.atomic("other"),
        pytest.warns(RuntimeWarning, match="blobferry.django import ferry") as warned,
    ):
        write(client)
    assert [warning.filename for warning in warned] == [__file__]
    assert len(site.rows()) == 1


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry"])
def test_a_control_request_warns_as_well(
    make_project: Callable[..., Project], broker_url: str, postgres_database: Database, sqlite_url: str, verb: str
) -> None:
    site = Site(postgres_database, broker_url)
    make_project(site)
    connect("other", as_in_settings(sqlite_url))
    with site.client() as client:
        job = client.delete("/a")
        with transaction.atomic("other"), pytest.warns(RuntimeWarning, match="the request stays if") as warned:
            getattr(client, verb)(job.id)
    assert [warning.filename for warning in warned] == [__file__]


def test_python_shows_it_once_for_each_line(
    make_project: Callable[..., Project], broker_url: str, postgres_database: Database, sqlite_url: str
) -> None:
    site = Site(postgres_database, broker_url)
    make_project(site)
    connect("other", as_in_settings(sqlite_url))
    with site.client() as client, transaction.atomic("other"), warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(3):
            client.delete("/a")
    assert len(shown) == 1
    assert len(site.rows()) == 3


@each_write
def test_on_the_same_sqlite_file_it_refuses_at_once(
    make_project: Callable[..., Project], broker_url: str, sqlite_database: Database, write: Write
) -> None:
    site = Site(sqlite_database, broker_url)
    project = make_project(site)
    with site.client() as client, transaction.atomic():
        project.ferry.delete("/kept")
        began = time.monotonic()
        with pytest.raises(InvalidRequestError, match=r"open on 'default', the SQLite file"):
            write(client)
        assert time.monotonic() - began < 5
    with site.client() as client:
        write(client)
        job_id = client.jobs()[0].id
        with transaction.atomic(), pytest.raises(InvalidRequestError, match="SQLite file"):
            client.cancel(job_id)
        client.cancel(job_id)
    assert len(site.rows()) == 2


@each_write
def test_outside_of_a_block_it_says_nothing(project: Project, write: Write) -> None:
    with transaction.atomic():
        connections["default"].ensure_connection()
    with project.site.client() as client:
        write(client)
        assert client.cancel(client.jobs()[0].id).cancel_requested


def test_the_projects_own_client_is_part_of_the_block(project: Project) -> None:
    with transaction.atomic():
        project.ferry.submit_many([NewJob.delete("/a")])
        project.ferry.cancel(project.ferry.delete("/b").id)
