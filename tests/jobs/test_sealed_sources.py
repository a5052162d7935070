"""Sources that hold a secret, at the worker: opened by whichever key sealed them, and sealed when a row is made."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.app.task import Context
from cryptography.fernet import Fernet

from blobferry import seal
from blobferry.contract import JobState
from blobferry.errors import ConfigurationError, ConflictError
from blobferry.messages.job_messages import Message
from blobferry.sealing import Sealer
from tests.doubles import blob
from tests.jobs.job_world import KEY, PATH, World
from tests.models.rows import ago, submit
from tests.transfer.sources.http.http_site import Site, serving
from worker.celery.bare_task import make_row
from worker.jobs.runner import run_job
from worker.runtime import Runtime

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
PRIVATE = {"http_allow_private": True}


@pytest.fixture
def site(world: World) -> Iterator[Site]:
    with serving(world.data) as site:
        yield site


@contextmanager
def worker(world: World, *keys: str, **sections: Any) -> Iterator[Runtime]:
    with world.worker(sources=PRIVATE, **sections) as runtime:
        runtime.sealer = Sealer(keys)
        yield runtime


def signed(site: Site, signature: str = "C4NARY") -> str:
    return f"{site.url.replace('://', '://user:C4NARY@')}/a?signature={signature}"


def bare(runtime: Runtime, task_id: str, source: str, **arguments: Any) -> bool:
    """A task that was sent by Celery itself arrives."""
    return make_row(runtime, Context(id=task_id), "write_stream", {"path": PATH, "source": source, **arguments})


# --- rotation ------------------------------------------------------------------------------------------------------


def test_a_job_that_was_sealed_with_the_old_key_runs_while_that_is_still_listed(world: World, site: Site) -> None:
    arguments = {"path": PATH, "source": signed(site)}
    job_id = submit(world.database, arguments=arguments, size=None, sealer=Sealer([OLD]))
    assert "C4NARY" not in repr(world.job_row(job_id).as_row())
    with worker(world, NEW, OLD) as runtime:
        run_job(runtime, job_id)
    assert world.has_ended(job_id, JobState.SUCCEEDED)
    assert blob(world.memory, KEY) == world.data
    assert {path for path, _ in site.requests} == {"/a?signature=C4NARY"}
    assert set(site.asked("Authorization")) == {"Basic dXNlcjpDNE5BUlk="}


@pytest.mark.parametrize("keys", [(), (NEW,)], ids=["no key", "another key"])
def test_a_job_whose_key_no_worker_has_fails_after_its_retries_and_says_what_to_do(
    keys: tuple[str, ...], world: World, site: Site
) -> None:
    arguments = {"path": PATH, "source": signed(site)}
    job_id = submit(world.database, arguments=arguments, size=None, sealer=Sealer([OLD]))
    with worker(world, *keys) as runtime:
        run_job(runtime, job_id)
    assert world.job_row(job_id).state == "retrying", "another worker may have the key"
    world.change(job_id, run_at=ago(1))
    with worker(world, *keys, retry={"max_attempts": 2}) as runtime:
        run_job(runtime, job_id)
    assert world.has_ended(job_id, JobState.FAILED, "configuration")
    row = world.job_row(job_id)
    assert "encryption_keys: " in (row.error_message or "")
    assert len(world.attempts(job_id)) == 2
    assert "C4NARY" not in repr([row.as_row(), *(vars(attempt) for attempt in world.attempts(job_id))])
    assert site.requests == []


def test_a_sealed_url_that_can_be_no_source_fails_the_job(world: World) -> None:
    inside = Fernet(OLD).encrypt(b"ftp://user:C4NARY@host/a").decode()
    job_id = submit(world.database, arguments={"path": PATH, "source": f"sealed:{inside}"}, size=None)
    with worker(world, OLD) as runtime:
        run_job(runtime, job_id)
    assert world.has_ended(job_id, JobState.FAILED, "invalid_request")
    assert "C4NARY" not in repr(world.job_row(job_id).as_row())


def test_a_sealed_url_leads_nowhere_that_a_plain_one_may_not(world: World, tmp_path: Path) -> None:
    for inside in ("http://127.0.0.1:1/a", "file:///proc/self/environ"):
        job_id = submit(world.database, arguments={"path": PATH, "source": seal(inside, OLD)}, size=None)
        with world.worker(retry={"max_attempts": 1}) as runtime:
            runtime.sealer = Sealer([OLD])
            run_job(runtime, job_id)
        assert world.has_ended(job_id, JobState.FAILED, "source_not_allowed")


# --- bare tasks ----------------------------------------------------------------------------------------------------


def test_a_bare_task_is_sealed_when_its_row_is_made(world: World, site: Site) -> None:
    chained = {"task": "blobferry.write_stream", "kwargs": {"path": "/b", "source": signed(site)}}
    with worker(world, OLD) as runtime:
        request = Context(id="plain", callbacks=[chained])
        assert make_row(runtime, request, "write_stream", {"path": PATH, "source": signed(site)})
        row = world.job_row("plain")
        assert "C4NARY" not in repr(row.as_row())
        assert row.source == site.url.replace("://", "://***@") + "/a?signature=***"
        message = Message.from_row(row.as_row())
        assert "C4NARY" not in repr(message)
        assert message.arguments["source"] == row.source
        assert runtime.sealer.opened(message.options["link"][0]["kwargs"]["source"]) == signed(site)
        run_job(runtime, "plain")
    assert world.has_ended("plain", JobState.SUCCEEDED)


def test_a_bare_task_that_was_sealed_by_its_app_runs(world: World, site: Site) -> None:
    with worker(world, NEW, OLD) as runtime:
        assert bare(runtime, "sealed", seal(signed(site), OLD))
        assert (world.job_row("sealed").source or "").endswith("/a?signature=***")
        run_job(runtime, "sealed")
    assert world.has_ended("sealed", JobState.SUCCEEDED)


def test_the_same_task_again_is_the_same_job_and_another_is_not(
    world: World, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with worker(world, OLD) as runtime:
        assert bare(runtime, "one", signed(site))
        assert bare(runtime, "one", signed(site))
        assert bare(runtime, "one", seal(signed(site), OLD))
        assert not caplog.records
        assert not bare(runtime, "one", signed(site, "4NOTHER"))
        assert not bare(runtime, "one", seal(signed(site, "4NOTHER"), OLD))
        assert {record.message for record in caplog.records} == {
            "message ignored: its job id exists with other arguments"
        }
    with worker(world, NEW) as runtime:  # it cannot tell; the row is what counts, and the run says what is missing
        assert bare(runtime, "one", signed(site))
    assert "C4NARY" not in caplog.text


def test_the_same_key_is_the_same_job_and_another_source_a_conflict(world: World, site: Site) -> None:
    with worker(world, OLD) as runtime:
        assert bare(runtime, "one", signed(site), idempotency_key="k")
        assert not bare(runtime, "two", signed(site), idempotency_key="k")
        with pytest.raises(ConflictError):
            bare(runtime, "three", signed(site, "4NOTHER"), idempotency_key="k")
    with worker(world) as runtime, pytest.raises(ConfigurationError, match=r"encryption_keys: .*cannot be compared"):
        bare(runtime, "four", signed(site), idempotency_key="k")
    with world.database.begin() as session:
        assert session.connection().exec_driver_sql("SELECT id FROM blobferry_jobs").scalars().all() == ["one"]
