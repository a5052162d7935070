"""Submitting many jobs at once: all or none, in order, in bounded memory, and few messages."""

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, event, func, select
from sqlalchemy.orm import Session

from blobferry import Client, NewJob
from blobferry.errors import ConflictError, InvalidPathError, InvalidRequestError, UnreachableError
from blobferry.jobs.bulk_submission import WAKING
from blobferry.jobs.row_spool import MOST_ROWS
from blobferry.sql.tables import jobs
from dev.services import free_port, valkey
from models import queries
from tests.client.conftest import SOURCE, Site

MIB = 1024 * 1024


def writes(count: int, **options: Any) -> Iterator[NewJob]:
    return (NewJob.write_stream(f"/a/{number}", SOURCE, **options) for number in range(count))


def keyed(count: int, source: str = SOURCE) -> Iterator[NewJob]:
    return (NewJob.write_stream(f"/a/{number}", source, idempotency_key=f"key-{number}") for number in range(count))


def paths(site: Site) -> list[str]:
    return [row["path"] for row in site.rows()]


def test_every_operation_is_submitted_as_by_its_own_method(ferry: Client, site: Site) -> None:
    later = datetime(2040, 1, 1, 12, tzinfo=UTC)
    options: dict[str, Any] = {"storage": "archive", "labels": {"user": "5"}, "priority": 3, "deadline": later}
    requests = [
        NewJob.put_content("/1", b"abc", metadata={"a": "b"}, content_type="text/plain", **options),
        NewJob.write_stream("/2", SOURCE, 7, overwrite=False, not_before=later, **options),
        NewJob.read_stream("/3", "file:///srv/outgoing/3", 5, **options),
        NewJob.move("/4", "/5", dest_storage="other", **options),
        NewJob.delete("/6"),
    ]
    ids = ferry.submit_many(requests)
    singles = [getattr(ferry, request.operation)(**request.arguments) for request in requests]
    own = {"id", "seq", "created_at", "updated_at", "published_at"}
    together, alone = ([site.row(job_id) for job_id in some] for some in (ids, [job.id for job in singles]))
    for one, other in zip(together, alone, strict=True):
        assert {name: one[name] for name in one.keys() - own} == {name: other[name] for name in other.keys() - own}
    assert [row["id"] for row in site.rows()][:5] == list(ids)


def test_the_rows_have_the_order_of_the_requests_over_several_inserts(ferry: Client, site: Site) -> None:
    count = 2 * MOST_ROWS + 10
    statements = list[str]()

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement.split()[0])

    event.listen(ferry._engine, "before_cursor_execute", note)
    ids = ferry.submit_many(writes(count))
    assert paths(site) == [f"/a/{number}" for number in range(count)]
    assert [row["id"] for row in site.rows()] == list(ids)
    assert statements.count("INSERT") == 3


def test_ids_are_a_sequence(ferry: Client) -> None:
    ids = ferry.submit_many(writes(3))
    assert (len(ids), ids[-1], list(ids[1:])) == (3, ids[2], [ids[1], ids[2]])
    assert ferry.get(ids[2]).path == "/a/2"
    with pytest.raises(IndexError):
        ids[3]


def test_no_requests_are_no_jobs(ferry: Client, site: Site) -> None:
    assert (len(ferry.submit_many([])), site.rows(), site.messages()) == (0, [], [])


@pytest.mark.long
def test_it_takes_little_memory(postgres_site: Site) -> None:
    """10,000 jobs with 8 KiB each are 80 MB, a third more as the rows hold them."""
    with postgres_site.client() as client:
        client.submit_many(writes(1))
        tracemalloc.start()
        try:
            client.submit_many(NewJob.put_content(f"/a/{number}", b"x" * 8192) for number in range(10_000))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 45 * MIB
    with postgres_site.database.begin() as session:
        assert session.scalar(select(func.count()).select_from(jobs)) == 10_001


# --- all or nothing ------------------------------------------------------------------------------------------------


def failing(after: int) -> Iterator[NewJob]:
    yield from writes(after)
    raise KeyError("the app's own")


