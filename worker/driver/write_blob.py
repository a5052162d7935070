"""The write rule: ``old[:offset] + zeros(up to offset) + data``."""

from dataclasses import replace

from blobferry.checks.arguments import MARK_NAME
from worker.driver.storage import Storage
from worker.transfer.checkpoint import VisibleVersion
from worker.transfer.sources.blob_source import BlobSource
from worker.transfer.sources.patience import Patience
from worker.transfer.sources.reader_stream import ReaderStream
from worker.transfer.sources.source import MemorySource, Source
from worker.transfer.sources.splice import Splice
from worker.transfer.upload.server_copy import CopiedPrefix
from worker.transfer.upload.target import Target
from worker.transfer.visible import look


def write_at(storage: Storage, target: Target, path: str, offset: int, data: Source | ReaderStream) -> None:
    """Write by the rule above. Raises SupersededError, SourceChangedError if the old blob is replaced meanwhile.

    Args:
        storage: of the target.
        target: where to write. Above offset 0 its options update those of the old blob, which are kept.
        path: of the target, for messages.
        offset: in bytes; the old blob is read or copied up to here.
        data: what follows the offset.
    """
    old = prefix = None
    if offset:
        seen = look(storage.store, target.key)
        target = replace(target, onto=VisibleVersion.of(seen))
        if seen is not None:
            patience, prefix = Patience.of_run(target.stop), CopiedPrefix.of(seen, offset)
            old = BlobSource(storage.store, target.key, path, head=seen, patience=patience)
            old_options = storage.store.options_of(target.key).without(MARK_NAME)
            target = replace(target, options=old_options.updated(target.options))
    if isinstance(data, ReaderStream):
        before = Splice(old, offset, MemorySource(b""))
        storage.engine.write_reader(target, data, before, prefix=prefix, copying=storage.copying)
    else:
        source = Splice(old, offset, data) if offset else data
        storage.engine.write(target, source, prefix=prefix, copying=storage.copying)
