"""What is known of providers of S3 and compatible stores: ``provider = "r2"`` stands for all of it.

It only saves the refused requests by which capabilities are found out otherwise. Settings of one capability win.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from worker.stores.blob_values import Limits
from worker.stores.capabilities import Capability

_PUT: Final = frozenset({Capability.PUT_IF_MATCH, Capability.PUT_IF_NONE_MATCH})
_COPY: Final = frozenset({Capability.COPY_IF_MATCH, Capability.COPY_IF_NONE_MATCH})
_COMPLETE: Final = frozenset({Capability.COMPLETE_IF_MATCH, Capability.COMPLETE_IF_NONE_MATCH})
_DELETE: Final = frozenset({Capability.DELETE_IF_MATCH, Capability.BATCH_DELETE_IF_MATCH})
_CONDITIONS: Final = _PUT | _COPY | _COMPLETE | _DELETE
_CHECKSUMS: Final = frozenset({Capability.CHECKSUM, Capability.CHECKSUM_MODE, Capability.UPLOAD_SIZE})
_TAGGING: Final = frozenset({Capability.TAGGING})
_ACL: Final = frozenset({Capability.ACL})

#: Settings of a storage by the capabilities that they are about.
CAPABILITY_SETTINGS: Final[Mapping[str, frozenset[Capability]]] = {
    "conditional_put": _PUT,
    "conditional_copy": _COPY,
    "conditional_complete": _COMPLETE,
    "conditional_delete": _DELETE,
    "copy_source_condition": frozenset({Capability.COPY_SOURCE_CONDITION}),
    "copy_options": frozenset({Capability.COPY_OPTIONS}),
    "tagging": _TAGGING,
    "metadata": frozenset({Capability.METADATA}),
    "checksum_mode": frozenset({Capability.CHECKSUM_MODE}),
    "upload_size": frozenset({Capability.UPLOAD_SIZE}),
    "batch_delete": frozenset({Capability.BATCH_DELETE}),
    "list_uploads": frozenset({Capability.LIST_UPLOADS}),
}


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider, as far as it differs from a store of which nothing is known."""

    missing: frozenset[Capability] = frozenset()
    confirmed: frozenset[Capability] = frozenset()
    limits: Limits = field(default_factory=Limits)


PROVIDERS: Final[Mapping[str, Provider]] = {
    "other": Provider(),
    "aws": Provider(confirmed=frozenset(Capability)),
    # https://developers.cloudflare.com/r2/api/s3/api/ and https://developers.cloudflare.com/r2/objects/multipart-objects/
    "r2": Provider(_TAGGING | _ACL | _COPY | _COMPLETE | _DELETE, _PUT, Limits(equal_parts=True)),
    # https://cloud.google.com/storage/docs/xml-api/reference-headers: conditions are on generations, not on ETags
    "gcs": Provider(_CONDITIONS | _CHECKSUMS | _TAGGING | _ACL | {Capability.BATCH_DELETE}),
    # https://www.backblaze.com/docs/cloud-storage-s3-compatible-api
    "b2": Provider(_CONDITIONS | _CHECKSUMS | _TAGGING),
    "ceph": Provider(),  # from version to version another
    "minio": Provider(confirmed=_PUT | {Capability.METADATA, Capability.COPY_OPTIONS}),
    "wasabi": Provider(),
    "spaces": Provider(),
    # https://www.scaleway.com/en/docs/object-storage/api-cli/multipart-uploads/
    "scaleway": Provider(limits=Limits(max_parts=1_000)),
    # https://docs.openstack.org/swift/latest/s3_compat.html; it compares ETags with one that it does not show
    "swift": Provider(_COPY | _COMPLETE | _DELETE | {Capability.PUT_IF_MATCH, Capability.TAGGING}),
    "oss": Provider(),
}


@dataclass(frozen=True, slots=True)
class KnownStore:
    """What settings and the table say of one store."""

    missing: frozenset[Capability]
    confirmed: frozenset[Capability]
    limits: Limits


def known_store(
    provider: str,
    *,
    settings: Mapping[str, bool | None],
    part_sizes: str | None = None,
    max_parts: int | None = None,
) -> KnownStore:
    """Join the provider's line with a storage's own settings.

    Args:
        provider: a key of PROVIDERS.
        settings: by the names of CAPABILITY_SETTINGS; None: as the provider has it.
        part_sizes: "equal" or "any"; None: as the provider has it.
        max_parts: of one upload, 1 to 10,000; None: as the provider has it.
    """
    known = PROVIDERS[provider]
    missing, confirmed = set(known.missing), set(known.confirmed)
    for name, has in settings.items():
        if has is not None:
            (confirmed if has else missing).update(CAPABILITY_SETTINGS[name])
            (missing if has else confirmed).difference_update(CAPABILITY_SETTINGS[name])
    limits = replace(
        known.limits,
        max_parts=max_parts or known.limits.max_parts,
        equal_parts=known.limits.equal_parts if part_sizes is None else part_sizes == "equal",
    )
    return KnownStore(frozenset(missing), frozenset(confirmed), limits)
