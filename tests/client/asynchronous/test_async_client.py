"""AsyncClient has every method of Client, and each does what that does."""

import inspect
import io
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from starlette.datastructures import UploadFile

from blobferry import AsyncClient, Client, NewJob
from blobferry.errors import ConfigurationError, InvalidRequestError, JobNotFoundError, TooLateError, UnreachableError
from dev import async_methods
from tests.client.asynchronous.conftest import async_url
from tests.client.conftest import SOURCE, Site, run_python

pytestmark = pytest.mark.anyio

CHECKOUT = Path(__file__).parents[3]


def test_the_module_is_what_the_program_writes() -> None:
    """If this fails: make async-client."""
    assert async_methods.TARGET.read_text(encoding="utf-8") == async_methods.text()


def test_no_method_of_client_and_no_argument_is_missing() -> None:
    for name, method in inspect.getmembers(Client, callable):
        if not name.startswith("_") and name != "from_env":
            expected = list(inspect.signature(method).parameters)
            assert list(inspect.signature(getattr(AsyncClient, name)).parameters) == expected, name


@pytest.mark.long
def test_mypy_knows_the_arguments_and_the_answers(tmp_path: Path) -> None:
    program = tmp_path / "app.py"
    program.write_text(
        "from sqlalchemy.ext.asyncio import AsyncSession\n"
        "from sqlalchemy.orm import Session\n"
        "from blobferry import AsyncClient, Job\n"
        "async def good(ferry: AsyncClient, session: AsyncSession) -> Job:\n"
        "    job = await ferry.write_stream('/a', 'file:///a', priority=3, session=session)\n"
        "    async for seen in ferry.watch(job.id, heartbeat=15):\n"
        "        print(seen.bytes_done)\n"
        "    return await ferry.wait(job.id)\n"
        "async def bad(ferry: AsyncClient, session: Session) -> None:\n"
        "    await ferry.write_stream('/a', 'file:///a', prioritty=3)\n"
        "    await ferry.delete('/a', session=session)\n"
        "    await ferry.get(7)\n"
        "    ferry.get('7').state\n"
        "    (await ferry.get('7')).bytes_total\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--hide-error-context", str(program)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=170, check=False)
    wrong = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert wrong == {10, 11, 12, 13, 14}, done.stdout


async def test_a_job_is_submitted_published_read_and_controlled(ferry: AsyncClient, site: Site) -> None:
    job = await ferry.write_stream("/a", SOURCE, labels={"a": "b"}, idempotency_key="k")
    assert await ferry.write_stream("/a", SOURCE, labels={"a": "b"}, idempotency_key="k") == job
    assert site.message_ids() == [job.id]
    assert await ferry.get(job.id) == job
    assert await ferry.get_many([job.id]) == {job.id: job}
    assert await ferry.jobs(labels={"a": "b"}) == [job]
    assert (await ferry.situation(job.id)).job == job
    assert (await ferry.pause(job.id)).pause_requested
    site.change(job, state="succeeded")
    assert (await ferry.wait(job.id, timeout=10)).state == "succeeded"
    with pytest.raises(TooLateError):
        await ferry.cancel(job.id)


async def test_many_are_submitted_at_once(ferry: AsyncClient, site: Site) -> None:
    ids = await ferry.submit_many(NewJob.delete(f"/{number}") for number in range(3))
    assert list(await ferry.get_many(ids)) == list(ids)


async def test_errors_are_those_of_client(ferry: AsyncClient) -> None:
    with pytest.raises(JobNotFoundError):
        await ferry.get("nobody")
    with pytest.raises(InvalidRequestError, match="path"):
        await ferry.delete("a")
    with pytest.raises(UnreachableError, match="no worker answered"):
        await ferry.stat("/a", timeout=0.1)


async def test_it_is_used_again_after_it_was_closed(ferry: AsyncClient) -> None:
    job = await ferry.delete("/a")
    await ferry.close()
    assert await ferry.get(job.id) == job


async def test_its_client_is_for_threads(ferry: AsyncClient) -> None:
    job = await ferry.delete("/a")
    assert ferry.client.get(job.id) == job


async def test_it_is_made_from_the_environment(site: Site) -> None:
    async with AsyncClient.from_env(site.environment()) as ferry:
        assert (await ferry.delete("/a")).state == "queued"
    with pytest.raises(ConfigurationError, match="BLOBFERRY_DATABASE_URL"):
        AsyncClient.from_env({})


async def test_an_async_engine_names_the_database_of_its_own_connections(app_site: Site, driver: str) -> None:
    engine = create_async_engine(async_url(app_site, driver))
    async with AsyncClient(engine=engine) as ferry:
        job = await ferry.delete("/a")
    assert app_site.row(job)["state"] == "queued"
    await engine.dispose()


async def test_a_plain_engine_is_used_as_it_is(site: Site) -> None:
    engine = create_engine(site.url)
    async with AsyncClient(engine=engine) as ferry:
        assert (await ferry.delete("/a")).state == "queued"
    engine.dispose()


def test_a_database_that_nobody_else_can_open_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="in memory"):
        AsyncClient(engine=create_async_engine("sqlite+aiosqlite://"))
    with pytest.raises(ConfigurationError, match="engine: needs"):
        AsyncClient(engine="sqlite://")  # type: ignore[arg-type]


async def test_a_plain_session_is_refused_with_what_takes_it(ferry: AsyncClient, site: Site) -> None:
    with Session(site.database.engine) as session, pytest.raises(InvalidRequestError, match=r"blobferry\.Client takes"):
        await ferry.delete("/a", session=session)  # type: ignore[arg-type]


FORK = """
    import asyncio, os, warnings
    from blobferry import AsyncClient

    warnings.simplefilter("ignore")  # Python 3.12 says that a process with threads should not fork
    ferry = AsyncClient.from_env()

    async def submit(path):
        job = await ferry.delete(path)
        assert (await ferry.get(job.id)).path == path

    asyncio.run(submit("/a/before"))
    child = os.fork()
    asyncio.run(submit("/a/parent" if child else "/a/child"))
    asyncio.run(ferry.close())
    if not child:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_child_and_its_parent_both_go_on(site: Site) -> None:
    run_python(FORK, site.environment())
    assert len(site.rows()) == len(set(site.message_ids())) == 3


async def test_an_upload_is_spooled_for_the_job_that_writes_it(sqlite_site: Site, tmp_path: Path) -> None:
    """Starlette's UploadFile has methods to be awaited, and a file within."""
    upload = UploadFile(io.BytesIO(b"hello"), size=5, filename="a.mp4")
    await upload.read(2)
    async with AsyncClient(database_url=sqlite_site.url, spool_dir=tmp_path) as ferry:
        spooled = await ferry.spool(upload)
        job = await ferry.write_stream("/a", spooled)
    assert (spooled.path.parent, spooled.path.read_bytes(), job.source) == (tmp_path, b"hello", spooled.url)
