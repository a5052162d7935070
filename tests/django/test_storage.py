"""FerryStorage: spooled at once, in the store once the job has succeeded, each name given away once."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.core.signals import request_finished
from django.db import connections, transaction
from django.db.migrations.writer import MigrationWriter
from django.test import Client as Browser
from django.test import override_settings
from sqlalchemy import select, update

from blobferry import Job
from blobferry.django.owned_names import lock_name
from blobferry.django.rolled_back import remove_rolled_back
from blobferry.django.storage import FerryStorage
from blobferry.errors import PathNotFoundError, UnreachableError
from blobferry.sql.tables import jobs
from dev.services import valkey
from models import Database
from tests.client.conftest import Site, all_at_once
from tests.django.conftest import Project, as_in_settings, connect
from tests.django.running_project import Running, running

MIB = 1024 * 1024
CDN = "https://cdn.example"


@pytest.fixture(scope="module")
def running_sqlite(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str]]:
    directory = tmp_path_factory.mktemp("sqlite")
    shutil.copyfile(migrated_sqlite, directory / "blobferry.db")
    url = f"sqlite:///{directory}/blobferry.db"
    with running(directory, url) as project:
        yield project, url


@pytest.fixture(scope="module")
def running_postgres(
    migrated_postgres: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, str]]:
    url = migrated_postgres.engine.url.render_as_string(hide_password=False)
    with running(tmp_path_factory.mktemp("postgres"), url) as project:
        yield project, url


class Files:
    """A storage of the running project."""

    def __init__(self, project: Project, running: Running) -> None:
        self.project = project
        self.running = running
        self.storage = FerryStorage(base_url=CDN, timeout=60)

    def save(self, name: str, data: bytes = b"seven") -> str:
        with transaction.atomic():
            return self.storage.save(name, ContentFile(data))

    def job(self, name: str) -> Job:
        job = self.storage.job(name)
        assert job is not None
        return job

    def ended(self, name: str) -> str:
        """The state in which the job of the file ends."""
        return str(self.project.ferry.wait(self.job(name).id, timeout=60).state)

    def stored(self, name: str) -> bytes:
        return self.running.driver.get_content(f"/{name}")

    def read(self, name: str) -> bytes:
        with self.storage.open(name) as file:
            return bytes(file.read())

    def browse(self, url: str) -> bytes:
        """What a browser gets there."""
        answer = Browser().get(url)
        assert answer.status_code == 200
        with closing(answer):
            return b"".join(answer.streaming_content)

    def paused(self, name: str, data: bytes = b"seven") -> str:
        """A file whose job no worker takes."""
        with transaction.atomic():
            saved = self.storage.save(name, ContentFile(data))
            self.project.ferry.pause(self.job(saved).id)
        done = threading.Event()
        while self.job(saved).state != "paused":  # a caretaker sees to it
            done.wait(0.01)
        return saved

    def spool_file(self, name: str) -> Path:
        source = self.job(name).source
        assert source is not None
        return Path(source.removeprefix("file://"))


@pytest.fixture(params=["sqlite", "postgres"])
def files(request: pytest.FixtureRequest, make_project: Callable[..., Project]) -> Iterator[Files]:
    running, url = request.getfixturevalue(f"running_{request.param}")
    database = Database(url)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        owners = connection.scalars(select(jobs.c.id).where(jobs.c.idempotency_key.is_not(None))).all()
        for owner in owners:  # one by one: a worker that runs some of them locks them in another order
            connection.execute(update(jobs).where(jobs.c.id == owner).values(idempotency_key=None))
    for path in running.driver.list("/"):  # the worker may be writing there what the test before has left
        with suppress(PathNotFoundError):
            running.driver.delete(path)
    yield Files(make_project(Site(database, running.stack.broker_url), SPOOL_DIR=running.spool), running)
    connections["default"].close()
    database.close()


# --- a file's life ---------------------------------------------------------------------------------------------------


def test_a_file_is_served_from_the_spool_and_then_from_the_store(files: Files) -> None:
    name = files.paused("videos/7.txt", b"seven")
    assert name == "videos/7.txt"
    assert (files.storage.exists(name), files.storage.size(name)) == (True, 5)
    assert files.read(name) == b"seven"
    early = files.storage.url(name)
    assert files.browse(early) == b"seven"
    files.project.ferry.resume(files.job(name).id)
    assert files.ended(name) == "succeeded"
    assert files.stored(name) == b"seven"
    assert (files.storage.exists(name), files.storage.size(name)) == (True, 5)
    assert files.storage.url(name) == f"{CDN}/videos/7.txt"
    assert files.read(name) == b"seven"
    answer = Browser().get(early)
    assert (answer.status_code, answer["Location"]) == (302, f"{CDN}/videos/7.txt")


def test_the_spooled_file_is_removed_after_success(files: Files) -> None:
    name = files.save("7.txt")
    spooled = files.spool_file(name)
    assert files.ended(name) == "succeeded"
    done = threading.Event()
    while spooled.exists():
        done.wait(0.01)


def test_what_no_row_tells_is_asked_of_the_store(files: Files) -> None:
    files.running.driver.put_content("/old/7.txt", b"seven")
    assert files.storage.exists("old/7.txt")
    assert not files.storage.exists("old/8.txt")
    assert files.storage.size("old/7.txt") == 5
    assert files.read("old/7.txt") == b"seven"
    assert files.storage.get_modified_time("old/7.txt").tzinfo is not None
    assert files.storage.url("old/7.txt") == f"{CDN}/old/7.txt"
    for read in (files.storage.open, files.storage.size, files.storage.get_modified_time):
        with pytest.raises(FileNotFoundError, match=r"old/8\.txt"):
            read("old/8.txt")


def test_a_failed_file_is_served_until_a_retry_succeeds(files: Files) -> None:
    with transaction.atomic():
        name = files.storage.save("7.txt", ContentFile(b"seven"))
        files.running.driver.put_content("/7.txt", b"a stranger's")
    assert files.ended(name) == "failed"
    assert files.job(name).error_code == "blob_exists"
    assert files.read(name) == b"seven"
    assert files.storage.exists(name)
    assert files.browse(files.storage.url(name)) == b"seven"
    files.running.driver.delete("/7.txt")
    files.project.ferry.retry(files.job(name).id)
    assert files.ended(name) == "succeeded"
    assert files.stored(name) == b"seven"


def test_a_cancelled_file_is_gone_and_its_name_is_not_given_away(files: Files) -> None:
    name = files.paused("7.txt")
    files.project.ferry.cancel(files.job(name).id)
    assert files.ended(name) == "cancelled"
    assert not files.storage.exists(name)
    with pytest.raises(FileNotFoundError, match="cancelled"):
        files.storage.open(name)
    assert files.save("7.txt") != name
    files.storage.delete(name)
    assert files.save("7.txt") == name, "whoever deletes it gives its name back"


def test_a_spooled_file_that_this_host_does_not_see_is_named(files: Files) -> None:
    name = files.paused("7.txt")
    files.spool_file(name).unlink()
    with pytest.raises(FileNotFoundError, match=r"is paused, and host .* does not see file:///"):
        files.storage.open(name)
    assert Browser().get(files.storage.url(name)).status_code == 404


# --- transactions ----------------------------------------------------------------------------------------------------


class RolledBackError(Exception):
    pass


def rolled_back(files: Files) -> Path:
    """The spooled file of a save whose transaction is rolled back."""
    spooled = list[Path]()

    def fail() -> None:
        with transaction.atomic():
            spooled.append(files.spool_file(files.storage.save("7.txt", ContentFile(b"seven"))))
            raise RolledBackError

    with pytest.raises(RolledBackError):
        fail()
    return spooled[0]


def test_a_rollback_leaves_no_job_and_at_the_end_of_the_request_no_file(files: Files) -> None:
    before = len(files.project.job_ids())
    spooled = rolled_back(files)
    request_finished.send(None)
    assert (len(files.project.job_ids()), spooled.exists()) == (before, False)
    assert files.save("7.txt") == "7.txt"


def test_the_next_save_removes_what_a_rollback_has_left(files: Files) -> None:
    spooled = rolled_back(files)
    assert spooled.exists(), "nobody tells of a rollback"
    files.paused("8.txt")
    assert not spooled.exists()


def test_a_savepoint_takes_its_file_along(files: Files) -> None:
    with transaction.atomic():
        kept = files.storage.save("kept.txt", ContentFile(b"kept"))
        files.project.ferry.pause(files.job(kept).id)
        spooled = rolled_back(files)
        remove_rolled_back()
        assert (spooled.exists(), files.read(kept)) == (False, b"kept")
    request_finished.send(None)
    assert files.read(kept) == b"kept"


def test_it_joins_the_transaction_of_its_own_database(files: Files, sqlite_url: str) -> None:
    connect("other", as_in_settings(sqlite_url))
    storage = FerryStorage(using="other", timeout=60)
    with transaction.atomic(), transaction.atomic("other"):
        name = storage.save("7.txt", ContentFile(b"seven"))
        transaction.set_rollback(True)
    job = storage.job(name)
    assert job is not None
    assert (files.storage.job(name), storage.ferry.alias) == (None, "other")
    with transaction.atomic("other"):
        rolled_back = storage.save("8.txt", ContentFile(b"eight"))
        transaction.set_rollback(True, using="other")
    assert storage.job(rolled_back) is None


def test_content_that_cannot_be_saved_leaves_nothing(files: Files) -> None:
    number, before = len(files.project.job_ids()), set(files.running.spooled())
    with pytest.raises(SuspiciousFileOperation):
        files.storage.save("../7.txt", ContentFile(b"seven"))
    assert (len(files.project.job_ids()), set(files.running.spooled()) - before) == (number, set())


# --- names -----------------------------------------------------------------------------------------------------------


def test_saves_of_one_name_at_once_get_a_name_each(files: Files) -> None:
    def save(number: int) -> Callable[[], str]:
        def call() -> str:
            try:
                return files.paused("same.txt", str(number).encode())
            finally:
                connections["default"].close()

        return call

    names = all_at_once([save(number) for number in range(8)])
    assert len(set(names)) == 8
    assert sorted(files.read(name) for name in names) == [str(number).encode() for number in range(8)]


def test_equal_content_gets_a_name_each_as_well(files: Files) -> None:
    assert files.paused("same.txt", b"equal") != files.paused("same.txt", b"equal")


def test_nobody_waits_for_the_transaction_that_takes_a_name(files: Files, request: pytest.FixtureRequest) -> None:
    if connections["default"].vendor == "sqlite":
        assert lock_name(files.project.ferry._engine, "default", "/7.txt"), "one writes at a time"
        return

    def save() -> str:
        try:
            return files.save("7.txt")
        finally:
            connections["default"].close()

    with transaction.atomic():
        first = files.storage.save("7.txt", ContentFile(b"first"))
        (other,) = all_at_once([save])
    assert (first, other != first) == ("7.txt", True)


def test_a_name_that_the_store_has_is_taken(files: Files) -> None:
    files.running.driver.put_content("/7.txt", b"old")
    assert files.save("7.txt").startswith("7_")
    assert files.stored("7.txt") == b"old"


def test_a_store_that_does_not_answer_costs_a_random_name(
    make_project: Callable[..., Project], database: Database, tmp_path: Path
) -> None:
    (tmp_path / "spool").mkdir()
    with valkey() as broker:
        make_project(Site(database, broker.url), SPOOL_DIR=tmp_path / "spool")
        storage = FerryStorage(timeout=0.05)
        names = [storage.save("seven.tar.gz", ContentFile(b""), max_length=23) for _ in range(2)]
        with pytest.raises(UnreachableError, match="no worker answered"):
            storage.exists("seven.tar.gz")
        connections["default"].close()
    assert len({*names, "seven.tar.gz"}) == 3
    assert all(name.endswith(".gz") and len(name) <= 23 for name in names)


def test_a_name_has_only_what_paths_may_hold(files: Files) -> None:
    assert files.storage.generate_filename("video/Ärger (1).mp4") == "video/Arger_1.mp4"


@pytest.mark.parametrize("name", ["/7.txt", "../7.txt", "a/../../7.txt"])
def test_no_name_leads_out_of_the_location(name: str) -> None:
    storage = FerryStorage(location="/media")
    for call in (storage.open, storage.size, storage.exists, storage.delete, storage.url, storage.listdir):
        with pytest.raises(SuspiciousFileOperation, match=r"out of /media"):
            call(name)
    with pytest.raises(SuspiciousFileOperation):
        storage.generate_filename("../7.txt")


# --- deletes ---------------------------------------------------------------------------------------------------------


def test_a_stored_file_is_deleted_and_its_name_is_free(files: Files) -> None:
    name = files.save("7.txt")
    assert files.ended(name) == "succeeded"
    files.storage.delete(name)
    assert not files.storage.exists(name)
    assert files.save("7.txt", b"again") == name, "its job waits for the delete"
    assert files.ended(name) == "succeeded"
    assert files.stored(name) == b"again"


def test_a_file_that_no_worker_has_begun_with_is_deleted_at_once(files: Files) -> None:
    name = files.paused("7.txt")
    job = files.job(name)
    spooled = files.spool_file(name)
    files.storage.delete(name)
    assert files.project.ferry.wait(job.id, timeout=60).state == "cancelled"
    assert not files.storage.exists(name)
    assert not spooled.exists()
    assert files.save("7.txt") == name


def test_a_delete_is_part_of_the_transaction(files: Files) -> None:
    name = files.paused("7.txt")
    with transaction.atomic():
        files.storage.delete(name)
        assert not files.storage.exists(name)
        transaction.set_rollback(True)
    assert files.read(name) == b"seven"
    assert files.job(name).state == "paused"


def test_a_delete_of_nothing_is_nothing_and_of_a_directory_refused(files: Files) -> None:
    files.running.driver.put_content("/old/7.txt", b"seven")
    before = len(files.project.job_ids())
    files.storage.delete("old/8.txt")
    with pytest.raises(IsADirectoryError):
        files.storage.delete("old")
    with pytest.raises(ValueError, match="must be given"):
        files.storage.delete("")
    assert len(files.project.job_ids()) == before
    files.storage.delete("old/7.txt")
    assert not files.storage.exists("old/7.txt")
    assert len(files.project.job_ids()) == before + 1


# --- the rest of Django's contract -----------------------------------------------------------------------------------


def test_a_directory_lists_what_is_stored_and_what_is_on_its_way(files: Files) -> None:
    files.storage = FerryStorage(location="/listed", timeout=60)  # which no job of another test writes to
    for path in ("/listed/a/1.txt", "/listed/a/b/2.txt", "/listed/c.txt"):
        files.running.driver.put_content(path, b"")
    files.paused("a/3.txt")
    files.paused("a/d/4.txt")
    with transaction.atomic():
        files.project.ferry.pause(files.project.ferry.delete("/unrelated").id)
    assert files.storage.listdir("a") == (["b", "d"], ["1.txt", "3.txt"])
    assert files.storage.listdir("") == (["a"], ["c.txt"])
    assert files.storage.listdir("none") == ([], [])


def test_uploads_and_text_are_saved_as_bytes(files: Files) -> None:
    with TemporaryUploadedFile("7.txt", "text/plain", 5, None) as upload:
        upload.write(b"seven")
        upload.seek(0)
        name = files.storage.save(None, upload)
    assert files.read(name) == b"seven"
    assert files.read(files.storage.save("8.txt", ContentFile("ächt"))) == "ächt".encode()


def test_what_it_cannot_do_it_says(files: Files) -> None:
    name = files.save("7.txt")
    with pytest.raises(NotImplementedError):
        files.storage.path(name)
    with pytest.raises(OSError, match="save"):
        files.storage.open(name, "wb")


def test_times_are_naive_without_time_zones(files: Files) -> None:
    name = files.save("7.txt")
    with override_settings(USE_TZ=False):
        assert files.storage.get_modified_time(name).tzinfo is None


def test_it_is_made_of_the_options_of_storages(files: Files) -> None:
    options = {"location": "/media/", "base_url": CDN, "job_options": {"labels": {"app": "shop"}}}
    storage = storages.create_storage({"BACKEND": "blobferry.django.storage.FerryStorage", "OPTIONS": options})
    with transaction.atomic():
        name = storage.save("7.txt", ContentFile(b"seven"))
    job = storage.job(name)
    assert (job.path, job.labels) == ("/media/7.txt", {"app": "shop"})


def test_a_migration_may_name_it() -> None:
    text, imports = MigrationWriter.serialize(FerryStorage(location="/media"))
    names: dict[str, Any] = {}
    exec("\n".join(imports), names)
    again = eval(text, names)
    assert (type(again), again.location) == (FerryStorage, "/media")


# --- URLs of spooled files -------------------------------------------------------------------------------------------


def test_an_upload_cannot_run_scripts_on_this_site(files: Files) -> None:
    for name, shown in (("7.png", "inline"), ("7.html", "attachment"), ("7.svg", "inline")):
        answer = Browser().get(files.storage.url(files.paused(name)))
        answer.close()
        assert answer["Content-Disposition"].startswith(shown)
        assert "sandbox" in answer["Content-Security-Policy"]
        assert answer["X-Content-Type-Options"] == "nosniff"


def test_a_url_expires_and_cannot_be_changed(files: Files) -> None:
    url = files.storage.url(files.paused("7.txt"))
    assert Browser().get(url.replace("spooled/", "spooled/x")).status_code == 404
    late = FerryStorage(expiry=-1).url("7.txt")
    assert Browser().get(late).status_code == 404
    assert Browser().post(url).status_code == 405
