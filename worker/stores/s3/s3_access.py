"""How a bucket's server is reached: checked when it is made, without a request."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from botocore.session import get_session
from botocore.utils import is_valid_endpoint_url, is_valid_ipv6_endpoint_url

from worker.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class S3Access:
    """Endpoint, credentials and connection settings of a bucket's server. Its repr hides secrets."""

    region: str | None = None
    endpoint: str = ""  #: "" is AWS; without a scheme ``secure`` decides
    identity: str | None = None  #: names the endpoint where it is one of several; None: the endpoint itself
    access_key: str | None = field(default=None, repr=False)  #: None: boto3's ambient chain
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    path_style: bool = False  #: True: http://host/bucket/key even where the bucket could be part of the host name
    virtual_host: bool = False  #: True: http://bucket.host/key even where that is not AWS
    secure: bool = True
    public_endpoint: str = ""  #: that signed URLs name; "": the endpoint
    profile: str | None = None  #: of the ambient chain's configuration files
    ca_file: str | None = None  #: PEM file with the certificates that the server's must be signed by
    verify: bool = True  #: False: any certificate will do
    #: URLs by "http" and "https", for endpoints of that scheme; {}: none; None: those of the environment.
    proxies: Mapping[str, str] | None = field(default=None, repr=False)
    sign_payload: bool = False  #: for stores that refuse UNSIGNED-PAYLOAD; costs a SHA-256 of every byte
    max_pool_connections: int = 10  #: at least as many as threads share the client; connections above it are not reused
    connect_timeout: float = 5.0  #: seconds
    read_timeout: float = 60.0  #: seconds without a byte in either direction
    max_attempts: int = 3  #: of one request, the first included

    def __post_init__(self) -> None:
        if (self.access_key is None) != (self.secret_key is None):
            missing = "accesskey" if self.access_key is None else "secretkey"
            raise ConfigurationError(missing, "accesskey and secretkey go together; leave out both for ambient ones")
        _check_endpoint("regionendpoint", self.url)
        _check_endpoint("publicendpoint", self.public_url)
        for url in (self.proxies or {}).values():
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise ConfigurationError("proxies", "each must be a URL such as http://proxy:3128")
        _check_ca_file(self.ca_file, verify=self.verify)
        if self.profile is not None:
            _check_profile(self.profile, has_keys=self.access_key is not None)

    @property
    def url(self) -> str | None:
        """The endpoint with its scheme; None for AWS."""
        return self._with_scheme(self.endpoint)

    @property
    def public_url(self) -> str | None:
        """The endpoint of signed URLs with its scheme; None for the endpoint itself."""
        return self._with_scheme(self.public_endpoint)

    def _with_scheme(self, endpoint: str) -> str | None:
        if not endpoint or "://" in endpoint:
            return endpoint or None
        return f"{'https' if self.secure else 'http'}://{endpoint}"


def _check_endpoint(name: str, url: str | None) -> None:
    # The URL may hold a password: keep it out of the message and of the ledger.
    if url is None:
        return
    if "@" in url or not (is_valid_endpoint_url(url) or is_valid_ipv6_endpoint_url(url)):
        raise ConfigurationError(name, "must be a URL or a host, without user name and password")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ConfigurationError(name, "must be an http or https URL without a query, or a host")


def _check_ca_file(path: str | None, *, verify: bool) -> None:
    if path is None:
        return
    if not verify:
        raise ConfigurationError("ca_file", "is of no use with verify = false: leave out one of the two")
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # an SSLError is one
        problem = "no such file" if isinstance(error, FileNotFoundError) else f"no PEM file with certificates: {error}"
        raise ConfigurationError("ca_file", f"{path}: {problem}") from error


def _check_profile(profile: str, *, has_keys: bool) -> None:
    if has_keys:
        raise ConfigurationError("profile", "is of no use with an accesskey: leave out one of the two")
    known = get_session().available_profiles
    if profile not in known:
        raise ConfigurationError(
            "profile",
            f"{profile!r} is not in the AWS configuration of this host (AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE); "
            f"there are: {', '.join(known) or 'none'}",
        )
