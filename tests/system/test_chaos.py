"""Chaos, as ``make chaos`` makes it: many kinds of jobs and faults, and every job right. Two minutes have all kinds."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from dev.chaos.fault_plan import FAULTS, draw_plan
from dev.chaos.living import living
from dev.chaos.scenes import KINDS
from dev.chaos.young_probes import KEPT, is_young_probe
from dev.stack import CHECKOUT
from dev.waiting import wait_until
from tests.doubles import tiny_store
from worker.transfer import left_probes
from worker.transfer.probe_keys import new_probe_key

SEED = 3
MINUTES = 2
PATIENCE = 540  #: seconds, of which the jobs have 240 to settle


def test_a_seed_decides_on_all_jobs_and_faults() -> None:
    assert draw_plan(SEED, 60 * MINUTES) == draw_plan(SEED, 60 * MINUTES)
    assert draw_plan(SEED, 60 * MINUTES) != draw_plan(SEED + 1, 60 * MINUTES)


def test_two_minutes_have_every_kind_of_job_and_of_fault() -> None:
    plan = draw_plan(SEED, 60 * MINUTES)
    assert {scene.kind for _, scene in plan.scenes} == {kind.__name__ for kind in KINDS}
    assert {fault.kind.name for fault in plan.faults} == {kind.name for kind in FAULTS}


@contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_process_that_ends_between_two_looks_hides_no_other() -> None:
    with sleeping() as one, sleeping() as reaped, sleeping() as zombie:
        family = [psutil.Process(process.pid) for process in (reaped, zombie, one)]
        reaped.kill()
        reaped.wait()
        zombie.kill()
        wait_until(lambda: family[1].status() == psutil.STATUS_ZOMBIE, 10, "a zombie")
        assert [(process.pid, command[0]) for process, command in living(family)] == [(one.pid, sys.executable)]


class ForbiddenProcess(psutil.Process):
    """Of another user."""

    def cmdline(self) -> list[str]:
        raise psutil.AccessDenied(self.pid)


def test_any_other_trouble_with_a_process_is_an_error() -> None:
    with pytest.raises(psutil.AccessDenied):
        living([ForbiddenProcess()])


def test_only_what_a_young_probe_has_left_may_be_there_in_the_end() -> None:
    now, key = datetime.now(UTC), new_probe_key(tiny_store())
    assert KEPT == left_probes.KEPT
    assert is_young_probe(key, now)
    assert not is_young_probe(key, now + KEPT)
    assert is_young_probe(key, now + KEPT - timedelta(minutes=1))
    assert not any(is_young_probe(odd, now) for odd in (f"s1/{key}", f"{key}.x", "s12/b.4c43.probe", f"x{key}"))


@pytest.mark.timeout(PATIENCE + 60)
@pytest.mark.parametrize("minutes", [1, pytest.param(MINUTES, marks=pytest.mark.long)])
def test_nothing_is_lost_and_nothing_done_twice_whatever_fails(minutes: int) -> None:
    command = [sys.executable, "-m", "dev.chaos", "--seed", str(SEED), "--minutes", str(minutes)]
    uncovered = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}  # half as fast
    done = subprocess.run(command, cwd=CHECKOUT, env=uncovered, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
