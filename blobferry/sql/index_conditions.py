"""The conditions of the partial indexes of ``blobferry_jobs`` and ``blobferry_uploads``, as SQL.

A statement that is to use such an index repeats its condition word for word, as ``text(DUE)``: SQLite compares the
words, and PostgreSQL proves a condition from literals only. None of them names a column that a run changes while it
works (its lease, phase, progress), so that PostgreSQL updates these in place (HOT).

A job that no run owns has neither ``worker`` nor ``lease_expires_at``: claims and releases write both.
"""

from typing import Final

#: The job waits for its time or for a worker, not for another job.
WAITING: Final = "worker IS NULL AND waits_for IS NULL AND state IN ('queued', 'retrying', 'verifying')"
#: Its time has come. Jobs for later are elsewhere, however many, until the next publish makes them due.
DUE: Final = f"run_at IS NULL AND {WAITING}"
PUBLISHED: Final = f"published_at IS NOT NULL AND {DUE}"
SCHEDULED: Final = f"run_at IS NOT NULL AND {WAITING}"
#: A run owns it.
OWNED: Final = "worker IS NOT NULL"
#: A cancel or a pause is to be applied by somebody else than a run.
REQUESTED: Final = (
    "worker IS NULL AND (cancel_requested AND state IN ('paused', 'queued', 'retrying', 'verifying')"
    " OR pause_requested AND state IN ('queued', 'retrying', 'verifying'))"
)
#: No run owns it, and it fails once its deadline has passed.
DATED: Final = "deadline IS NOT NULL AND worker IS NULL AND state IN ('paused', 'queued', 'retrying', 'verifying')"
UNFINISHED: Final = "state IN ('paused', 'queued', 'retrying', 'running', 'verifying')"
MOVED: Final = f"operation = 'move' AND {UNFINISHED}"
COPIED: Final = f"substr(source, 1, 7) = 'blob://' AND {UNFINISHED}"

#: The job has succeeded, and its source is still to be removed.
#: Spelled so that SQLite does not rather take the index of all that have succeeded.
REMOVING: Final = "CASE WHEN removes_source THEN state ELSE '' END = 'succeeded'"

#: Listings by state. One index for each, since a database would take an index of all states for other statements, too.
OF_STATE: Final = {
    state: f"state = '{state}'"
    for state in ("queued", "running", "verifying", "retrying", "paused", "succeeded", "failed", "cancelled")
}

#: Uploads whose parts may be in the store.
LIVE_UPLOAD: Final = "state IN ('aborting', 'completing', 'open', 'opening')"
ABORTING: Final = "state = 'aborting'"
