"""The target: what a transfer writes where, and which blob it may replace."""

from dataclasses import dataclass, replace

from blobferry.checks.arguments import MARK_NAME
from worker.errors import BlobExistsError, SupersededError
from worker.stores.blob_values import BlobOptions
from worker.stores.capabilities import Capability
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, VisibleVersion
from worker.transfer.stop import Stop, never
from worker.transfer.visible import has_room_for_mark, look


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One key of a store, with the checkpoint and the options of the transfer that writes it."""

    store: Store
    key: str
    checkpoint: Checkpoint
    stop: Stop = never
    options: BlobOptions | None = None
    overwrite: bool = True
    #: The version that the new blob builds on; if another one is visible, nothing is committed.
    onto: VisibleVersion | None = None
    #: Replace a blob that appears during the transfer. For plain calls: the last writer wins.
    is_last_writer: bool = False

    @property
    def marked_options(self) -> BlobOptions | None:
        """The options with the job's mark, if the metadata has room for it."""
        options = self.options or BlobOptions()
        mark = self.checkpoint.mark
        if not mark or not has_room_for_mark(options.metadata, mark):
            return self.options  # a moved blob may have that much metadata
        return replace(options, metadata={**options.metadata, MARK_NAME: mark})

    @property
    def replaces_anything(self) -> bool:
        """True if a blob that appears during the transfer is replaced; otherwise it is an error."""
        return self.is_last_writer and self.overwrite and self.onto is None

    def is_recognised(self, kept_by: Capability = Capability.METADATA) -> bool:
        """Whether any later run knows the blob as ours, by the mark that ``kept_by`` was seen to keep with it."""
        options, capabilities = self.marked_options, self.store.capabilities
        is_marked = options is not None and MARK_NAME in options.metadata
        return is_marked and capabilities.is_known(kept_by) and capabilities.has(kept_by)

    def base(self) -> VisibleVersion:
        """Look at the key. Raises BlobExistsError or SupersededError if the visible blob must not be replaced."""
        base = VisibleVersion.of(look(self.store, self.key))
        if self.onto not in (None, base):
            raise SupersededError(f"{self.key}: was replaced during a write onto it; it was left alone")
        if not self.overwrite and not base.is_absent:
            raise BlobExistsError(f"{self.key}: a blob is there already, and overwrite is off")
        return base
