"""Functions of an app that are called for jobs that have ended: by state, at least once, in threads and event loops."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blobferry import AsyncClient, Client, Job
from blobferry.errors import InvalidRequestError
from dev.waiting import wait_until
from models import queries
from tests.client.conftest import CHECKOUT, Site
from tests.client.test_finished import end_now, run
from tests.models.rows import Rows


class Enough(Exception):
    """Ends ``handle``, which otherwise goes on for ever."""


def begin(client: Client, name: str = "shop") -> None:
    """Let the listener of this name begin with what ends from now on."""
    client.listen(name)


def cancel_now(site: Site, job_id: str) -> None:
    """End a running job as cancelled."""
    job = Rows(site.database).owned(job_id)
    with site.database.begin() as session:
        queries.cancel_job(session, job)


def test_functions_are_called_in_their_order_and_by_state(ferry: Client, site: Site) -> None:
    called: list[str] = []

    @ferry.on("succeeded")
    def stored(job: Job) -> None:
        called.append(f"stored {job.path}")

    @ferry.on("failed", "cancelled")
    def lost(job: Job) -> None:
        called.append(f"lost {job.path}")

    @ferry.on()
    def ended(job: Job) -> None:
        called.append(f"ended {job.path}")
        if job.path == "/3":
            raise Enough

    begin(ferry)
    end_now(site, *run(site, "/1"))
    cancel_now(site, *run(site, "/2"))
    end_now(site, *run(site, "/3"))
    with pytest.raises(Enough):
        ferry.handle("shop", interval=0.01)
    assert called == ["stored /1", "ended /1", "lost /2", "ended /2", "stored /3", "ended /3"]


def test_what_a_function_failed_for_is_handed_on_again(client: Client, sqlite_site: Site) -> None:
    called: list[str | None] = []

    @client.on("succeeded")
    def stored(job: Job) -> None:
        called.append(job.path)
        if called.count("/1") < 2 or job.path == "/2":
            raise Enough

    begin(client)
    end_now(sqlite_site, *run(sqlite_site, "/1"))
    with pytest.raises(Enough):
        client.handle("shop", interval=0.01)
    end_now(sqlite_site, *run(sqlite_site, "/2"))
    with pytest.raises(Enough):
        client.handle("shop", interval=0.01)
    assert called == ["/1", "/1", "/2"]


def test_an_event_loop_awaits_coroutine_functions(ferry: Client, site: Site) -> None:
    called: list[str | None] = []

    async def work() -> None:
        async with AsyncClient(database_url=site.url) as own:

            @own.on("succeeded")
            async def stored(job: Job) -> None:
                await asyncio.sleep(0)
                called.append(job.path)

            @own.on("succeeded")
            def plainly(job: Job) -> None:
                if job.path == "/2":
                    raise Enough

            await own.handle("shop", interval=0.01)

    begin(ferry)
    end_now(site, *run(site, "/1", "/2"))
    with pytest.raises(Enough):
        asyncio.run(work())
    assert called == ["/1", "/2"]


def test_an_event_loop_listens_and_a_cancel_leaves_the_page_unread(client: Client, sqlite_site: Site) -> None:
    async def listen(number: int) -> list[str | None]:
        found = []
        async with AsyncClient(database_url=sqlite_site.url) as own:
            async with asyncio.timeout(20):
                async for job in own.listen("shop", interval=0.01):
                    found.append(job.path)
                    if len(found) == number:
                        break
        return found

    begin(client)
    end_now(sqlite_site, *run(sqlite_site, "/1", "/2"))
    assert asyncio.run(listen(2)) == ["/1", "/2"]
    assert asyncio.run(listen(1)) == ["/1"], "nobody has asked for what follows"

    async def cancelled() -> None:
        task = asyncio.create_task(listen(3))
        done, waiting = await asyncio.wait([task], timeout=0.5)
        assert (done, waiting) == (set(), {task})
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    end_now(sqlite_site, *run(sqlite_site, "/3"))
    assert asyncio.run(listen(1)) == ["/3"], "the page before was followed by a look for another one"


def test_mistakes_are_refused_at_once(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="state: needs some of cancelled, failed, succeeded, got 'done'"):
        client.on("done")
    with pytest.raises(InvalidRequestError, match="no function is there to call"):
        client.handle("shop")

    @client.on("succeeded")
    async def stored(job: Job) -> None: ...

    with pytest.raises(InvalidRequestError, match="stored is a coroutine function, which needs an AsyncClient"):
        client.handle("shop")


APP = """
from blobferry import {kind}

ferry = {kind}.from_env()

@ferry.on("succeeded")
{define} stored(job):
    print("stored", job.path, flush=True)
"""


@pytest.mark.parametrize(("kind", "define"), [("Client", "def"), ("AsyncClient", "async def")])
def test_the_command_calls_the_functions_of_an_app(
    kind: str, define: str, client: Client, sqlite_site: Site, tmp_path: Path
) -> None:
    (tmp_path / "shop_jobs.py").write_text(APP.format(kind=kind, define=define))
    begin(client)
    end_now(sqlite_site, *run(sqlite_site, "/1"))
    command = [sys.executable, "-m", "blobferry", "listen", "shop", "--app", "shop_jobs:ferry", "--interval", "0.05"]
    environment = os.environ | sqlite_site.environment() | {"PYTHONPATH": str(CHECKOUT)}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=output, stderr=output)
    try:
        wait_until(lambda: log.read_text() == "listening as shop\nstored /1\n", 30, "the function is called")
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.mark.parametrize("where", ["no_such_module:ferry", "os:ferry", "os", ":"])
def test_an_app_that_is_not_there_is_named(where: str, sqlite_site: Site) -> None:
    command = [sys.executable, "-m", "blobferry", "listen", "shop", "--app", where]
    environment = os.environ | sqlite_site.environment()
    done = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"'{where}'" in done.stderr
    assert "Traceback" not in done.stderr
