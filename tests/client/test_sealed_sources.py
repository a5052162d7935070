"""Submitting a source that holds a secret: no row and no message shows it, and the same request is still the same."""

from collections.abc import Callable, Iterator

import pytest
from cryptography.fernet import Fernet

from blobferry import Client, seal
from blobferry.errors import ConfigurationError, ConflictError
from blobferry.sealing import Sealer
from tests.client.conftest import Site

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
SIGNED = "https://user:C4NARY@store.example.com/a?X-Amz-Signature=C4NARY"
OTHER = "https://user:C4NARY@store.example.com/a?X-Amz-Signature=4NOTHER"  # shown like the first
SHOWN = "https://***@store.example.com/a?X-Amz-Signature=***"

WithKeys = Callable[..., Client]


@pytest.fixture
def with_keys(site: Site) -> Iterator[WithKeys]:
    """Makes clients with these keys, and closes them."""
    made: list[Client] = []

    def client(*keys: str) -> Client:
        made.append(Client(database_url=site.url, broker_url=site.broker_url, encryption_keys=keys))
        return made[-1]

    yield client
    for each in made:
        each.close()


def test_neither_row_nor_message_holds_the_secret(with_keys: WithKeys, site: Site) -> None:
    job = with_keys(NEW, OLD).write_stream("/a", SIGNED)
    assert job.source == SHOWN
    (row,) = site.rows()
    assert "C4NARY" not in repr(row)
    assert row["source"] == SHOWN
    assert Sealer([NEW]).opened(row["request"]["source"]) == SIGNED
    (message,) = site.messages()
    assert "C4NARY" not in repr(message)
    assert message["body"][1]["source"] == SHOWN


def test_without_a_key_the_row_is_kept_as_it_came_and_the_message_shows_nothing(ferry: Client, site: Site) -> None:
    assert ferry.write_stream("/a", SIGNED).source == SHOWN
    assert site.rows()[0]["request"]["source"] == SIGNED
    assert "C4NARY" not in repr(site.messages())


def test_what_the_app_has_sealed_stays_sealed(with_keys: WithKeys, ferry: Client, site: Site) -> None:
    assert with_keys(OLD).write_stream("/a", seal(SIGNED, OLD)).source == SHOWN
    assert ferry.write_stream("/b", seal(SIGNED, OLD)).source == "sealed:***"  # it has no key to look inside
    assert "C4NARY" not in repr(site.rows())


def test_the_same_request_returns_the_first_job(with_keys: WithKeys, site: Site) -> None:
    first = with_keys(OLD).write_stream("/a", SIGNED, idempotency_key="one")
    again = with_keys(NEW, OLD)  # rotated in between
    assert again.write_stream("/a", SIGNED, idempotency_key="one").id == first.id
    assert again.write_stream("/a", seal(SIGNED, NEW), idempotency_key="one").id == first.id
    assert len(site.rows()) == 1


def test_another_source_is_a_conflict_also_where_both_are_shown_alike(with_keys: WithKeys, site: Site) -> None:
    ferry = with_keys(OLD)
    ferry.write_stream("/a", SIGNED, idempotency_key="one")
    for source in (OTHER, seal(OTHER, OLD), "https://store.example.com/a", "file:///srv/a"):
        with pytest.raises(ConflictError):
            ferry.write_stream("/a", source, idempotency_key="one")
    with pytest.raises(ConflictError):
        ferry.write_stream("/a", SIGNED, offset=7, idempotency_key="one")
    assert len(site.rows()) == 1


def test_a_row_from_before_there_was_a_key_is_compared_too(ferry: Client, with_keys: WithKeys) -> None:
    first = ferry.write_stream("/a", SIGNED, idempotency_key="one")
    assert with_keys(OLD).write_stream("/a", SIGNED, idempotency_key="one").id == first.id
    with pytest.raises(ConflictError):
        with_keys(OLD).write_stream("/a", OTHER, idempotency_key="one")


@pytest.mark.parametrize("keys", [(), (NEW,)])
def test_without_the_first_requests_key_the_two_cannot_be_compared(keys: tuple[str, ...], with_keys: WithKeys) -> None:
    first = with_keys(OLD).write_stream("/a", SIGNED, idempotency_key="one")
    with pytest.raises(ConfigurationError, match=f"encryption_keys: .*cannot be compared .*{first.id}") as raised:
        with_keys(*keys).write_stream("/a", SIGNED, idempotency_key="one")
    assert "C4NARY" not in str(raised.value)
    with pytest.raises(ConflictError):  # it is another, sealed or not
        with_keys(*keys).write_stream("/a", "https://store.example.com/b?c=d", idempotency_key="one")
    with pytest.raises(ConflictError):
        with_keys(*keys).write_stream("/b", SIGNED, idempotency_key="one")


@pytest.mark.parametrize("written", ["[{}]", "{}", " {} ,"], ids=["json", "one", "commas"])
def test_a_client_has_its_keys_from_the_environment(written: str, site: Site) -> None:
    variables = site.environment() | {
        "BLOBFERRY_ENCRYPTION_KEYS": written.replace("{}", f'"{OLD}"' if "[" in written else OLD)
    }
    with Client.from_env(variables) as ferry:
        ferry.write_stream("/a", SIGNED)
    assert Sealer([OLD]).opened(site.rows()[0]["request"]["source"]) == SIGNED


def test_a_bad_key_in_the_environment_names_its_variable_and_is_not_shown(site: Site) -> None:
    with pytest.raises(ConfigurationError, match="BLOBFERRY_ENCRYPTION_KEYS") as raised:
        Client.from_env(site.environment() | {"BLOBFERRY_ENCRYPTION_KEYS": "C4NARY"})
    assert "C4NARY" not in repr(raised.value)
