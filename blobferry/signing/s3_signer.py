"""Signs URLs of S3 and of compatible stores, by botocore and without a request."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Final, Self
from urllib.parse import urlsplit

from blobferry.errors import ConfigurationError, CredentialsError, InvalidStoreRequestError
from blobferry.signing.signed_url import SignedUrl
from blobferry.signing.url_terms import UrlTerms

SIGNATURE_VERSION: Final = "s3v4"  # the default presigns URLs with SigV2, which many regions refuse
_OPERATIONS: Final = {"GET": "get_object", "HEAD": "head_object", "PUT": "put_object"}
#: Headers of a PUT by botocore's parameters.
_PUT_HEADERS: Final = {
    "ContentType": "Content-Type",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "StorageClass": "x-amz-storage-class",
}


def with_scheme(endpoint: str, *, secure: bool) -> str | None:
    """The endpoint as a URL; None for "", which is AWS."""
    if not endpoint or "://" in endpoint:
        return endpoint or None
    return f"{'https' if secure else 'http'}://{endpoint}"


def encryption_params(*, encrypt: bool, keyid: str | None) -> dict[str, str]:
    """botocore's parameters of encryption at rest: by the KMS key, or by the store's own key without one."""
    if not encrypt:
        return {}
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": keyid} if keyid else {"ServerSideEncryption": "AES256"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlAccess:
    """The endpoint that URLs name, and who signs them."""

    region: str | None
    url: str | None  #: None: AWS
    addressing: str  #: where the bucket is: "path", "virtual" or botocore's "auto"
    named_by: str  #: the parameter that the URL is from
    secure: bool = True
    access_key: str | None = field(default=None, repr=False)  #: None: the ambient credentials
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None

    @classmethod
    def at(
        cls,
        *,
        endpoint: str,
        public_endpoint: str,
        path_style: bool,
        virtual_host: bool = False,
        secure: bool,
        **others: str | None,
    ) -> Self:
        """The access for an endpoint, or for the public one, if there is one.

        Args:
            endpoint: of the store, "" for AWS.
            public_endpoint: by which others know it; "": they know it by the endpoint.
            path_style: the bucket is in the path of URLs.
            virtual_host: the bucket is in the host, also where botocore would not put it there.
            secure: which scheme an endpoint without one has.
            others: region, credentials and profile.
        """
        # For AWS as well: to "auto" the host is s3.amazonaws.com, which redirects what is for other regions.
        is_virtual = virtual_host if endpoint and not public_endpoint else not path_style
        addressing = "virtual" if is_virtual else "path" if path_style else "auto"
        url = with_scheme(public_endpoint or endpoint, secure=secure)
        named_by = "publicendpoint" if public_endpoint else "regionendpoint"
        return cls(url=url, addressing=addressing, named_by=named_by, secure=secure, **others)


class S3Signer:
    """Signs URLs of one store. Thread-safe; its client is made for the first URL, so it may be made before a fork."""

    def __init__(self, access: UrlAccess, session: Any = None) -> None:
        """``session``: of botocore, whose credentials and caches are used; None: one of its own."""
        self._access, self._session = access, session
        self._lock = threading.Lock()
        self._client: Any = None

    def prepare(self) -> None:
        """Make the client now: made between the look at the clock and the signature, it would prolong the first URL."""
        self._signing_client()

    def sign(self, terms: UrlTerms, bucket: str, key: str, put_params: Mapping[str, str] | None = None) -> SignedUrl:
        """A URL of the key; ``put_params``: what every PUT has to send, as botocore's parameters.

        Raises botocore's errors: there are no credentials, or the bucket cannot have that name.
        """
        params = {"".join(map(str.title, name.split("-"))): value for name, value in terms.headers.items()}
        if terms.method == "PUT":
            params |= put_params or {}
        url = self._signing_client().generate_presigned_url(
            _OPERATIONS[terms.method], Params={"Bucket": bucket, "Key": key, **params}, ExpiresIn=terms.seconds
        )
        return SignedUrl(url, {_PUT_HEADERS[name]: value for name, value in params.items() if name in _PUT_HEADERS})

    def _signing_client(self) -> Any:
        with self._lock:
            if self._client is not None:
                return self._client
            session = self._session or _own_session(self._access)
            client = _make_client(session, self._access)
            # Ambient credentials may appear later.
            self._client = client if session.get_credentials() is not None else None
            return client


@cache
def description_loader(data_path: str | None) -> Any:
    """The loader that parses and caches the megabytes of JSON describing S3: one per process.

    botocore makes one for each session: https://github.com/boto/botocore/issues/3078.
    """
    from botocore.loaders import create_loader  # noqa: PLC0415  only processes that sign have it

    return create_loader(data_path)


def _own_session(access: UrlAccess) -> Any:
    from botocore.session import Session  # noqa: PLC0415  as above

    check_endpoint(access.named_by, access.url)
    check_profile(access.profile, has_keys=access.access_key is not None)
    session = Session(profile=access.profile)
    session.register_component("data_loader", description_loader(session.get_config_variable("data_path")))
    if access.access_key is not None:  # AWS_PROFILE may then name none of this host
        session.session_var_map["profile"] = (None, None, None, None)
    if access.access_key:
        session.set_credentials(access.access_key, access.secret_key, access.session_token)
    return session


def _make_client(session: Any, access: UrlAccess) -> Any:
    from botocore.config import Config  # noqa: PLC0415  as above

    config = Config(
        signature_version=SIGNATURE_VERSION,
        s3={"addressing_style": access.addressing},
        # Else the URL of a PUT would demand a checksum, which a browser computes none of.
        request_checksum_calculation="when_required",
    )
    make = partial(session.create_client, "s3", region_name=access.region, use_ssl=access.secure, config=config)
    client = make(endpoint_url=access.url)
    # Of AWS: the region's own host is in URLs only if it was named.
    return make(endpoint_url=client.meta.endpoint_url) if access.addressing == "path" and not access.url else client


@contextmanager
def signing_errors(bucket: str, key: str) -> Iterator[None]:
    """Raise botocore's errors inside the context as CredentialsError or InvalidStoreRequestError."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError  # noqa: PLC0415  as above

    where = f"s3: cannot sign a URL for {key!r} in bucket {bucket!r}"
    try:
        yield
    except ParamValidationError as error:
        raise InvalidStoreRequestError(f"{where}: {error}") from error
    except (BotoCoreError, ClientError) as error:
        # No request is sent but for credentials. The text may quote the output of a credential process.
        raise CredentialsError(f"{where}: {type(error).__name__}") from error


def check_endpoint(name: str, url: str | None) -> None:
    """Raise ConfigurationError unless the parameter's URL, which may be None, is an endpoint."""
    from botocore.utils import is_valid_endpoint_url, is_valid_ipv6_endpoint_url  # noqa: PLC0415  as above

    # The URL may hold a password: keep it out of the message and of the ledger.
    if url is None:
        return
    if "@" in url or not (is_valid_endpoint_url(url) or is_valid_ipv6_endpoint_url(url)):
        raise ConfigurationError(name, "must be a URL or a host, without user name and password")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ConfigurationError(name, "must be an http or https URL without a query, or a host")


def check_profile(profile: str | None, *, has_keys: bool) -> None:
    """Raise ConfigurationError for a profile that this host does not have, or that keys make useless."""
    from botocore.session import get_session  # noqa: PLC0415  as above

    if profile is None:
        return
    if has_keys:
        raise ConfigurationError("profile", "is of no use with an accesskey: leave out one of the two")
    known = get_session().available_profiles
    if profile not in known:
        raise ConfigurationError(
            "profile",
            f"{profile!r} is not in the AWS configuration of this host (AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE); "
            f"there are: {', '.join(known) or 'none'}",
        )
