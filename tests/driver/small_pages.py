"""A store that answers listings in small pages: what large directories look like, with a handful of keys."""

from dataclasses import replace
from typing import Any

from tests.doubles import WrappedStore
from worker.stores.store import Store


class SmallPages(WrappedStore):
    """At most ``size`` keys and common prefixes on a page, and at most ``size`` keys in one delete."""

    def __init__(self, store: Store, size: int) -> None:
        super().__init__(store)
        self.limits = replace(store.limits, max_delete=size)
        self.pages = 0
        self.batches: list[int] = []
        self._size = size

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "list_page":
            self.pages += 1
            keywords = keywords | {"limit": min(keywords.get("limit", 1_000), self._size)}
        if name == "delete_batch":
            self.batches.append(len(args[0]))
            assert len(args[0]) <= self._size, "a larger batch than the store takes"
        return super()._do(name, args, keywords)
