"""Tasks as they are received: whatever was sent, no message ends the worker, and none shows its secrets.

Celery's parent logs the arguments, sends them to whoever listens to events, answers `inspect active` with them and
keeps them with the result of a lost child. Those of a message that has a row hold no secret. A bare task may.
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


class ShownRequest(Request):  # type: ignore[misc]
    """A task that was received. Its child gets the arguments as they came."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Else Celery only logs that an ack did not get through, and counts the message as being worked on for ever: it
        # asks for no other. Not swallowed, the error makes it connect anew. Seen with celery 5.7.0, kombu 5.7.0; no
        # upstream report found.
        self._connection_errors = ()
        # Whatever the message says: they would cut off a part that moves bytes. A job may have a deadline.
        self.time_limits = (None, None)
        self._argsrepr, self._kwargsrepr = repr(shown_args(self._args)), repr(shown_kwargs(self._kwargs))
        self._request_dict.update(argsrepr=self._argsrepr, kwargsrepr=self._kwargsrepr)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What `inspect` tells."""
        told: dict[str, Any] = super().info(safe=True)
        return told if safe else {**told, "args": shown_args(self._args), "kwargs": shown_kwargs(self._kwargs)}

    @cached_property
    def _context(self) -> Any:
        context = super()._context
        context.args, context.kwargs = shown_args(self._args), shown_kwargs(self._kwargs)
        return context


class StrictTask(Task):  # type: ignore[misc]
    """A task that takes arguments by name only, and shows none of their secrets."""

    abstract = True
    Request: Any = ShownRequest
    Strategy = "worker.celery.task_guard:strategy"
    typing = False  # arguments are checked by the contract, which names what is wrong

    def __call__(self, /, *args: Any, **arguments: Any) -> Any:
        """Run it; an argument may have any name, ``self`` included, and is then refused by the contract."""
        if args:
            raise InvalidRequestError(f"{self.name}: takes keyword arguments only, no positional ones")
        return self.run(**arguments)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Hide the secrets of a bare task: Celery keeps its arguments with the result."""
        self.request.args, self.request.kwargs = shown_args(args), shown_kwargs(kwargs)


def strategy(task: Any, app: Any, consumer: Any, **how: Any) -> Callable[..., Any]:
    """Celery's own way to receive a message. One of a wrong shape is refused; Celery itself would end the worker.

    See https://github.com/celery/celery/issues/7975, open as of celery 5.7.0.
    """
    receive = default(task, app, consumer, **how)

    def received(message: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return receive(message, body, *args, **kwargs)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidTaskError(f"message of a wrong shape: {type(error).__name__}") from error

    return received


def shown_args(args: Any) -> list[Any]:
    """The positional arguments of a task, which ours do not take."""
    is_list = isinstance(args, Sequence) and not isinstance(args, str)
    return [redacted(arg) if isinstance(arg, str) else arg for arg in args] if is_list else []


def shown_kwargs(kwargs: Any) -> dict[str, Any]:
    """The arguments of a task, whatever was sent as such."""
    return redacted_arguments(kwargs) if isinstance(kwargs, Mapping) else {}
