"""Examines how webhooks are signed, and where they go."""

from collections.abc import Iterator

from blobferry.redaction import redacted
from models import Database, queries
from worker.doctor.findings import Finding
from worker.errors import BlobferryError
from worker.maintenance.webhooks.endpoints import Endpoints
from worker.settings import Settings

_WHERE = "webhooks"


def examine_webhooks(settings: Settings, database: Database | None) -> Iterator[Finding]:
    """Whether all that wait in the database can be signed here. Loading the settings has refused malformed secrets.

    ``database``: None if it is not migrated.
    """
    own = settings.webhooks
    for name, secrets in own.secrets.items():
        several = f"{len(secrets)} secrets, which all sign" if len(secrets) > 1 else "1 secret"
        yield Finding(_WHERE, f"secret {name}", "ok", several)
    for name, storage in settings.storages.items():
        if storage.webhook is not None:
            says = f"{redacted(storage.webhook.get_secret_value())}, signed by {storage.webhook_secret}"
            yield Finding(_WHERE, f"storage {name}", "ok", says)
    if own.allow_http:
        says = "allow_http: whoever is on the way to an http: endpoint reads what it is told; signatures still hold"
        yield Finding(_WHERE, "private", "missing", says)
    unsigned = list[str]()
    try:
        Endpoints(own)
        if database is not None:
            with database.read() as session:
                unsigned = queries.unsigned_webhooks(session, own.secrets)
    except BlobferryError as error:
        yield Finding(_WHERE, "can be sent", "broken", str(error))
        return
    for name in unsigned:
        says = f"webhooks wait for it: set webhooks.secrets.{name}, unless another worker has it"
        yield Finding(_WHERE, f"secret {name}", "broken", says)
