"""Celery's configuration: what Blobferry's rules need of it."""

import json
import os
import subprocess
import sys

from worker.settings import TransferSettings


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
