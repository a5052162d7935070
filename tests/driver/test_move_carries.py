"""move: what a blob carries besides its bytes comes along, in one copy, in parts, and to another root of its bucket."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dev.services import S3Service
from tests.driver.blobs_and_readers import MakeDriver, data, keys
from tests.driver.store_kinds import BUCKET, COPYING, LIMITS
from tests.s3_stores import s3_store
from worker.driver import Driver
from worker.errors import PermissionDeniedError
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.s3.s3_store import S3Store

pytestmark = [pytest.mark.no_cover, pytest.mark.parametrize("kind", ["moto"]), pytest.mark.every_run_on("moto")]

SMALL, LARGE = 100, 2 * COPYING.threshold + 13
every_size = pytest.mark.parametrize("size", [0, SMALL, LARGE], ids=["nothing", "one copy", "copied in parts"])
ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
OWNER = "75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a"  # of all blobs, in moto
FRIEND = "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be"

CARRIED: dict[str, dict[str, Any]] = {
    "Cache-Control": {"CacheControl": "max-age=60"},
    "Content-Disposition": {"ContentDisposition": 'attachment; filename="a b.pdf"'},
    "Content-Encoding": {"ContentEncoding": "gzip"},
    "Content-Language": {"ContentLanguage": "de, en"},
    "Content-Type": {"ContentType": "image/png"},
    "Expires": {"Expires": datetime(2031, 1, 1, tzinfo=UTC)},
    "redirect": {"WebsiteRedirectLocation": "/new?a=1"},
    "metadata": {"Metadata": {"owner": "me", "empty": ""}},
    "class": {"StorageClass": "STANDARD_IA"},
    "encryption": {"ServerSideEncryption": "AES256"},
    "a key": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/mine"},
}


@pytest.fixture
def client(service: S3Service) -> Any:
    return service.client()


def shown(client: Any, key: str) -> dict[str, Any]:
    head = client.head_object(Bucket=BUCKET, Key=key)
    return {name: head.get(name) for given in CARRIED.values() for name in given}


def grants(client: Any, key: str, bucket: str = BUCKET) -> set[tuple[str, str]]:
    try:
        answer = client.get_object_acl(Bucket=bucket, Key=key)
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "500":
            raise
        return {(OWNER, "FULL_CONTROL")}  # moto fails over a blob of parts that was given no ACL
    return {
        (grant["Grantee"].get("URI") or grant["Grantee"].get("ID"), grant["Permission"]) for grant in answer["Grants"]
    }


@every_size
@pytest.mark.parametrize("name", CARRIED)
def test_a_header_comes_along_and_nothing_is_added(driver: Driver, client: Any, name: str, size: int) -> None:
    client.put_object(Bucket=BUCKET, Key=driver.key("/a"), Body=data(size), **CARRIED[name])
    before = shown(client, driver.key("/a"))
    driver.move("/a", "/b")
    assert shown(client, driver.key("/b")) == before


@every_size
def test_tags_come_along(driver: Driver, client: Any, size: int) -> None:
    client.put_object(Bucket=BUCKET, Key=driver.key("/a"), Body=data(size), Tagging="team=a%20%2B%20b&empty=")
    driver.move("/a", "/b")
    tags = client.get_object_tagging(Bucket=BUCKET, Key=driver.key("/b"))["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "a + b", "empty": ""}


@every_size
@pytest.mark.parametrize("acl", ["private", "public-read", "authenticated-read"])
def test_a_canned_acl_comes_along(driver: Driver, client: Any, acl: str, size: int) -> None:
    client.put_object(Bucket=BUCKET, Key=driver.key("/a"), Body=data(size), ACL=acl)
    before = grants(client, driver.key("/a"))
    driver.move("/a", "/b")
    assert grants(client, driver.key("/b")) == before


@every_size
def test_grants_to_single_accounts_come_along(driver: Driver, client: Any, size: int) -> None:
    given = {"GrantRead": f'id="{FRIEND}"', "GrantReadACP": f'uri="{ALL_USERS}"'}
    client.put_object(Bucket=BUCKET, Key=driver.key("/a"), Body=data(size), **given)
    driver.move("/a", "/b")
    assert grants(client, driver.key("/b")) == {(FRIEND, "READ"), (ALL_USERS, "READ_ACP")}


@every_size
def test_with_the_default_acl_a_copy_is_private_again(
    on: MakeDriver, make_s3_store: Callable[..., S3Store], service: S3Service, client: Any, size: int
) -> None:
    driver = on(make_s3_store(service, acl="default"))
    client.put_object(Bucket=BUCKET, Key=driver.key("/a"), Body=data(size), ACL="public-read")
    driver.move("/a", "/b")
    assert ALL_USERS not in {grantee for grantee, _ in grants(client, driver.key("/b"))}


@every_size
def test_all_comes_along_between_two_storages_of_one_bucket(
    driver: Driver, on: MakeDriver, service: S3Service, root: str, client: Any, size: int
) -> None:
    there = on(s3_store(service, BUCKET, limits=LIMITS), f"{root}/there")
    given = {name: value for name in ("Expires", "redirect", "class") for name, value in CARRIED[name].items()}
    client.put_object(Bucket=BUCKET, Key=driver.key("/a"), Body=data(size), ACL="public-read", **given)
    before = shown(client, driver.key("/a"))
    driver.move("/a", "/b", dest=there)
    assert shown(client, there.key("/b")) == before
    assert (ALL_USERS, "READ") in grants(client, there.key("/b"))


@every_size
def test_expires_that_is_no_date_comes_along_as_it_is(driver: Driver, client: Any, size: int) -> None:
    def odd(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["Expires"] = "0"

    client.meta.events.register("before-call.s3.PutObject", odd)
    client.put_object(Bucket=BUCKET, Key=driver.key("/a"), Body=data(size))
    driver.move("/a", "/b")
    assert client.head_object(Bucket=BUCKET, Key=driver.key("/b"))["ExpiresString"] == "0"


@pytest.fixture
def locking(on: MakeDriver, make_s3_store: Callable[..., S3Store], service: S3Service, client: Any) -> Driver:
    """A driver on a bucket with object lock."""
    if "locks" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket="locks", ObjectLockEnabledForBucket=True)
    return on(make_s3_store(service, "locks"))


def locked_for(**time: float) -> dict[str, Any]:
    until = datetime.now(UTC) + timedelta(**time)
    return {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}


LOCKS = {
    "governance": locked_for(days=1),
    "compliance": locked_for(days=1) | {"ObjectLockMode": "COMPLIANCE"},
    "legal hold": {"ObjectLockLegalHoldStatus": "ON"},
}


@every_size
@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_a_locked_blob_is_not_moved_and_nothing_happens(
    locking: Driver, on: MakeDriver, client: Any, lock: str, elsewhere: bool, size: int
) -> None:
    key = locking.key("/a")
    client.put_object(Bucket="locks", Key=key, Body=data(size), ChecksumAlgorithm="CRC32", **LOCKS[lock])
    dest = on(MemoryStore(limits=LIMITS)) if elsewhere else locking
    with pytest.raises(PermissionDeniedError, match=r"/a: is under a .*(hold|until 20).*release it first"):
        locking.move("/a", "/b", dest=dest)
    assert keys(locking) == ["a"]
    assert keys(dest) == ([] if elsewhere else ["a"])


@every_size
@pytest.mark.parametrize("lock", ["no", "past"])
def test_a_blob_whose_lock_is_over_is_moved(locking: Driver, client: Any, lock: str, size: int) -> None:
    given = locked_for(days=-1) | {"ObjectLockLegalHoldStatus": "OFF"} if lock == "past" else {}
    key = locking.key("/a")
    client.put_object(Bucket="locks", Key=key, Body=data(size), ChecksumAlgorithm="CRC32", **given)
    locking.move("/a", "/b")
    assert keys(locking) == ["b"]
