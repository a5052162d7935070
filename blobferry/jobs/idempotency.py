"""Idempotency keys: the job that a request has made before, and whether it was the same request."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, and_, select

from blobferry.contract import Request
from blobferry.errors import ConfigurationError, ConflictError
from blobferry.jobs.key_reuse import gives_key
from blobferry.jobs.put_contents import digested
from blobferry.jobs.webhook_receivers import asked_receivers
from blobferry.redaction import is_sealed
from blobferry.sealing import SETTING, Sealer
from blobferry.spooling.spooled import SpooledName
from blobferry.sql.tables import JOB_COLUMNS, jobs

#: Beside the operation's arguments.
_ASKED: Final = ("priority", "not_before", "deadline", "labels")


def existing_job(
    connection: Connection, values: Mapping[str, Any], request: Request, sealer: Sealer
) -> Mapping[str, Any] | None:
    """The row with the id or idempotency key of these values; None if it has been deleted meanwhile.

    Raises as :func:`check_same` does, unless the row was found by its id, or gives its key to the request.
    """
    same = jobs.c.id == values["id"]
    if values["idempotency_key"] is not None:
        key = ("storage", "operation", "idempotency_key")
        same |= and_(*(jobs.c[name] == values[name] for name in key))
    found = connection.execute(select(*JOB_COLUMNS, jobs.c.on_end).where(same)).mappings().first()
    if found is None:
        return None
    row = dict(found)
    if row["id"] != values["id"] and not gives_key(row, request):
        check_same(row, values, request, sealer)
    return row


def check_same(row: Mapping[str, Any], values: Mapping[str, Any], request: Request, sealer: Sealer) -> None:
    """Raise ConflictError if the row was submitted under the same key with another request.

    ``values``: the columns that the request fills. Raises ConfigurationError as :func:`asks_the_same` does.
    """
    asked = (name for name in _ASKED if name not in request.relative)
    is_other = any(row[name] != values[name] for name in asked)
    is_other = is_other or asked_receivers(row["on_end"]) != asked_receivers(values["on_end"])
    if is_other or not asks_the_same(row, request, sealer):
        raise ConflictError(values["idempotency_key"], row["id"])


def asks_the_same(row: Mapping[str, Any], request: Request, sealer: Sealer) -> bool:
    """True if the row was submitted with an equal request. Sealed sources are opened to compare them.

    Raises ConfigurationError if the ``sealer`` lacks the key for that.
    """
    kept, asked = digested(row["request"] or {}), digested(request.arguments)
    sources = kept.pop("source", None), asked.pop("source", None)
    if (row["operation"], row["storage"], kept) != (request.operation, request.storage, asked):
        return False
    if sources[0] == sources[1] or _are_one_upload(*sources):
        return True
    if None in sources:
        return False
    try:
        return sealer.opened(sources[0]) == sealer.opened(sources[1])
    except ConfigurationError as error:
        shown = row["source"], request.source
        if shown[0] != shown[1] and not any(is_sealed(source or "") for source in shown):
            return False
        raise ConfigurationError(
            SETTING, f"the source cannot be compared with that of job {row['id']}: {error.problem}"
        ) from None


def _are_one_upload(known: str | None, asked: str | None) -> bool:
    """Whether both are the same bytes, spooled twice: a request that a browser has sent again."""
    names = SpooledName.of_url(known), SpooledName.of_url(asked)
    if names[0] is None or names[1] is None or not names[0].digest:
        return False
    return names[0][1:] == names[1][1:]
