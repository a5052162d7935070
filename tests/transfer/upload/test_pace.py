"""The pace: fewer parts at once for a store under pressure, more again once it copes, shared by all children."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dev.waiting import wait_until
from tests.doubles import WrappedStore, tiny_store
from tests.transfer.bench import PART, Bench, StopAfter
from worker.errors import (
    LeaseLostError,
    PermissionDeniedError,
    SlowDownError,
    StoreUnavailableError,
    WriteConflictError,
)
from worker.stores.store import Store
from worker.transfer.stop import Interrupted, never
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.pace import LEAST, TRIES, Pace, Paces
from worker.transfer.upload.server_copy import CopiedPrefix, Copying

ROOT = Path(__file__).resolve().parents[3]
THREADS = 8
FORK = multiprocessing.get_context("fork")
BLOB = bytes(range(256)) * 10  # 256 parts of ten bytes


@pytest.fixture
def paces() -> Paces:
    return Paces(pause=0.001)


@pytest.fixture
def pace(paces: Paces) -> Pace:
    return paces.of(tiny_store())


def fail(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def press(pace: Pace, times: int = 1, count: int = THREADS) -> None:
    """So many parts, one after another, of a store that is out of reach."""
    for _ in range(times):
        with pytest.raises(StoreUnavailableError):
            pace.call(fail(StoreUnavailableError("timeout")), count, never)


# --- one process -----------------------------------------------------------------------------------------------------


class BusyStore(WrappedStore):
    """Takes ``room`` parts at once and says "slow down" to any other; remembers how many there were at once."""

    def __init__(self, store: Store, room: int) -> None:
        super().__init__(store)
        self.room = room
        self.in_hand: list[int] = []  #: at the beginning of each part
        self.arrived = self.refused = 0
        self._now = 0
        self._lock = threading.Lock()

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name not in ("upload_part", "copy_part"):
            return super()._do(name, args, keywords)
        with self._lock:
            self._now += 1
            self.in_hand.append(self._now)
            too_many = self._now > self.room
            self.refused += too_many
        try:
            time.sleep(0.005)
            if too_many:
                raise SlowDownError("please reduce your request rate")
            answer = super()._do(name, args, keywords)
            self.arrived += 1
            return answer
        finally:
            with self._lock:
                self._now -= 1


class RecoveringStore(BusyStore):
    """Has room for all once half of the parts are there."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if self.arrived >= 128 and self.room < 100:
            self.room = 100
            self.changed_at = len(self.in_hand)
        return super()._do(name, args, keywords)


@pytest.fixture
def engine(paces: Paces) -> Iterator[Engine]:
    with closing(Engine(part_size=PART, part_threads=THREADS, paces=paces)) as engine:
        yield engine


@pytest.mark.parametrize("is_copied", [False, True], ids=["sent", "copied"])
def test_a_store_that_is_too_busy_gets_fewer_parts_at_once_until_it_copes(is_copied: bool, bench: Bench) -> None:
    store = RecoveringStore(bench.memory, room=4)
    store.put("source", BLOB)
    head = CopiedPrefix.of(store.head("source")) if is_copied else None
    bench.write(BLOB, store, head=head, copying=Copying(threshold=1, part_size=10, threads=THREADS))
    assert store.refused > 0
    assert max(store.in_hand[: 2 * THREADS]) > THREADS / 2
    busy, well = store.in_hand[THREADS * 4 : store.changed_at], store.in_hand[store.changed_at :]
    assert sum(busy) / len(busy) < THREADS / 2  # it fell, …
    assert max(well) > THREADS / 2  # … and came back
    assert (bench.blob, bench.unfinished) == (BLOB, [])


def test_a_store_that_stays_too_busy_ends_the_run_and_the_parts_are_kept(bench: Bench) -> None:
    store = BusyStore(bench.memory, room=0)
    with pytest.raises(SlowDownError):
        bench.write(BLOB, store)
    assert max(store.in_hand[-TRIES:]) < THREADS
    store.room = 100
    bench.write(BLOB, store)
    assert bench.blob == BLOB


