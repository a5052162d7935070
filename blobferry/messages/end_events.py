"""What whoever is told of the end of a job gets. It needs no broker."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID, uuid5

_EVENTS: Final = UUID("6b3f1d0e-5c0b-4e55-9a53-0f5b6f62e001")  #: an arbitrary constant
_AS_IT_IS: Final = ("job_id", "sequence", "operation", "storage", "path", "size", "error_code", "error_message")


def event_id(job_id: str, sequence: int) -> str:
    """The id of the event that the job has ended for the ``sequence``-th time; the same wherever it is asked for."""
    return str(uuid5(_EVENTS, f"{job_id}/{sequence}"))


def event_of(delivery: Mapping[str, Any]) -> dict[str, Any]:
    """What whoever is told gets: JSON values. ``delivery``: its row, with the columns of its job beside it."""
    return {
        "event_id": event_id(delivery["job_id"], delivery["sequence"]),
        **{name: delivery[name] for name in _AS_IT_IS},
        "state": delivery["job_state"],
        "labels": delivery["labels"] or {},
        "finished_at": delivery["ended_at"].isoformat(),
    }


def webhook_message(event: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a webhook, by the Standard Webhooks specification."""
    return {"type": f"job.{event['state']}", "timestamp": event["finished_at"], "data": event}
