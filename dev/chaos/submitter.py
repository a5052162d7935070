"""Submits the jobs of a plan as apps do, while things are broken, and sends the control requests of the plan."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from blobferry import Client, NewJob
from blobferry.contract import JOBS_QUEUE, TASK_PREFIX
from blobferry.errors import BlobferryError, ConflictError, UnreachableError
from dev.chaos.contents import content
from dev.chaos.message_faults import sender
from dev.chaos.planned_jobs import NEVER, Scene, Spec, Step
from dev.chaos.system import System

PAUSE: Final = 0.5  #: seconds before the database is tried again
PATIENCE: Final = 120.0  #: seconds of tries

Answer = TypeVar("Answer")


class TakenBack(Exception):
    """What an app raises to take its transaction back."""


@dataclass
class Submitting:
    """Carries out the steps of scenes."""

    system: System
    client: Client
    engine: Engine
    ids: dict[str, str] = field(default_factory=dict)  #: of the jobs that were submitted, by name
    asked: dict[str, list[str]] = field(default_factory=dict)  #: cancel, pause, … of a job, and what came of it
    violations: list[str] = field(default_factory=list)

    def step(self, scene: Scene, step: Step) -> bool:
        """Carry it out; False if it is too early. Nothing is given up because the database is away for a while."""
        job = scene.job(step.name)
        if step.action == "submit":
            self._prepare(job, hidden=job.name in scene.hidden)
            self._submit(job)
        elif step.action == "submit together":
            self._submit_together([job for job in scene.jobs if job.how == "together"])
        elif step.action == "retry":
            if not self._patiently(lambda: self.client.get(self.ids[job.name])).is_final:
                return False
            self._prepare(job, hidden=False)
            self.ask("retry", job.name)
        else:
            self.ask(step.action, job.name)
        return True

    def ask(self, action: str, name: str) -> None:
        """Cancel, pause, resume or retry a job; a refusal is an answer."""
        ask = getattr(self.client, action)
        try:
            job = self._patiently(lambda: ask(self.ids[name]))
            answer = f"{action}: {getattr(job, 'state', job)}"
        except BlobferryError as error:
            answer = f"{action}: {error.code}: {error}"
        self.asked.setdefault(name, []).append(answer)

    # --- how a job is submitted --------------------------------------------------------------------------------------

    def _submit(self, job: Spec) -> None:
        times = self._times(job)
        if job.how == "bare":
            self._send_bare(job, times)
        elif job.how in NEVER:
            self._patiently(lambda: self._take_back(job, times))
        elif job.how == "committed":
            self.ids[job.name] = self._patiently(lambda: self._in_transaction(job, times))
        else:
            self.ids[job.name] = self._patiently(lambda: self._call(job, times).id)
        if job.how == "twice":
            self._submit_again(job, times)

    def _submit_together(self, jobs: Sequence[Spec]) -> None:
        for job in jobs:
            self._prepare(job, hidden=False)
        requests = [NewJob(job.operation, {**self._arguments(job), **_labels(job)}) for job in jobs]
        ids = self._patiently(lambda: list(self.client.submit_many(requests)))
        self.ids |= {job.name: job_id for job, job_id in zip(jobs, ids, strict=True)}

    def _call(self, job: Spec, times: dict[str, Any], **more: Any) -> Any:
        submit: Callable[..., Any] = getattr(self.client, job.operation)
        return submit(**{**self._arguments(job), **_labels(job), **times, **more})

    def _arguments(self, job: Spec) -> dict[str, Any]:
        arguments = {name: self.system.filled(value) for name, value in job.arguments.items()}
        if job.operation == "put_content":
            arguments["contents"] = content(job.name, job.size or 0)
        return arguments

    def _in_transaction(self, job: Spec, times: dict[str, Any]) -> str:
        with Session(self.engine) as session, session.begin():
            return str(self._call(job, times, session=session).id)

    def _take_back(self, job: Spec, times: dict[str, Any]) -> None:
        try:
            with Session(self.engine) as session, session.begin():
                if job.how == "rolled_back":
                    self._call(job, times, session=session)
                    raise TakenBack
                savepoint = session.begin_nested()
                self._call(job, times, session=session)
                savepoint.rollback()
        except TakenBack:
            pass

    def _submit_again(self, job: Spec, times: dict[str, Any]) -> None:
        again = self._patiently(lambda: self._call(job, times).id)
        if again != self.ids[job.name]:
            self.violations.append(f"{job.name}: a second submit with its key made another job, {again}")
        try:
            self._patiently(lambda: self._call(job, {**times, "overwrite": False}))
            self.violations.append(f"{job.name}: another request with its key was taken")
        except ConflictError:
            pass

    def _send_bare(self, job: Spec, times: dict[str, Any]) -> None:
        arguments = self._arguments(job) | times
        self.ids[job.name] = job.name
        with sender(self.system.broker.url) as app:
            try:
                app.send_task(TASK_PREFIX + job.operation, kwargs=arguments, task_id=job.name, queue=JOBS_QUEUE)
            except Exception as error:  # the broker is down: an app that sends bare messages gets this error
                self.asked.setdefault(job.name, []).append(f"not sent: {error!r:.100}")

    # --- what it needs ----------------------------------------------------------------------------------------------

    def _times(self, job: Spec) -> dict[str, Any]:
        now = datetime.now(UTC)
        times = {"not_before": job.starts_in, "deadline": job.ends_in}
        return {name: now + timedelta(seconds=seconds) for name, seconds in times.items() if seconds is not None}

    def _prepare(self, job: Spec, *, hidden: bool) -> None:
        if "dest" in job.arguments:
            Path(self.system.filled(job.arguments["dest"]).removeprefix("file://")).parent.mkdir(exist_ok=True)
        source = str(job.arguments.get("source", ""))
        if not hidden and source.startswith(("{site}", "file:")):
            aside = self.system.stack.incoming / f".{job.name}"
            aside.write_bytes(content(job.name, job.size or 0))
            aside.rename(self.system.stack.incoming / job.name)

    def _patiently(self, work: Callable[[], Answer]) -> Answer:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return work()
            except (UnreachableError, SQLAlchemyError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE)


def _labels(job: Spec) -> dict[str, Any]:
    return {"idempotency_key": job.name, "priority": job.priority, "labels": {"chaos": job.name}}


def app_engine(system: System) -> Engine:
    """The engine of an app, through the same wire as everybody's."""
    return create_engine(system.stack.database_url, pool_pre_ping=True, connect_args={"connect_timeout": 5})
