"""The identity of a bucket: one for all spellings of its endpoint, and another for another bucket."""

from itertools import combinations

import pytest

from worker.driver import Driver
from worker.errors import ConfigurationError

#: Endpoints by which one and the same bucket is reached.
ONE_PLACE = {
    "default port": ("http://minio.example", "http://minio.example:80"),
    "default port of TLS": ("https://minio.example", "https://minio.example:443", "https://minio.example:0443"),
    "empty port": ("https://minio.example:9000", "https://minio.example:09000"),
    "scheme": ("http://minio.example:9000", "https://minio.example:9000", "minio.example:9000"),
    "scheme and its default port": ("http://minio.example", "https://minio.example", "minio.example:443"),
    "trailing slash": ("http://minio.example:9000", "http://minio.example:9000/", "http://minio.example:9000//"),
    "trailing dot": ("https://minio.example", "https://minio.example.", "https://minio.example./"),
    "case": ("https://minio.example", "https://MinIO.Example", "HTTPS://MINIO.EXAMPLE"),
    "path": ("https://gate.example/s3", "https://gate.example/s3/", "https://gate.example//s3"),
    "this machine": ("http://localhost:9000", "http://127.0.0.1:9000", "http://LOCALHOST.:9000/"),
    "AWS": (
        "",
        "s3.amazonaws.com",
        "https://s3.amazonaws.com:443/",
        "http://S3.AMAZONAWS.COM.",
        "https://s3.us-east-1.amazonaws.com",
        "https://s3-us-west-2.amazonaws.com",
        "https://s3-external-1.amazonaws.com",
        "https://s3.dualstack.eu-central-1.amazonaws.com",
        "https://s3-fips.us-east-2.amazonaws.com",
        "https://s3-fips.dualstack.us-east-2.amazonaws.com",
        "https://s3-accelerate.amazonaws.com",
        "https://s3-accelerate.dualstack.amazonaws.com",
        "https://bucket.s3.us-east-1.amazonaws.com",
        "https://bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com",
        "https://vpce-1a2b3c4d-5e6f-us-east-1a.s3.us-east-1.vpce.amazonaws.com",
    ),
    "AWS in China": ("https://s3.cn-north-1.amazonaws.com.cn", "https://s3.dualstack.cn-north-1.amazonaws.com.cn"),
    "AWS for the government": (
        "https://s3.us-gov-west-1.amazonaws.com",
        "https://s3-fips.us-gov-west-1.amazonaws.com",
        "https://s3-us-gov-west-1.amazonaws.com",
    ),
    "Google": ("https://storage.googleapis.com", "https://storage.us-central1.rep.googleapis.com"),
    "Wasabi": ("https://s3.wasabisys.com", "https://s3.us-east-1.wasabisys.com"),
    "Alibaba": ("https://oss-cn-hangzhou.aliyuncs.com", "https://oss-cn-hangzhou-internal.aliyuncs.com"),
}

#: Endpoints that are not one place.
OTHER_PLACES = [
    "",
    "https://s3.cn-north-1.amazonaws.com.cn",
    "https://s3.us-gov-west-1.amazonaws.com",
    "https://minio.example",
    "https://minio.example:8443",
    "https://minio.example:9000",
    "https://minio.example/tenant-1",
    "https://minio.example/Tenant-1",
    "https://other.example",
    "https://s3.other.example",
    "https://my-minio-1.us-east-1.elb.amazonaws.com",
    "https://s3.ec2-1-2-3-4.us-west-2.compute.amazonaws.com",
    "https://s3-amazonaws.com",
    "https://s3.amazonaws.com.example",
    "https://ap-123456789012.s3-accesspoint.us-west-2.amazonaws.com",
    "https://storage.googleapis.com",
    "https://s3.wasabisys.com",
    "http://127.0.0.1:9000",
]


def identity(endpoint: str, *, bucket: str = "b", region: str = "us-east-1", **parameters: str) -> str:
    parameters = {"bucket": bucket, "region": region, "regionendpoint": endpoint, **parameters}
    return Driver.from_parameters(parameters).store.identity


@pytest.mark.parametrize("kind", ONE_PLACE)
def test_all_spellings_of_an_endpoint_are_one_bucket(kind: str) -> None:
    assert len({identity(endpoint) for endpoint in ONE_PLACE[kind]}) == 1
    assert len({identity(endpoint, secure="false") for endpoint in ONE_PLACE[kind]}) == 1


def test_other_places_and_other_buckets_are_never_one() -> None:
    for one, other in combinations(OTHER_PLACES, 2):
        assert identity(one) != identity(other), (one, other)
    for endpoint in OTHER_PLACES:
        assert identity(endpoint) != identity(endpoint, bucket="c")
        assert identity(endpoint) != identity(endpoint, bucket="B"), "some stores tell letters apart"


@pytest.mark.parametrize(("region", "endpoint"), [
    ("eu-central-1", "https://s3.us-east-1.amazonaws.com"),
    ("cn-north-1", "https://s3.cn-northwest-1.amazonaws.com.cn"),
    ("us-gov-west-1", "https://s3.us-gov-east-1.amazonaws.com"),
])  # fmt: skip
def test_aws_without_an_endpoint_is_the_partition_of_its_region(region: str, endpoint: str) -> None:
    assert identity("", region=region) == identity(endpoint)


def test_endpoints_that_look_unlike_are_one_place_where_the_operator_says_so() -> None:
    ends = ("https://private-1.example", "https://private-2.example:9000/s3")
    assert len({identity(end) for end in ends}) == 2
    assert len({identity(end, identity="ceph-fra") for end in ends}) == 1
    assert identity(ends[0], identity="ceph-fra") != identity(ends[0], identity="ceph-fra", bucket="c")
    assert identity("https://alias.example", identity="aws") == identity("")


def test_directories_are_one_place_where_the_operator_says_so(tmp_path: object) -> None:
    drivers = [
        Driver.from_parameters({"driver": "local", "rootdirectory": f"{tmp_path}/{name}", "identity": "nas"})
        for name in ("mount-1", "mount-2")
    ]
    assert drivers[0].store.identity == drivers[1].store.identity


@pytest.mark.parametrize("wrong", ["", " ", "a b", "ä", "x" * 129, "a\n"])
def test_a_wrong_identity_is_refused_and_named(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"identity: needs 1 to 128 letters, digits"):
        identity("", identity=wrong)
