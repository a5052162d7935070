"""What one worker lacks fails no job that another one can run, and a worker that lacks it leaves jobs to others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from blobferry import seal
from blobferry.contract import JobState
from blobferry.jobs.job_reader import JobReader
from blobferry.jobs.needs import LACKING_FOR, STOP_AFTER
from blobferry.sealing import Sealer
from models import LackRow, queries
from tests.doubles import FaultyStore, HookedStore, RecordingStore, blob
from tests.jobs.job_world import KEY, PATH, World
from tests.models.rows import ago
from tests.transfer.sources.http.http_site import serving
from worker.errors import (
    BucketNotFoundError,
    CredentialsError,
    DeleteIncompleteError,
    InvalidStoreRequestError,
    PermissionDeniedError,
    StoreError,
)
from worker.jobs.outcome import Finished, LeftToOthers, Outcome, Rescheduled
from worker.jobs.runner import run_job
from worker.runtime import Runtime
from worker.stores.store import Store

BARE, WHOLE = "bare@pod-1:7", "whole@pod-2:7"  #: the names of a process of two workers


@contextmanager
def worker(world: World, name: str, store: Store | None = None, **sections: Any) -> Iterator[Runtime]:
    """One of two workers."""
    with world.worker(store, **sections) as runtime:
        runtime.worker = name
        yield runtime


def run(world: World, name: str, job_id: str, store: Store | None = None, **sections: Any) -> Outcome:
    with worker(world, name, store, **sections) as runtime:
        return run_job(runtime, job_id)


def live(world: World, *names: str, seconds: float = 60) -> None:
    """Their caretakers report them as alive."""
    with world.database.begin() as session:
        for name in names:
            queries.report_alive(session, name.partition("@")[0], name.rpartition(":")[0], seconds)


def refusing(world: World, error: type[StoreError]) -> Store:
    """The store as a worker with wrong credentials, or a wrong bucket, finds it."""

    def refuse(called: str) -> None:
        raise error("refused")

    return HookedStore(world.memory, before=refuse)


def lacks(world: World) -> list[tuple[str, str, int]]:
    with world.database.begin() as session:
        return [(row.worker, row.need, row.times) for row in session.query(LackRow).order_by(LackRow.need)]


OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "private addresses": {"http_allow_private": False},
    "a refused network": {"http_refuse": ("127.0.0.0/8",)},
    "the port of the site": {},
    "a smaller limit": {"http_max_size": 5},
    "no file of authorities": {"http_ca_file": "/nowhere/ca.pem"},
}


@pytest.mark.parametrize("lacking", OF_ITS_OWN)
@pytest.mark.parametrize("is_sealed", [False, True], ids=["plain", "sealed"])
def test_a_worker_whose_settings_refuse_an_http_source_fails_no_job(
    lacking: str, is_sealed: bool, world: World
) -> None:
    live(world, BARE, WHOLE)
    sealer = Sealer([Fernet.generate_key().decode()])
    allowed = {"http_allow_private": True}
    with serving(world.data) as site:
        host = site.url.removeprefix("http://")
        own = OF_ITS_OWN[lacking] or {"http_refuse_ports": (int(host.partition(":")[2]),)}
        url = f"http://user:secret@{host}/7.mp4" if is_sealed else f"{site.url}/7.mp4"
        job_id = world.submit(arguments={"source": url}, sealer=sealer)
        with worker(world, BARE, sources={**allowed, **own}) as runtime:
            runtime.sealer = sealer
            assert isinstance(run_job(runtime, job_id), Rescheduled)
        assert lacks(world) == [("bare", f"source {host}", 1)]
        world.change(job_id, run_at=ago(1))
        with worker(world, WHOLE, sources=allowed) as runtime:
            runtime.sealer = sealer
            run_job(runtime, job_id)
    assert world.has_ended(job_id, JobState.SUCCEEDED)


# --- the job goes on elsewhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [PermissionDeniedError, CredentialsError, BucketNotFoundError, InvalidStoreRequestError]
)
def test_a_store_that_refuses_this_worker_everything_fails_no_job(error: type[StoreError], world: World) -> None:
    job_id = world.submit()
    assert isinstance(run(world, BARE, job_id, refusing(world, error)), Rescheduled)
    assert world.job_row(job_id).state == "retrying"
    assert lacks(world) == [("bare", "storages.default", 1)]
    world.change(job_id, run_at=ago(1))
    assert isinstance(run(world, WHOLE, job_id), Finished)
    assert world.has_ended(job_id, JobState.SUCCEEDED)
    assert blob(world.memory, KEY) == world.data


def missing_root(world: World) -> dict[str, Any]:
    return {"sources": {"file_roots": (world.file.parent / "elsewhere",)}}


def without_mount(world: World) -> dict[str, Any]:
    """The root is not there. The file is moved away, and back by ``mounted``."""
    world.file.parent.rename(world.file.parent.with_suffix(".away"))
    return {}


def mounted(world: World) -> None:
    away = world.file.parent.with_suffix(".away")
    if away.exists():
        away.rename(world.file.parent)


@pytest.mark.parametrize("lacking", [missing_root, without_mount])
def test_a_worker_without_the_root_of_a_file_fails_no_job(
    lacking: Callable[[World], dict[str, Any]], world: World
) -> None:
    job_id = world.submit()
    outcome = run(world, BARE, job_id, **lacking(world))
    mounted(world)
    assert isinstance(outcome, Rescheduled)
    assert [need.startswith("directory ") for _, need, _ in lacks(world)] == [True]
    world.change(job_id, run_at=ago(1))
    assert isinstance(run(world, WHOLE, job_id), Finished)
    assert blob(world.memory, KEY) == world.data


@pytest.mark.parametrize("lacking", [missing_root, without_mount])
def test_a_worker_without_the_root_of_a_destination_fails_no_job(
    lacking: Callable[[World], dict[str, Any]], world: World
) -> None:
    world.memory.put(KEY, world.data)
    dest = world.file.parent / "read.mp4"
    job_id = world.ask("read_stream", path=PATH, dest=dest.as_uri())
    outcome = run(world, BARE, job_id, **lacking(world))
    mounted(world)
    assert isinstance(outcome, Rescheduled)
    world.change(job_id, run_at=ago(1))
    assert isinstance(run(world, WHOLE, job_id), Finished)
    assert dest.read_bytes() == world.data


def test_an_unknown_storage_fails_no_job_of_those_that_have_it(world: World) -> None:
    for operation, arguments in (
        ("write_stream", {"path": PATH, "source": world.file.as_uri(), "storage": "cold"}),
        ("move", {"source_path": PATH, "dest_path": "/b", "dest_storage": "cold"}),
        ("write_stream", {"path": "/c", "source": f"blob://cold{PATH}"}),
        ("delete", {"path": "/b", "storage": "cold"}),
    ):
        world.memory.put(KEY, world.data)
        job_id = world.ask(operation, **arguments)
        with worker(world, BARE) as runtime:
            runtime._drivers = {"default": runtime.driver("default")}
            assert isinstance(run_job(runtime, job_id), Rescheduled)
        assert ("bare", "storages.cold", 1) in lacks(world)
        world.change(job_id, run_at=ago(1))
        run(world, WHOLE, job_id)
        assert world.job_row(job_id).state == "succeeded", operation
        with world.database.begin() as session:
            queries.report_ended(session, "bare")


def test_a_worker_without_the_key_of_a_sealed_source_fails_no_job(world: World) -> None:
    key = Fernet.generate_key().decode()
    job_id = world.submit(arguments={"source": seal(world.file.as_uri(), key)})
    assert isinstance(run(world, BARE, job_id), Rescheduled)
    assert lacks(world) == [("bare", "encryption_keys", 1)]
    world.change(job_id, run_at=ago(1))
    with worker(world, WHOLE) as runtime:
        runtime.sealer = Sealer([key])
        assert isinstance(run_job(runtime, job_id), Finished)
    assert blob(world.memory, KEY) == world.data


def test_if_no_worker_can_the_job_fails_after_its_retries_with_that_reason(world: World) -> None:
    job_id = world.submit(arguments={"storage": "archive"})
    live(world, BARE, WHOLE)
    runs = 0
    while world.job_row(job_id).state != "failed":
        outcome = run(world, (BARE, WHOLE)[runs % 2], job_id, retry={"max_attempts": 3})
        runs += 1
        assert runs < 10
        if not isinstance(outcome, LeftToOthers | Finished):
            assert world.job_row(job_id).failures == runs
        if not isinstance(outcome, Finished):
            world.change(job_id, run_at=ago(1))
    assert world.has_ended(job_id, JobState.FAILED, "configuration")
    assert "storages.archive" in str(world.job_row(job_id).error_message)
    assert runs == 3


def test_each_living_worker_has_a_try_even_if_retries_are_off(world: World) -> None:
    job_id = world.submit()
    live(world, BARE, WHOLE)
    assert isinstance(
        run(world, BARE, job_id, refusing(world, PermissionDeniedError), retry={"max_attempts": 1}), Rescheduled
    )
    world.change(job_id, run_at=ago(1))
    assert isinstance(run(world, WHOLE, job_id, retry={"max_attempts": 1}), Finished)
    assert world.job_row(job_id).state == "succeeded"


# --- what may be the job's own fault ---------------------------------------------------------------------------------


def only_reads(world: World) -> Store:
    """The store as credentials find it that may only read."""
    verbs = ("put", "create_upload", "upload_part", "copy", "copy_part", "complete_upload", "delete_batch")
    return FaultyStore(world.memory, *verbs, times=1_000, error=lambda: PermissionDeniedError("AccessDenied"))


def test_one_refused_request_fails_the_job_once_every_living_worker_has_met_it(world: World) -> None:
    job_id = world.submit()
    live(world, BARE, WHOLE)
    assert isinstance(run(world, BARE, job_id, only_reads(world)), Rescheduled)
    world.change(job_id, run_at=ago(1))
    outcome = run(world, WHOLE, job_id, only_reads(world))
    assert isinstance(outcome, Finished)
    assert isinstance(outcome.error, PermissionDeniedError)
    assert world.has_ended(job_id, JobState.FAILED, "permission_denied")


def test_a_refused_delete_of_every_key_is_tried_on_another_worker(world: World) -> None:
    world.memory.put(KEY, world.data)
    job_id = world.ask("delete", path=PATH)
    live(world, BARE, WHOLE)

    def incomplete() -> DeleteIncompleteError:
        return DeleteIncompleteError(PATH, [[PATH, "AccessDenied"]])

    assert isinstance(
        run(world, BARE, job_id, FaultyStore(world.memory, "delete_batch", error=incomplete)), Rescheduled
    )
    world.change(job_id, run_at=ago(1))
    run(world, WHOLE, job_id)
    assert world.has_ended(job_id, JobState.SUCCEEDED)


def test_a_file_missing_in_an_empty_directory_is_looked_for_by_every_living_worker(world: World) -> None:
    job_id = world.submit()
    live(world, BARE, WHOLE)
    world.file.unlink()
    assert isinstance(run(world, BARE, job_id), Rescheduled)
    world.file.write_bytes(world.data)
    world.change(job_id, run_at=ago(1))
    run(world, WHOLE, job_id)
    assert blob(world.memory, KEY) == world.data


def test_a_file_missing_beside_others_fails_the_job_at_once(world: World) -> None:
    (world.file.parent / "another").write_bytes(b"")
    job_id = world.submit()
    live(world, BARE, WHOLE)
    world.file.unlink()
    assert isinstance(run(world, BARE, job_id), Finished)
    assert world.has_ended(job_id, JobState.FAILED, "source_not_found")


# --- a worker leaves jobs to others ----------------------------------------------------------------------------------


def met(world: World, times: int) -> None:
    """The bare worker has met it with so many jobs in a row."""
    for _ in range(times):
        job_id = world.submit(arguments={"path": f"/met/{uuid4().hex}"})
        assert isinstance(run(world, BARE, job_id, refusing(world, PermissionDeniedError)), Rescheduled)


def test_a_worker_that_meets_it_again_and_again_leaves_the_next_jobs_to_others(world: World) -> None:
    live(world, BARE, WHOLE)
    met(world, STOP_AFTER)
    job_id, recording = world.submit(), RecordingStore(world.memory)
    outcome = run(world, BARE, job_id, recording)
    assert isinstance(outcome, LeftToOthers)
    assert "storages.default" in outcome.reason
    assert recording.calls == []
    row = world.job_row(job_id)
    assert (row.state, row.attempt, row.failures, row.token) == ("queued", 0, 0, 0)
    assert row.run_at is not None
    world.change(job_id, run_at=ago(1))
    assert isinstance(run(world, WHOLE, job_id), Finished)


def test_a_job_that_failed_for_want_of_it_is_left_to_others_from_the_first_time(world: World) -> None:
    live(world, BARE, WHOLE)
    job_id = world.submit()
    run(world, BARE, job_id, refusing(world, PermissionDeniedError))
    world.change(job_id, run_at=ago(1))
    assert isinstance(run(world, BARE, job_id), LeftToOthers)
    assert world.job_row(job_id).failures == 1


def test_a_file_whose_url_is_sealed_is_left_to_those_that_have_its_directory(world: World) -> None:
    live(world, BARE, WHOLE)
    sealer = Sealer([Fernet.generate_key().decode()])
    job_id = world.submit(arguments={"source": sealer.sealed(world.file.as_uri())}, sealer=sealer)

    def run_sealed(name: str, **sections: Any) -> Outcome:
        with worker(world, name, **sections) as runtime:
            runtime.sealer = sealer
            return run_job(runtime, job_id)

    assert isinstance(run_sealed(BARE, **missing_root(world)), Rescheduled)
    world.change(job_id, run_at=ago(1))
    assert isinstance(run_sealed(BARE, **missing_root(world)), LeftToOthers)
    world.change(job_id, run_at=ago(1))
    assert isinstance(run_sealed(WHOLE), Finished)
    assert world.job_row(job_id).failures == 1


@pytest.mark.parametrize("others", [(), ("dead",), ("lacking",)])
def test_a_worker_takes_the_jobs_if_no_other_can(others: tuple[str, ...], world: World) -> None:
    live(world, BARE)
    if "dead" in others:
        live(world, WHOLE, seconds=-1)
    met(world, STOP_AFTER)
    if "lacking" in others:
        live(world, WHOLE)
        with world.database.begin() as session:
            queries.note_lack(session, "whole", "whole@pod-2", "storages.default", "refused")
    job_id = world.submit()
    assert isinstance(run(world, BARE, job_id), Finished)


def test_the_reason_is_kept_without_what_no_column_takes(world: World) -> None:
    with world.database.begin() as session:
        queries.note_lack(session, "bare", "bare@pod-1", "storages.default", "refused:\0\x1b[2J")
    with world.database.begin() as session:
        assert session.scalars(select(LackRow.reason)).one() == "refused:\\x00\\x1b[2J"


def test_jobs_that_do_not_need_it_are_taken(world: World) -> None:
    live(world, BARE, WHOLE)
    met(world, STOP_AFTER)
    job_id = world.submit(arguments={"storage": "cold"})
    assert isinstance(run(world, BARE, job_id), Finished)
    assert blob(world.cold, KEY) == world.data


def test_a_success_and_time_end_it(world: World) -> None:
    live(world, BARE, WHOLE)
    met(world, STOP_AFTER - 1)
    run(world, BARE, world.submit())
    assert lacks(world) == []
    met(world, STOP_AFTER)
    with world.database.begin() as session:
        session.query(LackRow).update({"met_at": ago(LACKING_FOR + 1)})
    assert isinstance(run(world, BARE, world.submit(arguments={"path": "/later"})), Finished)


def test_status_names_the_worker_and_what_it_lacks(world: World) -> None:
    live(world, BARE, WHOLE)
    met(world, STOP_AFTER)
    (said,) = JobReader(world.database.engine).situation(world.submit()).lacks
    assert said == "bare@pod-1 takes no jobs that need storages.default: refused"
    assert JobReader(world.database.engine).situation(world.submit(arguments={"storage": "cold"})).lacks == ()


def test_a_worker_that_leaves_jobs_to_others_says_so_in_its_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    live(world, BARE, WHOLE)
    met(world, STOP_AFTER)
    (record,) = [record for record in caplog.records if "lacks what jobs need" in record.message]
    assert (record.levelname, record.lacks, record.others) == ("ERROR", "storages.default", 1)  # type: ignore[attr-defined]


def test_a_driver_that_cannot_list_is_not_taken_for_one_that_refuses_everything(world: World) -> None:
    """A role without the right to list may still read and write."""
    denied = FaultyStore(
        world.memory, "list_page", "create_upload", times=99, error=lambda: PermissionDeniedError("AccessDenied")
    )
    job_id = world.submit()
    assert isinstance(run(world, BARE, job_id, denied), Finished)
    assert world.has_ended(job_id, JobState.FAILED, "permission_denied")
