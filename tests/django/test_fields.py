"""FerryFileField: a row's file, and how far it is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import connections, models, transaction
from django.db.migrations.writer import MigrationWriter
from django.template import Context, Engine

from blobferry import Job
from blobferry.django.fields import FerryFileField
from blobferry.django.storage import FerryStorage
from blobferry.errors import TooLateError
from tests.client.conftest import MIB, Site
from tests.django.conftest import Project


class Film(models.Model):
    """What the app keeps."""

    file = FerryFileField(upload_to="films", storage=FerryStorage(location="/media"), blank=True)

    class Meta:
        app_label = "tests"
        db_table = "app_film"


@pytest.fixture
def project(make_project: Callable[..., Project], site: Site, tmp_path: Path) -> Iterator[Project]:
    """Without a broker, so that nothing runs."""
    (tmp_path / "spool").mkdir()
    project = make_project(site, BROKER_URL=None, SPOOL_DIR=tmp_path / "spool")
    with connections["default"].schema_editor() as editor:
        editor.create_model(Film)
    yield project
    with connections["default"].schema_editor() as editor:
        editor.delete_model(Film)
    connections["default"].close()


def film(data: bytes = b"seven") -> Film:
    made = Film(file=ContentFile(data, name="7.mp4"))
    with transaction.atomic():
        made.save()
    return made


def job_of(film: Film) -> Job:
    job: Job = film.file.job
    assert job is not None
    return job


def test_the_row_and_the_job_are_one_transaction(project: Project) -> None:
    with transaction.atomic():
        made = Film.objects.create(file=ContentFile(b"seven", name="7.mp4"))
        job = job_of(made)
        assert (job.path, job.state) == (f"/media/{made.file.name}", "queued")
        transaction.set_rollback(True)
    assert (Film.objects.count(), project.job_ids()) == (0, [])


def test_a_row_that_is_read_shows_its_job(project: Project) -> None:
    made = film()
    found = Film.objects.get()
    assert (found.file.state, found.file.progress, found.file.size) == ("queued", "queued", 5)
    project.site.change(job_of(made), state="running", size=4 * MIB, bytes_done=MIB, attempt=1)
    assert found.file.state == "queued", "it is read once"
    found.refresh_from_db()
    assert found.file.progress == "uploading, 1.0 of 4.0 MiB (25%)"
    assert found.file.view is not None
    assert found.file.view.percent == 25
    project.site.change(job_of(made), state="verifying")
    found.refresh_from_db()
    assert found.file.progress == "checking what is visible"


def test_a_template_shows_it_in_words(project: Project) -> None:
    made = film()
    project.site.change(job_of(made), state="running", size=4 * MIB, bytes_done=MIB)
    template = Engine().from_string("{{ film.file.progress }} <progress value={{ film.file.view.percent }}>")
    shown = template.render(Context({"film": Film.objects.get()}))
    assert shown == "uploading, 1.0 of 4.0 MiB (25%) <progress value=25>"


def test_a_row_without_a_file_shows_nothing(project: Project) -> None:
    empty = Film()
    assert (empty.file.job, empty.file.view, empty.file.state, empty.file.progress) == (None, None, "", "")
    assert empty.file.retry() is None


def test_a_failed_file_is_retried(project: Project) -> None:
    made = film()
    project.site.change(job_of(made), state="failed", error_code="blob_exists")
    made.refresh_from_db()
    assert (made.file.state, made.file.progress) == ("failed", "failed")
    made.file.retry()
    assert made.file.state == "retrying"
    project.site.change(job_of(made), state="succeeded")
    with pytest.raises(TooLateError):
        made.file.retry()


def test_another_file_has_another_job(project: Project) -> None:
    made = film()
    first = job_of(made)
    with transaction.atomic():
        made.file.save("8.mp4", ContentFile(b"eight"))
    assert job_of(made).id != first.id


def test_a_deleted_file_has_the_job_that_deletes_it(project: Project) -> None:
    made = film()
    name = made.file.name
    project.site.change(job_of(made), state="succeeded")
    with transaction.atomic():
        made.file.delete()
    assert made.file.job is None
    made.file = name
    assert job_of(made).operation == "delete"


def test_a_migration_may_name_it(project: Project) -> None:
    field = Film._meta.get_field("file")
    text, imports = MigrationWriter.serialize(field)
    names: dict[str, object] = {}
    exec("\n".join(imports), names)
    again = eval(text, names)
    assert isinstance(again, FerryFileField)
    assert again.deconstruct()[1] == "blobferry.django.fields.FerryFileField"
    assert again.storage.location == "/media"


def test_it_needs_a_storage_of_ours() -> None:
    class Other(models.Model):
        file = FerryFileField(storage=FileSystemStorage())

        class Meta:
            app_label = "tests"

    (problem,) = Other.check()
    assert (problem.id, "FerryStorage" in problem.msg) == ("blobferry.E003", True)
    assert [each.id for each in Film.check()] == []
