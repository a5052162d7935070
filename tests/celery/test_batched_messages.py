"""Messages that the claim of a batch has outdated, and what Flower makes of a job that it only sees end."""

import subprocess
import sys

import pytest
from celery import states
from celery.events import Event
from celery.events.state import State

from worker.celery.batched_messages import forget, is_needless, note_claimed, note_reported


def test_a_message_is_needless_once_a_living_process_runs_its_job_or_has_reported_it() -> None:
    assert not is_needless("batched", 0)
    note_claimed([("batched", 0)])
    assert is_needless("batched", 0)
    assert not is_needless("batched", 1), "a newer message"
    note_reported([("batched", 0)])
    assert is_needless("batched", 0)
    forget([("batched", 0)])
    assert not is_needless("batched", 0)


def test_the_message_of_a_job_whose_process_has_died_is_delivered() -> None:
    """It may have died between the COMMIT and the result."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    note_claimed([("orphaned", 0)], dead.pid)
    assert not is_needless("orphaned", 0)


@pytest.mark.parametrize("late", ["task-received", "task-started"])
def test_flower_keeps_success_whatever_event_of_the_message_comes_later(late: str) -> None:
    state, common = State(), {"uuid": "job", "hostname": "w@h", "local_received": 1.0, "utcoffset": 0, "pid": 1}
    ending = {"name": "blobferry.put_content", "args": "[]", "kwargs": "{}", "result": "{}", "runtime": 0.1}
    state.event(Event("task-succeeded", timestamp=1.0, clock=1, **ending, **common))
    state.event(Event(late, timestamp=2.0, clock=2, **common))
    task = state.tasks["job"]
    assert (task.state, task.name) == (states.SUCCESS, "blobferry.put_content")
