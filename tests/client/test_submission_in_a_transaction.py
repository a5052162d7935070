"""Submitting inside the app's own transaction: the row is part of it, the message waits for its commit."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from blobferry import Client
from blobferry.errors import ConflictError
from dev.services import valkey
from tests.client.conftest import SOURCE, Site


@pytest.fixture
def session(site: Site) -> Iterator[Session]:
    with Session(site.database.engine) as session:
        yield session


def test_the_message_leaves_after_the_commit(ferry: Client, site: Site, session: Session) -> None:
    job = ferry.write_stream("/a", SOURCE, session=session)
    assert (site.messages(), job.state) == ([], "queued")
    session.flush()
    assert site.messages() == []
    session.commit()
    assert site.message_ids() == [job.id]
    assert ferry.get(job.id) == job


def test_a_commit_sends_once(ferry: Client, site: Site, session: Session) -> None:
    jobs = [ferry.write_stream(f"/a/{number}", SOURCE, session=session).id for number in range(3)]
    session.commit()
    session.commit()
    another = ferry.write_stream("/a/3", SOURCE, session=session).id
    session.commit()
    assert sorted(site.message_ids()) == sorted([*jobs, another])


@pytest.mark.parametrize("end", [Session.rollback, Session.close], ids=lambda end: end.__name__)
def test_what_is_not_committed_leaves_no_row_and_no_message(
    ferry: Client, site: Site, session: Session, end: Callable[[Session], None]
) -> None:
    ferry.write_stream("/a", SOURCE, session=session)
    end(session)
    kept = ferry.write_stream("/b", SOURCE, session=session)
    session.commit()
    assert (len(site.rows()), site.message_ids()) == (1, [kept.id])


def test_a_released_savepoint_is_no_commit(ferry: Client, site: Site, session: Session) -> None:
    with session.begin():
        with session.begin_nested():
            job = ferry.write_stream("/a", SOURCE, session=session)
            with session.begin_nested():
                inner = ferry.write_stream("/b", SOURCE, session=session)
        with session.begin_nested():
            pass
        assert site.messages() == []
    assert sorted(site.message_ids()) == sorted([job.id, inner.id])


def test_a_savepoint_that_rolls_back_takes_its_messages_along(ferry: Client, site: Site, session: Session) -> None:
    with session.begin():
        before = ferry.write_stream("/a", SOURCE, session=session)
        savepoint = session.begin_nested()
        ferry.write_stream("/b", SOURCE, session=session)
        with session.begin_nested():
            ferry.write_stream("/c", SOURCE, session=session)
        savepoint.rollback()
        after = ferry.write_stream("/d", SOURCE, session=session)
    assert {before.id, after.id} == {row["id"] for row in site.rows()} == set(site.message_ids())


@pytest.mark.parametrize("mode", ["conditional_savepoint", "create_savepoint", "control_fully"])
def test_a_session_joined_to_an_outer_transaction_publishes_nothing_before_it_commits(
    ferry: Client, site: Site, mode: Any
) -> None:
    """Nobody tells when the outer one commits, so the caretaker publishes."""
    with site.database.engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode=mode) as session:
            ferry.write_stream("/a", SOURCE, session=session)
            session.commit()
        if mode == "control_fully":  # there the session's commit is the outer one
            assert (len(site.messages()), len(site.rows())) == (1, 1)
            return
        assert site.messages() == []
        outer.rollback()
    assert (len(site.rows()), site.messages()) == (0, [])


def test_what_a_joined_session_left_behind_is_not_sent_with_its_next_commit(ferry: Client, site: Site) -> None:
    with site.database.engine.connect() as connection, Session(connection) as session:
        outer = connection.begin()
        ferry.write_stream("/a", SOURCE, session=session)
        session.commit()
        outer.rollback()
        kept = ferry.write_stream("/b", SOURCE, session=session)
        session.commit()
    assert (len(site.rows()), site.message_ids()) == (1, [kept.id])


def test_after_the_commit_no_second_connection_is_needed(postgres_site: Site) -> None:
    """The row is corrected when the broker does not take the message, and by then the session's is free again."""
    engine = create_engine(postgres_site.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with (
        valkey() as own,
        Client(engine=engine, broker_url=own.url) as client,
        Session(engine) as session,
    ):
        own.kill9()
        job = client.write_stream("/a", SOURCE, session=session)
        session.commit()
        assert postgres_site.row(job)["published_at"] is None
    engine.dispose()


def test_a_commit_sends_its_messages_together(ferry: Client, site: Site, session: Session) -> None:
    ferry.delete("/connects")
    site.take_messages()
    ids = [ferry.delete(f"/a/{number}", session=session).id for number in range(20)]
    with redis.Redis.from_url(site.broker_url) as connection:
        before = reads(connection)
        session.commit()
        assert reads(connection) - before < len(ids), "a round trip for each would be a read for each"
    assert site.message_ids()[::-1] == ids


def reads(connection: "redis.Redis") -> int:
    """How often the broker has read something, at most 16 KiB at once."""
    return int(connection.info("stats")["total_reads_processed"])


def test_a_connection_takes_the_row_into_its_transaction(ferry: Client, site: Site) -> None:
    with site.database.engine.connect() as connection:
        ferry.write_stream("/a", SOURCE, session=connection)
        connection.rollback()
        ferry.write_stream("/b", SOURCE, session=connection)
        connection.commit()
    assert (len(site.rows()), site.messages()) == (1, [])


def test_a_scoped_session_is_the_session_behind_it(ferry: Client, site: Site) -> None:
    scoped = scoped_session(sessionmaker(site.database.engine))
    job = ferry.write_stream("/a", SOURCE, session=scoped)
    assert site.messages() == []
    scoped.commit()
    scoped.remove()
    assert site.message_ids() == [job.id]


def test_a_known_key_does_not_break_the_callers_transaction(ferry: Client, site: Site, session: Session) -> None:
    first = ferry.write_stream("/a", SOURCE, idempotency_key="k")
    with session.begin():
        other = ferry.write_stream("/b", SOURCE, session=session)
        assert ferry.write_stream("/a", SOURCE, idempotency_key="k", session=session).id == first.id
        with pytest.raises(ConflictError):
            ferry.write_stream("/c", SOURCE, idempotency_key="k", session=session)
        last = ferry.write_stream("/d", SOURCE, session=session)
    assert {first.id, other.id, last.id} == {row["id"] for row in site.rows()} == set(site.message_ids())
