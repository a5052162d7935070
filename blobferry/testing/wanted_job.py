"""What a test says of a job, compared with its row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Self

from blobferry.checks.callbacks import DEFAULT_SECRET, TASK_OF
from blobferry.checks.django_tasks import NAME, is_django_task
from blobferry.contract import OPERATIONS
from blobferry.errors import InvalidRequestError
from blobferry.jobs.new_job import file_url
from blobferry.redaction import redacted, short_repr

#: Fields that are columns of the row, under the same name; the others are in its request.
_COLUMNS: Final = frozenset(
    {"path", "source", "dest", "storage", "labels", "priority", "idempotency_key", "not_before", "deadline", "state"}
)
_CALLBACKS: Final = frozenset({"on_done", "on_failed"})
_WEBHOOK: Final = {"webhook": "endpoint", "webhook_secret": "secret"}  #: as the row of a job has it
_CHECKED: Final = frozenset({"source", "dest", "labels", "idempotency_key", "metadata"})
_SHORT: Final = 80  #: characters of a value in a message


def _fields(operation: str) -> dict[str, Callable[[str, Any], Any]]:
    spec = OPERATIONS[operation]
    checks = {**spec.required, **spec.optional, **spec.options, "state": lambda name, value: value}
    return {name: check for name, check in checks.items() if name != "reuse"}


@dataclass(frozen=True, slots=True)
class WantedJob:
    """An operation, or None for any, and values of fields as a row has them."""

    operation: str | None
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, operation: str | None, fields: Mapping[str, Any], shown: Callable[[str], str]) -> Self:
        """Values as they are given to a submit. Raises ValueError for a field, or an operation, that does not exist.

        ``shown``: what a row shows of a URL that may hold a secret.
        """
        if operation is not None:
            _refuse_unknown("operation of a job", operation, OPERATIONS)
        known: dict[str, Any] = {}
        for name in OPERATIONS if operation is None else (operation,):
            known |= _fields(name)
        for name in fields:
            _refuse_unknown(f"field of {operation or 'a job'}", name, known)
        values = {name: _as_stored(name, value, known[name]) for name, value in fields.items()}
        if isinstance(values.get("source"), str):
            values["source"] = shown(values["source"])
        return cls(operation, values)

    def differences(self, row: Mapping[str, Any]) -> list[str]:
        """What of the row is not as wanted, in words; empty if it matches."""
        found = []
        if self.operation not in (None, row["operation"]):
            found.append(f"the operation is {row['operation']}")
        for name, wanted in self.fields.items():
            actual = field_of(row, name)
            if not _matches(wanted, actual):
                found.append(f"{name} is {short_repr(actual, _SHORT)}")
        return found

    def __str__(self) -> str:
        values = ", ".join(f"{name}={short_repr(value, _SHORT)}" for name, value in self.fields.items())
        return f"{self.operation or 'any operation'}({values})"


def field_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a field in a row; None if the submit did not name it."""
    request = row["request"] or {}
    if name in _CALLBACKS:
        return (row["on_end"] or {}).get(name) or (row["on_end"] or {}).get(TASK_OF[name])
    if name in _WEBHOOK:
        return ((row["on_end"] or {}).get("webhook") or {}).get(_WEBHOOK[name])
    if name == "contents":
        return row["contents"]
    if name == "delete_source":
        return row["removes_source"]
    return row[name] if name in _COLUMNS else request.get(name)


def described(row: Mapping[str, Any]) -> str:
    """A row in a line, as the call that made it; what has its default is left out."""
    spec = OPERATIONS[row["operation"]]
    values = {name: field_of(row, name) for name in _fields(spec.name) if name not in ("state", "delete_source")}
    usual = {**spec.defaults, "storage": "default", "priority": 0, "webhook_secret": DEFAULT_SECRET}
    told = {name: value for name, value in values.items() if value is not None and usual.get(name) != value}
    for name in _CALLBACKS & told.keys():
        told[name] = told[name].get("task") or told[name][NAME]
    return f"{spec.name}({', '.join(f'{name}={short_repr(value, _SHORT)}' for name, value in told.items())})"


def _as_stored(name: str, value: Any, check: Callable[[str, Any], Any]) -> Any:
    if name in ("source", "dest") and value is not None:
        value = file_url(value)
    if name == "webhook" and isinstance(value, str):
        return redacted(value)
    if name not in _CHECKED:
        return value
    try:
        return check(name, value)
    except InvalidRequestError:  # such as mock.ANY
        return value


def _matches(wanted: Any, actual: Any) -> bool:
    if isinstance(actual, Mapping) and is_django_task(actual):
        return bool(getattr(wanted, "module_path", wanted) in (actual[NAME], actual))
    if isinstance(actual, Mapping) and "task" in actual:  # a callback
        if isinstance(wanted, str):
            return bool(actual["task"] == wanted)
        if isinstance(wanted, Mapping):
            named = {name: wanted[name] for name in ("task", "args", "kwargs") if wanted.get(name)}
            return all(_plain(actual[name]) == _plain(value) for name, value in named.items())
    if isinstance(wanted, Mapping) and isinstance(actual, Mapping):
        return all(name in actual and wanted[name] == actual[name] for name in wanted)
    return bool(wanted == actual)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _refuse_unknown(kind: str, name: str, known: Mapping[str, Any]) -> None:
    # A misspelled name would let refute_enqueued pass whatever was enqueued.
    if name not in known:
        close = get_close_matches(name, known, n=1)
        meant = f", did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name!r} is no {kind}{meant}; there are: {', '.join(known)}")
