"""The kit in a test's own transaction, in which the app's sessions make savepoints, and which the test rolls back."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, select
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from blobferry import Client, NewJob
from blobferry.sql.tables import jobs
from blobferry.testing import FerryKit, create_tables, recording
from tests.client.conftest import Site

SIGNATURE = {"task": "shop.stored"}


@pytest.fixture(params=["of the app", "in memory"])
def engine(request: pytest.FixtureRequest, site: Site) -> Iterator[Engine]:
    """An engine as an app makes it: not one of ours, whose transactions begin otherwise."""
    if request.param == "in memory":
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        create_tables(engine)
    else:
        engine = create_engine(site.database.engine.url)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.begin()
        yield connection
        connection.rollback()
        assert connection.execute(select(jobs.c.id)).all() == [], "nothing of a test is left"
        connection.rollback()


@pytest.fixture
def session(connection: Connection) -> Iterator[Session]:
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        yield session


@pytest.fixture
def kit(engine: Engine, session: Session) -> Iterator[FerryKit]:
    with Client(engine=engine) as client, recording(client, transaction=session) as kit:
        yield kit


def test_all_that_the_client_does_is_in_the_transaction(kit: FerryKit, session: Session) -> None:
    kit.ferry.delete("/of-a-session", session=session)
    session.commit()
    kit.ferry.delete("/by-itself")
    kit.ferry.submit_many([NewJob.delete("/of-many")])
    assert [job.path for job in kit.all_enqueued("delete")] == ["/of-a-session", "/by-itself", "/of-many"]
    first = kit.all_enqueued()[0]
    assert kit.ferry.cancel(first.id).cancel_requested
    assert kit.ferry.get(first.id).cancel_requested
    assert kit.ferry.situation(first.id).ahead == 0
    assert list(kit.ferry.get_many([first.id])) == [first.id]
    assert len(kit.ferry.jobs(under="/of-many")) == 1


def test_what_the_app_rolls_back_was_not_enqueued_and_the_rest_stays(kit: FerryKit, session: Session) -> None:
    kit.ferry.delete("/kept", session=session)
    session.commit()
    kit.ferry.delete("/lost", session=session)
    session.rollback()
    kit.ferry.delete("/after", session=session)
    session.commit()
    kit.assert_enqueued("delete", path="/kept")
    kit.refute_enqueued("delete", path="/lost")
    kit.assert_enqueued("delete", path="/after")


def test_jobs_end_by_hand_in_it(kit: FerryKit, session: Session) -> None:
    job = kit.ferry.put_content("/a", b"four", session=session, on_done=SIGNATURE)
    session.commit()
    kit.progress(job, 2)
    assert kit.finish(job) == kit.ferry.wait(job.id)
    page = kit.ferry.finished()
    assert [ended.id for ended in page] == [job.id]
    drained, then = kit.ferry.put_content("/b", b"four"), kit.ferry.put_content("/c", b"four")
    kit.drain()
    last = kit.fail(kit.ferry.delete("/d"), "deadline")
    assert [ended.id for ended in kit.ferry.finished(after=page.cursor, limit=2)] == [drained.id, then.id]
    page = kit.ferry.finished(after=kit.ferry.finished(after=page.cursor, limit=2).cursor)
    assert [ended.id for ended in page] == [last.id]
    assert list(kit.ferry.finished(after=page.cursor)) == []
    assert [callback.event["size"] for callback in kit.callbacks] == [4]


def test_the_real_runner_runs_in_it(kit: FerryKit, session: Session) -> None:
    kit.ferry.put_content("/a", b"four", session=session, on_done=SIGNATURE)
    session.commit()
    kit.ferry.move("/a", "/b")
    assert [(job.path, job.state) for job in kit.drain()] == [("/a", "succeeded"), ("/b", "succeeded")]
    assert kit.ferry.get_content("/b") == b"four"
    assert len(kit.callbacks) == 1


def test_the_transaction_may_be_a_connection_or_a_scoped_session(engine: Engine, connection: Connection) -> None:
    sessions = scoped_session(sessionmaker(connection, join_transaction_mode="create_savepoint"))
    for transaction in (connection, sessions):
        with Client(engine=engine) as client, recording(client, transaction=transaction) as kit:
            client.delete("/a")
            kit.assert_enqueued("delete", path="/a", count=1)
    sessions.remove()


def test_the_transaction_may_be_that_of_a_session_of_an_engine(engine: Engine) -> None:
    with Client(engine=engine) as client, Session(engine) as session, recording(client, transaction=session) as kit:
        job = client.delete("/a")
        kit.finish(job)
        assert client.get(job.id).state == "succeeded"
        session.rollback()
        kit.refute_enqueued()


def test_the_client_is_as_before_afterwards(site: Site, engine: Engine, connection: Connection) -> None:
    with Client(engine=engine) as client:
        with recording(client, transaction=connection):
            inside = client.delete("/in")
        connection.rollback()
        assert client._engine is engine
        outside = client.delete("/out")
        assert list(client.get_many([inside.id, outside.id])) == [outside.id]
        with engine.begin() as another:
            another.execute(jobs.delete())
