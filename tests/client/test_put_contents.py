"""The bytes of a put_content are beside the request; rows of earlier versions, with the bytes in it, still count."""

from base64 import b64encode
from typing import Any

import pytest
from sqlalchemy import event, select, update

from blobferry.client import Client
from blobferry.errors import ConflictError
from blobferry.jobs.put_contents import contents_of
from blobferry.messages.job_messages import Message
from blobferry.sql.tables import jobs
from models import Database, JobRow, queries
from tests.models.rows import claim

BYTES = bytes(range(256))


@pytest.fixture
def client(database: Database) -> Client:
    return Client(engine=database.engine)


def make_old(database: Database, job_id: str) -> None:
    """Let the row look as an earlier version wrote it."""
    inline = {"path": "/a", "contents": {"base64": b64encode(BYTES).decode()}, "overwrite": True}
    with database.begin() as session:
        of_job = update(jobs).where(jobs.c.id == job_id)
        session.execute(of_job.values(request=inline, request_version=1, contents=None))


def test_a_worker_reads_the_bytes_of_rows_of_both_versions(client: Client, database: Database) -> None:
    new, old, empty = client.put_content("/a", BYTES), client.put_content("/b", b"x"), client.put_content("/c", b"")
    other = client.delete("/d")
    make_old(database, old.id)
    claimed = [claim(database, job.id) for job in (new, old, empty, other)]
    assert [contents_of(job.contents, job.request) for job in claimed] == [BYTES, BYTES, b"", None]


def test_a_key_finds_the_same_bytes_again_whichever_version_kept_them(client: Client, database: Database) -> None:
    first = client.put_content("/a", BYTES, idempotency_key="k")
    assert client.put_content("/a", BYTES, idempotency_key="k").id == first.id
    make_old(database, first.id)
    assert client.put_content("/a", BYTES, idempotency_key="k").id == first.id
    with pytest.raises(ConflictError):
        client.put_content("/a", b"other", idempotency_key="k")


def test_whoever_only_looks_reads_no_bytes(client: Client, database: Database) -> None:
    new, old = client.put_content("/a", BYTES), client.put_content("/b", BYTES)
    make_old(database, old.id)
    asked = list[str]()

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        asked.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        client.get(new.id)
        client.jobs()
        client.cancel(new.id)
        with database.begin() as session:
            picked = queries.jobs_to_publish(session, limit=4)
            ended = queries.apply_requests(session, limit=4, paused_upload_seconds=1)
            session.scalars(select(JobRow)).all()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    assert [statement for statement in asked if ".contents" in statement] == []
    assert [job.request for job in picked] == [None], "of an earlier version: the request holds the bytes"
    shown = Message.from_row(ended[0].as_row()).arguments
    assert shown == {"path": "/a", "contents": "<256 bytes>", "overwrite": True, "storage": "default"}
