"""What a store lacks, found out by probing, as the lines to paste into its section of the configuration."""

from collections.abc import Iterator
from contextlib import suppress

from worker.doctor.bench import SMALL, Bench
from worker.doctor.findings import Finding
from worker.errors import BlobferryError, InvalidPartError, InvalidStoreRequestError, NotSupportedError
from worker.stores.blob_values import BlobOptions
from worker.stores.s3.providers import CAPABILITY_SETTINGS
from worker.stores.store import Store
from worker.transfer.probe import PROBED, holds

_TAGGED = BlobOptions(tags={"blobferry-probe": "1"})


def examine_lacks(store: Store, prefix: str, where: str) -> Iterator[Finding]:
    """Probe all capabilities below the prefix. Yields the settings that spare the workers finding these out."""
    bench = Bench(store, prefix)
    try:
        for capability in PROBED:
            holds(store, capability)
        _try_headers(bench)
        takes_unequal_parts = store.limits.equal_parts or _takes_unequal_parts(bench)
    except BlobferryError as error:
        yield Finding(where, "settings", "broken", f"what the store lacks cannot be found out: {error}")
        return
    finally:
        bench.clean()
    lines = [f"{name} = false" for name, needed in CAPABILITY_SETTINGS.items() if needed & store.capabilities.missing]
    if not takes_unequal_parts:
        lines.append('part_sizes = "equal"')
    says = f"the store lacks something, so set in its section: {'; '.join(lines)}" if lines else ""
    yield Finding(where, "settings", "missing" if lines else "ok", says)


def _try_headers(bench: Bench) -> None:
    """Send the requests whose optional parameters are left out once they are refused."""
    key = bench.key()
    bench.store.put(key, SMALL, checksum=bench.checksum(SMALL), options=_TAGGED)
    bench.store.head(key)
    bench.store.delete_batch([key, bench.key()])
    with suppress(NotSupportedError):
        list(bench.store.list_uploads(key))


def _takes_unequal_parts(bench: Bench) -> bool:
    """Whether the second of three parts may be smaller than the first."""
    try:
        bench.upload(bench.key(), bench.first_part + SMALL, bench.first_part, SMALL)
    except (InvalidPartError, InvalidStoreRequestError):
        return False
    return True
