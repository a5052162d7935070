"""Which kind of Redis answers: a cluster or a sentinel takes commands, but cannot be a broker."""

from typing import Final

from celery import Celery

from blobferry.errors import ConfigurationError
from blobferry.messages.broker_address import CLUSTER

_SENTINEL: Final = "is the address of a sentinel: write sentinel://host:26379 and set broker.master_name"


def refuse_unfit_server(app: Celery) -> None:
    """Raise ConfigurationError if the broker of this app is a cluster or a sentinel. Silent if it does not say."""
    try:
        with app.connection_for_write() as connection:
            found = connection.default_channel.client.info("server")
    except Exception:  # away, or not a Redis, or INFO is denied; what it means is found out by its first real use
        return
    mode = found.get("redis_mode") or found.get("server_mode")  # Redis says the first, Valkey the second
    if mode == "cluster":
        raise ConfigurationError("broker_url", CLUSTER)
    if mode == "sentinel":
        raise ConfigurationError("broker_url", _SENTINEL)
