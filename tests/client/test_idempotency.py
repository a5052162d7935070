"""Idempotency keys when many submit at once: threads of one app, and processes that know nothing of each other."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from blobferry import Client, Job, NewJob
from blobferry.errors import ConflictError, InvalidRequestError, TooLateError
from blobferry.sql.clock import db_now
from blobferry.sql.tables import jobs, uploads
from tests.client.conftest import CHECKOUT, SOURCE, Site, all_at_once


def test_twenty_threads_with_one_key_all_get_the_same_job(ferry: Client, site: Site) -> None:
    submit = partial(ferry.write_stream, "/a", SOURCE, idempotency_key="k")
    assert len({job.id for job in all_at_once([submit] * 20)}) == len(site.rows()) == 1


def test_of_two_requests_that_race_for_a_key_one_wins_and_the_other_is_a_conflict(ferry: Client, site: Site) -> None:
    def submit(path: str) -> tuple[str, str]:
        try:
            return path, ferry.write_stream(path, SOURCE, idempotency_key="k").id
        except ConflictError as error:
            return "conflict", error.job_id

    outcomes = Counter(all_at_once([partial(submit, path) for path in ("/0", "/1") * 10]))
    assert len(site.rows()) == 1
    ((winner, job_id),) = [outcome for outcome in outcomes if outcome[0] != "conflict"]
    assert outcomes == {(winner, job_id): 10, ("conflict", job_id): 10}
    assert ferry.get(job_id).path == winner


def test_a_key_is_one_storages_and_one_operations_also_at_once(ferry: Client, site: Site) -> None:
    calls: list[Callable[[], Job]] = [
        partial(submit, storage=storage, idempotency_key="k")
        for storage in ("default", "archive")
        for submit in (partial(ferry.delete, "/a"), partial(ferry.write_stream, "/a", SOURCE))
    ]
    ids = {(number % 4, job.id) for number, job in enumerate(all_at_once(calls * 3))}
    assert len(ids) == len({job_id for _, job_id in ids}) == len(site.rows()) == 4


def test_processes_that_race_for_a_key_make_one_job(site: Site) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLOBFERRY_")}
    environment = kept | {"PYTHONPATH": str(CHECKOUT)} | site.environment()
    command = [sys.executable, "-m", "blobferry", "write", SOURCE, "--idempotency-key", "k", "--json"]
    started = [
        subprocess.Popen([*command, path], env=environment, stdout=subprocess.PIPE, text=True)
        for path in ("/0", "/1") * 2
    ]
    said = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert len(site.rows()) == 1
    assert Counter(process.returncode for process in started) == {0: 2, 2: 2}
    assert len({each["id"] for each in said if "id" in each}) == 1
    assert {each["error"] for each in said if "error" in each} == {"conflict"}


def ended(site: Site, job: Job, state: str) -> Job:
    """The job, once it has ended in this state."""
    with site.database.begin() as session:
        changed = {"state": state, "finished_at": db_now(), "error_code": "source_not_found"}
        session.execute(update(jobs).where(jobs.c.id == job.id).values(**changed))
    return job


@pytest.fixture
def failed(ferry: Client, site: Site) -> Job:
    return ended(site, ferry.write_stream("/a", SOURCE, idempotency_key="k"), "failed")


def again(ferry: Client, path: str = "/a", **options: Any) -> Job:
    return ferry.write_stream(path, SOURCE, idempotency_key="k", reuse="failed", **options)


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_the_key_of_a_job_that_came_to_nothing_is_used_again(ferry: Client, site: Site, state: str) -> None:
    old = ended(site, ferry.write_stream("/a", SOURCE, idempotency_key="k"), state)
    assert ferry.write_stream("/a", SOURCE, idempotency_key="k").id == old.id
    job = again(ferry, "/another/path")
    assert (job.state, job.idempotency_key, job.replaces) == ("queued", "k", old.id)
    left = ferry.get(old.id)
    assert (left.state, left.idempotency_key, left.replaced_by) == (state, None, job.id)


def test_reuse_returns_a_job_that_goes_on_or_has_succeeded(ferry: Client, site: Site) -> None:
    first = again(ferry)
    for state in ("queued", "running", "retrying", "paused", "succeeded"):
        ended(site, first, state)
        job = again(ferry)
        assert (job.id, job.replaces) == (first.id, None)
        with pytest.raises(ConflictError):
            again(ferry, "/another")
    assert len(site.rows()) == 1


def test_of_many_that_reuse_a_key_at_once_one_makes_the_job(ferry: Client, site: Site, failed: Job) -> None:
    answers = all_at_once([partial(again, ferry)] * 20)
    assert len({job.id for job in answers}) == 1
    assert Counter(job.replaces for job in answers) == {failed.id: 1, None: 19}
    assert len(site.rows()) == 2


def test_a_retry_and_a_reuse_at_once_leave_one_job_that_goes_on(ferry: Client, site: Site) -> None:
    for number in range(10):
        old = ended(site, ferry.write_stream("/a", SOURCE, idempotency_key=f"{number}"), "failed")

        def retry(old: Job = old) -> str:
            try:
                return ferry.retry(old.id).id
            except TooLateError as error:
                return str(error)

        def reuse(number: int = number) -> str:
            return ferry.write_stream("/a", SOURCE, idempotency_key=f"{number}", reuse="failed").id

        calls: list[Callable[[], str]] = [retry, reuse]
        retried, reused = all_at_once(calls)
        going = {job.id for job in ferry.jobs(state=["queued", "retrying"])}
        assert going == {reused}
        assert retried == reused or f"job {reused} has its idempotency key and goes on instead" in retried
        ended(site, ferry.get(reused), "succeeded")


def test_in_the_apps_transaction_a_rollback_gives_the_key_back(ferry: Client, site: Site, failed: Job) -> None:
    with Session(site.database.engine) as session:
        assert again(ferry, session=session).replaces == failed.id
        session.rollback()
    assert ferry.get(failed.id).idempotency_key == "k"
    with Session(site.database.engine) as session, session.begin():
        job = again(ferry, session=session)
    assert ferry.get(failed.id).replaced_by == job.id


def test_the_upload_that_was_kept_for_a_retry_is_given_up(ferry: Client, site: Site, failed: Job) -> None:
    with site.database.begin() as session:
        session.execute(insert(uploads).values(job_id=failed.id, state="open"))
    again(ferry)
    (upload,) = ferry.uploads(failed.id)
    assert upload.kept_until is not None


def test_submit_many_reuses_keys_also_twice_in_one_call(ferry: Client, site: Site, failed: Job) -> None:
    request = NewJob.write_stream("/a", SOURCE, idempotency_key="k", reuse="failed")
    other = NewJob.write_stream("/b", SOURCE, idempotency_key="other", reuse="failed")
    first, second, third = ferry.submit_many([request, other, request])
    assert first == third == ferry.get(failed.id).replaced_by
    assert {row["id"] for row in site.rows()} == {failed.id, first, second}
    with pytest.raises(ConflictError, match=r"requests\[0\]"):
        ferry.submit_many([NewJob.write_stream("/c", SOURCE, idempotency_key="k", reuse="failed")])


def test_a_key_that_looks_like_our_note_is_refused(ferry: Client) -> None:
    with pytest.raises(InvalidRequestError, match="idempotency_key: cannot begin with 'blobferry:'"):
        ferry.delete("/a", idempotency_key="blobferry:replaced-by:7")
    with pytest.raises(InvalidRequestError, match="reuse: needs 'failed', got 'always'"):
        ferry.delete("/a", idempotency_key="k", reuse="always")
