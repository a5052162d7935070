"""Idempotency keys when many submit at once: threads of one app, and processes that know nothing of each other."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial

from blobferry import Client, Job
from blobferry.errors import ConflictError
from tests.client.conftest import CHECKOUT, SOURCE, Site, all_at_once


def test_twenty_threads_with_one_key_all_get_the_same_job(ferry: Client, site: Site) -> None:
    submit = partial(ferry.write_stream, "/a", SOURCE, idempotency_key="k")
    assert len({job.id for job in all_at_once([submit] * 20)}) == len(site.rows()) == 1


def test_of_two_requests_that_race_for_a_key_one_wins_and_the_other_is_a_conflict(ferry: Client, site: Site) -> None:
    def submit(path: str) -> tuple[str, str]:
        try:
            return path, ferry.write_stream(path, SOURCE, idempotency_key="k").id
        except ConflictError as error:
            return "conflict", error.job_id

    outcomes = Counter(all_at_once([partial(submit, path) for path in ("/0", "/1") * 10]))
    assert len(site.rows()) == 1
    ((winner, job_id),) = [outcome for outcome in outcomes if outcome[0] != "conflict"]
    assert outcomes == {(winner, job_id): 10, ("conflict", job_id): 10}
    assert ferry.get(job_id).path == winner


def test_a_key_is_one_storages_and_one_operations_also_at_once(ferry: Client, site: Site) -> None:
    calls: list[Callable[[], Job]] = [
        partial(submit, storage=storage, idempotency_key="k")
        for storage in ("default", "archive")
        for submit in (partial(ferry.delete, "/a"), partial(ferry.write_stream, "/a", SOURCE))
    ]
    ids = {(number % 4, job.id) for number, job in enumerate(all_at_once(calls * 3))}
    assert len(ids) == len({job_id for _, job_id in ids}) == len(site.rows()) == 4


def test_processes_that_race_for_a_key_make_one_job(site: Site) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLOBFERRY_")}
    environment = kept | {"PYTHONPATH": str(CHECKOUT)} | site.environment()
    command = [sys.executable, "-m", "blobferry", "write", SOURCE, "--idempotency-key", "k", "--json"]
    started = [
        subprocess.Popen([*command, path], env=environment, stdout=subprocess.PIPE, text=True)
        for path in ("/0", "/1") * 2
    ]
    said = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert len(site.rows()) == 1
    assert Counter(process.returncode for process in started) == {0: 2, 2: 2}
    assert len({each["id"] for each in said if "id" in each}) == 1
    assert {each["error"] for each in said if "error" in each} == {"conflict"}
