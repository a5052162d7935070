"""What one process of the worker holds: settings, database, drivers, and the engine with its threads and buffers.

Made once in each child, after the fork: clients, connections and threads do not survive one.
"""

from collections.abc import Mapping
from socket import gethostname
from urllib.parse import urlsplit

from blobferry.sealing import Sealer
from models import Database
from worker.driver import Driver
from worker.errors import ConfigurationError
from worker.processes import process_name
from worker.settings import Settings, load_settings
from worker.transfer.sources.blob_source import BlobSource
from worker.transfer.sources.file_source import FileSource
from worker.transfer.sources.http.http_source import HttpSource
from worker.transfer.sources.source import Source
from worker.transfer.stop import Stop, never
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.pace import WORKER_PACES


class Runtime:
    """The shared objects of one process. Opens no connection by itself."""

    def __init__(
        self, settings: Settings, *, database: Database | None = None, drivers: Mapping[str, Driver] | None = None
    ) -> None:
        self.settings = settings
        self.worker = process_name()
        self.database = database or Database(settings.database_url.get_secret_value())
        self.sealer = Sealer([key.get_secret_value() for key in settings.encryption_keys])
        transfer = settings.transfer
        self.engine = Engine(part_size=transfer.part_size, part_threads=transfer.part_threads, paces=WORKER_PACES)
        self._drivers = drivers or {
            name: Driver.from_parameters(parameters, engine=self.engine)
            for name, parameters in settings.storages.items()
        }

    def driver(self, storage: str) -> Driver:
        """The driver of a configured storage. Raises ConfigurationError for any other name."""
        try:
            return self._drivers[storage]
        except KeyError:
            known = ", ".join(sorted(self._drivers)) or "none"
            problem = f"no such storage is configured on worker host {gethostname()}; there are: {known}"
            raise ConfigurationError(f"storages.{storage}", problem) from None

    @property
    def drivers(self) -> Mapping[str, Driver]:
        """The drivers of all configured storages, by name."""
        return self._drivers

    def open_source(self, url: str, stop: Stop = never) -> Source:
        """The source of a URL, opened. The caller closes it. Raises Interrupted if ``stop`` asks while that takes long.

        A sealed URL is opened by the keys of ``encryption_keys``. Raises ConfigurationError if none of them does.
        """
        url = self.sealer.opened(url)
        parts, sources = urlsplit(url), self.settings.sources
        match parts.scheme:
            case "blob":
                driver = self.driver(parts.netloc)
                return BlobSource(driver.store, driver.key(parts.path), url)
            case "http" | "https":
                return HttpSource.open(url, sources, stop)
            case _:
                return FileSource.open(url, sources.file_roots)

    def warm_up(self) -> None:
        """Import boto3 and make the clients now, so that the first job need not wait for them. Sends no request."""
        for driver in self._drivers.values():
            driver.warm_up()

    def close(self) -> None:
        """End the threads and close the connections."""
        self.engine.close()
        self.database.close()


_current: Runtime | None = None


def start_runtime(runtime: Runtime | None = None) -> Runtime:
    """Make this process's runtime, from the settings unless one is given."""
    global _current
    _current = runtime or Runtime(load_settings())
    return _current


def started_runtime() -> Runtime | None:
    """This process's runtime, if it has one."""
    return _current


def current_runtime() -> Runtime:
    """This process's runtime, made on first use."""
    return _current or start_runtime()
