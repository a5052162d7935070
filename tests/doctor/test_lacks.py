"""The doctor's lines to paste: what a store of the zoo lacks."""

from collections.abc import Iterator

import pytest

from dev.proxies.quirk_proxy import quirk_proxy
from dev.services import S3Service, create_bucket, moto
from dev.zoo import PROFILES
from tests.doubles import FaultyStore, tiny_store, unfinished
from tests.s3_stores import s3_store
from worker.doctor.lacks import examine_lacks
from worker.errors import PermissionDeniedError
from worker.stores.s3.providers import CAPABILITY_SETTINGS, PROVIDERS, known_store

EVERY_CONDITION = {"conditional_put", "conditional_copy", "conditional_complete", "conditional_delete"}
LINES = {
    "r2": {"tagging = false", 'part_sizes = "equal"'},
    "gcs-501": {f"{name} = false" for name in {*EVERY_CONDITION, "batch_delete"}},
    "b2": {f"{name} = false" for name in {*EVERY_CONDITION, "tagging", "checksum_mode", "upload_size"}},
    "forgetful copies": {"copy_options = false"},
    "no listing of uploads": {"list_uploads = false"},
    "scaleway": set[str](),
}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Service]:
    with moto() as service:
        create_bucket(service, "zoo")
        yield service


@pytest.mark.parametrize("profile", LINES)
def test_it_prints_the_settings_that_a_store_needs(s3: S3Service, profile: str) -> None:
    with quirk_proxy(s3.endpoint, PROFILES[profile].rules()) as proxy:
        store = s3_store(proxy.endpoint, "zoo", access_key=s3.access_key, secret_key=s3.secret_key)
        (finding,) = examine_lacks(store, "doctor", "storage default")
    assert finding.state == ("missing" if LINES[profile] else "ok")
    assert set(filter(None, finding.says.rpartition(": ")[2].split("; "))) == LINES[profile]
    client = s3.client()
    assert "Contents" not in client.list_objects_v2(Bucket="zoo")
    assert "Uploads" not in client.list_multipart_uploads(Bucket="zoo")


def test_a_store_that_cannot_be_probed_is_a_finding() -> None:
    memory = tiny_store()
    store = FaultyStore(memory, "put", times=100, error=lambda: PermissionDeniedError("no"))
    (finding,) = examine_lacks(store, "doctor", "storage default")
    assert (finding.state, unfinished(memory)) == ("broken", [])
    assert "cannot be found out" in finding.says


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_setting_wins_over_the_provider(provider: str) -> None:
    for name, capabilities in CAPABILITY_SETTINGS.items():
        lacking, having = (known_store(provider, settings={name: has}) for has in (False, True))
        assert capabilities <= lacking.missing
        assert capabilities <= having.confirmed
        assert not capabilities & (lacking.confirmed | having.missing)
    limited = known_store(provider, settings={}, part_sizes="any", max_parts=7)
    assert (limited.limits.equal_parts, limited.limits.max_parts) == (False, 7)
    assert known_store(provider, settings={}, part_sizes="equal").limits.equal_parts
