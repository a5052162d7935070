"""The filter of ``Client.jobs``: checked values for each of its arguments."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from blobferry.checks import arguments, paths
from blobferry.contract import OPERATIONS, JobState
from blobferry.errors import InvalidRequestError
from blobferry.redaction import short_repr

MAX_LIMIT: Final = 10_000  #: rows that one call returns
check_limit: Final = arguments.check_whole_number(1, MAX_LIMIT)

States = str | Collection[str]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """The jobs that match every field. None, and no states, match all jobs."""

    states: Sequence[JobState]
    since: datetime | None  #: submitted then or later
    until: datetime | None  #: submitted before
    operation: str | None
    storage: str | None
    under: str | None  #: this path, and all paths below it
    labels: Mapping[str, str] | None  #: the job has these labels, and perhaps others
    limit: int


def check_filter(given: Mapping[str, Any], keys: str = "registry") -> JobFilter:
    """Check all arguments of ``Client.jobs``. Raises InvalidRequestError naming the first that cannot be used."""
    check_under = paths.check_any_path_or_root if keys == "any" else paths.check_path_or_root
    return JobFilter(
        operation=_check_operation(given["operation"]),
        states=_check_states(given["state"]),
        since=arguments.parse_time(_optional(arguments.check_time, "since", given)),
        until=arguments.parse_time(_optional(arguments.check_time, "until", given)),
        storage=_optional(arguments.check_storage, "storage", given),
        under=_optional(check_under, "under", given),
        labels=_optional(arguments.check_labels, "labels", given),
        limit=check_limit("limit", given["limit"]),
    )


def _optional(check: arguments.Check, name: str, given: Mapping[str, Any]) -> Any:
    return arguments.check_optional(check)(name, given[name])


def _check_operation(operation: Any) -> str | None:
    if operation is None or (isinstance(operation, str) and operation in OPERATIONS):
        return operation
    raise InvalidRequestError(f"operation: needs one of {', '.join(OPERATIONS)}, got {short_repr(operation)}")


def _check_states(state: Any) -> tuple[JobState, ...]:
    if state is None:
        return ()
    states = [state] if isinstance(state, str) else state
    known = [str(each) for each in JobState]
    if not isinstance(states, Collection) or not states or any(each not in known for each in states):
        raise InvalidRequestError(f"state: needs one or more of {', '.join(known)}, got {short_repr(state)}")
    return tuple(JobState(each) for each in states)
