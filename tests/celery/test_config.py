"""Celery's configuration: what Blobferry's rules need of it."""

import json
import os
import subprocess
import sys

from worker.settings import TransferSettings

FOREIGN = {
    "CELERY_BROKER_URL": "redis://the-apps-own:6379/5",
    "CELERY_BROKER_READ_URL": "redis://the-apps-own:6379/5",
    "CELERY_BROKER_WRITE_URL": "redis://the-apps-own:6379/5",
    "CELERY_RESULT_BACKEND": "db+sqlite:///the-apps-own",
    "CELERY_LOADER": "the_apps_own.loader",
}
ASKS_WHERE = """
from blobferry.messages.job_messages import client_app
from blobferry.messages.read_messages import ReadRequester
from worker.app import app
client = client_app("redis://ours:6379/1")
print(app.connection_for_read().as_uri(), app.connection_for_write().as_uri(), app.backend.as_uri())
print(client.connection_for_write().as_uri(), type(client.backend).__name__)
print(ReadRequester(client, "redis://ours:6379/2")._backend.as_uri())
"""


def test_variables_of_the_apps_own_celery_lead_neither_worker_nor_client_elsewhere() -> None:
    settings = {"BLOBFERRY_DATABASE_URL": "sqlite:///jobs.db", "BLOBFERRY_BROKER_URL": "redis://ours:6379/0"}
    environment = {"PATH": os.environ["PATH"], **settings, **FOREIGN}
    asked = subprocess.run([sys.executable, "-c", ASKS_WHERE], env=environment, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines() == [
        "redis://:**@ours:6379/0 redis://:**@ours:6379/0 redis://ours:6379/0",
        "redis://:**@ours:6379/1 DisabledBackend",
        "redis://ours:6379/2",
    ]


def test_celery_has_no_clock_of_its_own_to_end_a_run_by_and_no_prefix_for_our_queues() -> None:
    """A run ends at its slice, between two parts; a message comes again long after any slice."""
    names = ["task_time_limit", "task_soft_time_limit", "broker_transport_options", "result_backend_transport_options"]
    asks = f"import json; from worker.app import app; print(json.dumps([app.conf[name] for name in {names}]))"
    environment = {"PATH": os.environ["PATH"], "BLOBFERRY_DATABASE_URL": "sqlite://"}
    asked = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    hard, soft, broker, backend = json.loads(asked.stdout)
    assert (hard, soft) == (None, None)
    for options in (broker, backend):
        assert "global_keyprefix" not in options
        assert options["visibility_timeout"] >= 4 * TransferSettings().slice_seconds
