"""What Celery's parent shows of the tasks that it has received: without the secrets and contents of their arguments.

It logs the arguments, sends them to whoever listens to events, answers `inspect active` with them and keeps them with
the result of a lost child. Those of a message that has a row hold no secret. A bare task may.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from celery.worker.request import Request

from blobferry.redaction import redacted, redacted_arguments


class ShownRequest(Request):  # type: ignore[misc]
    """A task that was received. Its child gets the arguments as they came."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Else Celery only logs that an ack did not get through, and counts the message as being worked on for ever: it
        # asks for no other. Not swallowed, the error makes it connect anew.
        self._connection_errors = ()
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


def shown_args(args: Any) -> list[Any]:
    """The positional arguments of a task, which ours do not take."""
    is_list = isinstance(args, Sequence) and not isinstance(args, str)
    return [redacted(arg) if isinstance(arg, str) else arg for arg in args] if is_list else []


def shown_kwargs(kwargs: Any) -> dict[str, Any]:
    """The arguments of a task, whatever was sent as such."""
    return redacted_arguments(kwargs) if isinstance(kwargs, Mapping) else {}
