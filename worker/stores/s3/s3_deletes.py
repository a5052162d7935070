"""Deletes of the S3 store. Nothing repeats them: whoever knows the lease looks first."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from worker.errors import InvalidStoreRequestError, KeyNotFoundError, NotSupportedError, StoreError
from worker.stores.attempts import in_this_context
from worker.stores.blob_values import DeleteFailure, Limits
from worker.stores.capabilities import Capability
from worker.stores.s3.request_params import Params, sent_etag, without_none
from worker.stores.s3.s3_bucket import S3Bucket
from worker.stores.s3.s3_errors import code_of, s3_errors

_NOT_IN_XML: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

_THREADS: Final = 8  #: that delete keys one by one


class S3Deletes:
    """The delete methods of :class:`~worker.stores.store.Store`, for one bucket."""

    def __init__(self, bucket: S3Bucket, limits: Limits) -> None:
        self._bucket = bucket
        self._limits = limits

    def delete_batch(
        self, keys: Sequence[str], *, if_match: str | None = None, etags: Mapping[str, str] | None = None
    ) -> list[DeleteFailure]:
        """See :meth:`~worker.stores.store.Store.delete_batch`."""
        if if_match is not None:
            (key,) = keys
            self._delete(key, if_match)
            return []
        self._limits.check_delete("s3", keys)
        # One such key would make the whole XML request invalid.
        alone = [key for key in keys if _NOT_IN_XML.search(key)] if self._has_batches else list(keys)
        together = [key for key in keys if key not in set(alone)]
        failures = self._delete_together(together, etags or {}) if together else []
        return failures + self._delete_each(alone, etags or {})

    @property
    def _has_batches(self) -> bool:
        return self._bucket.capabilities.has(Capability.BATCH_DELETE)

    def _delete_together(self, keys: Sequence[str], etags: Mapping[str, str]) -> list[DeleteFailure]:
        capabilities, is_conditional = self._bucket.capabilities, Capability.BATCH_DELETE_IF_MATCH
        try:
            return self._send(keys, etags if capabilities.has(is_conditional) else {})
        except (NotSupportedError, InvalidStoreRequestError) as refusal:
            if etags and capabilities.has(is_conditional):
                try:
                    failures = self._send(keys, {})
                except (NotSupportedError, InvalidStoreRequestError):
                    pass
                else:
                    capabilities.miss(is_conditional, reason=str(refusal))
                    return failures
            failures = self._delete_each(keys, etags)
            if len(failures) < len(keys):
                capabilities.miss(Capability.BATCH_DELETE, reason=str(refusal))
            return failures

    def _send(self, keys: Sequence[str], etags: Mapping[str, str]) -> list[DeleteFailure]:
        objects = [without_none(Key=key, ETag=sent_etag(etags.get(key)) or None) for key in keys]
        with s3_errors(f"delete {len(keys)} keys, the first", bucket=self._bucket.name, key=keys[0]):
            answer: Params = self._bucket.client_without_retries.delete_objects(
                Bucket=self._bucket.name, Delete={"Objects": objects, "Quiet": True}
            )
        return [
            DeleteFailure(item.get("Key", ""), item.get("Code", ""), item.get("Message", ""))
            for item in answer.get("Errors", [])
            if item.get("Code") != "NoSuchKey"
        ]

    def _delete_each(self, keys: Sequence[str], etags: Mapping[str, str]) -> list[DeleteFailure]:
        """Delete keys by requests of their own. Raises what another try may mend."""
        if not keys:
            return []
        with ThreadPoolExecutor(min(_THREADS, len(keys)), thread_name_prefix="delete") as executor:
            tasks = [executor.submit(in_this_context(partial(self._delete_alone, key, etags.get(key)))) for key in keys]
        return [failure for task in tasks if (failure := task.result())]

    def _delete_alone(self, key: str, etag: str | None) -> DeleteFailure | None:
        capabilities = self._bucket.capabilities
        is_conditional = capabilities.has(Capability.DELETE_IF_MATCH) and capabilities.has(
            Capability.BATCH_DELETE_IF_MATCH
        )
        try:
            if is_conditional and etag:
                self._delete_if(key, etag)
            else:
                self._delete(key, None)
        except StoreError as error:
            if error.transient:
                raise
            return DeleteFailure(key, code_of(error) or error.code, str(error))
        return None

    def _delete_if(self, key: str, etag: str) -> None:
        try:
            self._delete(key, etag)
        except (NotSupportedError, InvalidStoreRequestError) as refusal:
            self._delete(key, None)  # raises if it is not the condition that is refused
            self._bucket.capabilities.miss(Capability.DELETE_IF_MATCH, reason=str(refusal))

    def _delete(self, key: str, if_match: str | None) -> None:
        # No ``condition`` for s3_errors: NoSuchKey means that the key is already gone, not that If-Match failed.
        try:
            with s3_errors("delete", bucket=self._bucket.name, key=key):
                self._bucket.client_without_retries.delete_object(
                    Bucket=self._bucket.name, Key=key, **without_none(IfMatch=sent_etag(if_match))
                )
        except KeyNotFoundError:
            return
