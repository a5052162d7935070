"""SignedEvent: the body and the headers of a webhook, by the Standard Webhooks specification."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from pydantic import SecretStr
from standardwebhooks import Webhook

from blobferry.messages.end_events import event_id, event_of, webhook_message
from models.queries import WebhookDelivery


@dataclass(frozen=True, slots=True)
class SignedEvent:
    """What is posted. The same delivery has the same id and body at each try; timestamp and signatures differ."""

    body: bytes
    headers: dict[str, str]

    @classmethod
    def of(cls, delivery: WebhookDelivery, secrets: Sequence[SecretStr], moment: datetime) -> Self:
        """Sign the delivery by each of the secrets: while they are rotated, the receiver has one or the other.

        ``moment``: of this try, by the database's clock, since receivers refuse what is minutes off.
        """
        text, message_id = _text(delivery), event_id(delivery.job_id, delivery.sequence)
        moment = moment.astimezone(UTC)
        signatures = [Webhook(secret.get_secret_value()).sign(message_id, moment, text) for secret in secrets]
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "blobferry",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
        return cls(text.encode(), headers)


def _text(delivery: WebhookDelivery) -> str:
    return json.dumps(webhook_message(event_of(delivery._asdict())), separators=(",", ":"))
