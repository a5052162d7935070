"""Small files in a batch: what is odd about one concerns its job alone, which ends as an ordinary run ends it."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from blobferry import seal
from blobferry.checks.arguments import MAX_OFFSET
from blobferry.sealing import Sealer
from models import ClaimedJob
from models.queries import BatchedJob
from tests.doubles import DeathError
from tests.jobs.batch.batch_world import BatchWorld, Told
from tests.jobs.batch.test_leaving_the_lane import MEMBERS, AtKey
from tests.jobs.job_world import on_each_database
from tests.models.rows import submit
from tests.transfer.sources.hanging_mount import mounted
from worker.jobs.batch import batch_sources, small_job
from worker.jobs.job_claim import claim
from worker.jobs.outcome import Finished, Rescheduled
from worker.jobs.runner import run_job
from worker.stores.store import Store

BIG = bytes(11)  #: more than one put of this world


@pytest.fixture
def kind() -> str:
    return "files"


class Meanwhile(Told):
    """Lets something happen right after the claim."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self._do = do

    def claimed(self, jobs: Sequence[BatchedJob]) -> None:
        super().claimed(jobs)
        self._do()


def run_with(
    world: BatchWorld, jobs: list[str], number: int, do: Callable[[Path], object], store: Store | None = None
) -> Any:
    """The outcome of one member whose file something happens to after the claim. All others have succeeded."""
    told = Meanwhile(lambda: do(world.source(number)))
    with world.worker(store) as runtime:
        first = world.deliver(runtime, jobs[0], told)
    assert told.jobs == jobs[1:]
    outcomes = {jobs[0]: first, **told.others}
    outcome = outcomes.pop(jobs[number])
    assert {type(found) for found in outcomes.values()} == {Finished}
    assert [getattr(found, "error", None) for found in outcomes.values()] == [None] * 3
    return outcome


def become(what: str) -> Callable[[Path], object]:
    def change(file: Path) -> None:
        file.unlink()
        if what == "a directory":
            file.mkdir()
        elif what == "a FIFO":
            os.mkfifo(file)

    return change


ODD = {
    "nothing": ("source_not_found", "no such file"),
    "a directory": ("source_not_allowed", "a directory"),
    "a FIFO": ("source_not_allowed", "a FIFO"),
}


@on_each_database
@MEMBERS
@pytest.mark.parametrize("what", ODD)
def test_a_file_that_has_become_something_else_fails_its_job(what: str, number: int, world: BatchWorld) -> None:
    jobs, (code, message) = world.some(4), ODD[what]
    outcome = run_with(world, jobs, number, become(what))
    assert outcome.error.code == code
    assert message in world.job_row(jobs[number]).error_message
    assert (world.seen_at(number), world.outcomes(jobs[number])) == (None, ["failed"])


@MEMBERS
def test_a_file_that_is_a_link_out_of_the_roots_fails_its_job(number: int, world: BatchWorld) -> None:
    outside = world.file.parent.parent / "outside"
    outside.write_bytes(b"secret")

    def link(file: Path) -> None:
        file.unlink()
        file.symlink_to(outside)

    jobs = world.some(4)
    outcome = run_with(world, jobs, number, link)
    assert isinstance(outcome, Finished | Rescheduled), "it may be allowed on another worker"
    assert world.job_row(jobs[number]).error_code == "source_not_allowed"
    assert world.seen_at(number) is None


@MEMBERS
@pytest.mark.parametrize("data", [b"", b"job", b"job 0 more"], ids=["emptied", "shrunk", "grown"])
def test_a_file_that_changes_before_it_is_read_is_written_as_it_is_then(
    data: bytes, number: int, world: BatchWorld
) -> None:
    jobs = world.some(4)
    outcome = run_with(world, jobs, number, lambda file: file.write_bytes(data))
    assert (outcome.error, world.seen_at(number)) == (None, data)
    assert world.job_row(jobs[number]).size == len(data)


@MEMBERS
@pytest.mark.parametrize("how", ["removed", "replaced", "rewritten"])
def test_a_file_that_changes_after_it_was_read_is_written_as_it_was(how: str, number: int, world: BatchWorld) -> None:
    jobs, file = world.some(4), world.source(number)

    def change() -> None:
        if how != "rewritten":
            file.unlink()
        if how != "removed":
            file.write_bytes(b"another")

    store = AtKey(world.memory, "put", f"small/{number}", change)
    assert run_with(world, jobs, number, lambda file: None, store).error is None
    world.assert_done(jobs)


