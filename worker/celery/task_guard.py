"""Guards around received tasks: no message can end the worker, and none shows its secrets.

Celery's parent logs the arguments, sends them with events, returns them to `inspect active` and stores them with the
result of a lost child. Messages that have a row hold no secret, but a bare task may.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from celery import Task
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request
from celery.worker.strategy import default

from blobferry.redaction import redacted, redacted_arguments
from worker.errors import InvalidRequestError


class RedactedRequest(Request):  # type: ignore[misc]
    """A received task that shows its arguments without secrets. The child gets them as they came."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # With these errors listed, Celery only logs an ack that failed and counts the message as in progress for ever,
        # so that it fetches no other. Unlisted, the error makes it reconnect. Seen with celery 5.7.0, kombu 5.7.0; no
        # upstream report found.
        self._connection_errors = ()
        # The message's time limits would kill a child in the middle of a part. A job may have a deadline instead.
        self.time_limits = (None, None)
        self._argsrepr, self._kwargsrepr = repr(redacted_args(self._args)), repr(redacted_kwargs(self._kwargs))
        self._request_dict.update(argsrepr=self._argsrepr, kwargsrepr=self._kwargsrepr)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """The task as `inspect` shows it."""
        info: dict[str, Any] = super().info(safe=True)
        return info if safe else {**info, "args": redacted_args(self._args), "kwargs": redacted_kwargs(self._kwargs)}

    @cached_property
    def _context(self) -> Any:
        context = super()._context
        context.args, context.kwargs = redacted_args(self._args), redacted_kwargs(self._kwargs)
        return context


class StrictTask(Task):  # type: ignore[misc]
    """A task that takes keyword arguments only and shows none of their secrets."""

    abstract = True
    Request: Any = RedactedRequest
    Strategy = "worker.celery.task_guard:strategy"
    typing = False  # the contract checks the arguments, and its errors name the wrong one

    def __call__(self, /, *args: Any, **arguments: Any) -> Any:
        """Run the task. An argument may have any name, even ``self``; the contract refuses unknown ones."""
        if args:
            raise InvalidRequestError(f"{self.name}: takes keyword arguments only, no positional ones")
        return self.run(**arguments)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Redact the arguments of a bare task, since Celery stores them with the result."""
        self.request.args, self.request.kwargs = redacted_args(args), redacted_kwargs(kwargs)


def strategy(task: Any, app: Any, consumer: Any, **how: Any) -> Callable[..., Any]:
    """Celery's strategy, except that a malformed message is rejected, where Celery itself would end the worker.

    See https://github.com/celery/celery/issues/7975, open as of celery 5.7.0.
    """
    receive = default(task, app, consumer, **how)

    def received(message: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return receive(message, body, *args, **kwargs)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidTaskError(f"malformed message: {type(error).__name__}") from error

    return received


def redacted_args(args: Any) -> list[Any]:
    """The positional arguments of a task, without secrets. A message may hold any value in their place."""
    is_list = isinstance(args, Sequence) and not isinstance(args, str)
    return [redacted(arg) if isinstance(arg, str) else arg for arg in args] if is_list else []


def redacted_kwargs(kwargs: Any) -> dict[str, Any]:
    """The keyword arguments of a task, without secrets. A message may hold any value in their place."""
    return redacted_arguments(kwargs) if isinstance(kwargs, Mapping) else {}
