"""Two minutes of chaos, as ``make chaos`` makes it: all kinds of jobs, all kinds of faults, and every job right."""

import os
import subprocess
import sys

import pytest

from dev.chaos.fault_plan import FAULTS, draw_plan
from dev.chaos.scenes import KINDS
from dev.stack import CHECKOUT

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


@pytest.mark.timeout(PATIENCE + 60)
def test_nothing_is_lost_and_nothing_done_twice_whatever_fails() -> None:
    command = [sys.executable, "-m", "dev.chaos", "--seed", str(SEED), "--minutes", str(MINUTES)]
    uncovered = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}  # half as fast
    done = subprocess.run(command, cwd=CHECKOUT, env=uncovered, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