def test_a_job_that_died_past_the_point_of_no_return_knows_its_file_again(world: BatchWorld) -> None:
    """Its row has the fingerprint: other bytes are refused, and nothing is sent of them."""
    jobs = world.some(3)
    with pytest.raises(DeathError), world.worker(world.dying("put", number=2)) as runtime:
        world.deliver(runtime, jobs[0])
    assert [world.job_row(job_id).phase for job_id in jobs] == ["completing"] * 3
    for job_id in jobs:
        world.expire_lease(job_id)
    left = [number for number in range(3) if world.seen_at(number) is None]
    assert left
    for number in left:
        world.source(number).write_bytes(b"another")
        world.change(jobs[number], run_at=None)
        world.fail(jobs[number], "source_changed")
        assert world.seen_at(number) is None


# --- offsets ----------------------------------------------------------------------------------------------------------


@on_each_database
@pytest.mark.parametrize("offset", [1, 2**31, MAX_OFFSET - 1])
def test_a_file_that_is_written_at_an_offset_is_claimed_alone_whatever_the_offset(
    offset: int, world: BatchWorld
) -> None:
    jobs = [world.small(0), world.small(1, offset=offset), world.small(2)]
    assert world.run_batch(jobs[0]).jobs == [jobs[2]]
    with world.worker() as runtime:
        _, claimed = claim(runtime, jobs[1], None, world.source(1).as_uri())
    assert isinstance(claimed, ClaimedJob)


# --- sources that are sealed ------------------------------------------------------------------------------------------

KEYS = [Fernet.generate_key().decode() for _ in range(2)]


def sealed(world: BatchWorld, number: int) -> str:
    """A job whose client had the key, so that its row shows the file."""
    file = world.file.with_name(f"sealed-{number}")
    file.write_bytes(f"job {number}".encode())
    source = {"path": f"/small/{number}", "source": seal(file.as_uri(), KEYS[0])}
    return submit(world.database, arguments=source, size=None, sealer=Sealer(KEYS[:1]))


@on_each_database
def test_files_whose_urls_are_sealed_are_written_like_any_others(world: BatchWorld) -> None:
    jobs = [sealed(world, number) for number in range(3)]
    row, told = world.job_row(jobs[0]), Told()
    with world.worker() as runtime:
        runtime.sealer = Sealer(KEYS[:1])
        run_job(runtime, jobs[0], source=row.source, reporter=told)
    assert told.succeeded == {*jobs[1:]}
    world.assert_done(jobs)


def test_a_sealed_url_without_its_key_concerns_its_job_alone(world: BatchWorld) -> None:
    jobs, told = [world.small(0), sealed(world, 1)], Told()
    with world.worker() as runtime:
        runtime.sealer = Sealer(KEYS[1:])
        world.deliver(runtime, jobs[0], told)
    assert told.jobs == jobs[1:]
    assert (world.seen_at(0), world.seen_at(1)) == (b"job 0", None)
    row = world.job_row(jobs[1])
    assert (row.state, row.error_code) == ("retrying", "configuration"), "another worker may have the key"


# --- files that are not small ----------------------------------------------------------------------------------------


@on_each_database
def test_a_large_file_is_handed_back_at_once_and_then_runs_alone(world: BatchWorld) -> None:
    jobs = [*world.some(2), world.small(2, BIG), world.small(3), world.small(2, b"later", path="/small/2")]
    told = world.run_batch(jobs[0])
    assert told.jobs == jobs[1:4]
    assert isinstance(told.others[jobs[2]], Rescheduled)
    row = world.job_row(jobs[2])
    assert (row.state, row.phase, row.attempt, row.run_at, row.published_at) == ("queued", None, 1, None, None)
    assert (row.worker, row.lease_expires_at, row.failures, row.crashes) == (None, None, 0, 0)
    assert (world.outcomes(jobs[2]), world.uploads(jobs[2])) == ([None], [])
    again = world.small(5)
    assert world.run_batch(again).jobs == [], "neither is taken along, the later one as its path is held"
    world.succeed_alone(jobs[2])
    assert (world.seen_at(2), world.outcomes(jobs[2])) == (BIG, ["succeeded"])
    assert world.job_row(jobs[2]).attempt == 1


