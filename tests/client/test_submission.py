"""Submitting: a row, then a message; the broker makes it fast, the database makes it safe."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import InternalError, ProgrammingError
from sqlalchemy.orm import Session

from blobferry import Client
from blobferry.errors import ConfigurationError, ConflictError, InvalidPathError, InvalidRequestError, UnreachableError
from blobferry.sql.database import _begin_immediate, _configure_sqlite, open_engine
from dev.services import free_port, postgres_database, valkey, wait_until
from models import queries
from tests.client.conftest import SOURCE, Site, run_python

PATIENCE = 5.0  #: seconds that a submit may take while the broker is away


def test_submit_writes_the_row(ferry: Client) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    job = ferry.write_stream("/videos/7.mp4", SOURCE, labels={"user": "5"}, deadline=later, idempotency_key="video-7")
    assert (job.path, job.source, job.operation, job.storage) == ("/videos/7.mp4", SOURCE, "write_stream", "default")
    assert (job.state, job.attempt, job.bytes_done, job.size) == ("queued", 0, 0, None)
    assert (job.labels, job.idempotency_key) == ({"user": "5"}, "video-7")
    assert abs(datetime.now(UTC) - job.created_at) < timedelta(minutes=1)
    assert ferry.get(job.id) == job


def test_submit_sends_a_message_that_says_it_has_a_row(ferry: Client, site: Site) -> None:
    job = ferry.write_stream("/videos/7.mp4", SOURCE, metadata={"a": "b"}, storage="archive")
    (message,) = site.messages()
    headers = {"id": job.id, "task": "blobferry.write_stream", "blobferry_row": True, "publish_seq": 0}
    headers["ignore_result"] = False
    assert {name: message[name] for name in headers} == headers
    given = {"path": "/videos/7.mp4", "source": SOURCE, "metadata": {"a": "b"}, "storage": "archive"}
    assert message["body"][:2] == [[], given | {"offset": 0, "overwrite": True}]


def test_a_path_object_becomes_an_absolute_url_with_its_odd_letters_encoded(ferry: Client, tmp_path: Path) -> None:
    job = ferry.write_stream("/a", tmp_path / "a b#?%.bin")
    assert job.source == f"file://{tmp_path}/a%20b%23%3F%25.bin"


def test_publishing_subscribes_to_nothing(ferry: Client, site: Site) -> None:
    """A web app that submits for weeks must not gather a subscription for each job."""
    for _ in range(3):
        ferry.write_stream("/a", SOURCE)
    with redis.Redis.from_url(site.broker_url) as connection:
        assert connection.pubsub_channels() == []


def test_a_job_for_later_is_not_published_now(ferry: Client, site: Site) -> None:
    ferry.write_stream("/a", SOURCE, not_before=datetime.now(UTC) + timedelta(hours=1))
    assert (len(site.rows()), site.messages()) == (1, [])


def test_without_a_broker_url_the_row_is_all(site: Site) -> None:
    with site.client(broker_url=None) as client:
        client.write_stream("/a", SOURCE)
    assert (len(site.rows()), site.messages()) == (1, [])


@pytest.mark.parametrize("broker", ["refuses", "never answers"])
def test_a_broker_that_is_away_does_not_hold_a_submit(site: Site, broker: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = free_port() if broker == "refuses" else silent.getsockname()[1]
        with site.client(broker_url=f"redis://127.0.0.1:{port}/0") as client:
            for number in range(2):
                started = time.monotonic()
                job = client.write_stream(f"/a/{number}", SOURCE)
                assert time.monotonic() - started < PATIENCE
                assert client.get(job.id).state == "queued"


def test_a_broker_that_was_restarted_gets_the_next_message(site: Site) -> None:
    with valkey() as own, site.client(broker_url=own.url) as client:
        client.write_stream("/a", SOURCE)
        own.kill9()
        client.write_stream("/b", SOURCE)
        own.restart()

        tries = []

        def is_published() -> bool:
            tries.append(client.write_stream("/c", SOURCE))
            return site.row(tries[-1])["published_at"] is not None

        wait_until(is_published, 10, "the client tries again")
        with redis.Redis.from_url(own.url) as connection:
            sent = [json.loads(message)["headers"]["id"] for message in connection.lrange("blobferry", 0, -1)]
        # A message whose answer came too late is there, too, and its row says that it may not be.
        assert tries[-1].id in sent
        assert set(sent) <= {job.id for job in tries}


@pytest.mark.parametrize("joins", [False, True], ids=["its own transaction", "the app's session"])
def test_a_row_says_that_it_was_published_only_if_it_was(site: Site, joins: bool) -> None:
    with valkey() as own, site.client(broker_url=own.url) as client, Session(site.database.engine) as session:

        def submit() -> Any:
            job = client.write_stream("/a", SOURCE, session=session if joins else None)
            session.commit()
            return site.row(job)["published_at"]

        assert submit() is not None
        own.kill9()
        assert submit() is None, "the broker does not answer"
        assert submit() is None, "the broker is not even tried"


def test_a_message_that_was_sent_is_not_sent_again_by_a_worker(site: Site, ferry: Client) -> None:
    first = ferry.write_stream("/a", SOURCE)
    with site.client(broker_url=None) as silent:
        second = silent.write_stream("/b", SOURCE)
    with site.database.begin() as session:
        assert [job.id for job in queries.jobs_to_publish(session, limit=10)] == [second.id]
    assert site.message_ids() == [first.id]


def test_a_connection_lost_since_the_last_submit_is_replaced(postgres_site: Site) -> None:
    """However little time has passed: a connection in steady use is not tested before each submit."""
    lose = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT%'")
    with postgres_site.client() as client, postgres_site.database.engine.connect() as connection:
        client.write_stream("/a", SOURCE)
        assert connection.execute(lose).all() == [(True,)]
        client.write_stream("/b", SOURCE)
    assert len(postgres_site.rows()) == 2


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://blobferry:s3cret@127.0.0.1:{port}/blobferry", ""),
        ("sqlite:///{directory}/none/blobferry.db", ""),
        ("sqlite:///{directory}/notes.txt", "file is not a database"),
    ],
)
def test_a_database_out_of_reach_is_one_clear_error(url: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database at all" * 100)
    with Client(database_url=url.format(port=free_port(), directory=tmp_path)) as client:
        for ask in (partial(client.write_stream, "/a", SOURCE), partial(client.get, "1")):
            with pytest.raises(UnreachableError, match=f"^database: {says}") as caught:
                ask()
            assert "s3cret" not in str(caught.value)


def test_a_database_without_tables_says_what_to_run(tmp_path: Path, postgres_server: Any) -> None:
    with postgres_database(postgres_server) as postgres_url:
        for url in (postgres_url, f"sqlite:///{tmp_path}/empty.db"):
            with (
                Client(database_url=url) as client,
                pytest.raises(UnreachableError, match=r"blobferry_jobs.*python -m worker migrate"),
            ):
                client.write_stream("/a", SOURCE)


def test_a_database_without_tables_says_so_in_the_apps_transaction_too(tmp_path: Path, postgres_server: Any) -> None:
    with postgres_database(postgres_server) as postgres_url:
        for url in (postgres_url, f"sqlite:///{tmp_path}/empty.db"):
            with Client(database_url=url) as client, Session(client._engine) as session:
                with pytest.raises(UnreachableError, match=r"blobferry_jobs.*blobferry-worker migrate"):
                    client.write_stream("/a", SOURCE, session=session)
                session.rollback()
                with pytest.raises(UnreachableError, match=r"blobferry_jobs.*blobferry-worker migrate"):
                    client.write_stream("/a", SOURCE, session=session.connection())


def test_other_errors_of_the_apps_transaction_are_its_own(postgres_site: Site) -> None:
    with postgres_site.client() as client, postgres_site.database.engine.connect() as connection:
        with pytest.raises(ProgrammingError):
            connection.execute(text("SELECT * FROM no_such_table_of_the_app"))
        with pytest.raises(InternalError, match="aborted"):
            client.write_stream("/a", SOURCE, session=connection)


def test_what_is_no_session_is_refused_and_leaves_no_row(sqlite_site: Site) -> None:
    with sqlite_site.client() as client, pytest.raises(InvalidRequestError, match="session"):
        client.write_stream("/a", SOURCE, session=7)  # type: ignore[arg-type]
    assert (sqlite_site.rows(), sqlite_site.messages()) == ([], [])


def test_a_client_of_any_keys_submits_what_a_storage_of_any_keys_takes(sqlite_site: Site) -> None:
    with Client(database_url=sqlite_site.url, keys="any") as client:
        job = client.write_stream("/my vidéo+1.mp4", "blob://cold/my%20vid%C3%A9o.mp4")
        assert (job.path, job.source) == ("/my vidéo+1.mp4", "blob://cold/my%20vid%C3%A9o.mp4")
        assert [found.id for found in client.jobs(under="/my vidéo+1.mp4")] == [job.id]
        with pytest.raises(InvalidPathError):
            client.delete("/a\n")


def test_keys_of_a_client_are_registry_or_any(sqlite_site: Site) -> None:
    variables = {"BLOBFERRY_DATABASE_URL": sqlite_site.url, "BLOBFERRY_KEYS": "any"}
    with Client.from_env(variables) as client:
        assert client.delete("/a b").path == "/a b"
    with pytest.raises(ConfigurationError, match="BLOBFERRY_KEYS: needs 'registry' or 'any', got 'all'"):
        Client.from_env(variables | {"BLOBFERRY_KEYS": "all"})


# --- idempotency keys ----------------------------------------------------------------------------------------------


def test_the_same_request_with_the_same_key_is_the_first_job(ferry: Client, site: Site) -> None:
    options: dict[str, Any] = {
        "idempotency_key": "k",
        "metadata": {"b": "1", "a": "2"},
        "labels": {"x": "y"},
        "not_before": datetime(2030, 1, 1, 12, tzinfo=UTC),
        "deadline": datetime(2031, 1, 1, 12, 0, 0, 123456, tzinfo=UTC),
    }
    first = ferry.write_stream("/a", SOURCE, **options)
    second = ferry.write_stream("/a", SOURCE, **options | {"metadata": {"a": "2", "b": "1"}})
    assert (first.id, len(site.rows())) == (second.id, 1)


@pytest.mark.parametrize("other", [{"path": "/b"}, {"priority": 3}, {"labels": {"a": "b"}}, {"overwrite": False}])
def test_another_request_with_the_same_key_is_a_conflict(ferry: Client, site: Site, other: dict[str, Any]) -> None:
    first = ferry.write_stream("/a", SOURCE, idempotency_key="k")
    with pytest.raises(ConflictError) as caught:
        ferry.write_stream(**{"path": "/a", "source": SOURCE, "idempotency_key": "k"} | other)
    assert (caught.value.idempotency_key, caught.value.job_id) == ("k", first.id)
    assert len(site.rows()) == 1


def test_a_key_belongs_to_one_storage(ferry: Client, site: Site) -> None:
    ferry.write_stream("/a", SOURCE, idempotency_key="k")
    ferry.write_stream("/a", SOURCE, idempotency_key="k", storage="archive")
    assert len(site.rows()) == 2


@pytest.mark.parametrize("commits", [True, False])
def test_a_key_in_an_open_transaction_is_waited_for(postgres_site: Site, commits: bool) -> None:
    with (
        postgres_site.client(broker_url=None) as client,
        ThreadPoolExecutor(1) as thread,
        postgres_site.database.engine.connect() as connection,
    ):
        first = client.write_stream("/a", SOURCE, idempotency_key="k", session=connection)
        second = thread.submit(client.write_stream, "/a", SOURCE, idempotency_key="k")
        postgres_site.wait_until_somebody_waits_for_a_lock()
        if commits:
            connection.commit()
        else:
            connection.rollback()
        assert (second.result(10).id == first.id) is commits
    assert len(postgres_site.rows()) == 1


# --- threads, forks, engines ---------------------------------------------------------------------------------------


def test_threads_may_share_a_client(ferry: Client, site: Site) -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(lambda number: ferry.write_stream(f"/a/{number}", SOURCE).id, range(40)))
    assert (len(ids), len(site.rows())) == (40, 40)
    assert set(site.message_ids()) == ids


FORK = """
    import os, sys
    from blobferry import Client

    with Client.from_env() as client:
        client.write_stream("/a/before", "file:///a")
        for number in range(3):
            child = os.fork()
            if not child:
                job = client.write_stream(f"/a/child{number}", "file:///a")
                os._exit(client.get(job.id).path != f"/a/child{number}")
            job = client.write_stream(f"/a/parent{number}", "file:///a")
            assert client.get(job.id).path == f"/a/parent{number}"
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_child_and_its_parent_both_go_on(site: Site) -> None:
    run_python(FORK, site.environment())
    assert (len(site.rows()), len(set(site.message_ids()))) == (7, 7)


