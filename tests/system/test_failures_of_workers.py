"""Workers and their children that die.

What may fail around a job, row by row, and the tests that show with real processes what then becomes of it:

    SIGKILL or OOM of a child
        test_sigkill_or_oom_of_a_child_frees_its_job_within_two_seconds_however_long_the_lease
        test_a_killed_child_is_a_retry_for_celery_and_the_job_succeeds
    SIGKILL, OOM or power of a whole worker
        test_sigkill_oom_or_power_of_a_whole_worker_costs_a_lease_and_a_sweep
        test_kills_lose_nothing_and_send_nothing_twice
        test_kills_in_the_middle_of_moves_reads_and_deletes_lose_nothing
    SIGTERM of a deploy
        test_sigterm_deploy_drains_within_five_seconds_and_leaves_nothing_unacknowledged
        test_a_rolling_restart_of_two_workers_under_load_costs_no_job_a_lease
        test_sigterm_ends_a_worker_in_ten_seconds_whatever_falls_silent
        test_sigterm_ends_a_worker_whose_broker_has_never_answered
    SIGQUIT, or SIGKILL before the drain is over
        test_a_worker_that_is_not_given_the_time_to_drain_loses_nothing
    poison job
        test_a_poison_job_that_kills_its_worker_each_time_ends_failed
    memory that grows
        test_a_child_is_recycled_between_two_slices_of_a_job
    Redis restarts with AOF, or without; is down
        test_redis_is_down_while_jobs_run_and_are_submitted_and_restarts
        test_redis_is_down_for_a_minute_while_jobs_run_and_are_submitted
        test_a_restored_snapshot_of_the_broker_runs_nothing_again
    FLUSHALL, or a failover with lag
        test_a_job_whose_message_was_flushed_while_it_was_queued_finishes
        test_a_job_whose_published_message_was_flushed_is_published_again
        test_a_flush_while_a_job_runs_changes_nothing
    half-open connection to Redis, or partition from it
        test_a_half_open_connection_to_redis_is_given_up_and_jobs_go_on
        test_an_idle_worker_gives_up_a_half_open_connection_to_redis
        test_a_partition_from_redis_does_not_keep_a_running_job_from_its_end
    partition from PostgreSQL, or failover
        test_postgres_is_killed_and_restarted_while_parts_are_in_flight
        test_a_connection_that_is_cut_in_the_middle_of_a_commit_costs_no_attempt
        test_a_partition_from_postgres_shorter_than_the_lease_costs_no_attempt
        test_a_run_stops_before_its_lease_ends_when_postgres_stays_away
        test_postgres_is_silent_for_longer_while_parts_are_in_flight
        test_a_failover_to_a_server_that_is_read_only_for_a_while_is_waited_for
    database that is busy, or refuses
        test_lock_timeouts_and_statement_timeouts_are_tried_again_within_the_lease
        test_a_deadlock_that_kills_a_checkpoint_is_tried_again
        test_serialization_failures_are_tried_again
        test_sqlite_is_busy_with_somebody_elses_transaction
    run longer than the visibility timeout, or duplicate message
        test_a_run_longer_than_somebodys_visibility_timeout_is_not_joined_by_a_second
        test_duplicate_and_out_of_date_messages_claim_nothing
        test_premature_messages_start_nothing_that_is_not_committed
        test_the_message_of_a_pruned_job_starts_nothing
    clock skew
        test_clock_skew_of_hours_between_workers_and_the_database_changes_nothing
    revoke while workers restart
        test_a_revoke_while_workers_restart_is_remembered_by_the_row
        test_a_revoke_of_a_running_job_cancels_it_and_leaves_nothing_in_the_store
        test_a_revoke_of_a_bare_task_that_waits_in_the_queue_keeps_it_from_the_store
        test_a_revoked_id_does_not_stand_in_the_way_of_a_later_retry
    hung S3 socket, or a store that dies
        test_a_hung_s3_socket_does_not_block_its_slot_for_ever
        test_a_store_that_is_killed_and_comes_back_gets_only_what_it_lacks
    dead sweeper
        test_a_dead_sweeper_is_started_again_and_publishes_what_has_no_message
"""

import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from blobferry import Client, Job
from dev.stack import Stack
from dev.waiting import wait_until
from tests.system.recorded_stack import LONG_LEASE, Scene, caretaker_of, child_of, recorded


def test_every_failure_of_the_table_has_its_test() -> None:
    promised = set(re.findall(r"^ +(test_\w+)$", str(__doc__), re.MULTILINE))
    assert promised - names_of_tests("*.py") == set()
    assert names_of_tests("test_failures_of_*.py") - promised == {"test_every_failure_of_the_table_has_its_test"}


def names_of_tests(pattern: str) -> set[str]:
    """The names of all tests in such modules beside this one."""
    text = "\n".join(file.read_text() for file in Path(__file__).parent.glob(pattern))
    return set(re.findall(r"^def (test_\w+)", text, re.MULTILINE))


