"""How a bucket's server is reached: checked when it is made, without a request."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from blobferry.signing.s3_signer import UrlAccess, check_endpoint, check_profile, with_scheme
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
        check_endpoint("regionendpoint", self.url)
        check_endpoint("publicendpoint", self.of_urls.url)
        for url in (self.proxies or {}).values():
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise ConfigurationError("proxies", "each must be a URL such as http://proxy:3128")
        _check_ca_file(self.ca_file, verify=self.verify)
        check_profile(self.profile, has_keys=self.access_key is not None)

    @property
    def url(self) -> str | None:
        """The endpoint with its scheme; None for AWS."""
        return with_scheme(self.endpoint, secure=self.secure)

    @property
    def of_urls(self) -> UrlAccess:
        """The endpoint that signed URLs name, with who signs them."""
        return UrlAccess.at(
            endpoint=self.endpoint,
            public_endpoint=self.public_endpoint,
            path_style=self.path_style,
            virtual_host=self.virtual_host,
            secure=self.secure,
            region=self.region,
            access_key=self.access_key,
            secret_key=self.secret_key,
            session_token=self.session_token,
            profile=self.profile,
        )


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