@pytest.mark.parametrize(
    ("error", "tries", "limit"),
    [
        (SlowDownError, TRIES, 1),
        (StoreUnavailableError, 1, THREADS // 2),
        (PermissionDeniedError, 1, THREADS),
        (WriteConflictError, 1, THREADS),
    ],
)
def test_a_busy_store_is_tried_again_a_timeout_is_pressure_and_a_refusal_is_none(
    error: type[Exception], tries: int, limit: int, pace: Pace
) -> None:
    tried: list[int] = []

    def work() -> None:
        tried.append(1)
        raise error("no")

    with pytest.raises(error):
        pace.call(work, THREADS, never)
    assert (len(tried), pace.limit(THREADS)) == (tries, limit)


def test_it_never_falls_below_one_part_and_one_of_a_hundred(pace: Pace) -> None:
    press(pace, 50)
    assert pace.share == LEAST
    assert (pace.limit(1), pace.limit(THREADS), pace.limit(100)) == (1, 1, 1)


def test_it_recovers_part_by_part(pace: Pace) -> None:
    press(pace, 2)
    seen = []
    while pace.limit(THREADS) < THREADS:
        seen.append(pace.limit(THREADS))
        pace.call(lambda: None, THREADS, never)
    assert sorted(set(seen)) == [2, 3, 4, 5, 6, 7]
    assert seen == sorted(seen)
    assert len(seen) >= 2 + 3 + 4 + 5 + 6 + 7 - 6  # about a round of parts for each one more


def test_a_burst_of_refusals_is_one_sign_of_pressure(pace: Pace) -> None:
    together = threading.Barrier(THREADS)

    def work() -> None:
        together.wait(10)
        raise StoreUnavailableError("all at once")

    def send() -> None:
        with pytest.raises(StoreUnavailableError):
            pace.call(work, THREADS, never)

    with ThreadPoolExecutor(THREADS) as executor:
        for future in [executor.submit(send) for _ in range(THREADS)]:
            future.result()
    assert pace.limit(THREADS) == THREADS // 2


def test_each_bucket_has_its_own(paces: Paces) -> None:
    one, other = tiny_store(), tiny_store()
    other.bucket = "another"
    press(paces.of(one))
    assert paces.of(one).limit(THREADS) == THREADS // 2
    assert paces.of(other).limit(THREADS) == THREADS


# --- stopping --------------------------------------------------------------------------------------------------------


def test_a_stop_ends_the_pause(pace: Pace) -> None:
    patient = Pace(pace.memory, pace.offset, pace.gate, pause=3600)
    with pytest.raises(Interrupted):
        patient.call(fail(SlowDownError("busy")), THREADS, StopAfter(3))


def test_a_lost_lease_ends_the_wait_for_a_turn_with_nothing_sent(pace: Pace) -> None:
    press(pace, 20)
    release, began = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        release.wait(30)

    def lost() -> bool:
        raise LeaseLostError("taken over")

    sent: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        first = executor.submit(pace.call, slow, THREADS, never)
        began.wait(30)
        with pytest.raises(LeaseLostError):
            pace.call(lambda: sent.append(1), THREADS, lost)
        release.set()
        first.result()
    assert (sent, pace.gate.in_hand) == ([], 0)


# --- the children of a worker ----------------------------------------------------------------------------------------


def in_child(work: Callable[..., None], *args: Any) -> None:
    child = FORK.Process(target=work, args=args)
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_all_children_of_a_worker_go_at_one_pace(paces: Paces) -> None:
    pace = paces.of(tiny_store())
    in_child(press, pace, 2)
    assert pace.limit(THREADS) == THREADS // 4
    pace.call(lambda: None, THREADS, never)
    in_child(recover, pace)
    assert pace.limit(THREADS) == THREADS


def recover(pace: Pace) -> None:
    assert pace.limit(THREADS) < THREADS  # it was found slow by another
    while pace.limit(THREADS) < THREADS:
        pace.call(lambda: None, THREADS, never)


def test_a_child_that_is_killed_takes_nothing_along(pace: Pace) -> None:
    press(pace, 20)  # one part at a time
    receiver, sender = FORK.Pipe(duplex=False)

    def hold() -> None:
        sender.send("in hand")
        signal.pause()

    child = FORK.Process(target=pace.call, args=(hold, THREADS, never))
    child.start()
    assert receiver.poll(60)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    assert pace.call(lambda: "sent", THREADS, never) == "sent"
    recover(pace)
    wait_until(lambda: pace.limit(THREADS) == THREADS, 5, "the pace recovers")


def test_a_worker_has_its_paces_before_it_forks(tmp_path: Path) -> None:
    program = "import sys, worker.app; sys.exit('worker.transfer.upload.pace' not in sys.modules)"
    environment = {
        "PATH": os.environ["PATH"],
        "BLOBFERRY_DATABASE_URL": f"sqlite:///{tmp_path}/blobferry.db",
        "BLOBFERRY_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True)
