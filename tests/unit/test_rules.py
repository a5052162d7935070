"""Names and numbers that people build on, written out: whoever changes one has to change it here as well."""

import json
import os
import subprocess
import sys

import pytest
from sqlalchemy.engine import make_url

from blobferry import contract
from blobferry.contract import JobState, UploadState
from blobferry.sql import tables
from blobferry.sql.database import open_engine
from models import queries
from worker.maintenance import caretaker
from worker.settings import LeaseSettings, RetentionSettings, RetrySettings, SweepSettings, TransferSettings

MINUTE, HOUR, DAY = 60, 3600, 24 * 3600
SUSPENDED = 5 * HOUR


def test_the_states_of_jobs_and_uploads_are_these() -> None:
    final = {"succeeded", "failed", "cancelled"}
    assert set(JobState) == {"queued", "running", "verifying", "retrying", "paused"} | final
    assert set(contract.FINAL_STATES) == final
    assert set(UploadState) == {"opening", "open", "completing", "completed", "aborting", "gone"}


def test_the_queues_are_ours_alone() -> None:
    assert (contract.JOBS_QUEUE, contract.READS_QUEUE) == ("blobferry", "blobferry.reads")


#: What others may read in the rows. There may be more.
COLUMNS = {
    "blobferry_jobs": "id seq tenant queue request_version message_options publish_seq published_at parent_id root_id "
    "phase base_etag version_id bytes_done bytes_sent attempt failures crashes restarts token operation storage path "
    "source state size run_at created_at updated_at started_at finished_at error_code error_message result labels "
    "idempotency_key priority not_before deadline",
    "blobferry_uploads": "job_id upload_id storage bucket endpoint key part_size state opened_at",
    "blobferry_parts": "part_number offset size etag checksum",
    "blobferry_attempts": "job_id attempt worker started_at finished_at outcome error_code bytes_sent",
    "blobferry_path_locks": "bucket path job_id",
    "blobferry_tombstones": "id finished_at",
}


def test_the_tables_and_their_columns_are_these() -> None:
    assert set(tables.metadata.tables) == set(COLUMNS)
    assert tables.VERSION_TABLE == "blobferry_alembic_version"
    for name, columns in COLUMNS.items():
        assert set(columns.split()) <= set(tables.metadata.tables[name].columns.keys()), name


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (LeaseSettings().seconds, 30),
        (LeaseSettings().heartbeat_seconds, 10),
        (LeaseSettings().margin_seconds, 5),
        (TransferSettings().slice_seconds, 5 * MINUTE),
        (RetrySettings().max_restarts, 3),
        (RetentionSettings().failed_upload_seconds, 24 * HOUR),
        (RetentionSettings().paused_upload_seconds, 7 * DAY),
        (RetentionSettings().abort_recheck_seconds, HOUR),
        (RetentionSettings().tombstone_seconds, 30 * DAY),
        (SweepSettings().interval_seconds, 5),
        (caretaker.AHEAD, 4),
        (queries.REPUBLISH_AFTER, 30),
        (queries.MAX_CRASH_STREAK, 5),
        (queries.MAX_CRASHES, 20),
    ],
)
def test_without_a_word_in_the_settings_it_is_as_promised(number: float, expected: float) -> None:
    assert number == expected


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_postgres_url_means_psycopg_3(scheme: str) -> None:
    engine = open_engine(f"{scheme}://u:p@127.0.0.1:1/d")
    assert (engine.driver, engine.dialect.name) == ("psycopg", "postgresql")
    assert engine.url == make_url("postgresql+psycopg://u:p@127.0.0.1:1/d")
    engine.dispose()


def test_the_clock_of_a_lease_counts_while_the_machine_is_suspended() -> None:
    """In a namespace of its own, whose machine has been suspended for hours."""
    asks = "import time; from worker.jobs.lease import lease_clock; print(lease_clock() - time.monotonic())"
    unshare = ["unshare", "--time", "--boottime", str(SUSPENDED)]
    environment = {"PATH": os.environ["PATH"], "BLOBFERRY_DATABASE_URL": "sqlite://"}
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no namespace of time is to be had here")
    asked = subprocess.run([*unshare, sys.executable, "-c", asks], env=environment, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    assert float(asked.stdout) >= SUSPENDED - 1


def test_celery_has_no_clock_of_its_own_to_end_a_run_by_and_no_prefix_for_our_queues() -> None:
    """A run ends at its slice, between two parts; a message comes again long after any slice."""
    names = ["task_time_limit", "task_soft_time_limit", "broker_transport_options", "result_backend_transport_options"]
    asks = f"import json; from worker.app import app; print(json.dumps([app.conf[name] for name in {names}]))"
    environment = {"PATH": os.environ["PATH"], "BLOBFERRY_DATABASE_URL": "sqlite://"}
    asked = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    hard, soft, broker, backend = json.loads(asked.stdout)
    assert (hard, soft) == (None, None)
    for options in (broker, backend):
        assert "global_keyprefix" not in options
        assert options["visibility_timeout"] >= 4 * TransferSettings().slice_seconds
