"""A real uvicorn, and many browsers that listen to jobs that wait: the app answers, and they cost it little."""

import json
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from blobferry import NewJob
from blobferry.aio.call_threads import DATABASE_THREADS
from blobferry.jobs.shared_reading import POLL_INTERVAL
from dev.process import Service, ServiceProcess, free_port, running
from dev.services import wait_until
from tests.client.conftest import Site

CHECKOUT = Path(__file__).parents[3]
DRIVERS = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebApp(Service):
    """The app in a process of its own."""

    port: int

    def call(self, path: str, method: str = "GET") -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)

    def listen(self, job_id: str) -> socket.socket:
        """A browser that listens, once it has received its first event."""
        browser = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        browser.sendall(f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: app\r\n\r\n".encode())
        return browser


def received(browser: socket.socket, wanted: bytes) -> bytes:
    """What the app sends, up to what is wanted."""
    found = b""
    while wanted not in found:
        more = browser.recv(65536)
        assert more, found
        found += more
    return found


@contextmanager
def serving(site: Site, tmp_path: Path, heartbeat: float = 15) -> Iterator[WebApp]:
    port, url = free_port(), make_url(site.url)
    own_url = url.set(drivername=DRIVERS[url.get_backend_name()]).render_as_string(hide_password=False)
    environment = {"APP_DATABASE_URL": own_url, "HEARTBEAT": str(heartbeat), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "uvicorn", "tests.client.web.listening_app:app", f"--port={port}"]
    process = ServiceProcess(
        "uvicorn",
        [*command, "--timeout-graceful-shutdown=1"],
        log=tmp_path / "uvicorn.log",
        answers=lambda: app.call("/ping"),
        port=port,
        environment=site.environment() | environment,
    )
    app = WebApp(port=port, processes=(process,))
    with running(app):
        yield app


def test_a_row_of_the_app_and_its_job_are_one_transaction(site: Site, tmp_path: Path) -> None:
    with serving(site, tmp_path) as app:
        job = app.call("/videos", "POST")
        with pytest.raises(HTTPError, match="500"):
            app.call("/videos?fails=true", "POST")
    assert [row["id"] for row in site.rows()] == site.message_ids() == [job["id"]]
    with site.database.begin() as session:
        assert session.scalar(text("SELECT count(*) FROM blobferry_tombstones")) == 1


def test_45_listeners_of_waiting_jobs_do_not_keep_the_app_from_answering(site: Site, tmp_path: Path) -> None:
    """Before, they took all threads of the app, which answered nobody any more."""
    with serving(site, tmp_path, heartbeat=0.2) as app, ExitStack() as browsers:
        job = app.call("/videos", "POST")
        listening = [browsers.enter_context(app.listen(job["id"])) for _ in range(45)]
        for browser in listening:
            assert b"event: job" in received(browser, b"\nid: ")
        received(listening[0], b": heartbeat")
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert app.call("/ping") == "pong"
            took.append(time.monotonic() - began)
        assert app.call(f"/jobs/{job['id']}")["words"] == "queued"
        assert sorted(took)[10] < 2, "of 20 answers; the machine may be busy with something else"
        with site.database.begin() as session:
            session.execute(text("UPDATE blobferry_jobs SET state = 'succeeded', size = 0"))
        for browser in listening:
            assert b'"percent":100' in received(browser, b"\r\n0\r\n\r\n").replace(b": ", b":"), "its stream ends"


def test_a_browser_that_goes_is_noticed(sqlite_site: Site, tmp_path: Path) -> None:
    with serving(sqlite_site, tmp_path) as app:
        job = app.call("/videos", "POST")
        with app.listen(job["id"]) as browser:
            received(browser, b"\nid: ")
            assert app.call("/figures")["watched"] == 1
        wait_until(lambda: app.call("/figures")["watched"] == 0, 10, "the app has noticed")


def test_a_restart_does_not_wait_for_who_listens(sqlite_site: Site, tmp_path: Path) -> None:
    """With uvicorn's --timeout-graceful-shutdown, as the docs say."""
    with serving(sqlite_site, tmp_path) as app:
        job = app.call("/videos", "POST")
        with app.listen(job["id"]) as browser:
            received(browser, b"\nid: ")
            os.kill(app.processes[0].pid, signal.SIGTERM)
            wait_until(lambda: not psutil.pid_exists(app.processes[0].pid) or _is_over(app), 30, "uvicorn has ended")


def _is_over(app: WebApp) -> bool:
    return psutil.Process(app.processes[0].pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.no_cover
@pytest.mark.long
def test_a_thousand_listeners_cost_one_query_per_interval_and_no_thread_each(
    postgres_site: Site, tmp_path: Path
) -> None:
    with postgres_site.client(broker_url=None) as client:
        ids = client.submit_many(NewJob.delete(f"/{number}") for number in range(1000))
    with serving(postgres_site, tmp_path) as app:
        with ExitStack() as browsers:
            listening = [browsers.enter_context(app.listen(job_id)) for job_id in ids]
            for browser in listening:
                received(browser, b"\nid: ")
            app.call("/figures")
            figures = wait_until(lambda: enough(app.call("/figures")), 60, "five readings")
            assert figures["watched"] == 1000
            assert figures["queries"] <= figures["seconds"] / POLL_INTERVAL + 1
            assert figures["threads"] < DATABASE_THREADS + 8
        wait_until(lambda: app.call("/figures")["watched"] == 0, 60, "the app has noticed that all have gone")


def enough(figures: dict[str, Any]) -> dict[str, Any]:
    return figures if figures["queries"] >= 5 else {}
