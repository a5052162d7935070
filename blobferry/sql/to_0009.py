"""The statements that lead the tables from revision 0008 to 0009, frozen as they were."""

from collections.abc import Mapping, Sequence
from typing import Final

#: For apps that join the state of jobs to their own rows; see docs/ends.md.
STATUS_VIEW: Final = (
    "CREATE VIEW blobferry_status AS SELECT id AS job_id, operation, storage, path, state, "
    "state IN ('succeeded', 'failed', 'cancelled') AS is_final, size, bytes_done, error_code, error_message, labels, "
    "created_at, started_at, finished_at FROM blobferry_jobs"
)
DROP_STATUS_VIEW: Final = "DROP VIEW IF EXISTS blobferry_status"
#: Apart, since Alembic makes it while the table is in use.
ENDED_INDEX: Final = "CREATE INDEX ix_blobferry_jobs_ended ON blobferry_jobs (ended_in, seq) WHERE ended_in IS NOT NULL"
#: By the name of SQLAlchemy's dialect.
TO_0009: Final[Mapping[str, Sequence[str]]] = {
    "postgresql": (
        "ALTER TABLE blobferry_jobs ADD COLUMN on_end JSONB",
        "ALTER TABLE blobferry_jobs ADD COLUMN ends BIGINT DEFAULT 0 NOT NULL",
        "ALTER TABLE blobferry_jobs ADD COLUMN ended_in BIGINT",
        (
            "CREATE TABLE blobferry_deliveries ( id BIGSERIAL NOT NULL, job_id VARCHAR(155) NOT NULL, sequence "
            "INTEGER DEFAULT 0 NOT NULL, kind VARCHAR(16) DEFAULT 'task' NOT NULL, job_state VARCHAR(16) DEFAULT "
            "'' NOT NULL, size BIGINT, error_code VARCHAR(64), error_message TEXT, ended_at TIMESTAMP WITH TIME "
            "ZONE DEFAULT clock_timestamp() NOT NULL, state VARCHAR(16) DEFAULT 'due' NOT NULL, due_at TIMESTAMP "
            "WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, tries BIGINT DEFAULT 0 NOT NULL, delivered_at "
            "TIMESTAMP WITH TIME ZONE, CONSTRAINT pk_blobferry_deliveries PRIMARY KEY (id), CONSTRAINT "
            "fk_blobferry_deliveries_job_id FOREIGN KEY(job_id) REFERENCES blobferry_jobs (id) ON DELETE CASCADE "
            ")"
        ),
        "CREATE INDEX ix_blobferry_deliveries_due ON blobferry_deliveries (due_at) WHERE state = 'due'",
        "CREATE INDEX ix_blobferry_deliveries_job_id ON blobferry_deliveries (job_id)",
        (
            "CREATE TABLE blobferry_listeners ( name VARCHAR(128) NOT NULL, position TEXT, updated_at TIMESTAMP "
            "WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, CONSTRAINT pk_blobferry_listeners PRIMARY KEY "
            "(name) )"
        ),
        STATUS_VIEW,
    ),
    "sqlite": (
        "ALTER TABLE blobferry_jobs ADD COLUMN on_end JSON",
        "ALTER TABLE blobferry_jobs ADD COLUMN ends INTEGER DEFAULT 0 NOT NULL",
        "ALTER TABLE blobferry_jobs ADD COLUMN ended_in INTEGER",
        (
            "CREATE TABLE blobferry_deliveries ( id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, job_id "
            "VARCHAR(155) NOT NULL, sequence INTEGER DEFAULT 0 NOT NULL, kind VARCHAR(16) DEFAULT 'task' NOT "
            "NULL, job_state VARCHAR(16) DEFAULT '' NOT NULL, size INTEGER, error_code VARCHAR(64), "
            "error_message TEXT, ended_at DATETIME DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now')) NOT NULL, "
            "state VARCHAR(16) DEFAULT 'due' NOT NULL, due_at DATETIME DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', "
            "'now')) NOT NULL, tries INTEGER DEFAULT 0 NOT NULL, delivered_at DATETIME, CONSTRAINT "
            "fk_blobferry_deliveries_job_id FOREIGN KEY(job_id) REFERENCES blobferry_jobs (id) ON DELETE CASCADE "
            ")"
        ),
        "CREATE INDEX ix_blobferry_deliveries_due ON blobferry_deliveries (due_at) WHERE state = 'due'",
        "CREATE INDEX ix_blobferry_deliveries_job_id ON blobferry_deliveries (job_id)",
        (
            "CREATE TABLE blobferry_listeners ( name VARCHAR(128) NOT NULL, position TEXT, updated_at DATETIME "
            "DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now')) NOT NULL, CONSTRAINT pk_blobferry_listeners "
            "PRIMARY KEY (name) )"
        ),
        STATUS_VIEW,
    ),
}
