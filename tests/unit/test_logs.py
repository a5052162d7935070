"""Logs: one line of JSON a record, with the job at hand in it."""

import json
import logging
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from worker.logs import JsonFormatter, job_context


def line(message: str = "part uploaded", *args: object, exc_info: Any = None, **extra: Any) -> dict[str, Any]:
    record = logging.getLogger("worker.test").makeRecord(
        "worker.test", logging.INFO, "file.py", 1, message, args, exc_info, extra=extra
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    parsed = json.loads(text)
    assert isinstance(parsed, dict)
    return parsed


def raised(error: Exception) -> Any:
    """What ``sys.exc_info`` tells of it where it is caught."""
    try:
        raise error
    except Exception:
        return sys.exc_info()


def test_a_record_says_when_how_bad_who_and_what() -> None:
    found = line("%s parts", 3)
    moment = datetime.fromisoformat(found.pop("time"))
    assert moment.utcoffset() == timedelta(0)
    assert found == {"level": "INFO", "logger": "worker.test", "event": "3 parts"}


def test_facts_stand_beside_the_event() -> None:
    found = line(part_number=3, size=10, path=Path("/a"))
    assert (found["part_number"], found["size"], found["path"]) == (3, 10, "/a")


def test_the_job_at_hand_is_on_every_line_within_its_context_and_on_none_after_it() -> None:
    with job_context(job_id="job-1", attempt=2):
        assert (line()["job_id"], line()["attempt"]) == ("job-1", 2)
        with job_context(job_id="job-2", attempt=1):
            assert line()["job_id"] == "job-2"
        assert line()["job_id"] == "job-1"
    assert "job_id" not in line()


def test_an_error_within_a_context_ends_it_too() -> None:
    with pytest.raises(ZeroDivisionError), job_context(job_id="job-1"):
        raise ZeroDivisionError
    assert "job_id" not in line()


def test_another_threads_lines_are_not_about_our_job() -> None:
    seen: list[dict[str, Any]] = []
    with job_context(job_id="job-1"):
        thread = threading.Thread(target=lambda: seen.append(line()))
        thread.start()
        thread.join()
    assert "job_id" not in seen[0]


def test_a_traceback_stays_in_its_line() -> None:
    found = line("unexpected error", exc_info=raised(ZeroDivisionError("a bug")))
    assert "ZeroDivisionError: a bug" in found["traceback"]
    assert "\n" in found["traceback"]


@pytest.mark.parametrize(
    "said",
    [
        "GET https://user:C4NARY@host/a",
        "'http://host/a?signature=C4NARY'",
        '{"url": "HTTPS://host/a?b=1&signature=C4NARY"}',
        "redis://:C4NARY@host:6379/0 is away",
        "postgresql+psycopg://blobferry:C4NARY@host/db",
        "(https://host?C4NARY)",
    ],
)
def test_whatever_is_logged_no_secret_of_a_url_is_written(said: str) -> None:
    told = line("failed", exc_info=raised(ValueError(said)))
    assert "C4NARY" not in json.dumps([line(said), line("%s", said, extra_fact={"reason": [said]}), told])


def test_what_holds_no_secret_is_written_as_it_is() -> None:
    said = "https://host:8443/a@2x/b and /srv/a?b and you@example.com: is it?"
    assert line(said)["event"] == said


def test_text_of_others_is_cleaned_in_every_fact() -> None:
    found = line("404 %s", "Not\0Found\x1b[2J", reason="\udcff" + "x" * 10_000)
    assert found["event"] == "404 Not\\x00Found\\x1b[2J"
    assert found["reason"].startswith("\\udcffxxx")
    assert len(found["reason"]) == 4000
