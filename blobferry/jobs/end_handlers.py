"""The functions of an app that are called for jobs that have ended."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from blobferry.contract import FINAL_STATES
from blobferry.errors import InvalidRequestError
from blobferry.redaction import short_repr
from blobferry.values import Job

Handler = Callable[[Job], Any]
Function = TypeVar("Function", bound=Handler)
_KNOWN: Final = ", ".join(sorted(FINAL_STATES))


class EndHandlers:
    """Functions by the states in which they are called, each in the order in which it was added."""

    def __init__(self) -> None:
        self._added: list[tuple[frozenset[str], Handler]] = []

    def on(self, *states: str) -> Callable[[Function], Function]:
        """A decorator that adds a function; no state means all final ones. Raises InvalidRequestError."""
        for state in states:
            if state not in FINAL_STATES:
                raise InvalidRequestError(f"state: needs some of {_KNOWN}, got {short_repr(state)}")

        def add(function: Function) -> Function:
            self._added.append((frozenset(states or FINAL_STATES), function))
            return function

        return add

    def of(self, job: Job) -> Iterator[Handler]:
        """Those that are called for the job."""
        return (function for states, function in self._added if job.state in states)

    def call(self, job: Job) -> None:
        """Call those of the job. Raises what they raise."""
        for function in self.of(job):
            function(job)

    async def acall(self, job: Job) -> None:
        """The same on an event loop, where they may be coroutine functions."""
        for function in self.of(job):
            answer = function(job)
            if inspect.isawaitable(answer):
                await answer

    def check(self, *, with_coroutines: bool = False) -> None:
        """Raise InvalidRequestError if there are none, or one that nobody would await."""
        if not self._added:
            raise InvalidRequestError('handle: no function is there to call; add one with @ferry.on("succeeded")')
        for _, function in self._added:
            if not with_coroutines and inspect.iscoroutinefunction(function):
                name = getattr(function, "__name__", repr(function))
                raise InvalidRequestError(f"handle: {name} is a coroutine function, which needs an AsyncClient")
