"""Signed URLs of a driver: the store signs what the options ask for."""

from collections.abc import Mapping
from typing import Any

from blobferry.signing.signed_url import SignedUrl
from blobferry.signing.url_terms import UrlTerms
from worker.errors import NotSupportedError, UnsupportedMethodError
from worker.stores.store import Store


def sign(store: Store, key: str, path: str, options: Mapping[str, Any]) -> SignedUrl:
    """A URL for the key; ``options`` as in Driver.url_for. Raises UnsupportedMethodError, InvalidRequestError."""
    terms = UrlTerms.of(options, driver=store.name, path=path)
    try:
        return store.presign(terms.method, key, terms.seconds, terms.headers)
    except NotSupportedError as error:
        raise UnsupportedMethodError(terms.method, store.name, "blobs have no URLs here") from error
