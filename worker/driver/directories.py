"""Directories, which stores do not have: derived from the keys below a prefix."""

from worker.stores.store import Store


def children(store: Store, prefix: str, path: str, *, recursive: bool = False) -> list[str] | None:
    """The paths of a directory's direct children, once each, in byte order; None if nothing is under the prefix.

    ``prefix`` ends with a slash, or is empty for the root of a bucket. A key equal to the prefix is the marker of the
    directory, not a child. Keys below an empty name, ``a//b``, are not children either. ``recursive``: the blobs at
    any depth instead, without the markers of directories.
    """
    names: set[str] = set()
    found = False
    token = None
    while True:
        page = store.list_page(prefix, delimiter="" if recursive else "/", token=token)
        found = found or bool(page.entries or page.prefixes)
        names.update(entry.key[len(prefix) :] for entry in page.entries)
        names.update(inner[len(prefix) : -1] for inner in page.prefixes)
        token = page.next_token
        if token is None:
            break
    if recursive:
        names = {name for name in names if all(name.split("/"))}
    names.discard("")
    directory = path.rstrip("/")
    return [f"{directory}/{name}" for name in sorted(names, key=str.encode)] if found else None


def is_directory(store: Store, prefix: str) -> bool:
    """Whether anything is under the prefix."""
    token = None
    while True:
        page = store.list_page(prefix, token=token, limit=1)
        if page.entries or page.next_token is None:
            return bool(page.entries)
        token = page.next_token  # an empty page need not be the last
