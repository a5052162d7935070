"""The messages that a run sends when it ends, so that a free slot need not wait for the caretaker."""

import logging
from functools import lru_cache
from itertools import count
from typing import Any, Final

from blobferry.messages.job_messages import client_app
from blobferry.messages.publisher import Publisher
from worker import drain
from worker.errors import BlobferryError
from worker.maintenance.publish_due import publish_best
from worker.runtime import Runtime, started_runtime

logger = logging.getLogger(__name__)

_turns: Final = count()  #: counts the rounds of this process; every fifth begins with the oldest job


def publish_next(app: Any) -> None:
    """Publish the next jobs, if any needs a message and the broker is not known to be away. Raises no BlobferryError.

    Celery also calls this in the parent when a child was lost. The parent has no runtime and must not make one.
    """
    runtime = started_runtime()
    if runtime is None:
        return
    publisher, limit = _publisher(runtime, app), runtime.settings.concurrency
    if publisher.is_paused:  # the caretaker publishes once the broker is back
        return
    try:
        publish_best(runtime, publisher.publish, limit=limit, turn=next(_turns))
    except BlobferryError as error:
        logger.warning("next jobs not published, the caretaker will", extra={"reason": str(error)})


def _publisher(runtime: Runtime, app: Any) -> Publisher:
    """The publisher of this process. A draining worker publishes what it has just handed over, for others, and waits
    as briefly for the broker as a client would.
    """
    if not drain.is_draining():
        return _publisher_of(app)
    return _hurried_publisher(runtime)


@lru_cache(maxsize=1)
def _publisher_of(app: Any) -> Publisher:
    return Publisher(app)


@lru_cache(maxsize=1)
def _hurried_publisher(runtime: Runtime) -> Publisher:
    return Publisher(client_app(runtime.settings.broker_url.get_secret_value(), runtime.settings.broker_options))
