"""Which workers have a process for reads beside them."""

from types import SimpleNamespace
from typing import Any

import pytest

from blobferry.contract import JOBS_QUEUE, READS_QUEUE
from worker.celery.reads_process import ReadsStep
from worker.settings import load_settings


def worker_of(*queues: str) -> Any:
    """A worker that consumes these queues, as a step of it sees it."""
    queues_of_app = SimpleNamespace(consume_from=dict.fromkeys(queues))
    return SimpleNamespace(app=SimpleNamespace(amqp=SimpleNamespace(queues=queues_of_app)), hostname="celery@host")


@pytest.mark.parametrize(
    ("queues", "reads", "has_one"),
    [
        ((JOBS_QUEUE, READS_QUEUE), "", True),
        ((JOBS_QUEUE, READS_QUEUE), "0", False),
        ((JOBS_QUEUE,), "", False),
        ((READS_QUEUE,), "", False),
    ],
)
def test_only_a_worker_for_jobs_and_reads_has_one(
    monkeypatch: pytest.MonkeyPatch, queues: tuple[str, ...], reads: str, has_one: bool
) -> None:
    monkeypatch.setenv("BLOBFERRY_DATABASE_URL", "sqlite:///nowhere.db")
    if reads:
        monkeypatch.setenv("BLOBFERRY_READS", reads)
    load_settings.cache_clear()
    try:
        parent = worker_of(*queues)
        assert ReadsStep(parent).include_if(parent) is has_one
    finally:
        load_settings.cache_clear()
