"""A backend of django.tasks whose tasks are our operations: to enqueue one is to submit its job.

For Django 6, and for its backport, the package django-tasks.
"""

from importlib import import_module
from importlib.util import find_spec
from math import ceil
from typing import Any, Final

from blobferry import errors
from blobferry.contract import JobState
from blobferry.django import operations
from blobferry.django.ferries import Ferry, ferry
from blobferry.errors import InvalidRequestError, JobNotFoundError
from blobferry.values import Job

_API: Final = "django.tasks" if find_spec("django.tasks") else "django_tasks"
try:
    _base, _exceptions = import_module(f"{_API}.base"), import_module(f"{_API}.exceptions")
    _signals, _backends = import_module(f"{_API}.signals"), import_module(f"{_API}.backends.base")
except ImportError as missing:
    raise ImportError("blobferry.django.task_backend needs Django 6, or the package django-tasks") from missing

InvalidTask: Final = getattr(_exceptions, "InvalidTask", None) or _exceptions.InvalidTaskError  # of the backport
_OPERATIONS: Final = {name: getattr(operations, name) for name in ("write_stream", "read_stream", "move", "delete")}
_STATUSES: Final = {
    JobState.QUEUED: "READY",
    JobState.RETRYING: "READY",
    JobState.PAUSED: "READY",
    JobState.RUNNING: "RUNNING",
    JobState.VERIFYING: "RUNNING",
    JobState.SUCCEEDED: "SUCCESSFUL",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "FAILED",
}


class FerryTaskBackend(_backends.BaseTaskBackend):  # type: ignore[name-defined]
    """``TASKS = {"ferry": {"BACKEND": "blobferry.django.task_backend.FerryTaskBackend", "OPTIONS": {…}}}``.

    Its tasks are the functions of :mod:`blobferry.django.operations`. The option ``database`` is an alias of DATABASES.
    The id of a result is that of the job, and ``run_after`` its ``not_before``. A priority above 0 is one of 1 to 9 of
    the job's, any other 0.
    """

    supports_defer = True
    supports_get_result = True
    supports_priority = True

    @property
    def ferry(self) -> Ferry:
        """The client that submits."""
        return ferry.using(self.options["database"]) if "database" in self.options else ferry

    def validate_task(self, task: Any) -> None:
        super().validate_task(task)
        if task.func not in _OPERATIONS.values():
            known = ", ".join(_OPERATIONS)
            raise InvalidTask(f"{task.module_path} is no operation; blobferry.django.operations has {known}")

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        self.validate_task(task)
        options = {"priority": ceil(max(task.priority, 0) * 9 / 100), "not_before": task.run_after}
        try:
            job = getattr(self.ferry, task.func.__name__)(*args, **{**options, **kwargs})
        except InvalidRequestError as error:
            raise InvalidTask(str(error)) from error
        result = self._result(job, task, list(args), dict(kwargs))
        _signals.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        try:
            job = self.ferry.get(result_id)
        except (InvalidRequestError, JobNotFoundError) as error:
            raise _exceptions.TaskResultDoesNotExist(result_id) from error
        if job.operation not in _OPERATIONS:
            raise _exceptions.TaskResultDoesNotExist(result_id)
        queue = min(self.queues, default="default")
        task = self.task_class(func=_OPERATIONS[job.operation], backend=self.alias, queue_name=queue)
        return self._result(job, task, [], _arguments(job))

    def _result(self, job: Job, task: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        attempts = self.ferry.attempts(job.id) if job.attempt else []
        result = _base.TaskResult(
            task=task,
            id=job.id,
            status=_base.TaskResultStatus(_STATUSES[job.state]),
            enqueued_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            last_attempted_at=attempts[-1].started_at if attempts else None,
            args=args,
            kwargs=kwargs,
            backend=self.alias,
            errors=[_error(job)] if _STATUSES[job.state] == "FAILED" else [],
            worker_ids=[attempt.worker or "" for attempt in attempts],
        )
        object.__setattr__(result, "_return_value", job.result)
        return result


def _arguments(job: Job) -> dict[str, Any]:
    """What the job was asked for; the source without secrets."""
    if job.operation == "move":
        return {"source_path": job.source, "dest_path": job.path}
    others = {"write_stream": {"source": job.source}, "read_stream": {"dest": job.dest}}
    return {"path": job.path, **others.get(job.operation, {})}


def _error(job: Job) -> Any:
    """The error of a failed or cancelled job. Its traceback lies in the worker's log, so the message stands in."""
    known = {
        kind.code: kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.BlobferryError)
    }
    kind = known.get(job.error_code or "", errors.JobError)
    message = job.error_message or f"job {job.id} was cancelled"
    return _base.TaskError(exception_class_path=f"blobferry.errors.{kind.__name__}", traceback=message)
