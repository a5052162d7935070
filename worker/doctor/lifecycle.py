"""Whether the bucket itself aborts uploads that nobody finishes: the last net below the ledger."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from worker.doctor.findings import Finding
from worker.errors import NotSupportedError, PermissionDeniedError, StoreError
from worker.stores.capabilities import HasLifecycle
from worker.stores.store import Store

_WHAT: Final = "unfinished uploads expire"
_WITHOUT: Final = (
    "parts of an upload that no worker knows of are billed for ever: "
    "have a lifecycle rule (AbortIncompleteMultipartUpload) abort uploads after {} days"
)


def examine_lifecycle(store: Store, key: str, where: str, kept: timedelta) -> Iterator[Finding]:
    """``kept``: the longest that a job may want to go on with its upload, failed or paused."""
    if not isinstance(store, HasLifecycle):
        return
    days = kept // timedelta(days=1) + 1
    without = _WITHOUT.format(days)
    try:
        lifetime = store.upload_lifetime(key)
    except NotSupportedError:
        yield Finding(where, _WHAT, "missing", f"the store does not know it, so {without}")
    except PermissionDeniedError:
        says = f"the credentials do not allow to look (s3:GetLifecycleConfiguration), so perhaps {without}"
        yield Finding(where, _WHAT, "missing", says)
    except StoreError as error:
        yield Finding(where, _WHAT, "broken", str(error))
    else:
        if lifetime is None:
            yield Finding(where, _WHAT, "missing", f"no rule of the bucket says so, so {without}")
        elif lifetime < kept:
            says = (
                f"a rule aborts them after {lifetime.days} days and jobs keep theirs for {kept / timedelta(days=1):g}, "
                f"so one that is retried or resumed later begins again from byte 0: have it wait for {days} days"
            )
            yield Finding(where, _WHAT, "missing", says)
        else:
            yield Finding(where, _WHAT, "ok", f"after {lifetime.days} days")
