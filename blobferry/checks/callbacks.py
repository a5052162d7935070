"""The check of who is to be told of the end of a job: Celery signatures of the app's own tasks, tasks of Django's."""

import json
from collections.abc import Mapping
from typing import Any, Final

from blobferry.checks.django_tasks import is_django_task, kept_task
from blobferry.errors import InvalidRequestError
from blobferry.redaction import short_repr

#: Version of a request at whose end somebody is to be told: workers that would tell nobody leave it alone.
TOLD_REQUEST: Final = 4
MAX_CALLBACK: Final = 64 * 1024  #: bytes of one signature as JSON; the job's row holds it
#: What a signature may say about its message; other options belong to the run of a task.
OPTIONS: Final = (
    *("queue", "exchange", "routing_key", "priority", "countdown", "eta", "expires", "headers", "link", "link_error"),
    *("time_limit", "soft_time_limit", "ignore_result", "shadow"),
)


def check_callback(name: str, value: Any) -> dict[str, Any]:
    """A Celery signature of one task, ``stored.s(video.id)`` or its dict, as plain JSON.

    A signature of a task of this process gets the queue that the app's own configuration gives it.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("task"), str) or not 0 < len(value["task"]) <= 255:
        raise InvalidRequestError(
            f"{name}: needs a Celery signature such as stored.s(video.id), its dict, or a @task of Django's, "
            f"got {short_repr(value)}"
        )
    if value.get("subtask_type"):
        kind = value["subtask_type"]
        raise InvalidRequestError(f"{name}: is a {kind}; give the signature of one task, which starts the others")
    args, kwargs, options = value.get("args") or (), value.get("kwargs") or {}, value.get("options") or {}
    if not (isinstance(args, list | tuple) and isinstance(kwargs, Mapping) and isinstance(options, Mapping)):
        raise InvalidRequestError(f"{name}: args must be a list, kwargs and options mappings")
    for option in options:
        if option not in OPTIONS:
            raise InvalidRequestError(f"{name}: unknown option {short_repr(option)}; known: {', '.join(OPTIONS)}")
    where = {} if {"queue", "exchange", "routing_key"} & options.keys() else _queue_of(value)
    signature = {
        "task": value["task"],
        "args": list(args),
        "kwargs": dict(kwargs),
        "options": {**where, **options},
        "immutable": bool(value.get("immutable")),
    }
    return _as_json(name, signature)


def _queue_of(signature: Any) -> dict[str, Any]:
    """The queue that the app sends this task to, if it is one of this process."""
    task = getattr(signature, "_type", None)  # Celery's own; ``type`` would look the task up in any current app
    if task is None:
        return {}
    if getattr(task, "queue", None):
        return {"queue": task.queue}
    found = task.app.amqp.router.route({}, task.name).get("queue")
    return {"queue": getattr(found, "name", found)} if found else {}


def _as_json(name: str, signature: dict[str, Any]) -> dict[str, Any]:
    # Here, as it loads a part of Celery. It writes times and UUIDs so that Celery's JSON reads them as such again.
    from kombu.utils.json import dumps  # noqa: PLC0415

    try:
        plain: dict[str, Any] = json.loads(dumps(signature))  # type: ignore[no-untyped-call]
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
        if "\\u0000" in text:
            raise ValueError("a zero byte")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name}: cannot be stored as JSON: {error}") from None
    if size > MAX_CALLBACK:
        raise InvalidRequestError(f"{name}: has {size} bytes as JSON; at most {MAX_CALLBACK} may be")
    return plain


def end_receivers(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of checked arguments, those that the column ``on_end`` keeps; None if nobody has asked for anything.

    A task of Django's is kept apart: ``manage.py blobferry_listen`` enqueues it, and no worker knows of it.
    """
    asked = {name: values[name] for name in END_OPTIONS if values.get(name) is not None}
    return {TASK_OF[name] if is_django_task(value) else name: value for name, value in asked.items()} or None


def _optional(name: str, value: Any) -> Any:
    if value is None:
        return None
    return kept_task(name, value) if is_django_task(value) else check_callback(name, value)


#: Arguments that every job takes, each with its check.
END_OPTIONS: Final = {"on_done": _optional, "on_failed": _optional}
#: Where the column keeps them if they are tasks of Django's.
TASK_OF: Final = {"on_done": "task_on_done", "on_failed": "task_on_failed"}
