"""The check of who is told of the end of a job: Celery signatures, tasks of Django's, and webhooks."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from blobferry.checks.arguments import check_optional, check_secret_name
from blobferry.checks.django_tasks import is_django_task, kept_task
from blobferry.checks.source_urls import check_webhook
from blobferry.errors import InvalidRequestError
from blobferry.redaction import short_repr

#: Version of a request at whose end somebody is to be told: workers that would tell nobody leave it alone.
TOLD_REQUEST: Final = 4
WEBHOOK_REQUEST: Final = 5  #: the same of a webhook
DEFAULT_SECRET: Final = "default"  #: the name of the secrets that sign where nobody names any
MAX_CALLBACK: Final = 64 * 1024  #: bytes of one signature as JSON; the job's row holds it
_LONGEST: Final = 10**9  #: seconds, 31 years; Celery adds them to a time


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LONGEST


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, datetime) or bool(datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return False


def _are_signatures(value: Any) -> bool:
    return all(isinstance(link, Mapping) for link in (value if isinstance(value, list | tuple) else [value]))


_Kind = tuple[str, Callable[[Any], bool]]
_TEXT: Final[_Kind] = ("a text", _is_text)
_SECONDS: Final[_Kind] = (f"a number of at most {_LONGEST} seconds", _is_number)
_LINKS: Final[_Kind] = ("a signature, or a list of them", _are_signatures)
#: What a signature may say about its message, and of which kind each is: what Celery cannot make a message of would
#: only be found out when the job has ended. Other options belong to the run of a task.
OPTIONS: Final[Mapping[str, _Kind]] = {
    "queue": _TEXT,
    "exchange": _TEXT,
    "routing_key": _TEXT,
    "priority": ("a whole number", lambda value: isinstance(value, int) and _is_number(value)),
    "countdown": _SECONDS,
    "eta": ("a time", _is_time),
    "expires": (f"a time, or {_SECONDS[0]}", lambda value: _is_time(value) or _is_number(value)),
    "headers": ("a mapping", lambda value: isinstance(value, Mapping)),
    "link": _LINKS,
    "link_error": _LINKS,
    "time_limit": _SECONDS,
    "soft_time_limit": _SECONDS,
    "ignore_result": ("true or false", lambda value: isinstance(value, bool)),
    "shadow": _TEXT,
}


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
    options = {option: _checked(name, option, value) for option, value in options.items() if value is not None}
    where = {} if {"queue", "exchange", "routing_key"} & options.keys() else _queue_of(value)
    signature = {
        "task": value["task"],
        "args": list(args),
        "kwargs": dict(kwargs),
        "options": {**where, **options},
        "immutable": bool(value.get("immutable")),
    }
    return _as_json(name, signature)


def _checked(name: str, option: Any, value: Any) -> Any:
    if option not in OPTIONS:
        raise InvalidRequestError(f"{name}: unknown option {short_repr(option)}; known: {', '.join(OPTIONS)}")
    needs, is_good = OPTIONS[option]
    if not is_good(value):
        raise InvalidRequestError(f"{name}: option {option} needs {needs}, got {short_repr(value)}")
    return value.isoformat() if isinstance(value, datetime) else value  # as Celery sends it


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
    """Of checked arguments, who is to be told, by kind; None if nobody has asked for anything.

    A task of Django's is kept apart: ``manage.py blobferry_listen`` enqueues it, and no worker knows of it.
    """
    asked = {name: values[name] for name in TASK_OF if values.get(name) is not None}
    found = {TASK_OF[name] if is_django_task(value) else name: value for name, value in asked.items()}
    url, secret = values.get("webhook"), values.get("webhook_secret")
    if url is not None:
        found["webhook"] = {"url": url, "secret": secret or DEFAULT_SECRET}
    elif secret is not None:
        raise InvalidRequestError("webhook_secret: needs a webhook that it signs")
    return found or None


def told_version(on_end: Mapping[str, Any]) -> int:
    """The first version whose workers tell all of these receivers."""
    return WEBHOOK_REQUEST if "webhook" in on_end else TOLD_REQUEST


def _optional(name: str, value: Any) -> Any:
    if value is None:
        return None
    return kept_task(name, value) if is_django_task(value) else check_callback(name, value)


#: Arguments that every job takes, each with its check.
END_OPTIONS: Final = {
    "on_done": _optional,
    "on_failed": _optional,
    "webhook": check_optional(check_webhook),
    "webhook_secret": check_optional(check_secret_name),
}
#: Where the column keeps a task of Django's.
TASK_OF: Final = {"on_done": "task_on_done", "on_failed": "task_on_failed"}
