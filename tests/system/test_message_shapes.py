"""Messages that no Celery sends: none of them ends the worker, leaves a row, or stays in its way."""

import base64
import json
from typing import Any
from uuid import uuid4

import redis

from blobferry.contract import JOBS_QUEUE
from dev.stack import Stack
from tests.system.recorded_stack import recorded

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
    known = {"lang": "py", "task": TASK, "id": task_id, "root_id": task_id, "retries": 0} | headers
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode() if raw is None else raw).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": {name: value for name, value in known.items() if value is not None} | {"parent_id": None},
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
#: What is no envelope at all, as another program may put it into a list of this name.
NO_MESSAGES: dict[str, bytes] = {
    "no JSON": b"garbage",
    "no UTF-8": b"\xff\xfe\0",
    "nothing": b"",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "a mapping without properties": b'{"body": "x"}',
    "a list for properties": b'{"body": "x", "properties": []}',
    "a list nested deeply": b"[" * 100_000,
    "headers that are null": envelope(GOOD, {}).replace('"headers": {', '"headers": null, "_": {').encode(),
    "a body that is a number": envelope(GOOD, {}).replace('"body": "', '"body": 7, "_": "').encode(),
    "a body in an unknown encoding": envelope(GOOD, {}).replace('"base64"', '"rot13"').encode(),
    "a body that no zlib has made": envelope(GOOD, {"compression": "application/x-gzip"}).encode(),
}


def test_no_message_of_a_wrong_shape_ends_the_worker_or_leaves_a_row(stack: Stack) -> None:
    with (
        recorded(stack, delays={}) as scene,
        scene.stack.worker() as worker,
        redis.Redis.from_url(stack.broker_url) as broker,
    ):
        for number, (name, message) in enumerate(MESSAGES.items(), start=1):
            broker.lpush(JOBS_QUEUE, message)
            scene.succeeded(scene.submit(f"/marker/{name.replace(' ', '-')}", 1))
            assert scene.rows.select("select count(*) as n from blobferry_jobs")[0]["n"] == number, name
            assert "Unrecoverable error" not in worker.log.read_text(errors="replace"), name
        broker.lpush(JOBS_QUEUE, envelope(GOOD, {"timelimit": "x"}))  # ignored: a part that moves bytes is not cut off
        scene.until_rows("select 1 from blobferry_jobs where path = '/shape'")


def test_nothing_that_is_no_message_ends_the_worker_or_makes_it_deaf(stack: Stack) -> None:
    with (
        recorded(stack, delays={}) as scene,
        scene.stack.worker() as worker,
        redis.Redis.from_url(stack.broker_url) as broker,
    ):
        for name, raw in NO_MESSAGES.items():
            broker.lpush(JOBS_QUEUE, raw)
            scene.succeeded(scene.submit(f"/marker/{name.replace(' ', '-')}", 1))
            assert "Unrecoverable error" not in worker.log.read_text(errors="replace"), name