def test_the_apps_own_engine_is_left_as_it_is(site: Site) -> None:
    engine = create_engine(site.url)
    with engine.connect() as connection, Client(engine=engine, broker_url=site.broker_url) as client:
        job = client.write_stream("/a", SOURCE)
        assert client.get(job.id) == job
        pool = engine.pool
        client.close()
        assert engine.pool is pool
        assert connection.scalar(text("SELECT 1")) == 1
    assert not event.contains(engine, "connect", _configure_sqlite)
    assert not event.contains(engine, "begin", _begin_immediate)
    engine.dispose()


def test_a_closed_client_may_be_used_again(ferry: Client, site: Site) -> None:
    ferry.write_stream("/a", SOURCE)
    ferry.close()
    ferry.write_stream("/b", SOURCE)
    assert (len(site.rows()), len(site.messages())) == (2, 2)


# --- configuration -------------------------------------------------------------------------------------------------


WRONG_MEANS: dict[str, list[str | None]] = {
    "BLOBFERRY_DATABASE_URL": [
        *(None, "", "nonsense", "mysql://u:s3cret@h/d", "postgresql://u:p@h:s3cret/d"),
        *("postgresql+nothing://u:s3cret@h/d", "postgresql://u:s3cret@h/d?schema=a"),
    ],
    "BLOBFERRY_BROKER_URL": ["nonsense", "rdis://:s3cret@h", "redis://:s3cret/x@h"],
    "BLOBFERRY_RESULT_BACKEND": ["nonsense", "rdis://:s3cret@h", "rpc://", "rediss://:s3cret@h?ssl_cert_reqs=maybe"],
}


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        *((variable, value, variable) for variable, values in WRONG_MEANS.items() for value in values),
        ("BLOBFERRY_BROKER_URL", "sentinel://:s3cret@h", "BLOBFERRY_BROKER__MASTER_NAME"),
    ],
)
def test_a_wrong_variable_is_named_and_no_password_shown(variable: str, value: str | None, named: str) -> None:
    good = {"BLOBFERRY_DATABASE_URL": "sqlite://", "BLOBFERRY_BROKER_URL": "redis://127.0.0.1"}
    environment = {name: given for name, given in (good | {variable: value}).items() if given is not None}
    with pytest.raises(ConfigurationError, match=named) as caught:
        Client.from_env(environment)
    assert "s3cret" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"


def test_a_client_needs_one_database() -> None:
    with pytest.raises(ConfigurationError, match="database_url"):
        Client()
    engine = open_engine("sqlite://")
    with pytest.raises(ConfigurationError, match="database_url"):
        Client(database_url="sqlite://", engine=engine)
