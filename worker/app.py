"""The Celery app: ``celery -A worker.app worker``. It connects configuration, signals and the caretaker's supervision.

Tasks are named by string, so that nothing here imports ``tasks``.
"""

from collections.abc import Mapping
from typing import Any, Final

from celery import signals

from blobferry.contract import JOBS_QUEUE, READS_QUEUE
from worker import drain
from worker.celery.caretaker_process import CaretakerStep
from worker.celery.config import celery_config
from worker.celery.drain_bound import bound_drain
from worker.celery.result_backend import ResultTolerantApp
from worker.logs import configure_logging
from worker.runtime import start_runtime
from worker.settings import load_settings

app = ResultTolerantApp("blobferry")
app.conf.update(celery_config(load_settings()))
app.steps["worker"].add(CaretakerStep)

#: The queues that a worker consumes, by its option ``--only``.
QUEUES: Final[Mapping[str | None, tuple[str, ...]]] = {
    None: (JOBS_QUEUE, READS_QUEUE),
    "jobs": (JOBS_QUEUE,),
    "reads": (READS_QUEUE,),
}


@signals.setup_logging.connect(weak=False)
def _configure_logging(loglevel: int | str = "INFO", **kwargs: Any) -> None:
    configure_logging(loglevel)


@signals.worker_process_init.connect(weak=False)
def _start_child(**kwargs: Any) -> None:
    start_runtime().warm_up()


@signals.worker_shutting_down.connect(weak=False)
def _drain(**kwargs: Any) -> None:
    drain.start()
    bound_drain(load_settings().drain_seconds)
