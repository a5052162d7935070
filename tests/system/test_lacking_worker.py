"""A real worker that lacks what jobs need, beside one that has it, and alone."""

from dataclasses import replace

from dev.stack import BUCKET, Stack

JOBS = 16


def bare(stack: Stack, **settings: str) -> Stack:
    """The stack as a worker sees it whose settings name another storage only."""
    return replace(stack, buckets={"another": BUCKET}, settings={**stack.settings, **settings})


def test_a_worker_without_the_storage_fails_no_job_while_another_has_it(stack: Stack) -> None:
    (stack.incoming / "file").write_bytes(b"bytes")
    with stack.client() as client, bare(stack).worker("bare"), stack.worker("whole"):
        source = (stack.incoming / "file").as_uri()
        jobs = [client.write_stream(f"/lacking/{number}", source).id for number in range(JOBS)]
        ended = [client.wait(job_id, timeout=120) for job_id in jobs]
        assert [job.state for job in ended] == ["succeeded"] * JOBS
        attempts = [attempt for job_id in jobs for attempt in client.attempts(job_id)]
        lacking = [attempt for attempt in attempts if attempt.error_code == "configuration"]
        assert len(lacking) < 2 * JOBS, "they were left to the other worker once that was known"
        assert len(attempts) == JOBS + len(lacking)


def test_if_no_worker_has_the_storage_jobs_fail_after_their_retries_with_that_reason(stack: Stack) -> None:
    (stack.incoming / "file").write_bytes(b"bytes")
    with stack.client() as client, bare(stack, BLOBFERRY_RETRY__MAX_ATTEMPTS="4").worker("bare"):
        job = client.write_stream("/lacking", (stack.incoming / "file").as_uri())
        job = client.wait(job.id, timeout=120)
        assert (job.state, job.error_code, job.attempt) == ("failed", "configuration", 4)
        assert "storages.default" in str(job.error_message)
        report = stack.run("doctor").stdout
        assert "takes no jobs that need it" in report
        assert "storages.default" in report
