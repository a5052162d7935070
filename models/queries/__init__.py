"""Every statement of a job's life on the worker's side. The functions take a Session and never commit.

There are two kinds of writers. The run that owns a job starts each transaction with ``update_owned``, which checks its
token. All others change only rows that no run owns, with SKIP LOCKED where the database has it. Lease times are read
from the database's clock, never from a worker's.
"""

from models.queries.batch_claims import BatchedJob, claim_batch
from models.queries.batches import (
    begin_completing_all,
    end_batch,
    extend_leases,
    have_succeeded,
    owned_jobs,
)
from models.queries.blockers import Hold
from models.queries.checkpoints import (
    drop_parts,
    insert_upload,
    known_upload_ids,
    newest_upload,
    parts_of,
    read_upload,
    record_parts,
    update_upload,
)
from models.queries.claims import claim_job, claim_new_job
from models.queries.due_messages import REPUBLISH_AFTER, jobs_to_publish, mark_unpublished, seconds_to_next_run
from models.queries.endings import cancel_job, fail_job, finish_job, pause_job, poll_again, release_job, retry_job
from models.queries.glances import Glance, glance
from models.queries.history import close_attempt, remark
from models.queries.lookups import EndedJob, find_ended, find_job, is_pruned, time_now
from models.queries.missing_messages import missing_messages
from models.queries.outbox import TaskDelivery, note_delivered, put_off_deliveries, take_deliveries
from models.queries.ownership import ControlRequests, extend_lease, pass_point_of_no_return, update_owned
from models.queries.pruning import prune
from models.queries.releases import hand_back, release_claimed
from models.queries.spooled_sources import (
    NAMES_AT_ONCE,
    RemovableSource,
    add_spool,
    have_ended,
    needed_spools,
    newest_transaction,
    owns_spool,
    sources_removed,
    sources_to_remove,
)
from models.queries.stale_locks import StaleSearch, drop_stale_locks
from models.queries.store_capabilities import missing_capabilities, note_missing_capability
from models.queries.unowned import (
    MAX_CRASH_STREAK,
    MAX_CRASHES,
    apply_requests,
    deadline_error,
    expire_leases,
    owners,
    request_cancel,
    requeue_expired,
)
from models.queries.uploads_to_abort import (
    FILES,
    HOST_GONE,
    is_being_opened,
    partial_files_elsewhere,
    put_off_abort,
    upload_is_gone,
    uploads_to_abort,
)
from models.queries.webhook_deliveries import (
    FailedTry,
    WebhookDelivery,
    give_up_unsigned,
    note_webhook_delivered,
    note_webhook_failed,
    note_webhook_gone,
    take_webhooks,
    unsigned_webhooks,
    webhooks_are_due,
)
from models.queries.worker_lacks import (
    count_others,
    forget_gone_workers,
    forget_lacks,
    lacking_workers,
    leave_to_others,
    note_lack,
    report_alive,
    report_ended,
)

__all__ = [
    "FILES",
    "HOST_GONE",
    "MAX_CRASHES",
    "MAX_CRASH_STREAK",
    "NAMES_AT_ONCE",
    "REPUBLISH_AFTER",
    "BatchedJob",
    "ControlRequests",
    "EndedJob",
    "FailedTry",
    "Glance",
    "Hold",
    "RemovableSource",
    "StaleSearch",
    "TaskDelivery",
    "WebhookDelivery",
    "add_spool",
    "apply_requests",
    "begin_completing_all",
    "cancel_job",
    "claim_batch",
    "claim_job",
    "claim_new_job",
    "close_attempt",
    "count_others",
    "deadline_error",
    "drop_parts",
    "drop_stale_locks",
    "end_batch",
    "expire_leases",
    "extend_lease",
    "extend_leases",
    "fail_job",
    "find_ended",
    "find_job",
    "finish_job",
    "forget_gone_workers",
    "forget_lacks",
    "give_up_unsigned",
    "glance",
    "hand_back",
    "have_ended",
    "have_succeeded",
    "insert_upload",
    "is_being_opened",
    "is_pruned",
    "jobs_to_publish",
    "known_upload_ids",
    "lacking_workers",
    "leave_to_others",
    "mark_unpublished",
    "missing_capabilities",
    "missing_messages",
    "needed_spools",
    "newest_transaction",
    "newest_upload",
    "note_delivered",
    "note_lack",
    "note_missing_capability",
    "note_webhook_delivered",
    "note_webhook_failed",
    "note_webhook_gone",
    "owned_jobs",
    "owners",
    "owns_spool",
    "partial_files_elsewhere",
    "parts_of",
    "pass_point_of_no_return",
    "pause_job",
    "poll_again",
    "prune",
    "put_off_abort",
    "put_off_deliveries",
    "read_upload",
    "record_parts",
    "release_claimed",
    "release_job",
    "remark",
    "report_alive",
    "report_ended",
    "request_cancel",
    "requeue_expired",
    "retry_job",
    "seconds_to_next_run",
    "sources_removed",
    "sources_to_remove",
    "take_deliveries",
    "take_webhooks",
    "time_now",
    "unsigned_webhooks",
    "update_owned",
    "update_upload",
    "upload_is_gone",
    "uploads_to_abort",
    "webhooks_are_due",
]
