"""Messages that no Celery sends: none of them ends the worker, leaves a row, or stays in its way."""

import base64
import json
from typing import Any
from uuid import uuid4

import redis

from blobferry.contract import JOBS_QUEUE
from dev.stack import Stack
from dev.waiting import wait_until
from tests.system.observation import Rows, wait_for

TASK = "blobferry.write_stream"
GOOD: list[Any] = [[], {"path": "/shape", "source": "file:///none"}, {}]

#: What differs from a good message: its body, or its headers (None: without that one).
BODIES: dict[str, Any] = {
    "arguments by position": [["/a", "file:///a"], {}, {}],
    "arguments no mapping": [[], ["path"], {}],
    "arguments null": [None, None, None],
    "an argument named self": [[], {"self": 1}, {}],
    "two pieces": [[], {}],
    "a number": 7,
    "null": None,
    "text": "path",
    "a mapping": {"path": "/a"},
}
HEADERS: dict[str, dict[str, Any]] = {
    "an unknown task": {"task": "blobferry.format_disk"},
    "a task that is no text": {"task": 7},
    "no id": {"id": None},
    "an id that is a number": {"id": 7},
    "an id that is a list": {"id": ["a"]},
    "an id with a zero byte": {"id": "a\0b"},
    "a long id": {"id": "x" * 156},
    "a number that is text": {"blobferry_row": True, "publish_seq": "x"},
    "a number that is a list": {"blobferry_row": True, "publish_seq": [1]},
    "a row without a number": {"blobferry_row": {"a": 1}},
    "an expiry that is a mapping": {"expires": {}},
}


def envelope(
    body: Any, headers: dict[str, Any], content_type: str = "application/json", raw: bytes | None = None
) -> str:
    """A message as it lies in the broker."""
    task_id = uuid4().hex
    known = {"lang": "py", "task": TASK, "id": task_id, "root_id": task_id, "parent_id": None, "retries": 0}
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode() if raw is None else raw).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": {
                name: value for name, value in {**known, **headers}.items() if value is not None or name == "parent_id"
            },
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": JOBS_QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": uuid4().hex,
            },
        }
    )


MESSAGES: dict[str, str] = {
    **{name: envelope(body, {}) for name, body in BODIES.items()},
    **{name: envelope(GOOD, headers) for name, headers in HEADERS.items()},
    "no JSON": envelope(None, {}, raw=b"\0\xff{"),
    "a pickle": envelope(None, {}, "application/x-python-serialize", raw=b"cos\nsystem\n(S'true'\ntR."),
}


def test_no_message_of_a_wrong_shape_ends_the_worker_or_leaves_a_row(stack: Stack) -> None:
    file = stack.incoming / "marker.bin"
    file.write_bytes(b"marker")
    rows = Rows(stack.database_url)
    with stack.worker() as worker, stack.client() as client, redis.Redis.from_url(stack.broker_url) as broker:
        for name, message in MESSAGES.items():
            before = rows.select("select count(*) as n from blobferry_jobs")[0]["n"]
            broker.lpush(JOBS_QUEUE, message)
            marker = wait_for(client, client.write_stream("/marker", file).id, lambda job: job.is_final)
            assert marker.state == "succeeded", name
            assert rows.select("select count(*) as n from blobferry_jobs")[0]["n"] == before + 1, name
            log = worker.log.read_text(errors="replace")
            assert "Unrecoverable error" not in log, name
        broker.lpush(JOBS_QUEUE, envelope(GOOD, {"timelimit": "x"}))  # ignored: a part that moves bytes is not cut off
        wait_until(lambda: rows.select("select 1 from blobferry_jobs where path = '/shape'"), 30, "the job has a row")
    rows.close()
