"""What not every store can do: each is a named capability, left out of requests once the store was seen to lack it."""

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Protocol, runtime_checkable

logger = logging.getLogger(__name__)


class Capability(StrEnum):
    """Something optional that a request carries, or an optional request. The value is the name in settings and SQL."""

    PUT_IF_MATCH = "put_if_match"
    PUT_IF_NONE_MATCH = "put_if_none_match"
    COPY_IF_MATCH = "copy_if_match"  #: about the destination
    COPY_IF_NONE_MATCH = "copy_if_none_match"
    COMPLETE_IF_MATCH = "complete_if_match"
    COMPLETE_IF_NONE_MATCH = "complete_if_none_match"
    DELETE_IF_MATCH = "delete_if_match"  #: of DeleteObject
    BATCH_DELETE_IF_MATCH = "batch_delete_if_match"  #: the ETag of a key in DeleteObjects
    COPY_SOURCE_CONDITION = "copy_source_condition"
    CHECKSUM = "checksum"  #: x-amz-checksum-* headers
    CHECKSUM_MODE = "checksum_mode"  #: x-amz-checksum-mode of HEAD
    UPLOAD_SIZE = "upload_size"  #: x-amz-mp-object-size of a completion
    TAGGING = "tagging"  #: tags and x-amz-tagging-directive
    METADATA = "metadata"  #: user metadata of a blob is kept
    COPY_OPTIONS = "copy_options"  #: a copy carries the metadata that it is given
    BATCH_DELETE = "batch_delete"  #: DeleteObjects
    ACL = "acl"  #: GetObjectAcl
    LIST_UPLOADS = "list_uploads"  #: ListMultipartUploads


class Capabilities:
    """What one store lacks or has, as configured or seen. What is not known is taken for granted. Thread-safe."""

    def __init__(self, missing: Iterable[Capability] = (), *, confirmed: Iterable[Capability] = ()) -> None:
        self._lock = threading.Lock()
        self._missing = set(missing)
        self._confirmed = set(confirmed) - self._missing
        self._when_missed: Callable[[Capability, str], None] | None = None
        #: The directory below which probes put their blobs, without slashes at its ends; "" is the whole store.
        self.probes_below = ""

    def has(self, capability: Capability) -> bool:
        """Whether the store is not known to lack it."""
        return capability not in self._missing

    def is_known(self, capability: Capability) -> bool:
        """Whether it was seen that the store has it, or that it lacks it."""
        return capability in self._confirmed or capability in self._missing

    def confirm(self, capability: Capability) -> None:
        """Note that the store was seen to have it."""
        self._confirmed.add(capability)

    @property
    def missing(self) -> frozenset[Capability]:
        """All that the store is known to lack."""
        with self._lock:
            return frozenset(self._missing)

    def miss(self, *capabilities: Capability, reason: str) -> None:
        """Note that the store lacks them. Warns once for each."""
        for capability in capabilities:
            with self._lock:
                if capability in self._missing:
                    continue
                self._missing.add(capability)
            logger.warning("the store lacks a capability", extra={"capability": capability, "reason": reason})
            if self._when_missed is not None:
                self._when_missed(capability, reason)

    def share(self, known: Collection[str], when_missed: Callable[[Capability, str], None]) -> None:
        """Take over what other processes have seen it lack, and tell them from now on.

        ``known``: names of capabilities; those that only a newer worker knows are ignored.
        """
        with self._lock:
            self._missing |= {capability for capability in Capability if capability in known} - self._confirmed
            self._when_missed = when_missed


@runtime_checkable
class HasLifecycle(Protocol):
    """Optional capability: stores that can report their bucket's lifecycle rules."""

    def upload_lifetime(self, key: str) -> timedelta | None:
        """The age at which the bucket's rules abort an unfinished upload at the key; None: never.

        Raises NotSupportedError, PermissionDeniedError.
        """
        ...
