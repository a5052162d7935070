"""The local store: a bucket in a directory, for a deployment without S3.

Below the directory lie ``index.db``, which says what is stored; ``files``, one for each blob or part; ``journal``, the
lock of all writers; and ``reserve``, which is given up so that a full disk can be cleared.
"""

from worker.stores.local.local_store import LocalStore

__all__ = ["LocalStore"]
