"""No statement reads a whole table, however many jobs there are: every public function of models.queries is tried."""

import inspect
import pkgutil
import shutil
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from alembic import command
from sqlalchemy import bindparam, select, text
from sqlalchemy.orm import Session

from blobferry.contract import JobState, Phase, UploadState
from blobferry.django import owned_names
from blobferry.errors import InvalidPartError, StoreUnavailableError
from blobferry.jobs import delivery_log, end_feed
from blobferry.jobs.job_filter import check_filter
from blobferry.jobs.job_search import find_jobs
from dev.services import Postgres, postgres_database
from models import ClaimedJob, Database, JobRow, UploadRow, queries
from models.claimed_job import CLAIMED
from models.queries import BatchedJob, FailedTry, Hold
from tests.conftest import alembic_config
from tests.doubles import tiny_store
from tests.models.many_rows import fill, in_vain, watched

DAY: Final = 24 * 3600.0
UPLOAD: Final = 1_000_001  #: of the running job
HERE: Final[dict[str, Any]] = {"worker": "w@h:1", "lease_seconds": 30.0, "failed_upload_seconds": DAY}
PART: Final = {"part_number": 1, "offset": 0, "size": 1, "etag": ""}
WEBHOOK: Final = {"url": "https://h/x", "endpoint": "https://h/x", "host": "h", "secret": "default"}
TOLD: Final = {"on_failed": {}, "webhook": WEBHOOK}
CURSOR: Final = urlsafe_b64encode(b"[[10,[5,6]],null,[0,0]]").decode()
ERROR: Final = InvalidPartError("x")

pytestmark = [pytest.mark.no_cover, pytest.mark.timeout(300)]


def running(session: Session) -> ClaimedJob:
    return ClaimedJob(**session.execute(select(*CLAIMED).where(JobRow.id == "running-1")).one()._mapping)


def upload(session: Session) -> UploadRow:
    found = queries.newest_upload(session, "running-1")
    assert found is not None
    return found


def claim(job_id: str, *holds: Hold) -> Callable[[Session], object]:
    return lambda session: queries.claim_job(session, job_id, **HERE, holds=lambda job: holds)


def hold(key: str, *, is_tree: bool = False, is_shared: bool = False) -> Hold:
    return Hold("b", key, is_tree, {"default": f"/{key}"}, is_shared)


OF_CONTENTS: Final = "operation = 'put_content', source = NULL, contents = 'x'"
OF_FILES: Final = "operation = 'write_stream', source = 'file:///x'"


def claim_batch(session: Session, kind: str) -> list[BatchedJob]:
    """Claim jobs that have been made small ones, those that are next among others that are none."""
    small = f"{kind}, attempt = 0, priority = 9"
    ids = [f"queued-{number}" for number in range(20_000, 20_012)]
    session.execute(
        text(f"UPDATE blobferry_jobs SET {small} WHERE id IN :ids").bindparams(bindparam("ids", ids, expanding=True))
    )
    first = queries.glance(session, ids[0], "w", ended_before=60)
    assert first is not None
    how: dict[str, Any] = {"worker": "w@h:0", "lease_seconds": 30, "most_jobs": 8, "most_bytes": 1000}
    claimed = queries.claim_batch(session, first, **how, hold_of=lambda path: hold(path.removeprefix("/")))
    assert len(claimed) == 8
    return claimed


def run_batch(session: Session, kind: str = OF_CONTENTS) -> None:
    """A batch of which some jobs leave."""
    claimed = claim_batch(session, kind)
    tokens = {job.seq: job.token for job in claimed}
    assert queries.extend_leases(session, tokens, 30) == set(tokens)
    common = [{"seq": job.seq, "job_id": job.id, "attempt": job.attempt, "size": 1} for job in claimed]
    base: dict[str, Any] = {"key": "x", "fingerprint": {}, "base_etag": "", "base_mod_time": None}
    rows = [row | base for row in common]
    queries.begin_completing_all(session, tokens, rows, storage="default", place=tiny_store())
    shown = [
        row | {"sent": {}, "etag": "e", "version_id": None, "result": {}, "storage": "default", "on_end": None}
        for row in common
    ]
    left = [row | {"phase": Phase.VERIFYING, "upload_state": UploadState.COMPLETED} for row in shown[:4]]
    assert len(queries.end_batch(session, tokens, succeeded=shown[4:], leaving=left)) == 4
    assert len(queries.have_succeeded(session, tokens)) == 4
    assert len(queries.owned_jobs(session, tokens)) == 4
    queries.hand_back(session, {job.seq: job.token for job in claimed[:2]})
    assert len(queries.owned_jobs(session, tokens)) == 2
    queries.release_claimed(session, "w@h:0", but=claimed[2].id)


