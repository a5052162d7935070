"""The tasks of the app that are told of ends, in a test: recorded as their workers would get them, and run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blobferry.messages.callback_messages import CALLBACK_QUEUE, CallbackMessage

if TYPE_CHECKING:
    from celery import Celery


@dataclass(frozen=True, slots=True)
class ToldCallback:
    """A task of the app that was told of an end, as its worker would have got it."""

    job_id: str
    task: str  #: its name
    args: tuple[Any, ...]  #: the event first, unless the signature is immutable
    kwargs: Mapping[str, Any]
    queue: str  #: that it would have been sent to
    event: Mapping[str, Any] = field(repr=False)


class CallbackBox:
    """Takes the messages of callbacks, and runs those whose app is in eager mode.

    ``app``: the app's Celery; the current one unless given.
    """

    def __init__(self, app: "Celery | None" = None) -> None:
        self._app = app
        self.told: list[ToldCallback] = []
        self._waiting: list[ToldCallback] = []

    def take(self, message: CallbackMessage) -> None:
        """Record the message; run its task if the app says ``task_always_eager``, and raise what it raises if the app
        says ``task_eager_propagates``.
        """
        from kombu.utils.json import dumps, loads  # noqa: PLC0415 - a part of Celery, for those who use callbacks

        # Through JSON, as in life: what a message cannot carry must not pass a test.
        args, kwargs = loads(dumps([message.arguments, message.signature["kwargs"]]))  # type: ignore[no-untyped-call]
        options = message.signature.get("options", {})
        where = options.get("queue") or options.get("routing_key") or CALLBACK_QUEUE
        told = ToldCallback(message.job_id, message.signature["task"], tuple(args), kwargs, where, message.event)
        self.told.append(told)
        self._waiting.append(told)
        app = self._known_app()
        if app.conf.task_always_eager and told.task in app.tasks:
            self._run(told, throws=bool(app.conf.task_eager_propagates))

    def run(self) -> list[ToldCallback]:
        """Run those that have not run yet; return them. Raises what a task raises; LookupError for an unknown one."""
        waiting = list(self._waiting)
        for told in waiting:
            self._run(told, throws=True)
        return waiting

    def _run(self, told: ToldCallback, *, throws: bool) -> None:
        app = self._known_app()
        if told.task not in app.tasks:
            raise LookupError(f"the Celery app {app.main!r} has no task {told.task!r}; give the app: celery=…")
        self._waiting.remove(told)
        app.tasks[told.task].apply(args=told.args, kwargs=dict(told.kwargs), throw=throws)

    def _known_app(self) -> Any:
        from celery import current_app  # noqa: PLC0415 - for those who use callbacks

        return self._app or current_app
