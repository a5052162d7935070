"""The app's tests, by Blobferry's test kit: no worker, no broker, no store."""

import os
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from sqlalchemy import create_engine

from blobferry import Client
from blobferry.testing import FerryKit, create_tables


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A database and a spool for the tests alone, before the app is imported."""
    directory = tmp_path_factory.mktemp("films")
    os.environ["BLOBFERRY_DATABASE_URL"] = f"sqlite:///{directory}/films.db"
    os.environ["BLOBFERRY_BROKER_URL"] = "redis://127.0.0.1:1/0"  # where nobody listens
    os.environ["BLOBFERRY_SPOOL_DIR"] = str(directory)
    create_tables(create_engine(os.environ["BLOBFERRY_DATABASE_URL"]))


@pytest.fixture
def blobferry_client(surroundings: None) -> Client:
    """The app's client, whose jobs the kit records."""
    import app  # noqa: PLC0415

    found: Client = app.client
    return found


@pytest.fixture
def web(blobferry_kit: FerryKit) -> FlaskClient:
    """The app."""
    from app import app  # noqa: PLC0415

    client: FlaskClient = app.test_client()
    return client


def test_an_upload_is_stored(web: FlaskClient, blobferry_kit: FerryKit) -> None:
    form = {"film": (BytesIO(b"bytes of a film"), "my holiday.mp4")}
    page = web.post("/films", data=form, follow_redirects=True)
    assert "my holiday.mp4" in page.text
    assert "queued" in page.text
    job = blobferry_kit.assert_enqueued("write_stream", labels={"app": "films"}, count=1)
    assert str(job.path).endswith("/my_holiday.mp4")
    assert web.get("/films/1").status_code == 404

    assert [job.state for job in blobferry_kit.drain()] == ["succeeded"]
    blobferry_kit.run_handlers()
    assert "succeeded" in web.get("/").text
    assert web.get("/films/1").status_code == 302


def test_a_form_without_a_file_enqueues_nothing(web: FlaskClient, blobferry_kit: FerryKit) -> None:
    assert web.post("/films", data={"film": (BytesIO(), "")}).status_code == 422
    blobferry_kit.refute_enqueued()