def deliver(session: Session) -> None:
    taken = queries.take_deliveries(session, limit=64, hold_seconds=30)
    assert len(taken) == 64
    queries.note_delivered(session, [each.id for each in taken[:40]])
    queries.put_off_deliveries(session, [each.id for each in taken[40:]], 2)


def send_webhooks(session: Session) -> None:
    how: dict[str, Any] = {"busy": ["busy"], "secrets": ["default"]}
    assert queries.webhooks_are_due(session, **how)
    taken = queries.take_webhooks(session, limit=16, hold_seconds=30, **how)
    assert len(taken) == 5, "one of each host"
    failed = FailedTry(taken[0].id, taken[0].tries, 500, "x", 5)
    assert not queries.note_webhook_failed(session, failed, give_up_seconds=DAY)
    queries.note_webhook_delivered(session, taken[1].id, 204)
    queries.note_webhook_gone(session, taken[2], "x")
    assert queries.unsigned_webhooks(session, ["default"]) == ["other"]
    assert queries.give_up_unsigned(session, ["default"], give_up_seconds=-60) == 3


def read_deliveries(session: Session) -> None:
    """Not of models.queries, but people ask. All of them are read from the end of the table, up to the limit."""
    connection = session.connection()
    assert len(delivery_log.find_deliveries(connection, job_id="finished-7")) > 1
    assert len(delivery_log.find_deliveries(connection, failed=True, limit=100)) == 50


def read_feed(session: Session) -> None:
    """Not of models.queries, but many clients poll it: a page that begins with two late ones, and the next."""
    first = end_feed.page_of(session.connection(), CURSOR, None, 100)
    assert len(first) == 100
    end_feed.page_of(session.connection(), first.cursor, None, 100)


def list_under(path: str, found: int, **filters: Any) -> Callable[[Session], None]:
    wanted = check_filter(
        dict.fromkeys(("state", "since", "until", "operation", "storage", "labels"))
        | filters
        | {"under": path, "limit": 50}
    )

    def work(session: Session) -> None:
        assert len(find_jobs(session.connection(), wanted)) == found

    return work


def own_names(session: Session) -> None:
    """Not of models.queries either: what a storage of Django's asks for each file."""
    session.execute(text("UPDATE blobferry_jobs SET idempotency_key = 'file ' || path WHERE id = 'finished-5'"))
    connection = session.connection()
    for path in ("/finished/5", "/none"):
        owned_names.become_writer(connection)
        found = owned_names.find_latest(connection, "default", path)
        assert (found is None) is (path == "/none")
        owned_names.note_release(connection, "default", path)


def leave_to_others(session: Session) -> object:
    session.execute(text("INSERT INTO blobferry_workers (worker, alive_until) VALUES ('other', '2999-01-01 00:00:00')"))
    for _ in range(3):
        queries.note_lack(session, "w", "w", "storages.default", "gone")
    return queries.leave_to_others(session, "queued-9", "w", seconds=1)


def remove_sources(session: Session) -> None:
    """Of one job that has just succeeded, and of all whose worker was killed then."""
    session.execute(text("UPDATE blobferry_jobs SET removes_source = true WHERE id IN ('finished-1', 'finished-2')"))
    assert len(queries.sources_to_remove(session, limit=1, job_ids=["finished-1"])) == 1
    assert len(queries.sources_to_remove(session, limit=100)) == 2
    queries.sources_removed(session, ["finished-1", "finished-2"])
    assert queries.sources_to_remove(session, limit=100) == []


