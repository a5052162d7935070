"""A file that is too large for a message is read by its signed URL."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.db import connections, transaction

from blobferry.django.storage import FerryStorage
from dev.services import moto, valkey
from dev.stack import Stack
from models import Database
from tests.client.conftest import MIB, Site
from tests.django.conftest import Project


@pytest.fixture
def storage(make_project: Callable[..., Project], sqlite_url: str, tmp_path: Path) -> Iterator[FerryStorage]:
    """Of a project whose worker stores in S3."""
    spool = tmp_path / "spool"
    spool.mkdir()
    with valkey() as broker, moto() as s3:
        stack = Stack(broker.url, sqlite_url, s3, tmp_path, settings={"BLOBFERRY_SPOOL_DIR": str(spool)})
        stack.prepare()
        with stack.worker():
            database = Database(sqlite_url)
            project = make_project(Site(database, broker.url), SPOOL_DIR=spool)
            storage = FerryStorage(timeout=60)
            yield storage
            project.ferry.close()
            connections["default"].close()
            database.close()


def test_it_is_opened_at_any_size_and_has_a_signed_url(storage: FerryStorage) -> None:
    data = bytes(number % 251 for number in range(3 * MIB))
    with transaction.atomic():
        name = storage.save("seven.bin", ContentFile(data))
    job = storage.job(name)
    assert job is not None
    assert storage.ferry.wait(job.id, timeout=60).state == "succeeded"
    url = storage.url(name)
    assert "X-Amz-Signature=" in url
    with storage.open(name) as file:
        assert file.read(10) == data[:10]
        file.seek(0)
        assert file.read() == data
    assert storage.size(name) == 3 * MIB
