"""Object stores. They know keys, ETags and checksums; no paths, no jobs, no files.

A new kind of store is a folder here with a class that has the methods of :class:`~worker.stores.store.Store`, a
constructor in :mod:`~worker.stores.open_store`, and a line in the contract suite, tests/stores/conftest.py.
"""
