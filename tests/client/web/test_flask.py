"""The extension and the blueprint of blobferry.flask, in an app of its own."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from flask import Flask, abort, request
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy
from werkzeug.serving import BaseWSGIServer, make_server

from blobferry import Client, Job
from blobferry.errors import ConfigurationError
from blobferry.flask import FlaskFerry, JobView, job_blueprint
from blobferry.views.job_events import event_id
from dev.services import wait_until
from dev.serving import served
from tests.client.conftest import SOURCE, Site

ferry = FlaskFerry()


def owner(job: Job) -> None:
    if (job.labels or {}).get("user") != request.headers.get("user"):
        abort(404)


def staff(job: Job) -> None:
    if request.headers.get("user") != "ann":
        abort(403)


def app_of(site: Site, **options: Any) -> Flask:
    app = Flask(__name__)
    app.config.update(site.environment())
    ferry.init_app(app)
    app.register_blueprint(job_blueprint(**{"see": None} | options))
    app.get("/ping")(lambda: "pong")
    return app


@pytest.fixture
def web(sqlite_site: Site) -> FlaskClient:
    web = app_of(sqlite_site, see=owner, change=staff).test_client()
    web.environ_base["HTTP_USER"] = "ann"
    return web


@pytest.fixture
def job(client: Client) -> Job:
    return client.write_stream("/a", SOURCE, labels={"user": "ann"})


def test_a_job_is_shown_as_its_view(web: FlaskClient, job: Job) -> None:
    answer = web.get(f"/jobs/{job.id}")
    assert (answer.status_code, answer.json) == (200, json.loads(json.dumps(JobView.of(job).as_json())))


def test_an_unknown_job_is_not_found(web: FlaskClient) -> None:
    for path in ("/jobs/nobody", "/jobs/nobody/events"):
        answer = web.get(path)
        assert (answer.status_code, answer.get_json()["detail"]["code"]) == (404, "job_not_found")


def test_the_app_decides_who_sees_and_who_changes_a_job(web: FlaskClient, client: Client, job: Job) -> None:
    web.environ_base["HTTP_USER"] = "bob"
    assert {web.get(f"/jobs/{job.id}{path}").status_code for path in ("", "/events")} == {404}
    assert {web.post(f"/jobs/{job.id}/{act}").status_code for act in ("cancel", "retry")} == {404}
    own = client.delete("/b", labels={"user": "bob"})
    assert web.get(f"/jobs/{own.id}").status_code == 200
    assert web.post(f"/jobs/{own.id}/cancel").status_code == 403
    assert not client.get(own.id).cancel_requested


def test_without_a_function_for_it_nobody_changes_a_job(sqlite_site: Site, job: Job) -> None:
    web = app_of(sqlite_site).test_client()
    assert web.get(f"/jobs/{job.id}").status_code == 200
    assert {web.post(f"/jobs/{job.id}/{act}").status_code for act in ("cancel", "retry")} == {404}


def test_cancel_and_retry_and_that_it_is_too_late(web: FlaskClient, sqlite_site: Site, job: Job) -> None:
    assert web.post(f"/jobs/{job.id}/cancel").get_json()["words"] == "cancelling"
    sqlite_site.change(job, state="failed", cancel_requested=False)
    assert web.post(f"/jobs/{job.id}/retry").get_json()["state"] == "retrying"
    sqlite_site.change(job, state="succeeded")
    answer = web.post(f"/jobs/{job.id}/cancel")
    assert (answer.status_code, answer.get_json()["detail"]["code"]) == (409, "too_late")


def test_events_end_with_the_job(web: FlaskClient, sqlite_site: Site, job: Job) -> None:
    sqlite_site.change(job, state="failed", error_code="x", error_message="Why")
    answer = web.get(f"/jobs/{job.id}/events")
    assert (answer.mimetype, answer.headers["X-Accel-Buffering"]) == ("text/event-stream", "no")
    (data,) = re.findall("^data: (.*)$", answer.text, re.MULTILINE)
    assert (json.loads(data)["is_final"], "Why" in data) == (True, False)
    (last,) = re.findall("^id: (.*)$", answer.text, re.MULTILINE)
    again = web.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": last})
    assert (again.status_code, again.text) == (204, "")


def test_what_the_browser_has_seen_is_not_sent_again(sqlite_site: Site, client: Client, job: Job) -> None:
    web = app_of(sqlite_site, heartbeat=0.1).test_client()
    seen = {"Last-Event-ID": event_id(client.get(job.id))}
    stream: Iterator[Any] = iter(web.get(f"/jobs/{job.id}/events", headers=seen, multithread=True).response)
    assert [next(stream) for _ in range(2)] == [b": heartbeat\n\n"] * 2
    sqlite_site.change(job, state="succeeded", size=0)
    assert re.findall(r'"state": "(\w+)"', b"".join(stream).decode()) == ["succeeded"]


def test_a_stream_keeps_nothing_of_the_request(sqlite_site: Site, job: Job) -> None:
    """Flask-SQLAlchemy's session would keep its connection for as long as the job waits."""
    app = app_of(sqlite_site, heartbeat=0.1)
    ended = threading.Event()
    app.teardown_appcontext(lambda error: ended.set())
    with serving(app) as server, listen(server, f"/jobs/{job.id}/events") as browser:
        received(browser, b": heartbeat")
        assert ended.is_set()


