"""Tasks of Django's, ``@task`` of django.tasks or of its backport, as a job keeps them: by name, with their options."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from blobferry.errors import InvalidRequestError
from blobferry.redaction import short_repr

NAME: Final = "django_task"  #: of the entry that holds the path of the task; a Celery signature has none
_OPTIONS: Final = ("backend", "queue_name", "priority", "run_after")


class DjangoTask(Protocol):
    """What ``@task`` makes of a function."""

    @property
    def module_path(self) -> str:
        """Where the function is imported from."""
        ...

    def enqueue(self, *args: Any, **kwargs: Any) -> Any:
        """Have the task's backend run it."""
        ...


def is_django_task(value: Any) -> bool:
    """Whether it is such a task, or what a job keeps of one. Django is not imported to find that out."""
    if isinstance(value, Mapping):
        return NAME in value
    return isinstance(getattr(value, "module_path", None), str) and callable(getattr(value, "enqueue", None))


def kept_task(name: str, value: Any) -> dict[str, Any]:
    """What a job keeps of the task, as JSON. Raises InvalidRequestError that names the argument."""
    if isinstance(value, Mapping):
        kept = dict(value)
    else:
        kept = {NAME: value.module_path} | {option: getattr(value, option, None) for option in _OPTIONS}
    if isinstance(kept.get("run_after"), datetime):
        kept["run_after"] = kept["run_after"].isoformat()
    texts = (kept.get(each) for each in (NAME, "backend", "queue_name", "run_after"))
    is_known = bool(kept[NAME]) and kept.keys() <= {NAME, *_OPTIONS}
    if not is_known or not isinstance(kept.get("priority"), int | None) or not all(map(_is_short, texts)):
        raise InvalidRequestError(f"{name}: needs a @task of Django's, got {short_repr(value)}")
    return kept


def _is_short(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) < 256)
