"""docs/flask.md: its snippets are an app that does what the page says."""

import pytest

from tests.client.conftest import Site
from tests.client.web.snippets import run_snippets


def test_the_snippets_are_an_app(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in sqlite_site.environment().items():
        monkeypatch.setenv(name, value)
    names = run_snippets("flask.md")
    web = names["app"].test_client()
    web.environ_base["HTTP_USER"] = "ann"
    job = web.post("/videos/7").get_json()
    assert sqlite_site.message_ids() == [job["id"]]
    assert web.get(f"/jobs/{job['id']}").get_json()["words"] == "queued"
    assert web.get(f"/jobs/{job['id']}", headers={"user": "bob"}).status_code == 404
    assert '"queued"' in web.get(f"/jobs/{job['id']}/events").text
    assert web.post(f"/jobs/{job['id']}/cancel").get_json()["words"] == "cancelling"
    with names["app"].app_context():
        names["db"].engine.dispose()
        names["ferry"].client.close()
