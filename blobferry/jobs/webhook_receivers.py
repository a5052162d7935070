"""Webhooks as rows keep them: where they go, what of that may be shown, and the name of the secret that signs."""

from collections.abc import Mapping
from typing import Any, TypedDict
from urllib.parse import urlsplit

from blobferry.redaction import redacted
from blobferry.sealing import Sealer


class WebhookReceiver(TypedDict):
    """In the column ``on_end`` of a job under ``webhook``, and in the row of each delivery."""

    url: str  #: sealed if it holds a secret and there is a key
    endpoint: str  #: without secrets
    host: str  #: without a port: however many ports and paths it has, it is one host
    secret: str


def webhook_receiver(url: str, secret: str, sealer: Sealer) -> WebhookReceiver:
    """The receiver at a checked URL."""
    host = (urlsplit(url).hostname or "")[:255]
    return {"url": sealer.kept(url), "endpoint": redacted(url), "host": host, "secret": secret}


def kept_receivers(on_end: Mapping[str, Any] | None, sealer: Sealer) -> dict[str, Any] | None:
    """Checked receivers of the end of a job as its row keeps them."""
    if on_end is None:
        return None
    kept = {name: sealer.kept_options(value) for name, value in on_end.items() if name != "webhook"}
    if webhook := on_end.get("webhook"):
        kept["webhook"] = webhook_receiver(webhook["url"], webhook["secret"], sealer)
    return kept


def asked_receivers(on_end: Mapping[str, Any] | None) -> dict[str, Any]:
    """What two equal requests have in common: sealing makes another text of the same URL each time."""
    found = dict(on_end or {})
    if webhook := found.get("webhook"):
        found["webhook"] = {name: value for name, value in webhook.items() if name != "url"}
    return found
