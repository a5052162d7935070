"""Sends the tasks of :mod:`celery_app`: ``celery_submit.py '{"task": "put", "arguments": [[…], …]}'`` or counts."""

import json
import sys

from celery_app import app

what = json.loads(sys.argv[1])
contents = bytes(range(256)) * (what.get("size", 0) // 256)
task = app.tasks[f"celery_app.{what['task']}"]
with app.producer_pool.acquire() as producer:
    for number in range(what["first"], what["first"] + what["count"]):
        key = f"{what['prefix']}{number:08}"
        last = contents if what["task"] == "put" else what["files"].format(number % what["distinct"])
        task.apply_async((key, last), producer=producer)
