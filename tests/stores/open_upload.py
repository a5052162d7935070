"""An upload in parts that a test has open."""

from typing import Any

from worker.stores.blob_values import BlobOptions, Body, PartReceipt, PutReceipt
from worker.stores.store import Store


class OpenUpload:
    """An upload to a key, and the receipts of the parts that were sent."""

    def __init__(self, store: Store, key: str, *pieces: bytes, options: BlobOptions | None = None) -> None:
        self.store = store
        self.key = key
        self.id = store.create_upload(key, options=options)
        self.parts = [self.send(number, piece) for number, piece in enumerate(pieces, 1)]

    def send(self, number: int, body: Body | bytes, **keywords: Any) -> PartReceipt:
        return self.store.upload_part(self.key, self.id, number, body, **keywords)

    def copy(self, number: int, source: str, offset: int, size: int, **keywords: Any) -> PartReceipt:
        return self.store.copy_part(self.key, self.id, number, source, offset, size, **keywords)

    def listed(self) -> list[PartReceipt]:
        return list(self.store.list_parts(self.key, self.id))

    def complete(self, *parts: PartReceipt, **keywords: Any) -> PutReceipt:
        """Complete it with these parts; without any, with those that it was made with."""
        return self.store.complete_upload(self.key, self.id, list(parts) or self.parts, **keywords)

    def abort(self) -> None:
        self.store.abort_upload(self.key, self.id)
