"""The commands blobferry_jobs and blobferry_doctor of manage.py."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import override_settings
from sqlalchemy import insert

from blobferry.sql.clock import db_now
from blobferry.sql.worker_tables import workers
from dev.services import free_port
from tests.client.conftest import SOURCE, Site
from tests.django.conftest import Project, as_in_settings, connect
from tests.django.test_test_safety import manage


def run(*words: str) -> str:
    """Run a command; what it prints."""
    printed = io.StringIO()
    call_command(*words, stdout=printed, no_color=True)
    return printed.getvalue()


def examine(*words: str) -> tuple[dict[str, str], int]:
    """The levels that the doctor finds, by subject, and its exit status."""
    printed, status = io.StringIO(), 0
    try:
        call_command("blobferry_doctor", "--json", *words, stdout=printed)
    except SystemExit as error:
        status = int(error.code or 0)
    return {found["subject"]: found["level"] for found in json.loads(printed.getvalue())}, status


def test_jobs_are_listed_by_the_filters_of_the_client(project: Project) -> None:
    video = project.ferry.write_stream("/videos/7.mp4", SOURCE, labels={"video": "7", "kind": "a=b"})
    other = project.ferry.delete("/b")
    lines = run("blobferry_jobs").splitlines()
    assert [line.split()[0] for line in lines] == ["job", other.id, video.id]
    for words in (
        ["--label", "video=7", "--label", "kind=a=b"],
        ["--operation", "write_stream"],
        ["--under", "/videos", "--state", "queued", "--state", "failed"],
    ):
        (found,) = json.loads(run("blobferry_jobs", "--json", *words))
        assert found["id"] == video.id
    assert json.loads(run("blobferry_jobs", "--json", "--limit", "1"))[0]["id"] == other.id
    assert json.loads(run("blobferry_jobs", "--json", "--since", "2100-01-01T00:00:00Z")) == []
    with pytest.raises(CommandError, match="since: needs a time with a zone"):
        run("blobferry_jobs", "--since", "yesterday")


def test_a_job_is_explained(project: Project) -> None:
    job = project.ferry.delete("/b")
    assert f"job         {job.id}\nstate       queued: " in run("blobferry_jobs", job.id)
    (found,) = run("blobferry_jobs", "--json", job.id).splitlines()
    assert json.loads(found)["explanation"].startswith("waits for a free worker slot")
    with pytest.raises(CommandError, match="no job"):
        run("blobferry_jobs", "nothing")


def test_the_doctor_tries_what_a_job_needs_and_leaves_nothing(project: Project) -> None:
    assert examine() == ({"database default": "ok", "broker": "ok", "workers": "warning"}, 0)
    assert (project.job_ids(), project.site.messages()) == ([], [])
    with project.site.database.begin() as session:
        session.execute(insert(workers).values(worker="w", name="w@host", alive_until=db_now(60.0)))
    with override_settings(BLOBFERRY={}):
        assert examine() == (
            {"settings": "warning", "database default": "ok", "broker": "warning", "workers": "ok"},
            0,
        )


def test_the_doctor_names_what_is_wrong(project: Project, tmp_path: Any) -> None:
    with override_settings(BLOBFERRY={"BROKER": ""}):
        assert examine() == ({"settings": "error"}, 1)
    with override_settings(BLOBFERRY={"BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}):
        assert examine() == ({"database default": "ok", "broker": "error", "workers": "warning"}, 1)
    connect("other", as_in_settings(f"sqlite:///{tmp_path}/empty.db"))
    assert examine("--database", "other") == ({"database other": "error", "broker": "ok"}, 1)


def test_the_doctor_looks_at_the_spool_directory(project: Project, tmp_path: Path) -> None:
    for directory, level, status in ((tmp_path, "ok", 0), (tmp_path / "missing", "error", 1)):
        with override_settings(BLOBFERRY=settings.BLOBFERRY | {"SPOOL_DIR": directory}):
            levels, found = examine()
        assert (levels["spool"], found) == (level, status)


def test_they_are_commands_of_manage(site: Site) -> None:
    done = manage(site, "blobferry_doctor")
    assert done.returncode == 0, done.stderr
    assert "ok       database default: " in done.stdout
    assert manage(site, "blobferry_jobs", "--json").stdout == "[]\n"
    done = manage(site, "blobferry_jobs", "nothing")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "CommandError: no job 'nothing'")
