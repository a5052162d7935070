"""Sealing: what a source URL holds of secrets is readable for whoever has a key, and for nobody else."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest
from cryptography.fernet import Fernet

from blobferry import seal
from blobferry.contract import check_request
from blobferry.errors import BlobferryError, ConfigurationError, InvalidRequestError
from blobferry.redaction import is_sealed, redacted, redacted_arguments
from blobferry.sealing import Sealer, parse_keys

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
SIGNED = "https://store.example.com/a?X-Amz-Signature=C4NARY"


def refused(kind: type[BlobferryError], says: str, call: Callable[..., object], *args: object) -> BlobferryError:
    """The error of the call, which shows no secret."""
    with pytest.raises(kind, match=says) as raised:
        call(*args)
    assert "C4N" not in f"{raised.value}{raised.value!r}"
    return raised.value


@pytest.mark.parametrize(
    "url", [SIGNED, "http://user:C4NARY@host/a", "http://C4NARY@host/", "https://host/a?C4NARY", "http://h/?v=1"]
)
def test_a_url_with_a_user_part_or_a_query_is_kept_sealed(url: str) -> None:
    sealer = Sealer([OLD])
    kept = sealer.kept(url)
    assert is_sealed(kept)
    assert "C4NARY" not in kept
    assert sealer.opened(kept) == url
    assert sealer.shown(kept) == redacted(url)


@pytest.mark.parametrize("url", ["https://host/a", "https://host:8443/a@2x", "file:///srv/a@b", "blob://archive/a"])
def test_a_url_without_a_secret_is_kept_as_it_is(url: str) -> None:
    assert Sealer([OLD]).kept(url) == url


def test_without_a_key_everything_is_kept_as_it_is_and_nothing_is_opened() -> None:
    sealer, sealed = Sealer(), seal(SIGNED, OLD)
    assert (sealer.kept(SIGNED), sealer.kept(sealed), sealer.opened(SIGNED)) == (SIGNED, sealed, SIGNED)
    assert sealer.shown(sealed) == "sealed:***"
    refused(ConfigurationError, r"encryption_keys: .*has no key to open", sealer.opened, sealed)
    refused(ConfigurationError, "encryption_keys", sealer.sealed, SIGNED)


def test_the_first_key_seals_and_every_key_opens() -> None:
    before = Sealer([OLD]).sealed(SIGNED)
    rotated = Sealer([NEW, OLD])
    assert rotated.opened(before) == SIGNED
    after = rotated.sealed(SIGNED)
    assert Sealer([NEW]).opened(after) == SIGNED
    for sealer, sealed in ((Sealer([NEW]), before), (Sealer([OLD]), after), (rotated, Sealer([OTHER]).sealed(SIGNED))):
        error = refused(ConfigurationError, r"encryption_keys: .*keep the old key", sealer.opened, sealed)
        assert error.transient is False


@pytest.mark.parametrize("inside", ["ftp://user:C4NARY@host/a", "etc/passwd", "", "http://user:C4NARY@ho st/"])
def test_what_is_inside_is_checked_like_any_source(inside: str) -> None:
    sealed = f"sealed:{Fernet(OLD).encrypt(inside.encode()).decode()}"
    assert check_request("write_stream", {"path": "/a", "source": sealed}).source == "sealed:***"
    refused(InvalidRequestError, "source: ", Sealer([OLD]).opened, sealed)


def test_a_url_that_is_damaged_or_sealed_twice_is_refused() -> None:
    sealed = seal(SIGNED, OLD)
    refused(ConfigurationError, "damaged", Sealer([OLD]).opened, sealed[:-10] + "A" * 10)
    twice = f"sealed:{Fernet(OLD).encrypt(sealed.encode()).decode()}"
    refused(InvalidRequestError, "twice", Sealer([OLD]).opened, twice)
    assert seal(sealed, OLD).count("sealed:") == 1


@pytest.mark.parametrize(
    "keys",
    [OLD, [OLD], (OLD, NEW), f" {OLD} , {NEW}", json.dumps([OLD, NEW])],
    ids=["one", "a list", "a tuple", "commas", "json"],
)
def test_an_app_seals_for_its_own_messages(keys: str | list[str]) -> None:
    sealed = seal(SIGNED, keys)
    assert check_request("write_stream", {"path": "/a", "source": sealed}).arguments["source"] == sealed
    assert Sealer([OLD]).opened(sealed) == SIGNED


def test_what_can_be_no_source_is_not_sealed() -> None:
    refused(InvalidRequestError, "source", seal, "ftp://host/a", OLD)


@pytest.mark.parametrize("source", ["sealed:", "sealed:***", "sealed://host/a", "sealed:a b", "sealed:" + "A" * 20_000])
def test_what_looks_sealed_and_is_not_is_refused_at_submit(source: str) -> None:
    refused(InvalidRequestError, "sealed", check_request, "write_stream", {"path": "/a", "source": source})


def test_the_longest_url_can_be_sealed() -> None:
    url = "https://host/a?" + "s" * (8192 - 15)
    assert check_request("write_stream", {"path": "/a", "source": seal(url, OLD)})


@pytest.mark.parametrize(
    "keys",
    [["C4NARY"], [OLD, "C4NARY"], [OLD, OLD + "C4NARY"], [OLD, "C4NÄRY" * 8], [OLD, None], [OLD, 7]],
)
def test_a_bad_key_is_named_by_its_place_and_never_shown(keys: list[str]) -> None:
    says = f"encryption_keys: key {len(keys)} of {len(keys)} is not a Fernet key"
    error = refused(ConfigurationError, says, Sealer, keys)
    assert error.__context__ is None  # which would show it


def test_a_list_of_keys_that_is_no_json_is_named_and_not_shown() -> None:
    refused(ConfigurationError, "encryption_keys", parse_keys, '["C4NARY')


def test_no_repr_shows_a_key() -> None:
    sealer = Sealer([OLD])
    assert OLD not in f"{sealer!r} {vars(sealer)!r}"


def test_the_tasks_that_a_message_carries_along_are_kept_sealed() -> None:
    chained = {"task": "blobferry.write_stream", "args": [], "kwargs": {"path": "/b", "source": SIGNED}}
    theirs = {"task": "app.notify", "kwargs": {"source": "https://user:theirs@host/"}}
    options = {"chain": [chained, {"task": "celery.group", "kwargs": {"tasks": [chained]}}], "link": [theirs]}
    kept = Sealer([OLD]).kept_options(options)
    assert "C4NARY" not in json.dumps(kept)
    assert kept["link"] == [theirs]
    assert Sealer([OLD]).opened(kept["chain"][0]["kwargs"]["source"]) == SIGNED
    assert Sealer([OLD]).opened(kept["chain"][1]["kwargs"]["tasks"][0]["kwargs"]["source"]) == SIGNED
    assert Sealer().kept_options(options) == options


def test_a_sealed_url_is_shown_as_sealed() -> None:
    sealed = seal(SIGNED, OLD)
    assert redacted(sealed) == redacted(redacted(sealed)) == "sealed:***"
    assert redacted_arguments({"source": sealed}) == {"source": "sealed:***"}


def test_an_app_without_keys_needs_no_cryptography() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import blobferry\n"
        "from blobferry.errors import ConfigurationError\n"
        "with blobferry.Client(database_url='sqlite://'): pass\n"
        "try: blobferry.seal('https://host/?a=b', 'key')\n"
        "except ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "encryption_keys" in done.stdout
    assert "blobferry[encryption]" in done.stdout


def test_the_log_of_urllib3_shows_no_query(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever opens a sealed URL hands it to urllib3, which logs it when it is told to log everything."""
    from worker.transfer.sources.http.http_client import _without_queries  # noqa: PLC0415

    record = logging.makeLogRecord({"msg": "%s", "args": (f"GET {SIGNED}",)})
    _without_queries(record)
    assert "C4NARY" not in record.getMessage()


def test_the_url_of_a_blob_is_never_sealed_for_jobs_that_need_its_path_must_find_it() -> None:
    assert seal("blob://default/a", OLD) == "blob://default/a"
    assert seal("BLOB://default/a?#", OLD) == "blob://default/a"
