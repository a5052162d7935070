"""Idempotency keys when many submit at once: threads of one app, and processes that know nothing of each other."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blobferry import Client
from blobferry.errors import ConflictError
from tests.client.conftest import SOURCE, Site

CHECKOUT = Path(__file__).parents[2]


def test_twenty_threads_with_one_key_all_get_the_same_job(ferry: Client, site: Site) -> None:
    together = threading.Barrier(20)

    def submit(number: int) -> str:
        together.wait()
        return ferry.write_stream("/a", SOURCE, idempotency_key="k").id

    with ThreadPoolExecutor(20) as threads:
        ids = set(threads.map(submit, range(20)))
    assert (len(ids), len(site.rows())) == (1, 1)


def test_of_two_requests_that_race_for_a_key_one_wins_and_the_other_is_a_conflict(ferry: Client, site: Site) -> None:
    together = threading.Barrier(20)

    def submit(number: int) -> tuple[str, str]:
        path = f"/{number % 2}"
        together.wait()
        try:
            return path, ferry.write_stream(path, SOURCE, idempotency_key="k").id
        except ConflictError as error:
            return "conflict", error.job_id

    with ThreadPoolExecutor(20) as threads:
        outcomes = Counter(threads.map(submit, range(20)))
    assert len(site.rows()) == 1
    ((winner, job_id),) = [outcome for outcome in outcomes if outcome[0] != "conflict"]
    assert outcomes == {(winner, job_id): 10, ("conflict", job_id): 10}
    assert ferry.get(job_id).path == winner


def test_a_key_is_one_storages_and_one_operations_also_at_once(ferry: Client, site: Site) -> None:
    together = threading.Barrier(12)

    def submit(number: int) -> tuple[int, str]:
        together.wait()
        storage = ("default", "archive")[number % 2]
        if number % 3:
            return number % 6, ferry.delete("/a", storage=storage, idempotency_key="k").id
        return number % 6, ferry.write_stream("/a", SOURCE, storage=storage, idempotency_key="k").id

    with ThreadPoolExecutor(12) as threads:
        found = set(threads.map(submit, range(12)))
    ids = {job_id for _, job_id in found}
    assert (len(ids), len(site.rows())) == (4, 4)


def test_processes_that_race_for_a_key_make_one_job(site: Site) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLOBFERRY_")}
    environment = kept | {"PYTHONPATH": str(CHECKOUT)} | site.environment()
    command = [sys.executable, "-m", "blobferry", "write", SOURCE]
    options = ["--idempotency-key", "k", "--json"]
    started = [
        subprocess.Popen([*command, f"/{number % 2}", *options], env=environment, stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    said = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert len(site.rows()) == 1
    assert Counter(process.returncode for process in started) == {0: 2, 2: 2}
    assert len({each["id"] for each in said if "id" in each}) == 1
    assert {each["error"] for each in said if "error" in each} == {"conflict"}
