"""The crash matrix of all operations: the worker dies at every call to a store and at every transaction.

The lease runs out, another worker takes the job, and in the end rows, stores and files are right. At no moment does a
reader see anything but the old blob or file or the whole new one, and what is moved is always somewhere.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from models import Database
from tests.doubles import (
    DeathError,
    Fuse,
    FusedDatabase,
    MortalStore,
    RecordingStore,
    When,
    blob,
    unfinished,
)
from tests.jobs.job_world import KEY, OLD, PART, PATH, THREADS, PagedStore, World
from worker.jobs.outcome import Cancelled, Finished
from worker.jobs.runner import run_job
from worker.stores.blob_values import Limits

pytestmark = pytest.mark.no_cover

MOST_CALLS = 200
FROM, SOURCE = "incoming/7.mp4", "/incoming/7.mp4"


@dataclass(frozen=True, slots=True)
class Databases:
    """One database, as it is and as a process that may die in any transaction has it. Made once: compiling is slow."""

    safe: Database
    mortal: FusedDatabase


class Scene(World):
    """One job of some operation, the workers that die with it, and what all of them asked of the stores."""

    operation = "write_stream"
    #: What no run does again once a row says that it was done: verbs that carry a part.
    partwise: tuple[str, ...] = ("upload_part", "copy_part")

    def __init__(self, databases: "Databases", directory: Path, *, size: int = 35, old: bytes | None = OLD) -> None:
        super().__init__(databases.safe, directory, size)
        self.mortal = databases.mortal
        self.old = old
        self.torn: list[object] = []
        self.again: list[int] = []
        self.prepare()
        self.recording, self.cold_recording = RecordingStore(self.memory), RecordingStore(self.cold)
        self.job_id = self.ask(self.operation, **self.arguments())

    # --- what each operation says ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """What is there before."""
        if self.old is not None:
            self.memory.put(KEY, self.old)

    def arguments(self) -> dict[str, Any]:
        return {"path": PATH, "source": self.file.as_uri()}

    def expected(self) -> bytes:
        return self.data

    def everything(self) -> tuple[bytes | None, set[str], set[str]]:
        """What is seen, and the names of all blobs and files."""
        return self.seen(), set(self.memory._index.blobs), set(os.listdir(self.file.parent))

    def is_fine(self) -> bool:
        """Whether readers may see what they see now."""
        return self.seen() in (self.old, self.expected())

    def is_done(self) -> bool:
        return bool(self.seen() == self.expected())

    # --- lives -------------------------------------------------------------------------------------------------------

    def look(self, verb: str = "") -> None:
        if not self.is_fine():
            self.torn.append(self.seen())

    def live(self, fuse: Fuse) -> bool:
        """One worker; True if it did not die."""
        recorded = self.recorded()
        stores = RecordingStore(self.recording), RecordingStore(self.cold_recording)
        self.mortal._fuse = fuse
        try:
            first, second = (MortalStore(store, fuse, self.look) for store in stores)
            with self.worker(first, cold=second, database=self.mortal) as runtime:
                outcome = run_job(runtime, self.job_id)
                assert isinstance(outcome, Finished), outcome
                assert outcome.error is None, outcome
        except DeathError:
            return False
        finally:
            self.again += [number for store in stores for number in self.parts_of(store) if number in recorded]
        return True

    def is_cancelled_while(self, verb: str, fuse: Fuse) -> bool:
        """One worker; somebody cancels the job while its first part is on its way. True if it did not die."""
        cancelling = self.requesting(self.job_id, verb, is_noticed=False)
        self.mortal._fuse = fuse
        try:
            store = MortalStore(cancelling, fuse, self.look)
            with self.worker(store, database=self.mortal) as runtime:
                assert run_job(runtime, self.job_id) == Cancelled()
        except DeathError:
            return False
        return True

    def recorded(self) -> set[int]:
        """The numbers of the parts that have a row."""
        newest = self.uploads(self.job_id)[-1:]
        return {part.part_number for upload in newest for part in self.part_rows(upload.id)}

    def parts_of(self, store: RecordingStore) -> list[int]:
        """The numbers of the parts that were brought through the store."""
        return [call.args[2] for call in store.named(*self.partwise)]

    def lease_runs_out(self) -> None:
        if self.job_row(self.job_id).lease_expires_at is not None:
            self.expire_lease(self.job_id)

    def another_worker_comes(self) -> None:
        """The lease of the dead one is over, if it had one."""
        self.lease_runs_out()
        if self.job_row(self.job_id).state != "succeeded":
            assert self.live(Fuse())

    # --- the end -----------------------------------------------------------------------------------------------------

    def assert_all_is_well(self, deaths: int) -> None:
        row = self.job_row(self.job_id)
        assert (row.state, row.phase, row.error_code, row.lease_expires_at) == ("succeeded", None, None, None)
        assert (row.failures, row.restarts) == (0, 0)
        history = self.outcomes(self.job_id)
        assert history == ["died"] * row.crashes + ["succeeded"]
        assert row.crashes <= deaths
        assert row.attempt == len(history)
        assert self.torn == []
        assert self.again == [], "what has a row is not brought again"
        assert self.is_done()
        assert (unfinished(self.memory), unfinished(self.cold)) == ([], [])
        self.assert_rows(deaths)

    def assert_rows(self, deaths: int) -> None:
        row = self.job_row(self.job_id)
        size = len(self.expected())
        assert (row.size, row.bytes_done) == (size, size)
        *lost, last = self.uploads(self.job_id)
        assert {upload.state for upload in lost} <= {"gone"}
        assert last.state == "completed"
        if last.part_size and last.upload_id:
            parts = self.part_rows(last.id)
            assert sum(part.size for part in parts) == size
            brought = len(self.parts_of(self.recording)) + len(self.parts_of(self.cold_recording))
            assert brought <= len(parts) + deaths * 2 * THREADS, "at most the parts that had no row yet"


# --- write_stream, put_content ---------------------------------------------------------------------------------------


class Write(Scene):
    """A file, over an old blob or none."""

    def assert_rows(self, deaths: int) -> None:
        super().assert_rows(deaths)
        sent = sum(len(call.data or b"") for call in self.recording.named("upload_part"))
        assert sent <= len(self.data) + deaths * THREADS * PART


class Append(Scene):
    """Onto an old blob, whose head the store copies in parts."""

    def prepare(self) -> None:
        self.old = bytes(range(100, 140))
        super().prepare()

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "offset": 33}

    def expected(self) -> bytes:
        return bytes(range(100, 133)) + self.data

    def assert_rows(self, deaths: int) -> None:
        super().assert_rows(deaths)
        assert {upload.head_parts for upload in self.uploads(self.job_id)} == {3}
        fetched = {(call.args[1], call.args[2]) for call in self.recording.named("get")}
        assert fetched <= {(30, 3)}, "of the head, only what fills no part is fetched"


class PutContent(Scene):
    operation = "put_content"

    def arguments(self) -> dict[str, Any]:
        return {"path": PATH, "contents": self.data}


# --- move ------------------------------------------------------------------------------------------------------------


class Move(Scene):
    """The source, or a whole copy at the destination, is there at every moment."""

    operation = "move"

    def prepare(self) -> None:
        super().prepare()
        self.memory.put(FROM, self.data)

    def arguments(self) -> dict[str, Any]:
        return {"source_path": SOURCE, "dest_path": PATH}

    def is_fine(self) -> bool:
        return super().is_fine() and self.data in (blob(self.memory, FROM), self.seen())

    def is_done(self) -> bool:
        return super().is_done() and blob(self.memory, FROM) is None

    def assert_rows(self, deaths: int) -> None:
        super().assert_rows(deaths)
        row = self.job_row(self.job_id)
        assert row.bytes_sent == 0
        assert self.recording.named("get") == []


class MoveAcross(Move):
    """To another storage, through the worker."""

    def prepare(self) -> None:
        self.memory.put(FROM, self.data)
        if self.old is not None:
            self.cold.put(KEY, self.old)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "dest_storage": "cold"}

    def seen(self) -> bytes | None:
        return blob(self.cold, KEY)

    def assert_rows(self, deaths: int) -> None:
        Scene.assert_rows(self, deaths)
        assert {upload.storage for upload in self.uploads(self.job_id)} == {"cold"}
        # Parts without a row are read again, to compare them with what the store holds; each at most once a death.
        assert len(self.recording.named("get")) <= 4 + 2 * deaths * THREADS


# --- read_stream -----------------------------------------------------------------------------------------------------


class ReadStream(Scene):
    """From an offset, into a file over an old one."""

    operation = "read_stream"
    partwise = ("get",)
    offset = 13

    def prepare(self) -> None:
        self.memory.put(KEY, self.data)
        self.file.write_bytes(OLD)

    def arguments(self) -> dict[str, Any]:
        return {"path": PATH, "dest": self.file.as_uri(), "offset": self.offset}

    def expected(self) -> bytes:
        return self.data[self.offset :]

    def seen(self) -> bytes | None:
        return self.file.read_bytes() if self.file.exists() else None

    def parts_of(self, store: RecordingStore) -> list[int]:
        return [(call.args[1] - self.offset) // PART + 1 for call in store.named("get")]

    def assert_rows(self, deaths: int) -> None:
        super().assert_rows(deaths)
        assert os.listdir(self.file.parent) == [self.file.name], "no partial file is left"
        assert blob(self.memory, KEY) == self.data
        assert len(self.uploads(self.job_id)) == 1


# --- delete ----------------------------------------------------------------------------------------------------------


class Delete(Scene):
    """A directory over several pages and batches, and the blob of its name."""

    operation = "delete"
    tree = ("a/b", *(f"a/b/{number}" for number in range(8)))
    siblings = ("a", "a/b-1", "a/b2", "a/c/b")

    def prepare(self) -> None:
        self.memory = PagedStore(limits=Limits(min_part_size=1, max_delete=3))
        for key in (*self.tree, *self.siblings):
            self.memory.put(key, b"x")

    def arguments(self) -> dict[str, Any]:
        return {"path": "/a/b"}

    def is_fine(self) -> bool:
        return set(self.siblings) <= set(self.memory._index.blobs)

    def is_done(self) -> bool:
        return set(self.siblings) == set(self.memory._index.blobs)

    def parts_of(self, store: RecordingStore) -> list[int]:
        return []

    def assert_rows(self, deaths: int) -> None:
        row = self.job_row(self.job_id)
        assert (row.bytes_done, row.bytes_sent, row.result) == (0, 0, {"path": self.arguments()["path"]})
        asked = sum(len(call.args[0]) for call in self.recording.named("delete_batch"))
        assert asked <= len(self.tree) + 3 * deaths
        assert self.uploads(self.job_id) == []


class DeleteOneBlob(Delete):
    tree = ("a/b",)


# --- the matrix ------------------------------------------------------------------------------------------------------

Make = Callable[[Databases, Path], Scene]

SCENES: dict[str, Make] = {
    "write in one put over": lambda *where: Write(*where, size=7),
    "write in parts": lambda *where: Write(*where, old=None),
    "write in parts over": lambda *where: Write(*where),
    "append onto a copied head": lambda *where: Append(*where, size=15),
    "put_content": lambda *where: PutContent(*where, size=7),
    "move by one copy": lambda *where: Move(*where, size=7),
    "move in parts": lambda *where: Move(*where),
    "move to another storage": lambda *where: MoveAcross(*where, size=25),
    "read over an old file": lambda *where: ReadStream(*where, size=38),
    "delete": lambda *where: Delete(*where),
    "delete one blob": lambda *where: DeleteOneBlob(*where),
}
#: Right before a call nothing else is written down than right after the one before it, except by the other threads.
THREADED = ["write in one put over", "write in parts", "write in parts over", "move in parts", "read over an old file"]
MATRIX = [(name, when) for name in SCENES for when in ("after", "before") if when == "after" or name in THREADED]


@pytest.fixture
def databases(sqlite_database: Database) -> Iterator[Databases]:
    mortal = FusedDatabase(str(sqlite_database.engine.url), Fuse())
    yield Databases(sqlite_database, mortal)
    mortal.close()


@pytest.fixture
def scene(databases: Databases, tmp_path: Path) -> Callable[[str], Scene]:
    """Makes a scene of that name, each in a directory of its own."""
    numbers = count()
    return lambda name: SCENES[name](databases, tmp_path / str(next(numbers)))


@pytest.mark.parametrize(("name", "when"), MATRIX)
def test_a_worker_may_die_at_any_call_or_commit(name: str, when: When, scene: Callable[[str], Scene]) -> None:
    for fail_at in range(1, MOST_CALLS):
        case, fuse = scene(name), Fuse(fail_at, when)
        finished = case.live(fuse)
        assert finished != fuse.blown, fuse.calls
        if not finished:
            case.another_worker_comes()
        case.assert_all_is_well(deaths=not finished)
        if finished:
            assert fail_at > 8
            return
    pytest.fail("it never ends")


@pytest.mark.parametrize("name", ["move in parts", "read over an old file"])
def test_a_second_worker_may_die_as_well(name: str, scene: Callable[[str], Scene]) -> None:
    """Wherever the first one dies, the second one does after one call, six, eleven …, so that all distances occur."""
    for fail_at in range(1, MOST_CALLS):
        case = scene(name)
        if case.live(Fuse(fail_at, "after")):
            assert fail_at > 10
            return
        case.lease_runs_out()
        is_over = case.job_row(case.job_id).state == "succeeded"
        finished = is_over or case.live(Fuse(1 + fail_at * 5 % 17, "after"))
        if not finished:
            case.another_worker_comes()
        case.assert_all_is_well(deaths=1 if finished else 2)
    pytest.fail("it never ends")


@pytest.mark.parametrize("step", [2, 3, 4])
def test_five_workers_in_a_row_may_die_each_a_little_later(step: int, databases: Databases, tmp_path: Path) -> None:
    case, deaths = Write(databases, tmp_path / "0", size=55), 0
    while deaths < 5 and not case.live(Fuse(step * (deaths + 1), "after")):
        deaths += 1
        case.lease_runs_out()
    assert deaths >= 3
    case.another_worker_comes()
    case.assert_all_is_well(deaths=deaths)


@pytest.mark.parametrize(
    ("name", "verb", "when"),
    [
        ("write in parts over", "upload_part", "before"),
        ("write in parts over", "upload_part", "after"),
        ("move in parts", "copy_part", "after"),
        ("read over an old file", "get", "after"),
    ],
)
def test_a_cancelled_job_whose_worker_dies_leaves_nothing_but_what_was_there(
    name: str, verb: str, when: When, scene: Callable[[str], Scene]
) -> None:
    """The caretaker finds in the ledger what the dead worker had not given up yet: an upload, a partial file."""
    for fail_at in range(1, MOST_CALLS):
        case = scene(name)
        before = case.everything()
        survived = case.is_cancelled_while(verb, Fuse(fail_at, when))
        case.change(case.job_id, cancel_requested=True)
        case.lease_runs_out()
        case.sweep()
        assert case.job_row(case.job_id).state == "cancelled"
        assert (case.everything(), unfinished(case.memory)) == (before, [])
        assert {upload.state for upload in case.uploads(case.job_id)} <= {"gone"}
        if survived:
            assert fail_at > 10
            return
    pytest.fail("it never ends")
