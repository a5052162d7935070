"""The identity of a bucket: equal for all spellings of the endpoint by which it is reached.

Path locks go by it. If one bucket had two identities, two jobs could change one blob at once, and a move onto itself
would copy the blob and then delete it.
"""

from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = (80, 443)
#: Partitions of AWS by the beginning of their regions. Source: AWS fault isolation boundaries, "Partitions".
_PARTITIONS: Final = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b"}
_PARTITIONS_BY_DOMAIN: Final = {".amazonaws.com.cn": "aws-cn", ".c2s.ic.gov": "aws-iso", ".sc2s.sgov.gov": "aws-iso-b"}
#: Labels of hosts below amazonaws.com that are anybody's store, or where "bucket" is a name of something else.
_NOT_S3: Final = frozenset({"elb", "compute", "compute-1", "s3-accesspoint", "s3-outposts", "s3-object-lambda"})
#: Clouds in which a bucket's name is unique in all regions and behind all endpoints, by their domains.
_ONE_NAMESPACE: Final = {
    ".googleapis.com": "gcs",
    ".wasabisys.com": "wasabi",
    ".backblazeb2.com": "b2",
    ".cloud-object-storage.appdomain.cloud": "ibm",
}


def bucket_identity(endpoint: str | None, region: str | None, bucket: str, *, given: str | None = None) -> str:
    """The identity of a bucket.

    Args:
        endpoint: URL with a scheme; None or "" is AWS.
        region: of the bucket, if given; tells AWS's partitions apart.
        bucket: its name.
        given: what the operator says instead of the endpoint, where several endpoints cannot be seen to be one store.
    """
    return f"{given or _place(endpoint, region or '')}/{bucket}"


def _place(endpoint: str | None, region: str) -> str:
    if not endpoint:
        return _partition(region)
    url = urlsplit(endpoint)
    host = _host(url.hostname or "")
    cloud = _cloud(host)
    if cloud is not None:
        return cloud
    port = "" if url.port is None or url.port in _DEFAULT_PORTS else f":{url.port}"
    path = "/".join(part for part in url.path.split("/") if part)
    return f"{host}{port}/{path}" if path else f"{host}{port}"


def _host(name: str) -> str:
    name = name.rstrip(".").lower()
    return "127.0.0.1" if name == "localhost" else name


def _cloud(host: str) -> str | None:
    """The cloud of a host, if the names of its buckets are unique there; None for any other host."""
    labels = host.split(".")
    if _NOT_S3.isdisjoint(labels) and any(map(_is_s3, labels)):
        for domain, partition in _PARTITIONS_BY_DOMAIN.items():
            if host.endswith(domain):
                return partition
        if host.endswith((".amazonaws.com", ".api.aws")):
            return "aws-us-gov" if "us-gov-" in host else "aws"
    if host.endswith(".aliyuncs.com") and any(label.startswith("oss-") for label in labels):
        return "oss"
    return next((cloud for domain, cloud in _ONE_NAMESPACE.items() if host.endswith(domain)), None)


def _is_s3(label: str) -> bool:
    return label == "s3" or label.startswith(("s3-", "s3express-"))


def _partition(region: str) -> str:
    return next((name for start, name in _PARTITIONS.items() if region.startswith(start)), "aws")