def test_sigkill_or_oom_of_a_child_frees_its_job_within_two_seconds_however_long_the_lease(stack: Stack) -> None:
    default_sweep = {"BLOBFERRY_SWEEP__INTERVAL_SECONDS": "5", "BLOBFERRY_CONCURRENCY": "2"}
    with recorded(stack, settings=LONG_LEASE | default_sweep) as scene, scene.stack.worker():
        job, neighbour = scene.submit("/child/killed", 24), scene.submit("/child/neighbour", 12)
        for running in (neighbour, job):
            scene.under_way(running)
        seconds = [seconds_to_free(scene, job, attempt) for attempt in (1, 2, 3)]
        assert min(seconds) <= 2, "of three, for the machine may be busy with other things"
        assert max(seconds) < 20, "nobody has waited for the lease"
        scene.succeeded(job, attempt=4)
        scene.succeeded(neighbour, attempt=1)
        history = scene.attempts(job)
        assert [row["outcome"] for row in history] == ["died"] * 3 + ["succeeded"]
        assert len({row["worker"] for row in history}) == 4


def seconds_to_free(scene: Scene, job: Job, attempt: int) -> float:
    """Kill the child that runs the job; the seconds until the job was free."""
    job = scene.until(job, lambda job: job.is_final or (job.attempt == attempt and job.worker))
    killed_at = time.time()
    os.kill(child_of(job), signal.SIGKILL)
    scene.until_rows(
        "select 1 from blobferry_attempts where job_id = :id and attempt = :attempt and outcome = 'died'",
        id=job.id,
        attempt=attempt,
    )
    return float(scene.attempts(job)[attempt - 1]["finished_at"].timestamp() - killed_at)


def test_sigkill_oom_or_power_of_a_whole_worker_costs_a_lease_and_a_sweep(stack: Stack) -> None:
    settings = {
        "BLOBFERRY_LEASE__SECONDS": "6",
        "BLOBFERRY_LEASE__HEARTBEAT_SECONDS": "2",
        "BLOBFERRY_SWEEP__INTERVAL_SECONDS": "1",
    }
    with (
        recorded(stack, settings=settings) as scene,
        scene.stack.worker("first") as first,
        scene.stack.worker("second") as second,
    ):
        job = scene.begin("/worker/killed", 12)
        group = os.getpgid(child_of(job))
        next(worker for worker in (first, second) if worker.pids == (group,)).kill9()
        killed_at = time.time()
        scene.succeeded(job, attempt=2)
        died, again = scene.attempts(job)
        assert [died["outcome"], again["outcome"]] == ["died", "succeeded"]
        assert again["started_at"].timestamp() - killed_at <= 6 + 1 + 2


def test_a_poison_job_that_kills_its_worker_each_time_ends_failed(stack: Stack) -> None:
    delays = {"create_upload": 2.0, "upload_part": 0.6}
    settings = LONG_LEASE | {"BLOBFERRY_TRANSFER__PART_THREADS": "1", "BLOBFERRY_CONCURRENCY": "2"}
    with recorded(stack, delays=delays, settings=settings) as scene, scene.stack.worker():
        poison = [
            Poison(scene.submit("/poison/none", 9), progress=0),
            Poison(scene.submit("/poison/some", 30), progress=1),
        ]
        wait_until(lambda: all([one.killed_again(scene.client) for one in poison]), 60, "the end of both")
        for one in poison:
            assert (one.job.state, one.job.error_code) == ("failed", "worker_died")
            assert f"worker died {len(one.deaths)} times" in str(one.job.error_message)
            assert 3 <= len(one.deaths) <= 20
            assert {row["outcome"] for row in scene.attempts(one.job)} == {"died"}
        assert poison[1].job.bytes_done > 0
        scene.succeeded(scene.submit("/poison/after", 1), attempt=1)  # and the worker lives


@dataclass
class Poison:
    """A job that kills each child that runs it, as soon as it has saved so many bytes more."""

    job: Job
    progress: int
    deaths: set[str] = field(default_factory=set)
    saved: int = 0

    def killed_again(self, client: Client) -> bool:
        """Kill its child, if the time has come; whether the job is final."""
        job = self.job = client.get(self.job.id)
        if job.worker and job.worker not in self.deaths and job.bytes_done >= self.saved + self.progress:
            self.deaths.add(job.worker)
            self.saved = job.bytes_done
            with suppress(ProcessLookupError):
                os.kill(child_of(job), signal.SIGKILL)
        return job.is_final


def test_a_dead_sweeper_is_started_again_and_publishes_what_has_no_message(stack: Stack) -> None:
    with recorded(stack) as scene, scene.stack.worker() as worker, Client(database_url=stack.database_url) as mute:
        dead = caretaker_of(worker)
        dead.kill()
        file = scene.file_of("/sweeper/dead")
        file.write_bytes(b"nobody was told")
        job = mute.write_stream("/sweeper/dead", file)  # this client has no broker
        scene.succeeded(job, attempt=1, timeout=20)
        assert caretaker_of(worker).pid != dead.pid
