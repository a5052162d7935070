"""Harm by messages: twice, too old, or bare."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from celery import Celery

from blobferry.contract import TASK_PREFIX
from blobferry.messages import job_messages as messages
from blobferry.messages.job_messages import Message
from dev.chaos.harms import DoHarm, Harm, Means
from dev.chaos.row_watch import Row

SENT: Final = 12  #: messages at once


@contextmanager
def sender(broker_url: str) -> Iterator[Celery]:
    """An app that only sends, past the wire."""
    app = messages.client_app(broker_url)
    try:
        yield app
    finally:
        app.close()


def duplicate_messages(means: Means) -> Harm:
    """The newest message of unfinished jobs, several times over."""
    yield None
    rows = [row for row in list(means.watch.rows.values()) if row["state"] in ("queued", "running", "retrying")]
    with sender(means.system.broker.url) as app:
        for row in means.chance.sample(rows, min(len(rows), SENT // 3)):
            for _ in range(3):
                messages.publish(app, _message(row, row["publish_seq"]))


def replay_messages(means: Means) -> Harm:
    """Messages of any jobs as they once were; some as a bare Celery would send them again."""
    yield None
    rows = list(means.watch.rows.values())
    with sender(means.system.broker.url) as app:
        for row in means.chance.sample(rows, min(len(rows), SENT)):
            if means.chance.random() < 0.7:
                messages.publish(app, _message(row, means.chance.randint(0, max(row["publish_seq"] - 1, 0))))
            else:
                with suppress(Exception):  # the broker may be away just now
                    app.send_task(
                        TASK_PREFIX + row["operation"],
                        kwargs={**row["request"], "storage": row["storage"]},
                        task_id=row["id"],
                        queue="blobferry",
                    )


def _message(row: Row, seq: int) -> Message:
    arguments = {"path": row["path"], "storage": row["storage"]}
    return Message(row["id"], row["operation"], "blobferry", arguments, seq, {})


MESSAGE_HARMS: Final[Mapping[str, DoHarm]] = {
    "duplicate messages": duplicate_messages,
    "replay old messages": replay_messages,
}
