"""The caretaker's rounds through the storages for what killed probes have left."""

import pytest

from tests.doubles import FaultyStore, blob, tiny_store
from tests.jobs.job_world import World
from worker.errors import PermissionDeniedError
from worker.maintenance.sweep_probes import FIRST, PAUSE, ProbeSweep

LEFT = ".blobferry-probe/20200101T000000Z-0123456789abcdef0123456789abcdef"


def test_a_round_goes_through_every_storage(world: World) -> None:
    for store in (world.memory, world.cold):
        store.put(f"videos/{LEFT}", b"left")
        store.put("videos/7.mp4", b"a user's")
    with world.worker(root="videos") as runtime:
        assert ProbeSweep(runtime).go_round() == 2
    for store in (world.memory, world.cold):
        assert (blob(store, f"videos/{LEFT}"), blob(store, "videos/7.mp4")) == (None, b"a user's")


def test_a_storage_that_cannot_be_listed_is_logged_once_and_stops_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    good = tiny_store()
    denied = FaultyStore(tiny_store(), "list_page", times=3, error=lambda: PermissionDeniedError("no ListBucket"))
    with world.worker(stores={"denied": denied, "good": good}) as runtime:
        sweep = ProbeSweep(runtime)
        for _ in range(3):
            good.put(LEFT, b"left")
            assert sweep.go_round() == 1
        assert caplog.text.count("is not removed") == 1
        assert sweep.go_round() == 0  # it can be listed now
        assert denied.fired == 3


def test_an_error_that_nobody_foresaw_stops_no_other_storage(world: World, caplog: pytest.LogCaptureFixture) -> None:
    good = tiny_store()
    good.put(LEFT, b"left")
    odd = FaultyStore(tiny_store(), "list_page", error=lambda: ZeroDivisionError("a bug"))
    with world.worker(stores={"odd": odd, "good": good}) as runtime:
        assert ProbeSweep(runtime).go_round() == 1
    assert "Traceback" in caplog.text


def test_the_first_round_comes_soon_and_the_others_hourly_until_the_end(world: World) -> None:
    pauses: list[float] = []

    def ended(pause: float) -> bool:
        world.memory.put(LEFT, b"left")
        pauses.append(pause)
        return len(pauses) == 3

    with world.worker() as runtime:
        ProbeSweep(runtime).loop(ended)
    assert pauses == [FIRST, PAUSE, PAUSE]
    assert blob(world.memory, LEFT) == b"left", "after the end there is no round"
