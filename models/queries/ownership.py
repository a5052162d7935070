"""The token that every write of a run checks, and the lease that it extends."""

from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, ClauseElement, Float, String, Update, and_, bindparam, func, literal, or_, update
from sqlalchemy.orm import Session

from blobferry.contract import PAST_POINT_OF_NO_RETURN, Phase
from blobferry.errors import LeaseLostError
from blobferry.sql.clock import db_now
from blobferry.sql.sqlite_connection import must_survive
from blobferry.sql.tables import jobs
from models.claimed_job import ClaimedJob

#: Phases whose commit comes before something in the store that a run without it would not know of: an upload, a delete.
FORGOTTEN_IS_LOST: Final = frozenset({Phase.UPLOADING, Phase.COMPLETING, Phase.DELETING, Phase.DELETING_SOURCE})


class ControlRequests(NamedTuple):
    """What has been requested of a running job since its claim."""

    cancel: bool
    pause: bool
    overdue: bool  #: the deadline has passed


# Made once: SQLAlchemy compiles each once for a set of columns, which it takes from the parameters.
_IS_PAST: Final = func.coalesce(jobs.c.phase, "").in_([literal(phase) for phase in sorted(PAST_POINT_OF_NO_RETURN)])
_OVERDUE: Final = and_(jobs.c.deadline.is_not(None), jobs.c.deadline < db_now(), ~_IS_PAST)
_OF_RUN: Final = (
    jobs.c.id == bindparam("owned_id", type_=String),
    jobs.c.token == bindparam("owned_token", type_=BigInteger),
    jobs.c.lease_expires_at.is_not(None),  # without a lease the run has ended, although the token is still its own
)
_REQUESTS: Final = (jobs.c.cancel_requested, jobs.c.pause_requested, _OVERDUE)
_WRITE: Final = update(jobs).where(*_OF_RUN).values(updated_at=db_now()).returning(*_REQUESTS)
_EXTEND: Final = (
    update(jobs)
    .where(*_OF_RUN)
    .values(lease_expires_at=db_now(bindparam("lease_seconds", type_=Float)))
    .returning(*_REQUESTS)
)
_WRITE_UNLESS_CANCELLED: Final = _WRITE.where(or_(_IS_PAST, ~jobs.c.cancel_requested))


def update_owned(session: Session, job_id: str, token: int, **values: Any) -> ControlRequests:
    """Set columns of the job for the run with this token; return the control requests. Raises LeaseLostError.

    Every transaction of a run begins with this call, even if it writes other tables only: it locks the row.
    """
    requests = _update(session, _WRITE, job_id, token, values)
    if requests is None:
        raise LeaseLostError(f"job {job_id} no longer belongs to the run with token {token}")
    return requests


def pass_point_of_no_return(session: Session, job: ClaimedJob, **values: Any) -> bool:
    """Pass the point of no return, setting these columns; False if a cancel came first. Raises LeaseLostError.

    From then on readers may see the outcome, and a cancel comes too late.
    """
    if _update(session, _WRITE_UNLESS_CANCELLED, job.id, job.token, values) is not None:
        return True
    update_owned(session, job.id, job.token)
    return False


def extend_lease(session: Session, job_id: str, token: int, lease_seconds: float) -> ControlRequests | None:
    """Renew the lease; return the control requests, or None if another run owns the job."""
    return _update(session, _EXTEND, job_id, token, {"lease_seconds": lease_seconds})


def _update(
    session: Session, statement: Update, job_id: str, token: int, values: dict[str, Any]
) -> ControlRequests | None:
    if values.get("phase") in FORGOTTEN_IS_LOST or values.get("deleted_any"):
        must_survive(session)
    plain = {"owned_id": job_id, "owned_token": token}
    evaluated = {}
    for name, value in values.items():
        if isinstance(value, ClauseElement):
            evaluated[name] = value
        else:
            plain[name] = value
    if evaluated:
        statement = statement.values(evaluated)
    row = session.execute(statement, plain).one_or_none()
    return None if row is None else ControlRequests(bool(row[0]), bool(row[1]), bool(row[2]))
