"""What whoever is told of the end of a job gets. It needs no broker."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

_EVENTS: Final = UUID("6b3f1d0e-5c0b-4e55-9a53-0f5b6f62e001")  #: an arbitrary constant


def event_id(job_id: str, sequence: int) -> str:
    """The id of the event that the job has ended for the ``sequence``-th time; the same wherever it is asked for."""
    return str(uuid5(_EVENTS, f"{job_id}/{sequence}"))


def end_event(
    *,
    job_id: str,
    sequence: int,
    state: str,
    ended_at: datetime,
    error_code: str | None,
    error_message: str | None,
    row: Mapping[str, Any],
) -> dict[str, Any]:
    """What whoever is told gets: JSON values.

    Args:
        job_id: of the job.
        sequence: of its ends, from 1.
        state: in which it has ended.
        ended_at: when, by the database's clock.
        error_code: of a failed job.
        error_message: of a failed job.
        row: its ``operation``, ``storage``, ``path``, ``labels`` and ``size``, in bytes if known.
    """
    return {
        "event_id": event_id(job_id, sequence),
        "sequence": sequence,
        "job_id": job_id,
        "state": state,
        **{name: row[name] for name in ("operation", "storage", "path", "size")},
        "labels": row["labels"] or {},
        "error_code": error_code,
        "error_message": error_message,
        "finished_at": ended_at.isoformat(),
    }


def webhook_message(event: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a webhook, by the Standard Webhooks specification."""
    return {"type": f"job.{event['state']}", "timestamp": event["finished_at"], "data": event}


def event_of(delivery: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a delivery's row, with the columns of its job beside it."""
    names = ("job_id", "sequence", "ended_at", "error_code", "error_message")
    return end_event(state=delivery["job_state"], row=delivery, **{name: delivery[name] for name in names})