def test_a_server_without_threads_holds_no_stream_open(sqlite_site: Site, job: Job) -> None:
    """It would answer nobody else. The browser comes back by itself."""
    web = app_of(sqlite_site).test_client()
    answer = web.get(f"/jobs/{job.id}/events", multithread=False)
    assert re.findall(r'"state": "(\w+)"', answer.text) == ["queued"]
    assert "retry: 3000\n" in answer.text


def test_a_database_that_is_away_is_no_fault_of_the_browser(tmp_path: Any) -> None:
    app = Flask(__name__)
    FlaskFerry(app, client=Client(database_url=f"sqlite:///{tmp_path}/none.db"))
    app.register_blueprint(job_blueprint(see=None))
    answer = app.test_client().get("/jobs/7")
    assert (answer.status_code, answer.get_json()["detail"]["code"]) == (503, "unreachable")
    assert "none.db" not in answer.text


def test_the_environment_is_what_an_app_without_settings_of_its_own_uses(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sqlite_site.environment().items():
        monkeypatch.setenv(name, value)
    app = Flask(__name__)
    own = FlaskFerry(app)
    with app.app_context():
        job = own.client.delete("/a")
    assert sqlite_site.message_ids() == [job.id]


def test_what_the_config_of_an_app_lacks_is_taken_from_the_environment(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOBFERRY_BROKER_URL", sqlite_site.broker_url)
    monkeypatch.setenv("BLOBFERRY_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    app = Flask(__name__)
    app.config["BLOBFERRY_DATABASE_URL"] = sqlite_site.url
    own = FlaskFerry(app)
    with app.app_context():
        job = own.client.delete("/a")
    assert sqlite_site.message_ids() == [job.id]


def test_the_config_of_an_app_may_hold_the_storages_whose_urls_it_signs(sqlite_site: Site) -> None:
    storage = {"bucket": "media", "region": "eu-central-1", "accesskey": "a", "secretkey": "b", "secure": True}
    app = Flask(__name__)
    app.config.update(BLOBFERRY_DATABASE_URL=sqlite_site.url, BLOBFERRY_STORAGES={"default": storage})
    own = FlaskFerry(app)
    with app.app_context():
        assert own.client.url_for("/a").startswith("https://media.s3.eu-central-1.amazonaws.com/a?")


def test_an_app_without_the_extension_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="app_context"):
        _ = ferry.client
    with Flask(__name__).app_context(), pytest.raises(ConfigurationError, match=r"FlaskFerry\(app\)"):
        _ = ferry.client


def test_a_job_joins_the_session_of_flask_sqlalchemy(site: Site) -> None:
    app = app_of(site)
    app.config["SQLALCHEMY_DATABASE_URI"] = site.url
    database = SQLAlchemy(app)
    with app.app_context():
        ferry.client.write_stream("/a", SOURCE, session=database.session)
        database.session.rollback()
        kept = ferry.client.write_stream("/b", SOURCE, session=database.session)
        assert site.messages() == []
        database.session.commit()
        database.session.remove()
        database.engine.dispose()
        ferry.client.close()
    assert [row["id"] for row in site.rows()] == site.message_ids() == [kept.id]


@contextmanager
def serving(app: Flask) -> Iterator[BaseWSGIServer]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    with served(server):
        yield server


def listen(server: BaseWSGIServer, path: str) -> socket.socket:
    browser = socket.create_connection(("127.0.0.1", server.server_port), timeout=30)
    browser.sendall(f"GET {path} HTTP/1.1\r\nHost: app\r\n\r\n".encode())
    return browser


def received(browser: socket.socket, wanted: bytes | None = None) -> bytes:
    """What the app sends, up to what is wanted, or to the end."""
    found = b""
    while wanted is None or wanted not in found:
        more = browser.recv(65536)
        if wanted is None and not more:
            break
        assert more, found
        found += more
    return found


def test_more_listeners_than_threads_to_spare_are_sent_away_with_the_news(sqlite_site: Site, job: Job) -> None:
    app = app_of(sqlite_site, listeners=2, heartbeat=0.1)
    with serving(app) as server:
        with ExitStack() as browsers:
            for _ in range(2):
                received(browsers.enter_context(listen(server, f"/jobs/{job.id}/events")), b": heartbeat")
            for _ in range(45):
                with listen(server, f"/jobs/{job.id}/events") as browser:
                    assert b'"queued"' in received(browser), "and its stream has ended"
            with listen(server, "/ping") as browser:
                received(browser, b"pong")
        shared = app.extensions["blobferry"]._reader.shared
        wait_until(lambda: not shared._watched, 10, "the app has noticed that the browsers have gone")
