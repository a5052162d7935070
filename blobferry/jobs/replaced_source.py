"""Another source for a job that has failed: a presigned URL that was signed anew, another place of the same bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from blobferry.checks.source_urls import check_any_source, check_source
from blobferry.contract import REPLACED_SOURCE, SEALED_REQUEST
from blobferry.errors import ConfigurationError, InvalidRequestError
from blobferry.redaction import is_sealed
from blobferry.sealing import Sealer
from blobferry.spooling.spooled import SpooledName

_ETAG: Final = "etag"  #: of a fingerprint: may be equal at two places without equal bytes
_DATE: Final = "last_modified"  #: the same, also of two files behind one path that were deployed together


@dataclass(frozen=True, slots=True)
class ReplacedSource:
    """The URL that a job reads from its next run on."""

    url: str
    sealer: Sealer

    @classmethod
    def of(cls, url: Any, sealer: Sealer, keys: str = "registry") -> "ReplacedSource":
        """Check the URL; ``keys`` as for :func:`~blobferry.checks.paths.check_path`. Raises InvalidRequestError."""
        check = check_any_source if keys == "any" else check_source
        return cls(check("source", url), sealer)

    def check_operation(self, row: Mapping[str, Any]) -> None:
        """Raise InvalidRequestError if the job has no source that could be replaced."""
        if row["operation"] != "write_stream":
            raise InvalidRequestError(f"source: job {row['id']!r} is a {row['operation']}, which reads no source")

    def is_that_of(self, row: Mapping[str, Any]) -> bool:
        """Whether the job has this source already: this call was made before."""
        kept = str((row["request"] or {}).get("source"))
        try:
            return self.sealer.opened(kept) == self.sealer.opened(self.url)
        except ConfigurationError:  # no key to look inside
            return kept == self.url

    def columns(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of the job's row that change.

        The fingerprint asks the worker to compare the parts that were sent, unless size and digest agree, or size and
        ETag at the same place: two URLs that differ in their query only, as signatures do.
        """
        kept, shown = self.sealer.kept(self.url), self.sealer.shown(self.url)
        known = row["source_fingerprint"]
        if known is not None:
            is_same_place = not is_sealed(shown) and _place(shown) == _place(str(row["source"]))
            dropped = {_DATE} if is_same_place else {_DATE, _ETAG}
            known = {name: value for name, value in known.items() if name not in dropped}
            known[REPLACED_SOURCE] = True
        spooled = SpooledName.of_url(shown)
        return {
            "source": shown,
            "request": {**(row["request"] or {}), "source": kept},
            "request_version": SEALED_REQUEST if is_sealed(kept) else row["request_version"],
            "source_fingerprint": known,
            "spooled": spooled and spooled.name,
            # What was asked of a spooled upload by default was not asked of a file that takes its place.
            "removes_source": spooled is not None or (row["removes_source"] and not row["spooled"]),
        }


def _place(shown: str) -> str:
    return shown.partition("?")[0]
