"""A run of a plan: jobs come, faults come, faults end, the system settles, and the verdict is given."""

import heapq
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from rich.console import Console

from blobferry.contract import FINAL_STATES
from dev.chaos.celery_events import Telling, listening
from dev.chaos.evidence import Evidence, gather, rows
from dev.chaos.fault_plan import Plan
from dev.chaos.fault_threads import Faulting
from dev.chaos.planned_jobs import Scene, Step
from dev.chaos.report import show_batches, show_faults, show_history, show_jobs
from dev.chaos.row_watch import RowWatch, watching
from dev.chaos.submitter import Submitting, app_engine
from dev.chaos.system import BUCKETS, System, system
from dev.chaos.verdict import FOREIGN, SETTLED, Verdict, Violation
from dev.waiting import wait_until

CROWD: Final = 40  #: unfinished jobs at which new scenes wait, for two cores carry no more
TICK: Final = 0.1  #: seconds
AGAIN: Final = 1.0  #: seconds until a step is tried again that came too early
LOOKING: Final = 90.0  #: seconds for the second look at uploads; one that fails is put off for a minute
#: The Celery event that a job in each final state must lead to.
FINAL_EVENTS: Final = {"succeeded": "task-succeeded", "failed": "task-failed"}
SETTLING: Final = 240.0  #: seconds without faults, at most


def run(plan: Plan, directory: Path, console: Console) -> bool:
    """Carry it out and print what came of it. True if all is well."""
    size = f"{len(plan.scenes)} scenes, {len(plan.faults)} faults, {plan.seconds:.0f} s"
    console.print(f"seed {plan.seed}: {size}; the store behaves as “{plan.profile}” (python -m dev.zoo)")
    with (
        system(directory, plan.profile) as running,
        watching(running.database_url) as watch,
        listening(running.broker.url) as heard,
    ):
        _begin_foreign_upload(running)
        engine, client = app_engine(running), running.stack.client()
        submitting, faulting = Submitting(running, client, engine), Faulting(running, watch)
        scenes: list[Scene] = []
        try:
            running.proxy.some(plan.seed)
            _go(plan, submitting, faulting, scenes, console)
            console.print(f"{time.strftime('%H:%M:%S')} faults are over; {watch.unfinished()} jobs are not")
            seconds, retried = _settle(running, submitting, watch)
            evidence = gather(running, watch.url)
        finally:
            faulting.ending.set()
            faulting.end()
            client.close()
            engine.dispose()
        verdict = Verdict(running, evidence, watch.excused, frozenset(retried))
        found = verdict.check(scenes)
        found += [Violation(text) for text in (*watch.violations, *submitting.violations)]
        found += _wrong_events(heard, evidence, submitting)
        found += [
            Violation(f"{harm.job_id} did not go on after: {harm.kind}", harm.job_id)
            for harm in watch.harms
            if harm.recovered is None
        ]
    show_faults(console, watch)
    show_jobs(console, scenes, evidence, running.proxy.received)
    show_batches(console, directory)
    console.print(
        f"settled {seconds:.1f} s after the last fault; {len(retried)} jobs retried by hand; looks: {watch.looks}"
    )
    console.print(f"left by killed probes for the caretakers, who remove it in an hour: {len(verdict.young_probes)}")
    for violation in found:
        console.print(f"[red]violation:[/red] {violation.text}", markup=True)
        show_history(console, violation.job_id, evidence, submitting.asked)
    console.print(f"seed {plan.seed}: " + (f"{len(found)} violations" if found else "all is well"))
    return not found


def _go(plan: Plan, submitting: Submitting, faulting: Faulting, scenes: list[Scene], console: Console) -> None:
    """Submit due jobs and inject faults until the last fault ends. Scenes that have begun are finished."""
    order = count()
    due: list[tuple[float, int, Scene, Step]] = []
    waiting, faults = list(plan.scenes), list(plan.faults)
    began = time.monotonic()
    said = began
    while (now := time.monotonic() - began) < plan.seconds or due:
        while faults and faults[0].at <= now:
            faulting.begin(faults.pop(0))
        if waiting and waiting[0][0] <= now < plan.seconds and faulting.watch.unfinished() < CROWD:
            _, scene = waiting.pop(0)
            scenes.append(scene)
            for step in scene.steps:
                heapq.heappush(due, (now + step.at, next(order), scene, step))
        while due and due[0][0] <= time.monotonic() - began:
            at, number, scene, step = heapq.heappop(due)
            if not submitting.step(scene, step):
                heapq.heappush(due, (at + AGAIN, number, scene, step))
                break
        faulting.look_after()
        if time.monotonic() - said > 20:
            said = time.monotonic()
            console.print(f"{time.strftime('%H:%M:%S')} {now:5.0f} s: {faulting.watch}")
        time.sleep(TICK)
    faulting.end()


def _settle(running: System, submitting: Submitting, watch: RowWatch) -> tuple[float, set[str]]:
    """Wait until nothing is left to do; retry what its workers' deaths have ended. How long it took, and which jobs."""
    began = time.monotonic()
    retried: set[str] = set()
    while time.monotonic() - began < SETTLING:
        time.sleep(1)
        with suppress(Exception):
            jobs = rows(watch.url, "SELECT id, idempotency_key, state, error_code FROM blobferry_jobs")
            for job in jobs:
                name = job["idempotency_key"]
                if job["state"] == "failed" and job["error_code"] == "worker_died" and name not in retried:
                    retried.add(name)
                    submitting.ask("retry", name)
            uploads = rows(watch.url, "SELECT state FROM blobferry_uploads WHERE recheck_at IS NULL")
            if all(job["state"] in FINAL_STATES for job in jobs) and all(u["state"] in SETTLED for u in uploads):
                break
    seconds = time.monotonic() - began
    _look_again(watch)
    return seconds, retried


def _look_again(watch: RowWatch) -> None:
    """Let the second look at what was aborted, and at what may have been opened late, be due now and not in an hour."""
    due = "state = 'gone' AND recheck_at IS NOT NULL"
    rows(watch.url, f"UPDATE blobferry_uploads SET recheck_at = clock_timestamp() WHERE {due} RETURNING id")
    with suppress(TimeoutError):  # then it is the verdict's to say
        wait_until(
            lambda: not rows(watch.url, f"SELECT id FROM blobferry_uploads WHERE {due}"), LOOKING, "second looks"
        )


def _begin_foreign_upload(running: System) -> None:
    client = running.s3.client()
    upload = client.create_multipart_upload(Bucket=BUCKETS["default"], Key=FOREIGN)["UploadId"]
    client.upload_part(Bucket=BUCKETS["default"], Key=FOREIGN, UploadId=upload, PartNumber=1, Body=b"theirs")
    client.close()


def _wrong_events(heard: Telling, evidence: Evidence, submitting: Submitting) -> Sequence[Violation]:
    """Celery events must say how a job ended and nothing else; they may repeat where a result was lost."""
    found = []
    for name, row in evidence.jobs.items():
        told = heard.ends.get(row["id"], set())
        was_retried = any(answer.startswith("retry") for answer in submitting.asked.get(name, []))
        if not was_retried and not told <= {FINAL_EVENTS.get(row["state"])}:
            found.append(Violation(f"{name}: is {row['state']}, and Celery was told {', '.join(told)}", row["id"]))
    return found
