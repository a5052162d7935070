"""The result backend shows others how a task ended. No task fails because the backend is away; the row is the truth."""

import logging
from collections.abc import Callable, Sequence
from functools import partial, wraps
from itertools import chain
from typing import Any, Final

from celery import states
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendError

from blobferry.messages.configured_app import ConfiguredApp
from blobferry.messages.job_messages import CLIENT_TIMEOUTS
from worker import drain

logger = logging.getLogger(__name__)

_STORING: Final = ("mark_as_done", "mark_as_failure", "mark_as_retry", "mark_as_revoked")


class ResultTolerantApp(ConfiguredApp):
    """A Celery app that only logs a result that cannot be stored.

    Celery itself would turn the end of that run into a failure and report it to Flower.
    Seen with celery 5.7.0; https://github.com/celery/celery/issues/8588 reports results lost in the same situation.
    """

    def _get_backend(self) -> Any:
        backend = super()._get_backend()
        away = _away(backend)
        for name in _STORING:
            setattr(backend, name, _logged(getattr(backend, name), away, backend))
        return backend


def _away(backend: Any) -> tuple[type[Exception], ...]:
    """What a backend raises that cannot be reached, or that refuses (READONLY, OOM, NOPERM and the like)."""
    errors = (getattr(backend, name, ()) for name in ("connection_errors", "channel_errors"))
    return (OSError, BackendError, *chain.from_iterable(errors))


def is_reported(backend: Any, task_id: str) -> bool:
    """Whether the backend holds the end of the task; True if it cannot say, since then it could not store it either."""
    try:
        return backend.get_state(task_id) in states.READY_STATES
    except _away(backend) as error:
        logger.warning("result backend does not answer", extra={"job_id": task_id, "reason": repr(error)})
        return True


def store_results(backend: Any, results: Sequence[tuple[Any, str, Any]]) -> bool:
    """Store how tasks have ended: request, state, and result or error of each. False if that may not have been done.

    With Redis, successes go together in one round trip. No other result can be there that they must not replace: they
    are of jobs that had never run.
    """
    successes = [(request, result) for request, state, result in results if state == states.SUCCESS]
    for request, state, result in results:
        if state == states.FAILURE:
            backend.mark_as_failure(request.id, result, request=request)
        elif state == states.REVOKED:
            backend.mark_as_revoked(request.id, result, request=request)
    if not isinstance(backend, RedisBackend):
        for request, result in successes:
            backend.mark_as_done(request.id, result, request)
        return False
    try:
        if drain.is_draining():
            _hurry(backend)
        values = [_keyed(backend, request, result) for request, result in successes]
        backend.ensure(partial(_set_all, backend), (values,))
    except _away(backend) as error:
        logger.warning("results not stored", extra={"jobs": len(successes), "reason": repr(error)})
        return False
    return len(successes) == len(results)  # of the others it is only logged


def _keyed(backend: RedisBackend, request: Any, result: Any) -> tuple[bytes, Any]:
    meta = backend._get_result_meta(backend.encode_result(result, states.SUCCESS), states.SUCCESS, None, request)
    return backend.get_key_for_task(request.id), backend.encode({**meta, "task_id": request.id})


def _set_all(backend: RedisBackend, values: Sequence[tuple[bytes, Any]]) -> None:
    """As RedisBackend does it for one: the value, and a message for those that wait for it."""
    with backend.client.pipeline(transaction=False) as pipe:
        for key, value in values:
            pipe.set(key, value, ex=backend.expires or None)
            pipe.publish(key, value)
        pipe.execute()


def _logged(store: Callable[..., Any], away: tuple[type[Exception], ...], backend: Any) -> Callable[..., Any]:
    @wraps(store)
    def store_or_log(task_id: str, *args: Any, **kwargs: Any) -> Any:
        try:
            if drain.is_draining():
                _hurry(backend)
            return store(task_id, *args, **kwargs)
        except away as error:  # the job's next message, if there is one, stores it
            logger.warning("result not stored", extra={"job_id": task_id, "reason": repr(error)})
            return None

    return store_or_log


def _hurry(backend: Any) -> None:
    """Let the backend try once, and briefly: a drain has no half minute."""
    backend.always_retry, backend.retry_policy = False, {"max_retries": 1, "interval_start": 0}
    pool = getattr(getattr(backend, "client", None), "connection_pool", None)  # only Redis has one
    if pool is not None and pool.connection_kwargs.get("socket_timeout") != CLIENT_TIMEOUTS["socket_timeout"]:
        pool.connection_kwargs.update(CLIENT_TIMEOUTS)
        pool.disconnect()  # connections of now have the longer timeout
