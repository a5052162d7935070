"""Makes boto3 clients. All client settings for speed, retries and compatible stores are here."""

import base64
import hashlib
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import boto3
import urllib3
from botocore.config import Config
from botocore.handlers import add_expect_header
from botocore.session import get_session

from blobferry.signing.s3_signer import SIGNATURE_VERSION, S3Signer, description_loader
from worker.errors import StoreUnavailableError
from worker.stores.attempts import before_attempt
from worker.stores.s3.s3_access import S3Access
from worker.stores.s3.sockets import time_out_without_progress
from worker.stores.s3.timestamps import timestamp

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class S3Clients:
    """The boto3 S3 clients of one store, which share their credentials."""

    retrying: Any  #: retries requests by itself: for what may be repeated at any time without a change for readers
    #: Never retries. For what commits or deletes: only the layer that knows the lease repeats it, after a look.
    #: Also for CreateMultipartUpload: a retry after a lost answer would leave an upload with an unknown id.
    single_try: Any
    signer: S3Signer
    has_credentials: bool  #: False: boto3 found none, and these clients will not look again


def make_clients(access: S3Access) -> S3Clients:
    """The clients of a store. Sends no request, except to look up ambient credentials."""
    basis = get_session()
    if access.access_key is not None:  # AWS_PROFILE may then name none of this host
        basis.session_var_map["profile"] = (None, None, None, None)
    loader = description_loader(basis.get_config_variable("data_path"))
    basis.register_component("data_loader", loader)
    basis.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=timestamp)
    session = boto3.session.Session(
        botocore_session=basis,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        aws_session_token=access.session_token,
        region_name=access.region,
        profile_name=access.profile,
    )
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)  # boto3 1.44.5 adds its own for each session
    make = partial(_make_client, session, user_agent=_user_agent(basis))
    retrying, single_try = make(access, access.max_attempts), make(access, 1)
    single_try.meta.events.register_last("needs-retry.s3", _refuse_redirect)
    signer = S3Signer(access.of_urls, basis)
    if not access.verify:
        logger.warning("TLS certificates of the store are not verified", extra={"endpoint": access.url})
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # else one for each request
    return S3Clients(retrying, single_try, signer, has_credentials=session.get_credentials() is not None)


def _user_agent(session: Any) -> str:
    """The header of all requests. botocore else puts it together twice for each: a tenth of a small request's CPU."""
    app_id = session.get_config_variable("user_agent_appid")
    own: str = session.user_agent().removesuffix(f" {session.user_agent_extra}")  # which botocore adds by itself
    return own + (f" app/{app_id}" if app_id else "")


def _make_client(session: Any, access: S3Access, max_attempts: int, *, user_agent: str) -> Any:
    verify = access.verify and (access.ca_file or None)  # None: AWS_CA_BUNDLE, or the well-known authorities
    client = session.client(
        "s3",
        endpoint_url=access.url,
        use_ssl=access.secure,
        verify=verify,
        config=_config(access, max_attempts, user_agent),
    )
    # botocore sends "Expect: 100-continue" with every file-like body: one more round trip per part. It has
    # no setting against it (botocore 1.44.5); no upstream report found.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    client.meta.events.register("before-call.s3.DeleteObjects", _send_content_md5)
    client.meta.events.register("before-parameter-build.s3", _take_expires)
    client.meta.events.register("before-call.s3", _send_expires)
    client.meta.events.register("before-send.s3", _before_attempt)
    client.meta.events.register("before-send.s3", _send_utf8)
    time_out_without_progress(client, access.read_timeout)
    return client


def _config(access: S3Access, max_attempts: int, user_agent: str) -> Config:
    return Config(
        signature_version=SIGNATURE_VERSION,
        user_agent=user_agent,
        s3={
            "addressing_style": "virtual" if access.virtual_host else "path" if access.path_style else "auto",
            # Parts carry their own checksum; a SHA-256 for the signature would double the CPU time.
            "payload_signing_enabled": access.sign_payload,
        },
        # "when_supported" adds CRC32 trailers, which compatible stores refuse or, worse, store as content.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": max_attempts},
        max_pool_connections=access.max_pool_connections,
        connect_timeout=access.connect_timeout,
        read_timeout=access.read_timeout,
        tcp_keepalive=True,
        proxies=access.proxies,
    )


#: botocore's operations by the verbs of :class:`~worker.stores.store.Store`; the others by botocore's own names.
_VERBS: Final = {
    "PutObject": "put",
    "GetObject": "get",
    "HeadObject": "head",
    "GetObjectTagging": "get_tags",
    "CopyObject": "copy",
    "ListObjectsV2": "list",
    "DeleteObject": "delete",
    "DeleteObjects": "delete_batch",
    "CreateMultipartUpload": "create_upload",
    "UploadPart": "upload_part",
    "UploadPartCopy": "copy_part",
    "ListParts": "list_parts",
    "CompleteMultipartUpload": "complete_upload",
    "AbortMultipartUpload": "abort_upload",
    "ListMultipartUploads": "list_uploads",
}


def _before_attempt(event_name: str, **_: Any) -> None:
    operation = event_name.rpartition(".")[2]
    before_attempt(_VERBS.get(operation, operation))


def _take_expires(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    # botocore sends Expires only as a date of its own spelling, and many blobs have "0" or "-1".
    context["expires_text"] = params.pop("ExpiresText", None)


def _send_expires(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    if context.get("expires_text") is not None:
        params["headers"]["Expires"] = context["expires_text"]


def _send_utf8(request: Any, **_: Any) -> None:
    # The signature is over UTF-8, but http.client would send Latin-1, and refuse what that lacks.
    for name, value in request.headers.items():
        if isinstance(value, str) and not value.isascii():
            request.headers[name] = value.encode()


def _refuse_redirect(request_dict: dict[str, Any], operation: Any, **_: Any) -> None:
    """Called after botocore has learned the bucket's region from a redirect, right before it sends the request again.

    An error ends the call. The next one goes to that region at once.
    """
    if request_dict["context"].get("s3_redirect", {}).get("redirected"):
        raise StoreUnavailableError(f"s3: {operation.name} was redirected to the bucket's region: check region")


def _send_content_md5(params: dict[str, Any], **_: Any) -> None:
    # DeleteObjects requires a checksum, and Content-MD5 is accepted by AWS and by every compatible store.
    # botocore no longer sends it: https://github.com/boto/boto3/issues/4392.
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
    checksum = params["context"].get("checksum", {})
    checksum.pop("request_algorithm", None)
    checksum.pop("request_algorithm_header", None)
