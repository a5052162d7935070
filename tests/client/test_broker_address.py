"""Addresses of brokers: each is understood, or refused by a sentence that names the setting and shows no password."""

import ssl
from pathlib import Path

import pytest

from blobferry import Client
from blobferry.errors import ConfigurationError
from blobferry.messages.broker_address import BrokerOptions, broker_address, options_of

NAMED = BrokerOptions(master_name="mymaster")


def test_rediss_verifies_by_default() -> None:
    found = broker_address("rediss://:pw@h:6380/1")
    assert found.url == "rediss://:pw@h:6380/1"
    assert found.tls == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}


def test_a_ca_file_comes_from_the_options_or_the_url(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    for url, options in [
        ("rediss://h/0", BrokerOptions(ca_file=str(ca))),
        (f"valkeys://h/0?ssl_ca_certs={ca}&ssl_cert_reqs=CERT_REQUIRED", None),
    ]:
        found = broker_address(url, options)
        assert found.url == "rediss://h/0"
        assert found.tls is not None
        assert found.tls["ssl_ca_certs"] == str(ca)


def test_a_url_may_say_that_nothing_is_verified() -> None:
    found = broker_address("rediss://h/0?ssl_cert_reqs=none&socket_timeout=3")
    assert (found.url, found.tls) == (
        "rediss://h/0?socket_timeout=3",
        {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False},
    )


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://:pw@a:26379;sentinel://:pw@b:26380/2",
        "sentinel://:pw@a:26379/2;sentinel://b:26380",
        "sentinel://:pw@a,b:26380/2",
        "SENTINEL://:pw@a;b:26380/2?master_name=mymaster",
    ],
)
def test_sentinels_may_be_listed_in_any_way(url: str) -> None:
    found = broker_address(url, NAMED)
    assert found.url == "sentinel://:pw@a:26379/2;sentinel://:pw@b:26380/2"
    assert found.transport_options["master_name"] == "mymaster"
    assert found.tls is None


def test_sentinels_have_a_password_and_certificates_of_their_own(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    options = BrokerOptions(master_name="m", sentinel_password="s3cr3t", ca_file=str(ca), tls=True)
    found = broker_address("sentinel://[fd00::7]", options)
    assert found.url == "sentinel://[fd00::7]:26379/0"
    kwargs = found.transport_options["sentinel_kwargs"]
    assert (kwargs["password"], kwargs["ssl"], kwargs["ssl_ca_certs"]) == ("s3cr3t", True, str(ca))
    assert found.tls is not None
    assert "s3cr3t" not in repr(found) + repr(options)


@pytest.mark.parametrize(
    ("url", "options", "named", "says"),
    [
        ("sentinel://:s3cr3t@h", None, "broker.master_name", "missing"),
        ("sentinel://:s3cr3t@h/0?db=1", NAMED, "broker_url", "unknown parameter db"),
        ("redis+cluster://:s3cr3t@h", None, "broker_url", "Cluster"),
        ("rediscluster://:s3cr3t@h", None, "broker_url", "Cluster"),
        ("redis://:s3cr3t@a:1,b:2/0", None, "broker_url", "several servers"),
        ("rediss://:s3cr3t@h/0?ssl_cert_reqs=maybe", None, "broker_url", "required, optional, none"),
        ("rediss://:s3cr3t@h/0", BrokerOptions(ca_file="/none.pem"), "broker_url", r"/none\.pem does not exist"),
        ("redis://:s3cr3t@h/0", BrokerOptions(ca_file="/none.pem"), "broker_url", "rediss://"),
    ],
)
def test_what_cannot_be_a_broker_is_refused(url: str, options: BrokerOptions | None, named: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        broker_address(url, options)
    assert caught.value.name == named
    assert "s3cr3t" not in str(caught.value)


def test_a_client_takes_the_workers_variables() -> None:
    variables = {"BLOBFERRY_BROKER__MASTER_NAME": "m", "BLOBFERRY_BROKER__TLS": "true"}
    assert options_of(variables) == BrokerOptions(master_name="m", tls=True)
    found = {"BLOBFERRY_DATABASE_URL": "sqlite://", "BLOBFERRY_BROKER_URL": "sentinel://h", **variables}
    Client.from_env(found).close()