#: What is tried, by name. The functions of a run get the job that runs.
WORK: Final[dict[str, Callable[[Session], object]]] = {
    "claim": claim("queued-30000", hold("x/1")),
    "claim that must wait": claim("queued-30000", hold("queued/7")),
    "claim of readers": claim("queued-30000", hold("x/2", is_shared=True)),
    "claim of a tree": claim("queued-30000", hold("x", is_tree=True)),
    "claim of a tree that must wait": claim("queued-30000", hold("running", is_tree=True)),
    "claim of a new job": lambda session: queries.claim_new_job(
        session, "queued-29999", worker="w@h:1", worker_id="w", lease_seconds=30.0, holds=lambda job: [hold("x/3")]
    ),
    "batch": run_batch,
    "batch of files": lambda session: run_batch(session, OF_FILES),
    "claim of a dead run": claim("dead-1", hold("dead/1")),
    "claim of a request": lambda session: queries.apply_requests(
        session, limit=1, paused_upload_seconds=DAY, job_id="cancelled-1"
    ),
    "publish": lambda session: queries.mark_unpublished(session, queries.jobs_to_publish(session, limit=400, turn=1)),
    "missing messages": lambda session: queries.missing_messages(session, limit=100),
    "no missing messages": lambda session: queries.missing_messages(session, limit=1),
    "next run": lambda session: queries.seconds_to_next_run(session, since=5),
    "expired leases": lambda session: queries.requeue_expired(session, limit=100, failed_upload_seconds=DAY),
    "requests": lambda session: queries.apply_requests(session, limit=100, paused_upload_seconds=DAY),
    "owners": queries.owners,
    "dead workers": lambda session: queries.expire_leases(session, ["w@h:1", "w@h:2"]),
    "cancels": lambda session: queries.request_cancel(session, ["queued-1", "running-1", "finished-1"]),
    "stale locks": queries.drop_stale_locks,
    "uploads to abort": lambda session: queries.uploads_to_abort(session, limit=50, files_of="file://h"),
    "partial files": lambda session: queries.partial_files_elsewhere(session, limit=10, files_of="file://h"),
    "prune": lambda session: queries.prune(session, job_seconds=1.5 * DAY, tombstone_seconds=10 * DAY, limit=25),
    "prune nothing": lambda session: queries.prune(
        session, job_seconds=90 * DAY, tombstone_seconds=90 * DAY, limit=100
    ),
    "release": lambda session: queries.release_job(session, running(session), JobState.QUEUED),
    "pause": lambda session: queries.pause_job(session, running(session), paused_upload_seconds=DAY),
    "retry": lambda session: queries.retry_job(
        session, running(session), StoreUnavailableError("x"), delay=1, failures=1, max_attempts=8
    ),
    "finish": lambda session: queries.finish_job(session, running(session), {}),
    "fail": lambda session: queries.fail_job(session, running(session), ERROR, failed_upload_seconds=DAY),
    "fail at once": lambda session: queries.fail_job(session, running(session), StoreUnavailableError("x")),
    "cancel": lambda session: queries.cancel_job(session, running(session)),
    "poll": lambda session: queries.poll_again(session, running(session), 60),
    "heartbeat": lambda session: queries.extend_lease(session, "running-1", 1, 30),
    "completing": lambda session: queries.pass_point_of_no_return(session, running(session), phase=Phase.COMPLETING),
    "a phase": lambda session: queries.update_owned(session, "running-1", 1, phase=Phase.DELETING),
    "record parts": lambda session: queries.record_parts(session, UPLOAD, [PART, {**PART, "part_number": 2}]),
    "drop parts": lambda session: queries.drop_parts(session, UPLOAD, [1, 2]),
    "parts of": lambda session: queries.parts_of(session, 7),
    "upload": lambda session: queries.update_upload(session, UPLOAD, state="completing"),
    "known uploads": lambda session: queries.known_upload_ids(session, "f/1"),
    "opening": lambda session: queries.is_being_opened(session, upload(session)),
    "abort later": lambda session: queries.put_off_abort(session, UPLOAD, 60),
    "upload gone": lambda session: queries.upload_is_gone(session, UPLOAD, recheck_seconds=60),
    "remark": lambda session: queries.remark(session, running(session), "x"),
    "attempt": lambda session: queries.close_attempt(session, running(session), "failed", ERROR),
    "new upload": lambda session: queries.insert_upload(session, job_id="running-1", key="r/1", state="opening"),
    "job": lambda session: queries.find_job(session, "running-1"),
    "read upload": lambda session: queries.read_upload(session, "running-1"),
    "ended": lambda session: queries.find_ended(session, "finished-1", 5),
    "pruned": lambda session: queries.is_pruned(session, "gone-1"),
    "time": queries.time_now,
    "missing capabilities": lambda session: queries.missing_capabilities(session, "s"),
    "note a capability": lambda session: queries.note_missing_capability(session, "s", "c", "r"),
    "alive": lambda session: queries.report_alive(session, "w", "w", 30),
    "gone workers": queries.forget_gone_workers,
    "no longer alive": lambda session: queries.report_ended(session, "w"),
    "feed": read_feed,
    "list under a path of few": list_under("/queued/777", 1),
    "list under a path of few, of a state": list_under("/queued/777", 0, state="failed"),
    "list under a path of many": list_under("/spooled", 50),
    "names of files": own_names,
    "deliver": deliver,
    "told end": lambda session: queries.outbox.note_end(session, JobState.FAILED, {"finished-1": ("default", TOLD)}),
    "webhooks": send_webhooks,
    "deliveries": read_deliveries,
    "sources to remove": remove_sources,
    "needed uploads": lambda session: queries.needed_spools(session, [f"ferry-{n}" for n in range(500)], but=["x"]),
    "new spool": lambda session: queries.add_spool(session, "s"),
    "own spool": lambda session: queries.owns_spool(session, "s"),
    "open transactions": lambda session: queries.have_ended(session, queries.newest_transaction(session)),
    "lacks": leave_to_others,
    "no lacks": lambda session: queries.forget_lacks(session, "w", ["a"]),
    "lacking workers": queries.lacking_workers,
}


