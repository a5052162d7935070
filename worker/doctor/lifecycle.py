"""Whether the bucket itself aborts unfinished uploads: the safety net for uploads that have no row."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from worker.doctor.findings import Finding
from worker.errors import NotSupportedError, PermissionDeniedError, StoreError
from worker.stores.capabilities import HasLifecycle
from worker.stores.store import Store

_WHAT: Final = "unfinished uploads expire"
_WITHOUT: Final = (
    "parts of an upload that has no row are billed for ever: "
    "have a lifecycle rule (AbortIncompleteMultipartUpload) abort uploads after {} days"
)


def examine_lifecycle(store: Store, key: str, where: str, kept: timedelta) -> Iterator[Finding]:
    """Examine the lifecycle rules for ``key``. ``kept``: the longest time that a job keeps an unfinished upload."""
    if not isinstance(store, HasLifecycle):
        return
    days = kept // timedelta(days=1) + 1
    without = _WITHOUT.format(days)
    try:
        lifetime = store.upload_lifetime(key)
    except NotSupportedError:
        yield Finding(where, _WHAT, "missing", f"the store does not support it, so {without}")
    except PermissionDeniedError:
        says = f"unknown, the credentials lack s3:GetLifecycleConfiguration, so perhaps {without}"
        yield Finding(where, _WHAT, "missing", says)
    except StoreError as error:
        yield Finding(where, _WHAT, "broken", str(error))
    else:
        if lifetime is None:
            yield Finding(where, _WHAT, "missing", f"the bucket has no such rule, so {without}")
        elif lifetime < kept:
            says = (
                f"a rule aborts them after {lifetime.days} days and jobs keep theirs for {kept / timedelta(days=1):g}, "
                f"so one that is retried or resumed later begins again from byte 0: set the rule to {days} days"
            )
            yield Finding(where, _WHAT, "missing", says)
        else:
            yield Finding(where, _WHAT, "ok", f"after {lifetime.days} days")
