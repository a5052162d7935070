"""Everything in the broker is lost, at the worst moments. SQL owns the truth, so it costs seconds."""

from dev.services import Valkey
from dev.stack import Stack
from tests.system.conftest import PART_SIZE
from tests.system.observation import Rows, wait_for


def test_a_job_whose_message_was_flushed_while_it_was_queued_finishes(stack: Stack, broker: Valkey) -> None:
    file = stack.incoming / "queued.bin"
    file.write_bytes(bytes(PART_SIZE + 1))
    with stack.client() as client:
        job = client.write_stream("/flush/queued", file)
        broker.flush()
        with stack.worker():
            job = wait_for(client, job.id, lambda job: job.is_final)
    assert job.state == "succeeded", job


def test_a_job_whose_published_message_was_flushed_is_published_again(stack: Stack, broker: Valkey) -> None:
    file = stack.incoming / "published.bin"
    file.write_bytes(b"small")
    rows = Rows(stack.database_url)
    with stack.client() as client:
        job = client.write_stream("/flush/published", file)
        # What a caretaker does, 31 seconds ago; its message went with the flush.
        rows.execute(
            "update blobferry_jobs set publish_seq = 7, published_at = now() - interval '31 s' where id = :id",
            id=job.id,
        )
        broker.flush()
        with stack.worker():
            job = wait_for(client, job.id, lambda job: job.is_final)
        (row,) = rows.select("select publish_seq, attempt from blobferry_jobs where id = :id", id=job.id)
    rows.close()
    assert job.state == "succeeded", job
    assert dict(row) == {"publish_seq": 8, "attempt": 1}


def test_a_flush_while_a_job_runs_changes_nothing(stack: Stack, broker: Valkey) -> None:
    file = stack.incoming / "running.bin"
    file.write_bytes(bytes(12 * PART_SIZE))
    with stack.client() as client, stack.worker():
        job = client.write_stream("/flush/running", file)
        wait_for(client, job.id, lambda job: job.bytes_done > 0)
        broker.flush()
        job = wait_for(client, job.id, lambda job: job.is_final)
        assert (job.state, job.attempt) == ("succeeded", 1), job
        after = client.write_stream("/flush/after", file)  # and the worker still listens
        assert wait_for(client, after.id, lambda job: job.is_final).state == "succeeded"
