"""The URLs of a client: signed in this process where the parameters of the storage are known, else by a worker."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from blobferry.checks.arguments import check_storage
from blobferry.checks.paths import MAX_PATHS, key_of
from blobferry.checks.url_options import check_url_options
from blobferry.contract import check_request
from blobferry.errors import (
    ConfigurationError,
    InvalidRequestError,
    UnsupportedMethodError,
)
from blobferry.signing.configured_storages import can_sign
from blobferry.signing.s3_signer import S3Signer, UrlAccess, encryption_params, signing_errors
from blobferry.signing.signed_url import SignedUrl
from blobferry.signing.storage_parameters import WITHOUT_URLS, UrlParameters
from blobferry.signing.url_terms import UrlTerms, given_options

Storages = Mapping[str, Mapping[str, Any]]
Options = Mapping[str, Any]
_S3: Final = "s3"


class Ask(Protocol):
    """Has a worker answer a read."""

    def __call__(self, operation: str, arguments: Mapping[str, Any], timeout: float) -> Any: ...  # noqa: D102


class BlobUrls:
    """Signs URLs, or has them signed. Thread-safe; may be made before a fork."""

    def __init__(self, storages: Storages | None, keys: str, ask: Ask) -> None:
        """``storages``: their parameters by name, as the worker has them. Raises ConfigurationError."""
        if storages and not can_sign():
            raise ConfigurationError("storages", "signing URLs needs botocore: pip install 'blobferry[signing]'")
        self._here = _signing(storages or {}, keys)
        self._keys, self._ask = keys, ask

    def of(self, paths: Iterable[str], options: Options | None, storage: str, timeout: float) -> list[SignedUrl]:
        """The URL of each path, in order. Raises what ``Driver.url_for`` raises, UnreachableError."""
        if isinstance(paths, str | bytes):
            raise InvalidRequestError("paths: needs several paths; url_for takes one")
        listed = list(paths)
        checked = check_url_options("options", options or {})  # once, so that all expire at the same moment
        asked = {"options": checked, "storage": storage}
        batches = [listed[first : first + MAX_PATHS] for first in range(0, len(listed), MAX_PATHS)]
        here = self._here.get(storage)
        if here is None and len(listed) == 1 and checked.get("method") != "PUT":  # as workers of any version do
            return [SignedUrl(self._ask("url_for", {"path": listed[0], **asked}, timeout))]
        return [url for batch in batches for url in self._of_batch(here, {"paths": batch, **asked}, timeout)]

    def _of_batch(self, here: "SigningStorage | None", asked: Mapping[str, Any], timeout: float) -> Iterable[SignedUrl]:
        if here is None:
            answer = self._ask("urls_for", asked, timeout)
            return [SignedUrl(url, answer["headers"]) for url in answer["urls"]]
        request = check_request("urls_for", asked, keys="any" if "any" in (here.keys, self._keys) else "registry")
        options = given_options(request.arguments["options"])
        return [here.sign(path, options) for path in request.arguments["paths"]]


class SigningStorage:
    """A storage whose URLs this process signs, by the rules of the worker's driver."""

    def __init__(self, parameters: UrlParameters) -> None:
        self._parameters = given = parameters
        self.keys = given.keys  #: which paths there are
        self._put_params = encryption_params(encrypt=given.encrypt, keyid=given.keyid)
        if given.storageclass:
            self._put_params |= {"StorageClass": given.storageclass}
        access = UrlAccess.at(
            endpoint=given.regionendpoint,
            public_endpoint=given.publicendpoint,
            path_style=given.forcepathstyle,
            secure=given.secure,
            region=given.region,
            access_key=given.accesskey,
            secret_key=given.secretkey,
            session_token=given.sessiontoken,
            profile=given.profile,
        )
        self._signer = S3Signer(access)

    def sign(self, path: str, options: Options) -> SignedUrl:
        """The URL of a path; ``expiry`` of the options is an aware datetime."""
        given = self._parameters
        key = key_of(
            path, root="" if given.driver in WITHOUT_URLS else given.rootdirectory, keys=given.keys, driver=given.driver
        )
        if given.driver in WITHOUT_URLS:
            terms = UrlTerms.of(options, driver=given.driver, path=path)
            raise UnsupportedMethodError(terms.method, given.driver, "blobs have no URLs here")
        with signing_errors(given.bucket, key):
            self._signer.prepare()
            terms = UrlTerms.of(options, driver=given.driver, path=path)
            return self._signer.sign(terms, given.bucket, key, self._put_params)


def _signing(storages: Storages, keys: str) -> dict[str, SigningStorage]:
    """Those storages whose URLs can be signed here: a driver of the worker's own has rules of its own."""
    found = {}
    for name, given in storages.items():
        try:
            check_storage("storages", name)
        except InvalidRequestError as error:
            raise ConfigurationError("storages", str(error)) from None
        parameters = UrlParameters.parse(given, name=name, keys=keys)
        if parameters.driver in (_S3, *WITHOUT_URLS):
            found[name] = SigningStorage(parameters)
    return found