def test_a_file_of_the_message_that_has_grown_since_the_look_is_gone_on_with(world: BatchWorld) -> None:
    jobs = world.some(4)
    outcome = run_with(world, jobs, 0, lambda file: file.write_bytes(BIG))
    assert (outcome.error, world.seen_at(0)) == (None, BIG)
    assert world.job_row(jobs[0]).attempt == 1


@pytest.mark.parametrize("size", [10, 11])
def test_a_message_that_names_a_large_file_takes_no_others_along(size: int, world: BatchWorld) -> None:
    jobs = [world.small(0, bytes(size)), world.small(1)]
    told = Told()
    with world.worker() as runtime:
        world.deliver(runtime, jobs[0], told, number=0)
    assert told.jobs == (jobs[1:] if size == 10 else [])
    assert world.seen_at(0) == bytes(size)


def test_a_message_that_does_not_name_its_file_takes_no_others_along(world: BatchWorld) -> None:
    jobs, told = world.some(2), Told()
    with world.worker() as runtime:
        assert isinstance(run_job(runtime, jobs[0], reporter=told), Finished)
    assert (told.jobs, world.seen_at(0)) == ([], b"job 0")


def test_the_files_of_a_batch_are_at_most_eight_mebibytes_together(world: BatchWorld) -> None:
    world.part_size = 1 << 30
    for count in (1, 7, 32, 1000):
        with world.worker(transfer={"batch_jobs": count}) as runtime:
            assert 0 <= small_job.MOST_BYTES - count * small_job.largest_file(runtime) < count
    world.part_size = 10
    with world.worker() as runtime:
        assert small_job.largest_file(runtime) == 10


def test_a_file_whose_status_does_not_tell_its_size_is_handed_back(world: BatchWorld) -> None:
    """It is kept in a spool first, whose end nobody knows."""
    jobs = [*world.some(2), world.ask("write_stream", path="/small/2", source="file:///proc/version")]
    roots = {"file_roots": (world.file.parent, Path("/proc"))}
    told = world.run_batch(jobs[0], sources=roots)
    assert isinstance(told.others[jobs[2]], Rescheduled)
    world.succeed(jobs[2], sources=roots)
    assert world.seen_at(2) == Path("/proc/version").read_bytes()


def test_a_run_that_has_lost_a_job_does_not_hand_it_back(world: BatchWorld) -> None:
    jobs = [*world.some(2), world.small(2, BIG)]
    told = Meanwhile(lambda: world.taken_over(jobs[2]))
    with world.worker() as runtime:
        world.deliver(runtime, jobs[0], told)
    row = world.job_row(jobs[2])
    assert (row.state, row.worker) == ("running", "host:2")
    assert row.lease_expires_at is not None


# --- files that hang -------------------------------------------------------------------------------------------------


@pytest.fixture
def hanging(world: BatchWorld) -> Iterator[threading.Event]:
    """A mount below the world's directory, and what makes it hang."""
    directory = world.file.parent / "mount"
    directory.mkdir()
    with mounted(directory, b"mounted") as mount:
        yield mount.hangs
        mount.released.set()


def test_a_mount_that_hangs_concerns_only_jobs_of_its_files(hanging: threading.Event, world: BatchWorld) -> None:
    jobs = world.some(2)
    jobs.append(world.ask("write_stream", path="/small/2", source=(world.file.parent / "mount/file").as_uri()))
    hanging.set()
    told = world.run_batch(jobs[0])
    assert told.succeeded == {jobs[1]}
    assert isinstance(told.first, Finished)
    assert isinstance(told.others[jobs[2]], Rescheduled)
    assert world.job_row(jobs[2]).state == "queued"
    assert batch_sources.READING <= 2.0, "so long the others may have waited for their last write"


def test_a_mount_that_hangs_holds_up_no_batch_with_a_job_that_is_to_remove_its_file(
    hanging: threading.Event, world: BatchWorld
) -> None:
    jobs, root = world.some(2), world.file.parent / "mount"
    of_mount = {"path": "/small/2", "source": (root / "file").as_uri()}
    jobs.append(submit(world.database, arguments=of_mount, size=None, removes_source=True))
    hanging.set()
    told = list[Told]()
    sections: dict[str, Any] = {"sources": {"file_roots": (world.file.parent,), "delete_roots": (root,)}}
    run = threading.Thread(target=lambda: told.append(world.run_batch(jobs[0], **sections)), daemon=True)
    run.start()
    run.join(30)
    assert told, "its directory does not answer either"
    assert told[0].succeeded == {jobs[1]}
    assert isinstance(told[0].others[jobs[2]], Rescheduled)
