"""What docs/django.md shows does what it says."""

import re
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections, models, transaction
from django.dispatch import receiver
from django.template import Context, Engine
from django.test import override_settings
from django.test.utils import isolate_apps
from django.urls import include, path

from blobferry.django.configuration import FerrySettings, problems
from blobferry.django.ended_jobs import tell_of
from blobferry.django.fields import FerryFileField
from tests.client.conftest import CHECKOUT, SOURCE, Site
from tests.django.conftest import Project
from tests.django.test_ended_jobs import ended
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


# --- files, and the end of a job -------------------------------------------------------------------------------------


class InTests(models.Model):
    """The app that a model of the page belongs to."""

    class Meta:
        abstract = True
        app_label = "documented"


@pytest.fixture
def film_model(project: Project, tmp_path: Path) -> Iterator[Any]:
    """The model of the page, its table, and the settings of the page with a spool directory that is there."""
    names: dict[str, Any] = {}
    exec(snippet("STORAGES = {"), names)
    (tmp_path / "spool").mkdir()
    given = names["BLOBFERRY"] | {"BROKER_URL": None, "SPOOL_DIR": tmp_path / "spool"}
    assert set(given) == {"BROKER_URL", "SPOOL_DIR"}
    assert list(problems(names["BLOBFERRY"])) == []
    with override_settings(STORAGES=names["STORAGES"], BLOBFERRY=given), isolate_apps():
        scope = {"models": SimpleNamespace(Model=InTests), "FerryFileField": FerryFileField, "__name__": __name__}
        exec(snippet("class Film("), scope)
        with connections["default"].schema_editor() as editor:
            editor.create_model(scope["Film"])
        yield scope["Film"]
        with connections["default"].schema_editor() as editor:
            editor.delete_model(scope["Film"])


def test_a_view_of_films_stores_the_upload_with_its_row(project: Project, film_model: Any) -> None:
    request = SimpleNamespace(FILES={"film": SimpleUploadedFile("7.mp4", b"seven")})
    scope = {"transaction": transaction, "request": request, "Film": film_model}
    exec(snippet("# a view of films"), scope)
    (row,) = project.site.rows()
    assert row["path"] == f"/media/{scope['film'].file.name}"
    lines = [line.partition("   ")[0] for line in snippet("film.file.progress").splitlines()]
    shown = Engine().from_string("\n".join(lines)).render(Context({"film": scope["film"]}))
    assert shown.split() == ["queued", "queued", "<progress", 'value="0"', 'max="100"></progress>']


def test_the_urls_are_those_of_spooled_files() -> None:
    names: dict[str, Any] = {"urlpatterns": [], "path": path, "include": include}
    exec(snippet("# urls.py"), names)
    (found,) = names["urlpatterns"]
    assert [each.name for each in found.url_patterns] == ["spooled"]


class Rows:
    """What an app's manager is asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def ask(**values: Any) -> Rows:
            self.asked.append(values)
            return self

        return ask


def test_a_receiver_learns_the_end(project: Project) -> None:
    rows = Rows()
    (line,) = re.findall(r"`(from blobferry\.django\.signals import \w+)`", PAGE)
    names: dict[str, Any] = {"receiver": receiver, "Film": SimpleNamespace(objects=rows)}
    exec(f"{line}\n{snippet('# signals of films')}", names)
    job = ended(project, project.ferry.write_stream("/media/films/7.mp4", SOURCE))
    tell_of(project.ferry, job)
    assert rows.asked == [{"file": "films/7.mp4"}, {"is_stored": True}]


@pytest.mark.skipif(find_spec("django.tasks") is None, reason="Django 5.2 has no tasks")
def test_tasks_are_told_of_ends_and_submit_jobs(project: Project) -> None:
    from django.tasks import task  # noqa: PLC0415 - of Django 6

    names: dict[str, Any] = {}
    exec(snippet("# TASKS in settings.py"), names)
    rows, film = Rows(), SimpleNamespace(pk=7)
    with override_settings(TASKS=names["TASKS"]):
        module = ModuleType("documented_tasks")
        sys.modules[module.__name__] = module
        vars(module).update(task=task, Film=SimpleNamespace(objects=rows))
        exec(snippet("# tasks of films"), vars(module))
        vars(module).update(lost=module.stored, ferry=project.ferry, film=film, path="/a", source=SOURCE)
        exec(snippet("on_done=stored"), vars(module))
        (job,) = project.ferry.jobs()
        project.site.change(ended(project, job), size=5)
        tell_of(project.ferry, project.ferry.get(job.id))
        assert rows.asked == [{"pk": "7"}, {"size": 5}]
        (line,) = re.findall(r"`(from blobferry\.django import operations)`", PAGE)
        exec(f"{line}\n{snippet('# tasks that submit')}", vars(module))
        assert project.ferry.get(module.result.id).path == "/videos/7.mp4"
