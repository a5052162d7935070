"""Which jobs have a place in the line for their paths."""

from typing import Final

from sqlalchemy import ColumnElement, and_, exists, or_

from blobferry.contract import FINAL_STATES, UNFINISHED_UPLOADS, JobState
from models.job import JobRow
from models.queries.conditions import now
from models.upload import UploadRow

_UNFINISHED: Final = sorted(state for state in JobState if state not in FINAL_STATES)


def has_place(job: type[JobRow]) -> ColumnElement[bool]:
    """The job has its place in line: it is due, not final, and not paused without an upload."""
    uploading = exists().where(UploadRow.job_id == job.id, UploadRow.state.in_(UNFINISHED_UPLOADS))
    due = or_(job.not_before.is_(None), job.not_before <= now(), job.attempt > 0)
    return and_(job.state.in_(_UNFINISHED), due, or_(job.state != JobState.PAUSED, uploading))
