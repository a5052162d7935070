"""What docs/django.md shows does what it says."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from asgiref.sync import async_to_sync
from django.db import transaction

from blobferry.django.configuration import FerrySettings, problems
from tests.client.conftest import CHECKOUT, Site
from tests.django.conftest import Project
from tests.django.test_test_safety import manage

PAGE = (CHECKOUT / "docs" / "django.md").read_text(encoding="utf-8")


def snippet(beginning: str) -> str:
    """The one block of code that holds these words."""
    (found,) = [block for block in re.findall(r"```(?:python)?\n(.*?)```", PAGE, re.DOTALL) if beginning in block]
    return str(found)


def test_the_settings_are_settings() -> None:
    names: dict[str, Any] = {"INSTALLED_APPS": []}
    exec(snippet("INSTALLED_APPS"), names)
    assert names["INSTALLED_APPS"] == ["blobferry.django"]
    assert list(problems(names["BLOBFERRY"])) == []


def test_every_key_is_explained_and_no_other() -> None:
    explained = re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert sorted(explained) == sorted(name.upper() for name in FerrySettings.__dataclass_fields__)


def test_a_view_writes_its_row_and_the_job(project: Project) -> None:
    class Videos:
        @staticmethod
        def create(path: str) -> SimpleNamespace:
            project.run("INSERT INTO app_video (id) VALUES (7)")
            return SimpleNamespace(path=path, pk=7)

    exec(snippet("# views.py"), {"Video": SimpleNamespace(objects=Videos), "transaction": transaction, "Path": Path})
    (row,) = project.site.rows()
    assert (project.videos(), row["path"], row["labels"]) == ([7], "/videos/7.mp4", {"video": "7"})
    assert project.site.message_ids() == [row["id"]]


def test_an_async_view_puts_an_a_before_the_name(project: Project) -> None:
    (line,) = re.findall(r"`job = await (ferry\.\w+)\(…\)`", PAGE)
    submit = eval(line, {"ferry": project.ferry})
    assert async_to_sync(submit)("/a", "file:///srv/a").id in project.job_ids()


def test_the_commands_are_run_as_shown(project: Project) -> None:
    job = project.ferry.delete("/a")
    lines = snippet("manage.py blobferry_jobs").splitlines()
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)[2:]
        done = manage(project.site, *(job.id if len(word) == 36 else word for word in words))
        assert done.returncode == 0, done.stderr


def test_a_projects_test_may_look_like_that(site: Site, tmp_path: Path) -> None:
    imports = "from blobferry.django.models import FerryJob\nfrom django.test import TestCase\n\n"
    (tmp_path / "documented.py").write_text(imports + snippet("class VideoTests"))
    done = manage(site, "test", "documented", "--noinput", PYTHONPATH=f"{CHECKOUT}:{tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


def test_the_first_use_of_the_model_is_importable() -> None:
    (line,) = re.findall(r"`(from blobferry\.django\.models import \w+)`", PAGE)
    exec(line, {})
