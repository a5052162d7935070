"""`manage.py blobferry_listen`: the functions of a project are called for jobs that have ended."""

import pytest

from blobferry import Job
from tests.client.test_finished import end_now
from tests.django.conftest import Project
from tests.django.test_commands import run
from tests.models.rows import Rows


class Enough(Exception):
    """Ends the command, which otherwise goes on for ever."""


def end(project: Project, path: str, **labels: str) -> None:
    """Submit a job by the project, and end it as a worker would."""
    job = project.ferry.write_stream(path, "file:///srv/a", labels=labels)
    Rows(project.site.database).claim(job.id)
    end_now(project.site, job.id)


def test_each_end_is_told_to_the_functions_of_the_project_once_more_after_an_error(project: Project) -> None:
    called: list[tuple[str | None, str]] = []

    @project.ferry.on("succeeded")
    def stored(job: Job) -> None:
        called.append((job.path, project.ferry.get(job.id).state))  # by Django's connection, outside of any block
        if len(called) != 2:
            raise Enough

    project.ferry.listen("shop")
    end(project, "/other")
    end(project, "/1", app="shop")
    for _ in range(2):
        with pytest.raises(Enough):
            run("blobferry_listen", "shop", "--label", "app=shop", "--interval", "0.01")
        if len(called) == 1:
            end(project, "/2", app="shop")
    assert called == [("/1", "succeeded"), ("/1", "succeeded"), ("/2", "succeeded")]
