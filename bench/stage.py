"""Everything that the contenders share: broker, database, sink, the peers' environments, and files to send."""

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from bench.peer_environments import PeerEnvironments
from bench.sink_service import Sink, sink
from dev.process import work_directory
from dev.services import Postgres, S3Service, Valkey, create_bucket, postgres, swift, valkey

ROOT: Final = Path(__file__).parent.parent
AGENTS: Final = Path(__file__).parent / "agents"
BUCKET: Final = "bench"
BLOCK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    scale: float  #: of the counts and sizes of the loads; 1 is the issue's
    rounds: int
    checkout: Path  #: whose Blobferry is measured
    store: str  #: "sink" or "swift"
    contenders: tuple[str, ...] = ()  #: only these; () is all


class Stage:
    """The services of one run, each started when it is first asked for."""

    def __init__(self, options: Options, services: ExitStack, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.peers = PeerEnvironments(ROOT / ".bench")
        self._services = services
        self._numbers = 0

    @cached_property
    def broker(self) -> Valkey:
        """A Valkey that keeps nothing on the disk."""
        return self._services.enter_context(valkey())

    @cached_property
    def postgres(self) -> Postgres:
        """A PostgreSQL that writes through to the disk at each commit, as in production."""
        return self._services.enter_context(postgres(durable=True))

    @cached_property
    def sink(self) -> Sink:
        """The sink, with its bucket."""
        started = self._services.enter_context(sink())
        create_bucket(started, BUCKET)
        return started

    @cached_property
    def store(self) -> S3Service:
        """The store that this run is against."""
        if self.options.store == "sink":
            return self.sink
        started = self._services.enter_context(swift())
        create_bucket(started, BUCKET)
        return started

    def number(self) -> int:
        """A new number, for names."""
        self._numbers += 1
        return self._numbers

    def scaled(self, count: int, least: int = 1) -> int:
        """A count of the load at the scale of this run."""
        return max(least, round(count * self.options.scale))

    def files(self, size: int, count: int) -> str:
        """That many different files of ``size`` bytes; the pattern of their names for str.format and a number."""
        pattern = str(self.directory / "incoming" / f"{size}-{{}}")
        (self.directory / "incoming").mkdir(exist_ok=True)
        for number in range(count):
            if not (path := Path(pattern.format(number))).exists():
                with path.open("wb") as file:
                    written = 0
                    while written < size:
                        written += file.write(os.urandom(min(BLOCK, size - written)))
        return pattern

    def python(self, agent: str) -> list[str]:
        """The command of an agent that runs the code of the checkout."""
        return [sys.executable, str(AGENTS / agent)]


def end_politely() -> None:
    """Let SIGTERM, from `timeout` for example, unwind the program, so that no service of the stage stays behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def open_stage(options: Options) -> Iterator[Stage]:
    """The stage; everything on it ends with the block."""
    with work_directory("bench") as directory, ExitStack() as services:
        yield Stage(options, services, directory)


def control(sink: Sink, what: str, method: str = "POST", **query: object) -> Mapping[str, Any]:
    """Ask the sink for one of :mod:`bench.sink.controls`."""
    text = "&".join(f"{name}={value}" for name, value in query.items())
    request = urllib.request.Request(f"{sink.endpoint}/-/{what}?{text}", method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as answer:
        content = answer.read()
    found: Mapping[str, Any] = json.loads(content) if content else {}
    return found
