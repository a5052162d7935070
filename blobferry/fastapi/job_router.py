"""The routes of jobs: one job, its events as they happen, cancel and retry. Each behind the app's own dependencies."""

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.sse import EventSourceResponse, ServerSentEvent

from blobferry.errors import BlobferryError
from blobferry.fastapi.lifespan import Ferry
from blobferry.values import Job
from blobferry.views.http_refusals import shown, status_of
from blobferry.views.job_events import EVENT, HEARTBEAT, RETRY, JobEvents, is_all_known
from blobferry.views.job_view import JobView

Dependency = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class RefusalView:
    """Why it was refused."""

    code: str  #: stable, such as "job_not_found"
    message: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The body of an answer that is an error."""

    detail: RefusalView


_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Refused}, 503: {"model": Refused}}


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what Client raises into an HTTP error."""
    try:
        yield
    except BlobferryError as error:
        status = status_of(error)
        if status == 500:  # the app's own mistake, for its log
            raise
        raise HTTPException(status, shown(error)) from error


async def get_job(job_id: str, ferry: Ferry) -> Job:
    """The job that the path names, as a dependency; 404 if there is none. It is read once per request."""
    with _refusals():
        return await ferry.get(job_id)


#: The type of a parameter that takes the job named by the path, for dependencies that decide by its labels or path.
RequestedJob = Annotated[Job, Depends(get_job)]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID")]


async def _not_all_known(job: RequestedJob, last_event_id: LastEventId = None) -> None:
    """Answer 204 to a browser that comes back after the end: it then stays away."""
    if is_all_known(job, last_event_id):
        raise HTTPException(204)


def job_router(
    *,
    see: Dependency | None,
    change: Dependency | None = None,
    prefix: str = "/jobs",
    heartbeat: float = HEARTBEAT,
    explains: bool = False,
) -> APIRouter:
    """``GET /jobs/{job_id}`` and ``/jobs/{job_id}/events``; with ``change`` also ``POST …/cancel`` and ``…/retry``.

    Args:
        see: the app's dependency that refuses whoever may not see the job: it raises an HTTPException, and may take the
            job as a ``RequestedJob``. None: everybody who knows the id may see the job.
        change: the dependency that refuses whoever may not cancel and retry it, after ``see``.
        prefix: of the paths.
        heartbeat: seconds after which an idle stream of events shows that it is alive.
        explains: show the messages of errors, which may name hosts and directories; else only their codes.
    """
    seen = [Depends(see)] if see else []
    router = APIRouter(prefix=prefix, tags=["jobs"], responses=_REFUSALS, dependencies=seen)

    @router.get("/{job_id}")
    async def show_job(job: RequestedJob) -> JobView:
        """The job as it is now."""
        return JobView.of(job, explains=explains)

    @router.get(
        "/{job_id}/events",
        response_class=EventSourceResponse,
        dependencies=[Depends(_not_all_known)],
        responses={204: {"description": "The job has ended, and its last event has been received."}},
    )
    async def show_job_events(
        job: RequestedJob, ferry: Ferry, last_event_id: LastEventId = None
    ) -> AsyncIterator[JobView | ServerSentEvent]:
        """The job now and after each change, until it has ended: server-sent events named "job"."""
        events = JobEvents(last_event_id, explains=explains)
        # Patient: a browser that comes back while the database is away, and is told so, stays away for ever.
        watch = cast(Any, ferry.watch(job.id, patience=math.inf, heartbeat=heartbeat))
        try:
            async with aclosing(watch):
                async for now in watch:
                    yield _sent(events, now)
        except BlobferryError as error:  # it is gone; the browser comes back, and is told so by that answer
            yield ServerSentEvent(comment=shown(error)["code"])

    if change is not None:
        may_change: dict[str, Any] = {
            "dependencies": [Depends(change)],
            "responses": {409: {"model": Refused, "description": "Too late for that."}},
        }

        @router.post("/{job_id}/cancel", **may_change)
        async def cancel_job(job_id: str, ferry: Ferry) -> JobView:
            """End the job, and remove what it has sent."""
            with _refusals():
                return JobView.of(await ferry.cancel(job_id), explains=explains)

        @router.post("/{job_id}/retry", **may_change)
        async def retry_job(job_id: str, ferry: Ferry) -> JobView:
            """Let a failed job continue; others are unchanged."""
            with _refusals():
                return JobView.of(await ferry.retry(job_id), explains=explains)

    return router


def _sent(events: JobEvents, job: Job) -> ServerSentEvent:
    event = events.of(job)
    if event is None:
        return ServerSentEvent(comment="heartbeat")
    return ServerSentEvent(data=event.view, event=EVENT, id=event.id, retry=RETRY)
