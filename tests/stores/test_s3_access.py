"""How an S3 store is reached: private authorities, no check at all, proxies, profiles, the size of the pool."""

import logging
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.s3_stores import s3_store
from tests.stores.scripted_server import Answer, ScriptedServer
from tests.transfer.sources.http.test_addresses import write_certificate
from worker.driver import Driver
from worker.errors import ConfigurationError, StoreUnavailableError

HEAD = {"ETag": '"e"', "Content-Length": "7"}
GIVEN = {"bucket": "b", "region": "us-east-1", "regionendpoint": "https://store.example.com"}
KEYS = {"accesskey": "k", "secretkey": "s"}


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    return write_certificate(tmp_path / "private.pem")


@pytest.fixture
def secure(server: ScriptedServer, pem: Path) -> str:
    """The endpoint of a server with a certificate of a private authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
    server.script(Answer(headers=HEAD))
    return f"https://localhost:{server.server.server_address[1]}"


def head_size(endpoint: str, **parameters: Any) -> int:
    given = {"bucket": "b", "region": "us-east-1", "regionendpoint": endpoint, "checksum": "none", **KEYS, **parameters}
    return Driver.from_parameters(given).head("/a").size


def test_a_certificate_of_a_private_authority_is_taken_where_it_is_named(secure: str, pem: Path) -> None:
    assert head_size(secure, ca_file=str(pem)) == 7


@pytest.mark.parametrize("other", [False, True], ids=["none named", "another named"])
def test_it_is_refused_elsewhere_and_no_request_is_sent(
    secure: str, server: ScriptedServer, tmp_path: Path, other: bool
) -> None:
    named = {"ca_file": str(write_certificate(tmp_path / "other.pem"))} if other else {}
    store = s3_store(secure, **named)
    with pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        store.head("a")
    assert server.requests == []


def test_without_verification_any_certificate_will_do_and_the_log_says_so(
    secure: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert head_size(secure, verify="false") == 7
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ["TLS certificates of the store are not verified"]


@pytest.mark.parametrize("form", ["a mapping", "one for both", "a variable"])
def test_requests_go_through_the_proxy_of_the_storage(server: ScriptedServer, form: str) -> None:
    server.script(Answer(headers=HEAD))
    proxies: dict[str, Any] = {
        "a mapping": {"http": server.endpoint},
        "one for both": server.endpoint,
        "a variable": f'{{"http": "{server.endpoint}"}}',
    }
    assert head_size("http://store.invalid", proxies=proxies[form], secure=False) == 7
    assert server.requests[0].path == "http://store.invalid/b/a"


@pytest.mark.parametrize("none", [{}, "", "{}"], ids=repr)
def test_no_proxies_means_not_those_of_the_environment_either(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, none: Any
) -> None:
    server.script(Answer(headers=HEAD))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    assert head_size(server.endpoint, proxies=none) == 7


def test_credentials_come_from_the_profile(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.script(Answer(headers=HEAD))
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = WRONG\naws_secret_access_key = s\n"
        "[videos]\naws_access_key_id = RIGHT\naws_secret_access_key = s\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    assert head_size(server.endpoint, accesskey=None, secretkey=None, profile="videos") == 7
    assert "Credential=RIGHT/" in server.requests[0].headers["authorization"]


def test_the_pool_is_as_large_as_is_asked_for() -> None:
    store = s3_store("http://localhost:1", max_pool_connections=3)
    assert store._bucket.client.meta.config.max_pool_connections == 3
    made = Driver.from_parameters(GIVEN | KEYS | {"max_pool_connections": "77"}).store
    assert made._bucket.client.meta.config.max_pool_connections == 77  # type: ignore[attr-defined]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a missing file": ({"ca_file": "/nowhere/ca.pem"}, "ca_file: /nowhere/ca.pem: no such file"),
    "a directory": ({"ca_file": "/etc"}, "ca_file: /etc: no PEM file with certificates"),
    "no certificate": ({"ca_file": __file__}, "ca_file: .*no PEM file with certificates"),
    "both": ({"ca_file": __file__, "verify": False}, "ca_file: is of no use with verify = false"),
    "verify": ({"verify": "maybe"}, "verify: must be true or false"),
    "a proxy of another kind": ({"proxies": "socks5://u:s3cret@h"}, "proxies: each must be a URL such as http://"),
    "a proxy without a host": ({"proxies": {"https": "s3cret"}}, "proxies: each must be a URL such as http://"),
    "no JSON": ({"proxies": "{s3cret"}, "proxies: must be a URL, or a mapping of http and https to URLs"),
    "a proxy of another scheme": ({"proxies": {"ftp": "http://s3cret"}}, "proxies"),
    "no pool": ({"max_pool_connections": 0}, "max_pool_connections: Input should be greater"),
    "an unknown profile": ({"profile": "nope", "accesskey": None, "secretkey": None}, "profile: 'nope' is not in"),
    "a profile besides a key": ({"profile": "nope"}, "profile: is of no use with an accesskey"),
    "a public user": ({"publicendpoint": "https://u:s3cret@h"}, "publicendpoint: .* without user name and password"),
    "a public scheme": ({"publicendpoint": "ftp://h"}, "publicendpoint: must be an http or https URL"),
    "a public query": ({"publicendpoint": "https://h/?s3cret"}, "publicendpoint: must be an http or https URL"),
    "no public host": ({"publicendpoint": "https://"}, "publicendpoint: must be a URL or a host"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_named_before_any_request_and_shows_no_secret(name: str) -> None:
    given, says = WRONG[name]
    with pytest.raises(ConfigurationError, match=says) as caught:
        Driver.from_parameters(GIVEN | KEYS | given)
    assert "s3cret" not in str(caught.value)


def test_a_profile_of_another_program_keeps_no_store_with_keys_of_its_own_from_working(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "of-another-program")
    driver = Driver.from_parameters(GIVEN | KEYS)
    driver.warm_up()
    assert "Credential=" in driver.url_for("/key")
