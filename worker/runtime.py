"""The objects that one process of the worker shares: settings, database, drivers, and the engine with its threads.

Made once in each child after the fork, since clients, connections and threads do not survive a fork.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from socket import gethostname
from urllib.parse import urlsplit

from blobferry.checks.source_urls import blob_path
from blobferry.jobs.webhook_receivers import WebhookReceiver, webhook_receiver
from blobferry.redaction import redacted
from blobferry.sealing import Sealer
from models import Database, queries
from worker.driver import Driver
from worker.errors import ConfigurationError, UnreachableError
from worker.processes import process_name
from worker.settings import Settings, load_settings
from worker.transfer.sources.blob_source import BlobSource
from worker.transfer.sources.file_source import FileSource
from worker.transfer.sources.http.http_source import HttpSource
from worker.transfer.sources.patience import Patience
from worker.transfer.sources.source import Source
from worker.transfer.sources.source_removal import refuse_unremovable
from worker.transfer.stop import Stop, never, while_stalled, within_part
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.pace import WORKER_PACES

logger = logging.getLogger(__name__)


class Runtime:
    """The shared objects of one process. Opens no connection before it is used."""

    def __init__(
        self, settings: Settings, *, database: Database | None = None, drivers: Mapping[str, Driver] | None = None
    ) -> None:
        self.settings = settings
        self.worker = process_name()
        self.database = database or Database(settings.database_url.get_secret_value())
        self.sealer = Sealer([key.get_secret_value() for key in settings.encryption_keys])
        self.database.storage_webhooks = self._storage_webhooks()
        self._shares_capabilities = False
        transfer = settings.transfer
        self.engine = Engine(part_size=transfer.part_size, part_threads=transfer.part_threads, paces=WORKER_PACES)
        self._drivers = drivers or {
            name: Driver.from_parameters(parameters, engine=self.engine)
            for name, parameters in settings.storages.items()
        }

    def _storage_webhooks(self) -> Mapping[str, WebhookReceiver]:
        return {
            name: webhook_receiver(storage.webhook.get_secret_value(), storage.webhook_secret, self.sealer)
            for name, storage in self.settings.storages.items()
            if storage.webhook is not None
        }

    def driver(self, storage: str) -> Driver:
        """The driver of a configured storage. Raises ConfigurationError for any other name."""
        try:
            return self._drivers[storage]
        except KeyError:
            known = ", ".join(sorted(self._drivers)) or "none"
            problem = f"no such storage is configured on worker host {gethostname()}; configured: {known}"
            raise ConfigurationError(f"storages.{storage}", problem) from None

    @property
    def worker_id(self) -> str:
        """The id that all processes of this worker share."""
        return self.worker.partition("@")[0]

    @property
    def worker_name(self) -> str:
        """The worker's id and host."""
        return self.worker.rpartition(":")[0]

    @property
    def keys(self) -> str:
        """Which paths a request may name before its storage is known: "any" if one of the storages has those."""
        return "any" if any(storage.keys == "any" for storage in self.settings.storages.values()) else "registry"

    @property
    def drivers(self) -> Mapping[str, Driver]:
        """The drivers of all configured storages, by name."""
        return self._drivers

    def open_source(self, url: str, stop: Stop = never, *, whole_size: int | None = None) -> Source:
        """Open the source of a URL; the caller closes it. Raises Interrupted if ``stop`` returns True meanwhile.

        A sealed URL is decrypted first. Raises ConfigurationError if no key of ``encryption_keys`` decrypts it.
        ``whole_size``: take all bytes of an http source in one answer, which must have this size.
        """
        url = self.sealer.opened(url)
        parts, sources, patience = urlsplit(url), self.settings.sources, self.patience(stop)
        match parts.scheme:
            case "blob":
                driver = self.driver(parts.netloc)
                return BlobSource(driver.store, driver.key(blob_path(parts)), url, patience=patience)
            case "http" | "https":
                return HttpSource.open(url, sources, stop, whole_size=whole_size)
            case _:
                return FileSource.open(
                    url,
                    self.settings.source_roots,
                    spool_directory=sources.http_spool_directory,
                    stop=stop,
                    patience=patience,
                )

    def patience(self, stop: Stop) -> Patience:
        """How long a run waits for its source."""
        sources = self.settings.sources
        return Patience(within_part(stop), sources.least_rate, sources.least_rate_seconds, while_stalled(stop))

    def refuse_unremovable(self, url: str) -> None:
        """Raise SourceNotAllowedError unless this worker may remove the source once it has been sent.

        Takes as long as the mount of the source does, so it is for a thread that may be lost.
        """
        url, settings = self.sealer.opened(url), self.settings
        refuse_unremovable(redacted(url), spool=settings.spool_dir, roots=settings.sources.delete_roots)

    def share_capabilities(self) -> None:
        """Learn, once, what other processes have seen the storages lack. Raises UnreachableError."""
        if not self._shares_capabilities:
            share_capabilities(self.database, self._drivers.values())
            self._shares_capabilities = True

    def warm_up(self) -> None:
        """Import boto3 and make the clients, so that the first job need not wait for that. Sends no request."""
        for driver in self._drivers.values():
            driver.warm_up()

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self.engine.close()
        self.database.close()


def share_capabilities(database: Database, drivers: Iterable[Driver]) -> None:
    """Take over what is known of their stores, and save what is seen from now on. Raises UnreachableError."""
    for driver in drivers:
        store = driver.store
        with database.begin() as session:
            known = queries.missing_capabilities(session, store.identity)
        store.capabilities.share(known, partial(_note_missing, database, store.identity))


def _note_missing(database: Database, identity: str, capability: str, reason: str) -> None:
    try:
        with database.begin() as session:
            queries.note_missing_capability(session, identity, capability, reason)
    except UnreachableError as error:  # other processes find it out by themselves
        logger.warning("capability not saved", extra={"capability": capability, "reason": str(error)})


_current: Runtime | None = None


def start_runtime(runtime: Runtime | None = None) -> Runtime:
    """Set this process's runtime; by default make one from the settings."""
    global _current
    _current = runtime or Runtime(load_settings())
    return _current


def started_runtime() -> Runtime | None:
    """This process's runtime; None if it has none."""
    return _current


def current_runtime() -> Runtime:
    """This process's runtime, made on first use."""
    return _current or start_runtime()
