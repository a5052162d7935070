"""The routes of jobs: one job, its events as they happen, cancel and retry. Each behind a function of the app."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import BoundedSemaphore
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue

from blobferry.client import Client
from blobferry.errors import BlobferryError
from blobferry.flask.flask_ferry import client_of_current_app
from blobferry.values import Job
from blobferry.views.http_refusals import shown, status_of
from blobferry.views.job_events import EVENT, HEARTBEAT, RETRY, JobEvents, is_all_known
from blobferry.views.job_view import JobView

Check = Callable[[Job], object]
LISTENERS: Final = 4  #: streams that a process holds open unless the app says how many threads it can spare


def job_blueprint(
    *,
    see: Check | None,
    change: Check | None = None,
    url_prefix: str = "/jobs",
    heartbeat: float = HEARTBEAT,
    listeners: int = LISTENERS,
    explains: bool = False,
) -> Blueprint:
    """``GET /jobs/JOB`` and ``/jobs/JOB/events``; with ``change`` also ``POST …/cancel`` and ``…/retry``.

    Args:
        see: called with the job, in the request, to refuse whoever may not see it: it aborts. None: everybody who knows
            the id may see the job.
        change: refuses whoever may not cancel and retry it, after ``see``.
        url_prefix: of the paths.
        heartbeat: seconds after which an idle stream of events is written to, which shows that a browser has gone.
        listeners: streams of events that a process holds open, each of which takes a thread of the server. Any further
            one is sent the job as it is now, and comes back after 3 seconds, as each is in a server without threads.
        explains: show the messages of errors, which may name hosts and directories; else only their codes.
    """
    blueprint = Blueprint("blobferry_jobs", __name__, url_prefix=url_prefix)
    free = BoundedSemaphore(listeners) if listeners else None

    def seen(job_id: str, may: Check | None = see) -> Job:
        job = client_of_current_app().get(job_id)
        for check in (see, may if may is not see else None):
            if check is not None:
                check(job)
        return job

    @blueprint.errorhandler(BlobferryError)
    def refuse(error: BlobferryError) -> ResponseReturnValue:
        status = status_of(error)
        if status == 500:  # the app's own mistake, for its log
            raise error
        return jsonify(detail=shown(error)), status

    @blueprint.get("/<job_id>")
    def show_job(job_id: str) -> ResponseReturnValue:
        return jsonify(JobView.of(seen(job_id), explains=explains).as_json())

    @blueprint.get("/<job_id>/events")
    def show_job_events(job_id: str) -> ResponseReturnValue:
        job, last_event_id = seen(job_id), request.headers.get("Last-Event-ID")
        if is_all_known(job, last_event_id):
            return "", 204  # an EventSource that is told so stays away
        events = JobEvents(last_event_id, explains=explains)
        held = free if request.is_multithread else None
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        # Without the request's context: that would keep the app's session, and its connection, until the job ends.
        stream = _stream(client_of_current_app(), job, events, heartbeat, held)
        return Response(stream, mimetype="text/event-stream", headers=headers)

    if change is not None:

        @blueprint.post("/<job_id>/cancel")
        def cancel_job(job_id: str) -> ResponseReturnValue:
            seen(job_id, change)
            return jsonify(JobView.of(client_of_current_app().cancel(job_id), explains=explains).as_json())

        @blueprint.post("/<job_id>/retry")
        def retry_job(job_id: str) -> ResponseReturnValue:
            seen(job_id, change)
            return jsonify(JobView.of(client_of_current_app().retry(job_id), explains=explains).as_json())

    return blueprint


def _stream(
    client: Client, job: Job, events: JobEvents, heartbeat: float, free: BoundedSemaphore | None
) -> Iterator[str]:
    """The events of the job until it ends, or only what is new now if no thread is free for that."""
    with _held(free) as is_held:
        if not is_held:
            yield _sent(events, job)
            return
        try:
            # Patient: a browser that comes back while the database is away, and is told so, stays away for ever.
            watch: Any = client.watch(job.id, patience=math.inf, heartbeat=heartbeat)
            with closing(watch):
                for now in watch:
                    yield _sent(events, now)
        except BlobferryError as error:  # it is gone; the browser comes back, and is told so by that answer
            yield f": {shown(error)['code']}\n\n"


@contextmanager
def _held(free: BoundedSemaphore | None) -> Iterator[bool]:
    is_held = free is not None and free.acquire(blocking=False)
    try:
        yield is_held
    finally:
        if is_held and free is not None:
            free.release()


def _sent(events: JobEvents, job: Job) -> str:
    event = events.of(job)
    if event is None:
        return ": heartbeat\n\n"
    data = json.dumps(event.view.as_json())
    return f"event: {EVENT}\nid: {event.id}\nretry: {RETRY}\ndata: {data}\n\n"
