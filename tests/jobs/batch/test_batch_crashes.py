"""The crash matrix of batches: the worker dies at every call to the store and at every transaction.

The leases run out, other workers take the jobs, and in the end rows, history, ledger and store are right for each.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from models import Database
from tests.doubles import DeathError, Fuse, FusedDatabase, MortalStore, RecordingStore, When, unfinished
from tests.jobs.batch.batch_world import BatchWorld
from tests.jobs.job_world import OLD, PART, THREADS
from worker.jobs.outcome import Finished

pytestmark = pytest.mark.no_cover

MOST_CALLS = 200
JOBS = 3


#: With "large", the last file is one that is handed back and runs alone, in parts.
on_all_kinds = pytest.mark.parametrize("kind", ["contents", "files", "large"], indirect=True)


class Scene(BatchWorld):
    """Three small jobs, of which the second replaces a blob, and the workers that die with them."""

    def __init__(self, safe: Database, mortal: FusedDatabase, directory: Path, kind: str) -> None:
        super().__init__(safe, directory, of_files=kind != "contents")
        self.written = [f"job {number}".encode() for number in range(JOBS)]
        if kind == "large":
            self.written[-1] = bytes(11)
        self.mortal = mortal
        self.torn: list[object] = []
        self.memory.put("small/1", OLD)
        self.recording = RecordingStore(self.memory)
        self.jobs = [self.small(number, contents) for number, contents in enumerate(self.written)]

    def look(self, verb: str) -> None:
        """What a reader sees after each call must be the old blob or the new one."""
        for number in range(JOBS):
            allowed = (OLD if number == 1 else None, self.written[number])
            if (seen := self.seen_at(number)) not in allowed:
                self.torn.append(seen)

    def live(self, fuse: Fuse) -> bool:
        """One worker gets the messages of all jobs that have not ended; True if it did not die."""
        self.mortal._fuse = fuse
        try:
            with self.worker(MortalStore(self.recording, fuse, self.look), database=self.mortal) as runtime:
                for job_id in self.jobs:
                    outcome = self.deliver(runtime, job_id)
                    assert not isinstance(outcome, Finished) or outcome.error is None, outcome
        except DeathError:
            return False
        return True

    def leases_run_out(self) -> None:
        for job_id in self.jobs:
            if self.job_row(job_id).lease_expires_at is not None:
                self.expire_lease(job_id)

    def assert_all_is_well(self, deaths: int) -> None:
        assert self.torn == []
        for number, job_id in enumerate(self.jobs):
            row = self.job_row(job_id)
            assert (row.state, row.phase, row.error_code, row.lease_expires_at) == ("succeeded", None, None, None)
            assert (row.failures, row.restarts) == (0, 0)
            history = self.outcomes(job_id)
            assert history == ["died"] * row.crashes + ["succeeded"]
            assert (row.attempt, row.crashes <= deaths) == (len(history), True)
            size = len(self.written[number])
            assert (self.seen_at(number), row.size, row.bytes_done) == (self.written[number], size, size)
            upload = self.uploads(job_id)[-1]
            assert (upload.state, upload.key) == ("completed", f"small/{number}")
            assert size > PART or len(self.uploads(job_id)) == 1
        assert self.count_rows("blobferry_path_locks") == 0
        assert unfinished(self.memory) == []
        assert len(self.recording.named("put")) <= JOBS + deaths * THREADS


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path, kind: str) -> Iterator[Callable[[], Scene]]:
    """Makes a scene, each in a directory of its own."""
    numbers, mortal = count(), FusedDatabase(str(sqlite_database.engine.url), Fuse())
    yield lambda: Scene(sqlite_database, mortal, tmp_path / str(next(numbers)), kind)
    mortal.close()


@on_all_kinds
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_worker_of_a_batch_may_die_at_any_call_or_commit(when: When, scene: Callable[[], Scene]) -> None:
    for fail_at in range(1, MOST_CALLS):
        case, fuse = scene(), Fuse(fail_at, when)
        finished = case.live(fuse)
        assert finished != fuse.blown, fuse.calls
        if not finished:
            case.leases_run_out()
            assert case.live(Fuse())
        case.assert_all_is_well(deaths=not finished)
        if finished:
            assert fail_at > 3 * JOBS + 3
            return
    pytest.fail("it never ends")


@pytest.mark.parametrize("kind", ["contents", pytest.param("files", marks=pytest.mark.long), "large"], indirect=True)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_second_worker_of_a_batch_may_die_as_well(when: When, scene: Callable[[], Scene]) -> None:
    """Wherever the first one dies, the second one does after one call, six, eleven …, so that all distances occur."""
    for fail_at in range(1, MOST_CALLS):
        case = scene()
        if case.live(Fuse(fail_at, when)):
            assert fail_at > 3 * JOBS + 3
            return
        case.leases_run_out()
        finished = case.live(Fuse(1 + fail_at * 5 % 17, "after" if fail_at % 2 else "before"))
        if not finished:
            case.leases_run_out()
            assert case.live(Fuse())
        case.assert_all_is_well(deaths=1 if finished else 2)
    pytest.fail("it never ends")
