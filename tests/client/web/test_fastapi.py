"""The router of blobferry.fastapi, in an app of its own."""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, HTTPException
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from blobferry import AsyncClient, Client, Job
from blobferry.errors import ConfigurationError
from blobferry.fastapi import Ferry, JobView, RequestedJob, ferry_lifespan, get_ferry, job_router
from blobferry.views.job_events import event_id
from tests.client.conftest import SOURCE, Site

User = Annotated[str, Header()]


def owner(job: RequestedJob, user: User) -> None:
    if (job.labels or {}).get("user") != user:
        raise HTTPException(404)


def staff(user: User) -> None:
    if user != "ann":
        raise HTTPException(403)


@contextmanager
def opened(site: Site, **options: Any) -> Iterator[TestClient]:
    """An app with the router."""
    app = FastAPI(lifespan=ferry_lifespan(AsyncClient(database_url=site.url, broker_url=site.broker_url)))
    app.include_router(job_router(**{"see": None} | options))

    @app.post("/videos")
    async def submit(ferry: Ferry) -> JobView:
        return JobView.of(await ferry.write_stream("/a", SOURCE, labels={"user": "ann"}))

    with TestClient(app) as web:
        yield web


@pytest.fixture
def web(sqlite_site: Site) -> Iterator[TestClient]:
    with opened(sqlite_site, change=staff, see=owner) as web:
        web.headers["user"] = "ann"
        yield web


@pytest.fixture
def job(client: Client) -> Job:
    return client.write_stream("/a", SOURCE, labels={"user": "ann"})


def events_in(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, id and data of the events; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], lines["id"], json.loads(lines["data"])))
    return found


def test_an_endpoint_takes_the_client(web: TestClient, sqlite_site: Site) -> None:
    answer = web.post("/videos").json()
    assert (answer["words"], answer["percent"]) == ("queued", None)
    assert sqlite_site.message_ids() == [answer["id"]]


def test_a_job_is_shown_as_its_view(web: TestClient, job: Job) -> None:
    answer = web.get(f"/jobs/{job.id}")
    assert answer.status_code == 200
    assert answer.json() == json.loads(json.dumps(JobView.of(job).as_json()).replace("+00:00", "Z"))


def test_an_unknown_job_is_not_found(web: TestClient) -> None:
    for path in ("/jobs/nobody", "/jobs/nobody/events"):
        answer = web.get(path)
        assert (answer.status_code, answer.json()["detail"]["code"]) == (404, "job_not_found")


def test_the_app_decides_who_sees_and_who_changes_a_job(web: TestClient, client: Client, job: Job) -> None:
    web.headers["user"] = "bob"
    for path in ("", "/events"):
        assert web.get(f"/jobs/{job.id}{path}").status_code == 404
    for path in ("cancel", "retry"):
        assert web.post(f"/jobs/{job.id}/{path}").status_code == 404
    own = client.delete("/b", labels={"user": "bob"})
    assert web.get(f"/jobs/{own.id}").status_code == 200
    assert web.post(f"/jobs/{own.id}/cancel").status_code == 403
    assert not client.get(own.id).cancel_requested


def test_without_a_dependency_for_it_nobody_changes_a_job(sqlite_site: Site, job: Job) -> None:
    with opened(sqlite_site) as web:
        assert web.get(f"/jobs/{job.id}").status_code == 200
        assert {web.post(f"/jobs/{job.id}/{act}").status_code for act in ("cancel", "retry")} == {404}


def test_cancel_and_retry_and_that_it_is_too_late(web: TestClient, sqlite_site: Site, job: Job) -> None:
    assert web.post(f"/jobs/{job.id}/cancel").json()["words"] == "cancelling"
    sqlite_site.change(job, state="failed", cancel_requested=False)
    assert web.post(f"/jobs/{job.id}/retry").json()["state"] == "retrying"
    sqlite_site.change(job, state="succeeded")
    answer = web.post(f"/jobs/{job.id}/cancel")
    assert (answer.status_code, answer.json()["detail"]["code"]) == (409, "too_late")


