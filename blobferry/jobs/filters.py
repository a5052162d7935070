"""Which jobs a caller asks to see, checked."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from blobferry.checks import arguments as checks
from blobferry.contract import OPERATIONS, JobState
from blobferry.errors import InvalidRequestError
from blobferry.jobs.job_queries import Wanted
from blobferry.redaction import short_repr

MAX_LIMIT: Final = 10_000  #: rows that one look brings

States = str | Collection[str]


def check_wanted(
    *,
    state: States | None,
    since: datetime | str | None,
    until: datetime | str | None,
    operation: str | None,
    storage: str | None,
    under: str | None,
    labels: Mapping[str, str] | None,
    limit: int,
) -> Wanted:
    """What was asked for. Raises InvalidRequestError naming the first argument that cannot be used."""
    if operation is not None and (not isinstance(operation, str) or operation not in OPERATIONS):
        raise InvalidRequestError(f"operation: needs one of {', '.join(OPERATIONS)}, got {short_repr(operation)}")
    return Wanted(
        states=_states(state),
        since=_moment("since", since),
        until=_moment("until", until),
        operation=operation,
        storage=None if storage is None else checks.check_storage("storage", storage),
        under=None if under is None else checks.check_path_or_root("under", under),
        labels=None if labels is None else checks.check_strings("labels", labels),
        limit=check_limit(limit),
    )


def check_limit(limit: Any) -> int:
    """How many rows at most."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequestError(f"limit: needs a whole number from 1 to {MAX_LIMIT}, got {short_repr(limit)}")
    return limit


def _states(state: Any) -> tuple[JobState, ...]:
    if state is None:
        return ()
    words = [state] if isinstance(state, str) else state
    known = [str(each) for each in JobState]
    if not isinstance(words, Collection) or not words or any(word not in known for word in words):
        raise InvalidRequestError(f"state: needs one or some of {', '.join(known)}, got {short_repr(state)}")
    return tuple(JobState(word) for word in words)


def _moment(name: str, value: Any) -> datetime | None:
    return None if value is None else datetime.fromisoformat(checks.check_time(name, value))
