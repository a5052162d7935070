"""The result backend tells others how a task ended. It is not the truth: a job does not fail because it is away."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from celery import Celery
from celery.exceptions import BackendError

logger = logging.getLogger(__name__)

_TELLING: Final = ("mark_as_done", "mark_as_failure", "mark_as_retry", "mark_as_revoked")


class App(Celery):  # type: ignore[misc]
    """A Celery app whose tasks end as they end, whether or not the result backend hears of it.

    Celery itself would turn the end of a run that it cannot store into a failure, and tell Flower so.
    Seen with celery 5.7.0; https://github.com/celery/celery/issues/8588 reports results lost in the same situation.
    """

    def _get_backend(self) -> Any:
        backend = super()._get_backend()
        away = (OSError, BackendError, *getattr(backend, "connection_errors", ()))
        for name in _TELLING:
            setattr(backend, name, _logged(getattr(backend, name), away))
        return backend


def _logged(tell: Callable[..., Any], away: tuple[type[Exception], ...]) -> Callable[..., Any]:
    @wraps(tell)
    def told(task_id: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return tell(task_id, *args, **kwargs)
        except away as error:  # the job's next message, if there is one, tells it again
            logger.warning("result not stored", extra={"job_id": task_id, "reason": repr(error)})
            return None

    return told
