"""Answers of the sink, and how they are written: XML, listings, errors."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from bench.sink.blob_table import BlobTable

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(slots=True)
class Answer:
    """An answer. ``size``: of a content that is generated, or that HEAD does not send; None: that of ``content``."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    size: int | None = None
    sends_from: int | None = None  #: the offset from which content is generated


class Refusal(Exception):
    """An error of S3."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self._status = status
        self._code = code

    def answer(self) -> Answer:
        """The error as S3 writes it."""
        content = f"<Error><Code>{self._code}</Code><Message>{self._code}</Message></Error>".encode()
        return Answer(self._status, {"Content-Type": "application/xml"}, content)


def element(name: str, text: str = "") -> ElementTree.Element:
    """An element with a text."""
    made = ElementTree.Element(name)
    made.text = text or None
    return made


def xml(name: str, *children: ElementTree.Element) -> Answer:
    """The answer that is a document of S3."""
    root = ElementTree.Element(name, {"xmlns": NAMESPACE})
    root.extend(children)
    content = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return Answer(200, {"Content-Type": "application/xml"}, content)


def iso(seconds: float) -> str:
    """A time as S3's documents show it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def text_of(parent: ElementTree.Element, name: str) -> str:
    """The text of a child of the document; "" if there is none."""
    return parent.findtext(f"{{*}}{name}") or ""


def listing(table: BlobTable, query: Mapping[str, str], *, is_first_version: bool = False) -> Answer:
    """A page of the keys: ListObjectsV2, or the first version of that request."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    most = min(int(query.get("max-keys") or 1000), 1000)
    after = query.get("marker" if is_first_version else "continuation-token") or query.get("start-after", "")
    written = quote if query.get("encoding-type") == "url" else str
    contents: list[str] = []
    prefixes: dict[str, None] = {}
    last, is_truncated = "", False
    for key in table.after(max(prefix, after)):
        if not key.startswith(prefix):
            break
        directory = (
            key[: key.index(delimiter, len(prefix)) + 1] if delimiter and delimiter in key[len(prefix) :] else ""
        )
        if key <= after or (directory and (directory <= after or directory in prefixes)):
            continue
        if len(contents) + len(prefixes) >= most:
            is_truncated = True
            break
        last = directory or key
        if directory:
            prefixes[directory] = None
            continue
        blob = table.blobs[key]
        contents.append(
            f"<Contents><Key>{_escaped(written(key))}</Key><LastModified>{iso(blob.modified)}</LastModified>"
            f"<ETag>&quot;{blob.etag}&quot;</ETag><Size>{blob.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    token = "NextMarker" if is_first_version else "NextContinuationToken"
    content = (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="{NAMESPACE}">'
        f"<Prefix>{_escaped(written(prefix))}</Prefix><MaxKeys>{most}</MaxKeys><EncodingType>url</EncodingType>"
        f"<KeyCount>{len(contents) + len(prefixes)}</KeyCount><IsTruncated>{str(is_truncated).lower()}</IsTruncated>"
        + (f"<{token}>{_escaped(last)}</{token}>" if is_truncated else "")
        + "".join(contents)
        + "".join(f"<CommonPrefixes><Prefix>{_escaped(written(name))}</Prefix></CommonPrefixes>" for name in prefixes)
        + "</ListBucketResult>"
    )
    return Answer(200, {"Content-Type": "application/xml"}, content.encode())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