@pytest.mark.parametrize("after", [3, MOST_ROWS + 3])
def test_a_generator_that_raises_has_written_nothing(ferry: Client, site: Site, after: int) -> None:
    with pytest.raises(KeyError, match="the app's own"):
        ferry.submit_many(failing(after))
    assert (site.rows(), site.messages()) == ([], [])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (NewJob.delete("/a//b"), r"requests\[2\]: invalid path '/a//b'"),
        (NewJob.put_content("/a", "text"), r"requests\[2\]: contents: needs bytes"),  # type: ignore[arg-type]
        (NewJob("delete", {"path": "/a", "session": None}), r"requests\[2\]: delete: unknown argument 'session'"),
        (NewJob("stat", {"path": "/a"}), r"requests\[2\]: 'stat' is not one of put_content, write_stream"),
        ({"operation": "delete"}, r"requests\[2\]: needs a NewJob, got \{'operation': 'delete'\}"),
    ],
)
def test_a_bad_request_is_named_by_its_position_and_nothing_is_written(
    ferry: Client, site: Site, bad: Any, says: str
) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        ferry.submit_many([*writes(2), bad])
    assert site.rows() == []


def test_the_cause_of_a_bad_request_is_the_error_of_a_single_submit(ferry: Client) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ferry.submit_many([NewJob.delete("a b")])
    assert isinstance(caught.value.__cause__, InvalidPathError)


def test_a_rolled_back_session_leaves_no_rows_and_no_messages(ferry: Client, site: Site) -> None:
    with Session(site.database.engine) as session:
        ferry.submit_many(writes(5), session=session)
        session.rollback()
        ids = ferry.submit_many(writes(2), session=session)
        assert site.messages() == []
        session.commit()
    assert ([row["id"] for row in site.rows()], site.message_ids()[::-1]) == (list(ids), list(ids))


def test_a_conflict_leaves_the_apps_transaction_usable_and_none_of_the_rows(ferry: Client, site: Site) -> None:
    ferry.write_stream("/other", SOURCE, idempotency_key="key-1500")
    with Session(site.database.engine) as session, session.begin():
        before = ferry.delete("/before", session=session)
        with pytest.raises(ConflictError, match=r"requests\[1500\]: idempotency key 'key-1500'"):
            ferry.submit_many(keyed(2000), session=session)
        after = ferry.submit_many(writes(1), session=session)
    assert [row["id"] for row in site.rows()][1:] == [before.id, *after]


def test_a_connection_takes_the_rows_into_its_transaction(ferry: Client, site: Site) -> None:
    with site.database.engine.connect() as connection:
        ferry.submit_many(writes(3), session=connection)
        connection.rollback()
        ferry.submit_many(writes(2), session=connection)
        connection.commit()
    assert (paths(site), site.messages()) == (["/a/0", "/a/1"], [])
    assert {row["published_at"] for row in site.rows()} == {None}


def test_a_plain_sqlite_engine_of_the_app_keeps_its_transaction(sqlite_site: Site) -> None:
    """Python's driver begins no transaction before the first INSERT, and a savepoint alone would commit the rows."""
    engine = create_engine(sqlite_site.url)
    with Client(engine=engine) as client, Session(engine) as session:
        client.submit_many(writes(3), session=session)
        session.rollback()
        assert sqlite_site.rows() == []
        client.submit_many(writes(2), session=session)
        session.commit()
    engine.dispose()
    assert len(sqlite_site.rows()) == 2


def test_a_connection_in_autocommit_mode_is_refused(ferry: Client, site: Site) -> None:
    with (
        site.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(InvalidRequestError, match="session: is in autocommit mode"),
    ):
        ferry.submit_many(writes(2), session=connection)
    assert site.rows() == []


def test_a_generator_may_use_the_apps_own_session(ferry: Client, site: Site) -> None:
    with Session(site.database.engine) as session:
        ferry.submit_many(writes(2), session=session)
        moves = (NewJob.move(path, f"/b{path}") for path in session.scalars(select(jobs.c.path).order_by("seq")))
        ferry.submit_many(moves, session=session)
        session.commit()
    assert paths(site) == ["/a/0", "/a/1", "/b/a/0", "/b/a/1"]


def test_a_database_out_of_reach_is_one_error() -> None:
    with (
        Client(database_url=f"postgresql://u@127.0.0.1:{free_port()}/d") as client,
        pytest.raises(UnreachableError, match="database: "),
    ):
        client.submit_many(writes(1))


# --- idempotency keys ----------------------------------------------------------------------------------------------


def test_repeating_the_call_returns_the_same_jobs(ferry: Client, site: Site) -> None:
    first = list(ferry.submit_many(keyed(MOST_ROWS + 5)))
    site.take_messages()
    again = list(ferry.submit_many([*keyed(MOST_ROWS + 5), NewJob.delete("/new")]))
    assert again[:-1] == first
    assert (len(site.rows()), site.message_ids()) == (MOST_ROWS + 6, again[-1:])


