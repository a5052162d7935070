"""On SQLite: which commits are on the disk when they are over, and which ones wait for nothing."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event

from blobferry.client import Client
from blobferry.contract import Phase
from blobferry.jobs.new_job import NewJob
from models import Database
from tests.doubles import tiny_store
from tests.models.rows import Rows


class Disk(Rows):
    """Rows, and how often their database was written to the disk."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.synced = list[str]()
        event.listen(database.engine, "connect", self._watch)

    def _watch(self, connection: Any, record: Any) -> None:
        connection.sync = self.synced.append


@pytest.fixture
def disk(sqlite_url: str) -> Iterator[Disk]:
    database = Database(sqlite_url)
    yield Disk(database)
    database.close()


def submit_many(disk: Disk, in_session: bool) -> None:
    client = Client(engine=disk.database.engine)
    requests = [NewJob.put_content("/a", b"x"), NewJob.delete("/b")]
    if not in_session:
        client.submit_many(requests)
        return
    with disk.database.begin() as session:
        client.submit_many(requests, session=session)


SUBMISSIONS: dict[str, Callable[[Disk], object]] = {
    "a worker's": lambda disk: disk.submit(),
    "a client's": lambda disk: Client(engine=disk.database.engine).put_content("/a", b"x"),
    "many": lambda disk: submit_many(disk, in_session=False),
    "many in a transaction": lambda disk: submit_many(disk, in_session=True),
}


@pytest.mark.parametrize("submission", SUBMISSIONS)
def test_a_submission_is_on_the_disk_when_it_returns(disk: Disk, submission: str) -> None:
    SUBMISSIONS[submission](disk)
    assert len(disk.synced) == 1


def test_a_run_waits_for_the_disk_before_what_is_not_found_out_again(disk: Disk) -> None:
    job = disk.claim(disk.submit())
    disk.synced.clear()
    disk.extend_lease(job.id, job.token, 30)
    disk.update_owned(job.id, job.token, bytes_done=7)
    assert disk.synced == []
    assert disk.pass_point_of_no_return(job, phase=Phase.COMPLETING)
    disk.update_upload(disk.add_upload(job.id), upload_id="x")
    assert len(disk.synced) == 2


def test_a_batch_waits_for_the_disk_before_it_puts(disk: Disk) -> None:
    job = disk.claim(disk.submit())
    disk.synced.clear()
    row = {"seq": job.seq, "job_id": job.id, "key": "a", "size": 1, "fingerprint": {}, "base_etag": ""}
    how: dict[str, Any] = {"storage": "default", "place": tiny_store()}
    assert disk.begin_completing_all({job.seq: job.token}, [row | {"base_mod_time": None}], **how) == {job.seq}
    assert len(disk.synced) == 1