def test_events_end_with_the_job(web: TestClient, sqlite_site: Site, job: Job) -> None:
    sqlite_site.change(job, state="succeeded", size=0)
    answer = web.get(f"/jobs/{job.id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    ((name, event_id, data),) = events_in(answer.text)
    assert (name, data["state"], data["percent"], data["is_final"]) == ("job", "succeeded", 100, True)
    again = web.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": event_id})
    assert (again.status_code, again.text) == (204, ""), "an EventSource that is told so stays away"


def test_what_the_browser_has_seen_is_not_sent_again(sqlite_site: Site, client: Client, job: Job) -> None:
    finish = threading.Timer(0.5, lambda: sqlite_site.change(job, state="failed", error_code="x", error_message="Why"))
    with opened(sqlite_site, heartbeat=0.1) as web:
        finish.start()
        text = web.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": event_id(client.get(job.id))}).text
        finish.join()
    assert [data["state"] for _, _, data in events_in(text)] == ["failed"]
    assert "Why" not in text


def test_the_messages_of_errors_are_shown_if_the_app_says_so(sqlite_site: Site, job: Job) -> None:
    sqlite_site.change(job, state="failed", error_code="x", error_message="why")
    with opened(sqlite_site, explains=True) as web:
        assert web.get(f"/jobs/{job.id}").json()["error_message"] == "why"


def test_a_database_that_is_away_is_no_fault_of_the_browser(tmp_path: Any) -> None:
    app = FastAPI(lifespan=ferry_lifespan(AsyncClient(database_url=f"sqlite:///{tmp_path}/none.db")))
    app.include_router(job_router(see=None))
    with TestClient(app) as web:
        answer = web.get("/jobs/7")
    assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "unreachable")
    assert "none.db" not in answer.text


def test_openapi_describes_jobs_and_refusals(web: TestClient) -> None:
    described = web.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    assert {"JobView", "Refused"} <= set(schemas)
    assert set(schemas["JobView"]["properties"]) == set(JobView.__dataclass_fields__)
    assert {"200", "404", "409", "503"} <= set(described["paths"]["/jobs/{job_id}/cancel"]["post"]["responses"])
    assert "JobView" in json.dumps(described["paths"]["/jobs/{job_id}/events"])


def test_without_a_lifespan_the_error_says_what_is_missing() -> None:
    app = FastAPI()
    app.include_router(job_router(see=None))
    with pytest.raises(ConfigurationError, match=r"lifespan=ferry_lifespan\(\)"):
        TestClient(app).get("/jobs/7")


def test_an_app_has_a_lifespan_of_its_own(sqlite_site: Site, monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    for name, value in sqlite_site.environment().items():
        monkeypatch.setenv(name, value)
    begun = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with ferry_lifespan()(app):
            begun.append(app)
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(job_router(see=None), prefix="/api")
    with TestClient(app) as web:
        assert web.get(f"/api/jobs/{job.id}").json()["id"] == job.id
    assert begun == [app]


def test_a_starlette_app_takes_the_client_and_mounts_the_routes(sqlite_site: Site, job: Job) -> None:
    async def home(request: Request) -> PlainTextResponse:
        return PlainTextResponse((await (await get_ferry(request)).get(job.id)).id)

    jobs = FastAPI()
    jobs.include_router(job_router(see=None))
    client = AsyncClient(database_url=sqlite_site.url)
    app = Starlette(lifespan=ferry_lifespan(client), routes=[Route("/", home), Mount("/api", jobs)])
    with TestClient(app) as web:
        assert web.get("/").text == job.id
        assert web.get(f"/api/jobs/{job.id}").json()["id"] == job.id


def test_a_test_of_the_app_gives_it_another_client(sqlite_site: Site, job: Job) -> None:
    app = FastAPI()
    app.include_router(job_router(see=None))
    client = AsyncClient(database_url=sqlite_site.url)
    app.dependency_overrides[get_ferry] = lambda: client
    assert TestClient(app).get(f"/jobs/{job.id}").status_code == 200
