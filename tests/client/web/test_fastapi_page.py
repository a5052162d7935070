"""docs/fastapi.md: its snippets are an app that does what the page says."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from blobferry.sql.tables import jobs
from tests.client.conftest import Site
from tests.client.web.snippets import run_snippets


@pytest.fixture
def web_url(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in sqlite_site.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", sqlite_site.url.replace("sqlite:", "sqlite+aiosqlite:"))


@pytest.mark.usefixtures("web_url")
def test_the_snippets_are_an_app(sqlite_site: Site) -> None:
    names = run_snippets("fastapi.md")
    overrides = names["app"].dependency_overrides
    replaced = dict(overrides)
    overrides.clear()
    with TestClient(names["app"], headers={"user": "ann"}) as web:
        job = web.post("/videos/7").json()
        assert job["words"] == "queued"
        assert web.get(f"/jobs/{job['id']}").json()["id"] == job["id"]
        assert web.get(f"/jobs/{job['id']}", headers={"user": "bob"}).status_code == 404
        assert web.post(f"/jobs/{job['id']}/cancel").json()["words"] == "cancelling"
        with sqlite_site.database.begin() as session:
            session.execute(update(jobs).values(state="cancelled"))
        assert '"cancelled"' in web.get(f"/jobs/{job['id']}/events").text
        overrides |= replaced
        assert web.get(f"/jobs/{job['id']}").status_code == 200, "by the client that a test gave it"
        assert web.portal is not None
        web.portal.call(names["another"].close)
        web.portal.call(names["sessions"].kw["bind"].dispose)
