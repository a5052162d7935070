"""What a browser is shown of a job."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blobferry import Job
from blobferry.contract import JobState
from blobferry.errors import ConfigurationError, JobNotFoundError, TooLateError, UnreachableError
from blobferry.views.http_refusals import shown, status_of
from blobferry.views.job_events import JobEvents, event_id, is_all_known
from blobferry.views.job_view import WINDOW, JobView, Speed
from blobferry.views.job_words import in_words, percent, progress

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
MIB = 1024 * 1024
ROW: dict[str, Any] = {
    "id": "7",
    "operation": "write_stream",
    "storage": "default",
    "path": "/a",
    "source": "file:///srv/incoming/7.mp4",
    "request": {},
    "state": "queued",
    "bytes_done": 0,
    "attempt": 0,
    "priority": 0,
    "cancel_requested": False,
    "pause_requested": False,
    "created_at": NOON,
    "updated_at": NOON,
    "seen_at": NOON,
}
RUNNING: dict[str, Any] = {
    "state": "running",
    "phase": "uploading",
    "attempt": 1,
    "size": 100 * MIB,
    "started_at": NOON,
}


def make(seconds: float = 0, **values: Any) -> Job:
    """A job, seen some seconds after noon."""
    row = dict.fromkeys(Job.__dataclass_fields__) | ROW | {"seen_at": NOON + timedelta(seconds=seconds)} | values
    return Job.from_row(row)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "queued"),
        ({"run_at": NOON + timedelta(hours=5)}, "starts in 5 h"),
        ({"run_at": NOON - timedelta(hours=5)}, "queued"),
        ({"state": "retrying", "run_at": NOON + timedelta(seconds=20)}, "retrying in 20 s"),
        ({"state": "retrying", "run_at": NOON + timedelta(seconds=20), "cancel_requested": True}, "cancelling"),
        (RUNNING, "uploading"),
        (RUNNING | {"operation": "move"}, "copying"),
        (RUNNING | {"operation": "read_stream"}, "downloading"),
        (RUNNING | {"pause_requested": True}, "pausing"),
        (RUNNING | {"phase": "completing"}, "completing"),
        (RUNNING | {"phase": "verifying"}, "checking what is visible"),
        ({"state": "verifying", "phase": "verifying"}, "checking what is visible"),
        (RUNNING | {"phase": "deleting_source"}, "deleting the source"),
        ({"state": "succeeded"}, "succeeded"),
    ],
)
def test_what_it_is_at_in_words(values: dict[str, Any], words: str) -> None:
    assert in_words(make(**values)) == words


@pytest.mark.parametrize("state", [state for state in JobState if state != JobState.SUCCEEDED])
def test_a_hundred_percent_is_the_end(state: JobState) -> None:
    """All bytes may have been sent for long before that."""
    values = RUNNING | {"state": state, "bytes_done": 100 * MIB}
    job = make(**values)
    assert (percent(job), progress(job)) == (99, "100.0 of 100.0 MiB (99%)")
    assert percent(replace(job, state=JobState.SUCCEEDED)) == 100


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": None}, None),
        ({"operation": "delete"}, None),
        ({"size": 0}, 0),
        ({"size": 0, "state": "succeeded"}, 100),
        ({"bytes_done": 50 * MIB - 1}, 49),
        ({"bytes_done": 101 * MIB}, 99),
    ],
)
def test_a_percentage_is_never_too_high(values: dict[str, Any], expected: int | None) -> None:
    assert percent(make(**RUNNING | values)) == expected


def test_the_speed_is_that_of_the_last_seconds() -> None:
    speed = Speed()
    assert speed.after(make(0, **RUNNING)) is None
    assert speed.after(make(0.1, **RUNNING | {"bytes_done": MIB})) is None, "too short to tell"
    assert speed.after(make(2, **RUNNING | {"bytes_done": 8 * MIB})) == 4 * MIB
    for second in range(3, 20):
        last = speed.after(make(second, **RUNNING | {"bytes_done": (8 + second) * MIB}))
    assert last == pytest.approx(MIB, rel=0.1), f"the first bytes are more than {WINDOW} s ago"


def test_what_an_earlier_attempt_has_sent_is_no_speed() -> None:
    speed = Speed()
    speed.after(make(0, **RUNNING))
    assert speed.after(make(5, **RUNNING | {"bytes_done": 8 * MIB})) is not None
    assert speed.after(make(9, state="retrying", bytes_done=8 * MIB, attempt=1)) is None
    assert speed.after(make(60, **RUNNING | {"bytes_done": 8 * MIB, "attempt": 2})) is None
    assert speed.after(make(62, **RUNNING | {"bytes_done": 10 * MIB, "attempt": 2})) == MIB


def test_a_view_tells_the_speed_and_the_time_that_is_left() -> None:
    job = make(10, **RUNNING | {"bytes_done": 20 * MIB})
    view = JobView.of(job)
    assert (view.bytes_per_second, view.seconds_left) == (2 * MIB, 40.0)
    assert JobView.of(job, 4 * MIB).seconds_left == 20.0
    assert (view.percent, view.progress, view.words) == (20, "20.0 of 100.0 MiB (20%)", "uploading")


@pytest.mark.parametrize(
    "values", [{"attempt": 2}, {"phase": "completing"}, {"state": "succeeded"}, {"size": None, "attempt": 3}]
)
def test_no_speed_is_made_up(values: dict[str, Any]) -> None:
    view = JobView.of(make(10, **RUNNING | {"bytes_done": 20 * MIB} | values))
    assert (view.bytes_per_second, view.seconds_left) == (None, None)


def test_a_view_holds_nothing_of_the_app_s_insides() -> None:
    secrets: dict[str, Any] = {
        "source": "S3cret",
        "storage": "S3cret",
        "worker": "S3cret",
        "labels": {"S3cret": "S3cret"},
    }
    job = make(**secrets, idempotency_key="S3cret", error_code="source_not_found", error_message="S3cret")
    assert "S3cret" not in str(JobView.of(job).as_json())
    assert JobView.of(job, explains=True).error_message == "S3cret"
    assert JobView.of(job).error_code == "source_not_found"


def test_an_event_is_sent_for_what_is_new_only() -> None:
    job = make()
    events = JobEvents()
    first = events.of(job)
    assert first is not None
    assert (first.id, first.view) == (event_id(job), JobView.of(job))
    assert events.of(make(15)) is None, "a heartbeat"
    assert events.of(make(20, **RUNNING)) is not None
    assert JobEvents(first.id).of(job) is None, "the browser has it from before"
    assert JobEvents("another").of(job) is not None


def test_the_end_is_known_to_who_has_seen_it() -> None:
    ended = make(state="succeeded")
    assert is_all_known(ended, event_id(make(3, state="succeeded")))
    assert not is_all_known(ended, event_id(make()))
    assert not is_all_known(make(), event_id(make()))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (JobNotFoundError("7"), 404),
        (TooLateError("7", "cancel", "it has succeeded", "submit it again"), 409),
        (UnreachableError("database: no route to db.internal"), 503),
        (ConfigurationError("broker_url", "db.internal is wrong"), 500),
    ],
)
def test_an_error_has_a_status_and_names_no_host(error: Any, status: int) -> None:
    assert status_of(error) == status
    assert shown(error)["code"] == error.code
    assert "internal" not in shown(error)["message"]
