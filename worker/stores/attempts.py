"""What happens right before each attempt of a request on the wire: the run that it belongs to is asked, and counts it.

A library's own repetition is an attempt like any other. A run that has lost its lease therefore sends nothing more,
although its worker was suspended in the middle of a call.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TypeVar

Answer = TypeVar("Answer")

AskBefore = Callable[[str], None]
"""Takes the verb of the request. Raises LeaseLostError if nothing may be sent any more."""


def _nobody(verb: str) -> None:
    """For a plain call, which no lease limits."""


_ask: ContextVar[AskBefore] = ContextVar("ask_before_attempt", default=_nobody)


@contextmanager
def asked_before_attempts(ask: AskBefore | None) -> Iterator[None]:
    """Have ``ask`` called before each attempt that is made inside the context; None: nobody is asked."""
    token = _ask.set(ask or _nobody)
    try:
        yield
    finally:
        _ask.reset(token)


def before_attempt(verb: str) -> None:
    """For stores: called in the thread that is about to send. Raises what the run raises."""
    _ask.get()(verb)


def in_this_context(work: Callable[[], Answer]) -> Callable[[], Answer]:
    """The work for a thread of a pool, whose attempts ask whom the attempts of this thread ask."""
    return partial(copy_context().run, work)
