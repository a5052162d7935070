"""The crash matrix of a whole job: its worker dies at every call to the store and at every transaction.

The lease runs out, another worker claims the job, and in the end the rows, the store and the history are right.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from models import Database
from tests.doubles import (
    DeathError,
    Fuse,
    FusedDatabase,
    FusedStore,
    HookedStore,
    RecordingStore,
    When,
    blob,
    unfinished,
)
from tests.jobs.job_world import KEY, OLD, PART, THREADS, World
from tests.models.rows import change, expire_lease, job_row, outcomes, part_rows, uploads
from worker.jobs.outcome import Finished, Rescheduled
from worker.jobs.runner import run_job
from worker.maintenance.caretaker import Caretaker

pytestmark = pytest.mark.no_cover

MOST_CALLS = 200


class Case(World):
    """A job over an old blob or none, and workers that die."""

    def __init__(self, database: Database, directory: Path, *, size: int, old: bytes | None) -> None:
        super().__init__(database, directory, size)
        self.old = old
        if old is not None:
            self.memory.put(KEY, old)
        self.recording = RecordingStore(self.memory)
        self.job_id = self.submit()
        self.torn: list[tuple[str, bytes | None]] = []

    def live(self, fuse: Fuse) -> bool:
        """One worker; True if it did not die."""
        store = FusedStore(self.recording, fuse, key=KEY, allowed={self.old, self.data})
        mortal = FusedDatabase(str(self.database.engine.url), fuse)
        try:
            with self.worker(store, database=mortal) as runtime:
                assert not isinstance(run_job(runtime, self.job_id), Rescheduled)
        except DeathError:
            return False
        finally:
            mortal.close()
            self.torn += store.torn
        return True

    def another_worker_comes(self) -> None:
        """The lease of the dead one is over, if it had one."""
        if job_row(self.database, self.job_id).lease_expires_at is not None:
            expire_lease(self.database, self.job_id)
        if job_row(self.database, self.job_id).state != "succeeded":
            assert isinstance(self.run(self.job_id, self.recording), Finished)

    def assert_all_is_well(self, deaths: int) -> None:
        row = job_row(self.database, self.job_id)
        assert (row.state, row.error_code, row.lease_expires_at) == ("succeeded", None, None)
        assert (row.bytes_done, row.size) == (len(self.data), len(self.data))
        assert row.failures == 0
        assert row.restarts == 0
        assert self.torn == []
        assert blob(self.memory, KEY) == self.data
        assert unfinished(self.memory) == []
        history = outcomes(self.database, self.job_id)
        assert history == ["died"] * row.crashes + ["succeeded"]
        assert row.crashes <= deaths
        assert row.attempt == len(history)
        *lost, last = uploads(self.database, self.job_id)
        assert {upload.state for upload in lost} <= {"gone"}
        assert last.state == "completed"
        if last.part_size:
            assert sum(part.size for part in part_rows(self.database, last.id)) == len(self.data)
        sent = sum(len(call.data or b"") for call in self.recording.named("upload_part"))
        assert sent <= len(self.data) + deaths * THREADS * PART


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "incoming"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("size", "old"), [(7, OLD), (35, None), (35, OLD)], ids=["a put over", "parts", "parts over an old blob"]
)
def test_a_worker_may_die_at_any_call_or_commit(
    size: int, old: bytes | None, when: When, sqlite_database: Database, directory: Path
) -> None:
    for fail_at in range(1, MOST_CALLS):
        case, fuse = Case(sqlite_database, directory, size=size, old=old), Fuse(fail_at, when)
        finished = case.live(fuse)
        assert finished != fuse.blown, fuse.calls
        if not finished:
            case.another_worker_comes()
        case.assert_all_is_well(deaths=not finished)
        if finished:
            assert fail_at > 10
            return
    pytest.fail("it never ends")


def test_five_workers_in_a_row_may_die_each_a_little_later(sqlite_database: Database, directory: Path) -> None:
    for step in (2, 3, 4):
        case = Case(sqlite_database, directory, size=55, old=OLD)
        deaths = 0
        while deaths < 5 and not case.live(Fuse(step * (deaths + 1), "after")):
            deaths += 1
            if job_row(case.database, case.job_id).lease_expires_at is not None:
                expire_lease(case.database, case.job_id)
        assert deaths >= 3
        case.another_worker_comes()
        case.assert_all_is_well(deaths=deaths)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cancelled_job_whose_worker_dies_leaves_no_upload_and_the_old_blob(
    when: When, sqlite_database: Database, directory: Path
) -> None:
    """The caretaker finds in the ledger whatever the dead worker had not aborted yet."""
    for fail_at in range(1, MOST_CALLS):
        case, fuse = Case(sqlite_database, directory, size=35, old=OLD), Fuse(fail_at, when)
        case.recording.store = HookedStore(case.memory, before=cancel_with_the_first_part(case))
        survived = case.live(fuse)
        change(case.database, case.job_id, cancel_requested=True)
        if job_row(case.database, case.job_id).lease_expires_at is not None:
            expire_lease(case.database, case.job_id)
        with case.worker() as runtime:
            Caretaker(runtime, lambda message: True).sweep()
        assert job_row(case.database, case.job_id).state == "cancelled"
        assert blob(case.memory, KEY) == OLD
        assert unfinished(case.memory) == []
        if survived:
            assert fail_at > 10
            return
    pytest.fail("it never ends")


def cancel_with_the_first_part(case: Case) -> Callable[[str], None]:
    """Somebody cancels the job while its first part is on its way; the row then refuses the point of no return."""

    def cancel(verb: str) -> None:
        if verb == "upload_part":
            change(case.database, case.job_id, cancel_requested=True)

    return cancel