def test_a_key_of_a_single_submit_counts(ferry: Client, site: Site) -> None:
    job = ferry.write_stream("/a/1", SOURCE, idempotency_key="key-1")
    ids = ferry.submit_many(keyed(3))
    assert (ids[1], len(site.rows())) == (job.id, 3)


@pytest.mark.parametrize("between", [0, MOST_ROWS])
def test_the_same_key_twice_in_one_call_is_one_job(ferry: Client, site: Site, between: int) -> None:
    twice = NewJob.delete("/a", idempotency_key="k")
    ids = ferry.submit_many([twice, *writes(between), twice])
    assert (ids[0] == ids[-1], len(site.rows())) == (True, 1 + between)


@pytest.mark.parametrize("between", [0, MOST_ROWS])
def test_the_same_key_twice_for_two_requests_is_a_conflict(ferry: Client, site: Site, between: int) -> None:
    one, other = NewJob.delete("/a", idempotency_key="k"), NewJob.delete("/b", idempotency_key="k")
    with pytest.raises(ConflictError) as caught:
        ferry.submit_many([one, *writes(between), other])
    assert (caught.value.position, caught.value.idempotency_key) == (1 + between, "k")
    assert (site.rows(), site.messages()) == ([], [])


@pytest.mark.parametrize("option", [{"priority": 3}, {"labels": {"a": "b"}}, {"overwrite": False}])
def test_another_request_under_a_known_key_is_a_conflict(ferry: Client, site: Site, option: dict[str, Any]) -> None:
    job = ferry.write_stream("/a", SOURCE, idempotency_key="k")
    with pytest.raises(ConflictError) as caught:
        ferry.submit_many([*writes(2), NewJob.write_stream("/a", SOURCE, idempotency_key="k", **option)])
    assert (caught.value.position, caught.value.job_id, len(site.rows())) == (2, job.id, 1)


def test_a_signed_source_is_sealed_and_equal_to_itself(site: Site) -> None:
    signed = "https://example.com/a?signature=s3cret"
    with site.client(encryption_keys=[Fernet.generate_key().decode()]) as client:
        first, again = (list(client.submit_many(keyed(2, signed))) for _ in range(2))
        with pytest.raises(ConflictError):
            client.submit_many(keyed(2, signed + "2"))
    assert first == again
    assert "s3cret" not in repr(site.rows())


def test_a_job_that_was_a_bare_task_is_found_by_its_key(ferry: Client, site: Site) -> None:
    job = ferry.delete("/a", idempotency_key="k")
    site.change(job, id="a name of the app's")
    ids = ferry.submit_many([*writes(1), NewJob.delete("/a", idempotency_key="k"), *writes(1)])
    assert (ids[1], len(ids[0]), len(ids[2])) == ("a name of the app's", 36, 36)


# --- messages ------------------------------------------------------------------------------------------------------


def unpublished(site: Site) -> int:
    return sum(row["published_at"] is None for row in site.rows())


def test_a_few_messages_wake_the_workers_and_sql_says_which(ferry: Client, site: Site) -> None:
    count = WAKING + 20
    ids = list(ferry.submit_many(writes(count)))
    assert site.message_ids()[::-1] == ids[:WAKING]
    assert unpublished(site) == 20
    with site.database.begin() as session:
        assert queries.jobs_to_publish(session, limit=WAKING) == [], "as many are in the broker"
        following = [job.id for job in queries.jobs_to_publish(session, limit=WAKING + 4)]
    assert following == ids[WAKING : WAKING + 4]


def test_jobs_for_later_are_not_published(ferry: Client, site: Site) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    ids = list(ferry.submit_many([*writes(70, not_before=later), *writes(2)]))
    assert (site.message_ids()[::-1], unpublished(site)) == (ids[-2:], 70)


def test_a_message_shows_no_contents(ferry: Client, site: Site) -> None:
    ferry.submit_many([NewJob.put_content("/a", b"abc")])
    (message,) = site.messages()
    given = {"path": "/a", "contents": "<3 bytes>", "overwrite": True, "storage": "default"}
    assert message["body"][:2] == [[], given]


@pytest.mark.parametrize("joins", [False, True])
def test_while_the_broker_is_away_nothing_counts_as_published(site: Site, joins: bool) -> None:
    with valkey() as own, site.client(broker_url=own.url) as client, Session(site.database.engine) as session:
        own.kill9()
        ids = client.submit_many(writes(3), session=session if joins else None)
        session.commit()
    assert (len(ids), unpublished(site)) == (3, 3)
