"""Harm to workers: their children, their caretakers, and all of them at once."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import psutil

from dev.chaos.harms import DoHarm, Harm, Means


def kill_child(means: Means) -> Harm:
    """SIGKILL to a process that runs jobs, as the system does to one that takes too much memory."""
    children = means.system.children(means.target)
    busy = [child for child in children if means.watch.running({child.pid})]
    if children:
        child = means.chance.choice(busy or list(children))
        yield {child.pid}
        with suppress(psutil.NoSuchProcess):
            child.kill()


def kill_worker(means: Means) -> Harm:
    """SIGKILL to the whole worker, which comes back after some seconds."""
    if means.system.is_up(means.target):
        yield {child.pid for child in means.system.children(means.target)}
        means.system.workers[means.target].kill9()
        means.last()
        means.system.start_worker(means.target)


def kill_parent(means: Means) -> Harm:
    """SIGKILL to the parent alone: its children are left to themselves, and another worker comes beside them."""
    if means.system.is_up(means.target):
        yield {child.pid for child in means.system.children(means.target)}
        with suppress(ProcessLookupError):
            os.kill(means.system.workers[means.target].pids[0], signal.SIGKILL)
        means.last()
        means.system.start_worker(means.target)


def drain_worker(means: Means) -> Harm:
    """SIGTERM, as a deploy does it; killed if it has not ended within ten seconds."""
    if means.system.is_up(means.target):
        yield {child.pid for child in means.system.children(means.target)}
        means.system.workers[means.target].stop()
        means.last()
        means.system.start_worker(means.target)


def take_mount(means: Means) -> Harm:
    """The worker comes back without the directory of files, as where a mount has failed, and later with it again."""
    if means.system.is_up(means.target):
        yield {child.pid for child in means.system.children(means.target)}
        worker = means.system.workers[means.target]
        worker.stop()
        means.system.start_worker(means.target, {"BLOBFERRY_SOURCES__FILE_ROOTS": "[]"})
        means.last()
        worker.stop()
        means.system.start_worker(means.target)


def stop_child(means: Means) -> Harm:
    """A process that runs jobs stands still past its lease, and then goes on as if nothing had been."""
    children = means.system.children(means.target)
    busy = [child for child in children if means.watch.running({child.pid})]
    if children:
        child = means.chance.choice(busy or list(children))
        yield {child.pid}
        with suppress(psutil.NoSuchProcess):
            child.suspend()
            means.last()
            child.resume()


def stop_worker(means: Means) -> Harm:
    """The same with the whole worker, its caretaker included: a paused virtual machine."""
    if means.system.is_up(means.target):
        yield {child.pid for child in means.system.children(means.target)}
        group = means.system.workers[means.target].pids[0]
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGSTOP)
            means.last()
            os.killpg(group, signal.SIGCONT)


def stop_worker_in_a_delete(means: Means) -> Harm:
    """The same while deletes hang in the store: what was under way must not be sent again once the lease is over."""
    means.system.proxy.hang_deletes(means.chance.getrandbits(32))
    yield from stop_worker(means)
    means.system.proxy.some(means.chance.getrandbits(32))


def kill_caretaker(means: Means) -> Harm:
    """SIGKILL to a caretaker."""
    for caretaker in means.system.caretakers(means.target):
        yield set()
        with suppress(psutil.NoSuchProcess):
            caretaker.kill()


WORKER_HARMS: Final[Mapping[str, DoHarm]] = {
    "kill child": kill_child,
    "kill worker": kill_worker,
    "kill parent": kill_parent,
    "drain worker": drain_worker,
    "take mount": take_mount,
    "stop child": stop_child,
    "stop worker": stop_worker,
    "stop worker in a delete": stop_worker_in_a_delete,
    "kill caretaker": kill_caretaker,
}
