"""Brokers as deployments have them: TLS with a private authority, sentinels and their failover; no cluster."""

from dataclasses import replace

import pytest

from blobferry.messages.job_messages import client_app
from dev.proxies.tls_wire import tls_wire
from dev.services import Valkey
from dev.services.redis_kinds import MASTER_NAME, cluster, sentinel
from dev.stack import Stack


def transfer_job_alone(stack: Stack, path: str) -> None:
    with stack.client() as client:
        job = client.write_stream(path, stack.incoming / "blob")
        assert client.wait(job.id, timeout=90).state == "succeeded"


def transfer(stack: Stack, path: str) -> None:
    """A job and a read, which needs the result backend as well."""
    (stack.incoming / "blob").write_bytes(b"blob")
    transfer_job_alone(stack, path)
    with stack.client() as client:
        assert client.stat(path, timeout=30).size == 4


def test_rediss_needs_no_parameter_but_an_authority_that_is_known(stack: Stack, broker: Valkey) -> None:
    with tls_wire(("127.0.0.1", broker.port)) as (server, authority):
        settings = {**stack.settings, "BLOBFERRY_BROKER__CA_FILE": str(authority)}
        secure = replace(stack, broker_url=f"rediss://127.0.0.1:{server.port}/0", settings=settings)
        with secure.worker():
            transfer(secure, "/kinds/tls")
        strange = client_app(secure.broker_url)
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"), strange.connection_for_write() as connection:
            connection.default_channel.client.ping()
        strange.close()


def test_a_failover_of_sentinels_costs_no_job(stack: Stack) -> None:
    with sentinel() as (watcher, primary, _):
        settings = {**stack.settings, "BLOBFERRY_BROKER__MASTER_NAME": MASTER_NAME}
        url = f"sentinel://127.0.0.1:{watcher.port}/0"
        watched = replace(stack, broker_url=url, settings=settings)
        with watched.worker() as worker:
            before = worker.pids
            transfer(watched, "/kinds/before")
            primary.kill9()
            transfer_job_alone(watched, "/kinds/after")
            assert worker.pids == before
            assert "Unrecoverable" not in worker.log.read_text()


@pytest.mark.parametrize("command", ["run", "doctor"])
def test_a_cluster_is_refused_by_a_sentence(stack: Stack, command: str) -> None:
    with cluster() as server:
        settings = {**stack.environment(), "BLOBFERRY_BROKER_URL": f"redis://127.0.0.1:{server.port}/0"}
        done = stack.run(command, settings=settings)
        assert done.returncode == {"run": 2, "doctor": 1}[command]
        assert "Redis Cluster cannot be the broker" in done.stdout + done.stderr


def test_the_address_of_a_sentinel_is_refused_by_a_sentence(stack: Stack) -> None:
    with sentinel() as (watcher, _, _):
        settings = {**stack.environment(), "BLOBFERRY_BROKER_URL": f"redis://127.0.0.1:{watcher.port}/0"}
        done = stack.run("run", settings=settings)
        assert done.returncode == 2
        assert "write sentinel://" in done.stderr