@pytest.fixture(scope="module", params=["postgres", "sqlite", "sqlite with statistics"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Each is filled once. An app's SQLite has statistics only if somebody has asked for them."""
    kind = request.param
    if kind == "postgres":
        server: Postgres = request.getfixturevalue("postgres_server")
        with postgres_database(server) as url:
            command.upgrade(alembic_config(url), "head")
            yield from opened(url, kind)
        return
    path: Path = tmp_path_factory.getbasetemp() / "many_rows.db"
    if not path.exists():
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), path)
    yield from opened(f"sqlite:///{path}", kind)


def opened(url: str, kind: str) -> Iterator[Database]:
    database = Database(url)
    with database.begin() as session:
        is_empty = session.scalar(text("SELECT 1 FROM blobferry_jobs LIMIT 1")) is None
    if is_empty:
        fill(database)
    if kind == "sqlite with statistics":
        with database.begin() as session:
            session.execute(text("ANALYZE"))
    yield database
    database.close()


def functions() -> Iterator[Callable[..., Any]]:
    """The public functions of models.queries that get a session."""
    for module in pkgutil.iter_modules(queries.__path__):
        for name, found in inspect.getmembers(import_module(f"models.queries.{module.name}"), inspect.isfunction):
            is_ours = found.__module__.startswith("models.queries.") and not name.startswith("_")
            if is_ours and next(iter(inspect.signature(found).parameters), None) == "session":
                yield found


def test_no_statement_of_a_jobs_life_reads_more_rows_than_it_needs(filled: Database) -> None:
    statements, called, too_much = 0, set[object](), dict[str, list[str]]()

    def note(frame: FrameType, kind: str, argument: object) -> None:
        called.add(frame.f_code)

    for name, work in WORK.items():
        with watched(filled) as reading:
            before = sys.getprofile()
            sys.setprofile(note)
            try:
                in_vain(filled, work)
            finally:
                sys.setprofile(before)
        if reading.too_much:
            too_much[name] = reading.too_much
        statements += reading.statements
    assert too_much == {}
    assert statements > len(WORK)
    untried = {found.__qualname__ for found in functions() if found.__code__ not in called}
    assert untried == set(), "add what calls them to WORK"


READS_ALL: Final = (
    "SELECT count(*) FROM blobferry_jobs WHERE error_code = 'x'",
    "SELECT * FROM blobferry_jobs WHERE substr(path, 1, 3) = '/x/' ORDER BY seq LIMIT 1",
    "UPDATE blobferry_uploads SET state = 'gone' WHERE bucket = 'x'",
    "DELETE FROM blobferry_attempts WHERE outcome IS NULL",
)


@pytest.mark.parametrize("statement", READS_ALL)
def test_a_statement_that_reads_a_table_is_seen(filled: Database, statement: str) -> None:
    with watched(filled) as reading:
        in_vain(filled, lambda session: session.execute(text(statement)).close())
    assert reading.too_much
