"""Translates what a blob carries besides its bytes into boto3's parameters, and boto3's answers back."""

from contextlib import suppress
from dataclasses import dataclass
from email.header import Header
from typing import Final
from urllib.parse import urlencode

from blobferry.signing.s3_signer import encryption_params
from worker.errors import NotSupportedError
from worker.stores.blob_values import DEFAULT_CONTENT_TYPE, BlobOptions
from worker.stores.s3.request_params import Params, user_metadata, without_none

#: Of these and the content type, a copy keeps the source's by itself. ``ExpiresText`` is a parameter of our own client.
_HEADERS: Final = {
    "Cache-Control": "CacheControl",
    "Content-Disposition": "ContentDisposition",
    "Content-Encoding": "ContentEncoding",
    "Content-Language": "ContentLanguage",
    "Expires": "ExpiresText",
}
_REDIRECT: Final = "x-amz-website-redirect-location"
_ACL: Final = {
    "x-amz-acl": "ACL",
    "x-amz-grant-full-control": "GrantFullControl",
    "x-amz-grant-read": "GrantRead",
    "x-amz-grant-read-acp": "GrantReadACP",
    "x-amz-grant-write-acp": "GrantWriteACP",
}


def option_params(options: BlobOptions | None) -> Params:
    """Content type, user metadata, response headers and access."""
    options = options or BlobOptions()
    headers = {_HEADERS[name]: value for name, value in options.headers.items() if name in _HEADERS}
    params = without_none(
        ContentType=options.content_type or DEFAULT_CONTENT_TYPE,
        Metadata={name: _metadata_value(value) for name, value in options.metadata.items()} or None,
    )
    return headers | params | uncopied_params(options)


def uncopied_params(options: BlobOptions) -> Params:
    """What a copy never takes over by itself, apart from storage class and encryption."""
    acl = {_ACL[name]: value for name, value in options.acl.items() if name in _ACL}
    return acl | without_none(WebsiteRedirectLocation=options.headers.get(_REDIRECT))


def tag_params(options: BlobOptions | None) -> Params:
    """Tags."""
    return without_none(Tagging=urlencode((options and options.tags) or {}) or None)


def blob_options(key: str, answer: Params, *, tags: dict[str, str] | None, acl: dict[str, str]) -> BlobOptions:
    """The options that an answer to HEAD describes. Raises NotSupportedError if it cannot show all of them."""
    if answer.get("MissingMeta"):
        raise NotSupportedError(
            f"s3: {answer['MissingMeta']} entries of the metadata of {key!r} cannot be read as HTTP headers, and would "
            "be lost: write the blob anew without them"
        )
    shown = answer | {"ExpiresText": answer.get("ExpiresString")}
    headers = {name: _text(shown[field]) for name, field in _HEADERS.items() if shown.get(field)}
    redirect = answer.get("WebsiteRedirectLocation")
    return BlobOptions(
        content_type=answer.get("ContentType"),
        metadata=user_metadata(answer),
        tags=tags,
        headers=headers | ({_REDIRECT: _text(redirect)} if redirect else {}),
        acl=acl,
        storage_class=answer.get("StorageClass"),
        encryption=answer.get("ServerSideEncryption"),
        encryption_key=answer.get("SSEKMSKeyId"),
        encryption_bucket_key=answer.get("BucketKeyEnabled"),
    )


def _text(header: str) -> str:
    """A header as it was sent: botocore decodes all as Latin-1, but programs and stores send UTF-8."""
    with suppress(UnicodeError):
        return header.encode("latin-1").decode()
    return header


def _metadata_value(value: str) -> str:
    """A metadata value as an HTTP header: text beyond ASCII is encoded as S3 returns it. Source: RFC 2047.

    botocore refuses it otherwise: https://github.com/boto/botocore/issues/2552.
    """
    return value if value.isascii() else Header(_text(value), "utf-8", maxlinelen=10_000).encode()


@dataclass(frozen=True, slots=True)
class WriteDefaults:
    """Storage class and encryption that the storage is configured with; they win over a blob's own."""

    encrypt: bool = False
    keyid: str | None = None  #: of the KMS key; None: the store's own key
    storageclass: str | None = None

    def params(self, options: BlobOptions | None) -> Params:
        """The parameters for a blob with these options."""
        options = options or BlobOptions()
        encryption: Params = {**encryption_params(encrypt=self.encrypt, keyid=self.keyid)}
        if not self.encrypt:
            encryption = without_none(
                ServerSideEncryption=options.encryption,
                SSEKMSKeyId=options.encryption_key,
                BucketKeyEnabled=options.encryption_bucket_key,
            )
        return without_none(StorageClass=self.storageclass or options.storage_class) | encryption
