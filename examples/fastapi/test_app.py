"""The app's tests, by Blobferry's test kit: no worker, no broker, no store."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from blobferry import AsyncClient
from blobferry.testing import FerryKit, create_tables


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A database and a spool for the tests alone, before the app is imported."""
    directory = tmp_path_factory.mktemp("films")
    os.environ["BLOBFERRY_DATABASE_URL"] = f"sqlite+aiosqlite:///{directory}/films.db"
    os.environ["BLOBFERRY_BROKER_URL"] = "redis://127.0.0.1:1/0"  # where nobody listens
    os.environ["BLOBFERRY_SPOOL_DIR"] = str(directory)
    create_tables(create_engine(f"sqlite:///{directory}/films.db"))


@pytest.fixture
def blobferry_client(surroundings: None) -> AsyncClient:
    """The app's client, whose jobs the kit records."""
    import app  # noqa: PLC0415

    found: AsyncClient = app.ferry
    return found


@pytest.fixture
def web(blobferry_kit: FerryKit) -> Iterator[TestClient]:
    """The app."""
    from app import app  # noqa: PLC0415

    with TestClient(app) as web:
        yield web


def test_an_upload_is_stored(web: TestClient, blobferry_kit: FerryKit, tmp_path: Path) -> None:
    page = web.post("/films", files={"film": ("my holiday.mp4", b"bytes of a film")})
    assert "my holiday.mp4" in page.text
    assert "queued" in page.text
    job = blobferry_kit.assert_enqueued("write_stream", labels={"app": "films"}, count=1)
    assert str(job.path).endswith("/my_holiday.mp4")
    assert web.get("/films/1").status_code == 404

    assert [job.state for job in blobferry_kit.drain()] == ["succeeded"]
    assert web.portal is not None
    web.portal.call(blobferry_kit.arun_handlers)
    assert "succeeded" in web.get("/").text
    assert web.get("/films/1", follow_redirects=False).status_code == 307


def test_a_form_without_a_file_enqueues_nothing(web: TestClient, blobferry_kit: FerryKit) -> None:
    assert web.post("/films", files={"film": ("", b"")}).status_code == 422
    blobferry_kit.refute_enqueued()
