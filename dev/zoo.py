"""The zoo: every S3 there is, as far as its documentation or its users tell, each as rules in front of a real server.

``python -m dev.zoo`` prints the table of profiles. tests/stores/test_zoo.py runs a driver and jobs on each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import click

from dev.proxies import quirks
from dev.proxies.quirk_proxy import QuirkyAnswer, Rule, refuse

_CHECKSUM_HEADERS: Final = ("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-mp-object-size")


@dataclass(frozen=True, slots=True)
class Profile:
    """A store of the zoo."""

    rules: Callable[[], Sequence[Rule]]  #: new ones for each proxy: some remember what they saw
    source: str  #: of the facts
    parameters: Mapping[str, Any] = field(default_factory=dict)  #: that a user must set: nobody can find these out
    not_guaranteed: str = ""
    checks_signatures: bool = True  #: False: a server that does would refuse the requests as they reach it


NO_COMPARISON: Final = "that another writer's blob, written between the last look and a commit call, is not replaced"
LOST_UPLOADS: Final = "that an upload is aborted whose id was lost in a crash: a lifecycle rule has to"

PROFILES: Final[Mapping[str, Profile]] = {
    "r2": Profile(
        lambda: [
            quirks.checking_parts(equal=True),
            quirks.without_headers(501, "NotImplemented", "x-amz-tagging"),
            quirks.without_operations(501, "NotImplemented", "get_tags"),
        ],
        "https://developers.cloudflare.com/r2/api/s3/api/, https://github.com/apache/opendal/issues/6252",
        {"part_sizes": "equal"},
    ),
    "gcs-400": Profile(
        lambda: [quirks.without_operations(400, "InvalidArgument", "delete_batch"), quirks.ignoring_conditions()],
        "https://github.com/minio/mc/issues/2398",
        not_guaranteed=NO_COMPARISON,
    ),
    "gcs-501": Profile(
        lambda: [
            quirks.without_operations(501, "NotImplemented", "delete_batch"),
            quirks.without_conditions(501, "NotImplemented"),
        ],
        "https://github.com/supabase/storage/issues/898",
        not_guaranteed=NO_COMPARISON,
    ),
    "b2": Profile(
        lambda: [
            quirks.without_headers(400, "", *_CHECKSUM_HEADERS),
            quirks.without_headers(400, "InvalidArgument", "x-amz-tagging"),
            quirks.without_conditions(501, "NotImplemented"),
        ],
        "https://github.com/jschneier/django-storages/issues/1498",
        not_guaranteed=NO_COMPARISON,
    ),
    "old gateway": Profile(
        lambda: [quirks.without_headers(400, "", *_CHECKSUM_HEADERS)], "https://github.com/thanos-io/objstore/issues/84"
    ),
    "ceph, refusing": Profile(
        lambda: [quirks.without_conditions(412, "PreconditionFailed")],
        "https://github.com/versity/versitygw/issues/1710",
        not_guaranteed=NO_COMPARISON,
    ),
    "ceph, unquoted": Profile(
        lambda: [quirks.comparing_without_quotes],
        "S3 API reference, “PutObject”: If-Match is a string",
        not_guaranteed=NO_COMPARISON,
    ),
    "put only": Profile(
        lambda: [quirks.without_conditions(501, "NotImplemented", "copy", "complete_upload", "delete")],
        "https://github.com/ceph/s3-tests/issues/583",
        not_guaranteed=NO_COMPARISON,
    ),
    "ignoring": Profile(
        lambda: [quirks.ignoring_conditions()],
        "https://github.com/developmentseed/multistore/issues/120",
        not_guaranteed=NO_COMPARISON,
    ),
    "scaleway": Profile(
        lambda: [quirks.checking_parts(most=1_000)],
        "https://www.scaleway.com/en/docs/object-storage/api-cli/multipart-uploads/",
        {"max_parts": 1_000},
    ),
    "no listing of uploads": Profile(
        lambda: [quirks.without_operations(501, "NotImplemented", "list_uploads")],
        "https://docs.openstack.org/swift/latest/s3_compat.html",
        not_guaranteed=LOST_UPLOADS,
    ),
    "bare listings": Profile(
        lambda: [quirks.listing_without("Owner", "LastModified", "Initiated", "StorageClass")],
        "https://github.com/minio/minio-java/issues/920, https://github.com/wso2/api-manager/issues/2502",
        not_guaranteed=LOST_UPLOADS,
    ),
    "unquoted etags": Profile(
        lambda: [quirks.changing_etags(lambda etag: etag.strip('"'), lambda etag: f'"{etag.strip(chr(34))}"')],
        "https://github.com/xtream1101/s3-concat/pull/14, https://github.com/duckdb/duckdb-httpfs/pull/291",
        checks_signatures=False,
    ),
    "etags of its own": Profile(
        lambda: [quirks.changing_etags(quirks.reversed_etag, quirks.reversed_etag)],
        "S3 API reference, “Object”: an ETag may be no MD5",
        checks_signatures=False,
    ),
    "forgetful copies": Profile(
        lambda: [quirks.forgetful_copies], "https://github.com/storj/edge/issues/44", checks_signatures=False
    ),
    "error in 200": Profile(
        lambda: [quirks.once_each(lambda: refuse(200, "InternalError"), "copy", "complete_upload")],
        "https://github.com/apache/arrow-rs-object-store/issues/122",
    ),
    "nothing in 200": Profile(
        lambda: [quirks.once_each(lambda: QuirkyAnswer(200), "copy", "complete_upload", "put")],
        "a proxy that answers for the store; S3 API reference, “CompleteMultipartUpload”",
    ),
    "moved, 301": Profile(
        lambda: [quirks.in_region("eu-west-1", 301, "PermanentRedirect")],
        "S3 user guide, “Request redirection”",
        checks_signatures=False,
    ),
    "moved, 307": Profile(
        lambda: [quirks.in_region("eu-west-1", 307, "TemporaryRedirect")],
        "S3 user guide, “Request redirection”",
        checks_signatures=False,
    ),
    "busy, 429": Profile(
        lambda: [quirks.every(7, lambda: refuse(429, "TooManyRequests"))], "RFC 6585, 429 of a rate limiter"
    ),
    "wrong clock": Profile(lambda: [quirks.dated(timedelta(minutes=7))], "S3 API reference, RequestTimeTooSkewed"),
    "chunks as content": Profile(
        lambda: [quirks.chunked_as_content], "https://github.com/amd/gaia/pull/3029", checks_signatures=False
    ),
}


@click.command()
def main() -> None:
    """Print the profiles, with the source of each fact and what the store cannot guarantee."""
    for name, profile in PROFILES.items():
        click.echo(f"{name:22} {profile.source}")
        if profile.parameters:
            settings = ", ".join(f"{setting} = {value!r}" for setting, value in profile.parameters.items())
            click.echo(f"{'':22} set {settings}")
        if profile.not_guaranteed:
            click.echo(f"{'':22} not guaranteed: {profile.not_guaranteed}")


if __name__ == "__main__":
    main()
