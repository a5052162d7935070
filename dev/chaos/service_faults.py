"""Harm to broker, database and store, and to the wires that lead to them."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import psycopg
import redis

from blobferry.contract import Phase
from blobferry.errors import OutcomeUnknownError
from dev.chaos.evidence import unfinished_uploads
from dev.chaos.harms import DoHarm, Harm, Means
from dev.proxies.tcp import Wire


def flush_broker(means: Means) -> Harm:
    """FLUSHALL."""
    yield None
    with redis.Redis.from_url(means.system.broker.url, socket_timeout=5) as client:
        client.flushall()


def restart_broker(means: Means) -> Harm:
    """Killed, and back some seconds later with nothing."""
    yield None
    means.system.broker.kill9()
    means.last()
    means.system.broker.restart()


def refuse_broker_writes(means: Means) -> Harm:
    """It is a replica for some seconds, as after a failover: it answers every write with an error."""
    yield None
    with redis.Redis.from_url(means.system.broker.url, socket_timeout=5) as client:
        with suppress(redis.RedisError):
            client.replicaof("127.0.0.1", 1)
        means.last()
        with suppress(redis.RedisError):  # it was restarted meanwhile, and is no replica
            client.replicaof("NO", "ONE")


def restart_database(means: Means) -> Harm:
    """Killed, and back some seconds later with what was committed."""
    yield None
    means.system.database.kill9()
    means.last()
    means.system.database.restart()


def lock_row(means: Means) -> Harm:
    """Somebody holds the row of a job for some seconds."""
    if running := means.watch.running():
        row = means.chance.choice(running)
        yield {int(row["worker"].rsplit(":", 1)[1])}
        with psycopg.connect(means.watch.url) as connection:
            connection.execute("SELECT 1 FROM blobferry_jobs WHERE id = %s FOR UPDATE", [row["id"]])
            means.last()


def restart_store(means: Means) -> Harm:
    """All its servers killed, and back some seconds later with what was on the disk."""
    yield None
    means.system.s3.kill9()
    means.last()
    means.system.s3.restart()


def store_storm(means: Means) -> Harm:
    """A third of all requests to the store fail, each in its own way."""
    yield None
    means.system.proxy.storm(means.chance.getrandbits(32))
    means.last()
    means.system.proxy.some(means.chance.getrandbits(32))


def lose_upload(means: Means) -> Harm:
    """An upload in progress vanishes from the store, as if a lifecycle rule had removed it.

    If it vanishes just while it is completed, its outcome cannot be known: the job may end as outcome_unknown.
    """
    wanted = {row["path"].lstrip("/"): row for row in means.watch.running() if row["phase"] == Phase.UPLOADING}
    open_uploads = [found for found in unfinished_uploads(means.system) if found[1] in wanted]
    if open_uploads:
        bucket, key, upload_id = means.chance.choice(open_uploads)
        yield {int(wanted[key]["worker"].rsplit(":", 1)[1])}
        means.watch.excused[wanted[key]["id"]] = OutcomeUnknownError.code
        means.system.proxy.lose(bucket, key, upload_id)


def freeze_everything(means: Means) -> Harm:
    """All connections fall silent."""
    yield None
    wires = means.system.broker_wire, means.system.database_wire
    for wire in wires:
        wire.freeze()
    means.system.proxy.stall(means.chance.getrandbits(32))
    means.last()
    means.system.proxy.some(means.chance.getrandbits(32))
    for wire in wires:
        wire.thaw()


def _freeze(means: Means) -> Harm:
    """Nothing passes, and no connection is reset."""
    yield None
    _wire(means).freeze()
    means.last()
    _wire(means).thaw()


def _half_open(means: Means) -> Harm:
    """The same for the connections of now; new ones work."""
    yield None
    _wire(means).freeze_existing()
    means.last()
    _wire(means).thaw()


def _cut(means: Means) -> Harm:
    """All connections are reset."""
    yield None
    _wire(means).cut()


def _refuse(means: Means) -> Harm:
    """All connections are reset, and no new ones taken."""
    yield None
    _wire(means).refuse()
    _wire(means).cut()
    means.last()
    _wire(means).accept()


def cut_before_commit(means: Means) -> Harm:
    """The next commit is cut off, and has not happened."""
    yield from _cut_at_commit(means, before=True)


def cut_after_commit(means: Means) -> Harm:
    """The next commit is cut off, and has happened."""
    yield from _cut_at_commit(means, before=False)


def _cut_at_commit(means: Means, *, before: bool) -> Harm:
    if running := means.watch.running():
        cuts = means.system.database_wire.cuts
        yield {int(row["worker"].rsplit(":", 1)[1]) for row in running}
        means.system.database_wire.cut_at(b"COMMIT", before=before, nth=means.chance.randint(1, 12))
        deadline = 10.0
        while means.system.database_wire.cuts == cuts and deadline > 0 and not means.ending.wait(0.1):
            deadline -= 0.1


def _wire(means: Means) -> Wire:
    return {"broker": means.system.broker_wire, "database": means.system.database_wire}[means.target]


SERVICE_HARMS: Final[Mapping[str, DoHarm]] = {
    "flush broker": flush_broker,
    "restart broker": restart_broker,
    "read-only broker": refuse_broker_writes,
    "freeze broker": _freeze,
    "half-open broker": _half_open,
    "cut broker": _cut,
    "refuse broker": _refuse,
    "restart database": restart_database,
    "cut database": _cut,
    "cut before commit": cut_before_commit,
    "cut after commit": cut_after_commit,
    "freeze database": _freeze,
    "half-open database": _half_open,
    "lock row": lock_row,
    "restart store": restart_store,
    "store storm": store_storm,
    "lose upload": lose_upload,
    "freeze everything": freeze_everything,
}
