"""What matrices of faults and crashes are built from: stores that refuse or keep keys, and a death at every call."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.doubles import FaultyStore, Fuse, When, WrappedStore
from worker.errors import PermissionDeniedError
from worker.stores.blob_values import DeleteFailure
from worker.stores.store import Store

MOST_CALLS = 200


def refusing(
    store: Store, *verbs: str, fail_at: int = 1, error: type[Exception] = PermissionDeniedError
) -> FaultyStore:
    """The store, which refuses the verbs for ever from the ``fail_at``-th call on."""
    return FaultyStore(store, *verbs, fail_at=fail_at, times=10**6, error=lambda: error("no"))


class StubbornStore(WrappedStore):
    """Keys that ``code_of`` has a code for would not go."""

    def __init__(self, store: Store, code_of: Callable[[str], str | None]) -> None:
        super().__init__(store)
        self._code_of = code_of

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name != "delete_batch":
            return super()._do(name, args, keywords)
        codes = {key: self._code_of(key) for key in args[0]}
        going = [key for key, code in codes.items() if code is None]
        failures = super()._do(name, (going,), keywords) if going else []
        return [*failures, *(DeleteFailure(key, code, "no") for key, code in codes.items() if code is not None)]


def fuses(when: When, *, at_least: int) -> Iterator[Fuse]:
    """For each call of a process the fuse that blows there, and one that does not; there are at least so many calls.

    What takes a fuse must let one process live on it before it asks for the next one.
    """
    for fail_at in range(1, MOST_CALLS):
        fuse = Fuse(fail_at, when)
        yield fuse
        if not fuse.blown:
            assert fail_at > at_least, fuse.calls
            return
    pytest.fail("it never ends")
