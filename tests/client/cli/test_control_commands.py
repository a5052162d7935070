"""The commands cancel, pause, resume, retry, jobs and uploads: what they print where, and how they exit."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from blobferry import Client, Job
from blobferry.sql.clock import db_now
from dev.services import wait_until
from tests.client.conftest import MIB, SOURCE, Command, Site, Submit


@pytest.fixture
def submit(client: Client, sqlite_site: Site) -> Submit:
    def submit(path: str = "/a", **values: Any) -> Job:
        job = client.write_stream(path, SOURCE, labels={"user": "5"})
        sqlite_site.change(job, **values)
        return client.get(job.id)

    return submit


# --- cancel, pause, resume, retry ----------------------------------------------------------------------------------

ACKNOWLEDGED: list[tuple[str, dict[str, Any], str]] = [
    ("cancel", {}, "cancel requested; takes effect within seconds"),
    ("cancel", {"state": "running"}, "cancel requested; takes effect after the current part"),
    ("cancel", {"state": "cancelled"}, "cancelled"),
    ("cancel", {"state": "failed"}, "had failed already; the upload that it kept is given up"),
    ("pause", {"state": "running"}, "pause requested; takes effect after the current part"),
    ("pause", {"state": "paused", "pause_requested": True}, "paused"),
    ("resume", {"state": "paused"}, "queued; to watch it: blobferry watch JOB"),
    ("resume", {"state": "running"}, "running; to watch it: blobferry watch JOB"),
    ("retry", {"state": "failed"}, "retrying; to watch it: blobferry watch JOB"),
]


@pytest.mark.parametrize(("name", "values", "words"), ACKNOWLEDGED, ids=lambda value: str(value)[:30])
def test_each_says_what_becomes_of_the_job(
    command: Command, submit: Submit, name: str, values: dict[str, Any], words: str
) -> None:
    job = submit(**values)
    done = command(name, job.id)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{job.id}  {words.replace('JOB', job.id)}\n"


@pytest.mark.parametrize("name", ["cancel", "pause", "resume", "retry"])
def test_of_several_each_is_asked_for_and_the_highest_status_counts(
    command: Command, client: Client, submit: Submit, name: str
) -> None:
    state = {"resume": "paused", "retry": "failed"}.get(name, "queued")
    done_already, first, last = submit(state="succeeded"), submit(state=state), submit(state=state)
    done = command(name, first.id, done_already.id, last.id)
    assert (done.exit_code, len(done.stdout.splitlines())) == (1, 2)
    assert done.stderr.startswith(f"blobferry: too late to {name} job {done_already.id!r}: it has succeeded; ")
    done = command(name, first.id, done_already.id, "nobody", last.id, first.id, "--json")
    assert (done.exit_code, done.stderr) == (2, "")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("id") or (line["error"], line["job_id"]) for line in said] == [
        first.id,
        ("too_late", done_already.id),
        ("job_not_found", "nobody"),
        last.id,
    ]
    for now in (client.get(first.id), client.get(last.id)):
        assert {"cancel": now.cancel_requested, "pause": now.pause_requested}.get(name, now.state != state)


@pytest.mark.parametrize(
    ("name", "before", "requested", "after", "status"),
    [
        ("cancel", {}, {"cancel_requested": True}, "cancelled", 0),
        ("cancel", {}, {"cancel_requested": True}, "failed", 1),
        ("retry", {"state": "failed"}, {"state": "retrying"}, "succeeded", 0),
        ("retry", {"state": "failed"}, {"state": "retrying"}, "failed", 1),
        ("resume", {"state": "paused"}, {"state": "queued"}, "cancelled", 1),
    ],
)
def test_wait_exits_with_what_became_of_the_job(
    command: Command,
    submit: Submit,
    sqlite_site: Site,
    name: str,
    before: dict[str, Any],
    requested: dict[str, Any],
    after: str,
    status: int,
) -> None:
    job = submit(**before)

    def end() -> None:  # like a worker
        wait_until(lambda: sqlite_site.row(job) | requested == sqlite_site.row(job), 30, "the request is in the row")
        sqlite_site.change(job, state=after)

    with ThreadPoolExecutor(1) as worker:
        ended = worker.submit(end)
        done = command(name, job.id, "--wait", "--json")
    ended.result()
    assert (done.exit_code, json.loads(done.stdout)["state"]) == (status, after)


def test_waiting_for_a_failed_job_to_be_cancelled_ends_at_once(command: Command, submit: Submit) -> None:
    done = command("cancel", submit(state="failed", error_code="slow_down").id, "--wait")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "failed: slow_down")


def test_waiting_too_long_exits_4(command: Command, submit: Submit) -> None:
    job = submit(state="paused")
    done = command("resume", job.id, "--wait", "--timeout", "0.2")
    assert done.exit_code == 4
    assert done.stderr.startswith(f"blobferry: job {job.id} is still queued after 0.2 s; the job continues")


# --- jobs and uploads ----------------------------------------------------------------------------------------------


def test_jobs_prints_a_line_for_each_the_newest_first(command: Command, submit: Submit) -> None:
    first = submit("/" + "long/" * 40 + "a", state="failed", error_code="slow_down", size=4 * MIB, bytes_done=MIB)
    second = submit("/b", state="running", cancel_requested=True)
    done = command("jobs")
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["job", "state", "operation", "path", "progress", "submitted"]
    assert [line.split()[:4] for line in lines] == [
        [second.id, "cancelling", "write_stream", "/b"],
        [first.id, "failed:", "slow_down", "write_stream"],
    ]
    assert str(first.path) in lines[1]
    assert "1.0/4.0 MiB" in lines[1]


def test_jobs_hands_every_filter_on(command: Command, submit: Submit) -> None:
    job = submit("/v/a", state="failed")
    filters = "--state failed --state paused --since 2026-01-01T00:00:00Z --until 2099-01-01T00:00:00Z --limit 5"
    filters += " --operation write_stream --storage default --under /v --label user=5"
    assert [each["id"] for each in json.loads(command("jobs", *filters.split(), "--json").stdout)] == [job.id]
    others = "--state paused|--since 2099-01-01T00:00:00Z|--until 2020-01-01T00:00:00Z|--operation delete"
    others += "|--storage archive|--under /w|--label user=6"
    for other in others.split("|"):
        assert json.loads(command("jobs", *other.split(), "--json").stdout) == []
    assert command("jobs", "--under", "/w").stdout == ""


def test_uploads_are_listed_with_the_bytes_at_risk(command: Command, submit: Submit, sqlite_site: Site) -> None:
    assert command("uploads").stdout == "0 uploads, 0 B at risk\n"
    failed, running = submit(state="failed"), submit(state="running")
    kept = {"size": 4 * MIB, "bucket": "b", "key": "a[red]", "recheck_at": db_now(3600)}
    sqlite_site.add_upload(failed, (MIB,), state="open", **kept)
    sqlite_site.add_upload(running, (MIB,), state="open", endpoint="file://host", key="/srv/out.part")
    sqlite_site.add_upload(running, (MIB,), state="completed")
    done = command("uploads")
    heading, first, second, total = done.stdout.splitlines()
    assert heading.split("  ")[0] == "job"
    assert first.split()[:7] == [failed.id, "failed", "open", "default:", "b/a[red]", "1.0/4.0", "MiB"]
    assert second.split()[:5] == [running.id, "running", "open", "file://host", "/srv/out.part"]
    assert total == "2 uploads, 2.0 MiB at risk"
    assert command("uploads", "--job", failed.id).stdout.endswith("\n1 upload, 1.0 MiB at risk\n")
    said = json.loads(command("uploads", "--all", "--json").stdout)
    assert [(each["state"], each["bytes_at_risk"]) for each in said] == [("open", MIB), ("open", MIB), ("completed", 0)]
    assert command("uploads", "--job", "nobody").exit_code == 2


# --- retry with another source --------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["https://store.example.com/a?sig=new", "7.mp4"])
def test_retry_takes_another_source(command: Command, submit: Submit, sqlite_site: Site, given: str) -> None:
    job = submit(state="failed")
    done = command("retry", job.id, "--source", given)
    assert (done.exit_code, done.stderr) == (0, "")
    source = sqlite_site.row(job)["request"]["source"]
    assert source == (given if "://" in given else (Path.cwd() / given).as_uri())


def test_another_source_is_for_one_job(command: Command, submit: Submit) -> None:
    done = command("retry", submit(state="failed").id, submit(state="failed").id, "--source", "https://a.example/b")
    assert done.exit_code == 2
    assert "--source needs exactly one JOB" in done.stderr
