"""The faults of a plan, each at its time and in a thread of its own, so that they overlap; and the end of them all."""

import os
import random
import signal
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from dev.chaos.fault_plan import PlannedFault
from dev.chaos.harms import Means
from dev.chaos.message_faults import MESSAGE_HARMS
from dev.chaos.row_watch import RowWatch
from dev.chaos.service_faults import SERVICE_HARMS
from dev.chaos.system import System
from dev.chaos.worker_faults import WORKER_HARMS

#: What Celery says of a child that was killed before the worker was up; it ends then, to be started again.
KILLED_AT_ITS_START = "Could not start worker processes"

HARMS: Final = {**WORKER_HARMS, **SERVICE_HARMS, **MESSAGE_HARMS}
NEVER_SENT: Final = b"a trap in the place of one that has not gone off"
PATIENCE: Final = 15.0  #: seconds that a fault waits for another one at the same target


@dataclass
class Faulting:
    """Faults that go on."""

    system: System
    watch: RowWatch
    ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)

    def begin(self, fault: PlannedFault) -> None:
        """Begin it, without waiting for its end."""
        thread = threading.Thread(target=self._run, args=(fault,), name=fault.kind.name)
        thread.start()
        self._threads.append(thread)

    def look_after(self) -> None:
        """Count what the proxy has injected by itself, and start workers that ended by themselves, as systemd would."""
        hits, self.system.proxy.hits = self.system.proxy.hits, []
        for at, exchange in hits:
            assert exchange.fault is not None
            key = f"/{exchange.call.key}"
            hit = [row for row in self.watch.running() if key in (row["path"], row["request"].get("source_path"))]
            effect = " after effect" if exchange.fault.effect else ""
            self.watch.harmed(f"http {exchange.fault.kind}{effect}", hit, at, at)
        for name in self.system.workers:
            lock = self.system.busy[name]
            if lock.acquire(blocking=False):
                try:
                    if not self.system.is_up(name):
                        end_of_log = self.system.workers[name].log.read_text(errors="replace")[-10_000:]
                        if KILLED_AT_ITS_START not in end_of_log:
                            self.watch.violations.append(f"{name} ended by itself at {time.strftime('%H:%M:%S')}")
                        self.system.workers[name].kill9()
                        self.system.start_worker(name)
                finally:
                    lock.release()

    def end(self) -> None:
        """Wait for the end of all faults, and leave nothing broken."""
        for thread in self._threads:
            thread.join()
        self.system.proxy.inject()
        for wire in (self.system.broker_wire, self.system.database_wire):
            wire.cut_at(NEVER_SENT, before=True)
            wire.thaw()
            wire.accept()
        for name in self.system.workers:
            with suppress(Exception):
                os.killpg(self.system.workers[name].pids[0], signal.SIGCONT)

    def _run(self, fault: PlannedFault) -> None:
        with ExitStack() as locks:
            for target in sorted(fault.targets):
                lock = self.system.busy[target]
                if not lock.acquire(timeout=PATIENCE):
                    return self._note(f"{fault.kind.name}: {target} is busy, left out")
                locks.callback(lock.release)
            try:
                self._harm(fault)
            except Exception as error:
                self.watch.violations.append(f"the fault {fault.kind.name!r} itself failed: {error!r}")
        return None

    def _harm(self, fault: PlannedFault) -> None:
        means = Means(self.system, self.watch, fault.targets[0], fault.lasts, random.Random(fault.seed), self.ending)
        harm = HARMS[fault.kind.name](means)
        for pids in harm:
            hit = self.watch.running(pids)
            shown = ", ".join(row["idempotency_key"] or row["id"] for row in hit)
            self._note(f"{fault.kind.name} at {fault.targets[0]} for {fault.lasts:.1f} s: {shown or 'no process'}")
            began = time.monotonic()
            next(harm, None)
            self.watch.harmed(fault.kind.name, hit, began, time.monotonic())
            self._note(f"{fault.kind.name} at {fault.targets[0]} is over")

    def _note(self, text: str) -> None:
        # For a reader of the log who searches for a cause.
        with (self.system.directory / "faults.log").open("a") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {time.monotonic() - self._begun:7.1f} {text}\n")
