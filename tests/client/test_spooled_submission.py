"""Jobs of spooled uploads: what their rows say, by which the sweep spares and removes files."""

import io
from pathlib import Path
from typing import Any

import pytest

from blobferry import Client, Job
from blobferry.errors import ConflictError, InvalidRequestError
from blobferry.jobs.new_job import NewJob
from tests.client.conftest import SOURCE, Site


@pytest.fixture
def ferry(site: Site, tmp_path: Path) -> Any:
    with Client(database_url=site.url, broker_url=site.broker_url, spool_dir=tmp_path) as client:
        yield client


def removal(site: Site, job: Job | str) -> tuple[Any, bool]:
    row = site.row(job)
    return row["spooled"], row["removes_source"]


def test_the_row_names_the_upload_and_says_that_it_is_removed(site: Site, ferry: Client) -> None:
    spooled = ferry.spool(io.BytesIO(b"hello"), size=5)
    job = ferry.write_stream("/a", spooled)
    assert job.source == spooled.url
    assert removal(site, job) == (spooled.path.name, True)
    assert removal(site, ferry.write_stream("/b", spooled, delete_source=False)) == (spooled.path.name, False)
    (job_id,) = ferry.submit_many([NewJob.write_stream("/c", spooled)])
    assert removal(site, job_id) == (spooled.path.name, True)


def test_another_source_stays_unless_it_is_asked_for(site: Site, ferry: Client) -> None:
    assert removal(site, ferry.write_stream("/a", SOURCE)) == (None, False)
    assert removal(site, ferry.write_stream("/b", SOURCE, delete_source=True)) == (None, True)
    with pytest.raises(InvalidRequestError, match="delete_source: needs true or false"):
        ferry.write_stream("/c", SOURCE, delete_source="yes")  # type: ignore[arg-type]


def test_a_request_that_is_sent_again_is_the_same_job_although_its_bytes_are_spooled_again(
    site: Site, ferry: Client
) -> None:
    jobs = [ferry.write_stream("/a", ferry.spool(io.BytesIO(b"x")), idempotency_key="k") for _ in range(2)]
    assert jobs[0].id == jobs[1].id
    with pytest.raises(ConflictError):
        ferry.write_stream("/a", ferry.spool(io.BytesIO(b"y")), idempotency_key="k")
    ferry.write_stream("/a", ferry.spool(io.BytesIO(b"x"), digest=False), idempotency_key="k2")
    with pytest.raises(ConflictError):  # nobody knows whether these are the same bytes
        ferry.write_stream("/a", ferry.spool(io.BytesIO(b"x"), digest=False), idempotency_key="k2")


@pytest.mark.parametrize("asked", [None, True])
def test_a_retry_from_another_source_removes_that_one_only_if_it_was_asked_to(
    site: Site, ferry: Client, asked: bool | None
) -> None:
    first, second = ferry.spool(io.BytesIO(b"x")), ferry.spool(io.BytesIO(b"x"))
    job = ferry.write_stream("/a", first)
    site.change(job, state="failed", finished_at=site.row(job)["created_at"])
    ferry.retry(job.id, source=second.url)
    assert removal(site, job) == (second.path.name, True)
    plain = ferry.write_stream("/b", SOURCE, delete_source=asked)
    for failed in (job, plain):
        site.change(failed, state="failed", finished_at=site.row(job)["created_at"])
        ferry.retry(failed.id, source=f"{SOURCE}.again")
    assert removal(site, job) == (None, False), "a file of the app's own is not removed because an upload was"
    assert removal(site, plain) == (None, bool(asked))
